"""A controller's mind. `Node` hires at once whom the crew wants and checks the invariants after each decision."""

from __future__ import annotations

from signal import SIGKILL, SIGTERM

import pytest
from core_builders import LEASE_S, Node, a_policy

from cyclone.core.crew import (
    ANNOUNCE_S,
    CHUNK_MOST,
    IDLE_DEATHS_MOST,
    LINE,
    MASTER,
    REAPER,
    REPEAT_S,
    WorkerState,
)
from cyclone.messages import (
    NUDGE,
    Assignment,
    Drop,
    Ended,
    Goodbye,
    Guard,
    Leave,
    Place,
    Reconnect,
    Refused,
    Report,
    Started,
)
from cyclone.model.lifecycle import Outcome
from cyclone.model.task import End


@pytest.fixture
def node() -> Node:
    return Node()


# Workers are hired and given work.


def test_a_worker_is_hired_for_each_slot() -> None:
    node = Node(3, started=False)

    node.tick()

    assert node.hired() == [0, 1, 2]


def test_work_is_given_to_an_idle_worker(node: Node) -> None:
    node.work("a")

    assert node.given(0) == ["a"]
    assert node.mind.workers[0].state is WorkerState.BUSY


def test_work_waits_while_all_workers_are_busy(node: Node) -> None:
    node.work("a")

    node.work("b")

    assert node.given(0) == []
    assert [held.assignment.tid for held in node.mind.queued()] == ["b"]


def test_a_worker_that_is_through_gets_the_next(node: Node) -> None:
    [first] = node.work("a")
    node.place("b")
    node.finish(0, first)

    node.tick()

    assert node.given(0) == ["b"]


def test_the_oldest_token_has_its_turn_first(node: Node) -> None:
    node.place("older", kind="x")
    node.place("newer", kind="y")

    node.tick()

    assert node.given(0) == ["older"]


def test_a_token_that_arrives_twice_is_executed_once() -> None:
    node = Node(2)
    again = Place(node.now, [a_policy()], [Assignment(5, "a", "job", 1, 0)])
    node.hear(again)

    node.hear(again)
    node.tick()

    assert [node.given(slot) for slot in (0, 1)] == [["a"], []]


def test_a_token_that_arrives_again_after_its_end_is_not_executed(node: Node) -> None:
    again = Place(node.now, [a_policy()], [Assignment(5, "a", "job", 1, 0)])
    node.hear(again)
    node.tick()
    node.finish(0, 5)
    node.hear(Drop([5]))

    node.hear(again)
    node.tick()

    assert node.given(0) == []
    assert node.mind.held == {}


# Chunks.


def test_tasks_of_unknown_duration_are_given_singly() -> None:
    node = Node(1)

    node.work(*"abcd")

    assert node.given(0) == ["a"]


def test_short_tasks_are_given_in_chunks(node: Node) -> None:
    node.taught(duration_s=0.0001)

    node.work(*"abcd")

    assert node.given(0) == list("abcd")


def test_long_tasks_are_given_singly(node: Node) -> None:
    node.taught(duration_s=1.0)

    node.work(*"abcd")

    assert node.given(0) == ["a"]


def test_a_chunk_is_no_more_than_a_worker_s_share_of_what_there_is() -> None:
    node = Node(2)
    node.taught(duration_s=0.0001)

    node.work(*"abcd")

    assert [node.given(slot) for slot in (0, 1)] == [["a", "b"], ["c"]]


def test_a_chunk_has_a_bound(node: Node) -> None:
    node.taught(duration_s=1e-7)

    node.work(*(str(number) for number in range(CHUNK_MOST + 5)))

    assert len(node.given(0)) == CHUNK_MOST


def test_exclusive_attempts_are_given_singly(node: Node) -> None:
    node.taught(duration_s=0.0001)

    node.work(*"ab", exclusive=True)

    assert node.given(0) == ["a"]


def test_a_suspect_runs_alone_and_is_announced_before_it_runs(node: Node) -> None:
    node.taught(duration_s=0.0001)
    node.place("a", "b", alone=True)

    node.tick()

    assert node.given(0) == ["a"]
    assert [started.tokens for started in node.said(Started)] == [[1]]
    kinds = [type(letter.message) for letter in node.decision.letters]
    assert kinds.index(Started) < kinds.index(Place)


def test_a_chunk_ends_before_a_suspect(node: Node) -> None:
    node.taught(duration_s=0.0001)
    policy = a_policy()
    assignments = [Assignment(token, str(token), "job", 1, 0, token == 3) for token in (1, 2, 3, 4)]
    node.hear(Place(node.now, [policy], assignments))

    node.tick()

    assert node.given(0) == ["1", "2"]


# Whose turn it is when there is little room.


def test_what_does_not_fit_waits_and_others_may_start_beside_it() -> None:
    node = Node(3, resources={"cpus": 3, "gpu": 1})
    node.work("small", resources={"cpus": 1, "gpu": 1})
    node.place("needs the gpu", kind="g", resources={"gpu": 1})
    node.place("does not", kind="c", resources={"cpus": 1})

    node.tick()

    assert [held.assignment.tid for held in node.mind.queued()] == ["needs the gpu"]


def test_what_the_oldest_lacks_is_kept_for_it() -> None:
    node = Node(2, resources={"cpus": 2})
    node.work("small", kind="s")
    node.place("large", kind="l", resources={"cpus": 2})
    node.place("small too", kind="s")

    node.tick()

    assert {held.assignment.tid for held in node.mind.queued()} == {"large", "small too"}
    assert node.given(1) == []


def test_a_younger_one_starts_beside_the_oldest_where_there_is_enough_for_both() -> None:
    node = Node(3, resources={"cpus": 4})
    node.work("large", kind="l", resources={"cpus": 3})
    node.place("larger", kind="m", resources={"cpus": 2, "gpu": 1})
    node.place("small", kind="s", resources={})

    node.tick()

    assert node.given(1) == ["small"]


def test_nothing_is_handed_out_while_there_is_no_room_for_records(node: Node) -> None:
    node.mind.has_no_room_for_records = True
    node.work("a")
    before = node.given(0)
    node.mind.has_no_room_for_records = False

    node.tick()

    assert (before, node.given(0)) == ([], ["a"])


# Ends.


def test_an_end_is_kept_until_it_is_dropped(node: Node) -> None:
    [token] = node.work("a")
    before = node.mind.keeps_end(token)
    node.finish(0, token)
    kept = node.mind.keeps_end(token)

    node.hear(Drop([token]))

    assert (before, kept, node.mind.keeps_end(token)) == (False, True, False)


def test_an_end_is_told_to_the_master(node: Node) -> None:
    [token] = node.work("a")

    node.finish(0, token)

    assert [end.token for end in node.ends()] == [token]
    assert [end.token for end in node.mind.undelivered] == [token]


def test_an_end_is_repeated_until_it_is_dropped(node: Node) -> None:
    [token] = node.work("a")
    node.finish(0, token)
    node.tick(REPEAT_S - 0.1)
    early = node.ends()
    node.tick(0.1)
    repeated = node.ends()
    node.hear(Drop([token]))

    node.tick(REPEAT_S)

    assert early == []
    assert [end.token for end in repeated] == [token]
    assert node.ends() == []
    assert node.mind.undelivered == []


def test_an_end_is_not_dropped_by_being_called_back(node: Node) -> None:
    [token] = node.work("a")
    node.finish(0, token)

    node.hear(Drop([token], unless_started=True))

    assert [end.token for end in node.mind.undelivered] == [token]


def test_the_enclosure_of_ends_names_their_tokens(node: Node) -> None:
    [token] = node.work("a")

    node.finish(0, token)

    [letter] = [letter for letter in node.decision.letters if isinstance(letter.message, Ended)]
    assert list(letter.enclose) == [token]


def test_a_next_life_delivers_what_its_former_one_could_not() -> None:
    kept = [End(7), End(9)]

    node = Node(kept=kept)

    said = [message for message in node.to_master if isinstance(message, Ended)]
    assert [[end.token for end in ended.ends] for ended in said] == [[7, 9]]


def test_kept_ends_are_said_before_the_first_report() -> None:
    node = Node(kept=[End(7)])

    kinds = [type(message) for message in node.to_master]

    assert kinds.index(Ended) < kinds.index(Report)


# Reports.


def test_a_report_lists_everything_that_is_here() -> None:
    node = Node(2)
    done, runs = node.work("a", "b")
    [queued] = node.work("c")
    node.finish(0, done)

    node.tick(3)

    [report] = node.said(Report)
    assert sorted(report.held) == [done, runs, queued]


def test_a_report_tells_how_large_the_node_is() -> None:
    node = Node(2, resources={"cpus": 4}, started=False)

    node.tick()

    [report] = node.said(Report)
    assert report.room == (("cpus", 40_000), ("workers", 20_000))
    assert (report.host, report.pid) == ("host", 42)


def test_reports_come_as_often_as_was_agreed(node: Node) -> None:
    node.agree(report_s=2.0)
    node.tick(1.0)
    node.agree(report_s=2.0)

    node.tick(0.5)
    early = node.said(Report)
    node.tick(1.5)

    assert early == []
    assert node.said(Report)


def test_jitter_shortens_the_time_between_reports() -> None:
    node = Node(jitter=0.5)
    node.tick(1.0)
    node.agree(report_s=4.0)
    node.tick(2.0)
    node.agree(report_s=4.0)

    moment = node.mind.next_moment(node.now)

    assert moment <= node.now + 2.0


# A master that does not answer.


def silence(node: Node, seconds: float) -> list[Reconnect]:
    said: list[Reconnect] = []
    for _ in range(round(seconds)):
        node.tick(1.0)
        said += [
            letter.message
            for letter in node.decision.letters
            if letter.to == LINE and isinstance(letter.message, Reconnect)
        ]
    return said


def test_a_master_that_does_not_answer_is_connected_to_anew() -> None:
    node = Node(retry_wait_s=5.0)

    said = silence(node, 9)

    assert len(said) == 1


def test_an_answer_ends_the_counting() -> None:
    node = Node(retry_wait_s=5.0)
    silence(node, 15)
    node.agree()

    silence(node, 15)

    assert not node.mind.unreachable


def test_a_master_that_was_not_reached_so_often_is_given_up() -> None:
    node = Node(retry_wait_s=5.0, retries_max=3)

    silence(node, 30)

    assert node.mind.unreachable
    assert node.mind.is_done
    assert node.mind.leaving


def test_what_runs_ends_before_an_unreachable_master_ends_the_controller() -> None:
    node = Node(retry_wait_s=5.0, retries_max=3)
    [token] = node.work("a")
    silence(node, 30)
    before = node.mind.is_done

    node.finish(0, token)

    assert not before
    assert node.mind.is_done
    assert [end.token for end in node.mind.undelivered] == [token]


def test_a_new_connection_is_reported_on_at_once(node: Node) -> None:
    node.agree(report_s=100.0)
    node.mind.connected(node.now)

    node.tick()

    assert node.said(Report)


def test_a_refusal_is_noted(node: Node) -> None:
    node.hear(Refused("no such version"))

    assert "no such version" in node.decision.notes[0]


# Announcing.


def test_an_attempt_that_has_been_running_for_a_while_is_announced_once(node: Node) -> None:
    [token] = node.work("a")
    node.run()
    node.tick(ANNOUNCE_S)
    first = node.said(Started)

    node.tick(ANNOUNCE_S)

    assert [started.tokens for started in first] == [[token]]
    assert node.said(Started) == []


def test_every_report_tells_again_what_was_announced() -> None:
    node = Node(2)
    [runs] = node.work("runs")
    node.work("short")
    node.run()
    node.tick(ANNOUNCE_S)

    node.tick(10)
    first = [report.started for report in node.said(Report)]
    node.mind.connected(node.now)
    node.tick()

    assert first == [[runs]]
    assert [report.started for report in node.said(Report)] == [[runs]]


def test_a_report_tells_nothing_of_an_announced_attempt_that_is_over(node: Node) -> None:
    [token] = node.work("a")
    node.run()
    node.tick(ANNOUNCE_S)
    node.finish(0, token)

    node.tick(10)

    assert [report.started for report in node.said(Report)] == [[]]


def test_a_short_attempt_is_not_announced(node: Node) -> None:
    node.work("a")
    node.run()

    node.tick(ANNOUNCE_S - 0.01)

    assert node.said(Started) == []


def test_a_worker_that_keeps_ends_back_behind_a_long_attempt_is_nudged(node: Node) -> None:
    node.taught()
    node.work("a", "b")
    node.run(place=1)

    node.tick(ANNOUNCE_S)

    assert node.signals() == [(0, NUDGE)]


def test_a_worker_that_keeps_nothing_back_is_not_nudged(node: Node) -> None:
    node.taught()
    first, _ = node.work("a", "b")
    node.finish(0, first)
    node.run(place=1)

    node.tick(ANNOUNCE_S)

    assert node.signals() == []


def test_a_worker_that_has_something_left_behind_a_long_attempt_is_nudged(node: Node) -> None:
    node.taught()
    node.work("long", "b")
    node.run()

    node.tick(ANNOUNCE_S)

    assert node.signals() == [(0, NUDGE)]


def test_a_worker_that_has_one_attempt_is_not_nudged(node: Node) -> None:
    node.work("long")
    node.run()

    node.tick(ANNOUNCE_S)

    assert node.signals() == []


def test_what_waits_behind_a_long_attempt_goes_to_a_worker_that_is_idle() -> None:
    node = Node(2, resources={"cpus": 2})
    node.taught()
    _, behind, other = node.work("long", "behind", "other")
    node.finish(1, other)

    node.give_back(0, behind)
    node.tick()

    assert node.given(1) == ["behind"]


def test_what_was_given_back_is_handed_out_before_what_is_younger(node: Node) -> None:
    node.taught()
    first, second, third = node.work("a", "b", "c")
    node.place("d")
    node.give_back(0, second, third)
    node.finish(0, first, duration_s=0.0001)

    node.tick()

    assert node.given(0) == ["b", "c", "d"]


def test_what_was_given_back_and_is_not_wanted_is_forgotten(node: Node) -> None:
    node.taught()
    _, second = node.work("a", "b")
    node.hear(Drop([second]))

    node.give_back(0, second)

    assert second not in node.mind.held
    assert node.ends() == []


def test_what_a_worker_of_a_leaving_controller_gives_back_goes_to_the_master(node: Node) -> None:
    node.taught()
    _, second = node.work("a", "b")
    node.leave()

    node.give_back(0, second)

    assert [(end.token, end.outcome) for end in node.ends()] == [(second, Outcome.CANCELLED)]


def test_a_worker_that_gave_back_the_rest_is_through_with_what_it_has(node: Node) -> None:
    node.taught()
    first, second = node.work("a", "b")
    node.give_back(0, second)

    node.finish(0, first)

    assert node.mind.workers[0].state is WorkerState.IDLE


def test_an_observation_of_what_is_over_is_ignored(node: Node) -> None:
    node.taught()
    first, _ = node.work("a", "b")
    node.finish(0, first)

    node.run(place=0)

    assert node.mind.workers[0].running is None


# Dropping and calling back.


def test_a_queued_attempt_that_is_dropped_is_forgotten(node: Node) -> None:
    node.work("a")
    [token] = node.place("b")

    node.hear(Drop([token]))

    assert token not in node.mind.held
    assert node.ends() == []


def test_a_running_attempt_that_is_not_wanted_is_stopped_and_not_told_of(node: Node) -> None:
    [token] = node.work("a")
    node.run()
    node.hear(Drop([token]))
    node.tick()
    signals = node.signals()

    node.die(status=-15, running=0)

    assert signals == [(0, SIGTERM)]
    assert node.ends() == []
    assert node.mind.held == {}


def test_an_attempt_that_is_not_wanted_and_ends_by_itself_is_not_told_of(node: Node) -> None:
    [token] = node.work("a")
    node.hear(Drop([token]))

    node.finish(0, token)

    assert node.ends() == []
    assert node.mind.undelivered == []


def test_what_is_not_wanted_and_waits_in_a_chunk_is_stopped_only_when_it_runs(node: Node) -> None:
    node.taught()
    _, second = node.work("a", "b")
    node.hear(Drop([second]))
    node.run(place=0)
    node.tick()
    before = node.signals()
    node.run(place=1)

    node.tick()

    assert before == []
    assert node.signals() == [(0, SIGTERM)]


def test_a_queued_attempt_that_is_called_back_is_given_back(node: Node) -> None:
    node.work("a")
    [token] = node.place("b")

    node.hear(Drop([token], unless_started=True))

    assert [(end.token, end.outcome) for end in node.ends()] == [(token, Outcome.CANCELLED)]


def test_an_attempt_with_a_worker_is_not_called_back(node: Node) -> None:
    [token] = node.work("a")

    node.hear(Drop([token], unless_started=True))

    assert node.ends() == []
    assert not node.held(token).unwanted


# Time-outs: TERM, then KILL, then hung.


def timed_out(node: Node) -> int:
    [token] = node.work("a", timeout_s=5.0)
    node.run()
    node.tick(5.0)
    return token


def test_an_attempt_is_not_stopped_before_its_time_is_over(node: Node) -> None:
    node.work("a", timeout_s=5.0)
    node.run()

    node.tick(4.9)

    assert node.signals() == []


def test_an_attempt_that_has_ended_is_not_stopped_while_its_end_cannot_be_told(node: Node) -> None:
    [token] = node.work("a", timeout_s=5.0)
    node.run()
    node.tick(4.0)

    node.mind.ended(0)
    node.tick(10.0)

    assert node.signals() == []
    node.finish(0, token)
    assert [(end.token, end.outcome) for end in node.ends()] == [(token, Outcome.SUCCEEDED)]


def test_an_attempt_whose_time_is_over_gets_a_term(node: Node) -> None:
    timed_out(node)

    assert node.signals() == [(0, SIGTERM)]


def test_a_worker_that_ends_within_the_grace_gets_no_kill(node: Node) -> None:
    token = timed_out(node)
    node.tick(9.9)
    signals = node.signals()

    node.die(status=-15, running=0)

    assert signals == []
    assert [(end.token, end.outcome) for end in node.ends()] == [(token, Outcome.TIMED_OUT)]
    assert node.ends()[0].error == "it ran longer than 5 s"


def test_a_worker_that_does_not_end_within_the_grace_is_killed(node: Node) -> None:
    timed_out(node)

    node.tick(10.0)

    assert node.signals() == [(0, SIGKILL)]


def test_a_worker_that_survives_being_killed_is_hung_and_its_slot_lost(node: Node) -> None:
    token = timed_out(node)
    node.tick(10.0)
    node.agree()

    node.tick(60.0)

    assert node.mind.workers[0].state is WorkerState.HUNG
    assert [(end.token, end.outcome) for end in node.ends()] == [(token, Outcome.TIMED_OUT)]
    [report] = node.said(Report)
    assert dict(report.room)["workers"] == 0
    assert report.workers_hung == 1


def test_a_hung_worker_that_dies_at_last_makes_room_again(node: Node) -> None:
    timed_out(node)
    node.tick(10.0)
    node.tick(60.0)
    node.die(running=0)
    said = node.ends()

    node.tick()

    assert said == []
    assert node.hired() == [0]
    assert node.mind.workers[0].state is WorkerState.IDLE


def test_an_exclusive_attempt_stays_here_as_long_as_its_hung_worker_could_act(node: Node) -> None:
    [token] = node.work("a", timeout_s=5.0, exclusive=True)
    node.run()
    for _ in range(80):
        node.tick(1.0)
        node.agree(renewed=[token])

    assert node.mind.workers[0].state is WorkerState.HUNG
    assert token in node.mind.held


def test_told_to_end_at_once_it_does_not_wait_for_what_cannot_be_killed_nor_give_it_away(node: Node) -> None:
    [token] = node.work("a", timeout_s=5.0, exclusive=True)
    node.run()
    for _ in range(80):
        node.tick(1.0)
        node.agree(renewed=[token])
    node.leave()
    assert not node.mind.is_done

    node.leave(at_once=True)
    node.tick()

    assert node.mind.is_done
    assert node.said(Goodbye) == []


def test_told_to_end_at_once_an_idle_one_says_goodbye_first(node: Node) -> None:
    node.leave(at_once=True)
    assert not node.mind.is_done

    node.tick()

    assert node.said(Goodbye)
    assert node.mind.is_done


def test_what_waits_behind_a_hung_attempt_is_given_back(node: Node) -> None:
    node.taught()
    _, second = node.work("a", "b", timeout_s=5.0)
    node.run()
    node.tick(5.0)
    node.tick(10.0)

    node.tick(60.0)

    assert (second, Outcome.CANCELLED) in [(end.token, end.outcome) for end in node.ends()]


def test_what_was_given_back_from_behind_a_hung_attempt_is_not_executed_when_its_worker_dies(
    node: Node,
) -> None:
    node.taught()
    node.work("hung", "behind", timeout_s=1.0)
    node.run()
    for _ in range(90):
        node.tick(1.0)

    node.die(running=0)
    node.tick()
    node.tick()

    assert node.given(0) == []
    assert node.mind.held == {}


def test_a_result_that_comes_in_the_grace_counts(node: Node) -> None:
    token = timed_out(node)

    node.finish(0, token)
    outcome = [end.outcome for end in node.ends()]
    node.die(status=-15, running=1)

    assert outcome == [Outcome.SUCCEEDED]
    assert node.ends() == []


# Deaths of workers, and who is to blame.


def test_the_attempt_under_which_a_worker_died_is_to_blame(node: Node) -> None:
    [token] = node.work("a")

    node.die(status=-11, running=0)

    [end] = node.ends()
    assert (end.token, end.outcome, end.code, end.died) == (token, Outcome.SIGNALLED, 11, True)
    assert end.error == "its worker was killed by SIGSEGV"


def test_a_worker_that_exited_in_the_middle_is_told_apart(node: Node) -> None:
    node.work("a")

    node.die(status=3, running=0)

    [end] = node.ends()
    assert (end.outcome, end.code, end.died) == (Outcome.EXITED, 3, True)


def test_a_signal_without_a_name_is_told_by_its_number(node: Node) -> None:
    node.work("a")

    node.die(status=-200, running=0)

    assert node.ends()[0].error == "its worker was killed by signal 200"


def test_what_ended_and_was_not_told_is_lost_and_not_executed_again(node: Node) -> None:
    node.taught()
    first, second, third = node.work("a", "b", "c")

    node.die(running=1)

    assert [(end.token, end.outcome, end.died) for end in node.ends()] == [
        (second, Outcome.SIGNALLED, True),
        (first, Outcome.LOST, False),
    ]
    assert [held.assignment.token for held in node.mind.queued()] == [third]


def test_what_certainly_had_not_started_goes_to_another_worker_in_its_order(node: Node) -> None:
    node.taught()
    node.work("a", "b", "c")
    node.die(running=None)
    said = node.ends()
    node.tick()

    node.tick()

    assert said == []
    assert node.given(0) == ["a", "b", "c"]


def test_what_was_told_before_the_death_is_not_lost(node: Node) -> None:
    node.taught()
    first, _ = node.work("a", "b")
    node.finish(0, first)

    node.die(running=2)

    assert [end.outcome for end in node.ends()] == [Outcome.LOST]


def test_the_one_behind_an_attempt_that_was_stopped_is_not_blamed(node: Node) -> None:
    node.taught()
    first, second = node.work("a", "b", timeout_s=5.0)
    node.run()
    node.tick(5.0)
    node.finish(0, first)

    node.die(status=-15, running=1)

    assert [(end.token, end.outcome, end.died) for end in node.ends()] == [(second, Outcome.LOST, False)]


def test_what_is_not_wanted_does_not_go_to_another_worker(node: Node) -> None:
    node.taught()
    _, second = node.work("a", "b")
    node.hear(Drop([second]))

    node.die(running=0)

    assert node.mind.held == {}


def test_a_dead_worker_is_replaced(node: Node) -> None:
    node.die()

    node.tick()

    assert node.hired() == [0]


def test_idle_workers_that_die_again_and_again_break_the_crew(node: Node) -> None:
    for _ in range(IDLE_DEATHS_MOST):
        node.die(status=1)
        node.tick(0.1)
    before = node.mind.broken

    node.die(status=1)

    assert before == ""
    assert "idle workers died within a minute" in node.mind.broken


def test_idle_workers_that_die_now_and_then_do_not(node: Node) -> None:
    for _ in range(IDLE_DEATHS_MOST + 5):
        node.die(status=1)
        node.tick(10.0)
        node.agree()

    assert node.mind.broken == ""


# Leases.


def test_an_exclusive_attempt_is_killed_without_grace_when_its_lease_has_run_out(node: Node) -> None:
    [token] = node.work("a", exclusive=True)
    node.run()
    node.tick(LEASE_S)
    signals = node.signals()

    node.die(running=0)

    assert signals == [(0, SIGTERM), (0, SIGKILL)]
    assert [(end.token, end.outcome) for end in node.ends()] == [(token, Outcome.LOST)]


def test_an_exclusive_attempt_runs_on_while_its_lease_is_good(node: Node) -> None:
    node.work("a", exclusive=True)
    node.run()

    node.tick(LEASE_S - 0.01)

    assert node.signals() == []


def test_other_attempts_run_on_without_a_master(node: Node) -> None:
    node.work("a")
    node.run()

    node.tick(10 * LEASE_S)

    assert node.signals() == []


def test_a_lease_runs_from_the_report_that_renewed_it_not_from_the_answer(node: Node) -> None:
    [token] = node.work("a", exclusive=True)
    node.run()
    sent = node.now + 3
    node.tick(8)
    node.agree(at=sent, renewed=[token])

    node.tick(sent + LEASE_S - node.now - 0.01)
    before = node.signals()
    node.tick(0.01)

    assert before == []
    assert node.signals() == [(0, SIGTERM), (0, SIGKILL)]


def test_a_lease_that_was_not_renewed_by_name_is_not_renewed(node: Node) -> None:
    node.work("a", exclusive=True)
    node.run()
    node.tick(5)
    node.agree(renewed=[])

    node.tick(LEASE_S - 5)

    assert (0, SIGKILL) in node.signals()


def test_an_older_answer_does_not_shorten_a_lease(node: Node) -> None:
    [token] = node.work("a", exclusive=True)
    node.tick(5)
    node.agree(renewed=[token])

    node.agree(at=node.now - 5, renewed=[token])

    assert node.held(token).lease_from == node.now


def test_an_exclusive_attempt_whose_lease_ran_out_on_the_way_is_given_back(node: Node) -> None:
    [token] = node.place("a", exclusive=True, at=node.now - LEASE_S)

    assert [(end.token, end.outcome) for end in node.ends()] == [(token, Outcome.CANCELLED)]


def test_an_exclusive_attempt_whose_lease_runs_out_in_the_queue_is_given_back(node: Node) -> None:
    node.work("long")
    [token] = node.place("a", exclusive=True)

    node.tick(LEASE_S)

    assert [(end.token, end.outcome) for end in node.ends()] == [(token, Outcome.CANCELLED)]


def test_before_the_first_answer_no_exclusive_attempt_is_begun() -> None:
    node = Node(started=False)
    node.tick()

    node.place("a", exclusive=True)

    assert [end.outcome for end in node.ends()] == [Outcome.CANCELLED]


def test_what_is_left_of_a_grace_ends_with_the_lease(node: Node) -> None:
    node.work("a", exclusive=True, timeout_s=5.0)
    node.run()
    node.tick(5.0)
    first = node.signals()

    node.tick(LEASE_S - 5.0)

    assert first == [(0, SIGTERM)]
    assert node.signals() == [(0, SIGKILL)]


def guards(node: Node) -> list[float | None]:
    return [
        letter.message.until
        for letter in node.decision.letters
        if letter.to == REAPER and isinstance(letter.message, Guard)
    ]


def test_the_reaper_guards_a_lease_and_each_renewal(node: Node) -> None:
    [token] = node.work("a", exclusive=True)
    first = guards(node)
    node.tick(3)

    node.agree(renewed=[token])

    assert first == [node.now - 3 + LEASE_S]
    assert guards(node) == [node.now + LEASE_S]


def test_the_reaper_is_told_when_a_guarded_attempt_is_over(node: Node) -> None:
    [token] = node.work("a", exclusive=True)

    node.finish(0, token)

    assert guards(node) == [None]


def test_what_the_reaper_killed_because_of_its_lease_is_lost_and_not_blamed(node: Node) -> None:
    [token] = node.work("a", exclusive=True)
    node.now += LEASE_S

    node.die(status=-9, running=0)

    assert [(end.token, end.outcome, end.died) for end in node.ends()] == [(token, Outcome.LOST, False)]


# Leaving.


def test_a_leaving_controller_lets_what_runs_end_and_gives_the_rest_back(node: Node) -> None:
    node.work("a")
    [queued] = node.place("b")

    node.leave()

    assert [(end.token, end.outcome) for end in node.ends()] == [(queued, Outcome.CANCELLED)]
    assert node.signals() == []
    assert not node.mind.is_done


def test_a_leaving_controller_says_so_at_once(node: Node) -> None:
    node.leave()

    node.tick()

    assert [report.leaving for report in node.said(Report)] == [True]


def test_a_leaving_controller_says_goodbye_when_it_holds_nothing_more(node: Node) -> None:
    [token] = node.work("a")
    node.leave()
    node.finish(0, token)
    node.tick()
    before = node.said(Goodbye)

    node.hear(Drop([token]))
    node.tick()

    assert before == []
    assert [goodbye.reason for goodbye in node.said(Goodbye)] == ["told to"]
    assert node.mind.is_done


def test_a_leaving_controller_says_goodbye_once(node: Node) -> None:
    node.leave()
    node.tick()

    node.tick()

    assert node.said(Goodbye) == []


def test_a_leaving_controller_takes_nothing_more(node: Node) -> None:
    node.leave()

    [token] = node.place("a")

    assert [(end.token, end.outcome) for end in node.ends()] == [(token, Outcome.CANCELLED)]


def test_what_a_dead_worker_had_not_begun_is_given_back_by_a_leaving_controller(node: Node) -> None:
    node.taught()
    _, second = node.work("a", "b")
    node.leave()

    node.die(running=0)

    assert (second, Outcome.CANCELLED) in [(end.token, end.outcome) for end in node.ends()]
    assert node.mind.queued() == []


def test_a_leaving_controller_does_not_replace_its_workers(node: Node) -> None:
    node.leave()
    node.die()

    node.tick()

    assert node.hired() == []


def test_leaving_at_once_stops_what_runs_and_says_that_it_was_evicted(node: Node) -> None:
    [token] = node.work("a")
    node.run()
    node.leave(at_once=True)
    signals = node.signals()

    node.die(status=-15, running=0)

    assert signals == [(0, SIGTERM)]
    assert [(end.token, end.outcome) for end in node.ends()] == [(token, Outcome.EVICTED)]


def test_the_master_may_tell_it_to_leave(node: Node) -> None:
    node.hear(Leave("the master is stopping"))

    assert node.mind.leaving
    assert "the master is stopping" in node.decision.notes[0]


# When to be called again.


def test_it_wants_to_be_called_to_announce_what_it_gave_out(node: Node) -> None:
    node.work("a")

    moment = node.mind.next_moment(node.now)

    assert moment <= node.now + ANNOUNCE_S


def test_it_wants_to_be_called_when_a_time_out_is_due() -> None:
    node = Node()
    node.agree(report_s=1000.0)
    node.tick(1.0)
    node.work("a", timeout_s=5.0)
    node.run()
    node.tick(ANNOUNCE_S)

    moment = node.mind.next_moment(node.now)

    assert moment == pytest.approx(node.now - ANNOUNCE_S + 5.0)


def test_it_wants_to_be_called_when_a_lease_runs_out() -> None:
    node = Node(2)
    node.agree(report_s=1000.0)
    node.tick(1.0)
    node.agree(report_s=1000.0)
    node.work("a", exclusive=True)
    node.run()
    node.tick(ANNOUNCE_S)

    moment = node.mind.next_moment(node.now)

    assert moment == pytest.approx(node.now - ANNOUNCE_S + LEASE_S)


def test_it_does_not_want_to_be_called_for_ever_about_a_lease_that_is_over(node: Node) -> None:
    node.work("a", exclusive=True)
    node.run()
    node.tick(LEASE_S)

    moment = node.mind.next_moment(node.now)

    assert moment > node.now


# What was on its way when the connection broke.


def test_over_a_new_connection_ends_are_said_again_before_the_report(node: Node) -> None:
    [token] = node.work("a")
    node.finish(0, token)

    node.mind.connected(node.now)
    node.tick()

    letters = [letter.message for letter in node.decision.letters if letter.to == MASTER]
    assert [type(message) for message in letters] == [Ended, Report]


def test_an_exclusive_attempt_that_was_long_on_its_way_is_given_back_for_a_fresh_report(node: Node) -> None:
    node.place("a", at=node.now - LEASE_S / 2, exclusive=True)

    assert [end.outcome for end in node.ends()] == [Outcome.CANCELLED]
    node.tick()
    assert node.said(Report)


def test_an_exclusive_attempt_that_came_quickly_is_taken(node: Node) -> None:
    node.place("a", at=node.now - LEASE_S / 2 + 0.1, exclusive=True)

    assert node.ends() == []


# What a worker may tell of.


@pytest.mark.parametrize(
    ("told", "unbegun", "may"),
    [
        ((0,), (), True),
        ((0, 1, 2), (), True),
        ((0,), (1, 2), True),
        ((), (0, 1, 2), True),
        ((1,), (), False),
        ((0, 0), (), False),
        ((0, 1, 2, 3), (), False),
        ((0,), (0,), False),
        ((0,), (99,), False),
        ((99,), (), False),
    ],
)
def test_a_worker_may_tell_of_what_it_was_given_and_of_nothing_else(
    told: tuple[int, ...], unbegun: tuple[int, ...], may: bool
) -> None:
    node = Node()
    node.mind.pace.learn("kind", [0.0001] * 500)
    first, *_ = tokens = node.work("a", "b", "c", kind="kind")
    chunk = [held.assignment.token for held in node.mind.workers[0].chunk]
    assert chunk == tokens

    ends = [End(first + number, 0.1, 1.0) for number in told]

    assert node.mind.may_tell(0, ends, [first + number for number in unbegun]) is may
