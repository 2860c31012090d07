"""`cyclone bench` without any daemon: its arguments, its loads, how it counts, what it shows."""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator

import pytest

from cyclone.cli import bench
from cyclone.cli.commands import make_parser
from cyclone.errors import CycloneError
from cyclone.task_generator import Result
from cyclone.tasks.benchmark import BenchmarkTask
from cyclone.tasks.command import CommandTask
from cyclone.tasks.empty import EmptyTask


def options(*words: str) -> argparse.Namespace:
    return make_parser(["bench"]).parse_args(["bench", *words])


def result(tid: str, state: str = "succeeded", error: str = "") -> Result:
    outcome = "succeeded" if state == "succeeded" else "raised"
    return Result(tid, state, outcome, 0, None, error, 1, 0.25)


class FakeCluster:
    """A cluster whose daemons die after they were looked at so many times."""

    def __init__(self, looks: int = 0) -> None:
        self.looks = looks

    def check(self) -> None:
        self.looks -= 1
        if self.looks < 0:
            raise CycloneError("the master ended with -9")


class FakeDesk:
    """A desk that hands out these results, a batch for each time it is asked."""

    def __init__(self, *batches: list[Result]) -> None:
        self.batches = list(batches)

    def results(self, timeout_s: float | None) -> Iterator[Result]:
        yield from self.batches.pop(0) if self.batches else []


def tally(desk: FakeDesk, cluster: FakeCluster | None = None) -> bench.Tally:
    return bench.Tally(cluster or FakeCluster(), desk, "of 9 tasks", bench.Progress(None))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_arguments_a_hundred_thousand_tasks_run_on_two_workers() -> None:
    given = options()

    assert (given.tasks, given.workers, given.controllers) == (100_000, 2, 1)
    assert (given.program, given.sleep_ms, given.json, given.keep) == (False, None, False, False)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--tasks", "0"], "argument --tasks: found '0', expected a whole number from 1 to 100000000"),
        (["--tasks", "1e5"], "argument --tasks: found '1e5', expected a whole number"),
        (["--workers", "1001"], "argument --workers: found '1001', expected a whole number from 1 to 1000"),
        (["--controllers", "-1"], "argument --controllers: found '-1', expected"),
        (["--sleep-ms", "0"], "argument --sleep-ms: found '0', expected"),
        (["--queued", "x"], "argument --queued: found 'x', expected a whole number from 0"),
        (["--program", "--sleep-ms", "5"], "argument --sleep-ms: not allowed with argument --program"),
        (["more"], "unrecognized arguments: more"),
    ],
)
def test_a_bad_argument_is_refused_with_a_line(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        options(*words)

    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err.splitlines()[-1]


def test_each_load_is_made_of_its_own_kind_of_task() -> None:
    makes = [bench.load_of(options(*words)).make for words in ([], ["--program"], ["--sleep-ms", "10"])]

    assert [type(make(1)) for make in makes] == [EmptyTask, CommandTask, BenchmarkTask]


def test_sleeping_tasks_are_spread_evenly_from_none_to_the_longest() -> None:
    make = bench.load_of(options("--sleep-ms", "100")).make

    slept = sorted(task.sleep_ms for task in map(make, range(101)) if isinstance(task, BenchmarkTask))

    assert slept == list(range(101))


def test_results_are_counted_until_there_are_enough() -> None:
    counted = tally(FakeDesk([result("a"), result("b")], [], [result("c")]), FakeCluster(looks=9))

    counted.collect_until(3)

    assert (counted.ended, counted.run_s) == (3, 0.75)


def test_what_is_here_is_counted_without_waiting_for_more() -> None:
    counted = tally(FakeDesk([result("a")]))

    counted.collect_what_is_here()

    assert counted.ended == 1


def test_a_task_that_failed_ends_the_measurement() -> None:
    counted = tally(FakeDesk([result("a", "failed", "ValueError: no\ntraceback")]))

    with pytest.raises(CycloneError, match=r"task a ended as raised: ValueError: no$"):
        counted.collect_until(1)


def test_a_daemon_that_died_ends_the_wait_for_results() -> None:
    counted = tally(FakeDesk([result("a")]), FakeCluster(looks=2))

    with pytest.raises(CycloneError, match="the master ended with -9"):
        counted.collect_until(2)


def test_progress_is_written_over_on_a_terminal() -> None:
    terminal = Terminal()
    progress = bench.Progress(terminal)

    progress.show("half")
    progress.show("half and a bit, too early to be seen")
    progress.clear()

    assert terminal.getvalue() == "\r\x1b[Khalf\r\x1b[K"


def test_progress_is_silent_elsewhere() -> None:
    file = io.StringIO()
    progress = bench.Progress(file)

    progress.show("half")
    progress.clear()

    assert file.getvalue() == ""


def test_the_page_tells_of_memory_only_if_it_was_measured() -> None:
    report = {
        "tasks": 5000, "load": "no-op", "controllers": 1, "workers": 2, "cpus": 4, "seconds": 0.05,
        "tasks_per_s": 100000.0, "busy_share": 0.125, "master_processor_us_per_task": 6.5,
        "round_trip_ms": {"p50": 0.9, "p99": 1.5}, "bytes_per_queued_task": None, "queued": 0,
    }  # fmt: skip

    without = bench._page(report).splitlines()
    having = bench._page({**report, "bytes_per_queued_task": 390.4, "queued": 1000}).splitlines()

    assert without == [
        "Load        5,000 no-op tasks; controllers: 1, workers: 2, cpus: 4",
        "Throughput  100,000 tasks/s (0.05 s)",
        "Busy share  12.5% of the workers' time was spent in tasks",
        "Master      6.5 microseconds of the processor per task",
        "Round trip  0.9 ms median, 1.5 ms 99th percentile",
    ]
    assert having == [*without, "Memory      390 bytes of the master per queued task (1,000)"]
