"""The facts of a store on disk, for an audit: read in one transaction, and nothing is written.

A store that a master has open is read by a connection of its own, beside the master, which goes on; what it writes
meanwhile is not seen, and its log cannot be shortened until the audit is through. Neither the lock of the master nor
any of SQLite that would keep it waiting is taken.
A store at rest, without a log, is opened as immutable: SQLite makes no files beside it then and takes no lock at all.
Whether it stayed at rest is known afterwards only (`is_as_found`).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import msgspec

from cyclone.errors import ConfigError, StoreCorrupt, StoreError
from cyclone.model.audit import AttemptRow, BadEndRow, EndRow, JobRow, ParcelRow, PlacementRow, TaskRow
from cyclone.model.lifecycle import State
from cyclone.model.task import End, TaskNumber
from cyclone.store.blocks import ranges
from cyclone.store.database import VERSION, expect_store

_CACHE_KIB = 32 * 1024
_DAMAGE_MOST = 100

#: SQLite takes values of any type in most columns (sqlite.org/datatype3.html), so that others may have written some.
_TYPES = {
    "job": {
        "name": "text",
        "state": "text",
        "first_task": "integer",
        "coalesce(last_task, 0)": "integer",
        "forgotten": "integer",
    },
    "erasing": {"job": "integer"},
    "job_count": {"job": "integer", "state": "text", "tasks": "integer"},
    "task": {"job": "integer", "tid": "text", "number": "integer"},
    "parcel": {"last": "integer", "payloads": "blob"},
    "attempt": {"task": "integer", "token": "integer", "attempt": "integer"},
    "ended_badly": {"state": "text"},
}

# The forms are those that `SqliteStore` writes; they are read with other eyes here.

#: `(number, job, tid, policy, after)`
_Row: TypeAlias = tuple[int, int, str, int, tuple[str, ...]]


class _Story(msgspec.Struct, array_like=True, gc=False):
    """ended_at: not there where the first version wrote it."""

    state: State
    attempts: int
    peer: str
    end: End | None
    reason: str
    value: bytes
    ended_at: float = 0.0


_rows_of: Callable[[bytes], list[_Row]] = msgspec.msgpack.Decoder(list[_Row]).decode
_story_of: Callable[[bytes], _Story] = msgspec.msgpack.Decoder(_Story).decode
_end_of: Callable[[bytes], End] = msgspec.msgpack.Decoder(End).decode
_numbers_of: Callable[[bytes], list[int]] = msgspec.msgpack.Decoder(list[TaskNumber]).decode


class StoredFacts:
    """The `Facts` of one store, as of the moment when it is opened. Not for more than one thread."""

    def __init__(self, path: str | Path) -> None:
        """Raises ConfigError (place), StoreVersionError, StoreCorrupt (nothing of ours), StoreError."""
        self.path = Path(os.path.realpath(path))
        if not self.path.is_file():
            raise ConfigError("there is no such file, expected a store of Cyclone", file=self.path)
        self._found = self._looks()
        self.is_at_rest = not self._has_log()
        how = "immutable=1" if self.is_at_rest else "mode=ro"
        try:
            self._connection = sqlite3.connect(
                f"{self.path.as_uri()}?{how}", uri=True, timeout=10, isolation_level=None
            )
        except sqlite3.Error as error:
            raise self._explained(error) from error
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_as_found(self) -> bool:
        """Whether what was read is what there was: of a store at rest, whether nobody has woken it meanwhile."""
        return not self.is_at_rest or (self._looks() == self._found and not self._has_log())

    def damage(self) -> Iterator[str]:
        for (line,) in self._select(f"PRAGMA quick_check({_DAMAGE_MOST})"):
            if line != "ok":
                yield str(line)
        for table, columns in _TYPES.items():
            wrong = " OR ".join(f"typeof({column}) <> '{kind}'" for column, kind in columns.items())
            [(count,)] = self._select(f"SELECT count(*) FROM {table} WHERE {wrong}")  # noqa: S608 - our own names
            if count:
                # They could not even be put in order.
                raise StoreCorrupt(
                    f"{self.path}: found {count} rows of {table} with values of the wrong type"
                )

    def jobs(self) -> Iterator[JobRow]:
        counts: dict[int, dict[str, int]] = {}
        for job, state, tasks in self._select("SELECT job, state, tasks FROM job_count ORDER BY job"):
            counts.setdefault(job, {})[state] = tasks
        for number, name, state, first, last, forgotten in self._select(
            "SELECT number, name, state, first_task, last_task, forgotten FROM job ORDER BY number"
        ):
            yield JobRow(number, name, state, first, last, counts.pop(number, {}), forgotten)
        for number, left in counts.items():
            yield JobRow(number, "", "", 0, None, left)

    def live(self) -> list[tuple[TaskNumber, TaskNumber]]:
        try:
            return ranges(self._meta.get("live_blocks"))
        except msgspec.DecodeError as error:
            raise StoreCorrupt(f"live_blocks: {error}") from error

    def parcels(self) -> Iterator[ParcelRow]:
        for first, last, tasks in self._select("SELECT first, last, tasks FROM parcel ORDER BY first"):
            try:
                rows = [TaskRow(number, job, tid) for number, job, tid, _, _ in _rows_of(tasks)]
                yield ParcelRow(first, last, rows, self._payloads(first))
            except (msgspec.DecodeError, TypeError) as error:
                yield ParcelRow(first, last, [], 0, _text(error))

    def _payloads(self, parcel: int) -> int:
        """How many payloads there are, as the head of their list tells: they are not read."""
        try:
            with self._connection.blobopen("parcel", "payloads", parcel, readonly=True) as payloads:
                return _length(payloads.read(5))
        except sqlite3.Error as error:
            raise self._explained(error) from error

    def tasks(self) -> Iterator[TaskRow]:
        # They are kept by tid: SQLite sorts them, in a temporary file if they are many.
        for row in self._select(
            "SELECT number, job, tid FROM task WHERE job NOT IN (SELECT job FROM erasing) ORDER BY number"
        ):
            yield TaskRow(*row)

    def attempts(self) -> Iterator[AttemptRow]:
        for task, token, attempt, body in self._select(
            'SELECT task, token, attempt, "end" FROM attempt ORDER BY task, token'
        ):
            try:
                yield AttemptRow(task, token, attempt, _end_of(body))
            except (msgspec.DecodeError, TypeError) as error:
                yield AttemptRow(task, token, attempt, None, _text(error))

    def ends(self) -> Iterator[EndRow]:
        for task, story in self._select("SELECT task, story FROM ended ORDER BY task"):
            try:
                how = _story_of(story)
            except (msgspec.DecodeError, TypeError) as error:
                yield EndRow(task, None, 0, None, _text(error))
            else:
                yield EndRow(task, how.state, how.attempts, how.end)

    def bad_ends(self) -> Iterator[BadEndRow]:
        for task, state in self._select("SELECT task, state FROM ended_badly ORDER BY task"):
            yield BadEndRow(task, state)

    def placements(self) -> Iterator[PlacementRow]:
        for first, numbers in self._select("SELECT first, numbers FROM placement ORDER BY first"):
            try:
                yield PlacementRow(first, _numbers_of(numbers))
            except (msgspec.DecodeError, TypeError) as error:
                yield PlacementRow(first, [], _text(error))

    # The file.

    def _prepare(self) -> None:
        [(application,)], [(version,)] = (
            self._select("PRAGMA application_id"), self._select("PRAGMA user_version"),
        )  # fmt: skip
        expect_store(self.path, application, version, oldest=VERSION)
        for setting in (
            "PRAGMA query_only=ON",
            # What is sorted is as much as all tids together.
            "PRAGMA temp_store=FILE",
            f"PRAGMA cache_size=-{_CACHE_KIB}",
            "BEGIN",
        ):
            list(self._select(setting))
        # The first reading of a transaction is the moment from which on it sees nothing new.
        self._meta = dict(self._select("SELECT key, value FROM meta"))
        self.epoch: int = self._meta.get("epoch", 0)
        self.identity: str = self._meta.get("identity", "")
        self.erasing = frozenset(job for (job,) in self._select("SELECT job FROM erasing"))
        self.forgotten_to: TaskNumber = self._meta.get("last_task", 0)

    def _select(self, statement: str) -> Iterator[Any]:
        try:
            yield from self._connection.execute(statement)
        except sqlite3.Error as error:
            raise self._explained(error) from error

    def _has_log(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return os.stat(f"{self.path}-wal").st_size > 0
        return False

    def _looks(self) -> tuple[int, ...]:
        status = os.stat(self.path)
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

    def _explained(self, error: sqlite3.Error) -> StoreError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        text = f"{self.path}: {error}"
        if code == sqlite3.SQLITE_NOTADB:
            return StoreCorrupt(
                f"{self.path}: found something that is no database, expected a store of Cyclone"
            )
        if code == sqlite3.SQLITE_CANTOPEN and not self.is_at_rest:
            expected = f"{self.path.name}-shm beside it, or a directory where it can be made"
            return StoreError(
                f"{text}: there is a log that was not copied into the store; expected {expected}"
            )
        # SQLITE_ERROR: a table or a column is not there.
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR):
            return StoreCorrupt(text)
        return StoreError(text)


def _length(head: bytes) -> int:
    """Of a list in msgpack by its first bytes (github.com/msgpack/msgpack, "Array format family"). Raises TypeError."""
    kind = head[:1]
    if kind and kind[0] & 0xF0 == 0x90:
        return kind[0] & 0x0F
    if kind == b"\xdc" or kind == b"\xdd":
        return int.from_bytes(head[1:3] if kind == b"\xdc" else head[1:5])
    raise TypeError(f"payloads: found a value that begins with {kind!r}, expected a list")


def _text(error: Exception) -> str:
    return " ".join(str(error).split())
