from __future__ import annotations

from itertools import count

import pytest
from core_builders import a_policy

from cyclone.core.live import History, Job, Task, move
from cyclone.core.ready_queue import Lane, ReadyQueue
from cyclone.model.lifecycle import Event, State
from cyclone.model.task import Cause, Policy

SMALL = a_policy()
URGENT = a_policy(priority=5)
LARGE = a_policy(resources={"cpus": 8})


class Tasks:
    """Makes ready tasks, each younger than the one before."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._job = Job(1, "job")

    def make(self, policy: Policy = SMALL, amount: int = 1) -> list[Task]:
        made = []
        for _ in range(amount):
            number = next(self._numbers)
            self._job.counts[State.READY] += 1
            made.append(Task(number, self._job, f"t{number}", policy, State.READY))
        return made


@pytest.fixture
def tasks() -> Tasks:
    return Tasks()


@pytest.fixture
def queue() -> ReadyQueue:
    return ReadyQueue()


def lane(queue: ReadyQueue, policy: Policy = SMALL) -> Lane:
    return next(
        lane for lane in queue.in_turn() if dict(lane.shape)["cpus"] == dict(policy.resources)["cpus"]
    )


def suspect(task: Task) -> Task:
    task.history = History()
    task.history.billed[Cause.CRASH] = 1
    return task


def test_tasks_of_one_shape_share_a_lane(queue: ReadyQueue, tasks: Tasks) -> None:
    queue.extend([*tasks.make(SMALL), *tasks.make(URGENT), *tasks.make(LARGE)])

    assert sorted(lane.size for lane in queue.in_turn()) == [1, 2]
    assert len(queue) == 3


def test_the_shape_of_a_lane_has_the_worker_that_each_attempt_takes(queue: ReadyQueue, tasks: Tasks) -> None:
    queue.extend(tasks.make())

    assert lane(queue).shape == (("cpus", 10_000), ("workers", 10_000))


def test_the_lane_of_the_highest_priority_comes_first(queue: ReadyQueue, tasks: Tasks) -> None:
    queue.extend([*tasks.make(SMALL), *tasks.make(a_policy(priority=1, resources={"cpus": 8}))])

    shapes = [dict(lane.shape)["cpus"] for lane in queue.in_turn()]

    assert shapes == [80_000, 10_000]


def test_of_lanes_of_equal_priority_the_one_with_the_oldest_head_comes_first(
    queue: ReadyQueue, tasks: Tasks
) -> None:
    [large] = tasks.make(LARGE)
    [small] = tasks.make(SMALL)
    queue.push(small)
    queue.push(large)

    heads = [lane.head() for lane in queue.in_turn()]

    assert heads == [large, small]


def test_a_lane_without_tasks_is_not_kept(queue: ReadyQueue, tasks: Tasks) -> None:
    [task] = tasks.make()
    queue.push(task)
    lane(queue).take(1, alone=False)

    assert queue.in_turn() == []
    assert queue.lane_of(task) is None


def test_what_was_returned_comes_before_what_was_never_placed(queue: ReadyQueue, tasks: Tasks) -> None:
    old, new = tasks.make(amount=2)
    queue.push(new)

    queue.push(old, returned=True)

    assert lane(queue).take(2, alone=False) == [old, new]


def test_a_higher_priority_in_a_lane_comes_first(queue: ReadyQueue, tasks: Tasks) -> None:
    [old] = tasks.make()
    [urgent] = tasks.make(URGENT)
    queue.push(old)
    queue.push(urgent)

    assert lane(queue).head() is urgent


def test_tasks_are_taken_by_age_and_counted(queue: ReadyQueue, tasks: Tasks) -> None:
    first, second, third = tasks.make(amount=3)
    queue.extend([first, second, third])

    taken = lane(queue).take(2, alone=False)

    assert taken == [first, second]
    assert len(queue) == 1


def test_only_tasks_of_the_policy_of_the_head_are_taken_with_it(queue: ReadyQueue, tasks: Tasks) -> None:
    alike = tasks.make(amount=2)
    queue.extend([*alike, *tasks.make(a_policy(timeout_s=1.0))])

    assert lane(queue).take(10, alone=False) == alike


def test_tasks_are_not_taken_across_priorities(queue: ReadyQueue, tasks: Tasks) -> None:
    urgent = tasks.make(URGENT)
    queue.extend([*tasks.make(SMALL), *urgent])

    assert lane(queue).take(10, alone=False) == urgent


def test_a_suspect_is_not_taken_along(queue: ReadyQueue, tasks: Tasks) -> None:
    first, second, third = tasks.make(amount=3)
    queue.extend([first, suspect(second), third])

    assert lane(queue).take(10, alone=False) == [first]


def test_a_task_that_came_back_without_suspicion_is_taken_along(queue: ReadyQueue, tasks: Tasks) -> None:
    first, second = tasks.make(amount=2)
    second.history = History()
    queue.extend([first, second])

    assert lane(queue).take(10, alone=False) == [first, second]


def test_a_task_that_ended_while_it_was_queued_is_swept_out(queue: ReadyQueue, tasks: Tasks) -> None:
    first, second, third = tasks.make(amount=3)
    queue.extend([first, second, third])
    for ended in (first, second):
        queue.forget(ended)
        move(ended, Event.CANCELLED)

    assert len(queue) == 1
    assert lane(queue).head() is third


def test_a_task_that_ended_in_the_middle_is_skipped(queue: ReadyQueue, tasks: Tasks) -> None:
    first, second, third = tasks.make(amount=3)
    queue.extend([first, second, third])
    queue.forget(second)
    move(second, Event.CANCELLED)

    assert lane(queue).take(10, alone=False) == [first, third]
    assert len(queue) == 0


def test_an_empty_lane_has_no_head_and_gives_nothing() -> None:
    empty = Lane(())

    assert empty.head() is None
    assert empty.take(3, alone=False) == []
