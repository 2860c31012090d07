"""What is to be looked at when a moment has come. Alarms are not cancelled: who is woken looks again.

Those that nobody will look at any more are swept out when they may be as many as the others, so that there are
never many more than are wanted, and none of them costs more for it than to be looked at once or twice.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from itertools import count
from typing import Generic, TypeVar

Subject = TypeVar("Subject")

#: As long as there are no more than these it is not worth while to sweep.
SWEPT_FROM = 1000


class Alarms(Generic[Subject]):
    """Moments (seconds, monotonic) and what each is about; equal moments ring in the order they were set."""

    def __init__(self, is_moot: Callable[[Subject], bool]) -> None:
        """is_moot: whether nobody needs to look at it any more, whatever happens."""
        self._is_moot = is_moot
        self._heap: list[tuple[float, int, Subject]] = []
        self._order = count()
        self._sweep_from = SWEPT_FROM

    def __len__(self) -> int:
        return len(self._heap)

    def set(self, moment: float, subject: Subject) -> None:
        if len(self._heap) >= self._sweep_from:
            self._sweep()
        heapq.heappush(self._heap, (moment, next(self._order), subject))

    def due(self, now: float) -> Iterator[Subject]:
        """Take out what is due and not moot, including what is set for a moment gone by while this goes on."""
        while self._heap and self._heap[0][0] <= now:
            subject = heapq.heappop(self._heap)[2]
            if not self._is_moot(subject):
                yield subject

    @property
    def next_moment(self) -> float | None:
        return self._heap[0][0] if self._heap else None

    def _sweep(self) -> None:
        self._heap = [alarm for alarm in self._heap if not self._is_moot(alarm[2])]
        heapq.heapify(self._heap)
        self._sweep_from = max(SWEPT_FROM, 2 * len(self._heap))
