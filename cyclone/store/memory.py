"""The store of a simulation: keeps every promise of `promise.py` but the one about the disk."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

import msgspec

from cyclone.errors import RuleBroken, StoreFull
from cyclone.messages import JobView, TaskEnd, TaskView
from cyclone.model.changes import (
    AttemptEnded,
    Change,
    JobClosed,
    JobOpened,
    JobRemembers,
    JobSealed,
    LiveTask,
    PlacementOver,
    Remembered,
    TaskAccepted,
    TaskEnded,
    TasksPlaced,
)
from cyclone.model.lifecycle import JobState, State
from cyclone.model.task import JobNumber, TaskNumber, Token
from cyclone.store.promise import StoredTask

#: Facts of several kinds are written in this order, whatever order they came in: each after what it is about.
_ORDER: dict[type[Change], int] = {
    kind: place
    for place, kind in enumerate(
        (
            JobOpened,
            JobRemembers,
            TaskAccepted,
            TasksPlaced,
            AttemptEnded,
            TaskEnded,
            PlacementOver,
            JobSealed,
            JobClosed,
        )
    )
}


@dataclass(frozen=True, slots=True)
class _Job:
    name: str
    opened_at: float
    state: JobState = JobState.OPEN
    closed_at: float | None = None
    remember_s: float | None = None


@dataclass(frozen=True, slots=True)
class _Task:
    fact: TaskAccepted
    accepted_at: float
    payload: bytes


class _Ended(NamedTuple):
    fact: TaskEnded
    value: bytes
    at: float


@dataclass(slots=True)
class _Facts:
    """All that was remembered."""

    jobs: dict[JobNumber, _Job] = field(default_factory=dict)
    tasks: dict[TaskNumber, _Task] = field(default_factory=dict)
    numbers: dict[tuple[JobNumber, str], TaskNumber] = field(default_factory=dict)
    live: dict[TaskNumber, None] = field(default_factory=dict)
    placements: dict[Token, TasksPlaced] = field(default_factory=dict)
    attempts: dict[tuple[TaskNumber, Token], AttemptEnded] = field(default_factory=dict)
    ended: dict[TaskNumber, _Ended] = field(default_factory=dict)
    forgotten: dict[JobNumber, Counter[State]] = field(default_factory=dict)  # of the jobs that are known
    last: dict[str, int] = field(default_factory=lambda: {"job": 0, "task": 0})  # numbers that were used

    def copied(self) -> _Facts:
        return _Facts(*(dict(getattr(self, each.name)) for each in fields(self)))


class MemoryStore:
    """The `Store` in memory. It outlives the crash of its master: `crashed` is what the next life finds.

    full: set by a simulation to let `remember` and `wake` find no room.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self.full = False
        self._clock = clock
        self._epoch = 0
        self._facts = _Facts()
        self._waking = False
        self._awake = False
        # What was changed and is not synced: `(table, key, what stood there, was anything there?)`.
        self._changed: list[tuple[dict[Any, Any], Any, Any, bool]] = []

    def copied(self) -> MemoryStore:
        """A store that knows the same and sleeps; what becomes of one does not touch the other."""
        other = MemoryStore(clock=self._clock)
        other._epoch, other._facts = self._epoch, self._facts.copied()
        return other

    def crashed(self, *, power_cut: bool = False) -> MemoryStore:
        """The same store as the next life of the master finds it: all that was remembered, and asleep.

        power_cut: only what was synced is left.
        Costs nothing. The store that it is called on is not to be used any more.
        """
        if power_cut:
            self._undo(0)
        other = MemoryStore(clock=self._clock)
        other._epoch, other._facts = self._epoch, self._facts
        self.close()
        return other

    def close(self) -> None:
        self._awake = False

    def wake(self) -> Remembered:
        if self._waking:
            raise RuleBroken("a store wakes up once")
        self._find_room()
        self._waking = True
        self._epoch += 1
        facts = self._facts
        standing = {number: job for number, job in sorted(facts.jobs.items()) if job.closed_at is None}
        return Remembered(
            epoch=self._epoch,
            last_job=facts.last["job"],
            last_number=facts.last["task"],
            jobs={number: job.name for number, job in standing.items()},
            live=self._live(),
            placements=[placed for _, placed in sorted(facts.placements.items())],
            attempts=[facts.attempts[key] for key in sorted(facts.attempts) if key[0] in facts.live],
            marred=frozenset(
                job for job in standing if any(state is not State.SUCCEEDED for state in self._counts(job))
            ),
            store="memory",
            sealed={number: job.state for number, job in standing.items() if job.state is not JobState.OPEN},
            remember_s={
                number: job.remember_s for number, job in standing.items() if job.remember_s is not None
            },
        )

    def _live(self) -> Iterator[LiveTask]:
        now = self._clock()
        for number in sorted(self._facts.live):
            task = self._facts.tasks[number]
            fact, waited_s = task.fact, max(0.0, now - task.accepted_at)
            yield LiveTask(fact.number, fact.job, fact.tid, fact.policy, fact.after, waited_s)
        self._awake = True

    # Remembering.

    def remember(
        self,
        changes: Sequence[Change],
        payloads: Mapping[tuple[JobNumber, str], bytes],
        values: Mapping[Token, bytes],
    ) -> None:
        if not self._awake:
            raise RuleBroken(
                "the store has to wake up, and its live tasks to be read, before it can remember"
            )
        self._find_room()
        began = len(self._changed)
        try:
            msgspec.msgpack.encode(changes)
        except (UnicodeEncodeError, OverflowError) as error:
            raise RuleBroken(f"cannot be stored: {error}") from error
        try:
            for change in sorted(changes, key=lambda change: _ORDER[type(change)]):
                self._write(change, payloads, values)
        except RuleBroken:
            self._undo(began)
            raise

    def sync(self) -> None:
        self._changed.clear()

    def _undo(self, began: int) -> None:
        """All that was changed after the first so many changes."""
        while len(self._changed) > began:
            table, key, old, stood = self._changed.pop()
            if stood:
                table[key] = old
            else:
                del table[key]

    def _write(
        self, change: Change, payloads: Mapping[tuple[JobNumber, str], bytes], values: Mapping[Token, bytes]
    ) -> None:
        facts, now = self._facts, self._clock()
        match change:
            case JobOpened(number, name):
                self._add(facts.jobs, number, _Job(name, now))
                self._use("job", number)
            case JobRemembers(number, remember_s):
                _demand(self._is_open(number), f"job {number} is told what to remember and is not open")
                self._add(facts.jobs, number, replace(self._take(facts.jobs, number), remember_s=remember_s))
            case TaskAccepted(number, job, tid):
                payload = payloads.get((job, tid))
                _demand(payload is not None, f"task {number} ({tid}) is accepted without a payload")
                _demand(number > facts.last["task"], "task numbers have to ascend")
                _demand(self._is_open(job), "a task is to be accepted into a job that is not open")
                self._add(facts.numbers, (job, tid), number)
                self._add(facts.tasks, number, _Task(change, now, payload or b""))
                self._add(facts.live, number, None)
                self._use("task", number)
            case TasksPlaced(first):
                self._add(facts.placements, first, change)
            case AttemptEnded(number):
                self._add(facts.attempts, (number, change.end.token), change)
            case TaskEnded(number, _, _, end):
                value = None if end.end is None else values.get(end.end.token)
                _demand(number in facts.tasks, "a task is to end that was never accepted")
                _demand(
                    value is not None or end.state is not State.SUCCEEDED,
                    f"task {number} ({end.tid}) succeeded without a value",
                )
                self._add(facts.ended, number, _Ended(change, value or b"", now))
                self._take(facts.live, number)
            case PlacementOver(first):
                _demand(first in facts.placements, "a placement is to be over and is not there")
                self._take(facts.placements, first)
            case JobSealed(number, state):
                _demand(self._is_open(number), "a job is to be sealed and is not open")
                self._add(facts.jobs, number, replace(self._take(facts.jobs, number), state=state))
            case JobClosed(number, state):
                _demand(self._is_open(number), f"job {number} is to be closed and is not open")
                closed = replace(self._take(facts.jobs, number), state=state, closed_at=now)
                self._add(facts.jobs, number, closed)

    def _add(self, table: dict[Any, Any], key: Any, value: Any) -> None:
        _demand(key not in table, f"{key} is there already: a fact was to be written twice")
        self._changed.append((table, key, None, False))
        table[key] = value

    def _take(self, table: dict[Any, Any], key: Any) -> Any:
        self._changed.append((table, key, table[key], True))
        return table.pop(key)

    def _use(self, kind: str, number: int) -> None:
        used = self._take(self._facts.last, kind)
        self._add(self._facts.last, kind, max(used, number))

    def _is_open(self, job: JobNumber) -> bool:
        return job in self._facts.jobs and self._facts.jobs[job].closed_at is None

    def _find_room(self) -> None:
        if self.full:
            raise StoreFull("the memory of the simulation is full")

    # Forgetting.

    def forget(self, keep_s: float | None, slice_s: float = 0.005) -> bool:
        _demand(self._awake, "the store has to wake up before it can forget")
        self._find_room()
        # What is forgotten is gone from the tables that an undoing would put back.
        self.sync()
        facts, now = self._facts, self._clock()
        closed = [
            number
            for number, job in facts.jobs.items()
            if keep_s is not None and job.closed_at is not None and job.closed_at <= now - keep_s
        ]
        for number in closed:
            del facts.jobs[number]
            facts.forgotten.pop(number, None)
        for number, ended in [*facts.ended.items()]:
            job = facts.jobs.get(ended.fact.job)
            if job is None:
                self._forget_task(number)
            elif job.closed_at is None and job.remember_s is not None and ended.at <= now - job.remember_s:
                self._forget_task(number)
                counts = facts.forgotten.setdefault(ended.fact.job, Counter())
                counts[ended.fact.end.state] += 1
        return False

    def _forget_task(self, number: TaskNumber) -> None:
        facts = self._facts
        fact = facts.tasks.pop(number).fact
        del facts.numbers[fact.job, fact.tid], facts.ended[number]
        for key in [key for key in facts.attempts if key[0] == number]:
            del facts.attempts[key]

    # Being asked.

    def payloads(self, numbers: Sequence[TaskNumber]) -> list[bytes]:
        for number in numbers:
            _demand(number in self._facts.tasks, f"task {number} was never accepted")
        return [self._facts.tasks[number].payload for number in numbers]

    def recall(self, job: JobNumber, tids: Collection[str]) -> dict[str, tuple[TaskEnd, bytes]]:
        found = {}
        for tid in tids:
            ended = self._facts.ended.get(self._facts.numbers.get((job, tid), 0))
            if ended is not None:
                found[tid] = ended.fact.end, ended.value
        return found

    def tasks(
        self, job: str = "", states: Collection[State] = (), kind: str = "", limit: int = 1000
    ) -> tuple[list[TaskView], bool]:
        found = [
            view
            for number in self._facts.ended
            if job in ("", (view := self._view(number)).job)
            and (not states or view.state in states)
            and kind in ("", view.kind)
        ]
        found.sort(key=lambda view: (self._facts.tasks[view.number].fact.job, view.number), reverse=True)
        return found[:limit], len(found) > limit

    def _view(self, number: TaskNumber) -> TaskView:
        ended = self._facts.ended[number].fact
        how = ended.end
        kind = self._facts.tasks[number].fact.policy.kind
        name = self._facts.jobs[ended.job].name
        return TaskView(number, name, how.tid, kind, how.state, how.attempts, ended.peer, how.end, how.reason)

    def task(self, tid: str, job: str = "") -> StoredTask | None:
        for number in sorted(self._facts.jobs, reverse=True):
            name = self._facts.jobs[number].name
            found = self._facts.numbers.get((number, tid))
            if found is None or job not in ("", name):
                continue
            task = self._facts.tasks[found]
            keys = sorted(key for key in self._facts.attempts if key[0] == found)
            ended = self._facts.ended.get(found)
            return StoredTask(
                found, name, tid, task.fact.policy, task.fact.after, task.accepted_at,
                [self._facts.attempts[key] for key in keys],
                None if ended is None else ended.fact.end, "" if ended is None else ended.fact.peer,
            )  # fmt: skip
        return None

    def jobs(self, limit: int = 1000) -> list[JobView]:
        newest = sorted(self._facts.jobs.items(), reverse=True, key=lambda job: job[0])[:limit]
        return [
            JobView(
                number, job.name, job.state if job.closed_at is not None else "open", job.opened_at,
                job.closed_at or 0.0,
                {state.value: count for state, count in self._counts(number).items()},
                forgotten=sum(self._facts.forgotten.get(number, Counter()).values()),
            )
            for number, job in newest
        ]  # fmt: skip

    def _counts(self, job: JobNumber) -> Counter[State]:
        """Of its tasks that have ended, also of the forgotten ones."""
        kept = Counter(ended.fact.end.state for ended in self._facts.ended.values() if ended.fact.job == job)
        return kept + self._facts.forgotten.get(job, Counter())


def _demand(kept: bool, problem: str) -> None:
    if not kept:
        raise RuleBroken(problem)
