"""Records on disk, first in, first out: whoever holds them keeps them until the next one says that it has them.

One SQLite file with a write-ahead log and `synchronous=FULL`: what `append` returned from survives a power cut.
Sequence numbers grow for ever and are never used twice, so that a reader who remembers how far it came misses
nothing, and nobody deletes what he has not read. The file belongs to one process, which may have it open more than
once, in several threads: writers wait for one another.

A disk may give back other bits than it was given. A file is not read through for that when it is opened, which takes
seconds for each GB; what is wrong is noticed where it is met. A value comes out as what its column holds, whatever lies
there; whoever gets it checks it like anything from outside. Indexes and counts that contradict the entries are made
anew from these. A file whose entries themselves cannot be read is set aside; but never one that was no spool: who
has mistyped a path does not lose what lies there.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from cyclone.errors import ConfigError, RuleBroken, StoreCorrupt, StoreError, StoreFull, StoreVersionError
from cyclone.messages import Entry
from cyclone.store import file

log = logging.getLogger(__name__)

#: "CycR": what file(1) and `PRAGMA application_id` show.
APPLICATION_ID = 0x43796352

#: Grows with every change of the tables below.
VERSION = 1

#: What an entry takes beside its texts and its body, about: the rest of the row, and places in two indexes.
_ENTRY_BYTES = 128

_SCHEMA = (
    # entries, size: what there is of it now, so that nobody has to count.
    """CREATE TABLE sink (
        number INTEGER PRIMARY KEY, name TEXT NOT NULL, entries INTEGER NOT NULL, size INTEGER NOT NULL)""",
    # AUTOINCREMENT: a number is not used again, though its row is gone (sqlite.org/autoinc.html).
    """CREATE TABLE entry (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, uid BLOB NOT NULL UNIQUE, sink INTEGER NOT NULL, kind TEXT NOT NULL,
        job TEXT NOT NULL, tid TEXT NOT NULL, at REAL, size INTEGER NOT NULL, body BLOB NOT NULL)""",
    "CREATE INDEX entry_of_sink ON entry (sink)",
)

# Not `INSERT OR IGNORE`, which would ignore every other fault as well.
_APPEND = """INSERT INTO entry (uid, sink, kind, job, tid, at, size, body) VALUES (?,?,?,?,?,?,?,?)
    ON CONFLICT (uid) DO NOTHING"""

_COUNT = "SELECT sink, count(*), sum(size) FROM entry WHERE "

# A damaged row may hold anything; SQLite keeps a time that is not a number as NULL.
_READ = """SELECT seq, coalesce(CAST(uid AS BLOB), x''), coalesce(CAST(kind AS TEXT), ''), coalesce(CAST(job AS TEXT), ''),
        coalesce(CAST(tid AS TEXT), ''), CAST(at AS REAL), coalesce(CAST(body AS BLOB), x'')
    FROM entry WHERE sink = (SELECT number FROM sink WHERE name = ?) AND seq > ? ORDER BY seq LIMIT ?"""

_FILL = """SELECT coalesce(CAST(name AS TEXT), ''), coalesce(CAST(entries AS INTEGER), -1),
        coalesce(CAST(sink.size AS INTEGER), -1), seq, CAST(at AS REAL)
    FROM sink LEFT JOIN entry ON seq = (SELECT seq FROM entry WHERE sink = number ORDER BY seq LIMIT 1)
    ORDER BY name"""

# Where nothing is found for a sink after a number: are there others than those up to it, or some that the index misses?
_MISCOUNTED = """SELECT 1 FROM sink WHERE name = ? AND (
    entries != (SELECT count(*) FROM entry NOT INDEXED WHERE sink = number AND seq <= ?)
    OR entries != (SELECT count(*) FROM entry WHERE sink = number))"""

# Of the file, without what was given up and waits to be used again.
_TAKEN = """SELECT (page_count - freelist_count) * page_size
    FROM pragma_page_count, pragma_freelist_count, pragma_page_size"""

_PAGE_BYTES = 4096  # measured: with 300,000 entries in it a third faster than with 8192 or 1024
_CACHE_BYTES = 32 * 2**20
_LOG_PAGES = 4096  # 16 MiB of log are gathered before they are copied into the file
_BUSY_S = 30.0

#: To forget something takes room too: for the log, and for copying it into the file. So much is set aside for that.
_RESERVE_BYTES = 24 * 2**20

#: What SQLite calls a used-up quota.
_NO_ROOM = (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_TRUNCATE, sqlite3.SQLITE_IOERR_SHMSIZE)

#: A file that is damaged is set aside and begun anew so often before somebody has to look.
_TRIES = 3

_Found = TypeVar("_Found")


class Fill(NamedTuple):
    """What waits for one sink. size: its share of the file, bytes; oldest_at: when the first was recorded, Unix time."""

    entries: int
    size: int
    oldest_at: float


class Spool:
    """One connection to the file of a spool, not for two threads at the same time. The first one owns the file."""

    def __init__(self, path: str | Path, max_bytes: int = 0, *, beside: Spool | None = None) -> None:
        """Open the spool, or create an empty one; a damaged file is set aside first.

        max_bytes: bound of the file, with what is kept for all sinks, 0 for none. The log beside it may take 32 MiB
        more, and a reserve for a full disk takes 24. The file does not shrink: it keeps the size of its fullest hour.
        beside: see `another`.

        Raises AlreadyRunning (another process, or an owner in this one), ConfigError (place, or the database of
        somebody else), StoreCorrupt (no database, and never was a spool), StoreVersionError, StoreFull, StoreError.
        """
        self.path = file.resolved(Path(path))
        self.max_bytes = max_bytes
        self._reserve = self.path.with_name(self.path.name + ".reserve")
        # Held by who opens the file or sets it aside.
        self._alone: threading.Lock = threading.Lock() if beside is None else beside._alone
        # Only then it may be set aside.
        self._was_spool = beside is not None
        self._claim = file.claim(self.path, "spool") if beside is None else None
        try:
            self._open()
        except BaseException:
            self._let_go()
            raise

    def another(self) -> Spool:
        """A further connection, for another thread of this process; this one is to be closed last."""
        return Spool(self.path, beside=self)

    def close(self) -> None:
        self._connection.close()
        self._let_go()

    def _let_go(self) -> None:
        if self._claim is not None:
            self._claim.close()

    def append(self, entries: Sequence[Entry]) -> int:
        """Keep all of these or none, and return when they are on disk. Returns how many were not there already.

        Raises StoreFull when there is no room for them: nothing is written then. RuleBroken: an entry that cannot
        be written, whatever is tried. StoreError: the disk fails.
        """
        return self._on_the_file(lambda: self._append(entries))

    def read(self, sink: str, after_seq: int, limit: int, max_bytes: int = 0) -> list[tuple[int, Entry]]:
        """What was appended for this sink after this number, oldest first.

        max_bytes: of all together, by `size_of`, but at least one is read; 0 for no such bound.
        """
        return self._on_the_file(lambda: self._read(sink, after_seq, limit, max_bytes))

    def holds(self, uids: Sequence[bytes]) -> set[bytes]:
        """Those of these records that are here, whoever they are for. uids: `UIDS_MOST` of them at most."""
        return self._on_the_file(lambda: self._holds(uids))

    def delete(self, seqs: Iterable[int]) -> int:
        """Forget these. Returns how many there were."""
        wanted = [(seq,) for seq in seqs]
        return self._forgetting(lambda: self._delete(wanted))

    def delete_upto(self, sink: str, seq: int) -> int:
        """Forget everything of this sink up to and with this number. Returns how many there were."""
        return self._forgetting(
            lambda: self._delete_all(
                "sink = (SELECT number FROM sink WHERE name = ?) AND seq <= ?", (sink, seq)
            )
        )

    def drop_oldest(self, size: int) -> int:
        """Have the file give up so many bytes by forgetting what is oldest, whoever it is for. Returns how many were lost."""
        return self._forgetting(lambda: self._drop_oldest(size))

    def fill(self) -> dict[str, Fill]:
        """`{sink: what waits for it}`, without those for which nothing does."""
        return self._on_the_file(self._fill)

    # What is done there.

    def _append(self, entries: Sequence[Entry]) -> int:
        with self._transaction():
            [(last,)] = self._rows("SELECT coalesce(max(seq), 0) FROM entry")
            numbers = {name: self._number(name) for name in {entry.sink for entry in entries}}
            self._connection.executemany(
                _APPEND,
                [
                    (
                        each.uid,
                        numbers[each.sink],
                        each.kind,
                        each.job,
                        each.tid,
                        each.at,
                        size_of(each),
                        each.body,
                    )
                    for each in entries
                ],
            )
            # Which of them were there already is known to SQLite alone.
            added = self._rows(_COUNT + "seq > ? GROUP BY +sink", (last,))
            for number, count, size in added:
                self._connection.execute(
                    "UPDATE sink SET entries = entries + ?, size = size + ? WHERE number = ?",
                    (count, size, number),
                )
            if self.max_bytes and added and (taken := self._taken()) > self.max_bytes:
                raise StoreFull(f"{self.path}: {taken} bytes would be taken, {self.max_bytes} are allowed")
        return sum(count for _, count, _ in added)

    def _read(self, sink: str, after_seq: int, limit: int, max_bytes: int) -> list[tuple[int, Entry]]:
        found: list[tuple[int, Entry]] = []
        size = 0
        with self._transaction("DEFERRED"):
            with contextlib.closing(self._connection.execute(_READ, (sink, after_seq, limit))) as rows:
                for seq, uid, kind, job, tid, at, body in rows:
                    entry = Entry(uid, sink, kind, job, tid, math.nan if at is None else at, body)
                    size += size_of(entry)
                    if max_bytes and size > max_bytes and found:
                        break
                    found.append((seq, entry))
            if not found and self._rows(_MISCOUNTED, (sink, after_seq)):
                raise self._contradiction()
        return found

    def _holds(self, uids: Sequence[bytes]) -> set[bytes]:
        places = ",".join("?" * len(uids))
        return {uid for (uid,) in self._rows(f"SELECT uid FROM entry WHERE uid IN ({places})", uids)}  # noqa: S608

    def _delete(self, seqs: Sequence[tuple[int]]) -> int:
        with self._transaction():
            self._connection.execute("DELETE FROM gone")
            self._connection.executemany("INSERT OR IGNORE INTO gone VALUES (?)", seqs)
            return self._forget("seq IN (SELECT seq FROM gone)", ())

    def _delete_all(self, condition: str, values: Sequence[object]) -> int:
        with self._transaction():
            return self._forget(condition, values)

    def _drop_oldest(self, size: int) -> int:
        lost = 0
        with self._transaction():
            goal = self._taken() - size
            # Not all that an entry takes is given up with it: pages and indexes keep the places of others.
            while (excess := self._taken() - goal) > 0 and (last := self._oldest(excess)):
                lost += self._forget("seq <= ?", (last,))
        return lost

    def _oldest(self, size: int) -> int:
        """The number up to which entries are of this size together, the oldest ones; 0 if there are none."""
        last = found = 0
        sizes = "SELECT seq, max(0, coalesce(CAST(size AS INTEGER), 0)) FROM entry ORDER BY seq"
        for seq, each in self._connection.execute(sizes):
            last, found = seq, found + each
            if found >= size:
                break
        return last

    def _forget(self, condition: str, values: Sequence[object]) -> int:
        """Delete what meets a condition of our own. A `+` keeps SQLite from walking along an index of all sinks."""
        lost = self._rows(_COUNT + condition + " GROUP BY +sink", values)
        self._connection.execute("DELETE FROM entry WHERE " + condition, values)  # noqa: S608 - our own
        for number, count, size in lost:
            self._connection.execute(
                "UPDATE sink SET entries = entries - ?, size = size - ? WHERE number = ?",
                (count, size, number),
            )
        return sum(count for _, count, _ in lost)

    def _fill(self) -> dict[str, Fill]:
        with self._transaction("DEFERRED"):
            sinks, taken = self._rows(_FILL), self._taken()
        if any(
            (entries > 0) != (first is not None) or min(entries, size) < 0 or (size and not entries)
            for _, entries, size, first, _ in sinks
        ):
            raise self._contradiction()
        sizes = sum(size for _, _, size, _, _ in sinks)
        return {
            name: Fill(entries, taken * size // max(1, sizes), oldest_at or 0.0)
            for name, entries, size, _, oldest_at in sinks
            if entries
        }

    def _taken(self) -> int:
        [(taken,)] = self._rows(_TAKEN)
        return int(taken)

    def _contradiction(self) -> StoreCorrupt:
        return StoreCorrupt(f"{self.path}: the counts or the indexes contradict the entries")

    def _mend(self) -> None:
        """Make indexes and counts anew from the entries. Raises sqlite3.Error: these cannot be read."""
        with self._transaction():
            self._connection.execute("REINDEX")
            # The sink that was meant is not known any more. The first one refuses what is not for it.
            self._connection.execute(
                """UPDATE entry SET sink = (SELECT min(number) FROM sink)
                WHERE sink NOT IN (SELECT number FROM sink)"""
            )
            self._connection.execute(
                """UPDATE sink SET (entries, size) =
                (SELECT count(*), max(0, coalesce(sum(size), 0)) FROM entry WHERE entry.sink = number)"""
            )

    def _number(self, sink: str) -> int:
        """The number of a sink, which gets one if it has none. Within a transaction, so that it may be undone."""
        rows = self._rows("SELECT number FROM sink WHERE name = ?", (sink,))
        if not rows:
            self._connection.execute("INSERT INTO sink (name, entries, size) VALUES (?, 0, 0)", (sink,))
            rows = self._rows("SELECT number FROM sink WHERE name = ?", (sink,))
        return int(rows[0][0])

    # The file, and what can be wrong with it.

    def _on_the_file(self, work: Callable[[], _Found]) -> _Found:
        """What `work` returns, which may be done twice.

        A damaged file was perhaps set aside through another connection: what this one wrote meanwhile is in
        the wrong file then, though nothing failed.
        """
        is_mended = False
        for _ in range(_TRIES):
            if not self._is_in_place():
                self._reopen()
            try:
                found = work()
                if self._is_in_place():
                    return found
            except (sqlite3.Error, StoreCorrupt) as error:
                if self._is_in_place():
                    explained = self._explained(error)
                    if not isinstance(explained, StoreCorrupt):
                        raise explained from error
                    # Once: what is not cured by it is not about indexes and counts.
                    if is_mended or not self._is_mended(explained):
                        self._set_aside(explained)
                    is_mended = True
        raise StoreError(f"{self.path}: damaged, or moved away, again and again")

    def _is_mended(self, reason: StoreCorrupt) -> bool:
        log.error("spool damaged, its indexes and counts are made anew path=%s reason=%s", self.path, reason)
        try:
            self._mend()
        except sqlite3.Error as error:
            explained = self._explained(error)
            if isinstance(explained, StoreCorrupt | RuleBroken):
                return False
            raise explained from error
        return True

    def _forgetting(self, work: Callable[[], int]) -> int:
        """As `_on_the_file`; on a full disk at the cost of the reserve, which is renewed when nothing is left."""
        try:
            gone = self._on_the_file(work)
        except StoreFull:
            if not self._spend_reserve():
                raise
            gone = self._on_the_file(work)
        if not self._has_reserve() and not self.fill():
            self._keep_reserve()
        return gone

    def _has_reserve(self) -> bool:
        try:
            return os.stat(self._reserve).st_size >= _RESERVE_BYTES
        except FileNotFoundError:
            return False

    def _spend_reserve(self) -> bool:
        try:
            os.unlink(self._reserve)
        except FileNotFoundError:
            return False
        log.warning("the disk is full, a spool has spent its reserve path=%s", self.path)
        # As far as the others let it: the log is not needed any more for what is in the file then.
        self._on_the_file(lambda: self._rows("PRAGMA wal_checkpoint(TRUNCATE)"))
        return True

    def _keep_reserve(self) -> None:
        """Set room aside, if there is any."""
        with contextlib.suppress(OSError):
            descriptor = os.open(
                self._reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
            try:
                os.posix_fallocate(descriptor, 0, _RESERVE_BYTES)
            except OSError:
                os.unlink(self._reserve)
                raise
            finally:
                os.close(descriptor)

    @contextlib.contextmanager
    def _transaction(self, kind: str = "IMMEDIATE") -> Iterator[None]:
        """All or none. Raises sqlite3.Error; RuleBroken for what Python cannot hand to SQLite.

        kind: DEFERRED for what only reads, all of it as of one moment.
        """
        self._connection.execute(f"BEGIN {kind}")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException as error:
            # SQLite itself has rolled back already after some errors, but not after all.
            with contextlib.suppress(sqlite3.Error):
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            if isinstance(error, UnicodeEncodeError | OverflowError):
                raise RuleBroken(f"cannot be kept: {error}") from error
            raise

    def _rows(self, statement: str, values: Sequence[object] = ()) -> list[Any]:
        return self._connection.execute(statement, values).fetchall()

    def _is_in_place(self) -> bool:
        try:
            return _identity(os.stat(self.path)) == self._identity
        except FileNotFoundError:
            return False

    def _reopen(self) -> None:
        self._connection.close()
        self._open()

    def _open(self) -> None:
        for _ in range(_TRIES):
            try:
                with self._alone:
                    file.create(self.path)
                    self._identity = _identity(os.stat(self.path))
                    self._connection = self._connect()
                    with self._closing_what_fails():
                        self._prepare()
                        if not self._has_reserve():
                            self._keep_reserve()
                self._was_spool = True
                return
            except OSError as error:
                raise file.refused(self.path, error) from error
            except sqlite3.Error as error:
                explained = self._explained(error)
                if not isinstance(explained, StoreCorrupt):
                    raise explained from error
                if not (self._was_spool or self._has_left_signs()):
                    problem = "found something that is no database, expected a spool of Cyclone"
                    raise StoreCorrupt(f"{self.path}: {problem}") from error
                self._set_aside(explained)
        raise StoreError(f"{self.path}: damaged again and again")

    def _has_left_signs(self) -> bool:
        """Was this file a spool in a former life? Asked only before it is one in this life: see `file.application_id`."""
        return self._reserve.exists() or file.application_id(self.path) == APPLICATION_ID

    def _connect(self) -> sqlite3.Connection:
        try:
            # One thread at a time, but not always the same.
            connection = sqlite3.connect(
                self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
        except sqlite3.OperationalError as error:
            problem = f"cannot be used: {error}; expected a file that this account may write"
            raise ConfigError(problem, file=self.path) from error
        connection.text_factory = partial(str, encoding="utf-8", errors="replace")
        return connection

    @contextlib.contextmanager
    def _closing_what_fails(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        """Make sure that the file is ours before anything is changed in it, then set the connection up."""
        [(application,)], [(version,)] = (
            self._rows("PRAGMA application_id"),
            self._rows("PRAGMA user_version"),
        )
        [(tables,)] = self._rows("SELECT count(*) FROM sqlite_master")
        # A file that was created and not filled yet, because the process was killed in between, is empty.
        fresh = application == version == tables == 0
        if not fresh and application != APPLICATION_ID:
            raise ConfigError(
                f"found a database with application id {application:#x}, "
                f"expected a spool of Cyclone ({APPLICATION_ID:#x})",
                file=self.path,
            )
        if not fresh and version != VERSION:
            raise StoreVersionError(
                f"{self.path}: found a spool of version {version}, expected version {VERSION}"
            )
        if fresh:
            self._rows("PRAGMA page_size=" + str(_PAGE_BYTES))
        for setting in (
            "PRAGMA journal_mode=WAL",
            "PRAGMA synchronous=FULL",
            "PRAGMA temp_store=MEMORY",
            "PRAGMA cache_size=-" + str(_CACHE_BYTES // 1024),
            "PRAGMA wal_autocheckpoint=" + str(_LOG_PAGES),
            "PRAGMA journal_size_limit=" + str(2 * _LOG_PAGES * _PAGE_BYTES),
            "CREATE TEMP TABLE gone (seq INTEGER PRIMARY KEY)",
        ):
            self._rows(setting)
        if fresh:
            with self._transaction():
                for statement in _SCHEMA:
                    self._connection.execute(statement)
                # Also larger than those of a file in whose place this one comes: entries come in slower than one a
                # microsecond.
                self._connection.execute(
                    "INSERT INTO sqlite_sequence (name, seq) VALUES ('entry', ?)", (time.time_ns() // 1000,)
                )
                self._connection.execute("PRAGMA application_id=" + str(APPLICATION_ID))
                self._connection.execute("PRAGMA user_version=" + str(VERSION))

    def _set_aside(self, reason: StoreCorrupt) -> None:
        """Give a damaged file and its log another name, unless somebody has done so already."""
        self._connection.close()
        with self._alone:
            if not self._is_in_place():
                return
            place = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}")
            log.error(
                "spool set aside, it is begun anew path=%s as=%s reason=%s", self.path, place.name, reason
            )
            # The file last: whoever is killed in between begins here again.
            for ending in ("-wal", "-shm", ""):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(f"{self.path}{ending}", f"{place}{ending}")

    def _explained(self, error: sqlite3.Error | StoreCorrupt) -> RuleBroken | StoreError:
        if isinstance(error, StoreCorrupt):
            return error
        # The lower byte is the kind of error, the rest where it happened (sqlite.org/rescode.html).
        whole = getattr(error, "sqlite_errorcode", 0)
        code = whole & 0xFF
        text = f"{self.path}: {error}"
        if code == sqlite3.SQLITE_FULL:
            return StoreFull(text)
        if whole in _NO_ROOM and not self._has_room():
            # SQLite says "disk I/O error", which is another matter for whoever has to mend it.
            return StoreFull(f"{self.path}: no room on the disk, or within its quota")
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return StoreCorrupt(text)
        if isinstance(error, sqlite3.IntegrityError | sqlite3.DataError | sqlite3.InterfaceError):
            return RuleBroken(text)
        return StoreError(text)

    def _has_room(self) -> bool:
        try:
            return file.has_room(self.path.parent)
        except OSError:
            return True


def size_of(entry: Entry) -> int:
    """About what it takes by itself, in bytes. Raises UnicodeEncodeError."""
    texts = sum(
        len(text) if text.isascii() else len(text.encode()) for text in (entry.tid, entry.job, entry.kind)
    )
    return _ENTRY_BYTES + texts + len(entry.body)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
