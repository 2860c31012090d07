"""The master's mind. `Master` remembers every decision and checks the invariants after each."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from core_builders import CLIENT, LEASE_S, Master, a_policy

from cyclone.core import explain, scheduler
from cyclone.core.alarms import SWEPT_FROM
from cyclone.core.live import RETURNS_MOST
from cyclone.core.placement import CALL_BACK_S
from cyclone.core.roster import LEASE_MARGIN, LEASE_MARGIN_S
from cyclone.core.scheduler import CLIENT_SILENT_S, SUSPECTS_MOST
from cyclone.messages import (
    Accepted,
    Agreed,
    Cancel,
    Close,
    Drop,
    Ended,
    Goodbye,
    Leave,
    Message,
    Open,
    Opened,
    Refused,
    Report,
    Results,
    SpoolView,
    Started,
    Submission,
    Submit,
)
from cyclone.model.changes import (
    AttemptEnded,
    JobClosed,
    JobOpened,
    JobRemembers,
    JobSealed,
    TaskAccepted,
    TaskEnded,
)
from cyclone.model.lifecycle import JobState, Outcome, State
from cyclone.model.peer import Peer
from cyclone.model.resources import shape
from cyclone.model.task import SPREAD, Cause, End, Policy, Retry, first_token

OTHER_CLIENT = Peer("client", "c2")
STRANGER = Peer("stranger", "1")
ANOTHER_KEY = Peer("another", "c3")
#: How long after the last renewal an exclusive attempt is given to nobody else.
GUARD_S = LEASE_S * (1 + LEASE_MARGIN) + LEASE_MARGIN_S


@pytest.fixture
def master() -> Master:
    return Master()


def running(master: Master, *tids: str, workers: int = 1, **policy: Any) -> Peer:
    """A controller to which these tasks were given."""
    node = master.join(workers=workers)
    master.submit(*tids, **policy)
    master.tick()
    return node


# A task's life.


def test_a_submitted_task_is_remembered_before_it_is_accepted(master: Master) -> None:
    master.submit("a")

    assert [change.tid for change in master.changes(TaskAccepted)] == ["a"]
    assert master.said(CLIENT, Accepted)


def test_a_ready_task_is_placed_where_there_is_room(master: Master) -> None:
    node = master.join()
    master.submit("a")

    master.tick()

    assert master.tids(node) == ["a"]
    assert master.state("a") is State.PLACED


def test_a_task_said_to_have_started_is_running(master: Master) -> None:
    node = running(master, "a")

    master.started(node, master.token("a"))

    assert master.state("a") is State.RUNNING


def test_a_success_is_recorded_and_dropped(master: Master) -> None:
    node = running(master, "a")
    token = master.token("a")

    master.ended(node, token)

    assert master.end("a").state is State.SUCCEEDED
    assert master.dropped(node) == [token]


def test_what_ended_in_a_turn_is_told_at_its_end(master: Master) -> None:
    node = running(master, "a", "b", workers=2)
    master.ended(node, master.token("a"))
    master.ended(node, master.token("b"))
    before = master.said(CLIENT, Results)

    master.tick()

    assert before == []
    assert [[end.tid for end in said.ends] for said in master.said(CLIENT, Results)] == [["a", "b"]]


def test_a_tid_that_ended_in_this_very_turn_is_not_taken_again(master: Master) -> None:
    node = running(master, "a")
    token = master.token("a")
    master.mind.receive(node, Ended([End(token, 1, 1)]), master.now)

    decision = master.mind.receive(
        CLIENT, Submit(9, 1, [a_policy()], [Submission("a", 0), Submission("b", 0, ("a",))]), master.now
    )

    assert [change.tid for change in decision.changes if isinstance(change, TaskAccepted)] == ["b"]
    assert master.state("b") is State.READY


def test_the_results_enclose_the_values_of_successes_alone(master: Master) -> None:
    node = running(master, "a", "b", workers=2)
    good, bad = master.token("a"), master.token("b")

    master.hear(node, Ended([End(good, 1, 1), End(bad, 1, 1, Outcome.RAISED)]))
    master.tick()

    [enclose] = [letter.enclose for letter in master.decision.letters if isinstance(letter.message, Results)]
    assert list(enclose) == [good, 0]


# Fencing.


def test_an_end_of_an_earlier_attempt_changes_nothing_and_is_dropped(master: Master) -> None:
    node = running(master, "a")
    stale = master.token("a")
    master.report(node, [])
    master.tick(5)
    master.report(node, [])
    master.tick()

    master.ended(node, stale)

    assert master.token("a") > stale
    assert master.state("a") is State.PLACED
    assert master.dropped(node) == [stale]


def test_an_end_that_was_recorded_is_not_recorded_again(master: Master) -> None:
    node = running(master, "a")
    token = master.token("a")
    master.ended(node, token)

    master.ended(node, token)

    assert master.decision.changes == []
    assert master.dropped(node) == [token]


def test_an_end_by_another_name_is_not_believed(master: Master) -> None:
    running(master, "a")
    thief = master.join("thief")

    master.ended(thief, master.token("a"))

    assert master.state("a") is State.PLACED


def test_an_end_by_somebody_who_never_reported_is_not_believed_but_answered(master: Master) -> None:
    running(master, "a")

    master.ended(STRANGER, master.token("a"))

    assert master.state("a") is State.PLACED
    assert master.said(STRANGER, Drop)


def test_an_end_of_a_former_life_counts_when_the_next_life_delivers_it_first(master: Master) -> None:
    running(master, "a")

    master.ended(Peer("node", "2"), master.token("a"))

    assert master.state("a") is State.SUCCEEDED


def test_an_end_of_a_former_life_is_stale_once_the_next_life_has_reported(master: Master) -> None:
    running(master, "a")
    token = master.token("a")
    master.now += 1
    reborn = master.join(life="2")

    master.ended(reborn, token)

    assert master.state("a") is State.READY


def test_a_start_said_of_an_attempt_that_is_over_changes_nothing(master: Master) -> None:
    node = running(master, "a")
    token = master.token("a")
    master.ended(node, token)

    master.started(node, token)

    assert master.decision.changes == []


def test_a_start_said_by_a_stranger_or_by_another_name_changes_nothing(master: Master) -> None:
    running(master, "a")
    thief = master.join("thief")

    master.started(STRANGER, master.token("a"))
    master.started(thief, master.token("a"))

    assert master.state("a") is State.PLACED


def test_tokens_grow_and_are_larger_in_each_life_of_the_master(master: Master) -> None:
    running(master, "a", "b", workers=2)
    earlier = [master.token("a"), master.token("b")]
    master.start()
    master.submit("c")
    master.join("other")

    master.tick()

    assert earlier == sorted(earlier)
    assert master.token("c") > first_token(2)
    assert master.token("c") > max(earlier)


# Reports are the truth.


def test_a_report_is_answered_with_its_own_time_and_the_lease(master: Master) -> None:
    node = master.join()

    master.report(node, at=77.5)

    [agreed] = master.said(node, Agreed)
    assert (agreed.at, agreed.lease_s) == (77.5, LEASE_S)


def test_reports_come_three_times_a_lease(master: Master) -> None:
    node = master.join()

    master.report(node)

    [agreed] = master.said(node, Agreed)
    assert agreed.report_s == pytest.approx(LEASE_S / 3)


def test_what_a_report_lists_and_is_not_wanted_is_dropped(master: Master) -> None:
    node = master.join()

    master.report(node, [7, 5])

    assert master.dropped(node) == [5, 7]


def test_what_a_report_lists_and_is_wanted_is_not_dropped(master: Master) -> None:
    node = running(master, "a")

    master.report(node)

    assert master.said(node, Drop) == []


def test_a_place_that_did_not_arrive_is_noticed_and_billed_to_nobody(master: Master) -> None:
    node = running(master, "a")
    master.now += 5

    master.report(node, [])

    [attempt] = master.attempts()
    assert attempt.cause is Cause.NOBODY
    assert master.state("a") is State.READY


def test_a_place_that_may_still_be_on_its_way_is_waited_for(master: Master) -> None:
    node = running(master, "a")
    master.now += 0.9

    master.report(node, [])

    assert master.state("a") is State.PLACED


def test_what_got_lost_on_its_way_is_placed_again_before_what_is_younger(master: Master) -> None:
    node = running(master, "a")
    master.submit("b")
    master.now += 5
    master.report(node, [])

    master.tick()

    assert master.tids(node) == ["a"]


def test_a_controller_that_leaves_is_given_nothing(master: Master) -> None:
    node = master.join()
    master.submit("a")
    master.report(node, leaving=True)

    master.tick()

    assert master.placed() == []


def test_a_controller_with_hung_workers_is_given_less(master: Master) -> None:
    node = master.join(workers=2)
    master.hear(node, _report_of_size(master, workers=1))
    master.submit("a", "b")

    master.tick()

    assert master.tids(node) == ["a"]


def _report_of_size(master: Master, workers: int) -> Report:
    return Report(master.now, shape({"cpus": 2, "workers": workers}), [])


def test_a_report_tells_again_what_has_started(master: Master) -> None:
    node = running(master, "a", "b", workers=2)

    master.report(node, started=[master.token("b")])

    assert (master.state("a"), master.state("b")) == (State.PLACED, State.RUNNING)


def test_a_restarted_master_hears_what_runs_and_what_becomes_of_it_is_billed_as_before(
    master: Master,
) -> None:
    node = running(master, "a", expires_s=20.0)
    token = master.token("a")
    master.started(node, token)
    master.start()
    master.report(node, [token], started=[token])

    for _ in range(40):
        master.tick(1.0)

    assert master.state("a") is State.READY
    stored = master.store.task("a")
    assert stored is not None
    assert [attempt.cause for attempt in stored.attempts] == [Cause.LOSS]


# Silence.


def test_a_lost_controller_gives_its_tasks_back(master: Master) -> None:
    running(master, "a")

    master.tick(LEASE_S)

    assert master.state("a") is State.READY
    assert "silent" in master.decision.notes[0]


def test_a_controller_is_not_lost_before_its_time(master: Master) -> None:
    running(master, "a")

    master.tick(LEASE_S - 0.1)

    assert master.state("a") is State.PLACED


def test_any_word_of_a_controller_breaks_its_silence(master: Master) -> None:
    node = running(master, "a")
    master.tick(LEASE_S - 0.1)
    master.started(node)

    master.tick(LEASE_S - 0.1)

    assert master.state("a") is State.PLACED


def test_the_loss_of_a_running_task_is_billed_to_the_loss_of_its_controller(master: Master) -> None:
    node = running(master, "a")
    master.started(node, master.token("a"))

    master.tick(LEASE_S)

    [attempt] = master.attempts()
    assert (attempt.cause, attempt.end.outcome) == (Cause.LOSS, Outcome.LOST)


def test_the_loss_of_a_task_that_may_have_run_makes_it_a_suspect(master: Master) -> None:
    running(master, "a")
    master.tick(LEASE_S)
    causes = [attempt.cause for attempt in master.attempts()]

    other = master.join("other")
    master.tick()

    assert causes == [Cause.UNKNOWN]
    assert [(each.tid, each.alone) for each in master.placed(other)] == [("a", True)]


def test_a_suspect_that_is_lost_with_its_controller_is_to_blame_although_it_was_not_heard_to_run(
    master: Master,
) -> None:
    running(master, "a")
    master.join(life="2")
    master.tick()

    master.join(life="3")

    assert [attempt.cause for attempt in master.attempts()] == [Cause.LOSS]


def test_a_task_that_takes_its_controllers_down_before_they_can_tell_is_quarantined(master: Master) -> None:
    running(master, "a", retry=Retry(losses=2))
    lives = 1
    while master.state("a") is State.PLACED:
        lives += 1
        master.join(life=f"{lives:03}")
        master.tick()

    assert master.state("a") is State.QUARANTINED
    assert master.end("a").attempts == 4


def test_of_very_many_that_were_lost_the_oldest_are_suspect() -> None:
    master = Master(window=SUSPECTS_MOST + 1)
    master.taught("k", 0.000001)
    running(master, *map(str, range(SUSPECTS_MOST + 1)), kind="k")

    master.tick(LEASE_S)

    tasks = [master.task(str(number)) for number in range(SUSPECTS_MOST + 1)]
    assert [task.is_suspect for task in tasks] == [True] * SUSPECTS_MOST + [False]


def test_what_came_back_again_and_again_without_a_word_is_suspect(master: Master) -> None:
    node = running(master, "a")
    for _ in range(RETURNS_MOST):
        master.ended(node, master.token("a"), outcome=Outcome.CANCELLED)
        before = master.task("a").is_suspect
        master.tick()

    assert before
    assert [each.alone for each in master.placed()] == [True]


def test_what_was_placed_while_its_controller_said_goodbye_is_not_suspect(master: Master) -> None:
    node = running(master, "a")

    master.hear(node, Goodbye())

    assert [attempt.cause for attempt in master.attempts()] == [Cause.NOBODY]


def test_a_silent_controller_is_given_nothing_until_it_speaks(master: Master) -> None:
    node = master.join()
    master.tick(LEASE_S + 1)
    master.submit("a")
    master.tick()
    before = master.placed()

    master.report(node)
    master.tick()

    assert before == []
    assert master.tids(node) == ["a"]


def test_the_tasks_of_a_silent_controller_go_to_another(master: Master) -> None:
    running(master, "a")
    master.tick(LEASE_S - 1)
    other = master.join("other")

    master.tick(1)

    assert master.tids(other) == ["a"]


def test_a_late_success_counts_as_long_as_nobody_else_has_the_task(master: Master) -> None:
    node = running(master, "a", exclusive=True)
    token = master.token("a")
    master.tick(LEASE_S + 0.5)

    master.ended(node, token)

    assert master.state("a") is State.SUCCEEDED


def test_a_controller_that_was_silent_for_very_long_is_forgotten(master: Master) -> None:
    node = master.join()
    master.tick(LEASE_S)

    master.tick(100 * LEASE_S)

    assert node.name not in master.mind.controllers


def test_the_master_is_deserted_when_every_controller_is_silent(master: Master) -> None:
    master.join()
    before = master.mind.is_deserted

    master.tick(LEASE_S + 1)

    assert not before
    assert master.mind.is_deserted


def test_nobody_is_silent_while_the_master_itself_was_away(master: Master) -> None:
    running(master, "a")
    master.now += 2 * LEASE_S

    master.tick()

    assert master.state("a") is State.PLACED


# Leases of exclusive attempts.


def test_an_exclusive_task_of_a_silent_controller_is_given_to_nobody_before_its_lease_is_over(
    master: Master,
) -> None:
    running(master, "a", exclusive=True)

    master.tick(GUARD_S - 0.01)

    assert master.state("a") is State.PLACED


def test_an_exclusive_task_of_a_silent_controller_is_given_back_when_its_lease_is_over(
    master: Master,
) -> None:
    running(master, "a", exclusive=True)

    master.tick(GUARD_S)

    assert master.state("a") is State.READY


def test_a_report_that_lists_an_exclusive_attempt_renews_its_lease(master: Master) -> None:
    node = running(master, "a", exclusive=True)
    master.now += 5
    master.report(node)
    renewed = [token for agreed in master.said(node, Agreed) for token in agreed.renewed]

    master.tick(GUARD_S - 0.01)

    assert renewed == [master.token("a")]
    assert master.state("a") is State.PLACED


def test_a_report_that_does_not_list_an_exclusive_attempt_does_not_renew_it(master: Master) -> None:
    node = running(master, "a", exclusive=True)
    master.now += 5
    master.report(node, [])
    renewed = [token for agreed in master.said(node, Agreed) for token in agreed.renewed]

    master.now += GUARD_S - 5
    master.report(node, [])

    assert renewed == []
    assert master.state("a") is State.READY


def test_an_exclusive_attempt_that_is_not_listed_waits_for_the_end_of_its_lease(master: Master) -> None:
    node = running(master, "a", exclusive=True)
    master.now += GUARD_S - 0.1

    master.report(node, [])

    assert master.state("a") is State.PLACED


def test_other_attempts_have_no_lease_to_renew(master: Master) -> None:
    node = running(master, "a")

    master.report(node)

    assert [agreed.renewed for agreed in master.said(node, Agreed)] == [[]]


def test_a_restarted_master_waits_for_the_lease_before_it_gives_an_exclusive_task_to_others(
    master: Master,
) -> None:
    running(master, "a", exclusive=True)
    master.start()

    master.tick(GUARD_S - 0.01)
    early = master.state("a")
    master.tick(1.0)

    assert early is State.PLACED
    assert master.state("a") is State.READY


# Lives of controllers.


def test_a_controller_that_was_started_again_has_lost_what_it_held(master: Master) -> None:
    running(master, "a", exclusive=True)
    master.now += 1

    master.join(life="2")

    assert master.state("a") is State.READY


def test_a_former_life_is_told_to_end_at_once(master: Master) -> None:
    first = master.join(life="1")
    master.now += 1
    master.join(life="2")
    master.now += 1

    master.hear(first, _report_of_size(master, workers=1))

    assert [leave.now for leave in master.said(first, Leave)] == [True]


def test_a_report_of_a_former_life_that_was_overtaken_retires_nobody(master: Master) -> None:
    running(master, "a")

    master.now -= 1
    master.hear(Peer("node", "0"), _report_of_size(master, workers=1))

    assert master.state("a") is State.PLACED
    assert master.said(Peer("node", "0"), Refused)


def test_a_restarted_master_knows_from_its_store_which_life_is_later(master: Master) -> None:
    running(master, "a")
    master.start()

    master.hear(Peer("node", "0"), _report_of_size(master, workers=1))

    assert master.state("a") is State.PLACED
    assert master.said(Peer("node", "0"), Refused)


def test_a_controller_whose_clock_was_set_back_takes_its_place_when_the_former_life_is_silent(
    master: Master,
) -> None:
    master.join()
    master.tick(LEASE_S + 2)
    restarted = Peer("node", "0")

    master.hear(restarted, _report_of_size(master, workers=1))

    assert master.said(restarted, Agreed)


def test_a_letter_goes_to_the_life_that_spoke_last(master: Master) -> None:
    master.join(life="1")
    master.now += 1
    second = master.join(life="2")
    master.submit("a")

    master.tick()

    assert master.tids(second) == ["a"]


def test_a_controller_that_says_goodbye_gives_back_what_it_held(master: Master) -> None:
    node = running(master, "a")

    master.hear(node, Goodbye("maintenance"))

    assert master.state("a") is State.READY
    assert master.mind.controllers == {}


def test_a_goodbye_of_a_former_life_changes_nothing(master: Master) -> None:
    running(master, "a")

    master.hear(Peer("node", "0"), Goodbye())

    assert master.state("a") is State.PLACED


# Retry budgets, each cause by itself.


def lost_while_running(master: Master, node: Peer, tid: str) -> None:
    master.started(node, master.token(tid))
    master.tick(LEASE_S)
    master.report(node, [])
    master.tick()


def test_an_error_ends_a_task_that_allows_no_retry(master: Master) -> None:
    node = running(master, "a")

    master.raised(node, master.token("a"))

    assert master.state("a") is State.FAILED
    assert master.end("a").attempts == 1


def test_an_error_lets_a_task_rest_that_allows_a_retry(master: Master) -> None:
    node = running(master, "a", retry=Retry(errors=1))

    master.raised(node, master.token("a"))

    assert master.state("a") is State.RESTING


def test_a_task_that_has_rested_is_tried_again_and_numbered(master: Master) -> None:
    node = running(master, "a", retry=Retry(errors=1, delay_s=2.0))
    master.raised(node, master.token("a"))
    master.tick(1.9)
    before = master.placed()

    master.tick(0.6)

    assert before == []
    assert [(each.tid, each.attempt) for each in master.placed()] == [("a", 2)]


def test_rests_grow_with_each_failure(master: Master) -> None:
    node = running(master, "a", retry=Retry(errors=5, delay_s=1.0, backoff=3.0))
    master.raised(node, master.token("a"))
    master.tick(1.0 + SPREAD)
    master.raised(node, master.token("a"))

    history = master.task("a").history

    assert history is not None
    assert 3.0 <= history.rest_until - master.now <= 3.0 * (1 + SPREAD)


def test_the_last_error_says_after_how_many_it_was_given_up(master: Master) -> None:
    node = running(master, "a", retry=Retry(errors=1, delay_s=0))
    master.raised(node, master.token("a"))
    master.tick()

    master.raised(node, master.token("a"))

    assert master.end("a").reason == "given up after 2 attempts billed to: error"


def test_errors_and_time_outs_have_budgets_of_their_own(master: Master) -> None:
    node = running(master, "a", retry=Retry(errors=1, timeouts=1, delay_s=0))
    master.raised(node, master.token("a"))
    master.tick()

    master.ended(node, master.token("a"), outcome=Outcome.TIMED_OUT)

    assert master.state("a") is State.RESTING


def test_a_task_that_kills_its_workers_is_quarantined(master: Master) -> None:
    node = running(master, "a", retry=Retry(crashes=1))
    master.ended(node, master.token("a"), outcome=Outcome.SIGNALLED, code=11, died=True)
    master.tick()
    again = master.placed()

    master.ended(node, master.token("a"), outcome=Outcome.SIGNALLED, code=11, died=True)

    assert [each.alone for each in again] == [True]
    assert master.state("a") is State.QUARANTINED


def test_a_signal_that_left_its_worker_alive_is_an_error(master: Master) -> None:
    node = running(master, "a")

    master.ended(node, master.token("a"), outcome=Outcome.SIGNALLED, code=9)

    assert master.state("a") is State.FAILED


def test_a_task_that_was_near_too_many_losses_is_quarantined(master: Master) -> None:
    node = running(master, "a", retry=Retry(losses=1))
    lost_while_running(master, node, "a")
    middle = master.state("a")

    master.started(node, master.token("a"))
    master.tick(LEASE_S)

    assert middle is State.PLACED
    assert master.state("a") is State.QUARANTINED


def test_evictions_are_without_bound_unless_one_is_set(master: Master) -> None:
    node = running(master, "a")

    for _ in range(20):
        master.ended(node, master.token("a"), outcome=Outcome.EVICTED)
        master.tick()

    assert master.state("a") is State.PLACED


def test_a_bound_of_evictions_is_kept(master: Master) -> None:
    node = running(master, "a", retry=Retry(evictions=0))

    master.ended(node, master.token("a"), outcome=Outcome.EVICTED)

    assert master.state("a") is State.FAILED


def test_what_was_given_back_before_it_started_is_billed_to_nobody(master: Master) -> None:
    node = running(master, "a")

    master.ended(node, master.token("a"), outcome=Outcome.CANCELLED)

    assert [attempt.cause for attempt in master.attempts()] == [Cause.NOBODY]
    assert master.state("a") is State.READY


def test_the_attempts_that_did_not_end_a_task_are_remembered(master: Master) -> None:
    node = running(master, "a", retry=Retry(errors=1))

    master.raised(node, master.token("a"))

    [attempt] = master.changes(AttemptEnded)
    assert (attempt.attempt, attempt.peer, attempt.cause) == (1, "node", Cause.ERROR)


# Expiry.


def test_a_task_expires_when_it_was_not_started_in_time(master: Master) -> None:
    master.submit("a", expires_s=5.0)

    master.tick(5.0)

    assert master.state("a") is State.CANCELLED
    assert "expired" in master.end("a").reason


def test_a_task_does_not_expire_before_its_time(master: Master) -> None:
    master.submit("a", expires_s=5.0)

    master.tick(4.9)

    assert master.state("a") is State.READY


def test_a_task_that_was_placed_in_time_does_not_expire(master: Master) -> None:
    running(master, "a", expires_s=5.0)

    master.tick(5.0)

    assert master.state("a") is State.PLACED


def test_a_task_that_came_back_without_having_been_started_expires_late(master: Master) -> None:
    node = running(master, "a", expires_s=5.0)
    master.tick(5.0)
    master.ended(node, master.token("a"), outcome=Outcome.CANCELLED)

    master.stop()
    master.tick(1.0)

    assert master.state("a") is State.CANCELLED


def test_a_task_that_was_started_and_lost_does_not_expire(master: Master) -> None:
    node = running(master, "a", expires_s=5.0)
    master.hear(node, Started([master.token("a")]))
    master.tick(master.lease_s + 5.0)

    assert master.state("a") is State.READY


def test_a_task_that_ended_does_not_expire(master: Master) -> None:
    node = running(master, "a", expires_s=5.0)
    master.ended(node, master.token("a"))

    master.tick(5.0)

    assert master.decision.changes == []


def test_a_waiting_task_expires_too(master: Master) -> None:
    master.submit("first")
    master.submit("last", after=("first",), expires_s=5.0)

    master.tick(5.0)

    assert master.state("last") is State.CANCELLED


# What comes after what.


def test_a_follower_waits_until_all_that_it_comes_after_have_succeeded(master: Master) -> None:
    node = running(master, "a", "b", workers=2)
    master.submit("last", after=("a", "b", "a"))
    master.ended(node, master.token("a"))
    between = master.state("last")

    master.ended(node, master.token("b"))

    assert between is State.WAITING
    assert master.state("last") is State.READY


def test_a_failure_skips_the_whole_chain_behind_it(master: Master) -> None:
    node = running(master, "a")
    master.submit("b", after=("a",))
    master.submit("c", after=("b",))

    master.raised(node, master.token("a"))
    master.tick()

    assert [end.tid for end in master.results] == ["a", "b", "c"]
    assert master.state("c") is State.SKIPPED
    assert master.end("b").reason == "it comes after 'a', which is failed"
    assert master.end("c").reason == "it comes after 'b', which is skipped"


def test_a_task_behind_two_failures_ends_once(master: Master) -> None:
    node = running(master, "a", "b", workers=2)
    master.submit("last", after=("a", "b"))

    master.raised(node, master.token("a"), master.token("b"))
    master.tick()

    assert [end.tid for end in master.results].count("last") == 1


def test_a_task_after_one_that_has_succeeded_is_ready_at_once(master: Master) -> None:
    node = running(master, "a")
    master.ended(node, master.token("a"))

    master.submit("b", after=("a",))

    assert master.state("b") is State.READY


def test_a_task_after_one_that_has_failed_is_skipped_at_once(master: Master) -> None:
    node = running(master, "a")
    master.raised(node, master.token("a"))
    master.submit("keeps the job open")

    master.hear(
        CLIENT,
        Submit(9, 1, [a_policy()], [Submission("b", 0, ("a",)), Submission("c", 0, ("b",))]),
    )

    assert master.state("b") is State.SKIPPED
    assert master.state("c") is State.SKIPPED


def test_tasks_of_one_submission_may_come_after_one_another_in_any_order(master: Master) -> None:
    job = master.open()

    master.hear(CLIENT, Submit(1, job, [a_policy()], [Submission("b", 0, ("a",)), Submission("a", 0)]))

    assert (master.state("a"), master.state("b")) == (State.READY, State.WAITING)


def test_a_circle_is_refused_as_a_whole_and_named(master: Master) -> None:
    job = master.open()
    tasks = [Submission("x", 0), Submission("a", 0, ("b",)), Submission("b", 0, ("a",))]

    master.hear(CLIENT, Submit(7, job, [a_policy()], tasks))

    [refused] = master.said(CLIENT, Refused)
    assert refused.request == 7
    assert refused.reason == "tasks come after one another in a circle: a after b after a"
    assert master.decision.changes == []


def test_a_task_after_one_that_nobody_knows_is_refused(master: Master) -> None:
    master.submit("b", after=("a",))

    [refused] = master.said(CLIENT, Refused)
    assert refused.reason == "task 'b' comes after 'a', which this job does not know"


def test_a_policy_that_is_not_there_is_refused(master: Master) -> None:
    job = master.open()

    master.hear(CLIENT, Submit(1, job, [], [Submission("a", 0)]))

    assert master.said(CLIENT, Refused)


def test_workers_cannot_be_asked_for(master: Master) -> None:
    master.submit("a", resources={"workers": 2})

    [refused] = master.said(CLIENT, Refused)
    assert "'workers'" in refused.reason


def test_resources_that_stand_there_twice_are_refused(master: Master) -> None:
    master.hear(
        CLIENT,
        Submit(1, master.open(), [Policy(resources=(("cpus", 5000), ("cpus", 5000)))], [Submission("a", 0)]),
    )

    [refused] = master.said(CLIENT, Refused)
    assert refused.reason == "found the resources cpus, cpus, expected each once and sorted by name"


@pytest.mark.parametrize("workers", [scheduler.WORKERS_MOST, scheduler.WORKERS_MOST + 1])
def test_nobody_is_given_everything_because_of_the_workers_that_he_claims_to_have(
    master: Master, workers: int
) -> None:
    node = Peer("node", "1")

    master.hear(node, Report(1.0, shape({"cpus": 2, "workers": workers}), []))

    refused = [letter.reason for letter in master.said(node, Refused)]
    if workers > scheduler.WORKERS_MOST:
        assert refused == ["found 10001 workers in a report, expected 10000 at most"]
        assert master.mind.controllers == {}
    else:
        assert not refused


def test_of_a_report_that_tells_too_much_the_beginnings_are_kept(master: Master) -> None:
    node, much = Peer("node", "1"), "x" * 10_000

    spools = [SpoolView(much, 1, 1, 1.0, much, 1, much)] * 1000
    master.hear(node, Report(1.0, shape({"workers": 1}), [], host=much, spools=spools))

    [view] = explain.view_controllers(master.mind, master.now)
    assert len(msgspec.msgpack.encode(view)) < 150_000


class Unwalked(dict[Any, Any]):
    """May be looked into, but not gone through."""

    def values(self) -> Any:
        raise AssertionError("all of them were looked at")


def test_opening_a_job_costs_the_same_however_many_are_open(master: Master) -> None:
    first = master.open("first")
    master.open("second")
    master.mind.jobs = Unwalked(master.mind.jobs)

    decision = master.mind.receive(OTHER_CLIENT, Open("first"), master.now)
    more = master.mind.receive(OTHER_CLIENT, Open("third"), master.now)

    [opened] = [letter.message for letter in decision.letters]
    assert isinstance(opened, Opened)
    assert opened.job == first
    assert [type(letter.message) for letter in more.letters] == [Opened]


def test_no_more_jobs_are_opened_than_anybody_needs(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "JOBS_MOST", 2)
    master.open("a")
    job = master.open("b")

    master.hear(OTHER_CLIENT, Open("c"))

    [refused] = master.said(OTHER_CLIENT, Refused)
    assert refused.reason == "2 jobs are open already; some have to be closed first"
    assert master.open("a", OTHER_CLIENT)
    master.hear(CLIENT, Close(1, job))
    assert master.open("c", OTHER_CLIENT)


def test_controllers_that_come_together_are_counted_once(
    master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = []
    count = master.mind.placement.resized
    monkeypatch.setattr(
        master.mind.placement, "resized", lambda all_of_them: counted.append(count(all_of_them))
    )

    for number in range(100):
        master.join(f"node-{number}")
    master.submit("a")
    master.tick()

    assert len(counted) == 1
    assert len(master.places) == 1


def test_a_name_is_free_again_when_its_job_is_closed(master: Master) -> None:
    first = master.open("a")
    master.hear(CLIENT, Close(1, first))
    master.tick()

    assert master.open("a") > first


def test_a_job_is_found_by_its_name_after_a_restart(master: Master) -> None:
    job = master.open("a")

    master.start()

    assert master.open("a") == job


# Handing in again.


def test_a_tid_that_is_live_is_not_taken_twice(master: Master) -> None:
    master.submit("a")

    master.submit("a")

    assert master.changes(TaskAccepted) == []
    assert master.said(CLIENT, Accepted)


def test_a_tid_twice_in_one_submission_is_one_task(master: Master) -> None:
    master.submit("a", "a")

    assert len(master.changes(TaskAccepted)) == 1


def test_a_tid_that_has_ended_is_answered_with_its_end_and_not_executed(master: Master) -> None:
    node = running(master, "a")
    master.ended(node, master.token("a"))

    master.submit("a")
    master.tick()

    assert [end.state for end in master.results] == [State.SUCCEEDED] * 2
    assert master.placed() == []


def test_a_failure_that_is_told_again_makes_the_job_fail_in_this_life_too(master: Master) -> None:
    node = running(master, "a")
    master.raised(node, master.token("a"))
    master.start()
    master.submit("a")

    master.hear(CLIENT, Close(1, 1))

    assert [change.state for change in master.changes(JobClosed)] == ["failed"]
    assert master.mind.failed_jobs == 1


def test_a_job_in_which_a_task_failed_in_a_former_life_has_failed(master: Master) -> None:
    node = running(master, "a")
    master.raised(node, master.token("a"))
    master.start()
    master.open()

    master.hear(CLIENT, Close(1, 1))

    assert [change.state for change in master.changes(JobClosed)] == ["failed"]
    assert master.mind.failed_jobs == 1


def test_of_a_tid_that_stands_twice_in_a_submission_the_first_counts(master: Master) -> None:
    job = master.open()
    tasks = [Submission("a", 0), Submission("b", 0, ("a",)), Submission("a", 0, ("b",))]

    master.hear(CLIENT, Submit(1, job, [a_policy()], tasks))

    assert (master.state("a"), master.state("b")) == (State.READY, State.WAITING)


# Cancelling, in each state.


def cancel(master: Master, *tids: str) -> None:
    master.hear(CLIENT, Cancel(1, 1, list(tids)))


def test_a_ready_task_that_is_cancelled_is_never_placed(master: Master) -> None:
    master.submit("a")
    cancel(master, "a")
    master.join()

    master.tick()

    assert master.placed() == []
    assert master.state("a") is State.CANCELLED


def test_a_waiting_task_that_is_cancelled_does_not_come_back(master: Master) -> None:
    node = running(master, "a")
    master.submit("b", after=("a",))
    cancel(master, "b")

    master.ended(node, master.token("a"))

    assert master.state("b") is State.CANCELLED


def test_a_placed_task_that_is_cancelled_is_dropped_where_it_is(master: Master) -> None:
    node = running(master, "a")
    token = master.token("a")

    cancel(master, "a")

    assert master.dropped(node) == [token]
    assert master.state("a") is State.CANCELLED


def test_a_running_task_that_is_cancelled_makes_room(master: Master) -> None:
    node = running(master, "a")
    master.started(node, master.token("a"))
    master.submit("b")
    cancel(master, "a")

    master.tick()

    assert master.tids(node) == ["b"]


def test_a_resting_task_that_is_cancelled_does_not_wake(master: Master) -> None:
    node = running(master, "a", retry=Retry(errors=1))
    master.raised(node, master.token("a"))
    cancel(master, "a")

    master.tick(10)

    assert master.state("a") is State.CANCELLED
    assert master.placed() == []


def test_cancelling_skips_what_comes_after(master: Master) -> None:
    master.submit("a")
    master.submit("b", after=("a",))

    cancel(master, "a")

    assert master.state("b") is State.SKIPPED


def test_cancelling_what_has_ended_or_is_unknown_is_accepted_and_does_nothing(master: Master) -> None:
    node = running(master, "a")
    master.ended(node, master.token("a"))

    cancel(master, "a", "nobody")

    assert master.decision.changes == []
    assert master.said(CLIENT, Accepted)


def test_cancelling_in_a_job_that_is_not_open_is_refused(master: Master) -> None:
    master.hear(CLIENT, Cancel(3, 9, ["a"]))

    assert [refused.request for refused in master.said(CLIENT, Refused)] == [3]


# Jobs.


def test_more_than_the_window_holds_is_refused_for_now() -> None:
    master = Master(window=3)
    master.submit("a", "b")

    master.submit("c", "d")

    [refused] = master.said(CLIENT, Refused)
    assert refused.later
    assert refused.reason == "2 tasks of the job 'job' have not ended, and its window is 3"
    assert master.changes(TaskAccepted) == []


def test_what_was_refused_for_now_is_taken_when_others_have_ended() -> None:
    master = Master(window=3)
    node = running(master, "a", "b")
    master.submit("c", "d")

    master.ended(node, master.token("a"))
    master.submit("c", "d")

    assert [change.tid for change in master.changes(TaskAccepted)] == ["c", "d"]


def test_what_is_handed_in_again_takes_no_place_in_the_window() -> None:
    master = Master(window=2)
    node = running(master, "a", "b")
    master.ended(node, master.token("a"))
    master.submit("c")

    master.submit("a", "b", "c")

    assert master.said(CLIENT, Refused) == []
    assert len(master.said(CLIENT, Accepted)) == 1


def test_where_there_is_no_room_new_tasks_are_refused_for_now_and_others_are_not(master: Master) -> None:
    job = master.open()
    master.submit("a", job=job)

    told = [
        master.mind.receive(
            CLIENT, Submit(9, job, [Policy()], [Submission(tid, 0)]), master.now, full="no room"
        )
        for tid in ("a", "b")
    ]

    assert [letter.message for decision in told for letter in decision.letters] == [
        Accepted([9]),
        Refused("no room", 9, later=True),
    ]


def test_a_window_that_is_narrower_since_a_restart_keeps_what_was_taken() -> None:
    master = Master(window=3)
    master.submit("a", "b", "c")
    master.window = 1
    master.start()

    master.submit("a", "b", "c")

    assert len(master.said(CLIENT, Accepted)) == 1


def test_a_new_job_is_remembered_and_the_window_told(master: Master) -> None:
    master.hear(CLIENT, Open("job"))

    [opened] = master.said(CLIENT, Opened)
    assert (opened.job, opened.epoch, opened.serial, opened.window) == (1, 1, 0, 1000)
    assert master.changes(JobOpened)


def test_a_job_that_was_cut_short_is_resumed_by_its_name(master: Master) -> None:
    master.submit("a")
    master.start()

    number = master.open(client=OTHER_CLIENT)

    assert number == 1
    assert master.changes(JobOpened) == []
    assert any("resumed" in note for note in master.decision.notes)


def test_a_heartbeat_opens_nothing(master: Master) -> None:
    master.hear(CLIENT, Open("job", 5))

    assert [refused.reason for refused in master.said(CLIENT, Refused)] == ["job 5 is not open"]


def test_a_heartbeat_tells_the_serial_of_the_last_results(master: Master) -> None:
    node = running(master, "a", "b", workers=2)
    master.ended(node, master.token("a"))
    master.tick()
    master.ended(node, master.token("b"))
    master.tick()

    master.hear(CLIENT, Open("job", 1))

    assert [opened.serial for opened in master.said(CLIENT, Opened)] == [2]


def test_a_client_that_lost_its_job_for_a_while_hears_another_serial(master: Master) -> None:
    master.open(client=OTHER_CLIENT)
    master.tick(CLIENT_SILENT_S)
    master.hear(CLIENT, Open("job", 1))
    master.tick(CLIENT_SILENT_S)

    master.hear(OTHER_CLIENT, Open("job", 1))

    assert [opened.serial for opened in master.said(OTHER_CLIENT, Opened)] == [2]


def test_a_late_heartbeat_of_a_former_life_does_not_take_the_job_over(master: Master) -> None:
    node = running(master, "a")
    master.open(client=OTHER_CLIENT)
    master.hear(CLIENT, Open("job", 1))
    answers = master.said(CLIENT, Opened)

    master.ended(node, master.token("a"))
    master.tick()

    assert answers == []
    assert len(master.said(OTHER_CLIENT, Results)) == 1


def test_a_late_heartbeat_does_not_open_again_what_was_closed(master: Master) -> None:
    node = running(master, "a")
    master.hear(CLIENT, Close(1, 1))
    master.hear(CLIENT, Open("job", 1))
    master.ended(node, master.token("a"))

    master.tick()

    assert master.changes(JobClosed)


def test_a_first_open_opens_again_what_was_closed_and_not_over(master: Master) -> None:
    node = running(master, "a")
    master.hear(CLIENT, Close(1, 1))
    master.open(client=OTHER_CLIENT)
    master.ended(node, master.token("a"))

    master.tick()

    assert not master.changes(JobClosed)


def test_results_are_counted_for_each_job_from_one_and_another_client_goes_on_after_a_gap(
    master: Master,
) -> None:
    node = running(master, "a", "b", workers=2)
    master.ended(node, master.token("a"))
    master.tick()
    first = master.said(CLIENT, Results)
    master.hear(OTHER_CLIENT, Open("job"))
    opened = master.said(OTHER_CLIENT, Opened)

    master.ended(node, master.token("b"))
    master.tick()

    assert [said.serial for said in [*first, *opened, *master.said(OTHER_CLIENT, Results)]] == [1, 2, 3]
    assert master.said(CLIENT, Results) == []


def test_a_client_whose_job_was_with_another_one_hears_a_serial_that_it_never_heard(master: Master) -> None:
    serials = []
    for client in (CLIENT, OTHER_CLIENT, CLIENT, OTHER_CLIENT):
        master.hear(client, Open("job"))
        serials += [opened.serial for opened in master.said(client, Opened)]

    assert serials == [0, 1, 2, 3]


def test_what_a_client_says_of_remembering_is_remembered_when_it_is_news(master: Master) -> None:
    said = [Open("job", remember_s=seconds) for seconds in (None, 60.0, 60.0, None)]
    heartbeat = Open("job", 1, 5.0)

    heard = [master.hear(CLIENT, message).changes for message in (*said, heartbeat)]

    assert [[change for change in changes if isinstance(change, JobRemembers)] for changes in heard] == [
        [], [JobRemembers(1, 60.0)], [], [JobRemembers(1, None)], [],
    ]  # fmt: skip


def test_what_a_job_remembers_is_known_in_the_next_life(master: Master) -> None:
    master.hear(CLIENT, Open("job", remember_s=60.0))

    master.start()

    assert master.mind.jobs[1].remember_s == 60.0
    assert master.hear(CLIENT, Open("job", remember_s=60.0)).changes == []


def test_a_closed_job_ends_with_its_last_task(master: Master) -> None:
    node = running(master, "a")
    master.hear(CLIENT, Close(1, 1))
    before = master.changes(JobClosed)

    master.ended(node, master.token("a"))
    master.tick()

    assert before == []
    assert [change.state for change in master.changes(JobClosed)] == ["succeeded"]
    assert master.mind.is_idle


def test_that_a_job_was_closed_is_remembered(master: Master) -> None:
    node = running(master, "a")
    master.hear(CLIENT, Close(1, 1))
    token = master.token("a")
    master.start()

    master.ended(node, token)
    master.tick()

    assert [change.state for change in master.changes(JobClosed)] == ["succeeded"]
    assert master.mind.is_idle


def test_that_its_maker_broke_down_is_remembered_of_a_job(master: Master) -> None:
    node = running(master, "a")
    master.hear(CLIENT, Close(1, 1, failed=True))
    token = master.token("a")
    master.start()

    master.ended(node, token)
    master.tick()

    assert [change.state for change in master.changes(JobClosed)] == ["failed"]


def test_that_a_closed_job_was_opened_again_is_remembered(master: Master) -> None:
    running(master, "a")
    master.hear(CLIENT, Close(1, 1, failed=True))
    master.open()
    master.start()

    master.submit("b", job=1)

    assert master.said(CLIENT, Accepted)
    assert master.state("b") is State.READY


def test_a_job_that_goes_on_after_its_maker_broke_down_may_succeed(master: Master) -> None:
    node = running(master, "a")
    master.hear(CLIENT, Close(1, 1, failed=True))
    master.open(client=OTHER_CLIENT)
    master.ended(node, master.token("a"))
    master.tick()

    master.hear(OTHER_CLIENT, Close(1, 1))

    assert [change.state for change in master.changes(JobClosed)] == ["succeeded"]


def test_what_a_former_life_said_last_and_comes_late_changes_nothing(master: Master) -> None:
    node = running(master, "a")
    for message in (Open("job", 1), Close(1, 1)):
        master.hear(OTHER_CLIENT, message)
        assert master.said(OTHER_CLIENT, Message) == []
    master.submit("b", job=1)
    assert master.said(CLIENT, Accepted)

    master.ended(node, master.token("a"))
    master.tick()
    assert [end.tid for results in master.said(CLIENT, Results) for end in results.ends] == ["a"]


def test_a_client_that_is_silent_keeps_nobody_from_its_job(master: Master) -> None:
    running(master, "a")
    master.tick(CLIENT_SILENT_S)

    master.hear(OTHER_CLIENT, Open("job", 1))

    assert [opened.serial for opened in master.said(OTHER_CLIENT, Opened)] == [1]


def test_a_closed_job_whose_last_end_was_the_last_thing_remembered_is_closed_by_the_next_life(
    master: Master,
) -> None:
    node = running(master, "a")
    master.hear(CLIENT, Close(1, 1))
    master.ended(node, master.token("a"))
    master.start()

    master.tick()

    assert [change.state for change in master.changes(JobClosed)] == ["succeeded"]
    assert master.said(CLIENT, Results) == []


def test_closing_twice_is_remembered_once(master: Master) -> None:
    running(master, "a")
    master.hear(CLIENT, Close(1, 1, failed=True))

    master.hear(CLIENT, Close(2, 1))

    assert master.changes(JobSealed) == []
    assert master.mind.jobs[1].state is JobState.FAILING


def test_a_job_with_a_task_that_failed_has_failed(master: Master) -> None:
    node = running(master, "a")
    master.raised(node, master.token("a"))

    master.hear(CLIENT, Close(1, 1))

    assert [change.state for change in master.changes(JobClosed)] == ["failed"]


def test_a_job_whose_maker_broke_down_has_failed(master: Master) -> None:
    master.open()

    master.hear(CLIENT, Close(1, 1, failed=True))

    assert [change.state for change in master.changes(JobClosed)] == ["failed"]


def test_a_job_is_closed_only_by_the_client_that_works_on_it(master: Master) -> None:
    master.open()
    master.open(client=OTHER_CLIENT)

    master.hear(CLIENT, Close(1, 1))

    assert not master.mind.is_idle
    assert master.said(CLIENT, Accepted) == []


def test_closing_a_job_that_is_closed_is_accepted_again(master: Master) -> None:
    master.open()
    master.hear(CLIENT, Close(1, 1))

    master.hear(CLIENT, Close(2, 1))

    assert master.said(CLIENT, Accepted) == [Accepted([2])]


def test_nothing_is_taken_for_a_job_that_is_closed(master: Master) -> None:
    running(master, "a")
    master.hear(CLIENT, Close(1, 1))

    master.submit("b", job=1)

    assert master.said(CLIENT, Refused)


def test_the_next_start_after_a_closed_job_opens_a_new_one(master: Master) -> None:
    master.open()
    master.hear(CLIENT, Close(1, 1))

    number = master.open()

    assert number == 2


def test_ends_of_a_job_without_a_client_are_remembered_and_told_to_nobody(master: Master) -> None:
    node = running(master, "a")
    token = master.token("a")
    master.start()

    master.ended(node, token)

    assert master.changes(TaskEnded)
    assert master.results == []


# Stopping.


def test_a_stopping_master_places_nothing_more(master: Master) -> None:
    master.join()
    master.submit("a")
    master.stop()

    master.tick()

    assert master.placed() == []


def test_a_stopping_master_sends_controllers_and_clients_home(master: Master) -> None:
    node = master.join()
    master.open()

    master.stop()

    assert [leave.now for leave in master.said(node, Leave)] == [False]
    assert [leave.now for leave in master.said(CLIENT, Leave)] == [False]


def test_a_second_stop_ends_what_runs(master: Master) -> None:
    node = running(master, "a")
    master.stop()

    master.stop(at_once=True)

    assert [leave.now for leave in master.said(node, Leave)] == [True]


def test_a_second_stop_is_told_again_with_every_report(master: Master) -> None:
    node = running(master, "a")
    master.stop()
    master.stop(at_once=True)

    master.report(node)

    assert [leave.now for leave in master.said(node, Leave)] == [True]


def test_a_stop_that_comes_after_a_second_one_does_not_make_it_milder(master: Master) -> None:
    node = running(master, "a")
    master.stop(at_once=True)

    master.stop()

    assert [leave.now for leave in master.said(node, Leave)] == [True]


def test_a_stopping_master_records_what_ends_meanwhile(master: Master) -> None:
    node = running(master, "a")
    master.stop()

    master.ended(node, master.token("a"))

    assert master.state("a") is State.SUCCEEDED


def test_a_controller_that_comes_while_the_master_stops_is_sent_home(master: Master) -> None:
    master.stop()

    node = master.join()

    assert master.said(node, Leave)


# When to be called again.


def test_it_wants_to_be_called_soon_while_work_may_have_to_be_called_back(master: Master) -> None:
    running(master, "a")
    master.tick(1)

    moment = master.mind.next_moment(master.now)

    assert moment <= master.now + CALL_BACK_S


def test_it_wants_to_be_called_when_the_next_alarm_rings(master: Master) -> None:
    master.submit("a", expires_s=0.25)
    master.tick()

    moment = master.mind.next_moment(master.now)

    assert moment == pytest.approx(master.now + 0.25)


def test_it_wants_to_be_called_when_silence_is_to_be_looked_for(master: Master) -> None:
    master.tick()

    moment = master.mind.next_moment(master.now)

    assert moment == pytest.approx(master.now + LEASE_S / 10)


# What it keeps is bounded by what lives.


def test_alarms_of_tasks_that_have_ended_do_not_pile_up(master: Master) -> None:
    job = master.open()

    for number in range(3 * SWEPT_FROM):
        master.submit(str(number), job=job, expires_s=1e6)
        master.hear(CLIENT, Cancel(0, job, [str(number)]))
        master.tick()

    assert len(master.mind._alarms) <= SWEPT_FROM


def test_policies_that_nothing_has_any_more_do_not_pile_up(
    master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "POLICIES_KEPT", 10)

    for number in range(50):
        master.submit(str(number), timeout_s=100.0 + number)

    assert len(master.mind._policies) <= 10


def test_tasks_that_are_to_be_treated_alike_share_their_policy(master: Master) -> None:
    master.submit("a", timeout_s=1.0)
    master.submit("b", timeout_s=1.0)

    assert master.task("a").policy is master.task("b").policy


# Whose a job is.


@pytest.mark.parametrize(
    "message",
    [
        Open("job"),
        Open("", 1),
        Open("job", 1),
        Submit(7, 1, [a_policy()], [Submission("mine", 0)]),
        Cancel(7, 1, ["a"]),
        Close(7, 1),
        Close(7, 1, True),
    ],
    ids=lambda message: str(message),
)
def test_a_job_is_its_client_s_as_long_as_that_is_heard(master: Master, message: Any) -> None:
    master.open("job")
    master.submit("a", job=1)
    master.tick(LEASE_S / 2)

    master.hear(ANOTHER_KEY, message)

    assert master.decision.changes == []
    assert master.mind.jobs[1].client == CLIENT
    assert [*master.mind.jobs[1].tasks] == ["a"]
    if not isinstance(message, Close):
        [refused] = master.said(ANOTHER_KEY, Refused)
        assert refused == Refused("client works on the job 'job'", getattr(message, "request", 0))


def test_another_key_may_go_on_with_a_job_whose_client_was_silent_for_a_lease(master: Master) -> None:
    master.open("job")
    master.tick(LEASE_S)

    master.open("job", ANOTHER_KEY)

    assert master.mind.jobs[1].client == ANOTHER_KEY


def test_a_client_that_beats_keeps_its_job(master: Master) -> None:
    master.open("job")
    for _ in range(5):
        master.tick(LEASE_S / 2)
        master.open("job", number=1)

    master.hear(ANOTHER_KEY, Open("job"))

    assert master.said(ANOTHER_KEY, Refused)


def test_after_a_restart_a_job_is_of_whoever_comes_first(master: Master) -> None:
    master.open("job")

    master.start()
    master.open("job", ANOTHER_KEY)
    master.hear(CLIENT, Open("job"))

    assert master.said(CLIENT, Refused) == [Refused("another works on the job 'job'")]


def test_a_job_is_not_lost_while_the_master_itself_is_absent(master: Master) -> None:
    master.open("job")
    master.tick(0.1)

    master.now += 10 * LEASE_S
    master.hear(ANOTHER_KEY, Open("job"))

    assert master.said(ANOTHER_KEY, Refused)
