from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from cyclone.errors import PluginError
from cyclone.record import decode, encode, fields, table
from cyclone.sinks.kinds import load_kinds, with_table

_numbers = count(1)

HEAD = "from cyclone.record import Record\n"
ONE = HEAD + "class One(Record, frozen=True):\n    kind = 'one'\n    width: int\n"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Writes a module of a site; returns its name, which no other test uses."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    written = []

    def write(text: str) -> str:
        name = f"site_kinds_{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text(text)
        written.append(name)
        return name

    yield write
    for name in written:
        sys.modules.pop(name, None)


def test_the_kinds_of_all_modules_are_found_by_their_names(write, tmp_path):
    one = write(ONE)
    two = write(HEAD + "class Two(Record, frozen=True):\n    kind = 'two'\n    height: int\n")

    kinds = load_kinds([two], [tmp_path], built_in=[one])

    assert {name: kind.__name__ for name, kind in kinds.items()} == {"one": "One", "two": "Two"}


def test_the_built_in_kinds_are_there():
    assert {"ost_perf", "file_creation", "migration"} <= set(load_kinds())


def test_a_kind_that_another_module_imports_is_still_one_kind(write, tmp_path):
    one = write(ONE)
    importing = write(f"from {one} import One\nAgain = One\n")

    assert list(load_kinds([importing], [tmp_path], built_in=[one])) == ["one"]


def test_the_common_ground_of_kinds_is_no_kind(write, tmp_path):
    module = write(
        HEAD + "class Ground(Record, frozen=True):\n    place: str\n"
        "class One(Ground, frozen=True):\n    kind = 'one'\n    width: int\n"
    )

    assert list(load_kinds([module], [tmp_path], built_in=[])) == ["one"]


@pytest.mark.parametrize(
    "what", ["kind = 'one'", "kind = 'other'\n    table = 'one'", "kind = 'other'\n    table = 'ONE'"]
)
def test_a_name_or_table_that_is_taken_is_refused_with_both_places(write, tmp_path, what):
    one = write(ONE)
    other = write(HEAD + f"class Other(Record, frozen=True):\n    {what}\n    height: int\n")

    with pytest.raises(PluginError, match=rf"'one' in {one}.One and in {other}.Other, expected it once"):
        load_kinds([one, other], [tmp_path], built_in=[])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x = 1\n", "found no kinds"),
        ("1 / 0\n", "ZeroDivisionError"),
        ("raise SystemExit(3)\n", "SystemExit"),
        ("import no_such_module_anywhere\n", "no_such_module_anywhere"),
        (HEAD + "class Bad(Record):\n    kind = 'bad'\n    parts: list[int]\n", "Bad.parts"),
        (HEAD + "class Bad(Record):\n    kind = 'bad name'\n    part: int\n", "expected small letters"),
        (
            "from __future__ import annotations\n"
            + HEAD
            + "class Bad(Record):\n    kind = 'bad'\n    part: Unknown\n",
            "Unknown",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(write, tmp_path, text, problem):
    module = write(text)

    with pytest.raises(PluginError, match=problem) as raised:
        load_kinds([module], [tmp_path], built_in=[])

    assert module in str(raised.value)


def test_a_module_that_is_not_there_is_refused_by_name():
    with pytest.raises(PluginError, match=r"'nowhere\.kinds' cannot be loaded: ModuleNotFoundError"):
        load_kinds(["nowhere.kinds"], built_in=[])


# Another table.


def test_the_rows_of_a_kind_can_go_to_another_table(reading):
    other = with_table(reading, "OLD_readings")

    assert (other.kind, table(other)) == ("reading", "OLD_readings")
    assert fields(other) == fields(reading)
    assert table(reading) == "readings"
    body = encode(reading, {"place": "here", "order": 1, "at": "2026-11-20T12:00:00Z"})
    assert decode(other, body).place == "here"


@pytest.mark.parametrize("name", ["a b", "x; DROP TABLE y", "a" * 65, "1st"])
def test_a_table_with_a_name_that_is_none_is_refused(reading, name):
    with pytest.raises(PluginError, match="expected small letters"):
        with_table(reading, name)
