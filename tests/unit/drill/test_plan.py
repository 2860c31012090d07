"""The plan of a drill: the same from the same seed, and one that can be carried out."""

from __future__ import annotations

import itertools

import pytest

from cyclone.drill.plan import BY_NAME, FAULTS, LEASE_S, draw, same_victim

LENGTH_S = 60.0
SEEDS = range(40)


@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1])
def test_the_same_seed_draws_the_same_plan(seed: int) -> None:
    assert draw(seed, LENGTH_S, BY_NAME) == draw(seed, LENGTH_S, list(BY_NAME))


def test_another_seed_draws_another_plan() -> None:
    plans = [tuple(draw(seed, LENGTH_S, BY_NAME)) for seed in SEEDS]

    assert len(set(plans)) == len(plans)


def test_a_plan_is_kept_from_one_version_of_python_to_the_next() -> None:
    """A seed in somebody's report has to mean the same to us."""
    first, second, *_ = draw(1, LENGTH_S, BY_NAME)

    assert (first.fault, first.victim, first.at_s) == ("full-disk", "south", 1.5)
    assert (second.fault, second.victim) == ("kill-reaper", "west")


def test_ten_minutes_hold_two_hundred_faults() -> None:
    plans = [draw(seed, LENGTH_S, BY_NAME) for seed in SEEDS]

    assert min(len(plan) for plan in plans) * 10 >= 200


def test_every_kind_comes_within_three_minutes() -> None:
    for seed in SEEDS:
        plan = [stroke for minute in range(3) for stroke in draw(seed + minute, LENGTH_S, BY_NAME)]

        assert {stroke.fault for stroke in plan} == BY_NAME.keys()


def test_a_victim_suffers_one_fault_at_a_time() -> None:
    for seed in SEEDS:
        plan = draw(seed, LENGTH_S, BY_NAME)
        for one, other in itertools.combinations(plan, 2):
            if same_victim(one, other):
                assert one.over_s < other.at_s


@pytest.mark.parametrize("kinds", [["kill-reaper"], ["kill-generator", "kill-guard"]])
def test_what_is_given_up_when_it_happens_too_often_does_not(kinds: list[str]) -> None:
    """Five times a minute are borne, whoever of those that belong together was killed."""
    for seed in SEEDS:
        plan = draw(seed, 300.0, kinds)
        for victim in {stroke.victim for stroke in plan}:
            moments = [stroke.at_s for stroke in plan if stroke.victim == victim]

            assert all(later - earlier > 60 for earlier, later in zip(moments, moments[5:], strict=False))


def test_each_fault_befalls_its_victims_for_as_long_as_it_says_and_is_over_in_time() -> None:
    for seed in SEEDS:
        for stroke in draw(seed, LENGTH_S, BY_NAME):
            fault = BY_NAME[stroke.fault]

            assert stroke.victim in fault.victims
            assert fault.shortest_s - 0.001 <= stroke.lasts_s <= fault.longest_s + 0.001
            assert stroke.over_s <= LENGTH_S + 0.001


def test_only_what_was_asked_for_is_drawn() -> None:
    plan = draw(7, LENGTH_S, ["kill-worker", "full-disk"])

    assert {stroke.fault for stroke in plan} == {"kill-worker", "full-disk"}


def test_no_faults_are_no_plan() -> None:
    assert draw(7, LENGTH_S, []) == []


def test_every_pause_is_longer_than_the_lease() -> None:
    pauses = [fault for fault in FAULTS if fault.name.startswith("stop-")]

    assert len(pauses) == 7
    assert all(fault.shortest_s > LEASE_S for fault in pauses)
