"""What tasks and generators under test use to leave traces that no daemon has a hand in.

It is imported by the daemons, not by the tests: they have the directory of the tests on their PYTHONPATH.
"""

from __future__ import annotations

import json
import os

from cyclone import Result, TaskGenerator

#: What intruders say carries it; see `listening_in/sitecustomize.py`.
MARK = b"intruder"


def note(name: str, line: str) -> None:
    """Append a line to a file in the directory of the cluster, whole, whoever else writes there."""
    file = os.path.join(os.environ["CYCLONE_CLUSTER"], name)
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


class Telling(TaskGenerator):
    """Notes every result that it is told."""

    def on_result(self, result: Result) -> None:
        told = {
            "tid": result.tid,
            "state": result.state,
            "outcome": result.outcome,
            "code": result.code,
            "value": repr(result.value),
            "error": result.error,
            "attempts": result.attempts,
        }
        note("told", json.dumps(told))
