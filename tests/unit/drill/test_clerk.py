"""The clerk hands in until the master has accepted, and then never again."""

from __future__ import annotations

from pathlib import Path

import pytest

from cyclone.drill.clerk import JOB, Clerk
from cyclone.drill.notes import Given
from cyclone.drill.witness import Witness
from cyclone.messages import Accepted, Close, Message, Open, Opened, Refused, Submit


class FakeLine:
    """Keeps what is said, and says what it is told to."""

    connected = True
    refused_reason: str | None = None

    def __init__(self) -> None:
        self.said: list[Message] = []
        self.answers: list[Message] = []

    def receive(self) -> list[tuple[Message, list[bytes]]]:
        answers, self.answers = self.answers, []
        return [(answer, []) for answer in answers]

    def say(self, message: Message, enclosure: list[bytes] | None = None) -> bool:
        self.said.append(message)
        return True

    def submitted(self) -> list[tuple[int, list[str]]]:
        return [
            (each.request, [task.tid for task in each.tasks])
            for each in self.said
            if isinstance(each, Submit)
        ]


class Desk:
    """A clerk whose job is open, and the moments that pass for it."""

    def __init__(self, directory: Path) -> None:
        self.line, self.witness = FakeLine(), Witness(directory)
        self.clerk = Clerk(self.line, self.witness)  # type: ignore[arg-type]
        self.moment = 100.0
        self.hear(Opened(JOB, 4, 1, 0, 100))

    def hear(self, *messages: Message) -> None:
        """The messages, and a second later whatever follows from them."""
        self.line.answers += messages
        self.moment += 1.0
        self.clerk.tick(self.moment)

    def given(self) -> list[str]:
        return [note.tid for note in self.witness.notes() if isinstance(note, Given)]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


FIRST = ["given-0", "given-1", "given-2"]


def test_what_was_not_accepted_is_handed_in_again_and_nothing_is_promised(desk: Desk) -> None:
    desk.hear()
    desk.hear()

    assert desk.line.submitted() == [(1, FIRST)] * 3
    assert desk.given() == []


def test_what_was_accepted_is_noted_and_never_handed_in_again(desk: Desk) -> None:
    desk.hear(Accepted([1]))
    desk.hear(Accepted([1]))  # the answer comes twice, as after a doubled message

    assert desk.given() == FIRST
    assert desk.line.submitted() == [(1, FIRST), *[(2, ["given-3", "given-4", "given-5"])] * 2]


def test_a_job_is_closed_when_all_was_accepted(desk: Desk) -> None:
    desk.clerk.calm()
    desk.hear()
    assert not any(isinstance(said, Close) for said in desk.line.said)

    desk.hear(Accepted([1]))
    assert desk.line.said[-1] == Close(2, 4)
    assert not desk.clerk.is_done

    desk.hear(Accepted([2]))
    assert desk.clerk.is_done
    assert desk.given() == FIRST


def test_a_job_that_is_not_open_any_more_was_closed(desk: Desk) -> None:
    desk.clerk.calm()
    desk.hear(Accepted([1]))

    desk.hear(Refused("there is no open job 4"))

    assert desk.clerk.is_done


def test_it_shows_every_second_that_it_is_there(desk: Desk) -> None:
    desk.hear()

    assert [each for each in desk.line.said if isinstance(each, Open)] == [Open(JOB, 4)] * 2


def test_nothing_is_said_without_a_connection(desk: Desk) -> None:
    desk.line.connected = False
    desk.line.said.clear()

    desk.hear()

    assert desk.line.said == []
