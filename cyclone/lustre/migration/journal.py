"""What has been done of a list: a file of lines to which lines are only ever added.

    {"id": …}                                         the first line: which list, in which of its lives
    > NUMBER OFFSET TRIES TARGET SOURCE PATH          a task was started for this entry; newlines of the path are NULs
    < NUMBER BILLED                                   it has ended, and the entry will be tried again
    = NUMBER SOURCE STATE SIZE ACTUAL OFFSET REASON   the entry has its result
    ! STATE                                           all entries with this result so far were fed back as a new list

A kill at any byte leaves at most one line without an end, which is cut off when the journal is opened again. A line that is
lost with the power of the machine costs nothing but a task that looks where its file is: so nothing is synced until the
list is done. A line that makes no sense is told of and left out, with the same effect.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, NamedTuple, Self

import msgspec

from cyclone.errors import CycloneError
from cyclone.generators.files import replacing
from cyclone.lustre.migration.lines import OST_INDEX_MAX, RECORD_BYTES_MAX
from cyclone.lustre.migration.names import RETRYABLE
from cyclone.lustre.migration.verdict import FileState

log = logging.getLogger(__name__)

_BLOCK_BYTES = 1 << 20

_REASON_LONGEST = 500


class JournalDamaged(CycloneError):
    """The first line of a journal cannot be read: nobody knows what the rest is about."""


class Head(msgspec.Struct, frozen=True):
    """The first line. id: of the list in this life, as tids have it; suffix: of the files beside it.

    stamp: the list's own, `stamp_of`, for the numbers of records mean nothing in another list; None if nobody knows.
    root: see `Rules`, by which it was read, for which records are entries depends on that; None if nobody knows.
    """

    id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{8,32}$")]
    suffix: Annotated[str, msgspec.Meta(pattern=r"^(\.[0-9]+)?$")]
    stamp: tuple[int, int] | None = None
    root: bytes | None = None
    format: Annotated[int, msgspec.Meta(ge=1, le=1)] = 1


class Flight(NamedTuple):
    """A task that was started and of which nothing more is known. source, path: whatever the list holds by now."""

    offset: int
    tries: int
    target: int
    source: int
    path: bytes


class Retry(NamedTuple):
    """An entry that is to be tried again. tries, billed: see `Entry`."""

    tries: int
    billed: int


NEVER_TRIED = Retry(0, 0)


class Final(NamedTuple):
    """The result of an entry. actual: the OST where the file is, None if nobody looked."""

    number: int
    source: int
    state: FileState
    size: int
    actual: int | None
    offset: int
    reason: str


class Bits:
    """A set of numbers below a bound: one bit for each."""

    def __init__(self, bound: int) -> None:
        self._bytes = bytearray(-(-bound // 8))
        self.count = 0

    def __contains__(self, number: int) -> bool:
        return bool(self._bytes[number >> 3] >> (number & 7) & 1)

    def add(self, number: int) -> bool:
        """Was it not in before?"""
        index, bit = number >> 3, 1 << (number & 7)
        if self._bytes[index] & bit:
            return False
        self._bytes[index] |= bit
        self.count += 1
        return True


class Past:
    """What a journal tells.

    flights: `{number: task}`; retries: `{number: how often it was tried}`; results: `{state: how many}`;
    ended: `{source: how many}`.
    """

    def __init__(self, records: int) -> None:
        self.records = records
        self.finals = Bits(records)
        self.flights: dict[int, Flight] = {}
        self.retries: dict[int, Retry] = {}
        self.results: Counter[FileState] = Counter()
        self.sizes: Counter[FileState] = Counter()
        self.ended: Counter[int] = Counter()
        self.nonsense = 0

    def add(
        self, line: bytes, on_final: Callable[[Final], None], on_fed: Callable[[FileState], None]
    ) -> None:
        """Take in one line that is not the first. Of two results of an entry the first counts."""
        words = line.split(b" ", 7)
        try:
            if words[0] == b">":
                number, flight = _flight(line)
                if self._is_ours(number) and number not in self.finals:
                    self.flights[number] = flight
            elif words[0] == b"<":
                number, billed = (_number(word) for word in words[1:])
                ended = self.flights.pop(number, None)
                if ended is not None:
                    self.retries[number] = Retry(ended.tries + 1, billed)
            elif words[0] == b"=":
                self._add_final(_final(words), on_final)
            elif words[0] == b"!":
                (state,) = words[1:]
                on_fed(_fed(state))
            else:
                raise ValueError("unknown kind of line")
        except ValueError:
            self.nonsense += 1

    def _add_final(self, final: Final, on_final: Callable[[Final], None]) -> None:
        if self._is_ours(final.number) and self.finals.add(final.number):
            self.flights.pop(final.number, None)
            self.retries.pop(final.number, None)
            self.results[final.state] += 1
            self.sizes[final.state] += final.size
            self.ended[final.source] += 1
            on_final(final)

    def _is_ours(self, number: int) -> bool:
        if number >= self.records:
            raise ValueError("no such record")
        return True


class Journal:
    """Owns the file. What is noted is on its way to the kernel after `flush`, and on disk after `sync`."""

    def __init__(self, file: Path, descriptor: int) -> None:
        self.file = file
        self._descriptor = descriptor
        self._unwritten = bytearray()

    @classmethod
    def create(cls, file: Path, head: Head) -> Self:
        """A new one in the place of any other; its first line is on disk. Raises OSError."""
        with replacing(file) as stream:
            stream.write(msgspec.json.encode(head) + b"\n")
        return cls(file, os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW))

    @classmethod
    def resume(cls, file: Path) -> Self:
        """Go on with one. What stands behind the last end of a line is cut off. Raises OSError."""
        descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        os.ftruncate(descriptor, _end_of_lines(descriptor))
        return cls(file, descriptor)

    def started(self, number: int, flight: Flight) -> None:
        offset, tries, target, source, path = flight
        # No path holds a NUL.
        shown = path.replace(b"\n", b"\0")
        self._note(b"> %d %d %d %d %d %s\n" % (number, offset, tries, target, source, shown))

    def retried(self, number: int, billed: int) -> None:
        self._note(b"< %d %d\n" % (number, billed))

    def final(self, final: Final) -> None:
        actual = b"-" if final.actual is None else b"%d" % final.actual
        reason = " ".join(final.reason.split())[:_REASON_LONGEST].encode("utf-8", "backslashreplace")
        self._note(
            b"= %d %d %s %d %s %d %s\n"
            % (final.number, final.source, final.state.encode(), final.size, actual, final.offset, reason)
        )

    def fed_back(self, state: FileState) -> None:
        self._note(b"! %s\n" % state.encode())

    def flush(self) -> None:
        """Raises OSError, ENOSPC most likely: the next time goes on where it ended."""
        write_out(self._descriptor, self._unwritten)

    def sync(self) -> None:
        """Raises OSError."""
        self.flush()
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)

    def _note(self, line: bytes) -> None:
        self._unwritten += line


def write_out(descriptor: int, unwritten: bytearray) -> None:
    """Write; what was written is not in there any more, also when it ends early. Raises OSError."""
    while unwritten:
        del unwritten[: os.write(descriptor, unwritten)]


def read_head(file: Path) -> Head:
    """The first line. Raises JournalDamaged, OSError."""
    with open(file, "rb") as stream:
        line = stream.readline(RECORD_BYTES_MAX)
    try:
        if not line.endswith(b"\n"):
            raise ValueError("it has no end")
        return msgspec.json.decode(line, type=Head)
    except ValueError as error:
        raise JournalDamaged(f"{file}: the first line is damaged: {error}") from None


def read_lines(file: Path) -> Iterator[bytes]:
    """The lines behind the first that have an end, without it. Raises OSError."""
    with open(file, "rb") as stream:
        stream.readline(RECORD_BYTES_MAX)
        # Blocks of zeros, as a crash of the machine may leave them, have no ends: they are no reason to read on and on.
        while line := stream.readline(RECORD_BYTES_MAX):
            if line.endswith(b"\n"):
                yield line[:-1]


def flights_of(file: Path) -> dict[int, Flight]:
    """`{number: task}` of what is in flight, whatever became of the list since. Raises OSError."""
    found: dict[int, Flight] = {}
    for line in read_lines(file):
        kind, _, rest = line.partition(b" ")
        try:
            if kind == b">":
                number, flight = _flight(line)
                found[number] = flight
            elif kind in (b"<", b"="):
                found.pop(_number(rest.partition(b" ")[0]), None)
        except ValueError as error:
            log.debug("a line of a journal makes no sense journal=%s reason=%s", file, error)
    return found


def _flight(line: bytes) -> tuple[int, Flight]:
    _, number, offset, tries, target, source, path = line.split(b" ", 6)
    return _number(number), Flight(
        _number(offset),
        _number(tries),
        _ost(_number(target)),
        _ost(_number(source)),
        path.replace(b"\0", b"\n"),
    )


def _final(words: list[bytes]) -> Final:
    _, number, source, state, size, actual, offset, reason = words
    return Final(
        _number(number),
        _ost(_number(source)),
        FileState(state.decode("ascii")),
        _number(size),
        None if actual == b"-" else _ost(_number(actual)),
        _number(offset),
        reason.decode("utf-8", "backslashreplace"),
    )


def _fed(word: bytes) -> FileState:
    state = FileState(word.decode("ascii"))
    if state not in RETRYABLE:
        raise ValueError("nobody feeds these back")
    return state


def _number(word: bytes) -> int:
    if not word.isdigit() or len(word) > 20:
        raise ValueError("no number")
    return int(word)


def _ost(index: int) -> int:
    if index > OST_INDEX_MAX:
        raise ValueError("no index of an OST")
    return index


def _end_of_lines(descriptor: int) -> int:
    """Where the last line that has an end ends, in bytes."""
    position = os.fstat(descriptor).st_size
    while position:
        begin = max(0, position - _BLOCK_BYTES)
        found = os.pread(descriptor, position - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        position = begin
    return 0
