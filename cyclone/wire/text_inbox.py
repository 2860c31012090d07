"""Hears what tasks of Cyclone 2.x say to a sink: one text a message, pushed without keys and without an answer.

Such a peer proves nothing but its address, so it is let in by that (ZAP, ZeroMQ RFC 27, mechanism NULL). Whatever it
says is text to be read with care, and never more than a row.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

import zmq

from cyclone.clock import monotonic
from cyclone.errors import AddressError
from cyclone.wire.complaints import Complaints
from cyclone.wire.connections import Connections
from cyclone.wire.sockets import Context, Inbox, Socket, is_readable, parse, set_limits

_DOMAIN = b"cyclone-2"
_ZAP = "inproc://zeromq.zap.01"
_TEXT_BYTES_MAX = 64 * 1024


class TextInbox:
    """Owns a socket that anybody with an allowed address may push to. It belongs in the poller of one loop."""

    def __init__(self, allowed: Iterable[str], *, ipv6: bool = False) -> None:
        """allowed: addresses of hosts; loopback addresses are always allowed."""
        self._allowed = {ipaddress.ip_address(each) for each in allowed}
        self._complaints = Complaints()
        # A context of its own, for there is one who answers ZAP in each.
        self._context: Context = zmq.Context()
        self._zap = self._context.socket(zmq.ROUTER)
        self._zap.linger = 0
        self._zap.bind(_ZAP)
        self._socket = self._context.socket(zmq.PULL)
        set_limits(self._socket, _TEXT_BYTES_MAX, ipv6)
        self._socket.zap_domain = _DOMAIN
        self._socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        self._inbox = Inbox(self._socket, 1)
        self._connections = Connections(
            self._context, self._socket, self._complaints, monotonic, _TEXT_BYTES_MAX
        )

    def bind(self, address: str) -> None:
        """Listen on `tcp://ADDRESS:PORT`. Raises AddressError."""
        parse(address)
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            raise AddressError(f"{address} cannot be listened on: {error.strerror}") from error

    @property
    def sockets(self) -> tuple[Socket, ...]:
        """For the poller: whichever is readable, `receive` is to be called. The first one is that of the texts."""
        return (self._socket, self._connections.monitor, self._zap)

    def receive(self, limit: int) -> list[bytes]:
        """At most so many of the texts that have come in, oldest first; lets people in meanwhile. Never blocks."""
        while is_readable(self._zap):
            self._answer(self._zap.recv_multipart(zmq.NOBLOCK))
        texts: list[bytes] = []
        for parts in self._inbox.take(limit):
            self._connections.hear(parts[0])
            if len(parts) == 1:
                texts.append(parts[0].bytes)
            else:
                self._complaints.add("too many parts", "a task of Cyclone 2.x")
        self._connections.watch()
        return texts

    def close(self) -> None:
        self._connections.close()
        self._socket.close(0)
        self._zap.close(0)
        self._context.term()

    def _answer(self, question: list[bytes]) -> None:
        # RFC 27: route, empty, version, request, domain, address, routing id, mechanism.
        match question:
            case [route, b"", b"1.0", request, domain, address, _, b"NULL"] if domain == _DOMAIN:
                code = b"200" if self._is_allowed(address) else b"400"
                self._zap.send_multipart([route, b"", b"1.0", request, code, b"", b"", b""], zmq.NOBLOCK)

    def _is_allowed(self, address: bytes) -> bool:
        text = address.decode("ascii", "replace")
        try:
            found = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(found, "ipv4_mapped", None) or found
        if mapped.is_loopback or mapped in self._allowed:
            return True
        self._complaints.add("refused", text, "it is no address in [legacy] allow")
        return False
