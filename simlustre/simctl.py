"""`simctl`: make a simulated Lustre, fill it, put it in trouble, and judge it.

    python simlustre/simlustre.py init DIR     then     DIR/bin/simctl COMMAND

Exit codes: 0 ok, 1 `verify` found something, 2 usage, 3 the simulation or the rule is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simlustre import audit, install, populate
from simlustre.faults import check_rule
from simlustre.options import indices, size
from simlustre.recovery import recover
from simlustre.state import STATES, Filesystem, State


def main(arguments: Sequence[str], root: str | None = None) -> int:
    """root: SIMROOT as the executable found it; `--root` and `init DIR` name another one."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "init":
            return _init(options)
        place = options.root or os.environ.get("CYCLONE_SIMLUSTRE") or root
        if place is None:
            raise ValueError("which simulation? use SIMROOT/bin/simctl, --root or CYCLONE_SIMLUSTRE")
        if options.command == "reset":
            return _reset(Path(place))
        state = install.open_state(place)
        try:
            return int(options.run(state, options))
        finally:
            state.close()
    except (ValueError, FileNotFoundError, FileExistsError) as error:
        sys.stderr.write(f"simctl {options.command}: {error}\n")
        return 3


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="simctl", description="Control a simulated Lustre.", allow_abbrev=False
    )
    parser.add_argument("--root", help="SIMROOT; default: CYCLONE_SIMLUSTRE, else where this program lies")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    add = commands.add_parser("init", help="make a simulation")
    add.add_argument("directory", type=Path, metavar="DIR")
    add.add_argument(
        "--from", dest="source", type=Path, metavar="FILE", help="a sim.json; all that follows is ignored"
    )
    add.add_argument("--fs", default="lustre", metavar="NAME[,NAME]", help="file systems (lustre)")
    add.add_argument("--osts", type=int, default=12, metavar="N")
    add.add_argument("--first-index", type=int, default=0, metavar="N", help="index of the first OST (0)")
    add.add_argument("--mdts", type=int, default=3, metavar="N")
    add.add_argument(
        "--oss", type=int, default=4, metavar="N", help="servers; OSTs are dealt out to them in turn (4)"
    )
    add.add_argument(
        "--fill", default="30..90", metavar="FROM..TO", help="percent used at the start (30..90)"
    )
    add.add_argument("--ost-size", default="66T", metavar="SIZE", help="size of an OST (66T)")
    add.add_argument("--mbps", type=float, default=800.0, help="MiB/s of an OST (800)")
    add.add_argument("--oss-mbps", type=float, default=1600.0, help="MiB/s of an OSS (1600)")
    add.add_argument("--size-scale", type=float, default=1.0, help="simulated bytes for each real one (1)")
    add.add_argument(
        "--time-scale", type=float, default=1.0, help="simulated seconds in a real one; 0: no waiting (1)"
    )
    add.add_argument(
        "--down-block", type=float, default=30.0, metavar="S", help="how long df waits for a down OST (30)"
    )
    add.add_argument("--lustre-version", default="2.15.5", metavar="V", help="dialect (2.15.5)")
    add.add_argument("--pool", action="append", default=[], metavar="NAME=OSTS", help="a pool: hdd=0-5")
    add.add_argument("--default-layout", metavar="JSON", help='as in sim.json: {"count":1,"composite":[…]}')
    add.add_argument("--allocator", choices=("roundrobin", "space"), default="roundrobin")
    add.add_argument("--display", metavar="PATH", help="mount path that df prints (the real one)")
    add.add_argument(
        "--attributes", choices=("auto", "xattr", "table"), default="auto", help="where layouts are kept"
    )
    add.add_argument("--seed", type=int, default=1)
    add.add_argument("--force", action="store_true", help="remove a simulation that is there already")

    add = _add(commands, "populate", _populate, "make files, and the lists that a migration is fed with")
    add.add_argument("--fs", metavar="NAME", help="file system (the first)")
    add.add_argument("--files", type=int, default=1000, metavar="N")
    add.add_argument("--osts", metavar="OSTS", help="only on these OSTs: 0-3,7 (all)")
    add.add_argument(
        "--per-ost", type=int, metavar="N", help="N files on each of the OSTs, instead of --files"
    )
    add.add_argument("--sizes", default="lognormal", help="lognormal[:MEDIAN], fixed:SIZE, uniform:FROM-TO")
    add.add_argument("--kinds", default="plain", metavar="KIND[:SHARE],…", help=", ".join(populate.KINDS))
    add.add_argument("--directory", default="data", help="below the mount (data)")
    add.add_argument(
        "--sparse", action="store_true", help="only the first 4 KiB of a file take room on this disk"
    )
    add.add_argument("--lists", type=Path, metavar="DIR", help="write input lists here (SIMROOT/lists)")
    add.add_argument(
        "--list-per-ost", action="store_true", help="one list for each OST instead of one for all"
    )
    add.add_argument("--seed", type=int, default=1)

    add = _add(commands, "ost", _ost, "change the state of OSTs, now or later")
    add.add_argument("osts", metavar="OSTS", help="3 or 0-3,7")
    add.add_argument("--fs", metavar="NAME", help="file system (the first)")
    add.add_argument("--state", choices=STATES)
    add.add_argument("--errno", default="0", help="of a down OST or one in error: ETIMEDOUT or 110 (107, 5)")
    add.add_argument(
        "--slow", type=float, metavar="FACTOR", help="so many times slower; 1: as fast as before"
    )
    add.add_argument("--after", type=float, metavar="S", help="in S seconds")
    add.add_argument("--after-calls", type=int, metavar="N", help="after N more calls of lfs or lctl")
    add.add_argument("--for", dest="duration", type=float, metavar="S", help="active again after S seconds")

    add = _add(commands, "fill", _fill, "set how full an OST is")
    add.add_argument("osts", metavar="OSTS")
    add.add_argument("percent", nargs="?", metavar="PERCENT", help="91 or 91%%")
    add.add_argument("--fs", metavar="NAME", help="file system (the first)")
    add.add_argument(
        "--growth",
        type=float,
        metavar="KIB_S",
        help="KiB that others write there in a second; may be negative",
    )

    add = _add(commands, "fault", _fault, "rules for what goes wrong")
    actions = add.add_subparsers(dest="action", required=True, metavar="ACTION")
    new = actions.add_parser("add", help="add a rule")
    new.add_argument("rule", metavar="JSON", help='{"cmd":"migrate","probability":0.02,"errno":"EBUSY"}')
    actions.add_parser("clear", help="remove all rules, and forget how often each path was tried")
    _json(actions.add_parser("list", help="show the rules"))

    _json(_add(commands, "report", _report, "OSTs, calls, high-water marks"))
    _json(_add(commands, "verify", _verify, "judge all files and counters"))
    _json(_add(commands, "rescan", _rescan, "bring the counters up to date with the files"))
    add = _add(commands, "marks", _marks, "the high-water marks alone")
    add.add_argument("--clear", action="store_true", help="begin anew")
    _json(add)
    add = _add(commands, "set", _set, f"change a setting: {', '.join(install.SETTINGS)}")
    add.add_argument("name", choices=tuple(install.SETTINGS))
    add.add_argument("value")
    commands.add_parser("reset", help="build the database anew from sim.json; all files and faults are gone")
    return parser


def _add(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    return parser


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


# Making.


def _init(options: argparse.Namespace) -> int:
    root: Path = options.directory
    if options.force and (root / "state.db").exists():
        shutil.rmtree(root)
    install.install(root, _described(options), options.attributes)
    _say(f"{root.resolve()}: {'; '.join(_told(root))}")
    return 0


def _told(root: Path) -> list[str]:
    state = install.open_state(root)
    try:
        return [f"{fs.name} at {fs.mount}, {len(state.osts(fs))} OSTs" for fs in state.filesystems()]
    finally:
        state.close()


def _described(options: argparse.Namespace) -> dict[str, Any]:
    if options.source is not None:
        sim: dict[str, Any] = json.loads(options.source.read_text(encoding="utf-8"))
        return sim
    low, dots, high = options.fill.partition("..")
    pools = {}
    for text in options.pool:
        name, _, members = text.partition("=")
        pools[name] = indices(members)
    filesystems = [
        install.description(
            name=name, osts=options.osts, mdts=options.mdts, oss=options.oss, first_index=options.first_index,
            ost_kib=size(options.ost_size) // 1024, fill=(float(low), float(high if dots else low)),
            mbps=options.mbps, oss_mbps=options.oss_mbps, size_scale=options.size_scale, pools=pools,
            default_layout=json.loads(options.default_layout) if options.default_layout else None,
            allocator=options.allocator, display=options.display, seed=options.seed,
        )
        for name in options.fs.split(",")
    ]  # fmt: skip
    return install.world(
        filesystems, lustre_version=options.lustre_version, seed=options.seed, time_scale=options.time_scale,
        down_block_s=options.down_block,
    )  # fmt: skip


def _reset(root: Path) -> int:
    state = install.open_state(root)
    mounts = [Path(fs.mount) for fs in state.filesystems()]
    state.close()
    for mount in mounts:
        shutil.rmtree(mount, ignore_errors=True)
    install.load(root)
    return 0


def _populate(state: State, options: argparse.Namespace) -> int:
    fs = _filesystem(state, options.fs)
    osts = indices(options.osts) if options.osts else None
    files = options.files
    if options.per_ost is not None:
        files = options.per_ost * len(osts if osts is not None else state.osts(fs))
    made = populate.populate(
        state, fs, files=files, osts=osts, sizes=options.sizes, kinds=_kinds(options.kinds),
        directory=options.directory, sparse=options.sparse, seed=options.seed,
    )  # fmt: skip
    lists = populate.write_lists(
        made, options.lists or Path(state.root, "lists"), f"{fs.name}-{options.directory.replace('/', '-')}",
        options.seed, options.list_per_ost,
    )  # fmt: skip
    _say(f"{len(made)} files; lists: {' '.join(map(str, lists)) or 'none'}")
    return 0


def _kinds(text: str) -> dict[str, int]:
    kinds = {}
    for part in text.split(","):
        kind, _, share = part.partition(":")
        if kind not in populate.KINDS:
            raise ValueError(f"kind {kind!r}: expected one of {', '.join(populate.KINDS)}")
        kinds[kind] = int(share or 1)
    return kinds


def _filesystem(state: State, name: str | None) -> Filesystem:
    fs = state.filesystem(name) if name is not None else state.filesystems()[0]
    if fs is None:
        raise ValueError(f"no file system {name!r}")
    return fs


# Trouble.


def _ost(state: State, options: argparse.Namespace) -> int:
    fs = _filesystem(state, options.fs)
    if options.state is None and options.slow is None:
        raise ValueError("nothing to change: use --state or --slow")
    from simlustre.faults import errno_of

    code = errno_of(options.errno) if options.state is not None else None
    changes: list[tuple[str | None, int | None, float | None, float | None, int | None]] = []
    later = options.after is not None or options.after_calls is not None
    at = time.time() + options.after if options.after is not None else None
    if later:
        changes.append((options.state, code, options.slow, at, options.after_calls))
    if options.duration is not None:
        slow = 1.0 if options.slow is not None else None
        back = "active" if options.state is not None else None
        changes.append((back, 0, slow, (at or time.time()) + options.duration, None))
    with state.writing():
        for ost in _existing(state, fs, options.osts):
            if not later:
                state.set_ost_state(fs.name, ost, options.state, code, options.slow)
            for change in changes:
                state.db.execute(
                    "INSERT INTO change (fs, ost, state, code, slow, at, calls) VALUES (?,?,?,?,?,?,?)",
                    (fs.name, ost, *change),
                )
    return 0


def _existing(state: State, fs: Filesystem, text: str) -> list[int]:
    wanted = indices(text)
    unknown = set(wanted) - {ost.index for ost in state.osts(fs)}
    if unknown:
        raise ValueError(f"unknown OST: {', '.join(map(str, sorted(unknown)))}")
    return wanted


def _fill(state: State, options: argparse.Namespace) -> int:
    fs = _filesystem(state, options.fs)
    if options.percent is None and options.growth is None:
        raise ValueError("nothing to change: give a percentage or --growth")
    with state.writing():
        for index in _existing(state, fs, options.osts):
            (ost,) = state.some_osts(fs, [index])
            wanted_kib = ost.used_kib
            if options.percent is not None:
                wanted_kib = int(ost.kib * float(options.percent.rstrip("%")) / 100)
            # What has grown so far becomes part of the overlay, and growth counts from now.
            state.db.execute(
                "UPDATE ost SET growth_since = ?, growth_kib_s = coalesce(?, growth_kib_s),"
                " overlay_kib = ? - base_used_kib WHERE fs = ? AND idx = ?",
                (time.time(), options.growth, wanted_kib - ost.held_kib, fs.name, index),
            )
    return 0


def _fault(state: State, options: argparse.Namespace) -> int:
    with state.writing():
        if options.action == "add":
            rule = json.loads(options.rule)
            check_rule(rule)
            row = (json.dumps(rule, separators=(",", ":")), rule.get("count"))
            cursor = state.db.execute("INSERT INTO fault (rule, remaining) VALUES (?,?)", row)
            _say(f"rule {cursor.lastrowid}")
        elif options.action == "clear":
            state.db.execute("DELETE FROM fault")
            state.db.execute("DELETE FROM attempt")
        else:
            rows = state.db.execute("SELECT id, rule, remaining FROM fault ORDER BY id").fetchall()
            rules = [
                {"id": number, "rule": json.loads(rule), "remaining": left} for number, rule, left in rows
            ]
            if options.json:
                _say(json.dumps(rules))
            else:
                for entry in rules:
                    left = "" if entry["remaining"] is None else f"  ({entry['remaining']} left)"
                    _say(f"{entry['id']}  {json.dumps(entry['rule'])}{left}")
    return 0


def _set(state: State, options: argparse.Namespace) -> int:
    if options.name == "lustre_version":
        [int(part) for part in options.value.split(".")]
    elif isinstance(install.SETTINGS[options.name], bool):
        if options.value not in ("true", "false"):
            raise ValueError(f"{options.name} {options.value!r}: expected true or false")
    else:
        float(options.value)
    with state.writing():
        state.db.execute("UPDATE setting SET value=? WHERE name=?", (options.value, options.name))
    return 0


# Judging.


def _report(state: State, options: argparse.Namespace) -> int:
    found = audit.report(state)
    if options.json:
        _say(json.dumps(found))
        return 0
    for name, fs in found["filesystems"].items():
        _say(f"{name} at {fs['mount']}: {fs['files']} files")
        _say(f"{'OST':>6} {'state':<12} {'objects':>9} {'bytes':>15} {'fill':>8}  {'most at once':>12}  OSS")
        for index, ost in fs["osts"].items():
            peak = fs["high_water"]["ost"].get(index, 0)
            fill = f"{ost['fill_percent']:.2f}%"
            row = f"{index:>6} {ost['state']:<12} {ost['objects']:>9} {ost['bytes']:>15} {fill:>8}"
            _say(f"{row}  {peak:>12}  {ost['oss']}")
        for oss, peak in fs["high_water"]["oss"].items():
            _say(f"{oss}: {peak} at once at the most")
    for name, calls in found["calls"].items():
        exits = ", ".join(f"{code}: {count}" for code, count in sorted(calls["exits"].items()))
        mean_ms = 1000 * calls["seconds"] / calls["calls"]
        _say(
            f"{name}: {calls['calls']} calls, mean {mean_ms:.1f} ms, exits {exits}, {calls['faults']} faults"
        )
    return 0


def _verify(state: State, options: argparse.Namespace) -> int:
    found = audit.verify(state)
    if options.json:
        _say(json.dumps(found))
    else:
        for problem in found["problems"]:
            _say(problem)
        counts = ", ".join(
            f"{found[key]} {key}" for key in ("files", "inodes", "changed", "deleted", "in_flight")
        )
        _say(f"{'clean' if found['clean'] else 'NOT CLEAN'}: {counts}")
    return 0 if found["clean"] else 1


def _rescan(state: State, options: argparse.Namespace) -> int:
    found = audit.rescan(state)
    _say(json.dumps(found) if options.json else f"{found['files']} files, {found['deleted']} deleted")
    return 0


def _marks(state: State, options: argparse.Namespace) -> int:
    if options.clear:
        recover(state)
        with state.writing():
            state.db.execute("DELETE FROM high_water")
        return 0
    marks = {fs.name: audit.high_water(state, fs) for fs in state.filesystems()}
    if options.json:
        _say(json.dumps(marks))
        return 0
    for name, scopes in marks.items():
        for scope, peaks in scopes.items():
            for place, peak in peaks.items():
                _say(f"{name} {scope} {place}: {peak}")
    return 0
