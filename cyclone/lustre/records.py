"""What the monitoring of a Lustre file system tells its sinks: how fast an OST is, and whether files can be made on it.

Names of metrics are an interface: dashboards and alert rules of sites are written against them.
"""

from __future__ import annotations

from datetime import datetime
from operator import attrgetter
from typing import Annotated

from msgspec import Meta

from cyclone.record import Metric, Record

#: Of an OST or an MDT, as Lustre numbers them.
INDEX_MAX = 65535
FS_LENGTH_MAX = 16
HOST_LENGTH_MAX = 255
ERROR_LENGTH_MAX = 1024

_Index = Annotated[int, Meta(ge=0, le=INDEX_MAX)]
_FileSystem = Annotated[
    str, Meta(min_length=1, max_length=FS_LENGTH_MAX, description="name of the file system")
]
_State = Annotated[str, Meta(min_length=1, max_length=16)]
_Error = Annotated[str, Meta(max_length=ERROR_LENGTH_MAX, description="what went wrong, and where")]
_Errno = Annotated[int, Meta(ge=0)]
_Count = Annotated[int, Meta(ge=0, extra={"unit": "OSTs"})]
_Seconds = Annotated[float, Meta(ge=0, extra={"unit": "s"})]
_Throughput = Annotated[int, Meta(ge=0, extra={"unit": "B/s"})]


#: The state of an OST that nobody expects any more: its series go.
_RETIRED = "RETIRED"

#: States of an OST in which nothing was tried on it.
_UNCHECKED = frozenset({"DOWN", "INACTIVE", "UNKNOWN", "HUNG", _RETIRED})


class OstPerformance(Record, frozen=True, kw_only=True):
    """One look at one OST: how fast a file on it was written and read back, or why that could not be measured.

    What was not measured is None, never a number that stands for it.
    """

    kind = "ost_perf"
    table = "ost_perf_history"
    indexes = (("fs", "ost", "write_timestamp"),)
    metrics = (
        Metric(
            "cyclone_ost_write_seconds",
            "Time to write the file, and to sync it where that is asked for.",
            ("fs", "ost"),
            lambda row: row.write_duration,
        ),
        Metric(
            "cyclone_ost_read_seconds",
            "Time to read the file back.",
            ("fs", "ost"),
            lambda row: row.read_duration,
        ),
        Metric(
            "cyclone_ost_write_bytes_per_second",
            "Pace at which the file was written.",
            ("fs", "ost"),
            lambda row: row.write_throughput,
        ),
        Metric(
            "cyclone_ost_read_bytes_per_second",
            "Pace at which the file was read back.",
            ("fs", "ost"),
            lambda row: row.read_throughput,
        ),
        Metric(
            "cyclone_ost_state",
            "1 for the state in which the OST was found.",
            ("fs", "ost", "state"),
            lambda row: None if row.state == _RETIRED else 1.0,
        ),
    )

    fs: _FileSystem
    ost: _Index
    state: _State
    size: Annotated[int, Meta(ge=0, description="of the file", extra={"unit": "B"})]
    write_timestamp: datetime | None = None
    read_timestamp: datetime | None = None
    write_throughput: _Throughput | None = None
    read_throughput: _Throughput | None = None
    write_duration: _Seconds | None = None
    read_duration: _Seconds | None = None
    host: Annotated[str, Meta(max_length=HOST_LENGTH_MAX, description="where it was measured")] = ""
    error: _Error | None = None
    read_mode: Annotated[str, Meta(max_length=16, description="how the cache was avoided")] | None = None


class FileCreation(Record, frozen=True, kw_only=True):
    """One look at one pair of MDT and OST: could a file be made whose name is on the one and whose data on the other?

    reason: "" if it could, else a word to count by: a state, or the name of an errno.
    """

    kind = "file_creation"
    indexes = (("target", "mdt_index", "ost_index", "checked_at"),)
    metrics = (
        Metric(
            "cyclone_lustre_file_creation_check",
            "1 if a file could be made on this pair, else 0.",
            ("target", "mdt_index", "ost_index"),
            lambda row: None if row.state == _RETIRED else float(row.state == "OK"),
        ),
        Metric(
            "cyclone_lustre_file_creation_check_timestamp_seconds",
            "When this pair was checked, as Unix time; not there while its OST is not looked at.",
            ("target", "mdt_index", "ost_index"),
            lambda row: None if row.state in _UNCHECKED else row.checked_at.timestamp(),
        ),
        Metric(
            "cyclone_lustre_file_creation_check_duration_seconds",
            "Time to make the file and to remove it.",
            ("target", "mdt_index", "ost_index"),
            lambda row: row.duration,
        ),
        Metric(
            "cyclone_lustre_file_creation_errors_total",
            "Checks that did not end well, by reason.",
            ("target", "reason"),
            # Without an error there is no such series, so there is none that could be taken away. What somebody has
            # switched off is no error.
            lambda row: None if row.state in ("OK", "INACTIVE", _RETIRED) else 1.0,
            kind="counter",
        ),
    )

    target: _FileSystem
    mdt_index: _Index
    ost_index: _Index
    state: _State
    reason: Annotated[str, Meta(max_length=32)] = ""
    actual_ost: _Index | None = None
    create_seconds: _Seconds | None = None
    unlink_seconds: _Seconds | None = None
    checked_at: datetime
    error: _Error | None = None
    errno: _Errno | None = None

    @property
    def duration(self) -> float | None:
        """Seconds that making and removing took together; None if there was nothing to remove."""
        if self.create_seconds is None or self.unlink_seconds is None:
            return None
        return self.create_seconds + self.unlink_seconds


class FileCreationRound(Record, frozen=True, kw_only=True):
    """What came of one round over all pairs of MDT and OST of a file system."""

    kind = "file_creation_round"
    indexes = (("target", "started_at"),)
    metrics = (
        Metric(
            "cyclone_lustre_file_creation_error",
            "1 if any check of the newest round ended in an error, or could not be made, else 0.",
            ("target",),
            lambda row: float(row.errors > 0),
        ),
    )

    target: _FileSystem
    started_at: datetime
    pairs: Annotated[int, Meta(ge=0, description="of which something is known")]
    errors: Annotated[
        int, Meta(ge=0, description="pairs whose check ended in an error, or could not be made")
    ]


class MonitoringRound(Record, frozen=True, kw_only=True):
    """What came of one round over all OSTs. Each OST that was expected is counted in exactly one of the other counts."""

    kind = "ost_round"
    metrics = (
        *(
            Metric(f"cyclone_ost_round_{name}", meaning, ("fs", "task"), attrgetter(name))
            for name, meaning in (
                ("expected", "OSTs that the newest round was to look at."),
                ("ok", "OSTs in which the newest round found no fault."),
                ("failed", "OSTs in which the newest round found a fault."),
                ("down", "OSTs that the newest round found down, or not active."),
                ("hung", "OSTs with a task that had not ended for too long."),
                ("skipped", "OSTs that the newest round did not come to."),
            )
        ),
        Metric(
            "cyclone_ost_round_duration_seconds",
            "How long the newest round took.",
            ("fs", "task"),
            attrgetter("duration"),
        ),
    )

    fs: _FileSystem
    task: Annotated[str, Meta(max_length=64, description="name of the task in the task file")]
    started_at: datetime
    duration: _Seconds
    expected: _Count
    ok: _Count
    failed: _Count
    down: _Count
    hung: _Count
    skipped: _Count
