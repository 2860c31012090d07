"""The claims of promise.py, made good by both stores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cyclone.errors import RuleBroken, StoreFull
from cyclone.messages import TaskEnd
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
from cyclone.model.lifecycle import JobState, Outcome, State
from cyclone.model.peer import Peer
from cyclone.model.task import Cause, End, Policy, Retry, first_token
from cyclone.store.memory import MemoryStore
from cyclone.store.promise import Store
from cyclone.store.sqlite import SqliteStore

POLICY = Policy(kind="work.Move", priority=3, retry=Retry(errors=1), exclusive=True)
PEER = Peer("node", "a1")


class Life:
    """One store through the lives of its master, with the shortest words for what happens in them."""

    def __init__(self, born: Callable[[Life], Store], again: Callable[[Life, Store], Store]) -> None:
        self.now = 1000.0
        self._again = again
        self.store = born(self)
        self.wake()

    def wake(self) -> Remembered:
        woken = self.store.wake()
        self.live: list[LiveTask] = list(woken.live)
        return woken

    def restart(self) -> Remembered:
        self.store = self._again(self, self.store)
        return self.wake()

    def remember(self, *changes: Change) -> None:
        payloads = {
            (c.job, c.tid): c.tid.encode("utf-8", "surrogatepass")
            for c in changes
            if isinstance(c, TaskAccepted)
        }
        ends = [c for c in changes if isinstance(c, TaskEnded) and c.end.state is State.SUCCEEDED]
        values = {c.end.end.token: f"value of {c.end.tid}".encode() for c in ends if c.end.end is not None}
        self.store.remember(changes, payloads, values)

    def forget(self, keep_s: float | None) -> None:
        while self.store.forget(keep_s):
            pass


def _sqlite_again(life: Life, store: Store) -> Store:
    assert isinstance(store, SqliteStore)
    store.close()
    return SqliteStore(store.path, clock=lambda: life.now)


def _memory_again(life: Life, store: Store) -> Store:
    assert isinstance(store, MemoryStore)
    return store.crashed()


@pytest.fixture(params=["sqlite", "memory"])
def life(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Life]:
    if request.param == "sqlite":
        life = Life(lambda life: SqliteStore(tmp_path / "store", clock=lambda: life.now), _sqlite_again)
    else:
        life = Life(lambda life: MemoryStore(clock=lambda: life.now), _memory_again)
    yield life
    life.store.close()


def accepted(
    number: int, tid: str = "", job: int = 1, policy: Policy = POLICY, after: tuple[str, ...] = ()
) -> TaskAccepted:
    return TaskAccepted(number, job, tid or f"t{number}", policy, after)


def ended(number: int, state: State = State.SUCCEEDED, job: int = 1, tid: str = "") -> TaskEnded:
    outcome = Outcome.SUCCEEDED if state is State.SUCCEEDED else Outcome.RAISED
    end = End(first_token(1) + number, 0.5, 12.0, outcome)
    return TaskEnded(number, job, "node", TaskEnd(tid or f"t{number}", state, 1, end))


def attempt(number: int, token: int, cause: Cause = Cause.ERROR) -> AttemptEnded:
    return AttemptEnded(number, 1, "node", cause, End(token, outcome=Outcome.RAISED, error="Ä: no"))


# Waking up.


def test_an_empty_store_wakes_up_with_nothing(life: Life) -> None:
    woken = life.restart()

    assert woken[1:4] == (0, 0, {})
    assert (life.live, woken.placements, woken.attempts) == ([], [], [])


def test_each_start_has_a_larger_epoch(life: Life) -> None:
    epochs = [life.restart().epoch for _ in range(3)]

    assert epochs == [epochs[0] + more for more in range(3)]


def test_a_live_task_is_woken_up_with_as_it_was_accepted(life: Life) -> None:
    life.remember(JobOpened(1, "night"), accepted(1), accepted(2, after=("t1",), policy=Policy(kind="b")))

    woken = life.restart()

    assert (woken.last_job, woken.last_number, woken.jobs) == (1, 2, {1: "night"})
    assert life.live == [
        LiveTask(1, 1, "t1", POLICY, (), 0.0),
        LiveTask(2, 1, "t2", Policy(kind="b"), ("t1",), 0.0),
    ]


def test_an_ended_task_is_not_woken_up_with(life: Life) -> None:
    life.remember(JobOpened(1, "night"), *(accepted(number) for number in range(1, 6)))
    life.remember(ended(1), ended(4, State.FAILED), ended(5, State.CANCELLED))

    woken = life.restart()

    assert [task.number for task in life.live] == [2, 3]
    assert woken.last_number == 5


@pytest.mark.parametrize(("passed_s", "waited_s"), [(60.0, 60.0), (-3600.0, 0.0)])
def test_a_task_has_waited_since_it_was_accepted_and_never_less_than_nothing(
    life: Life, passed_s: float, waited_s: float
) -> None:
    life.remember(JobOpened(1, "night"), accepted(1))

    life.now += passed_s
    life.restart()

    assert life.live[0].waited_s == waited_s


def test_stragglers_among_many_ended_tasks_are_woken_up_with(life: Life) -> None:
    life.remember(JobOpened(1, "night"), *(accepted(number) for number in range(1, 40_001)))
    stragglers = {1, 17, 16_384, 39_999}
    life.remember(*(ended(number) for number in range(1, 40_001) if number not in stragglers))
    life.remember(accepted(40_001), accepted(40_002))
    life.remember(ended(40_001))

    for _ in range(3):
        life.restart()

        assert [task.number for task in life.live] == [*sorted(stragglers), 40_002]

    life.remember(*(ended(number) for number in stragglers))
    life.remember(accepted(40_003))
    life.restart()

    assert [task.number for task in life.live] == [40_002, 40_003]


def test_placements_that_are_not_over_are_woken_up_with_oldest_first(life: Life) -> None:
    placed = [TasksPlaced(first, PEER, (first, first + 1)) for first in (30, 10, 20)]
    life.remember(*placed)
    life.remember(PlacementOver(20), TasksPlaced(40, PEER, (7,)), PlacementOver(40))

    woken = life.restart()

    assert woken.placements == [placed[1], placed[0]]


def test_ended_attempts_are_woken_up_with_while_their_task_lives(life: Life) -> None:
    life.remember(JobOpened(1, "night"), accepted(1), accepted(2))
    life.remember(attempt(1, 7), attempt(2, 8, Cause.NOBODY), attempt(1, 9, Cause.LOSS), ended(2))

    woken = life.restart()

    assert woken.attempts == [attempt(1, 7), attempt(1, 9, Cause.LOSS)]


def test_a_closed_job_is_not_woken_up_with(life: Life) -> None:
    life.remember(JobOpened(1, "night"), JobOpened(2, "day"), JobClosed(1, JobState.SUCCEEDED))

    woken = life.restart()

    assert (woken.last_job, woken.jobs) == (2, {2: "day"})


def test_a_sealed_job_is_woken_up_with_as_such_and_open_to_whoever_asks(life: Life) -> None:
    life.remember(JobOpened(1, "night"), JobOpened(2, "day"), JobOpened(3, "noon"))
    life.remember(JobSealed(1, JobState.SEALED), JobSealed(2, JobState.FAILING))

    woken = life.restart()

    assert woken.jobs == {1: "night", 2: "day", 3: "noon"}
    assert woken.sealed == {1: JobState.SEALED, 2: JobState.FAILING}
    assert [job.state for job in life.store.jobs()] == ["open"] * 3


def test_of_words_about_whether_more_will_come_the_newest_counts(life: Life) -> None:
    life.remember(JobOpened(1, "night"), JobSealed(1, JobState.SEALED), JobSealed(1, JobState.OPEN))
    life.remember(JobOpened(2, "day"), JobSealed(2, JobState.OPEN), JobSealed(2, JobState.FAILING))

    woken = life.restart()

    assert woken.sealed == {2: JobState.FAILING}


def test_a_sealed_job_is_closed_like_any_other(life: Life) -> None:
    life.remember(JobOpened(1, "night"), JobSealed(1, JobState.SEALED), JobClosed(1, JobState.FAILED))

    woken = life.restart()

    assert (woken.jobs, woken.sealed) == ({}, {})
    assert [job.state for job in life.store.jobs()] == ["failed"]


def test_a_store_wakes_up_once_in_a_life(life: Life) -> None:
    with pytest.raises(RuleBroken, match="once"):
        life.store.wake()


def test_nothing_is_remembered_before_the_live_tasks_were_read(life: Life) -> None:
    life.remember(JobOpened(1, "night"), accepted(1), accepted(2))
    life.store = life._again(life, life.store)
    woken = life.store.wake()
    live = iter(woken.live)
    next(live)

    with pytest.raises(RuleBroken, match="live tasks to be read"):
        life.remember(accepted(3))

    list(live)
    life.remember(accepted(3))


# Remembering: what breaks a rule is refused, and nothing of it is written.


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(ended(1), id="a second end"),
        pytest.param(ended(9), id="the end of nothing"),
        pytest.param(accepted(3, "t2"), id="a tid twice"),
        pytest.param(accepted(2, "new"), id="a number twice"),
        pytest.param(accepted(3, job=7), id="a task of no job"),
        pytest.param(accepted(3, job=2), id="a task of a closed job"),
        pytest.param(accepted(3, "\udcff"), id="a lone surrogate"),
        pytest.param(JobOpened(1, "again"), id="a job twice"),
        pytest.param(JobClosed(2, JobState.FAILED), id="a job closed twice"),
        pytest.param(JobClosed(3, JobState.FAILED), id="the closing of no job"),
        pytest.param(JobSealed(2, JobState.SEALED), id="the sealing of a closed job"),
        pytest.param(JobSealed(3, JobState.SEALED), id="the sealing of no job"),
        pytest.param(JobRemembers(2, 5.0), id="what a closed job is to remember"),
        pytest.param(JobRemembers(3, 5.0), id="what no job is to remember"),
        pytest.param(TasksPlaced(10, PEER, (2,)), id="a placement twice"),
        pytest.param(PlacementOver(11), id="the end of no placement"),
        pytest.param(attempt(2, 5), id="an attempt twice"),
    ],
)
def test_what_breaks_a_rule_is_refused_with_all_that_came_with_it(life: Life, wrong: Change) -> None:
    life.remember(JobOpened(1, "night"), JobOpened(2, "day"), accepted(1), accepted(2))
    life.remember(ended(1), TasksPlaced(10, PEER, (2,)), attempt(2, 5), JobClosed(2, JobState.SUCCEEDED))

    with pytest.raises(RuleBroken):
        life.remember(
            JobOpened(4, "other"), ended(2), PlacementOver(10), JobClosed(1, JobState.FAILED),
            TasksPlaced(12, PEER, (2,)), attempt(2, 6), wrong,
        )  # fmt: skip

    assert life.store.recall(1, ["t2"]) == {}
    woken = life.restart()
    assert woken.jobs == {1: "night"}
    assert woken.placements == [TasksPlaced(10, PEER, (2,))]
    assert woken.attempts == [attempt(2, 5)]
    assert [task.number for task in life.live] == [2]


def test_a_second_end_in_the_same_batch_is_refused(life: Life) -> None:
    life.remember(JobOpened(1, "night"), accepted(1))

    with pytest.raises(RuleBroken):
        life.remember(ended(1), ended(1, State.FAILED))

    life.restart()
    assert [task.number for task in life.live] == [1]


def test_a_task_without_a_payload_is_refused(life: Life) -> None:
    life.remember(JobOpened(1, "night"))

    with pytest.raises(RuleBroken, match="payload"):
        life.store.remember([accepted(1)], {}, {})


def test_a_success_without_a_value_is_refused(life: Life) -> None:
    life.remember(JobOpened(1, "night"), accepted(1))

    with pytest.raises(RuleBroken, match="value"):
        life.store.remember([ended(1)], {}, {})


def test_no_changes_change_nothing(life: Life) -> None:
    life.remember()

    assert life.restart().last_job == 0


def test_the_facts_of_one_batch_may_come_in_any_order(life: Life) -> None:
    facts: list[Change] = [
        JobClosed(1, JobState.SUCCEEDED), PlacementOver(5), ended(1), TasksPlaced(5, PEER, (1,)), accepted(1),
        JobOpened(1, "night"),
    ]  # fmt: skip

    life.remember(*facts)

    woken = life.restart()
    assert (woken.jobs, woken.placements, life.live) == ({}, [], [])


def test_one_tid_may_be_used_by_two_jobs(life: Life) -> None:
    life.remember(JobOpened(1, "a"), JobOpened(2, "b"), accepted(1, "x"), accepted(2, "x", job=2))

    life.remember(ended(2, job=2, tid="x"))

    assert life.store.recall(1, ["x"]) == {}
    assert list(life.store.recall(2, ["x"])) == ["x"]


# Payloads and values.


def test_payloads_come_in_the_order_asked_for_and_as_often(life: Life) -> None:
    life.remember(JobOpened(1, "night"), *(accepted(number) for number in range(1, 301)))

    for _ in range(2):
        assert life.store.payloads([300, 2, 2, 1]) == [b"t300", b"t2", b"t2", b"t1"]
    assert life.store.payloads([]) == []


def test_payloads_survive_a_restart(life: Life) -> None:
    life.remember(JobOpened(1, "night"), *(accepted(number) for number in range(1, 301)))

    life.restart()

    assert life.store.payloads(range(1, 301)) == [f"t{number}".encode() for number in range(1, 301)]


def test_the_payload_of_an_unknown_task_is_refused(life: Life) -> None:
    life.remember(JobOpened(1, "night"), accepted(1), accepted(3))

    for number in (2, 4):
        with pytest.raises(RuleBroken, match="never accepted"):
            life.store.payloads([1, number])


@pytest.mark.parametrize("tid", ["t", "ost|0'012\"@2026\n", "ä\u0000b", "\U0001f300", "NULL"])
def test_an_ended_task_is_recalled_with_its_end_and_value_whatever_its_tid(life: Life, tid: str) -> None:
    life.remember(JobOpened(1, "night"), accepted(1, tid), accepted(2, tid + "+"))
    life.remember(ended(1, tid=tid))

    for _ in range(2):
        assert life.store.recall(1, [tid, tid + "+", "unknown"]) == {
            tid: (ended(1, tid=tid).end, f"value of {tid}".encode())
        }
        life.restart()


def test_any_number_of_tids_is_recalled(life: Life) -> None:
    numbers = range(1, 252)
    life.remember(JobOpened(1, "night"), *(accepted(number) for number in numbers))
    life.remember(*(ended(number) for number in numbers if number % 2))

    found = life.store.recall(1, [f"t{number}" for number in numbers])

    assert found.keys() == {f"t{number}" for number in numbers if number % 2}
    assert life.store.recall(1, []) == {}


def test_an_end_without_an_attempt_is_recalled_with_its_reason_and_no_value(life: Life) -> None:
    skipped = TaskEnd("t1", State.SKIPPED, 0, None, "`x` before it failed")
    life.remember(JobOpened(1, "night"), accepted(1))

    life.remember(TaskEnded(1, 1, "", skipped))

    assert life.store.recall(1, ["t1"]) == {"t1": (skipped, b"")}


# Forgetting. What any history leaves behind is in tests/properties/test_forgetting.py.


def test_a_job_is_forgotten_so_long_after_it_was_closed_and_not_before(life: Life) -> None:
    life.remember(JobOpened(1, "night"), accepted(1), accepted(2), attempt(2, 5))
    life.remember(ended(1), ended(2, State.FAILED), JobClosed(1, JobState.FAILED))

    life.now += 99.0
    life.forget(100.0)
    assert life.store.task("t2") is not None

    life.now += 1.0
    life.forget(100.0)
    assert (life.store.task("t2"), life.store.tasks(), life.store.jobs()) == (None, ([], False), [])


def test_a_store_that_keeps_everything_forgets_no_closed_job(life: Life) -> None:
    life.remember(JobOpened(1, "night"), accepted(1))
    life.remember(ended(1), JobClosed(1, JobState.SUCCEEDED))

    life.now += 1e9
    life.forget(None)

    assert life.store.task("t1") is not None


def test_numbers_of_what_was_forgotten_are_not_used_again(life: Life) -> None:
    life.remember(JobOpened(1, "night"), JobOpened(2, "day"), accepted(1), accepted(2, job=2))
    life.remember(
        ended(1), ended(2, job=2), JobClosed(2, JobState.SUCCEEDED), JobClosed(1, JobState.SUCCEEDED)
    )
    life.now += 1.0
    life.forget(1.0)

    for _ in range(2):
        woken = life.restart()

        assert (woken.last_job, woken.last_number, woken.jobs) == (2, 2, {})


def test_an_open_job_remembers_everything_unless_it_says_otherwise(life: Life) -> None:
    life.remember(JobOpened(1, "night"), accepted(1), JobOpened(2, "rounds"), JobRemembers(2, 60.0))
    life.remember(accepted(2, job=2), accepted(3, job=2), ended(1))
    life.remember(ended(2, job=2))

    life.now += 60.0
    life.forget(1.0)

    assert life.store.recall(1, ["t1"]).keys() == {"t1"}
    assert life.store.recall(2, ["t2"]) == {}
    assert life.store.task("t3", "rounds") is not None


def test_a_task_of_an_open_job_is_remembered_from_its_end_on_and_not_from_its_beginning(life: Life) -> None:
    life.remember(JobOpened(1, "rounds"), JobRemembers(1, 60.0), accepted(1), accepted(2), accepted(3))
    life.now += 1000.0
    life.remember(ended(2))
    life.forget(1.0)
    life.remember(ended(1))
    life.now += 59.0
    life.forget(1.0)

    assert life.store.recall(1, ["t1", "t2", "t3"]).keys() == {"t1", "t2"}

    life.now += 1.0
    life.forget(1.0)
    assert life.store.recall(1, ["t1", "t2", "t3"]) == {}
    life.restart()
    assert [task.number for task in life.live] == [3]


def test_counts_are_of_what_has_been_and_say_how_much_of_it_is_forgotten(life: Life) -> None:
    life.remember(JobOpened(1, "rounds"), JobRemembers(1, 60.0), accepted(1), accepted(2), accepted(3))
    life.remember(ended(1), ended(2, State.FAILED))
    life.now += 60.0
    life.remember(ended(3))
    life.forget(1.0)

    woken = life.restart()

    [job] = life.store.jobs()
    assert (job.counts, job.forgotten) == ({"succeeded": 2, "failed": 1}, 2)
    assert woken.marred == {1}
    assert woken.remember_s == {1: 60.0}


def test_a_tid_that_was_forgotten_is_new(life: Life) -> None:
    life.remember(JobOpened(1, "rounds"), JobRemembers(1, 60.0), accepted(1, "x"))
    life.remember(ended(1, tid="x"))
    life.now += 60.0
    life.forget(1.0)

    life.remember(accepted(2, "x"))

    stored = life.store.task("x")
    assert stored is not None
    assert (stored.number, stored.end) == (2, None)


def test_of_words_about_what_is_to_be_remembered_the_newest_counts(life: Life) -> None:
    life.remember(JobOpened(1, "rounds"), JobRemembers(1, 60.0), JobRemembers(1, 600.0), accepted(1))
    life.remember(ended(1))
    life.now += 60.0
    life.forget(1.0)
    assert life.store.recall(1, ["t1"]).keys() == {"t1"}

    life.remember(JobRemembers(1, None))
    life.now += 600.0
    life.forget(1.0)
    assert life.store.recall(1, ["t1"]).keys() == {"t1"}

    life.remember(JobRemembers(1, 60.0))
    life.forget(1.0)
    assert life.store.recall(1, ["t1"]) == {}


def test_nothing_is_forgotten_before_the_live_tasks_were_read(life: Life) -> None:
    life.store = life._again(life, life.store)

    with pytest.raises(RuleBroken, match="before it can forget"):
        life.store.forget(1.0)

    list(life.store.wake().live)


# What people ask.


def test_ended_tasks_are_listed_newest_first_and_cut_at_the_limit(life: Life) -> None:
    life.remember(JobOpened(1, "night"), *(accepted(number) for number in range(1, 6)))
    life.remember(ended(4), ended(1), ended(3, State.FAILED))

    everything, cut = life.store.tasks(limit=3)
    some, cut_short = life.store.tasks(limit=2)

    assert ([view.number for view in everything], cut) == ([4, 3, 1], False)
    assert ([view.number for view in some], cut_short) == ([4, 3], True)
    first = everything[0]
    assert (first.job, first.tid, first.kind, first.controller) == ("night", "t4", "work.Move", "node")
    assert first.end == ended(4).end.end


def test_ended_tasks_are_listed_by_job_state_and_kind(life: Life) -> None:
    other = Policy(kind="other")
    life.remember(JobOpened(1, "night"), accepted(1), accepted(2), JobOpened(2, "day"))
    life.remember(accepted(3, job=2), accepted(4, policy=other), accepted(5), accepted(6, job=2))
    life.remember(ended(1), ended(2, State.FAILED), ended(3, State.FAILED, job=2), ended(4))
    life.remember(JobClosed(1, JobState.FAILED), JobOpened(3, "night"), accepted(7, job=3), ended(7, job=3))

    def numbers(job: str = "", states: tuple[State, ...] = (), kind: str = "") -> list[int]:
        return [view.number for view in life.store.tasks(job, states, kind)[0]]

    assert numbers() == [7, 3, 4, 2, 1]
    assert numbers("night") == [7, 4, 2, 1]
    assert numbers("day") == [3]
    assert numbers("unknown") == []
    assert numbers(states=(State.FAILED,)) == [3, 2]
    assert numbers("night", (State.FAILED, State.SUCCEEDED)) == [7, 4, 2, 1]
    assert numbers(states=(State.READY,)) == []
    assert numbers(kind="other") == [4]


def test_a_live_task_is_told_with_all_that_is_known(life: Life) -> None:
    life.remember(JobOpened(1, "night"), accepted(1), accepted(2, after=("t1",)), attempt(2, 5))

    told = life.store.task("t2")

    assert told == (2, "night", "t2", POLICY, ("t1",), 1000.0, [attempt(2, 5)], None, "")


def test_an_ended_task_is_told_with_its_end(life: Life) -> None:
    life.remember(JobOpened(1, "night"), accepted(1), attempt(1, 9), attempt(1, 5), ended(1, State.FAILED))

    told = life.store.task("t1", "night")

    assert told is not None
    assert told.attempts == [attempt(1, 5), attempt(1, 9)]
    assert (told.end, told.peer) == (ended(1, State.FAILED).end, "node")


def test_a_tid_is_looked_for_in_the_newest_job_first(life: Life) -> None:
    life.remember(JobOpened(1, "night"), accepted(1, "x"), accepted(2, "y"), JobClosed(1, JobState.SUCCEEDED))
    life.remember(JobOpened(2, "night"), accepted(3, "x", job=2), JobOpened(3, "day"))
    life.remember(accepted(4, "x", job=3))

    def number(tid: str, job: str = "") -> int | None:
        told = life.store.task(tid, job)
        return None if told is None else told.number

    assert number("x") == 4
    assert number("x", "night") == 3
    assert number("y", "night") == 2
    assert number("y", "day") is None
    assert number("z") is None


def test_jobs_are_told_newest_first_with_the_counts_of_what_has_ended(life: Life) -> None:
    life.remember(JobOpened(1, "night"), accepted(1), accepted(2), accepted(3))
    life.remember(ended(1), ended(2))
    life.now += 5
    life.remember(ended(3, State.FAILED), JobClosed(1, JobState.FAILED), JobOpened(2, "day"))

    for _ in range(2):
        newest, oldest = life.store.jobs()
        life.restart()

        assert (newest.number, newest.name, newest.state, newest.counts) == (2, "day", "open", {})
        assert (oldest.opened_at, oldest.closed_at, oldest.state) == (1000.0, 1005.0, "failed")
        assert oldest.counts == {"succeeded": 2, "failed": 1}
    assert [job.number for job in life.store.jobs(limit=1)] == [2]


def test_a_full_memory_refuses_and_goes_on_when_there_is_room() -> None:
    life = Life(lambda life: MemoryStore(clock=lambda: life.now), _memory_again)
    assert isinstance(life.store, MemoryStore)
    life.store.full = True
    with pytest.raises(StoreFull):
        life.remember(JobOpened(1, "night"))

    life.store.full = False
    life.remember(JobOpened(1, "night"))

    assert life.restart().jobs == {1: "night"}


def test_a_copy_in_memory_goes_its_own_way() -> None:
    life = Life(lambda life: MemoryStore(clock=lambda: life.now), _memory_again)
    life.remember(JobOpened(1, "night"), accepted(1))
    assert isinstance(life.store, MemoryStore)

    copy = life.store.copied()
    life.remember(ended(1))

    woken = copy.wake()
    assert (woken.epoch, [task.number for task in woken.live]) == (2, [1])
    assert copy.recall(1, ["t1"]) == {}
