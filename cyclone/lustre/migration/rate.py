"""How fast tasks may be handed out."""

from __future__ import annotations

#: What was not used is kept for so long.
_BURST_S = 1.0


class Rate:
    """Lets so much through in a second, on the average. A debt is paid off before anything else goes through.

    per_s: 0 is without bound. Moments are monotonic seconds.
    """

    def __init__(self, per_s: float, now: float) -> None:
        self.per_s = per_s
        self._credit = self._burst
        self._at = now

    def change(self, per_s: float, now: float) -> None:
        """From now on so much; what was owed is still owed."""
        self._pay_in(now)
        self.per_s = per_s
        self._credit = min(self._credit, self._burst)

    def is_open(self, now: float) -> bool:
        """May anything go through now?"""
        if self.per_s == 0:
            return True
        self._pay_in(now)
        return self._credit > 0

    def spend(self, amount: float) -> None:
        """So much has gone through; less than nothing if less did than was thought."""
        if self.per_s:
            self._credit = min(self._credit - amount, self._burst)

    def opens_at(self, now: float) -> float:
        """The moment when something may go through again."""
        if self.is_open(now):
            return now
        return now - self._credit / self.per_s + 1e-3

    @property
    def _burst(self) -> float:
        return max(self.per_s * _BURST_S, 1e-9)

    def _pay_in(self, now: float) -> None:
        self._credit = min(self._credit + (now - self._at) * self.per_s, self._burst)
        self._at = now
