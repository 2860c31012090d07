"""The state of one simulation: a database that every call opens, reads, and perhaps writes.

`sim.json` describes what was built; `simctl init` and `simctl reset` load it into `state.db`, and all other
programs read only the database. Writers queue at a lock of the file system before they begin a transaction:
SQLite alone would let them poll, and with a hundred callers most of the time would be sleep. Nothing is
synced to disk: the state has to survive the death of any process, not of the machine.
"""

from __future__ import annotations

import fcntl
import os
import time

from simlustre import compact
from simlustre.layout import Wish

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3 as sqlite
    from collections.abc import Iterable
    from typing import Any
else:
    try:  # The package around it costs 4 ms to import and adds nothing that is needed here.
        import _sqlite3 as sqlite
    except ImportError:
        import sqlite3 as sqlite

# States of an OST. The letters are what `lfs df` prints behind the row.
DEGRADED, READONLY, NOCREATE, ENOINO = "degraded", "readonly", "nocreate", "enoino"
ACTIVE, DEACTIVATED, DOWN, ERROR, HANG = "active", "deactivated", "down", "error", "hang"
LETTERS = {DEGRADED: "D", READONLY: "R", NOCREATE: "N", ENOINO: "I"}
STATES = (ACTIVE, DEACTIVATED, DOWN, ERROR, HANG, *LETTERS)

SCHEMA = """
-- What was built, from sim.json.
CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE filesystem (
    name TEXT PRIMARY KEY, place INTEGER, mount TEXT, display TEXT, instance TEXT, defaults TEXT,
    composite INTEGER, allocator TEXT, size_scale REAL) WITHOUT ROWID;
CREATE TABLE mdt (
    fs TEXT, idx INTEGER, kib INTEGER, used_kib INTEGER, nid TEXT, PRIMARY KEY (fs, idx)) WITHOUT ROWID;
CREATE TABLE oss (fs TEXT, name TEXT, mbps REAL, PRIMARY KEY (fs, name)) WITHOUT ROWID;
CREATE TABLE pool (fs TEXT, name TEXT, ost INTEGER, PRIMARY KEY (fs, name, ost)) WITHOUT ROWID;
-- `bytes` and `objects` are what the rows of `file` make; overlay and growth are what others write.
CREATE TABLE ost (
    fs TEXT, idx INTEGER, kib INTEGER, base_used_kib INTEGER, inodes INTEGER, oss TEXT, nid TEXT, mbps REAL,
    flash INTEGER, state TEXT, code INTEGER, slow REAL, bytes INTEGER, objects INTEGER, next_object INTEGER,
    overlay_kib REAL, growth_kib_s REAL, growth_since REAL, PRIMARY KEY (fs, idx)) WITHOUT ROWID;
-- What the OSTs were charged for each file: [[ost, bytes], ...] and [[ost, objects], ...].
CREATE TABLE file (
    fid INTEGER PRIMARY KEY, fs TEXT, path BLOB, size INTEGER, shares TEXT, objects TEXT);
CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
-- Files whose layout a process is about to change, what it burdens, and the most there was of that at once.
CREATE TABLE io (id INTEGER PRIMARY KEY, pid INTEGER, born INTEGER, fs TEXT, path BLOB, fid INTEGER);
CREATE TABLE io_use (
    io INTEGER, fs TEXT, scope TEXT, name TEXT, PRIMARY KEY (fs, scope, name, io)) WITHOUT ROWID;
-- What copies under way have written to their targets so far. It is gone when they end, however they end.
CREATE TABLE volatile (
    io INTEGER, fs TEXT, ost INTEGER, bytes INTEGER, PRIMARY KEY (fs, ost, io)) WITHOUT ROWID;
CREATE TABLE high_water (
    fs TEXT, scope TEXT, name TEXT, peak INTEGER, PRIMARY KEY (fs, scope, name)) WITHOUT ROWID;
-- What goes wrong.
CREATE TABLE fault (id INTEGER PRIMARY KEY, rule TEXT NOT NULL, remaining INTEGER);
CREATE TABLE attempt (cmd TEXT, path BLOB, number INTEGER, PRIMARY KEY (cmd, path)) WITHOUT ROWID;
CREATE TABLE change (
    id INTEGER PRIMARY KEY, fs TEXT, ost INTEGER, state TEXT, code INTEGER, slow REAL, at REAL, calls INTEGER);
-- In place of extended attributes, where there are none.
CREATE TABLE attribute (
    device INTEGER, inode INTEGER, name TEXT, value TEXT, PRIMARY KEY (device, inode, name)) WITHOUT ROWID;
"""

_OST_COLUMNS = (
    "idx, kib, base_used_kib, inodes, oss, nid, mbps, flash, state, code, slow, bytes, objects, overlay_kib,"
    " growth_kib_s, growth_since, (SELECT coalesce(sum(volatile.bytes), 0) FROM volatile"
    " WHERE volatile.fs = ost.fs AND volatile.ost = ost.idx)"
)


class Filesystem:
    """One file system. `mount` is the real directory, `display` what `lfs df` prints for it."""

    def __init__(
        self, name: str, mount: str, display: str, instance: str, defaults: list[Wish], composite: bool,
        allocator: str, size_scale: float,
    ) -> None:  # fmt: skip
        self.name = name
        self.mount = mount
        self.display = display
        self.instance = instance
        self.defaults = defaults
        self.composite = composite
        self.allocator = allocator
        self.size_scale = size_scale

    def holds(self, real: str) -> bool:
        return real == self.mount or real.startswith(self.mount + "/")


class Ost:
    """One OST at this moment. Sizes in KiB of the simulated file system: real ones times `size_scale`.

    held_kib: by files of the simulation, and by copies of them under way. excess_kib: what does not fit, but was
    written all the same, since nobody can keep the users of the mount from it.
    """

    def __init__(self, row: tuple[Any, ...], size_scale: float, now: float) -> None:
        self.index: int
        self.kib: int
        self.code: int
        (self.index, self.kib, base_kib, self.inodes, self.oss, self.nid, self.mbps, self.flash, self.state,
         self.code, self.slow, self.bytes, self.objects, overlay_kib, growth_kib_s, since,
         volatile_bytes) = row  # fmt: skip
        self.held_kib: float = (self.bytes + volatile_bytes) * size_scale / 1024
        grown_kib = growth_kib_s * max(0.0, now - since)
        used = base_kib + self.held_kib + overlay_kib + grown_kib
        self.used_kib = min(max(int(used), 0), self.kib)
        # Growth ends where the OST does: who cannot write any more does not.
        self.excess_kib = max(int(used - max(grown_kib, 0)) - self.kib, 0)
        self.available_kib = self.kib - self.used_kib

    @property
    def name(self) -> str:
        return f"OST{self.index:04x}"

    @property
    def full(self) -> bool:
        return self.available_kib < self.kib * 0.001

    @property
    def reachable(self) -> bool:
        return self.state not in (DOWN, DEACTIVATED, ERROR)

    @property
    def usable(self) -> bool:
        """New objects may be put here."""
        return self.reachable and self.state not in (READONLY, NOCREATE, ENOINO) and not self.full

    @property
    def letters(self) -> str:
        """As `lfs df` orders them: D R N S I."""
        letter = LETTERS.get(self.state, "")
        return letter if not self.full else "SI" if letter == "I" else letter + "S"


class State:
    """The open database of the simulation under `root`. Every method reads what is there now."""

    def __init__(self, root: str) -> None:
        self.root = root
        # Without isolation level SQLite is in autocommit mode: transactions are the ones of `writing`.
        self.db = sqlite.connect(f"{root}/state.db", timeout=30.0, isolation_level=None)
        self.db.execute("PRAGMA synchronous=OFF")
        # Whoever opens a database that nobody else has open reads the whole log first: keep it short.
        self.db.execute("PRAGMA wal_autocheckpoint=100")
        self._lock = -1
        self._settings: dict[str, str] | None = None
        self._filesystems: list[Filesystem] | None = None

    def close(self) -> None:
        self.db.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def writing(self) -> _Writing:
        """A context in which this process alone writes: all of it is kept, or nothing. May be nested."""
        return _Writing(self)

    def commit(self) -> None:
        """Inside `writing`: keep what was done so far, and go on alone."""
        self.db.execute("COMMIT")
        self.db.execute("BEGIN IMMEDIATE")

    def lock(self) -> int:
        if self._lock < 0:
            self._lock = os.open(f"{self.root}/write.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        return self._lock

    # What was built.

    def setting(self, name: str) -> str:
        if self._settings is None:
            self._settings = dict(self.db.execute("SELECT name, value FROM setting"))
        return self._settings[name]

    def time_scale(self) -> float:
        """Simulated seconds in a real one, as it is set now; 0: nothing takes time."""
        query = "SELECT value FROM setting WHERE name='time_scale'"
        return float(self.db.execute(query).fetchone()[0])

    def down_block_s(self) -> float:
        """How long a program waits for an OST that does not answer; real seconds."""
        return float(self.setting("down_block_s"))

    def is_on(self, name: str) -> bool:
        """Whether a setting that is `true` or `false` is `true`."""
        return self.setting(name) == "true"

    def version(self) -> tuple[int, ...]:
        """The Lustre version whose dialect is spoken: (2, 15, 5)."""
        return tuple(int(part) for part in self.setting("lustre_version").split("."))

    def filesystems(self) -> list[Filesystem]:
        """In the order of `sim.json`."""
        if self._filesystems is None:
            self._filesystems = []
            for name, mount, display, instance, defaults, composite, allocator, scale in self.db.execute(
                "SELECT name, mount, display, instance, defaults, composite, allocator, size_scale"
                " FROM filesystem ORDER BY place"
            ):
                real = os.path.realpath(os.path.join(self.root, mount))
                wishes = [Wish.from_dict(wish) for wish in compact.loads(defaults)]
                self._filesystems.append(
                    Filesystem(
                        name, real, display or real, instance, wishes, bool(composite), allocator, scale
                    )
                )
        return self._filesystems

    def filesystem(self, name: str) -> Filesystem | None:
        return next((fs for fs in self.filesystems() if fs.name == name), None)

    def filesystem_of(self, path: str) -> Filesystem | None:
        """The file system that a path lies in, whether it exists or not."""
        real = os.path.realpath(path)
        return next((fs for fs in self.filesystems() if fs.holds(real)), None)

    def osts(self, fs: Filesystem) -> list[Ost]:
        """All OSTs, by index."""
        now = time.time()
        query = f"SELECT {_OST_COLUMNS} FROM ost WHERE fs=? ORDER BY idx"  # noqa: S608  # constant columns
        return [Ost(row, fs.size_scale, now) for row in self.db.execute(query, (fs.name,))]

    def some_osts(self, fs: Filesystem, indices: Iterable[int]) -> list[Ost]:
        """Those of the given OSTs that exist."""
        now = time.time()
        query = f"SELECT {_OST_COLUMNS} FROM ost WHERE fs=? AND idx=?"  # noqa: S608  # constant columns
        rows = [self.db.execute(query, (fs.name, index)).fetchone() for index in indices]
        return [Ost(row, fs.size_scale, now) for row in rows if row is not None]

    def mdts(self, fs: Filesystem) -> list[tuple[int, int, int, str]]:
        """(index, size in KiB, used KiB, NID) of each MDT, by index."""
        return list(
            self.db.execute("SELECT idx, kib, used_kib, nid FROM mdt WHERE fs=? ORDER BY idx", (fs.name,))
        )

    def pools(self, fs: Filesystem) -> dict[str, set[int]]:
        found: dict[str, set[int]] = {}
        for name, ost in self.db.execute("SELECT name, ost FROM pool WHERE fs=? ORDER BY name", (fs.name,)):
            found.setdefault(name, set()).add(ost)
        return found

    def next_number(self, counter: str) -> int:
        """1, 2, … for each counter. Only inside `writing`."""
        (number,) = self.db.execute(
            "INSERT INTO counter VALUES (?, 1) ON CONFLICT(name)"
            " DO UPDATE SET value = value + 1 RETURNING value",
            (counter,),
        ).fetchone()
        return int(number)

    def take_object(self, fs: Filesystem, ost: int) -> int:
        """The number of a new object on an OST. Only inside `writing`."""
        (number,) = self.db.execute(
            "UPDATE ost SET next_object = next_object + 1 WHERE fs=? AND idx=? RETURNING next_object",
            (fs.name, ost),
        ).fetchone()
        return int(number)

    # Planned changes of state.

    def apply_changes(self, calls: int = 0) -> None:
        """Carry out what `simctl ost --after/--after-calls` planned, as far as it is due.

        calls: how many calls have been made since this was asked last.
        """
        if self.db.execute("SELECT 1 FROM change LIMIT 1").fetchone() is None:
            return
        with self.writing():
            self.db.execute("UPDATE change SET calls = calls - ? WHERE calls IS NOT NULL", (calls,))
            due = self.db.execute(
                "SELECT id, fs, ost, state, code, slow FROM change WHERE at <= ? OR calls < 0 ORDER BY id",
                (time.time(),),
            ).fetchall()
            for number, fs, ost, state, code, slow in due:
                self.set_ost_state(fs, ost, state, code, slow)
                self.db.execute("DELETE FROM change WHERE id=?", (number,))

    def set_ost_state(
        self, fs: str, ost: int, state: str | None, code: int | None, slow: float | None
    ) -> None:
        """None leaves a column as it is."""
        self.db.execute(
            "UPDATE ost SET state=coalesce(?, state), code=coalesce(?, code), slow=coalesce(?, slow)"
            " WHERE fs=? AND idx=?", (state, code, slow, fs, ost)
        )  # fmt: skip


class _Writing:
    """The context of `State.writing`. The lock is the kernel's, so a killed writer lets go of it."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.outermost = not state.db.in_transaction

    def __enter__(self) -> None:
        if self.outermost:
            fcntl.flock(self.state.lock(), fcntl.LOCK_EX)
            self.state.db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self.outermost:
            return
        try:
            self.state.db.execute("COMMIT" if kind is None else "ROLLBACK")
        finally:
            fcntl.flock(self.state.lock(), fcntl.LOCK_UN)
