"""A copy of a store, also of one that a master has open.

It is read in one transaction of a connection of its own, so that it is the store of one moment. The master goes on
meanwhile, but its log cannot begin anew and grows by all that is written; so the copy is made page by page, which is
as fast as the disk, and given up rather than that the log takes the last room.

A back-up is marked as one. What its store does after it was made is not known in it, and the first who opens it as a store
leaves room for that: see `Database`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cyclone.errors import ConfigError, StoreFull
from cyclone.model.task import Epoch
from cyclone.store import file
from cyclone.store.database import BACKUP_ID, BUSY_S, COPIED_AT, expect_store, expect_whole, explained, minute

#: So much is copied between two looks at the room that is left: some milliseconds.
_PAGES = 512
#: What is left to the store while it is copied; on a small disk half of what there was.
_RESERVE_BYTES = 256 * 2**20


def back_up(
    store: str | Path, target: str | Path, *, replace: bool = False, clock: Callable[[], float] = time.time
) -> int:
    """Copy the store to this file, whole or not at all, look through the copy, and return how many bytes it has.

    replace: whether the file may be there already. clock: Unix time.
    Raises ConfigError (there is no store; a file is there), StoreFull, StoreCorrupt, StoreVersionError, StoreError.
    """
    path, copy = file.resolved(Path(store)), Path(target)
    if not path.is_file():
        raise ConfigError("found no file, expected a store of Cyclone", file=path)
    for own in file.names(path):
        if own == Path(os.path.realpath(copy)) or (own.exists() and copy.exists() and copy.samefile(own)):
            raise ConfigError("found a file of the store itself, expected another one", file=copy)
    if copy.is_dir():
        raise ConfigError("found a directory, expected the name of a file", file=copy)
    if copy.exists() and not replace:
        raise ConfigError("found a file, expected none, or --replace", file=copy)
    try:
        with file.whole(copy, replace=replace) as part:
            _copy(path, part, copy)
            _mark(part, copy, minute(clock()))
            expect_whole(part, BACKUP_ID)
            size = part.stat().st_size
    except FileExistsError:
        raise ConfigError("found a file that was not there before, expected none", file=copy) from None
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        if error.errno in file.NO_ROOM:
            raise StoreFull(f"{copy}: {reason}") from error
        raise ConfigError(f"cannot be written: {reason}", file=copy) from error
    return size


def _copy(path: Path, part: Path, copy: Path) -> None:
    try:
        # Not read-only: the last one who closes a store at rest removes the log that opening it has made.
        with contextlib.closing(
            sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=BUSY_S, isolation_level=None)
        ) as source:
            source.execute("PRAGMA query_only=ON")
            source.execute("BEGIN")
            # The first reading of a transaction is the moment from which on it sees nothing new.
            [(application,)], [(version,)] = (
                source.execute("PRAGMA application_id"), source.execute("PRAGMA user_version"),
            )  # fmt: skip
            expect_store(path, application, version)
            [(pages,)], [(page_bytes,)] = (
                source.execute("PRAGMA page_count"), source.execute("PRAGMA page_size"),
            )  # fmt: skip
            needed, room = pages * page_bytes, file.room_bytes(part.parent)
            if room < needed:
                raise StoreFull(f"{copy}: found room for {room} bytes, expected {needed}")
            reserve = min(_RESERVE_BYTES, file.room_bytes(path.parent) // 2)

            def look(status: int, left: int, total: int) -> None:
                if file.room_bytes(path.parent) < reserve:
                    raise StoreFull(
                        f"{path}: less than {reserve} bytes are left on its disk: the back-up is given up, "
                        "before the log that grows while it is made takes them from the master"
                    )

            with _alone(part, copy) as target:
                source.backup(target, pages=_PAGES, progress=look, sleep=0)
    except sqlite3.Error as error:
        raise explained(path, error) from error


@contextlib.contextmanager
def _alone(part: Path, copy: Path) -> Iterator[sqlite3.Connection]:
    """Nobody else knows the file, and whether it is on disk counts at the end only."""
    try:
        with contextlib.closing(
            sqlite3.connect(f"{part.absolute().as_uri()}?nolock=1", uri=True, isolation_level=None)
        ) as target:
            target.execute("PRAGMA journal_mode=OFF")
            target.execute("PRAGMA synchronous=OFF")
            yield target
    except sqlite3.Error as error:
        raise explained(copy, error) from error


def _mark(part: Path, copy: Path, copied_at: Epoch) -> None:
    """Say in the file that it is a back-up, and when it was made."""
    with open(part, "r+b") as head:
        # The versions for writing and for reading of a file with a rollback journal, so without a log
        # (sqlite.org/fileformat2.html).
        head.seek(18)
        head.write(b"\x01\x01")
    with _alone(part, copy) as target:
        target.execute("PRAGMA application_id=" + str(BACKUP_ID))
        target.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (COPIED_AT, copied_at))
