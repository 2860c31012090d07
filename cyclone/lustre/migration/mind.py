"""Decides which file goes to which target next. No clock, no file, no thread, no randomness, no log.

Four ideas carry it.

*State follows from counting.* What is in flight is one table, `{entry: run}`; how many tasks an OST, a pair of OSTs
or a server has is counted from it, and the state of an OST follows from that (`ost.py`). A task that has ended, however it
ended, leaves the table, and everything it held is free again.

*Sources take turns.* The one that has not started anything for the longest time comes first.

*The emptiest target wins*: the one with the smallest share of its limit in flight, then the lowest projected fill level,
then the lowest index. Targets that may take part are kept in that order, so the first that suits is the best.

*A failure is billed to whoever it belongs to.* A busy file waits and tries again, so many times. A target without room is
left alone for a while. A trouble may be that of the source, of the target or of the file, and nobody tells: so the file
waits while others go on. Where several files of a source have trouble in a row, or several sources with a target, that OST is
left alone for a while, and a target also as soon as the file has gone to another one. The first trouble costs a file
nothing but time. What it has after that, where all others are well, is its own.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, insort
from collections import Counter, deque
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from cyclone.lustre.migration.admission import STRIKES_MOST, Admission, Obstacle
from cyclone.lustre.migration.entry import Entry, EntryId
from cyclone.lustre.migration.fill import Level
from cyclone.lustre.migration.ost import OstState, Role, ost_state
from cyclone.lustre.migration.plan import Plan
from cyclone.lustre.migration.rate import Rate
from cyclone.lustre.migration.verdict import FileState, Report, Verdict, has_moved, judge, settled

#: Nobody tries a file more often than this, whoever is to blame.
TRIES_MOST = 100
#: A source with fewer entries than this is hungry.
HUNGRY_BELOW = 64

_MB = 1_000_000


class Run(NamedTuple):
    """A task in flight. since: monotonic seconds. size: bytes, a guess if nobody has looked."""

    entry: Entry
    target: int
    since: float
    size: int


class Ended(NamedTuple):
    """How a try has ended.

    is_final: this is the entry's result; else it will be tried again. away_until: there is no room for it in memory
    until this moment, when it has to be offered again; None if there is.
    """

    entry: Entry
    target: int | None
    report: Report
    is_final: bool
    away_until: float | None = None


@dataclass(slots=True)
class Turn:
    """What is to be done now: tasks to start, and entries that have ended without one."""

    started: list[Run] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)


class _Rank(NamedTuple):
    """By this targets are ordered."""

    load: float
    percent: float
    ost: int


class _Turn(NamedTuple):
    """By this sources are ordered. number: of the last task that was started from it; 0 for none."""

    number: int
    ost: int


class _Room(NamedTuple):
    """What fits on a target, in bytes."""

    size: float
    target: int


class _Ost:
    """One OST: what it has in flight, and where it stands."""

    __slots__ = ("last_start", "rank", "running", "turn")

    def __init__(self) -> None:
        self.running = {Role.SOURCE: 0, Role.TARGET: 0}
        self.last_start = 0
        self.rank: _Rank | None = None  # its place among the targets that may take part
        self.turn: _Turn | None = None  # its place among the sources that may


class _Stock:
    """The entries of one source in memory, oldest first.

    parked: those whose key is in flight. resting: how many wait for a moment.
    """

    __slots__ = ("parked", "queue", "resting")

    def __init__(self) -> None:
        self.queue: deque[Entry] = deque()
        self.parked: deque[Entry] = deque()
        self.resting = 0

    def __len__(self) -> int:
        return len(self.queue) + len(self.parked) + self.resting


class Mind:
    """Owns what is in flight and the entries in memory.

    The caller offers entries, tells measurements and ends, and asks at every event, and when `next_moment` comes, what
    to do. Moments are monotonic seconds and must not run backwards.
    stale_s: fill levels measured longer ago are unknown.
    """

    def __init__(self, plan: Plan, now: float, *, stale_s: float) -> None:
        self.plan = plan
        self.admission = Admission(plan, stale_s)
        self.fills = self.admission.fills
        self.running: dict[EntryId, Run] = {}
        self.holds: dict[str, str] = {}  # who has stopped us, and why
        self.tripped = ""  # why nothing may be started any more
        self.failures = 0
        self.hungry: set[int] = set()  # sources that could do with more entries; the caller empties it

        self._osts: dict[int, _Ost] = {}
        self._stocks: dict[int, _Stock] = {}
        self._pairs: Counter[tuple[int, int]] = Counter()
        self._servers: Counter[str] = Counter()
        self._keys: Counter[Hashable] = Counter()
        self._parked_at: dict[Hashable, set[int]] = {}  # sources with entries that wait for a key
        self._sources: list[_Turn] = []  # that could start something, in the order of their turns
        self._targets: list[_Rank] = []  # that could take something, best first
        self._resting: list[tuple[float, int, Entry]] = []
        self._count = 0
        self._roomy = -1  # the target that was the last to have room for a file that had to wait
        # See `_roomiest`; None if that may have changed.
        self._rooms: tuple[list[_Room], list[_Room]] | None = None
        self._files = Rate(plan.rate_files_per_s, now)
        self._bytes = Rate(plan.rate_mb_per_s * _MB, now)
        self._moved_files = self._moved_bytes = 0
        self._osts_of: dict[str, list[int]] = {}
        self._learn_servers()

    # What the caller tells.

    def change(self, plan: Plan, now: float) -> None:
        """From now on this plan. What is in flight stays in flight."""
        self.plan = self.admission.plan = plan
        self._files.change(plan.rate_files_per_s, now)
        self._bytes.change(plan.rate_mb_per_s * _MB, now)
        self._learn_servers()
        self._look_at_all()

    def hold(self, who: str, why: str) -> None:
        """Start nothing until everybody who holds has released."""
        self.holds[who] = why

    def release(self, who: str) -> None:
        self.holds.pop(who, None)

    def offer(self, source: int, entries: Iterable[Entry]) -> None:
        """More entries of one source, to be taken after those that are here."""
        stock = self._stock(source)
        stock.queue.extend(entries)
        self._look_at(source)

    def rest(self, entry: Entry, until: float) -> None:
        """Keep an entry until its next try; also one for which there was no room, if it can be kept nowhere else."""
        self._stock(entry.source).resting += 1
        self._count += 1
        heapq.heappush(self._resting, (until, self._count, entry))

    def expect(self, sources: Iterable[int]) -> None:
        """There are entries of these sources, though not here yet: `hungry` tells when they are wanted."""
        for source in sources:
            self._stock(source)
            self._look_at(source)

    def on_measuring(self) -> None:
        """A measurement of all fill levels begins now."""
        self.fills.begin()

    def on_levels(self, levels: Mapping[int, Level], now: float) -> None:
        """It has ended so; an OST that is missing is unknown."""
        self.admission.on_levels(levels, now)
        self._look_at_all()

    def adopt(self, entry: Entry, target: int, now: float) -> Run:
        """A task that was started in a former life is in flight, whatever the limits are now."""
        return self._start(entry, target, now)

    def on_end(self, entry_id: EntryId, report: Report, now: float) -> Ended | None:
        """A task has ended. None if it was not in flight: its end has been told before."""
        run = self.running.pop(entry_id, None)
        if run is None:
            return None
        self._give_back(run)
        report = settled(report)
        self._account(run, report, now)
        ended = self._decide_end(run, report, now)
        self._look_at(run.entry.source)
        self._look_at(run.target)
        return ended

    # What the caller asks.

    def decide(self, now: float) -> Turn:
        """What to start now. Everything that it returns counts as in flight, or as ended, from here on."""
        turn = Turn()
        self._rooms = None
        self._wake(now)
        if self.holds or self.tripped:
            return turn
        waiting = deque(self._sources)
        while waiting and self._targets and self._is_open(now):
            source = waiting.popleft().ost
            known = self._ost(source)
            if known.turn is None:
                continue  # what was started for others has left nothing for it
            run = self._start_one(source, now, turn)
            if run is None:
                continue  # and nothing that is started now can change that
            turn.started.append(run)
            if known.turn is not None:
                waiting.append(known.turn)
        return turn

    def next_moment(self, now: float) -> float | None:
        """When `decide` is to be called at the latest, though nothing may have been told; None: only then."""
        moments = [*self.admission.moments(), *(moment for moment, _, _ in self._resting[:1])]
        if self._sources and self._targets:
            moments += [rate.opens_at(now) for rate in (self._files, self._bytes) if not rate.is_open(now)]
        return min(moments, default=None)

    def space(self, source: int) -> int:
        """How many more entries of this source there may be in memory."""
        return max(0, self.plan.queue_most - len(self._stock(source)))

    def waiting(self, source: int) -> int:
        """How many entries of this source are here and not in flight."""
        stock = self._stocks.get(source)
        return 0 if stock is None else len(stock)

    @property
    def resting(self) -> int:
        """How many entries wait for their next try."""
        return len(self._resting)

    def state(self, ost: int, role: Role) -> OstState:
        """Also of an OST that has never been heard of."""
        return ost_state(
            admissible=self.obstacle(ost, role) is None,
            running=self.tasks(ost, role),
            limit=self._limit(ost, role),
        )

    def tasks(self, ost: int, role: Role) -> int:
        """How many tasks this OST has in flight in this role."""
        known = self._osts.get(ost)
        return 0 if known is None else known.running[role]

    def obstacle(self, ost: int, role: Role) -> Obstacle | None:
        """Why this OST must not take part in this role; None if it may."""
        return self.admission.obstacle(ost, role)

    def is_over_for(self, sources: Collection[int]) -> bool:
        """Will nothing of these sources be started any more, unless somebody or something else changes a thing?

        True if nothing is in flight or resting, and of each two that could be a pair one has a lasting obstacle.
        """
        if self.running or self._resting:
            return False
        open_sources = self._not_shut(sources, Role.SOURCE)
        open_targets = self._not_shut(self.plan.targets, Role.TARGET)
        # Both may be left and be the same one, which is no pair.
        return not open_sources or not open_targets or len(open_sources | open_targets) == 1

    def is_drained(self) -> bool:
        """Is nothing in flight while nothing may be started?"""
        return not self.running and bool(self.holds or self.tripped)

    def osts(self) -> list[int]:
        """All that play a part or were measured, growing."""
        return sorted({*self._osts, *self._stocks, *self.plan.targets, *self.fills.osts()})

    def _not_shut(self, osts: Collection[int], role: Role) -> set[int]:
        """Those without a lasting obstacle."""
        found = {ost: self.obstacle(ost, role) for ost in osts}
        return {ost for ost, obstacle in found.items() if obstacle is None or not obstacle.is_lasting}

    # Keeping the two lists of those that may take part.

    def _look_at_all(self) -> None:
        for ost in {*self._osts, *self._stocks, *self.plan.targets}:
            self._look_at(ost)

    def _look_at(self, ost: int) -> None:
        """Put this OST where it belongs, after anything about it has changed."""
        self._look_at_source(ost)
        self._look_at_target(ost)

    def _look_at_source(self, ost: int) -> None:
        stock = self._stocks.get(ost)
        state = self.state(ost, Role.SOURCE) if stock is not None else OstState.LOCKED
        if stock is not None and state in (OstState.READY, OstState.BLOCKED) and len(stock.queue) < self._low:
            self.hungry.add(ost)
        can_start = (
            stock is not None
            and state is OstState.READY
            and self._has_one_to_start(ost, stock)
            and not self._is_crowded(ost)
        )
        known = self._ost(ost)
        turn = _Turn(known.last_start, ost) if can_start else None
        if turn != known.turn:
            if known.turn is not None:
                del self._sources[bisect_left(self._sources, known.turn)]
            if turn is not None:
                insort(self._sources, turn)
            known.turn = turn

    def _has_one_to_start(self, ost: int, stock: _Stock) -> bool:
        if stock.parked:
            key = stock.parked[0].key
            if not self._keys[key]:
                return True
            # Whoever ends with this key wakes it; it may have been woken before, and been overtaken since.
            self._parked_at.setdefault(key, set()).add(ost)
        return bool(stock.queue)

    def _look_at_target(self, ost: int) -> None:
        known = self._osts.get(ost)
        if known is not None and known.rank is not None:
            del self._targets[bisect_left(self._targets, known.rank)]
            known.rank = None
        if ost not in self.plan.targets or self._is_crowded(ost):
            return
        if self.state(ost, Role.TARGET) is not OstState.READY:
            return
        known = self._ost(ost)
        percent = self.fills.percent(ost, Role.TARGET)
        assert percent is not None
        known.rank = _Rank(known.running[Role.TARGET] / self._limit(ost, Role.TARGET), percent, ost)
        insort(self._targets, known.rank)

    @property
    def _low(self) -> int:
        return min(HUNGRY_BELOW, self.plan.queue_most)

    def _limit(self, ost: int, role: Role) -> int:
        """As `Plan.limit`, and less if the other role has its share of what both may have."""
        limit = self.plan.limit(ost, role)
        both = self.plan.limit_of_both(ost)
        if both is not None:
            other = Role.TARGET if role is Role.SOURCE else Role.SOURCE
            limit = min(limit, both - self.tasks(ost, other))
        return limit

    def _is_crowded(self, ost: int) -> bool:
        """Has its server all the tasks that it may have?"""
        most = self.plan.oss_max_tasks
        server = self.plan.oss_of.get(ost)
        return most > 0 and server is not None and self._servers[server] >= most

    def _learn_servers(self) -> None:
        self._osts_of = {}
        for ost, server in self.plan.oss_of.items():
            self._osts_of.setdefault(server, []).append(ost)
        self._servers = Counter(
            server
            for run in self.running.values()
            for server in self._servers_of(run.entry.source, run.target)
        )

    def _servers_of(self, source: int, target: int) -> set[str]:
        """Each server that a task between these two burdens, once."""
        found = {self.plan.oss_of.get(source), self.plan.oss_of.get(target)}
        return {server for server in found if server is not None}

    # Starting.

    def _is_open(self, now: float) -> bool:
        if 0 < self.plan.max_tasks <= len(self.running):
            return False
        return self._files.is_open(now) and self._bytes.is_open(now)

    def _start_one(self, source: int, now: float, turn: Turn) -> Run | None:
        """Start the next entry of this source, if there is one and a target for it."""
        stock = self._stocks[source]
        while True:
            entry = self._next_entry(stock)
            if entry is None:
                self._look_at_source(source)
                return None
            # First, for to find the best target all of them may have to be asked.
            if not self._fits_nowhere(entry):
                break
            if self._will_fit(entry):
                # Nothing bounds how often, so it must not be at once.
                ended = self._rest(entry, None, _NO_ROOM, now + max(1.0, self.plan.retry_delay_s))
            else:
                ended = self._rest_or_end(entry, None, _NO_ROOM, now)
            turn.ended.append(ended)
        target = self._best_target(entry)
        if target is None:
            self._put_back(stock, entry)
            return None
        return self._start(entry, target, now)

    def _next_entry(self, stock: _Stock) -> Entry | None:
        """Take the oldest entry whose key is not in flight out of the stock; who waits for a key is woken by it."""
        if stock.parked:
            first = stock.parked[0]
            if not self._keys[first.key]:
                return stock.parked.popleft()
            self._parked_at.setdefault(first.key, set()).add(first.source)
        while stock.queue:
            entry = stock.queue.popleft()
            if not self._keys[entry.key]:
                return entry
            stock.parked.append(entry)
            self._parked_at.setdefault(entry.key, set()).add(entry.source)
        return None

    @staticmethod
    def _put_back(stock: _Stock, entry: Entry) -> None:
        stock.queue.appendleft(entry)

    def _best_target(self, entry: Entry) -> int | None:
        most = self.plan.pair_max_tasks
        avoided = None
        for rank in self._targets:
            target = rank.ost
            if target == entry.source or not self._fits(entry, target):
                continue
            if 0 < most <= self._pairs[entry.source, target]:
                continue
            if target != entry.avoid:
                return target
            avoided = target
        return avoided

    def _fits(self, entry: Entry, target: int) -> bool:
        return entry.size is None or entry.size <= self._room(target)

    def _room(self, target: int) -> float:
        """In bytes; without end if nobody knows."""
        free = self.fills.free_bytes(target)
        return math.inf if free is None else free - self.plan.target_reserve_bytes

    def _fits_nowhere(self, entry: Entry) -> bool:
        """Is there a target for it, but none that has room for a file of its size?"""
        if entry.size is None:
            return False
        # Asked for each source while targets are in use; mostly the answer is the same target as the last time.
        if self._has_room_for(entry, self._roomy):
            return False
        roomiest = _first_but(entry.source, self._roomiest()[0])
        if roomiest is None:
            return False
        self._roomy = roomiest.target
        return entry.size > roomiest.size

    def _will_fit(self, entry: Entry) -> bool:
        """Has a target room for it that must not take part now, but will by itself?"""
        roomiest = _first_but(entry.source, self._roomiest()[1])
        return roomiest is not None and entry.size is not None and entry.size <= roomiest.size

    def _roomiest(self) -> tuple[list[_Room], list[_Room]]:
        """The targets with most room: those that may take part, and those that will by themselves.

        Two of each, for one may be the source itself. To ask all targets for each file would take minutes.
        """
        if self._rooms is None:
            may: list[_Room] = []
            will: list[_Room] = []
            for target in self.plan.targets:
                obstacle = self.obstacle(target, Role.TARGET)
                if obstacle is None:
                    may.append(_Room(self._room(target), target))
                elif not obstacle.is_lasting:
                    will.append(_Room(self._room(target), target))
            self._rooms = heapq.nlargest(2, may), heapq.nlargest(2, will)
        return self._rooms

    def _has_room_for(self, entry: Entry, target: int) -> bool:
        """May the entry go there, now or when a task there has ended?"""
        # The size first: to compare is cheap.
        return (
            target != entry.source
            and self._fits(entry, target)
            and self.obstacle(target, Role.TARGET) is None
        )

    def _start(self, entry: Entry, target: int, now: float) -> Run:
        size = self._guess() if entry.size is None else entry.size
        run = self.running[entry.id] = Run(entry, target, now, size)
        self._pairs[entry.source, target] += 1
        self._keys[entry.key] += 1
        self._ost(entry.source).running[Role.SOURCE] += 1
        self._ost(target).running[Role.TARGET] += 1
        if not self.plan.is_dry:
            self.fills.start(entry.source, target, size)
            self._rooms = None
        self._files.spend(1)
        self._bytes.spend(size)
        self._count += 1
        self._ost(entry.source).last_start = self._count
        self._burden(entry.source, target, 1)
        self._look_at(entry.source)
        self._look_at(target)
        return run

    def _give_back(self, run: Run) -> None:
        source, target = run.entry.source, run.target
        _drop(self._pairs, (source, target))
        _drop(self._keys, run.entry.key)
        for waiting in self._parked_at.pop(run.entry.key, ()):
            self._look_at_source(waiting)
        self._ost(source).running[Role.SOURCE] -= 1
        self._ost(target).running[Role.TARGET] -= 1
        if not self.plan.is_dry:
            self.fills.finish(source, target, run.size)
        self._burden(source, target, -1)

    def _burden(self, source: int, target: int, by: int) -> None:
        for server in self._servers_of(source, target):
            before = self._servers[server]
            self._servers[server] = before + by
            most = self.plan.oss_max_tasks
            if most and (before >= most) != (before + by >= most):
                for ost in self._osts_of[server]:
                    self._look_at(ost)

    def _guess(self) -> int:
        """The size of a file that nobody has looked at: the mean of those that were moved."""
        return self._moved_bytes // self._moved_files if self._moved_files else 0

    # Ending.

    def _account(self, run: Run, report: Report, now: float) -> None:
        """What has been moved, and what that says of the two OSTs."""
        if report.state not in (FileState.SUCCESS, FileState.DISPLACED):
            self._bytes.spend(-run.size)
            return
        self._bytes.spend(report.size - run.size)
        self._moved_files += 1
        self._moved_bytes += report.size
        self.admission.forgive(run.entry.source, run.target, run.since)
        if run.entry.avoid is not None and run.entry.avoid != run.target:
            self.admission.blame(run.entry.avoid, run.entry.source, now)
            self._look_at(run.entry.avoid)
        if not self.plan.is_dry and has_moved(report, run.entry.source):
            actual = run.target if report.actual is None else report.actual
            self.fills.arrived(run.entry.source, -report.size)
            self.fills.arrived(actual, report.size)
            self._look_at(actual)

    def _decide_end(self, run: Run, report: Report, now: float) -> Ended:
        entry = run.entry
        entry.tries += 1
        verdict = judge(report, was_seen=entry.size is not None)
        if verdict is Verdict.OTHER_TARGET:
            return self._refused(run, report, now)
        if verdict is Verdict.OST_TROUBLE:
            return self._in_trouble(run, report, now)
        if verdict is Verdict.LATER:
            return self._rest_or_end(entry, run.target, report, now)
        if verdict is Verdict.STOP:
            what = (report.reason or report.failure, _shown(entry.path), report.message)
            self.tripped = ": ".join(filter(None, what))
        return self._final(entry, run.target, report)

    def _refused(self, run: Run, report: Report, now: float) -> Ended:
        """A target takes nothing, or not this file."""
        entry = run.entry
        if _cost_nothing(entry) and self.admission.is_well(run.target, Role.TARGET):
            return self._in_doubt(run, report, now, is_own=True)
        self.admission.leave_alone(run.target, now)
        if entry.tries < TRIES_MOST:
            self._put_back(self._stock(entry.source), entry)
            return Ended(entry, run.target, report, is_final=False)
        report = report._replace(reason=f"tried {entry.tries} times: {report.reason}")
        return self._final(entry, run.target, report)

    def _in_trouble(self, run: Run, report: Report, now: float) -> Ended:
        """Source, target or file: nobody tells."""
        entry = run.entry
        before = _cost_nothing(entry)
        if not before:
            # One that had trouble before says nothing new of its source.
            self.admission.suspect(entry.source, Role.SOURCE, entry.id, now)
        # Where a source has nothing but files like this one, it is never well: they must come to an end all the same.
        is_own = before >= STRIKES_MOST or (before > 0 and self.admission.is_well(entry.source, Role.SOURCE))
        return self._in_doubt(run, report, now, is_own=is_own)

    def _in_doubt(self, run: Run, report: Report, now: float, *, is_own: bool) -> Ended:
        """Try a file again after a while, with another target if there is one. is_own: is it billed to the file?"""
        entry = run.entry
        self.admission.suspect(run.target, Role.TARGET, entry.source, now)
        entry.avoid = run.target
        if is_own:
            return self._rest_or_end(entry, run.target, report, now)
        return self._rest(entry, run.target, report, now + self.plan.retry_delay_s)

    def _rest_or_end(self, entry: Entry, target: int | None, report: Report, now: float) -> Ended:
        entry.billed += 1
        if entry.billed > self.plan.retry_max or entry.tries >= TRIES_MOST:
            return self._final(entry, target, report)
        return self._rest(entry, target, report, now + self.plan.retry_delay_s)

    def _rest(self, entry: Entry, target: int | None, report: Report, until: float) -> Ended:
        # A source with nothing but busy files must not keep the others of its files from coming in.
        if self._stock(entry.source).resting >= max(1, self.plan.queue_most // 2):
            return Ended(entry, target, report, is_final=False, away_until=until)
        self.rest(entry, until)
        return Ended(entry, target, report, is_final=False)

    def _final(self, entry: Entry, target: int | None, report: Report) -> Ended:
        if report.state is FileState.FAILED:
            self.failures += 1
            if 0 < self.plan.max_failures <= self.failures and not self.tripped:
                self.tripped = f"{self.failures} files have failed"
        return Ended(entry, target, report, is_final=True)

    # Time.

    def _wake(self, now: float) -> None:
        while self._resting and self._resting[0][0] <= now:
            _, _, entry = heapq.heappop(self._resting)
            stock = self._stock(entry.source)
            stock.resting -= 1
            self._put_back(stock, entry)
            self._look_at(entry.source)
        woken, has_aged = self.admission.wake(now)
        for ost in woken:
            self._look_at(ost)
        if has_aged:
            self._look_at_all()

    # Small things.

    def _ost(self, ost: int) -> _Ost:
        known = self._osts.get(ost)
        if known is None:
            known = self._osts[ost] = _Ost()
        return known

    def _stock(self, source: int) -> _Stock:
        stock = self._stocks.get(source)
        if stock is None:
            stock = self._stocks[source] = _Stock()
        return stock


def _cost_nothing(entry: Entry) -> int:
    """How many tries have ended, before the last one, in what was not billed to the file."""
    return entry.tries - 1 - entry.billed


def _first_but(ost: int, rooms: Iterable[_Room]) -> _Room | None:
    return next((room for room in rooms if room.target != ost), None)


_Key = TypeVar("_Key")


def _drop(counter: Counter[_Key], key: _Key) -> None:
    """One less; what is not in flight leaves no trace."""
    counter[key] -= 1
    if not counter[key]:
        del counter[key]


_NO_ROOM = Report(FileState.FAILED, "no target has room for it", "target")


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
