from __future__ import annotations

import pytest

from cyclone.core.live import Bundle, Controller, History, Job, Task, move, with_worker
from cyclone.model.lifecycle import LIFECYCLE, Event, State
from cyclone.model.peer import Peer
from cyclone.model.resources import shape
from cyclone.model.task import Cause, Policy

ROOM = shape({"cpus": 2, "workers": 2})
ONE = shape({"cpus": 1, "workers": 1})


@pytest.fixture
def controller() -> Controller:
    controller = Controller(Peer("node", "1"), 0.0)
    controller.report_at = 0.0
    controller.resize(ROOM)
    return controller


def bundle(controller: Controller, first: int, *, ahead: bool = False, size: int = 1) -> Bundle:
    made = Bundle(first, controller, ONE, size, size, 0.0, 0.0, ahead)
    controller.take(made)
    return made


def over(given: Bundle) -> None:
    given.open = 0
    given.controller.give_back(given)


# Tasks.


def test_a_task_without_history_had_no_attempts_and_is_no_suspect() -> None:
    task = Task(1, Job(1, "job"), "t", Policy(), State.READY)

    assert task.attempts_over == 0
    assert not task.is_suspect


@pytest.mark.parametrize(
    ("cause", "suspect"), [(each, each in (Cause.CRASH, Cause.LOSS, Cause.UNKNOWN)) for each in Cause]
)
def test_only_deaths_make_a_suspect(cause: Cause, suspect: bool) -> None:
    task = Task(1, Job(1, "job"), "t", Policy(), State.READY)
    task.history = History(attempts=1)
    task.history.billed[cause] = 1

    assert task.is_suspect is suspect
    assert task.attempts_over == 1


def test_a_move_changes_the_counts_of_the_job() -> None:
    job = Job(1, "job")
    job.counts[State.READY] = 1
    task = Task(1, job, "t", Policy(), State.READY)

    move(task, Event.PLACED)

    assert task.state is State.PLACED
    assert +job.counts == {State.PLACED: 1}


def test_what_has_ended_is_not_counted_among_the_live() -> None:
    job = Job(1, "job")
    job.counts[State.READY] = 1

    move(Task(1, job, "t", Policy(), State.READY), Event.CANCELLED)

    assert +job.counts == {}


@pytest.mark.parametrize(
    ("state", "event"),
    [(state, event) for state in State for event in Event if event not in LIFECYCLE.get(state, {})],
)
def test_what_the_lifecycle_does_not_know_cannot_happen(state: State, event: Event) -> None:
    task = Task(1, Job(1, "job"), "t", Policy(), state)

    with pytest.raises(KeyError):
        move(task, event)

    assert task.state is state


def test_every_attempt_takes_a_worker() -> None:
    assert with_worker(shape({"zinc": 1, "cpus": 2})) == shape({"cpus": 2, "workers": 1, "zinc": 1})


# Controllers.


def test_a_controller_takes_tasks_when_it_has_reported(controller: Controller) -> None:
    fresh = Controller(Peer("other", "1"), 0.0)

    assert controller.takes_tasks
    assert not fresh.takes_tasks


@pytest.mark.parametrize("reason", ["silent", "leaving", "told_to_leave"])
def test_a_controller_that_is_gone_or_going_takes_none(controller: Controller, reason: str) -> None:
    setattr(controller, reason, True)

    assert not controller.takes_tasks


def test_one_that_is_excluded_is_there_and_takes_none(controller: Controller) -> None:
    controller.excluded_until = 60.0

    assert controller.is_present
    assert not controller.takes_tasks


def test_the_same_size_again_is_no_news(controller: Controller) -> None:
    assert not controller.resize(ROOM)
    assert controller.resize(ONE)


def test_what_is_ahead_does_not_take_room(controller: Controller) -> None:
    bundle(controller, 1, ahead=True)

    assert controller.room.free["workers"] == 20_000
    assert controller.ahead.free["workers"] == 10_000


def test_a_spare_worker_may_be_ahead(controller: Controller) -> None:
    for first in (1, 2):
        bundle(controller, first)
    before = controller.has_spare_worker
    for first in (3, 4):
        bundle(controller, first, ahead=True)

    assert before
    assert not controller.has_spare_worker


def test_the_oldest_that_waits_moves_up_when_there_is_room(controller: Controller) -> None:
    first = bundle(controller, 1)
    bundle(controller, 2)
    waits, waits_too = bundle(controller, 3, ahead=True), bundle(controller, 4, ahead=True)

    over(first)

    assert (waits.ahead, waits_too.ahead) == (False, True)
    assert controller.room.free["workers"] == 0
    assert controller.ahead.free["workers"] == 10_000


def test_what_is_over_while_it_waits_does_not_move_up(controller: Controller) -> None:
    first = bundle(controller, 1)
    bundle(controller, 2)
    called_back, waits = bundle(controller, 3, ahead=True), bundle(controller, 4, ahead=True)
    over(called_back)

    over(first)

    assert not waits.ahead
    assert controller.ahead.free["workers"] == 20_000
    assert not controller.waiting


def test_a_bundle_knows_which_of_its_attempts_are_not_known_to_run(controller: Controller) -> None:
    job, states = Job(1, "job"), (State.PLACED, State.RUNNING, State.PLACED)
    for token, state in enumerate(states, 7):
        controller.held[token] = Task(token, job, str(token), Policy(), state)

    assert bundle(controller, 7, size=4).unstarted == [7, 9]
