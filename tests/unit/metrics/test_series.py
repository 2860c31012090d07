from __future__ import annotations

import math
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from cyclone.errors import PluginError, RecordError, RuleBroken
from cyclone.metrics.family import Labels
from cyclone.metrics.series import CurrentSeries
from cyclone.record import Metric, Record


class Look(Record):
    """One look at one OST."""

    kind = "look"
    metrics = (
        Metric("look_seconds", "How long it took.", ("fs", "ost"), lambda row: row.seconds),
        Metric("look_state", "How it was found.", ("fs", "state", "ost"), lambda row: 1),
        Metric(
            "look_errors_total",
            "Looks that failed.",
            ("fs", "state"),
            lambda row: None if row.state == "OK" else row.errors,
            "counter",
        ),
    )

    fs: str = "home"
    ost: int = 1
    state: str = "OK"
    seconds: Annotated[float, Meta(extra={"unit": "s"})] | None = None
    errors: float = 1


NOON = 1_795_176_000.0


def current(stale_after_s: float = 180, **bounds: int) -> CurrentSeries:
    return CurrentSeries([Look], stale_after_s=stale_after_s, **bounds)


def shown(series: CurrentSeries, name: str) -> dict[Labels, float]:
    """What there is of one metric."""
    return next((dict(family.samples) for family in series.families() if family.declaration.name == name), {})


# Gauges.


def test_a_gauge_shows_the_newest_record_of_each_series() -> None:
    series = current()

    series.take(b"1", Look(ost=1, seconds=1.0), NOON, NOON)
    series.take(b"2", Look(ost=2, seconds=2.0), NOON, NOON)
    series.take(b"3", Look(ost=1, seconds=3.0), NOON + 60, NOON + 60)

    assert shown(series, "look_seconds") == {("home", "1"): 3.0, ("home", "2"): 2.0}


def test_a_record_that_comes_late_does_not_replace_a_newer_one() -> None:
    series = current()
    series.take(b"1", Look(seconds=1.0), NOON + 60, NOON + 60)

    series.take(b"2", Look(seconds=2.0), NOON, NOON + 61)

    assert shown(series, "look_seconds") == {("home", "1"): 1.0}


def test_no_value_removes_the_series_and_an_older_record_does_not_bring_it_back() -> None:
    series = current()
    series.take(b"1", Look(seconds=1.0), NOON, NOON)

    series.take(b"3", Look(seconds=None), NOON + 60, NOON + 60)
    series.take(b"2", Look(seconds=2.0), NOON + 30, NOON + 61)

    assert shown(series, "look_seconds") == {}


def test_a_series_that_was_removed_comes_back_with_a_newer_record() -> None:
    series = current()
    series.take(b"1", Look(seconds=None), NOON, NOON)

    series.take(b"2", Look(seconds=2.0), NOON + 1, NOON + 1)

    assert shown(series, "look_seconds") == {("home", "1"): 2.0}


def test_of_several_states_only_the_newest_is_shown() -> None:
    series = current()
    series.take(b"1", Look(ost=1, state="OK"), NOON, NOON)
    series.take(b"2", Look(ost=2, state="OK"), NOON, NOON)

    series.take(b"3", Look(ost=1, state="DOWN"), NOON + 60, NOON + 60)

    assert shown(series, "look_state") == {("home", "DOWN", "1"): 1, ("home", "OK", "2"): 1}


# Counters.


def test_a_counter_sums_and_keeps_its_states_apart() -> None:
    series = current()

    for uid, state in ((b"1", "DOWN"), (b"2", "HUNG"), (b"3", "DOWN")):
        series.take(uid, Look(state=state), NOON, NOON)

    assert shown(series, "look_errors_total") == {("home", "DOWN"): 2, ("home", "HUNG"): 1}


def test_a_record_counts_once_however_often_it_comes() -> None:
    series = current()

    told = [series.take(b"1", Look(state="DOWN"), NOON, NOON + again) for again in range(3)]

    assert told == [True, False, False]
    assert shown(series, "look_errors_total") == {("home", "DOWN"): 1}
    assert series.figures.repeated == 2


def test_a_record_without_a_key_counts_whenever_it_comes() -> None:
    series = current()

    told = [series.take(None, Look(state="DOWN"), NOON, NOON) for _ in range(3)]

    assert told == [True, True, True]
    assert shown(series, "look_errors_total") == {("home", "DOWN"): 3}


def test_so_many_keys_are_remembered_as_were_asked_for_and_no_more_than_twice_as_many() -> None:
    series = current(uids_most=10)
    keys = [bytes([number]) for number in range(31)]
    for key in keys:
        series.take(key, Look(), NOON, NOON)

    known = [key for key in reversed(keys) if not series.take(key, Look(), NOON, NOON)]

    assert known[:10] == keys[:-11:-1]
    assert len(known) <= 20


def test_a_counter_has_no_series_before_there_is_something_to_count() -> None:
    series = current()

    series.take(b"1", Look(state="OK"), NOON, NOON)

    assert shown(series, "look_errors_total") == {}


def test_nothing_to_count_takes_nothing_back() -> None:
    class Sum(Record):
        kind = "sum"
        metrics = (Metric("sum_total", "All of it.", (), lambda row: row.amount, "counter"),)
        amount: float | None = None

    series = CurrentSeries([Sum], stale_after_s=10)
    series.take(b"1", Sum(amount=2.5), NOON, NOON)

    series.take(b"2", Sum(amount=None), NOON, NOON)

    assert shown(series, "sum_total") == {(): 2.5}


# What is stale.


def test_a_gauge_vanishes_when_nothing_was_heard_of_it_for_too_long_and_is_counted() -> None:
    series = current(stale_after_s=180)
    series.take(b"1", Look(ost=1, seconds=1.0), NOON, NOON)
    series.take(b"2", Look(ost=2, seconds=2.0), NOON + 100, NOON + 100)

    vanished = [series.expire(NOON + 180), series.expire(NOON + 181)]

    assert vanished == [0, 2]
    assert shown(series, "look_seconds") == {("home", "2"): 2.0}
    assert shown(series, "look_state") == {("home", "OK", "2"): 1}
    assert series.figures.stale == 2


def test_what_was_removed_before_is_not_counted_as_stale() -> None:
    series = current()
    series.take(b"1", Look(seconds=None), NOON, NOON)

    assert series.expire(NOON + 1000) == 1  # its state only


def test_a_counter_never_gets_stale() -> None:
    series = current()
    series.take(b"1", Look(state="DOWN"), NOON, NOON)

    series.expire(NOON + 1e6)

    assert shown(series, "look_errors_total") == {("home", "DOWN"): 1}


def test_what_was_recorded_long_ago_is_never_shown_but_counts() -> None:
    series = current(stale_after_s=180)

    series.take(b"1", Look(state="DOWN", seconds=1.0), NOON - 3600, NOON)

    assert [family.declaration.name for family in series.families()] == ["look_errors_total"]


def test_what_was_recorded_long_ago_is_no_series_that_fell_silent() -> None:
    series = current(stale_after_s=180)
    series.take(b"1", Look(seconds=1.0), NOON - 181, NOON)

    vanished = series.expire(NOON)

    assert vanished == 0
    assert series.figures.stale == 0


def test_what_is_just_young_enough_is_shown() -> None:
    series = current(stale_after_s=180)

    series.take(b"1", Look(seconds=1.0), NOON - 180, NOON)

    assert shown(series, "look_seconds") == {("home", "1"): 1.0}


@pytest.mark.parametrize("at", [NOON + 3600, math.inf, math.nan])
def test_a_record_from_the_future_is_one_from_now(at: float) -> None:
    series = current(stale_after_s=180)
    series.take(b"1", Look(seconds=1.0), at, NOON)

    series.take(b"2", Look(seconds=2.0), NOON + 1, NOON + 1)
    fresh = shown(series, "look_seconds")
    series.expire(NOON + 182)

    assert fresh == {("home", "1"): 2.0}
    assert series.families() == []


def test_records_are_shown_again_after_the_clock_was_set_back() -> None:
    series = current()
    series.take(b"1", Look(seconds=1.0), NOON, NOON)

    series.take(b"2", Look(seconds=2.0), NOON - 3600, NOON - 3600)

    assert shown(series, "look_seconds") == {("home", "1"): 2.0}


# Bounds, and what is shown.


def test_there_is_a_bound_for_series_and_those_that_are_known_go_on_beyond_it() -> None:
    series = current(series_most=2)
    series.take(b"1", Look(ost=1, seconds=1.0), NOON, NOON)

    series.take(b"2", Look(ost=2, seconds=2.0), NOON, NOON)
    series.take(b"3", Look(ost=1, seconds=3.0), NOON, NOON)

    assert shown(series, "look_seconds") == {("home", "1"): 3.0}
    assert series.figures.refused == 2
    assert series.figures.series == 2


def test_counters_take_no_room_from_gauges_and_the_other_way_round() -> None:
    series = current(series_most=2)
    for number in range(5):
        series.take(b"c%d" % number, Look(fs=f"junk{number}", state="BAD"), NOON, NOON)
    series.expire(NOON + 1000)

    series.take(b"1", Look(ost=1, seconds=1.0, state="BAD"), NOON + 1000, NOON + 1000)

    assert shown(series, "look_seconds") == {("home", "1"): 1.0}
    assert shown(series, "look_errors_total") == {("junk4", "BAD"): 1.0, ("home", "BAD"): 1.0}


def test_a_counter_gives_way_that_has_not_grown_for_longest() -> None:
    series = current(series_most=2)
    for number, fs in enumerate(["one", "two", "one", "three"]):
        series.take(b"c%d" % number, Look(fs=fs, state="BAD"), NOON, NOON)

    assert shown(series, "look_errors_total") == {("one", "BAD"): 2.0, ("three", "BAD"): 1.0}
    assert series.figures.series == 4


def test_a_series_that_vanished_makes_room() -> None:
    series = current(series_most=2)
    series.take(b"1", Look(ost=1, seconds=1.0), NOON, NOON)
    series.expire(NOON + 1000)

    series.take(b"2", Look(ost=2, seconds=2.0), NOON + 1000, NOON + 1000)

    assert shown(series, "look_seconds") == {("home", "2"): 2.0}


def test_what_was_handed_out_does_not_change_later() -> None:
    series = current()
    series.take(b"1", Look(seconds=1.0), NOON, NOON)
    families = series.families()

    series.take(b"2", Look(seconds=2.0), NOON + 1, NOON + 1)

    assert families[0].samples == {("home", "1"): 1.0}


def test_nothing_is_shown_of_a_metric_without_series() -> None:
    assert current().families() == []


@given(st.permutations(range(8)), st.lists(st.integers(0, 7)))
def test_neither_order_nor_repetition_of_records_matters(order: list[int], again: list[int]) -> None:
    looks = [
        Look(ost=number % 2, state="OK" if number < 4 else "DOWN", seconds=number or None)
        for number in range(8)
    ]
    straight, crooked = current(), current()
    for number, look in enumerate(looks):
        straight.take(bytes([number]), look, NOON + number, NOON + 10)

    for number in [*order, *again]:
        crooked.take(bytes([number]), looks[number], NOON + number, NOON + 10)

    def everything(series: CurrentSeries) -> dict[str, dict[Labels, float]]:
        return {name: shown(series, name) for name in ("look_seconds", "look_state", "look_errors_total")}

    assert everything(crooked) == everything(straight)


# What a site may get wrong.


def raises(_: object) -> float:
    raise ZeroDivisionError("by zero")


@pytest.mark.parametrize(
    ("metric", "problem"),
    [
        (Metric("odd", "Odd.", (), raises), "by zero"),
        (Metric("odd", "Odd.", (), lambda _: "much"), "odd cannot be had"),  # type: ignore[arg-type,return-value]
        (Metric("odd", "Odd.", (), lambda _: 10**400), "odd cannot be had"),
        (Metric("odd_total", "Odd.", (), lambda _: -1, "counter"), "found -1.0"),
        (Metric("odd_total", "Odd.", (), lambda _: math.nan, "counter"), "found nan"),
        (Metric("odd_total", "Odd.", (), lambda _: math.inf, "counter"), "found inf"),
    ],
)
def test_a_record_whose_metric_cannot_be_had_changes_nothing(metric: Metric, problem: str) -> None:
    class Odd(Record):
        kind = "odd"
        metrics = (Metric("fine", "Fine.", (), lambda _: 1.0), metric)

    series = CurrentSeries([Odd], stale_after_s=10)

    with pytest.raises(RecordError, match=problem):
        series.take(b"1", Odd(), NOON, NOON)

    assert series.families() == []


def test_a_kind_that_was_not_declared_is_a_bug() -> None:
    class Other(Record):
        kind = "other"

    with pytest.raises(RuleBroken, match="'other'"):
        current().take(b"1", Other(), NOON, NOON)


def kind_with(metric: Metric) -> type[Record]:
    return type(
        "Another", (Record,), {"kind": "another", "metrics": (metric,), "__annotations__": {"fs": str}}
    )


@pytest.mark.parametrize(
    ("metric", "problem"),
    [
        (Metric("Bad-Name", "Help.", (), lambda _: 1), "Bad-Name"),
        (Metric("look_seconds", "Other help.", ("fs", "ost"), lambda _: 1), "declared otherwise"),
        (Metric("look_seconds", "How long it took.", ("fs",), lambda _: 1), "declared otherwise"),
        (Metric("cyclone_tasks", "Mine.", (), lambda _: 1), "declared otherwise"),
    ],
)
def test_kinds_that_contradict_one_another_or_cyclone_are_refused(metric: Metric, problem: str) -> None:
    with pytest.raises(PluginError, match=problem):
        CurrentSeries([Look, kind_with(metric)], stale_after_s=10)


def test_two_kinds_may_tell_of_the_same_metric() -> None:
    same = kind_with(Metric("look_seconds", "How long it took.", ("fs", "ost"), lambda _: 7))
    same.ost = 1  # type: ignore[attr-defined]
    series = CurrentSeries([Look, same], stale_after_s=10)

    series.take(b"1", same(fs="home"), NOON, NOON)

    assert shown(series, "look_seconds") == {("home", "1"): 7}
