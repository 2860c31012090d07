"""The file of the store as a database: opening it, transactions, and what an error of SQLite means."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cyclone.errors import RuleBroken, StoreCorrupt, StoreError, StoreFull, StoreVersionError
from cyclone.store import file

#: "CycS": what file(1) and `PRAGMA application_id` show.
APPLICATION_ID = 0x43796353

#: Grows with every change of the tables below.
VERSION = 1

# No STRICT tables and no RETURNING: the SQLite of the enterprise distributions in use is 3.26.
_SCHEMA = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    # first_task, last_task: all tasks of the job have numbers from here to there; NULL while it is not closed.
    """CREATE TABLE job (
        number INTEGER PRIMARY KEY, name TEXT NOT NULL, state TEXT NOT NULL,
        opened_at REAL NOT NULL, closed_at REAL NOT NULL DEFAULT 0,
        first_task INTEGER NOT NULL, last_task INTEGER)""",
    """CREATE TABLE job_count (
        job INTEGER NOT NULL REFERENCES job, state TEXT NOT NULL, tasks INTEGER NOT NULL,
        PRIMARY KEY (job, state)) WITHOUT ROWID""",
    "CREATE TABLE policy (number INTEGER PRIMARY KEY, kind TEXT NOT NULL, body BLOB NOT NULL UNIQUE)",
    # The rows that come by the million name others without a foreign key: checking it would fetch a page of
    # long ago for every end.
    """CREATE TABLE task (
        job INTEGER NOT NULL, tid TEXT NOT NULL, number INTEGER NOT NULL,
        PRIMARY KEY (job, tid)) WITHOUT ROWID""",
    # tasks: `[(number, job, tid, policy, after), …]`, all from first to last; payloads: one for each, in the
    # last column, so that reading the rest never fetches their pages.
    """CREATE TABLE parcel (
        first INTEGER PRIMARY KEY, last INTEGER NOT NULL, accepted_at REAL NOT NULL,
        tasks BLOB NOT NULL, payloads BLOB NOT NULL)""",
    """CREATE TABLE placement (
        first INTEGER PRIMARY KEY, name TEXT NOT NULL, life TEXT NOT NULL, numbers BLOB NOT NULL)""",
    # Keyed by its token: no two attempts share one.
    """CREATE TABLE attempt (
        task INTEGER NOT NULL, token INTEGER NOT NULL, attempt INTEGER NOT NULL, peer TEXT NOT NULL,
        cause TEXT NOT NULL, "end" BLOB NOT NULL, PRIMARY KEY (task, token)) WITHOUT ROWID""",
    # story: `(state, attempts, peer, end, reason, value)`.
    "CREATE TABLE ended (task INTEGER PRIMARY KEY, story BLOB NOT NULL)",
    # "Which ones failed?" is asked of a hundred million tasks, most of which succeeded.
    "CREATE TABLE ended_badly (task INTEGER PRIMARY KEY, state TEXT NOT NULL)",
)

_PAGE_BYTES = 8192  # measured: a tenth less time a task than with 4096 or 16384
_CACHE_BYTES = 32 * 2**20
_LOG_PAGES = 2048  # 16 MiB of log are gathered before they are copied into the file
_BUSY_S = 10.0

#: What SQLite calls a used-up quota. Not a failed fsync: the pages may be gone, and to try again is to lie.
_NO_ROOM = (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_TRUNCATE, sqlite3.SQLITE_IOERR_SHMSIZE)


class Database:
    """One connection, and the lock that makes it the only one that writes. Not for more than one thread.

    execute, executemany: within `transaction` only, which also turns what they raise into errors of ours.
    """

    def __init__(self, path: str | Path, durability: str, max_bytes: int) -> None:
        """As `SqliteStore`."""
        self.path = file.resolved(Path(path))
        self._synchronous = "PRAGMA synchronous=" + durability
        self._lock = file.claim(self.path)
        try:
            self._connection = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None)
        except sqlite3.Error as error:
            self._lock.close()
            raise self._explained(error) from error
        self.execute = self._connection.execute
        try:
            self._prepare(max_bytes)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """The last one who closes the file copies the log into it and removes it (sqlite.org/wal.html)."""
        self._connection.close()
        self._lock.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or none. Raises what `remember` raises."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
        except BaseException as error:
            # SQLite itself has rolled back already after some errors, but not after all.
            with contextlib.suppress(sqlite3.Error):
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise self._explained(error) from error
            if isinstance(error, UnicodeEncodeError | OverflowError):
                raise RuleBroken(f"cannot be stored: {error}") from error
            raise

    def executemany(self, statement: str, rows: Sequence[Sequence[object]]) -> int:
        """Execute it for each of the rows, which may be none. Returns how many rows of the table it touched."""
        return self._connection.executemany(statement, rows).rowcount if rows else 0

    def read(self, statement: str, values: Sequence[object] = ()) -> list[Any]:
        return list(self.rows(statement, values))

    def rows(self, statement: str, values: Sequence[object] | Mapping[str, object] = ()) -> Iterator[Any]:
        try:
            yield from self._connection.execute(statement, values)
        except sqlite3.Error as error:
            raise self._explained(error) from error

    def _explained(self, error: sqlite3.Error) -> RuleBroken | StoreError:
        # The lower byte is the kind of error, the rest where it happened (sqlite.org/rescode.html).
        whole = getattr(error, "sqlite_errorcode", 0)
        code = whole & 0xFF
        text = f"{self.path}: {error}"
        if code == sqlite3.SQLITE_FULL:
            return StoreFull(text)
        if whole in _NO_ROOM and not self._has_room():
            # SQLite says "disk I/O error", which is another matter for whoever has to mend it.
            return StoreFull(f"{self.path}: no room on the disk, or within its quota")
        if code == sqlite3.SQLITE_NOTADB:
            return StoreCorrupt(
                f"{self.path}: found something that is no database, expected a store of Cyclone"
            )
        if code == sqlite3.SQLITE_CORRUPT:
            return StoreCorrupt(f"{text}: the file is damaged; expected an intact store of Cyclone")
        if isinstance(error, sqlite3.IntegrityError | sqlite3.DataError):
            return RuleBroken(text)
        return StoreError(text)

    def _has_room(self) -> bool:
        try:
            return file.has_room(self.path.parent)
        except OSError:
            return True

    @contextlib.contextmanager
    def durable_transaction(self) -> Iterator[None]:
        """A transaction that survives a power cut, whatever durability the store was opened with."""
        self.read("PRAGMA synchronous=FULL")
        try:
            with self.transaction():
                yield
        finally:
            self.read(self._synchronous)

    def _prepare(self, max_bytes: int) -> None:
        """Make sure that the file is ours before anything is changed in it, then set the connection up."""
        read = self.read
        [(application,)], [(version,)] = read("PRAGMA application_id"), read("PRAGMA user_version")
        [(tables,)] = read("SELECT count(*) FROM sqlite_master")
        # A file that was created and not filled yet, because the process was killed in between, is empty.
        fresh = application == version == tables == 0
        if not fresh and application != APPLICATION_ID:
            raise StoreCorrupt(
                f"{self.path}: found a database with application id {application:#x}, "
                f"expected a store of Cyclone ({APPLICATION_ID:#x})"
            )
        if not fresh and version != VERSION:
            raise StoreVersionError(
                f"{self.path}: found a store of version {version}, expected version {VERSION}"
            )
        if fresh:
            read("PRAGMA page_size=" + str(_PAGE_BYTES))
        [(mode,)] = read("PRAGMA journal_mode=WAL")
        if mode != "wal":
            raise StoreError(
                f"{self.path}: found journal mode {mode}, expected wal: is the disk a local one?"
            )
        for setting in (
            self._synchronous,
            "PRAGMA foreign_keys=ON",
            "PRAGMA temp_store=MEMORY",
            "PRAGMA cache_size=-" + str(_CACHE_BYTES // 1024),
            "PRAGMA wal_autocheckpoint=" + str(_LOG_PAGES),
            "PRAGMA journal_size_limit=" + str(2 * _LOG_PAGES * _PAGE_BYTES),
        ):
            read(setting)
        if max_bytes:
            read("PRAGMA max_page_count=" + str(max(1, max_bytes // _PAGE_BYTES)))
        if fresh:
            with self.transaction():
                for statement in _SCHEMA:
                    self._connection.execute(statement)
                self._connection.execute("INSERT INTO meta VALUES ('epoch', 0)")
                self._connection.execute("PRAGMA application_id=" + str(APPLICATION_ID))
                self._connection.execute("PRAGMA user_version=" + str(VERSION))
