"""What a database will never take: found among what it takes, and put aside with the reason.

The file has one JSON object a line. `body` is the record as it came, in base64, so that nothing is lost by it;
`fields` is the same for people to read, as far as it can be read at all.

Records come from those who have a key, and each of them is written. Texts of Cyclone 2.x that are none come from anybody
who may push, as many as he likes: they are written as long as the file is not full of them.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from cyclone.errors import ConfigError, StoreError, StoreFull
from cyclone.messages import Entry
from cyclone.sinks import legacy
from cyclone.sinks.sql import DatabaseFailure, Failure
from cyclone.store import file

#: A file of so many bytes takes no more texts.
TEXTS_BYTES_MOST = 64 * 2**20

_Row = TypeVar("_Row")


class DeadLetters:
    """A file that only grows, for its owner alone. It is opened for each use, so that it may be moved away.

    unwritten: how many texts were not written.
    """

    def __init__(self, path: str | Path) -> None:
        """Raises ConfigError when nothing can be written there."""
        self.path = Path(path)
        self.unwritten = 0
        try:
            os.close(self._open())
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise ConfigError(
                f"cannot be used: {reason}; expected a writable file", file=self.path
            ) from error

    def append(self, letters: Sequence[tuple[Entry, str]], at: float) -> None:
        """Write these entries, each with the reason why it was refused, all or none; they are on disk on return.

        at: now, Unix time. Raises StoreFull, StoreError: nothing was written then.
        """
        try:
            descriptor = self._open()
            try:
                if os.fstat(descriptor).st_size >= TEXTS_BYTES_MOST:
                    kept = [letter for letter in letters if letter[0].kind != legacy.UNREAD]
                else:
                    kept = list(letters)
                self._write(descriptor, b"".join(_line(entry, reason, at) for entry, reason in kept))
            finally:
                os.close(descriptor)
        except OSError as error:
            full = error.errno in file.NO_ROOM
            raise (StoreFull if full else StoreError)(
                f"{self.path}: {os.strerror(error.errno or 0)}"
            ) from error
        self.unwritten += len(letters) - len(kept)

    def _open(self) -> int:
        return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def _write(self, descriptor: int, text: bytes) -> None:
        end = os.fstat(descriptor).st_size
        # Half a line, of somebody who was killed while he wrote, does not take the next one with it.
        if end and os.pread(descriptor, 1, end - 1) != b"\n":
            text = b"\n" + text
        file.append(descriptor, text)


class Obituaries:
    """The keys of dead letters, read from their file: only what has come since the last time.

    It takes some hundred bytes of memory for each letter. A file that was moved away is forgotten.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._identity = (0, 0)
        self._end = 0
        self._uids: set[bytes] = set()

    def known(self) -> set[bytes]:
        """Of all letters that are in the file now. Raises StoreError."""
        try:
            with self._path.open("rb") as letters:
                status = os.fstat(letters.fileno())
                identity = status.st_dev, status.st_ino
                if identity != self._identity or status.st_size < self._end:
                    self._identity, self._end, self._uids = identity, 0, set()
                letters.seek(self._end)
                for line in letters:
                    if not line.endswith(b"\n"):
                        break
                    self._end += len(line)
                    self._read(line)
        except FileNotFoundError:
            return set()
        except OSError as error:
            raise StoreError(f"{self._path}: {os.strerror(error.errno or 0)}") from error
        return self._uids

    def _read(self, line: bytes) -> None:
        try:
            self._uids.add(bytes.fromhex(_letter_of(line).uid))
        except ValueError:
            # Half a line, of a writer that was killed: it has written the letter once more. Or a hand has been at it.
            return


class _Letter(msgspec.Struct):
    uid: str


_letter_of = msgspec.json.Decoder(_Letter).decode


class Settled(NamedTuple):
    """Rows of which it is known now what becomes of them. reason: why not, if they are refused; "" if they are in.

    new: how many of them were not there already.
    """

    rows: Sequence[Any]
    new: int
    reason: str


def sift(rows: Sequence[_Row], insert: Callable[[Sequence[_Row]], int]) -> Iterator[Settled]:
    """Insert all rows that can be inserted, by halving what is refused until a single one is left.

    insert: all of these or none; returns how many were new, raises DatabaseFailure. One that is not about rows goes on
    to the caller: rows that were not told of by then are as they were, as far as anybody knows.
    """
    open_: list[Sequence[_Row]] = [rows] if rows else []
    while open_:
        some = open_.pop()
        try:
            new = insert(some)
        except DatabaseFailure as failure:
            if failure.failure is not Failure.ROW:
                raise
            if len(some) == 1:
                yield Settled(some, 0, str(failure))
            else:
                middle = len(some) // 2
                open_ += [some[middle:], some[:middle]]
        else:
            yield Settled(some, new, "")


def _line(entry: Entry, reason: str, at: float) -> bytes:
    letter = {
        "refused_at": datetime.fromtimestamp(at, UTC),
        "reason": reason,
        "kind": entry.kind,
        "job": entry.job,
        "tid": entry.tid,
        "at": entry.at,
        "fields": _readable(entry.body),
        "uid": entry.uid.hex(),
        "sink": entry.sink,
        "body": b64encode(entry.body).decode(),
    }
    return msgspec.json.encode(letter) + b"\n"


def _readable(body: bytes) -> msgspec.Raw | None:
    """The fields in JSON; None if the body is nothing that JSON can tell."""
    try:
        return msgspec.Raw(msgspec.json.encode(msgspec.msgpack.decode(body)))
    except (ValueError, TypeError, RecursionError):
        return None
