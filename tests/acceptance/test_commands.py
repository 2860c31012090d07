"""Somebody asks a generator for something while it works."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from acceptance.cluster import Cluster, wait_for

from cyclone.errors import EXIT_OK, EXIT_USAGE

GENERATOR = """
class Nap(BaseTask):
    def execute(self):
        time.sleep(0.01)


class Job(TaskGenerator):
    commands = {"count": "how many were handed in", "stop": "hand in no more", "break": "raise"}
    count = 0
    ended = False

    def on_command(self, name, arguments):
        if name == "count":
            return {"count": self.count, "arguments": dict(arguments)}
        if name == "stop":
            if "why" not in arguments:
                raise ValueError("why? expected why=TEXT")
            self.ended = True
            return f"stopped: {arguments['why']}"
        raise RuntimeError("on purpose")

    %s
"""

RUNNING = """def run(self):
        while not self.ended and not self.stopping:
            self.count += 1
            self.submit(Nap())
            self.sleep(0.05)
"""

YIELDING = """def generate(self):
        while not self.ended:
            self.count += 1
            yield Nap()
"""

WAITING = """def run(self):
        while not self.ended and not self.stopping:
            for result in self.results(timeout=5):
                pass
"""


def command(cluster: Cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).parent / "cyclone", "command", "-f", cluster.directory / "master.conf", *arguments],
        cwd=cluster.directory, env=cluster.environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("how", [RUNNING, YIELDING, WAITING], ids=["running", "yielding", "waiting"])
def test_a_generator_answers_while_it_works_and_goes_on(cluster: Cluster, how: str) -> None:
    cluster.write_job(GENERATOR % how)
    master = cluster.start_master({"task_generator": {"window": 50}})
    cluster.start_controller()
    master.wait_for_log("generator started")

    told = command(cluster, "count", "a=1", "--json")
    assert (told.returncode, json.loads(told.stdout)["arguments"]) == (EXIT_OK, {"a": "1"}), told
    assert "hand in no more" in command(cluster, "help").stdout
    for wrong, problem in (
        (("stop",), "expected why=TEXT"),
        (("break",), "the command broke down: RuntimeError: on purpose"),
        (("nothing",), "knows no command 'nothing'"),
        (("count", "--job", "other"), "no open job 'other'"),
    ):
        refused = command(cluster, *wrong)
        assert refused.returncode == EXIT_USAGE
        assert problem in refused.stderr

    assert command(cluster, "stop", "why=enough").stdout == "stopped: enough\n"
    assert master.wait() == EXIT_OK


def test_nobody_to_ask_is_a_refusal(cluster: Cluster) -> None:
    master = cluster.start_master({"task_generator": None})

    refused = command(cluster, "count")

    assert (refused.returncode, "no generator is there" in refused.stderr) == (EXIT_USAGE, True)
    master.signal(signal.SIGTERM)
    wait_for("its end", lambda: not master.is_alive)
