"""`cyclone drill` with real daemons: a short one passes, one of a Cyclone that breaks a promise does not, nothing stays."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from acceptance.cluster import wait_for

from cyclone.drill.plan import BY_NAME, draw
from cyclone.errors import EXIT_OK, EXIT_TASK_FAILED, EXIT_USAGE

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "cyclone.cli.main", "drill"]
FIXED_SEED = 20
MINUTES = 0.25

OWN_GENERATOR = """
from cyclone import BaseTask, Record, Retry, TaskGenerator

class SquareRow(Record, frozen=True):
    kind = "square"
    number: int

class Square(BaseTask):
    retry = Retry(errors=1, delay_s=0.1)

    def __init__(self, number, **what):
        self.number = number
        self.tid = f"{number} ²"
        vars(self).update(what)

    def execute(self):
        if self.number % 7 == 0 and self.attempt.number == 1:
            raise ValueError("not at once")
        if self.number % 11 == 0:
            raise ValueError("never")
        self.record("database", SquareRow, number=self.number)
        return self.number ** 2

class Squares(TaskGenerator):
    def run(self):
        number = 0
        while not self.stopping:
            self.submit(Square(number, exclusive=number % 5 == 0, priority=number % 3))
            number += 1
            for result in self.results(timeout=0.02):
                assert result.state == ("failed" if int(result.tid[:-2]) % 11 == 0 else "succeeded"), result
"""


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Where a drill puts its directories; in the end there are none, and no process that names them."""
    directory = tmp_path / "tmp"
    directory.mkdir()
    yield {**os.environ, "TMPDIR": str(directory), "PYTHONDONTWRITEBYTECODE": "1"}
    wait_for(f"the end of all processes of {directory}", lambda: processes_of(directory) == {}, 10)


def processes_of(directory: Path) -> dict[int, str]:
    """`{pid: command line}` of those that carry a directory below this one in their environment."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"CYCLONE_DRILL={directory}/".encode() in (process / "environ").read_bytes():
                found[int(process.name)] = (process / "cmdline").read_bytes().decode().replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def drill(environment: dict[str, str], *options: str, cwd: Path | None = None) -> tuple[int, dict[str, Any]]:
    """The exit code, and what it told."""
    ended = subprocess.run(
        [*COMMAND, "--json", *options],
        env=environment, cwd=cwd, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    print(ended.stderr)
    assert ended.stdout, ended.stderr
    return ended.returncode, json.loads(ended.stdout)


@pytest.mark.parametrize("seed", [FIXED_SEED, None], ids=["a fixed seed", "a fresh seed"])
def test_a_short_drill_loses_and_doubles_nothing(environment: dict[str, str], seed: int | None) -> None:
    seed = random.randrange(2**31) if seed is None else seed
    print(f"repeat it with: cyclone drill --minutes {MINUTES} --seed {seed}")

    code, told = drill(environment, "--minutes", str(MINUTES), "--seed", str(seed))

    [run] = told["runs"]
    assert run["violations"] == []
    assert (code, told["lost"], told["doubled"], run["ended"]) == (EXIT_OK, 0, 0, True)
    planned = draw(seed, MINUTES * 60, BY_NAME)
    made = sorted((each["at_s"], each["fault"], each["victim"]) for each in run["faults"])
    assert made == [
        (stroke.at_s, stroke.fault, stroke.victim)
        for stroke in planned
        if stroke.fault not in told["left_out"]
    ]
    assert told["tasks"] >= 100
    assert list(Path(environment["TMPDIR"]).iterdir()) == []


def test_a_generator_of_ones_own_is_drilled_as_well(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "squares.py").write_text(OWN_GENERATOR)
    (tmp_path / "mine.conf").write_text("[task_generator]\nmodule = squares\nclass = Squares\n")
    faults = "kill-master,kill-generator,kill-controller,lose-messages,stop-controller"

    code, told = drill(
        environment,
        "--minutes",
        "0.2",
        "--generator",
        "mine.conf",
        "--kinds",
        "squares",
        "--faults",
        faults,
        cwd=tmp_path,
    )

    assert told["runs"][0]["violations"] == []
    assert (code, told["runs"][0]["ended"]) == (EXIT_OK, True)
    assert told["faults_made"] >= 2


def test_a_controller_that_tells_of_an_end_and_forgets_its_records_does_not_pass(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """The drill would be worth nothing if it found nothing."""
    shutil.copytree(ROOT / "cyclone", tmp_path / "cyclone", ignore=shutil.ignore_patterns("__pycache__"))
    controller = tmp_path / "cyclone" / "daemons" / "controller.py"
    source = controller.read_text()
    assert source.count("if message.entries or self._unkept:") == 1
    controller.write_text(source.replace("if message.entries or self._unkept:", "if self._unkept:"))

    environment["PYTHONPATH"] = str(tmp_path)
    code, told = drill(
        environment, "--minutes", "0.1", "--seed", "3", "--faults", "kill-worker", cwd=tmp_path
    )

    [run] = told["runs"]
    assert (code, run["ended"], told["passed"]) == (EXIT_TASK_FAILED, True, False)
    assert told["lost"] > 0
    kinds = ("rows in the database, expected", "samples in the Pushgateway, expected")
    assert all(any(kind in violation for kind in kinds) for violation in run["violations"])
    assert told["faults"]["kill-worker"]["lost"] > 0
    # What has happened can be looked at.
    [kept] = Path(environment["TMPDIR"]).iterdir()
    assert {"master.log", "witness", "disks"} <= {each.name for each in kept.iterdir()}


def test_a_drill_that_is_interrupted_takes_everything_along(environment: dict[str, str]) -> None:
    with subprocess.Popen(COMMAND, env=environment, stderr=subprocess.DEVNULL) as process:
        directory = Path(environment["TMPDIR"])
        # The daemons, their reapers, the generator and some workers.
        wait_for("the cluster", lambda: len(processes_of(directory)) >= 12)

        process.send_signal(signal.SIGTERM)
        code = process.wait(30)

    assert code == 130
    wait_for("the end of all processes", lambda: processes_of(directory) == {}, 10)
    assert list(directory.iterdir()) == []


def test_an_ini_file_that_names_no_generator_is_refused(environment: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "master.conf"
    file.write_text("[comm]\nport = 0\n")

    ended = subprocess.run(
        [*COMMAND, "--generator", str(file)], env=environment, capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip

    assert ended.returncode not in (EXIT_OK, EXIT_TASK_FAILED, EXIT_USAGE)
    assert "[task_generator] module" in ended.stderr
