"""Which OSTs may take part in a migration, in which role, and why the others may not.

What counts: the plan, the fill level as it was measured and as it is projected, and whether tasks had trouble there. How many
tasks are in flight does not.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Hashable, Iterator, Mapping
from typing import NamedTuple

from cyclone.lustre.migration.fill import Fills, Level
from cyclone.lustre.migration.ost import Role
from cyclone.lustre.migration.plan import Plan

#: An OST in trouble is left alone twice as long each time, but not longer than this.
LOCK_MOST_S = 3600.0
#: So many files of a source in trouble, or sources at a target, without a success in between, and it is to blame.
STRIKES_MOST = 3


class Obstacle(NamedTuple):
    """Why an OST must not take part. is_lasting: that will not change by itself. detail: in numbers."""

    reason: str
    is_lasting: bool
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


class _Trouble:
    """What tasks had to suffer from one OST since it was well."""

    __slots__ = ("locked_until", "newest", "strikes", "times")

    def __init__(self) -> None:
        self.locked_until: dict[Role, float] = {}
        self.newest = -math.inf  # when a task had trouble that went to it
        self.times = {Role.SOURCE: 0, Role.TARGET: 0}
        # As a source: files of it that had trouble; as a target: sources that had trouble with it.
        self.strikes: dict[Role, set[Hashable]] = {Role.SOURCE: set(), Role.TARGET: set()}


class Admission:
    """Owns fill levels and troubles. Moments are monotonic seconds.

    stale_s: fill levels measured longer ago are unknown.
    changes: grows with every trouble and everything that has passed by itself; measurements are not counted.
    """

    def __init__(self, plan: Plan, stale_s: float) -> None:
        self.changes = 0
        self.plan = plan
        self.fills = Fills(stale_s)
        self._is_fresh = False
        self._troubles: dict[int, _Trouble] = {}
        self._well: set[tuple[int, Role]] = set()
        self._unlocks: list[tuple[float, int]] = []

    def obstacle(self, ost: int, role: Role) -> Obstacle | None:
        """Why this OST must not take part in this role; None if it may."""
        plan = self.plan
        if ost in plan.excluded:
            return Obstacle("excluded", True)
        if role is Role.SOURCE and plan.sources and ost not in plan.sources:
            return Obstacle("not among the sources", True)
        if role is Role.TARGET and ost not in plan.targets:
            return Obstacle("not among the targets", True)
        if plan.limit(ost, role) == 0 or plan.limit_of_both(ost) == 0:
            return Obstacle("its limit is 0", True)
        trouble = self._troubles.get(ost)
        if trouble is not None and role in trouble.locked_until:
            return Obstacle("left alone after trouble", False)
        return self._level_obstacle(ost, role)

    # Fill levels.

    def on_levels(self, levels: Mapping[int, Level], now: float) -> None:
        """A measurement has ended so; an OST that is missing is unknown."""
        self.fills.measured(levels, now)
        self._is_fresh = True

    def _level_obstacle(self, ost: int, role: Role) -> Obstacle | None:
        percent = self.fills.percent(ost, role)
        if percent is None:
            # An OST that was there comes back, sooner or later; one that nobody has ever seen does not.
            return Obstacle("fill level unknown", self._is_fresh and not self.fills.was_ever_measured(ost))
        if not self._is_fresh:
            return Obstacle("fill level too old", False)
        # That is lasting which was measured; what is only projected waits for the next measurement.
        measured = self.fills.measured_percent(ost)
        assert measured is not None
        if role is Role.SOURCE:
            threshold = self.plan.source_threshold
            if percent > threshold:
                return None
            detail = f"filled to {percent:.2f} %, threshold {threshold:g} %"
            return Obstacle("not above the threshold", measured <= threshold, detail)
        threshold = self.plan.target_threshold
        if percent >= threshold:
            detail = f"filled to {percent:.2f} %, threshold {threshold:g} %"
            return Obstacle("not below the threshold", measured >= threshold, detail)
        if closed := self.fills.closed(ost):
            return Obstacle("takes nothing", not self.fills.was_ever_open(ost), closed)
        free = self.fills.free_bytes(ost)
        if free is not None and free <= self.plan.target_reserve_bytes:
            return Obstacle("no room above the reserve", True)
        return None

    # Trouble.

    def leave_alone(self, target: int, now: float) -> None:
        """Lock this target for a while; twice as long as the last time if nothing has succeeded since."""
        self._trouble(target).newest = now
        self._lock(target, Role.TARGET, now)

    def _lock(self, ost: int, role: Role, now: float) -> None:
        trouble = self._trouble(ost)
        if role in trouble.locked_until:
            return  # by another task that was in flight at the same time
        self.changes += 1
        self._well.discard((ost, role))
        trouble.times[role] += 1
        least = max(1.0, self.plan.retry_delay_s)
        pause_s = min(least * 2.0 ** min(trouble.times[role] - 1, 20), max(LOCK_MOST_S, least))
        trouble.locked_until[role] = now + pause_s
        heapq.heappush(self._unlocks, (now + pause_s, ost))

    def suspect(self, ost: int, role: Role, by: Hashable, now: float) -> None:
        """A trouble may be that of this OST, if others had the same. by: who had it, see `_Trouble.strikes`."""
        trouble = self._trouble(ost)
        if role is Role.TARGET:
            trouble.newest = now
        strikes = trouble.strikes[role]
        strikes.add(by)
        if len(strikes) >= STRIKES_MOST:
            strikes.clear()
            self._lock(ost, role, now)

    def is_well(self, ost: int, role: Role) -> bool:
        """Has a task with it succeeded since it was left alone, if it ever was?"""
        return (ost, role) in self._well

    def blame(self, target: int, source: int, now: float) -> None:
        """With another target this source was well, so its trouble was that of this one, unless that was well since."""
        strikes = self._trouble(target).strikes[Role.TARGET]
        if source in strikes:
            strikes.clear()
            self._lock(target, Role.TARGET, now)

    def forgive(self, source: int, target: int, since: float) -> None:
        """A task between these two has succeeded that was started then."""
        for ost, role in ((source, Role.SOURCE), (target, Role.TARGET)):
            self._well.add((ost, role))
            trouble = self._trouble(ost)
            trouble.times[role] = 0
            trouble.strikes[role].clear()
        trouble = self._trouble(target)
        # What others made of a trouble of before says less than that it was well after it.
        if since > trouble.newest and trouble.locked_until.pop(Role.TARGET, None) is not None:
            self.changes += 1

    def left_alone(self) -> Iterator[tuple[int, Role, float]]:
        """`(OST, role, until when)`"""
        for ost, trouble in self._troubles.items():
            for role, until in trouble.locked_until.items():
                yield ost, role, until

    # Time.

    def wake(self, now: float) -> tuple[list[int], bool]:
        """OSTs of which an obstacle may have gone, and whether all levels have become unknown."""
        woken = []
        while self._unlocks and self._unlocks[0][0] <= now:
            _, ost = heapq.heappop(self._unlocks)
            locks = self._trouble(ost).locked_until
            for role in [role for role, until in locks.items() if until <= now]:
                del locks[role]
            woken.append(ost)
        has_aged = self._is_fresh and not self.fills.is_fresh(now)
        self._is_fresh = self._is_fresh and not has_aged
        self.changes += len(woken) + has_aged
        return woken, has_aged

    def moments(self) -> Iterator[float]:
        """When something will change by itself."""
        if self._unlocks:
            yield self._unlocks[0][0]
        stale_at = self.fills.stale_at()
        if self._is_fresh and stale_at is not None:
            yield stale_at

    def _trouble(self, ost: int) -> _Trouble:
        trouble = self._troubles.get(ost)
        if trouble is None:
            trouble = self._troubles[ost] = _Trouble()
        return trouble
