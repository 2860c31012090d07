"""How one real master gets on with a thousand controllers.

    python benchmarks/thousand_controllers.py [--controllers N] [--tasks N] [--unfinished N] [--processes N] [--idle SECONDS]

The master, its store and its keys are real, and so are the connections and the minds of the controllers. Only the
workers are not: their tasks end at the moment they get them. All of it shares the processors of this host, so the
tasks a second are a lower bound; the time of the processor that the master needs for a task says what it could do
on a core of its own.

The overhead of reports is what the master uses of the processor while nothing is to be done.

In the end the master is killed while it has many tasks that nobody can do, and started again: all controllers come back
at once, and the clock runs from that start until the last of them is back, and until one more task has ended.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import secrets
import select
import signal
import sys
import time
from pathlib import Path

import zmq
from report import parser_of, report

from cyclone.base_task import BaseTask
from cyclone.cli.bench import Load, Progress, queue_up, run_through
from cyclone.cli.page import tell
from cyclone.core.crew import MASTER, REAPER, Crew
from cyclone.core.decision import Decision
from cyclone.messages import Hire, Place
from cyclone.model.resources import shape
from cyclone.model.task import End
from cyclone.private_cluster import PrivateCluster
from cyclone.process.lineage import on_death_of_parent
from cyclone.tasks.empty import EmptyTask
from cyclone.wire.keys import KeyPair, PublicKey, load_pair, load_public
from cyclone.wire.line import Line

GOAL_CONTROLLERS, GOAL_TASKS_PER_S = 1000, 50_000
JOIN_S = 120.0
#: What a task that does nothing takes in a worker.
TASK_S = 2e-6


class SimulatedController:
    """A real mind on a real line, with workers that take no time."""

    def __init__(self, number: int, workers: int, address: str, own: KeyPair, master: PublicKey) -> None:
        self.life = secrets.token_hex(8)
        self.line = Line(address, own, master, instance=f"simulated-{number}", life=self.life)
        self.crew = Crew(
            time.monotonic(),
            workers=workers,
            resources=shape({"cpus": workers}),
            host=f"simulated-{number}",
            pid=os.getpid(),
            # The network is this host: nobody connects anew, so the descriptors stay the same.
            retry_wait_s=1e9,
            jitter=0.8 + 0.2 * int(self.life[:4], 16) / 0xFFFF,
        )
        self.due = 0.0
        self.connections = 0

    def turn(self) -> None:
        """Hear, decide, say, until there is nothing to hear; work ends at once.

        The descriptor of a ZeroMQ socket tells only of a change, and speaking may swallow that (ZMQ_FD in
        zmq_getsockopt(3)): what was said is followed by listening.
        """
        said = True
        while said:
            now = time.monotonic()
            said = False
            heard = self.line.receive()
            if self.line.connections != self.connections:
                self.connections = self.line.connections
                self.crew.connected(now)
            for message, _ in heard:
                said |= self._obey(self.crew.receive(message, now), now)
            said |= self._obey(self.crew.tick(now), now)
        self.due = self.crew.next_moment(now)

    def _obey(self, decision: Decision, now: float) -> bool:
        """Whether anything was said to the master."""
        said = False
        while decision.letters:
            more = Decision()
            for to, message, enclose, _ in decision.letters:
                if to == MASTER:
                    said = True
                    self.line.say(message, [b""] * len(enclose))
                elif to == REAPER and isinstance(message, Hire):
                    self.crew.born(message.slot, 1)
                    more.extend(self.crew.tick(now))
                elif isinstance(message, Place):
                    ends = [End(each.token, TASK_S, time.time()) for each in message.assignments]
                    more.extend(self.crew.finished(int(to.life), ends, now))
                    more.extend(self.crew.tick(now))
            decision = more
        return said


def simulate(numbers: range, workers: int, address: str, key_dir: Path) -> None:
    """Play these controllers, in a process of their own, until it is killed."""
    on_death_of_parent(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    own, master = load_pair(key_dir, "controller"), load_public(key_dir, "master")
    played = [SimulatedController(number, workers, address, own, master) for number in numbers]
    poller = select.epoll()
    whose = {}
    for each in played:
        for socket in each.line.sockets:
            descriptor = int(socket.getsockopt(zmq.FD))
            whose[descriptor] = each
            poller.register(descriptor, select.EPOLLIN)
    while True:
        now = time.monotonic()
        awake = [each for each in played if each.due <= now]
        awake += {whose[descriptor] for descriptor, _ in poller.poll(0 if awake else 0.02)}
        for each in awake:
            each.turn()


def run(options: argparse.Namespace) -> dict[str, object]:
    context = multiprocessing.get_context("spawn")
    players = []
    share = -(-options.controllers // options.processes)
    with PrivateCluster(tell) as cluster:
        cluster.start_master()
        try:
            began = time.perf_counter()
            for first in range(0, options.controllers, share):
                numbers = range(first, min(first + share, options.controllers))
                arguments = (numbers, options.workers, cluster.address, cluster.directory / "keys")
                player = context.Process(target=simulate, args=arguments, daemon=True)
                player.start()
                players.append(player)
            cluster.await_controllers(options.controllers, JOIN_S)
            join_s = time.perf_counter() - began
            idle = cluster.master_processor_s()
            time.sleep(options.idle)
            idle = (cluster.master_processor_s() - idle) / options.idle
            desk = cluster.open_desk("thousand")
            load = Load("no-op", empty, 0)
            progress = Progress()
            run_through(cluster, desk, load, min(options.tasks, 50_000), progress)
            processor_s = cluster.master_processor_s()
            passage = run_through(cluster, desk, load, options.tasks, progress)
            processor_s = cluster.master_processor_s() - processor_s
            queue_up(cluster, options.unfinished, "unfinished", progress, Impossible)
            progress.show("killed, starting again")
            cluster.kill_master()
            began = time.perf_counter()
            cluster.start_master()
            cluster.await_controllers(options.controllers, JOIN_S)
            back_s = time.perf_counter() - began
            run_through(cluster, desk, load, 1, progress)
            works_s = time.perf_counter() - began
            progress.clear()
        finally:
            for player in players:
                player.kill()
                player.join()
    return {
        "controllers": options.controllers,
        "workers": options.workers * options.controllers,
        "tasks": passage.tasks,
        "join_s": round(join_s, 2),
        "seconds": round(passage.seconds, 3),
        "tasks_per_s": round(passage.tasks / passage.seconds, 1),
        "tasks_per_s_goal": GOAL_TASKS_PER_S,
        "master_processor_us_per_task": round(processor_s / passage.tasks * 1e6, 2),
        "idle_processor_share": round(idle, 4),
        "unfinished": options.unfinished,
        "all_back_after_s": round(back_s, 2),
        "works_after_s": round(works_s, 2),
    }


class Impossible(EmptyTask):
    """Waits for what no controller has."""

    resources = {"philosophers_stone": 1}  # noqa: RUF012 - as users write it


def empty(_number: int) -> BaseTask:
    return EmptyTask()


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--controllers", type=int, default=GOAL_CONTROLLERS)
    parser.add_argument("--workers", type=int, default=2, help="of each controller")
    parser.add_argument("--tasks", type=int, default=500_000)
    parser.add_argument("--unfinished", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--idle", type=float, default=10.0, help="seconds")
    options = parser.parse_args()
    return report(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
