"""What messages enclose: kept past the mind for a turn, and small enough for the wire."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from operator import add, attrgetter
from typing import Any

import msgspec

from cyclone.core.decision import Decision
from cyclone.messages import Ended, Message, Place, Results, Submit, TaskEnd
from cyclone.model.changes import TaskAccepted, TaskEnded
from cyclone.model.task import JobNumber, Token

#: Below the bound of the wire even with the largest enclosed piece behind it.
SPLIT_BYTES = 8 << 20


class Enclosures:
    """Owns, for one turn of a master's loop, what came enclosed and is to be remembered.

    payloads: by job and tid, of tasks that were accepted; values: by token, of tasks that have ended.
    """

    def __init__(self) -> None:
        self.payloads: dict[tuple[JobNumber, str], bytes] = {}
        self.values: dict[Token, bytes] = {}

    def keep(self, message: Message, enclosed: Sequence[bytes], decision: Decision) -> None:
        """Keep what belongs to what was decided about this message, and nothing else of it.

        Whoever hands in a tid that is live, or tells of an attempt that is not his, must not put anything in the place
        of what came with the message that counted, which may have been heard in the same turn.
        """
        if not enclosed:
            return
        if isinstance(message, Submit):
            accepted = {change.tid for change in decision.changes if isinstance(change, TaskAccepted)}
            for task, payload in zip(message.tasks, enclosed, strict=True):
                if task.tid in accepted:
                    # Of one that stands there twice, the first counts.
                    self.payloads.setdefault((message.job, task.tid), payload)
        elif isinstance(message, Ended):
            ended = {
                change.end.end.token
                for change in decision.changes
                if isinstance(change, TaskEnded) and change.end.end is not None
            }
            for end, value in zip(message.ends, enclosed, strict=True):
                if end.token in ended:
                    self.values.setdefault(end.token, value)

    def clear(self) -> None:
        """The turn is over."""
        self.payloads.clear()
        self.values.clear()


def split(message: Message, enclosure: list[bytes]) -> list[tuple[Message, list[bytes]]]:
    """The message as it is, or as several that say the same in the same order, each with its part.

    Thousands of errors may be larger than anything that is enclosed, so they count as well.
    """
    if not enclosure:
        return [(message, enclosure)]
    field, text = _PARALLEL[type(message)]
    entries = getattr(message, field)
    sizes = [*map(add, map(len, enclosure), map(len, map(text, entries)))]
    if sum(sizes) <= SPLIT_BYTES:
        return [(message, enclosure)]
    cuts = [0]
    size = 0
    for place, more in enumerate(sizes):
        if size and size + more > SPLIT_BYTES:
            cuts.append(place)
            size = 0
        size += more
    changes: dict[str, Any] = {"parts": len(cuts)} if isinstance(message, Results) else {}
    return [
        (msgspec.structs.replace(message, **{field: entries[start:stop], **changes}), enclosure[start:stop])
        for start, stop in pairwise([*cuts, len(enclosure)])
    ]


def _error(told: TaskEnd) -> str:
    return told.reason if told.end is None else told.end.error


#: The list that the enclosure runs parallel to, and the longest text of an entry.
_PARALLEL: dict[type[Message], tuple[str, Callable[[Any], str]]] = {
    Place: ("assignments", attrgetter("tid")),
    Ended: ("ends", attrgetter("error")),
    Results: ("ends", _error),
}
