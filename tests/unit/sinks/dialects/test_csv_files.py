from __future__ import annotations

import csv
import errno
import os
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cyclone.sinks.dialects.csv_files import Csv
from cyclone.sinks.sql import Database, DatabaseFailure, Failure, row_of, table_of


@pytest.fixture
def database(tmp_path):
    database = Database(Csv(tmp_path))
    yield database
    database.close()


@pytest.fixture
def file(tmp_path):
    return tmp_path / "readings.csv"


def lines(file):
    with file.open(newline="") as text:
        return list(csv.reader(text))


def test_a_row_is_stored_as_it_was_recorded(database, file, reading, entry):
    database.create_tables([reading])
    berlin = timezone(timedelta(hours=1))
    at = datetime(2026, 11, 20, 13, 0, 0, 123999, berlin)
    sent = entry(7, at=at, change=-5, seconds=0.25, seen=False, note='a"b,\nc')

    new = database.insert(table_of(reading), [row_of(reading, sent)])

    assert new == 1
    assert lines(file) == [
        [each.name for each in table_of(reading).columns],
        [sent.uid.hex(), "2026-11-20 12:00:07.000", "watch", "task-7", "here", "7", "2026-11-20 12:00:00.123", "-5", "0.25",
         "true", "false", 'a"b,\nc'],
    ]  # fmt: skip


def test_a_row_that_is_there_already_is_passed_over(tmp_path, database, file, reading, entry):
    database.create_tables([reading])
    table = table_of(reading)
    rows = [row_of(reading, entry(number)) for number in range(4)]
    assert database.insert(table, [rows[0], rows[1], rows[1]]) == 2
    assert database.insert(table, rows[:3]) == 1
    database.close()

    assert Database(Csv(tmp_path)).insert(table, rows) == 1

    assert [line[5] for line in lines(file)] == ["order", "0", "1", "2", "3"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(notes=st.lists(st.text(), min_size=1, max_size=4), kept=st.floats(0, 1))
def test_what_a_killed_writer_left_is_put_aside_and_written_again(tmp_path, reading, entry, notes, kept):
    directory = tmp_path / os.urandom(8).hex()
    directory.mkdir()
    database, table, file = Database(Csv(directory)), table_of(reading), directory / "readings.csv"
    database.create_tables([reading])
    database.insert(table, [row_of(reading, entry(0, note="first\n,"))])
    whole = file.stat().st_size
    rows = [row_of(reading, entry(number, note=note)) for number, note in enumerate(notes, 1)]
    database.insert(table, rows)
    database.close()
    os.truncate(file, whole + int(kept * (file.stat().st_size - whole)))

    again = Database(Csv(directory))
    again.insert(table, rows)
    again.close()

    found = lines(file)[1:]
    assert [line[-1] for line in found] == ["first\n,", *notes]


def test_a_full_disk_leaves_no_half_rows_and_passes(database, file, reading, entry, monkeypatch):
    database.create_tables([reading])
    before = file.read_bytes()
    write = os.write

    def fail(descriptor, data):
        if len(data) < 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data[:10])

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(DatabaseFailure, match="No space left") as raised:
        database.insert(table_of(reading), [row_of(reading, entry(1))])
    monkeypatch.undo()

    assert raised.value.failure is Failure.TRANSIENT
    assert file.read_bytes() == before
    assert database.insert(table_of(reading), [row_of(reading, entry(1))]) == 1


def test_tables_are_created_once_and_serve_as_they_are(database, kinds):
    assert database.create_tables(kinds.values()) == ""
    assert database.create_tables(kinds.values()) == ""


def test_other_columns_are_for_somebody_to_mend(database, file, reading, entry):
    file.write_text("a,b\n1,2\n")

    assert "a, b" in database.create_tables([reading])
    with pytest.raises(DatabaseFailure, match="expected the columns uid, recorded_at") as raised:
        database.insert(table_of(reading), [row_of(reading, entry(1))])

    assert raised.value.failure is Failure.CONFIGURATION
    assert file.read_text() == "a,b\n1,2\n"


def test_a_file_that_somebody_broke_in_the_middle_is_left_alone(database, file, reading, entry):
    database.create_tables([reading])
    database.insert(table_of(reading), [row_of(reading, entry(number)) for number in range(3)])
    database.close()
    broken = file.read_bytes().replace(b"task-1", b'"task"-1')
    file.write_bytes(broken)

    with pytest.raises(DatabaseFailure) as raised:
        database.insert(table_of(reading), [row_of(reading, entry(4))])

    assert raised.value.failure is Failure.CONFIGURATION
    assert file.read_bytes() == broken


def test_a_file_that_was_moved_away_is_not_written_any_more(database, file, reading, entry):
    database.create_tables([reading])
    database.insert(table_of(reading), [row_of(reading, entry(1))])
    moved = file.rename(file.with_suffix(".1"))
    with pytest.raises(DatabaseFailure, match="No such file") as raised:
        database.insert(table_of(reading), [row_of(reading, entry(2))])
    assert raised.value.failure is Failure.CONFIGURATION

    database.create_tables([reading])
    database.insert(table_of(reading), [row_of(reading, entry(2))])

    assert [line[5] for line in lines(moved)] == ["order", "1"]
    assert [line[5] for line in lines(file)] == ["order", "2"]


def test_a_file_in_whose_place_another_one_was_put_is_not_written_any_more(database, file, reading, entry):
    database.create_tables([reading])
    database.insert(table_of(reading), [row_of(reading, entry(1))])
    moved = file.rename(file.with_suffix(".1"))
    file.write_text(moved.read_text().splitlines(keepends=True)[0])

    database.insert(table_of(reading), [row_of(reading, entry(2))])

    assert [line[5] for line in lines(moved)] == ["order", "1"]
    assert [line[5] for line in lines(file)] == ["order", "2"]


@pytest.mark.parametrize("directory", ["", "none"])
def test_no_file_is_for_somebody_to_mend(tmp_path, reading, entry, directory):
    with pytest.raises(DatabaseFailure, match="No such file") as raised:
        Database(Csv(tmp_path / directory)).insert(table_of(reading), [row_of(reading, entry(1))])

    assert raised.value.failure is Failure.CONFIGURATION
