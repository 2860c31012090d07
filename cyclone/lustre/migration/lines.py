"""What stands in a list: a decimal index of an OST, one blank, the path of a file below the file system.

In `NAME.input` a record ends with a newline, in `NAME.input0` with a NUL, so that a name may hold newlines. A path is
bytes; nothing is assumed of their encoding.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import IO

OST_INDEX_MAX = 65535

#: Linux, limits.h: a path has at most PATH_MAX bytes with its NUL.
PATH_BYTES_MAX = 4095

#: A record is read up to here. No longer one can be valid, so the rest of it need not be in memory.
RECORD_BYTES_MAX = 8192

_BLOCK_BYTES = 1 << 20
_FIRST_BYTES = 512

_SLASHES = re.compile(rb"//+")


class Rejected(ValueError):
    """A record is not what it should be; the text says why, in words without a line break."""


class Rules:
    """What a record must be like. root: the path of the file system, absolute; every file is below it."""

    def __init__(self, root: bytes) -> None:
        self.root = b"/" + _SLASHES.sub(b"/", root).strip(b"/")
        self._below = self.root if self.root == b"/" else self.root + b"/"

    def parse(self, record: bytes) -> tuple[int, bytes]:
        """`(index of the OST, path)` of a record without its end. Raises Rejected."""
        number, blank, path = record.partition(b" ")
        # Digits of ASCII only; without a bound on their count a line of nines would take minutes.
        if not number.isdigit() or len(number) > 20:
            raise Rejected("blank line" if not record else "does not begin with the index of an OST")
        ost = int(number)
        if ost > OST_INDEX_MAX:
            raise Rejected(f"the index of an OST is from 0 to {OST_INDEX_MAX}")
        if not blank:
            raise Rejected("holds no path")
        if len(path) > PATH_BYTES_MAX:
            raise Rejected(f"the path is longer than {PATH_BYTES_MAX} bytes")
        if b"\0" in path:
            raise Rejected("the path holds a NUL")
        plain = _SLASHES.sub(b"/", path) if b"//" in path else path
        if not plain.startswith(self._below) or plain == self._below:
            raise Rejected("the path is not below the file system")
        if b"/.." in plain and (b"/../" in plain or plain.endswith(b"/..")):
            raise Rejected("the path holds ..")
        return ost, path


def read_records(stream: IO[bytes], separator: bytes) -> Iterator[tuple[int, bytes]]:
    """`(offset, record)` for each record of a list, in order; the last one need not be ended.

    A record longer than RECORD_BYTES_MAX is cut there: it is never valid, and `Rules.parse` says so.
    """
    offset, rest, dropped = 0, b"", 0
    while block := stream.read(_BLOCK_BYTES):
        pieces = (rest + block).split(separator)
        rest = pieces.pop()
        for piece in pieces:
            yield offset, piece[:RECORD_BYTES_MAX]
            offset += len(piece) + dropped + 1
            dropped = 0
        if len(rest) > RECORD_BYTES_MAX:
            dropped += len(rest) - RECORD_BYTES_MAX
            rest = rest[:RECORD_BYTES_MAX]
    if rest:
        yield offset, rest


def read_record(fd: int, offset: int, separator: bytes) -> bytes:
    """The record that begins there, cut as by `read_records`. Raises OSError."""
    found = os.pread(fd, _FIRST_BYTES, offset)
    if separator not in found and len(found) == _FIRST_BYTES:
        found = os.pread(fd, RECORD_BYTES_MAX, offset)
    return found.partition(separator)[0]


def trimmed(record: bytes, separator: bytes) -> bytes:
    """Without the carriage return that lists from other systems have at the ends of their lines."""
    return record[:-1] if separator == b"\n" and record.endswith(b"\r") else record
