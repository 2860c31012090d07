"""Measures Cyclone: so many tasks of the same kind, and how long they took."""

# Each call below makes a field of its own; no value is shared between instances.
# ruff: noqa: RUF009

from __future__ import annotations

import time
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cyclone.errors import CycloneError
from cyclone.generators.files import write_json
from cyclone.ini import Ini
from cyclone.settings import Settings, path, special, whole
from cyclone.task_generator import Result, TaskGenerator
from cyclone.tasks.benchmark import BenchmarkTask

#: Durations are kept of at most so many tasks, evenly spread, so that a long run needs no more memory.
_SAMPLES_MAX = 100_000


def _sleep_ms(ini: Ini, section: str, key: str) -> float | None:
    if ini.text(section, key) == "mod101":
        return None
    return ini.seconds(section, key, maximum=86_400_000)


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings(Settings):
    """What the benchmark is told."""

    num_tasks: int = whole(
        "control", "num_tasks", "100000", "How many tasks to measure.",
        minimum=1, maximum=100_000_000, unit="tasks",
    )  # fmt: skip
    poll_time_ms: int = whole(
        "control", "poll_time_ms", "10",
        "How often results are collected while tasks are still being handed in.",
        minimum=1, maximum=1000, unit="milliseconds",
    )  # fmt: skip
    task_sleep_ms: float | None = special(
        "control", "task_sleep_ms", "0",
        "How long each task sleeps. 0 measures Cyclone alone; mod101 is from 0 to 100 ms, by the number "
        "of the task.",
        "a number from 0 to 86400000, or mod101", _sleep_ms, "milliseconds",
    )  # fmt: skip
    payload_bytes: int = whole(
        "control", "payload_bytes", "0", "What each task carries besides.",
        maximum=16_777_216, unit="bytes",
    )  # fmt: skip
    warmup_tasks: int = whole(
        "control", "warmup_tasks", "1000",
        "How many tasks to run before the clock starts, so that processes are up and modules imported.",
        maximum=1_000_000, unit="tasks",
    )  # fmt: skip
    line_dir: Path | None = path(
        "control", "line_dir", "",
        "An existing directory in which each worker writes a line about each task. Empty: no lines.",
        "a path, or nothing",
    )  # fmt: skip
    report_file: Path | None = path(
        "control", "report_file", "", "File for the figures, in JSON. Empty: only the log.",
        "a path, or nothing",
    )  # fmt: skip


class BenchmarkTaskGenerator(TaskGenerator):
    """Hands in the tasks, waits for all results, and reports the time from the first task to the last result.

    The report counts what was lost or told twice, neither of which may ever happen: the run fails then.
    """

    def validate_config(self) -> None:
        BenchmarkSettings.of(self.config)

    def run(self) -> None:
        settings = BenchmarkSettings.of(self.config)
        payload = bytes(settings.payload_bytes)
        for number in range(settings.warmup_tasks):
            self.submit(self._task(settings, payload, f"warmup-{number}", sleep_ms=0))
        for _ in self.results(timeout=None):
            pass
        if self.stopping:
            return
        tally = Tally(settings.num_tasks)
        for number in range(settings.num_tasks):
            tally.on_submit(number, time.perf_counter())
            self.submit(self._task(settings, payload, str(number), settings.task_sleep_ms))
            if tally.is_due(settings.poll_time_ms / 1000):
                tally.on_results(self.results(timeout=0))
                if self.stopping:
                    break
        tally.on_results(self.results(timeout=None))
        if self.stopping and tally.lost:
            self.log.info("benchmark cut short completed=%d tasks=%d", tally.completed, tally.tasks)
            return
        self._tell(tally, settings)

    @staticmethod
    def _task(settings: BenchmarkSettings, payload: bytes, tid: str, sleep_ms: float | None) -> BenchmarkTask:
        task = BenchmarkTask(sleep_ms, payload, settings.line_dir and settings.line_dir.absolute())
        task.tid = tid
        return task

    def _tell(self, tally: Tally, settings: BenchmarkSettings) -> None:
        report = tally.report()
        self.log.info("Count of completed tasks: %d - It took: %.3fs", tally.completed, tally.duration_s)
        for name, value in report.items():
            self.log.info("benchmark %s=%s", name, value)
        if settings.report_file is not None:
            write_json(settings.report_file, report)
        if tally.lost or tally.duplicated:
            raise CycloneError(f"of {tally.tasks} tasks {tally.lost} lost, {tally.duplicated} told twice")


class Tally:
    """Counts results and measures time. All moments are of `time.perf_counter`, in seconds."""

    def __init__(self, tasks: int) -> None:
        self.tasks = tasks
        self.completed = self.succeeded = self.duplicated = self.attempts = 0
        self._seen = bytearray(tasks)
        self._stride = -(-tasks // _SAMPLES_MAX)
        self._submitted = array("d")
        self._round_trips_ms = array("d")
        self._runs_ms = array("d")
        self._first = self._last = self._now = self._collected = 0.0

    @property
    def lost(self) -> int:
        return self.tasks - self.completed

    @property
    def duration_s(self) -> float:
        return self._last - self._first

    def on_submit(self, number: int, now: float) -> None:
        """Task `number` is handed in now; in the order of their numbers, from 0."""
        if number == 0:
            self._first = self._collected = self._last = now
        if number % self._stride == 0:
            self._submitted.append(now)
        self._now = now

    def is_due(self, interval_s: float) -> bool:
        """Is it so long ago that results were collected, by the moment of the last task?"""
        return self._now - self._collected >= interval_s

    def on_results(self, results: Iterable[Result]) -> None:
        """Count these results, each at the moment it comes out of the iterator."""
        for result in results:
            self.on_result(result, time.perf_counter())
        self._collected = time.perf_counter()

    def on_result(self, result: Result, now: float) -> None:
        number = int(result.tid)
        if self._seen[number]:
            self.duplicated += 1
            return
        self._seen[number] = 1
        self.completed += 1
        self.succeeded += result.ok
        self.attempts += result.attempts
        self._last = now
        if number % self._stride == 0:
            self._round_trips_ms.append((now - self._submitted[number // self._stride]) * 1000)
            self._runs_ms.append(result.duration_s * 1000)

    def report(self) -> dict[str, Any]:
        """The figures. round_trip_ms: from submission to result; run_ms: of the last attempt."""
        return {
            "tasks": self.tasks,
            "completed": self.completed,
            "succeeded": self.succeeded,
            "failed": self.completed - self.succeeded,
            "lost": self.lost,
            "duplicated": self.duplicated,
            "attempts": self.attempts,
            "seconds": round(self.duration_s, 6),
            "tasks_per_s": round(self.completed / self.duration_s, 1) if self.duration_s else None,
            "round_trip_ms": percentiles(self._round_trips_ms),
            "run_ms": percentiles(self._runs_ms),
        }


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """`{p50, p90, p99, max}`, each a value that occurred; empty if there are none."""
    ordered = sorted(values)
    if not ordered:
        return {}
    last = len(ordered) - 1
    marks = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {name: round(ordered[round(share * last)], 3) for name, share in marks.items()}
