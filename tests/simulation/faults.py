"""Deliberate faults, each one small change to the minds, that the simulator must notice.

A simulator that finds nothing may be right or blind. Each fault here takes away one rule that a promise rests
on; `test_faults.py` puts them, one at a time, into a copy of the package and demands that a seed fails.

`first` is the first seed of a range in which the fault is noticed. After a change to the simulator or the minds
the seeds mean other histories; find new ones with

    python tests/simulation/faults.py
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SIMULATOR = Path(__file__).with_name("cluster.py")
#: A fault must be noticed within so many seeds from its first one on.
SEEDS_EACH = 60
#: So far `main` looks for a first one.
SEEDS_MOST = 1500


class Fault(NamedTuple):
    """name: what is wrong. right: a text that stands once in the file. wrong: what takes its place."""

    name: str
    file: str
    right: str
    wrong: str
    first: int = 0


FAULTS = [
    Fault(
        "a stale end is believed",
        "core/scheduler.py",
        "del bundle.controller.held[task.token]",
        "bundle.controller.held.get(task.token)",
    ),
    Fault(
        "an end is believed whoever says it",
        "core/scheduler.py",
        "held = controller.held if controller is not None else {}",
        "held = {token: task for each in self.controllers.values() for token, task in each.held.items()}",
        first=60,
    ),
    Fault(
        "tokens begin anew with every start of the master",
        "core/placement.py",
        "first_token(epoch) + 1",
        "first_token(1) + 1",
    ),
    Fault(
        "a lost controller keeps its tasks",
        "core/roster.py",
        "return not task.policy.exclusive or now >= self.lease_end(task.bundle)",
        "return task.policy.exclusive and now >= self.lease_end(task.bundle)",
    ),
    Fault(
        "room is never given back",
        "core/placement.py",
        "bundle.controller.give_back(bundle)",
        "bundle.controller.waiting.clear()",
    ),
    Fault(
        "alarms never ring",
        "core/alarms.py",
        "while self._heap and self._heap[0][0] <= now:",
        "while self._heap and self._heap[0][0] > now + 1e9:",
    ),
    Fault(
        "followers are never freed",
        "core/graph.py",
        "free.append(follower)",
        "free.clear()",
    ),
    Fault(
        "a failure is not passed on",
        "core/graph.py",
        "followers = self._followers.pop(task.number, [])",
        "followers: list[Task] = []",
    ),
    Fault(
        "an end that was dropped is kept",
        "core/crew.py",
        "self._ends.pop(token, None)",
        "self._ends.get(token)",
    ),
    Fault(
        "a Place that was not heard is not noticed",
        "core/scheduler.py",
        "elif now - bundle.placed_at > max(report_s, 1.0):",
        "elif now - bundle.placed_at > 1e9:",
    ),
    Fault(
        "work that is not wanted is not dropped",
        "core/scheduler.py",
        "if unwanted := sorted(listed - controller.held.keys()):",
        "if unwanted := sorted(listed - listed):",
        first=63,
    ),
    Fault(
        "a controller that was started again is not noticed to have lost what it held",
        "core/scheduler.py",
        "if replaced is not None:",
        "if replaced is None and controller is None:",
    ),
    Fault(
        "silence is never noticed",
        "core/roster.py",
        "if silent_s >= self.lease_s:",
        "if silent_s >= 1e9:",
    ),
    Fault(
        "a letter that comes twice is executed twice",
        "core/crew.py",
        "if token <= self._newest_token:",
        "if token < 0:",
    ),
    Fault(
        "a lease runs from the answer, not from the report",
        "core/crew.py",
        "held.lease_from = max(held.lease_from, message.at)",
        "held.lease_from = now",
        first=183,
    ),
    Fault(
        "leases are taken for longer than they are",
        "core/crew.py",
        "self.lease_s = message.lease_s",
        "self.lease_s = message.lease_s * 2",
    ),
    Fault(
        "nobody kills for a controller that is frozen",
        "core/crew.py",
        "decision.say(REAPER, Guard(worker.slot, held.lease_from + self.lease_s))",
        "decision.say(REAPER, Guard(worker.slot, None))",
    ),
    Fault(
        "leases are renewed that were not listed",
        "core/scheduler.py",
        "if token in listed:",
        "if token in listed or task.policy.exclusive:",
    ),
    Fault(
        "an exclusive attempt is given to others without waiting for its lease",
        "core/roster.py",
        "return bundle.renewed_at + self.lease_s * (1 + LEASE_MARGIN) + LEASE_MARGIN_S",
        "return bundle.renewed_at",
    ),
    Fault(
        "placements are not remembered",
        "core/placement.py",
        "turn.decision.remember(TasksPlaced(first, controller.peer, tuple(numbers)))",
        "pass",
    ),
    Fault(
        "what is held is given out again after a restart",
        "core/waking.py",
        "if task is not None and task.token < token:",
        "if task is not None and task.token > token:",
    ),
    Fault(
        "a task that has ended is taken again",
        "core/scheduler.py",
        "if tid in tasks or tid in recalled:",
        "if tid in tasks:",
    ),
    Fault(
        "what a dead worker had begun is given to another one",
        "core/crew.py",
        "executed, unbegun = unbegun[:1], unbegun[1:]",
        "executed = []",
    ),
    Fault(
        "what a worker gives back is not taken back",
        "core/crew.py",
        "if given_back := set(unbegun):",
        "if given_back := set(()):",
    ),
    Fault(
        "an end is said only once",
        "core/crew.py",
        "if now - said_at < REPEAT_S:",
        "if now - said_at < 1e9:",
    ),
    Fault(
        "errors are retried for ever",
        "model/task.py",
        "return Event.RESTED if billed <= allowed else Event.FAILED",
        "return Event.RESTED if billed <= 1e9 else Event.FAILED",
    ),
    Fault(
        "crashes are retried for ever",
        "model/task.py",
        "return Event.RETURNED if billed <= self.crashes else Event.QUARANTINED",
        "return Event.RETURNED if billed <= 1e9 else Event.QUARANTINED",
    ),
    Fault(
        "a time-out is never noticed",
        "core/crew.py",
        "elif limit_s is not None and ran_s >= limit_s:",
        "elif limit_s is not None and ran_s >= 1e9:",
    ),
    Fault(
        "what has started is said once",
        "core/crew.py",
        "started=[token for token, each in self.held.items() if each.announced]",
        "started=[]",
    ),
    Fault(
        "what may have been running on a lost controller is not suspect",
        "core/scheduler.py",
        "billed_to = Cause.UNKNOWN if place < suspects else Cause.NOBODY",
        "billed_to = Cause.NOBODY",
    ),
    Fault(
        "a suspect is not blamed for the loss of its controller",
        "core/scheduler.py",
        "if task.state is State.RUNNING or (suspects and task.is_suspect):",
        "if task.state is State.RUNNING and task.is_suspect:",
    ),
    Fault(
        "that no more tasks will come is forgotten",
        "core/waking.py",
        "state=remembered.sealed.get(number, JobState.OPEN)",
        "state=JobState.OPEN",
    ),
    Fault(
        "a job whose last end was remembered, but not that it is over, stays open",
        "core/scheduler.py",
        "{job: [] for job in self.jobs.values() if _is_over(job)}",
        "{}",
        first=463,
    ),
    Fault(
        "a controller that was excluded never gets anything again",
        "core/exclusion.py",
        "if now < record.ill_until and controller.is_present",
        "if record.times and controller.is_present",
        first=116,
    ),
    Fault(
        "a job that has ended is not closed",
        "core/scheduler.py",
        "if _is_over(job) and self.jobs.pop(job.number, None) is not None:",
        "if job.marred and self.jobs.pop(job.number, None) is not None:",
    ),
    Fault(
        "an exclusive attempt is told of before it is on disk",
        "core/placement.py",
        "binding = any(policy.exclusive for policy in letter.policies)",
        "binding = False",
        first=363,
    ),
    Fault(
        "promises are made before they are on disk",
        "core/decision.py",
        "enclose: Sequence[int] = (), *, binding: bool = True",
        "enclose: Sequence[int] = (), *, binding: bool = False",
        first=104,
    ),
]


def notices(fault: Fault, first: int, seeds: int) -> int | None:
    """The first seed in the range that fails with this fault; None if none does."""
    with TemporaryDirectory(prefix="cyclone-fault-") as directory:
        copy = Path(directory, "cyclone")
        shutil.copytree(ROOT / "cyclone", copy, ignore=shutil.ignore_patterns("__pycache__"))
        file = copy / fault.file
        source = file.read_text(encoding="utf-8")
        assert source.count(fault.right) == 1, f"{fault.file} does not hold this once: {fault.right}"
        file.write_text(source.replace(fault.right, fault.wrong), encoding="utf-8")
        ended = subprocess.run(
            [sys.executable, SIMULATOR, "--first", str(first), "--seeds", str(seeds), "--first-failure"],
            env={**os.environ, "PYTHONPATH": directory, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    word, _, rest = ended.stdout.partition(" ")
    if word == "seed":
        return int(rest.partition(":")[0])
    assert ended.returncode == 0, f"the simulator itself broke down: {ended.stderr[-2000:]}"
    return None


def main() -> None:
    """Print, for each fault, the first seed that notices it."""
    for fault in FAULTS:
        seed = notices(fault, 0, SEEDS_MOST)
        print(f"{fault.name}: {'NOT NOTICED' if seed is None else seed}", flush=True)


if __name__ == "__main__":
    main()
