"""Options, layouts and compact JSON, without any program."""

from __future__ import annotations

import pytest
from simulated_lustre import REPOSITORY  # noqa: F401  # makes the tool importable

from simlustre import compact, options
from simlustre.errors import Usage
from simlustre.files import plan
from simlustre.layout import RELEASED, Layout, Wish


def _parsed(*arguments: str) -> tuple[list[tuple[str, str]], list[str]]:
    words = {"count": "c", "stripe-count": "c", "stripe-size": "S", "yaml": "y", "copy": "copy="}
    found = options.parse(arguments, "c:S:yvx::", words)
    return found.pairs, found.operands


def test_short_options_come_bundled_and_with_attached_values() -> None:
    assert _parsed("-yvc3", "-S", "1M", "file") == ([("y", ""), ("v", ""), ("c", "3"), ("S", "1M")], ["file"])


def test_options_and_operands_may_be_mixed() -> None:
    assert _parsed("a", "-y", "b", "-c", "-1") == ([("y", ""), ("c", "-1")], ["a", "b"])


def test_two_dashes_end_the_options() -> None:
    assert _parsed("-y", "--", "-c", "--count") == ([("y", "")], ["-c", "--count"])


def test_long_options_take_values_with_and_without_an_equals_sign() -> None:
    assert _parsed("--count=3", "--copy", "x", "--yaml") == ([("c", "3"), ("copy", "x"), ("y", "")], [])


def test_long_options_may_be_shortened_while_they_are_unique() -> None:
    assert _parsed("--stripe-c=2", "--ya") == ([("c", "2"), ("y", "")], [])
    with pytest.raises(Usage, match="ambiguous"):
        _parsed("--stripe-=2")


@pytest.mark.parametrize("arguments", [["-Z"], ["-c"], ["--nothing"], ["--yaml=1"], ["--count"]])
def test_nonsense_is_refused(arguments: list[str]) -> None:
    with pytest.raises(Usage):
        _parsed(*arguments)


@pytest.mark.parametrize(
    ("text", "number"),
    [("4096", 4096), ("64K", 65536), ("1m", 1 << 20), ("2T", 2 << 40), ("EOF", -1), ("-1", -1)],
)
def test_sizes_have_suffixes(text: str, number: int) -> None:
    assert options.size(text) == number


def test_indices_are_lists_of_ranges() -> None:
    assert options.indices("3,5-7,0x1f") == [3, 5, 6, 7, 31]


@pytest.mark.parametrize("value", [{"a": [1, 2.5, None, True]}, [], 'é\udc80\n"', {"n": {"m": -1}}])
def test_compact_json_comes_back_as_it_was(value: object) -> None:
    assert compact.loads(compact.dumps(value)) == value


@pytest.mark.parametrize("text", ["", "{", "[1] 2", "nonsense"])
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not JSON|after JSON|Expecting"):
        compact.loads(text)


def _layout(size: int, *wishes: Wish) -> Layout:
    """A layout whose components lie on OSTs 1, 2, … in turn, as many as they wish for."""
    layout = Layout(7, plan(list(wishes), len(wishes) > 1), len(wishes) > 1, size=size)
    place = 0
    for component in layout.components:
        if component.wish.pattern != "mdt" and component.reached_by(size):
            component.osts = [place + 1 + step for step in range(component.wish.count)]
            component.objects = [10] * component.wish.count
            place += component.wish.count
    return layout


def test_a_plain_file_lies_on_its_ost() -> None:
    assert _layout(1000, Wish()).shares() == {1: 1000}


def test_stripes_share_evenly_to_the_byte() -> None:
    assert _layout(1001, Wish(count=4)).shares() == {1: 251, 2: 250, 3: 250, 4: 250}


def test_components_share_by_their_extents() -> None:
    layout = _layout(300, Wish(end=100), Wish(end=250, count=2), Wish())

    assert layout.shares() == {1: 100, 2: 75, 3: 75, 4: 50}


def test_what_lies_on_the_mdt_burdens_no_ost() -> None:
    assert _layout(300, Wish(end=100, pattern="mdt"), Wish()).shares() == {1: 200}


def test_a_component_that_the_file_does_not_reach_has_no_objects() -> None:
    layout = _layout(50, Wish(end=100), Wish())

    assert layout.osts() == [1]
    assert layout.last_initialised().number == 1


def test_the_default_of_a_directory_is_no_layout() -> None:
    with pytest.raises(ValueError, match="default"):
        Layout.from_text('{"v":1,"default":[],"composite":false}')


def test_a_layout_comes_back_from_its_text() -> None:
    layout = _layout(300, Wish(end=100, pattern="mdt"), Wish(pool="hdd"))
    layout.hsm = RELEASED
    layout.former = layout.components[1:]

    text = layout.to_text()

    assert Layout.from_text(text).to_text() == text
