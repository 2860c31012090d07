"""Rows in text files, one for each table, as spreadsheets and scripts read them (RFC 4180, lines end with LF).

For demonstrations and tests: the keys of all rows are kept in memory, about 100 bytes each.
"""

from __future__ import annotations

import csv
import errno
import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import inf
from pathlib import Path
from typing import NamedTuple

from cyclone.process.replace import replace_content
from cyclone.record import Value
from cyclone.sinks.sql import DatabaseFailure, Definition, Failure, Row, Table, utc
from cyclone.store import file

_BATCH_BYTES_MAX = 4 * 2**20

#: What passes without anybody having to change a setting.
_TRANSIENT = file.NO_ROOM | {errno.EIO, errno.EROFS, errno.ENOMEM, errno.EMFILE, errno.ENFILE}


@dataclass(frozen=True)
class Csv:
    """directory: of the files, `TABLE.csv` each; somebody has made it."""

    directory: Path

    @property
    def place(self) -> str:
        return str(self.directory)

    def connect(self) -> CsvConnection:
        return CsvConnection(self.directory)

    def failure(self, error: Exception) -> Failure:
        is_transient = isinstance(error, OSError) and error.errno in _TRANSIENT
        return Failure.TRANSIENT if is_transient else Failure.CONFIGURATION

    def statements(self, table: Table) -> Sequence[str]:
        """One, which is no SQL: the name of the file, a colon, its first line."""
        return [f"{table.name}.csv:{','.join(_names(table))}"]

    def definition(self, table: Table) -> Definition:
        return {"columns": ", ".join(_names(table))}


class _Book(NamedTuple):
    """An open file and the keys of its rows, in hexadecimal digits."""

    descriptor: int
    uids: set[str]


class CsvConnection:
    """See `Connection`."""

    batch_bytes_max = _BATCH_BYTES_MAX
    idle_s_max = inf

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._books: dict[str, _Book] = {}

    def insert(self, table: Table, rows: Sequence[Row]) -> int:
        book = self._books.get(table.name)
        # One that was moved away is not written any more, as log files are changed.
        if book is not None and not os.path.samestat(os.stat(self._path(table)), os.fstat(book.descriptor)):
            os.close(self._books.pop(table.name).descriptor)
            book = None
        if book is None:
            book = self._books[table.name] = self._open(table)
        new: dict[str, str] = {}
        for row in rows:
            cells = [_cell(value) for value in row]
            if cells[0] not in book.uids:
                new.setdefault(cells[0], ",".join(cells) + "\n")
        file.append(book.descriptor, "".join(new.values()).encode())
        book.uids.update(new)
        return len(new)

    def holds(self, table: Table, uids: Sequence[bytes]) -> Counter[bytes]:
        # Read anew, and only the keys that are asked for are kept: somebody else writes the file.
        wanted = {uid.hex() for uid in uids}
        try:
            with open(self._path(table), encoding="utf-8", errors="surrogateescape", newline="") as text:
                found = Counter(row[0] for row in csv.reader(text) if row and row[0] in wanted)
        except FileNotFoundError:
            return Counter()
        return Counter({bytes.fromhex(uid): rows for uid, rows in found.items()})

    def execute(self, statement: str) -> None:
        name, header = statement.split(":", 1)
        descriptor = os.open(
            self._directory / name,
            os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW,
            0o600,
        )
        try:
            if not os.fstat(descriptor).st_size:
                file.append(descriptor, f"{header}\n".encode())
        finally:
            os.close(descriptor)

    def definition(self, table: Table) -> Definition:
        with open(self._path(table), encoding="utf-8", newline="") as text:
            return {"columns": ", ".join(next(csv.reader(text), []))}

    def undo(self) -> None:
        """Nothing was written."""

    def close(self) -> None:
        for book in self._books.values():
            os.close(book.descriptor)
        self._books.clear()

    drop = close

    def _path(self, table: Table) -> Path:
        return self._directory / f"{table.name}.csv"

    def _open(self, table: Table) -> _Book:
        path = self._path(table)
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            with open(path, "rb") as lines:
                found, end = _read(lines, table)
            _put_aside(descriptor, end, path.with_name(path.name + ".torn"))
        except BaseException:
            os.close(descriptor)
            raise
        return _Book(descriptor, found)


class _Whole:
    """The lines of a file as text, as far as they end with LF. end: of the last one that was taken."""

    def __init__(self, lines: io.BufferedReader) -> None:
        self._lines = lines
        self.end = 0
        self.is_over = False

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            if not line.endswith(b"\n"):
                break
            self.end += len(line)
            yield line.decode("utf-8", "surrogateescape")
        self.is_over = True


def _read(lines: io.BufferedReader, table: Table) -> tuple[set[str], int]:
    """The keys, and where the last whole row ends. Raises DatabaseFailure: this is no file of this table."""
    whole = _Whole(lines)
    reader = csv.reader(whole, strict=True)
    uids: set[str] = set()
    names = _names(table)
    end = 0
    try:
        for row in reader:
            if (row != names) if not end else (len(row) != len(names)):
                place = f"{table.name}.csv, line {reader.line_num}"
                expected = f"the columns {', '.join(names)}"
                raise DatabaseFailure(Failure.CONFIGURATION, f"{place}: found {row!r}, expected {expected}")
            if end:
                uids.add(row[0])
            end = whole.end
    except csv.Error as error:
        # A row that was cut short between two of its lines; anywhere else it is no such file.
        if not whole.is_over:
            problem = f"{table.name}.csv, line {reader.line_num}: {error}"
            raise DatabaseFailure(Failure.CONFIGURATION, problem) from None
    if not end:
        raise DatabaseFailure(
            Failure.CONFIGURATION, f"{table.name}.csv has no columns; --create-table writes them"
        )
    return uids, end


def _put_aside(descriptor: int, end: int, path: Path) -> None:
    """Take half a row, of somebody who was killed while he wrote, out of the file. It is still in the spool."""
    torn = os.pread(descriptor, _BATCH_BYTES_MAX * 2, end)
    if torn:
        replace_content(path, torn)
        os.ftruncate(descriptor, end)
        os.fsync(descriptor)


def _names(table: Table) -> list[str]:
    return [each.name for each in table.columns]


def _cell(value: Value | bytes) -> str:
    """Text in quotes, nothing for None, true or false, hexadecimal digits for a key, moments in UTC."""
    if isinstance(value, str):
        # By hand: `csv.writer` leaves a lone CR without quotes, and tells no empty text from None.
        return '"' + value.replace('"', '""') + '"'
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime):
        return utc(value).isoformat(" ", "milliseconds")
    return str(value).lower() if isinstance(value, bool) else str(value)
