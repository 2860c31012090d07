"""What need not be remembered any more is taken out of the store, a little at a time.

*A closed job* is forgotten as a whole and at once: its row goes, so that nobody finds it any more, and a note in
`erasing` stays until all that belongs to it has gone as well. That is done in the order in which it lies on the disk.

*An open job* whose client has said for how long (`remember_s`) forgets tasks that have ended so long ago. Everything
up to `swept` was looked at once. What was live then, or had ended too recently, is in `late` as soon as it has ended, and
is forgotten from there. So nothing is looked at again and again, and nothing is overlooked.

Whoever forgets a task forgets all rows of it in one transaction: a task whose end was gone, and the task itself not,
would be live again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from cyclone.clock import monotonic
from cyclone.model.changes import TaskEnded
from cyclone.model.task import JobNumber, TaskNumber
from cyclone.store.database import Database
from cyclone.store.rows import Parcel, Row, encode, parcels, payloads_in, story_of

#: So long at a time, about: a master has other things to do. What cannot be divided is one parcel.
SLICE_S = 0.005

#: Rows of a forgotten job that are deleted in one go; they lie side by side.
_ROWS = 200

#: A job with fewer tasks than there are parcels among its numbers, about, is looked for by its tids.
_PARCEL_TASKS = 64

_BY_NUMBER = (
    "DELETE FROM ended WHERE task BETWEEN ? AND ?",
    "DELETE FROM ended_badly WHERE task BETWEEN ? AND ?",
    "DELETE FROM attempt WHERE task BETWEEN ? AND ?",
)


@dataclass(slots=True)
class _OpenJob:
    """An open job that need not remember everything. forgotten: tasks, in this transaction."""

    remember_s: float
    swept: TaskNumber
    forgotten: int = 0


class Forgetting:
    """Owns the tables `erasing` and `late`, and knows of each open job how far it was swept.

    Call everything within a transaction but for `wake`, and what is said to come after COMMIT.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._open: dict[JobNumber, _OpenJob] = {}
        self._now: dict[JobNumber, _OpenJob] = {}  # as it will be after COMMIT

    def wake(self) -> None:
        """Read how far everything was swept."""
        self._open = {
            job: _OpenJob(remember_s, swept)
            for job, remember_s, swept in self._db.facts(
                tuple[JobNumber, float, int],
                "SELECT number, remember_s, swept FROM job WHERE last_task IS NULL AND remember_s IS NOT NULL",
            )
        }

    # While facts are remembered.

    def declare(self, job: JobNumber, remember_s: float | None) -> bool:
        """From now on the job remembers ended tasks for so long. Returns whether it is open."""
        # What was swept under another rule is swept anew.
        found = self._db.execute(
            "UPDATE job SET remember_s = ?, swept = first_task - 1 WHERE number = ? AND last_task IS NULL",
            (remember_s, job),
        )
        return found.rowcount == 1

    def declared(self, job: JobNumber) -> None:
        """After COMMIT: its word counts now."""
        self._open.pop(job, None)
        for remember_s, swept in self._db.facts(
            tuple[float | None, int], "SELECT remember_s, swept FROM job WHERE number = ?", (job,)
        ):
            if remember_s is not None:
                self._open[job] = _OpenJob(remember_s, swept)

    def closed(self, job: JobNumber) -> None:
        """After COMMIT."""
        self._open.pop(job, None)

    def note_late(self, ended: Sequence[TaskEnded], now: float) -> None:
        """Those of the tasks that nobody would look at again. Costs nothing where every job remembers everything."""
        if self._open:
            late = [
                (end.job, now, end.number)
                for end in ended
                if end.job in self._open and end.number <= self._open[end.job].swept
            ]
            self._db.executemany("INSERT OR IGNORE INTO late VALUES (?,?,?)", late)

    # Forgetting.

    def go_on(self, keep_s: float | None, now: float, last_number: TaskNumber, slice_s: float) -> bool:
        """Forget a little. Returns whether there is more to be forgotten now.

        keep_s: how long jobs are remembered after they were closed; None: for ever. now: Unix time.
        """
        until = monotonic() + slice_s
        self._now = {job: _OpenJob(each.remember_s, each.swept) for job, each in self._open.items()}
        begun = False
        while more := self._forget_a_little(keep_s, now):
            begun = True
            if monotonic() >= until:
                break
        if begun:
            # What has the largest number may have gone, and the number must not come again.
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('last_task', ?)", (last_number,))
        for job, each in self._now.items():
            if each.swept != self._open[job].swept or each.forgotten:
                self._db.execute(
                    "UPDATE job SET swept = ?, forgotten = forgotten + ? WHERE number = ?",
                    (each.swept, each.forgotten, job),
                )
        return more

    def _forget_a_little(self, keep_s: float | None, now: float) -> bool:
        """Returns whether there was anything to do."""
        return (
            (keep_s is not None and self._forget_job(now - keep_s))
            or self._erase()
            or any(
                self._forget_late(job, each, now) or self._sweep(job, each, now)
                for job, each in self._now.items()
            )
        )

    def settle(self) -> None:
        """After COMMIT: what `go_on` has done is on disk."""
        self._open = self._now

    # Closed jobs.

    def _forget_job(self, closed_before: float) -> bool:
        rows = list(
            self._db.facts(
                tuple[JobNumber, TaskNumber, TaskNumber, int],
                """SELECT number, first_task, last_task,
                (SELECT coalesce(sum(tasks), 0) FROM job_count WHERE job = number) - forgotten
                FROM job WHERE last_task IS NOT NULL AND closed_at <= ? ORDER BY closed_at LIMIT 1""",
                (closed_before,),
            )
        )
        for job, first, last, tasks in rows:
            self._db.execute(
                """INSERT OR REPLACE INTO meta SELECT 'last_job', max(coalesce(max(number), 0),
                coalesce((SELECT value FROM meta WHERE key = 'last_job'), 0)) FROM job"""
            )
            by_tid = tasks * _PARCEL_TASKS < last - first
            self._db.execute("INSERT INTO erasing VALUES (?,?,?)", (job, None if by_tid else first, last))
            self._db.execute("DELETE FROM job_count WHERE job = ?", (job,))
            self._db.execute("DELETE FROM job WHERE number = ?", (job,))
        return bool(rows)

    def _erase(self) -> bool:
        """Take away a little of what belongs to a job that is forgotten."""
        rows = list(
            self._db.facts(
                tuple[JobNumber, TaskNumber | None, TaskNumber],
                "SELECT job, next_task, last_task FROM erasing ORDER BY job LIMIT 1",
            )
        )
        for job, next_task, last in rows:
            if next_task is None:
                if self._erase_by_tid(job):
                    continue
            elif next_task <= last:
                parcel = next(parcels(self._db, next_task, last), None)
                if parcel is not None:
                    self._take_out(parcel, [row for row in parcel.tasks if row[1] == job])
                self._db.execute(
                    "UPDATE erasing SET next_task = ? WHERE job = ?",
                    (last + 1 if parcel is None else parcel.last + 1, job),
                )
                continue
            if not self._delete_some(job):
                self._db.execute("DELETE FROM erasing WHERE job = ?", (job,))
        return bool(rows)

    def _erase_by_tid(self, job: JobNumber) -> bool:
        rows = list(
            self._db.facts(
                tuple[str, TaskNumber], "SELECT tid, number FROM task WHERE job = ? LIMIT 1", (job,)
            )
        )
        for tid, number in rows:
            self._take_out_with_tids(number, job)
            # It has gone with its parcel, unless somebody has damaged the file: that must not go on for ever.
            self._db.execute("DELETE FROM task WHERE job = ? AND tid = ?", (job, tid))
        return bool(rows)

    def _delete_some(self, job: JobNumber) -> bool:
        """Delete rows that are found by the job alone. Returns whether there were any."""
        deleted = self._db.execute(
            "DELETE FROM task WHERE job = ? AND tid IN (SELECT tid FROM task WHERE job = ? LIMIT ?)",
            (job, job, _ROWS),
        ).rowcount
        deleted += self._db.execute(
            """DELETE FROM late WHERE job = ? AND (ended_at, task) IN
            (SELECT ended_at, task FROM late WHERE job = ? LIMIT ?)""",
            (job, job, _ROWS),
        ).rowcount
        return deleted > 0

    # Open jobs.

    def _forget_late(self, job: JobNumber, standing: _OpenJob, now: float) -> bool:
        rows = list(
            self._db.facts(
                tuple[float, TaskNumber],
                "SELECT ended_at, task FROM late WHERE job = ? AND ended_at <= ? ORDER BY ended_at, task LIMIT 1",
                (job, now - standing.remember_s),
            )
        )
        for ended_at, number in rows:
            standing.forgotten += self._take_out_with_tids(number, job, only=number)
            self._db.execute(
                "DELETE FROM late WHERE job = ? AND ended_at = ? AND task = ?", (job, ended_at, number)
            )
        return bool(rows)

    def _sweep(self, job: JobNumber, standing: _OpenJob, now: float) -> bool:
        """Look at the next parcel, if it is so old that any of it may be forgotten."""
        parcel = next(parcels(self._db, standing.swept + 1, 2**63 - 1), None)
        ended_before = now - standing.remember_s
        # One that seems to come from the future, because the clock was wrong once, must not hold up all others.
        if parcel is None or ended_before < parcel.accepted_at <= now:
            return False
        ours = {row[0]: row for row in parcel.tasks if row[1] == job and row[0] > standing.swept}
        if ours:
            doomed: list[Row] = []
            for number, story in self._db.read(
                "SELECT task, story FROM ended WHERE task BETWEEN ? AND ? ORDER BY task",
                (parcel.first, parcel.last),
            ):
                if number not in ours:
                    continue
                ended_at = story_of(story).ended_at
                if ended_at <= ended_before:
                    doomed.append(ours[number])
                else:
                    self._db.execute("INSERT OR IGNORE INTO late VALUES (?,?,?)", (job, ended_at, number))
            self._take_out(parcel, doomed)
            self._delete_tids(doomed)
            standing.forgotten += len(doomed)
        standing.swept = parcel.last
        return True

    # Tasks.

    def _take_out_with_tids(self, number: TaskNumber, job: JobNumber, only: TaskNumber | None = None) -> int:
        """Out of the parcel that this task is in: all tasks of the job, or only one. Returns how many there were."""
        doomed: list[Row] = []
        for parcel in parcels(self._db, number, number):
            doomed = [row for row in parcel.tasks if row[1] == job and only in (None, row[0])]
            self._take_out(parcel, doomed)
            self._delete_tids(doomed)
        return len(doomed)

    def _take_out(self, parcel: Parcel, doomed: Sequence[Row]) -> None:
        """Everything that is found by the numbers of these tasks; what stays of the parcel is written anew."""
        if not doomed:
            return
        numbers = {row[0] for row in doomed}
        for span in _spans(parcel, numbers):
            for statement in _BY_NUMBER:
                self._db.execute(statement, span)
        staying = [row for row in parcel.tasks if row[0] not in numbers]
        if not staying:
            self._db.execute("DELETE FROM parcel WHERE first = ?", (parcel.first,))
            return
        payloads = [
            payload
            for row, payload in zip(parcel.tasks, payloads_in(self._db, parcel), strict=True)
            if row[0] not in numbers
        ]
        self._db.execute(
            "UPDATE parcel SET first = ?, last = ?, tasks = ?, payloads = ? WHERE first = ?",
            (staying[0][0], staying[-1][0], encode(staying), encode(payloads), parcel.first),
        )

    def _delete_tids(self, doomed: Iterable[Row]) -> None:
        self._db.executemany("DELETE FROM task WHERE job = ? AND tid = ?", [row[1:3] for row in doomed])


def _spans(parcel: Parcel, numbers: set[TaskNumber]) -> Iterator[tuple[TaskNumber, TaskNumber]]:
    """The numbers as `(first, last)` with no other task between them. No other parcel has numbers from within this one."""
    first: TaskNumber | None = None
    last = 0
    for row in parcel.tasks:
        if row[0] in numbers:
            first, last = (row[0] if first is None else first), row[0]
        elif first is not None:
            yield first, last
            first = None
    if first is not None:
        yield first, last
