"""Notes in every process under test which bytes with the mark of an intruder are given to the codec, and what comes out.

Python imports a module of this name when it starts, if it is on the PYTHONPATH.
"""

from __future__ import annotations

from collections.abc import Sequence

from acceptance.witness import MARK, note

from cyclone.messages import Message
from cyclone.wire import codec

_unseal, _decode = codec.unseal, codec.Decoder.decode


def unseal(frame: codec.Frame) -> codec.Envelope:
    if MARK in bytes(frame):
        note("codec", "unseal")
    return _unseal(frame)


def decode(self: codec.Decoder, frames: Sequence[codec.Frame]) -> tuple[Message, list[bytes]]:
    is_marked = any(MARK in bytes(frame) for frame in frames)
    if is_marked:
        note("codec", "decode")
    message, enclosure = _decode(self, frames)
    if is_marked:
        note("codec", f"decoded {type(message).__name__}")
    return message, enclosure


codec.unseal = unseal
codec.Decoder.decode = decode  # type: ignore[method-assign]
