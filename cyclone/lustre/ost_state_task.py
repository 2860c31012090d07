"""Records what is known of OSTs without looking at them."""

from __future__ import annotations

from collections.abc import Sequence

from cyclone.base_task import BaseTask
from cyclone.lustre.ost_task import Row


class OstStateTask(BaseTask):
    """Records the rows that it was given: the states of OSTs that are known to be down or hung, the sum of a round.

    It is a task because records are sent by tasks; it does no I/O and goes before those that do.
    """

    priority = 10

    def __init__(self, rows: Sequence[Row]) -> None:
        super().__init__()
        self.rows = tuple(rows)

    def execute(self) -> None:
        for row in self.rows:
            self.record(row.sink, row.kind, **row.fields)
