"""What a simulation can tell of itself: `simctl report`, `verify`, `rescan`."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from simlustre.content import content_sum, recorded_sum
from simlustre.files import charge, contact, stored, unpack, walk
from simlustre.layout import RELEASED
from simlustre.recovery import recover, sweep
from simlustre.state import Filesystem, State


def report(state: State) -> dict[str, Any]:
    """OSTs and high-water marks by file system, calls by command, and how many migrations are under way."""
    recover(state)
    return {
        "filesystems": {fs.name: _report_filesystem(state, fs) for fs in state.filesystems()},
        "calls": _calls(Path(state.root, "calls.jsonl")),
        "in_flight": state.db.execute("SELECT count(DISTINCT io) FROM io_use").fetchone()[0],
    }


def _report_filesystem(state: State, fs: Filesystem) -> dict[str, Any]:
    return {
        "mount": fs.mount,
        "files": state.db.execute("SELECT count(*) FROM file WHERE fs=?", (fs.name,)).fetchone()[0],
        "osts": {
            str(ost.index): {
                "objects": ost.objects, "bytes": ost.bytes, "kib": ost.kib, "used_kib": ost.used_kib,
                "fill_percent": round(100 * ost.used_kib / ost.kib, 3), "state": ost.state, "oss": ost.oss,
            }
            for ost in state.osts(fs)
        },
        "high_water": high_water(state, fs),
    }  # fmt: skip


def high_water(state: State, fs: Filesystem) -> dict[str, dict[str, int]]:
    """{scope: {name: most migrations at once}}; scopes: all, ost, source, target, oss, pair (`3>5`)."""
    marks: dict[str, dict[str, int]] = {
        name: {} for name in ("all", "ost", "source", "target", "oss", "pair")
    }
    for scope, name, peak in state.db.execute(
        "SELECT scope, name, peak FROM high_water WHERE fs=? ORDER BY scope, name", (fs.name,)
    ):
        marks[scope][name] = peak
    return marks


def _calls(log: Path) -> dict[str, dict[str, Any]]:
    """{command: {"calls", "exits": {status: calls}, "seconds", "faults"}}."""
    found: dict[str, dict[str, Any]] = {}
    if not log.exists():
        return found
    with log.open(encoding="utf-8") as lines:
        for line in lines:
            call = json.loads(line)
            name = f"{call['program']} {call['argv'][0] if call['argv'] else ''}"
            entry = found.setdefault(name, {"calls": 0, "exits": Counter(), "seconds": 0.0, "faults": 0})
            entry["calls"] += 1
            entry["exits"][str(call["exit"])] += 1
            entry["seconds"] = round(entry["seconds"] + call["seconds"], 6)
            entry["faults"] += call["fault"] is not None
    return found


def verify(state: State) -> dict[str, Any]:
    """Judge every file and every counter.

    Returns {"clean", "files", "inodes", "changed", "deleted", "problems": [text]}. A file is `changed` when
    its size or time is not the one that was written down with its hash: its user did that. Anything else that
    does not fit is a problem.
    """
    recover(state)
    result: dict[str, Any] = {"files": 0, "inodes": 0, "changed": 0, "deleted": 0, "in_flight": 0}
    problems: list[str] = []
    with state.writing():
        result["in_flight"] = state.db.execute("SELECT count(*) FROM io").fetchone()[0]
        for fs in state.filesystems():
            _verify_filesystem(state, fs, result, problems)
    return {"clean": not problems, **result, "problems": problems}


def _verify_filesystem(state: State, fs: Filesystem, result: dict[str, Any], problems: list[str]) -> None:
    known = {ost.index for ost in state.osts(fs)}
    rows = {
        fid: (size, unpack(shares), unpack(objects))
        for fid, size, shares, objects in state.db.execute(
            "SELECT fid, size, shares, objects FROM file WHERE fs=?", (fs.name,)
        )
    }
    inodes: dict[int, int] = {}  # FID -> inode
    taken: dict[tuple[int, int], int] = {}  # (OST, object) -> FID
    for path in walk(fs.mount):
        try:
            result["changed"] += _verify_content(state, path, problems)
            layout = stored(state, path)
            inode = os.stat(path).st_ino
        except FileNotFoundError:
            continue  # deleted at this moment
        except (OSError, ValueError, KeyError) as error:
            problems.append(f"{path}: cannot be read: {error!r}")
            continue
        result["files"] += 1
        if layout is None:
            continue  # nobody has asked for it yet
        if inodes.setdefault(layout.fid, inode) != inode:
            problems.append(f"{path}: its FID belongs to another file too")
            continue
        if layout.fid not in rows:
            problems.append(f"{path}: has a layout that its OSTs were not charged for")
            continue
        layout.size, shares, objects = rows[layout.fid]
        released = bool(layout.hsm & RELEASED)
        if ({} if released else layout.shares(), {} if released else layout.object_counts()) != (
            shares,
            objects,
        ):
            problems.append(f"{path}: half moved: the layout says {layout.shares()}, the OSTs {shares}")
        for component in layout.components:
            if not known.issuperset(component.osts) or len(set(component.osts)) < len(component.osts):
                problems.append(f"{path}: impossible OSTs {component.osts}")
            for pair in zip(component.osts, component.objects, strict=True):
                if taken.setdefault(pair, layout.fid) != layout.fid:
                    problems.append(f"{path}: shares object {pair[1]} of OST {pair[0]} with another file")
    result["inodes"] += len(inodes)
    result["deleted"] += len(rows.keys() - inodes.keys())
    for ost in state.osts(fs):
        if ost.excess_kib:
            problems.append(
                f"{fs.name} OST {ost.index}: overfull: {ost.excess_kib} KiB more than its {ost.kib} KiB"
            )
        total = (sum(row[1].get(ost.index, 0) for row in rows.values()),
                 sum(row[2].get(ost.index, 0) for row in rows.values()))  # fmt: skip
        if total != (ost.bytes, ost.objects):
            problems.append(
                f"{fs.name} OST {ost.index}: counts {(ost.bytes, ost.objects)}, its files make {total}"
            )


def _verify_content(state: State, path: str, problems: list[str]) -> bool:
    """Whether its user changed the file since its hash was written down."""
    digest = content_sum(path)
    record = recorded_sum(state, path)
    if record is None:
        return False
    status = os.stat(path)
    digest_then, size, mtime_ns = record
    # A migration leaves the seconds at least: see `whole_seconds`.
    if size != status.st_size or status.st_mtime_ns not in (mtime_ns, mtime_ns // 10**9 * 10**9):
        return True
    if digest_then != digest:
        problems.append(f"{path}: corrupt: its bytes are not those that were written")
    return False


def rescan(state: State) -> dict[str, int]:
    """Bring every counter up to date: with files that are new, grown, or gone. {"files", "deleted"}."""
    recover(state)
    result = {"files": 0, "deleted": 0}
    for fs in state.filesystems():
        result["deleted"] += sweep(state, fs, newest=0)
        for path in walk(fs.mount):
            result["files"] += 1
            try:
                layout = stored(state, path)
                if layout is None or "empty" not in layout.flags:
                    layout = contact(state, fs, path)
            except FileNotFoundError:
                continue  # deleted at this moment
            with state.writing():
                charge(state, fs, layout, path)
    return result
