"""A master's mind and a controller's mind on a clock of their own, and short words for what the world says to them."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil
from typing import Any, TypeVar

from cyclone.core import invariants
from cyclone.core.crew import MASTER, REAPER, Crew, Held, worker_peer
from cyclone.core.decision import Decision
from cyclone.core.live import Controller, Task
from cyclone.core.scheduler import Scheduler
from cyclone.messages import (
    Agreed,
    Assignment,
    Drop,
    Ended,
    Hire,
    Kill,
    Message,
    Open,
    Opened,
    Place,
    Report,
    Results,
    Started,
    Submission,
    Submit,
    TaskEnd,
)
from cyclone.model.changes import AttemptEnded, Change, TaskAccepted, TaskEnded
from cyclone.model.lifecycle import Outcome, State
from cyclone.model.peer import Peer
from cyclone.model.resources import Shape, shape
from cyclone.model.task import End, Policy, Retry, Token
from cyclone.store.memory import MemoryStore

CLIENT = Peer("client", "c1")
LEASE_S = 10.0

Kind = TypeVar("Kind", bound=Message)
ChangeKind = TypeVar("ChangeKind", bound=Change)


class Master:
    """A scheduler with its store. Every decision is remembered, and the invariants hold after each.

    letters, changes, notes: of the last decision. results: every task end that clients were ever told.
    """

    def __init__(self, *, lease_s: float = LEASE_S, window: int = 1000) -> None:
        self.now = 100.0
        self.lease_s, self.window = lease_s, window
        self.store = MemoryStore(clock=lambda: self.now)
        self.results: list[TaskEnd] = []
        self.places: list[tuple[Peer, Place]] = []
        self._request = 0
        self._rooms: dict[str, Shape] = {}
        self.start()

    def start(self) -> None:
        """Begin the next life with what was remembered."""
        self.store = self.store.crashed()
        self.decision = Decision()
        self.mind = Scheduler(self.store.wake(), self.now, lease_s=self.lease_s, window=self.window)
        invariants.check_scheduler(self.mind)

    # What the world does.

    def hear(self, sender: Peer, message: Message) -> Decision:
        recalled = {}
        if isinstance(message, Submit):
            tids = {tid for task in message.tasks for tid in (task.tid, *task.after)}
            found = self.store.recall(message.job, sorted(tids))
            recalled = {tid: end for tid, (end, _) in found.items()}
        return self._obey(self.mind.receive(sender, message, self.now, recalled))

    def tick(self, seconds: float = 0.0) -> Decision:
        """Let time go by, with a tick as often as the mind wants one; `decision` is all that came of it."""
        began, steps = self.now, max(1, ceil(seconds / 0.5))
        whole = Decision()
        for step in range(1, steps + 1):
            self.now = began + seconds * step / steps
            whole.extend(self._obey(self.mind.tick(self.now)))
        self.decision = whole
        return whole

    def stop(self, *, at_once: bool = False) -> Decision:
        return self._obey(self.mind.stop("told to", at_once=at_once))

    def _obey(self, decision: Decision) -> Decision:
        invariants.check_scheduler(self.mind)
        payloads = {
            (change.job, change.tid): b"" for change in decision.changes if isinstance(change, TaskAccepted)
        }
        values = {
            change.end.end.token: b""
            for change in decision.changes
            if isinstance(change, TaskEnded) and change.end.end is not None
        }
        if decision.changes:
            self.store.remember(decision.changes, payloads, values)
            self.store.sync()
        self.decision = decision
        for letter in decision.letters:
            if isinstance(letter.message, Results):
                self.results += letter.message.ends
            elif isinstance(letter.message, Place):
                self.places.append((letter.to, letter.message))
        return decision

    # What clients say.

    def open(self, job: str = "job", client: Peer = CLIENT, number: int = 0) -> int:
        self.hear(client, Open(job, number))
        [opened] = self.said(client, Opened)
        return opened.job

    def submit(
        self,
        *tids: str,
        after: tuple[str, ...] = (),
        job: int | None = None,
        client: Peer = CLIENT,
        policy: Policy | None = None,
        **named: Any,
    ) -> Decision:
        """Hand in tasks that are alike; `named` are fields of their policy, `resources` as people write them."""
        if job is None:
            job = self.open(client=client)
        self._request += 1
        submissions = [Submission(tid, 0, after) for tid in tids]
        return self.hear(client, Submit(self._request, job, [policy or a_policy(**named)], submissions))

    # What controllers say.

    def join(self, name: str = "node", life: str = "1", workers: int = 1, **room: int | float | str) -> Peer:
        peer = Peer(name, life)
        self._rooms[name] = shape({"cpus": workers, "workers": workers, **room})
        self.hear(peer, Report(self.now, self._rooms[name], []))
        return peer

    def report(self, peer: Peer, held: Iterable[Token] | None = None, **fields: Any) -> Decision:
        """held: everything that the scheduler thinks it holds, if not given."""
        listed = list(self.controller(peer).held) if held is None else list(held)
        return self.hear(peer, Report(fields.pop("at", self.now), self._rooms[peer.name], listed, **fields))

    def started(self, peer: Peer, *tokens: Token) -> Decision:
        return self.hear(peer, Started(list(tokens)))

    def ended(self, peer: Peer, *tokens: Token, duration_s: float = 5.0, **fields: Any) -> Decision:
        ends = [End(token, duration_s, 1.0, **fields) for token in tokens]
        return self.hear(peer, Ended(ends))

    def raised(self, peer: Peer, *tokens: Token) -> Decision:
        return self.ended(peer, *tokens, outcome=Outcome.RAISED, error="no luck")

    def taught(self, kind: str = "", duration_s: float = 0.001, times: int = 100) -> None:
        """Let it know how long tasks of a kind take."""
        self.mind.placement.pace.learn(kind, [duration_s] * times)

    # What can be seen of it.

    def said(self, to: Peer, kind: type[Kind]) -> list[Kind]:
        return [
            letter.message
            for letter in self.decision.letters
            if letter.to == to and isinstance(letter.message, kind)
        ]

    def changes(self, kind: type[ChangeKind]) -> list[ChangeKind]:
        return [change for change in self.decision.changes if isinstance(change, kind)]

    def attempts(self) -> list[AttemptEnded]:
        return self.changes(AttemptEnded)

    def placed(self, to: Peer | None = None) -> list[Assignment]:
        """What the last decision gives out (to this controller)."""
        return [
            assignment
            for letter in self.decision.letters
            if isinstance(letter.message, Place) and to in (None, letter.to)
            for assignment in letter.message.assignments
        ]

    def tids(self, to: Peer | None = None) -> list[str]:
        return [assignment.tid for assignment in self.placed(to)]

    def dropped(self, to: Peer, *, unless_started: bool = False) -> list[Token]:
        return [
            token
            for drop in self.said(to, Drop)
            if drop.unless_started is unless_started
            for token in drop.tokens
        ]

    def controller(self, peer: Peer) -> Controller:
        return self.mind.controllers[peer.name]

    def task(self, tid: str) -> Task:
        """The live task of this tid."""
        return next(job.tasks[tid] for job in self.mind.jobs.values() if tid in job.tasks)

    def token(self, tid: str) -> Token:
        return self.task(tid).token

    def end(self, tid: str) -> TaskEnd:
        stored = self.store.task(tid)
        assert stored is not None, f"{tid} was never accepted"
        assert stored.end is not None, f"{tid} has not ended"
        return stored.end

    def state(self, tid: str) -> State:
        for job in self.mind.jobs.values():
            if tid in job.tasks:
                return job.tasks[tid].state
        return self.end(tid).state


class Node:
    """A crew, and the reaper and workers that obey it at once.

    letters: of the last decision. to_master: everything that was ever said to the master.
    """

    def __init__(self, workers: int = 1, *, started: bool = True, **fields: Any) -> None:
        self.now = 100.0
        resources = shape(fields.pop("resources", {"cpus": workers}))
        settings = {"stop_grace_s": 10.0, "hung_after_s": 60.0, "retry_wait_s": 5.0, "retries_max": 3}
        self.mind = Crew(
            self.now, workers=workers, resources=resources, host="host", pid=42, **{**settings, **fields}
        )
        self.to_master: list[Message] = []
        self.decision = Decision()
        self._pids = 1000
        self._token = 0
        self.last_place = Place(self.now, [], [])
        if started:
            self.tick()
            self.agree()

    def _obey(self, decision: Decision) -> Decision:
        invariants.check_crew(self.mind)
        self.decision = decision
        for letter in decision.letters:
            if letter.to == MASTER:
                self.to_master.append(letter.message)
            elif isinstance(letter.message, Hire):
                self._pids += 1
                self.mind.born(letter.message.slot, self._pids)
        return decision

    # What the world does.

    def tick(self, seconds: float = 0.0) -> Decision:
        self.now += seconds
        return self._obey(self.mind.tick(self.now))

    def hear(self, message: Message) -> Decision:
        return self._obey(self.mind.receive(message, self.now))

    def agree(self, at: float | None = None, renewed: Iterable[Token] = (), **fields: Any) -> Decision:
        at = self.now if at is None else at
        lease_s, report_s = fields.get("lease_s", LEASE_S), fields.get("report_s", 3.0)
        return self.hear(Agreed(at, list(renewed), report_s, lease_s))

    def place(self, *tids: str, alone: bool = False, at: float | None = None, **named: Any) -> list[Token]:
        """Give it attempts that are alike; `named` are fields of their policy. Returns their tokens."""
        tokens = [self._token + number for number in range(1, len(tids) + 1)]
        self._token += len(tids)
        assignments = [
            Assignment(token, tid, "job", 1, 0, alone) for token, tid in zip(tokens, tids, strict=True)
        ]
        self.last_place = Place(self.now if at is None else at, [a_policy(**named)], assignments)
        self.hear(self.last_place)
        return tokens

    def work(self, *tids: str, **named: Any) -> list[Token]:
        """Give it attempts and let it hand them out."""
        tokens = self.place(*tids, **named)
        self.tick()
        return tokens

    def run(self, slot: int = 0, place: int = 0, since: float | None = None) -> None:
        """The worker executes this place of its chunk."""
        self.mind.observed(slot, place, self.now if since is None else since)

    def finish(self, slot: int, *tokens: Token, duration_s: float = 1.0, **fields: Any) -> Decision:
        ends = [End(token, duration_s, 1.0, **fields) for token in tokens]
        return self._obey(self.mind.finished(slot, ends, self.now))

    def give_back(self, slot: int, *tokens: Token) -> Decision:
        """The worker gives back what it has not begun."""
        return self._obey(self.mind.finished(slot, [], self.now, tokens))

    def die(self, slot: int = 0, status: int = -9, running: int | None = None) -> Decision:
        return self._obey(self.mind.died(slot, status, running, self.now))

    def leave(self, *, at_once: bool = False) -> Decision:
        return self._obey(self.mind.leave("told to", self.now, at_once=at_once))

    def taught(self, kind: str = "", duration_s: float = 0.0001, times: int = 100) -> None:
        self.mind.pace.learn(kind, [duration_s] * times)

    # What can be seen of it.

    def said(self, kind: type[Kind]) -> list[Kind]:
        """To the master, in the last decision."""
        return [
            letter.message
            for letter in self.decision.letters
            if letter.to == MASTER and isinstance(letter.message, kind)
        ]

    def ends(self) -> list[End]:
        return [end for message in self.said(Ended) for end in message.ends]

    def signals(self) -> list[tuple[int, int]]:
        return [
            (letter.message.slot, letter.message.signal)
            for letter in self.decision.letters
            if letter.to == REAPER and isinstance(letter.message, Kill)
        ]

    def hired(self) -> list[int]:
        return [letter.message.slot for letter in self.decision.letters if isinstance(letter.message, Hire)]

    def given(self, slot: int) -> list[str]:
        """The tids that the last decision hands to this worker."""
        return [
            assignment.tid
            for letter in self.decision.letters
            if letter.to == worker_peer(slot) and isinstance(letter.message, Place)
            for assignment in letter.message.assignments
        ]

    def held(self, token: Token) -> Held:
        return self.mind.held[token]


def a_policy(
    *, resources: dict[str, int | float | str] | None = None, retry: Retry | None = None, **fields: Any
) -> Policy:
    if resources is not None:
        fields["resources"] = shape(resources)
    return Policy(retry=retry or Retry(), **fields)
