from __future__ import annotations

from cyclone.core.alarms import SWEPT_FROM, Alarms


def _never(subject: object) -> bool:
    return False


def test_what_is_due_rings_in_the_order_of_its_moments() -> None:
    alarms: Alarms[str] = Alarms(_never)
    alarms.set(3.0, "third")
    alarms.set(1.0, "first")
    alarms.set(2.0, "second")

    rung = list(alarms.due(3.0))

    assert rung == ["first", "second", "third"]


def test_equal_moments_ring_in_the_order_they_were_set() -> None:
    alarms: Alarms[object] = Alarms(_never)
    subjects = [object() for _ in range(5)]  # which cannot be compared with one another
    for subject in subjects:
        alarms.set(1.0, subject)

    rung = list(alarms.due(1.0))

    assert rung == subjects


def test_what_is_not_due_stays() -> None:
    alarms: Alarms[str] = Alarms(_never)
    alarms.set(1.0, "now")
    alarms.set(1.5, "later")

    rung = list(alarms.due(1.0))

    assert rung == ["now"]
    assert alarms.next_moment == 1.5


def test_an_alarm_rings_once() -> None:
    alarms: Alarms[str] = Alarms(_never)
    alarms.set(1.0, "once")
    list(alarms.due(1.0))

    rung = list(alarms.due(2.0))

    assert rung == []


def test_what_is_set_for_a_moment_gone_by_while_others_ring_rings_too() -> None:
    alarms: Alarms[str] = Alarms(_never)
    alarms.set(1.0, "first")
    rung = []

    for subject in alarms.due(1.0):
        rung.append(subject)
        if subject == "first":
            alarms.set(0.5, "set meanwhile")

    assert rung == ["first", "set meanwhile"]


def test_what_is_moot_does_not_ring() -> None:
    alarms: Alarms[str] = Alarms(lambda subject: subject == "moot")
    alarms.set(1.0, "moot")
    alarms.set(2.0, "wanted")

    rung = list(alarms.due(3.0))

    assert rung == ["wanted"]


def test_moot_alarms_are_never_many_more_than_the_others() -> None:
    wanted = 10
    alarms: Alarms[int] = Alarms(lambda number: number >= wanted)

    for number in range(20 * SWEPT_FROM):
        alarms.set(float(-number), number)

    assert len(alarms) <= SWEPT_FROM + wanted
    assert list(alarms.due(0.0)) == [*reversed(range(wanted))]


def test_sweeping_looks_at_each_alarm_a_few_times_at_most() -> None:
    looks = 0

    def looked(number: int) -> bool:
        nonlocal looks
        looks += 1
        return number % 2 == 0

    alarms: Alarms[int] = Alarms(looked)

    for number in range(20 * SWEPT_FROM):
        alarms.set(float(number), number)

    assert looks <= 3 * 20 * SWEPT_FROM


def test_without_alarms_there_is_no_next_moment() -> None:
    alarms: Alarms[str] = Alarms(_never)

    assert alarms.next_moment is None
