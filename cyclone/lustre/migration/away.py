"""Entries of one list that have been tried and for which there is no room in memory until they are tried again.

They wait on disk, those of each source in the order in which they came. That is the order of their moments: where one that
came later is due earlier, since the time between two tries is shorter by now, those before it are due with it.
"""

from __future__ import annotations

import math
import tempfile
from collections import deque
from pathlib import Path
from typing import NamedTuple

from cyclone.lustre.migration.entry import Entry
from cyclone.lustre.migration.queues import OstQueues


class Tried(NamedTuple):
    """What is kept of an entry."""

    number: int
    offset: int
    tries: int
    billed: int


class Away:
    """Owns a file without a name in `directory`: what is in it is forgotten with this process, as it may be.

    count: of the entries in it. Moments are monotonic seconds. Raises OSError wherever the file cannot be used.
    """

    def __init__(self, directory: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115  closed by `close`
        self._queues = OstQueues(self._file, len(Tried._fields))
        # By source: `[moment, how many]`; to the second, for that is as many as need be in memory.
        self._due: dict[int, deque[list[int]]] = {}
        self.count = 0

    def put(self, entry: Entry, until: float) -> None:
        """Keep an entry until this moment."""
        self._queues.put(entry.source, entry.id.number, entry.offset, entry.tries, entry.billed)
        batches = self._due.setdefault(entry.source, deque())
        moment = math.ceil(until)
        count = 1
        while batches and batches[-1][0] >= moment:
            count += batches.pop()[1]
        batches.append([moment, count])
        self.count += 1

    def take(self, source: int, most: int, now: float) -> list[Tried]:
        """The oldest of a source whose moment has come."""
        count = 0
        batches = self._due.get(source, deque())
        while count < most and batches and batches[0][0] <= now:
            some = min(most - count, batches[0][1])
            count += some
            batches[0][1] -= some
            if not batches[0][1]:
                batches.popleft()
        self.count -= count
        return [Tried(*numbers) for numbers in self._queues.take(source, count, self._file.fileno())]

    def has_due(self, source: int, now: float) -> bool:
        """Would `take` give any?"""
        batches = self._due.get(source, deque())
        return bool(batches) and batches[0][0] <= now

    def close(self) -> None:
        """Forget all of them."""
        self._file.close()
