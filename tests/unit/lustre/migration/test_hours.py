from __future__ import annotations

import pytest

from cyclone.lustre.migration.hours import Hours

NOON = 12 * 60


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("20:00-06:00", [20 * 60, 23 * 60 + 59, 0, 5 * 60 + 59], [6 * 60, NOON, 19 * 60 + 59]),
        ("08:30-17:00", [8 * 60 + 30, NOON], [8 * 60 + 29, 17 * 60, 0]),
        ("20:00 - 24:00", [20 * 60, 23 * 60 + 59], [0, 19 * 60 + 59]),
        ("0:00-6:00", [0, 5 * 60 + 59], [6 * 60]),
        ("", [0, NOON], []),
    ],
)
def test_they_hold_from_the_first_minute_up_to_the_last(
    text: str, inside: list[int], outside: list[int]
) -> None:
    hours = Hours.of(text)

    assert all(hours.hold(minute) for minute in inside)
    assert not any(hours.hold(minute) for minute in outside)


@pytest.mark.parametrize(
    "text",
    [
        "20-06",
        "24:00-06:00",
        "20:60-06:00",
        "25:00-01:00",
        "20:00",
        "20:00-24:30",
        "07:00-07:00",
        "eight-nine",
        "٢٠:00-06:00",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        Hours.of(text)


@pytest.mark.parametrize(("text", "told"), [("20:00-6:00", "20:00-06:00"), ("", "all day")])
def test_they_are_told_as_they_are_written(text: str, told: str) -> None:
    assert str(Hours.of(text)) == told
