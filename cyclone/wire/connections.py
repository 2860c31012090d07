"""The TCP connections of a listening socket: how many there may be, and how much one may send without coming to an end.

libzmq bounds the size of a frame, the number of whole messages that wait, and the time for a handshake. It does not
bound connections, until no file can be opened any more, nor the parts of a message that never ends, until there is no
memory. Whoever is beyond a bound is cut off: the connection is shut down, as if the other side had done it.

Strangers take no place from those who were heard, and who has a key takes none from those with another.
"""

from __future__ import annotations

import resource
import socket
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

import zmq
from zmq.utils.monitor import parse_monitor_message

from cyclone.wire.complaints import Complaints
from cyclone.wire.sockets import Context, Socket, is_readable, told_of

#: The most connections; and no more than a third of the files that this process may have open, for a sink may have
#: two sockets that listen.
CONNECTIONS_MAX = 10_000
#: One in so many is for those of whom nothing was heard yet.
_NEWCOMERS = 10

_ENDPOINT = "inproc://connections"
_LOOK_S = 1.0

#: What may be on its way besides the message: in the buffers of the kernel, and of libzmq.
_BUFFERS_BYTES = 16 * 2**20

# struct tcp_info of linux/tcp.h; `tcpi_bytes_received` came with Linux 4.1 and has stayed in its place.
_TCP_INFO_BYTES, _BYTES_RECEIVED = 256, 128

_SRCFD = int(zmq.SRCFD)


class Connections:
    """Owns which connections there are, oldest first, whose they are, and what each had sent when it was last heard.

    `monitor` belongs in the poller: when it is readable, `watch` is to be called.
    """

    def __init__(
        self, context: Context, listening: Socket, complaints: Complaints, clock: Callable[[], float],
        unfinished_bytes_max: int,
    ) -> None:  # fmt: skip
        """To be made before the socket is bound. unfinished_bytes_max: of a message, all parts together."""
        self._complaints, self._clock = complaints, clock
        self._unfinished_bytes_max = unfinished_bytes_max + _BUFFERS_BYTES
        self._strangers: dict[int, int] = {}  # of whom nothing was heard yet: {descriptor: bytes}
        self._heard: dict[int, int | None] = {}  # None: since the last look
        self._holders: dict[
            int, str
        ] = {}  # of those that were heard: whose key it is, or without keys which address
        self._held: defaultdict[str, dict[int, None]] = defaultdict(dict)
        self._look_at = clock() + _LOOK_S
        self._listening = listening
        listening.monitor(_ENDPOINT, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        self.monitor = context.socket(zmq.PAIR)
        # Without a bound: it is the thread for all connections that would have to wait for us.
        self.monitor.rcvhwm = 0
        self.monitor.linger = 0
        self.monitor.connect(_ENDPOINT)

    def __len__(self) -> int:
        return len(self._strangers) + len(self._heard)

    def hear(self, frame: zmq.Frame) -> bool:
        """A message has come over the connection of this frame, whole. False: the connection was one too many."""
        descriptor = _descriptor(frame)
        if descriptor in self._heard:
            self._heard[descriptor] = None
        elif self._strangers.pop(descriptor, None) is not None:
            self._heard[descriptor] = None
            holder = self._holders[descriptor] = told_of(frame, "User-Id") or told_of(frame, "Peer-Address")
            self._held[holder][descriptor] = None
            return self._make_room() != descriptor
        return True

    def cut(self, frame: zmq.Frame) -> None:
        """Cut off the connection over which this frame has come."""
        descriptor = _descriptor(frame)
        if descriptor in self._heard or descriptor in self._strangers:
            self._cut_off([descriptor])

    def watch(self) -> None:
        """Cut off who is beyond a bound."""
        if is_readable(self.monitor):
            while is_readable(self.monitor):
                told = parse_monitor_message(self.monitor.recv_multipart(zmq.NOBLOCK))
                self._note(told["value"], accepted=told["event"] == zmq.EVENT_ACCEPTED)
            self._cut_off(self._too_many())
        # While there is something to be read, somebody may have finished a message that was not given to `hear` yet.
        if self._clock() >= self._look_at and not is_readable(self._listening):
            self._look_at = self._clock() + _LOOK_S
            self._cut_off(self._endless())

    def close(self) -> None:
        """Before the listening socket is closed."""
        if not self.monitor.closed:
            self._listening.disable_monitor()
            self.monitor.close(0)

    def _note(self, descriptor: int, *, accepted: bool) -> None:
        self._forget(descriptor)
        if accepted:
            self._strangers[descriptor] = 0

    def _forget(self, descriptor: int) -> None:
        self._strangers.pop(descriptor, None)
        self._heard.pop(descriptor, None)
        holder = self._holders.pop(descriptor, None)
        if holder is not None:
            del self._held[holder][descriptor]
            if not self._held[holder]:
                del self._held[holder]

    def _make_room(self) -> int | None:
        """Cut off the newest of whoever has the most, if those that were heard leave no room for newcomers.

        The newest, so that a cluster that is too large for its bound keeps the same controllers.
        """
        most = _most() - _most() // _NEWCOMERS
        if len(self._heard) <= most:
            return None
        holder, held = max(self._held.items(), key=lambda one: len(one[1]))
        newest = next(reversed(held))
        self._complaints.add("too many connections", holder, f"{len(held)} of {most}; the newest is cut off")
        self._cut_off([newest])
        return newest

    def _too_many(self) -> list[int]:
        """The oldest of those that have not said a word: the others may just be shaking hands."""
        most = _most()
        excess = len(self) - most
        if excess <= 0:
            return []
        self._complaints.add("too many connections", "all", f"at most {most}; silent ones are cut off")
        return [*self._strangers][:excess]

    def _endless(self) -> list[int]:
        """Who has sent more than any message has, and finished none since the look before the last."""
        endless = []
        for known in (self._strangers, self._heard):
            for descriptor, before in known.items():
                if (received := _received(descriptor)) is None:
                    continue
                if before is None:
                    known[descriptor] = received
                elif received - before > self._unfinished_bytes_max:
                    endless.append(descriptor)
                    self._complaints.add("endless message", _peer(descriptor), f"{received - before} bytes")
        return endless

    def _cut_off(self, descriptors: Iterable[int]) -> None:
        for descriptor in descriptors:
            # It may be another one by now: whoever is cut off by mistake comes back, and to a file this does nothing.
            with suppress(OSError), _borrowed(descriptor) as connection:
                connection.shutdown(socket.SHUT_RDWR)
            self._forget(descriptor)


def _most() -> int:
    return min(CONNECTIONS_MAX, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 3)


def _descriptor(frame: zmq.Frame) -> int:
    try:
        return int(frame.get(_SRCFD))
    except zmq.ZMQError:
        return -1  # it did not come over TCP


@contextmanager
def _borrowed(descriptor: int) -> Iterator[socket.socket]:
    """A connection that libzmq goes on to own. Raises OSError when it is gone."""
    connection = socket.socket(fileno=descriptor)
    try:
        yield connection
    finally:
        connection.detach()


def _received(descriptor: int) -> int | None:
    """How many bytes have come, from the beginning; None if it is gone."""
    try:
        with _borrowed(descriptor) as connection:
            told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    except OSError:
        return None
    return int.from_bytes(told[_BYTES_RECEIVED : _BYTES_RECEIVED + 8], sys.byteorder)


def _peer(descriptor: int) -> str:
    try:
        with _borrowed(descriptor) as connection:
            return str(connection.getpeername()[0])
    except OSError:
        return "unknown"
