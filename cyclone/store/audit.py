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
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cyclone.errors import ConfigError, StoreCorrupt, StoreError
from cyclone.model.audit import (
    AttemptRow,
    BadEndRow,
    EndRow,
    JobRow,
    LateRow,
    ParcelRow,
    PlacementRow,
    TaskRow,
)
from cyclone.model.task import Cause, Epoch, TaskNumber
from cyclone.store.blocks import ranges
from cyclone.store.database import VERSION, expect_store
from cyclone.store.rows import Meta, end_of, numbers_of, payloads_of, policy_of, rows_of, story_of

_CACHE_KIB = 32 * 1024
_DAMAGE_MOST = 100

#: SQLite takes values of any type in most columns (sqlite.org/datatype3.html), so that others may have written some.
#: What is kept as msgpack is looked at when it is read.
_TYPES = {
    "job": {
        "name": "text",
        "state": "text",
        "opened_at": "real",
        "closed_at": "real",
        "first_task": "integer",
        "coalesce(last_task, 0)": "integer",
        "coalesce(remember_s, 0.0)": "real",
        "swept": "integer",
        "forgotten": "integer",
    },
    "erasing": {"job": "integer", "coalesce(next_task, 0)": "integer", "last_task": "integer"},
    "late": {"job": "integer", "ended_at": "real", "task": "integer"},
    "job_count": {"job": "integer", "state": "text", "tasks": "integer"},
    "policy": {"kind": "text"},
    "task": {"job": "integer", "tid": "text", "number": "integer"},
    "parcel": {"last": "integer", "accepted_at": "real"},
    "placement": {"name": "text", "life": "text"},
    "attempt": {"task": "integer", "token": "integer", "attempt": "integer", "peer": "text", "cause": "text"},
    "ended_badly": {"state": "text"},
}
_CAUSES = frozenset(Cause)
#: Most tasks of a store share a few.
_POLICIES_KEPT = 10_000


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
        if self._problem:
            raise StoreCorrupt(self._problem)
        # Not `quick_check`: it would not compare indexes with their tables, of which the large ones have none.
        for (line,) in self._select(f"PRAGMA integrity_check({_DAMAGE_MOST})"):
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
        return ranges(self._meta.live_blocks)

    def parcels(self) -> Iterator[ParcelRow]:
        for first, last, tasks, payloads in self._select(
            "SELECT first, last, tasks, payloads FROM parcel ORDER BY first"
        ):
            try:
                rows = [
                    TaskRow(number, job, tid, self._policy_problem(policy))
                    for number, job, tid, policy, _ in rows_of(tasks)
                ]
                yield ParcelRow(first, last, rows, len(payloads_of(payloads)))
            except StoreCorrupt as error:
                yield ParcelRow(first, last, [], 0, str(error))

    def _find_policy_problem(self, policy: int) -> str:
        """Why it cannot be had; "" if it can."""
        try:
            for (body,) in self._select("SELECT body FROM policy WHERE number = ?", (policy,)):
                policy_of(body)
                return ""
        except StoreCorrupt as error:
            return f"policy {policy}: {error}"
        return f"policy {policy}, which is not there"

    def tasks(self) -> Iterator[TaskRow]:
        # They are kept by tid: SQLite sorts them, in a temporary file if they are many.
        for row in self._select(
            "SELECT number, job, tid FROM task WHERE job NOT IN (SELECT job FROM erasing) ORDER BY number"
        ):
            yield TaskRow(*row)

    def attempts(self) -> Iterator[AttemptRow]:
        for task, token, attempt, cause, body in self._select(
            'SELECT task, token, attempt, cause, "end" FROM attempt ORDER BY task, token'
        ):
            try:
                end = end_of(body)
            except StoreCorrupt as error:
                yield AttemptRow(task, token, attempt, None, str(error))
            else:
                problem = "" if cause in _CAUSES else f"billed to {cause!r}"
                yield AttemptRow(task, token, attempt, end, problem)

    def ends(self) -> Iterator[EndRow]:
        for task, story in self._select("SELECT task, story FROM ended ORDER BY task"):
            try:
                how = story_of(story)
            except StoreCorrupt as error:
                yield EndRow(task, None, 0, None, str(error))
            else:
                yield EndRow(task, how.state, how.attempts, how.end)

    def bad_ends(self) -> Iterator[BadEndRow]:
        for task, state in self._select("SELECT task, state FROM ended_badly ORDER BY task"):
            yield BadEndRow(task, state)

    def placements(self) -> Iterator[PlacementRow]:
        for first, numbers in self._select("SELECT first, numbers FROM placement ORDER BY first"):
            try:
                yield PlacementRow(first, numbers_of(numbers))
            except StoreCorrupt as error:
                yield PlacementRow(first, [], str(error))

    def late(self) -> Iterator[LateRow]:
        for row in self._select("SELECT task, job FROM late ORDER BY task"):
            yield LateRow(*row)

    # The file.

    def _prepare(self) -> None:
        # A text that is none is a finding where it does not agree with another, and nothing to stop at.
        self._connection.text_factory = lambda text: text.decode(errors="backslashreplace")
        self._policy_problem = lru_cache(_POLICIES_KEPT)(self._find_policy_problem)
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
        self._meta, self.erasing, self._problem = Meta(epoch=0), frozenset[int](), ""
        try:
            self._meta = Meta.of(self.path, self._select("SELECT key, value FROM meta"))
            self.erasing = frozenset(job for (job,) in self._select("SELECT job FROM erasing"))
        except StoreCorrupt as error:
            self._problem = str(error)  # a store it is: that it is damaged is a finding
        self.epoch: Epoch = self._meta.epoch
        self.identity: str = self._meta.identity
        self.forgotten_to: TaskNumber = self._meta.last_task

    def _select(self, statement: str, values: Sequence[object] = ()) -> Iterator[Any]:
        try:
            # Not `yield from`, which would close the cursor of a connection that may be closed already.
            for row in self._connection.execute(statement, values):  # noqa: UP028
                yield row
        except sqlite3.Error as error:
            raise self._explained(error) from error

    def _has_log(self) -> bool:
        for kind in ("wal", "journal"):
            with contextlib.suppress(FileNotFoundError):
                if os.stat(f"{self.path}-{kind}").st_size > 0:
                    return True
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
        if code == sqlite3.SQLITE_READONLY:
            return StoreError(
                f"{self.path}: found {self.path.name}-journal, of somebody who was killed while he changed the store; "
                "expected that the start of a master has undone that"
            )
        # SQLITE_ERROR: a table or a column is not there.
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR):
            return StoreCorrupt(text)
        return StoreError(text)
