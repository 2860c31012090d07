from __future__ import annotations

import pytest

from cyclone.lustre.migration.rate import Rate


def passed(rate: Rate, until: float, amount: float = 1) -> int:
    """How much goes through until then, asked a hundred times a second."""
    count = 0
    for step in range(int(until * 100)):
        while rate.is_open(step / 100):
            rate.spend(amount)
            count += 1
    return count


def test_without_a_bound_everything_goes_through() -> None:
    rate = Rate(0, now=0)

    rate.spend(10**12)

    assert rate.is_open(0)
    assert rate.opens_at(5) == 5


@pytest.mark.parametrize("per_s", [0.5, 1, 3, 20])
def test_no_more_goes_through_than_the_rate_and_one_burst(per_s: float) -> None:
    count = passed(Rate(per_s, now=0), until=20)

    assert per_s * 20 - 1 <= count <= per_s * 20 + per_s + 2


def test_a_debt_is_paid_off_before_anything_else_goes_through() -> None:
    rate = Rate(10, now=0)

    rate.spend(110)

    assert not rate.is_open(9.9)
    assert rate.opens_at(9.9) == pytest.approx(10, abs=0.01)
    assert rate.is_open(10.1)


def test_it_opens_when_it_says_it_does() -> None:
    rate = Rate(3, now=0)
    rate.spend(7)

    moment = rate.opens_at(0)

    assert not rate.is_open(moment - 0.01)
    assert rate.is_open(moment)


def test_what_was_not_used_does_not_pile_up() -> None:
    rate = Rate(10, now=0)

    assert rate.is_open(1000)
    rate.spend(10)

    assert not rate.is_open(1000)


def test_what_is_given_back_may_be_used_again() -> None:
    rate = Rate(10, now=0)
    rate.spend(30)

    rate.spend(-30)

    assert rate.is_open(0)


def test_a_change_counts_at_once_and_forgives_nothing() -> None:
    rate = Rate(1, now=0)
    rate.spend(11)

    rate.change(100, now=0)

    assert not rate.is_open(0)
    assert rate.opens_at(0) == pytest.approx(0.1, abs=0.01)
