"""Rows in a file of SQLite: for a site without a database server, for demonstrations and tests."""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cyclone.errors import ConfigError
from cyclone.record import Field, Value
from cyclone.sinks.sql import DatabaseFailure, Definition, Failure, Row, Table, index_name, utc
from cyclone.store import file

#: How long to wait for somebody else who writes.
_BUSY_S = 10.0

_BATCH_BYTES_MAX = 4 * 2**20

_TYPES = {bytes: "blob", str: "text", bool: "boolean", int: "integer", float: "real", datetime: "text"}

#: Primary result codes (sqlite.org/rescode.html) that are no OperationalError by chance.
_ROW_CODES = frozenset({sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH})
_TRANSIENT_CODES = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_SCHEMA,
    }
)


@dataclass(frozen=True)
class Sqlite:
    """path: of the file, which is made if there is none."""

    path: str | Path

    @property
    def place(self) -> str:
        return str(self.path)

    def connect(self) -> SqliteConnection:
        return SqliteConnection(self.path)

    def failure(self, error: Exception) -> Failure:
        if isinstance(error, sqlite3.Error):
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            if code in _ROW_CODES:
                return Failure.ROW
            return Failure.TRANSIENT if code in _TRANSIENT_CODES else Failure.CONFIGURATION
        # What Python cannot hand to SQLite, or no memory.
        return Failure.ROW if isinstance(error, OverflowError | UnicodeError) else Failure.TRANSIENT

    def statements(self, table: Table) -> Sequence[str]:
        columns = [f"{_quoted(each.name)} {_definition(each)}" for each in table.columns]
        lines = ",\n  ".join(['"id" integer primary key', *columns, 'unique ("uid")'])
        return [f"CREATE TABLE IF NOT EXISTS {_quoted(table.name)} (\n  {lines}\n)"] + [
            # The names of indexes are those of the whole database.
            f"CREATE INDEX IF NOT EXISTS {_quoted(f'{table.name}_{index_name(number, index)}')} "
            f"ON {_quoted(table.name)} ({_list(index)})"
            for number, index in enumerate(table.indexes, 1)
        ]

    def definition(self, table: Table) -> Definition:
        return {f"column {each.name}": _definition(each) for each in table.columns} | {
            f"index ({', '.join(index)})": "" for index in table.indexes
        } | {"unique (uid)": ""}  # fmt: skip


class SqliteConnection:
    """See `Connection`."""

    batch_bytes_max = _BATCH_BYTES_MAX
    idle_s_max = math.inf

    def __init__(self, path: str | Path) -> None:
        try:
            place = file.resolved(Path(path))
        except ConfigError as error:
            raise DatabaseFailure(Failure.CONFIGURATION, str(error)) from None
        self._connection = sqlite3.connect(place, timeout=_BUSY_S, isolation_level=None)
        try:
            # Whoever reads does not hold up whoever writes; what was committed survives a power cut.
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
        except BaseException:
            self._connection.close()
            raise

    def insert(self, table: Table, rows: Sequence[Row]) -> int:
        columns = [each.name for each in table.columns]
        # Not `INSERT OR IGNORE`, which would pass over a row that lacks a value just the same.
        statement = (
            f"INSERT INTO {_quoted(table.name)} ({_list(columns)}) "  # noqa: S608 - names of kinds, checked
            f'VALUES ({",".join("?" * len(columns))}) ON CONFLICT ("uid") DO NOTHING'
        )
        self._connection.execute("BEGIN IMMEDIATE")
        new = self._connection.executemany(
            statement, [[_kept(value) for value in row] for row in rows]
        ).rowcount
        self._connection.execute("COMMIT")
        return new

    def holds(self, table: Table, uids: Sequence[bytes]) -> Counter[bytes]:
        known = self._connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table.name,))
        if known.fetchone() is None:
            return Counter()
        places = ",".join("?" * len(uids))
        rows = self._connection.execute(
            f'SELECT "uid" FROM {_quoted(table.name)} WHERE "uid" IN ({places})',  # noqa: S608 - quoted
            uids,
        )
        return Counter(uid for (uid,) in rows)

    def execute(self, statement: str) -> None:
        self._connection.execute(statement)

    def definition(self, table: Table) -> Definition:
        found = {}
        known = {each.name for each in table.columns}
        name = _quoted(table.name)
        for _, column, kind, not_null, default, _ in self._connection.execute(f"PRAGMA table_info({name})"):
            if column in known or (not_null and default is None and column != "id"):
                found[f"column {column}"] = kind.lower() + (" not null" if not_null else "")
        for _, index, unique, *_ in self._connection.execute(f"PRAGMA index_list({name})").fetchall():
            rows = self._connection.execute(f"PRAGMA index_info({_quoted(index)})")
            columns = tuple(column for _, _, column in rows)
            if unique and columns == ("uid",):
                found["unique (uid)"] = ""
            elif columns in table.indexes:
                found[f"index ({', '.join(columns)})"] = ""
        return found

    def undo(self) -> None:
        self._connection.rollback()

    def close(self) -> None:
        self._connection.close()

    def drop(self) -> None:
        # What was not committed is undone.
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(_quoted, names))


def _definition(field: Field) -> str:
    return _TYPES[field.type] + ("" if field.optional else " not null")


def _kept(value: Value | bytes) -> object:
    if isinstance(value, datetime):
        return utc(value).isoformat(" ", "milliseconds")
    return value
