"""Which controllers get nothing for a while, because workers die there whatever they execute.

A host with a broken disk, library or memory is done with everything at once, and so would have room soonest, get the
most, and spoil it. That one task kills its workers says nothing of a host. That several different ones did, one after
the other with no success between, does, unless most others are in the same plight: then it is the tasks.

What such a controller holds goes on there, and the first success brings it back. Otherwise it is tried again after a
while, which doubles each time. A controller that is started again has a clean record.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from math import inf

from cyclone.core.live import Controller
from cyclone.model.task import TaskNumber

#: So many different tasks within so many seconds.
CRASHES = 5
WITHIN_S = 60.0
#: For how long, the first time and at most.
FIRST_S = 60.0
LONGEST_S = 3600.0
#: How often to look who else is well, while anybody is not.
REVIEW_S = 1.0


class Exclusion:
    """Owns the record of every controller where workers have died since the last success."""

    def __init__(self) -> None:
        self._records: dict[Controller, _Record] = {}
        self._review_at = inf

    def crashed(self, controller: Controller, task: TaskNumber, now: float) -> None:
        """This task has killed its worker there, or its worker died of something else."""
        record = self._records.setdefault(controller, _Record())
        if record.crashed(task, now):
            self._review_at = now

    def succeeded(self, controller: Controller) -> None:
        """A task has succeeded there."""
        record = self._records.pop(controller, None)
        if record is not None and controller.excluded_until is not None:
            self._review_at = -inf

    def gone(self, controller: Controller) -> None:
        """This life of it is over."""
        self._records.pop(controller, None)

    def review(self, controllers: Collection[Controller], now: float) -> list[Controller]:
        """Exclude whom it befits, and nobody else. Returns those for whom that is news."""
        if now < self._review_at:
            return []
        ill = {
            controller: record.ill_until
            for controller, record in self._records.items()
            if now < record.ill_until and controller.is_present
        }
        self._review_at = min([now + REVIEW_S, *ill.values()]) if ill else inf
        if 2 * len(ill) > sum(controller.is_present for controller in controllers):
            ill = {}
        news = []
        for controller in controllers:
            until = ill.get(controller)
            if (until is None) is not (controller.excluded_until is None):
                news.append(controller)
            controller.excluded_until = until
        return news

    @property
    def next_moment(self) -> float:
        """When to `review`, monotonic seconds."""
        return self._review_at


@dataclass(slots=True)
class _Record:
    """crashes: the tasks whose workers died, and when they last did. times: how often that was too much."""

    crashes: dict[TaskNumber, float] = field(default_factory=dict)
    times: int = 0
    ill_until: float = -inf

    def crashed(self, task: TaskNumber, now: float) -> bool:
        """Returns whether that makes it ill."""
        if now < self.ill_until:
            return False
        self.crashes = {other: moment for other, moment in self.crashes.items() if now - moment < WITHIN_S}
        self.crashes[task] = now
        if len(self.crashes) < CRASHES:
            return False
        self.crashes.clear()
        self.ill_until = now + min(LONGEST_S, FIRST_S * 2.0 ** min(self.times, 10))
        self.times += 1
        return True
