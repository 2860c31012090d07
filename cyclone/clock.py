"""The clock by which everything is waited for: leases, deadlines, limits of time, and how long something took.

It goes on while the host is suspended, which `time.monotonic` does not. A controller that has slept longer than a lease
has to know it when it wakes: meanwhile the master may have given what is exclusive to somebody else. All processes of a
host share this clock, so a moment may be told from one to another; between hosts it means nothing.

What the kernel waits for (`sleep`, `poll`) still stands still while the host is suspended. Whoever has to be on time when
it wakes uses `process/timer.py`. A virtual machine that was paused behind the back of its kernel has no clock that knows.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Final

#: clock_gettime(2): "identical to CLOCK_MONOTONIC, except that it also includes any time that the system is suspended".
CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

#: Seconds. Never runs backwards, and does not change when the wall clock is set.
monotonic = partial(time.clock_gettime, CLOCK)

#: The same in nanoseconds.
monotonic_ns = partial(time.clock_gettime_ns, CLOCK)
