"""A moment that is not missed while the host is suspended: timerfd_create(2), which Python knows from 3.13 on."""

from __future__ import annotations

import ctypes
import os

from cyclone.clock import CLOCK

_TFD_TIMER_ABSTIME = 1

_libc = ctypes.CDLL(None, use_errno=True)

#: struct itimerspec: the interval between repetitions, of which there are none, then the moment.
_ItimerSpec = ctypes.c_long * 4


class Timer:
    """Owns a descriptor that is readable from a moment of `cyclone.clock` on, if need be as soon as the host wakes."""

    def __init__(self) -> None:
        # TFD_CLOEXEC and TFD_NONBLOCK are these.
        self._fd: int = _libc.timerfd_create(CLOCK, os.O_CLOEXEC | os.O_NONBLOCK)
        if self._fd < 0:
            raise _error("timerfd_create")
        self._moment: float | None = None

    def fileno(self) -> int:
        return self._fd

    def set(self, moment: float | None) -> None:
        """Readable from this moment on, at once if it is over, and not before; None: not at all."""
        if moment == self._moment:
            return
        # A moment of zero would be none.
        seconds, ns = divmod(max(1, int(moment * 1e9)), 10**9) if moment is not None else (0, 0)
        if _libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, _ItimerSpec(0, 0, seconds, ns), None) != 0:
            raise _error("timerfd_settime")
        self._moment = moment

    def close(self) -> None:
        os.close(self._fd)


def _error(call: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}")
