from __future__ import annotations

import math

import pytest

from cyclone.sinks.batch import MENDING_S, RETRY_MAX_S, Batching, BatchRule, Health, Portion

RULE = BatchRule(count=100, age_s=10.0)


@pytest.fixture
def batching() -> Batching:
    return Batching(RULE)


# When a batch is due.


def test_nothing_is_due_while_nothing_waits(batching):
    batching.saw(0, 5.0)

    assert batching.due() == math.inf


def test_a_full_batch_is_due_at_once(batching):
    batching.saw(99, 5.0)
    assert batching.due() > 5.0

    batching.saw(100, 6.0)

    assert batching.due() <= 6.0


def test_a_small_batch_is_due_when_its_oldest_entry_is_old_enough(batching):
    batching.saw(1, 5.0)
    batching.saw(2, 14.0)

    assert batching.due() == 15.0


def test_the_first_entry_after_a_quiet_time_waits_for_others(batching):
    batching.saw(1, 5.0)
    batching.moved(0, 15.0)

    batching.saw(1, 1000.0)

    assert batching.due() == 1010.0


def test_what_came_while_a_batch_was_moved_is_as_old_as_that(batching):
    batching.saw(100, 5.0)

    batching.moved(3, 6.0)
    batching.saw(4, 7.0)

    assert batching.due() == 16.0


def test_whoever_asks_need_not_wait(batching):
    batching.saw(1, 5.0)

    batching.ask()

    assert batching.due() <= 5.0
    batching.moved(0, 5.0)
    assert batching.due() == math.inf


@pytest.mark.parametrize(("count", "age_s"), [(0, 1), (100_001, 1), (1, 0), (1, 86_401)])
def test_a_rule_out_of_its_bounds_is_a_bug(count, age_s):
    with pytest.raises(AssertionError):
        BatchRule(count, age_s)


# After a failure that may pass.


def pauses(batching: Batching, jitter: float, times: int) -> list[float]:
    found, now = [], 1000.0
    for _ in range(times):
        batching.failed(now, "gone", jitter, to_mend=False)
        found.append(batching.due() - now)
        now = batching.due()
    return found


@pytest.mark.parametrize(
    ("jitter", "expected"),
    [(1.0, [1, 2, 4, 8, 16, 32, 60, 60, 60]), (0.0, [1, 1, 2, 4, 8, 16, 30, 30, 30])],
)
def test_pauses_grow_from_one_to_sixty_seconds(batching, jitter, expected):
    batching.saw(1000, 5.0)

    assert pauses(batching, jitter, 9) == expected


def test_pauses_do_not_outgrow_a_float(batching):
    batching.saw(1, 5.0)

    assert pauses(batching, 1.0, 5000)[-1] == RETRY_MAX_S


def test_pauses_may_be_bound_to_be_shorter(batching):
    batching.saw(100, 0.0)
    for now in range(5):
        batching.failed(now, "disk full", 1.0, to_mend=False, longest_s=5.0)

    assert batching.due() == 4 + 5.0


def test_what_comes_in_during_a_pause_does_not_end_it(batching):
    batching.saw(100, 5.0)
    batching.failed(5.0, "gone", 1.0, to_mend=False)

    batching.saw(100_000, 5.5)

    assert batching.due() == 6.0
    assert (batching.health, batching.reason) == (Health.RETRYING, "gone")


def test_whoever_asks_ends_a_pause_once(batching):
    batching.saw(100, 5.0)
    batching.failed(5.0, "gone", 1.0, to_mend=False)

    batching.ask()

    assert batching.due() <= 5.0
    batching.failed(5.1, "gone", 1.0, to_mend=False)
    assert batching.due() == 5.1 + 2.0


def test_a_success_forgets_all_failures(batching):
    batching.saw(100, 5.0)
    pauses(batching, 1.0, 5)

    batching.moved(0, 2000.0)

    assert (batching.health, batching.reason, batching.due()) == (Health.OK, "", math.inf)
    batching.saw(100, 2001.0)
    assert pauses(batching, 1.0, 2) == [1, 2]


# After a failure that somebody has to mend.


@pytest.mark.parametrize(("jitter", "pause_s"), [(0.0, MENDING_S / 2), (1.0, MENDING_S)])
def test_what_has_to_be_mended_is_looked_at_slowly(batching, jitter, pause_s):
    batching.saw(5000, 5.0)

    for now in (5.0, 100.0, 200.0):
        batching.failed(now, "wrong password", jitter, to_mend=True)

        assert batching.due() == now + pause_s
    assert (batching.health, batching.reason) == (Health.FAILED, "wrong password")


def test_entries_that_are_held_do_not_hold_up_others(batching):
    batching.saw(100, 5.0)
    batching.held(0, 5.0, 6.0, "no table")
    assert batching.due() == 6.0 + MENDING_S

    batching.saw(100, 10.0)

    assert batching.due() <= 10.0
    assert (batching.health, batching.reason) == (Health.FAILED, "no table")


def test_moving_others_does_not_put_off_the_next_look_at_what_is_held(batching):
    batching.saw(100, 5.0)
    batching.held(0, 5.0, 6.0, "no table")

    batching.held(0, 20.0, 21.0, "no table")

    assert batching.look_at == batching.due() == 6.0 + MENDING_S


def test_after_each_look_there_is_another_pause(batching):
    batching.saw(100, 5.0)
    batching.held(0, 5.0, 6.0, "no table")

    batching.held(0, 66.0, 67.0, "no table")

    assert batching.look_at == 67.0 + MENDING_S


def test_whoever_asks_has_what_is_held_tried_again(batching):
    batching.saw(100, 5.0)
    batching.held(0, 5.0, 6.0, "no table")

    batching.ask()

    assert batching.look_at <= 7.0
    batching.moved(0, 7.0)
    assert (batching.look_at, batching.due(), batching.health) == (math.inf, math.inf, Health.OK)


def test_asking_does_not_make_up_anything_that_is_held(batching):
    batching.ask()

    assert batching.look_at == math.inf


def test_a_look_that_fails_is_taken_again(batching):
    batching.saw(100, 5.0)
    batching.held(0, 5.0, 6.0, "no table")

    batching.failed(66.0, "gone", 1.0, to_mend=False)

    assert batching.due() == 67.0
    assert batching.look_at <= 67.0


# How much of it goes at once.


def test_a_portion_is_half_of_what_failed_and_grows_back_to_the_whole():
    portion = Portion(1000)
    sizes = []

    while (rows := portion.rows) > 300:
        portion.failed(rows, 30.0)
        sizes.append(portion.rows)
    portion.succeeded(250)
    grown = portion.rows
    for _ in range(50):
        portion.succeeded(portion.rows)

    assert sizes == [500, 250]
    assert grown == 281
    assert portion.rows == 1000


def test_a_portion_never_is_nothing_and_comes_back_from_one_row():
    portion = Portion(100)
    portion.failed(2, 30.0)
    portion.failed(1, 30.0)

    assert portion.rows == 1
    portion.succeeded(1)
    assert portion.rows == 2


def test_a_small_batch_says_nothing_of_how_large_one_may_be():
    portion = Portion(1000)
    portion.failed(1000, 30.0)

    portion.succeeded(3)

    assert portion.rows == 500


def test_what_failed_at_once_was_not_too_much():
    portion = Portion(1000)

    portion.failed(1000, 0.9)

    assert portion.rows == 1000
