from __future__ import annotations

from pathlib import Path

import pytest

from cyclone.lustre.migration.names import (
    ListFiles,
    fed_back,
    retryable_lists,
    taken_lists,
    waiting_lists,
)
from cyclone.lustre.migration.verdict import FileState


def touch(directory: Path, *names: str) -> None:
    for name in names:
        (directory / name).touch()


def test_only_what_is_called_a_list_waits(tmp_path: Path) -> None:
    touch(
        tmp_path, "a.input", "b.input0", "c.input.gz", "d.input0.gz", "e.input.done", "f.input.active", "g.input~",
        ".h.input", "input", "i.input1", "j.input.rejected", ".input",
    )  # fmt: skip
    (tmp_path / "k.input").mkdir()

    waiting, false = ([file.name for file in found] for found in waiting_lists(tmp_path))

    assert waiting == ["a.input", "b.input0", "c.input.gz", "d.input0.gz"]
    assert false == ["k.input"]


@pytest.mark.parametrize(
    ("name", "separator", "packed"),
    [
        ("a.input", b"\n", False), ("a.input0", b"\0", False), ("a.input.gz", b"\n", True),
        ("a.input0.gz", b"\0", True), ("a.input0.b.input", b"\n", False),
        ("a.input.gz.active", b"\n", True), ("a.input0.gz.done.2", b"\0", True), ("a.input.gz.busy", b"\n", False),
        ("a.input.done.gz", b"\n", True), ("my.input.2024.gz", b"\n", True), ("a.inputs.gz", b"\n", True),
        ("a.input0.busy.gz", b"\0", True), ("run.input0815", b"\n", False),
    ],
)  # fmt: skip
def test_a_name_says_how_its_records_end_and_whether_they_are_packed(
    tmp_path: Path, name: str, separator: bytes, packed: bool
) -> None:
    files = ListFiles(tmp_path / name)

    assert (files.separator, files.is_packed) == (separator, packed)


def test_a_list_that_is_being_worked_on_is_found_by_its_name_or_its_journal(tmp_path: Path) -> None:
    touch(tmp_path, "a.input.active", "b.input.journal", "c.input.done", "d.journal", "a.input.journal")

    assert [file.name for file in taken_lists(tmp_path)] == ["a.input", "b.input"]


@pytest.mark.parametrize("left", ["done", "rejected", "busy", "failed", "audit"])
def test_nothing_of_an_earlier_list_of_that_name_is_overwritten(tmp_path: Path, left: str) -> None:
    touch(tmp_path, f"a.input.{left}", f"a.input.{left}.2")

    files = ListFiles.new(tmp_path / "a.input")

    assert files.done.name == "a.input.done.3"
    assert files.rejected.name == "a.input.rejected.3"
    assert files.retryable(FileState.BUSY).name == "a.input.busy.3"


@pytest.mark.parametrize(
    ("name", "fed"),
    [
        ("a.input.busy", "a.busy-1.input"),
        ("a.input.failed.3", "a.failed-1.input"),
        ("a.input0.busy", "a.busy-1.input0"),
        ("a.input.gz.busy", "a.busy-1.input"),
        ("a.input0.gz.failed", "a.failed-1.input0"),
        ("a.busy-1.input.busy", "a.busy-1.input"),
        ("a.failed-2.input.busy", "a.busy-1.input"),
    ],
)
def test_a_list_of_retryable_entries_gets_the_name_of_a_list(tmp_path: Path, name: str, fed: str) -> None:
    assert fed_back(tmp_path / name) == tmp_path / fed


def test_no_list_gets_the_name_of_another_whatever_became_of_that(tmp_path: Path) -> None:
    touch(tmp_path, "a.busy-1.input.done", "a.busy-2.input.active", "a.input.busy")

    assert fed_back(tmp_path / "a.input.busy").name == "a.busy-3.input"


def test_lists_of_retryable_entries_are_found_whatever_became_of_their_list(tmp_path: Path) -> None:
    touch(
        tmp_path, "a.input.busy", "b.input0.gz.busy.2", "c.input.failed", "busy", "d.busy", "e.input.busy.tmp"
    )

    assert [file.name for file in retryable_lists(tmp_path, FileState.BUSY)] == [
        "a.input.busy",
        "b.input0.gz.busy.2",
    ]
    assert [file.name for file in retryable_lists(tmp_path, FileState.FAILED)] == ["c.input.failed"]
