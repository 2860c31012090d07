"""Compares what was witnessed with what the store, the sink and the process table say. Knows no file, clock or process.

The notes are the witness: they were written by the tasks and the generator themselves. The store is what is on trial.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from cyclone.drill.notes import AnyNote, Began, Ended, Given, Handed, Told, Woke
from cyclone.drill.plan import DATABASE, PUSHGATEWAY
from cyclone.model.task import Token, token_text


class Kind(StrEnum):
    """What a violation counts as."""

    LOST = "lost"  # something that was promised is not there
    DOUBLED = "doubled"  # something is there twice, or was done twice at a time
    WRONG = "wrong"  # all else


@dataclass(frozen=True)
class Violation:
    """A promise that was broken. tid: "" if it is about no single task."""

    kind: Kind
    tid: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.tid}{': ' if self.tid else ''}{self.text}"


@dataclass(frozen=True)
class Stored:
    """What the store says of one task. state: "" while it has not ended; token: of its last attempt, 0 without any."""

    tid: str
    state: str
    token: Token = 0


def any_end(_tid: str) -> str:
    return ""


@dataclass(frozen=True)
class Evidence:
    """Everything that is known after a run.

    stored: of every task that the store knows; counted: how many ends there are in it.
    rows: `{tid: rows in the database of the sink}`; None if there is no such database.
    misplaced: of these, rows that a task has instead of others.
    shown: `{tid: samples that the Pushgateway counts}`; None if there is no such gateway. Its client has them in memory
    only: of what was recorded before its last life, which began at client_began_at, nothing is promised.
    left: `{pid: command line}` of processes of the run that live after it.
    findings: what an audit of the store has found.
    expected: the state in which the task of this tid has to end, "" for any.
    has_ended: the run came to its end by itself. died: what is to be said of daemons that ended and should not have.
    """

    notes: Sequence[AnyNote]
    stored: Sequence[Stored]
    counted: int
    rows: Mapping[str, int] | None
    shown: Mapping[str, int] | None = None
    client_began_at: float = 0.0
    left: Mapping[int, str] = field(default_factory=dict)
    misplaced: Mapping[str, int] = field(default_factory=dict)
    findings: Sequence[str] = ()
    expected: Callable[[str], str] = any_end
    has_ended: bool = True
    died: Sequence[str] = ()


def check(evidence: Evidence) -> list[Violation]:
    """Every promise that was broken."""
    checker = _Checker(evidence)
    checker.check()
    return checker.found


class _Checker:
    """Owns what it has found."""

    def __init__(self, evidence: Evidence) -> None:
        self.found: list[Violation] = []
        self._evidence = evidence
        self._stored = {stored.tid: stored for stored in evidence.stored}
        self._handed: dict[str, Handed] = {}
        self._lives: dict[str, set[str]] = {}  # life of the generator -> what it has handed in, by time
        self._told: dict[str, list[Told]] = defaultdict(list)
        self._began: dict[str, list[Began]] = defaultdict(list)
        self._ended: dict[str, list[Ended]] = defaultdict(list)
        self._given: set[str] = set()
        self._tokens: dict[Token, set[str]] = defaultdict(set)  # token -> whose it was
        for note in evidence.notes:
            self._sort(note)

    def _sort(self, note: AnyNote) -> None:
        match note:
            case Woke():
                self._lives[note.life] = set()
            case Handed():
                self._handed.setdefault(note.tid, note)
                self._lives.setdefault(note.life, set()).add(note.tid)
            case Told():
                self._told[note.tid].append(note)
            case Began():
                self._began[note.tid].append(note)
                self._tokens[note.token].add(note.tid)
            case Ended():
                self._ended[note.tid].append(note)
            case Given():
                self._given.add(note.tid)

    def check(self) -> None:
        self._check_the_run()
        self._check_executions()
        self._check_order()
        self._check_tellings()
        # A master that is still at work may yet do what is missing, and nobody has asked its store.
        if self._evidence.has_ended:
            self._check_acceptance()
            self._check_what_was_told()
            for stored in self._evidence.stored:
                self._check_end(stored)
            self._check_rows()
            self._check_samples()

    def _add(self, kind: Kind, tid: str, text: str) -> None:
        self.found.append(Violation(kind, tid, text))

    def _check_the_run(self) -> None:
        if not self._evidence.has_ended:
            self._add(Kind.WRONG, "", "the run did not come to its end")
        for text in self._evidence.died:
            self._add(Kind.WRONG, "", text)
        for finding in self._evidence.findings:
            self._add(Kind.WRONG, "", f"audit: {finding}")
        for pid, command in self._evidence.left.items():
            self._add(Kind.WRONG, "", f"the process {pid} is left: {command}")

    def _check_acceptance(self) -> None:
        for tid in sorted(self._given - self._stored.keys()):
            self._add(Kind.LOST, tid, "was accepted, and the store does not know it")
        for tid in sorted((self._told.keys() | self._began.keys()) - self._stored.keys()):
            self._add(Kind.LOST, tid, "was executed or told of, and the store does not know it")
        ended = sum(stored.state != "" for stored in self._evidence.stored)
        if ended != self._evidence.counted:
            self._add(
                Kind.DOUBLED,
                "",
                f"the store counts {self._evidence.counted} ends, and {ended} tasks that have ended",
            )

    def _check_tellings(self) -> None:
        for tid, tellings in self._told.items():
            for life, count in Counter(told.life for told in tellings).items():
                if count > 1:
                    self._add(
                        Kind.DOUBLED, tid, f"was told {count} times in the life {life} of the generator"
                    )

    def _check_what_was_told(self) -> None:
        for tid, tellings in self._told.items():
            stored = self._stored.get(tid)
            for state in {told.state for told in tellings}:
                if stored is not None and state != stored.state:
                    self._add(
                        Kind.WRONG, tid, f"was told as {state}, and the store has {stored.state or 'no end'}"
                    )
        if self._lives:
            # Those of earlier lives may never have reached the master: then nobody has promised anything.
            life, handed = list(self._lives.items())[-1]
            told = {tid for tid, tellings in self._told.items() if any(one.life == life for one in tellings)}
            for tid in sorted(handed - told):
                self._add(Kind.LOST, tid, "was handed in, and the generator was never told of its end")

    def _check_executions(self) -> None:
        for token, tids in self._tokens.items():
            for tid in sorted(tids)[1:]:
                self._add(Kind.DOUBLED, tid, f"the token {token_text(token)} is also that of {min(tids)}")
        for tid in sorted(self._began):
            self._check_execution(tid, self._began[tid])

    def _check_execution(self, tid: str, began: Sequence[Began]) -> None:
        for token, count in Counter(each.token for each in began).items():
            if count > 1:
                self._add(Kind.DOUBLED, tid, f"the attempt {token_text(token)} was made {count} times")
        for each in began:
            if not each.alone:
                self._add(
                    Kind.DOUBLED,
                    tid,
                    f"exclusive: {token_text(each.token)} began on {each.node} while another one ran",
                )

    def _check_end(self, stored: Stored) -> None:
        tid = stored.tid
        if not stored.state:
            self._add(Kind.LOST, tid, "has no end")
            return
        wanted = self._evidence.expected(tid)
        if wanted and stored.state != wanted:
            self._add(Kind.WRONG, tid, f"ended as {stored.state}, expected {wanted}")
        newest = max((each.token for each in self._began.get(tid, ())), default=0)
        if newest > stored.token:
            self._add(
                Kind.DOUBLED,
                tid,
                f"{token_text(stored.token)} is recorded, and {token_text(newest)} was begun",
            )
        if stored.state == "succeeded":
            self._check_success(stored)

    def _check_success(self, stored: Stored) -> None:
        tid = stored.tid
        ended = self._recorded(stored)
        if ended is None:
            self._add(
                Kind.WRONG, tid, f"succeeded as {token_text(stored.token)}, which nobody has seen to its end"
            )
            return
        for told in self._told.get(tid, ()):
            if told.mark != ended.mark:
                self._add(Kind.WRONG, tid, "another value was told than was returned")

    def _recorded(self, stored: Stored) -> Ended | None:
        """How the attempt ended that is recorded as a success; None if there is none, or if nobody has seen it."""
        if stored.state == "succeeded":
            for each in self._ended.get(stored.tid, ()):
                if each.token == stored.token and each.ok:
                    return each
        return None

    def _records(self, stored: Stored, sink: str) -> tuple[int, float]:
        """How many records of this task the sink has to have, and since when."""
        ended = self._recorded(stored)
        return (0, 0.0) if ended is None else (ended.records.get(sink, 0), ended.at)

    def _check_order(self) -> None:
        for tid, handed in self._handed.items():
            began = self._began.get(tid)
            for earlier in handed.after if began else ():
                successes = [each.at for each in self._ended.get(earlier, ()) if each.ok]
                if not successes or min(each.at for each in began or ()) < min(successes):
                    self._add(Kind.WRONG, tid, f"began before {earlier}, which it comes after, had succeeded")

    def _check_rows(self) -> None:
        rows = self._evidence.rows
        if rows is None:
            return
        for stored in self._evidence.stored:
            records, _ = self._records(stored, DATABASE)
            found = rows.get(stored.tid, 0)
            if found != records:
                kind = Kind.LOST if found < records else Kind.DOUBLED
                self._add(kind, stored.tid, f"has {found} rows in the database, expected {records}")
        for tid, count in self._evidence.misplaced.items():
            self._add(Kind.DOUBLED, tid, f"has {count} rows in the database twice, or of another task")
        for tid in sorted(rows.keys() - self._stored.keys()):
            self._add(Kind.DOUBLED, tid, "has rows in the database, and the store does not know it")

    def _check_samples(self) -> None:
        shown = self._evidence.shown
        if shown is None:
            return
        for stored in self._evidence.stored:
            records, recorded_at = self._records(stored, PUSHGATEWAY)
            found = shown.get(stored.tid, 0)
            if found > records or (found < records and recorded_at >= self._evidence.client_began_at):
                kind = Kind.LOST if found < records else Kind.DOUBLED
                self._add(kind, stored.tid, f"has {found} samples in the Pushgateway, expected {records}")
        for tid in sorted(shown.keys() - self._stored.keys()):
            self._add(Kind.DOUBLED, tid, "has samples in the Pushgateway, and the store does not know it")
