from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from cyclone.base_task import BaseTask
from cyclone.ini import Ini
from cyclone.task_generator import Result, TaskGenerator


class Task(BaseTask):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.tid = name

    def execute(self) -> None: ...


class Desk:
    """Answers each task with its end at once, and keeps a list of what was asked of it."""

    def __init__(self, *, stops_after: int | None = None) -> None:
        self.asked: list[object] = []
        self._stops_after = stops_after
        self._ended: list[Result] = []

    @property
    def stopping(self) -> bool:
        submitted = sum(isinstance(each, str) for each in self.asked)
        return self._stops_after is not None and submitted >= self._stops_after

    def submit(self, task: BaseTask) -> str:
        assert task.tid is not None
        self.asked.append(task.tid)
        self._ended.append(result(task.tid))
        return task.tid

    def results(self, timeout_s: float | None) -> Iterator[Result]:
        self.asked.append(("results", timeout_s))
        while self._ended:
            yield self._ended.pop(0)

    def sleep(self, seconds: float) -> None:
        self.asked.append(("sleep", seconds))


def result(tid: str, state: str = "succeeded") -> Result:
    return Result(tid, state, state, 0, None, "", 1, 0.5)


class Three(TaskGenerator):
    def __init__(self, config: Ini) -> None:
        super().__init__(config)
        self.heard: list[str] = []

    def generate(self) -> Iterable[BaseTask]:
        return (Task(name) for name in "abc")

    def on_result(self, result: Result) -> None:
        self.heard.append(result.tid)


@pytest.fixture
def three() -> Three:
    return Three(Ini({}))


def test_a_run_hands_in_everything_and_hears_of_every_end(three: Three) -> None:
    desk = Desk()
    three._attach(desk)

    three.run()

    assert [each for each in desk.asked if isinstance(each, str)] == ["a", "b", "c"]
    assert three.heard == ["a", "b", "c"]


def test_a_run_waits_for_the_last_end(three: Three) -> None:
    desk = Desk()
    three._attach(desk)

    three.run()

    assert desk.asked[-1] == ("results", None)


def test_a_run_ends_early_when_it_is_to_stop(three: Three) -> None:
    desk = Desk(stops_after=2)
    three._attach(desk)

    three.run()

    assert [each for each in desk.asked if isinstance(each, str)] == ["a", "b"]


def test_a_run_of_one_s_own_may_sleep_and_look(three: Three) -> None:
    desk = Desk()
    three._attach(desk)

    three.sleep(1.5)

    assert desk.asked == [("sleep", 1.5)]
    assert not three.stopping


def test_a_generator_that_nobody_runs_cannot_hand_in(three: Three) -> None:
    with pytest.raises(RuntimeError, match="only while it is run"):
        three.submit(Task("a"))


def test_a_generator_that_overrides_nothing_says_so() -> None:
    generator = TaskGenerator(Ini({}))
    generator._attach(Desk())

    with pytest.raises(NotImplementedError, match="overrides neither"):
        generator.run()


def test_results_are_not_listened_to_unless_one_wants_to() -> None:
    generator = TaskGenerator(Ini({}))

    generator.validate_config()
    generator.on_result(result("a"))


@pytest.mark.parametrize(("state", "ok"), [("succeeded", True), ("failed", False), ("skipped", False)])
def test_only_a_success_is_ok(state: str, ok: bool) -> None:
    assert result("a", state).ok is ok
