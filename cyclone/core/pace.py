"""How long tasks of a kind take, and how many of them make up a given stretch of work.

A sum of n durations with mean m and deviation s is about n·m ± √n·s. A bundle is as large as it can be
while n·m + 2·√n·s stays within the stretch, so that kinds with a long tail travel singly although their
mean is small, and the noise of single measurements does not break up bundles of very short tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

#: Durations older than about so many of the same kind no longer count.
MEMORY = 500

#: Kinds of which something is known; of more, those that were heard of last.
KINDS_MOST = 10_000


class Pace:
    """Mean and mean square of the durations of each kind, the newest weighing the most."""

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[int, float, float]] = {}  # kind -> weight, mean, mean square

    def learn(self, kind: str, durations_s: Sequence[float]) -> None:
        new = len(durations_s)
        if not new:
            return
        total = sum(durations_s)
        squares = sum([duration * duration for duration in durations_s])
        weight, mean, square = self._kinds.pop(kind, (0, 0.0, 0.0))
        weight = min(weight + new, max(MEMORY, new))
        share = new / weight
        mean += (total / new - mean) * share
        square += (squares / new - square) * share
        self._kinds[kind] = weight, mean, square
        if len(self._kinds) > KINDS_MOST:
            del self._kinds[next(iter(self._kinds))]

    def mean_s(self, kind: str) -> float | None:
        """None as long as nothing is known."""
        known = self._kinds.get(kind)
        return None if known is None else known[1]

    def bundle_size(self, kind: str, stretch_s: float, most: int) -> int:
        """How many tasks of this kind fit into the stretch: 1 … most, and 1 if nothing is known."""
        known = self._kinds.get(kind)
        if known is None:
            return 1
        _, mean, square = known
        mean = max(mean, 1e-7)
        deviation = sqrt(max(0.0, square - mean * mean))
        root = (sqrt(deviation * deviation + mean * stretch_s) - deviation) / mean
        return max(1, min(most, int(root * root)))
