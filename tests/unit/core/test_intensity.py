from __future__ import annotations

import pytest

from cyclone.core.intensity import Intensity


@pytest.fixture
def intensity() -> Intensity:
    return Intensity(2, 60.0)


def test_as_many_as_are_borne_are_not_too_many(intensity: Intensity) -> None:
    assert [intensity.one_more(now) for now in (0.0, 1.0)] == [False, False]


def test_one_more_than_is_borne_is_too_many(intensity: Intensity) -> None:
    assert [intensity.one_more(now) for now in (0.0, 1.0, 59.9)] == [False, False, True]


def test_what_is_long_ago_does_not_count(intensity: Intensity) -> None:
    assert [intensity.one_more(now) for now in (0.0, 1.0, 60.0, 61.0)] == [False] * 4


def test_after_a_pause_it_may_break_again(intensity: Intensity) -> None:
    for now in (0.0, 1.0, 2.0):
        intensity.one_more(now)

    assert [intensity.one_more(now) for now in (100.0, 101.0, 102.0)] == [False, False, True]


def test_where_nothing_is_borne_the_first_is_too_many() -> None:
    assert Intensity(0).one_more(5.0)
