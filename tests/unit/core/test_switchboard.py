import pytest

from cyclone.core.decision import Letter
from cyclone.core.live import Job
from cyclone.core.switchboard import PATIENCE_S, WAITING_MOST, Switchboard
from cyclone.messages import AskGenerator, Command, CommandDone, GeneratorAnswer, Refused
from cyclone.model.peer import Peer

ASKER, CLIENT, OTHER = Peer("client", "asks"), Peer("client", "works"), Peer("client", "other")


def job(number, name, client=None):
    return Job(number, name, client=client)


JOBS = {1: job(1, "move", CLIENT), 2: job(2, "orphan")}
PAUSE = AskGenerator(7, "move", "pause", {"why": "lunch"})


@pytest.fixture
def switchboard():
    return Switchboard()


def test_a_command_reaches_who_works_on_the_job_and_the_answer_who_asked(switchboard):
    [asked] = switchboard.ask(ASKER, PAUSE, JOBS, 0.0)
    [answered] = switchboard.done(CLIENT, CommandDone(asked.message.number, '"paused"'))

    assert asked == Letter(CLIENT, Command(1, "pause", {"why": "lunch"}))
    assert answered == Letter(ASKER, GeneratorAnswer(7, '"paused"'))


def test_no_name_means_the_only_job_with_a_generator(switchboard):
    [asked] = switchboard.ask(ASKER, AskGenerator(7, "", "pause", {}), JOBS, 0.0)

    assert asked.to == CLIENT


def test_a_problem_is_a_refusal(switchboard):
    switchboard.ask(ASKER, PAUSE, JOBS, 0.0)

    assert switchboard.done(CLIENT, CommandDone(1, "", "no such limit")) == [
        Letter(ASKER, Refused("no such limit", 7))
    ]


def test_an_answer_is_passed_on_once(switchboard):
    switchboard.ask(ASKER, PAUSE, JOBS, 0.0)
    switchboard.done(CLIENT, CommandDone(1, "1"))

    assert switchboard.done(CLIENT, CommandDone(1, "2")) == []


def test_an_answer_of_somebody_else_is_not_believed(switchboard):
    switchboard.ask(ASKER, PAUSE, JOBS, 0.0)

    assert switchboard.done(OTHER, CommandDone(1, "1")) == []


def test_of_a_name_that_is_not_known_no_more_is_told_than_a_person_reads(switchboard):
    [refused] = switchboard.ask(ASKER, AskGenerator(7, "\0" * 10**6, "pause", {}), JOBS, 0.0)

    assert len(refused.message.reason) < 1500


@pytest.mark.parametrize(
    ("name", "jobs", "reason"),
    [
        ("none", JOBS, "no open job 'none'"),
        ("orphan", JOBS, "nobody works on the job 'orphan'"),
        ("", {}, "no generator"),
        ("", {1: job(1, "a", CLIENT), 2: job(2, "b", OTHER)}, "name one of them: a, b"),
        ("", {n: job(n, f"job-{n:02}", CLIENT) for n in range(25)}, "job-18, job-19 and 5 more"),
    ],
)
def test_a_command_for_nobody_is_refused_with_the_reason(switchboard, name, jobs, reason):
    [letter] = switchboard.ask(ASKER, AskGenerator(7, name, "pause", {}), jobs, 0.0)

    assert letter.to == ASKER
    assert letter.message.request == 7
    assert reason in letter.message.reason


def test_who_waits_too_long_is_told(switchboard):
    switchboard.ask(ASKER, PAUSE, JOBS, 100.0)

    assert switchboard.next_moment() == 100.0 + PATIENCE_S
    assert switchboard.tick(100.0 + PATIENCE_S - 1) == []
    [letter] = switchboard.tick(100.0 + PATIENCE_S)
    assert letter.to == ASKER
    assert "did not answer" in letter.message.reason
    assert switchboard.next_moment() is None


def test_only_so_many_wait(switchboard):
    for _ in range(WAITING_MOST):
        switchboard.ask(ASKER, PAUSE, JOBS, 0.0)

    [letter] = switchboard.ask(ASKER, PAUSE, JOBS, 0.0)

    assert "too many" in letter.message.reason
