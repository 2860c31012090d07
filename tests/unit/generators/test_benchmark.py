from __future__ import annotations

import itertools
import json
import logging
import time
from pathlib import Path
from typing import Any

import pytest

from cyclone.base_task import BaseTask
from cyclone.errors import ConfigError, CycloneError
from cyclone.generators.benchmark import BenchmarkTaskGenerator, Tally, percentiles
from cyclone.ini import Ini
from cyclone.task_generator import Result


def generator(desk: Any = None, **keys: object) -> BenchmarkTaskGenerator:
    given = {"warmup_tasks": 0, **keys}
    made = BenchmarkTaskGenerator(Ini({"control": {key: str(value) for key, value in given.items()}}))
    made.validate_config()
    if desk is not None:
        made._attach(desk)
    return made


def result(tid: str, state: str = "succeeded", duration_s: float = 0.5) -> Result:
    return Result(tid, state, state, 0, None, "", 1, duration_s)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_tasks", 0), ("num_tasks", 100_000_001), ("poll_time_ms", 0), ("poll_time_ms", 1001),
        ("task_sleep_ms", -1), ("task_sleep_ms", "mod102"), ("payload_bytes", -1), ("unknown", 1),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_refused_before_anything_starts(key: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        generator(**{key: value})

    assert (caught.value.section, caught.value.key) == ("control", key)


@pytest.mark.parametrize("num_tasks", [1, 2, 50])
def test_every_task_is_handed_in_and_counted(
    desk: Any, num_tasks: int, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"

    with caplog.at_level(logging.INFO):
        generator(desk, num_tasks=num_tasks, report_file=report).run()

    assert desk.executed == [str(number) for number in range(num_tasks)]
    assert f"Count of completed tasks: {num_tasks} - It took: " in caplog.text
    told = json.loads(report.read_text())
    assert (told["completed"], told["succeeded"], told["attempts"]) == (num_tasks, num_tasks, num_tasks)
    assert (told["lost"], told["duplicated"], told["failed"]) == (0, 0, 0)


def test_warm_up_tasks_are_not_counted(desk: Any, tmp_path: Path) -> None:
    report = tmp_path / "report.json"

    generator(desk, num_tasks=3, warmup_tasks=2, report_file=report).run()

    assert desk.executed == ["warmup-0", "warmup-1", "0", "1", "2"]
    assert json.loads(report.read_text())["completed"] == 3


def test_tasks_are_made_as_configured(desk: Any, tmp_path: Path) -> None:
    desk.stop_after = 1

    generator(desk, num_tasks=1, task_sleep_ms="mod101", payload_bytes=10, line_dir=tmp_path).run()

    (task,) = desk.submitted
    assert (task.sleep_ms, task.payload, task.directory) == (None, bytes(10), str(tmp_path))


def test_a_lost_task_fails_the_run(desk: Any) -> None:
    desk.forget = {"1"}

    with pytest.raises(CycloneError, match="of 3 tasks 1 lost, 0 told twice"):
        generator(desk, num_tasks=3).run()


def test_a_task_told_twice_fails_the_run(desk: Any) -> None:
    desk.repeat = {"1"}

    with pytest.raises(CycloneError, match="of 3 tasks 0 lost, 1 told twice"):
        generator(desk, num_tasks=3).run()


@pytest.mark.parametrize("stop_after", [1, 4])
def test_a_run_that_was_cut_short_is_no_loss(
    desk: Any, stop_after: int, caplog: pytest.LogCaptureFixture
) -> None:
    desk.stop_after = stop_after

    with caplog.at_level(logging.INFO):
        generator(desk, num_tasks=4, warmup_tasks=1).run()

    assert "It took" not in caplog.text


@pytest.fixture
def _slow_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(seconds)))


@pytest.mark.usefixtures("_slow_clock")
def test_results_are_collected_while_tasks_are_handed_in(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    open_tasks: list[int] = []
    submit = desk.submit

    def count(task: BaseTask) -> str:
        open_tasks.append(len(desk.submitted) - len(desk.executed))
        return str(submit(task))

    monkeypatch.setattr(desk, "submit", count)

    generator(desk, num_tasks=5).run()

    assert max(open_tasks) == 1


@pytest.mark.usefixtures("_slow_clock")
def test_no_more_tasks_are_handed_in_when_the_master_is_stopping(desk: Any) -> None:
    desk.stop_after = 2

    generator(desk, num_tasks=5).run()

    assert len(desk.submitted) == 2


def test_results_are_collected_when_it_is_time() -> None:
    tally = Tally(3)

    tally.on_submit(0, now=10.0)

    assert not tally.is_due(0.01)
    tally.on_submit(1, now=10.02)
    assert tally.is_due(0.01)


def test_the_clock_runs_from_the_first_task_to_the_last_result() -> None:
    tally = Tally(2)
    tally.on_submit(0, now=10.0)
    tally.on_submit(1, now=11.0)

    tally.on_result(result("1"), now=12.0)
    tally.on_result(result("0", "failed"), now=14.0)

    report = tally.report()
    assert (report["seconds"], report["tasks_per_s"]) == (4.0, 0.5)
    assert (report["succeeded"], report["failed"]) == (1, 1)
    assert report["round_trip_ms"] == {"p50": 1000.0, "p90": 4000.0, "p99": 4000.0, "max": 4000.0}
    assert report["run_ms"]["max"] == 500.0


def test_a_long_run_keeps_the_durations_of_some_tasks_only() -> None:
    tally = Tally(250_000)
    for number in range(9):
        tally.on_submit(number, now=float(number))

    for number in range(9):
        tally.on_result(result(str(number)), now=10.0)

    assert tally.report()["round_trip_ms"]["max"] == 10_000
    assert len(tally._runs_ms) == 3


def test_percentiles_are_values_that_occurred() -> None:
    assert percentiles(list(range(101))) == {"p50": 50, "p90": 90, "p99": 99, "max": 100}


def test_nothing_has_no_percentiles() -> None:
    assert percentiles([]) == {}
