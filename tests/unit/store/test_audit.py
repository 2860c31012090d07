"""A sound store is found to be sound; whatever is damaged in it is named."""

from __future__ import annotations

import ctypes
import sqlite3
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import audited_store
import msgspec
import pytest

from cyclone.cli.audit import audit_store
from cyclone.core.audit import Tokens
from cyclone.errors import ConfigError, StoreCorrupt, StoreError, StoreVersionError
from cyclone.messages import TaskEnd
from cyclone.model.audit import Rule
from cyclone.model.changes import JobClosed, JobOpened, JobRemembers, TaskAccepted, TaskEnded, TasksPlaced
from cyclone.model.lifecycle import JobState, Outcome, State
from cyclone.model.peer import Peer
from cyclone.model.task import End, Policy, first_token
from cyclone.store.backup import back_up
from cyclone.store.sqlite import SqliteStore

pack = msgspec.msgpack.encode


def damage(path: Path, *statements: str, values: tuple[object, ...] = ()) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement, values)


def story(state: str, attempts: int, end: End | None) -> bytes:
    return pack((state, attempts, "node", end, "", b""))


def test_a_sound_store_is_sound_and_its_sums_are_told(tmp_path: Path) -> None:
    audited_store.make(tmp_path / "store")

    audit = audit_store(tmp_path / "store")

    assert audit.findings == []
    assert audit.is_sound
    assert (audit.accepted, audit.ended, audit.open, audit.attempts) == (8, 5, 3, 6)
    assert [(job.name, job.state, job.accepted, job.ended, job.open) for job in audit.jobs] == [
        ("day", "failed", 3, {"succeeded": 1, "failed": 1, "cancelled": 1}, 0),
        ("night", "open", 5, {"succeeded": 1, "cancelled": 1}, 3),
    ]


def test_a_store_that_forgets_is_sound_at_every_step_of_it(tmp_path: Path) -> None:
    path, now = tmp_path / "store", 1000.0
    with closing(SqliteStore(path, "normal", clock=lambda: now)) as store:
        woken = store.wake()
        list(woken.live)
        token = first_token(woken.epoch)
        store.remember([JobOpened(1, "gone"), JobOpened(2, "rounds"), JobRemembers(2, 50.0)], {}, {})
        tasks = [
            TaskAccepted(number, 1 + number % 2, f"t{number}", Policy("k"), ()) for number in range(1, 401)
        ]
        store.remember(tasks, {(task.job, task.tid): b"p" for task in tasks}, {})
        # One bundle whose attempts are not all over: number 3 has ended, 5 has not.
        store.remember([TasksPlaced(token + 1000, Peer("node", "a"), (3, 5))], {}, {})
        ends = [
            TaskEnded(t.number, t.job, "node", TaskEnd(t.tid, State.SUCCEEDED, 1, End(token + t.number)))
            if t.number != 3
            else TaskEnded(3, 2, "node", TaskEnd("t3", State.SUCCEEDED, 1, End(token + 1000)))
            for t in tasks
            if t.job == 1 or (t.number < 200 and t.number != 5)
        ]
        values = {end.end.end.token: b"v" for end in ends if end.end.end is not None}
        store.remember(ends, {}, values)
        store.remember([JobClosed(1, JobState.SUCCEEDED)], {}, {})
        now += 60.0
        steps = 0

        while store.forget(10.0, 0.0):
            steps += 1
            report = audit_store(path)
            assert report.findings == []
            assert report.accepted == report.ended + report.open + report.forgotten

    assert steps > 10
    assert [(job.name, job.accepted, job.open, job.forgotten) for job in report.jobs] == [
        ("rounds", 200, 101, 99)
    ]


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE job SET forgotten = 3 WHERE number = 2", "2 counted, expected 5"),
        (
            "UPDATE job_count SET tasks = tasks + 1 WHERE job = 2 AND state = 'succeeded'",
            "2 counted as succeeded",
        ),
    ],
)
def test_what_is_said_to_be_forgotten_has_been_counted(tmp_path: Path, statement: str, found: str) -> None:
    audited_store.make(tmp_path / "store")
    damage(tmp_path / "store", statement)

    report = audit_store(tmp_path / "store")

    assert any(found in str(finding) for finding in report.findings)


#: `(rule, what was done to the store, the task that is named, a part of what is said)`; T is the first token.
DAMAGES = {
    "a task without its tid": (
        Rule.PARCEL, "DELETE FROM task WHERE number = 5", 5, "no tid for it in the index, expected 'e'"),
    "fewer tids than tasks": (
        Rule.BALANCE, "DELETE FROM task WHERE number = 5", 0, "found 4 tids of 2 ended and 3 open tasks, expected 5"),
    "a tid without its task": (
        Rule.PARCEL, "INSERT INTO task VALUES (2, 'x', 99)", 99, "a tid in the index, in no parcel"),
    "another tid": (
        Rule.PARCEL, "UPDATE task SET tid = 'x' WHERE number = 5", 5, "'x' of job number 2, expected 'e' of job number 2"),
    "a tid of another job": (
        Rule.PARCEL, "UPDATE task SET job = 1 WHERE number = 5", 5, "'e' of job number 1, expected 'e' of job number 2"),
    "a number for two tids": (
        Rule.NUMBER, "INSERT INTO task VALUES (2, 'x', 5)", 5, "the number also for 'x'"),
    "a parcel that is gone": (
        Rule.PARCEL, "DELETE FROM parcel WHERE first = 4", 4, "a tid in the index, in no parcel"),
    "a parcel that is longer": (
        Rule.PARCEL, "UPDATE parcel SET last = 9 WHERE first = 4", 0, "tasks 4 to 8, expected 4 to 9"),
    "an end that is gone": (
        Rule.COUNT, "DELETE FROM ended WHERE task = 4", 0, "1 counted as succeeded, expected 0"),
    "an end too many": (
        Rule.END, "INSERT INTO ended SELECT 99, story FROM ended WHERE task = 4", 99, "in no parcel"),
    "more ends than tasks": (
        Rule.BALANCE, "INSERT INTO ended SELECT 99, story FROM ended WHERE task = 4", 0,
        "found 8 accepted, 6 ended and 3 open"),
    "a count too many": (
        Rule.COUNT, "UPDATE job_count SET tasks = 9 WHERE state = 'failed'", 0, "9 counted as failed, expected 1"),
    "a count of no job": (
        Rule.JOB, "INSERT INTO job_count VALUES (7, 'failed', 1)", 0, "counts of a job that is not there"),
    "a bad end that is not listed": (
        Rule.BAD_END, "DELETE FROM ended_badly WHERE task = 2", 2, "found nothing in the list of bad ends, expected failed"),
    "a bad end that is listed otherwise": (
        Rule.BAD_END, "UPDATE ended_badly SET state = 'skipped' WHERE task = 2", 2, "skipped in the list"),
    "a success among the bad ends": (
        Rule.BAD_END, "INSERT INTO ended_badly VALUES (4, 'failed')", 4, "expected nothing"),
    "an open task among the bad ends": (
        Rule.BAD_END, "INSERT INTO ended_badly VALUES (7, 'failed')", 7, "failed, without an end"),
    "a bad end of no task": (
        Rule.BAD_END, "INSERT INTO ended_badly VALUES (99, 'failed')", 99, "in no parcel"),
    "an attempt that is gone": (
        Rule.ATTEMPT, "DELETE FROM attempt WHERE task = 1 AND attempt = 1", 1, "attempt 2 in place 1 of 1"),
    "attempts that the end does not know": (
        Rule.ATTEMPT, "DELETE FROM attempt WHERE task = 1 AND attempt = 2", 1, "tells of 3 attempts, expected 2"),
    "an attempt counted twice": (
        Rule.ATTEMPT, "UPDATE attempt SET attempt = 1 WHERE task = 1", 1, "attempt 1 in place 2 of 2"),
    "an attempt at no task": (
        Rule.ATTEMPT, "UPDATE attempt SET task = 99 WHERE task = 6", 99, "in no parcel"),
    "an attempt under another token": (
        Rule.ATTEMPT, "UPDATE attempt SET token = token + 50 WHERE task = 6", 6, "expected that of its own token"),
    "a placement of no task": (
        Rule.PLACEMENT, "INSERT INTO placement VALUES (:T + 60, 'n', 'l', x'9163')", 99, "in no parcel"),
    "two attempts that are out": (
        Rule.PLACEMENT, "INSERT INTO placement VALUES (:T + 60, 'n', 'l', x'9105')", 5, "expected 1 at most"),
    "an attempt that is out after the end by another": (
        Rule.PLACEMENT, "INSERT INTO placement VALUES (:T + 60, 'n', 'l', x'9104')", 4, "expected 0 at most"),
    "an attempt that is out before one that is over": (
        Rule.PLACEMENT, "INSERT INTO placement VALUES (:T - 1, 'n', 'l', x'9106')", 6, "without outcome before"),
    "a token of two placements": (
        Rule.TOKEN, "INSERT INTO placement VALUES (:T + 5, 'n', 'l', x'9107')", 0, "within the one before"),
    "a job that closed as succeeded": (
        Rule.JOB, "UPDATE job SET state = 'succeeded' WHERE number = 1", 0, "with 2 tasks that did not succeed"),
    "a job that closed too early": (
        Rule.JOB, "UPDATE job SET state = 'failed', last_task = 8 WHERE number = 2", 5, "no end, in a job that is failed"),
    "a job that begins after its tasks": (
        Rule.JOB, "UPDATE job SET first_task = 5 WHERE number = 2", 4, "found number 4, expected one of its job, 5 to any"),
    "a job that ends before its tasks": (
        Rule.JOB, "UPDATE job SET last_task = 2 WHERE number = 1", 3, "1 to 2"),
    "a job that is gone": (
        Rule.JOB, "DELETE FROM job WHERE number = 2", 0, "counts of a job that is not there"),
    "a live task where nobody looks": (
        Rule.LIVE, "INSERT OR REPLACE INTO meta VALUES ('live_blocks', x'920890')", 5, "outside of live_blocks"),
    "a parcel that cannot be read": (
        Rule.FILE, "UPDATE parcel SET tasks = x'c1' WHERE first = 4", 0, "parcel 4: "),
    "payloads that cannot be read": (
        Rule.FILE, "UPDATE parcel SET payloads = x'c1' WHERE first = 4", 0, "parcel 4: the store is damaged: "),
    "no payloads": (
        Rule.FILE, "UPDATE parcel SET payloads = x'' WHERE first = 4", 0, "parcel 4: the store is damaged: "),
    "payloads that are cut": (
        Rule.FILE, "UPDATE parcel SET payloads = substr(payloads, 1, 8) WHERE first = 4", 0, "Input data was truncated"),
    "a policy that is gone": (
        Rule.PARCEL, "DELETE FROM policy", 1, "policy 1, which is not there, expected its policy"),
    "a policy that cannot be read": (
        Rule.PARCEL, "UPDATE policy SET body = x'c1'", 1, "policy 1: the store is damaged"),
    "an attempt that is billed to nothing that there is": (
        Rule.FILE, "UPDATE attempt SET cause = 'weather' WHERE task = 6", 6, "billed to 'weather'"),
    "a state of a job that is none": (
        Rule.JOB, "UPDATE job SET state = 'odd' WHERE number = 2", 0, "found odd, not closed"),
    "a job that is closed and open": (
        Rule.JOB, "UPDATE job SET state = 'open' WHERE number = 1", 0, "found open, closed"),
    "an open task that is to be forgotten": (
        Rule.FORGETTING, "INSERT INTO late VALUES (2, 1.0, 5)", 5, "an open task that is to be forgotten"),
    "a job that is being forgotten and is there": (
        Rule.FORGETTING, "INSERT INTO erasing VALUES (2, 4, 8)", 0, "a job that is there and is being forgotten"),
    "an epoch that is none": (
        Rule.FILE, "UPDATE meta SET value = 'x' WHERE key = 'epoch'", 0, "Expected `int`, got `str`"),
    "no epoch": (Rule.FILE, "DELETE FROM meta WHERE key = 'epoch'", 0, "missing required field `epoch`"),
    "an epoch for which there is no token": (
        Rule.FILE, "UPDATE meta SET value = 1 << 25 WHERE key = 'epoch'", 0, "Expected `int` <= 33554431"),
    "no identity": (Rule.FILE, "DELETE FROM meta WHERE key = 'identity'", 0, "found no identity"),
    "live blocks that are none": (
        Rule.FILE, "INSERT OR REPLACE INTO meta VALUES ('live_blocks', x'c1')", 0, "live_blocks: "),
    "live blocks that come twice": (
        Rule.FILE, "INSERT OR REPLACE INTO meta VALUES ('live_blocks', x'9208920000')", 0, "live_blocks: "),
    "a tid that is no text": (
        Rule.PARCEL, "UPDATE task SET tid = CAST(x'ff' AS TEXT) WHERE number = 5", 5, r"found in the index of tids '\\xff'"),
    "a moment that is none": (
        Rule.FILE, "UPDATE parcel SET accepted_at = 'x'", 0, "2 rows of parcel with values of the wrong type"),
    "fewer payloads than tasks": (
        Rule.PARCEL, "UPDATE parcel SET payloads = x'91c40170' WHERE first = 4", 0, "with 1 payloads, expected 5"),
    "a story that cannot be read": (
        Rule.FILE, "UPDATE ended SET story = x'c1' WHERE task = 4", 4, "its end: "),
    "an outcome that cannot be read": (
        Rule.FILE, "UPDATE attempt SET \"end\" = x'c1' WHERE task = 6", 6, "attempt "),
    "a placement that cannot be read": (
        Rule.FILE, "UPDATE placement SET numbers = x'c1'", 0, "placement "),
    "a table that is gone": (Rule.FILE, "DROP TABLE ended_badly", 0, "no such table: ended_badly"),
    "a number that is none": (
        Rule.FILE, "UPDATE task SET number = 'five' WHERE number = 5", 0, "1 rows of task with values of the wrong type"),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGES)
def test_what_is_damaged_is_named(tmp_path: Path, what: str) -> None:
    rule, statement, number, said = DAMAGES[what]
    token = audited_store.make(tmp_path / "store")

    damage(tmp_path / "store", statement.replace(":T", str(token)))
    audit = audit_store(tmp_path / "store")

    assert audit.violations[rule] >= 1
    found = [each for each in audit.findings if each.rule is rule and said in str(each)]
    assert found, [str(each) for each in audit.findings]
    assert found[0].number == number
    if number and number != 99:
        assert f"task {number} ({found[0].tid})" in str(found[0])
        assert found[0].job in ("day", "night", "?")


STORIES = {
    "a success by an attempt that failed": (
        Rule.END, ("succeeded", 1, End(5, outcome=Outcome.RAISED)), "succeeded after an attempt that is raised"),
    "a failure by an attempt that succeeded": (Rule.END, ("failed", 1, End(5)), "failed after an attempt that is succeeded"),
    "a success without an attempt": (Rule.END, ("succeeded", 0, None), "succeeded after an attempt that is none"),
    "an end that is none": (Rule.END, ("running", 0, None), "found the end running"),
    "attempts that never were": (Rule.ATTEMPT, ("succeeded", 4, End(5)), "tells of 4 attempts, expected 1"),
}  # fmt: skip


@pytest.mark.parametrize("what", STORIES)
def test_an_end_that_is_not_that_of_its_attempt_is_named(tmp_path: Path, what: str) -> None:
    rule, told, said = STORIES[what]
    audited_store.make(tmp_path / "store")

    damage(tmp_path / "store", "UPDATE ended SET story = ? WHERE task = 4", values=(story(*told),))
    audit = audit_store(tmp_path / "store")

    assert [each.number for each in audit.findings if each.rule is rule and said in str(each)] == [4]


TOKENS: dict[str, tuple[Callable[[int], int], int, str]] = {
    "that of an attempt at another task": (lambda first: first + 6, 6, "a second time"),
    "that of the end of another task": (lambda first: first + 1, 4, "a second time"),
    "one of an epoch to come": (lambda first: first + (1 << 38), 4, "expected none after epoch"),
}


@pytest.mark.parametrize("what", TOKENS)
def test_a_token_that_cannot_be_is_named(tmp_path: Path, what: str) -> None:
    token_of, number, said = TOKENS[what]
    token = token_of(audited_store.make(tmp_path / "store"))

    damage(
        tmp_path / "store",
        "UPDATE ended SET story = ? WHERE task = 4",
        values=(story("succeeded", 1, End(token)),),
    )
    audit = audit_store(tmp_path / "store")

    assert [each.number for each in audit.findings if each.rule is Rule.TOKEN and said in str(each)] == [
        number
    ]


def test_an_end_by_an_older_token_than_that_of_an_attempt_is_named(tmp_path: Path) -> None:
    token = audited_store.make(tmp_path / "store")

    damage(
        tmp_path / "store",
        "UPDATE ended SET story = ? WHERE task = 1",
        values=(story("succeeded", 3, End(token - 5)),),
    )
    audit = audit_store(tmp_path / "store")

    [finding] = [each for each in audit.findings if each.rule is Rule.TOKEN]
    assert finding.number == 1
    assert finding.expected.startswith("one by a token after ")


def test_an_attempt_that_succeeded_and_did_not_end_its_task_is_named(tmp_path: Path) -> None:
    token = audited_store.make(tmp_path / "store")

    damage(tmp_path / "store", 'UPDATE attempt SET "end" = ? WHERE task = 6', values=(pack(End(token + 6)),))
    audit = audit_store(tmp_path / "store")

    assert [(each.rule, each.number) for each in audit.findings] == [(Rule.ATTEMPT, 6)]


def test_all_violations_are_counted_and_the_first_ones_are_told(tmp_path: Path) -> None:
    audited_store.make(tmp_path / "store")
    damage(tmp_path / "store", "DELETE FROM task")

    audit = audit_store(tmp_path / "store", findings_most=3)

    assert audit.violations == {Rule.PARCEL: 8, Rule.BALANCE: 2}
    assert [each.number for each in audit.findings] == [1, 2, 3]


def test_tasks_of_a_job_that_was_never_opened_are_named(tmp_path: Path) -> None:
    audited_store.make(tmp_path / "store")

    damage(tmp_path / "store", "DELETE FROM job WHERE number = 2", "DELETE FROM job_count WHERE job = 2")
    audit = audit_store(tmp_path / "store")

    [finding] = [each for each in audit.findings if each.rule is Rule.JOB]
    assert str(finding) == ("job: job ? (2), task 4 (d), found job number 2, expected a job that was opened")


def test_numbers_that_do_not_ascend_are_named(tmp_path: Path) -> None:
    audited_store.make(tmp_path / "store")
    rows = [(number, 2, tid, 1, ()) for number, tid in ((4, "d"), (5, "e"), (5, "x"), (7, "g"), (6, "f"))]

    damage(tmp_path / "store", "UPDATE parcel SET tasks = ? WHERE first = 4", values=(pack(rows),))
    audit = audit_store(tmp_path / "store")

    numbers = [str(each) for each in audit.findings if each.rule is Rule.NUMBER]
    assert numbers == [
        "number: job night (2), task 5 (x), found number 5 after 5, expected one above it",
        "number: job night (2), task 6 (f), found number 6 after 7, expected one above it",
    ]


def test_pages_that_are_damaged_are_a_violation_and_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with closing(SqliteStore(path, "normal")) as store:
        list(store.wake().live)
        store.remember([JobOpened(1, "day")], {}, {})
        tasks = [TaskAccepted(number, 1, f"t{number}", Policy("k"), ()) for number in range(1, 3001)]
        store.remember(tasks, {(1, task.tid): b"p" for task in tasks}, {})
    with closing(sqlite3.connect(path)) as connection:
        [(page,)] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'parcel'")
        [(size,)] = connection.execute("PRAGMA page_size")
    overwrite(path, (page - 1) * size, b"\xa5" * size)

    audit = audit_store(path)

    assert audit.violations[Rule.FILE] >= 1
    assert not audit.is_whole


def test_an_index_that_disagrees_with_its_table_is_found(tmp_path: Path) -> None:
    path = tmp_path / "store"
    audited_store.make(path)
    with closing(sqlite3.connect(path)) as connection:
        [(page,)] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'job_by_closing'")
        [(size,)] = connection.execute("PRAGMA page_size")
    # The number of cells (sqlite.org/fileformat2.html, "B-tree Pages"): there is one closed job.
    overwrite(path, (page - 1) * size + 3, bytes(2))

    audit = audit_store(path)

    assert (audit.violations.keys(), audit.accepted) == ({Rule.FILE}, 8)


def test_what_is_damaged_is_told_and_nothing_else(tmp_path: Path) -> None:
    """What was opened is closed in order, whatever is left of it."""
    audited_store.make(tmp_path / "store")
    damage(tmp_path / "store", "UPDATE parcel SET last = 'x'")

    done = subprocess.run(
        [sys.executable, "-m", "cyclone.cli.main", "audit", "--store", tmp_path / "store"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (1, "")
    assert "2 rows of parcel with values of the wrong type" in done.stdout


def test_tokens_that_lie_far_apart_take_little_memory() -> None:
    tokens = Tokens()

    tracemalloc.start()
    try:
        assert all(tokens.is_new(place << 40) for place in range(2000))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert not tokens.is_new(1 << 40)
    assert taken < 2000 * 1000


def test_damage_where_no_row_is_is_found_as_well(tmp_path: Path) -> None:
    audited_store.make(tmp_path / "store")
    # How many pages are free (sqlite.org/fileformat2.html, "The Database Header"): more than there are.
    overwrite(tmp_path / "store", 36, (7).to_bytes(4))

    audit = audit_store(tmp_path / "store")

    assert (audit.violations.keys(), audit.is_whole, audit.accepted) == ({Rule.FILE}, True, 8)


def overwrite(path: Path, place: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(data)


# Where a store lies.


def looks(directory: Path) -> dict[str, tuple[int, int]]:
    return {each.name: (each.stat().st_size, each.stat().st_mtime_ns) for each in directory.iterdir()}


def test_at_rest_nothing_is_written_and_nothing_is_made(tmp_path: Path) -> None:
    audited_store.make(tmp_path / "store")
    before = looks(tmp_path)

    assert audit_store(tmp_path / "store").is_sound

    assert looks(tmp_path) == before
    assert "store-wal" not in before


#: What the kernel lets root do and nobody else (capabilities(7)): to write what he may not write.
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1

READ_ONLY = """
import os, sys
from cyclone.cli.audit import audit_store
from cyclone.core.audit import Tokens
assert not os.access(os.path.dirname(sys.argv[1]), os.W_OK)
print(audit_store(sys.argv[1]).accepted)
"""


def audit_without_writing(path: Path) -> subprocess.CompletedProcess[str]:
    """By somebody who may write neither the files nor their directory, as the kernel sees to."""
    for each in (*path.parent.iterdir(), path.parent):
        each.chmod(0o500)
    try:
        return subprocess.run(
            [sys.executable, "-c", READ_ONLY, path], capture_output=True, text=True, check=False,
            # Only root has to give this up, and only root can.
            preexec_fn=lambda: ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0),
        )  # fmt: skip
    finally:
        path.parent.chmod(0o700)


def test_a_store_that_one_may_not_write_is_read(tmp_path: Path) -> None:
    audited_store.make(tmp_path / "store")
    before = looks(tmp_path)

    done = audit_without_writing(tmp_path / "store")

    assert done.stdout == "8\n", done.stderr
    assert looks(tmp_path) == before


def test_beside_a_master_it_sees_the_moment_at_which_it_began(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with closing(SqliteStore(path)) as store:
        list(store.wake().live)
        store.remember([JobOpened(1, "day")], {}, {})
        store.remember([TaskAccepted(1, 1, "a", Policy(), ())], {(1, "a"): b"p"}, {})

        audit = audit_store(path)
        store.remember([TaskEnded(1, 1, "", TaskEnd("a", State.CANCELLED, 0))], {}, {})
        later = audit_store(path)

    assert (audit.is_sound, audit.open, audit.ended) == (True, 1, 0)
    assert (later.is_sound, later.open, later.ended) == (True, 0, 1)


KILLED = """
import os, signal, sys
from cyclone.model.changes import JobOpened, TaskAccepted
from cyclone.model.task import Policy
from cyclone.store.sqlite import SqliteStore

store = SqliteStore(sys.argv[1])
list(store.wake().live)
store.remember([JobOpened(1, "day")], {}, {})
store.remember([TaskAccepted(1, 1, "a", Policy(), ())], {(1, "a"): b"p"}, {})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_is_in_the_log_of_a_master_that_was_killed_is_read_and_left_there(tmp_path: Path) -> None:
    path = tmp_path / "store"
    subprocess.run([sys.executable, "-c", KILLED, path], check=False)
    log = (tmp_path / "store-wal").read_bytes()
    main = path.read_bytes()

    audit = audit_store(path)

    assert (audit.is_sound, audit.accepted, audit.open) == (True, 1, 1)
    assert (tmp_path / "store-wal").read_bytes() == log
    assert path.read_bytes() == main


def test_the_log_of_a_master_that_was_killed_is_read_where_one_may_not_write(tmp_path: Path) -> None:
    path = tmp_path / "store"
    subprocess.run([sys.executable, "-c", KILLED, path], check=False)
    before = looks(tmp_path)

    done = audit_without_writing(path)

    assert done.stdout == "1\n", done.stderr
    assert looks(tmp_path) == before


def test_a_log_that_cannot_be_read_for_lack_of_its_index_is_said(tmp_path: Path) -> None:
    path = tmp_path / "store"
    subprocess.run([sys.executable, "-c", KILLED, path], check=False)
    (tmp_path / "store-shm").unlink()

    done = audit_without_writing(path)

    assert "expected store-shm beside it, or a directory where it can be made" in done.stderr


def test_a_change_that_was_not_ended_is_not_taken_for_the_store(tmp_path: Path) -> None:
    """As when the first opening of a back-up is killed: what it had written by then is still to be undone."""
    audited_store.make(tmp_path / "store")
    back_up(tmp_path / "store", tmp_path / "copy")
    with closing(sqlite3.connect(tmp_path / "copy", isolation_level=None)) as connection:
        for statement in (
            "PRAGMA cache_size=1",
            "BEGIN",
            "DELETE FROM ended",
            "DELETE FROM task",
            "DELETE FROM parcel",
        ):
            connection.execute(statement)
        connection.execute("INSERT INTO parcel VALUES (1, 8, 0.0, x'90', zeroblob(1000000))")
        for kind in ("", "-journal"):
            (tmp_path / f"place{kind}").write_bytes((tmp_path / f"copy{kind}").read_bytes())

    with pytest.raises(StoreError, match="found place-journal, of somebody who was killed"):
        audit_store(tmp_path / "place")

    SqliteStore(tmp_path / "place").close()
    assert audit_store(tmp_path / "place").findings == []


def test_a_store_that_is_woken_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cyclone.cli import audit as command

    path = tmp_path / "store"
    audited_store.make(path)
    audit, begun = command.audit, []

    def woken_meanwhile(*arguments: object) -> object:
        if not begun:
            begun.append(SqliteStore(path))
            list(begun[0].wake().live)
            begun[0].remember([JobOpened(3, "dawn")], {}, {})
        return audit(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(command, "audit", woken_meanwhile)
    found = audit_store(path)
    begun[0].close()

    assert [job.name for job in found.jobs] == ["day", "night", "dawn"]


def test_what_is_no_store_is_said(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database at all, but long enough to be taken for one\n" * 20)
    with closing(sqlite3.connect(tmp_path / "other")) as connection:
        connection.execute("CREATE TABLE x (y)")
    audited_store.make(tmp_path / "newer")
    damage(tmp_path / "newer", "PRAGMA user_version = 99")

    with pytest.raises(ConfigError, match="there is no such file, expected a store"):
        audit_store(tmp_path / "nowhere")
    with pytest.raises(StoreCorrupt, match="no database"):
        audit_store(tmp_path / "text")
    with pytest.raises(StoreCorrupt, match="application id 0x0, expected a store of Cyclone"):
        audit_store(tmp_path / "other")
    with pytest.raises(StoreVersionError, match="version 99, expected"):
        audit_store(tmp_path / "newer")
    assert issubclass(StoreCorrupt, StoreError)


def test_epochs_of_this_store_are_those_of_its_tokens(tmp_path: Path) -> None:
    token = audited_store.make(tmp_path / "store")

    assert first_token(audit_store(tmp_path / "store").epoch) == token
