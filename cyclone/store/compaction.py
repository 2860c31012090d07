"""The file of a store at rest, made as small as what is in it.

What is in it is copied to a new file, which takes the place of the old one when it was looked through and is on disk. So
whoever is killed in the middle of this leaves the old one, or the new one.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from cyclone.errors import ConfigError, StoreCorrupt, StoreFull, TimedOut
from cyclone.store import file
from cyclone.store.database import (
    APPLICATION_ID,
    PAGE_BYTES,
    Database,
    damaged,
    expect_whole,
    explained,
    lay_out,
)
from cyclone.store.rows import rows_of

#: In this order: what is named by others comes first. `policy` is copied apart.
_TABLES = (
    "meta", "job", "job_count", "task", "parcel", "placement", "attempt", "ended", "ended_badly", "erasing", "late",
)  # fmt: skip


def compact(store: str | Path) -> tuple[int, int]:
    """Shrink the file; no master may use it. Returns how many bytes it had, and has.

    Policies that no task asks for any more are left out.
    Raises AlreadyRunning while a master runs, TimedOut while somebody reads the store, ConfigError (there is none),
    StoreFull if there is no room for the copy, StoreCorrupt, StoreVersionError, StoreError. The store is as it was then.
    """
    path = file.resolved(Path(store))
    if not path.is_file():
        raise ConfigError("found no file, expected a store of Cyclone", file=path)
    with contextlib.closing(Database(path, "full")) as db:
        [(pages,)], [(free,)], [(page_bytes,)] = (
            db.read("PRAGMA page_count"), db.read("PRAGMA freelist_count"), db.read("PRAGMA page_size"),
        )  # fmt: skip
        needed, room = (pages - free) * page_bytes, file.room_bytes(path.parent)
        if room < needed:
            raise StoreFull(f"{path}: found room for {room} bytes beside it, expected {needed} for the copy")
        _let_log_go(db)
        before = path.stat()
        try:
            with file.whole(path, replace=True) as part:
                _copy(path, part)
                expect_whole(part, APPLICATION_ID)
                os.chown(part, before.st_uid, before.st_gid)
                part.chmod(before.st_mode & 0o777)
                after_bytes = part.stat().st_size
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            if error.errno in file.NO_ROOM:
                raise StoreFull(f"{path}: {reason}") from error
            raise ConfigError(f"cannot be replaced: {reason}", file=path) from error
    return before.st_size, after_bytes


def _let_log_go(db: Database) -> None:
    """Have everything in the file itself: the log of the old file must not lie beside the new one.

    It also makes sure that nobody else has the store open. The next start of a master has a log again.
    """
    problem = f"{db.path}: somebody reads it, expected nobody to; try again later"
    try:
        [(mode,)] = db.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:
            raise explained(db.path, error) from error
        raise TimedOut(problem) from None
    if mode != "delete":
        raise TimedOut(problem)


def _copy(path: Path, part: Path) -> None:
    try:
        with contextlib.closing(
            sqlite3.connect(f"{part.absolute().as_uri()}?nolock=1", uri=True, isolation_level=None)
        ) as new:
            for setting in ("page_size=" + str(PAGE_BYTES), "journal_mode=OFF", "synchronous=OFF"):
                new.execute("PRAGMA " + setting)
            new.execute("ATTACH ? AS old", (f"{path.as_uri()}?mode=ro",))
            new.execute("BEGIN")
            lay_out(new.execute, 0)
            new.execute("DELETE FROM main.meta")
            used = {
                row[3] for (tasks,) in new.execute("SELECT tasks FROM old.parcel") for row in rows_of(tasks)
            }
            new.executemany(
                "INSERT INTO main.policy SELECT * FROM old.policy WHERE number = ?",
                [(policy,) for policy in sorted(used)],
            )
            for table in _TABLES:
                _copy_table(new, path, table)
            new.execute("COMMIT")
    except sqlite3.IntegrityError as error:
        # What the same table has held breaks a rule of it.
        raise damaged(path, str(error)) from error
    except sqlite3.Error as error:
        raise explained(path, error) from error


def _copy_table(new: sqlite3.Connection, path: Path, table: str) -> None:
    new.execute(f"INSERT INTO main.{table} SELECT * FROM old.{table}")  # noqa: S608 - our own names
    [(there, here)] = new.execute(
        f"SELECT (SELECT count(*) FROM old.{table}), (SELECT count(*) FROM main.{table})"  # noqa: S608
    )
    if there != here:
        raise StoreCorrupt(f"{path}: found {there} rows in {table}, and could copy {here}")
