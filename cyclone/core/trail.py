"""Follows the records of tasks to one sink: which are to be asked for, and what the answers mean.

Records go from a worker to its controller, from there to the sink, and there from a spool into tables. A sink that does
not know one yet is asked again; what it never comes to know may still wait at a controller, of which only numbers are
known. What is left then is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cyclone.core.audit import Findings, Sent
from cyclone.messages import RecordsKnown
from cyclone.model.audit import JobSum, RecordSum, Rule
from cyclone.model.task import TaskNumber
from cyclone.record import uid

#: Of one question.
BATCH = 2000

#: So many that a sink does not know are asked for again; beyond that they are only counted.
AGAIN_MOST = 100_000


class Traced(NamedTuple):
    """One record. key: its uid. place: its number in its task."""

    key: bytes
    job: JobSum
    number: TaskNumber
    tid: str
    place: int


class Trail:
    """Owns what is to be asked of the sinks of one name, and the sums.

    There may be several of one name, each for some of the controllers: all of them are asked.
    """

    def __init__(self, sums: RecordSum, findings: Findings) -> None:
        self.sums = sums
        self.due: list[Traced] = []
        self.unknown: list[Traced] = []  # oldest first
        self._findings = findings
        self._uncounted = 0  # that are not known and not kept here

    @property
    def is_full(self) -> bool:
        """It is time to ask."""
        return len(self.due) >= BATCH

    def add(self, sent: Sent, places: range) -> None:
        """These of the records of a task went to this sink."""
        self.due += [
            Traced(uid(sent.key, sent.tid, place), sent.job, sent.number, sent.tid, place) for place in places
        ]

    def answered(self, answers: Sequence[RecordsKnown]) -> None:
        """What each sink of this name has said of the oldest `BATCH` of what was due."""
        asked, self.due = self.due[:BATCH], self.due[BATCH:]
        self._learn(asked, answers)

    def answered_again(self, asked: Sequence[Traced], answers: Sequence[RecordsKnown]) -> None:
        """The same for some of those that nobody knew: they are known now, or unknown as before."""
        again = {record.key for record in asked}
        self.unknown = [record for record in self.unknown if record.key not in again]
        self.sums.asked -= len(asked)
        self._learn(asked, answers)

    def _learn(self, asked: Sequence[Traced], answers: Sequence[RecordsKnown]) -> None:
        sums = self.sums
        keeping = [answer for answer in answers if answer.keeps]
        if not keeping:
            sums.keeps = False
            return
        trouble = "; ".join(dict.fromkeys(answer.trouble for answer in keeping if answer.trouble))
        sums.trouble = sums.trouble or trouble
        sums.asked += len(asked)
        for place, record in enumerate(asked):
            views = [answer.records[place] for answer in keeping if answer.records]
            rows = sum(view.rows for view in views)
            if rows:
                sums.stored += 1
                if rows > 1:
                    sums.twice += 1
                    self._find(record, f"in {rows} rows", "one row")
            elif any(view.waiting for view in views):
                sums.waiting += 1
            elif any(view.refused for view in views):
                sums.refused += 1
            elif trouble:
                sums.untold += 1
            elif len(self.unknown) < AGAIN_MOST:
                self.unknown.append(record)
            else:
                self._uncounted += 1

    def settle(self, underway: int, where: str) -> None:
        """Nobody is asked any more: whatever is left is missing.

        underway: so many wait at controllers for this sink. They are taken to be the newest ones.
        where: else it was looked for, in words.
        """
        left = len(self.unknown) + self._uncounted
        self.sums.underway = min(left, underway)
        self.sums.missing = left - self.sums.underway
        for record in self.unknown[: self.sums.missing]:
            self._find(
                record, f"neither there nor {where}", "one row, in its spool or among its dead letters"
            )
        for _ in range(self.sums.missing - len(self.unknown)):
            self._findings.add(Rule.RECORD, f"a record for {self.sums.sink} nowhere", "it at its sink")

    def _find(self, record: Traced, found: str, expected: str) -> None:
        what = f"record {record.place} ({record.key.hex()}) for {self.sums.sink} {found}"
        self._findings.add(Rule.RECORD, what, expected, record.job, record.number, record.tid)
