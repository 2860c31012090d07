"""How often something may break within a stretch of time before it is given up aloud."""

from __future__ import annotations

from collections import deque


class Intensity:
    """The newest moments (seconds, monotonic) at which it broke; as many as are borne, and one more."""

    def __init__(self, most: int, within_s: float = 60.0) -> None:
        self.most = most
        self.within_s = within_s
        self._moments: deque[float] = deque(maxlen=most + 1)

    def one_more(self, now: float) -> bool:
        """It broke again. True when that was more than `most` times within `within_s`: give up."""
        self._moments.append(now)
        return len(self._moments) > self.most and now - self._moments[0] < self.within_s
