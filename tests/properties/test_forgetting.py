"""Whatever happens to a store, in whatever order and however it is cut short: what must be remembered is.

A model keeps everything and knows which of it may be forgotten. The store on disk and the one in memory are held
against it after every step; what the tables of the former hold is counted.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cyclone.messages import TaskEnd
from cyclone.model.changes import (
    AttemptEnded,
    Change,
    JobClosed,
    JobOpened,
    JobRemembers,
    TaskAccepted,
    TaskEnded,
)
from cyclone.model.lifecycle import JobState, Outcome, State
from cyclone.model.task import Cause, End, Policy, first_token
from cyclone.store import sqlite
from cyclone.store.memory import MemoryStore
from cyclone.store.promise import Store
from cyclone.store.sqlite import SqliteStore

KEEP_S = 100.0
TIDS = [f"t{number}" for number in range(12)]
POLICY = Policy(kind="work.Look")


@dataclass
class Known:
    """A task of the model. gone: whether it must not, may or must be forgotten by now."""

    number: int
    job: int
    tid: str
    end: TaskEnd | None = None
    ended_at: float = 0.0
    gone: str = "no"


@dataclass
class Job:
    remember_s: float | None = None
    closed_at: float | None = None
    gone: str = "no"


class StoreMachine(RuleBasedStateMachine):
    """Both kinds of store through one history."""

    make: Callable[[StoreMachine], Store]
    again: Callable[[StoreMachine], Store]

    @initialize()
    def begin(self) -> None:
        self.directory = tempfile.TemporaryDirectory(dir="/dev/shm")  # syncing would take most of the time
        self.now = 1000.0
        self.tasks: list[Known] = []
        self.jobs: dict[int, Job] = {}
        self.store = type(self).make(self)
        list(self.store.wake().live)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.directory.cleanup()

    # What happens.

    @rule(remember_s=st.sampled_from([None, 5.0, 50.0]))
    @precondition(lambda self: len(self.open_jobs()) < 3)
    def open(self, remember_s: float | None) -> None:
        number = len(self.jobs) + 1
        changes: list[Change] = [JobOpened(number, f"job {number}")]
        if remember_s is not None:
            changes.append(JobRemembers(number, remember_s))
        self.store.remember(changes, {}, {})
        self.jobs[number] = Job(remember_s)

    @rule(choice=st.randoms(use_true_random=False), remember_s=st.sampled_from([None, 5.0, 50.0]))
    @precondition(lambda self: self.open_jobs())
    def declare(self, choice, remember_s: float | None) -> None:
        if choice.random() > 0.2:
            return  # what is swept anew hides what was overlooked
        number = choice.choice(self.open_jobs())
        self.store.remember([JobRemembers(number, remember_s)], {}, {})
        self.jobs[number].remember_s = remember_s

    @rule(choice=st.randoms(use_true_random=False), count=st.integers(1, 9))
    @precondition(lambda self: self.open_jobs())
    def accept(self, choice, count: int) -> None:
        """Tasks of several jobs in one batch, as a master takes them; a tid that was forgotten may come again."""
        changes: list[Change] = []
        for _ in range(count):
            job, tid = choice.choice(self.open_jobs()), choice.choice(TIDS)
            known = [task for task in self.tasks if (task.job, task.tid) == (job, tid)]
            if any(task.end is None for task in known) or self.store.recall(job, [tid]):
                continue
            assert all(task.gone != "no" for task in known)
            number = len(self.tasks) + 1
            for task in known:
                task.gone = "yes"
            self.tasks.append(Known(number, job, tid))
            changes.append(TaskAccepted(number, job, tid, POLICY, ()))
        payloads = {(c.job, c.tid): f"payload {c.number}".encode() for c in changes}
        self.store.remember(changes, payloads, {})

    @rule(choice=st.randoms(use_true_random=False), share=st.sampled_from([0.3, 0.7, 1.0]))
    def end(self, choice, share: float) -> None:
        changes: list[Change] = []
        values = {}
        for task in self.live():
            if choice.random() > share:
                continue
            token = first_token(1) + 2 * task.number
            good = choice.random() < 0.7
            if choice.random() < 0.3:
                early = End(token, 1.0, 1.0, Outcome.RAISED)
                changes.append(AttemptEnded(task.number, 1, "node", Cause.ERROR, early))
            end = End(token + 1, 1.0, 1.0, Outcome.SUCCEEDED if good else Outcome.RAISED)
            task.end = TaskEnd(task.tid, State.SUCCEEDED if good else State.FAILED, 1, end)
            task.ended_at = self.now
            values[token + 1] = str(task.number).encode()
            changes.append(TaskEnded(task.number, task.job, "node", task.end))
        self.store.remember(changes, {}, values)

    @rule(choice=st.randoms(use_true_random=False))
    def close(self, choice) -> None:
        idle = [job for job in self.open_jobs() if not any(task.job == job for task in self.live())]
        if idle:
            job = choice.choice(idle)
            self.store.remember([JobClosed(job, JobState.SUCCEEDED)], {}, {})
            self.jobs[job].closed_at = self.now

    @rule(seconds=st.sampled_from([1.0, 6.0, 60.0, 200.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(slices=st.integers(1, 5), keep_s=st.sampled_from([KEEP_S, KEEP_S, None]))
    def forget_a_little(self, slices: int, keep_s: float | None) -> None:
        self.note_forgotten("maybe", keep_s)
        for _ in range(slices):
            self.store.forget(keep_s, 0.0)

    @rule(keep_s=st.sampled_from([KEEP_S, KEEP_S, None]))
    def forget(self, keep_s: float | None) -> None:
        self.note_forgotten("yes", keep_s)
        while self.store.forget(keep_s, 0.0):
            pass
        self.count_rows()

    @rule()
    def restart(self) -> None:
        self.store = type(self).again(self)
        woken = self.store.wake()
        live = list(woken.live)
        assert [(task.number, task.job, task.tid) for task in live] == [
            (task.number, task.job, task.tid) for task in self.live()
        ]
        assert (woken.last_number, woken.last_job) == (len(self.tasks), len(self.jobs))
        assert sorted(woken.jobs) == self.open_jobs()
        assert {**dict.fromkeys(woken.jobs), **woken.remember_s} == {
            job: self.jobs[job].remember_s for job in self.open_jobs()
        }
        assert woken.marred == {
            task.job for task in self.tasks
            if task.end is not None and task.end.state is State.FAILED and task.job in woken.jobs
        }  # fmt: skip

    # What must be true.

    @invariant()
    def what_must_be_remembered_is(self) -> None:
        if not hasattr(self, "store"):
            return
        listed = {view.number: view for view in self.store.tasks(limit=10_000)[0]}
        for task in self.tasks:
            recalled = self.store.recall(task.job, [task.tid])
            if task.end is None:
                assert recalled == {}
                stored = self.store.task(task.tid, f"job {task.job}")
                assert stored is not None
                assert (stored.number, stored.end) == (task.number, None)
                assert self.store.payloads([task.number]) == [f"payload {task.number}".encode()]
            elif task.gone == "no":
                if self.jobs[task.job].closed_at is None:
                    assert recalled == {task.tid: (task.end, self.value(task))}
                stored = self.store.task(task.tid, f"job {task.job}")
                assert stored is not None
                assert (stored.number, stored.end) == (task.number, task.end)
                assert listed[task.number].tid == task.tid
            elif task.gone == "yes":
                assert task.number not in listed
        assert len(listed) <= sum(task.gone != "yes" for task in self.tasks)

    @invariant()
    def counts_are_of_what_has_been(self) -> None:
        if not hasattr(self, "store"):
            return
        told = {job.number: job for job in self.store.jobs(10_000)}
        for number, job in self.jobs.items():
            if job.gone == "no":
                ended = [task for task in self.tasks if task.job == number and task.end is not None]
                assert Counter(told[number].counts) == Counter(task.end.state.value for task in ended)  # type: ignore[union-attr]
                assert told[number].forgotten <= sum(task.gone != "no" for task in ended)
                assert told[number].forgotten >= sum(task.gone == "yes" for task in ended)
            elif job.gone == "yes":
                assert number not in told

    # Words for it.

    def open_jobs(self) -> list[int]:
        return [number for number, job in self.jobs.items() if job.closed_at is None]

    def live(self) -> list[Known]:
        return [task for task in self.tasks if task.end is None]

    def value(self, task: Known) -> bytes:
        return str(task.number).encode()

    def note_forgotten(self, how: str, keep_s: float | None) -> None:
        """What may be forgotten now, or must be."""
        for job in self.jobs.values():
            if keep_s is not None and job.closed_at is not None and job.closed_at <= self.now - keep_s:
                job.gone = "yes" if "yes" in (how, job.gone) else "maybe"
        for task in self.tasks:
            job = self.jobs[task.job]
            if task.end is None:
                continue
            if job.gone != "no":
                task.gone = job.gone if task.gone != "yes" else "yes"
            elif (
                job.closed_at is None
                and job.remember_s is not None
                and task.ended_at <= self.now - job.remember_s
            ):
                task.gone = "yes" if "yes" in (how, task.gone) else "maybe"

    def count_rows(self) -> None:
        """accepted = ended + open + forgotten, in every table, and nothing is left of what was forgotten."""
        if not isinstance(self.store, SqliteStore):
            return
        db = self.store._db
        rows = [(number, job, tid) for tid, number, job in db.read("SELECT tid, number, job FROM task")]
        in_parcels = [row[:3] for parcel in sqlite.parcels(db, 0, 2**62) for row in parcel.tasks]
        ended = {number for (number,) in db.read("SELECT task FROM ended")}
        badly = {number for (number,) in db.read("SELECT task FROM ended_badly")}
        attempts = {number for (number,) in db.read("SELECT task FROM attempt")}
        live = {task.number for task in self.live()}

        assert sorted(rows) == in_parcels
        assert {number for number, _, _ in rows} == ended | live
        assert not ended & live
        assert badly <= ended
        assert attempts <= ended | live
        kept = Counter(job for number, job, _ in rows if number in ended)
        for job, forgotten in db.read("SELECT number, forgotten FROM job"):
            [(counted,)] = db.read("SELECT coalesce(sum(tasks), 0) FROM job_count WHERE job = ?", (job,))
            assert counted == kept[job] + forgotten
        assert set(kept) <= {job for (job,) in db.read("SELECT number FROM job")}
        assert db.read("SELECT * FROM erasing") == []
        open_jobs = {job for (job,) in db.read("SELECT DISTINCT job FROM late")}
        assert open_jobs <= {job for (job,) in db.read("SELECT number FROM job")}


class OnDisk(StoreMachine):
    def make(self) -> Store:
        return SqliteStore(Path(self.directory.name, "store"), "normal", clock=lambda: self.now)

    def again(self) -> Store:
        self.store.close()
        return OnDisk.make(self)


class InMemory(StoreMachine):
    def make(self) -> Store:
        return MemoryStore(clock=lambda: self.now)

    def again(self) -> Store:
        assert isinstance(self.store, MemoryStore)
        return self.store.crashed()


@pytest.fixture(autouse=True)
def _small_parcels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_PARCEL_TASKS", 4)


OnDisk.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
InMemory.TestCase.settings = settings(max_examples=40, stateful_step_count=50, deadline=None)
TestOnDisk = OnDisk.TestCase
TestInMemory = InMemory.TestCase
