"""Putting right what dead processes left, and what users did without `lfs`.

A process that dies between writing an attribute and charging for it leaves its intent. Nobody needs to notice at
once: whoever begins a migration, or asks for a report, looks for such intents first.
"""

from __future__ import annotations

import os

from simlustre.files import born, charge, discharge, forget, stored, walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simlustre.layout import Layout
    from simlustre.state import Filesystem, State


def recover(state: State) -> int:
    """Charge for what dead processes may have changed; how many there were."""
    rows = state.db.execute("SELECT id, pid, born, fs, path, fid FROM io").fetchall()
    dead = [row for row in rows if born(row[1]) != row[2]]
    if not dead:
        return 0
    with state.writing():
        for intent, _, _, fs_name, path, fid in dead:
            fs = state.filesystem(fs_name)
            place = None if fs is None else where(state, fs, fid, os.fsdecode(path))
            layout = None if place is None else seen(state, place)
            # Whether it had come to writing the attribute is of no interest: what stands there is true.
            if fs is not None and place is not None and layout is not None:
                layout.size = os.stat(place).st_size
                charge(state, fs, layout, place)
            forget(state, intent)
    return len(dead)


def where(state: State, fs: Filesystem, fid: int, hint: str) -> str | None:
    """A path of the file with this FID: the hint, else it is searched for; None when it is gone."""
    if _is(state, hint, fid):
        return hint
    return next((path for path in walk(fs.mount) if _is(state, path, fid)), None)


def _is(state: State, path: str, fid: int) -> bool:
    layout = seen(state, path)
    return layout is not None and layout.fid == fid


def seen(state: State, path: str) -> Layout | None:
    """The layout of a file that somebody may delete at this moment; None when it has none or is gone."""
    try:
        return stored(state, path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None  # by now a directory may have its name, or a file that of a directory above it


def sweep(state: State, fs: Filesystem, newest: int = 256) -> int:
    """Notice deleted files: among the `newest` ones, or among all (0). How many were gone.

    A file that was only renamed keeps its charge, and its path is noted.
    """
    rows = state.db.execute(
        "SELECT fid, path FROM file WHERE fs=? ORDER BY fid DESC LIMIT ?", (fs.name, newest or -1)
    ).fetchall()
    missing = {fid for fid, path in rows if not _is(state, os.fsdecode(path), fid)}
    if not missing:
        return 0
    with state.writing():
        for path in walk(fs.mount):
            layout = seen(state, path)
            if layout is not None and layout.fid in missing:
                state.db.execute("UPDATE file SET path=? WHERE fid=?", (os.fsencode(path), layout.fid))
                missing.discard(layout.fid)
        for fid in missing:
            discharge(state, fs.name, fid)
    return len(missing)
