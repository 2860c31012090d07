from __future__ import annotations

from typing import Any

import pytest

from cyclone.lustre.properties import given, seconds, size_bytes, switch, whole, words


@pytest.mark.parametrize(("value", "expected"), [(5, 5), ("5", 5), (" 7 ", 7), ("0", 0)])
def test_a_whole_number_may_be_text(value: int | str, expected: int) -> None:
    assert whole("ost_idx", value) == expected


@pytest.mark.parametrize("value", ["", "x", "1.5", 1.5, True, "-1", -1, 11, "11"])
def test_a_wrong_whole_number_is_told_with_its_bounds(value: Any) -> None:
    with pytest.raises(ValueError, match=r"ost_idx: found .*, expected a whole number from 0 to 10"):
        whole("ost_idx", value, maximum=10)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, 1), ("4096", 4096), ("64K", 65536), ("1m", 2**20), ("2GiB", 2**31), ("1 TB", 2**40)],
)
def test_a_size_may_have_a_unit(value: int | str, expected: int) -> None:
    assert size_bytes("block_size_bytes", value) == expected


@pytest.mark.parametrize("value", ["", "0", 0, -5, "1.5M", "1X", "M", str(2**63)])
def test_a_wrong_size_is_told(value: int | str) -> None:
    with pytest.raises(ValueError, match="block_size_bytes: found"):
        size_bytes("block_size_bytes", value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, True),
        (False, False),
        ("on", True),
        ("off", False),
        ("True", True),
        ("no", False),
        (" 1 ", True),
    ],
)
def test_a_switch_has_many_spellings(value: bool | str, expected: bool) -> None:
    assert switch("write_file_sync", value) is expected


@pytest.mark.parametrize("value", ["", "maybe", "2"])
def test_a_wrong_switch_is_told(value: str) -> None:
    with pytest.raises(ValueError, match="write_file_sync: found"):
        switch("write_file_sync", value)


@pytest.mark.parametrize("value", ["", "x", 0, "0", -1, "nan", "inf"])
def test_a_wrong_duration_is_told(value: float | str) -> None:
    with pytest.raises(ValueError, match=r"mail_threshold: found .* above 0"):
        seconds("mail_threshold", value)


def test_a_duration_may_have_a_bound() -> None:
    assert seconds("phase_timeout", "10", maximum=10.0) == 10.0
    with pytest.raises(ValueError, match=r"phase_timeout: found 11, expected .* above 0, at most 10"):
        seconds("phase_timeout", 11, maximum=10.0)


def test_a_duration_of_zero_is_one_where_it_means_something() -> None:
    assert seconds("mail_repeat", "0", zero=True) == 0.0
    assert seconds("mail_threshold", "0.5") == 0.5


def test_text_that_must_be_there_is_asked_for() -> None:
    assert given("target_dir", " /lustre ") == "/lustre"
    with pytest.raises(ValueError, match="target_dir: found ' ', expected a directory"):
        given("target_dir", " ", "a directory")


def test_words_are_separated_by_commas_and_blanks() -> None:
    assert words("a, b,c  d") == ("a", "b", "c", "d")
    assert words(" ") == ()
