"""Brings entries from the lists into the mind, a few for each hungry source, after a look at each file.

The look is a hint and no more: the task looks again, on a node where the file can be moved. A file that cannot be looked at
is handed in all the same.
"""

from __future__ import annotations

import heapq
import logging
import math
import os
import random
from collections.abc import Hashable, Sequence
from typing import NamedTuple

from cyclone.lustre.migration.background import Background, Chore
from cyclone.lustre.migration.entry import Entry
from cyclone.lustre.migration.inputs import Inputs
from cyclone.lustre.migration.mind import Ended, Mind
from cyclone.lustre.migration.settings import MigrationSettings
from cyclone.lustre.migration.verdict import FileState, Report

log = logging.getLogger(__name__)

#: So many entries are brought at a time, unless the order asks for all that may be in memory.
_BATCH = 128
#: Looks that are taken at the same time. One that takes longer than `_STUCK_S` does not count.
_LOOKS_MOST = 16
_LOOKS_ENOUGH = 256
_STUCK_S = 30.0

#: The key of all files with more than one hard link while others are made to wait: one of them at a time (LU-16571).
LINKED = "linked"


class Look(NamedTuple):
    """What was seen of a file. key: see `Entry.key`."""

    size: int
    key: Hashable


def look_at(paths: Sequence[bytes], one_link_at_a_time: bool) -> list[Look | None]:
    """What is seen of each file; None if nothing is."""
    return [_look_at(path, one_link_at_a_time) for path in paths]


def _look_at(path: bytes, one_link_at_a_time: bool) -> Look | None:
    try:
        status = os.lstat(path)
    except (OSError, ValueError):
        return None
    is_linked = one_link_at_a_time and status.st_nlink > 1
    return Look(status.st_size, LINKED if is_linked else (status.st_dev, status.st_ino))


def note(entries: Sequence[Entry], looks: Sequence[Look | None], one_link_at_a_time: bool) -> None:
    """Write down at the entries what was seen."""
    for entry, look in zip(entries, looks, strict=True):
        if look is not None:
            entry.size, entry.key = look
        elif one_link_at_a_time:
            entry.key = LINKED  # as far as anybody knows


class _Errand(NamedTuple):
    entries: list[Entry]
    chore: Chore[list[Look | None]]
    since: float


class Supply:
    """Owns the looks that are being taken, and when entries are due that were put away.

    block: do tasks make others wait who use a file?
    """

    def __init__(
        self, inputs: Inputs, background: Background, settings: MigrationSettings, *, block: bool
    ) -> None:
        self.settings = settings
        self._inputs = inputs
        self._background = background
        self._block = block
        self._looks: dict[int, _Errand] = {}  # by source
        self._wakes: list[tuple[float, int]] = []  # when a source has an entry again that was put away
        self._newest_wakes: dict[int, float] = {}
        self._random = random.Random(settings.seed)

    @property
    def since(self) -> float | None:
        """When the newest look began that is being taken; None if none is."""
        return max((errand.since for errand in self._looks.values()), default=None)

    def stuck(self, now: float) -> dict[int, float]:
        """`{source: for how many seconds}` files have been looked at, where that takes too long."""
        return {
            source: now - errand.since for source, errand in self._looks.items()
            if now - errand.since > _STUCK_S
        }  # fmt: skip

    def advance(self, mind: Mind, now: float) -> list[Ended]:
        """Go on. Returns the entries that have their result already. Raises OSError when a list cannot be read."""
        ended: list[Ended] = []
        while self._wakes and self._wakes[0][0] <= now:
            mind.expect([heapq.heappop(self._wakes)[1]])
        for source in sorted(mind.hungry - self._looks.keys()):
            if not self._may_look(now):
                break
            mind.hungry.discard(source)
            self._fetch(mind, source, now, ended)
        for source in [source for source, errand in self._looks.items() if errand.chore.is_done()]:
            errand = self._looks.pop(source)
            note(errand.entries, errand.chore.result(), self._block)
            self._offer(mind, source, errand.entries, ended)
        return ended

    def put_away(self, entry: Entry, until: float) -> None:
        """Keep an entry on disk until this moment, and bring it again after that. Raises OSError."""
        self._inputs.put_away(entry, until)
        # Entries that are put away one after the other may be woken together.
        moment = math.ceil(until)
        if self._newest_wakes.get(entry.source) != moment:
            self._newest_wakes[entry.source] = moment
            heapq.heappush(self._wakes, (moment, entry.source))

    def next_moment(self, mind: Mind, now: float) -> float | None:
        """When `advance` has something to do, apart from looks that end."""
        hungry = mind.hungry - self._looks.keys()
        if hungry and self._may_look(now) and any(self._inputs.has_more(source, now) for source in hungry):
            return now  # nothing of what it was brought may have been for it
        return self._wakes[0][0] if self._wakes else None

    def _may_look(self, now: float) -> bool:
        stuck = len(self.stuck(now))
        return len(self._looks) - stuck < _LOOKS_MOST and stuck < _LOOKS_ENOUGH

    def _fetch(self, mind: Mind, source: int, now: float, ended: list[Ended]) -> None:
        most = mind.space(source)
        if self.settings.order == "fifo":
            most = min(most, _BATCH)
        if not most or not self._inputs.has_more(source, now):
            return
        taken = self._inputs.take(source, most, now)
        if not taken:
            return
        if not self.settings.look_at_files or self.settings.local_mode:
            self._offer(mind, source, taken, ended)
            return
        paths = [entry.path for entry in taken]
        chore = self._background.start(lambda: look_at(paths, self._block))
        self._looks[source] = _Errand(taken, chore, now)

    def _offer(self, mind: Mind, source: int, entries: list[Entry], ended: list[Ended]) -> None:
        settings = self.settings
        fitting = []
        for entry in entries:
            if entry.size is not None and settings.is_outsized(entry.size):
                report = Report(FileState.SKIPPED, "size", size=entry.size)
                ended.append(Ended(entry, None, report, is_final=True))
            else:
                fitting.append(entry)
        if settings.order == "random":
            self._random.shuffle(fitting)
        elif settings.order == "small_first":
            fitting.sort(key=_size)
        elif settings.order == "large_first":
            fitting.sort(key=_size, reverse=True)
        mind.offer(source, fitting)


def _size(entry: Entry) -> int:
    return entry.size or 0
