"""Reads a list once, from its beginning to its end, and notes for each OST where its entries are.

What is kept is a file of 16 bytes an entry: its number and its offset, in a queue for each OST (`queues.py`). A list that
is compressed is unpacked beside it first, for nobody can begin in the middle of such a file.

Whatever is made here is made anew if it is missing or does not belong to the list as it is now.
"""

from __future__ import annotations

import gzip
import os
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Annotated, Self

import msgspec

from cyclone.errors import CycloneError
from cyclone.generators.files import replacing
from cyclone.lustre.migration.lines import Rejected, Rules, read_records, trimmed
from cyclone.lustre.migration.names import ListFiles
from cyclone.lustre.migration.queues import OstQueues
from cyclone.tasks.checksum import escaped

_MAGIC = b"cyclone migration index 1\n"
_FOOT = struct.Struct("<Q26s")
_WIDTH = 2

_LOOK_EVERY = 1 << 14
_BLOCK_BYTES = 1 << 20


class Unreadable(CycloneError):
    """A list is damaged: it cannot be read, or not to its end, however often that is tried."""


class Cancelled(CycloneError):
    """Nobody wants the index any more."""


class Signature(msgspec.Struct, frozen=True):
    """By this one knows that a list is the same, and that it was read by the same rules."""

    size: int
    mtime_ns: int
    root: bytes
    byteorder: str = sys.byteorder

    @classmethod
    def of(cls, status: os.stat_result, rules: Rules) -> Self:
        return cls(status.st_size, status.st_mtime_ns, rules.root)


#: No list has it.
_OF_NO_LIST = Signature(0, 0, b"")


class _Foot(msgspec.Struct, frozen=True):
    """What stands at the end of an index. queues: `{OST: where its chunks are}`."""

    signature: Signature
    entries: Annotated[int, msgspec.Meta(ge=0)]
    rejected: Annotated[int, msgspec.Meta(ge=0)]
    carriage_returns: bool
    end: Annotated[int, msgspec.Meta(ge=0)]
    queues: dict[int, bytes]


class Index:
    """A list that has been read.

    entries: how many are valid; their numbers are those of the records, so they may be larger. rejected: how many are not.
    carriage_returns: were there any, which are not part of a path? content: the file that the offsets are of.
    """

    def __init__(self, foot: _Foot, content: Path, file: Path) -> None:
        self.entries, self.rejected = foot.entries, foot.rejected
        self.carriage_returns = foot.carriage_returns
        self.content = content
        self._signature = foot.signature
        self._file = file
        self._queues = OstQueues(None, _WIDTH)
        self._queues.restore(foot.queues, foot.end)

    @property
    def records(self) -> int:
        """All of them, valid or not."""
        return self.entries + self.rejected

    def is_of(self, status: os.stat_result, rules: Rules) -> bool:
        """Was a file like this one read by such rules?"""
        return self._signature == Signature.of(status, rules)

    def take(self, ost: int, most: int) -> list[tuple[int, ...]]:
        """`(number, offset)` of the oldest entries of an OST that have not been taken. Raises OSError."""
        if not self._queues.length(ost):
            return []
        with opened(self._file) as descriptor:
            return self._queues.take(ost, most, descriptor)

    def length(self, ost: int) -> int:
        """How many have not been taken."""
        return self._queues.length(ost)

    def lengths(self) -> dict[int, int]:
        """As `length`, for all OSTs that there are entries of."""
        return self._queues.lengths()


def index(
    files: ListFiles, rules: Rules, is_wanted: Callable[[], bool] = lambda: True, *, in_copy: bool = False
) -> Index:
    """Read a list, or take the index of it that is there.

    is_wanted: asked now and then; False ends it with Cancelled. in_copy: make a copy of the records to go by from then on.
    Raises Unreadable when the list is not what its name says, and OSError when it, or a file beside it, cannot be read or
    written.
    """
    try:
        content = _content(files, is_wanted, in_copy)
        signature = Signature.of(content.stat(), rules)
        foot = _foot_of(files.index, signature)
        if foot is None:
            discard(files.draft)
            foot = _write(content, files, signature, rules, is_wanted)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise Unreadable(f"{files.base}: {error}") from None
    return Index(foot, content, files.index)


def no_index(files: ListFiles, entries: int) -> Index:
    """Of a list that is not read: somebody knows so many of its entries, and none can be taken."""
    return Index(_Foot(_OF_NO_LIST, entries, 0, False, 0, {}), files.current(), files.index)


@contextmanager
def opened(file: Path) -> Iterator[int]:
    """A descriptor to read from. There may be more lists than a process may have descriptors."""
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _content(files: ListFiles, is_wanted: Callable[[], bool], in_copy: bool) -> Path:
    """The file that holds the records themselves."""
    if files.plain.exists():
        return files.plain
    if not (files.is_packed or in_copy):
        return files.current()
    source = files.current()
    with (
        gzip.open(source, "rb") if files.is_packed else open(source, "rb") as records,
        replacing(files.plain) as plain,
    ):
        while block := records.read(_BLOCK_BYTES):
            if not is_wanted():
                raise Cancelled(f"{source}: not wanted any more")
            plain.write(block)
    return files.plain


def _foot_of(index_file: Path, signature: Signature) -> _Foot | None:
    """What stands at the end of the index that is there; None if it is none of this list."""
    try:
        with open(index_file, "rb") as file:
            file.seek(-_FOOT.size, os.SEEK_END)
            begin, magic = _FOOT.unpack(file.read(_FOOT.size))
            if magic != _MAGIC:
                return None
            file.seek(begin)
            foot = msgspec.msgpack.decode(file.read()[: -_FOOT.size], type=_Foot)
    except (OSError, ValueError, OverflowError):
        return None
    return foot if foot.signature == signature else None


def _write(
    content: Path, files: ListFiles, signature: Signature, rules: Rules, is_wanted: Callable[[], bool]
) -> _Foot:
    separator = files.separator
    entries = rejected = 0
    carriage_returns = False
    with ExitStack() as open_files:
        file = open_files.enter_context(replacing(files.index))
        complaints: IO[bytes] | None = None
        queues = OstQueues(file, _WIDTH)
        parse, put = rules.parse, queues.put
        records = read_records(open_files.enter_context(open(content, "rb")), separator)
        for number, (offset, raw) in enumerate(records):
            record = trimmed(raw, separator)
            carriage_returns = carriage_returns or len(record) != len(raw)
            try:
                ost, _ = parse(record)
            except Rejected as problem:
                if complaints is None:
                    complaints = open_files.enter_context(replacing(files.draft))
                complaints.write(complaint(number, str(problem), raw, separator))
                rejected += 1
            else:
                put(ost, number, offset)
                entries += 1
            if number % _LOOK_EVERY == 0 and not is_wanted():
                raise Cancelled(f"{files.base}: not wanted any more")
        queues.write_all()
        foot = _Foot(signature, entries, rejected, carriage_returns, queues.end(), queues.directory())
        file.seek(foot.end)
        file.write(msgspec.msgpack.encode(foot) + _FOOT.pack(foot.end, _MAGIC))
    return foot


def complaint(number: int, reason: str, record: bytes, separator: bytes) -> bytes:
    """A line about a record that is no entry: its number as people count, the reason, and the record; tabs between."""
    shown = record if separator == b"\n" else escaped(record)
    return b"%d\t%s\t%s\n" % (number + 1, reason.encode(), shown)


def discard(*files: Path) -> None:
    """Remove what was made beside a list, as far as it is there."""
    for file in files:
        file.unlink(missing_ok=True)
