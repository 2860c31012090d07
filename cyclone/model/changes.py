"""What the master's mind wants remembered, and what it wakes up with.

Facts are only ever added: a task row never changes after it was accepted, and its end is written once. What is
old enough is forgotten as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

import msgspec

from cyclone.messages import TaskEnd
from cyclone.model.lifecycle import JobState
from cyclone.model.peer import Peer
from cyclone.model.task import Cause, End, JobNumber, Policy, TaskNumber, Token


class JobOpened(NamedTuple):
    number: JobNumber
    name: str


class JobSealed(NamedTuple):
    """Whether more tasks will come for a job that is not closed. The newest word counts.

    state: `sealed` or `failing`: none will; `open`: they may again.
    """

    number: JobNumber
    state: JobState


class JobRemembers(NamedTuple):
    """For how long a job that is not closed remembers a task after its end; None: for as long as it is open.

    The newest word counts.
    """

    number: JobNumber
    remember_s: float | None


class JobClosed(NamedTuple):
    """Every task of the job has ended and no more will come. state: `succeeded` or `failed`."""

    number: JobNumber
    state: JobState


class TaskAccepted(msgspec.Struct, frozen=True, gc=False):
    """A new task. Its payload is in the enclosure of the submission, found by (job, tid)."""

    number: TaskNumber
    job: JobNumber
    tid: str
    policy: Policy
    after: tuple[str, ...]


class TasksPlaced(NamedTuple):
    """Attempts were given out: `tokens first, first + 1, …` for `numbers`, in this order."""

    first: Token
    peer: Peer
    numbers: tuple[TaskNumber, ...]


class PlacementOver(NamedTuple):
    """All attempts of one `TasksPlaced` are over."""

    first: Token


class AttemptEnded(NamedTuple):
    """An attempt that did not end its task. attempt: its number, 1 for the first; peer: who made it."""

    number: TaskNumber
    attempt: int
    peer: str
    cause: Cause
    end: End


class TaskEnded(msgspec.Struct, frozen=True, gc=False):
    """The one end of a task. peer: who made the last attempt, "" if there was none."""

    number: TaskNumber
    job: JobNumber
    peer: str
    end: TaskEnd


Change: TypeAlias = (
    JobOpened
    | JobSealed
    | JobRemembers
    | JobClosed
    | TaskAccepted
    | TasksPlaced
    | PlacementOver
    | AttemptEnded
    | TaskEnded
)


class LiveTask(NamedTuple):
    """A task without an end, as it is woken up with.

    waited_s: seconds of the wall clock since it was accepted, never negative.
    """

    number: TaskNumber
    job: JobNumber
    tid: str
    policy: Policy
    after: tuple[str, ...]
    waited_s: float


class Remembered(NamedTuple):
    """Everything that a master wakes up with.

    epoch: of this start: larger than any before, and on disk already.
    jobs: those that are not closed, `{number: name}`; live: by number, oldest first; may be a one-time iterator.
    placements: not over, oldest first; attempts: all that ended without ending their (live) task.
    marred: those of the jobs in which a task has ended without success.
    store: its identity, which no other store has.
    sealed: those of the jobs that are, `{number: state}`.
    remember_s: of those of the jobs that do not remember everything, `{number: for how long}`.
    """

    epoch: int
    last_job: JobNumber
    last_number: TaskNumber
    jobs: dict[JobNumber, str]
    live: Iterable[LiveTask]
    placements: list[TasksPlaced]
    attempts: list[AttemptEnded]
    marred: frozenset[JobNumber] = frozenset()
    store: str = ""
    sealed: Mapping[JobNumber, JobState] = MappingProxyType({})
    remember_s: Mapping[JobNumber, float] = MappingProxyType({})
