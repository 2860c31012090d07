"""What a restarted master knows, from what the one before it remembered."""

from __future__ import annotations

import pytest
from core_builders import CLIENT, Master

from cyclone.messages import Close, Report
from cyclone.model.changes import JobClosed
from cyclone.model.lifecycle import Outcome, State
from cyclone.model.peer import Peer
from cyclone.model.task import SPREAD, Cause, Retry


@pytest.fixture
def master() -> Master:
    return Master()


def test_an_empty_store_wakes_up_to_nothing(master: Master) -> None:
    master.start()

    assert master.mind.jobs == {}
    assert master.mind.is_idle


def test_ready_tasks_are_ready_again_by_age(master: Master) -> None:
    master.submit("a", "b")
    master.start()
    node = master.join(workers=2)

    master.tick()

    assert master.tids(node) == ["a", "b"]


def test_what_was_placed_is_still_held_by_who_got_it(master: Master) -> None:
    node = master.join()
    master.submit("a")
    master.tick()
    token = master.token("a")

    master.start()

    assert master.state("a") is State.PLACED
    assert master.controller(node).held == {token: master.task("a")}


def test_an_end_from_the_time_without_a_master_counts(master: Master) -> None:
    node = master.join()
    master.submit("a")
    master.tick()
    token = master.token("a")
    master.start()

    master.ended(node, token)

    assert master.state("a") is State.SUCCEEDED


def test_what_is_held_takes_its_room_when_its_controller_reports(master: Master) -> None:
    node = master.join()
    master.submit("a", "b")
    master.tick()
    token = master.token("a")
    master.start()
    master.hear(node, _report(master, token))

    master.tick()

    assert master.tids(node) == []
    assert master.controller(node).room.free["workers"] == 0


def test_a_controller_is_given_nothing_before_it_has_reported(master: Master) -> None:
    node = master.join(workers=2)
    master.submit("a")
    master.tick()
    master.submit("b")
    master.start()

    master.tick()

    assert master.tids(node) == []


def test_what_is_over_of_a_placement_is_not_held_again(master: Master) -> None:
    node = master.join()
    master.taught(duration_s=0.001)
    master.submit("a", "b", "c")
    master.tick()
    master.ended(node, master.token("a"))
    master.ended(node, master.token("b"), outcome=Outcome.EVICTED)

    master.start()

    assert [task.tid for task in master.controller(node).held.values()] == ["c"]
    assert master.state("b") is State.READY


def test_a_placement_of_which_nothing_is_left_is_held_by_nobody(master: Master) -> None:
    node = master.join()
    master.taught(duration_s=0.001)
    master.submit("a", "b")
    master.tick()
    first = master.token("a")
    master.ended(node, first)
    master.ended(node, first + 1, outcome=Outcome.EVICTED)

    master.start()

    assert master.mind.controllers == {}


def test_a_task_that_was_placed_again_is_held_under_its_newest_token(master: Master) -> None:
    node = master.join()
    master.taught(duration_s=0.001)
    master.submit("a", "b")
    master.tick()
    master.ended(node, master.token("a"), outcome=Outcome.EVICTED)
    other = master.join("other")
    master.tick()
    newest = master.token("a")

    master.start()

    assert master.token("a") == newest
    assert master.controller(other).held == {newest: master.task("a")}


def test_a_resting_task_rests_again_in_full(master: Master) -> None:
    node = master.join()
    master.submit("a", retry=Retry(errors=3, delay_s=4.0))
    master.tick()
    master.raised(node, master.token("a"))
    master.now += 3
    master.start()
    master.tick(3.9)
    before = master.state("a")

    master.tick(4.0 * SPREAD + 0.1)

    assert before is State.RESTING
    assert master.state("a") is State.READY


def test_a_task_that_came_back_without_fault_is_ready(master: Master) -> None:
    node = master.join()
    master.submit("a")
    master.tick()
    master.ended(node, master.token("a"), outcome=Outcome.EVICTED)

    master.start()

    assert master.state("a") is State.READY


def test_attempts_go_on_being_counted(master: Master) -> None:
    node = master.join()
    master.submit("a", retry=Retry(errors=1, delay_s=0))
    master.tick()
    master.raised(node, master.token("a"))
    master.start()
    master.hear(node, _report(master))
    master.tick()

    master.raised(node, master.token("a"))

    assert master.state("a") is State.FAILED
    assert master.end("a").attempts == 2


def test_what_an_attempt_was_billed_to_is_known_again(master: Master) -> None:
    node = master.join()
    master.submit("a", retry=Retry(crashes=3))
    master.tick()
    master.ended(node, master.token("a"), outcome=Outcome.SIGNALLED, died=True)

    master.start()

    history = master.task("a").history
    assert history is not None
    assert history.billed == {Cause.CRASH: 1}
    assert master.task("a").is_suspect


def test_waiting_tasks_wait_for_those_that_live(master: Master) -> None:
    node = master.join(workers=2)
    master.submit("a", "b")
    master.tick()
    master.submit("last", after=("a", "b"))
    master.ended(node, master.token("a"))
    token = master.token("b")
    master.start()
    before = master.state("last")

    master.ended(node, token)

    assert before is State.WAITING
    assert master.state("last") is State.READY


def test_a_task_whose_predecessors_have_all_succeeded_is_ready(master: Master) -> None:
    node = master.join()
    master.submit("a")
    master.tick()
    master.submit("b", after=("a",))
    master.ended(node, master.token("a"))

    master.start()

    assert master.state("b") is State.READY


def test_expiry_counts_from_acceptance_across_restarts(master: Master) -> None:
    master.submit("a", expires_s=5.0)
    master.now += 3
    master.start()
    master.tick(1.9)
    before = master.state("a")

    master.tick(0.1)

    assert before is State.READY
    assert master.state("a") is State.CANCELLED


def test_a_closed_job_is_not_open_again(master: Master) -> None:
    master.open()
    master.hear(CLIENT, Close(1, 1))

    master.start()

    assert master.mind.jobs == {}
    assert master.open() == 2


def test_a_resumed_job_closes_when_its_last_task_has_ended(master: Master) -> None:
    node = master.join()
    master.submit("a")
    master.tick()
    token = master.token("a")
    master.start()
    again = Peer("client", "c2")
    master.open(client=again)
    master.hear(again, Close(1, 1))

    master.ended(node, token)
    master.tick()

    assert master.changes(JobClosed)


def _report(master: Master, *held: int) -> Report:
    return Report(master.now, (("cpus", 10_000), ("workers", 10_000)), list(held))
