"""What tests of the monitoring of Lustre have in common: somebody who takes records, and attempts at tasks."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any, TypeVar

from cyclone.base_task import Attempt, BaseTask
from cyclone.record import Record, encode

_Task = TypeVar("_Task", bound=BaseTask)


class FakeRecorder:
    """Collects what a task records, and refuses what does not fit its kind, as the worker does.

    rows: `(sink, kind, fields)` in the order in which they came. moments: of each, None if it is recorded as of now.
    """

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, Mapping[str, Any]]] = []
        self.moments: list[float | None] = []

    def record(
        self, sink: str, kind: type[Record], fields: Mapping[str, Any], at: float | None = None
    ) -> None:
        encode(kind, fields)
        self.rows.append((sink, kind.kind, fields))
        self.moments.append(at)

    def only(self) -> Mapping[str, Any]:
        """The fields of the only record there is."""
        ((_, _, fields),) = self.rows
        return fields


def attempt(task: _Task, tid: str = "mon-7-3", recorder: FakeRecorder | None = None) -> Any:
    """Make an attempt at a task as a worker does, and return its value."""
    given = pickle.loads(pickle.dumps(task))
    object.__setattr__(given, "_attempt", Attempt("job", tid, 1, 1))
    object.__setattr__(given, "_recorder", recorder or FakeRecorder())
    return pickle.loads(pickle.dumps(given.execute()))
