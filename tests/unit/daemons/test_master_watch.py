"""The watch over the master shows its last answer, and nothing once there is none."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from cyclone.client import Client
from cyclone.daemons.master_watch import MasterWatch
from cyclone.errors import MasterUnreachable, Refusal
from cyclone.messages import AskCluster, Cluster, Message, Tasks

PATIENCE_S = 20
HERE = Cluster(1, "3", 1, 1, "running", 1.0, "", "tcp://x", [], [])


class FakeLine:
    def __init__(self) -> None:
        self.refused_reason: str | None = None
        self.reconnections = 0

    def reconnect(self) -> None:
        self.refused_reason = None
        self.reconnections += 1


class FakeClient(Client):
    """Answers as the test wants: a message, or an exception; the last one for ever."""

    def __init__(self, *answers: Message | Exception) -> None:
        self.line: Any = FakeLine()
        self.answers = list(answers)
        self.late: list[tuple[Message, list[bytes]]] = []
        self.asked = threading.Semaphore(0)
        self.closed = False

    def ask(
        self, message: Message, enclosure: object = None, timeout_s: float = 0,
        given_up: Callable[[], bool] = lambda: False,
    ) -> Message:  # fmt: skip
        assert message == AskCluster(0)
        self.asked.release()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def receive(self) -> list[tuple[Message, list[bytes]]]:
        late, self.late = self.late, []
        return late

    def close(self) -> None:
        self.closed = True


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_a_master_that_answers_is_shown_and_one_that_does_not_is_not() -> None:
    watch = MasterWatch(FakeClient(HERE, MasterUnreachable("silence"), HERE), 60)

    shown = []
    for _ in range(3):
        watch.look()
        shown.append(watch.cluster)

    assert shown == [HERE, None, HERE]


def test_a_master_that_was_never_reached_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    watch = MasterWatch(FakeClient(MasterUnreachable("silence")), 60)

    for _ in range(3):
        watch.look()

    assert told(caplog) == ["no answer from the master: silence"]


def test_what_is_another_trouble_or_comes_again_later_is_told_again(caplog: pytest.LogCaptureFixture) -> None:
    answers = [MasterUnreachable("silence"), Refusal("no"), HERE, Refusal("no")]
    watch = MasterWatch(FakeClient(*answers), 60)

    for _ in answers:
        watch.look()

    assert [text.rpartition(": ")[2] for text in told(caplog)] == ["silence", "no", "no"]


def test_an_answer_to_something_else_is_none() -> None:
    watch = MasterWatch(FakeClient(HERE, Tasks(1, [])), 60)

    watch.look()
    watch.look()

    assert watch.cluster is None


@pytest.mark.parametrize(("reason", "reconnections"), [("not admitted", 1), (None, 0)])
def test_only_after_a_refusal_the_line_is_made_anew(reason: str | None, reconnections: int) -> None:
    client = FakeClient(MasterUnreachable("no"))
    client.line.refused_reason = reason

    MasterWatch(client, 60).look()

    assert client.line.reconnections == reconnections


def test_answers_that_came_too_late_are_not_kept() -> None:
    client = FakeClient(MasterUnreachable("silence"))
    client.late = [(HERE, [])]

    MasterWatch(client, 60).look()

    assert client.late == []


def test_a_bug_neither_ends_the_watch_nor_leaves_the_last_picture(caplog: pytest.LogCaptureFixture) -> None:
    client = FakeClient(HERE, ZeroDivisionError("by zero"))
    watch = MasterWatch(client, 0.001)

    watch.start()
    thrice = [client.asked.acquire(timeout=PATIENCE_S) for _ in range(3)]
    watch.stop()

    assert thrice == [True] * 3
    assert watch.cluster is None
    assert "ZeroDivisionError" in caplog.text
    assert client.closed


def test_it_ends_while_a_question_is_asked(caplog: pytest.LogCaptureFixture) -> None:
    class Patient(FakeClient):
        def ask(self, *_: object, given_up: Callable[[], bool], **__: object) -> Message:
            self.asked.release()
            while not given_up():
                continue
            raise MasterUnreachable("given up")

    client = Patient()
    watch = MasterWatch(client, 3600)
    watch.start()
    assert client.asked.acquire(timeout=PATIENCE_S)

    watch.stop()

    assert client.closed
    assert told(caplog) == []
