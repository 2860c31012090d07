"""Making a simulation: `sim.json`, the database, the mounts and the programs of SIMROOT/bin."""

from __future__ import annotations

import compileall
import json
import os
import shutil
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

from simlustre.layout import Wish
from simlustre.state import SCHEMA, State

PROGRAMS = ("lfs", "lctl", "sudo", "simctl")
LONGEST_SHEBANG = 120  # kernels before 5.1 cut the line at 127 characters

# What `sim.json` may say besides its file systems, and what holds where it says nothing.
SETTINGS: dict[str, Any] = {
    "lustre_version": "2.15.5", "seed": 1, "time_scale": 1.0, "down_block_s": 30.0, "whole_seconds": False,
    "needs_root": False,
}  # fmt: skip


def description(
    *, name: str = "lustre", osts: int = 12, mdts: int = 3, oss: int = 4, first_index: int = 0,
    ost_kib: int = 71145271296,
    fill: tuple[float, float] = (30.0, 90.0), mbps: float = 800.0, oss_mbps: float = 1600.0,
    size_scale: float = 1.0,
    pools: dict[str, list[int]] | None = None, default_layout: dict[str, Any] | None = None,
    allocator: str = "roundrobin", display: str | None = None, seed: int = 1,
) -> dict[str, Any]:  # fmt: skip
    """One element of `filesystems` in `sim.json`. fill: percent, from … to …, drawn by the seed. OSTs are
    dealt out
    to the OSSes in turn."""
    random = Random(f"{seed}/{name}")
    return {
        "name": name,
        "mount": f"mnt/{name}",
        "display": display,
        "instance": f"ffff{random.getrandbits(32):08x}{random.randrange(16):x}000",
        "default_layout": default_layout or {"count": 1, "size": 1 << 20, "pool": None, "composite": None},
        "allocator": allocator,
        "size_scale": size_scale,
        "mdts": [
            {
                "index": index,
                "kib": 122878584,
                "used_kib": 2087584 + index,
                "nid": f"10.0.255.{index + 1}@tcp",
            }
            for index in range(mdts)
        ],
        "osts": [
            {
                "index": first_index + place,
                "kib": ost_kib,
                "base_used_kib": int(ost_kib * random.uniform(*fill) / 100),
                "oss": f"oss{place % oss + 1:03d}",
                "nid": f"10.0.{(place % oss) // 250}.{(place % oss) % 250 + 1}@tcp",
                "pools": sorted(
                    pool for pool, members in (pools or {}).items() if first_index + place in members
                ),
                "mbps": mbps,
            }
            for place in range(osts)
        ],
        "oss": {f"oss{number + 1:03d}": {"mbps": oss_mbps} for number in range(oss)},
    }


def world(filesystems: list[dict[str, Any]], **settings: Any) -> dict[str, Any]:
    """The content of `sim.json`. settings: some of SETTINGS. Raises ValueError."""
    unknown = settings.keys() - SETTINGS.keys()
    if unknown:
        raise ValueError(f"unknown setting: {', '.join(sorted(unknown))}")
    return {**SETTINGS, **settings, "filesystems": filesystems}


def install(root: Path, sim: dict[str, Any], attributes: str = "auto") -> None:
    """Make a simulation in `root`, which must not hold one yet.

    attributes: `xattr`, `table`, or `auto` for extended attributes where the file system takes them.
    Raises FileExistsError.
    """
    root = root.resolve()
    root.mkdir(parents=True, exist_ok=True)
    if (root / "state.db").exists():
        raise FileExistsError(f"{root} holds a simulation already")
    (root / "sim.json").write_text(
        json.dumps({**sim, "attributes": attributes}, indent=1) + "\n", encoding="utf-8"
    )
    load(root)
    _install_programs(root)


def load(root: Path) -> None:
    """Build the database anew from `sim.json`: nothing is known of any file afterwards. Makes the mounts."""
    sim = json.loads((root / "sim.json").read_text(encoding="utf-8"))
    for leftover in ("state.db", "state.db-wal", "state.db-shm", "calls.jsonl"):
        (root / leftover).unlink(missing_ok=True)
    # Under another name until it is complete: a program that finds a state.db may use it.
    unfinished = root / "state.new"
    unfinished.unlink(missing_ok=True)
    with closing(sqlite3.connect(str(unfinished), isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=OFF")
        db.executescript(SCHEMA)
        db.execute("BEGIN")
        for place, fs in enumerate(sim["filesystems"]):
            (root / fs["mount"]).mkdir(parents=True, exist_ok=True)
            _load_filesystem(db, place, fs)
        attributes = sim.get("attributes", "auto")
        if attributes == "auto":
            attributes = "xattr" if _takes_attributes(root / sim["filesystems"][0]["mount"]) else "table"
        settings = {key: sim.get(key, default) for key, default in SETTINGS.items()}
        for key, value in {**settings, "attributes": attributes}.items():
            text = value if isinstance(value, str) else json.dumps(value)
            db.execute("INSERT INTO setting VALUES (?,?)", (key, text))
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    unfinished.rename(root / "state.db")


def _load_filesystem(db: sqlite3.Connection, place: int, fs: dict[str, Any]) -> None:
    name = fs["name"]
    layout = fs.get("default_layout") or {}
    plain = {key: layout[key] for key in ("count", "size", "pool") if key in layout}
    composite = layout.get("composite")
    wishes = [Wish(**{**plain, **fields}).to_dict() for fields in composite or [{}]]
    db.execute(
        "INSERT INTO filesystem VALUES (?,?,?,?,?,?,?,?,?)",
        (name, place, fs["mount"], fs.get("display"), fs["instance"], json.dumps(wishes, separators=(",",
        ":")),
         bool(composite), fs.get("allocator", "roundrobin"), fs.get("size_scale", 1.0)),
    )  # fmt: skip
    for mdt in fs["mdts"]:
        db.execute(
            "INSERT INTO mdt VALUES (?,?,?,?,?)",
            (name, mdt["index"], mdt["kib"], mdt["used_kib"], mdt.get("nid", "10.0.255.1@tcp")),
        )
    for oss, fields in fs["oss"].items():
        db.execute("INSERT INTO oss VALUES (?,?,?)", (name, oss, fields["mbps"]))
    for ost in fs["osts"]:
        db.execute(
            "INSERT INTO ost VALUES (?,?,?,?,?,?,?,?,?,'active',0,1.0,0,0,1,0.0,0.0,?)",
            (name, ost["index"], ost["kib"], ost["base_used_kib"], ost.get("inodes", ost["kib"] // 64),
            ost["oss"],
             ost["nid"], ost["mbps"], int(ost.get("flash", False)), time.time()),
        )  # fmt: skip
        for pool in ost.get("pools", []):
            db.execute("INSERT INTO pool VALUES (?,?,?)", (name, pool, ost["index"]))


def _takes_attributes(directory: Path) -> bool:
    try:
        os.setxattr(directory, "user.simprobe", b"1")
        os.removexattr(directory, "user.simprobe")
    except OSError:
        return False
    return True


def _install_programs(root: Path) -> None:
    """Copy this package, so that a simulation goes on working when its source changes; write the programs."""
    source, library = Path(__file__).parent, root / "lib" / "simlustre"
    # Compiled where they are, if that may be written, so that the next simulation only copies.
    compileall.compile_dir(source, quiet=2)
    shutil.copytree(source, library, ignore=shutil.ignore_patterns("simlustre*", "demo*", "*.md"))
    compileall.compile_dir(library, quiet=2)
    programs = root / "bin"
    programs.mkdir(exist_ok=True)
    for name in PROGRAMS:
        (programs / name).write_text(_program(root, name), encoding="utf-8")
        (programs / name).chmod(0o755)


def _program(root: Path, name: str) -> str:
    """The text of an executable. The interpreter is isolated and without `site`: it starts in 7 ms."""
    # The base interpreter, not the link in a virtual environment.
    interpreter = os.path.realpath(sys.executable)
    first = f"#!{interpreter} -IS"
    if len(first) > LONGEST_SHEBANG or " " in interpreter:
        first = f"#!/bin/sh\n'''exec' \"{interpreter}\" -IS \"$0\" \"$@\"\n' '''"
    # `simctl` uses modules that need not start fast; nothing but the standard library in either case.
    library = str(root / "lib")
    return f"{first}\nimport sys\nsys.path.insert(0, {library!r})\nfrom simlustre.entry import main\nmain()\n"


def open_state(root: str | Path) -> State:
    """The state of an existing simulation. Raises FileNotFoundError."""
    if not Path(root, "state.db").exists():
        raise FileNotFoundError(f"{root} holds no simulation")
    return State(str(Path(root).resolve()))
