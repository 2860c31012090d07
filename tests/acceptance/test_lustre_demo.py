"""`bin/lustre-demo` cut short in every way: its daemons end with it, and it ends with its daemons."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from acceptance.cluster import wait_for

from cyclone.process.lineage import has_variable, processes, slay_and_wait

pytestmark = pytest.mark.timeout(180)

ROOT = Path(__file__).parents[2]
DEADLINE_S = 60.0


class Demo:
    """Runs the demo in a directory of its own; knows everything that it has started."""

    def __init__(self, place: Path) -> None:
        self.directory = place / "demo"
        self.sign = f"CYCLONE_DEMO={place}"
        name, _, value = self.sign.partition("=")
        self.process = subprocess.Popen(
            [sys.executable, "-P", ROOT / "simlustre" / "demo.py", "--files", "400", self.directory],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env={**os.environ, name: value}, start_new_session=True,
        )  # fmt: skip

    def pid(self, name: str) -> int:
        """Of one of its daemons; 0 before it is there."""
        file = self.directory / f"{name}.pid"
        text = file.read_text() if file.exists() else ""
        return int(text.partition(";")[0]) if text.endswith("\n") else 0

    def alive(self) -> set[int]:
        return {pid for pid in processes() if has_variable(pid, self.sign.encode())}

    def end(self) -> str:
        """What it said of its end."""
        return self.process.communicate(timeout=DEADLINE_S)[1]


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    demo = Demo(tmp_path)
    try:
        wait_for("a controller", lambda: demo.pid("controller"), DEADLINE_S)
        yield demo
    finally:
        slay_and_wait(demo.alive, 10)
    if demo.process.stderr is not None and not demo.process.stderr.closed:
        demo.end()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_demo_that_is_stopped_leaves_no_daemons(demo: Demo, signum: signal.Signals) -> None:
    demo.process.send_signal(signum)

    said = demo.end()
    assert demo.process.returncode == 128 + signum
    assert said.strip() == f"lustre-demo: stopped by {signum.name}"
    assert not demo.alive()


def test_daemons_do_not_outlive_a_demo_that_was_killed(demo: Demo) -> None:
    demo.process.kill()

    wait_for("the end of its daemons", lambda: not demo.alive(), DEADLINE_S)


@pytest.mark.parametrize("name", ["master", "controller"])
def test_a_demo_tells_which_of_its_daemons_was_killed_and_ends(demo: Demo, name: str) -> None:
    os.kill(demo.pid(name), signal.SIGKILL)

    said = demo.end()
    assert demo.process.returncode == 1
    assert said.startswith(f"lustre-demo: the {name} was killed by SIGKILL; ")
    assert str(demo.directory / f"{name}.log") in said
    assert not demo.alive()


def test_a_demo_removes_no_directory_in_which_another_one_runs(demo: Demo) -> None:
    second = subprocess.run(
        [sys.executable, "-P", ROOT / "simlustre" / "demo.py", demo.directory],
        capture_output=True, text=True, check=False, timeout=DEADLINE_S,
    )  # fmt: skip

    assert second.returncode == 6
    assert f"{demo.directory}/master.pid: already running" in second.stderr
    assert (demo.directory / "store.db").exists()


def test_the_marks_of_a_demo_say_what_they_count(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-P", ROOT / "simlustre" / "demo.py", "--files", "40", tmp_path / "demo"],
        capture_output=True, text=True, check=False, timeout=2 * DEADLINE_S,
    )  # fmt: skip

    assert ended.returncode == 0, ended.stderr
    assert "most at the same time inside lfs migrate: " in ended.stdout
