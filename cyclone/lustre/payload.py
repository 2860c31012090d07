"""What is written to an OST to see how fast it is.

Random bytes, for a server that compresses would be measured with less than was written. They follow from a seed, so
that what is read back can be compared with what was written. They repeat after a length that divides no size of a
record or a stripe, so a server that looks for equal blocks finds none.
"""

from __future__ import annotations

import random

_PERIOD_BYTES = 4_194_319  # a prime above 4 MiB


class Payload:
    """An endless sequence of bytes that follows from its seed.

    longest: piece that will be asked for, in bytes. total: of bytes that will be asked for at all.
    """

    def __init__(self, seed: str, total: int, longest: int) -> None:
        self._period = min(total, _PERIOD_BYTES)
        once = random.Random(seed).randbytes(self._period)
        self._bytes = (once * (longest // self._period + 2))[: self._period + longest]

    def piece(self, position: int, length: int) -> bytes:
        """So many bytes, from this one on."""
        start = position % self._period
        return self._bytes[start : start + length]
