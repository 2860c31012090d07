"""Measure how fast Cyclone is on this host, with a private cluster of real daemons that goes away afterwards.

Keys are on, and every task is its own pickled object with its own record in the durable store (on the disk of the
directory for temporary files: set TMPDIR to measure another one). Nothing of a running cluster is touched.

Tasks a second are counted from the submission of the first task to the last result; some tasks run before that, so
that the workers are there and the pace of the kind is known. The round trip is that of one task at a time. The
memory is what a master without controllers grows by while tasks are queued in it, the payloads that it keeps at hand
included: there is a bound to those, so their share is the smaller the more tasks there are.

The busy share is the time that the workers spent in tasks; with --sleep-ms it tells how well they are kept busy.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TextIO

import cyclone
from cyclone.base_task import BaseTask
from cyclone.cli.page import tell
from cyclone.clock import monotonic
from cyclone.daemons.desk import Desk
from cyclone.errors import EXIT_OK, CycloneError
from cyclone.generators.benchmark import percentiles
from cyclone.messages import Cluster
from cyclone.private_cluster import START_S, PrivateCluster
from cyclone.task_generator import Result
from cyclone.tasks.benchmark import BenchmarkTask
from cyclone.tasks.command import CommandTask
from cyclone.tasks.empty import EmptyTask

#: No more tasks than this are open at a time, as a generator would have it with the default window.
OPEN_MOST = 100_000
ROUND_TRIPS = 1500
ROUND_TRIPS_S = 10.0
#: Queued before memory is measured, so that what is loaded at first use is not counted.
QUEUED_BEFORE = 10_000
#: The ends are collected after so many submissions.
_COLLECT_EVERY = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tasks", type=_whole(1, 100_000_000), default=100_000, metavar="N", help=_HELP["tasks"]
    )
    parser.add_argument("--workers", type=_whole(1, 1000), default=2, metavar="W", help=_HELP["workers"])
    parser.add_argument(
        "--controllers", type=_whole(1, 100), default=1, metavar="C", help=_HELP["controllers"]
    )
    load = parser.add_mutually_exclusive_group()
    load.add_argument("--program", action="store_true", help=_HELP["program"])
    load.add_argument("--sleep-ms", type=_whole(1, 60_000), metavar="MAX", help=_HELP["sleep_ms"])
    parser.add_argument(
        "--queued", type=_whole(0, 10_000_000), default=1_000_000, metavar="N", help=_HELP["queued"]
    )
    parser.add_argument("--json", action="store_true", help="one object, for programs")
    parser.add_argument(
        "--keep", action="store_true", help="keep the directory with ini files, logs and store"
    )


_HELP = {
    "tasks": "how many tasks to run (default: %(default)s)",
    "workers": "of each controller (default: %(default)s)",
    "controllers": "how many controllers to start (default: %(default)s)",
    "program": "each task runs the program /bin/true",
    "sleep_ms": "tasks sleep from 0 to MAX milliseconds, evenly spread, instead of doing nothing",
    "queued": "how many tasks to queue for the measurement of memory; 0 leaves it out (default: %(default)s)",
}


def _whole(minimum: int, maximum: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        problem = f"found {text!r}, expected a whole number from {minimum} to {maximum}"
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(problem) from None
        if not minimum <= value <= maximum:
            raise argparse.ArgumentTypeError(problem)
        return value

    return read


def run(options: argparse.Namespace) -> int:
    progress = Progress()
    try:
        report = measure(options, progress)
    finally:
        progress.clear()
    print(json.dumps(report) if options.json else _page(report))
    return EXIT_OK


# What is measured.


@dataclass(frozen=True)
class Load:
    """A kind of tasks. make: the task of this number; warm_up: how many run before the clock starts."""

    name: str
    make: Callable[[int], BaseTask]
    warm_up: int


def load_of(options: argparse.Namespace) -> Load:
    workers = options.workers * options.controllers
    if options.program:
        return Load("program", lambda _: CommandTask(["/bin/true"]), 100 * workers)
    if options.sleep_ms:
        most = options.sleep_ms
        # A stride that shares no divisor with 101 spreads long and short ones over the whole run.
        return Load("sleep", lambda number: BenchmarkTask(number * 37 % 101 * most / 100), 20 * workers)
    return Load("no-op", lambda _: EmptyTask(), max(5000, 100 * workers))


@dataclass(frozen=True, slots=True)
class Passage:
    """So many tasks went through in so many seconds; run_s: the sum of their durations."""

    tasks: int
    seconds: float
    run_s: float


def measure(options: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """Start a cluster, measure, stop it. Returns the figures; raises CycloneError when one cannot be had."""
    load = load_of(options)
    workers = options.workers * options.controllers
    with PrivateCluster(tell, keep=options.keep) as cluster:
        progress.show("starting")
        cluster.start_master()
        cluster.start_controllers(options.controllers, options.workers)
        cluster.await_controllers(options.controllers)
        desk = cluster.open_desk("bench")
        run_through(cluster, desk, load, load.warm_up, Progress(None))
        processor_s = cluster.master_processor_s()
        passage = run_through(cluster, desk, load, options.tasks, progress)
        processor_s = cluster.master_processor_s() - processor_s
        progress.show("round trips")
        trips_ms = round_trips_ms(cluster, desk)
    report = {
        "tasks": passage.tasks,
        "load": load.name,
        "controllers": options.controllers,
        "workers": workers,
        "seconds": round(passage.seconds, 4),
        "tasks_per_s": round(passage.tasks / passage.seconds, 1),
        "busy_share": round(passage.run_s / (workers * passage.seconds), 4),
        "master_processor_us_per_task": round(processor_s / passage.tasks * 1e6, 2),
        "round_trip_ms": percentiles(trips_ms),
        "bytes_per_queued_task": None,
        "queued": options.queued,
        "cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "cyclone": cyclone.__version__,
    }
    if options.queued:
        with PrivateCluster(tell, keep=options.keep) as cluster:
            cluster.start_master()
            report["bytes_per_queued_task"] = round(
                bytes_per_queued_task(cluster, options.queued, progress), 1
            )
    return report


def run_through(cluster: PrivateCluster, desk: Desk, load: Load, count: int, progress: Progress) -> Passage:
    """Hand in so many tasks and wait for all their results. Raises CycloneError when one did not succeed."""
    tally = Tally(cluster, desk, f"of {count:,} {load.name} tasks", progress)
    began = time.perf_counter()
    for number in range(1, count + 1):
        desk.submit(load.make(number))
        if number % _COLLECT_EVERY == 0:
            tally.collect_what_is_here()
            tally.collect_until(number + _COLLECT_EVERY - OPEN_MOST)
    tally.collect_until(count)
    return Passage(count, time.perf_counter() - began, tally.run_s)


class Tally:
    """Counts ends as it collects them from a desk. run_s: the sum of the durations."""

    def __init__(self, cluster: PrivateCluster, desk: Desk, of_what: str, progress: Progress) -> None:
        self.ended = 0
        self.run_s = 0.0
        self._cluster, self._desk = cluster, desk
        self._of_what, self._progress = of_what, progress

    def collect_what_is_here(self) -> None:
        for result in self._desk.results(0):
            self._add(result)
        self._progress.show(f"{self.ended:,} {self._of_what}")

    def collect_until(self, ended: int) -> None:
        """Return when so many have ended. Raises CycloneError when a daemon ends before that."""
        while self.ended < ended:
            for result in self._desk.results(1.0):
                self._add(result)
                if self.ended % _COLLECT_EVERY == 0:
                    self._progress.show(f"{self.ended:,} {self._of_what}")
                if self.ended >= ended:
                    return
            self._cluster.check()

    def _add(self, result: Result) -> None:
        if not result.ok:
            raise CycloneError(
                f"task {result.tid} ended as {result.outcome}: {result.error.partition(chr(10))[0]}"
            )
        self.ended += 1
        self.run_s += result.duration_s


def round_trips_ms(cluster: PrivateCluster, desk: Desk) -> list[float]:
    """How long single tasks that do nothing take from submission to result, one at a time."""
    trips: list[float] = []
    tally = Tally(cluster, desk, "round trips", Progress(None))
    began = time.perf_counter()
    while len(trips) < ROUND_TRIPS and time.perf_counter() - began < ROUND_TRIPS_S:
        submitted = time.perf_counter()
        desk.submit(EmptyTask())
        tally.collect_until(tally.ended + 1)
        trips.append((time.perf_counter() - submitted) * 1000)
    return trips


def bytes_per_queued_task(cluster: PrivateCluster, count: int, progress: Progress) -> float:
    """What the master grows by for each task that it cannot place. The tasks stay there."""
    queue_up(cluster, QUEUED_BEFORE, "before", progress)
    before = cluster.master_memory_bytes()
    queue_up(cluster, count, "queued", progress)
    return (cluster.master_memory_bytes() - before) / count


def queue_up(
    cluster: PrivateCluster,
    count: int,
    job: str,
    progress: Progress,
    make: Callable[[], BaseTask] = EmptyTask,
) -> None:
    """Hand in so many tasks, and return when all were accepted. Raises CycloneError.

    job: what the names of the jobs begin with; a job takes as many tasks as may be open at a time.
    """
    client = cluster.client()
    for first in range(0, count, OPEN_MOST):
        most = min(OPEN_MOST, count - first)
        name = f"{job}-{first}"
        desk = cluster.open_desk(name)
        for _ in range(most):
            desk.submit(make())
        deadline = monotonic() + START_S
        while (accepted := _tasks_of(cluster.ask(client), name)) < most:
            cluster.check()
            progress.show(f"{first + accepted:,} of {count:,} tasks queued")
            if monotonic() > deadline:
                raise CycloneError(f"{accepted} of {most} tasks were accepted within {START_S:g} s")
            time.sleep(0.05)
        # It would hand in its tasks again to a master that is started again, and needs memory for them.
        cluster.hang_up(desk)


def _tasks_of(state: Cluster, job: str) -> int:
    return sum(sum(view.counts.values()) for view in state.jobs if view.name == job)


# What is shown.


def _page(report: dict[str, Any]) -> str:
    trips = report["round_trip_ms"]
    lines = {
        "Load": f"{report['tasks']:,} {report['load']} tasks; "
        f"controllers: {report['controllers']}, workers: {report['workers']}, cpus: {report['cpus']}",
        "Throughput": f"{report['tasks_per_s']:,.0f} tasks/s ({report['seconds']:.2f} s)",
        "Busy share": f"{report['busy_share']:.1%} of the workers' time was spent in tasks",
        "Master": f"{report['master_processor_us_per_task']:g} microseconds of the processor per task",
        "Round trip": f"{trips['p50']:g} ms median, {trips['p99']:g} ms 99th percentile",
    }
    if report["bytes_per_queued_task"] is not None:
        lines["Memory"] = (
            f"{report['bytes_per_queued_task']:,.0f} bytes of the master per queued task ({report['queued']:,})"
        )
    return "\n".join(f"{name:<12}{text}" for name, text in lines.items())


class Progress:
    """One line that is written over and over, on a terminal only."""

    def __init__(self, stream: TextIO | None = sys.stderr) -> None:
        self._stream = stream if stream is not None and stream.isatty() else None
        self._next = 0.0

    def show(self, text: str) -> None:
        now = monotonic()
        if self._stream is not None and now >= self._next:
            self._next = now + 0.1
            print(f"\r\x1b[K{text}", end="", file=self._stream, flush=True)

    def clear(self) -> None:
        if self._stream is not None:
            print("\r\x1b[K", end="", file=self._stream, flush=True)
