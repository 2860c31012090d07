from __future__ import annotations

import pytest

from cyclone.daemons.questions import BURST_S, OTHERS_PARTS, WAITING_MOST, Questions
from cyclone.messages import AskCluster, Refused
from cyclone.model.peer import Peer

ALICE, BOB, BOBS_OTHER = Peer("alice", "1"), Peer("bob/1", "1"), Peer("bob/2", "1")


@pytest.fixture
def questions() -> Questions:
    return Questions()


def asked(questions: Questions, now: float = 0.0) -> list[int]:
    """The numbers of all that are to be answered, in their order, if each costs nothing."""
    found = []
    while (one := questions.next(now)) is not None:
        found.append(one[1].request)
    return found


def test_questions_are_answered_in_their_order(questions: Questions) -> None:
    for number in (1, 2, 3):
        assert questions.add(ALICE, AskCluster(number)) is None

    assert asked(questions) == [1, 2, 3]
    assert questions.next_moment() is None


def test_each_key_has_its_turn_however_many_somebody_else_asks(questions: Questions) -> None:
    for number in range(10):
        questions.add((BOB, BOBS_OTHER)[number % 2], AskCluster(number))
    questions.add(ALICE, AskCluster(77))

    assert asked(questions)[:3] == [0, 77, 1]


def test_of_one_key_only_so_many_wait(questions: Questions) -> None:
    for number in range(WAITING_MOST):
        questions.add((BOB, BOBS_OTHER)[number % 2], AskCluster(number))

    refused = questions.add(BOB, AskCluster(5000))

    assert refused == Refused("100 questions of this key wait already", 5000)
    assert questions.add(ALICE, AskCluster(1)) is None


def test_answers_take_a_part_of_the_time(questions: Questions) -> None:
    questions.add(ALICE, AskCluster(1))
    questions.add(ALICE, AskCluster(2))
    assert questions.next(100.0) is not None

    questions.took(100.0, 101.0)

    assert questions.next(101.0) is None
    again_at = questions.next_moment()
    assert again_at == pytest.approx(101.0 + OTHERS_PARTS - BURST_S)
    assert again_at is not None
    assert questions.next(again_at + 0.001) is not None


def test_some_that_cost_little_are_answered_at_once(questions: Questions) -> None:
    for number in range(20):
        questions.add(ALICE, AskCluster(number))

    for _ in range(20):
        assert questions.next(100.0) is not None
        questions.took(100.0, 100.0001)
