"""What may become of a task: a run in which everything happens once, and what is told and stored of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from acceptance.cluster import Cluster

from cyclone.errors import EXIT_TASK_FAILED
from cyclone.model.lifecycle import Outcome, State
from cyclone.store.promise import StoredTask

ZOO = """
class Animal(BaseTask):
    def __init__(self, tid, **policy):
        self.tid = tid
        for name, value in policy.items():
            setattr(self, name, value)

    def execute(self):
        note("executed", f"{self.tid} {self.attempt.number}")
        return self.act()

class Fine(Animal):
    def act(self):
        return {"number": 42, "text": "\\u00fcber | \\x00", "nothing": None}

class Raising(Animal):
    def act(self):
        raise ValueError("out of range")

class Exiting(Animal):
    def act(self):
        raise CommandFailed(3, "the program said no")

class Leaving(Animal):
    def act(self):
        sys.exit(4)

class Killed(Animal):
    def act(self):
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(60)

class Vanishing(Animal):
    def act(self):
        os._exit(5)

class Late(Animal):
    def act(self):
        try:
            time.sleep(60)
        finally:
            note("tidied", self.tid)

class Deaf(Animal):
    def act(self):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)

class Opaque(Animal):
    def act(self):
        return lambda: None

class Third(Animal):
    def act(self):
        if self.attempt.number < 3:
            raise RuntimeError("not yet")
        return self.attempt.number

class Talking(Animal):
    def act(self):
        print("words for the log of the controller")
        print("and for its errors", file=sys.stderr)

class Kept(Animal):
    def __init__(self, tid, *values):
        super().__init__(tid)
        self.values = values

    def act(self):
        return self.values

class Job(Telling):
    def generate(self):
        import only_here

        once, soon = Retry(crashes=0), dict(delay_s=0.1, backoff=1)
        yield Fine("fine")
        yield Raising("raising")
        yield Exiting("exiting")
        yield Leaving("leaving")
        yield Killed("killed", retry=once)
        yield Vanishing("vanishing", retry=once)
        yield Vanishing("poison")
        yield Late("late", timeout=0.5)
        yield Late("late twice", timeout=0.5, retry=Retry(timeouts=1, **soon))
        yield Deaf("deaf", timeout=0.5)
        yield Opaque("opaque")
        yield only_here.Stranger("stranger")
        yield Third("third", retry=Retry(errors=2, **soon))
        yield Third("second", retry=Retry(errors=1, **soon))
        yield Fine("after fine", after=["fine", "third"])
        yield Fine("after raising", after=["fine", "raising"])
        yield Fine("after that", after=["after raising"])
        yield Fine("expiring", resources={"unicorns": 1}, expires=1)
        yield Fine("exclusive", exclusive=True)
        yield Talking("talking")
        yield Kept("kept", 7, None, ["a|b", 1.5], b"\\xff", (1, 2), {"k": {3}})
"""

STRANGER = """
from cyclone import BaseTask

class Stranger(BaseTask):
    def __init__(self, tid):
        self.tid = tid

    def execute(self):
        pass
"""


@dataclass
class Run:
    """Everything that can be known of a run."""

    codes: tuple[int, int]
    told: dict[str, dict[str, Any]]
    stored: dict[str, StoredTask]
    executed: list[str]
    tidied: list[str]
    printed: str

    def told_of(self, tid: str) -> tuple[str, str, int, int]:
        told = self.told[tid]
        return told["state"], told["outcome"], told["code"], told["attempts"]


@pytest.fixture(scope="module")
def run(make_module_cluster: Callable[[], Cluster]) -> Run:
    cluster = make_module_cluster()
    cluster.write_job(ZOO)
    # On the path of the generator, but not on that of the workers.
    cluster.write("private/only_here.py", STRANGER)
    master = cluster.start_master({"task_generator": {"path": "private"}})
    controller = cluster.start_controller(workers=3)
    codes = master.wait(60), controller.wait()
    told = cluster.told()
    assert len(told) == len({one["tid"] for one in told}), "somebody was told twice"
    with cluster.store() as store:
        stored = {one["tid"]: store.task(one["tid"]) for one in told}
    assert len(stored) == ZOO.count("yield ")
    return Run(
        codes, {one["tid"]: one for one in told}, {tid: task for tid, task in stored.items() if task is not None},
        cluster.notes("executed"), cluster.notes("tidied"), controller.printed,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("tid", "expected"),
    [
        ("fine", ("succeeded", "succeeded", 0, 1)),
        ("raising", ("failed", "raised", 0, 1)),
        ("exiting", ("failed", "exited", 3, 1)),
        ("leaving", ("failed", "raised", 0, 1)),
        ("killed", ("quarantined", "signalled", 10, 1)),
        ("vanishing", ("quarantined", "exited", 5, 1)),
        ("poison", ("quarantined", "exited", 5, 3)),
        ("late", ("failed", "timed_out", 0, 1)),
        ("late twice", ("failed", "timed_out", 0, 2)),
        ("deaf", ("failed", "timed_out", 0, 1)),
        ("opaque", ("failed", "raised", 0, 1)),
        ("stranger", ("failed", "raised", 0, 1)),
        ("third", ("succeeded", "succeeded", 0, 3)),
        ("second", ("failed", "raised", 0, 2)),
        ("after fine", ("succeeded", "succeeded", 0, 1)),
        ("after raising", ("skipped", "skipped", 0, 0)),
        ("after that", ("skipped", "skipped", 0, 0)),
        ("expiring", ("cancelled", "cancelled", 0, 0)),
        ("exclusive", ("succeeded", "succeeded", 0, 1)),
    ],
)
def test_each_end_has_an_outcome_of_its_own(run: Run, tid: str, expected: tuple[str, str, int, int]) -> None:
    assert run.told_of(tid) == expected


def test_the_store_agrees_with_what_was_told(run: Run) -> None:
    for tid, task in run.stored.items():
        assert task.end is not None
        last = task.end.end
        outcome = task.end.state.value if last is None else last.outcome.value
        assert (task.end.state.value, outcome, task.end.attempts) == tuple(
            run.told[tid][key] for key in ("state", "outcome", "attempts")
        )


def test_a_run_in_which_tasks_failed_ends_with_one(run: Run) -> None:
    assert run.codes == (EXIT_TASK_FAILED, 0)


def test_tasks_run_as_often_as_they_are_said_to(run: Run) -> None:
    attempts = {tid: sum(line.rpartition(" ")[0] == tid for line in run.executed) for tid in run.told}

    never_executed = {"stranger"}
    assert attempts == {
        tid: 0 if tid in never_executed else told["attempts"] for tid, told in run.told.items()
    }


def test_a_value_arrives_as_it_was_returned(run: Run) -> None:
    assert run.told["fine"]["value"] == repr({"number": 42, "text": "über | \0", "nothing": None})


def test_properties_of_a_task_keep_their_types(run: Run) -> None:
    assert run.told["kept"]["value"] == repr((7, None, ["a|b", 1.5], b"\xff", (1, 2), {"k": {3}}))


def test_an_exception_is_told_with_its_traceback(run: Run) -> None:
    error = run.told["raising"]["error"]

    assert error.splitlines()[0] == "ValueError: out of range"
    assert 'raise ValueError("out of range")' in error
    assert "jobs.py" in error
    assert "cyclone/daemons" not in error


def test_what_cannot_be_pickled_or_unpickled_is_said_so(run: Run) -> None:
    assert "the result, a function, cannot be pickled" in run.told["opaque"]["error"].splitlines()[0]
    assert "cannot be unpickled here" in run.told["stranger"]["error"].splitlines()[0]
    assert "only_here" in run.told["stranger"]["error"].splitlines()[0]


def test_a_task_that_runs_out_of_time_may_tidy_up(run: Run) -> None:
    assert sorted(run.tidied) == ["late", "late twice", "late twice"]


def test_every_attempt_that_did_not_end_its_task_is_kept(run: Run) -> None:
    third, poison = run.stored["third"], run.stored["poison"]

    assert [attempt.end.outcome for attempt in third.attempts] == [Outcome.RAISED, Outcome.RAISED]
    assert [(attempt.end.code, attempt.end.died) for attempt in poison.attempts] == [(5, True), (5, True)]


def test_a_task_that_was_not_run_tells_why(run: Run) -> None:
    assert "raising" in run.told["after raising"]["error"]
    assert "after raising" in run.told["after that"]["error"]
    assert "expired" in run.told["expiring"]["error"]
    assert run.stored["after that"].end is not None
    assert run.stored["after that"].end.state is State.SKIPPED


def test_what_a_task_prints_goes_to_the_output_of_its_controller(run: Run) -> None:
    assert "words for the log of the controller\n" in run.printed
    assert "and for its errors\n" in run.printed


# Who runs when, and beside whom.


ORDERED = """
class Work(BaseTask):
    def execute(self):
        note("executed", self.tid)

class Job(Telling):
    def generate(self):
        for number in range(30):
            task = Work()
            task.tid, task.priority = number, number % 3
            yield task
        note("handed in", "")
"""

BULKY = """
class Bulky(BaseTask):
    def __init__(self, cpus):
        self.resources = {"cpus": cpus}

    def execute(self):
        note("steps", f"begin {self.tid}")
        time.sleep(0.2)
        note("steps", f"end {self.tid}")

class Job(Telling):
    def generate(self):
        for number in range(8):
            for cpus in (2, 1):
                task = Bulky(cpus)
                task.tid = f"{cpus}:{number}"
                yield task
"""


def test_higher_priority_goes_first_and_age_decides_among_equals(cluster: Cluster) -> None:
    cluster.write_job(ORDERED)
    master = cluster.start_master()
    cluster.wait_for_notes("handed in", 1)
    master.signal(0)
    while cluster.question("SELECT count(*) FROM task") != [(30,)]:
        assert master.is_alive

    cluster.start_controller(workers=1)
    assert master.wait() == 0

    numbers = [int(line) for line in cluster.notes("executed")]
    assert numbers == sorted(range(30), key=lambda number: (-(number % 3), number))


def test_tasks_together_never_take_more_than_there_is(cluster: Cluster) -> None:
    cluster.write_job(BULKY)
    master = cluster.start_master()
    cluster.start_controller(workers=3, settings={"resources": {"cpus": 3}})
    assert master.wait() == 0

    running: set[str] = set()
    most = 0
    for step in cluster.notes("steps"):
        what, tid = step.split()
        (running.add if what == "begin" else running.discard)(tid)
        assert sum(int(each[0]) for each in running) <= 3
        most = max(most, len(running))

    assert most >= 2
