"""What the parts of a daemon say of themselves, in frozen copies that any thread may read.

Counts are from the start of the daemon; moments are Unix times, 0 if there was none yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cyclone.messages import SpoolView


class SeriesFigures(NamedTuple):
    """Of the series that records make.

    series: how many are kept, also those that a record has removed. repeated: records that had come before.
    stale: series that were removed because nothing was heard of them. refused: gauges for which there was no room, and
    counters that were given up for others.
    """

    series: int = 0
    repeated: int = 0
    stale: int = 0
    refused: int = 0


class PushFigures(NamedTuple):
    """Of what is pushed to a Pushgateway.

    failures_in_a_row: since the push that succeeded last.
    rejected: families that the gateway does not take. trouble: why the last push failed, "" if it did not.
    """

    pushes: int = 0
    failures: int = 0
    failures_in_a_row: int = 0
    last_success_at: float = 0.0
    rejected: tuple[str, ...] = ()
    trouble: str = ""


class ClientFigures(NamedTuple):
    """Of the Pushgateway client. received: records, also those that come again. invalid: what was no record."""

    received: int = 0
    invalid: int = 0
    series: SeriesFigures = SeriesFigures()
    push: PushFigures = PushFigures()


class ControllerFigures(NamedTuple):
    """Of one controller, by itself.

    workers_busy: also those that are hung. queued: attempts that no worker has started. values_kept: values of
    ended attempts that the master has not told to drop; bytes of them. dropped: records for which the spool had no
    room any more. spool_max_bytes: 0 without a bound.
    """

    workers: int
    workers_busy: int
    workers_hung: int
    queued: int
    values_kept: int
    values_kept_bytes: int = 0
    spools: Sequence[SpoolView] = ()
    dropped: int = 0
    spool_max_bytes: int = 0


class DatabaseFigures(NamedTuple):
    """Of the database proxy.

    received: records, also those that come again. stored, duplicates: rows. waiting: records on its disk.
    unwritten: dead letters that their file does not have.
    waiting_oldest_s: how long the first of those has waited, 0 if there is none.
    batch_s: how long the last transaction took. trouble: why the database does not take any, "" if it does.
    """

    received: int = 0
    stored: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    unwritten: int = 0
    waiting: int = 0
    waiting_bytes: int = 0
    waiting_oldest_s: float = 0.0
    spool_max_bytes: int = 0
    last_success_at: float = 0.0
    batch_s: float = 0.0
    trouble: str = ""
