"""What only a store on a disk can do: be killed, lose power, be full, damaged, foreign, and slow."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import audited_store
import pytest

from cyclone.errors import AlreadyRunning, RuleBroken, StoreCorrupt, StoreError, StoreFull, StoreVersionError
from cyclone.messages import TaskEnd
from cyclone.model.changes import JobOpened, TaskAccepted, TaskEnded
from cyclone.model.lifecycle import State
from cyclone.model.task import End, Policy
from cyclone.store import file, sqlite
from cyclone.store.database import PAGE_BYTES, explained
from cyclone.store.sqlite import SqliteStore

POLICY = Policy(kind="work.Move")


def woken(
    path: Path, durability: str = "full", *, disk_bytes: int = 0, payload_cache_bytes: int = 2**20
) -> SqliteStore:
    """disk_bytes: room that the disk has for it; 0 for as much as it wants."""
    store = SqliteStore(path, durability, payload_cache_bytes=payload_cache_bytes)
    if disk_bytes:
        store._db.read(f"PRAGMA max_page_count={disk_bytes // PAGE_BYTES}")
    list(store.wake().live)
    return store


def accept(store: SqliteStore, numbers: Iterable[int], payload: bytes = b"p") -> None:
    tasks = [TaskAccepted(number, 1, f"t{number}", POLICY, ()) for number in numbers]
    store.remember(tasks, {(1, task.tid): payload for task in tasks}, {})


def end(store: SqliteStore, numbers: Iterable[int], state: State = State.SUCCEEDED) -> None:
    ends = [TaskEnded(n, 1, "node", TaskEnd(f"t{n}", state, 1, End(n))) for n in numbers]
    store.remember(ends, {}, dict.fromkeys(numbers, b"v"))


def live(path: Path) -> list[int]:
    with closing(SqliteStore(path)) as store:
        return [task.number for task in store.wake().live]


def wake_all(store: SqliteStore) -> None:
    list(store.wake().live)


# Killed, and without power.

WRITER = """
import sys
from cyclone.model.changes import JobOpened, TaskAccepted
from cyclone.model.task import Policy
from cyclone.store.sqlite import SqliteStore

store = SqliteStore(sys.argv[1], sys.argv[2])
woken = store.wake()
list(woken.live)
if not woken.jobs:
    store.remember([JobOpened(1, "night")], {}, {})
number = woken.last_number
while True:
    tasks = [TaskAccepted(number + i, 1, f"t{number + i}", Policy(), ()) for i in range(1, 21)]
    store.remember(tasks, {(1, task.tid): task.tid.encode() for task in tasks}, {})
    number += 20
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_nothing_that_was_acknowledged_is_lost_when_the_process_is_killed(
    tmp_path: Path, durability: str
) -> None:
    chance = random.Random(1)
    acknowledged = 0
    for _ in range(20):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "store"), durability],
            stdout=subprocess.PIPE,
            text=True,
        ) as writer:
            assert writer.stdout is not None
            for _ in range(chance.randint(1, 40)):
                acknowledged = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            # What it had said before the signal reached it was acknowledged as well.
            complete = [line for line in writer.stdout.readlines() if line.endswith("\n")]
            acknowledged = int(complete[-1]) if complete else acknowledged

        with closing(SqliteStore(tmp_path / "store")) as store:
            numbers = [task.number for task in store.wake().live]
            assert numbers == list(range(1, len(numbers) + 1))
            assert len(numbers) >= acknowledged
            assert store.payloads(numbers[-50:]) == [f"t{number}".encode() for number in numbers[-50:]]


def test_nothing_that_was_acknowledged_is_lost_when_the_power_fails(tmp_path: Path) -> None:
    # The disk holds all that was synced, and of what was written after that anything or nothing.
    path = tmp_path / "store"
    log = Path(f"{path}-wal")
    with closing(woken(path)) as store:
        store.remember([JobOpened(1, "night")], {}, {})
        synced = []
        for number in range(1, 25):
            accept(store, [number], payload=bytes(number * 500))
            store.sync()
            synced.append(log.stat().st_size)
        whole, main = log.read_bytes(), path.read_bytes()
    assert synced == sorted(set(synced))
    chance = random.Random(2)

    for trial in range(200):
        count = chance.randrange(len(synced))
        size = synced[count]
        after = whole[size:]
        match trial % 4:
            case 0:
                rest = b""
            case 1:
                rest = after[: chance.randint(0, len(after))]
            case 2:
                rest = chance.randbytes(len(after))
            case _:
                rest = bytes(byte if chance.random() < 0.9 else byte ^ 0x41 for byte in after[:40_000])
        other = tmp_path / f"cut{trial}"
        other.write_bytes(main)
        Path(f"{other}-wal").write_bytes(whole[:size] + rest)

        found = live(other)

        assert found[: count + 1] == list(range(1, count + 2))
        assert found == list(range(1, len(found) + 1))
        other.unlink()


def test_an_epoch_is_always_synced(tmp_path: Path) -> None:
    seen: list[str] = []
    with closing(SqliteStore(tmp_path / "store", "normal")) as store:
        connection = store._db._connection
        connection.set_trace_callback(seen.append)
        store.wake()
        connection.set_trace_callback(None)

        # What SQLite copies into the file it syncs before: 1 is NORMAL (sqlite.org/pragma.html#pragma_synchronous).
        assert connection.execute("PRAGMA synchronous").fetchone() == (1,)
    update = next(place for place, statement in enumerate(seen) if statement.startswith("UPDATE meta"))
    assert "PRAGMA synchronous=FULL" in seen[:update]


@pytest.mark.parametrize(("durability", "syncs"), [("full", True), ("normal", False)])
def test_what_was_remembered_is_synced_when_the_caller_says_so_and_durability_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: str, syncs: bool
) -> None:
    path = tmp_path / "store"
    synced: list[Path] = []
    really = os.fdatasync

    def note(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        really(descriptor)

    with closing(woken(path, durability=durability)) as store:
        monkeypatch.setattr(os, "fdatasync", note)
        store.remember([JobOpened(1, "night")], {}, {})
        assert synced == []

        store.sync()
        store.sync()
        assert synced == [Path(f"{path}-wal")] * syncs

        store.remember([JobOpened(2, "day")], {}, {})
        store.sync()

    assert synced == [Path(f"{path}-wal")] * (2 * syncs)


def test_a_sync_that_fails_is_an_error_and_no_lack_of_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store"

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with closing(woken(path)) as store:
        store.remember([JobOpened(1, "night")], {}, {})
        monkeypatch.setattr(os, "fdatasync", fail)

        with pytest.raises(StoreError, match=rf"{path}-wal: cannot be synced: No space left") as raised:
            store.sync()

    assert not isinstance(raised.value, StoreFull)


# Full.


def test_a_full_store_writes_nothing_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with closing(woken(path, disk_bytes=1_000_000)) as store:
        store.remember([JobOpened(1, "night")], {}, {})
        accept(store, [1], bytes(600_000))

        for _ in range(3):
            with pytest.raises(StoreFull, match=str(path)):
                accept(store, range(2, 200), bytes(10_000))

        assert store.task("t2") is None
        accept(store, [2], b"small")
        assert store.payloads([2]) == [b"small"]
        store._db._connection.execute("PRAGMA max_page_count=100000")
        accept(store, range(3, 200), bytes(10_000))
    assert live(path) == list(range(1, 200))


def test_a_full_store_can_be_opened_with_a_higher_limit(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with closing(woken(path, disk_bytes=300_000)) as store:
        store.remember([JobOpened(1, "night")], {}, {})
        with pytest.raises(StoreFull):
            accept(store, [1], bytes(400_000))

    with closing(woken(path, disk_bytes=900_000)) as store:
        accept(store, [1], bytes(400_000))

    assert live(path) == [1]


def test_a_store_that_is_larger_than_it_should_be_says_so_and_goes_on(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "store", max_bytes=500_000)) as store:
        list(store.wake().live)
        store.remember([JobOpened(1, "night")], {}, {})
        before = store.is_full
        accept(store, [1, 2], bytes(300_000))

        end(store, [1, 2])

        assert (before, store.is_full) == (False, True)


def test_a_store_without_a_bound_is_never_full(tmp_path: Path) -> None:
    with closing(woken(tmp_path / "store")) as store:
        store.remember([JobOpened(1, "night")], {}, {})
        accept(store, [1], bytes(300_000))

        assert not store.is_full


def test_a_full_store_can_be_closed_though_it_cannot_list_its_live_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store"
    store = woken(path, disk_bytes=300_000)
    store.remember([JobOpened(1, "night")], {}, {})
    accept(store, [1, 2, 3, 20_000])
    end(store, [1, 2, 3, 20_000])
    monkeypatch.setattr(store._blocks, "listed", lambda last: bytes(400_000))
    with pytest.raises(StoreFull):
        store.remember([JobOpened(2, "day")], {}, {})

    store.close()

    assert live(path) == []


OUTGROW = """
import resource, sys
from cyclone.errors import StoreFull, StoreError
from cyclone.model.changes import JobOpened
from cyclone.store import file
from cyclone.store.sqlite import SqliteStore

store = SqliteStore(sys.argv[1])
list(store.wake().live)
file.has_room = lambda directory: sys.argv[2] == "room"
before = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
try:
    store.remember([JobOpened(1, "x" * 1_000_000)], {}, {})
except StoreError as error:
    print(type(error).__name__)
resource.setrlimit(resource.RLIMIT_FSIZE, before)
if sys.argv[2] != "room":
    store.remember([JobOpened(1, "x" * 1_000_000)], {}, {})
store.close()
"""


@pytest.mark.parametrize(("room", "kind"), [("room", "StoreError"), ("none", "StoreFull")])
def test_a_failed_write_is_an_error_of_the_disk_unless_there_is_no_room(
    tmp_path: Path, room: str, kind: str
) -> None:
    told = subprocess.run(
        [sys.executable, "-c", OUTGROW, str(tmp_path / "store"), room],
        capture_output=True,
        text=True,
        check=True,
    )

    assert told.stdout.split() == [kind]


@pytest.mark.parametrize(
    ("code", "kind"), [(sqlite3.SQLITE_IOERR_WRITE, StoreFull), (sqlite3.SQLITE_IOERR_FSYNC, StoreError)]
)
def test_a_failed_fsync_is_never_a_lack_of_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[StoreError]
) -> None:
    monkeypatch.setattr(file, "has_room", lambda _: False)
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code

    assert type(explained(tmp_path / "store", error)) is kind


UNCOPIED = """
import os, resource, sys
from cyclone.errors import StoreError, StoreFull
from cyclone.model.changes import JobOpened, TaskAccepted
from cyclone.model.task import Policy
from cyclone.store import database
from cyclone.store.sqlite import SqliteStore

database._LOG_PAGES = 8
path = sys.argv[1]

def accept(store, number, size):
    store.remember([TaskAccepted(number, 1, str(number), Policy(), ())], {(1, str(number)): bytes(size)}, {})

store = SqliteStore(path)
list(store.wake().live)
store.remember([JobOpened(1, "night")], {}, {})
accept(store, 1, 4 * 2**20)
store.close()
store = SqliteStore(path)
list(store.wake().live)
resource.setrlimit(resource.RLIMIT_FSIZE, (os.stat(path).st_size, resource.RLIM_INFINITY))
try:
    for number in range(2, 1000):
        accept(store, number, 8000)
except StoreError as error:
    print(type(error).__name__, os.stat(path + "-wal").st_size)
"""


def test_a_log_that_cannot_be_copied_into_the_store_ends_it_before_it_fills_the_disk(tmp_path: Path) -> None:
    """The file cannot grow any more, and the log can, which is what a failing disk may look like."""
    told = subprocess.run(
        [sys.executable, "-c", UNCOPIED, str(tmp_path / "store")], capture_output=True, text=True, check=True
    )

    kind, log_bytes = told.stdout.split()
    assert kind == "StoreError"
    assert int(log_bytes) < 2**20


# Foreign, damaged, taken.


def test_a_file_that_is_no_database_is_refused_by_name_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store"
    path.write_text("shopping list\n" * 100)

    with pytest.raises(StoreCorrupt, match=rf"{path}: found .* no database, expected a store of Cyclone\Z"):
        SqliteStore(path)

    assert path.read_text() == "shopping list\n" * 100


def test_the_database_of_somebody_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE mine (x)")
    before = path.read_bytes()

    with pytest.raises(StoreCorrupt, match=rf"{path}: found .* application id 0x0, expected .*0x43796353"):
        SqliteStore(path)

    assert path.read_bytes() == before


def test_a_store_of_another_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store"
    SqliteStore(path).close()
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version=99")
    before = path.read_bytes()

    expected = rf"{path}: found a store of version 99, expected version 2 or an older one\Z"
    with pytest.raises(StoreVersionError, match=expected):
        SqliteStore(path)

    assert path.read_bytes() == before


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    # It is what is left when the very first start was killed.
    (tmp_path / "store").touch()

    assert live(tmp_path / "store") == []


def test_a_damaged_page_is_told_as_damage(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with closing(woken(path)) as store:
        store.remember([JobOpened(1, "night")], {}, {})
        accept(store, range(1, 300), bytes(1000))
    content = bytearray(path.read_bytes())
    for start in range(8192, len(content), 8192):
        content[start : start + 100] = b"\xff" * 100
    path.write_bytes(content)

    with pytest.raises(StoreCorrupt, match="damaged"):
        live(path)


def test_damage_inside_a_value_is_told_as_damage(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with closing(woken(path)) as store:
        store.remember([JobOpened(1, "night")], {}, {})
        accept(store, [1])
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("UPDATE policy SET body = x'c1'")

    with pytest.raises(StoreCorrupt, match="damaged"):
        live(path)


#: `{what is damaged: (how, who touches it)}`; who wakes up has damage told at once.
DAMAGES: dict[str, tuple[str, Callable[[SqliteStore], object]]] = {
    "an epoch that is none": ("UPDATE meta SET value = 'x' WHERE key = 'epoch'", wake_all),
    "no epoch": ("DELETE FROM meta WHERE key = 'epoch'", wake_all),
    "the last epoch": (f"UPDATE meta SET value = {2**63 - 1} WHERE key = 'epoch'", wake_all),
    "no identity": ("DELETE FROM meta WHERE key = 'identity'", wake_all),
    "live blocks that are no bytes": ("INSERT OR REPLACE INTO meta VALUES ('live_blocks', 5)", wake_all),
    "live blocks that are none": ("INSERT OR REPLACE INTO meta VALUES ('live_blocks', x'c1')", wake_all),
    "live blocks that come twice": ("INSERT OR REPLACE INTO meta VALUES ('live_blocks', x'9208920000')", wake_all),
    "a state of a job that is none": ("UPDATE job SET state = 'odd' WHERE number = 2", wake_all),
    "a name that is no text": ("UPDATE job SET name = CAST(x'ff' AS TEXT) WHERE number = 2", wake_all),
    "a duration that is none": ("UPDATE job SET remember_s = 'x' WHERE number = 2", wake_all),
    "a job that is gone": ("DELETE FROM job WHERE number = 2", wake_all),
    "a cause that is none": ("UPDATE attempt SET cause = 'weather' WHERE task = 6", wake_all),
    "an outcome that is no bytes": ("UPDATE attempt SET \"end\" = 5 WHERE task = 6", wake_all),
    "an outcome that is no text": (
        "UPDATE attempt SET \"end\" = CAST(replace(\"end\", CAST('raised' AS BLOB), x'ff61697365e4') AS BLOB)"
        " WHERE task = 6", wake_all),
    "a placement of nothing": ("UPDATE placement SET numbers = 'x'", wake_all),
    "a policy that is gone": ("DELETE FROM policy", wake_all),
    "a parcel that is no bytes": ("UPDATE parcel SET tasks = 5 WHERE first = 4", wake_all),
    "a moment that is none": ("UPDATE parcel SET accepted_at = 'x'", wake_all),
    "a task that is there twice": (
        "INSERT INTO parcel SELECT 9, 16, accepted_at, tasks, payloads FROM parcel WHERE first = 4", wake_all),
    "fewer payloads than tasks": (
        "UPDATE parcel SET payloads = x'91c40170' WHERE first = 4", lambda store: store.payloads([5])),
    "payloads that are cut": (
        "UPDATE parcel SET payloads = substr(payloads, 1, 8) WHERE first = 4", lambda store: store.payloads([5])),
    "a parcel that is gone": ("DELETE FROM parcel WHERE first = 1", lambda store: store.tasks()),
    "a number that is none": ("UPDATE task SET number = 'x' WHERE tid = 'b'", lambda store: store.task("b")),
    "a task in no parcel": ("UPDATE task SET number = 99 WHERE tid = 'b'", lambda store: store.task("b")),
    "a story that is no bytes": ("UPDATE ended SET story = 5 WHERE task = 4", lambda store: store.recall(2, ["d"])),
    "a count that is none": ("UPDATE job_count SET tasks = 'x' WHERE job = 1", wake_all),
    "a first task that is none": ("UPDATE job SET first_task = 'x' WHERE number = 1", lambda store: store.forget(0.0)),
    "a forgotten job that is none": ("INSERT INTO erasing VALUES (7, 'x', 8)", lambda store: store.forget(0.0)),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGES)
def test_what_is_damaged_is_told_as_damage_by_who_touches_it(tmp_path: Path, what: str) -> None:
    statement, touch = DAMAGES[what]
    audited_store.make(tmp_path / "store")
    with closing(sqlite3.connect(tmp_path / "store")) as connection, connection:
        connection.execute(statement)

    with closing(SqliteStore(tmp_path / "store")) as store:
        if touch is not wake_all:
            wake_all(store)
        with pytest.raises(StoreCorrupt, match="damaged"):
            touch(store)


def test_a_store_is_open_in_one_place_by_whatever_name(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("store")

    with closing(SqliteStore(tmp_path / "store")), pytest.raises(AlreadyRunning):
        SqliteStore(tmp_path / "link")

    SqliteStore(tmp_path / "link").close()


def test_a_file_that_was_refused_is_not_held(tmp_path: Path) -> None:
    path = tmp_path / "store"
    path.write_text("shopping list\n" * 100)
    for _ in range(2):
        with pytest.raises(StoreCorrupt):
            SqliteStore(path)


def test_a_disk_that_cannot_keep_a_log_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *_, **settings: connect(":memory:", **settings))

    with pytest.raises(StoreError, match="found journal mode memory, expected wal"):
        SqliteStore(tmp_path / "store")


def test_a_file_that_sqlite_cannot_open_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr(sqlite3, "connect", refuse)

    for _ in range(2):
        with pytest.raises(StoreError, match="unable to open"):
            SqliteStore(tmp_path / "store")


def test_all_files_of_a_store_may_be_read_by_their_owner_alone(tmp_path: Path) -> None:
    with closing(woken(tmp_path / "store")):
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}

    assert modes == dict.fromkeys(("store", "store-wal", "store-shm", "store.lock"), 0o600)


def test_somebody_else_may_read_a_store_in_use(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with closing(woken(path)) as store:
        store.remember([JobOpened(1, "night")], {}, {})

        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as reader:
            assert reader.execute("SELECT name FROM job").fetchall() == [("night",)]
            store.remember([JobOpened(2, "day")], {}, {})


def test_a_closed_store_leaves_no_log_behind(tmp_path: Path) -> None:
    with closing(woken(tmp_path / "store")) as store:
        store.remember([JobOpened(1, "night")], {}, {})

    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "store.lock"]


def test_a_number_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with closing(woken(tmp_path / "store")) as store, pytest.raises(RuleBroken, match="cannot be stored"):
        store.remember([JobOpened(2**63, "night")], {}, {})


# What is kept in memory.


def statements(store: SqliteStore) -> list[str]:
    seen: list[str] = []
    store._db._connection.set_trace_callback(seen.append)
    return seen


def test_a_payload_that_is_placed_at_once_is_not_read_from_the_disk_and_then_forgotten(
    tmp_path: Path,
) -> None:
    with closing(woken(tmp_path / "store")) as store:
        store.remember([JobOpened(1, "night")], {}, {})
        accept(store, range(1, 4))
        seen = statements(store)

        assert store.payloads([1, 2]) == [b"p", b"p"]
        assert seen == []
        end(store, [3])
        assert (store._payloads, store._payload_bytes) == ({}, 0)
        assert store.payloads([1, 3]) == [b"p", b"p"]
        assert any("payloads" in statement for statement in seen)


def test_no_more_payloads_are_kept_than_there_is_room_for_and_the_oldest_stay(tmp_path: Path) -> None:
    with closing(woken(tmp_path / "store", payload_cache_bytes=5_000)) as store:
        store.remember([JobOpened(1, "night")], {}, {})

        accept(store, range(1, 10), bytes(1_000))

        assert list(store._payloads) == [1, 2, 3, 4]
        assert store.payloads(range(1, 10)) == [bytes(1_000)] * 9


def test_payloads_from_the_disk_are_read_by_the_parcel_and_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_NEARBY_BYTES", 100_000)
    with closing(woken(tmp_path / "store", payload_cache_bytes=0)) as store:
        store.remember([JobOpened(1, "night")], {}, {})
        accept(store, range(1, 641), bytes(500))
        accept(store, [641], bytes(200_000))
        seen = statements(store)

        assert store.payloads(range(1, 641)) == [bytes(500)] * 640
        assert store.payloads([641]) == [bytes(200_000)]

        assert sum("SELECT payloads" in statement for statement in seen) == 11
        assert store._nearby_bytes < 400_000


def test_a_job_without_an_ended_task_is_recalled_without_a_question(tmp_path: Path) -> None:
    with closing(woken(tmp_path / "store")) as store:
        store.remember([JobOpened(1, "night")], {}, {})
        accept(store, [1])
        seen = statements(store)

        assert store.recall(1, ["t1"]) == {}

        assert seen == []


def test_policies_are_kept_once_and_forgotten_when_there_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_POLICIES_KEPT", 3)
    path = tmp_path / "store"
    policies = [Policy(priority=number % 5) for number in range(20)]
    with closing(woken(path)) as store:
        store.remember([JobOpened(1, "night")], {}, {})
        for number, policy in enumerate(policies, 1):
            store.remember([TaskAccepted(number, 1, f"t{number}", policy, ())], {(1, f"t{number}"): b""}, {})
        assert len(store._policy_numbers) <= 3
        [(count,)] = store._db.read("SELECT count(*) FROM policy")

    with closing(SqliteStore(path)) as store:
        found = [task.policy for task in store.wake().live]

    assert (found, count) == (policies, 5)


def test_blocks_without_live_tasks_are_not_read_when_the_store_wakes_up(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with closing(woken(path)) as store:
        store.remember([JobOpened(1, "night")], {}, {})
        accept(store, range(1, 60_001))
        end(store, range(1, 40_001))
        end(store, range(40_002, 50_001))
    with closing(SqliteStore(path)) as store:
        remembered = store.wake()
        # Numbers that the list says are over are not even looked at, so a stranger among them stays unseen.
        store._db._connection.execute("DELETE FROM ended WHERE task = 5")

        found = [task.number for task in remembered.live]

    assert found == [40_001, *range(50_001, 60_001)]


def test_a_listing_that_takes_too_long_tells_what_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_LOOK_S", -1.0)
    with closing(woken(tmp_path / "store")) as store:
        store.remember([JobOpened(1, "night")], {}, {})
        accept(store, [1])
        end(store, [1])

        assert store.tasks() == ([], True)


def test_a_copy_of_the_files_of_a_store_in_use_is_a_store(tmp_path: Path) -> None:
    with closing(woken(tmp_path / "store")) as store:
        store.remember([JobOpened(1, "night")], {}, {})
        accept(store, [1])
        for suffix in ("", "-wal"):
            shutil.copy(f"{tmp_path / 'store'}{suffix}", f"{tmp_path / 'copy'}{suffix}")

    assert live(tmp_path / "copy") == [1]


def test_a_store_that_replaces_another_begins_after_its_epochs(tmp_path):
    now = 1_800_000_000.0
    former = SqliteStore(tmp_path / "former.db", clock=lambda: now)
    last_epoch = former.wake().epoch
    former.close()

    following = SqliteStore(tmp_path / "following.db", clock=lambda: now + 60)

    assert following.wake().epoch > last_epoch
    following.close()


def test_a_clock_that_is_far_out_does_not_use_up_the_epochs(tmp_path: Path) -> None:
    now = 1_800_000_000.0
    epochs = []

    for clock in (now, now + 300 * 365 * 86_400, now, -now):
        with closing(SqliteStore(tmp_path / "store", clock=lambda clock=clock: clock)) as store:
            epochs.append(store.wake().epoch)

    assert epochs == [epochs[0] + start for start in range(4)]
