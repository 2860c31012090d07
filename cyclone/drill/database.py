"""The database of the sink under drill, which is a file of SQLite: who has how many rows in it, and how to lock it."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path


def rows(file: Path) -> Counter[str]:
    """`{tid: rows}` over all tables of records. A file that is not there has none."""
    found: Counter[str] = Counter()
    if not file.exists():
        return found
    with closing(sqlite3.connect(file)) as connection:
        tables = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        for table in tables:
            columns = {column for _, column, *_ in connection.execute(f'PRAGMA table_info("{table}")')}
            if {"uid", "tid"} <= columns:
                statement = f'SELECT tid, count(*) FROM "{table}" GROUP BY tid'  # noqa: S608 - its own name
                for tid, count in connection.execute(statement):
                    found[tid] += count
    return found


def rows_of_others(file: Path) -> Counter[str]:
    """`{tid: rows of our own work that it has instead of others}`: those that it has twice, or that are another task's."""
    with closing(sqlite3.connect(file)) as connection:
        found = connection.execute(
            "SELECT tid, count(*) - count(DISTINCT CASE WHEN tid = 'work-' || number THEN place END)"
            " FROM drill GROUP BY tid"
        )
        return Counter({tid: count for tid, count in found if count})


class Busy(Exception):
    """Somebody else has the database locked."""


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Nobody else can write to it meanwhile. Raises Busy."""
    with closing(sqlite3.connect(file, timeout=1.0, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            raise Busy(str(error)) from None
        yield
        connection.execute("ROLLBACK")
