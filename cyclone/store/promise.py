"""What every store promises, whatever it keeps its facts in.

The master's mind decides, the store remembers. Facts are only ever added: a task row never changes after it
was accepted, and the end of a task is keyed by the task, so that a second end cannot be written at all. What has
ended long enough ago is forgotten, with everything that belongs to it.

The rules for a caller, who is one thread:

* `wake` once, first of all, and its `live` to the last task, before the first `remember`;
* `remember` has to return before any letter of the same decision is said, and `sync` before one that is binding;
* after `StoreFull` nothing was written and the same changes may be remembered again; after any other
  `StoreError` it is not known what is on disk: end the process, a restart reads what is there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from cyclone.messages import JobView, TaskEnd, TaskView
from cyclone.model.changes import AttemptEnded, Change, Remembered
from cyclone.model.lifecycle import State
from cyclone.model.task import JobNumber, Policy, TaskNumber, Token


class StoredTask(NamedTuple):
    """Everything that the store knows of one task.

    job: the name of its job. accepted_at: Unix time, for people.
    attempts: the ones that did not end it, oldest first.
    end: None while the task is live. peer: who made its last attempt, "" if there was none or it is live.
    """

    number: TaskNumber
    job: str
    tid: str
    policy: Policy
    after: tuple[str, ...]
    accepted_at: float
    attempts: list[AttemptEnded]
    end: TaskEnd | None
    peer: str


class Store(Protocol):
    """The facts of one master. Owned by the master's loop and called from its thread only."""

    def wake(self) -> Remembered:
        """Begin a new epoch, durably, and return all that is not over.

        The caller has to read `live` to its end before it remembers anything: the store learns from it where
        live tasks are. `live` carries no payloads.

        Raises StoreFull, StoreCorrupt, StoreError; RuleBroken when it is called a second time.
        """

    def remember(
        self,
        changes: Sequence[Change],
        payloads: Mapping[tuple[JobNumber, str], bytes],
        values: Mapping[Token, bytes],
    ) -> None:
        """Add these facts, all or none. When it returns, no death of this process takes them back; see `sync`.

        changes: of one decision or of many in a row. Task numbers are above every earlier one and ascend.
        payloads: of each accepted task, by (job, tid); values: of each task that succeeded, by the token
        of its last attempt (another end has the empty value if none is given). More of either is ignored.

        Raises StoreFull when disk, quota or limit has no room: nothing was written, it may be tried again.
        Raises RuleBroken, and writes nothing, for a task or a job that exists already, a second end, a
        placement that is not there or over already, a job closed twice, a word about one that is not open, a payload or value that is missing,
        text that is not Unicode (lone surrogates), and when `live` was not read to its end.
        Raises StoreError, StoreCorrupt when the disk fails.
        """

    def sync(self) -> None:
        """Return when all that was remembered is on disk, so that no loss of power takes it back.

        At once if nothing was remembered since the last time.

        Raises StoreError when the disk fails.
        """

    def forget(self, keep_s: float | None, slice_s: float = 0.005) -> bool:
        """Forget a little of what need not be remembered; returns whether there is more.

        Of closed jobs all, so long after they were closed; of open jobs tasks that ended as long ago as the job has
        to remember (`JobRemembers`). Never a live task. Numbers of what is forgotten are not used again.
        keep_s: for how long closed jobs are remembered; None: for ever. slice_s: how long to work, about.

        Raises StoreFull when there is no room even for that: nothing was forgotten. Raises StoreError as `remember`
        does, and RuleBroken before it may be called.
        """

    def payloads(self, numbers: Sequence[TaskNumber]) -> list[bytes]:
        """The payload of each task, in this order. Raises RuleBroken for a task that was never accepted.

        Meant for placing: a payload that was kept in memory since its acceptance is let go by this.
        """

    def recall(self, job: JobNumber, tids: Collection[str]) -> dict[str, tuple[TaskEnd, bytes]]:
        """Those of the tids that have ended in this job and are not forgotten: `{tid: (how, value)}`.

        Costs nothing as long as no task of an open job has ended.
        """

    def tasks(
        self, job: str = "", states: Collection[State] = (), kind: str = "", limit: int = 1000
    ) -> tuple[list[TaskView], bool]:
        """Tasks that have ended, newest first, and whether the list was cut.

        job: of all jobs of this name, "" for any job; states: ended ones, none for any; kind: "" for any.
        Cut by the limit, or because looking took so long that the master would have fallen silent.
        """

    def task(self, tid: str, job: str = "") -> StoredTask | None:
        """One task, live or ended: of the newest job (of this name, "" for any) that knows the tid."""

    def jobs(self, limit: int = 1000) -> list[JobView]:
        """The newest jobs, newest first. Their counts are of ended tasks only: live ones are known better.

        Tasks that are forgotten are counted as well.
        """

    def close(self) -> None:
        """Let go of everything. What was remembered stays; nothing more may be asked."""
