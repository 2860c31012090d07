"""A back-up is the store of one moment, whole or not at all, and what is started from it uses nothing twice."""

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

from cyclone.errors import ConfigError, StoreCorrupt, StoreFull, StoreVersionError
from cyclone.model.changes import JobClosed, JobOpened, TaskAccepted
from cyclone.model.lifecycle import JobState
from cyclone.model.task import Policy
from cyclone.store import backup, database, file
from cyclone.store.backup import back_up
from cyclone.store.sqlite import SqliteStore

POLICY = Policy(kind="work.Look")


def woken(path: Path) -> SqliteStore:
    store = SqliteStore(path, "normal")
    list(store.wake().live)
    return store


def accept(store: SqliteStore, numbers: range, payload: bytes = b"p") -> None:
    tasks = [TaskAccepted(number, 1, f"t{number}", POLICY, ()) for number in numbers]
    store.remember(tasks, {(1, task.tid): payload for task in tasks}, {})


def live(path: Path) -> list[int]:
    with closing(SqliteStore(path)) as store:
        return [task.number for task in store.wake().live]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with closing(woken(tmp_path / "store")) as store:
        store.remember([JobOpened(1, "night")], {}, {})
        accept(store, range(1, 501), bytes(2000))
    return tmp_path / "store"


def test_a_back_up_is_the_store_of_the_moment_whether_it_is_in_use_or_not(path: Path, tmp_path: Path) -> None:
    back_up(path, tmp_path / "resting")
    with closing(woken(path)) as store:
        accept(store, range(501, 601))
        back_up(path, tmp_path / "used")
        accept(store, range(601, 701))

    assert live(tmp_path / "resting") == list(range(1, 501))
    assert live(tmp_path / "used") == list(range(1, 601))
    assert live(path) == list(range(1, 701))


def test_a_back_up_is_for_its_owner_alone_and_leaves_nothing_beside_it(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "kept" / "copy"
    target.parent.mkdir()
    before = sorted(os.listdir(tmp_path))

    size = back_up(path, target)

    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert size == target.stat().st_size
    assert os.listdir(target.parent) == ["copy"]
    assert sorted(os.listdir(tmp_path)) == before


def test_a_file_is_not_replaced_without_being_told_to(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    target.write_text("precious")

    with pytest.raises(ConfigError, match="found a file, expected none"):
        back_up(path, target)
    assert target.read_text() == "precious"

    back_up(path, target, replace=True)
    assert live(target) == list(range(1, 501))


@pytest.mark.parametrize("replace", [False, True])
def test_a_directory_is_not_taken_for_a_file(path: Path, tmp_path: Path, replace: bool) -> None:
    target = tmp_path / "copies"
    target.mkdir()

    with pytest.raises(ConfigError, match="copies: found a directory, expected the name of a file"):
        back_up(path, target, replace=replace)

    assert os.listdir(target) == []


def test_a_file_that_comes_while_the_back_up_is_made_is_not_replaced(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "copy"
    mark = backup._mark

    def mark_late(part: Path, copy: Path, copied_at: int) -> None:
        target.write_text("precious")
        mark(part, copy, copied_at)

    monkeypatch.setattr(backup, "_mark", mark_late)

    with pytest.raises(ConfigError, match="was not there before"):
        back_up(path, target)

    assert target.read_text() == "precious"
    assert not list(tmp_path.glob("*.part"))
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize("replace", [False, True])
def test_the_store_is_not_copied_onto_itself(path: Path, tmp_path: Path, replace: bool) -> None:
    (tmp_path / "link").symlink_to(path)

    for target in (path, tmp_path / "link"):
        with pytest.raises(ConfigError):
            back_up(path, target, replace=replace)

    assert live(path) == list(range(1, 501))


@pytest.mark.parametrize("kind", ["-wal", "-shm", "-journal", ".lock"])
def test_the_store_is_not_copied_over_what_lies_beside_it(path: Path, kind: str) -> None:
    own = path.with_name(path.name + kind)

    with closing(woken(path)) as store:
        accept(store, range(501, 601))
        before = own.read_bytes() if own.exists() else None
        with pytest.raises(ConfigError, match="found a file of the store itself"):
            back_up(path, own, replace=True)
        after = own.read_bytes() if own.exists() else None

    assert after == before


def test_what_is_no_store_is_not_copied(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found no file"):
        back_up(tmp_path / "nothing", tmp_path / "copy")
    (tmp_path / "text").write_text("no database" * 100)
    with pytest.raises(StoreCorrupt):
        back_up(tmp_path / "text", tmp_path / "copy")
    with closing(sqlite3.connect(tmp_path / "other")) as other:
        other.execute("CREATE TABLE a (b)")
    with pytest.raises(StoreCorrupt, match="application id"):
        back_up(tmp_path / "other", tmp_path / "copy")
    SqliteStore(tmp_path / "newer").close()
    with closing(sqlite3.connect(tmp_path / "newer")) as newer:
        newer.execute("PRAGMA user_version=99")
    with pytest.raises(StoreVersionError, match="version 99"):
        back_up(tmp_path / "newer", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_damaged_store_has_no_back_up(path: Path, tmp_path: Path) -> None:
    with open(path, "r+b") as damaged:
        damaged.seek(20 * 8192)
        damaged.write(b"\xff" * 8192)

    with pytest.raises(StoreCorrupt):
        back_up(path, tmp_path / "copy")

    assert not (tmp_path / "copy").exists()
    assert not list(tmp_path.glob(".copy*"))


def test_a_back_up_is_not_begun_where_there_is_no_room_for_it(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file, "room_bytes", lambda directory: 10_000)

    with pytest.raises(StoreFull, match=r"found room for 10000 bytes, expected \d+"):
        back_up(path, tmp_path / "copy")

    assert not list(tmp_path.glob("*copy*"))


def test_a_back_up_is_given_up_before_the_disk_of_the_store_is_full(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = iter([10**9, 10**9, 10**9, 10**8])
    monkeypatch.setattr(file, "room_bytes", lambda directory: next(rooms))
    monkeypatch.setattr(backup, "_PAGES", 10)

    with pytest.raises(StoreFull, match="the back-up is given up"):
        back_up(path, tmp_path / "copy")

    assert not list(tmp_path.glob("*copy*"))
    with closing(woken(path)) as store:
        accept(store, range(501, 502))


BACKER = """
import sys
from pathlib import Path
from cyclone.store.backup import back_up
sys.stdout.write("begun\\n")
sys.stdout.flush()
back_up(sys.argv[1], Path(sys.argv[2]), replace=True)
"""


def test_a_back_up_that_is_killed_leaves_the_former_one_or_the_new_one(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "kept" / "copy"
    target.parent.mkdir()
    back_up(path, target)
    with closing(woken(path)) as store:
        accept(store, range(501, 601))
    dice = random.Random(5)

    for _ in range(20):
        with subprocess.Popen(
            [sys.executable, "-c", BACKER, str(path), str(target)], stdout=subprocess.PIPE, text=True
        ) as backer:
            assert backer.stdout is not None
            backer.stdout.readline()
            time.sleep(dice.uniform(0.0, 0.04))
            os.kill(backer.pid, signal.SIGKILL)
        database.expect_whole(target, database.BACKUP_ID)

    # What they have left is removed by the next one.
    back_up(path, target, replace=True)
    assert os.listdir(target.parent) == ["copy"]
    assert live(target) == list(range(1, 601))


def test_what_another_back_up_works_on_is_left_alone(tmp_path: Path) -> None:
    with (
        file.whole(tmp_path / "copy", replace=True) as first,
        file.whole(tmp_path / "copy", replace=True) as second,
    ):
        first.write_text("first")
        second.write_text("second")

    assert (tmp_path / "copy").read_text() == "first"
    assert os.listdir(tmp_path) == ["copy"]


# Restoring.


def test_a_store_from_a_back_up_uses_no_epoch_and_no_job_number_that_was_used_since(
    path: Path, tmp_path: Path
) -> None:
    back_up(path, tmp_path / "copy")
    used = []
    for _ in range(50):
        with closing(SqliteStore(path)) as store:
            used.append(store.wake().epoch)
    with closing(woken(path)) as store:
        jobs = range(2, 1000)
        store.remember([JobOpened(number, "since") for number in jobs], {}, {})
        store.remember([JobClosed(number, JobState.SUCCEEDED) for number in jobs], {}, {})

    with closing(SqliteStore(tmp_path / "copy")) as restored:
        assert restored.beginning == "a back-up was made a store"
        woken_anew = restored.wake()
        list(woken_anew.live)

        assert woken_anew.epoch > max(used)
        assert woken_anew.last_job >= max(jobs)
    with closing(SqliteStore(tmp_path / "copy")) as later:
        assert later.beginning == ""
        again = later.wake()
        assert (again.epoch, again.last_job) == (woken_anew.epoch + 1, woken_anew.last_job)


def test_a_store_from_an_old_back_up_begins_after_epochs_that_came_by_the_clock(tmp_path: Path) -> None:
    now = 1_800_000_000.0
    path = tmp_path / "store"
    with closing(SqliteStore(path, clock=lambda: now)) as store:
        store.wake()
    back_up(path, tmp_path / "copy")
    now += 300 * 86_400
    used = []
    for _ in range(5):
        with closing(SqliteStore(path, clock=lambda: now)) as store:
            used.append(store.wake().epoch)

    with closing(SqliteStore(tmp_path / "copy", clock=lambda: now)) as restored:
        assert restored.wake().epoch > max(used)


@pytest.mark.parametrize("generations", [1, 2])
def test_what_is_made_of_the_same_back_up_twice_uses_nothing_of_one_another(
    path: Path, tmp_path: Path, generations: int
) -> None:
    now = 1_800_000_000.0

    def clock() -> float:
        return now

    for generation in range(generations):
        back_up(path, tmp_path / f"copy{generation}", clock=clock)
        path = tmp_path / f"place{generation}"
        path.write_bytes((tmp_path / f"copy{generation}").read_bytes())
        with closing(SqliteStore(path, clock=clock)) as store:
            list(store.wake().live)
    copy = (tmp_path / f"copy{generations - 1}").read_bytes()
    used = []
    for trial in range(15):
        place = tmp_path / f"trial{trial // 5}"
        if trial % 5 == 0:
            place.write_bytes(copy)
            now += 600
        with closing(SqliteStore(place, clock=clock)) as store:
            woken_anew = store.wake()
            used.append((woken_anew.epoch, woken_anew.last_job))

    epochs = [epoch for epoch, _ in used]
    assert sorted(set(epochs)) == epochs
    assert len({last_job for _, last_job in used}) == 3


def test_a_back_up_that_was_damaged_on_its_way_is_not_made_a_store(path: Path, tmp_path: Path) -> None:
    back_up(path, tmp_path / "copy")
    whole = (tmp_path / "copy").read_bytes()
    for name, carried in {
        "cut": whole[: 20 * 8192],
        "overwritten": whole[: 20 * 8192] + b"\xff" * 8192 + whole[21 * 8192 :],
    }.items():
        (tmp_path / name).write_bytes(carried)

        with (
            pytest.raises(StoreCorrupt, match="expected an intact store of Cyclone"),
            closing(SqliteStore(tmp_path / name)),
        ):
            pass

        assert (tmp_path / name).read_bytes() == carried


OPENER = """
import sys
from cyclone.store.sqlite import SqliteStore
sys.stdout.write("begun\\n")
sys.stdout.flush()
store = SqliteStore(sys.argv[1])
sys.stdout.write(f"{store.wake().epoch}\\n")
sys.stdout.flush()
"""


def test_a_back_up_whose_first_opening_is_killed_is_still_one_or_a_store(path: Path, tmp_path: Path) -> None:
    back_up(path, tmp_path / "copy")
    with closing(SqliteStore(path)) as store:
        used = store.wake().epoch
    dice = random.Random(7)

    for trial in range(15):
        place = tmp_path / f"place{trial}"
        place.write_bytes((tmp_path / "copy").read_bytes())
        with subprocess.Popen(
            [sys.executable, "-c", OPENER, str(place)], stdout=subprocess.PIPE, text=True
        ) as opener:
            assert opener.stdout is not None
            opener.stdout.readline()
            time.sleep(dice.uniform(0.0, 0.05))
            os.kill(opener.pid, signal.SIGKILL)
            told = opener.stdout.readline()

        with closing(SqliteStore(place)) as restored:
            woken_anew = restored.wake()
            assert woken_anew.epoch > max(used, int(told or 0))
            assert woken_anew.last_job > 1_000_000
            assert [task.number for task in woken_anew.live] == list(range(1, 501))
        place.unlink()


def test_a_back_up_beside_the_log_of_the_store_that_lay_there_is_refused(path: Path, tmp_path: Path) -> None:
    back_up(path, tmp_path / "copy")
    with closing(woken(path)) as store:
        accept(store, range(501, 601))
        log = Path(f"{path}-wal").read_bytes()
    (tmp_path / "place").write_bytes((tmp_path / "copy").read_bytes())
    (tmp_path / "place-wal").write_bytes(log)

    with pytest.raises(StoreCorrupt, match="found a back-up beside place-wal"):
        SqliteStore(tmp_path / "place")

    (tmp_path / "place-wal").unlink()
    assert live(tmp_path / "place") == list(range(1, 501))


def test_a_back_up_of_a_store_of_the_first_version_is_upgraded_as_well(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "first")) as connection:
        connection.executescript(Path(__file__).with_name("version-1.sql").read_text())
    back_up(tmp_path / "first", tmp_path / "copy")

    with closing(SqliteStore(tmp_path / "copy")) as restored:
        assert "a back-up was made a store; it was upgraded from version 1" in restored.beginning
        assert [task.number for task in restored.wake().live] == [4, 6, 7, 9]
