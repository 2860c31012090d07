"""Keeps messages with enclosures small enough for the wire: a bundle of large tasks travels in several."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec

from cyclone.messages import Ended, Message, Place, Results

#: Below the bound of the wire even with the largest enclosed piece behind it.
SPLIT_BYTES = 8 << 20


def split(message: Message, enclosure: list[bytes]) -> list[tuple[Message, list[bytes]]]:
    """The message as it is, or as several that say the same in the same order, each with its part."""
    if not enclosure or sum(map(len, enclosure)) <= SPLIT_BYTES:
        return [(message, enclosure)]
    field = _PARALLEL[type(message)]
    entries = getattr(message, field)
    cuts = [0]
    size = 0
    for place, piece in enumerate(enclosure):
        if size and size + len(piece) > SPLIT_BYTES:
            cuts.append(place)
            size = 0
        size += len(piece)
    changes: dict[str, Any] = {"parts": len(cuts)} if isinstance(message, Results) else {}
    return [
        (msgspec.structs.replace(message, **{field: entries[start:stop], **changes}), enclosure[start:stop])
        for start, stop in pairwise([*cuts, len(enclosure)])
    ]


_PARALLEL: dict[type[Message], str] = {Place: "assignments", Ended: "ends", Results: "ends"}
