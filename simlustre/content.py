"""What lies in a file, and how it was when the file was made."""

from __future__ import annotations

import errno
import os

from simlustre import compact
from simlustre.files import read_attribute
from simlustre.layout import SUM_ATTRIBUTE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from simlustre.state import State


def content_sum(path: str) -> str:
    """A hash of the length and the bytes of a file, reading no holes. Raises OSError."""
    from hashlib import blake2b

    digest = blake2b(digest_size=16)
    with open(path, "rb", buffering=0) as file:
        digest.update(b"%d" % os.fstat(file.fileno()).st_size)
        for start, end in data_extents(file.fileno()):
            offset = start
            while offset < end:
                block = os.pread(file.fileno(), min(1 << 20, end - offset), offset)
                if not block:
                    break
                stripped = block.rstrip(b"\0")
                if stripped:
                    digest.update(b"%d:" % offset + stripped)
                offset += len(block)
    return digest.hexdigest()


def data_extents(descriptor: int) -> Iterator[tuple[int, int]]:
    """(start, end) of each part of an open file that is not a hole."""
    end = 0
    while True:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end


def recorded_sum(state: State, path: str) -> tuple[str, int, int] | None:
    """(hash, size, mtime_ns) that `simctl populate` wrote down."""
    text = read_attribute(state, path, SUM_ATTRIBUTE)
    if text is None:
        return None
    digest, size, mtime_ns = compact.loads(text)
    return digest, size, mtime_ns
