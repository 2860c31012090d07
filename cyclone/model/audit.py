"""What an audit reads of a store, its facts, and what it says of it, its findings.

The facts are those on disk, row by row, and not what the store makes of them: an audit believes no code that it is
to watch. A row that cannot be read is a fact, too: its `problem` says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

import msgspec

from cyclone.model.lifecycle import State
from cyclone.model.task import End, JobNumber, TaskNumber, Token


class TaskRow(NamedTuple):
    """One accepted task, as its parcel or the index of tids knows it. problem: with its policy, in its parcel."""

    number: TaskNumber
    job: JobNumber
    tid: str
    problem: str = ""


class ParcelRow(NamedTuple):
    """Tasks that were written together. payloads: how many there are."""

    first: TaskNumber
    last: TaskNumber
    tasks: Sequence[TaskRow]
    payloads: int
    problem: str = ""


class AttemptRow(NamedTuple):
    """An attempt that did not end its task. token: its key; `end` has it as well. problem: with it, or with its end."""

    task: TaskNumber
    token: Token
    attempt: int
    end: End | None
    problem: str = ""


class EndRow(NamedTuple):
    """The end of a task. end: of its last attempt, None if there was none."""

    task: TaskNumber
    state: State | None
    attempts: int
    end: End | None
    problem: str = ""


class BadEndRow(NamedTuple):
    """In the list of tasks that did not succeed."""

    task: TaskNumber
    state: str


class PlacementRow(NamedTuple):
    """Attempts that were given out and are not all over: tokens `first, first + 1, …` for `numbers`."""

    first: Token
    numbers: Sequence[TaskNumber]
    problem: str = ""


class LateRow(NamedTuple):
    """In the list of tasks that are to be forgotten when they have ended for long enough."""

    task: TaskNumber
    job: JobNumber


class JobRow(NamedTuple):
    """One job. last_task: None while it is not closed. counts: of ended tasks by state, as the store counts them.

    forgotten: how many of these are not kept any more.
    """

    number: JobNumber
    name: str
    state: str
    first_task: TaskNumber
    last_task: TaskNumber | None
    counts: Mapping[str, int]
    forgotten: int = 0


class Facts(Protocol):
    """One store at one moment. Every stream comes in the order of its key and is read once.

    erasing: jobs that are forgotten, and of which something is left; `tasks` leaves them out. forgotten_to: tasks with larger
    numbers were never forgotten.
    """

    epoch: int
    identity: str
    erasing: frozenset[JobNumber]
    forgotten_to: TaskNumber

    def damage(self) -> Iterator[str]:
        """What is wrong with the file itself, a line each."""

    def jobs(self) -> Iterator[JobRow]: ...

    def live(self) -> Sequence[tuple[TaskNumber, TaskNumber]]:
        """Where a master that wakes up looks for open tasks: `[(first, last), …]`, ascending."""

    def parcels(self) -> Iterator[ParcelRow]: ...

    def tasks(self) -> Iterator[TaskRow]:
        """What the index of tids knows, by number."""

    def attempts(self) -> Iterator[AttemptRow]:
        """By task, those of one task by token."""

    def ends(self) -> Iterator[EndRow]: ...

    def bad_ends(self) -> Iterator[BadEndRow]: ...

    def placements(self) -> Iterator[PlacementRow]: ...

    def late(self) -> Iterator[LateRow]:
        """By task."""


class Rule(StrEnum):
    """What a violation is one of; what each demands is in `RULES`."""

    FILE = "file"
    BALANCE = "balance"
    PARCEL = "parcel"
    NUMBER = "number"
    JOB = "job"
    END = "end"
    BAD_END = "bad_end"
    COUNT = "count"
    ATTEMPT = "attempt"
    TOKEN = "token"  # noqa: S105 - a word
    PLACEMENT = "placement"
    LIVE = "live"
    FORGETTING = "forgetting"
    RECORD = "record"


#: What must be true of every store at every moment; the manual is made from it.
RULES = {
    Rule.FILE: "the store is an intact database (SQLite's `integrity_check`), and every row can be read",
    Rule.BALANCE: "accepted = ended + open + forgotten, in each job and all together",
    Rule.PARCEL: "each accepted task is in one parcel, with its payload, under a policy that is there, and in the index of "
    "tids, under the same number, job and tid",
    Rule.NUMBER: "numbers of tasks are unique and ascend",
    Rule.JOB: "a job was opened and has its tasks between its first and last number; it is closed when its state says so, and "
    "has then no open task, and none that did not succeed if it is `succeeded`",
    Rule.END: "each end is that of an accepted task, and fits to the outcome of its last attempt",
    Rule.BAD_END: "the list of tasks that did not succeed, which `cyclone tasks` reads, is that of the ends",
    Rule.COUNT: "the store has counted as many ends of each state as there are; of a job that has forgotten some, as many more as these",
    Rule.ATTEMPT: "attempts at a task are numbered from 1 without a gap, each has one outcome, the end tells of as many, and "
    "only the last one can succeed",
    Rule.TOKEN: "no token stands twice, whether in an attempt, an end or a placement, none is of an epoch that never was, "
    "and an end is by the newest of its task",
    Rule.PLACEMENT: "what is placed was accepted; at most one attempt at a task is without outcome, and none before another",
    Rule.LIVE: "a master that wakes up finds every open task: `live_blocks` covers it",
    Rule.FORGETTING: "neither a job that is there nor a task that is open is about to be forgotten",
    Rule.RECORD: "each record of a task that succeeded is at its sink: in one row of one table, in its spool, or among its dead "
    "letters; or else it waits at a controller (only where sinks are asked, see below)",
}


class Finding(msgspec.Struct, frozen=True):
    """One violation. job: a name, "" if it is about none; number: of the task, 0 if it is about none."""

    rule: Rule
    found: str
    expected: str
    job: str = ""
    job_number: JobNumber = 0
    number: TaskNumber = 0
    tid: str = ""

    def __str__(self) -> str:
        place = f"job {self.job} ({self.job_number}), " if self.job_number else ""
        if self.number:
            place += f"task {self.number}" + (f" ({self.tid})" if self.tid else "") + ", "
        return f"{self.rule}: {place}found {self.found}, expected {self.expected}"


class JobSum(msgspec.Struct):
    """The sums of one job. ended: tasks by state; open: accepted and not ended; forgotten: ended, and not kept any more."""

    number: JobNumber
    name: str
    state: str
    accepted: int = 0
    ended: dict[str, int] = {}
    open: int = 0
    forgotten: int = 0


class RecordSum(msgspec.Struct):
    """The records for one sink. sent: by attempts that ended their tasks; the rest: what has become of them.

    asked: of how many the sink was asked. stored: in a table of its database; waiting: in its spool; refused: dead
    letters. underway: at no sink, and as many wait at controllers. missing: nobody has them.
    twice: in more than one row. untold: nobody could tell. trouble: why, "" if everybody could or was not asked.
    keeps: false: this sink keeps no records, so that it cannot be asked.
    """

    sink: str
    sent: int = 0
    asked: int = 0
    stored: int = 0
    waiting: int = 0
    refused: int = 0
    underway: int = 0
    missing: int = 0
    twice: int = 0
    untold: int = 0
    trouble: str = ""
    keeps: bool = True


class Audit(msgspec.Struct):
    """What an audit has to say.

    attempts: that have ended. violations: by rule, all of them; findings: the first ones.
    forgotten: of open jobs. is_whole: false if the store could not be read to its end.
    """

    store: str
    epoch: int
    accepted: int = 0
    ended: int = 0
    open: int = 0
    attempts: int = 0
    jobs: list[JobSum] = []
    records: list[RecordSum] = []
    violations: dict[str, int] = {}
    findings: list[Finding] = []
    is_whole: bool = True
    forgotten: int = 0

    @property
    def is_sound(self) -> bool:
        """Nothing speaks against it."""
        return not self.violations

    @property
    def is_proven(self) -> bool:
        """Nothing speaks against it, and nobody who was asked had no answer."""
        return self.is_sound and not any(records.untold for records in self.records)
