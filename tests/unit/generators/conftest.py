"""A desk that executes what is handed in, in the order it came, when results are asked for."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

from cyclone.base_task import Attempt, BaseTask
from cyclone.errors import TaskError
from cyclone.task_generator import Result


class FakeDesk:
    """Remembers ends by tid, as a store does: what has ended before is told again and not executed.

    stop_after: says that the master is stopping once so many tasks were handed in.
    forget, repeat: tids whose result never comes, or comes twice.
    """

    def __init__(self) -> None:
        self.ended: dict[str, Result] = {}
        self.submitted: list[BaseTask] = []
        self.executed: list[str] = []
        self.stop_after: int | None = None
        self.forget: set[str] = set()
        self.repeat: set[str] = set()
        self._pending: list[BaseTask] = []

    @property
    def stopping(self) -> bool:
        return self.stop_after is not None and len(self.submitted) >= self.stop_after

    def submit(self, task: BaseTask) -> str:
        assert task.tid is not None
        self.submitted.append(task)
        self._pending.append(pickle.loads(pickle.dumps(task)))
        return task.tid

    def results(self, timeout_s: float | None) -> Iterator[Result]:
        while self._pending and not self.stopping:
            task = self._pending.pop(0)
            assert task.tid is not None
            if task.tid not in self.ended:
                self.ended[task.tid] = self._execute(task, task.tid)
            if task.tid not in self.forget:
                yield self.ended[task.tid]
            if task.tid in self.repeat:
                yield self.ended[task.tid]

    def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing here needs to sleep")

    def restart(self) -> None:
        """Another life: only what has ended is still known."""
        self._pending.clear()
        self.submitted.clear()
        self.stop_after = None

    def _execute(self, task: BaseTask, tid: str) -> Result:
        self.executed.append(tid)
        task._attempt = Attempt("job", tid, 1, 1)
        try:
            value = task.execute()
        except TaskError as error:
            return Result(tid, "failed", "raised", 0, None, f"{error}\nmore", 1, 0.001)
        return Result(tid, "succeeded", "succeeded", 0, value, "", 1, 0.001)


@pytest.fixture
def desk() -> FakeDesk:
    return FakeDesk()
