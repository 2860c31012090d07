"""How full OSTs are: as measured, and as they will be by what has been moved since and is being moved.

Between two measurements the fill level of a target does not stand still. So the bytes of tasks in flight, and of
those that ended after a measurement had begun, are added to targets and taken from sources. What ended while a
measurement was going on may or may not be in it; it counts as not in it, which is the careful side for a target. On the
same side, what is only on its way out of an OST has not left it where it is asked for as a target.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from cyclone.lustre.migration.ost import Role

_KIB = 1024


class Level(NamedTuple):
    """One measurement of one OST.

    percent: of what can be used, as `lfs df` reckons it, but not rounded.
    capacity_kib: used and available together; None where nobody knows, as in a simulation.
    available_kib: what is free for files. closed: why nothing can come to it, "" if it can.
    """

    percent: float
    capacity_kib: int | None = None
    available_kib: int = 0
    closed: str = ""


class _Moved:
    """Bytes that came to an OST (or left it, below 0) without having been measured."""

    __slots__ = ("coming", "lately", "leaving", "settled")

    def __init__(self) -> None:
        self.settled = 0  # since the last measurement began
        self.lately = 0  # of these, since the one began that is going on
        self.coming = self.leaving = 0  # by tasks in flight


class Fills:
    """Owns what is known of fill levels. Moments are monotonic seconds.

    stale_s: a measurement older than this is no knowledge any more.
    """

    def __init__(self, stale_s: float) -> None:
        self.stale_s = stale_s
        self.measured_at: float | None = None
        self._levels: Mapping[int, Level] = {}
        self._moved: dict[int, _Moved] = {}
        self._met: set[int] = set()  # OSTs that were measured at any time
        self._met_open: set[int] = set()  # and to which something could come then

    def begin(self) -> None:
        """A measurement begins now."""
        for moved in self._moved.values():
            moved.lately = 0

    def measured(self, levels: Mapping[int, Level], now: float) -> None:
        """It has ended with these levels; an OST that is not among them is unknown from now on."""
        self._levels = dict(levels)
        self.measured_at = now
        self._met.update(levels)
        self._met_open.update(ost for ost, level in levels.items() if not level.closed)
        for ost, moved in list(self._moved.items()):
            moved.settled, moved.lately = moved.lately, 0
            if not (moved.settled or moved.coming or moved.leaving):
                del self._moved[ost]

    def is_fresh(self, now: float) -> bool:
        """Is there a measurement that is young enough to go by?"""
        return self.measured_at is not None and now - self.measured_at <= self.stale_s

    def stale_at(self) -> float | None:
        """When the last measurement stops to count; None if there is none."""
        return None if self.measured_at is None else self.measured_at + self.stale_s

    def start(self, source: int, target: int, size: int) -> None:
        """So many bytes set out from source to target."""
        self._of(source).leaving += size
        self._of(target).coming += size

    def finish(self, source: int, target: int, size: int) -> None:
        """They are not on their way any more, wherever they are."""
        self._of(source).leaving -= size
        self._of(target).coming -= size

    def arrived(self, ost: int, size: int) -> None:
        """So many bytes are on this OST now that were not before; below 0: that many have left it."""
        moved = self._of(ost)
        moved.settled += size
        moved.lately += size

    def measured_percent(self, ost: int) -> float | None:
        """As measured, however long ago; None if it was not."""
        level = self._levels.get(ost)
        return None if level is None else level.percent

    def percent(self, ost: int, role: Role = Role.SOURCE) -> float | None:
        """As projected for an OST in this role; None if it was not measured."""
        level = self._levels.get(ost)
        if level is None or not level.capacity_kib:
            return None if level is None else level.percent
        return level.percent + self._moved_bytes(ost, role) / _KIB / level.capacity_kib * 100

    def free_bytes(self, ost: int) -> float | None:
        """What will be free on a target, as projected; None if nobody knows."""
        level = self._levels.get(ost)
        if level is None or level.capacity_kib is None:
            return None
        return level.available_kib * _KIB - self._moved_bytes(ost, Role.TARGET)

    def closed(self, ost: int) -> str:
        """Why nothing can come to this OST, as measured; "" if it can, or nobody knows."""
        level = self._levels.get(ost)
        return "" if level is None else level.closed

    def was_ever_measured(self, ost: int) -> bool:
        return ost in self._met

    def was_ever_open(self, ost: int) -> bool:
        """As `closed`, in any measurement."""
        return ost in self._met_open

    def osts(self) -> Mapping[int, Level]:
        """The last measurement."""
        return self._levels

    def _moved_bytes(self, ost: int, role: Role) -> int:
        moved = self._moved.get(ost)
        if moved is None:
            return 0
        return moved.settled + moved.coming - (moved.leaving if role is Role.SOURCE else 0)

    def _of(self, ost: int) -> _Moved:
        moved = self._moved.get(ost)
        if moved is None:
            moved = self._moved[ost] = _Moved()
        return moved
