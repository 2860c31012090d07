"""What is to be looked at when a moment has come. Alarms are not cancelled: who is woken looks again."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import count
from typing import Generic, TypeVar

Subject = TypeVar("Subject")


class Alarms(Generic[Subject]):
    """Moments (seconds, monotonic) and what each is about; equal moments ring in the order they were set."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Subject]] = []
        self._order = count()

    def set(self, moment: float, subject: Subject) -> None:
        heapq.heappush(self._heap, (moment, next(self._order), subject))

    def due(self, now: float) -> Iterator[Subject]:
        """Take out what is due, including what is set for a moment gone by while this goes on."""
        while self._heap and self._heap[0][0] <= now:
            yield heapq.heappop(self._heap)[2]

    @property
    def next_moment(self) -> float | None:
        return self._heap[0][0] if self._heap else None
