"""What a migration tells its sinks: what became of each file, and how the OSTs stand."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from cyclone.record import Metric, Record

PATH_LENGTH_MAX = 4096
MESSAGE_LENGTH_MAX = 1024


class MigrationOst(Record, frozen=True, kw_only=True):
    """How an OST stands in a migration, in one of its two roles.

    source: the same as ost for a source, None for a target; left: entries of its lists without a final result.
    fill: its fill level from 0 to 1, with what has been moved since it was measured; None if it is unknown.
    """

    kind = "migration_ost"
    indexes = (("ost", "moment"),)
    metrics = (
        Metric(
            "cyclone_migration_queue_entries",
            "Entries of a source that have no final result.",
            ("source",),
            lambda row: row.left,
        ),
        Metric(
            "cyclone_migration_inflight",
            "Tasks that an OST has in flight.",
            ("ost", "role"),
            lambda row: row.in_flight,
        ),
        Metric(
            "cyclone_migration_ost_state",
            "1 for the state of an OST in a role: ready, blocked, locked, pending_lock.",
            ("ost", "role", "state"),
            lambda row: 1.0,
        ),
        Metric(
            "cyclone_migration_ost_fill_ratio",
            "Fill level of an OST, with what has been moved since it was measured.",
            ("ost",),
            lambda row: row.fill,
        ),
    )

    ost: Annotated[int, Meta(ge=0, le=65535)]
    role: Annotated[str, Meta(max_length=8)]
    state: Annotated[str, Meta(max_length=16)]
    in_flight: Annotated[int, Meta(ge=0, extra={"unit": "tasks"})]
    source: Annotated[int, Meta(ge=0, le=65535)] | None
    left: Annotated[int, Meta(ge=0, extra={"unit": "entries"})] | None
    fill: Annotated[float, Meta(ge=0)] | None
    moment: datetime


_Index = Annotated[int, Meta(ge=0, le=65535)]
_Word = Annotated[str, Meta(max_length=32)]


class Migration(Record, frozen=True, kw_only=True):
    r"""What became of one file that was to move from one OST to another.

    path: escaped, so that it is valid text on one line; a longer one is cut, the FID still tells which file it was.
    actual: where it lies now; None if nobody looked. reason: a word of a small set, "" if there is nothing to tell.
    bytes: the size of the file, also of one that did not move. moment: when that was known.
    """

    kind = "migration"
    table = "migration_history"
    indexes = (("moment",), ("source", "state"), ("fid",))
    metrics = (
        Metric(
            "cyclone_migration_files_total",
            "Files that were to be moved, by what became of them.",
            ("state", "reason"),
            lambda row: 1.0,
            kind="counter",
        ),
        Metric(
            "cyclone_migration_bytes_total",
            "Bytes of the files that were to be moved, by what became of them.",
            ("state", "reason"),
            lambda row: float(row.bytes),
            kind="counter",
        ),
    )

    path: Annotated[str, Meta(min_length=1, max_length=PATH_LENGTH_MAX)]
    fid: Annotated[str, Meta(max_length=64)]
    source: _Index
    target: _Index
    actual: _Index | None
    state: _Word
    reason: _Word
    message: Annotated[str, Meta(max_length=MESSAGE_LENGTH_MAX, description="what Lustre told")]
    bytes: Annotated[int, Meta(ge=0, extra={"unit": "B"})]
    seconds: Annotated[float, Meta(ge=0, extra={"unit": "s"})]
    moment: datetime
