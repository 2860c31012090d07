from __future__ import annotations

import pytest

from cyclone.model.resources import UNIT, Room, amount, plain, shape

# Amounts.


@pytest.mark.parametrize(
    ("value", "units"),
    [
        (2, 20_000),
        (0.5, 5_000),
        (0.1, 1_000),
        (0, 0),
        ("2", 20_000),
        (" 1.5 ", 15_000),
        ("4k", 4 * 1024 * UNIT),
        ("64GiB", 64 * 2**30 * UNIT),
        ("64 gb", 64 * 2**30 * UNIT),
        ("1.5T", 3 * 2**39 * UNIT),
        ("10M", 10 * 2**20 * UNIT),
    ],
)
def test_an_amount_is_counted_in_ten_thousandths(value: int | float | str, units: int) -> None:
    assert amount(value) == units


def test_ten_tenths_are_one() -> None:
    assert 10 * amount(0.1) == amount(1)


@pytest.mark.parametrize("value", ["", "many", "-1", "1e3", "3 apples", "1.", "0x10", "1_000", "64 Gi B"])
def test_text_that_is_no_amount_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="is not an amount"):
        amount(value)


def test_a_negative_amount_is_refused() -> None:
    with pytest.raises(ValueError, match="is negative"):
        amount(-0.5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused(value: float) -> None:
    with pytest.raises((ValueError, OverflowError)):
        amount(value)


# Shapes.


def test_a_shape_does_not_depend_on_the_order_of_its_names() -> None:
    assert shape({"memory": 1, "cpus": 2}) == shape({"cpus": 2, "memory": 1})


def test_what_is_not_needed_is_not_in_a_shape() -> None:
    assert shape({"cpus": 0, "gpu": 1}) == (("gpu", UNIT),)


@pytest.mark.parametrize("name", ["", "1st", "a b", "-x", "x" * 65, "ä"])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not a name for a resource"):
        shape({name: 1})


@pytest.mark.parametrize("name", ["cpus", "gpu.a100", "node-local_ssd", "_x", "x" * 64])
def test_a_good_name_is_taken(name: str) -> None:
    assert shape({name: 1}) == ((name, UNIT),)


def test_a_shape_is_told_as_people_write_it() -> None:
    assert plain(shape({"cpus": 2, "share": 0.25})) == {"cpus": 2, "share": 0.25}


# Room.


def test_what_is_taken_is_not_free() -> None:
    room = Room(shape({"cpus": 2}))

    room.take(shape({"cpus": 1.5}))

    assert room.fits(shape({"cpus": 0.5}))
    assert not room.fits(shape({"cpus": 0.6}))


def test_what_is_given_back_is_free_again() -> None:
    room = Room(shape({"cpus": 2}))
    room.take(shape({"cpus": 2}))

    room.give_back(shape({"cpus": 2}))

    assert room.fits(shape({"cpus": 2}))


def test_what_could_fit_is_asked_of_the_empty_room() -> None:
    room = Room(shape({"cpus": 2}))
    room.take(shape({"cpus": 2}))

    assert room.could_fit(shape({"cpus": 2}))
    assert not room.could_fit(shape({"cpus": 3}))
    assert not room.could_fit(shape({"gpu": 1}))


def test_nothing_fits_where_a_resource_is_unknown() -> None:
    assert not Room(shape({"cpus": 2})).fits(shape({"gpu": 1}))


def test_what_is_taken_stays_taken_when_the_room_changes() -> None:
    room = Room(shape({"cpus": 2}))
    room.take(shape({"cpus": 2}))

    room.resize(shape({"cpus": 3, "gpu": 1}))

    assert room.free == {"cpus": UNIT, "gpu": UNIT}


def test_more_may_be_taken_than_there_is() -> None:
    room = Room()

    room.take(shape({"cpus": 1}))
    room.resize(shape({"cpus": 2}))

    assert room.free == {"cpus": UNIT}


def test_a_resource_that_is_gone_and_taken_is_owed() -> None:
    room = Room(shape({"gpu": 1}))
    room.take(shape({"gpu": 1}))

    room.resize(())

    assert room.free == {"gpu": -UNIT}
