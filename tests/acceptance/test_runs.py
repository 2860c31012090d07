"""Runs in fair weather: they end by themselves, with everything done, whoever was started first."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from acceptance.cluster import Cluster, wait_for

BENCHMARK = {
    "task_generator": {
        "module": "cyclone.generators.benchmark",
        "class": "BenchmarkTaskGenerator",
        "config_file": "benchmark.conf",
    }
}

MANY = """
class Work(BaseTask):
    def __init__(self, seconds):
        self.seconds = seconds

    def execute(self):
        time.sleep(self.seconds)
        note("executed", self.tid)

class Job(Telling):
    def generate(self):
        for number in range({count}):
            task = Work({seconds})
            task.tid = number
            yield task
"""


def test_a_benchmark_run_ends_unattended_with_every_task_once(cluster: Cluster) -> None:
    cluster.write("benchmark.conf", "[control]\nnum_tasks = 3000\nwarmup_tasks = 100\nline_dir = .\n")

    master = cluster.start_master(BENCHMARK)
    controller = cluster.start_controller()
    codes = master.wait(), controller.wait()

    assert codes == (0, 0)
    ends = cluster.question(
        "SELECT count(*), count(DISTINCT tid) FROM task JOIN ended ON task.number = ended.task"
    )
    files = cluster.directory.glob("benchmark_task_*.tmp")
    lines = [line for file in files for line in file.read_text().splitlines()]
    assert ends == [(3100, 3100)]
    assert cluster.question("SELECT count(*) FROM ended_badly") == [(0,)]
    assert Counter(line.split("/")[0] for line in lines).most_common(1)[0][1] == 1
    assert len(lines) == 3100
    assert "Count of completed tasks: 3000" in master.log
    assert not master.pid_file.exists()
    assert not controller.pid_file.exists()


def test_the_order_of_start_is_free(steady_cluster: Cluster) -> None:
    cluster = steady_cluster
    cluster.write_job(MANY.format(count=20, seconds=0))
    cluster.configure_master()
    controller = cluster.start_controller()
    # Which the master makes.
    controller.wait_for_log("waiting for a key")

    master = cluster.start_master()
    codes = master.wait(), controller.wait()

    assert codes == (0, 0)
    assert sorted(map(int, cluster.notes("executed"))) == list(range(20))


def test_a_controller_that_comes_late_gets_work(cluster: Cluster) -> None:
    cluster.write_job(MANY.format(count=200, seconds=0.05))
    master = cluster.start_master()
    cluster.start_controller("early", workers=2)
    cluster.wait_for_notes("executed", 10)

    late = cluster.start_controller("late", workers=2)
    codes = master.wait(), late.wait()

    assert codes == (0, 0)
    assert executed_by(cluster)["late"] >= 20


def test_a_faster_controller_gets_the_larger_share(cluster: Cluster) -> None:
    cluster.write_job(MANY.format(count=360, seconds=0.1))
    master = cluster.start_master()
    cluster.start_controller("eight", workers=8)
    cluster.start_controller("one", workers=1)

    assert master.wait() == 0

    share = executed_by(cluster)
    assert share.total() == 360
    assert 5 <= share["eight"] / share["one"] <= 13


def test_daemons_write_nowhere_but_where_they_were_told(cluster: Cluster) -> None:
    cluster.write_job(MANY.format(count=4, seconds=2))
    master = cluster.start_master()
    cluster.start_controller()
    wait_for("work", lambda: len(cluster.pids("cyclone-worker")) == 2)

    files = {file for pid in cluster.processes() for file in files_open_for_writing(pid)}

    # A worker that has just begun is entering its control group.
    allowed = (str(cluster.directory), "/dev/null", "/memfd:", "/sys/fs/cgroup/")
    elsewhere = [file for file in files if not file.startswith(allowed)]
    assert elsewhere == []
    assert master.wait() == 0


def executed_by(cluster: Cluster) -> Counter[str]:
    """How many tasks each controller has executed, by the name of its PID file."""
    with cluster.store() as store:
        tasks, more = store.tasks(limit=10_000)
    assert not more
    return Counter(task.controller.partition("#")[0].rpartition(":")[2] for task in tasks)


def files_open_for_writing(pid: int) -> list[str]:
    found = []
    try:
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
            flags = int(Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text().split("flags:")[1].split()[0], 8)
            if flags & os.O_ACCMODE != os.O_RDONLY and target.startswith("/"):
                found.append(target)
    except FileNotFoundError:
        return found  # it has just ended
    return found
