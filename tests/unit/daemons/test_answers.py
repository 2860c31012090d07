"""Questions to a master that is a mind and a store: what lives comes from the one, what has ended from the other."""

from __future__ import annotations

import pytest

from cyclone.core.decision import Decision
from cyclone.core.scheduler import Scheduler
from cyclone.daemons import answers
from cyclone.daemons.answers import MasterFacts, answer
from cyclone.messages import (
    AskCluster,
    AskTask,
    AskTasks,
    Close,
    Cluster,
    Ended,
    Message,
    Open,
    Opened,
    Refused,
    Report,
    Submission,
    Submit,
    Tasks,
    TaskStory,
)
from cyclone.model.lifecycle import Outcome, State
from cyclone.model.peer import Peer
from cyclone.model.resources import shape
from cyclone.model.task import End, Policy, Retry
from cyclone.store.memory import MemoryStore
from cyclone.wire import codec

CLIENT, NODE = Peer("client", "c1"), Peer("node1", "n1")
FACTS = MasterFacts("3.0.0", 7, 1, "running", 12.5, "/var/store.db", "tcp://*:5555")


class Master:
    """A mind and a store, without the daemon around them."""

    def __init__(self) -> None:
        self.now = 50.0
        self.unix_time = 1_000_000.0
        self.store = MemoryStore(clock=lambda: self.unix_time)
        self.scheduler = Scheduler(self.store.wake(), self.now, lease_s=10, window=1000)
        assert list(self.store._live()) == []

    def hear(self, sender: Peer, message: Message, *, remember: bool = True) -> Decision:
        payloads: dict[tuple[int, str], bytes] = {}
        values: dict[int, bytes] = {}
        if isinstance(message, Submit):
            payloads = {(message.job, task.tid): b"task" for task in message.tasks}
        if isinstance(message, Ended):
            values = {end.token: b"value" for end in message.ends}
        decision = self.scheduler.receive(sender, message, self.now)
        if remember:
            self.store.remember(decision.changes, payloads, values)
        return decision

    def submit(self, *tids: str, job: str = "work", after: tuple[str, ...] = (), **policy: object) -> int:
        [opened] = [
            letter.message
            for letter in self.hear(CLIENT, Open(job)).letters
            if isinstance(letter.message, Opened)
        ]
        tasks = [Submission(tid, 0, after) for tid in tids]
        self.hear(CLIENT, Submit(1, opened.job, [Policy(**policy)], tasks))
        return opened.job

    def join(self) -> None:
        self.hear(NODE, Report(self.now, shape({"cpus": 1, "workers": 1}), [], False, "host", 42))

    def place(self) -> None:
        self.store.remember(self.scheduler.tick(self.now).changes, {}, {})

    def end(
        self, tid: str, outcome: Outcome = Outcome.SUCCEEDED, error: str = "", died: bool = False
    ) -> None:
        """Place it and let its attempt end."""
        self.place()
        [task] = [
            task for job in self.scheduler.jobs.values() for task in job.tasks.values() if task.tid == tid
        ]
        self.hear(NODE, Ended([End(task.token, 0.5, 1_000_000.0, outcome, died=died, error=error)]))

    def cluster(self) -> Cluster:
        reply = self.ask(AskCluster(3))
        assert isinstance(reply, Cluster)
        return reply

    def tasks(self, **wanted: object) -> Tasks:
        reply = self.ask(AskTasks(4, **wanted))
        assert isinstance(reply, Tasks)
        return reply

    def story(self, tid: str, job: str = "") -> TaskStory:
        reply = self.ask(AskTask(5, tid, job))
        assert isinstance(reply, TaskStory)
        return reply

    def ask(self, message: AskCluster | AskTasks | AskTask) -> Message:
        return answer(message, self.scheduler, self.store, self.now, FACTS)


@pytest.fixture
def master() -> Master:
    return Master()


# The cluster.


def test_the_master_tells_of_itself_and_its_controllers(master: Master) -> None:
    master.join()

    told = master.cluster()

    assert (told.request, told.version, told.pid, told.epoch) == (3, "3.0.0", 7, 1)
    assert (told.state, told.up_s, told.store, told.address) == (
        "running",
        12.5,
        "/var/store.db",
        "tcp://*:5555",
    )
    assert [controller.name for controller in told.controllers] == ["node1"]


def test_a_client_understands_that_more_is_taken_than_there_is(master: Master) -> None:
    master.join()
    master.submit("a")
    master.place()
    master.hear(NODE, Report(master.now, shape({"cpus": 0.5, "workers": 1}), [], False, "host", 42))

    told = master.cluster()

    assert dict(told.controllers[0].free)["cpus"] == -5000
    assert codec.FROM_SERVER.decode([codec.encode(told)]) == (told, [])


def test_a_state_may_be_named_very_often(master: Master) -> None:
    master.join()
    master.submit("a", "b")

    told = master.tasks(states=[State.READY, State.SUCCEEDED] * 100_000)

    assert [task.tid for task in told.tasks] == ["a", "b"]


def test_a_job_is_counted_by_live_and_ended_tasks(master: Master) -> None:
    master.join()
    master.submit("a", "b", "c", exclusive=True)
    master.end("a")
    master.place()

    [job] = master.cluster().jobs

    assert job.name == "work"
    assert job.counts == {"succeeded": 1, "placed": 1, "ready": 1}


def test_a_job_tells_since_when_its_oldest_task_has_waited(master: Master) -> None:
    master.join()
    master.submit("a", exclusive=True)
    master.unix_time += 60
    master.submit("b", exclusive=True)
    assert [job.oldest_at for job in master.cluster().jobs] == [1_000_000.0]

    master.end("a")
    assert [job.oldest_at for job in master.cluster().jobs] == [1_000_060.0]

    master.end("b")
    assert [job.oldest_at for job in master.cluster().jobs] == [0.0]


def test_jobs_are_told_newest_first_with_their_times(master: Master) -> None:
    number = master.submit(job="old")
    master.hear(CLIENT, Close(1, number))
    master.submit("a", job="new")

    jobs = master.cluster().jobs

    assert [(job.name, job.state) for job in jobs] == [("new", "open"), ("old", "succeeded")]
    assert jobs[1].closed_at == 1_000_000.0


@pytest.mark.parametrize("looked_at", [1, 100])
def test_an_open_job_is_told_however_old_it_is(
    master: Master, monkeypatch: pytest.MonkeyPatch, looked_at: int
) -> None:
    monkeypatch.setattr(answers, "JOBS_MOST", 1)
    monkeypatch.setattr(answers, "JOBS_LOOKED_AT", looked_at)
    master.submit("a", job="old")
    for name in ("newer", "newest"):
        master.hear(CLIENT, Close(1, master.submit(job=name)))

    jobs = master.cluster().jobs

    assert [(job.name, job.state) for job in jobs] == [("newest", "succeeded"), ("old", "open")]
    assert jobs[1].counts == {"ready": 1}


# Lists.


def test_live_tasks_come_before_ended_ones(master: Master) -> None:
    master.join()
    master.submit("a", "b")
    master.end("a")

    told = master.tasks()

    assert [(view.tid, view.state) for view in told.tasks] == [("b", State.READY), ("a", State.SUCCEEDED)]
    assert not told.more


def test_a_list_of_ended_states_leaves_out_the_living_and_the_other_way_round(master: Master) -> None:
    master.join()
    master.submit("a", "b")
    master.end("a")

    ended, living = master.tasks(states=[State.SUCCEEDED]), master.tasks(states=[State.READY])

    assert [view.tid for view in ended.tasks] == ["a"]
    assert [view.tid for view in living.tasks] == ["b"]


@pytest.mark.parametrize(("limit", "found", "more"), [(1, 1, True), (2, 2, False), (-1, 0, True)])
def test_the_limit_counts_both(master: Master, limit: int, found: int, more: bool) -> None:
    master.join()
    master.submit("a", "b")
    master.end("a")

    told = master.tasks(limit=limit)

    assert len(told.tasks) == found
    assert told.more is more


def test_no_list_is_longer_than_an_answer_may_be(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "TASKS_MOST", 2)
    master.submit("a", "b", "c")

    told = master.tasks(limit=1_000_000)

    assert len(told.tasks) == 2
    assert told.more


def test_a_list_holds_the_first_line_of_each_error(master: Master) -> None:
    master.join()
    master.submit("a")
    master.end("a", Outcome.RAISED, "ValueError: no\nTraceback …")

    [view] = master.tasks().tasks

    assert view.end is not None
    assert view.end.error == "ValueError: no"


# One task.


def test_a_live_task_is_told_with_its_policy_its_reason_and_what_was_tried(master: Master) -> None:
    master.join()
    master.submit("a", retry=Retry(errors=2, delay_s=30), kind="Copy")
    master.end("a", Outcome.RAISED, "no")

    told = master.story("a")

    assert told.request == 5
    assert (told.task.state, told.task.attempts, told.task.kind) == (State.RESTING, 1, "Copy")
    assert told.task.end is not None
    assert told.task.end.error == "no"
    assert told.policy.retry.errors == 2
    assert told.why.startswith("It rests for another 3")
    assert [(view.attempt, view.controller, view.cause) for view in told.attempts] == [(1, "node1", "error")]


def test_a_waiting_task_is_told_whom_it_waits_for(master: Master) -> None:
    master.submit("first")
    master.submit("last", after=("first",))

    told = master.story("last")

    assert told.after == ["first"]
    assert told.why == "It waits for 'first' (ready) to succeed."


def test_an_ended_task_is_told_with_every_attempt_the_last_included(master: Master) -> None:
    master.join()
    master.submit("a", retry=Retry(crashes=1))
    master.end("a", Outcome.SIGNALLED, "gone", died=True)
    master.end("a", Outcome.SUCCEEDED)

    told = master.story("a")

    assert (told.task.state, told.task.attempts, told.task.controller) == (State.SUCCEEDED, 2, "node1")
    assert told.why == "It succeeded. Attempt 2 succeeded after 500 ms."
    assert [(view.attempt, view.cause, view.end.outcome) for view in told.attempts] == [
        (1, "crash", Outcome.SIGNALLED),
        (2, "", Outcome.SUCCEEDED),
    ]


def test_the_attempt_that_ended_it_is_billed_like_the_others(master: Master) -> None:
    master.join()
    master.submit("a")
    master.end("a", Outcome.TIMED_OUT, "too slow")

    told = master.story("a")

    assert [view.cause for view in told.attempts] == ["timeout"]


def test_only_the_newest_attempts_are_told(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "ATTEMPTS_MOST", 2)
    master.join()
    master.submit("a")
    for _ in range(3):
        master.end("a", Outcome.EVICTED)

    told = master.story("a")

    assert [view.attempt for view in told.attempts] == [2, 3]


def test_a_tid_is_of_the_newest_job_unless_one_is_named(master: Master) -> None:
    master.submit("a", job="old")
    master.submit("a", job="new")

    newest, named = master.story("a"), master.story("a", "old")

    assert (newest.task.job, named.task.job) == ("new", "old")


def test_an_unknown_task_is_refused_by_its_name(master: Master) -> None:
    said = master.ask(AskTask(9, "nope", "work"))

    assert said == Refused("no task 'nope' of job 'work' is known", 9)


def test_of_a_name_that_is_not_known_no_more_is_told_than_a_person_reads(master: Master) -> None:
    said = master.ask(AskTask(9, "\0" * 10**6, "\0" * 10**6))

    assert isinstance(said, Refused)
    assert len(said.reason) < 3000


def test_a_task_whose_end_is_not_remembered_yet_is_to_be_asked_for_again(master: Master) -> None:
    master.join()
    master.submit("a")
    master.place()
    token = next(iter(master.scheduler.controllers["node1"].held))
    master.hear(NODE, Ended([End(token, 0.5, 1.0)]), remember=False)

    said = master.ask(AskTask(9, "a"))

    assert isinstance(said, Refused)
    assert "ask again" in said.reason
