"""A store of an earlier version becomes one of this version when it is opened, or stays as it is."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cyclone.model.changes import JobRemembers
from cyclone.model.lifecycle import JobState, State
from cyclone.store import database
from cyclone.store.sqlite import SqliteStore

#: When the store was made that lies beside this file.
MADE_AT = 1_700_000_060.0


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A store as the code of the first version has written it, read back by `sqlite3`'s iterdump."""
    path = tmp_path / "store"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(Path(__file__).with_name("version-1.sql").read_text())
    return path


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def layout(path: Path) -> Iterator[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master ORDER BY name").fetchall():
            yield name, *connection.execute(f"PRAGMA table_xinfo({name})")


def test_all_that_a_store_of_the_first_version_knew_is_known_after_its_upgrade(first: Path) -> None:
    with closing(SqliteStore(first, clock=lambda: MADE_AT)) as store:
        assert store.beginning == "it was upgraded from version 1 to version 2"
        woken = store.wake()
        live = [(task.number, task.job, task.tid, task.after) for task in woken.live]

        assert (woken.epoch, woken.store) == (2036054, "9c74ff8b7ed18a9c")
        assert (woken.last_job, woken.last_number) == (3, 9)
        assert (woken.jobs, woken.sealed) == ({2: "rounds", 3: "sealed"}, {3: JobState.SEALED})
        assert live == [(4, 2, "y", ()), (6, 2, "z", ()), (7, 2, "zz", ("z",)), (9, 3, "last", ())]
        assert [placed.numbers for placed in woken.placements] == [(6, 8)]
        assert [attempt.number for attempt in woken.attempts] == [4]
        assert store.recall(2, ["x", "y"])["x"][1] == b"value of x"
        [view] = store.tasks(states=[State.FAILED])[0]
        assert (view.job, view.tid, view.attempts) == ("night", "b", 2)
        assert store.payloads([6, 9]) == [b"payload of z", b"payload of last"]
    assert version(first) == database.VERSION


def test_what_a_store_of_the_first_version_knew_is_forgotten_like_anything_else(first: Path) -> None:
    now = MADE_AT
    with closing(SqliteStore(first, clock=lambda: now)) as store:
        list(store.wake().live)
        store.remember([JobRemembers(2, 3600.0)], {}, {})
        now += 3600.0

        while store.forget(3600.0):
            pass

        # Both jobs had tasks in one parcel.
        assert [job.number for job in store.jobs()] == [3, 2]
        assert store.recall(2, ["x", "ost-0012@2023-11-14T22:15"]) == {}
        assert store.payloads([4, 6, 7, 9])[0] == b"payload of y"
    with closing(SqliteStore(first)) as store:
        assert [task.number for task in store.wake().live] == [4, 6, 7, 9]


def test_a_store_that_was_upgraded_looks_like_a_new_one(first: Path, tmp_path: Path) -> None:
    SqliteStore(tmp_path / "new").close()
    with closing(SqliteStore(first)) as store:
        assert store.beginning
    with closing(SqliteStore(first)) as store:
        assert store.beginning == ""

    assert list(layout(first)) == list(layout(tmp_path / "new"))


def test_an_upgrade_that_fails_leaves_the_store_as_it_was(
    first: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = list(layout(first))
    steps = database.STEPS
    monkeypatch.setattr(database, "STEPS", (steps[0], (*steps[1], "INSERT INTO nowhere VALUES (1)")))

    with pytest.raises(Exception, match="nowhere"):
        SqliteStore(first)

    assert (version(first), list(layout(first))) == (1, before)
    monkeypatch.undo()
    SqliteStore(first).close()
    assert version(first) == database.VERSION


UPGRADER = """
import sys
from cyclone.store.sqlite import SqliteStore
sys.stdout.write("begun\\n")
sys.stdout.flush()
SqliteStore(sys.argv[1]).close()
"""


def test_an_upgrade_that_is_killed_leaves_one_version_or_the_other(first: Path, tmp_path: Path) -> None:
    dice = random.Random(4)
    whole = first.read_bytes()
    seen = set()
    layouts = {1: list(layout(first))}
    SqliteStore(tmp_path / "new").close()
    layouts[2] = list(layout(tmp_path / "new"))

    for _ in range(25):
        first.write_bytes(whole)
        with subprocess.Popen(
            [sys.executable, "-c", UPGRADER, str(first)], stdout=subprocess.PIPE, text=True
        ) as upgrader:
            assert upgrader.stdout is not None
            upgrader.stdout.readline()
            time.sleep(dice.uniform(0.0, 0.04))
            os.kill(upgrader.pid, signal.SIGKILL)

        found = version(first)
        seen.add(found)
        assert list(layout(first)) == layouts[found]
        with closing(SqliteStore(first)) as store:
            assert [task.number for task in store.wake().live] == [4, 6, 7, 9]
        Path(f"{first}-wal").unlink(missing_ok=True)
        Path(f"{first}-shm").unlink(missing_ok=True)
    assert seen <= {1, 2}
