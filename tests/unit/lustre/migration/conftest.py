"""A desk with a clock of its own: nothing is waited for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cyclone.base_task import BaseTask
from cyclone.lustre.migrate_task import LustreOstMigrateTask, MigrationResult
from cyclone.lustre.migration.verdict import FileState
from cyclone.task_generator import Result

Answer = Callable[[BaseTask], Any]


class FakeDesk:
    """The desk, the master and the clock in one. It outlives generators, as the record of a job does.

    answer: what a task ends with: a value, or a Result. Tasks end in the order in which they came, `together` at a time,
    each after `task_s`. recorded: `{tid: result}`; a task whose tid is among them is answered with that.
    script: called whenever the generator waits; may give commands, put files, or stop it.
    most: the largest number of tasks in flight for each key that `burdens` makes of a task.
    """

    #: An answer: this task goes on.
    WAIT = object()

    def __init__(self) -> None:
        self.now = 1000.0
        self.answer: Answer = well
        self.task_s = 0.1
        self.together = 1
        self.stopping = False
        self.recorded: dict[str, Result] = {}
        self.open: dict[str, BaseTask] = {}
        self.submitted: list[BaseTask] = []
        self.script: Callable[[], None] = lambda: None
        self.burdens: Callable[[BaseTask], list[Any]] = lambda task: []
        self.most: Counter[Any] = Counter()
        self.asked = 0
        self._ended: list[Result] = []

    def submit(self, task: BaseTask) -> str:
        assert task.tid is not None
        self.submitted.append(task)
        if task.tid in self.recorded:
            self._ended.append(self.recorded[task.tid])
        elif task.tid not in self.open:
            self.open[task.tid] = task
            held = Counter(key for each in self.open.values() for key in self.burdens(each))
            self.most |= held
        return task.tid

    def results(self, timeout_s: float | None) -> Iterator[Result]:
        self.asked += 1
        assert self.asked < 20_000, "the generator does not come to an end"
        if timeout_s != 0:
            self.script()
            self._end_some()
        while self._ended and not self.stopping:
            yield self._ended.pop(0)
        if timeout_s:
            self.now += timeout_s

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def _end_some(self) -> None:
        for tid in list(self.open)[: self.together]:
            if self.stopping:
                return
            answer = self.answer(self.open[tid])
            if answer is self.WAIT:
                continue
            del self.open[tid]
            self.now += self.task_s
            result = answer if isinstance(answer, Result) else ok(tid, answer)
            self.recorded[tid] = result
            self._ended.append(result)


def well(task: BaseTask) -> Any:
    """What a task returns when all is well."""
    if not isinstance(task, LustreOstMigrateTask):
        return None
    return MigrationResult(state=FileState.SUCCESS, source=task.source_ost, target=task.target_ost)


def ok(tid: str, value: Any = None) -> Result:
    return Result(tid, "succeeded", "succeeded", 0, value, "", 1, 0.1)


@pytest.fixture
def desk() -> FakeDesk:
    return FakeDesk()
