"""Who gets what next, asked of a whole scheduler."""

from __future__ import annotations

import pytest
from core_builders import CLIENT, LEASE_S, Master

from cyclone.core.placement import AHEAD_S, BUNDLE_MOST, CALL_BACK_AGAIN_S, CALL_BACK_S, PATIENCE_S
from cyclone.messages import Cancel, Place, Report
from cyclone.model.changes import TasksPlaced
from cyclone.model.lifecycle import Outcome, State
from cyclone.model.peer import Peer
from cyclone.model.task import Retry


@pytest.fixture
def master() -> Master:
    return Master()


def names(amount: int, prefix: str = "t") -> list[str]:
    return [f"{prefix}{number}" for number in range(amount)]


# Room.


def test_no_more_is_placed_than_there_is_room_for(master: Master) -> None:
    node = master.join(workers=2)
    master.submit(*names(5))

    master.tick()

    assert master.tids(node) == ["t0", "t1"]


def test_room_that_was_given_back_is_filled_again(master: Master) -> None:
    node = master.join()
    master.submit("a", "b")
    master.tick()
    master.ended(node, master.token("a"))

    master.tick()

    assert master.tids(node) == ["b"]


def test_every_resource_that_a_task_names_must_be_there(master: Master) -> None:
    master.join("plain", workers=2)
    able = master.join("able", workers=2, gpu=1)
    master.submit("a", "b", resources={"gpu": 1})

    master.tick()

    assert master.tids(able) == ["a"]
    assert master.state("b") is State.READY


def test_a_task_without_needs_takes_a_worker(master: Master) -> None:
    node = master.join(workers=1, cpus=4)
    master.submit("a", "b", resources={})

    master.tick()

    assert master.tids(node) == ["a"]


def test_tenths_of_a_cpu_add_up_to_one(master: Master) -> None:
    node = master.join(workers=20, cpus=1)
    master.submit(*names(12), resources={"cpus": 0.1})

    master.tick()

    assert len(master.tids(node)) == 10


def test_a_shape_that_nobody_has_waits_until_somebody_does(master: Master) -> None:
    master.join()
    master.submit("a", resources={"gpu": 1})
    master.tick()
    before = master.placed()
    able = master.join("able", gpu=1)

    master.tick()

    assert before == []
    assert master.tids(able) == ["a"]


def test_a_shape_that_nobody_has_does_not_hold_up_others(master: Master) -> None:
    node = master.join()
    master.submit("impossible", resources={"gpu": 1})
    master.submit("possible")
    master.tick(PATIENCE_S)
    master.tick(PATIENCE_S)

    master.tick(PATIENCE_S)

    assert [tid for to, place in master.places for tid in _tids(place)] == ["possible"]
    assert master.controller(node).held


def _tids(place: Place) -> list[str]:
    return [assignment.tid for assignment in place.assignments]


def test_a_controller_that_has_grown_is_given_more(master: Master) -> None:
    node = master.join()
    master.submit("a", "b")
    master.tick()
    master.hear(node, Report(master.now, (("cpus", 20_000), ("workers", 20_000)), [master.token("a")]))

    master.tick()

    assert master.tids(node) == ["b"]


# Whose turn it is.


def test_a_higher_priority_comes_first(master: Master) -> None:
    node = master.join()
    master.submit("low")
    master.submit("high", priority=1)

    master.tick()

    assert master.tids(node) == ["high"]


def test_of_equal_priority_the_older_comes_first(master: Master) -> None:
    node = master.join()
    master.submit("older", resources={"cpus": 0.5})
    master.submit("younger")

    master.tick()

    assert master.tids(node)[0] == "older"


def test_what_came_back_is_older_than_what_was_never_placed(master: Master) -> None:
    node = master.join()
    master.submit("a", "b")
    master.tick()
    master.ended(node, master.token("a"), outcome=Outcome.EVICTED)

    master.tick()

    assert master.tids(node) == ["a"]


# Fair shares.


def test_tasks_are_dealt_out_one_to_each_controller_a_round(master: Master) -> None:
    first, second = master.join("first", workers=4), master.join("second", workers=4)
    master.submit(*names(4))

    master.tick()

    assert [len(master.tids(node)) for node in (first, second)] == [2, 2]


def test_the_least_busy_controller_comes_first(master: Master) -> None:
    busy, idle = master.join("busy", workers=2), master.join("idle", workers=3)
    master.submit("a")

    master.tick()

    assert master.tids(idle) == ["a"]
    assert master.tids(busy) == []


def test_everybody_gets_a_share_of_short_tasks(master: Master) -> None:
    nodes = [master.join(name) for name in ("a", "b", "c", "d")]
    master.taught(duration_s=0.001)
    master.submit(*names(40))

    master.tick()

    assert [len(master.tids(node)) for node in nodes] == [10, 10, 10, 10]


def test_a_share_is_not_so_small_that_sending_it_costs_more_than_it_is(master: Master) -> None:
    nodes = [master.join(name) for name in ("a", "b", "c", "d")]
    master.taught(duration_s=0.000_099)
    master.submit(*names(40))

    master.tick()

    assert [len(master.tids(node)) for node in nodes] == [20, 20, 0, 0]


# Bundles.


def test_tasks_of_unknown_duration_travel_singly(master: Master) -> None:
    node = master.join()
    master.submit(*names(10))

    master.tick()

    assert len(master.tids(node)) == 1


def test_short_tasks_travel_in_bundles_that_share_one_room(master: Master) -> None:
    node = master.join()
    master.taught(duration_s=0.0049)
    master.submit(*names(100))

    master.tick()

    held = master.controller(node)
    assert [bundle.size for bundle in held.bundles] == [10, 10]
    assert held.room.free["workers"] == 0


def test_a_bundle_has_a_bound() -> None:
    master = Master(window=3 * BUNDLE_MOST)
    node = master.join()
    master.taught(duration_s=1e-7)
    master.submit(*names(3 * BUNDLE_MOST))

    master.tick()

    assert [bundle.size for bundle in master.controller(node).bundles] == [BUNDLE_MOST, BUNDLE_MOST]


def test_a_bundle_makes_room_when_the_last_of_it_is_over(master: Master) -> None:
    node = master.join()
    master.taught(duration_s=0.005)
    master.submit(*names(10))
    master.tick()
    tokens = list(master.controller(node).held)
    master.ended(node, *tokens[:-1])
    before = master.controller(node).room.free["workers"]

    master.ended(node, tokens[-1])

    assert before == 0
    assert master.controller(node).room.free["workers"] == 10_000


def test_exclusive_tasks_travel_singly(master: Master) -> None:
    node = master.join()
    master.taught(duration_s=0.005)
    master.submit(*names(10), exclusive=True)

    master.tick()

    assert len(master.tids(node)) == 1


def test_a_suspect_travels_alone_and_says_so(master: Master) -> None:
    node = master.join()
    master.taught(duration_s=0.005)
    master.submit(*names(10))
    master.tick()
    token = master.token("t0")
    master.ended(node, token, outcome=Outcome.SIGNALLED, died=True, duration_s=0.005)
    master.ended(node, *[each for each in master.controller(node).held if each != token], duration_s=0.005)

    master.tick()

    assert [(each.tid, each.alone) for each in master.placed()] == [("t0", True)]


def test_tasks_of_another_policy_do_not_travel_in_one_bundle(master: Master) -> None:
    node = master.join()
    master.taught(duration_s=0.005)
    master.submit("a", "b")
    master.submit("c", timeout_s=3.0)

    master.tick()

    assert next(iter(master.controller(node).bundles)).size == 2
    [(_, place)] = master.places
    assert [assignment.policy for assignment in place.assignments] == [0, 0, 1]
    assert [policy.timeout_s for policy in place.policies] == [None, 3.0]


def test_a_placement_is_remembered_with_its_first_token(master: Master) -> None:
    node = master.join()
    master.taught(duration_s=0.005)
    master.submit("a", "b")

    master.tick()

    [placed] = master.changes(TasksPlaced)
    assert (placed.first, placed.peer, placed.numbers) == (master.token("a"), node, (1, 2))


def test_a_place_encloses_the_payloads_and_names_the_report_that_earned_it(master: Master) -> None:
    node = master.join(workers=2)
    earned_at = master.now
    master.submit("a", "b")

    master.tick(1)

    [letter] = master.decision.letters
    assert list(letter.enclose) == [1, 2]
    assert [place.at for place in master.said(node, Place)] == [earned_at]


# Work that is sent ahead.


def test_short_work_is_sent_ahead_of_free_room(master: Master) -> None:
    node = master.join()
    master.taught(duration_s=AHEAD_S / 2)
    master.submit("a", "b", "c")

    master.tick()

    assert master.tids(node) == ["a", "b"]


@pytest.mark.parametrize("duration_s", [None, AHEAD_S * 2])
def test_long_or_unknown_work_is_not_sent_ahead(master: Master, duration_s: float | None) -> None:
    node = master.join()
    if duration_s is not None:
        master.taught(duration_s=duration_s)
    master.submit("a", "b")

    master.tick()

    assert master.tids(node) == ["a"]


def test_only_what_is_exclusive_has_to_be_on_disk_before_it_is_placed(master: Master) -> None:
    master.join("node", workers=3)
    other = master.join("other", workers=1, gpu=1)
    master.submit("a", "b")
    master.submit("c", exclusive=True)
    master.submit("d", resources={"gpu": 1})

    decision = master.tick()

    places = [(letter.to, letter.binding) for letter in decision.letters if isinstance(letter.message, Place)]
    assert sorted((peer is other, binding) for peer, binding in places) == [(False, True), (True, False)]


def test_exclusive_work_is_not_sent_ahead(master: Master) -> None:
    node = master.join()
    master.taught(duration_s=0.1)
    master.submit("a", "b", exclusive=True)

    master.tick()

    assert master.tids(node) == ["a"]


def test_what_was_sent_ahead_moves_up_when_room_is_free(master: Master) -> None:
    node = master.join()
    master.taught(duration_s=0.5)
    master.submit("a", "b", "c")
    master.tick()

    master.ended(node, master.token("a"), duration_s=0.5)
    master.tick()

    assert master.tids(node) == ["c"]
    bundles = list(master.controller(node).bundles)
    assert [bundle.ahead for bundle in bundles] == [False, True]


def test_free_room_anywhere_comes_before_sending_ahead(master: Master) -> None:
    nodes = [master.join("a"), master.join("b")]
    master.taught(duration_s=0.5)
    master.submit("x", "y")

    master.tick()

    assert [len(master.tids(node)) for node in nodes] == [1, 1]


# Work does not wait at one place while another is idle.


def sent_ahead(master: Master) -> tuple[Peer, int]:
    """A controller with one attempt in execution and one that waits behind it; the token of the latter."""
    busy = master.join("busy")
    master.taught(duration_s=0.5)
    master.submit("a", "b")
    master.tick()
    return busy, master.token("b")


def test_what_waits_is_called_back_when_another_is_idle(master: Master) -> None:
    busy, token = sent_ahead(master)
    master.join("idle")

    master.tick(0.2)

    assert master.dropped(busy, unless_started=True) == [token]


def test_what_waits_is_not_called_back_while_nobody_is_idle(master: Master) -> None:
    busy, _ = sent_ahead(master)

    master.tick(0.2)

    assert master.dropped(busy, unless_started=True) == []


def test_what_was_placed_just_now_is_not_called_back(master: Master) -> None:
    busy, _ = sent_ahead(master)
    master.join("idle")

    master.tick(CALL_BACK_S)

    assert master.dropped(busy, unless_started=True) == []


def test_as_much_is_called_back_as_there_are_idle_workers(master: Master) -> None:
    busy, _ = sent_ahead(master)
    other = master.join("other")
    master.submit("c", "d")
    master.tick()
    master.join("idle", workers=1)

    master.tick(0.2)

    assert len([*master.dropped(busy, unless_started=True), *master.dropped(other, unless_started=True)]) == 1


def test_what_waits_in_several_places_is_called_back_for_several_idle_workers(master: Master) -> None:
    busy, token = sent_ahead(master)
    other = master.join("other")
    master.submit("c", "d")
    master.tick()
    master.join("idle", workers=2)

    master.tick(0.2)

    assert master.dropped(busy, unless_started=True) == [token]
    assert master.dropped(other, unless_started=True) == [master.token("d")]


def test_what_was_called_back_is_given_time_to_come(master: Master) -> None:
    busy, _ = sent_ahead(master)
    master.join("idle")
    master.tick(0.2)

    master.tick(0.2)

    assert master.dropped(busy, unless_started=True) == []


def test_what_was_called_back_and_does_not_come_is_called_back_again(master: Master) -> None:
    busy, token = sent_ahead(master)
    master.join("idle")
    master.tick(0.2)

    master.tick(CALL_BACK_AGAIN_S + CALL_BACK_S)

    assert master.dropped(busy, unless_started=True) == [token]


def test_what_runs_is_not_called_back_again_and_again(master: Master) -> None:
    busy = master.join("busy")
    master.taught(duration_s=0.02)
    master.submit("a", "b")
    master.tick()
    master.started(busy, master.token("a"), master.token("b"))
    master.join("idle")

    master.tick(CALL_BACK_AGAIN_S)

    assert master.dropped(busy, unless_started=True) == []


def test_what_waits_is_called_back_although_something_is_ready_that_fits_nowhere(master: Master) -> None:
    busy, token = sent_ahead(master)
    master.submit("never", resources={"gpu": 1}, kind="x")
    master.join("idle")

    master.tick(0.2)

    assert master.dropped(busy, unless_started=True) == [token]


def test_what_waits_is_not_called_back_for_a_controller_that_is_kept_free_for_another_shape(
    master: Master,
) -> None:
    large = master.join("large", workers=2)
    master.submit("holds", kind="x")
    master.tick()
    master.submit("large", resources={"cpus": 2}, kind="x")
    master.tick(PATIENCE_S)
    master.tick(PATIENCE_S)
    kept = master.mind.placement.reservation

    busy, _ = sent_ahead(master)
    master.tick(0.2)

    assert kept is not None
    assert kept[1] is master.controller(large)
    assert master.dropped(busy, unless_started=True) == []


def test_what_was_called_back_goes_to_who_is_idle(master: Master) -> None:
    busy, token = sent_ahead(master)
    idle = master.join("idle")
    master.tick(0.2)
    master.ended(busy, token, outcome=Outcome.CANCELLED)

    master.tick()

    assert master.tids(idle) == ["b"]


def test_what_waits_is_not_called_back_for_somebody_without_room_for_its_shape(master: Master) -> None:
    busy, _ = sent_ahead(master)
    master.join("idle", workers=1, cpus=0)

    master.tick(0.2)

    assert master.dropped(busy, unless_started=True) == []


def test_what_waits_where_a_worker_is_free_is_not_called_back_from_there(master: Master) -> None:
    node = master.join("node", workers=2)
    master.taught(duration_s=0.02)
    master.submit("a", "b", "c")
    master.tick()
    master.ended(node, master.token("a"))

    master.tick(0.2)

    assert master.dropped(node, unless_started=True) == []


def test_the_rest_of_a_bundle_is_called_back_too(master: Master) -> None:
    busy = master.join("busy")
    master.taught(duration_s=0.02)
    master.submit("a", "b")
    master.tick()
    master.join("idle")

    master.tick(0.2)

    assert len(master.dropped(busy, unless_started=True)) == 2


# A large task is not starved by small ones.


def starving(master: Master) -> tuple[Peer, list[int]]:
    """A controller of two cpus, full of small tasks, and a large one that is the oldest in the queue."""
    node = master.join(workers=2)
    master.submit("s0", "s1")
    master.tick()
    master.submit("large", resources={"cpus": 2})
    master.submit("s2", "s3", "s4")
    return node, [master.token("s0"), master.token("s1")]


def test_small_tasks_overtake_a_large_one_that_does_not_fit_for_a_while(master: Master) -> None:
    node, [first, _] = starving(master)
    master.ended(node, first)

    master.tick()

    assert master.tids(node) == ["s2"]


def test_room_is_kept_for_a_large_task_that_was_overtaken_for_long(master: Master) -> None:
    node, [first, second] = starving(master)
    master.ended(node, first)
    master.tick()
    master.tick(PATIENCE_S)
    master.ended(node, second)
    master.tick()
    kept_from_small_ones = master.tids(node)
    master.ended(node, master.token("s2"))

    master.tick(0.1)

    assert kept_from_small_ones == []
    assert master.tids(node) == ["large"]


def test_what_needs_nothing_of_what_is_kept_may_pass(master: Master) -> None:
    node = master.join(workers=4, cpus=2, licence=1)
    master.submit("s0", "s1")
    master.tick()
    master.submit("large", resources={"cpus": 2})
    master.ended(node, master.token("s0"))
    master.tick()
    master.tick(PATIENCE_S)
    reserved = master.mind.placement.reservation
    master.submit("passes", resources={"licence": 1})
    master.submit("does not", resources={"cpus": 1})

    master.tick()

    assert reserved is not None
    assert master.tids(node) == ["passes"]


def reserved(master: Master) -> Peer:
    node, [first, second] = starving(master)
    master.ended(node, first)
    master.tick()
    master.tick(PATIENCE_S)
    master.ended(node, second)
    master.tick()
    assert master.mind.placement.reservation is not None
    return node


def test_nothing_is_kept_any_more_when_the_large_task_has_its_room(master: Master) -> None:
    node = reserved(master)
    master.ended(node, *list(master.controller(node).held))

    master.tick()

    assert master.tids(node) == ["large"]
    assert master.mind.placement.reservation is None


def test_nothing_is_kept_any_more_when_the_large_task_is_cancelled(master: Master) -> None:
    node = reserved(master)
    master.hear(CLIENT, Cancel(1, 1, ["large"]))
    master.tick()

    master.tick()

    assert master.mind.placement.reservation is None
    assert master.controller(node).room.free["workers"] == 0


def test_nothing_is_kept_at_a_controller_that_is_gone(master: Master) -> None:
    node = reserved(master)
    master.now += 1

    master.join(node.name, life="2", workers=2)

    assert master.mind.placement.reservation is None


def test_room_is_kept_elsewhere_when_its_controller_takes_nothing_more(master: Master) -> None:
    node = reserved(master)
    other = master.join("other", workers=2)
    master.submit("o0", "o1", priority=9)
    master.tick()
    master.report(node, leaving=True)
    master.ended(other, *list(master.controller(other).held)[:1])

    for _ in range(3):
        master.tick(PATIENCE_S)

    kept = master.mind.placement.reservation
    assert kept is None or kept[1] is master.controller(other)


# What was lost is placed with care.


def test_a_lost_suspect_is_placed_alone(master: Master) -> None:
    node = master.join()
    master.submit("a", retry=Retry(losses=3))
    master.tick()
    master.started(node, master.token("a"))
    master.tick(LEASE_S)
    master.report(node, [])

    master.tick()

    assert [each.alone for each in master.placed()] == [True]
