"""`cyclone bench` with real daemons: what it tells, and that nothing stays behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "cyclone.cli.main", "bench"]


def bench(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    return subprocess.run(
        [*COMMAND, *options], capture_output=True, text=True, env=environment, timeout=60, check=False
    )


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts a run that takes longer than any test; returns when both daemons are there."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        environment = {**os.environ, "TMPDIR": str(tmp_path)}
        process = subprocess.Popen(
            [*COMMAND, "--tasks", "10000000"],
            env=environment,
            stderr=subprocess.PIPE,
            # Who runs the tests in the background lets them inherit that SIGINT is ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(process)
        await_daemons(tmp_path, 2)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def daemons_of(directory: Path) -> dict[int, str]:
    """`{pid: command line}` of every process that names the directory."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(directory) in line:
            found[int(process.name)] = line
    return found


def await_daemons(directory: Path, count: int) -> dict[int, str]:
    deadline = time.monotonic() + 30
    while len(found := daemons_of(directory)) != count:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def test_the_report_of_a_small_run_has_all_figures(tmp_path: Path) -> None:
    ended = bench(tmp_path, "--tasks", "500", "--workers", "2", "--queued", "1000", "--json")

    assert (ended.returncode, ended.stderr) == (0, "")
    report = json.loads(ended.stdout)
    assert (report["tasks"], report["load"], report["workers"]) == (500, "no-op", 2)
    assert report["tasks_per_s"] == pytest.approx(500 / report["seconds"], rel=0.05)
    assert 0 < report["round_trip_ms"]["p50"] <= report["round_trip_ms"]["p99"]
    assert report["bytes_per_queued_task"] is not None
    assert list(tmp_path.iterdir()) == []
    assert daemons_of(tmp_path) == {}


def test_the_share_of_time_in_sleeping_tasks_is_reported(tmp_path: Path) -> None:
    options = ("--tasks", "40", "--sleep-ms", "50", "--controllers", "2", "--workers", "2", "--queued", "0")
    ended = bench(tmp_path, *options, "--json")

    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    assert (report["load"], report["workers"], report["bytes_per_queued_task"]) == ("sleep", 4, None)
    assert 0.2 < report["busy_share"] <= 1


def test_programs_are_run_and_told_of_on_a_page(tmp_path: Path) -> None:
    ended = bench(tmp_path, "--program", "--tasks", "20", "--workers", "1", "--queued", "0", "--keep")

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[0].split() == (
        ["Load", "20", "program", "tasks;", "controllers:", "1,", "workers:", "1,", "cpus:"]
        + [str(len(os.sched_getaffinity(0)))]
    )
    (kept,) = tmp_path.iterdir()
    assert ended.stderr == f"kept {kept}\n"
    assert {"master.conf", "master.log", "controller-1.log", "store.db"} <= {
        file.name for file in kept.iterdir()
    }


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_leaves_nothing_behind(
    tmp_path: Path, start: Callable[[], subprocess.Popen[bytes]], signum: int
) -> None:
    process = start()

    process.send_signal(signum)
    _, stderr = process.communicate(timeout=30)

    assert (process.returncode, stderr) == (130, b"")
    await_daemons(tmp_path, 0)
    assert list(tmp_path.iterdir()) == []


def test_the_daemons_die_with_a_run_that_is_killed(
    tmp_path: Path, start: Callable[[], subprocess.Popen[bytes]]
) -> None:
    process = start()

    process.kill()
    process.communicate(timeout=30)

    await_daemons(tmp_path, 0)


def test_the_logs_are_shown_when_a_daemon_has_died(
    tmp_path: Path, start: Callable[[], subprocess.Popen[bytes]]
) -> None:
    process = start()
    master = next(pid for pid, line in daemons_of(tmp_path).items() if "cyclone.daemons.master" in line)

    os.kill(master, signal.SIGKILL)
    _, stderr = process.communicate(timeout=30)

    assert process.returncode == 70
    assert b"--- master\n" in stderr
    assert b"cyclone: the master ended with -9" in stderr
    await_daemons(tmp_path, 0)
    assert list(tmp_path.iterdir()) == []


def test_the_benchmark_of_many_controllers_runs(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "thousand_controllers.py"
    options = ["--controllers", "5", "--tasks", "2000", "--processes", "1", "--idle", "0.5"]

    done = subprocess.run(
        [sys.executable, script, *options], capture_output=True, text=True, check=False, timeout=100,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["controllers"] == 5
