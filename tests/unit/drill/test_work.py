"""The work of a drill: every kind that faults treat differently, and the same in each life of the generator."""

from __future__ import annotations

import pytest

from cyclone.drill.plan import LEASE_S, NODES
from cyclone.drill.site import WORKERS
from cyclone.drill.work import PACE, Poison, Stream, Work
from cyclone.ini import Ini


def stream(seed: int = 4, gateway: str = "on") -> Stream:
    return Stream(Ini({"drill": {"seed": str(seed), "began": "0", "gateway": gateway}}))


@pytest.fixture(scope="module")
def tasks() -> list[Work]:
    each = [stream().task(number) for number in range(600)]
    return [task for task in each if isinstance(task, Work)]


def test_a_task_is_the_same_in_each_life_of_its_generator() -> None:
    for number in range(100):
        one, other = stream().task(number), stream().task(number)

        assert type(one) is type(other)
        assert vars(one) == vars(other)


def test_another_seed_makes_other_tasks() -> None:
    assert [vars(stream(1).task(number)) for number in range(50)] != [
        vars(stream(2).task(number)) for number in range(50)
    ]


def test_there_is_one_poison() -> None:
    assert [number for number in range(600) if isinstance(stream().task(number), Poison)] == [PACE]


def test_every_kind_of_work_comes_within_a_minute(tasks: list[Work]) -> None:
    exclusive = [task for task in tasks if task.exclusive]

    assert any(task.fails for task in tasks)
    assert any(task.records > 1 for task in tasks)
    assert any(task.after for task in tasks)
    assert any(task.seconds > 0.5 and not task.exclusive for task in tasks)
    assert any(task.seconds < LEASE_S for task in exclusive)
    assert any(task.seconds > LEASE_S for task in exclusive)


def test_samples_are_made_where_there_is_somebody_who_takes_them(tasks: list[Work]) -> None:
    without = [stream(gateway="off").task(number) for number in range(600)]

    assert any(task.sampled and task.records for task in tasks)
    assert not any(task.sampled for task in without if isinstance(task, Work))


def test_nobody_waits_for_the_poison_or_for_what_comes_later(tasks: list[Work]) -> None:
    for task in tasks:
        assert all(int(tid.removeprefix("work-")) < task.number for tid in task.after)
        assert f"work-{PACE}" not in task.after


def test_nine_workers_have_time_for_all_of_it(tasks: list[Work]) -> None:
    busy_workers = PACE * sum(task.seconds for task in tasks) / len(tasks)

    assert busy_workers < 0.7 * WORKERS * len(NODES)
