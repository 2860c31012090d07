"""Turns what is right into what is almost right: bytes, values in msgpack, whole messages with their frames.

Everything here is drawn from a `random.Random` that the caller owns, so that a number is all that is needed to say
it again.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import msgspec

from cyclone.messages import PROTOCOL, Message
from cyclone.wire import codec

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode

#: Deeper than any recursion of a decoder goes.
_DEEP = 2000

#: Values that no field of a message expects in its place, or only at its very bounds. `Raw` is copied as it stands.
ODD_VALUES: tuple[Any, ...] = (
    0, 1, -1, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**64 - 1, -(2**63), True, None,
    0.0, -0.0, 1e-320, 1e308, float("nan"), float("inf"), float("-inf"),
    "", "\0", "a" * 5000, "\n\r\t\x1b[2J", "\u202e\u2028\ufeff\uffff\U0001d54f", "../../etc/passwd", "';--", "%s%n{0}", "-1", "NaN",
    b"", b"\xff\xfe", [], {}, [[]], {"": None}, [None] * 300,
    msgspec.Raw(b"\xa3\xff\xfe\xfd"),  # text that is not UTF-8
    msgspec.Raw(b"\xdd\xff\xff\xff\xff"),  # an array that announces four thousand million elements
    msgspec.Raw(b"\xdb\xff\xff\xff\xff"),  # text that announces as many bytes
    msgspec.Raw(b"\xc6\xff\xff\xff\xff"),
    msgspec.Raw(b"\xdf\xff\xff\xff\xff"),
    msgspec.Raw(b"\xc1"),  # what msgpack never uses
    msgspec.Raw(b"\xd4\x05\x00"),  # an extension type
    msgspec.Raw(b"\x91" * _DEEP + b"\xc0"),
    msgspec.Raw(b"\x81\xa0" * _DEEP + b"\xc0"),
    msgspec.Raw(b"\xd6\xff\xff\xff\xff\xff"),  # a moment
)  # fmt: skip


def mutated_bytes(random: random.Random, data: bytes) -> bytes:
    """Flipped, cut, doubled, halved, or with something put in between."""
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        at = random.randrange(len(data) + 1)
        match random.randrange(9):
            case 0 if data:
                at = min(at, len(data) - 1)
                data = data[:at] + bytes((data[at] ^ 1 << random.randrange(8),)) + data[at + 1 :]
            case 1 if data:
                at = min(at, len(data) - 1)
                data = data[:at] + bytes((random.choice((0, 0x7F, 0x80, 0xC1, 0xFF)),)) + data[at + 1 :]
            case 2:
                data = data[:at]
            case 3:
                data = data[: len(data) // 2]
            case 4:
                data += data
            case 5:
                data = data[:at] + random.randbytes(random.choice((1, 2, 8, 64))) + data[at:]
            case 6:
                data = data[:at] + data[at + random.choice((1, 2, 8)) :]
            case 7:
                end = at + random.choice((1, 4, 16, 64))
                data = data[:at] + data[at:end] * random.choice((2, 3, 50)) + data[end:]
            case _:
                odd = (b"\0", b"\n", b" ", b"%", b'"', b"9" * 30, b"-1", b"\xff\xff\xff\xff", b"\xe2\x80\xa8")
                data = data[:at] + random.choice(odd) + data[at:]
    return data


def mutated_value(random: random.Random, value: Any, changes: int = 1) -> Any:
    """A tree of lists, dicts and plain values in which so many places are not what they were."""
    tree = _decode(_encode(value))
    for _ in range(changes):
        tree = _change(random, tree)
    return tree


def _change(random: random.Random, tree: Any) -> Any:
    """Go down some branch and change what is there; a leaf is met more often than the stem."""
    if isinstance(tree, list) and tree and random.random() < 0.85:
        at = random.randrange(len(tree))
        return [*tree[:at], _change(random, tree[at]), *tree[at + 1 :]]
    if isinstance(tree, dict) and tree and random.random() < 0.85:
        name = random.choice(list(tree))
        return {**tree, name: _change(random, tree[name])}
    if isinstance(tree, list):
        return _changed_list(random, tree)
    if isinstance(tree, int | float) and random.random() < 0.5:
        return tree + random.choice((-1, 1, -tree, 2**20, 2**31, 0.5))
    return random.choice(ODD_VALUES)


def _changed_list(random: random.Random, tree: list[Any]) -> Any:
    match random.randrange(7):
        case 0:
            return tree[:-1]
        case 1:
            return [*tree, random.choice(ODD_VALUES)]
        case 2:
            return tree * random.choice((2, 3, 100)) if len(tree) < 1000 else tree[:5]
        case 3:
            return random.sample(tree, len(tree))
        case 4:
            return []
        case 5:
            return [*tree, *tree[:1]]
        case _:
            return random.choice(ODD_VALUES)


def mutated_frames(
    random: random.Random, message: Message, enclosure: Sequence[bytes], instance: str, life: str
) -> list[bytes]:
    """What follows the routing id: one frame, of which a part is not as it was, or several."""
    envelope = codec.seal(instance, life)
    body = _encode(message)
    enclosed: Any = list(enclosure)
    kind = random.randrange(22)
    if kind < 12:
        body = packed(mutated_value(random, message, random.choice((1, 1, 1, 2, 5))))
    elif kind < 14:
        body = mutated_bytes(random, body)
    elif kind == 14:
        envelope = packed(mutated_value(random, [instance, life]))
    elif kind == 15:
        envelope = mutated_bytes(random, envelope)
    elif kind < 18:
        enclosed = random.choice((
            enclosed[:-1], [*enclosed, b""], [], [b"x"] * 1000, [1], ["text"], None, {}, msgspec.Raw(b"\xdd\xff\xff\xff\xff"),
        ))  # fmt: skip
    elif kind == 18:
        return [b""] * random.choice((1, 2, 3, 4, 5, 500))
    parts = [envelope, body]
    if enclosed or kind in (16, 17):
        parts.append(packed(enclosed))
    if kind == 19:
        random.shuffle(parts)
        return parts + random.choice(([], [b""], [b"", b"\0" * 100], parts * 20))
    frame = codec.join(*parts)
    if kind == 20:
        # The head: the version, and lengths that are not those of the parts.
        return [
            bytes((random.choice((PROTOCOL, PROTOCOL, PROTOCOL + 1, 0, 255)),))
            + random.randbytes(6)
            + frame[7:]
        ]
    return [mutated_bytes(random, frame) if kind == 21 else frame]


def packed(tree: Any) -> bytes:
    """In msgpack, also where the value is none that msgpack has."""
    try:
        return _encode(tree)
    except (OverflowError, UnicodeEncodeError, RecursionError):
        return b"\xc1"
