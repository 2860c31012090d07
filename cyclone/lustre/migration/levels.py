"""How full the OSTs are: asks for it at regular intervals, beside the loop, and tells the mind."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Mapping

from cyclone.errors import CycloneError
from cyclone.lustre.lfs import Lfs
from cyclone.lustre.migration.background import Background, Chore
from cyclone.lustre.migration.fill import Level
from cyclone.lustre.migration.mind import Mind

log = logging.getLogger(__name__)

#: A fill level counts for so many intervals.
INTERVALS_FRESH = 3

_CLOSED = {"R": "read-only", "N": "creates no objects", "S": "out of space", "I": "out of inodes"}

Measure = Callable[[], Mapping[int, Level]]


def measure_lustre(lfs: Lfs, path: str) -> Measure:
    """By `lfs df`. Not by its percents, which are rounded up."""

    def measure() -> dict[int, Level]:
        return {
            ost: Level(
                usage.fill, usage.used_kib + usage.available_kib, usage.available_kib, _closed(usage.flags)
            )
            for ost, usage in lfs.usage(path).items()
        }

    return measure


def _closed(flags: str) -> str:
    """Why Lustre makes no objects on an OST with these letters behind its row of `lfs df`."""
    return ", ".join(meaning for letter, meaning in _CLOSED.items() if letter in flags)


def simulate(osts: int, seed: int) -> Measure:
    """From 40 to 60 %, drawn anew each time, and the same ones for the same seed."""
    numbers = random.Random(seed)
    return lambda: {ost: Level(numbers.uniform(40, 60)) for ost in range(osts)}


class Gauge:
    """Owns the measurement that is going on. count: of those that went well. Moments are monotonic seconds."""

    def __init__(self, measure: Measure, background: Background, now: float) -> None:
        self.count = 0
        self._measure = measure
        self._background = background
        self._chore: Chore[Mapping[int, Level]] | None = None
        self._due = now
        self._is_failing = False
        self.since: float | None = None  # when the measurement began that is going on

    def advance(self, mind: Mind, interval_s: float, now: float) -> bool:
        """Go on; True if the mind was told something new."""
        if self._chore is None and now >= self._due:
            # On a fixed rate, but a measurement that takes longer than the interval is not followed by two.
            self._due = max(self._due + interval_s, now)
            mind.on_measuring()
            self._chore, self.since = self._background.start(self._measure), now
        if self._chore is None or not self._chore.is_done():
            return False
        chore, self._chore, self.since = self._chore, None, None
        try:
            levels = chore.result()
        except CycloneError as error:
            if not self._is_failing:
                log.warning("fill levels cannot be had: %s", error)
            self._is_failing = True
            return False
        if self._is_failing:
            log.info("fill levels can be had again")
        self._is_failing = False
        self.count += 1
        mind.on_levels(levels, now)
        return True

    def look_now(self, now: float) -> None:
        """Measure as soon as possible: the interval may be a shorter one now."""
        self._due = min(self._due, now)

    def due(self) -> float:
        """When the next measurement begins, unless one is going on, whose end comes first."""
        return math.inf if self._chore is not None else self._due
