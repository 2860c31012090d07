"""A message and its frame: head, envelope, body and perhaps an enclosure, one behind the other.

The head is one byte, the version of the protocol, and the lengths of envelope (2 bytes) and body (4), little-endian. The
envelope is the msgpack array `[instance, life]`: towards a server (the master or a sink) it says who speaks, from the
server for which life the message is meant. The body is one message of `cyclone.messages`, the enclosure, which takes
the rest, an array of byte strings as long as one list of the message.

One frame and not three, because libzmq handles, encrypts and hands over each by itself.

Whatever the bytes, only `Undecodable` and `WrongVersion` leave this file when frames are read.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence, Sized
from operator import attrgetter
from typing import Annotated, Any, TypeAlias

import msgspec

from cyclone.errors import RuleBroken, Undecodable, WrongVersion
from cyclone.messages import (
    PROTOCOL,
    Ended,
    FromClient,
    FromController,
    FromSink,
    Message,
    Place,
    Results,
    Submit,
    ToClient,
    ToController,
    ToSink,
)

#: Bytes as they came from a socket.
Frame: TypeAlias = bytes | memoryview

#: Version, length of the envelope, length of the body.
_HEAD = struct.Struct("<BHI")

#: The list of the message that the enclosure runs parallel to. Other messages have no enclosure.
_PARALLEL: dict[type[Message], Callable[[Any], Sized]] = {
    Place: attrgetter("assignments"),
    Ended: attrgetter("ends"),
    Submit: attrgetter("tasks"),
    Results: attrgetter("ends"),
}

# What msgspec raises for bytes that it cannot make sense of: its own errors and those of text in wrong encoding
# are ValueErrors; deep nesting, and lengths beyond reason, are told in their own ways.
_SENSELESS = (ValueError, RecursionError, OverflowError, MemoryError)

_encoder = msgspec.msgpack.Encoder()
_enclosures = msgspec.msgpack.Decoder(list[bytes])


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """Who speaks (towards a server), or which life is spoken to (from it).

    instance: tells daemons apart that use the same key; "" if there is only one.
    """

    instance: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._:-]{0,128}\Z")]
    life: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._:-]{1,128}\Z")]


_envelopes = msgspec.msgpack.Decoder(Envelope)


def seal(instance: str, life: str) -> bytes:
    """The envelope. Raises RuleBroken when instance or life is no such name."""
    try:
        envelope = _encoder.encode(Envelope(instance, life))
        _envelopes.decode(envelope)
    except _SENSELESS as error:
        raise RuleBroken(f"instance {instance!r} or life {life!r}: {error}") from None
    return envelope


def unseal(frame: Frame) -> tuple[Envelope, list[Frame]]:
    """The envelope, and `[body]` or `[body, enclosure]` as they are.

    Raises WrongVersion, or Undecodable for anything else that is no frame of a message.
    """
    if not frame:
        raise Undecodable("the frame is empty")
    if frame[0] != PROTOCOL:
        raise WrongVersion(frame[0], PROTOCOL)
    try:
        _, envelope_bytes, body_bytes = _HEAD.unpack_from(frame)
    except struct.error:
        raise Undecodable("the frame ends within its head") from None
    body_at = _HEAD.size + envelope_bytes
    end = body_at + body_bytes
    view = memoryview(frame)
    if end > len(view):
        raise Undecodable(f"the frame has {len(view)} bytes, and its head tells of {end}")
    try:
        envelope = _envelopes.decode(view[_HEAD.size : body_at])
    except _SENSELESS as error:
        raise Undecodable(f"envelope: {error}") from None
    return envelope, [view[body_at:end], view[end:]] if end < len(view) else [view[body_at:end]]


def encode(message: Message) -> bytes:
    """The body. Raises RuleBroken for text or numbers that cannot travel (lone surrogates, more than 64 bits)."""
    try:
        return _encoder.encode(message)
    except (UnicodeEncodeError, OverflowError) as error:
        raise RuleBroken(f"a {type(message).__name__} cannot be sent: {error}") from error


def frame(envelope: bytes, message: Message, enclosure: Sequence[bytes] | None = None) -> bytes:
    """What is to be sent. Raises RuleBroken as `encode`, or if the enclosure is of another length."""
    expected = _expected(message)
    if len(enclosure or ()) != expected:
        found = len(enclosure or ())
        raise RuleBroken(f"a {type(message).__name__} with {found} enclosed instead of {expected}")
    body = encode(message)
    return join(envelope, body, _encoder.encode(enclosure) if enclosure else b"")


def join(envelope: bytes, body: bytes, enclosure: bytes = b"") -> bytes:
    """A frame of its parts, whatever they are."""
    return b"".join((_HEAD.pack(PROTOCOL, len(envelope), len(body)), envelope, body, enclosure))


class Decoder:
    """Reads what is in an envelope: messages of the given kinds and nothing else."""

    def __init__(self, kinds: Any) -> None:
        self._bodies: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(kinds)

    def decode(self, parts: Sequence[Frame]) -> tuple[Message, list[bytes]]:
        """The message of `[body]` or `[body, enclosure]`, and what is enclosed. Raises Undecodable."""
        try:
            message = self._bodies.decode(parts[0])
            enclosure = _enclosures.decode(parts[1]) if len(parts) > 1 else []
        except _SENSELESS as error:
            raise Undecodable(f"{type(error).__name__}: {error}") from None
        expected = _expected(message)
        if len(enclosure) != expected:
            raise Undecodable(
                f"a {type(message).__name__} with {len(enclosure)} enclosed instead of {expected}"
            )
        return message, enclosure


class _Kind(msgspec.Struct, frozen=True, array_like=True):
    """The beginning of every body; the rest is passed over."""

    name: str


_kinds = msgspec.msgpack.Decoder(_Kind)


def kind(body: Frame) -> str:
    """What a body calls itself, to tell what was refused; "" if that cannot be told. Nothing else of it is decoded."""
    try:
        return _kinds.decode(body).name
    except _SENSELESS:
        return ""


TO_MASTER = Decoder(FromController | FromClient)
TO_SINK = Decoder(ToSink)
FROM_SERVER = Decoder(ToController | ToClient | FromSink)


def _expected(message: Message) -> int:
    parallel = _PARALLEL.get(type(message))
    return 0 if parallel is None else len(parallel(message))
