"""The storm: twenty thousand tasks, while whatever can be killed is killed again and again.

Who is struck next, and when, is drawn from a seed, which is printed; the fates of the processes are the kernel's. What
was executed is written down by the tasks themselves, so that the store is not its own witness.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter

import pytest
from acceptance.cluster import Cluster, Daemon

from cyclone.errors import EXIT_OK

TASKS = 20_000

#: Nobody is killed any more when so many tasks have been executed or so much time has passed.
CALM_AFTER_TASKS = 19_000
CALM_AFTER_S = 60.0

JOB = f"""
class Drop(BaseTask):
    retry = Retry(crashes=1000, losses=1000)

    def execute(self):
        time.sleep(int(self.tid) % 21 / 1000)
        note("executed", f"{{self.tid}} {{self.attempt.number}} {{self.attempt.token}}")
        return int(self.tid) * 2

class Job(Telling):
    def generate(self):
        for number in range({TASKS}):
            task = Drop()
            task.tid = number
            yield task
"""

#: A master starts its generator five times a minute, a controller its reaper; more is not an accident any more.
STRIKES_MOST = 4


class Storm:
    """Kills, and starts again what does not start again by itself. Counts whom it has struck."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self._cluster = cluster
        self._dice = random.Random(seed)
        self.struck: Counter[str] = Counter()
        # Of processes that somebody else starts again, by who does and in which of its lives.
        self._spent: Counter[tuple[str, int]] = Counter()

    def strike(self) -> None:
        controllers = [daemon for daemon in self._cluster.daemons if daemon.name != "master"]
        [master] = [daemon for daemon in self._cluster.daemons if daemon.name == "master"]
        match self._dice.choice(["worker", "controller", "reaper", "generator", "master"]):
            case "worker":
                self._strike_below("worker", "cyclone-worker", self._dice.choice(controllers), bounded=False)
            case "reaper":
                self._strike_below("reaper", "cyclone-reaper", self._dice.choice(controllers), bounded=True)
            case "generator":
                self._strike_below("generator", "generator_host", master, bounded=True)
            case "controller":
                self._strike_daemon("controller", self._dice.choice(controllers))
            case "master":
                self._strike_daemon("master", master)

    def pause_s(self) -> float:
        return self._dice.uniform(0.3, 1.0)

    def _strike_daemon(self, what: str, daemon: Daemon) -> None:
        daemon.restart()
        self.struck[what] += 1

    def _strike_below(self, what: str, kind: str, owner: Daemon, *, bounded: bool) -> None:
        found = self._cluster.pids(kind, of=owner)
        if not found or (bounded and self._spent[what, owner.pid] >= STRIKES_MOST):
            return
        try:
            os.kill(self._dice.choice(found), signal.SIGKILL)
        except ProcessLookupError:
            return
        self._spent[what, owner.pid] += 1
        self.struck[what] += 1


@pytest.mark.timeout(300)
def test_a_storm_of_kills_loses_no_task_and_ends_none_twice(steady_cluster: Cluster) -> None:
    cluster = steady_cluster
    seed = int(os.environ.get("CYCLONE_STORM_SEED") or random.randrange(10**6))
    print(f"CYCLONE_STORM_SEED={seed}")
    cluster.write_job(JOB)
    master = cluster.start_master()
    controllers = [cluster.start_controller("north", workers=4), cluster.start_controller("south", workers=4)]
    storm = Storm(cluster, seed)
    calm_at = time.monotonic() + CALM_AFTER_S

    while time.monotonic() < calm_at and len(cluster.notes("executed")) < CALM_AFTER_TASKS:
        time.sleep(storm.pause_s())
        for daemon in (master, *controllers):
            assert daemon.is_alive, f"{daemon.name} ended with {daemon.wait()}:\n{daemon.log[-4000:]}"
        storm.strike()
    print(f"struck: {dict(storm.struck)}")
    codes = master.wait(120), *(controller.wait() for controller in controllers)

    assert codes == (EXIT_OK, EXIT_OK, EXIT_OK)
    expected = set(map(str, range(TASKS)))
    executed = [line.split() for line in cluster.notes("executed")]
    assert len(executed) >= TASKS
    assert {tid for tid, _, _ in executed} == expected
    assert max(Counter(token for _, _, token in executed).values()) == 1, "an attempt was made twice"
    # `ended` is keyed by the task, so a second end of one cannot be stored; nor is there a second job.
    assert cluster.question("SELECT name, state FROM job") == [("Job", "succeeded")]
    assert cluster.question("SELECT count(*), count(DISTINCT tid) FROM task") == [(TASKS, TASKS)]
    assert cluster.question("SELECT count(*) FROM task JOIN ended ON task.number = ended.task") == [(TASKS,)]
    assert cluster.question("SELECT count(*) FROM ended_badly") == [(0,)]
    told = cluster.told()
    assert {one["tid"] for one in told} == expected
    assert all(one["value"] == str(int(one["tid"]) * 2) for one in told)
    assert len(storm.struck) == 5, "somebody was spared"
    cluster.assert_nothing_is_left()
