"""Records what is known of OSTs without looking at them."""

from __future__ import annotations

from collections.abc import Sequence

from cyclone.base_task import BaseTask
from cyclone.lustre.ost_task import Row


class OstStateTask(BaseTask):
    """Records the rows that it was given: the states of OSTs that are known to be down or hung, the sum of a round.

    It is a task because records are sent by tasks; it does no I/O and goes before those that do. It may still have to
    wait for a worker that what it tells of keeps busy, and then for the end of that: so the rows are recorded as of the
    moment at which they were known.

    known_at: Unix time.
    """

    priority = 10

    def __init__(self, rows: Sequence[Row], known_at: float) -> None:
        super().__init__()
        self.rows, self.known_at = tuple(rows), known_at

    def execute(self) -> None:
        for row in self.rows:
            self.record_as_of(self.known_at, row.sink, row.kind, **row.fields)
