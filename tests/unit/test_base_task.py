from __future__ import annotations

import pickle

import pytest

from cyclone.base_task import Attempt, BaseTask
from cyclone.model.task import Retry


class Move(BaseTask):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def execute(self) -> str:
        return self.path


class Forgetful(BaseTask):
    """Does not call the constructor of its base class."""

    def __init__(self, path: str) -> None:
        self.path = path

    def execute(self) -> str:
        return self.path


def test_a_task_has_no_tid_until_it_is_given_one() -> None:
    assert Move("a").tid is None


@pytest.mark.parametrize(("given", "text"), [("a", "a"), (17, "17"), ("ä" * 2048, "ä" * 2048)])
def test_a_tid_is_text(given: object, text: str) -> None:
    task = Move("a")

    task.tid = given

    assert task.tid == text


@pytest.mark.parametrize("given", [None, "", "x" * 4097, "ä" * 2049, "\ud800"])
def test_a_tid_that_cannot_travel_is_refused(given: object) -> None:
    task = Move("a")

    with pytest.raises(ValueError):  # noqa: PT011 - a text that is not Unicode has an error of its own
        task.tid = given

    assert task.tid is None


def test_a_task_has_an_attempt_only_while_it_executes() -> None:
    with pytest.raises(RuntimeError, match="only while it executes"):
        _ = Move("a").attempt


def test_a_running_task_sees_its_attempt() -> None:
    task = Move("a")

    task._attempt = Attempt("job", "a", 5, 2)

    assert (task.attempt.job, task.attempt.number, task.attempt.token) == ("job", 2, 5)


@pytest.mark.parametrize("kind", [Move, Forgetful])
def test_attributes_arrive_as_they_are(kind: type[Move] | type[Forgetful]) -> None:
    task = kind("a/b|c\n")
    task.tid = "x"

    arrived = pickle.loads(pickle.dumps(task))

    assert (arrived.path, arrived.tid) == ("a/b|c\n", "x")


def test_a_task_without_execute_cannot_be_made() -> None:
    class Nothing(BaseTask):
        pass

    with pytest.raises(TypeError):
        Nothing()  # type: ignore[abstract]


def test_a_task_is_treated_by_its_class_unless_it_overrides() -> None:
    task, other = Move("a"), Move("b")

    task.priority, task.retry = 5, Retry(errors=3)

    assert (other.priority, other.retry) == (0, Retry())
    assert BaseTask.POLICY.intersection(vars(task)) == {"priority", "retry"}


def test_everything_that_may_be_overridden_has_a_default() -> None:
    assert all(hasattr(BaseTask, name) for name in BaseTask.POLICY)
