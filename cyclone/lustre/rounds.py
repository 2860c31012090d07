"""One round after the other over all OSTs: who is due, who waits for whom, who hangs.

A round has a number, and a task for each OST (or several, one for each *part*). Its rules:

* A part of an OST whose task has not ended is not given a second one. It is told to be hung when it was handed in
  longer than `hung_after_s` ago, and once in each round after that. The other parts go on.
* An OST whose state is known beforehand gets no task.
* Neighbours in the order are on different servers, and no server has more than `server_most` tasks at a time.
* What a round did not come to when the next one begins is skipped, and counted.

Each expected OST ends up in exactly one count of the round. All moments are of one monotonic clock, in seconds.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta, tzinfo
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
    """A part of an OST whose task does not end. age_s: since it was handed in."""

    ost: int
    part: str
    tid: str
    age_s: float


class End(NamedTuple):
    """Whose task has ended. is_of_this_round: whether it was one of the newest."""

    ost: int
    part: str
    is_of_this_round: bool


class Begun(NamedTuple):
    """What a new round knows at once."""

    down: list[Target]
    hung: list[Hung]


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
    """A task that was handed in and has not ended.

    since: when it was handed in for the first time. heard_from: when its end could have been heard first.
    hung: it was told to be.
    """

    ost: int
    part: str
    server: str
    number: int
    since: float
    heard_from: float
    hung: bool = False


#: An OST, and which part of it.
_Key = tuple[int, str]


@dataclass
class _Round:
    """The newest round.

    outcomes: of each part, SKIPPED as long as there is none. undecided: those that may still get one.
    waiting: what is not handed in yet, in order.
    """

    number: int = 0
    begun: float = 0.0
    ended: float | None = None
    outcomes: dict[_Key, Outcome] = field(default_factory=dict)
    undecided: set[_Key] = field(default_factory=set)
    waiting: deque[tuple[Due, str]] = field(default_factory=deque)

    def decide(self, key: _Key, outcome: Outcome) -> None:
        self.outcomes[key] = outcome
        self.undecided.discard(key)


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
        this = self._round = _Round(number, now)
        late = {(each.ost, each.part): each for each in self._open.values()}
        begun = Begun([], [])
        to_look_at: list[tuple[Target, str]] = []
        for target in targets:
            keys = [(target.ost, part) for part in self._parts]
            if target.state is not None and not late.keys() >= set(keys):
                begun.down.append(target)
            for key in keys:
                if key in late:
                    this.decide(key, Outcome.HUNG if late[key].hung else Outcome.SKIPPED)
                elif target.state is not None:
                    this.decide(key, Outcome.DOWN)
                else:
                    this.outcomes[key] = Outcome.SKIPPED
                    this.undecided.add(key)
                    to_look_at.append((target, key[1]))
        this.waiting.extend(self._in_order(to_look_at))
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
            self._add(due.tid, _Open(due.ost, due.part, server, self._round.number, now, now))
            found.append(due)
        still.extend(waiting)
        self._round.waiting = still
        return found

    def ended(self, tid: str, outcome: Outcome, now: float) -> End | None:
        """A task has ended; None if it is not one that was open."""
        task = self._open.pop(tid, None)
        if task is None:
            return None
        self._on_server[task.server] -= 1
        key = (task.ost, task.part)
        is_of_this_round = task.number == self._round.number and key in self._round.outcomes
        if is_of_this_round:
            self._round.decide(key, outcome)
            self._look_for_end(now)
        return End(task.ost, task.part, is_of_this_round)

    def look_for_hung(self, now: float) -> list[Hung]:
        """The tasks that have become hung since the last look."""
        found = []
        for tid, task in self._open.items():
            if not task.hung and now - task.heard_from >= self._hung_after_s:
                task.hung = True
                key = (task.ost, task.part)
                if key in self._round.outcomes:
                    self._round.decide(key, Outcome.HUNG)
                found.append(Hung(task.ost, task.part, tid, now - task.since))
        if found:
            self._look_for_end(now)
        return found

    @property
    def is_stuck(self) -> bool:
        """Does something wait, and everything hang that could make room for it? True only after `due` was asked."""
        return bool(self._round.waiting and self._open) and all(task.hung for task in self._open.values())

    def skip_waiting(self, now: float) -> None:
        """Hand in no more in this round: what waits is skipped."""
        for due, _ in self._round.waiting:
            self._round.decide((due.ost, due.part), Outcome.SKIPPED)
        self._round.waiting.clear()
        self._look_for_end(now)

    def next_moment(self) -> float | None:
        """When to look for hung tasks again; None while there can be none."""
        moments = [task.heard_from + self._hung_after_s for task in self._open.values() if not task.hung]
        return min(moments, default=None)

    @property
    def number(self) -> int:
        return self._round.number

    @property
    def is_over(self) -> bool:
        """Is there nothing more to come of the newest round? It may still change its mind about what is hung."""
        return not self._round.undecided

    def summary(self, now: float) -> Summary:
        """The newest round; what has no outcome yet counts as skipped."""
        this = self._round
        worst: dict[int, Outcome] = {}
        for (ost, _), outcome in this.outcomes.items():
            worst[ost] = max(worst.get(ost, outcome), outcome, key=_GRAVITY.__getitem__)
        counts = Counter(worst.values())
        ended = now if this.ended is None else this.ended
        return Summary(
            number=this.number,
            expected=len(worst),
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

    def reopen(self, due: Due, server: str, age_s: float, now: float) -> None:
        """A task of a former life may still be running: it belongs to an earlier round, and counts as open.

        It is hung when nothing was heard of it for `hung_after_s` from now on: until now nobody has listened.
        """
        self._add(due.tid, _Open(due.ost, due.part, server, 0, now - age_s, now))

    # Within a round.

    def _add(self, tid: str, task: _Open) -> None:
        self._open[tid] = task
        self._on_server[task.server] += 1

    def _in_order(self, parts: Iterable[tuple[Target, str]]) -> Iterable[tuple[Due, str]]:
        """Server after server takes its turn, so that neighbours are on different ones."""
        by_server: dict[str, list[tuple[Due, str]]] = {}
        for target, part in parts:
            tid = "-".join(filter(None, ("mon", str(self._round.number), str(target.ost), part)))
            by_server.setdefault(target.server, []).append((Due(tid, target.ost, part), target.server))
        turns = zip_longest(*by_server.values())
        return (each for each in chain.from_iterable(turns) if each is not None)

    def _hung_again(self, now: float) -> list[Hung]:
        """Those that are hung and expected in this round, by OST."""
        return sorted(
            Hung(task.ost, task.part, tid, now - task.since)
            for tid, task in self._open.items()
            if task.hung and (task.ost, task.part) in self._round.outcomes
        )

    def _look_for_end(self, now: float) -> None:
        if self._round.ended is None and self.is_over:
            self._round.ended = now


def next_start(at: time, interval_s: float, after: float, zone: tzinfo | None = None) -> float:
    """The next moment after this one that is a whole number of intervals after `at`, or is `at` itself, as each day is.

    None of them is nearer than half an interval before the next `at`. Moments are Unix time; intervals are seconds that
    pass, also on a day of 23 or 25 hours. zone: whose clocks show `at`; that of this place by default.
    """
    today = datetime.fromtimestamp(after, zone).date()
    yesterday, this_day, tomorrow = (
        datetime.combine(today + timedelta(days), at, zone).timestamp() for days in (-1, 0, 1)
    )
    begin, following = (this_day, tomorrow) if this_day <= after else (yesterday, this_day)
    start = begin + (floor((after - begin) / interval_s) + 1) * interval_s
    return start if following - start >= interval_s / 2 else following
