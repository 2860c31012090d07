"""Spools that are damaged in a way that is known."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing

from cyclone.sinks.spool import Spool


def without_index(spool: Spool, name: str, work: Callable[[], object]) -> None:
    """Of what `work` does, the index of this name knows nothing, as if bits of it had flipped."""
    path = spool.path
    columns = "type, name, tbl_name, rootpage, sql"

    def schema(*statement: object) -> list[object]:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA writable_schema=1")
            return connection.execute(*statement).fetchall()

    [index] = schema(f"SELECT {columns} FROM sqlite_master WHERE name = ?", (name,))
    schema("DELETE FROM sqlite_master WHERE name = ?", (name,))
    spool._reopen()
    work()
    schema(f"INSERT INTO sqlite_master ({columns}) VALUES (?, ?, ?, ?, ?)", index)
    spool._reopen()
