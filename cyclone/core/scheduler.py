"""The master's mind: messages in, decisions out. No clock, no socket, no file, no thread.

Four ideas carry it.

*A token belongs to one attempt.* Each controller has a table `{token: task}` of what it holds now. An end
counts if and only if its token stands in the table of the controller that says it; taking it out is the
fence. Everything else is stale: answered, so that it is not repeated, and otherwise without effect.

*A token is placed once.* A `Place` that got lost is noticed when a report does not list it; the task then
gets a new attempt. So a controller refuses any token that is not larger than all it has seen, and a letter
that arrives twice cannot run twice.

*Reports are the truth.* There is no other heartbeat, acknowledgement or handshake: what a report lists and
should not be there is dropped, what should be there and is not is placed anew.

*Exclusive attempts have leases.* Only a report that lists one renews it, and it is given to nobody else
before the controller, by its own clock, must have killed it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from math import ceil

from cyclone.core.alarms import Alarms
from cyclone.core.decision import Decision
from cyclone.core.graph import Graph, find_cycle
from cyclone.core.live import WORKER, Bundle, Controller, History, Job, Task, with_worker
from cyclone.core.pace import Pace
from cyclone.core.ready_queue import Lane, ReadyQueue
from cyclone.messages import (
    Accepted,
    Agreed,
    Assignment,
    Cancel,
    Close,
    Drop,
    Ended,
    Goodbye,
    Leave,
    Message,
    Open,
    Opened,
    Place,
    Refused,
    Report,
    Results,
    Started,
    Submit,
    TaskEnd,
)
from cyclone.model.changes import (
    AttemptEnded,
    JobClosed,
    JobOpened,
    PlacementOver,
    Remembered,
    TaskAccepted,
    TaskEnded,
    TasksPlaced,
)
from cyclone.model.lifecycle import ENDED, HELD, LIFECYCLE, Event, Outcome, State
from cyclone.model.peer import Peer
from cyclone.model.resources import UNIT
from cyclone.model.task import (
    Cause,
    End,
    JobNumber,
    Policy,
    TaskNumber,
    Token,
    cause,
    first_token,
)

#: A bundle is as much work as keeps a worker busy for so long, so that the cost of a message is small.
BUNDLE_S = 0.05
BUNDLE_MOST = 2000
#: Tasks of kinds that take longer than this on average are not sent ahead of free room.
AHEAD_S = 1.0
#: So long may other shapes overtake a task that fits nowhere; then room is kept for it.
PATIENCE_S = 1.0
#: Work that waits at one controller while another has nothing to do is called back after so long.
CALL_BACK_S = 0.05
#: The master waits this much longer than the lease before it gives an exclusive attempt to somebody else:
#: clocks may run at rates that differ by 1 %, and the killing takes a moment.
LEASE_MARGIN = 0.1
LEASE_MARGIN_S = 1.0
#: At most so many reports a second from the whole cluster; larger clusters report more slowly.
REPORTS_PER_S = 200
#: Lives of one name that are remembered, so that two controllers that share it by mistake are told.
FORMER_LIVES = 16


class Scheduler:
    """Owns every live task, every job and what is known of the controllers.

    receive, tick: the two doors. The caller remembers the decision's changes before it says its letters.
    Times are monotonic seconds and must not run backwards.
    """

    def __init__(self, remembered: Remembered, now: float, *, lease_s: float, window: int) -> None:
        """Wake with what the store remembers.

        Attempts that were held stay held for a whole lease: their controllers may come back.
        lease_s: after so much silence a controller's attempts are given to others.
        window: tasks that a client may have open at one time.
        """
        self.lease_s = max(lease_s, 0.5)
        self.window = window
        self.epoch = remembered.epoch
        self.draining = False
        self.jobs: dict[JobNumber, Job] = {}
        self.controllers: dict[str, Controller] = {}
        self.ready = ReadyQueue()
        self.pace = Pace()
        self.failures = 0  # tasks that ended without success, as far as this life was told of

        self._graph = Graph()
        self._alarms: Alarms[tuple[Task, Token]] = Alarms()
        self._policies: dict[Policy, Policy] = {}
        self._former_lives: dict[str, list[str]] = {}
        self._serials: dict[Peer, int] = {}
        self._results: dict[Job, list[TaskEnd]] = {}
        self._reservation: tuple[Lane, Controller] | None = None
        self._next_token = first_token(remembered.epoch) + 1
        self._last_number = remembered.last_number
        self._last_job = remembered.last_job
        self._look_for_silence_at = now
        self._call_back_at = now
        self._doors: dict[type[Message], Callable[..., None]] = {
            Report: self._on_report,
            Started: self._on_started,
            Ended: self._on_ended,
            Goodbye: self._on_goodbye,
            Open: self._on_open,
            Submit: self._on_submit,
            Close: self._on_close,
            Cancel: self._on_cancel,
        }
        self._wake(remembered, now)

    # The two doors.

    def receive(
        self, sender: Peer, message: Message, now: float, recalled: Mapping[str, TaskEnd] | None = None
    ) -> Decision:
        """Decide about one message.

        recalled: for a `Submit`, those among its tids and their predecessors that ended earlier in this job.
        """
        decision = Decision()
        controller = self.controllers.get(sender.name)
        if controller is not None and controller.peer == sender:
            controller.heard_at = now
            controller.silent = False
        if isinstance(message, Submit):
            self._on_submit(sender, message, now, decision, recalled or {})
        else:
            self._doors[type(message)](sender, message, now, decision)
        self._tell_results(decision)
        return decision

    def tick(self, now: float) -> Decision:
        """Decide what time and free room bring. Called after every batch of messages and when a moment comes."""
        decision = Decision()
        self._lose_the_silent(now, decision)
        self._ring_alarms(now, decision)
        self._place_ready(now, decision)
        self._call_back(now, decision)
        self._tell_results(decision)
        return decision

    def next_moment(self, now: float) -> float:
        """When `tick` is to be called at the latest, monotonic seconds."""
        moments = [self._look_for_silence_at]
        if self._alarms.next_moment is not None:
            moments.append(self._alarms.next_moment)
        if any(controller.held for controller in self.controllers.values()):
            moments.append(now + CALL_BACK_S)
        return min(moments)

    def stop(self, reason: str, *, at_once: bool = False) -> Decision:
        """Place nothing more and send the controllers home; at_once: they stop what runs."""
        decision = Decision()
        self.draining = True
        for controller in self.controllers.values():
            controller.told_to_leave = True
            decision.say(controller.peer, Leave(reason, now=at_once))
        for client in {job.client for job in self.jobs.values() if job.client is not None}:
            decision.say(client, Leave(reason, now=at_once))
        return decision

    @property
    def is_deserted(self) -> bool:
        """No controller is left that could still have something to say."""
        return all(controller.silent for controller in self.controllers.values())

    @property
    def is_idle(self) -> bool:
        """No job is open."""
        return not self.jobs

    def waits_for(self, task: Task) -> int:
        """How many tasks it still comes after."""
        return self._graph.waits_for(task)

    # What controllers say.

    def _on_report(self, sender: Peer, message: Report, now: float, decision: Decision) -> None:
        controller = self._acquaint(sender, now, decision)
        if controller is None:
            return
        first_report = controller.report_at is None
        controller.report_at = message.at
        controller.leaving = message.leaving
        controller.host, controller.pid = message.host, message.pid
        controller.workers_busy, controller.workers_hung = message.workers_busy, message.workers_hung
        controller.resize(message.room)
        if first_report:
            decision.note(f"controller joined name={sender.name} host={message.host} pid={message.pid}")
        report_s = self._report_s()
        listed = set(message.held)
        renewed = self._compare(controller, listed, now, report_s, decision)
        if unwanted := sorted(listed - controller.held.keys()):
            decision.say(sender, Drop(unwanted))
        decision.say(sender, Agreed(message.at, renewed, report_s, self.lease_s))
        if self.draining:
            controller.told_to_leave = True
            decision.say(sender, Leave("the master is stopping"))

    def _compare(
        self, controller: Controller, listed: set[Token], now: float, report_s: float, decision: Decision
    ) -> list[Token]:
        """Renew the leases that are listed; give up what should be listed and is not. Returns the renewed."""
        renewed: list[Token] = []
        missing: list[tuple[Token, Task]] = []
        for token, task in controller.held.items():
            bundle = task.bundle
            assert bundle is not None
            if token in listed:
                if task.policy.exclusive:
                    bundle.renewed_at = now
                    renewed.append(token)
            elif task.policy.exclusive:
                if now >= self._lease_end(bundle):
                    missing.append((token, task))
            # A letter may be on its way for a while, and the report may have crossed it.
            elif now - bundle.placed_at > max(report_s, 1.0):
                missing.append((token, task))
        for token, task in reversed(missing):
            self._lose_attempt(task, token, "it did not reach its controller", now, decision, started=False)
        return renewed

    def _on_started(self, sender: Peer, message: Started, now: float, decision: Decision) -> None:
        controller = self.controllers.get(sender.name)
        if controller is None:
            return
        for token in message.tokens:
            task = controller.held.get(token)
            if task is not None and task.state is State.PLACED:
                self._move(task, Event.STARTED)

    def _on_ended(self, sender: Peer, message: Ended, now: float, decision: Decision) -> None:
        # The name alone decides, not the life: a controller that was stopped and started again
        # delivers the ends that its former life could not.
        controller = self.controllers.get(sender.name)
        held = controller.held if controller is not None else {}
        durations: dict[str, list[float]] = {}
        for end in message.ends:
            task = held.get(end.token)
            if task is None:
                continue  # stale: it was recorded, or the task was given to somebody else since
            if end.started_at:
                kind = task.policy.kind
                if kind in durations:
                    durations[kind].append(end.duration_s)
                else:
                    durations[kind] = [end.duration_s]
            self._attempt_over(task, end, cause(end, started=end.started_at > 0), now, decision)
        for kind, measured in durations.items():
            self.pace.learn(kind, measured)
        decision.say(sender, Drop([end.token for end in message.ends]))

    def _on_goodbye(self, sender: Peer, message: Goodbye, now: float, decision: Decision) -> None:
        controller = self.controllers.get(sender.name)
        if controller is not None and controller.peer == sender:
            self._retire(controller, f"it left ({message.reason})", now, decision)
            decision.note(f"controller left name={sender.name} reason={message.reason}")

    # What clients say.

    def _on_open(self, sender: Peer, message: Open, now: float, decision: Decision) -> None:
        if message.number:
            job = self.jobs.get(message.number)
            if job is None:
                decision.say(sender, Refused(f"job {message.number} is not open"))
                return
        else:
            job = next((job for job in self.jobs.values() if job.name == message.job), None)
        if job is None:
            self._last_job += 1
            job = self.jobs[self._last_job] = Job(self._last_job, message.job)
            decision.remember(JobOpened(job.number, job.name))
            decision.note(f"job opened job={job.name} number={job.number}")
        elif job.client != sender:
            decision.note(f"job resumed job={job.name} number={job.number} open={len(job.tasks)}")
        if job.client != sender and job.client is not None:
            self._serials.pop(job.client, None)
        job.client = sender
        job.closed = False
        serial = self._serials.setdefault(sender, 0)
        decision.say(sender, Opened(job.name, job.number, self.epoch, serial, self.window))

    def _on_submit(
        self, sender: Peer, message: Submit, now: float, decision: Decision, recalled: Mapping[str, TaskEnd]
    ) -> None:
        job = self.jobs.get(message.job)
        if job is None or job.closed:
            decision.say(sender, Refused(f"job {message.job} is not open", message.request))
            return
        after = {task.tid: task.after for task in message.tasks if task.after}
        if problem := self._problem_with(message, job, after, recalled):
            decision.say(sender, Refused(problem, message.request))
            return
        policies = [self._policies.setdefault(policy, policy) for policy in message.policies]
        tasks, number, state = job.tasks, self._last_number, State.READY
        if after:
            state = State.WAITING
        new: list[Task] = []
        for submission in message.tasks:
            tid = submission.tid
            if tid in tasks or tid in recalled:
                continue
            number += 1
            policy = policies[submission.policy]
            task = tasks[tid] = Task(number, job, tid, policy, state)
            new.append(task)
            decision.changes.append(TaskAccepted(number, job.number, tid, policy, submission.after))
        self._last_number = number
        job.counts[state] += len(new)
        decision.say(sender, Accepted(message.request))
        self._tell_again(job, [recalled[task.tid] for task in message.tasks if task.tid in recalled])
        if after:
            self._settle(new, after, recalled, decision)
        else:
            for task in new:
                self.ready.push(task)
        for task in new:
            if task.policy.expires_s is not None:
                self._alarms.set(now + task.policy.expires_s, (task, 0))

    def _problem_with(
        self, message: Submit, job: Job, after: Mapping[str, tuple[str, ...]], recalled: Collection[str]
    ) -> str:
        """Why a submission cannot be taken as a whole; "" if it can."""
        if any(not 0 <= task.policy < len(message.policies) for task in message.tasks):
            return "a task names a policy that the message does not hold"
        if not after:
            return ""
        here = {task.tid for task in message.tasks}
        for tid, predecessors in after.items():
            for predecessor in predecessors:
                if predecessor not in here and predecessor not in job.tasks and predecessor not in recalled:
                    return f"task {tid!r} comes after {predecessor!r}, which this job does not know"
        cycle = find_cycle(after)
        return f"tasks come after one another in a circle: {' after '.join(cycle)}" if cycle else ""

    def _settle(
        self,
        new: list[Task],
        after: Mapping[str, tuple[str, ...]],
        recalled: Mapping[str, TaskEnd],
        decision: Decision,
    ) -> None:
        """New tasks wait for those they come after, or are ready, or will never run."""
        skipped: list[tuple[Task, str]] = []
        for task in new:
            names = dict.fromkeys(after.get(task.tid, ()))
            ended_badly = [
                name for name in names if name in recalled and recalled[name].state is not State.SUCCEEDED
            ]
            alive = [task.job.tasks[name] for name in names if name in task.job.tasks]
            if ended_badly:
                skipped.append((task, ended_badly[0]))
            elif alive:
                self._graph.add(task, alive)
            else:
                self._free(task)
        for task, name in skipped:
            if task.state not in ENDED:
                self._end(task, Event.SKIPPED, decision, reason=_skipped_by(name, recalled[name].state))

    def _on_close(self, sender: Peer, message: Close, now: float, decision: Decision) -> None:
        job = self.jobs.get(message.job)
        # Only the client that works on it may close it: a letter of a former life may come late.
        if job is not None and job.client in (None, sender):
            job.closed = True
            job.broken = job.broken or message.failed
            self._close_if_done(job, decision)
        decision.say(sender, Accepted(message.request))

    def _on_cancel(self, sender: Peer, message: Cancel, now: float, decision: Decision) -> None:
        job = self.jobs.get(message.job)
        if job is None:
            decision.say(sender, Refused(f"job {message.job} is not open", message.request))
            return
        for tid in message.tids:
            task = job.tasks.get(tid)
            if task is not None:
                self._cancel(task, "cancelled by a client", decision)
        decision.say(sender, Accepted(message.request))

    # How attempts end.

    def _attempt_over(self, task: Task, end: End, billed_to: Cause, now: float, decision: Decision) -> None:
        """An attempt that its controller holds has ended. The policy decides what becomes of the task."""
        bundle = task.bundle
        assert bundle is not None
        controller = bundle.controller
        self._release(task, decision)
        peer = controller.peer.name
        if end.outcome is Outcome.SUCCEEDED:
            self._end(task, Event.SUCCEEDED, decision, end=end, peer=peer)
            return
        history = task.history
        if history is None:
            history = task.history = History()
        history.billed[billed_to] += 1
        event = task.policy.retry.verdict(billed_to, history.billed[billed_to])
        if event in (Event.FAILED, Event.QUARANTINED):
            self._end(task, event, decision, end=end, peer=peer, reason=_given_up(billed_to, history))
            return
        history.attempts += 1
        decision.remember(AttemptEnded(task.number, history.attempts, peer, billed_to, end))
        if event is Event.RESTED:
            failed = history.billed[Cause.ERROR] + history.billed[Cause.TIMEOUT]
            self._rest(task, task.policy.retry.rest_s(failed), now)
        else:
            self._move(task, event)
            self.ready.push(task, returned=True)

    def _rest(self, task: Task, rest_s: float, now: float) -> None:
        assert task.history is not None
        self._move(task, Event.RESTED)
        task.history.rest_until = now + rest_s
        self._alarms.set(task.history.rest_until, (task, task.token))

    def _lose_attempt(
        self, task: Task, token: Token, why: str, now: float, decision: Decision, *, started: bool
    ) -> None:
        end = End(token, outcome=Outcome.LOST, error=why)
        self._attempt_over(task, end, cause(end, started=started), now, decision)

    def _release(self, task: Task, decision: Decision) -> None:
        """Its controller holds it no more."""
        bundle = task.bundle
        assert bundle is not None
        del bundle.controller.held[task.token]
        task.bundle = None
        bundle.open -= 1
        if bundle.open == 0:
            bundle.controller.give_back(bundle)
            decision.changes.append(PlacementOver(bundle.first))

    # How tasks end.

    def _end(
        self,
        task: Task,
        event: Event,
        decision: Decision,
        *,
        end: End | None = None,
        peer: str = "",
        reason: str = "",
    ) -> None:
        """Write the one end of a task, and settle those that come after it, and those after them."""
        self._write_end(task, event, decision, end, peer, reason)
        if event is Event.SUCCEEDED:
            for follower in self._graph.succeeded(task):
                self._free(follower)
            return
        ended = [task]
        while ended:
            failed = ended.pop()
            for follower in self._graph.failed(failed):
                why = _skipped_by(failed.tid, failed.state)
                self._write_end(follower, Event.SKIPPED, decision, None, "", why)
                ended.append(follower)

    def _write_end(
        self, task: Task, event: Event, decision: Decision, end: End | None, peer: str, reason: str
    ) -> None:
        job = task.job
        self._move(task, event)
        attempts = task.attempts_over + (end is not None)
        task_end = TaskEnd(task.tid, task.state, attempts, end, reason)
        decision.changes.append(TaskEnded(task.number, job.number, peer, task_end))
        del job.tasks[task.tid]
        if event is not Event.SUCCEEDED:
            job.failures += 1
            self.failures += 1
        self._results.setdefault(job, []).append(task_end)

    def _cancel(self, task: Task, reason: str, decision: Decision) -> None:
        if task.bundle is not None:
            decision.say(task.bundle.controller.peer, Drop([task.token]))
            self._release(task, decision)
        elif task.state is State.READY:
            self.ready.forget(task)
        elif task.state is State.WAITING:
            self._graph.forget(task)
        self._end(task, Event.CANCELLED, decision, reason=reason)

    def _free(self, task: Task) -> None:
        self._move(task, Event.FREED)
        self.ready.push(task)

    def _move(self, task: Task, event: Event) -> None:
        """The only place where a task changes its state."""
        state = LIFECYCLE[task.state][event]
        counts = task.job.counts
        counts[task.state] -= 1
        if state not in ENDED:
            counts[state] += 1
        task.state = state

    # Who hears of it.

    def _tell_again(self, job: Job, ends: list[TaskEnd]) -> None:
        if ends:
            self._results.setdefault(job, []).extend(ends)
            failures = sum(end.state is not State.SUCCEEDED for end in ends)
            job.failures += failures
            self.failures += failures

    def _tell_results(self, decision: Decision) -> None:
        if not self._results:
            return
        told, self._results = self._results, {}
        for job, ends in told.items():
            if job.client is not None:
                serial = self._serials[job.client] = self._serials.get(job.client, 0) + 1
                tokens = [end.end.token if end.state is State.SUCCEEDED and end.end else 0 for end in ends]
                decision.say(job.client, Results(job.number, serial, ends), tokens)
            self._close_if_done(job, decision)

    def _close_if_done(self, job: Job, decision: Decision) -> None:
        if job.closed and not job.tasks and self.jobs.pop(job.number, None) is not None:
            state = "failed" if job.broken or job.failures else "succeeded"
            decision.remember(JobClosed(job.number, state))
            decision.note(f"job closed job={job.name} number={job.number} state={state}")
            if job.client is not None:
                self._serials.pop(job.client, None)

    # What time does.

    def _lose_the_silent(self, now: float, decision: Decision) -> None:
        if now < self._look_for_silence_at:
            return
        self._look_for_silence_at = now + self.lease_s / 10
        silence_s = max(self.lease_s, 3 * self._report_s())
        for controller in list(self.controllers.values()):
            silent_s = now - controller.heard_at
            if silent_s >= silence_s:
                if not controller.silent:
                    controller.silent = True
                    decision.note(
                        f"controller silent name={controller.peer.name} seconds={silent_s:.1f}"
                        f" held={len(controller.held)}"
                    )
                self._give_to_others(
                    controller, f"its controller was silent for {silent_s:.1f} s", now, decision
                )
            if silent_s >= 100 * silence_s and not controller.held:
                del self.controllers[controller.peer.name]

    def _give_to_others(self, controller: Controller, why: str, now: float, decision: Decision) -> None:
        """Take back everything but the exclusive attempts that may still be running there."""
        for token, task in reversed(controller.held.copy().items()):
            assert task.bundle is not None
            if not task.policy.exclusive or now >= self._lease_end(task.bundle):
                started = task.state is State.RUNNING
                self._lose_attempt(task, token, why, now, decision, started=started)

    def _lease_end(self, bundle: Bundle) -> float:
        return bundle.renewed_at + self.lease_s * (1 + LEASE_MARGIN) + LEASE_MARGIN_S

    def _ring_alarms(self, now: float, decision: Decision) -> None:
        for task, token in self._alarms.due(now):
            if task.state is State.RESTING and task.token == token:
                self._move(task, Event.WOKEN)
                self.ready.push(task, returned=True)
            elif token == 0 and task.token == 0 and task.state not in ENDED and task.state not in HELD:
                self._cancel(task, "it expired before it was started", decision)

    # Who is there.

    def _report_s(self) -> float:
        return max(self.lease_s / 3, len(self.controllers) / REPORTS_PER_S)

    def _acquaint(self, sender: Peer, now: float, decision: Decision) -> Controller | None:
        """The controller that speaks; None for a former life, which is told to end."""
        known = self.controllers.get(sender.name)
        if known is not None and known.peer == sender:
            return known
        former = self._former_lives.setdefault(sender.name, [])
        if sender.life in former:
            reason = (
                f"another controller took over the name {sender.name!r}: give each its own [control] name"
            )
            decision.say(sender, Leave(reason, now=True))
            return None
        if known is not None:
            self._retire(known, "its controller was started again", now, decision)
        fresh = self.controllers[sender.name] = Controller(sender, now)
        return fresh

    def _retire(self, controller: Controller, why: str, now: float, decision: Decision) -> None:
        """This life of a controller is over, and nothing of it runs any more."""
        for token, task in reversed(controller.held.copy().items()):
            started = task.state is State.RUNNING
            self._lose_attempt(task, token, why, now, decision, started=started)
        del self.controllers[controller.peer.name]
        former = self._former_lives.setdefault(controller.peer.name, [])
        former.append(controller.peer.life)
        del former[:-FORMER_LIVES]

    # Who gets what next.

    def _place_ready(self, now: float, decision: Decision) -> None:
        if self.draining or not len(self.ready):
            return
        takers = [controller for controller in self.controllers.values() if controller.takes_tasks]
        if not takers:
            return
        workers = max(1, sum(taker.room.capacity.get(WORKER, 0) for taker in takers) // UNIT)
        places: dict[Controller, _PlaceLetter] = {}
        open_to_all = [
            taker
            for taker in takers
            if taker.room.free.get(WORKER, 0) > 0 or taker.ahead.free.get(WORKER, 0) > 0
        ]
        for lane in self.ready.in_turn():
            most = ceil(lane.size / workers)
            placed = self._fill(lane, open_to_all, most, False, now, decision, places)
            placed += self._fill(lane, open_to_all, most, True, now, decision, places)
            self._mind_the_passed_over(lane, takers, placed, now)
        for controller, letter in places.items():
            assert controller.report_at is not None
            message = Place(controller.report_at, letter.policies, letter.assignments)
            decision.say(controller.peer, message, letter.numbers)

    def _fill(
        self,
        lane: Lane,
        controllers: list[Controller],
        most: int,
        ahead: bool,
        now: float,
        decision: Decision,
        places: dict[Controller, _PlaceLetter],
    ) -> int:
        """Deal out bundles, one to each controller a round, the least busy first. Returns how many."""
        fitting = [
            controller
            for controller in controllers
            if (controller.ahead if ahead else controller.room).fits(lane.shape)
            and not self._is_kept_from(lane, controller)
        ]
        fitting.sort(key=lambda controller: -controller.room.free.get(WORKER, 0))
        placed = 0
        while fitting:
            again = []
            for controller in fitting:
                head = lane.head()
                if head is None or (ahead and not self._may_go_ahead(head)):
                    return placed
                self._place_bundle(lane, head, controller, most, ahead, now, decision, places)
                placed += 1
                if (controller.ahead if ahead else controller.room).fits(lane.shape):
                    again.append(controller)
            fitting = again
        return placed

    def _may_go_ahead(self, task: Task) -> bool:
        mean_s = self.pace.mean_s(task.policy.kind)
        return mean_s is not None and mean_s <= AHEAD_S and not task.policy.exclusive and not task.is_suspect

    def _place_bundle(
        self,
        lane: Lane,
        head: Task,
        controller: Controller,
        most: int,
        ahead: bool,
        now: float,
        decision: Decision,
        places: dict[Controller, _PlaceLetter],
    ) -> None:
        """Place the head of the lane and as many of the same kind behind it as make up a bundle."""
        policy = head.policy
        alone = head.is_suspect
        size = 1
        if not (alone or policy.exclusive):
            size = self.pace.bundle_size(policy.kind, BUNDLE_S, min(most, BUNDLE_MOST))
        first = token = self._next_token
        bundle = Bundle(first, controller, lane.shape, 0, now, now, ahead)
        letter = places.get(controller)
        if letter is None:
            letter = places[controller] = _PlaceLetter()
        index = letter.index_of(policy)
        held, assignments = controller.held, letter.assignments
        numbers: list[TaskNumber] = []
        task: Task | None = head
        while task is not None and len(numbers) < size and task.policy is policy:
            if task.history is not None and task.is_suspect is not alone:
                break
            lane.pop()
            self._move(task, Event.PLACED)
            task.token, task.bundle = token, bundle
            held[token] = task
            assignments.append(
                Assignment(token, task.tid, task.job.name, task.attempts_over + 1, index, alone)
            )
            numbers.append(task.number)
            token += 1
            task = lane.head()
        letter.numbers += numbers
        bundle.open = len(numbers)
        self._next_token = token
        controller.take(bundle)
        decision.remember(TasksPlaced(first, controller.peer, tuple(numbers)))

    def _mind_the_passed_over(self, lane: Lane, takers: list[Controller], placed: int, now: float) -> None:
        """A shape that has been waiting for room for long gets a controller kept free of others for it."""
        reserved = self._reservation
        if placed or lane.size == 0:
            lane.passed_over_since = None
            if reserved is not None and reserved[0] is lane:
                self._reservation = None
            return
        if lane.passed_over_since is None:
            lane.passed_over_since = now
        if reserved is not None and reserved[0].size and reserved[1].takes_tasks:
            return
        self._reservation = None
        if now - lane.passed_over_since < PATIENCE_S:
            return
        able = [taker for taker in takers if taker.room.could_fit(lane.shape)]
        if able:
            freest = max(able, key=lambda taker: (_readiness(taker, lane), taker.peer.name))
            self._reservation = (lane, freest)

    def _is_kept_from(self, lane: Lane, controller: Controller) -> bool:
        """Is room there kept for another shape that needs some of the same?"""
        if self._reservation is None:
            return False
        reserved_lane, reserved = self._reservation
        if reserved is not controller or reserved_lane is lane:
            return False
        kept = dict(reserved_lane.shape)
        free = controller.room.free
        return any(free.get(name, 0) - kept.get(name, 0) < units for name, units in lane.shape)

    def _call_back(self, now: float, decision: Decision) -> None:
        """Nothing is ready and somebody is idle: take back what waits, unstarted, behind others."""
        if self.draining or now < self._call_back_at or len(self.ready):
            return
        self._call_back_at = now + CALL_BACK_S
        takers = [controller for controller in self.controllers.values() if controller.takes_tasks]
        idle = sum(max(0, taker.room.free.get(WORKER, 0)) // UNIT for taker in takers)
        if not idle:
            return
        for controller in takers:
            bundles: dict[Bundle, list[Token]] = {}
            for token, task in controller.held.items():
                assert task.bundle is not None
                bundles.setdefault(task.bundle, []).append(token)
            for bundle, tokens in reversed(bundles.items()):
                waits = bundle.ahead or len(tokens) > 1
                if waits and not bundle.called_back and now - bundle.placed_at > 2 * BUNDLE_S and idle > 0:
                    bundle.called_back = True
                    idle -= 1
                    decision.say(controller.peer, Drop(tokens, unless_started=True))

    # Waking up.

    def _wake(self, remembered: Remembered, now: float) -> None:
        for number, name in remembered.jobs.items():
            self.jobs[number] = Job(number, name)
        wanted = {number for placement in remembered.placements for number in placement.numbers}
        wanted.update(attempt.number for attempt in remembered.attempts)
        known: dict[int, Task] = {}
        waiting: list[tuple[Task, tuple[str, ...]]] = []
        new: list[Task] = []
        for live in remembered.live:
            job = self.jobs[live.job]
            policy = self._policies.setdefault(live.policy, live.policy)
            task = job.tasks[live.tid] = Task(live.number, job, live.tid, policy, State.WAITING)
            job.counts[State.WAITING] += 1
            if live.number in wanted:
                known[live.number] = task
            if live.after:
                waiting.append((task, live.after))
            else:
                new.append(task)
            if policy.expires_s is not None:
                self._alarms.set(now + policy.expires_s - live.waited_s, (task, 0))
        for task, after in waiting:
            alive = [task.job.tasks[tid] for tid in dict.fromkeys(after) if tid in task.job.tasks]
            if alive:
                self._graph.add(task, alive)
            else:
                new.append(task)
        new.sort(key=lambda task: task.number)
        over, last_cause = self._wake_histories(remembered, known)
        self._wake_placements(remembered, known, over, new, now)
        for task in new:
            if task.state is not State.WAITING:
                continue  # it is held
            history = task.history
            if history is not None and last_cause[task.number] in (Cause.ERROR, Cause.TIMEOUT):
                # How much of its rest is left is not remembered, so it rests again in full.
                failed = history.billed[Cause.ERROR] + history.billed[Cause.TIMEOUT]
                self._move(task, Event.FREED)
                self._move(task, Event.PLACED)
                self._rest(task, task.policy.retry.rest_s(failed), now)
            else:
                self._free(task)

    @staticmethod
    def _wake_histories(
        remembered: Remembered, known: Mapping[int, Task]
    ) -> tuple[set[Token], dict[int, Cause]]:
        """Count what attempts were billed to. Returns the tokens that are over and each task's last cause."""
        over: set[Token] = set()
        last_cause: dict[int, Cause] = {}
        for attempt in sorted(remembered.attempts, key=lambda attempt: attempt.end.token):
            over.add(attempt.end.token)
            task = known.get(attempt.number)
            if task is not None:
                if task.history is None:
                    task.history = History()
                task.history.attempts += 1
                task.history.billed[attempt.cause] += 1
                task.token = attempt.end.token
                last_cause[attempt.number] = attempt.cause
        return over, last_cause

    def _wake_placements(
        self,
        remembered: Remembered,
        known: Mapping[int, Task],
        over: Collection[Token],
        new: list[Task],
        now: float,
    ) -> None:
        """Give every held attempt back to who held it; their room is known when they report."""
        for placement in remembered.placements:
            tasks = [
                (placement.first + place, known.get(number)) for place, number in enumerate(placement.numbers)
            ]
            held = [
                (token, task)
                for token, task in tasks
                if task is not None and token not in over and token > task.token
            ]
            if not held:
                continue
            controller = self.controllers.get(placement.peer.name)
            if controller is None:
                controller = self.controllers[placement.peer.name] = Controller(placement.peer, now)
            shape = with_worker(held[0][1].policy.resources)
            bundle = Bundle(placement.first, controller, shape, len(held), now, now, ahead=False)
            controller.take(bundle)
            for token, task in held:
                self._move(task, Event.FREED)
                self._move(task, Event.PLACED)
                task.token, task.bundle = token, bundle
                controller.held[token] = task


class _PlaceLetter:
    """A `Place` that is being filled."""

    __slots__ = ("_indexes", "assignments", "numbers", "policies")

    def __init__(self) -> None:
        self.policies: list[Policy] = []
        self.assignments: list[Assignment] = []
        self.numbers: list[TaskNumber] = []  # of the tasks, for their payloads
        self._indexes: dict[int, int] = {}

    def index_of(self, policy: Policy) -> int:
        index = self._indexes.get(id(policy))
        if index is None:
            index = self._indexes[id(policy)] = len(self.policies)
            self.policies.append(policy)
        return index


def _readiness(controller: Controller, lane: Lane) -> float:
    """How much of what the lane's tasks need is free there, from 0 to 1, by the scarcest resource."""
    free = controller.room.free
    return min(min(1.0, max(0, free.get(name, 0)) / units) for name, units in lane.shape)


def _skipped_by(tid: str, state: State) -> str:
    return f"it comes after {tid!r}, which is {state}"


def _given_up(billed_to: Cause, history: History) -> str:
    times = history.billed[billed_to]
    return "" if times == 1 else f"given up after {times} attempts billed to: {billed_to}"
