"""Measure how fast Cyclone is on this host, with a private cluster of real daemons that goes away afterwards.

Keys are on, and every task is its own pickled object with its own record in the durable store (on the disk of the
directory for temporary files: set TMPDIR to measure another one). Nothing of a running cluster is touched.

Tasks a second are counted from the submission of the first task to the last result; some tasks run before that, so
that the workers are there and the pace of the kind is known. The round trip is that of one task at a time. The
memory is what a master without controllers grows by while tasks are queued in it, up to 64 MiB of payloads that it
keeps at hand among it: the share of those is the smaller the more tasks there are.

The busy share is the time that the workers spent in tasks; with --sleep-ms it tells how well they are kept busy.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cyclone
from cyclone.base_task import BaseTask
from cyclone.cli.private_cluster import START_S, PrivateCluster
from cyclone.daemons.desk import Desk
from cyclone.errors import EXIT_OK, CycloneError
from cyclone.generators.benchmark import percentiles
from cyclone.task_generator import Result
from cyclone.tasks.benchmark import BenchmarkTask
from cyclone.tasks.command import CommandTask
from cyclone.tasks.empty import EmptyTask

#: No more tasks than this are open at a time, as a generator would have it with the default window.
OPEN_MOST = 100_000
ROUND_TRIPS = 300
ROUND_TRIPS_S = 10.0
#: Queued before memory is measured, so that what is loaded at first use is not counted.
QUEUED_BEFORE = 10_000
#: The ends are collected after so many submissions.
_COLLECT_EVERY = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tasks", type=_whole(1, 100_000_000), default=100_000, metavar="N", help=_HELP["tasks"])
    parser.add_argument("--workers", type=_whole(1, 1000), default=2, metavar="W", help=_HELP["workers"])
    parser.add_argument("--controllers", type=_whole(1, 100), default=1, metavar="C", help=_HELP["controllers"])
    load = parser.add_mutually_exclusive_group()
    load.add_argument("--program", action="store_true", help=_HELP["program"])
    load.add_argument("--sleep-ms", type=_whole(1, 60_000), metavar="MAX", help=_HELP["sleep_ms"])
    parser.add_argument("--queued", type=_whole(0, 10_000_000), default=300_000, metavar="N", help=_HELP["queued"])
    parser.add_argument("--json", action="store_true", help="one object, for programs")
    parser.add_argument("--keep", action="store_true", help="keep the directory with ini files, logs and store")


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
    # Whoever ends us by SIGTERM wants the daemons and the directory to go away as well.
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        report = measure(options, Progress())
    finally:
        signal.signal(signal.SIGTERM, former)
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
    with PrivateCluster(keep=options.keep) as cluster:
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
        with PrivateCluster(keep=options.keep) as cluster:
            cluster.start_master()
            report["bytes_per_queued_task"] = round(bytes_per_queued_task(cluster, options.queued, progress), 1)
    progress.clear()
    return report


def run_through(cluster: PrivateCluster, desk: Desk, load: Load, count: int, progress: Progress) -> Passage:
    """Hand in so many tasks and wait for all their results. Raises CycloneError when one did not succeed."""
    tally = Tally()
    began = time.perf_counter()
    for number in range(count):
        desk.submit(load.make(number))
        if number % _COLLECT_EVERY == _COLLECT_EVERY - 1:
            tally.add_all(desk.results(0))
            progress.show(f"{tally.ended:,} of {count:,} {load.name} tasks")
            if number + 1 - tally.ended >= OPEN_MOST:
                tally.add_until(number + 1 - OPEN_MOST // 2, patient_results(cluster, desk))
    for _ in tally.add_each_until(count, patient_results(cluster, desk)):
        if tally.ended % _COLLECT_EVERY == 0:
            progress.show(f"{tally.ended:,} of {count:,} {load.name} tasks")
    return Passage(count, time.perf_counter() - began, tally.run_s)
