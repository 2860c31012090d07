from __future__ import annotations

import builtins
import json
import sys
import time

import pytest

from cyclone.cli.page import Table, as_json, local_time, visible
from cyclone.messages import AttemptView, TaskView
from cyclone.model.lifecycle import Outcome, State
from cyclone.model.resources import UNIT
from cyclone.model.task import End, Policy, first_token


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ost-0012@03:00 größer", "ost-0012@03:00 größer"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x9b\u202e", "\\x9b\\u202e"),
        ("\udc80", "\\udc80"),
    ],
)
def test_control_characters_are_shown_and_not_obeyed(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_times_are_local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC-2")
    time.tzset()
    try:
        shown = local_time(1_000_000_000)
    finally:
        monkeypatch.undo()
        time.tzset()

    assert shown == "2001-09-09 03:46:40"
    assert local_time(0) == "-"


def test_columns_are_aligned_and_cells_made_visible() -> None:
    table = Table(("NAME", "COUNT", "END"), right=("COUNT",))

    table.add("a\x07", 7, "")
    table.add("longer name", 1234, "x")

    assert table.lines() == [
        "NAME         COUNT  END",
        "a\\x07            7",
        "longer name   1234  x",
    ]


def test_an_object_has_amounts_tokens_and_states_as_people_write_them() -> None:
    end = End(first_token(3) + 5, 1.5, 2.0, Outcome.RAISED)
    view = AttemptView(1, "node1", "error", end)

    told = json.loads(as_json({"view": view, "policy": Policy(resources=(("cpus", UNIT // 2),))}))

    assert told["view"]["end"]["token"] == "3.5"
    assert told["view"]["end"]["outcome"] == "raised"
    assert told["policy"]["resources"] == {"cpus": 0.5}
    assert told["policy"]["retry"]["losses"] == 5


def test_an_object_is_one_line_of_ascii() -> None:
    told = as_json(TaskView(1, "work", "a\nθ", "", State.READY, 0))

    assert told.isascii()
    assert "\n" not in told
    assert json.loads(told)["tid"] == "a\nθ"


def test_a_terminal_gets_a_table_in_which_brackets_are_no_markup(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    table = Table(("TID",))
    table.add("[red]x[/red]")

    table.print()

    told = capsys.readouterr().out
    assert "[red]x[/red]" in told
    assert "─" in told


def test_a_terminal_without_rich_gets_aligned_text(monkeypatch, capsys) -> None:
    really_import = builtins.__import__

    def without_rich(name, *rest):
        if name == "rich":
            raise ImportError(name)
        return really_import(name, *rest)

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(builtins, "__import__", without_rich)
    table = Table(("TID",))
    table.add("a")

    table.print()

    assert capsys.readouterr().out == "TID\na\n"
