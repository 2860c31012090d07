"""How a requested OST is honoured: `-i` is where the search starts, `-o` is exactly that OST or an error."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from simulated_lustre import REPOSITORY  # noqa: F401  # makes the tool importable

from simlustre.allocation import choose
from simlustre.errors import Refusal
from simlustre.layout import Wish
from simlustre.state import Ost

POOLS = {"hdd": {0, 1, 2}, "ssd": {3, 4}}


def _osts(**changed: str | tuple[str, int]) -> list[Ost]:
    """Five OSTs, half full; `_osts(o3="down")` changes the state of one, `o3="full"` fills it."""
    osts = []
    for index in range(5):
        state = changed.get(f"o{index}", "active")
        used = 1000 if state == "full" else 500
        name = "active" if state == "full" else state
        row: tuple[Any, ...] = (
            index,
            1000,
            used,
            10,
            "oss1",
            "nid",
            800.0,
            0,
            name,
            0,
            1.0,
            0,
            0,
            0.0,
            0.0,
            0.0,
            0,
        )
        osts.append(Ost(row, 1.0, 0.0))
    return osts


def _chosen(
    wish: Wish, osts: list[Ost] | None = None, turn: int = 0, allocator: str = "roundrobin"
) -> list[int]:
    return choose(wish, osts or _osts(), POOLS, turn, allocator)[0]


def _errno(wish: Wish, osts: list[Ost] | None = None) -> int:
    with pytest.raises(Refusal) as raised:
        choose(wish, osts or _osts(), POOLS, 0)
    return raised.value.code


UNUSABLE = ["down", "deactivated", "error", "readonly", "nocreate", "enoino", "full"]


def test_a_start_index_is_taken_when_it_is_usable() -> None:
    assert _chosen(Wish(index=3)) == [3]


@pytest.mark.parametrize("state", UNUSABLE)
def test_a_start_index_that_is_not_usable_falls_over_to_the_next(state: str) -> None:
    assert _chosen(Wish(index=2), _osts(o2=state)) == [3]


def test_the_search_for_the_next_wraps_around() -> None:
    assert _chosen(Wish(index=3), _osts(o3="down", o4="readonly")) == [0]


def test_stripes_go_on_in_index_order() -> None:
    assert _chosen(Wish(index=3, count=3), _osts(o4="full")) == [3, 0, 1]


def test_an_unknown_start_index_is_invalid() -> None:
    assert _errno(Wish(index=9)) == errno.EINVAL


def test_nobody_usable_means_no_space() -> None:
    nobody = _osts(**{f"o{index}": "down" for index in range(5)})

    assert _errno(Wish(index=2), nobody) == errno.ENOSPC
    assert _errno(Wish(), nobody) == errno.ENOSPC


@pytest.mark.parametrize("state", ["active", "degraded", "hang"])
def test_a_list_takes_exactly_these(state: str) -> None:
    assert _chosen(Wish(osts=[4, 1]), _osts(o4=state)) == [4, 1]


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ("down", errno.EREMOTEIO), ("deactivated", errno.EREMOTEIO), ("error", errno.EREMOTEIO),
        ("full", errno.ENOSPC), ("enoino", errno.ENOSPC), ("readonly", errno.EROFS), ("nocreate",
        errno.ENOBUFS),
    ],
)  # fmt: skip
def test_a_list_is_never_substituted(state: str, code: int) -> None:
    assert _errno(Wish(osts=[1, 2]), _osts(o2=state)) == code


def test_an_unknown_ost_in_a_list_is_no_device() -> None:
    assert _errno(Wish(osts=[9])) == errno.ENODEV


def test_an_ost_twice_in_a_list_is_invalid() -> None:
    assert _errno(Wish(osts=[1, 1])) == errno.EINVAL


def test_an_index_inside_the_pool_keeps_it() -> None:
    assert choose(Wish(index=3, pool="ssd"), _osts(), POOLS, 0) == ([3], "ssd")


@pytest.mark.parametrize("place", [{"index": 1}, {"osts": [1]}])
def test_an_index_outside_an_inherited_pool_drops_it(place: dict[str, Any]) -> None:
    assert choose(Wish(pool="ssd", **place), _osts(), POOLS, 0) == ([1], None)


@pytest.mark.parametrize("place", [{"index": 1}, {"osts": [1]}])
def test_an_index_outside_a_pool_asked_for_is_invalid(place: dict[str, Any]) -> None:
    assert _errno(Wish(pool="ssd", asked_pool=True, **place)) == errno.EINVAL


def test_the_search_stays_in_the_pool() -> None:
    assert _chosen(Wish(index=4, pool="ssd"), _osts(o4="down")) == [3]


def test_an_unknown_pool_is_invalid() -> None:
    assert _errno(Wish(pool="tape")) == errno.EINVAL


def test_without_a_wish_the_osts_take_turns() -> None:
    assert [_chosen(Wish(), _osts(o1="down"), turn) for turn in range(5)] == [[0], [2], [3], [4], [0]]


def test_all_stripes_means_all_usable_ones() -> None:
    assert _chosen(Wish(count=-1), _osts(o1="down")) == [0, 2, 3, 4]


def test_the_space_allocator_takes_the_emptiest() -> None:
    osts = _osts()
    osts[3].available_kib = 900

    assert _chosen(Wish(), osts, allocator="space") == [3]
