"""A host where workers die whatever they execute does not spoil what others could do."""

from __future__ import annotations

from collections import Counter

from acceptance.cluster import Cluster

from cyclone.core.exclusion import CRASHES
from cyclone.model.lifecycle import State

TASKS = 300
WORKERS = 2

JOB = f"""
class Fragile(BaseTask):
    def execute(self):
        if "BROKEN_HOST" in os.environ:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.02)

class Job(Telling):
    def generate(self):
        for number in range({TASKS}):
            task = Fragile()
            task.tid = str(number)
            yield task
"""


def test_a_broken_host_is_excluded_and_the_others_do_the_work(cluster: Cluster) -> None:
    cluster.write_job(JOB)
    master = cluster.start_master()
    cluster.environment["BROKEN_HOST"] = "yes"
    broken = cluster.start_controller("broken", workers=WORKERS)
    del cluster.environment["BROKEN_HOST"]
    cluster.start_controller("sound", workers=WORKERS)

    master.wait()

    assert "controller excluded name=" in master.log
    assert f"{broken.name} host=" in master.log
    states = Counter(State(result["state"]) for result in cluster.told())
    # Whoever had died three times there before anybody knew; at each moment as many as there are workers.
    assert states[State.QUARANTINED] <= CRASHES + WORKERS
    assert states[State.SUCCEEDED] + states[State.QUARANTINED] == TASKS
