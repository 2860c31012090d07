"""A controller's mind: what it holds, which worker does what, and what the master still has to be told.

Three promises shape it. An end is repeated until the master has dropped it. A token is never executed
twice: what may have been executed and has no result is given back as lost, only what certainly has not
started goes to another worker. And an exclusive attempt is killed when its lease has run out by this
node's own clock, counted from the sending of the report that renewed it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from signal import SIGKILL, SIGTERM

from cyclone.core.decision import Decision
from cyclone.core.intensity import Intensity
from cyclone.core.live import WORKER, with_worker
from cyclone.core.pace import Pace
from cyclone.messages import (
    NUDGE,
    Agreed,
    Assignment,
    Drop,
    Ended,
    Goodbye,
    Guard,
    Hire,
    Kill,
    Leave,
    Message,
    Place,
    Reconnect,
    Refused,
    Report,
    SpoolView,
    Started,
)
from cyclone.model.lifecycle import Outcome
from cyclone.model.peer import Peer
from cyclone.model.resources import UNIT, Room, Shape
from cyclone.model.task import End, Policy, Token, signal_name

MASTER = Peer("master", "")
REAPER = Peer("reaper", "")
LINE = Peer("line", "")


#: A worker gets as much work at once as takes about so long; less would be spent on handing it over.
CHUNK_S = 0.01
CHUNK_MOST = 1000
#: Attempts that run longer than this are announced before they end, and what ended before them is asked for.
ANNOUNCE_S = 0.025
#: An end that was not dropped is said again after so long.
REPEAT_S = 3.0
#: More deaths of idle workers than this for each slot within a minute mean that no worker can live here.
IDLE_DEATHS_MOST = 10


class WorkerState(StrEnum):
    HIRED = "hired"  # the reaper was asked for it
    IDLE = "idle"
    BUSY = "busy"
    STOPPING = "stopping"  # was sent a signal on purpose
    HUNG = "hung"  # survives SIGKILL: stuck in the kernel; its slot is lost until it dies


@dataclass(slots=True, eq=False)
class Held:
    """An attempt that is here and has not ended. lease_from: own clock, for exclusive ones."""

    assignment: Assignment
    policy: Policy
    lease_from: float
    worker: Worker | None = None
    announced: bool = False
    unwanted: bool = False


@dataclass(slots=True, eq=False)
class Worker:
    """One slot and the process that fills it.

    chunk: what it was given, in order; done: how many of these have ended; running: index of the one in
    execution, as last observed, and since when (monotonic seconds).
    stopped: the attempt because of which it is being stopped, with outcome and reason.
    outlawed: the lease of its attempt has run out, and it was sent SIGKILL for it. guarded: the reaper will
    kill it when that lease runs out.
    """

    slot: int
    state: WorkerState = WorkerState.HIRED
    pid: int = 0
    chunk: list[Held] = field(default_factory=list)
    done: int = 0
    running: int | None = None
    since: float = 0.0
    shape: Shape | None = None
    stopped: tuple[Token, Outcome, str] | None = None
    outlawed: bool = False
    guarded: bool = False
    kill_at: float = 0.0
    hung_at: float = 0.0


class Crew:
    """Owns all attempts of one controller and all its workers.

    Letters go to MASTER, REAPER, LINE, or a worker (`worker_peer(slot)`); enclosures are the caller's
    affair: it keeps a payload until the attempt has ended and a value until the end was dropped.
    """

    def __init__(
        self,
        now: float,
        *,
        workers: int,
        resources: Shape,
        host: str,
        pid: int,
        stop_grace_s: float = 10.0,
        hung_after_s: float = 60.0,
        retry_wait_s: float = 5.0,
        retries_max: int = 3,
        jitter: float = 1.0,
        kept: Iterable[End] = (),
    ) -> None:
        """workers: how many; resources: what they share. jitter: 0.8 … 1, shortens the time between reports.

        kept: ends that a former life could not deliver.
        """
        self.room = Room(tuple(sorted({**dict(resources), WORKER: workers * UNIT}.items())))
        self.workers = {slot: Worker(slot) for slot in range(workers)}
        self.pace = Pace()
        self.held: dict[Token, Held] = {}
        self.leaving = False
        self.unreachable = False  # the master did not answer, however often it was asked
        self.broken = ""  # why no worker can live here
        self.spools: list[SpoolView] = []  # what waits for the sinks, as the next report tells it
        self.has_no_room_for_records = False  # nothing more is handed out until some have been delivered
        self.lease_s: float | None = None

        self._host, self._pid = host, pid
        self._stop_grace_s, self._hung_after_s = stop_grace_s, hung_after_s
        self._retry_wait_s, self._retries_max = retry_wait_s, retries_max
        self._jitter = jitter
        self._leased: dict[Token, Held] = {}  # the exclusive ones among those held, and some that are over
        self._queues: dict[Policy, deque[Held]] = {}
        self._ends: dict[Token, tuple[End, float]] = {end.token: (end, now - REPEAT_S) for end in kept}
        self._newest_token = 0
        self._report_s = 1.0
        self._report_at = now
        self._unanswered_since: float | None = None
        self._unanswered = 0
        self._idle_deaths = Intensity(IDLE_DEATHS_MOST * workers)
        self._to_hire = list(self.workers)
        self._said_goodbye = False
        self._leaving_at_once = False
        self._why_leaving = ""
        self._on: dict[type[Message], Callable[..., None]] = {
            Place: self._on_place,
            Drop: self._on_drop,
            Agreed: self._on_agreed,
            Leave: self._on_leave,
            Refused: self._on_refused,
        }

    # The doors.

    def receive(self, message: Message, now: float) -> Decision:
        """The master has said something."""
        decision = Decision()
        self._on[type(message)](message, now, decision)
        return decision

    def keeps_end(self, token: Token) -> bool:
        """Has it ended, and has the master not been told yet, or not said so?"""
        return token in self._ends

    def connected(self, now: float) -> None:
        """There is a new connection to the master: it is told at once who is here.

        First, what ended: it may have been lost with the former connection, and ends that a former life has
        kept must be there before the master hears of this one and gives their tasks to somebody else.
        """
        self._ends = {token: (end, now - REPEAT_S) for token, (end, _) in self._ends.items()}
        self._report_at = now
        self._unanswered_since = None

    def born(self, slot: int, pid: int) -> None:
        """The reaper has started a worker."""
        worker = self.workers[slot]
        worker.state, worker.pid = WorkerState.IDLE, pid

    def may_tell(self, slot: int, ends: list[End], unbegun: Collection[Token] = ()) -> bool:
        """Are these what comes next of what this worker was given? One that tells of others has lost its mind."""
        worker = self.workers[slot]
        left = [held.assignment.token for held in worker.chunk[worker.done :]]
        return left[: len(ends)] == [end.token for end in ends] and (
            not unbegun or set(left[len(ends) :]).issuperset(unbegun)
        )

    def finished(self, slot: int, ends: list[End], now: float, unbegun: Iterable[Token] = ()) -> Decision:
        """A worker tells of attempts that ended, in the order it was given them: it has to be one that `may_tell`.

        unbegun: the rest of its chunk, which it gives back.
        """
        decision = Decision()
        worker = self.workers[slot]
        durations: dict[str, list[float]] = {}
        told: list[End] = []
        for end in ends:
            held = self.held.pop(end.token, None)
            if held is not None:
                durations.setdefault(held.policy.kind, []).append(end.duration_s)
                if not held.unwanted:
                    told.append(end)
        for kind, measured in durations.items():
            self.pace.learn(kind, measured)
        self._tell(told, now, decision)
        worker.done += len(ends)
        worker.running = None
        if given_back := set(unbegun):
            chunk = worker.chunk
            worker.chunk = [held for held in chunk if held.assignment.token not in given_back]
            self._take_back([held for held in chunk if held.assignment.token in given_back], now, decision)
        if worker.done >= len(worker.chunk) and worker.state is WorkerState.BUSY:
            if worker.guarded:
                worker.guarded = False
                decision.say(REAPER, Guard(slot, None))
            self._free(worker)
            worker.state = WorkerState.IDLE
        return decision

    def ended(self, slot: int) -> None:
        """What the worker was last seen to execute has ended, though its end cannot be told yet: no limit stops it.

        It ends for everybody else with `finished`.
        """
        self.workers[slot].running = None

    def observed(self, slot: int, running: int, since: float) -> None:
        """The worker's progress page: it executes this place of its chunk, since then. Told before each tick."""
        worker = self.workers[slot]
        if worker.done <= running < len(worker.chunk):
            worker.running, worker.since = running, since

    def died(self, slot: int, status: int, running: int | None, now: float) -> Decision:
        """A worker is dead and reaped.

        status: its exit code, or minus the signal. running: the place of its chunk that it was executing
        when it died, the length of the chunk if it was through, None if it had not begun.
        All that it had said before must have been heard by now.
        """
        decision = Decision()
        worker = self.workers[slot]
        begun = worker.done if running is None else max(running, worker.done)
        lost, executed, unbegun = worker.chunk[worker.done : begun], [], worker.chunk[begun:]
        if running is not None:
            executed, unbegun = unbegun[:1], unbegun[1:]
        # The youngest first, because each of them goes to the front of a queue, here or at the master.
        self._take_back(unbegun, now, decision)
        for held in executed:
            end = self._end_of_running(worker, held, status, now)
            if worker.stopped is None:
                tid = held.assignment.tid
                decision.note(f"worker died slot={slot} pid={worker.pid} tid={tid} reason={end.error!r}")
            self._close(held, end, now, decision)
        for held in reversed(lost):
            self._close(held, _end_of_lost(held, "its result died with its worker"), now, decision)
        if not worker.chunk and worker.stopped is None:
            decision.note(f"idle worker died slot={slot} pid={worker.pid} status={status}")
            if self._idle_deaths.one_more(now):
                self.broken = (
                    f"more than {self._idle_deaths.most} idle workers died within a minute,"
                    f" the last one with {status}"
                )
        self._free(worker)
        self.workers[slot] = Worker(slot)
        if not self.broken and (not self.leaving or self._queues):
            self._to_hire.append(slot)
        return decision

    def tick(self, now: float) -> Decision:
        """What time brings. Called after every batch of events and when `next_moment` has come."""
        decision = Decision()
        for slot in self._to_hire:
            decision.say(REAPER, Hire(slot))
        self._to_hire.clear()
        self._watch_workers(now, decision)
        self._watch_leases(now, decision)
        self._hand_out(now, decision)
        self._repeat_ends(now, decision)
        self._report(now, decision)
        self._say_goodbye(decision)
        return decision

    def next_moment(self, now: float) -> float:
        """When `tick` is to be called at the latest, monotonic seconds."""
        moment = self._report_at
        for worker in self.workers.values():
            if worker.state is WorkerState.STOPPING:
                moment = min(moment, worker.kill_at, worker.hung_at)
            elif worker.state is WorkerState.BUSY:
                running = None if worker.running is None else worker.chunk[worker.running]
                if running is None or not running.announced:
                    moment = min(moment, now + ANNOUNCE_S)
                elif running.policy.timeout_s is not None:
                    moment = min(moment, worker.since + running.policy.timeout_s)
        if self.lease_s is not None:
            for held in self._leased.values():
                if held.worker is None or not held.worker.outlawed:
                    moment = min(moment, held.lease_from + self.lease_s)
        return moment

    def leave(self, reason: str, now: float, *, at_once: bool = False) -> Decision:
        """Take nothing more; let what runs end, or stop it; give the rest back."""
        decision = Decision()
        if not self.leaving:
            self.leaving = True
            self._why_leaving = reason
            self._report_at = now
        for queue in self._queues.values():
            for held in queue:
                self._close(held, _end_of_cancelled(held), now, decision)
        self._queues.clear()
        if at_once:
            self._leaving_at_once = True
            for worker in self.workers.values():
                if worker.state is WorkerState.BUSY:
                    self._stop(
                        worker, Outcome.EVICTED, f"its controller was stopped: {reason}", now, decision
                    )
        return decision

    @property
    def is_done(self) -> bool:
        """Everything was said, and this daemon may end.

        Told to end at once, it does not wait for workers that cannot be killed. It says no goodbye then: what these
        hold is given to others only when the lease has run out.
        """
        only_hung = self._leaving_at_once and bool(self.held) and not self._busy() and not self._ends
        return self._said_goodbye or only_hung or (self.unreachable and not self._busy())

    @property
    def undelivered(self) -> list[End]:
        """Ends that the master has not dropped yet."""
        return [end for end, _ in self._ends.values()]

    def queued(self) -> list[Held]:
        """Attempts that are with no worker."""
        return [held for queue in self._queues.values() for held in queue]

    # What the master says.

    def _on_place(self, message: Place, now: float, decision: Decision) -> None:
        queues = [self._queues.setdefault(policy, deque()) for policy in message.policies]
        for assignment in message.assignments:
            token = assignment.token
            if token <= self._newest_token:
                continue  # said twice
            self._newest_token = token
            policy = message.policies[assignment.policy]
            held = self.held[token] = Held(assignment, policy, message.at)
            if policy.exclusive:
                self._leased[token] = held
            if self.leaving:
                self._close(held, _end_of_cancelled(held), now, decision)
            elif policy.exclusive and not self._lease_is_fresh(held, now):
                # It would be stopped soon. A fresh report follows, so that the next one gets a whole lease.
                self._close(held, _end_of_cancelled(held), now, decision)
                self._report_at = now
            else:
                queues[assignment.policy].append(held)

    def _on_drop(self, message: Drop, now: float, decision: Decision) -> None:
        queued: list[Held] = []
        for token in message.tokens:
            held = self.held.get(token)
            if held is not None and held.worker is None:
                queued.append(held)
            elif not message.unless_started:
                if held is None:
                    self._ends.pop(token, None)
                else:
                    held.unwanted = True  # its worker is stopped at the next tick if it is this one that runs
        self._take_out(queued)
        for held in queued:
            del self.held[held.assignment.token]
        if message.unless_started:
            self._tell([_end_of_cancelled(held) for held in queued], now, decision)

    def _on_agreed(self, message: Agreed, now: float, decision: Decision) -> None:
        self.lease_s = message.lease_s
        self._report_s = message.report_s
        self._unanswered, self._unanswered_since = 0, None
        self._report_at = now + self._report_s * self._jitter
        self.unreachable = False
        for token in message.renewed:
            held = self.held.get(token)
            if held is not None:
                held.lease_from = max(held.lease_from, message.at)
                if held.worker is not None:
                    self._guard(held.worker, held, decision)

    def _on_leave(self, message: Leave, now: float, decision: Decision) -> None:
        decision.note(f"told to leave reason={message.reason!r} now={message.now}")
        decision.extend(self.leave(message.reason, now, at_once=message.now))

    def _on_refused(self, message: Refused, now: float, decision: Decision) -> None:
        decision.note(f"refused by the master reason={message.reason!r}")

    # Who does what.

    def _hand_out(self, now: float, decision: Decision) -> None:
        if self.has_no_room_for_records:
            return
        for worker in self.workers.values():
            if worker.state is not WorkerState.IDLE:
                continue
            policy = self._next_policy()
            if policy is None:
                return
            self._give(worker, policy, now, decision)

    def _next_policy(self) -> Policy | None:
        """Whose turn it is, the oldest token first.

        What the oldest lacks is kept for it: a younger one may start only beside that, so that a large
        task is not starved by small ones that keep slipping in before it.
        """
        for policy in [policy for policy, queue in self._queues.items() if not queue]:
            del self._queues[policy]
        turns = sorted((queue[0].assignment.token, policy) for policy, queue in self._queues.items())
        kept: dict[str, int] = {}
        for _, policy in turns:
            shape = with_worker(policy.resources)
            free = self.room.free
            if all(free.get(name, 0) - kept.get(name, 0) >= units for name, units in shape):
                return policy
            if not kept:
                kept = dict(policy.resources)
        return None

    def _give(self, worker: Worker, policy: Policy, now: float, decision: Decision) -> None:
        queue = self._queues[policy]
        share = -(-len(queue) // len(self.workers))
        size = self.pace.bundle_size(policy.kind, CHUNK_S, min(CHUNK_MOST, share))
        first = queue.popleft()
        chunk = [first]
        if first.assignment.alone:
            first.announced = True
            decision.say(MASTER, Started([first.assignment.token]))
        elif not policy.exclusive:
            while queue and len(chunk) < size and not queue[0].assignment.alone:
                chunk.append(queue.popleft())
        for held in chunk:
            held.worker = worker
        worker.chunk, worker.done, worker.running = chunk, 0, None
        worker.state = WorkerState.BUSY
        worker.shape = with_worker(policy.resources)
        self.room.take(worker.shape)
        assignments = [held.assignment for held in chunk]
        # A worker needs no policies: limits are watched over from here.
        tokens = [assignment.token for assignment in assignments]
        if policy.exclusive:
            self._guard(worker, first, decision)
        decision.say(worker_peer(worker.slot), Place(now, [], assignments), tokens)

    def _take_out(self, queued: list[Held]) -> None:
        """They are not to be handed out any more. Each queue is gone through once, however many they are."""
        for policy in {held.policy for held in queued}:
            gone = {held for held in queued if held.policy == policy}
            self._queues[policy] = deque(held for held in self._queues[policy] if held not in gone)

    def _take_back(self, unbegun: list[Held], now: float, decision: Decision) -> None:
        """These have certainly not been begun: another worker gets them, or the master, if they are not for here."""
        # Each goes to the front of its queue, so the oldest goes last.
        for held in reversed(unbegun):
            if held.unwanted or self.leaving:
                self._close(held, _end_of_cancelled(held), now, decision)
            elif held.assignment.token in self.held:  # or its worker hung, and it was closed then
                held.worker, held.announced = None, False
                self._queues.setdefault(held.policy, deque()).appendleft(held)

    def _free(self, worker: Worker) -> None:
        if worker.shape is not None:
            self.room.give_back(worker.shape)
        worker.shape, worker.chunk, worker.done, worker.running = None, [], 0, None

    # What must not go on.

    def _watch_workers(self, now: float, decision: Decision) -> None:
        announced: list[Token] = []
        for worker in self.workers.values():
            if worker.state is WorkerState.BUSY and worker.running is not None:
                held = worker.chunk[worker.running]
                ran_s = now - worker.since
                limit_s = held.policy.timeout_s
                if held.unwanted:
                    self._stop(worker, Outcome.CANCELLED, "it is not wanted any more", now, decision)
                elif limit_s is not None and ran_s >= limit_s:
                    self._stop(worker, Outcome.TIMED_OUT, f"it ran longer than {limit_s:g} s", now, decision)
                elif ran_s >= ANNOUNCE_S and not held.announced:
                    held.announced = True
                    announced.append(held.assignment.token)
                    if len(worker.chunk) - worker.done > 1:
                        # It keeps back what ended before, or others may do what comes after.
                        decision.say(REAPER, Kill(worker.slot, NUDGE))
            elif worker.state is WorkerState.STOPPING:
                self._press(worker, now, decision)
        if announced:
            decision.say(MASTER, Started(announced))

    def _stop(self, worker: Worker, outcome: Outcome, why: str, now: float, decision: Decision) -> None:
        """End a worker because of what it runs. What waits behind that in its chunk goes to others."""
        place = worker.done if worker.running is None else worker.running
        worker.stopped = (worker.chunk[place].assignment.token, outcome, why)
        worker.state = WorkerState.STOPPING
        worker.kill_at = now + self._stop_grace_s
        worker.hung_at = worker.kill_at + self._hung_after_s
        decision.say(REAPER, Kill(worker.slot, SIGTERM))

    def _press(self, worker: Worker, now: float, decision: Decision) -> None:
        """A worker that was told to end and has not."""
        if now >= worker.hung_at:
            worker.state = WorkerState.HUNG
            decision.note(
                f"worker hung slot={worker.slot} pid={worker.pid}: it survives SIGKILL, its slot is lost"
            )
            self._give_up_hung(worker, now, decision)
        elif now >= worker.kill_at:
            worker.kill_at = now + 1.0
            decision.say(REAPER, Kill(worker.slot, SIGKILL))

    def _give_up_hung(self, worker: Worker, now: float, decision: Decision) -> None:
        """Others may do what it was to do; an exclusive attempt stays here as long as it could still act."""
        assert worker.stopped is not None
        token, outcome, why = worker.stopped
        for held in worker.chunk[worker.done :]:
            if held.policy.exclusive or held.assignment.token not in self.held:
                continue
            if held.assignment.token == token:
                end = End(token, now - worker.since, outcome=outcome, error=f"{why}; it cannot be killed")
                self._close(held, end, now, decision)
            else:
                self._close(held, _end_of_cancelled(held), now, decision)

    def _watch_leases(self, now: float, decision: Decision) -> None:
        for token, held in list(self._leased.items()):
            if token not in self.held:
                del self._leased[token]
                continue
            if self._lease_is_good(held, now):
                continue
            worker = held.worker
            if worker is None:
                self._take_out([held])
                self._close(held, _end_of_cancelled(held), now, decision)
            elif not worker.outlawed:
                if worker.state is WorkerState.BUSY:
                    self._stop(worker, Outcome.LOST, "its lease ran out", now, decision)
                # No grace, not even what is left of one for another reason: at this moment the master starts
                # to count the seconds until others may begin.
                worker.outlawed = True
                worker.kill_at = now + 1.0
                decision.say(REAPER, Kill(worker.slot, SIGKILL))

    def _guard(self, worker: Worker, held: Held, decision: Decision) -> None:
        """This daemon may be stopped or stuck when the lease runs out; the reaper will not be."""
        assert self.lease_s is not None
        worker.guarded = True
        decision.say(REAPER, Guard(worker.slot, held.lease_from + self.lease_s))

    def _lease_is_fresh(self, held: Held, now: float) -> bool:
        """The report that earned it was not long on its way, nor was the answer."""
        return self.lease_s is not None and now < held.lease_from + self.lease_s / 2

    def _lease_is_good(self, held: Held, now: float) -> bool:
        return self.lease_s is not None and now < held.lease_from + self.lease_s

    # What the master is told.

    def _tell(self, ends: list[End], now: float, decision: Decision) -> None:
        if ends:
            for end in ends:
                self._ends[end.token] = (end, now)
            decision.say(MASTER, Ended(ends), [end.token for end in ends])

    def _close(self, held: Held, end: End, now: float, decision: Decision) -> None:
        """An attempt ended here, not by its own last word; if it had not, when its worker hung."""
        if self.held.pop(held.assignment.token, None) is not None and not held.unwanted:
            self._tell([end], now, decision)

    def _repeat_ends(self, now: float, decision: Decision) -> None:
        overdue: list[End] = []
        for end, said_at in self._ends.values():  # in the order in which they were said
            if now - said_at < REPEAT_S:
                break
            overdue.append(end)
        for end in overdue:
            del self._ends[end.token]
        self._tell(overdue, now, decision)

    def _report(self, now: float, decision: Decision) -> None:
        if now < self._report_at:
            return
        if self._unanswered_since is None:
            self._unanswered_since = now
        elif now - self._unanswered_since >= self._retry_wait_s:
            self._try_again(now, decision)
            return
        # When to look whether it was answered; an answer puts it off.
        self._report_at = now + (self._retry_wait_s or 1.0)
        hung = sum(worker.state is WorkerState.HUNG for worker in self.workers.values())
        room = {**self.room.capacity, WORKER: (len(self.workers) - hung) * UNIT}
        held = [*self.held, *self._ends]
        decision.say(
            MASTER,
            Report(
                now,
                tuple(sorted(room.items())),
                held,
                self.leaving,
                self._host,
                self._pid,
                self._busy(),
                hung,
                self.spools,
                started=[token for token, each in self.held.items() if each.announced],
            ),
        )

    def _try_again(self, now: float, decision: Decision) -> None:
        """The master did not answer. The next report follows as soon as there is a connection."""
        self._unanswered_since = now
        self._unanswered += 1
        if self._unanswered > self._retries_max:
            self._give_up_master(now, decision)
        self._report_at = now + (self._retry_wait_s or 1.0)
        decision.say(LINE, Reconnect())

    def _give_up_master(self, now: float, decision: Decision) -> None:
        if not self.unreachable:
            decision.note(f"master not reached attempts={self._unanswered}: ending when what runs has ended")
            self.unreachable = True
            decision.extend(self.leave("the master cannot be reached", now))

    def _say_goodbye(self, decision: Decision) -> None:
        if self.leaving and not self._busy() and not self._ends and not self.held and not self._said_goodbye:
            self._said_goodbye = True
            decision.say(MASTER, Goodbye(self._why_leaving))

    def _busy(self) -> int:
        return sum(
            bool(worker.chunk) and worker.state is not WorkerState.HUNG for worker in self.workers.values()
        )

    def _end_of_running(self, worker: Worker, held: Held, status: int, now: float) -> End:
        """What is said of the attempt that a worker was executing when it died."""
        token = held.assignment.token
        duration_s = max(0.0, now - worker.since) if worker.running is not None else 0.0
        if worker.stopped is not None:
            stopped_token, outcome, why = worker.stopped
            if stopped_token == token:
                return End(token, duration_s, outcome=outcome, error=why)
            # The signal was meant for the one before it, which ended just then.
            return _end_of_lost(held, "its worker was stopped because of another task")
        if held.policy.exclusive and not self._lease_is_good(held, now):
            # The reaper was faster than this mind.
            return End(token, duration_s, outcome=Outcome.LOST, error="its lease ran out")
        if status < 0:
            error = f"its worker was killed by {signal_name(-status)}"
            return End(token, duration_s, 0.0, Outcome.SIGNALLED, -status, died=True, error=error)
        error = f"its worker ended with exit code {status} in the middle of it"
        return End(token, duration_s, 0.0, Outcome.EXITED, status, died=True, error=error)


def worker_peer(slot: int) -> Peer:
    """The address of a worker in a crew's letters."""
    return Peer("worker", str(slot))


def _end_of_cancelled(held: Held) -> End:
    return End(held.assignment.token, outcome=Outcome.CANCELLED, error="it was given back before it started")


def _end_of_lost(held: Held, why: str) -> End:
    return End(held.assignment.token, outcome=Outcome.LOST, error=why)
