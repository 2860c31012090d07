"""An invariant that is never broken is worth nothing: each is broken here on purpose."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from core_builders import Master, Node

from cyclone.core import invariants
from cyclone.core.crew import WorkerState
from cyclone.model.lifecycle import State


@pytest.fixture
def master() -> Master:
    """One task placed, one ready, one waiting."""
    master = Master()
    master.join()
    master.submit("placed", "ready")
    master.submit("waiting", after=("placed",))
    master.tick()
    return master


@pytest.fixture
def node() -> Node:
    """One attempt with a worker, one in the queue."""
    node = Node()
    node.work("runs")
    node.place("waits")
    return node


def held_under_another_token(master: Master) -> None:
    master.task("placed").token += 1


def held_and_not_placed(master: Master) -> None:
    master.task("placed").state = State.RESTING


def placed_and_held_by_nobody(master: Master) -> None:
    task = master.task("placed")
    assert task.bundle is not None
    task.bundle.controller.held.clear()


def bundle_counted_wrongly(master: Master) -> None:
    next(iter(next(iter(master.mind.controllers.values())).bundles)).open += 1


def room_counted_wrongly(master: Master) -> None:
    next(iter(master.mind.controllers.values())).room.free["cpus"] += 1


def ended_and_kept(master: Master) -> None:
    master.task("ready").state = State.FAILED


def waiting_for_nobody(master: Master) -> None:
    master.mind._graph.forget(master.task("waiting"))


def ready_and_not_queued(master: Master) -> None:
    master.mind.ready.forget(master.task("ready"))


def counted_wrongly(master: Master) -> None:
    master.task("ready").job.counts[State.READY] += 1


@pytest.mark.parametrize(
    "broken",
    [
        held_under_another_token,
        held_and_not_placed,
        placed_and_held_by_nobody,
        bundle_counted_wrongly,
        room_counted_wrongly,
        ended_and_kept,
        waiting_for_nobody,
        ready_and_not_queued,
        counted_wrongly,
    ],
)
def test_a_scheduler_that_is_broken_is_noticed(master: Master, broken: Callable[[Master], None]) -> None:
    invariants.check_scheduler(master.mind)
    broken(master)

    with pytest.raises(AssertionError):
        invariants.check_scheduler(master.mind)


def idle_with_a_chunk(node: Node) -> None:
    node.mind.workers[0].state = WorkerState.IDLE


def busy_with_nothing_left(node: Node) -> None:
    node.mind.workers[0].done = 1


def with_what_is_not_its_own(node: Node) -> None:
    node.mind.workers[0].chunk[0].worker = None


def more_taken_than_there_is(node: Node) -> None:
    node.mind.room.free["cpus"] -= 1


def neither_queued_nor_with_a_worker(node: Node) -> None:
    node.mind.queued()[0].policy = node.held(1).policy
    node.mind._queues.clear()


def held_and_ended(node: Node) -> None:
    [end] = node.finish(0, 1).letters[0].message.ends  # type: ignore[attr-defined]
    node.mind.held[end.token] = node.mind.queued()[0]


@pytest.mark.parametrize(
    "broken",
    [
        idle_with_a_chunk,
        busy_with_nothing_left,
        with_what_is_not_its_own,
        more_taken_than_there_is,
        neither_queued_nor_with_a_worker,
        held_and_ended,
    ],
)
def test_a_crew_that_is_broken_is_noticed(node: Node, broken: Callable[[Node], None]) -> None:
    invariants.check_crew(node.mind)
    broken(node)

    with pytest.raises(AssertionError):
        invariants.check_crew(node.mind)
