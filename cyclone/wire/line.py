"""The end of a connection that controllers and clients hold, to the master or to a sink."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import zmq

from cyclone.clock import monotonic
from cyclone.errors import AddressError, KeyFileError, RuleBroken, Undecodable, WrongVersion
from cyclone.messages import Message
from cyclone.wire import codec
from cyclone.wire.complaints import Complaints
from cyclone.wire.keys import KeyPair, PublicKey, Role, load_pair, load_public
from cyclone.wire.sockets import (
    LINGER_MS,
    MAX_MESSAGE_BYTES,
    Connection,
    Context,
    Inbox,
    Socket,
    check_libzmq,
    is_readable,
    parse,
    send,
)

_CLOSED_HANDSHAKES_MAX = 3

#: libzmq says that it tries again at once, if it does: not after bytes that make no sense, of which it says nothing either.
_TRIED_AGAIN_S = 1.0


def connect(
    address: str, key_dir: Path | None, key: str, role: Role, *,
    server: str = "master", instance: str = "", life: str, ipv6: bool = False,
) -> Line:  # fmt: skip
    """A line with keys from this directory, of which ours has this name and must have this role.

    key_dir: None where keys are switched off. server: the name of the public key of the other side.
    Raises KeyFileError, and what `Line` raises.
    """
    own = other = None
    if key_dir is not None:
        own, other = load_pair(key_dir, key), load_public(key_dir, server)
        if own.role is not role:
            raise KeyFileError(f"the key {key!r} has the role {own.role}, expected {role}", file=key_dir)
    return Line(address, own, other, instance=instance, life=life, ipv6=ipv6)


class Line:
    """A controller's or client's connection to a server: the master or a sink. It comes back by itself when the
    network or the server was away, but not after a refusal: that takes `reconnect`.

    own, server: both None where keys are switched off. instance: tells those apart who use the same key.
    What is said while there is no connection is not kept.
    """

    def __init__(
        self, address: str, own: KeyPair | None, server: PublicKey | None, *, instance: str = "", life: str,
        max_message_bytes: int = MAX_MESSAGE_BYTES, ipv6: bool = False, clock: Callable[[], float] = monotonic,
    ) -> None:  # fmt: skip
        """Raises AddressError, KeyFileError (a key in a wrong role), RuleBroken (instance or life no such name)."""
        if (own is None) != (server is None):
            raise RuleBroken("a line has both a key and the key of the server, or neither")
        if server is not None and server.role not in (Role.MASTER, Role.SINK):
            raise KeyFileError(
                f"the key {server.name} has the role {server.role}, expected {Role.MASTER} or {Role.SINK}"
            )
        self._other = "sink" if server is not None and server.role is Role.SINK else "master"
        check_libzmq()
        host, port = parse(address)
        # libzmq would try to reach port 0 for ever.
        if host == "*" or port == 0:
            raise AddressError(
                f"found the address {address!r}, expected that of a {self._other}: one host, one port"
            )
        self.address, self.life = address, life
        self._own, self._server = own, server
        self._max_message_bytes, self._ipv6 = max_message_bytes, ipv6
        self._envelope = codec.seal(instance, life)
        self._complaints, self._clock = Complaints(clock), clock
        self._context: Context = zmq.Context()
        self._refused_reason: str | None = None
        self._closed_handshakes = 0
        self.connected = False
        self.connections = 0
        try:
            self._open()
        except AddressError:
            self._context.term()
            raise

    @property
    def sockets(self) -> tuple[Socket, ...]:
        """For the poller: whichever is readable, `receive` is to be called. `reconnect` exchanges them."""
        return (self._connection.socket, self._connection.monitor)

    @property
    def dropped(self) -> Counter[str]:
        """How often something was not heard, by reason."""
        return self._complaints.counts

    @property
    def refused_reason(self) -> str | None:
        """Why the server does not want us, if it is there and that is so; None again once it has let us in."""
        gone_at = self._gone_at
        if self._refused_reason is None and gone_at is not None and self._clock() - gone_at >= _TRIED_AGAIN_S:
            self._refused_reason = self._disagreement()
        return self._refused_reason

    def receive(self, limit: int = 1000) -> list[tuple[Message, list[bytes]]]:
        """What the server has said to this life, with what was enclosed. Never blocks."""
        self._watch()
        said = (self._read(frames) for frames in self._inbox.take(limit))
        return [heard for heard in said if heard is not None]

    def say(self, message: Message, enclosure: Sequence[bytes] | None = None) -> bool:
        """Whether it could be sent off: False while there is no connection or too much is on its way already.

        Raises RuleBroken when it is too large for one frame: the caller has to bound what it says at once.
        """
        frame = codec.frame(self._envelope, message, enclosure)
        if len(frame) > self._max_message_bytes:
            raise RuleBroken(
                f"a {type(message).__name__} of {len(frame)} bytes is to be sent, at most "
                f"{self._max_message_bytes} are allowed"
            )
        try:
            send(self._connection.socket, frame)
        except zmq.Again:
            return False
        return True

    def wait(self, timeout_s: float) -> bool:
        """Wait until something has come in, or the connection has changed, but no longer than this."""
        until = monotonic() + timeout_s
        while True:
            zmq.select([*self.sockets], [], [], max(0.0, until - monotonic()))
            # That libzmq tries again is no news.
            if self._watch() or is_readable(self._connection.socket):
                return True
            if monotonic() >= until:
                return False

    def reconnect(self) -> None:
        """Begin anew over another connection, in the same life. What was on its way is given up.

        The sockets are new ones: take the old ones out of the poller before, and put the new ones in after.
        """
        self._connection.close(0)
        self._open()

    def close(self) -> None:
        """Give what was said last up to a second to leave, then close."""
        self._connection.close(LINGER_MS)
        self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> None:
        self._refused_reason, self._closed_handshakes, self.connected = None, 0, False
        self._gone_at: float | None = (
            None  # when the connection was over and libzmq did not say that it tries again
        )
        self._connection = Connection(
            self._context, self.address, self._own, self._server, self._max_message_bytes, self._ipv6
        )
        self._inbox = Inbox(self._connection.socket, 1)

    def _read(self, frames: list[zmq.Frame]) -> tuple[Message, list[bytes]] | None:
        try:
            envelope, parts = codec.unseal(frames[0].buffer)
            if len(frames) > 1:
                raise Undecodable("too many parts")
            if envelope.life != self.life:
                self._complaints.add("former life", self.address, f"for {envelope.life}")
                return None
            return codec.FROM_SERVER.decode(parts)
        except WrongVersion as error:
            self._refused_reason = f"the {self._other} at {self.address} has another version: {error}"
            self._complaints.add("wrong version", self.address, str(error))
        except Undecodable as error:
            self._complaints.add("undecodable", self.address, str(error))
        return None

    def _watch(self) -> bool:
        """Whether the connection has changed."""
        events = self._connection.events()
        for event in events:
            self.connected = event == zmq.EVENT_HANDSHAKE_SUCCEEDED
            self._gone_at = self._clock() if event == zmq.EVENT_DISCONNECTED else None
            if self.connected:
                self.connections += 1
                self._closed_handshakes, self._refused_reason = 0, None
            elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH and self._own is not None:
                self._refused_reason = (
                    f"the {self._other} at {self.address} does not admit the key {self._own.name} "
                    f"({self._own.public_key.fingerprint})"
                )
            elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
                self._refused_reason = self._disagreement()
            elif event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
                # Somebody hung up. Once may be a server that is busy or has just died; libzmq itself tries again.
                self._closed_handshakes += 1
                if self._closed_handshakes >= _CLOSED_HANDSHAKES_MAX:
                    self._refused_reason = self._disagreement()
        return any(event != zmq.EVENT_CONNECT_RETRIED for event in events)

    def _disagreement(self) -> str:
        # Whether the other side names its reason before it hangs up is a race, so all of them stand here.
        if self._server is None:
            return (
                f"what listens at {self.address} does not speak without keys as this side does; "
                "[security] curve must be the same on both"
            )
        return (
            f"what listens at {self.address} does not speak with keys as this side does ([security] curve must be "
            f"the same on both), or its key is not {self._server.fingerprint}, which is expected of the {self._other}"
        )
