from __future__ import annotations

import json
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from acceptance.cluster import wait_for
from msgspec.structs import replace
from spools import without_index

from cyclone.messages import Entry
from cyclone.record import Record, encode, uid
from cyclone.sinks.batch import BatchRule, Health
from cyclone.sinks.dead_letters import DeadLetters
from cyclone.sinks.dialects.sqlite import Sqlite
from cyclone.sinks.spool import Spool
from cyclone.sinks.sql import ROWS_MAX, Database, DatabaseFailure, Failure, row_of
from cyclone.sinks.writer import Writer

PATIENCE_S = 30.0


class Site:
    """A spool, a database and a writer between them, in one directory."""

    def __init__(self, directory: Path, kinds: dict[str, type[Record]]) -> None:
        self.rows = directory / "rows.db"
        self.dead = directory / "dead.jsonl"
        self.kinds = kinds
        self.spool_path = directory / "spool"
        self.spool = Spool(self.spool_path)
        self.writers: list[Writer] = []
        self.create_tables(*kinds.values())

    def create_tables(self, *kinds: type[Record]) -> None:
        with closing(Database(Sqlite(self.rows))) as database:
            assert database.create_tables(kinds) == ""

    def writer(self, rule: BatchRule | None = None, **other: Any) -> Writer:
        dialect = other.pop("dialect", Sqlite(self.rows))
        self.writers.append(
            Writer(self.spool, "database", self.kinds, dialect, DeadLetters(self.dead), rule, **other)
        )
        return self.writers[-1]

    def move(self, **other: Any) -> Writer:
        """A writer that has had its chance with what is in the spool."""
        writer = self.writer(**other)
        writer.start()
        assert writer.stop(PATIENCE_S)
        return writer

    def ask(self, question: str) -> list[Any]:
        with closing(sqlite3.connect(self.rows)) as connection:
            return connection.execute(question).fetchall()

    def stored(self) -> list[int]:
        return [number for (number,) in self.ask('SELECT "order" FROM readings ORDER BY id')]

    def buried(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.dead.read_text().splitlines()]


@pytest.fixture
def site(tmp_path: Path, kinds: dict[str, type[Record]]) -> Iterator[Site]:
    site = Site(tmp_path, kinds)
    yield site
    for writer in site.writers:
        writer.stop(PATIENCE_S)
    site.spool.close()
    assert not [each for each in threading.enumerate() if each.name.startswith("writer")]


class Unsteady(Sqlite):
    """A database of which the test says when it fails, before or after it has committed."""

    def __init__(self, path: Path, fault: Callable[[int], tuple[Failure, bool] | None]) -> None:
        super().__init__(path)
        object.__setattr__(self, "fault", fault)
        object.__setattr__(self, "asked", 0)

    def connect(self) -> Any:
        connection = super().connect()
        insert = connection.insert

        def insert_unsteadily(table: Any, rows: Any) -> int:
            object.__setattr__(self, "asked", self.asked + 1)
            fault = self.fault(self.asked)
            if fault is not None and not fault[1]:
                raise DatabaseFailure(fault[0], "of a test")
            new = insert(table, rows)
            if fault is not None:
                raise DatabaseFailure(fault[0], "of a test")
            return new

        connection.insert = insert_unsteadily
        return connection


# The good case.


def test_everything_is_moved_once_and_leaves_the_spool(site, entry):
    site.spool.append([entry(number) for number in range(2500)])

    writer = site.move()

    assert site.stored() == list(range(2500))
    assert site.spool.fill() == {}
    figures = writer.figures
    assert (figures.stored, figures.duplicates, figures.dead_letters) == (2500, 0, 0)
    assert (figures.spool_entries, figures.spool_bytes, figures.oldest_at) == (0, 0, 0.0)
    assert (figures.health, figures.reason) == (Health.OK, "")
    assert figures.last_success > 0
    assert figures.batch_s > 0


def test_kinds_go_to_their_tables(site, entry, visit):
    site.spool.append(
        [entry(1), replace(entry(2), kind="visit", body=encode(visit, {"who": "me"})), entry(3)]
    )

    site.move()

    assert site.stored() == [1, 3]
    assert site.ask("SELECT who, until FROM visit") == [("me", None)]


def test_what_is_in_the_database_already_is_a_duplicate(site, entry):
    site.spool.append([entry(number) for number in range(10)])
    site.move()
    site.spool.append([entry(number) for number in range(5, 15)])

    writer = site.move()

    assert site.stored() == list(range(15))
    assert (writer.figures.stored, writer.figures.duplicates) == (5, 5)


def test_entries_of_other_sinks_are_left_alone(site, entry):
    site.spool.append([entry(1), replace(entry(2), sink="pushgateway")])

    site.move()

    assert site.stored() == [1]
    assert list(site.spool.fill()) == ["pushgateway"]


def test_a_full_batch_is_moved_without_waiting(site, entry):
    writer = site.writer(BatchRule(count=3, age_s=3600))
    writer.start()

    site.spool.append([entry(1), entry(2), entry(3)])
    writer.wake()

    wait_for("three rows", lambda: writer.figures.stored == 3)


def test_less_than_a_batch_waits_until_somebody_asks(site, entry):
    writer = site.writer(BatchRule(count=3, age_s=3600))
    writer.start()
    site.spool.append([entry(1), entry(2)])
    writer.wake()
    wait_for("what waits is seen", lambda: writer.figures.spool_entries == 2)
    assert writer.figures.stored == 0

    writer.flush()

    wait_for("two rows", lambda: writer.figures.stored == 2)


def test_less_than_a_batch_is_moved_when_it_is_old_enough(site, entry):
    writer = site.writer(BatchRule(count=1000, age_s=0.05))
    writer.start()

    site.spool.append([entry(1)])
    writer.wake()

    wait_for("a row", lambda: writer.figures.stored == 1)


def test_a_writer_that_was_never_started_can_be_stopped(site, entry):
    site.spool.append([entry(1)])

    assert site.writer().stop(0.0)

    assert site.stored() == []


# What is refused.


def test_an_unknown_kind_goes_to_the_dead_letters_and_the_rest_into_the_database(site, entry):
    site.spool.append([entry(1), replace(entry(2), kind="unheard_of"), entry(3)])

    writer = site.move()

    assert site.stored() == [1, 3]
    [letter] = site.buried()
    assert letter["reason"] == "no kind 'unheard_of' is known here"
    assert letter["fields"]["order"] == 2
    assert (writer.figures.dead_letters, writer.figures.health) == (1, Health.OK)
    assert site.spool.fill() == {}


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"body": b"\x81\xa5place\x01"}, "place"),
        ({"body": random.Random(1).randbytes(200)}, "'reading'"),
        ({"uid": b"x"}, "key"),
        ({"at": float("nan")}, "recorded at nan"),
        ({"kind": "'; DROP TABLE readings; --"}, "no kind"),
    ],
)
def test_what_makes_no_row_goes_to_the_dead_letters(site, entry, wrong, reason):
    site.spool.append([entry(1), replace(entry(2), **wrong), entry(3)])

    site.move()

    assert site.stored() == [1, 3]
    assert reason in site.buried()[0]["reason"]


def test_rows_that_the_database_refuses_are_found_among_the_good_ones(site, entry):
    with closing(sqlite3.connect(site.rows)) as connection:
        connection.execute("DROP TABLE readings")
        connection.execute(
            'CREATE TABLE readings (id INTEGER PRIMARY KEY, uid BLOB NOT NULL UNIQUE, recorded_at, job, tid, place, '
            '"order" INTEGER CHECK ("order" % 100 != 7), at, change, seconds, fine, seen, note)'
        )  # fmt: skip
    site.spool.append([entry(number) for number in range(1000)])

    writer = site.move()

    assert site.stored() == [number for number in range(1000) if number % 100 != 7]
    assert [letter["fields"]["order"] for letter in site.buried()] == list(range(7, 1000, 100))
    assert "CHECK" in site.buried()[0]["reason"]
    assert (writer.figures.stored, writer.figures.dead_letters) == (990, 10)


# Failures.


def test_nothing_is_lost_and_nothing_doubled_while_the_database_fails_at_random(site, entry):
    dice = random.Random(7)

    def fault(_: int) -> tuple[Failure, bool] | None:
        return (Failure.TRANSIENT, dice.random() < 0.5) if dice.random() < 0.4 else None

    writer = site.writer(BatchRule(100, 0.01), dialect=Unsteady(site.rows, fault), jitter=lambda: 0.0)
    writer.start()
    for first in range(0, 2000, 50):
        site.spool.append([entry(number) for number in range(first, first + 50)])
        writer.flush()
    wait_for("all rows", lambda: writer.flush() or not site.spool.fill())

    assert writer.stop(PATIENCE_S)
    assert sorted(site.stored()) == list(range(2000))
    # An answer that was lost makes duplicates of rows of which nobody knew that they were new.
    assert writer.figures.stored + writer.figures.duplicates == 2000


def test_what_cannot_be_stored_at_the_end_stays_for_the_next_time(site, entry):
    site.spool.append([entry(1)])
    failing = site.move(dialect=Unsteady(site.rows, lambda _: (Failure.TRANSIENT, False)))
    assert (failing.figures.health, failing.figures.reason) == (Health.RETRYING, "of a test")
    assert failing.figures.spool_entries == 1

    site.move()

    assert site.stored() == [1]


def test_a_commit_whose_answer_was_lost_makes_no_second_row(site, entry):
    site.spool.append([entry(1)])
    site.move(dialect=Unsteady(site.rows, lambda _: (Failure.TRANSIENT, True)))
    assert site.stored() == [1]

    writer = site.move()

    assert site.stored() == [1]
    assert writer.figures.duplicates == 1


def test_a_database_that_is_too_slow_for_a_batch_is_given_smaller_ones(site, entry):
    class Slow(Sqlite):
        def connect(self) -> Any:
            connection = super().connect()
            insert = connection.insert

            def insert_in_time(table: Any, rows: Any) -> int:
                asked.append(len(rows))
                if len(rows) > 100:
                    nonlocal waited_s
                    waited_s += 30
                    raise DatabaseFailure(Failure.TRANSIENT, "a time-out")
                return insert(table, rows)

            connection.insert = insert_in_time
            return connection

    asked: list[int] = []
    waited_s = 0
    site.spool.append([entry(number) for number in range(900)])
    writer = site.writer(
        BatchRule(800, 0.01), dialect=Slow(site.rows), clock=lambda: time.monotonic() + waited_s
    )
    writer.start()

    def is_stored() -> bool:
        writer.flush()
        return writer.figures.stored == 900

    wait_for("all of it", is_stored)
    assert asked[:4] == [800, 400, 200, 100]
    assert max(asked[4:]) < 120


def test_no_transaction_has_more_rows_than_the_batch_that_was_asked_for(site, entry, monkeypatch):
    asked: list[int] = []
    insert = Database.insert
    monkeypatch.setattr(
        Database, "insert", lambda self, table, rows: asked.append(len(rows)) or insert(self, table, rows)
    )
    site.spool.append([entry(number) for number in range(50)])

    site.move(rule=BatchRule(20, 3600))

    assert asked == [20, 20, 10]


def test_a_missing_table_holds_its_kind_only(site, entry, visit, caplog):
    with closing(sqlite3.connect(site.rows)) as connection:
        connection.execute("DROP TABLE visit")
    visits = [
        Entry(uid(2, "v", n), "database", "visit", "j", "v", 1.0, encode(visit, {"who": str(n)}))
        for n in range(1500)
    ]
    writer = site.writer(BatchRule(10, 3600))
    writer.start()

    site.spool.append(visits + [entry(number) for number in range(1500)])
    writer.wake()
    wait_for("readings", lambda: writer.figures.stored == 1500)
    wait_for("the verdict", lambda: writer.figures.health is Health.FAILED)
    site.spool.append([entry(number) for number in range(1500, 1600)])
    writer.wake()
    wait_for("more readings", lambda: writer.figures.stored == 1600)
    wait_for("visits alone are left", lambda: writer.figures.spool_entries == 1500)
    assert "OperationalError: no such table: visit" in writer.figures.reason
    assert "entries are held until somebody mends it kind=visit" in caplog.text

    site.create_tables(visit)
    writer.flush()

    wait_for("visits", lambda: writer.figures.stored == 3100)
    wait_for("health", lambda: writer.figures.health is Health.OK)
    assert [int(who) for (who,) in site.ask("SELECT who FROM visit ORDER BY id")] == list(range(1500))
    assert site.buried() == []


def test_what_is_held_is_not_read_again_and_again(site, entry, visit, monkeypatch):
    with closing(sqlite3.connect(site.rows)) as connection:
        connection.execute("DROP TABLE visit")
    visits = [
        Entry(uid(2, "v", n), "database", "visit", "j", "v", 1.0, encode(visit, {"who": str(n)}))
        for n in range(3 * ROWS_MAX)
    ]
    site.spool.append([*visits, entry(1)])
    read = []
    monkeypatch.setattr(
        "cyclone.sinks.writer.row_of", lambda kind, each: read.append(each.kind) or row_of(kind, each)
    )

    writer = site.writer()
    writer.start()

    wait_for("the reading behind them", lambda: writer.figures.stored == 1)
    assert read.count("visit") == ROWS_MAX


def test_a_bit_that_has_flipped_holds_up_no_other_entry(site, entry):
    site.spool.append([entry(number) for number in range(500)])
    site.spool.close()
    content = bytearray(site.spool_path.read_bytes())
    content[content.index(b"task-250")] |= 0x80
    site.spool_path.write_bytes(content)

    site.move()

    assert site.stored() == list(range(500))
    assert site.ask('SELECT tid FROM readings WHERE "order" IN (250, 251)') == [
        ("\ufffdask-250",),
        ("task-251",),
    ]


def test_an_entry_that_its_index_does_not_know_is_moved_also_where_others_are_held(site, entry, visit):
    with closing(sqlite3.connect(site.rows)) as connection:
        connection.execute("DROP TABLE visit")
    visits = [
        Entry(uid(2, "v", n), "database", "visit", "j", "v", 1.0, encode(visit, {"who": str(n)}))
        for n in range(9)
    ]
    site.spool.append(visits[:4])
    without_index(site.spool, "entry_of_sink", lambda: site.spool.append([entry(1)]))
    site.spool.append(visits[4:])
    writer = site.writer(BatchRule(1, 3600))

    writer.start()

    wait_for("the entry", lambda: writer.figures.stored == 1)
    wait_for("nothing but visits", lambda: writer.figures.spool_entries == 9)
    assert writer.figures.health is Health.FAILED


def test_a_fault_of_our_own_does_not_end_the_thread(site, entry, monkeypatch, caplog):
    monkeypatch.setattr("cyclone.sinks.writer.row_of", lambda *_: 1 / 0)
    writer = site.writer(BatchRule(1, 1))
    writer.start()
    site.spool.append([entry(1)])
    writer.wake()
    wait_for("the fault", lambda: writer.figures.health is Health.FAILED)
    assert "ZeroDivisionError" in writer.figures.reason
    assert "Traceback" in caplog.text
    monkeypatch.undo()

    writer.flush()

    wait_for("a row", lambda: writer.figures.stored == 1)


def test_dead_letters_that_cannot_be_written_stay_in_the_spool(site, entry):
    writer = site.writer()
    site.dead.unlink()
    site.dead.mkdir()
    site.spool.append([replace(entry(1), kind="unheard_of")])
    writer.start()
    assert writer.stop(PATIENCE_S)

    assert writer.figures.health is Health.RETRYING
    assert site.spool.fill()["database"].entries == 1


def test_a_stop_does_not_wait_for_a_database_that_hangs(site, entry):
    hangs, go_on = threading.Event(), threading.Event()

    def fault(_: int) -> None:
        hangs.set()
        go_on.wait(PATIENCE_S)

    writer = site.writer(BatchRule(1, 1), dialect=Unsteady(site.rows, fault))
    writer.start()
    site.spool.append([entry(1)])
    writer.wake()
    assert hangs.wait(PATIENCE_S)

    assert not writer.stop(0.05)

    go_on.set()


def test_a_database_that_cannot_be_used_is_told_of_before_anything_comes(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    writer = site.move(dialect=Sqlite(site.rows.parent / "none" / "rows.db"))

    [told] = caplog.records
    assert told.levelname == "WARNING"
    assert str(site.rows.parent / "none" / "rows.db") in told.getMessage()
    assert writer.figures.health is Health.OK
