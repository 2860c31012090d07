"""Compaction: smaller, complete, and harmless whoever interrupts it."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from cyclone.errors import AlreadyRunning, ConfigError, StoreCorrupt, StoreFull, TimedOut
from cyclone.messages import TaskEnd
from cyclone.model.changes import AttemptEnded, JobClosed, JobOpened, JobRemembers, TaskAccepted, TaskEnded
from cyclone.model.lifecycle import JobState, Outcome, State
from cyclone.model.task import Cause, End, Policy
from cyclone.store import compaction, file
from cyclone.store.compaction import compact
from cyclone.store.sqlite import SqliteStore


def contents(path: Path) -> dict[str, list[object]]:
    with closing(sqlite3.connect(path)) as connection:
        return {
            table: connection.execute(f"SELECT * FROM {table}").fetchall()
            for table in (*compaction._TABLES, "policy")
        }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with a little of everything, in a file that is much larger than that."""
    now = 1000.0
    with closing(SqliteStore(tmp_path / "store", "normal", clock=lambda: now)) as store:
        list(store.wake().live)
        store.remember([JobOpened(1, "gone"), JobOpened(2, "rounds"), JobRemembers(2, 50.0)], {}, {})
        for job, policy in ((1, Policy(kind="work.Gone")), (2, Policy(kind="work.Look"))):
            first = 1 + (job - 1) * 1000
            tasks = [TaskAccepted(n, job, f"t{n}", policy, ()) for n in range(first, first + 1000)]
            store.remember(tasks, {(job, task.tid): bytes(1000) for task in tasks}, {})
            ended = [task for task in tasks if task.job == 1 or task.number % 2]
            store.remember(
                [
                    *(
                        AttemptEnded(t.number, 1, "node", Cause.ERROR, End(t.number, outcome=Outcome.RAISED))
                        for t in ended
                    ),
                    *(
                        TaskEnded(t.number, job, "node", TaskEnd(t.tid, State.SUCCEEDED, 1, End(t.number)))
                        for t in ended
                    ),
                ],
                {},
                {task.number: b"v" for task in ended},
            )
        store.remember([JobClosed(1, JobState.SUCCEEDED)], {}, {})
        now += 60.0
        while store.forget(10.0):
            pass
    return tmp_path / "store"


def test_a_compacted_store_is_smaller_and_knows_the_same(path: Path) -> None:
    path.chmod(0o640)
    before = contents(path)

    before_bytes, after_bytes = compact(path)

    assert before_bytes > after_bytes == path.stat().st_size
    after = contents(path)
    assert [row[1] for row in before.pop("policy")] == ["work.Gone", "work.Look"]  # type: ignore[index]
    assert [row[1] for row in after.pop("policy")] == ["work.Look"]  # type: ignore[index]
    assert after == before
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sorted(os.listdir(path.parent)) == ["store", "store.lock"]
    with closing(SqliteStore(path)) as store:
        woken = store.wake()
        assert [task.number for task in woken.live] == list(range(1002, 2002, 2))
        assert (woken.last_job, woken.last_number) == (2, 2000)


def test_a_store_in_use_is_not_compacted(path: Path) -> None:
    with closing(SqliteStore(path)), pytest.raises(AlreadyRunning, match=str(os.getpid())):
        compact(path)


def test_a_store_that_somebody_reads_is_not_compacted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cyclone.store.database.BUSY_S", 0.1)
    before = contents(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("PRAGMA journal_mode=WAL")
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM job").fetchall()

        with pytest.raises(TimedOut, match="somebody reads it"):
            compact(path)

    assert contents(path) == before
    compact(path)


def test_what_is_not_there_is_not_compacted_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found no file"):
        compact(tmp_path / "nothing")

    assert os.listdir(tmp_path) == []


def test_a_compaction_is_not_begun_where_there_is_no_room_for_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(path)
    monkeypatch.setattr(file, "room_bytes", lambda directory: 10_000)

    with pytest.raises(StoreFull, match=r"found room for 10000 bytes beside it, expected \d+"):
        compact(path)

    assert contents(path) == before


COMPACTER = """
import sys
from cyclone.store.compaction import compact
sys.stdout.write("begun\\n")
sys.stdout.flush()
compact(sys.argv[1])
"""


def test_a_compaction_that_is_killed_loses_nothing(path: Path) -> None:
    dice = random.Random(6)
    before = contents(path)
    before.pop("policy")

    for _ in range(20):
        with subprocess.Popen(
            [sys.executable, "-c", COMPACTER, str(path)], stdout=subprocess.PIPE, text=True
        ) as compacter:
            assert compacter.stdout is not None
            compacter.stdout.readline()
            time.sleep(dice.uniform(0.0, 0.06))
            os.kill(compacter.pid, signal.SIGKILL)
        after = contents(path)
        after.pop("policy")
        assert after == before

    compact(path)
    assert sorted(os.listdir(path.parent)) == ["store", "store.lock"]


def test_a_damaged_store_is_left_as_it_is(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA writable_schema=1")
        connection.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'state TEXT NOT NULL', 'state TEXT') WHERE name = 'ended_badly'"
        )
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO ended_badly VALUES (1, NULL)")
    before = contents(path)

    with pytest.raises(StoreCorrupt, match="NOT NULL constraint failed"):
        compact(path)

    assert contents(path) == before
    assert not list(path.parent.glob(".store*"))


def test_a_store_that_is_cut_is_left_as_it_is(path: Path) -> None:
    with path.open("r+b") as file_:
        file_.truncate(20 * 8192)

    with pytest.raises(StoreCorrupt, match="expected an intact store"):
        compact(path)

    assert path.stat().st_size == 20 * 8192
