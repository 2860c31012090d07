"""What the two ends of every connection have in common: limits, reading without blocking, connecting.

Every limit is set here and none is left to what libzmq happens to default to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self, TypeAlias

import zmq
from zmq.utils.monitor import parse_monitor_message

from cyclone.errors import AddressError, ConfigError
from cyclone.wire.keys import KeyPair, PublicKey

Socket: TypeAlias = zmq.Socket[bytes]
Context: TypeAlias = zmq.Context[Socket]

#: The largest frame that is taken, unless said otherwise. A peer that sends a larger one is disconnected.
MAX_MESSAGE_BYTES = 256 * 2**20

#: How long what was said last may take to leave when a socket is closed.
LINGER_MS = 1000

_HIGH_WATER = 1000  # messages to or from one peer; each may carry thousands of tasks
_HANDSHAKE_MS = 5000
_HEARTBEAT_MS = 5000
_HEARTBEAT_TIMEOUT_MS = 15_000
_RECONNECT_MS = 100
_RECONNECT_MAX_MS = 5000

# As plain numbers: those of pyzmq are members of an enumeration, whose arithmetic is dear.
_EVENTS, _POLLIN = int(zmq.EVENTS), int(zmq.POLLIN)
_NOBLOCK, _SNDMORE = int(zmq.NOBLOCK), int(zmq.SNDMORE)

#: Versions before this one let peers without a key crash or block a server (CVE-2019-6250, CVE-2019-13132,
#: CVE-2020-15166).
_LIBZMQ_MIN = (4, 3, 3)

_TCP = re.compile(r"tcp://(?P<host>\*|\[[0-9A-Fa-f:.%\w]+\]|[^\s:/\[\]*]+):(?P<port>\d{1,5})\Z", re.ASCII)


class Inbox:
    """Reads one socket without blocking, as lists of frames.

    Parts are counted, not messages, so that one with endless parts costs nobody else their turn; of such a message
    the first few are kept, one more than are allowed.
    """

    def __init__(self, socket: Socket, parts_max: int) -> None:
        self._socket = socket
        self._parts_max = parts_max
        self._parts: list[zmq.Frame] = []

    def take(self, limit: int) -> Iterator[list[zmq.Frame]]:
        taken = 0
        for _ in range(limit * self._parts_max):
            # In the midst of a message there is more of it: libzmq hands over whole messages.
            if not self._parts and not is_readable(self._socket):
                return
            part = self._socket.recv(_NOBLOCK, copy=False)
            if len(self._parts) <= self._parts_max:
                self._parts.append(part)
            if part.more:
                continue
            parts, self._parts = self._parts, []
            yield parts
            taken += 1
            if taken == limit:
                return


class Connection:
    """A socket that connects, and the monitor that tells how that goes."""

    _EVENTS = (
        zmq.EVENT_HANDSHAKE_SUCCEEDED
        | zmq.EVENT_HANDSHAKE_FAILED_AUTH
        | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
        | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        | zmq.EVENT_DISCONNECTED
        | zmq.EVENT_CONNECT_RETRIED
    )
    _OUTCOMES = _EVENTS & ~(zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECT_RETRIED)

    def __init__(
        self, context: Context, address: str, own: KeyPair | None, server: PublicKey | None,
        max_message_bytes: int, ipv6: bool,
    ) -> None:  # fmt: skip
        self.socket = context.socket(zmq.DEALER)
        set_limits(self.socket, max_message_bytes, ipv6)
        # Nothing is queued for a server that is not there: it would be said late and out of order.
        self.socket.immediate = True
        self.socket.reconnect_ivl, self.socket.reconnect_ivl_max = _RECONNECT_MS, _RECONNECT_MAX_MS
        self.socket.connect_timeout = _HANDSHAKE_MS
        if own is not None and server is not None:
            self.socket.curve_publickey, self.socket.curve_secretkey = own.public, own.secret
            self.socket.curve_serverkey = server.public
        self.monitor: Socket = self.socket.get_monitor_socket(self._EVENTS)
        try:
            self.socket.connect(address)
        except zmq.ZMQError as error:
            self.close(0)
            raise AddressError(f"{address} cannot be connected to: {error.strerror}") from error

    def events(self) -> list[zmq.Event]:
        """What has happened since this was asked last."""
        events: list[zmq.Event] = []
        while is_readable(self.monitor):
            told = self.monitor.recv_multipart(zmq.NOBLOCK)
            events.append(zmq.Event(parse_monitor_message(told)["event"]))
        return events

    def admitted(self) -> bool | None:
        """Whether the server has let us in, as far as that is known since it was asked last; None: it is not yet."""
        outcomes = [event for event in self.events() if event & self._OUTCOMES]
        return zmq.EVENT_HANDSHAKE_SUCCEEDED in outcomes if outcomes else None

    def close(self, linger_ms: int) -> None:
        if self.socket.closed:
            return
        self.socket.disable_monitor()
        self.monitor.close(0)
        self.socket.close(linger_ms)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(0)


def set_limits(socket: Socket, max_message_bytes: int, ipv6: bool) -> None:
    """Everything that bounds what a peer can make us hold or wait for."""
    socket.sndhwm = socket.rcvhwm = _HIGH_WATER
    socket.linger = LINGER_MS
    socket.maxmsgsize = max_message_bytes
    socket.handshake_ivl = _HANDSHAKE_MS
    socket.heartbeat_ivl = _HEARTBEAT_MS
    socket.heartbeat_timeout = socket.heartbeat_ttl = _HEARTBEAT_TIMEOUT_MS
    socket.tcp_keepalive = 1
    socket.tcp_keepalive_idle, socket.tcp_keepalive_intvl, socket.tcp_keepalive_cnt = 60, 10, 6
    socket.ipv6 = ipv6


def send(socket: Socket, *frames: bytes) -> None:
    """Send one message without blocking. Raises zmq.Again when there is no room for it, ZMQError."""
    for frame in frames[:-1]:
        socket.send(frame, _NOBLOCK | _SNDMORE)
    socket.send(frames[-1], _NOBLOCK)


def is_readable(socket: Socket) -> bool:
    """Whether there is something to receive. Asked first, because libzmq's "no" as an exception is dear."""
    return bool(int(socket.get(_EVENTS)) & _POLLIN)


def told_of(frame: zmq.Frame, name: str) -> str:
    """What libzmq knows of whoever has sent this frame; "" if there is no telling."""
    try:
        return str(frame.get(name))
    except zmq.ZMQError:
        return ""


def parse(address: str) -> tuple[str, int]:
    """Host and port of `tcp://HOST:PORT`. Raises AddressError."""
    match = _TCP.match(address)
    if match is None or int(match["port"]) > 65535:
        raise AddressError(f"found the address {address!r}, expected tcp://HOST:PORT")
    return match["host"], int(match["port"])


def check_libzmq() -> None:
    """Raises ConfigError when the library cannot keep the promises of this file."""
    version: tuple[Any, ...] = zmq.zmq_version_info()
    if version < _LIBZMQ_MIN or not zmq.has("curve"):
        wanted = ".".join(map(str, _LIBZMQ_MIN))
        raise ConfigError(f"found libzmq {zmq.zmq_version()}, expected {wanted} or newer, built with CURVE")
