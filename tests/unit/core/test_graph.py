from __future__ import annotations

import pytest

from cyclone.core.graph import CYCLE_NAMED, Graph, find_cycle, predecessors, problem_with
from cyclone.core.live import Job, Task
from cyclone.messages import Submission
from cyclone.model.lifecycle import State
from cyclone.model.task import Policy


@pytest.fixture
def tasks() -> list[Task]:
    job = Job(1, "job")
    return [Task(number, job, f"t{number}", Policy(), State.WAITING) for number in range(1, 6)]


def test_a_follower_is_free_when_the_last_one_before_it_has_succeeded(tasks: list[Task]) -> None:
    first, second, last, *_ = tasks
    graph = Graph()
    graph.add(last, [first, second])

    freed = [graph.succeeded(first), graph.succeeded(second)]

    assert freed == [[], [last]]


def test_it_tells_how_many_are_waited_for(tasks: list[Task]) -> None:
    first, second, last, *_ = tasks
    graph = Graph()
    graph.add(last, [first, second])
    graph.succeeded(first)

    assert graph.waits_for(last) == 1
    assert graph.waits_for(first) == 0


def test_followers_are_freed_oldest_edge_first(tasks: list[Task]) -> None:
    first, *others = tasks
    graph = Graph()
    for task in others:
        graph.add(task, [first])

    freed = graph.succeeded(first)

    assert freed == others


def test_a_failure_names_all_that_waited_in_vain(tasks: list[Task]) -> None:
    first, second, third, *_ = tasks
    graph = Graph()
    graph.add(second, [first])
    graph.add(third, [first])

    vain = graph.failed(first)

    assert vain == [second, third]


def test_who_waited_in_vain_is_not_named_by_a_second_failure(tasks: list[Task]) -> None:
    first, second, last, *_ = tasks
    graph = Graph()
    graph.add(last, [first, second])
    graph.failed(first)

    vain = graph.failed(second)

    assert vain == []


def test_who_ended_while_it_waited_is_not_freed(tasks: list[Task]) -> None:
    first, last, *_ = tasks
    graph = Graph()
    graph.add(last, [first])
    graph.forget(last)

    freed = graph.succeeded(first)

    assert freed == []


def test_a_task_that_nobody_comes_after_frees_nobody(tasks: list[Task]) -> None:
    graph = Graph()

    assert graph.succeeded(tasks[0]) == []
    assert graph.failed(tasks[0]) == []


# Circles.


def test_a_chain_is_no_circle() -> None:
    assert find_cycle({"c": ["b"], "b": ["a"]}) == []


def test_a_diamond_is_no_circle() -> None:
    assert find_cycle({"d": ["b", "c"], "b": ["a"], "c": ["a"]}) == []


def test_a_task_after_itself_is_a_circle() -> None:
    assert find_cycle({"a": ["a"]}) == ["a", "a"]


def test_a_circle_is_told_without_the_way_to_it() -> None:
    assert find_cycle({"x": ["a"], "a": ["b"], "b": ["c"], "c": ["a"]}) == ["a", "b", "c", "a"]


def test_a_chain_may_be_as_long_as_a_submission() -> None:
    chain = {str(number): [str(number + 1)] for number in range(100_000)}

    assert find_cycle(chain) == []


# Whether tasks may come after one another.


def test_of_a_tid_that_stands_twice_the_first_tells_what_it_comes_after() -> None:
    tasks = [
        Submission("a", 0, ("x",)),
        Submission("b", 0),
        Submission("a", 0, ("y",)),
        Submission("b", 0, ("z",)),
    ]

    assert predecessors(tasks) == {"a": ("x",)}


def test_tasks_that_come_after_nothing_have_no_predecessors() -> None:
    assert predecessors([Submission("a", 0), Submission("b", 0)]) == {}


def test_a_task_may_come_after_whatever_is_known_somewhere() -> None:
    assert problem_with({"a": ("b", "c")}, {"b"}, {"c": 1}) == ""


def test_of_a_name_that_nobody_knows_no_more_is_told_than_a_person_reads() -> None:
    assert len(problem_with({"a": ("\0" * 10**6,)}, set())) < 1500


def test_a_task_may_not_come_after_what_nobody_knows() -> None:
    problem = problem_with({"a": ("b", "c")}, {"b"})

    assert problem == "task 'a' comes after 'c', which this job does not know"


def test_a_circle_is_named() -> None:
    problem = problem_with({"a": ("b",), "b": ("a",)}, {"a", "b"})

    assert problem == "tasks come after one another in a circle: a after b after a"


def test_of_a_large_circle_some_are_named() -> None:
    after = {str(number): (str((number + 1) % 50),) for number in range(50)}

    problem = problem_with(after, after)

    assert problem.count(" after ") == CYCLE_NAMED + 1
    assert "(50 tasks)" in problem
