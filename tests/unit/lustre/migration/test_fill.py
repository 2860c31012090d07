from __future__ import annotations

import pytest

from cyclone.lustre.migration.fill import Fills, Level
from cyclone.lustre.migration.ost import Role

GIB = 2**30


def measured(percent: float = 50.0, gib: int = 100, free_gib: int = 50) -> Level:
    return Level(percent, gib * 2**20, free_gib * 2**20)


@pytest.fixture
def fills() -> Fills:
    fills = Fills(stale_s=30)
    fills.begin()
    fills.measured({0: measured(), 1: measured()}, now=100)
    return fills


def test_an_ost_that_was_not_measured_is_unknown(fills: Fills) -> None:
    assert fills.percent(2) is None
    assert fills.free_bytes(2) is None


def test_what_was_measured_long_ago_is_unknown(fills: Fills) -> None:
    assert fills.is_fresh(130)
    assert not fills.is_fresh(130.001)
    assert not Fills(stale_s=30).is_fresh(0)


def test_bytes_on_their_way_count_for_the_target_and_against_the_source(fills: Fills) -> None:
    fills.start(0, 1, 10 * GIB)

    assert fills.percent(0) == pytest.approx(40)
    assert fills.percent(1) == pytest.approx(60)
    assert fills.free_bytes(1) == 40 * GIB
    assert fills.measured_percent(1) == 50


def test_bytes_on_their_way_out_are_no_room_for_others(fills: Fills) -> None:
    fills.start(0, 1, 10 * GIB)
    before = fills.percent(0, Role.TARGET), fills.free_bytes(0)
    fills.finish(0, 1, 10 * GIB)
    fills.arrived(0, -10 * GIB)

    assert before == (50, 50 * GIB)
    assert fills.percent(0, Role.TARGET) == pytest.approx(40)
    assert fills.free_bytes(0) == 60 * GIB


def test_a_task_that_moved_nothing_leaves_no_trace(fills: Fills) -> None:
    fills.start(0, 1, 10 * GIB)

    fills.finish(0, 1, 10 * GIB)

    assert (fills.percent(0), fills.percent(1)) == (50, 50)


def test_what_has_arrived_counts_until_a_measurement_that_began_later(fills: Fills) -> None:
    fills.arrived(1, 10 * GIB)
    fills.begin()
    fills.arrived(1, 5 * GIB)

    before = fills.percent(1)
    fills.measured({1: measured(60)}, now=110)
    after = fills.percent(1)
    fills.begin()
    fills.measured({1: measured(65)}, now=120)

    assert before == pytest.approx(65)
    assert after == pytest.approx(65)
    assert fills.percent(1) == 65


def test_a_measurement_that_failed_changes_nothing(fills: Fills) -> None:
    fills.arrived(1, 10 * GIB)

    fills.begin()
    fills.begin()

    assert fills.percent(1) == pytest.approx(60)


def test_where_no_size_is_known_nothing_is_projected() -> None:
    fills = Fills(stale_s=30)
    fills.measured({0: Level(42.5)}, now=0)

    fills.arrived(0, GIB)

    assert fills.percent(0) == 42.5
    assert fills.free_bytes(0) is None


def test_an_ost_that_vanishes_from_the_measurement_is_unknown(fills: Fills) -> None:
    fills.measured({1: measured()}, now=110)

    assert fills.percent(0) is None


def test_what_is_on_its_way_outlives_a_measurement(fills: Fills) -> None:
    fills.start(0, 1, 10 * GIB)

    fills.begin()
    fills.measured({0: measured(), 1: measured()}, now=110)

    assert fills.percent(1) == pytest.approx(60)
