"""When a daemon does what nobody waits for."""

from __future__ import annotations

#: Of the time of a daemon that has something else to do in every turn of its loop: one part in so many.
SHARE = 50


class SpareTime:
    """Slices of such work: half of the time while nobody wants anything, a small share of it while somebody always does.

    The length of a slice is up to who makes it; whatever comes in meanwhile waits for so long. Monotonic seconds.
    next_moment: when to look next, if nothing else happens.
    """

    def __init__(self, now: float, look_s: float) -> None:
        """look_s: how long to wait before looking again, when there was nothing left to do."""
        self._look_s = look_s
        self.next_moment = self._at_the_latest = now + look_s

    def has_come(self, now: float, *, busy: bool) -> bool:
        """Is it time for a slice? busy: something came in since the last turn."""
        return now >= (self._at_the_latest if busy else self.next_moment)

    def spent(self, began: float, now: float, *, more: bool) -> None:
        """A slice was made. more: there is more to do."""
        took_s = now - began
        if more:
            self.next_moment, self._at_the_latest = now + took_s, now + SHARE * took_s
        else:
            self.next_moment = self._at_the_latest = now + self._look_s
