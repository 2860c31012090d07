"""Whose turn it is to attend to a line: the caller's thread while it waits, and otherwise a deputy's.

A caller who waits may as well do himself what he waits for: to be told by another thread costs more than to do it. But
he may also compute for an hour, and somebody must be there meanwhile. He is taken to be around for a moment after
each wait, so that nobody has to be woken up when he comes back soon.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Callable

from cyclone.clock import monotonic

#: So long after a wait the caller is expected back.
AROUND_S = 0.02
#: The longest turn.
TURN_S = 0.5


class Duty:
    """Owns the deputy's thread and the lock that is held during a turn.

    serve: one turn, of at most so many seconds; it returns as soon as something has happened, or `wake_fd` is readable,
    and then `heed_waking` is to be called. Returns whether there will be another one.
    end: called once, by the deputy, after the last turn.
    """

    def __init__(self, serve: Callable[[float], bool], end: Callable[[], None]) -> None:
        self._serve, self._end = serve, end
        self._turn = threading.RLock()  # which knows whose it is
        self._is_over = False
        self._caller_until = 0.0  # monotonic seconds; infinite while he has a turn
        self._is_asleep = False  # the deputy, until he is told that a turn of the caller is over
        self._told = threading.Event()
        self.wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._deputy = threading.Thread(target=self._run, name="line", daemon=True)

    @property
    def is_callers(self) -> bool:
        """Nobody else has a turn before long, unless it is handed over."""
        return self._caller_until > monotonic()

    def start(self) -> None:
        self._deputy.start()

    def take(self, timeout_s: float) -> None:
        """By the caller: have a turn."""
        try:
            self._caller_until = math.inf
            if not self._turn.acquire(blocking=False):
                self.wake()
                self._turn.acquire()
            self._serve_once(min(timeout_s, TURN_S))
        finally:
            # Ctrl-C may have come before the lock was his.
            with contextlib.suppress(RuntimeError):
                self._turn.release()
            self._caller_until = monotonic() + AROUND_S
            if self._is_asleep:
                self._told.set()

    def hand_over(self) -> None:
        """By the caller: there is something to be done, and he goes on with something else."""
        if self._caller_until:
            self._caller_until = 0.0
            self._told.set()
        self.wake()

    def wake(self) -> None:
        """By anybody, also by a signal handler: whoever has a turn comes to its end. Nothing happens after `close`."""
        if self.wake_fd >= 0:
            os.eventfd_write(self.wake_fd, 1)

    def heed_waking(self) -> None:
        os.eventfd_read(self.wake_fd)

    def close(self) -> None:
        """By the caller, when `serve` has come to its end or would at its next turn."""
        if self._deputy.is_alive():
            self.hand_over()
            self._deputy.join()
        # Before its number can be that of another file.
        closing, self.wake_fd = self.wake_fd, -1
        os.close(closing)

    def _run(self) -> None:
        was_told = False
        while not self._is_over:
            # Said before it is looked at, so that a turn that ends from here on is told of. But who comes and goes does
            # not have to tell each time.
            self._is_asleep = not was_told
            left_s = self._caller_until - monotonic()
            if left_s <= 0:
                self._is_asleep = was_told = False
                with self._turn:
                    self._serve_once(TURN_S)
            elif left_s == math.inf and not was_told:
                was_told = self._told.wait()
                self._told.clear()
            else:
                self._is_asleep = was_told = False
                self._told.wait(min(left_s, AROUND_S))
                self._told.clear()
        with self._turn:
            self._end()

    def _serve_once(self, timeout_s: float) -> None:
        if not self._is_over:
            self._is_over = not self._serve(timeout_s)
