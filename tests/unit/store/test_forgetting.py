"""Forgetting on a disk: bounded slices, room that is used again, a full disk, a clock that was wrong, and kills."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest

from cyclone.errors import StoreFull
from cyclone.messages import TaskEnd
from cyclone.model.changes import Change, JobClosed, JobOpened, JobRemembers, TaskAccepted, TaskEnded
from cyclone.model.lifecycle import JobState, State
from cyclone.model.task import End, Policy
from cyclone.store.database import PAGE_BYTES
from cyclone.store.sqlite import SqliteStore

POLICY = Policy(kind="work.Look")


class Wall:
    """A clock of the wall."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def woken(path: Path, wall: Wall, *, disk_bytes: int = 0) -> SqliteStore:
    store = SqliteStore(path, "normal", clock=wall)
    if disk_bytes:
        store._db.read(f"PRAGMA max_page_count={disk_bytes // PAGE_BYTES}")
    list(store.wake().live)
    return store


def run(
    store: SqliteStore, numbers: Iterable[int], job: int = 1, *, payload: int = 100, end: bool = True
) -> None:
    tasks = [TaskAccepted(number, job, f"t{number}", POLICY, ()) for number in numbers]
    store.remember(tasks, {(job, task.tid): bytes(payload) for task in tasks}, {})
    if end:
        finish(store, [task.number for task in tasks], job)


def finish(store: SqliteStore, numbers: Iterable[int], job: int = 1) -> None:
    ends: list[Change] = [
        TaskEnded(number, job, "node", TaskEnd(f"t{number}", State.SUCCEEDED, 1, End(number)))
        for number in numbers
    ]
    store.remember(ends, {}, dict.fromkeys(numbers, b"v"))


def forget(store: SqliteStore, keep_s: float | None = 1.0) -> int:
    """All of it. Returns how many slices it took."""
    slices = 1
    while store.forget(keep_s, 0.0):
        slices += 1
    return slices


def rows(store: SqliteStore) -> dict[str, int]:
    tables = ("job", "job_count", "task", "parcel", "ended", "ended_badly", "attempt", "erasing", "late")
    return {table: store._db.read(f"SELECT count(*) FROM {table}")[0][0] for table in tables}


@pytest.fixture
def wall() -> Wall:
    return Wall()


def test_a_closed_job_is_unknown_at_once_and_its_rows_go_little_by_little(tmp_path: Path, wall: Wall) -> None:
    with closing(woken(tmp_path / "store", wall)) as store:
        store.remember([JobOpened(1, "night")], {}, {})
        run(store, range(1, 2001))
        store.remember([JobClosed(1, JobState.SUCCEEDED)], {}, {})
        wall.now += 1.0

        assert store.forget(1.0, 0.0)

        assert (store.jobs(), store.task("t1"), store.tasks()) == ([], None, ([], False))
        assert rows(store)["task"] == 2000
        assert forget(store) > 2000 / 64
        assert set(rows(store).values()) == {0}


def test_a_small_job_among_very_many_tasks_of_others_is_found_by_its_tids(tmp_path: Path, wall: Wall) -> None:
    with closing(woken(tmp_path / "store", wall)) as store:
        store.remember([JobOpened(1, "night"), JobOpened(2, "short")], {}, {})
        run(store, [1], job=2)
        run(store, range(2, 5000))
        run(store, [5000], job=2)
        store.remember([JobClosed(2, JobState.SUCCEEDED)], {}, {})
        wall.now += 1.0

        slices = forget(store)

        assert slices < 10
        assert rows(store)["task"] == 4998
        assert store.recall(1, ["t2", "t4999"]).keys() == {"t2", "t4999"}


@pytest.mark.parametrize("closed", [1, 2])
def test_of_jobs_that_share_their_parcels_only_the_forgotten_one_goes(
    tmp_path: Path, wall: Wall, closed: int
) -> None:
    with closing(woken(tmp_path / "store", wall)) as store:
        store.remember([JobOpened(1, "night"), JobOpened(2, "day")], {}, {})
        tasks = [TaskAccepted(number, 1 + number % 2, f"t{number}", POLICY, ()) for number in range(1, 301)]
        store.remember(tasks, {(task.job, task.tid): task.tid.encode() for task in tasks}, {})
        for job in (1, 2):
            finish(store, [task.number for task in tasks if task.job == job], job)
        store.remember([JobClosed(closed, JobState.SUCCEEDED)], {}, {})
        wall.now += 1.0

        forget(store)

        kept = [task for task in tasks if task.job != closed]
        assert len(store.recall(3 - closed, [task.tid for task in tasks])) == len(kept)
        assert [view.number for view in store.tasks()[0]] == [task.number for task in reversed(kept)]
        assert store.payloads([task.number for task in kept]) == [task.tid.encode() for task in kept]
        assert rows(store)["ended"] == rows(store)["task"] == len(kept)


def test_room_of_what_was_forgotten_is_used_again(tmp_path: Path, wall: Wall) -> None:
    sizes = []
    with closing(woken(tmp_path / "store", wall)) as store:
        for job in range(1, 11):
            store.remember([JobOpened(job, "night")], {}, {})
            run(store, range(job * 1000, job * 1000 + 1000), job)
            store.remember([JobClosed(job, JobState.SUCCEEDED)], {}, {})
            wall.now += 100.0
            forget(store, 150.0)
            sizes.append(store._db.read("PRAGMA page_count")[0][0])

    assert sizes[1] > sizes[0]
    assert sizes[-1] <= sizes[2] + 10


def test_a_job_that_never_ends_does_not_grow_for_ever(tmp_path: Path, wall: Wall) -> None:
    sizes = []
    with closing(woken(tmp_path / "store", wall)) as store:
        store.remember([JobOpened(1, "rounds"), JobRemembers(1, 100.0)], {}, {})
        for round in range(20):
            run(store, range(1 + round * 500, 1 + round * 500 + 500))
            wall.now += 50.0
            forget(store)
            sizes.append(store._db.read("PRAGMA page_count")[0][0])

        assert rows(store)["task"] <= 1500
        [job] = store.jobs()
        assert job.counts == {"succeeded": 10_000}
        assert job.forgotten == 10_000 - rows(store)["task"]
    assert sizes[-1] <= sizes[4] + 10


def test_what_was_looked_at_once_is_not_looked_at_again(tmp_path: Path, wall: Wall) -> None:
    with closing(woken(tmp_path / "store", wall)) as store:
        store.remember([JobOpened(1, "rounds"), JobRemembers(1, 100.0)], {}, {})
        run(store, range(1, 2001), end=False)
        wall.now += 100.0
        forget(store)
        reads: list[str] = []
        store._db._connection.set_trace_callback(reads.append)

        assert forget(store) == 1

        assert len(reads) < 15


def test_a_store_makes_room_by_forgetting(tmp_path: Path, wall: Wall) -> None:
    with closing(woken(tmp_path / "store", wall, disk_bytes=2_000_000)) as store:
        store.remember([JobOpened(1, "night"), JobOpened(2, "day")], {}, {})
        number = 1
        with contextlib.suppress(StoreFull):
            while number < 10_000:
                run(store, range(number, number + 10), payload=2000)
                number += 10
        assert number < 10_000
        finish(store, [task for task in range(1, number) if not store.recall(1, [f"t{task}"])])
        store.remember([JobClosed(1, JobState.SUCCEEDED)], {}, {})
        wall.now += 1.0

        forget(store)

        run(store, range(number + 10, number + 100), job=2, payload=2000)


def test_what_was_forgotten_takes_no_room(tmp_path: Path, wall: Wall) -> None:
    with closing(SqliteStore(tmp_path / "store", "normal", max_bytes=1_000_000, clock=wall)) as store:
        list(store.wake().live)
        store.remember([JobOpened(1, "night")], {}, {})
        run(store, range(1, 500), payload=3000)
        before = store.is_full
        store.remember([JobClosed(1, JobState.SUCCEEDED)], {}, {})
        wall.now += 1.0

        forget(store)

        assert (before, store.is_full) == (True, False)


def test_on_a_full_disk_nothing_is_forgotten_and_nothing_harmed(tmp_path: Path, wall: Wall) -> None:
    with closing(woken(tmp_path / "store", wall)) as store:
        store.remember([JobOpened(1, "rounds"), JobRemembers(1, 1.0)], {}, {})
        run(store, range(1, 200))
        wall.now += 1.0
        full = sqlite3.OperationalError("database or disk is full")
        full.sqlite_errorcode = sqlite3.SQLITE_FULL
        real = store._db.execute

        def fail(statement: str, *values: object) -> sqlite3.Cursor:
            if statement.startswith("UPDATE job SET swept"):
                raise full
            return real(statement, *values)

        store._db.execute = fail  # type: ignore[method-assign]
        for _ in range(3):
            with pytest.raises(StoreFull):
                store.forget(1.0)
        assert len(store.recall(1, [f"t{number}" for number in range(1, 200)])) == 199

        store._db.execute = real  # type: ignore[method-assign]
        forget(store)
        assert rows(store)["task"] == 0


def test_a_time_at_which_the_clock_was_wrong_holds_nothing_up(tmp_path: Path, wall: Wall) -> None:
    with closing(woken(tmp_path / "store", wall)) as store:
        store.remember([JobOpened(1, "rounds"), JobRemembers(1, 100.0)], {}, {})
        wall.now += 1e8
        run(store, range(1, 10))
        wall.now -= 1e8
        run(store, range(10, 200))
        wall.now += 100.0
        forget(store)

        assert rows(store)["task"] == 9

        wall.now += 1e8
        forget(store)
        assert rows(store)["task"] == 0


FORGETTER = """
import sys
from cyclone.store.sqlite import SqliteStore
store = SqliteStore(sys.argv[1], "normal", clock=lambda: 2_000_000.0)
list(store.wake().live)
print("awake", flush=True)
while store.forget(1.0, 0.0):
    pass
print("done", flush=True)
"""


def test_a_store_whose_forgetting_is_killed_again_and_again_is_sound(tmp_path: Path, wall: Wall) -> None:
    path = tmp_path / "store"
    with closing(woken(path, wall)) as store:
        jobs: list[Change] = [
            JobOpened(1, "night"),
            JobOpened(2, "rounds"),
            JobRemembers(2, 1.0),
            JobOpened(3, "day"),
        ]
        store.remember(jobs, {}, {})
        for first in range(1, 12_000, 30):
            run(store, range(first, first + 10), job=1)
            run(store, range(first + 10, first + 20), job=2, end=first > 600)
            run(store, range(first + 20, first + 30), job=3)
        store.remember([JobClosed(1, JobState.SUCCEEDED)], {}, {})
    dice = random.Random(3)
    kills = 0

    while True:
        with subprocess.Popen(
            [sys.executable, "-c", FORGETTER, str(path)], stdout=subprocess.PIPE, text=True
        ) as forgetter:
            assert forgetter.stdout is not None
            forgetter.stdout.readline()
            time.sleep(dice.uniform(0.0, 0.03))
            os.kill(forgetter.pid, signal.SIGKILL)
            if forgetter.stdout.readline():
                break
        kills += 1
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        if kills == 30:
            break

    with closing(woken(path, wall)) as store:
        wall.now = 2_000_000.0
        forget(store)
        live = [n for first in range(1, 12_000, 30) if first <= 600 for n in range(first + 10, first + 20)]
        day = [n for first in range(1, 12_000, 30) for n in range(first + 20, first + 30)]
        assert rows(store)["task"] == len(live) + len(day)
        assert len(store.recall(3, [f"t{number}" for number in day])) == len(day)
        [rounds] = [job for job in store.jobs() if job.number == 2]
        assert rounds.forgotten == rounds.counts["succeeded"] == 4000 - len(live)
    with closing(SqliteStore(path)) as store:
        assert [task.number for task in store.wake().live] == live
    assert kills > 3
