import pytest

from cyclone.lustre.rangeset import indexes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("  \n", ()),
        ("7", (7,)),
        ("0-3,12", (0, 1, 2, 3, 12)),
        ("0-10/5", (0, 5, 10)),
        ("9,1,9,1-2", (1, 2, 9)),
        (" 1 - 3 , 5 ", (1, 2, 3, 5)),
        ("001-003", (1, 2, 3)),
        ("65535", (65535,)),
        ("00000065535", (65535,)),
    ],
)
def test_indexes_come_growing_and_once(text, expected):
    assert indexes(text, "ost_targets") == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("-1", "below 0"),
        ("5,-1", "below 0"),
        ("-5--1", "below 0"),
        ("1-3/-1", "below 0|invalid"),
        ("65536", "above 65535"),
        ("0-99999999999999", "above 65535"),
        ("5-1", "invalid"),
        ("1,,2", "empty"),
        ("1-3/0", "invalid"),
        ("0x3", "only digits"),
        ("1_0", "only digits"),
        ("+4", "only digits"),
        ("\uff10-\uff13", "only digits"),  # digits, but of another script
        ("1-3 5", "convert|invalid"),
        ("all", "only digits"),
    ],
)
def test_what_is_no_set_of_indexes_is_told_with_its_reason(text, reason):
    with pytest.raises(ValueError, match=reason) as raised:
        indexes(text, "ost_targets")

    assert str(raised.value).startswith("ost_targets: found ")


def test_a_long_wrong_text_is_not_told_in_full():
    with pytest.raises(ValueError, match="found") as raised:
        indexes("x" * 100_000, "ost_targets")

    assert len(str(raised.value)) < 300
