from __future__ import annotations

from cyclone.core.spare_time import SHARE, SpareTime


def test_nothing_is_done_before_it_is_time_to_look() -> None:
    spare = SpareTime(100.0, look_s=10.0)

    assert not spare.has_come(109.9, busy=False)
    assert spare.has_come(110.0, busy=False)
    assert spare.next_moment == 110.0


def test_half_of_the_time_is_used_while_nobody_wants_anything() -> None:
    spare = SpareTime(100.0, look_s=10.0)

    spare.spent(110.0, 110.2, more=True)

    assert not spare.has_come(110.39, busy=False)
    assert spare.has_come(110.41, busy=False)


def test_a_small_share_of_the_time_is_used_while_somebody_always_wants_something() -> None:
    spare = SpareTime(100.0, look_s=10.0)

    spare.spent(110.0, 110.2, more=True)

    assert not spare.has_come(110.2 + 0.2 * SHARE - 0.01, busy=True)
    assert spare.has_come(110.2 + 0.2 * SHARE + 0.01, busy=True)


def test_when_nothing_is_left_it_is_not_looked_for_at_once() -> None:
    spare = SpareTime(100.0, look_s=10.0)

    spare.spent(110.0, 110.2, more=False)

    assert not spare.has_come(120.1, busy=False)
    assert spare.has_come(120.3, busy=True)
