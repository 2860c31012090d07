"""What is executed under siege: a task whose value and record tell whose they are."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from cyclone import BaseTask, Record


class EchoRecord(Record):
    """One row for each number."""

    kind = "echo"

    number: Annotated[int, Meta(ge=0)]


class Echo(BaseTask):
    """Returns its number, so that a value of somebody else's is noticed, and records it if it is told to.

    It asks for what honest controllers alone have: one that is authorised and says that it has room is given tasks, and
    what it tells of those is believed, as it must be.
    """

    resources: ClassVar = {"cpus": 1, "honesty": 1}

    def __init__(self, number: int, *, records: bool = False) -> None:
        super().__init__()
        self.number, self.records = number, records

    def execute(self) -> int:
        if self.records:
            self.record("database", EchoRecord, number=self.number)
        return self.number
