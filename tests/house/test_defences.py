"""Every defence in the table can be taken out, its test is there, and the quickest ones are noticed."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from defences import DEFENCES, QUICKEST, ROOT, Defence, copied, take_out

each_one = pytest.mark.parametrize("defence", DEFENCES, ids=lambda defence: defence.name)


@cache
def functions_of(file: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@each_one
def test_what_is_taken_out_stands_once_in_the_source(defence: Defence) -> None:
    source = (ROOT / "cyclone" / defence.file).read_text(encoding="utf-8")

    assert source.count(defence.right) == 1


def test_what_takes_its_place_is_sound(tmp_path: Path) -> None:
    # Or any test would fail, for a reason of its own.
    for number, (_, _, file, right, wrong, _) in enumerate(DEFENCES):
        source = (ROOT / "cyclone" / file).read_text(encoding="utf-8")
        (tmp_path / f"{number}.py").write_text(source.replace(right, wrong), encoding="utf-8")

    checked = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--select", "F821,F823", tmp_path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert checked.returncode == 0, checked.stdout


@each_one
def test_the_test_of_a_defence_exists(defence: Defence) -> None:
    file, _, name = defence.test.partition("::")

    assert name.partition("[")[0] in functions_of(file)


def test_no_defence_is_called_like_another() -> None:
    names = [defence.name for defence in DEFENCES]

    assert len(set(names)) == len(names)


def test_the_quickest_are_noticed(tmp_path: Path) -> None:
    copy = copied(tmp_path)
    chosen = [defence for defence in DEFENCES if defence.name in QUICKEST]

    verdicts = {defence.name: take_out(defence, copy) for defence in chosen}

    assert len(verdicts) == len(QUICKEST)
    assert {name: verdict for name, verdict in verdicts.items() if not verdict.is_noticed} == {}
