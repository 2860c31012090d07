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

from cyclone.core.alarms import Alarms
from cyclone.core.decision import Decision
from cyclone.core.graph import find_cycle
from cyclone.core.live import WORKER, Bundle, Controller, History, Job, Task, move
from cyclone.core.placement import CALL_BACK_S, Placement
from cyclone.core.ready_queue import ReadyQueue
from cyclone.core.waking import wake
from cyclone.messages import (
    Accepted,
    Agreed,
    Cancel,
    Close,
    Drop,
    Ended,
    Goodbye,
    Leave,
    Message,
    Open,
    Opened,
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
)
from cyclone.model.lifecycle import ENDED, Event, Outcome, State
from cyclone.model.peer import Peer
from cyclone.model.task import (
    Cause,
    End,
    Token,
    cause,
    job_key,
)

#: The master waits this much longer than the lease before it gives an exclusive attempt to somebody else:
#: clocks may run at rates that differ by 1 %, and the killing takes a moment.
LEASE_MARGIN = 0.1
LEASE_MARGIN_S = 1.0
#: Of a circle of tasks that come after one another, so many are named.
CYCLE_NAMED = 10
#: How soon to look again at a task that expired while it was placed and not known to run.
EXPIRY_S = 1.0
#: Lives of one name that are remembered, so that two controllers that share it by mistake are told.
FORMER_LIVES = 16


class Scheduler:
    """Owns every live task, every job and what is known of the controllers.

    receive, tick: the two doors. The caller remembers the decision's changes before it says its letters. A turn is
    any number of messages and then a tick, which also tells clients what has ended in it.
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
        self.failures = 0  # tasks that ended without success, as far as this life was told of
        self.failed_jobs = 0  # that were closed in this life
        self.placement = Placement(remembered.epoch)
        woken = wake(remembered, now)
        self.jobs = woken.jobs
        self.controllers = woken.controllers

        self._graph = woken.graph
        self._policies = woken.policies
        self._alarms: Alarms[tuple[Task, Token]] = Alarms()
        self._former_lives: dict[str, list[str]] = {}
        self._serials: dict[Peer, int] = {}
        self._results: dict[Job, list[TaskEnd]] = {}
        self._last_number = remembered.last_number
        self._last_job = remembered.last_job
        self._store = remembered.store
        self._look_for_silence_at = now
        self._ticked_at = now
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
        self.placement.ready.extend(woken.ready)
        for task in woken.resting:
            self._rest(task, now)
        for task, moment in woken.expiring:
            self._alarms.set(moment, (task, 0))

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
        return decision

    def tick(self, now: float) -> Decision:
        """Decide what time and free room bring. Called after every batch of messages and when a moment comes."""
        decision = Decision()
        self._excuse_own_absence(now)
        self._lose_the_silent(now, decision)
        self._ring_alarms(now, decision)
        if not self.draining:
            self.placement.place(now, decision)
            self.placement.call_back(self.controllers.values(), now, decision)
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

    @property
    def ready(self) -> ReadyQueue:
        return self.placement.ready

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
        controller.spools = message.spools
        if controller.resize(message.room) or first_report:
            self.placement.resized(self.controllers.values())
        if first_report:
            decision.note(f"controller joined name={sender.name} host={message.host} pid={message.pid}")
        report_s = (
            self.lease_s / 3
        )  # also on a large cluster: leases would have to grow with it, and never shrink
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
                if now >= self.lease_end(bundle):
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
                move(task, Event.STARTED)

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
                durations.setdefault(task.policy.kind, []).append(end.duration_s)
            if end.outcome is Outcome.SUCCEEDED:
                self._release(task, decision)
                self._end(task, Event.SUCCEEDED, decision, end, sender.name)
            else:
                self._attempt_failed(task, end, cause(end, started=end.started_at > 0), now, decision)
        for kind, measured in durations.items():
            self.placement.pace.learn(kind, measured)
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
            job = self.jobs[self._last_job] = Job(
                self._last_job, message.job, job_key(self._store, self._last_job)
            )
            decision.remember(JobOpened(job.number, job.name))
            decision.note(f"job opened job={job.name} number={job.number}")
        elif job.client != sender:
            decision.note(f"job resumed job={job.name} number={job.number} open={len(job.tasks)}")
        if job.client != sender:
            # Ends may have been told to another client since, such as a former life whose last heartbeat came late:
            # a serial that this one does not expect lets it submit its open tasks again.
            self._serials[sender] = self._serials.get(sender, -1) + 1
        job.client = sender
        if not message.number:
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
        if fresh := self._results.get(job):
            # Ended in this very turn, so that the store could not recall it.
            recalled = {**recalled, **{end.tid: end for end in fresh}}
        after = _predecessors(message)
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
            self.placement.ready.extend(new)
        for task in new:
            if task.policy.expires_s is not None:
                self._alarms.set(now + task.policy.expires_s, (task, 0))

    def _problem_with(
        self, message: Submit, job: Job, after: Mapping[str, tuple[str, ...]], recalled: Collection[str]
    ) -> str:
        """Why a submission cannot be taken as a whole; "" if it can."""
        if any(not 0 <= task.policy < len(message.policies) for task in message.tasks):
            return "a task names a policy that the message does not hold"
        if any(name == WORKER for policy in message.policies for name, _ in policy.resources):
            return f"every attempt takes one of the {WORKER!r}; they cannot be asked for"
        if not after:
            return ""
        here = {task.tid for task in message.tasks}
        for tid, predecessors in after.items():
            for predecessor in predecessors:
                if predecessor not in here and predecessor not in job.tasks and predecessor not in recalled:
                    return f"task {tid!r} comes after {predecessor!r}, which this job does not know"
        if cycle := find_cycle(after):
            named = (
                cycle if len(cycle) <= CYCLE_NAMED else [*cycle[:CYCLE_NAMED], f"… ({len(cycle) - 1} tasks)"]
            )
            return f"tasks come after one another in a circle: {' after '.join(named)}"
        return ""

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

    def _attempt_failed(self, task: Task, end: End, billed_to: Cause, now: float, decision: Decision) -> None:
        """An attempt that its controller holds has ended badly. The policy decides what becomes of the task."""
        assert task.bundle is not None
        peer = task.bundle.controller.peer.name
        self._release(task, decision)
        history = task.history
        if history is None:
            history = task.history = History()
        history.billed[billed_to] += 1
        event = task.policy.retry.verdict(billed_to, history.billed[billed_to])
        if event in (Event.FAILED, Event.QUARANTINED):
            self._end(task, event, decision, end, peer, _given_up(billed_to, history))
            return
        history.attempts += 1
        decision.remember(AttemptEnded(task.number, history.attempts, peer, billed_to, end))
        if event is Event.RESTED:
            move(task, event)
            self._rest(task, now)
        else:
            move(task, event)
            self.placement.ready.push(task, returned=True)

    def _rest(self, task: Task, now: float) -> None:
        """Wake it when it has rested as long as its failures ask for."""
        history = task.history
        assert history is not None
        failed = history.billed[Cause.ERROR] + history.billed[Cause.TIMEOUT]
        history.rest_until = now + task.policy.retry.rest_s(failed)
        self._alarms.set(history.rest_until, (task, task.token))

    def _lose_attempt(
        self, task: Task, token: Token, why: str, now: float, decision: Decision, *, started: bool
    ) -> None:
        end = End(token, outcome=Outcome.LOST, error=why)
        self._attempt_failed(task, end, cause(end, started=started), now, decision)

    def _release(self, task: Task, decision: Decision) -> None:
        """Its controller holds it no more."""
        bundle = task.bundle
        assert bundle is not None
        del bundle.controller.held[task.token]
        task.bundle = None
        bundle.open -= 1
        if bundle.open == 0:
            self.placement.over(bundle)
            decision.changes.append(PlacementOver(bundle.first))

    # How tasks end.

    def _end(
        self,
        task: Task,
        event: Event,
        decision: Decision,
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
        move(task, event)
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
            self.placement.ready.forget(task)
        elif task.state is State.WAITING:
            self._graph.forget(task)
        self._end(task, Event.CANCELLED, decision, reason=reason)

    def _free(self, task: Task) -> None:
        move(task, Event.FREED)
        self.placement.ready.push(task)

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
            if job.client is not None and job.number not in self.jobs:
                self._serials.pop(job.client, None)

    def _close_if_done(self, job: Job, decision: Decision) -> None:
        if job.closed and not job.tasks and self.jobs.pop(job.number, None) is not None:
            state = "failed" if job.broken or job.failures else "succeeded"
            self.failed_jobs += state == "failed"
            decision.remember(JobClosed(job.number, state))
            decision.note(f"job closed job={job.name} number={job.number} state={state}")
            if job.client is not None and job not in self._results:
                self._serials.pop(job.client, None)

    # What time does.

    def _excuse_own_absence(self, now: float) -> None:
        """While this daemon was stopped, or stuck on its disk, it could not hear: that was nobody's silence."""
        absent_s, self._ticked_at = now - self._ticked_at, now
        if absent_s > self.lease_s / 5:  # it wakes up twice as often, to look for silence
            for controller in self.controllers.values():
                controller.heard_at = min(now, controller.heard_at + absent_s)

    def _lose_the_silent(self, now: float, decision: Decision) -> None:
        if now < self._look_for_silence_at:
            return
        self._look_for_silence_at = now + self.lease_s / 10
        for controller in list(self.controllers.values()):
            silent_s = now - controller.heard_at
            if silent_s >= self.lease_s:
                if not controller.silent:
                    controller.silent = True
                    decision.note(
                        f"controller silent name={controller.peer.name} seconds={silent_s:.1f}"
                        f" held={len(controller.held)}"
                    )
                self._give_to_others(
                    controller, f"its controller was silent for {silent_s:.1f} s", now, decision
                )
            if silent_s >= 100 * self.lease_s and not controller.held:
                self._forget(controller)

    def _give_to_others(self, controller: Controller, why: str, now: float, decision: Decision) -> None:
        """Take back everything but the exclusive attempts that may still be running there."""
        for token, task in reversed(controller.held.copy().items()):
            assert task.bundle is not None
            if not task.policy.exclusive or now >= self.lease_end(task.bundle):
                started = task.state is State.RUNNING
                self._lose_attempt(task, token, why, now, decision, started=started)

    def lease_end(self, bundle: Bundle) -> float:
        return bundle.renewed_at + self.lease_s * (1 + LEASE_MARGIN) + LEASE_MARGIN_S

    def _ring_alarms(self, now: float, decision: Decision) -> None:
        for task, token in self._alarms.due(now):
            if task.state is State.RESTING and task.token == token:
                move(task, Event.WOKEN)
                self.placement.ready.push(task, returned=True)
            elif token == 0 and not task.has_started:
                if task.state is State.PLACED:
                    self._alarms.set(
                        now + EXPIRY_S, (task, 0)
                    )  # it may come back without having been started
                else:
                    self._cancel(task, "it expired before it was started", decision)

    # Who is there.

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
            # What a former life said may be overtaken by what the next one says, and this master may have been started
            # in between and know the next one from its store alone.
            if not sender.is_later_than(known.peer) and not known.silent:
                decision.say(sender, Refused(f"a later life of {sender.name!r} is here already"))
                return None
            self._retire(known, "its controller was started again", now, decision)
        fresh = self.controllers[sender.name] = Controller(sender, now)
        return fresh

    def _forget(self, controller: Controller) -> None:
        del self.controllers[controller.peer.name]
        self.placement.gone(controller, self.controllers.values())

    def _retire(self, controller: Controller, why: str, now: float, decision: Decision) -> None:
        """This life of a controller is over, and nothing of it runs any more."""
        for token, task in reversed(controller.held.copy().items()):
            started = task.state is State.RUNNING
            self._lose_attempt(task, token, why, now, decision, started=started)
        self._forget(controller)
        former = self._former_lives.setdefault(controller.peer.name, [])
        former.append(controller.peer.life)
        del former[:-FORMER_LIVES]


def _predecessors(message: Submit) -> dict[str, tuple[str, ...]]:
    """What each task that comes after others comes after. Of a tid that stands there twice, the first counts."""
    if not any(task.after for task in message.tasks):
        return {}
    first: dict[str, tuple[str, ...]] = {}
    for task in message.tasks:
        first.setdefault(task.tid, task.after)
    return {tid: after for tid, after in first.items() if after}


def _skipped_by(tid: str, state: State) -> str:
    return f"it comes after {tid!r}, which is {state}"


def _given_up(billed_to: Cause, history: History) -> str:
    times = history.billed[billed_to]
    return "" if times == 1 else f"given up after {times} attempts billed to: {billed_to}"
