"""One small loop: sockets, pipes and signals become calls, one at a time, in one thread."""

from __future__ import annotations

import math
import select
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any, Protocol

import zmq


class HasFileno(Protocol):
    def fileno(self) -> int: ...


#: A ZeroMQ socket, a file descriptor, or whatever has one.
Pollable = zmq.Socket[Any] | HasFileno | int

Callback = Callable[[], object]


class Loop:
    """Owns what is waited for, and the signals of this process; to be made in its main thread.

    A callback may register and unregister anything. It may be called once in vain, so it reads without blocking.
    """

    def __init__(self) -> None:
        self._poller = zmq.Poller()
        self._callbacks: dict[zmq.Socket[Any] | int, tuple[Callback, Callback | None]] = {}
        self._signals: dict[int, Callback] = {}
        self._former: dict[int, Any] = {}
        self._posted, self._post = socket.socketpair()
        self._posted.setblocking(False)
        self._post.setblocking(False)
        self._former_fd = signal.set_wakeup_fd(self._post.fileno(), warn_on_full_buffer=False)
        self.register(self._posted, self._on_posted)

    def register(self, pollable: Pollable, readable: Callback, writable: Callback | None = None) -> None:
        """Call `readable` whenever there is something to read, or an end; `writable` whenever there is room.

        Replaces what was registered for it before. Leave `writable` out while there is nothing to write, or the
        loop never rests.
        """
        key = _key(pollable)
        self._poller.register(key, zmq.POLLIN if writable is None else zmq.POLLIN | zmq.POLLOUT)
        self._callbacks[key] = (readable, writable)

    def unregister(self, pollable: Pollable) -> None:
        """To be called before it is closed. Nothing happens if it is not registered."""
        key = _key(pollable)
        if self._callbacks.pop(key, None) is not None:
            self._poller.unregister(key)

    def on_signal(self, signum: int, callback: Callback) -> None:
        """Call back from within `wait`, once for each time the signal arrived."""
        # The handler itself does nothing: the interpreter has posted the number of the signal before it runs.
        former = signal.signal(signum, _posted_already)
        self._former.setdefault(signum, former)
        self._signals[signum] = callback

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait for one thing at least, or for so many seconds, and call back for all that is ready.

        timeout_s: None waits without bound. Whatever a callback raises is raised here.
        """
        # Rounded up: a rest of half a millisecond must not become a busy loop.
        timeout_ms = None if timeout_s is None else max(0, math.ceil(timeout_s * 1000))
        for key, events in self._poller.poll(timeout_ms):
            readable, _ = self._callbacks.get(key, _NOBODY)
            if events & ~zmq.POLLOUT and readable is not None:
                readable()
            # Asked again, because the first callback may have unregistered it.
            _, writable = self._callbacks.get(key, _NOBODY)
            if events & zmq.POLLOUT and writable is not None:
                writable()

    def wait_for_signals(self, timeout_s: float) -> None:
        """As `wait`, but deaf to everything else: for when nothing may be heard and yet one may be told to stop."""
        ready, _, _ = select.select([self._posted], [], [], timeout_s)
        if ready:
            self._on_posted()

    def close(self) -> None:
        """Give the signals back. What was registered stays open."""
        for signum, former in self._former.items():
            signal.signal(signum, former)
        signal.set_wakeup_fd(self._former_fd)
        self._posted.close()
        self._post.close()

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


def _key(pollable: Pollable) -> zmq.Socket[Any] | int:
    if isinstance(pollable, (zmq.Socket, int)):
        return pollable
    return pollable.fileno()


def _posted_already(_signum: int, _frame: FrameType | None) -> None:
    pass
