"""Who was let in and talks nonsense: for a while nothing of theirs is read."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from cyclone.clock import monotonic

#: So much nonsense within so many seconds is no accident, and as long is nothing heard then.
STRIKES_MOST = 100
WITHIN_S = 60.0
OUT_S = 60.0

_KNOWN_MAX = 1000


class Offender(NamedTuple):
    """Whose key it is, and from which host it is used: others with the same key have done nothing."""

    user_id: str
    address: str


class _Count(NamedTuple):
    since: float
    strikes: int


class Strikes:
    """Owns who has had how many, for the latest thousand of them, and who is out until when. Moments are monotonic."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._counts: OrderedDict[Offender, _Count] = OrderedDict()
        self._out_until: dict[Offender, float] = {}

    def add(self, offender: Offender) -> bool:
        """Whether this was the one that was too much: from now on `is_out` says so for a while."""
        now = self._clock()
        since, strikes = self._counts.pop(offender, _Count(now, 0))
        if now - since >= WITHIN_S:
            since, strikes = now, 0
        if strikes + 1 >= STRIKES_MOST:
            out = {each: until for each, until in self._out_until.items() if now < until}
            if len(out) == _KNOWN_MAX:
                del out[next(iter(out))]  # who would be back soonest
            self._out_until = {**out, offender: now + OUT_S}
            return True
        self._counts[offender] = _Count(since, strikes + 1)
        if len(self._counts) > _KNOWN_MAX:
            self._counts.popitem(last=False)
        return False

    @property
    def anybody_out(self) -> bool:
        """Asked before it is found out, for every message, who said it."""
        return bool(self._out_until)

    def is_out(self, offender: Offender) -> bool:
        until = self._out_until.get(offender)
        if until is None:
            return False
        if self._clock() >= until:
            del self._out_until[offender]
            return False
        return True
