"""The file of the store as a database: opening it, transactions, and what an error of SQLite means."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from cyclone.errors import RuleBroken, StoreCorrupt, StoreError, StoreFull, StoreVersionError
from cyclone.model.task import Epoch
from cyclone.store import file

#: "CycS": what file(1) and `PRAGMA application_id` show.
APPLICATION_ID = 0x43796353

#: "CycB": a back-up, which was never opened since it was made. Its first opening makes a store of it.
BACKUP_ID = 0x43796342

# No STRICT tables and no RETURNING: the SQLite of the enterprise distributions in use is 3.26.
_FIRST = (
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
    # story: `(state, attempts, peer, end, reason, value, ended_at)`.
    "CREATE TABLE ended (task INTEGER PRIMARY KEY, story BLOB NOT NULL)",
    # "Which ones failed?" is asked of a hundred million tasks, most of which succeeded.
    "CREATE TABLE ended_badly (task INTEGER PRIMARY KEY, state TEXT NOT NULL)",
    "INSERT INTO meta VALUES ('epoch', 0)",
)
#: What can be forgotten.
_SECOND = (
    # remember_s: for how long after its end a task is remembered while the job is open; NULL: for as long.
    "ALTER TABLE job ADD COLUMN remember_s REAL",
    # swept: tasks up to here were looked at. forgotten: tasks that job_count counts and nobody knows any more.
    "ALTER TABLE job ADD COLUMN swept INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE job ADD COLUMN forgotten INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX job_by_closing ON job (closed_at) WHERE last_task IS NOT NULL",
    # Jobs that are forgotten, while anything of them is left. next_task: up to there nothing is; NULL: they are
    # looked for by tid.
    "CREATE TABLE erasing (job INTEGER PRIMARY KEY, next_task INTEGER, last_task INTEGER NOT NULL)",
    # Ended tasks of open jobs that the sweep has passed.
    """CREATE TABLE late (
        job INTEGER NOT NULL, ended_at REAL NOT NULL, task INTEGER NOT NULL,
        PRIMARY KEY (job, ended_at, task)) WITHOUT ROWID""",
)

#: What leads from each version to the next; a new store goes the whole way. Steps that were released never change.
STEPS = (_FIRST, _SECOND)
VERSION = len(STEPS)

#: 2020-01-01. Epochs are minutes since then, at least, and no master is started once a minute for years.
_EPOCHS_FROM = 1_577_836_800
_MINUTES_MOST = 3 << 23  # until 2067; there are 2^25 epochs
#: A back-up does not know how often its store was started, and which jobs it opened, since. It leaves room for these.
_STARTS_SINCE = 1 << 16
_JOBS_SINCE = 1_000_000

#: In `meta` of a back-up: the minute in which it was made, see `minute`.
COPIED_AT = "copied_at"

PAGE_BYTES = 8192  # measured: a tenth less time a task than with 4096 or 16384
_CACHE_BYTES = 32 * 2**20
_LOG_PAGES = 2048  # 16 MiB of log are gathered before they are copied into the file
_LOOK_EVERY = 16  # transactions, at the size of the log
BUSY_S = 10.0

#: What `sqlite3` itself says, without a code, of a text that is none.
_NO_TEXT = "Could not decode to UTF-8"

#: What SQLite calls a used-up quota. Not a failed fsync: the pages may be gone, and to try again is to lie.
_NO_ROOM = (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_TRUNCATE, sqlite3.SQLITE_IOERR_SHMSIZE)

#: A COMMIT waits for no disk, `Database.sync` does. SQLite itself syncs the log before it copies it into the file.
_SYNCHRONOUS = "PRAGMA synchronous=NORMAL"

_Row = TypeVar("_Row")


class _BackupMeta(msgspec.Struct):
    """copied_at: see `COPIED_AT`; not there in a back-up of an earlier version."""

    epoch: Epoch
    copied_at: Epoch | None = None


class Database:
    """One connection, and the lock that makes it the only one that writes. Not for more than one thread.

    execute, executemany: within `transaction` only, which also turns what they raise into errors of ours.
    """

    def __init__(self, path: str | Path, durability: str, clock: Callable[[], float] = time.time) -> None:
        """As `SqliteStore`."""
        self.path = file.resolved(Path(path))
        self.upgraded_from: int | None = None  # the version of an older file, before it was opened
        self.was_backup = False
        self._clock = clock
        self._log = f"{self.path}-wal"
        self._log_fd: int | None = None
        self._transactions = 0
        self._is_synced = False
        self._durability = durability
        self._lock = file.claim(self.path)
        try:
            self._refuse_foreign_log()
            self._connection = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None)
        except StoreError:
            self._lock.close()
            raise
        except sqlite3.Error as error:
            self._lock.close()
            raise self._explained(error) from error
        self.execute = self._connection.execute
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """The last one who closes the file copies the log into it and removes it (sqlite.org/wal.html)."""
        self._connection.close()
        if self._log_fd is not None:
            os.close(self._log_fd)
            self._log_fd = None
        self._lock.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or none; what was committed outlives this process. Raises what `remember` raises."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
            self._is_synced = False
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
        self._expect_log_to_be_copied()

    def sync(self) -> None:
        """Return when all that was committed outlives a power cut, if durability was asked for. Raises StoreError.

        As a COMMIT with `synchronous=FULL` does it, but when the caller says so: frames of the log count if they are
        whole, so it is the log that has to be on disk (sqlite.org/walformat.html).
        """
        if self._is_synced or self._durability != "full":
            return
        try:
            if self._log_fd is None:
                self._log_fd = os.open(self._log, os.O_RDONLY | os.O_CLOEXEC)
            os.fdatasync(self._log_fd)
        except OSError as error:
            # Never tried again: the kernel may have given up what it could not write, and would say yes.
            raise StoreError(f"{self._log}: cannot be synced: {error.strerror}") from error
        self._is_synced = True

    def _expect_log_to_be_copied(self) -> None:
        """After COMMIT SQLite copies a long log into the file, and tells nobody when that fails.

        Nothing is lost by that, but the log would grow until the disk is full. One that is longer than it should be is
        copied once more, by a statement that tells. It may as well be that somebody reads the store for long.
        """
        self._transactions += 1
        if self._transactions % _LOOK_EVERY:
            return
        with contextlib.suppress(FileNotFoundError):
            if os.stat(self._log).st_size > 2 * _LOG_PAGES * PAGE_BYTES:
                # What was committed is on disk: for lack of room nobody has to try that again.
                with contextlib.suppress(StoreFull):
                    self.read("PRAGMA wal_checkpoint(PASSIVE)")

    def executemany(self, statement: str, rows: Sequence[Sequence[object]]) -> int:
        """Execute it for each of the rows, which may be none. Returns how many rows of the table it touched."""
        return self._connection.executemany(statement, rows).rowcount if rows else 0

    @property
    def taken_bytes(self) -> int:
        """So much of the file is in use; the rest is room of what was forgotten."""
        [(pages,)], [(free,)] = self.read("PRAGMA page_count"), self.read("PRAGMA freelist_count")
        return int(pages - free) * PAGE_BYTES

    def read(self, statement: str, values: Sequence[object] = ()) -> list[Any]:
        return list(self.rows(statement, values))

    def facts(
        self,
        kind: type[_Row],
        statement: str,
        values: Sequence[object] | Mapping[str, object] = (),
    ) -> Iterator[_Row]:
        """The rows, each of this kind: a tuple. Raises StoreCorrupt for one of another."""
        for row in self.rows(statement, values):
            # SQLite keeps a value of any type in nearly every column (sqlite.org/datatype3.html): damage may be one.
            yield checked(self.path, row, kind)

    def rows(self, statement: str, values: Sequence[object] | Mapping[str, object] = ()) -> Iterator[Any]:
        try:
            # Not `yield from`, which would close the cursor of a connection that may be closed already.
            for row in self._connection.execute(statement, values):  # noqa: UP028
                yield row
        except sqlite3.Error as error:
            raise self._explained(error) from error

    def _explained(self, error: sqlite3.Error) -> RuleBroken | StoreError:
        return explained(self.path, error)

    @contextlib.contextmanager
    def durable_transaction(self) -> Iterator[None]:
        """A transaction that outlives a power cut, whatever durability the store was opened with."""
        self.read("PRAGMA synchronous=FULL")
        try:
            with self.transaction():
                yield
        finally:
            self.read(_SYNCHRONOUS)

    def next_epoch(self) -> None:
        """Begin it. Larger than any that this store, or one that it replaces, has had as far as can be known."""
        # By the clock: the tokens of a store that was copied back, or that replaces another one, would look old to
        # controllers that knew the later one, and ends kept from then would pass for new ones.
        self.execute("UPDATE meta SET value = max(value + 1, ?) WHERE key = 'epoch'", (self._minute(),))

    def _minute(self) -> int:
        return minute(self._clock())

    def _refuse_foreign_log(self) -> None:
        """A log that lies beside a back-up is of the store that lay here before, and would be mixed with it."""
        log = Path(self._log)
        if file.application_id(self.path) == BACKUP_ID and log.exists() and log.stat().st_size:
            raise StoreCorrupt(
                f"{self.path}: found a back-up beside {log.name}, the log of another store; "
                "expected that to be moved away together with its store"
            )

    def _prepare(self) -> None:
        """Make sure that the file is ours before anything is changed in it, then set the connection up."""
        read = self.read
        [(application,)], [(version,)] = read("PRAGMA application_id"), read("PRAGMA user_version")
        [(tables,)] = read("SELECT count(*) FROM sqlite_master")
        # A file that was created and not filled yet, because the process was killed in between, is empty.
        fresh = application == version == tables == 0
        if not fresh:
            expect_store(self.path, application, version)
        else:
            read("PRAGMA page_size=" + str(PAGE_BYTES))
        if application == BACKUP_ID:
            self._begin_anew()
        [(mode,)] = read("PRAGMA journal_mode=WAL")
        if mode != "wal":
            raise StoreError(
                f"{self.path}: found journal mode {mode}, expected wal: is the disk a local one?"
            )
        for setting in (
            _SYNCHRONOUS,
            "PRAGMA foreign_keys=ON",
            "PRAGMA temp_store=MEMORY",
            "PRAGMA cache_size=-" + str(_CACHE_BYTES // 1024),
            "PRAGMA wal_autocheckpoint=" + str(_LOG_PAGES),
            "PRAGMA journal_size_limit=" + str(2 * _LOG_PAGES * PAGE_BYTES),
        ):
            read(setting)
        if not fresh and version < VERSION:
            self._step_up(version)
            self.upgraded_from = version
        if fresh:
            self._step_up(0)

    def _step_up(self, version: int) -> None:
        with self.durable_transaction():
            lay_out(self.execute, version)

    def _begin_anew(self) -> None:
        """Make a store of a back-up.

        What happened to its store since is not known here, nor what happened to other stores that were made of it, and
        must not be mixed up with what will happen: tokens that controllers hold, and numbers of jobs, from which the
        keys of records are made, are not used again.
        """
        # It was carried from place to place, and nobody has looked at it since it was made.
        for (problem,) in self.read("PRAGMA integrity_check(1)"):
            if problem != "ok":
                raise damaged(self.path, str(problem))
        # A back-up has no log yet. EXTRA: the rollback journal must not come back either.
        self.read("PRAGMA synchronous=EXTRA")
        with self.transaction():
            meta = checked(self.path, dict(self.read("SELECT key, value FROM meta")), _BackupMeta)
            # Only the clock tells this opening from others of the same back-up, earlier or elsewhere, so the same is
            # added to it for each of them.
            copied_at = meta.epoch if meta.copied_at is None else meta.copied_at
            ahead = max(0, meta.epoch - copied_at) // _STARTS_SINCE + 2
            epoch = max(self._minute(), copied_at) + ahead * _STARTS_SINCE
            self.execute("UPDATE meta SET value = ? WHERE key = 'epoch'", (epoch,))
            # An epoch that was never used makes numbers that were never used.
            self.execute("INSERT OR REPLACE INTO meta VALUES ('last_job', ?)", (epoch * _JOBS_SINCE,))
            self.execute("DELETE FROM meta WHERE key = ?", (COPIED_AT,))
            self.execute("PRAGMA application_id=" + str(APPLICATION_ID))
        self.was_backup = True


def minute(now: float) -> Epoch:
    """What epochs begin with. now: Unix time."""
    minutes = int((now - _EPOCHS_FROM) / 60)
    # A clock that is decades out, once, must not use up all epochs that there are.
    return minutes if 0 < minutes < _MINUTES_MOST else 1


def expect_store(path: Path, application: int, version: int, *, oldest: int = 1) -> None:
    """Raises StoreCorrupt for the database of somebody else, StoreVersionError for a version that is not understood.

    application, version: as the database itself says. oldest: version that is.
    """
    if application not in (APPLICATION_ID, BACKUP_ID):
        raise StoreCorrupt(
            f"{path}: found a database with application id {application:#x}, "
            f"expected a store of Cyclone ({APPLICATION_ID:#x})"
        )
    if not oldest <= version <= VERSION:
        older = " or an older one" if oldest < VERSION else ""
        raise StoreVersionError(
            f"{path}: found a store of version {version}, expected version {VERSION}{older}"
        )


def lay_out(execute: Callable[[str], object], version: int) -> None:
    """Lead a database, within a transaction, from this version of its tables to the newest; from 0 if there are none."""
    for step in STEPS[version:]:
        for statement in step:
            execute(statement)
    execute("PRAGMA application_id=" + str(APPLICATION_ID))
    execute("PRAGMA user_version=" + str(VERSION))


def explained(path: Path, error: sqlite3.Error) -> RuleBroken | StoreError:
    """What an error of SQLite means. path: of the store that it is about."""
    # The lower byte is the kind of error, the rest where it happened (sqlite.org/rescode.html).
    whole = getattr(error, "sqlite_errorcode", 0)
    code = whole & 0xFF
    text = f"{path}: {error}"
    if code == sqlite3.SQLITE_CORRUPT or _NO_TEXT in text:
        return damaged(path, str(error))
    if code == sqlite3.SQLITE_FULL:
        return StoreFull(text)
    if whole in _NO_ROOM and not _has_room(path.parent):
        # SQLite says "disk I/O error", which is another matter for whoever has to mend it.
        return StoreFull(f"{path}: no room on the disk, or within its quota")
    if code == sqlite3.SQLITE_NOTADB:
        return StoreCorrupt(f"{path}: found something that is no database, expected a store of Cyclone")
    if isinstance(error, sqlite3.IntegrityError | sqlite3.DataError):
        return RuleBroken(text)
    return StoreError(text)


def damaged(path: Path, found: str) -> StoreCorrupt:
    return StoreCorrupt(f"{path}: {found}: the file is damaged; expected an intact store of Cyclone")


def checked(path: Path, value: object, kind: type[_Row]) -> _Row:
    """What stands in a store at this path, as what it has to be. Raises StoreCorrupt if it is not."""
    try:
        return msgspec.convert(value, kind, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise damaged(path, f"found a row that is none of ours: {error}") from error


def _has_room(directory: Path) -> bool:
    try:
        return file.has_room(directory)
    except OSError:
        return True


def expect_whole(path: Path, application: int) -> None:
    """Look through a file that nobody changes. Raises StoreCorrupt if it is not what it should be."""
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)
        ) as connection:
            [(found,)] = connection.execute("PRAGMA application_id")
            problems = [line for (line,) in connection.execute("PRAGMA integrity_check(1)") if line != "ok"]
    except sqlite3.Error as error:
        raise StoreCorrupt(f"{path}: {error}") from error
    if found != application or problems:
        raise StoreCorrupt(f"{path}: {' '.join(problems) or f'found application id {found:#x}'}")
