"""How soon work goes on after something has died, was stopped, or was cut off.

    python benchmarks/recovery.py [--lease SECONDS] [--partition SECONDS]

Tasks write down when each attempt begins; the clock runs from the fault, or from its end, until the next attempt at what
was hit. The daemons, keys and stores are real; all of it shares the processors of this host. What a silent controller
held is given to others after a lease (`[control] controller_timeout`), so those figures go with it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from report import parser_of, report

from cyclone.base_task import BaseTask
from cyclone.errors import CycloneError
from cyclone.messages import Cluster
from cyclone.model.task import Retry
from cyclone.private_cluster import PrivateCluster, free_port
from cyclone.process.lineage import descendants, processes
from cyclone.tasks.command import CommandTask

PATIENCE_S = 180.0


class Stage:
    """A cluster, and the file in which its tasks write down the moments at which they begin."""

    def __init__(self, lease_s: float) -> None:
        self.cluster = PrivateCluster(lambda line: print(line, file=sys.stderr), name="recovery")
        self.lease_s = lease_s
        self._begun = self.cluster.directory / "begun"

    def __enter__(self) -> Stage:
        self.cluster.__enter__()
        self.start_master()
        return self

    def __exit__(self, *error: object) -> None:
        self.cluster.__exit__(*error)  # type: ignore[arg-type]

    def start_master(self) -> None:
        self.cluster.start_master({"control": {"controller_timeout": self.lease_s}})

    def task(self, seconds: float = 600.0) -> BaseTask:
        """One that writes down when each attempt begins."""
        task = CommandTask(f"date +%s.%N >> {self._begun}; exec sleep {seconds}")
        task.retry = Retry(crashes=1000, losses=1000)
        return task

    def moments(self) -> list[float]:
        try:
            return [float(line) for line in self._begun.read_text().splitlines()]
        except FileNotFoundError:
            return []

    def await_begun(self, count: int) -> float:
        """Until so many attempts have begun; when the last of them did, Unix time. Raises CycloneError."""
        wait_for(lambda: len(self.moments()) >= count)
        return self.moments()[count - 1]

    def controller(self, name: str, workers: int = 1, port: int | None = None) -> None:
        self.cluster.start_controller(name, workers, {"comm": {"port": port}} if port else None)


def wait_for(has_come: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not has_come():
        if time.monotonic() > deadline:
            raise CycloneError(f"what was waited for did not come within {PATIENCE_S:g} s")
        time.sleep(0.005)


def dead_worker(lease_s: float) -> float:
    with Stage(lease_s) as stage:
        stage.controller("node")
        stage.cluster.open_desk("job").submit(stage.task())
        stage.await_begun(1)
        table = processes()
        [worker] = [
            pid for pid in descendants(stage.cluster.pid("node"), table) if name_of(pid) == "cyclone-worker"
        ]
        began = time.time()
        os.kill(worker, signal.SIGKILL)
        return stage.await_begun(2) - began


def dead_controller(lease_s: float, *, restart: bool, stop: bool = False) -> float:
    """Killed, or only stopped, while another one has room."""
    with Stage(lease_s) as stage:
        stage.controller("first")
        stage.cluster.await_controllers(1)
        stage.cluster.open_desk("job").submit(stage.task())
        stage.await_begun(1)
        stage.controller("second")
        stage.cluster.await_controllers(2)
        began = time.time()
        if stop:
            stage.cluster.signal("first", signal.SIGSTOP)
        else:
            stage.cluster.kill("first")
            if restart:
                stage.cluster.restart("first")
        return stage.await_begun(2) - began


def dead_master(lease_s: float) -> tuple[float, float]:
    """Started again at once, while a task runs that ends half a second later: until it listens, and tells of that end."""
    with Stage(lease_s) as stage:
        stage.controller("node", 2)
        desk = stage.cluster.open_desk("job")
        desk.submit(CommandTask(["sleep", "1"]))
        time.sleep(0.5)
        began = time.monotonic()
        stage.cluster.kill("master")
        stage.start_master()
        listens_s = time.monotonic() - began
        next(desk.results(PATIENCE_S))
        return listens_s, time.monotonic() - began


class Wire:
    """A way to the master that can be cut: bytes stay where they are until it is mended."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._open = threading.Event()
        self._open.set()
        self._listening = socket.create_server(("127.0.0.1", free_port()))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._open.clear()

    def mend(self) -> None:
        self._open.set()

    def _accept(self) -> None:
        while True:
            ours, _ = self._listening.accept()
            theirs = socket.create_connection(("127.0.0.1", self._target))
            for source, target in ((ours, theirs), (theirs, ours)):
                threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._open.wait()
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def partition(lease_s: float, seconds: float) -> dict[str, object]:
    """A controller is cut off, comes back, and everything has one end."""
    with Stage(lease_s) as stage:
        wire = Wire(stage.cluster.port)
        stage.controller("far", 2, wire.port)
        stage.controller("near", 1)
        stage.cluster.await_controllers(2)
        desk = stage.cluster.open_desk("job")
        tids = [desk.submit(CommandTask(["sleep", "0.2"])) for _ in range(100)]
        time.sleep(2)
        wire.cut()
        until = time.monotonic() + seconds
        ends: list[str] = []
        while time.monotonic() < until:
            ends += [result.tid for result in desk.results(0.1)]
        began = time.monotonic()
        wire.mend()
        client = stage.cluster.client()
        wait_for(lambda: is_back(stage.cluster.ask(client), lease_s))
        back_s = time.monotonic() - began
        ends += [result.tid for result in desk.results(2.0)]
        return {
            "partition_s": seconds,
            "partition_back_after_s": round(back_s, 2),
            "partition_lost": len(set(tids) - set(ends)),
            "partition_doubled": len(ends) - len(set(ends)),
        }


def is_back(cluster: Cluster, lease_s: float) -> bool:
    """Whether the far controller was heard of."""
    return any(
        each.name.endswith("far") and each.state == "up" and each.silent_s < lease_s / 2
        for each in cluster.controllers
    )


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def run(lease_s: float, partition_s: float) -> dict[str, object]:
    listens_s, ends_s = dead_master(lease_s)
    return {
        "lease_s": lease_s,
        "dead_worker_s": round(dead_worker(lease_s), 3),
        "dead_controller_elsewhere_s": round(dead_controller(lease_s, restart=False), 2),
        "dead_controller_restarted_s": round(dead_controller(lease_s, restart=True), 2),
        "stopped_controller_elsewhere_s": round(dead_controller(lease_s, restart=False, stop=True), 2),
        "dead_master_listens_s": round(listens_s, 2),
        "dead_master_next_end_s": round(ends_s, 2),
        **partition(lease_s, partition_s),
    }


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--lease", type=float, default=20.0)
    parser.add_argument("--partition", type=float, default=60.0)
    options = parser.parse_args()
    return report(lambda: run(options.lease, options.partition))


if __name__ == "__main__":
    sys.exit(main())
