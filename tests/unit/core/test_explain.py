"""What is told of the living. A small cluster is brought into each situation and asked about it."""

from __future__ import annotations

import pytest

from cyclone.core import explain
from cyclone.core.live import Task
from cyclone.core.scheduler import Scheduler
from cyclone.messages import (
    Cancel,
    Ended,
    Goodbye,
    Message,
    Open,
    Opened,
    Place,
    Report,
    Started,
    Submission,
    Submit,
    TaskEnd,
)
from cyclone.model.changes import LiveTask, Remembered, TasksPlaced
from cyclone.model.lifecycle import Outcome, State
from cyclone.model.peer import Peer
from cyclone.model.resources import UNIT, shape
from cyclone.model.task import End, Policy, Retry, first_token

CLIENT = Peer("client", "c1")


class Cluster:
    """A scheduler on a clock of its own, and short words for what the world says to it."""

    def __init__(self, remembered: Remembered | None = None) -> None:
        self.now = 100.0
        remembered = remembered or Remembered(1, 0, 0, {}, [], [], [])
        self.scheduler = Scheduler(remembered, self.now, lease_s=10, window=1000)
        self.placed: list[Place] = []

    def hear(self, sender: Peer, message: Message) -> list[Message]:
        decision = self.scheduler.receive(sender, message, self.now)
        return [letter.message for letter in decision.letters]

    def tick(self, seconds: float = 0.0) -> None:
        # In small steps: a scheduler that was not called for long excuses everybody's silence meanwhile.
        began, steps = self.now, max(1, round(seconds))
        for step in range(1, steps + 1):
            self.now = began + seconds * step / steps
            letters = self.scheduler.tick(self.now).letters
            self.placed += [letter.message for letter in letters if isinstance(letter.message, Place)]

    def submit(
        self, *tids: str, job: str = "work", after: tuple[str, ...] = (), **policy: object
    ) -> list[Task]:
        [opened] = [said for said in self.hear(CLIENT, Open(job)) if isinstance(said, Opened)]
        submissions = [Submission(tid, 0, after) for tid in tids]
        self.hear(CLIENT, Submit(1, opened.job, [Policy(**policy)], submissions))
        return [self.task(tid, job) for tid in tids]

    def task(self, tid: str, job: str = "") -> Task:
        task = explain.find_live(self.scheduler, tid, job)
        assert task is not None
        return task

    def join(self, name: str = "node1", leaving: bool = False, **room: int | str) -> Peer:
        peer = Peer(name, "1")
        self.hear(
            peer, Report(self.now, shape({"cpus": 1, "workers": 1, **room}), [], leaving, "host", 42, 1)
        )
        return peer

    def why(self, task: Task, *after: str) -> str:
        return explain.why(self.scheduler, task, self.now, after)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


# Why it stands where it stands.


def test_a_waiting_task_names_those_it_waits_for(cluster: Cluster) -> None:
    cluster.submit("first", "second")
    [last] = cluster.submit("last", after=("first", "second"))

    said = cluster.why(last, "first", "second")

    assert said == "It waits for 'first' (ready), 'second' (ready) to succeed."


def test_a_waiting_task_names_five_and_counts_the_rest(cluster: Cluster) -> None:
    names = tuple(f"t{number}" for number in range(8))
    cluster.submit(*names)
    [last] = cluster.submit("last", after=names)

    said = cluster.why(last, *names)

    assert "'t4' (ready) and 3 more to succeed" in said
    assert "'t5'" not in said


def test_a_waiting_task_whose_names_are_not_given_is_counted(cluster: Cluster) -> None:
    cluster.submit("first", "second")
    [last] = cluster.submit("last", after=("first", "second"))

    said = cluster.why(last)

    assert said == "It waits for 2 tasks to succeed."


def test_a_ready_task_tells_how_many_stand_before_it(cluster: Cluster) -> None:
    first, second, third = cluster.submit("a", "b", "c")

    said = [cluster.why(task).partition(".")[0] for task in (first, second, third)]

    assert said == [
        "It is the next of all tasks with the same needs",
        "1 task with the same needs stands before it",
        "2 tasks with the same needs stand before it",
    ]


def test_those_of_higher_priority_stand_before_it_and_the_cancelled_do_not(cluster: Cluster) -> None:
    _, second = cluster.submit("a", "b")
    cluster.submit("urgent", priority=5)
    cluster.hear(CLIENT, Cancel(1, 1, ["a"]))

    said = cluster.why(second)

    assert said.startswith("1 task with the same needs")


def test_counting_those_before_it_has_a_bound(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "COUNTED_MOST", 2)
    *_, last = cluster.submit("a", "b", "c")

    said = cluster.why(last)

    assert said.startswith("More than 2 tasks")


def test_without_controllers_it_says_so(cluster: Cluster) -> None:
    [task] = cluster.submit("a")

    said = cluster.why(task)

    assert said.endswith("No controller is connected.")


def test_of_controllers_that_came_and_left_it_does_not_say_that_none_came(cluster: Cluster) -> None:
    node = cluster.join("node1")
    cluster.hear(node, Goodbye())
    [task] = cluster.submit("a")

    said = cluster.why(task)

    assert said.endswith("No controller is connected.")


def test_controllers_that_take_nothing_are_counted_by_their_standing(cluster: Cluster) -> None:
    cluster.join("node1")
    cluster.tick(30)
    cluster.join("node2", leaving=True)
    [task] = cluster.submit("a")

    said = cluster.why(task)

    assert said.endswith("No controller takes tasks: 1 leaving, 1 silent.")


def test_a_controller_that_gets_nothing_for_a_while_is_excluded(cluster: Cluster) -> None:
    node = cluster.join("node1")
    cluster.scheduler.controllers[node.name].excluded_until = cluster.now + 60
    [task] = cluster.submit("a")

    said = cluster.why(task)

    assert said.endswith("No controller takes tasks: 1 excluded.")


def test_a_task_that_is_too_big_is_told_the_resource_and_the_largest(cluster: Cluster) -> None:
    cluster.join("node1", memory="16GiB")
    cluster.join("node2", memory="32GiB")
    [task] = cluster.submit("a", resources=shape({"memory": "64GiB"}))

    said = cluster.why(task)

    assert said.endswith("No controller is big enough: it needs memory 64 GiB, the largest has 32 GiB.")


def test_a_resource_that_nobody_has_is_told(cluster: Cluster) -> None:
    cluster.join()
    [task] = cluster.submit("a", resources=shape({"gpus": 1}))

    said = cluster.why(task)

    assert said.endswith("it needs gpus 1, none has any.")


def test_needs_that_are_met_only_one_by_one_are_told(cluster: Cluster) -> None:
    cluster.join("node1", cpus=4)
    cluster.join("node2", memory="4GiB")
    [task] = cluster.submit("a", resources=shape({"cpus": 4, "memory": "4GiB"}))

    said = cluster.why(task)

    assert "No controller has all at once that it needs: cpus 4, memory 4 GiB, workers 1." in said


def test_a_controller_that_would_be_big_enough_but_takes_nothing_is_told(cluster: Cluster) -> None:
    cluster.join("node1", cpus=1)
    cluster.join("node2", cpus=8, leaving=True)
    [task] = cluster.submit("a", resources=shape({"cpus": 8}))

    said = cluster.why(task)

    assert said.endswith("Big enough but: 1 leaving.")


def test_busy_controllers_are_told_with_how_long(cluster: Cluster) -> None:
    cluster.join("node1", memory="1GiB")
    cluster.join("node2", memory="1GiB")
    _, _, third = cluster.submit("a", "b", "c", resources=shape({"cpus": 1}), exclusive=True)
    cluster.tick()
    cluster.tick()
    cluster.tick(0.5)

    said = cluster.why(third)

    assert said.endswith("All 2 controllers that are big enough for it are busy, for 500 ms so far.")


def test_the_only_controller_that_is_big_enough_is_named(cluster: Cluster) -> None:
    cluster.join("node1")
    _, second = cluster.submit("a", "b", exclusive=True)
    cluster.tick()

    said = cluster.why(second)

    assert said.endswith("node1, the only controller that is big enough for it, is busy.")


def test_room_that_is_kept_is_told_to_whom_it_is_kept_for_and_to_the_others(cluster: Cluster) -> None:
    cluster.join("node1", cpus=2, workers=2)
    cluster.submit("holds-one", exclusive=True)
    cluster.tick()
    [large] = cluster.submit("large", resources=shape({"cpus": 2}))
    cluster.tick()
    cluster.tick(2)
    [small] = cluster.submit("small")
    cluster.tick()

    said_to_large, said_to_small = cluster.why(large), cluster.why(small)

    assert said_to_large.endswith("room is being kept free for it on node1.")
    assert said_to_small.endswith("Room on node1 is kept for tasks that need cpus 2, workers 1.")


def test_a_task_that_finds_room_is_told_that_it_is_next(cluster: Cluster) -> None:
    cluster.join()
    [task] = cluster.submit("a")

    said = cluster.why(task)

    assert said.endswith("There is room for it: it is placed next when its turn comes.")


def test_a_master_that_stops_says_so(cluster: Cluster) -> None:
    cluster.join()
    [task] = cluster.submit("a")
    cluster.scheduler.stop("told to")

    said = cluster.why(task)

    assert "The master is stopping and places nothing more" in said


def test_a_placed_task_tells_where_and_since_when(cluster: Cluster) -> None:
    cluster.join()
    [task] = cluster.submit("a")
    cluster.tick()
    cluster.now += 3

    said = cluster.why(task)

    assert said == "It was placed on node1 3.0 s ago and is not known to have started."


def test_a_task_that_was_sent_ahead_says_so(cluster: Cluster) -> None:
    node = cluster.join()
    [first] = cluster.submit("first")
    cluster.tick()
    cluster.hear(node, Ended([End(first.token, 0.5, 1.0)]))
    _, second = cluster.submit("next", "ahead")
    cluster.tick()

    said = cluster.why(second)

    assert "sent ahead of free room" in said


def test_a_running_task_tells_where_and_how_long_its_controller_is_silent(cluster: Cluster) -> None:
    node = cluster.join()
    [task] = cluster.submit("a", exclusive=True)
    cluster.tick()
    cluster.hear(node, Started([task.token]))
    cluster.tick(11)

    said = cluster.why(task)

    assert "It runs on node1, where it was placed 11.0 s ago." in said
    assert "silent for 11.0 s" in said
    assert "It is exclusive" in said
    assert "in 1.0 s" in said


def test_what_was_placed_before_a_restart_is_told_as_such() -> None:
    peer, token = Peer("node1", "1"), first_token(1) + 1
    live = [LiveTask(1, 1, "a", Policy(), (), 0.0)]
    cluster = Cluster(Remembered(2, 1, 1, {1: "work"}, live, [TasksPlaced(token, peer, (1,))], []))

    said = cluster.why(cluster.task("a"))

    assert "before this master was started" in said
    assert said.endswith("That controller has not reported to this master yet.")


def test_a_resting_task_tells_how_long_and_why(cluster: Cluster) -> None:
    node = cluster.join()
    [task] = cluster.submit("a", retry=Retry(errors=3, delay_s=60))
    cluster.tick()
    cluster.hear(node, Ended([End(task.token, 1.0, 1.0, Outcome.RAISED, error="no")]))
    assert task.history is not None
    cluster.now = task.history.rest_until - 45

    said = cluster.why(task)

    assert said.startswith("It rests for another 45.0 s before its next attempt.")
    assert "Attempts so far: 1, billed to error (1)" in said
    assert "3 retries after an error and 0 retries after a time-out" in said


# Lists.


def test_live_tasks_of_the_newest_job_come_first_and_the_oldest_of_each(cluster: Cluster) -> None:
    cluster.submit("a", "b", job="old")
    cluster.submit("c", "d", job="new")

    views, more = explain.live_tasks(cluster.scheduler, "", [], "", 10)

    assert [view.tid for view in views] == ["c", "d", "a", "b"]
    assert not more


@pytest.mark.parametrize(("limit", "more"), [(0, True), (1, True), (2, False), (3, False)])
def test_a_list_says_whether_the_limit_cut_it(cluster: Cluster, limit: int, more: bool) -> None:
    cluster.submit("a", "b")

    views, cut = explain.live_tasks(cluster.scheduler, "", [], "", limit)

    assert len(views) == min(limit, 2)
    assert cut is more


def test_a_list_can_be_of_one_job_and_one_kind(cluster: Cluster) -> None:
    cluster.submit("a", kind="Copy")
    cluster.submit("b", kind="Sum")
    cluster.submit("c", job="other", kind="Sum")

    views, _ = explain.live_tasks(cluster.scheduler, "work", [], "Sum", 10)

    assert [(view.tid, view.kind) for view in views] == [("b", "Sum")]


@pytest.mark.parametrize("state", [State.PLACED, State.READY])
def test_a_list_can_be_of_one_state(cluster: Cluster, state: State) -> None:
    cluster.join()
    cluster.submit("held", "left", exclusive=True)
    cluster.tick()

    views, more = explain.live_tasks(cluster.scheduler, "work", [state], "", 10)

    assert [(view.tid, view.state, view.controller, view.attempts) for view in views] == [
        ("held", State.PLACED, "node1", 1) if state is State.PLACED else ("left", State.READY, "", 0)
    ]
    assert not more


def test_nobody_looks_on_when_all_that_can_match_was_found(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explain, "LOOKED_AT_MOST", 2)
    cluster.submit("a", "b")
    cluster.submit("c", "d", after=("a",))

    views, more = explain.live_tasks(cluster.scheduler, "", [State.READY], "", 10)

    assert [view.tid for view in views] == ["a", "b"]
    assert not more


def test_what_is_held_is_listed_by_job_and_age(cluster: Cluster) -> None:
    for name in ("node1", "node2", "node3"):
        cluster.join(name)
    cluster.submit("a", "b", job="old", exclusive=True)
    cluster.submit("c", job="new", exclusive=True)
    cluster.tick()

    views, _ = explain.live_tasks(cluster.scheduler, "", [State.PLACED, State.RUNNING], "", 10)

    assert [view.tid for view in views] == ["c", "a", "b"]


def test_looking_has_a_bound(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "LOOKED_AT_MOST", 3)
    cluster.submit("a", "b", "c", "d", kind="Sum")

    views, more = explain.live_tasks(cluster.scheduler, "", [], "rare", 10)

    assert views == []
    assert more


def test_a_live_task_is_found_in_the_newest_job_or_in_the_named_one(cluster: Cluster) -> None:
    cluster.submit("a", job="old")
    cluster.submit("a", job="new")

    newest = explain.find_live(cluster.scheduler, "a")
    named = explain.find_live(cluster.scheduler, "a", "old")
    unknown = explain.find_live(cluster.scheduler, "b")

    assert newest is not None
    assert newest.job.name == "new"
    assert named is not None
    assert named.job.name == "old"
    assert unknown is None


def test_a_controller_is_shown_with_its_room_and_what_it_holds(cluster: Cluster) -> None:
    node = cluster.join(cpus=2, workers=2)
    first, _ = cluster.submit("a", "b", exclusive=True)
    cluster.tick()
    cluster.hear(node, Started([first.token]))
    cluster.now += 2

    [view] = explain.view_controllers(cluster.scheduler, cluster.now)

    assert (view.name, view.life, view.host, view.pid, view.state) == ("node1", "1", "host", 42, "up")
    assert (view.running, view.placed, view.workers, view.workers_busy) == (1, 1, 2, 1)
    assert view.room == (("cpus", 2 * UNIT), ("workers", 2 * UNIT))
    assert view.free == (("cpus", 0), ("workers", 0))
    assert view.silent_s == 2


def test_a_remembered_controller_is_awaited() -> None:
    live = [LiveTask(1, 1, "a", Policy(), (), 0.0)]
    placed = [TasksPlaced(first_token(1), Peer("node1", "1"), (1,))]
    cluster = Cluster(Remembered(2, 1, 1, {1: "work"}, live, placed, []))

    [view] = explain.view_controllers(cluster.scheduler, cluster.now)

    assert (view.state, view.placed) == ("awaited", 1)


def test_jobs_are_counted_by_state_without_zeros(cluster: Cluster) -> None:
    cluster.join()
    cluster.submit("a", "b", exclusive=True)
    cluster.tick()

    counts = explain.view_jobs(cluster.scheduler)

    assert counts == {1: {"placed": 1, "ready": 1}}


# How it ended.


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (
            TaskEnd("a", State.SUCCEEDED, 2, End(1, 3.25, 1.0)),
            "It succeeded. Attempt 2 succeeded after 3.2 s.",
        ),
        (
            TaskEnd(
                "a",
                State.FAILED,
                3,
                End(1, 0.012, 1.0, Outcome.EXITED, 3, error="disk full\ntrace"),
                "given up",
            ),
            "It failed: given up. Attempt 3 exited with 3 after 12 ms: disk full",
        ),
        (
            TaskEnd("a", State.QUARANTINED, 3, End(1, 90.0, 1.0, Outcome.SIGNALLED, 9, True)),
            "It was quarantined, because workers or hosts died near it. "
            "Attempt 3 was killed by SIGKILL after 1 min 30 s.",
        ),
        (
            TaskEnd("a", State.QUARANTINED, 6, End(1, outcome=Outcome.LOST, error="it was silent")),
            "It was quarantined, because workers or hosts died near it. Attempt 6 was lost: it was silent",
        ),
        (
            TaskEnd("a", State.CANCELLED, 0, None, "it expired before it was started"),
            "It was cancelled: it expired before it was started. No attempt was made.",
        ),
        (
            TaskEnd("a", State.CANCELLED, 1, None, "cancelled by a client"),
            "It was cancelled: cancelled by a client. 1 attempt had been made.",
        ),
    ],
)
def test_an_end_is_told_in_words(end: TaskEnd, said: str) -> None:
    assert explain.why_ended(end) == said


@pytest.mark.parametrize(
    ("outcome", "code", "text"),
    [
        (Outcome.RAISED, 0, "raised"),
        (Outcome.TIMED_OUT, 0, "timed out"),
        (Outcome.LOST, 0, "was lost"),
        (Outcome.SIGNALLED, 200, "was killed by signal 200"),
    ],
)
def test_an_outcome_is_a_verb(outcome: Outcome, code: int, text: str) -> None:
    assert explain.outcome_text(End(1, outcome=outcome, code=code)) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (0.0004, "0.4 ms"),
        (0.0123, "12 ms"),
        (0.9996, "1.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 0 s"),
        (303, "5 min 3 s"),
        (7500, "2 h 5 min"),
        (3 * 86400 + 4 * 3600 + 59, "3 d 4 h"),
    ],
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert explain.duration_text(seconds) == text


@pytest.mark.parametrize(
    ("units", "text"),
    [
        (2 * UNIT, "2"),
        (UNIT // 2, "0.5"),
        (64 * 2**30 * UNIT, "64 GiB"),
        (3 * 2**19 * UNIT, "1.5 MiB"),
        (0, "0"),
    ],
)
def test_amounts_are_readable(units: int, text: str) -> None:
    assert explain.amount_text(units) == text
