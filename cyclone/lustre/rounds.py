"""One round after the other over all OSTs: who is due, who waits for whom, who hangs.

A round has a number, and a task for each OST (or several, one for each *part*). Its rules:

* An OST whose task has not ended is not given a second one. It is told to be hung when it was handed in longer than
  `hung_after_s` ago, and once in each round after that.
* An OST whose state is known beforehand gets no task.
* Neighbours in the order are on different servers, and no server has more than `server_most` tasks at a time.
* What a round did not come to when the next one begins is skipped, and counted.

Each expected OST ends up in exactly one count of the round. All moments are of one monotonic clock, in seconds.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from enum import StrEnum
from itertools import chain, zip_longest
from math import floor
from typing import NamedTuple

from cyclone.lustre.inventory import Target


class Outcome(StrEnum):
    """What a round has made of an OST; of several parts, the later one in this list counts."""

    OK = "ok"
    SKIPPED = "skipped"
    FAILED = "failed"
    DOWN = "down"
    HUNG = "hung"


_GRAVITY = {outcome: gravity for gravity, outcome in enumerate(Outcome)}


class Due(NamedTuple):
    """A task that is to be handed in, and then counts as open."""

    tid: str
    ost: int
    part: str


class Hung(NamedTuple):
    """An OST whose task does not end. age_s: since it was handed in."""

    ost: int
    tid: str
    age_s: float


class Begun(NamedTuple):
    """What a new round knows at once. late: OSTs whose task of an earlier round has not ended, hung or not."""

    down: list[Target]
    hung: list[Hung]
    late: list[int]


class Summary(NamedTuple):
    """The counts of a round. expected is the sum of the others."""

    number: int
    expected: int
    ok: int
    failed: int
    down: int
    hung: int
    skipped: int
    duration_s: float


class FixedRate:
    """Moments that follow one another at the same distance, however late one comes to each."""

    def __init__(self, first: float, interval_s: float) -> None:
        self.due, self._interval_s = first, interval_s

    def begin(self, now: float) -> int:
        """The moment has come: go on to the next one after now. Returns how many were missed in between."""
        missed = floor((now - self.due) / self._interval_s)
        self.due += (missed + 1) * self._interval_s
        return missed


@dataclass
class _Open:
    """A task that was handed in and has not ended. hung: it was told to be."""

    ost: int
    part: str
    server: str
    number: int
    since: float
    hung: bool = False


@dataclass
class _Course:
    """How far a round is with one OST. left: parts without an outcome. decided: once there is none left."""

    left: int
    worst: Outcome = Outcome.OK
    decided: Outcome | None = None


@dataclass
class _Round:
    """The newest round. waiting: what is not handed in yet, in order."""

    number: int = 0
    begun: float = 0.0
    ended: float | None = None
    courses: dict[int, _Course] = field(default_factory=dict)
    waiting: deque[tuple[Due, str]] = field(default_factory=deque)


class Rounds:
    """Owns the newest round, and every task that has not ended, of whichever round it is."""

    def __init__(
        self, *, hung_after_s: float, parts: Sequence[str] = ("",), server_most: int = 0, tasks_most: int = 0
    ) -> None:
        """server_most, tasks_most: tasks at a time, on one server and at all; 0 is without bound."""
        self._hung_after_s, self._parts = hung_after_s, tuple(parts)
        self._server_most, self._tasks_most = server_most, tasks_most
        self._open: dict[str, _Open] = {}
        self._on_server: Counter[str] = Counter()
        self._round = _Round()

    # The round.

    def begin(self, number: int, targets: Iterable[Target], now: float) -> Begun:
        """Begin the next round. number: larger than every earlier one."""
        self._round = _Round(number, now)
        late: dict[int, list[_Open]] = {}
        for each in self._open.values():
            late.setdefault(each.ost, []).append(each)
        begun = Begun([], [], [])
        to_look_at = []
        for target in targets:
            course = self._round.courses[target.ost] = _Course(len(self._parts))
            if target.ost in late:
                begun.late.append(target.ost)
                is_hung = any(each.hung for each in late[target.ost])
                course.decided = Outcome.HUNG if is_hung else Outcome.SKIPPED
            elif target.state is not None:
                course.decided = Outcome.DOWN
                begun.down.append(target)
            else:
                to_look_at.append(target)
        self._round.waiting.extend(self._in_order(to_look_at))
        begun.hung.extend(self._hung_again(now))
        self._look_for_end(now)
        return begun

    def due(self, now: float) -> list[Due]:
        """The tasks that may be handed in now. They count as open from here on."""
        found = []
        still: deque[tuple[Due, str]] = deque()
        waiting = self._round.waiting
        while waiting:
            due, server = waiting.popleft()
            if self._tasks_most and len(self._open) >= self._tasks_most:
                still.append((due, server))
                break
            if server and self._server_most and self._on_server[server] >= self._server_most:
                still.append((due, server))
                continue
            self._open[due.tid] = _Open(due.ost, due.part, server, self._round.number, now)
            self._on_server[server] += 1
            found.append(due)
        still.extend(waiting)
        self._round.waiting = still
        return found

    def ended(self, tid: str, outcome: Outcome, now: float) -> int | None:
        """A task has ended. Returns its OST; None if it is not one that was open."""
        task = self._open.pop(tid, None)
        if task is None:
            return None
        self._on_server[task.server] -= 1
        course = self._round.courses.get(task.ost)
        if course is not None and task.number == self._round.number:
            course.worst = max(course.worst, outcome, key=_GRAVITY.__getitem__)
            course.left -= 1
            if course.left == 0:
                course.decided = course.worst
            self._look_for_end(now)
        return task.ost

    def look_for_hung(self, now: float) -> list[Hung]:
        """The tasks that have become hung since the last look."""
        found = []
        for tid, task in self._open.items():
            if not task.hung and now - task.since >= self._hung_after_s:
                task.hung = True
                course = self._round.courses.get(task.ost)
                if course is not None:
                    course.decided = Outcome.HUNG
                found.append(Hung(task.ost, tid, now - task.since))
        if found:
            self._look_for_end(now)
        return found

    def next_moment(self) -> float | None:
        """When to look for hung tasks again; None while there can be none."""
        moments = [task.since + self._hung_after_s for task in self._open.values() if not task.hung]
        return min(moments, default=None)

    @property
    def number(self) -> int:
        return self._round.number

    @property
    def is_over(self) -> bool:
        """Is there nothing more to come of the newest round? It may still change its mind about what is hung."""
        return all(course.decided is not None for course in self._round.courses.values())

    def summary(self, now: float) -> Summary:
        """The newest round; what has no outcome yet counts as skipped."""
        this = self._round
        counts = Counter(course.decided or Outcome.SKIPPED for course in this.courses.values())
        ended = now if this.ended is None else this.ended
        return Summary(
            number=this.number,
            expected=len(this.courses),
            ok=counts[Outcome.OK],
            failed=counts[Outcome.FAILED],
            down=counts[Outcome.DOWN],
            hung=counts[Outcome.HUNG],
            skipped=counts[Outcome.SKIPPED],
            duration_s=ended - this.begun,
        )

    # What outlives a process.

    def open(self, now: float) -> list[tuple[Due, float]]:
        """Every task that has not ended, and for how many seconds."""
        return [(Due(tid, task.ost, task.part), now - task.since) for tid, task in self._open.items()]

    def reopen(self, due: Due, age_s: float, now: float) -> None:
        """A task of a former life may still be running: it belongs to an earlier round, and counts as open."""
        self._open[due.tid] = _Open(due.ost, due.part, "", 0, now - age_s)

    # Within a round.

    def _in_order(self, targets: Sequence[Target]) -> Iterable[tuple[Due, str]]:
        """Server after server takes its turn, so that neighbours are on different ones."""
        by_server: dict[str, list[tuple[Due, str]]] = {}
        for target in targets:
            for part in self._parts:
                tid = "-".join(filter(None, ("mon", str(self._round.number), str(target.ost), part)))
                by_server.setdefault(target.server, []).append((Due(tid, target.ost, part), target.server))
        turns = zip_longest(*by_server.values())
        return (each for each in chain.from_iterable(turns) if each is not None)

    def _hung_again(self, now: float) -> list[Hung]:
        """Of each OST that is hung and expected in this round, the oldest task."""
        oldest: dict[int, Hung] = {}
        for tid, task in self._open.items():
            if task.hung and task.ost in self._round.courses:
                hung = Hung(task.ost, tid, now - task.since)
                if task.ost not in oldest or hung.age_s > oldest[task.ost].age_s:
                    oldest[task.ost] = hung
        return [oldest[ost] for ost in sorted(oldest)]

    def _look_for_end(self, now: float) -> None:
        if self._round.ended is None and self.is_over:
            self._round.ended = now


def next_start(at: time, interval_s: float, now: datetime) -> datetime:
    """The next moment after now that is a whole number of intervals after `at`, or is `at` itself, as each day is.

    now: on the clock of this place, without a time zone; so is what is returned.
    """
    begin = datetime.combine(now.date(), at)
    if begin > now:
        begin -= timedelta(days=1)
    intervals = (now - begin) // timedelta(seconds=interval_s) + 1
    return min(begin + intervals * timedelta(seconds=interval_s), begin + timedelta(days=1))
