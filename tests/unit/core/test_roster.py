"""Who is there. The roster answers; what becomes of tasks is tested with the scheduler."""

from __future__ import annotations

import pytest

from cyclone.core import roster as module
from cyclone.core.live import Bundle, Controller, Job, Task
from cyclone.core.roster import LEASE_MARGIN, LEASE_MARGIN_S, LEASES_MOST, Roster
from cyclone.messages import Leave, Refused
from cyclone.model.lifecycle import State
from cyclone.model.peer import Peer
from cyclone.model.task import Policy

LEASE_S = 10.0
FIRST, SECOND = Peer("node", "1"), Peer("node", "2")


@pytest.fixture
def roster() -> Roster:
    return Roster({}, 100.0, LEASE_S)


def admitted(roster: Roster, peer: Peer = FIRST, now: float = 100.0) -> Controller:
    controller = roster.admit(peer, now).controller
    assert controller is not None
    return controller


def look(roster: Roster, now: float) -> list[tuple[Controller, bool]]:
    """Who is silent, as a daemon asks that was there all the time."""
    roster.excuse_own_absence(now)
    return [(silence.controller, silence.is_news) for silence in roster.silent(now)]


# Who comes and goes.


def test_who_reports_for_the_first_time_is_admitted(roster: Roster) -> None:
    controller, replaced, refusal = roster.admit(FIRST, 100.0)

    assert controller is not None
    assert roster.controllers == {"node": controller}
    assert (controller.peer, controller.heard_at, replaced, refusal) == (FIRST, 100.0, None, None)


def test_who_reports_again_is_the_same(roster: Roster) -> None:
    first = admitted(roster)

    assert roster.admit(FIRST, 101.0) == (first, None, None)


def test_a_later_life_replaces_the_former_one(roster: Roster) -> None:
    first = admitted(roster)

    controller, replaced, refusal = roster.admit(SECOND, 101.0)

    assert replaced is first
    assert refusal is None
    assert roster.controllers == {"node": controller}


def test_a_life_that_is_over_is_told_to_end(roster: Roster) -> None:
    admitted(roster)
    admitted(roster, SECOND)

    controller, _, refusal = roster.admit(FIRST, 102.0)

    assert controller is None
    assert isinstance(refusal, Leave)
    assert refusal.now


def test_an_earlier_life_is_refused_while_the_later_one_is_heard(roster: Roster) -> None:
    later = admitted(roster, SECOND)

    controller, _, refusal = roster.admit(FIRST, 101.0)

    assert controller is None
    assert isinstance(refusal, Refused)
    assert roster.controllers == {"node": later}


def test_an_earlier_life_takes_the_place_of_a_later_one_that_is_silent(roster: Roster) -> None:
    later = admitted(roster, SECOND)
    later.silent = True

    controller, replaced, _ = roster.admit(FIRST, 120.0)

    assert controller is not None
    assert replaced is later


def test_who_has_left_may_not_come_back_in_the_same_life(roster: Roster) -> None:
    roster.retire(admitted(roster))

    assert roster.controllers == {}
    assert isinstance(roster.admit(FIRST, 101.0).refusal, Leave)


def test_who_was_forgotten_may_come_back_in_the_same_life(roster: Roster) -> None:
    roster.forget(admitted(roster))

    assert roster.admit(FIRST, 101.0).controller is not None


def test_there_is_room_for_only_so_many_names(roster: Roster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONTROLLERS_MOST", 1)
    admitted(roster)

    controller, _, refusal = roster.admit(Peer("another", "1"), 101.0)

    assert controller is None
    assert refusal == Refused("1 controllers are here already")
    assert roster.admit(SECOND, 101.0).controller is not None  # the next life of one that is here


def test_of_former_lives_the_newest_are_remembered(roster: Roster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FORMER_LIVES", 2)
    for name in ("a", "b", "c"):
        roster.retire(admitted(roster, Peer(name, "1")))

    refusals = [roster.admit(Peer(name, "1"), 101.0).refusal for name in ("a", "b", "c")]

    assert [refusal is not None for refusal in refusals] == [False, True, True]


# Who is silent.


def test_who_was_not_heard_for_a_lease_is_silent_and_that_is_news_once(roster: Roster) -> None:
    controller = admitted(roster)
    for second in range(1, 10):
        assert look(roster, 100.0 + second) == []

    assert look(roster, 110.0) == [(controller, True)]
    assert look(roster, 111.0) == [(controller, False)]
    assert controller.silent


def test_a_silence_of_very_many_leases_is_final(roster: Roster) -> None:
    controller = admitted(roster)
    controller.heard_at = 100.0 - LEASES_MOST * LEASE_S + 1

    first, second = roster.silent(100.0), roster.silent(101.0)

    assert [silence.is_final for silence in (*first, *second)] == [False, True]


def test_a_word_breaks_a_silence(roster: Roster) -> None:
    controller = admitted(roster)
    controller.silent = True

    roster.hear(FIRST, 120.0)

    assert (controller.silent, controller.heard_at) == (False, 120.0)


def test_a_word_of_another_life_does_not_break_a_silence(roster: Roster) -> None:
    controller = admitted(roster)
    controller.silent = True

    roster.hear(SECOND, 120.0)

    assert (controller.silent, controller.heard_at) == (True, 100.0)


def test_between_two_looks_nobody_is_found_silent(roster: Roster) -> None:
    controller = admitted(roster)
    roster.silent(100.0)
    controller.heard_at = 0.0

    assert roster.silent(roster.next_moment - 0.01) == []
    assert [silence.controller for silence in roster.silent(roster.next_moment)] == [controller]


def test_time_in_which_nobody_could_be_heard_is_not_counted(roster: Roster) -> None:
    admitted(roster)

    assert look(roster, 100.0 + 3 * LEASE_S) == []


def test_a_roster_is_deserted_when_all_are_silent(roster: Roster) -> None:
    controller = admitted(roster)
    before = roster.is_deserted

    controller.silent = True

    assert not before
    assert roster.is_deserted


# Whose an attempt is.


def held(controller: Controller, *, exclusive: bool) -> Task:
    task = Task(1, Job(1, "job"), "t", Policy(exclusive=exclusive), State.PLACED)
    task.bundle = Bundle(1, controller, (), 1, 1, 100.0, 105.0, ahead=False)
    return task


def test_an_exclusive_attempt_may_be_given_away_when_its_lease_must_have_run_out_everywhere(
    roster: Roster,
) -> None:
    task = held(admitted(roster), exclusive=True)
    over = 105.0 + LEASE_S * (1 + LEASE_MARGIN) + LEASE_MARGIN_S

    assert not roster.may_be_given_away(task, over - 0.01)
    assert roster.may_be_given_away(task, over)


def test_any_other_attempt_may_be_given_away_at_once(roster: Roster) -> None:
    task = held(admitted(roster), exclusive=False)

    assert roster.may_be_given_away(task, 100.0)


def test_a_lease_is_never_shorter_than_half_a_second() -> None:
    assert Roster({}, 100.0, 0.01).lease_s == 0.5
