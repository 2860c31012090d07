"""How long `cyclone audit` takes for a store, and how much memory.

    python benchmarks/audit.py [--tasks N] [--rounds R]

The store is made first, by the code that a master uses: of a hundred tasks one is open, five were tried twice, one has
failed. Each round is a process of its own. The time of the processor counts, which is
that of the clock on a host that has nothing else to do; of both the least is told.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from report import parser_of, report

from cyclone.messages import TaskEnd
from cyclone.model.changes import AttemptEnded, Change, JobOpened, TaskAccepted, TaskEnded
from cyclone.model.lifecycle import Outcome, State
from cyclone.model.task import Cause, End, Policy, first_token
from cyclone.store.sqlite import SqliteStore

GOAL_S = 10.0
BATCH = 1000
PAYLOAD, VALUE = bytes(150), bytes(20)

#: Prints seconds of the clock and of the processor, KiB at the most, and how many violations there were.
ROUND = """
import resource, sys, time
from cyclone.cli.audit import audit_store
began = time.perf_counter()
audit = audit_store(sys.argv[1])
took_s = time.perf_counter() - began
print(took_s, time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, sum(audit.violations.values()))
"""


def make(path: Path, tasks: int) -> None:
    with closing(SqliteStore(path, "normal")) as store:
        woken = store.wake()
        list(woken.live)
        token = first_token(woken.epoch)
        store.remember([JobOpened(1, "audited")], {}, {})
        policy = Policy("audited.Task")
        for first in range(1, tasks + 1, BATCH):
            numbers = range(first, min(first + BATCH, tasks + 1))
            accepted = [TaskAccepted(number, 1, f"task-{number:08}", policy, ()) for number in numbers]
            store.remember(accepted, {(1, task.tid): PAYLOAD for task in accepted}, {})
            changes: list[Change] = []
            values = {}
            for task in accepted:
                number, attempts = task.number, 1
                if number % 20 == 7:
                    failed = End(token, 0.01, 1.7e9, Outcome.RAISED, error="ValueError: the first time")
                    changes.append(AttemptEnded(number, 1, "node", Cause.ERROR, failed))
                    token, attempts = token + 1, 2
                if number % 100 == 0:
                    continue
                outcome, state = Outcome.SUCCEEDED, State.SUCCEEDED
                if number % 100 == 1:
                    outcome, state = Outcome.RAISED, State.FAILED
                end = TaskEnd(task.tid, state, attempts, End(token, 0.01, 1.7e9, outcome))
                changes.append(TaskEnded(number, 1, "node", end))
                values[token] = VALUE
                token += 1
            store.remember(changes, {}, values)


def run(tasks: int, rounds: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "store.db")
        make(path, tasks)
        size = os.stat(path).st_size
        told = [
            subprocess.run([sys.executable, "-c", ROUND, path], capture_output=True, text=True, check=True)
            for _ in range(rounds)
        ]
    seconds, processor_s, kib, violations = zip(
        *(map(float, each.stdout.split()) for each in told), strict=True
    )
    return {
        "tasks": tasks,
        "store_mb": round(size / 1e6),
        "audit_s": round(min(seconds), 2),
        "audit_processor_s": round(min(processor_s), 2),
        "audit_processor_s_goal": GOAL_S,
        "peak_memory_mib": round(max(kib) / 1024),
        "violations": int(sum(violations)),
        "violations_goal": 0,
    }


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    return report(lambda: run(options.tasks, options.rounds))


if __name__ == "__main__":
    sys.exit(main())
