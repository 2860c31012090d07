from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta, timezone

import pytest
from msgspec.structs import replace

from cyclone.sinks.dialects.sqlite import Sqlite
from cyclone.sinks.sql import Database, DatabaseFailure, Failure, print_sql, row_of, table_of


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rows.db"


@pytest.fixture
def database(path):
    database = Database(Sqlite(path))
    yield database
    database.close()


def ask(path, question):
    connection = sqlite3.connect(path)
    try:
        return connection.execute(question).fetchall()
    finally:
        connection.close()


def test_a_row_is_stored_as_it_was_recorded(database, path, reading, entry):
    database.create_tables([reading])
    berlin = timezone(timedelta(hours=1))
    sent = entry(
        7,
        at=datetime(2026, 11, 20, 13, 0, 0, 123999, berlin),
        change=-5,
        seconds=0.25,
        seen=False,
        note="a'b",
    )

    new = database.insert(table_of(reading), [row_of(reading, sent)])

    assert new == 1
    assert ask(path, "SELECT * FROM readings") == [
        (1, sent.uid, "2026-11-20 12:00:07.000", "watch", "task-7", "here", 7, "2026-11-20 12:00:00.123", -5, 0.25, 1, 0,
         "a'b")
    ]  # fmt: skip


def test_a_row_that_is_there_already_is_passed_over(database, path, reading, entry):
    database.create_tables([reading])
    table = table_of(reading)
    database.insert(table, [row_of(reading, entry(n)) for n in (1, 2)])

    new = database.insert(table, [row_of(reading, entry(n)) for n in (2, 3)])

    assert new == 1
    assert ask(path, 'SELECT "order" FROM readings ORDER BY id') == [(1,), (2,), (3,)]


@pytest.mark.parametrize(
    "text", ["'; DROP TABLE readings; --", '"); DROP TABLE readings; --', "?%s{}\0\\", "\U0001f300" * 100]
)
def test_text_is_stored_and_never_executed(database, path, reading, entry, text):
    database.create_tables([reading])
    odd = replace(entry(1, note=text), tid=text, job=text)

    database.insert(table_of(reading), [row_of(reading, odd)])

    assert ask(path, "SELECT job, tid, note FROM readings") == [(text, text, text)]


def test_a_batch_with_a_row_that_is_not_taken_leaves_nothing_behind(database, path, reading, entry):
    database.create_tables([reading])
    good, bad = row_of(reading, entry(1)), row_of(reading, entry(2))

    with pytest.raises(DatabaseFailure, match="NOT NULL constraint failed") as raised:
        database.insert(table_of(reading), [good, (*bad[:4], None, *bad[5:])])

    assert raised.value.failure is Failure.ROW
    assert ask(path, "SELECT count(*) FROM readings") == [(0,)]
    assert database.insert(table_of(reading), [good]) == 1


def test_tables_are_created_once_and_serve_as_they_are(database, path, kinds):
    assert database.create_tables(kinds.values()) == ""

    assert database.create_tables(kinds.values()) == ""

    assert ask(path, "SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite%' ORDER BY name") == [
        ("readings",), ("readings_k_1_place_at",), ("readings_k_2_note",), ("visit",)
    ]  # fmt: skip


def test_a_table_that_is_not_as_expected_is_told_by_its_differences(database, path, visit):
    connection = sqlite3.connect(path)
    connection.execute(
        "CREATE TABLE visit (id INTEGER PRIMARY KEY, uid BLOB NOT NULL, recorded_at TEXT NOT NULL, job TEXT NOT NULL, "
        "tid TEXT NOT NULL, who INTEGER, extra TEXT, wanted TEXT NOT NULL, spare TEXT NOT NULL DEFAULT 'x')"
    )
    connection.close()

    assert database.create_tables([visit]) == (
        "table visit\n"
        "- column who integer\n"
        "+ column who text not null\n"
        "+ column until text\n"
        "+ unique (uid)\n"
        "- column wanted text not null\n"
    )


def test_the_statements_can_be_printed_and_do_what_creating_does(path, reading, kinds):
    text = print_sql(Sqlite(path), kinds.values())
    connection = sqlite3.connect(path)
    connection.executescript(text)
    connection.close()

    database = Database(Sqlite(path))
    assert database.create_tables(kinds.values()) == ""
    database.close()


# What failures are about.


def test_no_table_is_for_somebody_to_mend(database, reading, entry):
    with pytest.raises(DatabaseFailure, match="no such table") as raised:
        database.insert(table_of(reading), [row_of(reading, entry(1))])

    assert raised.value.failure is Failure.CONFIGURATION


def test_no_column_is_for_somebody_to_mend(database, path, visit, reading, entry):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE readings (id INTEGER PRIMARY KEY, uid BLOB UNIQUE)")
    connection.close()

    with pytest.raises(DatabaseFailure, match="no column") as raised:
        database.insert(table_of(reading), [row_of(reading, entry(1))])

    assert raised.value.failure is Failure.CONFIGURATION


def test_a_database_that_is_locked_passes(database, path, reading, entry, monkeypatch):
    monkeypatch.setattr("cyclone.sinks.dialects.sqlite._BUSY_S", 0.01)
    database.create_tables([reading])
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(DatabaseFailure, match="locked") as raised:
        database.insert(table_of(reading), [row_of(reading, entry(1))])

    assert raised.value.failure is Failure.TRANSIENT
    other.close()
    assert database.insert(table_of(reading), [row_of(reading, entry(1))]) == 1


def test_a_place_that_cannot_be_used_is_for_somebody_to_mend(tmp_path):
    with pytest.raises(DatabaseFailure, match="unable to open") as raised:
        Database(Sqlite(tmp_path / "none" / "rows.db")).open()

    assert raised.value.failure is Failure.CONFIGURATION


def test_a_file_that_is_no_database_is_for_somebody_to_mend(path):
    path.write_text("This is no database.\n" * 100)

    with pytest.raises(DatabaseFailure, match="not a database") as raised:
        Database(Sqlite(path)).open()

    assert raised.value.failure is Failure.CONFIGURATION


def test_a_name_is_quoted_whatever_it_is(database, path, reading):
    name = 'odd"; DROP TABLE readings; --'
    odd = table_of(reading)._replace(name=name, indexes=())
    database.create_tables([reading])

    for statement in Sqlite(path).statements(odd):
        database.ask(lambda connection, statement=statement: connection.execute(statement))

    assert ask(path, "SELECT name FROM sqlite_master WHERE type = 'table'") == [("readings",), (name,)]
