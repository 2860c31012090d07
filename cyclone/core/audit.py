"""Proves from the facts of a store alone that accepted = ended + open + forgotten, and names whatever says otherwise.

The rules are those of `cyclone.model.audit.Rule`. All streams come in the order of task numbers and are walked along
together, once, so that what is kept in memory does not grow with the tasks: a sum for each job, what is placed at this
moment, and some bits for each token.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from cyclone.errors import StoreCorrupt
from cyclone.model.audit import (
    AttemptRow,
    Audit,
    BadEndRow,
    EndRow,
    Facts,
    Finding,
    JobRow,
    JobSum,
    ParcelRow,
    RecordSum,
    Rule,
    TaskRow,
)
from cyclone.model.lifecycle import ENDED, JobState, Outcome, State
from cyclone.model.task import End, JobNumber, TaskNumber, Token, first_token, job_key, token_text

#: So many violations are told one by one; all are counted.
FINDINGS_MOST = 100

_CLOSED = frozenset({JobState.SUCCEEDED, JobState.FAILED})
_STANDING = frozenset(JobState) - _CLOSED

#: Above every task number.
_NEVER = 2**63

#: `(number of the task, …)`
_Row = TypeVar("_Row", bound=tuple[Any, ...])


def audit(facts: Facts, store: str, findings: Findings, recorded: Recorded | None = None) -> Audit:
    """Check every rule but that of records, which are only counted. store: how to call it.

    recorded: is told of every task whose records were sent. What is added to the findings later is in the report, too.
    """
    return _Auditor(facts, store, findings, recorded).report


class Sent(NamedTuple):
    """The records of one task. key: of its job, see `Assignment`. runs: see `End.records`."""

    job: JobSum
    key: int
    number: TaskNumber
    tid: str
    runs: Sequence[tuple[str, int]]


Recorded = Callable[[Sent], None]


class Tokens:
    """Which tokens have been seen: some bits each, for the tokens of one epoch follow one another."""

    # Small blocks: where most was forgotten, or the store is damaged, there is one token in each.
    _BITS = 10

    def __init__(self) -> None:
        self._seen: dict[int, bytearray] = {}

    def is_new(self, token: Token) -> bool:
        """Whether it is seen for the first time."""
        block = self._seen.get(token >> self._BITS)
        if block is None:
            block = self._seen[token >> self._BITS] = bytearray(1 << self._BITS - 3)
        place, bit = token >> 3 & (1 << self._BITS - 3) - 1, 1 << (token & 7)
        if block[place] & bit:
            return False
        block[place] |= bit
        return True


class Findings:
    """Counts violations by rule, and keeps the first ones."""

    def __init__(self, most: int = FINDINGS_MOST) -> None:
        self.violations: dict[str, int] = {}
        self.first: list[Finding] = []
        self._most = most

    def add(
        self, rule: Rule, found: str, expected: str, job: JobSum | None = None,
        number: TaskNumber = 0, tid: str = "",
    ) -> None:  # fmt: skip
        self.violations[rule] = self.violations.get(rule, 0) + 1
        if len(self.first) < self._most:
            of, name = (job.number, job.name) if job is not None else (0, "")
            self.first.append(Finding(rule, found, expected, name, of, number, tid))


class _Stream(Generic[_Row]):
    """Rows in the order of task numbers. number: that of the next row."""

    __slots__ = ("_next", "_rows", "number")

    def __init__(self, rows: Iterator[_Row]) -> None:
        self._rows = rows
        self._next: _Row | None = None
        self._advance()

    def take(self) -> _Row:
        row = self._next
        assert row is not None
        self._advance()
        return row

    def before(self, number: TaskNumber) -> Iterator[_Row]:
        while self.number < number:
            yield self.take()

    def at(self, number: TaskNumber) -> Iterator[_Row]:
        while self.number == number:
            yield self.take()

    def passes(self, number: TaskNumber) -> bool:
        """Go on beyond this number. Returns whether there were any rows of it."""
        for _ in self.before(number):
            pass
        found = self.number == number
        for _ in self.at(number):
            pass
        return found

    def _advance(self) -> None:
        row = self._next = next(self._rows, None)
        self.number: TaskNumber = _NEVER if row is None else row[0]


class _Auditor:
    """Owns the report, and how far each stream has been walked along."""

    def __init__(self, facts: Facts, store: str, findings: Findings, recorded: Recorded | None) -> None:
        self._recorded = recorded
        self._records: dict[str, RecordSum] = {}
        self.report = Audit(store, facts.epoch, violations=findings.violations, findings=findings.first)
        self._facts = facts
        self._findings = findings
        self._tokens = Tokens()
        self._epoch_over = first_token(facts.epoch + 1)
        self._rows: dict[JobNumber, JobRow] = {}
        self._sums: dict[JobNumber, JobSum] = {}
        self._known: Counter[JobNumber] = Counter()  # tasks by what the index of tids says
        self._placed: dict[TaskNumber, list[Token]] = {}
        try:
            for problem in facts.damage():
                self._find(Rule.FILE, problem, "an intact database")
            self._live = deque(facts.live())
            self._index, self._attempts = _Stream(facts.tasks()), _Stream(facts.attempts())
            self._ends, self._bad = _Stream(facts.ends()), _Stream(facts.bad_ends())
            self._late = _Stream(facts.late())
            self._read_jobs()
            self._read_placements()
            self._walk()
            self._check_jobs()
        except StoreCorrupt as error:
            self._find(Rule.FILE, str(error), "a store that can be read to its end")
            self.report.is_whole = False
        self._sum_up()

    def _find(
        self, rule: Rule, found: str, expected: str, job: JobNumber = 0, number: TaskNumber = 0, tid: str = ""
    ) -> None:
        self._findings.add(rule, found, expected, self._sums.get(job), number, tid)

    def _read_jobs(self) -> None:
        for row in self._facts.jobs():
            self._rows[row.number] = row
            self._sums[row.number] = JobSum(
                row.number, row.name or "?", row.state or "?", row.forgotten, {}, forgotten=row.forgotten
            )
            if not row.name and not row.state:
                self._find(Rule.JOB, "counts of a job that is not there", "a job that was opened", row.number)
            elif row.state not in (_STANDING if row.last_task is None else _CLOSED):
                found = f"{row.state}, {'not ' if row.last_task is None else ''}closed"
                self._find(Rule.JOB, found, "a state that says the same", row.number)
            if row.number in self._facts.erasing:
                found = "a job that is there and is being forgotten"
                self._find(Rule.FORGETTING, found, "one or the other", row.number)

    def _read_placements(self) -> None:
        over: Token = 0
        for row in self._facts.placements():
            if row.problem:
                self._find(Rule.FILE, f"placement {token_text(row.first)}: {row.problem}", "numbers of tasks")
            if row.first < over:
                self._find(
                    Rule.TOKEN,
                    f"a placement at {token_text(row.first)} within the one before",
                    "one after it",
                )
            over = row.first + len(row.numbers)
            for token, number in enumerate(row.numbers, row.first):
                self._placed.setdefault(number, []).append(token)

    # Along all tasks.

    def _walk(self) -> None:
        before: TaskNumber = 0
        for parcel in self._facts.parcels():
            self._check_parcel(parcel)
            for task in parcel.tasks:
                if task.number <= before:
                    found = f"number {task.number} after {before}"
                    self._find(Rule.NUMBER, found, "one above it", task.job, task.number, task.tid)
                    continue
                before = task.number
                self._check_task(task)
        self._find_unknown(_NEVER)
        for number, tokens in sorted(self._placed.items()):
            if number <= self._facts.forgotten_to:
                continue  # it has ended and is forgotten; others that were placed with it are not over
            found = f"placed as {_texts(tokens)}, and in no parcel"
            self._find(Rule.PLACEMENT, found, "an accepted task", number=number)

    def _check_task(self, task: TaskRow) -> None:
        """The next one: all streams go on to it."""
        number, job, tid, problem = task
        if job in self._facts.erasing:
            self._pass_over(number)
            return
        row, total = self._job(job, number, tid)
        total.accepted += 1
        # One comparison for each, and no more for most tasks.
        if min(self._index.number, self._ends.number, self._bad.number, self._attempts.number) < number:
            self._find_unknown(number)
        if self._index.number == number:
            self._check_index(number, job, tid)
        else:
            self._find(Rule.PARCEL, "no tid for it in the index", f"{tid!r}", job, number, tid)
        if not row.first_task <= number <= (_NEVER if row.last_task is None else row.last_task):
            within = f"{row.first_task} to {row.last_task or 'any'}"
            self._find(Rule.JOB, f"number {number}", f"one of its job, {within}", job, number, tid)
        if problem:
            self._find(Rule.PARCEL, problem, "its policy", job, number, tid)
        failed: Sequence[AttemptRow] = ()
        if self._attempts.number == number:
            failed = self._check_attempts([*self._attempts.at(number)], job, tid)
        bad_end = self._bad.take() if self._bad.number == number else None
        end = self._ends.take() if self._ends.number == number else None
        is_late = self._late.number <= number and self._late.passes(number)
        if end is None:
            if is_late:
                self._find(
                    Rule.FORGETTING, "an open task that is to be forgotten", "an end", job, number, tid
                )
            self._check_open(row, bad_end, total, number, tid)
        else:
            self._check_end(end, bad_end, failed, total, tid)
        if number in self._placed:
            self._check_placed(self._placed.pop(number), failed, end, job, number, tid)

    def _pass_over(self, number: TaskNumber) -> None:
        """The job of this task is forgotten, and its rows are about to go."""
        self._find_unknown(number)
        for stream in (self._ends, self._bad, self._attempts, self._late):
            stream.passes(number)

    def _job(self, job: JobNumber, number: TaskNumber, tid: str) -> tuple[JobRow, JobSum]:
        total = self._sums.get(job)
        if total is None:
            total = self._sums[job] = JobSum(job, "?", "?", ended={})
            self._rows[job] = JobRow(job, "?", "?", 0, None, {})
            self._find(Rule.JOB, f"job number {job}", "a job that was opened", job, number, tid)
        return self._rows[job], total

    def _check_parcel(self, parcel: ParcelRow) -> None:
        name, tasks = f"parcel {parcel.first}", parcel.tasks
        if parcel.problem:
            self._find(Rule.FILE, f"{name}: {parcel.problem}", "tasks and payloads")
            return
        ends = (tasks[0].number, tasks[-1].number) if tasks else (0, 0)
        if ends != (parcel.first, parcel.last):
            found = f"{name} with tasks {ends[0]} to {ends[1]}"
            self._find(Rule.PARCEL, found, f"{parcel.first} to {parcel.last}")
        if parcel.payloads != len(tasks):
            self._find(Rule.PARCEL, f"{name} with {parcel.payloads} payloads", f"{len(tasks)}")

    def _check_index(self, number: TaskNumber, job: JobNumber, tid: str) -> None:
        row = self._index.take()
        self._known[row.job] += 1
        if row.job != job or row.tid != tid:
            found = f"in the index of tids {row.tid!r} of job number {row.job}"
            self._find(Rule.PARCEL, found, f"{tid!r} of job number {job}", job, number, tid)
        for row in self._index.at(number):
            self._known[row.job] += 1
            found = f"the number also for {row.tid!r} of job number {row.job}"
            self._find(Rule.NUMBER, found, "one task for a number", job, number, tid)

    def _check_attempts(self, failed: list[AttemptRow], job: JobNumber, tid: str) -> list[AttemptRow]:
        """Those of one task, by token."""
        for place, row in enumerate(failed, 1):
            number, token = row.task, row.token
            self.report.attempts += 1
            if row.problem:
                found = f"attempt {token_text(token)}: {row.problem}"
                self._find(Rule.FILE, found, "its outcome", job, number, tid)
            if row.end is None:
                continue
            self._check_token(token, job, number, tid)
            if row.end.token != token:
                found = f"the outcome of {token_text(row.end.token)} under {token_text(token)}"
                self._find(Rule.ATTEMPT, found, "that of its own token", job, number, tid)
            if row.attempt != place:
                found = f"attempt {row.attempt} in place {place} of {len(failed)}"
                self._find(Rule.ATTEMPT, found, f"attempt {place}", job, number, tid)
            if row.end.outcome is Outcome.SUCCEEDED:
                found = f"attempt {row.attempt}, which succeeded, beside the end"
                self._find(Rule.ATTEMPT, found, "an end by it", job, number, tid)
        return failed

    def _check_open(
        self, row: JobRow, bad: BadEndRow | None, total: JobSum, number: TaskNumber, tid: str
    ) -> None:
        total.open += 1
        if bad is not None:
            self._find(Rule.BAD_END, f"{bad.state}, without an end", "none", row.number, number, tid)
        if row.last_task is not None:
            self._find(Rule.JOB, f"no end, in a job that is {row.state}", "an end", row.number, number, tid)
        while self._live and self._live[0][1] < number:
            self._live.popleft()
        if not self._live or number < self._live[0][0]:
            found = "an open task outside of live_blocks"
            self._find(Rule.LIVE, found, "all of them within", row.number, number, tid)

    def _check_end(
        self, row: EndRow, bad: BadEndRow | None, failed: Sequence[AttemptRow], total: JobSum, tid: str
    ) -> None:
        job, number, state = total.number, row.task, row.state
        self.report.ended += 1
        if state is None:
            self._find(Rule.FILE, f"its end: {row.problem}", "an end", job, number, tid)
            total.ended["?"] = total.ended.get("?", 0) + 1
            return
        total.ended[state] = total.ended.get(state, 0) + 1
        if state not in ENDED:
            self._find(Rule.END, f"the end {state}", f"one of {', '.join(sorted(ENDED))}", job, number, tid)
        said = None if bad is None else bad.state
        if said != (None if state is State.SUCCEEDED else state):
            found = f"{said or 'nothing'} in the list of bad ends"
            self._find(
                Rule.BAD_END, found, "nothing" if state is State.SUCCEEDED else state, job, number, tid
            )
        end = row.end
        if (state is State.SUCCEEDED) != (end is not None and end.outcome is Outcome.SUCCEEDED):
            last = "none" if end is None else end.outcome
            self._find(Rule.END, f"{state} after an attempt that is {last}", "the same", job, number, tid)
        made = len(failed) + (end is not None)
        if row.attempts != made:
            found = f"an end that tells of {row.attempts} attempts"
            self._find(Rule.ATTEMPT, found, f"{made}, as there are", job, number, tid)
        if end is not None:
            if end.records:
                self._count_records(Sent(total, job_key(self._facts.identity, job), number, tid, end.records))
            self.report.attempts += 1
            self._check_token(end.token, job, number, tid)
            if failed and end.token <= failed[-1].token:
                found = f"an end by {token_text(end.token)}"
                expected = f"one by a token after {token_text(failed[-1].token)}"
                self._find(Rule.TOKEN, found, expected, job, number, tid)

    def _count_records(self, sent: Sent) -> None:
        for sink, count in sent.runs:
            if sink not in self._records:
                self._records[sink] = RecordSum(sink)
            self._records[sink].sent += count
        if self._recorded is not None:
            self._recorded(sent)

    def _check_token(self, token: Token, job: JobNumber, number: TaskNumber, tid: str) -> None:
        if token >= self._epoch_over:
            self._find(
                Rule.TOKEN,
                f"token {token_text(token)}",
                f"none after epoch {self.report.epoch}",
                job,
                number,
                tid,
            )
        if not self._tokens.is_new(token):
            self._find(Rule.TOKEN, f"token {token_text(token)} a second time", "it once", job, number, tid)

    def _check_placed(
        self, tokens: list[Token], failed: Sequence[AttemptRow], end: EndRow | None,
        job: JobNumber, number: TaskNumber, tid: str,
    ) -> None:  # fmt: skip
        """A placement is over when all its attempts are, so many of its tokens have been told of."""
        last: End | None = None if end is None else end.end
        told = {row.token for row in failed} | ({last.token} if last is not None else set())
        untold = [token for token in tokens if token not in told]
        for token in untold:
            self._check_token(token, job, number, tid)
        # The task may have been cancelled, or skipped, while an attempt was out, of which nothing is told then.
        most = 0 if last is not None else 1
        if len(untold) > most:
            what = "no end" if end is None else "an end" if last is None else "an end by another one"
            found = f"{what}, and attempts without outcome: {_texts(untold)}"
            self._find(Rule.PLACEMENT, found, f"{most} at most", job, number, tid)
        elif untold and told and untold[0] < max(told):
            found = f"attempt {_texts(untold)} without outcome before {token_text(max(told))}"
            self._find(Rule.PLACEMENT, found, "its outcome", job, number, tid)

    def _find_unknown(self, number: TaskNumber) -> None:
        """What there is before this number, of tasks that are in no parcel."""
        for row in self._index.before(number):
            self._known[row.job] += 1
            self._find(
                Rule.PARCEL, "a tid in the index, in no parcel", "a parcel", row.job, row.number, row.tid
            )
        for attempt in self._attempts.before(number):
            self._check_token(attempt.token, 0, attempt.task, "")
            found = f"attempt {attempt.attempt} ({token_text(attempt.token)}) at a task that is in no parcel"
            self._find(Rule.ATTEMPT, found, "an accepted task", number=attempt.task)
        for end in self._ends.before(number):
            self.report.ended += 1
            found = f"the end {end.state} of a task that is in no parcel"
            self._find(Rule.END, found, "an accepted task", number=end.task)
        for bad in self._bad.before(number):
            found = f"{bad.state} in the list of bad ends, for a task that is in no parcel"
            self._find(Rule.BAD_END, found, "an accepted task", number=bad.task)

    # Sums.

    def _check_jobs(self) -> None:
        for job, total in self._sums.items():
            if job in self._facts.erasing:
                continue  # nothing of it was counted
            row, ended, known = self._rows[job], sum(total.ended.values()), self._known[job]
            if known != ended + total.open:
                found = f"{known} tids of {ended} ended and {total.open} open tasks"
                self._find(Rule.BALANCE, found, f"{ended + total.open}", job)
            for state in sorted({*row.counts, *total.ended}):
                said, there = row.counts.get(state, 0), total.ended.get(state, 0)
                if said < there or (said > there and not row.forgotten):
                    self._find(Rule.COUNT, f"{said} counted as {state}", f"{there}, as there are", job)
            said = sum(row.counts.values())
            if row.forgotten and said != ended + row.forgotten:
                expected = f"{ended + row.forgotten}, as there are and were forgotten"
                self._find(Rule.COUNT, f"{said} counted", expected, job)
            bad = ended - total.ended.get(State.SUCCEEDED, 0)
            if row.last_task is not None and row.state == State.SUCCEEDED and bad:
                found = f"closed as {row.state}, with {bad} tasks that did not succeed"
                self._find(Rule.JOB, found, "closed as failed", job)

    def _sum_up(self) -> None:
        report = self.report
        report.records = [self._records[sink] for sink in sorted(self._records)]
        report.jobs = [self._sums[job] for job in sorted(self._sums)]
        report.accepted = sum(total.accepted for total in report.jobs)
        report.open = sum(total.open for total in report.jobs)
        report.forgotten = sum(total.forgotten for total in report.jobs)
        if report.is_whole and report.accepted != report.ended + report.open + report.forgotten:
            found = f"{report.accepted} accepted, {report.ended} ended and {report.open} open"
            expected = "accepted = ended + open"
            if report.forgotten:
                found, expected = f"{found} and {report.forgotten} forgotten", f"{expected} + forgotten"
            self._find(Rule.BALANCE, found, expected)


def _texts(tokens: Sequence[Token]) -> str:
    return ", ".join(map(token_text, tokens))
