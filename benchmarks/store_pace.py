"""How much time of the processor, and of the clock, the store takes for each task.

    python benchmarks/store_pace.py [tasks [directory]]

Accepts, places and ends tasks in batches of 1000, in both durabilities, then wakes up with as many live ones.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from cyclone.messages import TaskEnd
from cyclone.model.changes import JobOpened, PlacementOver, TaskAccepted, TaskEnded, TasksPlaced
from cyclone.model.lifecycle import State
from cyclone.model.peer import Peer
from cyclone.model.task import End, Policy, first_token
from cyclone.store.sqlite import SqliteStore

BATCH = 1000
PAYLOAD = bytes(150)
VALUE = bytes(20)
PEER = Peer("node0001", "1f2e3d4c")


class Watch:
    """Adds up the time of the processor and of the clock that passes inside `with`, for each name."""

    def __init__(self) -> None:
        self.cpu_s: dict[str, float] = {}
        self.wall_s: dict[str, float] = {}
        self.name = ""

    def __call__(self, name: str) -> Watch:
        self.name = name
        return self

    def __enter__(self) -> None:
        self.began = time.process_time(), time.perf_counter()

    def __exit__(self, *_: object) -> None:
        cpu, wall = self.began
        self.cpu_s[self.name] = self.cpu_s.get(self.name, 0) + time.process_time() - cpu
        self.wall_s[self.name] = self.wall_s.get(self.name, 0) + time.perf_counter() - wall

    def print(self, title: str, tasks: int) -> None:
        for name, cpu in self.cpu_s.items():
            wall = self.wall_s[name]
            print(f"{title:8} {name:8} {cpu / tasks * 1e6:6.2f} us cpu  {wall / tasks * 1e6:6.2f} us wall")
        print(
            f"{title:8} {'sum':8} {sum(self.cpu_s.values()) / tasks * 1e6:6.2f} us cpu  "
            f"{sum(self.wall_s.values()) / tasks * 1e6:6.2f} us wall"
        )


def run(path: Path, durability: str, tasks: int) -> None:
    store = SqliteStore(path, durability)
    woken = store.wake()
    assert list(woken.live) == []
    store.remember([JobOpened(1, "pace")], {}, {})
    policy, watch, token = Policy(kind="pace.Task"), Watch(), first_token(woken.epoch)
    for first in range(1, tasks + 1, BATCH):
        numbers = tuple(range(first, first + BATCH))
        tids = [f"task-{number:010d}" for number in numbers]
        accepted = [
            TaskAccepted(number, 1, tid, policy, ()) for number, tid in zip(numbers, tids, strict=True)
        ]
        payloads = {(1, tid): PAYLOAD for tid in tids}
        ends = [
            TaskEnded(
                number, 1, PEER.name, TaskEnd(tid, State.SUCCEEDED, 1, End(token + number, 0.001, 1.7e9))
            )
            for number, tid in zip(numbers, tids, strict=True)
        ]
        values = {token + number: VALUE for number in numbers}
        with watch("recall"):
            store.recall(1, tids)
        with watch("accept"):
            store.remember(accepted, payloads, {})
        with watch("place"):
            store.payloads(numbers)
            store.remember([TasksPlaced(token + first, PEER, numbers)], {}, {})
        with watch("end"):
            store.remember([*ends, PlacementOver(token + first)], {}, values)
    watch.print(durability, tasks)
    store.close()


def wake(path: Path, tasks: int) -> None:
    store = SqliteStore(path, payload_cache_bytes=0)
    last = (woken := store.wake()).last_number
    assert list(woken.live) == []
    policy = Policy(kind="pace.Task")
    for first in range(last + 1, last + tasks + 1, BATCH):
        accepted = [
            TaskAccepted(number, 1, f"task-{number:010d}", policy, ())
            for number in range(first, first + BATCH)
        ]
        store.remember(accepted, {(1, task.tid): PAYLOAD for task in accepted}, {})
    store.close()
    began = time.perf_counter()
    store = SqliteStore(path)
    count = sum(1 for _ in store.wake().live)
    print(f"wake     {count} live tasks behind {last} ended ones: {time.perf_counter() - began:.2f} s wall")
    began = time.perf_counter()
    for first in range(last + 1, last + tasks + 1, BATCH):
        store.payloads(range(first, first + BATCH))
    print(
        f"wake     payloads from the file: {(time.perf_counter() - began) / tasks * 1e6:.2f} us wall a task"
    )
    store.close()


def main() -> None:
    tasks = int(sys.argv[1]) if len(sys.argv) > 1 else 500_000
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as directory:
        for durability in ("full", "normal"):
            run(Path(directory, durability + ".db"), durability, tasks)
        wake(Path(directory, "full.db"), tasks)


if __name__ == "__main__":
    main()
