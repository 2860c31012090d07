"""The table of Cyclone 2.x in a MySQL or MariaDB server: what is in it can be copied, and a view can go on showing it.

It had a number, the moments of reading and writing in the zone of the session, the OST as `OST000a`, the size in bytes,
throughputs in bytes a second and durations in whole seconds; -1 stood for what failed, and four zeros for an OST
that was down.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from cyclone.sinks import legacy
from cyclone.sinks.dialects.mysql import MysqlConnection, passing_over, quoted

#: Numbers of rows that are copied in one transaction.
_STEP = 10_000

# Its columns may be NULL, which is neither 0 nor -1.
_IS_DOWN = (
    "(read_throughput <=> 0 AND write_throughput <=> 0 AND read_duration <=> 0 AND write_duration <=> 0)"
)
_IS_WRITTEN = (
    f"(COALESCE(write_throughput, -1) >= 0 AND COALESCE(write_duration, -1) >= 0 AND NOT {_IS_DOWN})"
)
_IS_READ = f"(COALESCE(read_throughput, -1) >= 0 AND COALESCE(read_duration, -1) >= 0 AND NOT {_IS_DOWN})"
_IS_ROW = "(COALESCE(ost, '') REGEXP '^OST[0-9A-Fa-f]{4}$' AND size IS NOT NULL)"
_INDEX = "CONV(SUBSTRING(ost, 4), 16, 10)"
# `UNIX_TIMESTAMP` is 0 for the date that stood for "never".
_WRITTEN_AT = "IF(UNIX_TIMESTAMP(write_timestamp) > 0, write_timestamp, NULL)"
_READ_AT = "IF(UNIX_TIMESTAMP(read_timestamp) > 0, read_timestamp, NULL)"

#: Column of a record, and how it comes out of the old table.
_COPIED = {
    "uid": "UNHEX(MD5(CONCAT(%s, ':', id)))",
    "recorded_at": f"COALESCE({_WRITTEN_AT}, {_READ_AT}, UTC_TIMESTAMP())",
    "job": f"'{legacy.JOB}'",
    "tid": f"CONCAT('ost-', {_INDEX})",
    "fs": "%s",
    "ost": _INDEX,
    "state": f"CASE WHEN {_IS_DOWN} THEN 'DOWN' WHEN NOT {_IS_WRITTEN} THEN 'WRITE_FAILED' "
    f"WHEN NOT {_IS_READ} THEN 'READ_FAILED' ELSE 'OK' END",
    "size": "size",
    "write_timestamp": _WRITTEN_AT,
    "read_timestamp": _READ_AT,
    "write_throughput": f"IF({_IS_WRITTEN}, write_throughput, NULL)",
    "read_throughput": f"IF({_IS_READ}, read_throughput, NULL)",
    "write_duration": f"IF({_IS_WRITTEN}, write_duration, NULL)",
    "read_duration": f"IF({_IS_READ}, read_duration, NULL)",
    "host": "''",
}

#: Column of the view, and how it comes out of the new table. Moments are in the zone of the session that looks.
_SHOWN = {
    "id": "id",
    "read_timestamp": "FROM_UNIXTIME(TIMESTAMPDIFF(SECOND, '1970-01-01', read_timestamp))",
    "write_timestamp": "FROM_UNIXTIME(TIMESTAMPDIFF(SECOND, '1970-01-01', write_timestamp))",
    "ost": "CONCAT('OST', LPAD(LOWER(HEX(ost)), 4, '0'))",
    "size": "size",
    **{
        column: f"IF(state = 'DOWN', 0, COALESCE(CAST(ROUND({column}) AS SIGNED), -1))"
        for column in ("read_throughput", "write_throughput", "read_duration", "write_duration")
    },
}


class Copied(NamedTuple):
    """new: rows that were not there yet. left_out: those that do not tell of which OST they are, or of what size."""

    new: int
    left_out: int


def copy(connection: MysqlConnection, old: str, new: str, fs: str) -> Iterator[Copied]:
    """Copy the rows of the table `old` into `new`, that of the kind `legacy.KIND`: how many, step by step.

    fs: the file system, which the old table does not tell. What was copied before is passed over, so this can be
    cut short and repeated. Raises what the library raises.
    """
    statement = (
        f"INSERT INTO {quoted(new)} ({', '.join(map(quoted, _COPIED))}) "  # noqa: S608 - names from an ini file, quoted
        f"SELECT {', '.join(_COPIED.values())} FROM {quoted(old)} "
        f"WHERE id BETWEEN %s AND %s AND {_IS_ROW} {passing_over(new)}"
    )
    [(first, last)] = connection.ask(f"SELECT MIN(id), MAX(id) FROM {quoted(old)}")  # noqa: S608 - quoted
    for start in range(int(first), int(last) + 1, _STEP) if first is not None else ():
        span = (start, start + _STEP - 1)
        [(left_out,)] = connection.ask(
            f"SELECT COUNT(*) FROM {quoted(old)} WHERE id BETWEEN %s AND %s AND NOT {_IS_ROW}",  # noqa: S608 - quoted
            *span,
        )
        yield Copied(connection.change(statement, old, fs, *span), int(left_out))


def view(name: str, table: str) -> str:
    """The statement that makes, or makes anew, a view of this name which looks like the old table."""
    columns = ", ".join(f"{how} AS {quoted(column)}" for column, how in _SHOWN.items())
    return f"CREATE OR REPLACE VIEW {quoted(name)} AS SELECT {columns} FROM {quoted(table)}"  # noqa: S608 - quoted
