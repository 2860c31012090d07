"""One small loop: sockets, pipes and signals become calls, one at a time, in one thread."""

from __future__ import annotations

import math
import os
import select
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any, Protocol

import zmq

from cyclone.clock import monotonic


class HasFileno(Protocol):
    def fileno(self) -> int: ...


#: A ZeroMQ socket, a file descriptor, or whatever has one.
Pollable = zmq.Socket[Any] | HasFileno | int

Callback = Callable[[], object]

# As plain numbers: those of pyzmq are members of an enumeration, whose arithmetic is dear.
_EVENTS, _POLLIN = int(zmq.EVENTS), int(zmq.POLLIN)


class Selector:
    """Owns what is waited for.

    A callback may register and unregister anything. It may be called once in vain, so it reads without blocking.
    """

    def __init__(self, spin_s: float = 0.0) -> None:
        """spin_s: if the last thing came so soon, so long is looked for the next one before going to sleep.

        To be woken up takes longer than many things that are waited for. Whoever else wants the processor meanwhile has
        it, and where there is only one, nobody looks.
        """
        self._spin_s = spin_s if len(os.sched_getaffinity(0)) > 1 else 0.0
        self._is_brisk = False  # the last thing came as soon as that
        self._epoll = select.epoll()
        self._callbacks: dict[int, tuple[Callback, Callback | None]] = {}
        self._zmq_sockets: dict[int, zmq.Socket[Any]] = {}

    def register(self, pollable: Pollable, readable: Callback, writable: Callback | None = None) -> None:
        """Call `readable` whenever there is something to read, or an end; `writable` whenever there is room.

        Replaces what was registered for it before. Leave `writable` out while there is nothing to write, or the
        loop never rests. A ZeroMQ socket is only ever waited for to be readable.
        """
        fd = _descriptor(pollable)
        events = select.EPOLLIN if writable is None else select.EPOLLIN | select.EPOLLOUT
        if fd in self._callbacks:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._callbacks[fd] = (readable, writable)
        if isinstance(pollable, zmq.Socket):
            self._zmq_sockets[fd] = pollable

    def unregister(self, pollable: Pollable) -> None:
        """To be called before it is closed. Nothing happens if it is not registered."""
        fd = _descriptor(pollable)
        if self._callbacks.pop(fd, None) is not None:
            self._zmq_sockets.pop(fd, None)
            self._epoll.unregister(fd)

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait for one thing at least, or for so many seconds, and call back for all that is ready.

        timeout_s: None waits without bound. Whatever a callback raises is raised here.
        """
        # The descriptor of a ZeroMQ socket only tells that something has changed since the socket was asked last
        # (zmq_getsockopt(3), ZMQ_FD); so each is asked before resting.
        due = [fd for fd, end in self._zmq_sockets.items() if int(end.get(_EVENTS)) & _POLLIN]
        ready = self._epoll.poll(0) if due else self._rest(timeout_s)
        for fd in due:
            self._call(fd, select.EPOLLIN)
        for fd, events in ready:
            end = self._zmq_sockets.get(fd)
            if end is None or (fd not in due and int(end.get(_EVENTS)) & _POLLIN):
                self._call(fd, events)

    def close(self) -> None:
        """What was registered stays open."""
        self._epoll.close()

    def _rest(self, timeout_s: float | None) -> list[tuple[int, int]]:
        """What is ready, as soon as anything is."""
        if not self._spin_s:
            return self._epoll.poll(timeout_s)
        began = monotonic()
        ready = self._epoll.poll(0)
        if self._is_brisk:
            until = began + (self._spin_s if timeout_s is None else min(self._spin_s, timeout_s))
            while not ready and monotonic() < until:
                os.sched_yield()
                ready = self._epoll.poll(0)
        if not ready:
            ready = self._epoll.poll(None if timeout_s is None else max(0.0, began + timeout_s - monotonic()))
        self._is_brisk = bool(ready) and monotonic() - began <= self._spin_s
        return ready

    def _call(self, fd: int, events: int) -> None:
        readable, _ = self._callbacks.get(fd, _NOBODY)
        if events & ~select.EPOLLOUT and readable is not None:
            readable()
        # Asked again, because the first callback may have unregistered it.
        _, writable = self._callbacks.get(fd, _NOBODY)
        if events & select.EPOLLOUT and writable is not None:
            writable()


class Loop(Selector):
    """Owns the signals of this process, too; to be made in its main thread."""

    def __init__(self, spin_s: float = 0.0) -> None:
        super().__init__(spin_s)
        self._signals: dict[int, Callback] = {}
        self._former: dict[int, Any] = {}
        self._posted, self._post = socket.socketpair()
        self._posted.setblocking(False)
        self._post.setblocking(False)
        self._former_fd = signal.set_wakeup_fd(self._post.fileno(), warn_on_full_buffer=False)
        self.register(self._posted, self._on_posted)
        self._pulse: Callback = _nothing
        self._pulse_every_s = math.inf
        self._pulse_at = math.inf

    def on_signal(self, signum: int, callback: Callback) -> None:
        """Call back from within `wait`, once for each time the signal arrived."""
        # The handler itself does nothing: the interpreter has posted the number of the signal before it runs.
        former = signal.signal(signum, _posted_already)
        self._former.setdefault(signum, former)
        self._signals[signum] = callback

    def pulse(self, period_s: float, callback: Callback) -> None:
        """Call back from within `wait` every so many seconds, for as long as somebody waits at all."""
        self._pulse, self._pulse_every_s, self._pulse_at = callback, period_s, 0.0

    def wait(self, timeout_s: float | None = None) -> None:
        super().wait(self._until_pulse(timeout_s))
        self._beat()

    def wait_for_signals(self, timeout_s: float) -> None:
        """As `wait`, but deaf to everything else: for when nothing may be heard and yet one may be told to stop."""
        ready, _, _ = select.select([self._posted], [], [], self._until_pulse(timeout_s))
        if ready:
            self._on_posted()
        self._beat()

    def close(self) -> None:
        """Give the signals back. What was registered stays open."""
        super().close()
        for signum, former in self._former.items():
            signal.signal(signum, former)
        signal.set_wakeup_fd(self._former_fd)
        self._posted.close()
        self._post.close()

    def _until_pulse(self, timeout_s: float | None) -> float | None:
        if self._pulse_at == math.inf:
            return timeout_s
        left_s = max(0.0, self._pulse_at - monotonic())
        return left_s if timeout_s is None else min(left_s, timeout_s)

    def _beat(self) -> None:
        if self._pulse_at != math.inf and (now := monotonic()) >= self._pulse_at:
            self._pulse_at = now + self._pulse_every_s
            self._pulse()

    def _on_posted(self) -> None:
        try:
            arrived = self._posted.recv(4096)
        except BlockingIOError:
            return
        # Each byte is one signal: a second SIGTERM means something else than the first.
        for signum in arrived:
            if signum in self._signals:
                self._signals[signum]()


_NOBODY: tuple[None, None] = (None, None)


def _descriptor(pollable: Pollable) -> int:
    if isinstance(pollable, int):
        return pollable
    return pollable.fileno()


def _nothing() -> None:
    """Nobody wants to be called."""


def _posted_already(_signum: int, _frame: FrameType | None) -> None:
    pass
