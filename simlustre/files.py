"""What the simulation knows of a file, and how it stays true when a process is killed.

Where the objects of a file lie stands in its extended attribute, so that it follows renames and hard links
and dies with the inode. What its OSTs were charged for it stands in the database. Both change together in one
of two orders:

* A new layout: first the database, then the attribute. Killed in between, the row belongs to no file, as
  if the file had been deleted at once.
* Another layout for the same file: first an intent (a row of `io`), then the attribute, then the charge,
  which takes the intent away. Killed in between, the intent of a dead process is left, and `recovery` charges
  for what the attribute says.
"""

from __future__ import annotations

import errno
import os
import stat

from simlustre import compact
from simlustre.allocation import choose
from simlustre.errors import Refusal
from simlustre.layout import ATTRIBUTE, MDT_ATTRIBUTE, RELEASED, Component, Layout, Wish

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from simlustre.state import Filesystem, State


# Extended attributes, or a table of them where the file system of SIMROOT has none.


def read_attribute(state: State, path: str | int, name: str) -> str | None:
    """Raises OSError when there is no such file."""
    if state.setting("attributes") == "table":
        status = os.stat(path)
        row = state.db.execute(
            "SELECT value FROM attribute WHERE device=? AND inode=? AND name=?",
            (status.st_dev, status.st_ino, name),
        ).fetchone()
        return None if row is None else str(row[0])
    try:
        return os.getxattr(path, name).decode()
    except OSError as error:
        if error.errno == errno.ENODATA:
            return None
        raise


def write_attribute(state: State, path: str | int, name: str, value: str | None) -> None:
    """None takes the attribute away."""
    if state.setting("attributes") == "table":
        status = os.stat(path)
        with state.writing():
            if value is None:
                state.db.execute(
                    "DELETE FROM attribute WHERE device=? AND inode=? AND name=?",
                    (status.st_dev, status.st_ino, name),
                )
            else:
                state.db.execute(
                    "INSERT OR REPLACE INTO attribute VALUES (?,?,?,?)",
                    (status.st_dev, status.st_ino, name, value),
                )
    elif value is not None:
        os.setxattr(path, name, value.encode())
    elif read_attribute(state, path, name) is not None:
        os.removexattr(path, name)


# What a file has.


def stored(state: State, path: str | int) -> Layout | None:
    """The layout in the attribute; None when the file has none yet. Raises OSError."""
    text = read_attribute(state, path, ATTRIBUTE)
    return None if text is None else Layout.from_text(text)


def contact(state: State, fs: Filesystem, path: str) -> Layout:
    """The layout of a regular file, brought up to date first: made when there is none, objects taken for the
    components that the file has grown into, and the OSTs charged for its length.

    Raises OSError when the file cannot be reached, Refusal(ENODATA) when it is meant to have no layout,
    Refusal(ENOTTY) for what is no regular file: the attribute of a directory is the default of its files.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise Refusal(errno.ENOTTY)
    layout = stored(state, path)
    if layout is None:
        with state.writing():
            layout = stored(state, path)  # somebody else may have been faster
            if layout is None:
                wishes, composite = inherited(state, fs, os.path.dirname(os.path.realpath(path)))
                return create(state, fs, path, wishes, composite, lenient=True)
    if "empty" in layout.flags:
        raise Refusal(errno.ENODATA)
    layout.size = charged_size(state, layout.fid)
    if layout.size == status.st_size or layout.hsm & RELEASED:
        return layout
    with state.writing():
        fresh = stored(state, path)
        layout = layout if fresh is None else fresh
        layout.size = os.stat(path).st_size
        if any(part.reached_by(layout.size) and not part.initialised for part in layout.components):
            initialise(state, fs, layout, lenient=True)
            layout.generation += 1
            replace(state, fs, path, layout)
        else:
            charge(state, fs, layout, path)
    return layout


def charged_size(state: State, fid: int) -> int:
    row = state.db.execute("SELECT size FROM file WHERE fid=?", (fid,)).fetchone()
    return -1 if row is None else int(row[0])


def inherited(state: State, fs: Filesystem, directory: str) -> tuple[list[Wish], bool]:
    """(components, composite) that a new file in a directory gets: of the nearest directory with a default,
    else
    of the file system."""
    for place in upwards(fs, directory):
        text = read_attribute(state, place, ATTRIBUTE)
        if text is not None:
            fields = compact.loads(text)
            return [Wish.from_dict(wish) for wish in fields["default"]], bool(fields["composite"])
    return fs.defaults, fs.composite


def mdt_of(state: State, fs: Filesystem, directory: str) -> int:
    """The MDT of a directory: its own, else that of the nearest one above, else 0."""
    for place in upwards(fs, directory):
        text = read_attribute(state, place, MDT_ATTRIBUTE)
        if text is not None:
            return int(text)
    return 0


def upwards(fs: Filesystem, directory: str) -> Iterator[str]:
    """A real directory and those above it, up to the mount."""
    while fs.holds(directory):
        yield directory
        directory = os.path.dirname(directory)


def walk(directory: str) -> Iterator[str]:
    """The regular files under a directory, in the order in which the kernel names them."""
    try:
        entries = list(os.scandir(directory))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from walk(entry.path)
        elif entry.is_file(follow_symlinks=False):
            yield entry.path


# How it changes.


def plan(wishes: list[Wish], composite: bool) -> list[Component]:
    """Components without objects, one behind the other."""
    starts = [0, *(wish.end for wish in wishes[:-1])]
    return [
        Component(number if composite else 0, start, Wish.from_dict(wish.to_dict()))
        for number, (start, wish) in enumerate(zip(starts, wishes, strict=True), 1)
    ]


def create(
    state: State, fs: Filesystem, path: str, wishes: list[Wish], composite: bool, lenient: bool = False,
    flags: list[str] | None = None,
) -> Layout:  # fmt: skip
    """Give a file that has none a layout. lenient: the file is there already, so it gets an OST even if none
    is usable.

    Raises Refusal when the OSTs asked for cannot be had; nothing has changed then.
    """
    with state.writing():
        layout = Layout(0, plan(wishes, composite), composite, flags=flags)
        layout.size = os.stat(path).st_size
        layout.mdt = mdt_of(state, fs, os.path.dirname(os.path.realpath(path)))
        if "empty" not in layout.flags:
            initialise(state, fs, layout, lenient)
        layout.fid = state.next_number("fid")
        charge(state, fs, layout, path)
        state.commit()
        write_attribute(state, path, ATTRIBUTE, layout.to_text())
    return layout


def initialise(state: State, fs: Filesystem, layout: Layout, lenient: bool = False) -> None:
    """Take objects for each component that the file reaches and that has none. Only inside `writing`.

    Raises Refusal.
    """
    osts = pools = None
    for component in layout.components:
        if component.initialised or not component.reached_by(layout.size):
            continue
        if osts is None or pools is None:
            osts, pools = state.osts(fs), state.pools(fs)
        turn = state.next_number(f"turn/{fs.name}") - 1
        try:
            chosen, pool = choose(component.wish, osts, pools, turn, fs.allocator)
        except Refusal:
            if not lenient:
                raise
            chosen, pool = [osts[0].index], None
        component.wish.pool = pool
        component.osts = chosen
        component.objects = [state.take_object(fs, ost) for ost in chosen]


def charge(state: State, fs: Filesystem, layout: Layout, path: str) -> None:
    """Make the OSTs' counters say what the file holds there now. Only inside `writing`."""
    row = state.db.execute("SELECT shares, objects FROM file WHERE fid=?", (layout.fid,)).fetchone()
    released = bool(layout.hsm & RELEASED)
    shares = {} if released else layout.shares()
    objects = {} if released else layout.object_counts()
    _move_counters(state, fs.name, *_from_row(row), shares, objects)
    state.db.execute(
        "INSERT INTO file VALUES (?,?,?,?,?,?) ON CONFLICT(fid) DO UPDATE SET path=excluded.path,"
        " size=excluded.size, shares=excluded.shares, objects=excluded.objects",
        (
            layout.fid,
            fs.name,
            os.fsencode(os.path.realpath(path)),
            layout.size,
            _pack(shares),
            _pack(objects),
        ),
    )


def discharge(state: State, fs_name: str, fid: int) -> None:
    """Take a file that is gone off its OSTs. Only inside `writing`."""
    row = state.db.execute("SELECT shares, objects FROM file WHERE fid=?", (fid,)).fetchone()
    _move_counters(state, fs_name, *_from_row(row), {}, {})
    state.db.execute("DELETE FROM file WHERE fid=?", (fid,))


def _move_counters(
    state: State, fs: str, shares_before: dict[int, int], objects_before: dict[int, int], shares: dict[int,
    int],
    objects: dict[int, int],
) -> None:  # fmt: skip
    for ost in shares_before.keys() | shares.keys():
        more_bytes = shares.get(ost, 0) - shares_before.get(ost, 0)
        more_objects = objects.get(ost, 0) - objects_before.get(ost, 0)
        if more_bytes or more_objects:
            state.db.execute(
                "UPDATE ost SET bytes = bytes + ?, objects = objects + ? WHERE fs=? AND idx=?",
                (more_bytes, more_objects, fs, ost),
            )


def _pack(amounts: dict[int, int]) -> str:
    return compact.dumps([[ost, amounts[ost]] for ost in sorted(amounts)])


def unpack(text: str) -> dict[int, int]:
    return dict(compact.loads(text))


def _from_row(row: tuple[str, str] | None) -> tuple[dict[int, int], dict[int, int]]:
    return ({}, {}) if row is None else (unpack(row[0]), unpack(row[1]))


def replace(state: State, fs: Filesystem, path: str, layout: Layout) -> None:
    """Give a file another layout, of a higher generation. Only inside `writing`, which it commits."""
    intent = intend(state, fs, path, layout.fid)
    state.commit()
    write_attribute(state, path, ATTRIBUTE, layout.to_text())
    settle(state, fs, path, layout, intent)


def intend(state: State, fs: Filesystem, path: str, fid: int) -> int:
    """Write down that a file is to get another layout; the number of the intent. Only inside `writing`."""
    row = (os.getpid(), born(os.getpid()), fs.name, os.fsencode(os.path.realpath(path)), fid)
    cursor = state.db.execute("INSERT INTO io (pid, born, fs, path, fid) VALUES (?,?,?,?,?)", row)
    return int(cursor.lastrowid or 0)


def settle(state: State, fs: Filesystem, path: str, layout: Layout, intent: int) -> None:
    """Charge what was intended and forget the intent. Only inside `writing`."""
    charge(state, fs, layout, path)
    forget(state, intent)


def forget(state: State, intent: int) -> None:
    """Only inside `writing`."""
    state.db.execute("DELETE FROM io WHERE id=?", (intent,))
    state.db.execute("DELETE FROM io_use WHERE io=?", (intent,))
    state.db.execute("DELETE FROM volatile WHERE io=?", (intent,))


def born(pid: int) -> int:
    """When a process began, in clock ticks since the system did; -1 when it is dead, or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            fields = file.read().rpartition(b") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return -1
    return -1 if fields[0] in (b"Z", b"X") else int(fields[19])
