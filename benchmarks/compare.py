"""The same tasks on Cyclone and on what one would use instead, one after the other on this host, in one run.

    python benchmarks/compare.py [--install] [--rounds N] [--json] [NAME …]

Every contestant gets two workers. Tasks a second are counted from the first submission to the last result, after
some tasks that are not counted; the round trip is the median of single tasks, one at a time. Of several rounds the
best counts, for everybody.

What is compared is not alike: of those here, Cyclone alone has each task and each end on disk before it says so, and
encrypts what it sends. Slow contestants get fewer tasks, so that nobody takes more than some seconds.

The others live in `benchmarks/.venv`, which `--install` makes; who is not there is left out, with a line. Celery is
left out altogether: it needs a broker, and how fast it is depends on which.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
PEERS_PYTHON = HERE / ".venv" / "bin" / "python"
PACKAGES = ["parsl", "dask[distributed]", "ray", "hyperqueue"]
WORKERS = 2
WARM_UP = 200
ROUND_TRIPS = 200
DEADLINE_S = 180

#: {name: (kind of tasks, how many, whether it is in the environment of the others)}; their functions are below.
CONTESTANTS = {
    "Cyclone": ("no-op", 200_000, False),
    "multiprocessing.Pool, chunksize=1": ("no-op", 200_000, True),
    "ProcessPoolExecutor": ("no-op", 50_000, True),
    "Ray": ("no-op", 10_000, True),
    "Parsl HTEX": ("no-op", 10_000, True),
    "Dask": ("no-op", 5_000, True),
    "Cyclone --program": ("/bin/true", 5_000, False),
    "xargs -P2 (keeps no record)": ("/bin/true", 5_000, False),
    "HyperQueue": ("/bin/true", 2_000, True),
}


@dataclass(frozen=True, slots=True)
class Score:
    """round_trip_ms: None where there is no way to measure it."""

    tasks_per_s: float
    round_trip_ms: float | None


def no_op(_number: int) -> None:
    """The task."""


def measure(count: int, run: Callable[[int], object], run_one: Callable[[], object] | None = None) -> Score:
    """run: makes so many tasks and returns when their results are there."""
    run(WARM_UP)
    began = time.perf_counter()
    run(count)
    seconds = time.perf_counter() - began
    return Score(count / seconds, None if run_one is None else median(map(timed_ms, [run_one] * ROUND_TRIPS)))


def timed_ms(run_one: Callable[[], object]) -> float:
    began = time.perf_counter()
    run_one()
    return (time.perf_counter() - began) * 1000


# The contestants. What only one of them needs is imported there: no environment has it all.


def cyclone(count: int) -> Score:
    return bench("--tasks", str(count))


def cyclone_program(count: int) -> Score:
    return bench("--tasks", str(count), "--program")


def bench(*options: str) -> Score:
    command = [sys.executable, "-m", "cyclone.cli.main", "bench", "--json", "--queued", "0", *options]
    report = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return Score(report["tasks_per_s"], report["round_trip_ms"]["p50"])


def pool(count: int) -> Score:
    import multiprocessing

    with multiprocessing.Pool(WORKERS) as workers:
        return measure(
            count,
            lambda count: drain(workers.imap_unordered(no_op, range(count), chunksize=1)),
            lambda: workers.apply(no_op, (0,)),
        )


def executor(count: int) -> Score:
    from concurrent.futures import ProcessPoolExecutor, wait

    with ProcessPoolExecutor(WORKERS) as workers:
        return measure(
            count,
            lambda count: wait([workers.submit(no_op, number) for number in range(count)]),
            lambda: workers.submit(no_op, 0).result(),
        )


def ray(count: int) -> Score:
    import ray

    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, logging_level="error")
    remote = ray.remote(no_op)
    try:
        return measure(
            count,
            lambda count: ray.get([remote.remote(number) for number in range(count)]),
            lambda: ray.get(remote.remote(0)),
        )
    finally:
        ray.shutdown()


def parsl(count: int) -> Score:
    import parsl
    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import LocalProvider

    with tempfile.TemporaryDirectory() as directory:
        htex = HighThroughputExecutor(
            address="127.0.0.1",
            max_workers_per_node=WORKERS,
            provider=LocalProvider(init_blocks=1, max_blocks=1),
        )
        parsl.load(Config(executors=[htex], run_dir=directory))
        app = parsl.python_app(no_op)
        try:
            return measure(
                count,
                lambda count: drain(task.result() for task in [app(number) for number in range(count)]),
                lambda: app(0).result(),
            )
        finally:
            parsl.dfk().cleanup()


def dask(count: int) -> Score:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        return measure(
            count,
            lambda count: client.gather(client.map(no_op, range(count), pure=False)),
            lambda: client.submit(no_op, 0, pure=False).result(),
        )


def xargs(count: int) -> Score:
    def run(count: int) -> None:
        numbers = "\n".join(map(str, range(count)))
        subprocess.run(
            ["xargs", "-P", str(WORKERS), "-n", "1", "/bin/true"], input=numbers, text=True, check=True
        )

    return measure(count, run, lambda: subprocess.run(["/bin/true"], check=True))


def hyperqueue(count: int) -> Score:
    from hyperqueue import Job
    from hyperqueue.cluster import LocalCluster, WorkerConfig

    with (
        tempfile.TemporaryDirectory() as directory,
        LocalCluster(directory, WorkerConfig(WORKERS)) as cluster,
    ):
        client = cluster.client()

        def run(count: int) -> None:
            job = Job(directory)
            for _ in range(count):
                job.program(["/bin/true"], stdout=None, stderr=None)
            client.wait_for_jobs([client.submit(job)])

        # Its client asks from time to time whether a job is over, so a round trip would tell how often.
        return measure(count, run)


RUN: dict[str, Callable[[int], Score]] = dict(
    zip(
        CONTESTANTS,
        [cyclone, pool, executor, ray, parsl, dask, cyclone_program, xargs, hyperqueue],
        strict=True,
    )
)


def drain(results: Iterable[object]) -> None:
    for _ in results:
        pass


# The contest.


def contest(names: list[str], rounds: int) -> dict[str, Score]:
    """The best score of each. Every one runs in a process of its own."""
    scores: dict[str, Score] = {}
    for _ in range(rounds):
        for name in names:
            score = ask_for_score(name)
            if score is not None:
                known = scores.get(name, score)
                trips = [each.round_trip_ms for each in (known, score) if each.round_trip_ms is not None]
                scores[name] = Score(max(known.tasks_per_s, score.tasks_per_s), min(trips) if trips else None)
    return scores


def ask_for_score(name: str) -> Score | None:
    _, _, is_peer = CONTESTANTS[name]
    python = PEERS_PYTHON if is_peer and PEERS_PYTHON.exists() else Path(sys.executable)
    # Parsl starts programs of its own by their names.
    environment = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}"}
    command = [str(python), str(HERE / "compare.py"), "--alone", name]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, env=environment)
    except subprocess.TimeoutExpired:
        print(f"{name} left out: not ready after {DEADLINE_S} s", file=sys.stderr)
        return None
    if ended.returncode != 0:
        *_, why = ["no reason", *ended.stderr.strip().splitlines()]
        print(f"{name} left out: {why}", file=sys.stderr)
        return None
    return Score(**json.loads(ended.stdout.splitlines()[-1]))


def rows_of(scores: dict[str, Score]) -> list[dict[str, Any]]:
    """The fastest first within each kind of task; the last column is how many times as fast Cyclone is."""
    rows = []
    for kind, ours in (("no-op", "Cyclone"), ("/bin/true", "Cyclone --program")):
        same = {name: score for name, score in scores.items() if CONTESTANTS[name][0] == kind}
        fastest = max((score.tasks_per_s for score in same.values()), default=1.0)
        for name, score in sorted(same.items(), key=lambda pair: -pair[1].tasks_per_s):
            trip = score.round_trip_ms
            rows.append(
                {
                    "task": kind,
                    "contestant": name,
                    "tasks/s": round(score.tasks_per_s),
                    "of the fastest": f"{score.tasks_per_s / fastest:.0%}",
                    "round trip, ms": "-" if trip is None else round(trip, 2),
                    "Cyclone is faster by": (
                        f"{same[ours].tasks_per_s / score.tasks_per_s:.2f}" if ours in same else "-"
                    ),
                }
            )
    return rows


def print_table(rows: list[dict[str, Any]]) -> None:
    lines = [list(rows[0]), *([str(cell) for cell in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def install() -> None:
    subprocess.run([sys.executable, "-m", "venv", str(HERE / ".venv")], check=True)
    subprocess.run([str(PEERS_PYTHON), "-m", "pip", "install", "--quiet", *PACKAGES], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {'; '.join(CONTESTANTS)}")
    parser.add_argument("--install", action="store_true", help="install the others before")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--alone", choices=CONTESTANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        score = RUN[options.alone](CONTESTANTS[options.alone][1])
        print(json.dumps({"tasks_per_s": score.tasks_per_s, "round_trip_ms": score.round_trip_ms}))
        return 0
    if unknown := set(options.names) - set(CONTESTANTS):
        parser.error(f"no such contestant: {', '.join(unknown)}")
    if options.install:
        install()
    rows = rows_of(contest(options.names or list(CONTESTANTS), options.rounds))
    if not rows:
        return 1
    if options.json:
        print(json.dumps(rows))
    else:
        print_table(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
