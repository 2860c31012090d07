"""What a migration tells its sinks of one file."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from cyclone.record import Metric, Record

PATH_LENGTH_MAX = 4096
MESSAGE_LENGTH_MAX = 1024

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
