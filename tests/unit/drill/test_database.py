"""What the database of the sink is asked: a row too many must not make up for one that is missing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cyclone.drill.database import Busy, locked, rows, rows_of_others


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "records.sqlite"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE drill (uid, tid, number, place)")
        connection.execute("CREATE TABLE other (uid, tid)")
        connection.execute("CREATE TABLE unrelated (tid)")
    return file


def insert(file: Path, *drilled: tuple[str, int, int], other: str = "") -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.executemany("INSERT INTO drill (tid, number, place) VALUES (?, ?, ?)", drilled)
        connection.execute("INSERT INTO other (tid) VALUES (?)", (other or "x",))
        connection.execute("INSERT INTO unrelated VALUES ('work-1')")


def test_rows_are_counted_over_all_tables_of_records(file: Path) -> None:
    insert(file, ("work-1", 1, 0), ("work-1", 1, 1), ("work-2", 2, 0), other="work-2")

    assert rows(file) == {"work-1": 2, "work-2": 2}
    assert rows_of_others(file) == {}


def test_a_database_that_is_not_there_has_no_rows(tmp_path: Path) -> None:
    assert rows(tmp_path / "missing") == {}


def test_a_row_that_is_there_twice_and_one_of_another_task_are_noticed(file: Path) -> None:
    insert(file, ("work-1", 1, 0), ("work-1", 1, 0), ("work-2", 3, 1), ("work-3", 3, 0), ("work-3", 3, 1))

    assert rows_of_others(file) == {"work-1": 1, "work-2": 1}


def test_nobody_else_can_write_to_a_database_that_is_locked(file: Path) -> None:
    with locked(file), pytest.raises(Busy), locked(file):
        pass

    insert(file)
