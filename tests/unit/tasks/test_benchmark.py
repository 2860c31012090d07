from __future__ import annotations

import os
import pickle
import time
from pathlib import Path

import pytest

from cyclone.errors import TaskError
from cyclone.tasks.benchmark import BenchmarkTask


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    calls: list[float] = []
    monkeypatch.setattr(time, "sleep", calls.append)
    return calls


def test_by_default_it_does_nothing(slept: list[float]) -> None:
    BenchmarkTask().execute()

    assert slept == []


def test_it_sleeps_as_long_as_it_was_told(slept: list[float]) -> None:
    BenchmarkTask(25).execute()

    assert slept == [0.025]


@pytest.mark.parametrize(("tid", "wait_s"), [("100", 0.1), ("103", 0.002)])
def test_it_may_sleep_by_its_tid(slept: list[float], tid: str, wait_s: float) -> None:
    task = BenchmarkTask(sleep_ms=None)
    task.tid = tid

    task.execute()

    assert slept == [wait_s]


def test_only_what_differs_from_the_default_travels() -> None:
    small, large = BenchmarkTask(), BenchmarkTask(1, b"x" * 1000, "/somewhere")

    copy = pickle.loads(pickle.dumps(large))

    assert vars(small) == {}
    assert (copy.sleep_ms, copy.payload, copy.directory) == (1, b"x" * 1000, "/somewhere")


def test_it_appends_a_line_to_a_file_of_its_process(tmp_path: Path) -> None:
    for tid in (7, 8):
        task = BenchmarkTask(directory=tmp_path)
        task.tid = tid

        task.execute()

    file = tmp_path / f"benchmark_task_{os.getpid()}.tmp"
    assert file.read_text() == f"7/{os.getpid()}/0\n8/{os.getpid()}/0\n"
    assert file.stat().st_mode & 0o777 == 0o600


def test_it_does_not_follow_a_link_that_somebody_has_laid(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("")
    (tmp_path / f"benchmark_task_{os.getpid()}.tmp").symlink_to(victim)

    with pytest.raises(OSError, match="symbolic links"):
        BenchmarkTask(directory=tmp_path).execute()

    assert victim.read_text() == ""


def test_it_does_not_write_to_a_file_with_another_name_elsewhere(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("")
    (tmp_path / f"benchmark_task_{os.getpid()}.tmp").hardlink_to(victim)

    with pytest.raises(TaskError, match="plain file of our own"):
        BenchmarkTask(directory=tmp_path).execute()

    assert victim.read_text() == ""
