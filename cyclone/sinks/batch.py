"""When to move what waits into the database: pure, knows no clock and no database.

A batch is due when enough entries wait, when the oldest of them has waited long enough, or when somebody asks. After
a failure that may pass by itself it is tried again after 1, 2, 4, … 60 seconds; after one that somebody has to mend,
once a minute. Nothing is ever given up here.

A batch that fails after a while may have been too much for the time that the database is given, and what it does of it
may go on there, in the way of the next one. So the next one is half as large.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

COUNT_MAX = 100_000
AGE_MIN_S = 0.01
AGE_MAX_S = 86_400

RETRY_MIN_S = 1.0
RETRY_MAX_S = 60.0

#: What fails sooner was not too much: no time-out of a database is shorter.
SLOW_S = 1.0

#: Between two looks at something that somebody has to mend.
MENDING_S = 60.0


class Health(StrEnum):
    """How it goes: well; not just now, but it may pass by itself; somebody has to mend something."""

    OK = "ok"
    RETRYING = "retrying"
    FAILED = "failed"


@dataclass(frozen=True)
class BatchRule:
    """count: so many entries are a batch, 1 to COUNT_MAX; age_s: none waits longer, AGE_MIN_S to AGE_MAX_S."""

    count: int = 1000
    age_s: float = 10.0

    def __post_init__(self) -> None:
        assert 1 <= self.count <= COUNT_MAX, self.count
        assert AGE_MIN_S <= self.age_s <= AGE_MAX_S, self.age_s


class Portion:
    """Owns how many rows go into one transaction.

    Half of what was too much; an eighth more after each that has succeeded, so that a database which is slow by the row
    is asked for too much in one of six batches or so, and one that was away has full ones again after some fifty.
    """

    def __init__(self, most: int) -> None:
        self._most = self.rows = most

    def succeeded(self, rows: int) -> None:
        if rows >= self.rows:
            self.rows = min(self._most, self.rows + max(1, self.rows // 8))

    def failed(self, rows: int, took_s: float) -> None:
        """In a way that may pass by itself, after so many seconds."""
        if took_s >= SLOW_S:
            self.rows = max(1, min(self.rows, rows // 2))


class Batching:
    """The mind of a writer. Times are monotonic, in seconds.

    Call `saw` whenever entries may have come; when `due` has come, move them, then tell how it went:
    `moved`, `held` or `failed`. Entries that are held are not counted among those that wait.

    look_at: the moment at which what is held is to be tried again; infinity if nothing is.
    """

    def __init__(self, rule: BatchRule) -> None:
        self._rule = rule
        self._count = 0
        self._since = math.inf  # the oldest has waited since then, or not as long
        self._is_asked = False
        self._pause_ends = -math.inf
        self._failures = 0
        self.look_at = math.inf
        self.health = Health.OK
        self.reason = ""

    def saw(self, count: int, now: float) -> None:
        """So many entries wait now."""
        self._count = count
        self._since = min(self._since, now) if count else math.inf

    def ask(self) -> None:
        """Move everything now, whatever there is, also what is held, and also before the end of a pause."""
        self._is_asked = True
        if self.look_at < math.inf:
            self.look_at = -math.inf

    def due(self) -> float:
        """The moment of the next try; infinity if nothing is to be done until something comes."""
        if self._is_asked:
            return -math.inf
        full = self._count >= self._rule.count
        ripe = -math.inf if full else self._since + self._rule.age_s
        return max(self._pause_ends, min(ripe, self.look_at))

    def moved(self, count: int, began: float) -> None:
        """A try that began then went well; so many wait now, which came after it had begun."""
        self._over(count, began)
        self.look_at = math.inf
        self.health, self.reason = Health.OK, ""

    def held(self, count: int, began: float, now: float, reason: str) -> None:
        """It went well, but entries are held until somebody has mended something."""
        self._over(count, began)
        # What comes in meanwhile is moved, and does not put off the next look.
        if self.look_at <= began or self.look_at == math.inf:
            self.look_at = now + MENDING_S
        self.health, self.reason = Health.FAILED, reason

    def failed(
        self, now: float, reason: str, jitter: float, *, to_mend: bool, longest_s: float = RETRY_MAX_S
    ) -> None:
        """Nothing more can be moved just now, and what waits goes on waiting.

        jitter: at random from 0 to 1, so that not all come back at once. to_mend: somebody has to do something.
        longest_s: bound of the pauses before what may pass by itself.
        """
        self._is_asked = False
        self._failures += 1
        doubled_s = RETRY_MIN_S * 2.0 ** min(self._failures - 1, 10)
        pause_s = MENDING_S if to_mend else min(longest_s, doubled_s)
        self._pause_ends = now + max(RETRY_MIN_S, pause_s * (1 + jitter) / 2)
        self.health = Health.FAILED if to_mend else Health.RETRYING
        self.reason = reason

    def _over(self, count: int, began: float) -> None:
        self._is_asked = False
        self._failures = 0
        self._pause_ends = -math.inf
        self._count = count
        self._since = began if count else math.inf
