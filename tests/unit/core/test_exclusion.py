"""Whom the rules exclude, and what becomes of those."""

from __future__ import annotations

import pytest

from cyclone.core.exclusion import CRASHES, FIRST_S, LONGEST_S, REVIEW_S, WITHIN_S, Exclusion
from cyclone.core.live import Controller
from cyclone.messages import Report
from cyclone.model.lifecycle import Outcome, State
from cyclone.model.peer import Peer
from cyclone.model.task import Retry
from tests.core_builders import Master


def present(name: str) -> Controller:
    controller = Controller(Peer(name, "1"), 0.0)
    controller.report_at = 0.0
    return controller


class Ward:
    """Some controllers, and what is known of them."""

    def __init__(self, *names: str) -> None:
        self.exclusion = Exclusion()
        self.controllers = [present(name) for name in names]
        self.task = 0

    def crash(self, controller: Controller, now: float, times: int = CRASHES) -> None:
        for _ in range(times):
            self.task += 1
            self.exclusion.crashed(controller, self.task, now)

    def excluded(self, now: float) -> list[str]:
        self.exclusion.review(self.controllers, now)
        return [each.peer.name for each in self.controllers if each.excluded_until is not None]


@pytest.fixture
def ward() -> Ward:
    return Ward("a", "b")


def test_where_different_tasks_kill_their_workers_nothing_is_given(ward: Ward) -> None:
    ward.crash(ward.controllers[0], 10.0)

    assert ward.excluded(10.0) == ["a"]


def test_one_that_is_excluded_is_news_once(ward: Ward) -> None:
    ward.crash(ward.controllers[0], 10.0)

    news = [ward.exclusion.review(ward.controllers, now) for now in (10.0, 11.0, 12.0)]

    assert news == [ward.controllers[:1], [], []]


def test_a_few_deaths_say_nothing(ward: Ward) -> None:
    ward.crash(ward.controllers[0], 10.0, CRASHES - 1)

    assert ward.excluded(10.0) == []


def test_one_task_that_kills_worker_after_worker_says_nothing_of_a_host(ward: Ward) -> None:
    for _ in range(CRASHES):
        ward.exclusion.crashed(ward.controllers[0], 7, 10.0)

    assert ward.excluded(10.0) == []


def test_what_is_long_ago_says_nothing(ward: Ward) -> None:
    ward.crash(ward.controllers[0], 10.0, CRASHES - 1)
    ward.crash(ward.controllers[0], 10.0 + WITHIN_S, 1)

    assert ward.excluded(10.0 + WITHIN_S) == []


def test_a_success_between_shows_that_tasks_can_succeed_there(ward: Ward) -> None:
    ward.crash(ward.controllers[0], 10.0, CRASHES - 1)
    ward.exclusion.succeeded(ward.controllers[0])
    ward.crash(ward.controllers[0], 11.0, CRASHES - 1)

    assert ward.excluded(11.0) == []


def test_a_success_brings_it_back_at_once(ward: Ward) -> None:
    ward.crash(ward.controllers[0], 10.0)
    before = ward.excluded(10.0)

    ward.exclusion.succeeded(ward.controllers[0])

    assert (before, ward.exclusion.next_moment <= 10.0) == (["a"], True)
    assert ward.excluded(10.0) == []


def test_it_is_tried_again_after_a_while(ward: Ward) -> None:
    ward.crash(ward.controllers[0], 10.0)

    assert ward.excluded(10.0 + FIRST_S - REVIEW_S) == ["a"]
    assert ward.exclusion.next_moment == 10.0 + FIRST_S
    assert ward.excluded(10.0 + FIRST_S) == []


def test_each_time_takes_twice_as_long_up_to_a_bound(ward: Ward) -> None:
    [node, _] = ward.controllers
    now, lasted = 10.0, []
    for _ in range(20):
        ward.crash(node, now)
        ward.excluded(now)
        assert node.excluded_until is not None
        lasted.append(node.excluded_until - now)
        now = node.excluded_until
        ward.excluded(now)

    assert lasted[:3] == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S]
    assert lasted[-1] == LONGEST_S


def test_after_a_success_the_next_time_is_a_first_one(ward: Ward) -> None:
    [node, _] = ward.controllers
    ward.crash(node, 10.0)
    ward.exclusion.succeeded(node)
    ward.crash(node, 20.0)
    ward.excluded(20.0)

    assert node.excluded_until == 20.0 + FIRST_S


def test_where_most_are_in_the_same_plight_it_is_the_tasks() -> None:
    ward = Ward("a", "b", "c")
    for node in ward.controllers[:2]:
        ward.crash(node, 10.0)

    assert ward.excluded(10.0) == []


def test_the_only_one_is_never_excluded() -> None:
    ward = Ward("a")
    ward.crash(ward.controllers[0], 10.0)

    assert ward.excluded(10.0) == []


@pytest.mark.parametrize("reason", ["silent", "leaving", "told_to_leave"])
def test_when_those_who_were_well_are_gone_it_comes_back(ward: Ward, reason: str) -> None:
    ward.crash(ward.controllers[0], 10.0)
    before = ward.excluded(10.0)

    setattr(ward.controllers[1], reason, True)

    assert (before, ward.excluded(10.0 + REVIEW_S)) == (["a"], [])


def test_one_that_was_started_again_has_a_clean_record(ward: Ward) -> None:
    ward.crash(ward.controllers[0], 10.0)
    ward.excluded(10.0)

    ward.exclusion.gone(ward.controllers[0])
    ward.controllers[0] = present("a")

    assert ward.excluded(10.0 + REVIEW_S) == []


def test_without_deaths_there_is_nothing_to_review(ward: Ward) -> None:
    assert ward.exclusion.next_moment == float("inf")


# In the scheduler.


def killing(master: Master, node: Peer, *tids: str) -> None:
    for tid in tids:
        master.ended(node, master.token(tid), outcome=Outcome.SIGNALLED, code=11, died=True)


@pytest.fixture
def master() -> Master:
    return Master()


TIDS = [str(number) for number in range(CRASHES)]


def spoiled(master: Master) -> tuple[Peer, Peer]:
    """One controller where every task kills its worker, and another one that has joined since."""
    bad = master.join("bad", workers=CRASHES)
    master.submit(*TIDS, retry=Retry(crashes=0))
    master.tick()
    good = master.join("good", workers=1)
    killing(master, bad, *TIDS)
    master.tick()
    return bad, good


def test_what_is_ready_goes_to_others(master: Master) -> None:
    bad, good = spoiled(master)
    master.submit("x")
    master.tick()

    assert (master.tids(bad), master.tids(good)) == ([], ["x"])


def test_it_is_told_to_the_log(master: Master) -> None:
    bad, _ = spoiled(master)

    [note] = [note for note in master.decision.notes if "excluded" in note]

    assert f"name={bad.name}" in note
    assert f"seconds={FIRST_S:.0f}" in note


def test_what_waits_there_unstarted_is_taken_back(master: Master) -> None:
    bad = master.join("bad", workers=1)
    master.taught("k", 0.0001)
    master.submit(*TIDS, "behind", kind="k", retry=Retry(crashes=0))
    master.tick()
    master.join("good", workers=1)
    killing(master, bad, *TIDS)

    master.tick()

    assert master.dropped(bad, unless_started=True) == [master.token("behind")]


def test_it_gets_tasks_again_when_its_time_is_over(master: Master) -> None:
    bad, good = spoiled(master)
    master.submit("busy")
    master.tick()
    master.submit("x", "y")
    for _ in range(round(FIRST_S)):
        for node in (bad, good):
            master.report(node)
        master.tick(1.0)

    assert master.controller(bad).excluded_until is None
    assert {master.state(tid) for tid in ("x", "y")} == {State.PLACED}


def test_a_stop_of_what_is_excluded_is_as_any_other(master: Master) -> None:
    bad, _ = spoiled(master)
    master.hear(bad, Report(master.now, (), [], leaving=True))

    master.tick(REVIEW_S)

    assert master.controller(bad).excluded_until is None
