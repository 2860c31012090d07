"""What a worker is doing at this moment, on a page of memory that the controller reads when it wants to know.

It says which attempt a dead worker was making, and since when a living one has been making it, without a message for
each task. Three words of 64 bits: where, when, and the two XORed. A reader that meets a half-written page sees that
the third word does not fit and reads again; no order of the three stores is needed for that, on any processor.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from typing import NamedTuple

_PAGE_BYTES = mmap.PAGESIZE

#: A writer that was stopped or killed between two stores leaves a page that never fits.
_READS_MAX = 1000


class Standing(NamedTuple):
    """Where a worker stands.

    place: how many `Place` messages it has begun; assignment: its index in that message, None between two messages.
    started_ns: when it began what it does, by `cyclone.clock`, which all processes of a host share.
    """

    place: int
    assignment: int | None
    started_ns: int


class Progress:
    """The page. Written by one worker, read by its controller."""

    def __init__(self, fd: int) -> None:
        """fd: of a file made by `create_page`; may be closed afterwards."""
        self._memory = mmap.mmap(fd, _PAGE_BYTES)
        self._words = memoryview(self._memory).cast("Q")

    # The worker's side.

    def mark(self, place: int, assignment: int, started_ns: int) -> None:
        """Begin an attempt, or, with `assignment` -1, none. started_ns: monotonic."""
        words = self._words
        where = place << 32 | assignment + 1
        words[0] = where
        words[1] = started_ns
        words[2] = where ^ started_ns

    # The controller's side.

    def read(self) -> Standing | None:
        """Where the worker stands; None if it was caught in the middle of writing and does not write on.

        That is only possible between two attempts: what was being made before is over, the next not begun.
        """
        words = self._words
        for _ in range(_READS_MAX):
            where, started_ns, check = words[0], words[1], words[2]
            if where ^ started_ns == check:
                low = where & 0xFFFFFFFF
                return Standing(where >> 32, low - 1 if low else None, started_ns)
        return None

    def close(self) -> None:
        self._words.release()
        self._memory.close()


def create_page() -> int:
    """A new page in memory, as a file descriptor: for `Progress` here, and to be sent to the worker."""
    fd = os.memfd_create("cyclone-progress", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, _PAGE_BYTES)
    # Sealed: a task that truncates every descriptor it finds must not end the controller with SIGBUS.
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd
