from __future__ import annotations

from collections import Counter
from datetime import datetime, time
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyclone.lustre.inventory import Target
from cyclone.lustre.ost_task import OstState
from cyclone.lustre.rounds import Due, End, FixedRate, Outcome, Rounds, next_start


def targets(*osts: int, server: str = "") -> list[Target]:
    return [Target(ost, server) for ost in osts]


def begun(*osts: int, **options: float) -> Rounds:
    """Rounds whose first round looks at these OSTs, begun at 0; all its tasks are handed in."""
    rounds = Rounds(**{"hung_after_s": 60.0, **options})  # type: ignore[arg-type]
    rounds.begin(1, targets(*osts), 0.0)
    rounds.due(0.0)
    return rounds


# The schedule.


def test_rounds_keep_their_distance_however_late_one_comes() -> None:
    schedule = FixedRate(first=100.0, interval_s=60.0)

    assert schedule.begin(now=103.0) == 0
    assert schedule.due == 160.0


def test_missed_rounds_are_counted_and_not_made_up_for() -> None:
    schedule = FixedRate(first=100.0, interval_s=60.0)

    assert schedule.begin(now=281.0) == 3
    assert schedule.due == 340.0


def test_a_round_that_begins_in_time_misses_none() -> None:
    schedule = FixedRate(first=100.0, interval_s=60.0)

    assert schedule.begin(now=100.0) == 0
    assert schedule.begin(now=160.0) == 0
    assert schedule.due == 220.0


@given(st.floats(0, 1e6), st.floats(1, 86400), st.lists(st.floats(0, 1e5), max_size=20))
def test_the_next_round_is_never_in_the_past_and_never_further_than_an_interval(
    first: float, interval_s: float, waits: list[float]
) -> None:
    schedule = FixedRate(first, interval_s)
    now = first

    for wait in waits:
        now = max(now, schedule.due) + wait
        schedule.begin(now)

        assert now - 1e-3 <= schedule.due <= now + interval_s + 1e-3


BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("at", "interval_s", "after", "expected"),
    [
        ("03:00", 86400, "2026-11-20 02:59:59", "2026-11-20 03:00:00"),
        ("03:00", 86400, "2026-11-20 03:00:00", "2026-11-21 03:00:00"),
        ("03:00", 3600, "2026-11-20 14:10:00", "2026-11-20 15:00:00"),
        ("03:15", 3600, "2026-11-20 01:00:00", "2026-11-20 01:15:00"),
        ("00:00", 50_000, "2026-11-20 13:53:21", "2026-11-21 00:00:00"),
        # A round right before the one at this time of day would be one too many.
        ("00:00", 43_000, "2026-11-20 12:00:00", "2026-11-21 00:00:00"),
        # Clocks are set forward: a day of 23 hours.
        ("03:00", 86400, "2026-03-28 03:00:00", "2026-03-29 03:00:00"),
        ("00:00", 3600, "2026-03-29 01:00:00", "2026-03-29 03:00:00"),
        ("00:30", 7200, "2026-03-29 00:30:00", "2026-03-29 03:30:00"),
        # Clocks are set back: a day of 25 hours.
        ("03:00", 86400, "2026-10-24 03:00:00", "2026-10-25 03:00:00"),
        ("00:00", 7200, "2026-10-25 00:00:00", "2026-10-25 02:00:00"),
        ("00:00", 7200, "2026-10-25 02:00:00", "2026-10-25 03:00:00"),
    ],
)
def test_rounds_follow_the_time_of_day(at: str, interval_s: float, after: str, expected: str) -> None:
    moment = datetime.fromisoformat(after).replace(tzinfo=BERLIN).timestamp()

    found = next_start(time.fromisoformat(at), interval_s, moment, BERLIN)

    assert datetime.fromtimestamp(found, BERLIN) == datetime.fromisoformat(expected).replace(tzinfo=BERLIN)


@given(st.integers(0, 86399), st.integers(1, 86400), st.floats(1.79e9, 1.83e9))
def test_the_rounds_of_a_day_have_no_holes_and_are_never_close_together(
    at_s: int, interval_s: int, after: float
) -> None:
    at = time(at_s // 3600, at_s // 60 % 60, at_s % 60)

    first = next_start(at, interval_s, after, BERLIN)
    second = next_start(at, interval_s, first, BERLIN)

    assert 0 < first - after <= 1.5 * interval_s + 3600
    assert interval_s / 2 - 3600 <= second - first <= 1.5 * interval_s + 3600


# One round.


def test_each_expected_ost_gets_one_task_with_a_tid_of_its_round() -> None:
    rounds = Rounds(hung_after_s=60.0)
    rounds.begin(7, targets(0, 12), 0.0)

    assert rounds.due(0.0) == [Due("mon-7-0", 0, ""), Due("mon-7-12", 12, "")]
    assert rounds.due(1.0) == []


def test_each_part_of_an_ost_gets_a_task() -> None:
    rounds = Rounds(hung_after_s=60.0, parts=("0", "1"))
    rounds.begin(7, targets(3), 0.0)

    assert [due.tid for due in rounds.due(0.0)] == ["mon-7-3-0", "mon-7-3-1"]


def test_an_ost_that_is_down_gets_no_task_and_is_told_of_at_once() -> None:
    rounds = Rounds(hung_after_s=60.0)
    down = Target(1, "", OstState.DOWN, "no answer (107)")

    told = rounds.begin(1, [Target(0), down], 0.0)

    assert told.down == [down]
    assert [due.ost for due in rounds.due(0.0)] == [0]
    assert rounds.summary(0.0).down == 1


def test_a_round_is_over_when_each_ost_has_an_outcome() -> None:
    rounds = begun(0, 1)

    rounds.ended("mon-1-0", Outcome.OK, 5.0)
    assert not rounds.is_over
    rounds.ended("mon-1-1", Outcome.FAILED, 6.0)

    assert rounds.is_over
    assert rounds.summary(99.0)._asdict() == {
        "number": 1, "expected": 2, "ok": 1, "failed": 1, "down": 0, "hung": 0, "skipped": 0, "duration_s": 6.0,
    }  # fmt: skip


def test_of_several_parts_the_worst_counts() -> None:
    rounds = Rounds(hung_after_s=60.0, parts=("0", "1", "2"))
    rounds.begin(1, targets(3), 0.0)
    rounds.due(0.0)

    for part, outcome in enumerate((Outcome.OK, Outcome.FAILED, Outcome.SKIPPED)):
        rounds.ended(f"mon-1-3-{part}", outcome, 1.0)

    assert rounds.summary(1.0).failed == 1


def test_an_end_that_nobody_waits_for_changes_nothing() -> None:
    rounds = begun(0)
    rounds.ended("mon-1-0", Outcome.OK, 1.0)

    assert rounds.ended("mon-1-0", Outcome.FAILED, 2.0) is None
    assert rounds.summary(2.0).ok == 1


def test_what_a_round_did_not_come_to_is_skipped() -> None:
    rounds = Rounds(hung_after_s=60.0, tasks_most=1)
    rounds.begin(1, targets(0, 1, 2), 0.0)
    rounds.due(0.0)
    rounds.ended("mon-1-0", Outcome.OK, 1.0)

    assert rounds.summary(60.0).skipped == 2


def test_a_round_over_nothing_is_over_at_once() -> None:
    rounds = Rounds(hung_after_s=60.0)

    rounds.begin(1, [], 3.0)

    assert rounds.is_over
    assert rounds.summary(4.0).duration_s == 0.0


# What hangs.


def test_an_ost_whose_task_has_not_ended_gets_no_second_one() -> None:
    rounds = begun(0, 1, hung_after_s=60.0)
    rounds.ended("mon-1-1", Outcome.OK, 1.0)

    rounds.begin(2, targets(0, 1), 60.0)

    assert [due.ost for due in rounds.due(60.0)] == [1]


def test_a_task_is_hung_when_it_was_handed_in_too_long_ago() -> None:
    rounds = begun(0, hung_after_s=60.0)

    assert rounds.look_for_hung(59.9) == []
    (hung,) = rounds.look_for_hung(60.0)

    assert (hung.ost, hung.tid, hung.age_s) == (0, "mon-1-0", 60.0)
    assert rounds.summary(60.0).hung == 1


def test_what_hangs_is_told_once_in_each_round_with_its_age() -> None:
    rounds = begun(0, hung_after_s=60.0)
    rounds.look_for_hung(60.0)

    told = rounds.begin(2, targets(0), 61.0)
    again = rounds.look_for_hung(100.0)

    assert [(hung.ost, hung.age_s) for hung in told.hung] == [(0, 61.0)]
    assert again == []
    assert rounds.summary(100.0).hung == 1


def test_a_late_task_that_becomes_hung_turns_its_ost_from_skipped_to_hung() -> None:
    rounds = begun(0, hung_after_s=60.0)

    rounds.begin(2, targets(0), 59.0)
    assert rounds.summary(59.0).skipped == 1
    rounds.look_for_hung(60.0)

    assert rounds.summary(60.0).hung == 1


def test_an_ost_that_recovers_is_looked_at_in_the_next_round() -> None:
    rounds = begun(0, hung_after_s=60.0)
    rounds.look_for_hung(60.0)
    rounds.begin(2, targets(0), 60.0)

    assert rounds.ended("mon-1-0", Outcome.OK, 90.0) == End(0, "", is_of_this_round=False)
    told = rounds.begin(3, targets(0), 120.0)

    assert told.hung == []
    assert [due.tid for due in rounds.due(120.0)] == ["mon-3-0"]


def test_the_late_end_of_an_earlier_round_does_not_count_in_this_one() -> None:
    rounds = begun(0, hung_after_s=60.0)
    rounds.look_for_hung(60.0)
    rounds.begin(2, targets(0), 60.0)

    rounds.ended("mon-1-0", Outcome.OK, 61.0)

    assert rounds.summary(61.0).ok == 0
    assert rounds.summary(61.0).hung == 1


def test_a_hung_task_that_ends_within_its_round_counts_as_what_it_found() -> None:
    rounds = begun(0, hung_after_s=60.0)
    rounds.look_for_hung(60.0)

    rounds.ended("mon-1-0", Outcome.OK, 70.0)

    assert (rounds.summary(70.0).hung, rounds.summary(70.0).ok) == (0, 1)


def test_it_is_known_when_to_look_for_hung_tasks() -> None:
    rounds = begun(0, hung_after_s=60.0)

    assert rounds.next_moment() == 60.0
    rounds.look_for_hung(60.0)
    assert rounds.next_moment() is None


def test_a_task_of_a_former_life_keeps_its_ost_and_its_age() -> None:
    rounds = Rounds(hung_after_s=60.0)
    rounds.reopen(Due("mon-1-0", 0, ""), "", age_s=50.0, now=1000.0)

    rounds.begin(2, targets(0, 1), 1000.0)

    assert [due.ost for due in rounds.due(1000.0)] == [1]
    assert rounds.open(1010.0)[0] == (Due("mon-1-0", 0, ""), 60.0)


def test_a_task_of_a_former_life_is_hung_only_when_its_end_could_have_been_heard() -> None:
    rounds = Rounds(hung_after_s=60.0)
    rounds.reopen(Due("mon-1-0", 0, ""), "", age_s=900.0, now=1000.0)

    assert rounds.look_for_hung(1059.0) == []
    assert rounds.next_moment() == 1060.0
    assert [hung.age_s for hung in rounds.look_for_hung(1060.0)] == [960.0]


def test_a_part_that_hangs_keeps_no_other_waiting() -> None:
    rounds = Rounds(hung_after_s=60.0, parts=("0", "1"))
    rounds.begin(1, targets(3), 0.0)
    rounds.due(0.0)
    rounds.ended("mon-1-3-1", Outcome.OK, 1.0)
    rounds.look_for_hung(60.0)

    told = rounds.begin(2, targets(3), 61.0)

    assert [(hung.ost, hung.part) for hung in told.hung] == [(3, "0")]
    assert [due.tid for due in rounds.due(61.0)] == ["mon-2-3-1"]
    assert not rounds.is_over
    rounds.ended("mon-2-3-1", Outcome.OK, 62.0)
    assert rounds.is_over
    assert rounds.summary(62.0).hung == 1


def test_of_an_ost_that_is_down_each_part_has_an_outcome() -> None:
    rounds = Rounds(hung_after_s=60.0, parts=("0", "1"))

    told = rounds.begin(1, [Target(3, "", OstState.DOWN, "no answer")], 0.0)

    assert [target.ost for target in told.down] == [3]
    assert rounds.is_over
    assert rounds.due(0.0) == []


def test_what_waits_for_hung_tasks_can_be_skipped() -> None:
    rounds = Rounds(hung_after_s=10.0, tasks_most=1)
    rounds.begin(1, targets(0, 1), 0.0)
    rounds.due(0.0)
    assert not rounds.is_stuck
    rounds.look_for_hung(10.0)
    rounds.due(10.0)

    assert rounds.is_stuck
    rounds.skip_waiting(10.0)

    assert rounds.is_over
    assert not rounds.is_stuck
    assert (rounds.summary(10.0).hung, rounds.summary(10.0).skipped) == (1, 1)


# Order and bounds.


def test_neighbours_are_on_different_servers() -> None:
    rounds = Rounds(hung_after_s=60.0)

    rounds.begin(1, targets(0, 1, 2, server="a") + targets(3, 4, server="b"), 0.0)

    assert [due.ost for due in rounds.due(0.0)] == [0, 3, 1, 4, 2]


def test_no_server_has_more_tasks_than_allowed() -> None:
    rounds = Rounds(hung_after_s=60.0, server_most=1)
    rounds.begin(1, targets(0, 1, server="a") + targets(2, server="b"), 0.0)

    assert [due.ost for due in rounds.due(0.0)] == [0, 2]
    rounds.ended("mon-1-2", Outcome.OK, 1.0)
    assert rounds.due(1.0) == []
    rounds.ended("mon-1-0", Outcome.OK, 2.0)
    assert [due.ost for due in rounds.due(2.0)] == [1]


def test_a_task_of_a_former_life_takes_the_place_of_one_on_its_server() -> None:
    rounds = Rounds(hung_after_s=60.0, server_most=1)
    rounds.reopen(Due("mon-1-0", 0, ""), "a", age_s=0.0, now=0.0)
    rounds.begin(2, targets(0, 1, server="a"), 0.0)

    assert rounds.due(0.0) == []
    rounds.ended("mon-1-0", Outcome.OK, 1.0)
    assert [due.ost for due in rounds.due(1.0)] == [1]


def test_a_hung_task_takes_the_place_of_one_on_its_server() -> None:
    rounds = Rounds(hung_after_s=10.0, server_most=1)
    rounds.begin(1, targets(0, 1, server="a"), 0.0)
    rounds.due(0.0)
    rounds.look_for_hung(10.0)

    rounds.begin(2, targets(0, 1, server="a"), 20.0)

    assert rounds.due(20.0) == []


@st.composite
def lives(draw: st.DrawFn) -> tuple[int, int, list[tuple[str, int]]]:
    """Bounds on servers and tasks, and what happens."""
    steps = st.tuples(st.sampled_from(["begin", "end", "wait"]), st.integers(0, 30))
    return draw(st.integers(0, 3)), draw(st.integers(0, 5)), draw(st.lists(steps, max_size=60))


@given(lives())
def test_whatever_happens_bounds_are_kept_and_each_ost_is_counted_once(
    life: tuple[int, int, list[tuple[str, int]]],
) -> None:
    server_most, tasks_most, steps = life
    rounds = Rounds(hung_after_s=50.0, server_most=server_most, tasks_most=tasks_most)
    servers = {ost: "ab"[ost % 2] for ost in range(8)}
    now, number, handed_in = 0.0, 0, Counter[str]()

    for step, choice in steps:
        if step == "begin":
            number += 1
            state = OstState.DOWN if choice % 3 == 0 else None
            last = Target(7, servers[7], state)
            rounds.begin(number, [*(Target(ost, servers[ost]) for ost in range(7)), last], now)
        elif step == "end" and (opened := rounds.open(now)):
            due, _ = opened[choice % len(opened)]
            rounds.ended(due.tid, list(Outcome)[choice % 3], now)
        else:
            now += choice
            rounds.look_for_hung(now)
        handed_in.update(due.tid for due in rounds.due(now))

        opened_osts = Counter(due.ost for due, _ in rounds.open(now))
        on_servers = Counter(servers[ost] for ost in opened_osts.elements())
        summary = rounds.summary(now)
        assert set(handed_in.values()) <= {1}
        assert set(opened_osts.values()) <= {1}
        assert not server_most or max(on_servers.values(), default=0) <= server_most
        assert not tasks_most or len(rounds.open(now)) <= tasks_most
        counts = (summary.ok, summary.failed, summary.down, summary.hung, summary.skipped)
        assert sum(counts) == summary.expected
