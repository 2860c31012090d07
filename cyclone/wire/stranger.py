"""A peer that says whatever it likes, whole frames of it: for drills and tests of doors."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import zmq

from cyclone.clock import monotonic
from cyclone.errors import Undecodable, WrongVersion
from cyclone.messages import Message
from cyclone.wire import codec
from cyclone.wire.keys import KeyPair, PublicKey
from cyclone.wire.sockets import MAX_MESSAGE_BYTES, Connection, Context, Inbox, send

#: For what it says last to leave.
_LINGER_MS = 200


def of_version(version: int, message: Message, instance: str, life: str) -> bytes:
    """The frame of a message, as a peer says it that speaks another version of the protocol."""
    return bytes((version,)) + codec.frame(codec.seal(instance, life), message)[1:]


class Stranger:
    """A connection to a server with any key. admitted: None until it is known whether it was let in."""

    def __init__(self, address: str, own: KeyPair, server: PublicKey) -> None:
        """Raises AddressError."""
        self.admitted: bool | None = None
        self._context: Context = zmq.Context()
        self._connection = Connection(self._context, address, own, server, MAX_MESSAGE_BYTES, ipv6=False)
        self._inbox = Inbox(self._connection.socket, 1)

    def knock(self, timeout_s: float) -> bool | None:
        """Wait until it is known whether we are let in, but no longer than this; return that."""
        until = monotonic() + timeout_s
        while self.admitted is None and (left_s := until - monotonic()) > 0:
            zmq.select([self._connection.monitor], [], [], left_s)
            self.admitted = self._connection.admitted()
        return self.admitted

    def say(self, *frames: bytes) -> bool:
        """Whether it could be sent off."""
        try:
            send(self._connection.socket, *frames)
        except zmq.Again:
            return False
        return True

    def hear(self, timeout_s: float) -> list[Message]:
        """What was answered within this time, as far as it is a message."""
        zmq.select([self._connection.socket], [], [], timeout_s)
        heard: list[Message] = []
        for frames in self._inbox.take(1000):
            try:
                _, parts = codec.unseal(frames[0].buffer)
                heard.append(codec.FROM_SERVER.decode(parts)[0])
            except (Undecodable, WrongVersion):
                continue  # it was not asked for sense, and need not answer with any
        return heard

    def close(self) -> None:
        self._connection.close(_LINGER_MS)
        self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
