"""The end of every connection that a server holds: the master, or a sink.

Nothing here blocks. A peer that is gone, clogged or hostile is an answer (False, or a count), never an exception.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import or_
from types import TracebackType
from typing import Any, NamedTuple, Self, get_args

import zmq

from cyclone.clock import monotonic
from cyclone.errors import AddressError, KeyFileError, RuleBroken, Undecodable, WrongVersion
from cyclone.messages import AskRecords, Deliver, FromClient, FromController, Message, Refused
from cyclone.model.peer import Peer
from cyclone.wire import codec
from cyclone.wire.complaints import Complaints
from cyclone.wire.connections import Connections
from cyclone.wire.keys import KeyPair, KeyRing, Role, new_pair
from cyclone.wire.sockets import (
    LINGER_MS,
    MAX_MESSAGE_BYTES,
    Connection,
    Context,
    Inbox,
    Socket,
    check_libzmq,
    parse,
    send,
    set_limits,
    told_of,
)
from cyclone.wire.strikes import OUT_S, STRIKES_MOST, Offender, Strikes
from cyclone.wire.zap import DOMAIN, Zap

_log = logging.getLogger("cyclone.wire")

_ROUTES_MAX = 10_000
_PROBE_S = 1.0

#: How often it is asked whether the list of keys has changed.
_LIST_S = 2.0

#: What only those can do who were let in, and nobody does by accident a hundred times a minute.
_OFFENCES = frozenset({"undecodable", "wrong version", "wrong role", "too many parts"})

#: The name of whoever speaks where keys are switched off.
_KEYLESS = "keyless"


class House(NamedTuple):
    """Whose door it is: the role of its key, the language that is spoken there, and who may say what."""

    role: Role
    decoder: codec.Decoder
    may_say: Mapping[Role, frozenset[type[Message]]]


MASTER = House(
    Role.MASTER,
    codec.TO_MASTER,
    {Role.CONTROLLER: frozenset(get_args(FromController)), Role.CLIENT: frozenset(get_args(FromClient))},
)
SINK = House(
    Role.SINK,
    codec.TO_SINK,
    {Role.CONTROLLER: frozenset({Deliver}), Role.CLIENT: frozenset({AskRecords})},
)

#: For somebody whose envelope could not be read.
_ANY_LIFE = codec.seal("", "-")


class Heard(NamedTuple):
    """A message, who said it, and in which role their key was authorized."""

    peer: Peer
    role: Role
    message: Message
    enclosure: list[bytes]


class _Route(NamedTuple):
    """Where a peer is reached, and whom ZAP vouched for there ("" without keys).

    envelope: of everything that is said to it. former: its connection before this one, whose last words may still come
    in.
    """

    user_id: str
    envelope: bytes
    current: bytes
    former: bytes = b""


class _Speaker(NamedTuple):
    """Whose key it is. Without keys everybody has the same name and may say anything that anybody may say."""

    name: str = _KEYLESS
    role: Role | None = None
    user_id: str = ""


class Door:
    """Where a server hears everybody. Owns who was heard over which connection, and what was dropped.

    own, ring: the server's key pair and the keys that it admits; both None where keys are switched off.
    `sockets` belong in the poller of one loop: whichever of them is readable, `receive` is to be called, for
    that also lets people in.
    """

    def __init__(
        self, own: KeyPair | None, ring: KeyRing | None, house: House = MASTER, *,
        max_message_bytes: int = MAX_MESSAGE_BYTES, ipv6: bool = False, clock: Callable[[], float] = monotonic,
    ) -> None:  # fmt: skip
        """Raises KeyFileError when the key is not that of such a server."""
        if (own is None) != (ring is None):
            raise RuleBroken("a door has both a key and a list of keys, or neither")
        if own is not None and own.role is not house.role:
            raise KeyFileError(f"the key {own.name} has the role {own.role}, expected {house.role}")
        check_libzmq()
        self._own, self._ring, self._house = own, ring, house
        self._max_message_bytes, self._ipv6 = max_message_bytes, ipv6
        self._clock = clock
        self._complaints = Complaints(clock)
        self._strikes = Strikes(clock)
        self._look_at_list_at = clock() + _LIST_S
        self._decoders = _decoders(house)
        self._routes: dict[Peer, _Route] = {}
        # By the name of their key, who was heard longest ago first.
        self._speakers: defaultdict[str, OrderedDict[Peer, None]] = defaultdict(OrderedDict)
        # A context of its own: ZAP is asked for within one context only, and whoever is in another one is let in.
        self._context: Context = zmq.Context()
        self._zap = None if ring is None else Zap(self._context, ring, self._complaints)
        self._socket = self._context.socket(zmq.ROUTER)
        set_limits(self._socket, max_message_bytes, ipv6)
        # Else letters to peers that are gone, or do not read, vanish without a word.
        self._socket.router_mandatory = True
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 0)
        self._socket.backlog = 1024
        if own is not None:
            self._socket.curve_server = True
            self._socket.curve_publickey, self._socket.curve_secretkey = own.public, own.secret
            # Without both of these a server with keys admits everybody as soon as nobody answers its questions.
            self._socket.zap_domain = DOMAIN
            self._socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        self._inbox = Inbox(self._socket, 2)  # the route and the message
        self._connections = Connections(
            self._context, self._socket, self._complaints, clock, max_message_bytes
        )

    def bind(self, address: str) -> int:
        """Listen on `tcp://HOST:PORT` and return the port, the real one if 0 was asked for.

        Raises AddressError: not an address of this host, in use, open to the network without keys, or (with keys)
        open to somebody with a key of no list.
        """
        host, port = parse(address)
        bound = _resolved(address, host, self._ipv6)
        if self._own is None and not _is_loopback(bound):
            raise AddressError(
                f"{address} can be reached over the network while keys are switched off; "
                "switch [security] curve on, or listen on 127.0.0.1"
            )
        try:
            self._socket.bind(f"tcp://{bound}:{port}")
        except zmq.ZMQError as error:
            raise AddressError(f"{address} cannot be listened on: {error.strerror}") from error
        endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
        if self._own is not None:
            self._try_with_a_strange_key(endpoint, self._own)
        return int(endpoint.rpartition(":")[2])

    @property
    def sockets(self) -> tuple[Socket, ...]:
        """For the poller; they stay the same until `close`."""
        own = (self._socket, self._connections.monitor)
        return own if self._zap is None else (*own, self._zap.socket)

    @property
    def dropped(self) -> Counter[str]:
        """How often what was not heard or said, by reason."""
        return self._complaints.counts

    def receive(self, limit: int = 1000) -> list[Heard]:
        """What has come in, oldest first, at most so many messages; lets people in meanwhile. Never blocks.

        Notices by itself, within seconds, when the list of keys has changed.
        """
        self._look_at_list()
        if self._zap is not None:
            self._zap.serve()
        said = [self._admit(frames) for frames in self._inbox.take(limit)]
        self._connections.watch()
        return [heard for heard in said if heard is not None]

    def say(self, peer: Peer, message: Message, enclosure: Sequence[bytes] | None = None) -> bool:
        """Whether it could be sent off: False when the peer is gone, revoked or does not read, or it is too large.

        True promises nothing: the connection may break before it arrives. Never blocks.
        Raises RuleBroken when it is no message that can be sent at all.
        """
        route = self._routes.get(peer)
        if route is None:
            self._complaints.add("nobody there", peer.name, type(message).__name__)
            return False
        frame = codec.frame(route.envelope, message, enclosure)
        if self._ring is not None and self._ring.still_admitted(route.user_id) is None:
            self._complaints.add("revoked", peer.name, f"is not told {type(message).__name__} any more")
            return False
        if len(frame) > self._max_message_bytes:
            # They would disconnect at the sight of it, come back, and be sent it again.
            detail = f"{type(message).__name__}, {len(frame)} bytes"
            self._complaints.add("too large", peer.name, detail)
            return False
        return self._send(peer.name, route.current, frame)

    def close(self) -> None:
        """Give what was said last up to a second to leave, then close."""
        self._connections.close()
        self._socket.close(LINGER_MS)
        if self._zap is not None:
            self._zap.close()
        self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Who said it, and may they?

    def _look_at_list(self) -> None:
        now = self._clock()
        if self._ring is None or now < self._look_at_list_at:
            return
        self._look_at_list_at = now + _LIST_S
        try:
            if self._ring.refresh():
                _log.info("keys read anew, for the list has changed")
        except KeyFileError as error:
            self._complaints.add("keys in disorder", "the list of keys", str(error))

    def _admit(self, frames: list[zmq.Frame]) -> Heard | None:
        if not self._connections.hear(frames[0]):
            return None
        try:
            return self._hear(frames)
        except _Unwelcome as unwelcome:
            self._complaints.add(unwelcome.reason, unwelcome.who, unwelcome.detail)
            if unwelcome.reason in _OFFENCES:
                self._strike(frames[0])
            elif unwelcome.reason == "revoked":
                # Whoever comes back is told that the key is not admitted.
                self._connections.cut(frames[0])
            return None

    def _strike(self, frame: zmq.Frame) -> None:
        if self._ring is None:
            return  # without keys there is no telling who it was
        offender = _offender(frame)
        if self._strikes.add(offender):
            detail = f"{STRIKES_MOST} bad messages; nothing of theirs is read for {OUT_S:g} s"
            self._complaints.add("suspended", " at ".join(offender), detail)

    def _hear(self, frames: list[zmq.Frame]) -> Heard:
        name, role, user_id = self._vouched(frames[0])
        decoder = self._decoders.get(role)
        if decoder is None:
            raise _Unwelcome("wrong role", name, f"a {role} has nothing to say here")
        route, frame, *more = frames
        parts: list[codec.Frame] = []
        try:
            # First of all the version: another one may have other frames.
            envelope, parts = codec.unseal(frame.buffer)
            if more:
                raise _Unwelcome("too many parts", name)
            message, enclosure = decoder.decode(parts)
        except WrongVersion as error:
            self._send(name, route.bytes, codec.frame(_ANY_LIFE, Refused(str(error))))
            raise _Unwelcome("wrong version", name, str(error)) from None
        except Undecodable as error:
            if role is not None and parts and (kind := self._foreign(role, parts[0])):
                raise _Unwelcome("wrong role", name, f"a {role} said {kind}") from None
            raise _Unwelcome("undecodable", name, str(error)) from None
        if role is None:
            may_say = self._house.may_say
            role = next(each for each in may_say if type(message) in may_say[each])
        peer = Peer(f"{name}/{envelope.instance}" if envelope.instance else name, envelope.life)
        self._learn(peer, name, user_id, route.bytes)
        return Heard(peer, role, message, enclosure)

    def _foreign(self, role: Role, body: codec.Frame) -> str:
        """The name of what was said, if others may say it here and this role may not; else ""."""
        kind = codec.kind(body)
        speakers = [
            each for each, kinds in self._house.may_say.items() if kind in {one.__name__ for one in kinds}
        ]
        return kind if speakers and role not in speakers else ""

    def _vouched(self, frame: zmq.Frame) -> _Speaker:
        if self._ring is None:
            return _Speaker()
        user_id = _user_id(frame)
        # Asked of each message, not of each connection, for libzmq never asks again about one that is open.
        key = self._ring.still_admitted(user_id)
        if key is None:
            raise _Unwelcome("revoked", user_id, "their key is not on the list any more")
        if self._strikes.anybody_out and self._strikes.is_out(_offender(frame)):
            raise _Unwelcome("suspended", key.name, "too much of what they said made no sense")
        return _Speaker(key.name, key.role, user_id)

    def _learn(self, peer: Peer, key: str, user_id: str, connection: bytes) -> None:
        known = self._routes.get(peer)
        if known is None:
            self._routes[peer] = _Route(user_id, codec.seal("", peer.life), connection)
            self._speakers[key][peer] = None
            if len(self._routes) > _ROUTES_MAX:
                self._forget_one()
            return
        if connection not in (known.current, known.former):
            self._routes[peer] = _Route(user_id, known.envelope, connection, known.current)
        self._speakers[key].move_to_end(peer)

    def _forget_one(self) -> None:
        """Of the key under which most are known: whoever invents peers by the thousand loses his own."""
        most = max(self._speakers.values(), key=len)
        peer, _ = most.popitem(last=False)
        del self._routes[peer]

    def _send(self, who: str, route: bytes, frame: bytes) -> bool:
        try:
            send(self._socket, route, frame)
        except zmq.Again:
            self._complaints.add("clogged", who, "does not read what it is sent")
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._complaints.add("gone", who, "is not connected any more")
        else:
            return True
        return False

    def _try_with_a_strange_key(self, endpoint: str, own: KeyPair) -> None:
        """Knock as a stranger. Raises AddressError, after closing the address, when that is let in."""
        stranger = new_pair("stranger", Role.CLIENT)
        knocked = endpoint.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
        end = monotonic() + _PROBE_S
        with Connection(
            self._context, knocked, stranger, own.public_key, self._max_message_bytes, self._ipv6
        ) as probe:
            admitted = None
            while admitted is None and monotonic() < end:
                zmq.select([probe.monitor, *self.sockets[2:]], [], [], 0.05)
                if self._zap is not None:
                    self._zap.serve(expected=stranger.public_key.raw)
                admitted = probe.admitted()
        if admitted:
            self._socket.unbind(endpoint)
            raise AddressError(f"{endpoint} lets in keys that are on no list; not serving anybody")


class _Unwelcome(Exception):
    """A message is not for the master's ears."""

    def __init__(self, reason: str, who: str, detail: str = "") -> None:
        self.reason, self.who, self.detail = reason, who, detail
        super().__init__(reason, who, detail)


def _decoders(house: House) -> dict[Role | None, codec.Decoder]:
    """For each role one that makes nothing of what others may say; for None, without keys, one for everything."""
    one_of: dict[Role, Any] = {role: reduce(or_, kinds) for role, kinds in house.may_say.items()}
    return {None: house.decoder, **{role: codec.Decoder(kinds) for role, kinds in one_of.items()}}


def _offender(frame: zmq.Frame) -> Offender:
    return Offender(_user_id(frame), told_of(frame, "Peer-Address"))


def _user_id(frame: zmq.Frame) -> str:
    """Whom ZAP let in; "" if there is no telling, which is on nobody's list."""
    return told_of(frame, "User-Id")


def _resolved(address: str, host: str, ipv6: bool) -> str:
    """The host as libzmq binds it: it knows addresses and interfaces but no names."""
    interfaces = [name for _, name in socket.if_nameindex()]
    if host == "*" or host.startswith("[") or host in interfaces:
        return host
    family = socket.AF_UNSPEC if ipv6 else socket.AF_INET
    try:
        found = socket.getaddrinfo(host, None, family, socket.SOCK_STREAM)[0]
    except OSError as error:
        raise AddressError(f"{address} cannot be listened on: {error}") from error
    return f"[{found[4][0]}]" if found[0] == socket.AF_INET6 else str(found[4][0])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
