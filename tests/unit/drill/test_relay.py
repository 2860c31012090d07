"""The mind of the relay of messages: what each mode does to letters, and that the dice are the plan's."""

from __future__ import annotations

import pytest

from cyclone.drill.relay import PASS, Weather
from cyclone.messages import Started

LETTERS = [(Started([number]), ()) for number in range(200)]


def through(mode: str, dice: int = 1, until: float = 100.0) -> tuple[list[int], int]:
    """The tokens that come out, in their order, of letters that come a hundredth of a second apart."""
    weather = Weather()
    weather.change(mode, dice)
    out = []
    for number, letter in enumerate(LETTERS):
        weather.take(letter, number / 100)
        out += weather.due(number / 100)
    out += weather.due(until)
    return [message.tokens[0] for message, _ in out], weather.change(PASS, 0)


def test_in_good_weather_all_passes_at_once() -> None:
    tokens, touched = through(PASS, until=1.99)

    assert (tokens, touched) == (list(range(200)), 0)


def test_some_are_lost() -> None:
    tokens, touched = through("lose-messages")

    assert tokens == sorted(set(tokens))
    assert 30 < touched < 100
    assert len(tokens) == 200 - touched


def test_some_come_twice() -> None:
    tokens, touched = through("double-messages")

    assert set(tokens) == set(range(200))
    assert len(tokens) == 200 + touched
    assert touched > 50


def test_late_ones_keep_their_order() -> None:
    tokens, touched = through("delay-messages")

    assert (tokens, touched) == (list(range(200)), 200)
    assert len(through("delay-messages", until=1.99)[0]) < 200


def test_some_overtake_others_and_none_is_lost() -> None:
    tokens, _ = through("reorder-messages")

    assert sorted(tokens) == list(range(200))
    assert tokens != sorted(tokens)


@pytest.mark.parametrize("mode", ["lose-messages", "double-messages", "reorder-messages"])
def test_the_same_dice_do_the_same(mode: str) -> None:
    assert through(mode, 5) == through(mode, 5)
    assert through(mode, 5) != through(mode, 6)


def test_what_is_under_way_when_the_weather_changes_arrives() -> None:
    weather = Weather()
    weather.change("delay-messages", 1)
    weather.take(LETTERS[0], 0.0)
    weather.change(PASS, 0)

    assert weather.next_moment is not None
    assert weather.due(weather.next_moment) == [LETTERS[0]]
    assert weather.next_moment is None
