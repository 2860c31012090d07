"""A million queued tasks: what they take of the master's memory, and how soon it works again after kill -9.

    python benchmarks/million.py [--tasks N]

The tasks are handed in while there is no controller. Then the master is killed and started again, together with a
controller, and the clock runs from that start until the first task is known to be placed or to have ended.
"""

from __future__ import annotations

import sys
import time

from report import parser_of, report

from cyclone.cli.bench import QUEUED_BEFORE, Progress, queue_up
from cyclone.cli.page import tell
from cyclone.errors import CycloneError
from cyclone.model.lifecycle import State
from cyclone.private_cluster import START_S, PrivateCluster

GOAL_BYTES, GOAL_RESTART_S = 400, 5.0
_UNPLACED = {State.WAITING, State.READY, State.RESTING}


def run(tasks: int) -> dict[str, object]:
    progress = Progress()
    with PrivateCluster(tell) as cluster:
        cluster.start_master()
        queue_up(cluster, QUEUED_BEFORE, "before", progress)
        before_bytes = cluster.master_memory_bytes()
        began = time.perf_counter()
        queue_up(cluster, tasks, "million", progress)
        queue_s = time.perf_counter() - began
        grown_bytes = cluster.master_memory_bytes() - before_bytes
        progress.show("killed, starting again")
        cluster.kill_master()
        began = time.perf_counter()
        cluster.start_master()
        listens_s = time.perf_counter() - began
        cluster.start_controllers(1, 2)
        await_placement(cluster)
        places_s = time.perf_counter() - began
        woken_bytes = cluster.master_memory_bytes()
        progress.clear()
    return {
        "tasks": tasks,
        "queue_s": round(queue_s, 2),
        "bytes_per_queued_task": round(grown_bytes / tasks, 1),
        "bytes_per_queued_task_goal": GOAL_BYTES,
        "bytes_per_task_after_restart": round((woken_bytes - before_bytes) / tasks, 1),
        "listens_after_s": round(listens_s, 2),
        "places_after_s": round(places_s, 2),
        "places_after_s_goal": GOAL_RESTART_S,
    }


def await_placement(cluster: PrivateCluster) -> None:
    """Return when a task was placed. Raises CycloneError when that takes too long."""
    client = cluster.client()
    deadline = time.monotonic() + START_S
    while not any(
        count
        for job in cluster.ask(client).jobs
        for state, count in job.counts.items()
        if state not in _UNPLACED
    ):
        if time.monotonic() > deadline:
            raise CycloneError(f"no task was placed within {START_S:g} s")
        time.sleep(0.02)


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    options = parser.parse_args()
    return report(lambda: run(options.tasks))


if __name__ == "__main__":
    sys.exit(main())
