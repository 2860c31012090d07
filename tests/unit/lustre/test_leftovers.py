from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from lustre_builders import attempt

from cyclone.lustre.leftovers import RemoveLeftoversTask

LEFT = "3_node7_4711_mon-7-3.tmp"


def make(directory: Path, name: str, age_s: float) -> Path:
    file = directory / name
    file.write_bytes(b"x")
    os.utime(file, (0, time.time() - age_s))
    return file


def test_files_of_dead_tasks_are_removed(tmp_path: Path) -> None:
    make(tmp_path, LEFT, age_s=90_000)
    make(tmp_path, "12_node-7.site_4711_mon-7-12_file_creation_check.tmp", age_s=90_000)

    assert attempt(RemoveLeftoversTask([str(tmp_path)])) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_a_task_may_be_at_work_on_stays(tmp_path: Path) -> None:
    file = make(tmp_path, LEFT, age_s=80_000)

    assert attempt(RemoveLeftoversTask([str(tmp_path)])) == 0
    assert file.exists()


def test_files_of_others_stay(tmp_path: Path) -> None:
    names = [
        "precious.tmp",
        "3_results.tmp",
        "notes_node7_4711_x.tmp",
        "3_node7_4711_x.txt",
        "3_node7_x_y.tmp",
    ]
    for name in names:
        make(tmp_path, name, age_s=90_000)
    (tmp_path / LEFT).mkdir()
    os.utime(tmp_path / LEFT, (0, 0))
    (tmp_path / "4_node7_4711_mon-7-4.tmp").symlink_to("precious.tmp")

    assert attempt(RemoveLeftoversTask([str(tmp_path)])) == 0
    assert len(list(tmp_path.iterdir())) == len(names) + 2


def test_files_on_an_ost_that_is_down_are_left_alone(tmp_path: Path) -> None:
    file = make(tmp_path, LEFT, age_s=90_000)

    assert attempt(RemoveLeftoversTask([str(tmp_path)], osts_avoided=[3])) == 0
    assert file.exists()


def test_a_directory_that_is_not_there_keeps_no_other_from_being_cleared(tmp_path: Path) -> None:
    make(tmp_path, LEFT, age_s=90_000)

    assert attempt(RemoveLeftoversTask([str(tmp_path / "none"), str(tmp_path)])) == 1


def test_a_file_that_cannot_be_removed_keeps_no_other_from_being_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stuck = make(tmp_path, LEFT, age_s=90_000)
    gone = make(tmp_path, "4_node7_4711_mon-7-4.tmp", age_s=90_000)
    make(tmp_path, "5_node7_4711_mon-7-5.tmp", age_s=90_000)
    unlink = os.unlink

    def refuse(path: str) -> None:
        if path == str(stuck):
            raise PermissionError(1, "Operation not permitted")
        unlink(path)
        if path == str(gone):
            raise FileNotFoundError(2, "somebody was faster")

    monkeypatch.setattr(os, "unlink", refuse)

    assert attempt(RemoveLeftoversTask([str(tmp_path)])) == 1
    assert list(tmp_path.iterdir()) == [stuck]
    assert f"cannot be removed file={stuck}" in caplog.text
