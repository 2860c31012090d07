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

Who is there, and whose an attempt is, says the roster (`roster.py`); who gets what next, the placement
(`placement.py`). What becomes of tasks and jobs is decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from cyclone.core.alarms import Alarms
from cyclone.core.decision import Decision
from cyclone.core.exclusion import Exclusion
from cyclone.core.graph import predecessors, problem_with
from cyclone.core.live import TEXT_MOST, WORKER, Controller, History, Job, Task, move
from cyclone.core.placement import CALL_BACK_S, Placement
from cyclone.core.ready_queue import ReadyQueue
from cyclone.core.roster import Roster
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
    SpoolView,
    Started,
    Submit,
    TaskEnd,
)
from cyclone.model.changes import (
    AttemptEnded,
    JobClosed,
    JobOpened,
    JobRemembers,
    JobSealed,
    PlacementOver,
    Remembered,
    TaskAccepted,
    TaskEnded,
)
from cyclone.model.lifecycle import Event, JobState, Outcome, State
from cyclone.model.peer import Peer
from cyclone.model.resources import UNIT
from cyclone.model.task import (
    Cause,
    End,
    Token,
    cause,
    job_key,
)

#: How soon to look again at a task that expired while it was placed and not known to run.
EXPIRY_S = 1.0
#: When a controller is lost, so many of the oldest attempts that it held are suspect: it begins the oldest first, and
#: each suspect makes a journey of its own. One that this misses has come back often before long, see `Task.is_suspect`.
SUSPECTS_MOST = 1000
#: Clients are heard of every two seconds. One that is silent for so long does not keep others from its job.
CLIENT_SILENT_S = 6.0
#: What a report may tell of its controller: so many workers and sinks at most.
WORKERS_MOST = 10_000
SPOOLS_MOST = 100
#: An open job is kept, and told of, for ever if nobody closes it.
JOBS_MOST = 10_000
#: Policies at hand, so that tasks that are to be treated alike share theirs. Beyond them it begins anew.
POLICIES_KEPT = 10_000


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
        window: how many tasks of a job may be handed in and not ended at any time.
        """
        self.window = window
        self.epoch = remembered.epoch
        self.failed_jobs = 0  # that were closed in this life
        self.placement = Placement(remembered.epoch)
        woken = wake(remembered, now)
        self.jobs = woken.jobs
        self._named = {job.name: job for job in self.jobs.values()}
        self.roster = Roster(woken.controllers, now, lease_s)
        self.exclusion = Exclusion()

        self._graph = woken.graph
        self._policies = woken.policies
        # The token of the attempt after which a task rests, or 0 if it may expire.
        self._alarms: Alarms[tuple[Task, Token]] = Alarms(_is_moot)
        # What ended in this turn. If the last end of a sealed job was remembered, but not that the job is closed, there
        # is nothing to tell and the job to be closed.
        self._results: dict[Job, list[TaskEnd]] = {job: [] for job in self.jobs.values() if _is_over(job)}
        self._sizes_changed = False  # controllers have come, gone, or are of another size since the last tick
        self._last_number = remembered.last_number
        self._last_job = remembered.last_job
        self._store = remembered.store
        self._farewell: Leave | None = None  # once the master is stopping: what everybody is told
        self._on: dict[type[Message], Callable[[Peer, Any, float, Decision], None]] = {
            Report: self._on_report,
            Started: self._on_started,
            Ended: self._on_ended,
            Goodbye: self._on_goodbye,
            Open: self._on_open,
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
        self,
        sender: Peer,
        message: Message,
        now: float,
        recalled: Mapping[str, TaskEnd] | None = None,
        *,
        full: str = "",
    ) -> Decision:
        """Decide about one message.

        recalled: for a `Submit`, those among its tids and their predecessors that ended earlier in this job.
        full: why no new tasks can be taken for now; "" if they can.
        """
        decision = Decision()
        self.roster.excuse_own_absence(now)
        self.roster.hear(sender, now)
        if isinstance(message, Submit):
            self._on_submit(sender, message, now, decision, recalled or {}, full)
        else:
            self._on[type(message)](sender, message, now, decision)
        return decision

    def tick(self, now: float) -> Decision:
        """Decide what time and free room bring. Called after every batch of messages and when a moment comes."""
        decision = Decision()
        self.roster.excuse_own_absence(now)
        self._lose_the_silent(now, decision)
        self._ring_alarms(now, decision)
        for controller in self.exclusion.review(self.controllers.values(), now):
            self._exclusion_changed(controller, now, decision)
        if self._sizes_changed:
            self._sizes_changed = False
            self.placement.resized(self.controllers.values())
        if not self.draining:
            self.placement.place(now, decision)
            self.placement.call_back(self.controllers.values(), now, decision)
        self._tell_results(decision)
        return decision

    def next_moment(self, now: float) -> float:
        """When `tick` is to be called at the latest, monotonic seconds."""
        moments = [self.roster.next_moment, self.exclusion.next_moment]
        if self._alarms.next_moment is not None:
            moments.append(self._alarms.next_moment)
        if any(controller.held for controller in self.controllers.values()):
            moments.append(now + CALL_BACK_S)
        return min(moments)

    def stop(self, reason: str, *, at_once: bool = False) -> Decision:
        """Place nothing more and send the controllers home; at_once: they stop what runs."""
        decision = Decision()
        at_once = at_once or (self._farewell is not None and self._farewell.now)
        self._farewell = Leave(reason, now=at_once)
        for controller in self.controllers.values():
            controller.told_to_leave = True
            decision.say(controller.peer, self._farewell)
        for client in {job.client for job in self.jobs.values() if job.client is not None}:
            decision.say(client, self._farewell)
        return decision

    @property
    def draining(self) -> bool:
        """Nothing more is placed: the master is stopping."""
        return self._farewell is not None

    @property
    def controllers(self) -> dict[str, Controller]:
        """Those who are known, by name."""
        return self.roster.controllers

    @property
    def is_deserted(self) -> bool:
        """No controller is left that could still have something to say."""
        return self.roster.is_deserted

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
        workers = dict(message.room).get(WORKER, 0) // UNIT
        if workers > WORKERS_MOST:
            # It would be given everything that is ready.
            reason = f"found {workers} workers in a report, expected {WORKERS_MOST} at most"
            decision.say(sender, Refused(reason))
            return
        controller, replaced, refusal = self.roster.admit(sender, now)
        if refusal is not None:
            decision.say(sender, refusal)
        if replaced is not None:
            self._lose(replaced, "its controller was started again", now, decision, suspects=SUSPECTS_MOST)
        if controller is None:
            return
        first_report = controller.report_at is None
        controller.report_at = message.at
        controller.leaving = message.leaving
        controller.host, controller.pid = message.host[:TEXT_MOST], message.pid
        controller.workers_busy, controller.workers_hung = message.workers_busy, message.workers_hung
        controller.spools = [_shortened(spool) for spool in message.spools[:SPOOLS_MOST]]
        if controller.resize(message.room) or first_report:
            self._sizes_changed = True
        if first_report:
            decision.note(f"controller joined name={sender.name} host={controller.host} pid={message.pid}")
        lease_s = self.roster.lease_s
        report_s = lease_s / 3  # also on a large cluster: leases would have to grow with it, and never shrink
        listed = set(message.held)
        renewed = self._compare(controller, listed, now, report_s, decision)
        _started(controller, message.started)
        if unwanted := sorted(listed - controller.held.keys()):
            decision.say(sender, Drop(unwanted))
        decision.say(sender, Agreed(message.at, renewed, report_s, lease_s))
        if self._farewell is not None:
            controller.told_to_leave = True
            decision.say(sender, self._farewell)

    def _compare(
        self, controller: Controller, listed: set[Token], now: float, report_s: float, decision: Decision
    ) -> list[Token]:
        """Renew the leases that are listed; give up what should be listed and is not. Returns the renewed."""
        renewed: list[Token] = []
        missing: list[Task] = []
        for token, task in controller.held.items():
            bundle = task.bundle
            assert bundle is not None
            if token in listed:
                if task.policy.exclusive:
                    bundle.renewed_at = now
                    renewed.append(token)
            elif task.policy.exclusive:
                if now >= self.roster.lease_end(bundle):
                    missing.append(task)
            # A letter may be on its way for a while, and the report may have crossed it.
            elif now - bundle.placed_at > max(report_s, 1.0):
                missing.append(task)
        self._give_to_others(missing, "it did not reach its controller", now, decision, suspects=0)
        return renewed

    def _on_started(self, sender: Peer, message: Started, now: float, decision: Decision) -> None:
        controller = self.controllers.get(sender.name)
        if controller is not None:
            _started(controller, message.tokens)

    def _on_ended(self, sender: Peer, message: Ended, now: float, decision: Decision) -> None:
        # The name alone decides, not the life: a controller that was stopped and started again
        # delivers the ends that its former life could not.
        controller = self.controllers.get(sender.name)
        held = controller.held if controller is not None else {}
        durations: dict[str, list[float]] = {}
        some_succeeded = False
        for end in message.ends:
            task = held.get(end.token)
            if task is None:
                continue  # stale: it was recorded, or the task was given to somebody else since
            if end.started_at:
                durations.setdefault(task.policy.kind, []).append(end.duration_s)
            if end.outcome is Outcome.SUCCEEDED:
                self._release(task, decision)
                self._end(task, Event.SUCCEEDED, decision, end, sender.name)
                some_succeeded = True
            else:
                self._attempt_failed(task, end, cause(end, started=end.started_at > 0), now, decision)
        for kind, measured in durations.items():
            self.placement.pace.learn(kind, measured)
        if some_succeeded and controller is not None:
            self.exclusion.succeeded(controller)
        decision.say(sender, Drop([end.token for end in message.ends]))

    def _on_goodbye(self, sender: Peer, message: Goodbye, now: float, decision: Decision) -> None:
        controller = self.controllers.get(sender.name)
        if controller is not None and controller.peer == sender:
            self.roster.retire(controller)
            # It holds nothing any more: what it still has here was placed when it had gone.
            reason = message.reason[:TEXT_MOST]
            self._lose(controller, f"it left ({reason})", now, decision, suspects=0)
            decision.note(f"controller left name={sender.name} reason={reason}")

    # What clients say.

    def _on_open(self, sender: Peer, message: Open, now: float, decision: Decision) -> None:
        if message.number:
            job = self.jobs.get(message.number)
            if job is None:
                decision.say(sender, Refused(f"job {message.number} is not open"))
                return
        else:
            job = self._named.get(message.job)
        if job is not None and (why := self._why_not(sender, job, now)):
            decision.say(sender, Refused(why))
            return
        if job is None and len(self.jobs) >= JOBS_MOST:
            decision.say(sender, Refused(f"{JOBS_MOST} jobs are open already; some have to be closed first"))
            return
        if job is None:
            self._last_job += 1
            job = Job(self._last_job, message.job, job_key(self._store, self._last_job))
            self.jobs[job.number] = self._named[job.name] = job
            decision.remember(JobOpened(job.number, job.name))
            decision.note(f"job opened job={job.name} number={job.number}")
        elif job.client != sender:
            silent_s = self.roster.attended(now) - job.heard_at
            if message.number and job.client is not None and silent_s < CLIENT_SILENT_S:
                # The last heartbeat of a former life comes late: a new one says first that it wants the job.
                return
            decision.note(f"job resumed job={job.name} number={job.number} open={len(job.tasks)}")
            # Ends may have been told to another client since, such as a former life whose last heartbeat came late:
            # a serial that this one does not expect lets it submit its open tasks again.
            job.serial += 1
        job.client, job.heard_at = sender, self.roster.attended(now)
        if not message.number:
            self._seal(job, JobState.OPEN, decision)
            if job.remember_s != message.remember_s:
                job.remember_s = message.remember_s
                decision.remember(JobRemembers(job.number, job.remember_s))
        decision.say(sender, Opened(job.name, job.number, self.epoch, job.serial, self.window))

    def _why_not(self, sender: Peer, job: Job, now: float) -> str:
        """Why it may not work on the job: another key does, and was heard within a lease; "" if it may."""
        client = job.client
        if client is None or client.key == sender.key:
            return ""
        if self.roster.attended(now) - job.heard_at >= self.roster.lease_s:
            return ""
        return f"{client.name} works on the job {job.name!r}"

    def _on_submit(
        self,
        sender: Peer,
        message: Submit,
        now: float,
        decision: Decision,
        recalled: Mapping[str, TaskEnd],
        full: str,
    ) -> None:
        job = self.jobs.get(message.job)
        if job is None or job.state is not JobState.OPEN:
            decision.say(sender, Refused(f"job {message.job} is not open", message.request))
            return
        if why := self._why_not(sender, job, now):
            decision.say(sender, Refused(why, message.request))
            return
        if fresh := self._results.get(job):
            # Ended in this very turn, so that the store could not recall it.
            recalled = {**recalled, **{end.tid: end for end in fresh}}
        after = predecessors(message.tasks)
        here = {task.tid for task in message.tasks} if after else ()
        if problem := _problem_with(message) or problem_with(after, here, job.tasks, recalled):
            decision.say(sender, Refused(problem, message.request))
            return
        if why := self._why_not_now(job, message, recalled, full):
            decision.say(sender, Refused(why, message.request, later=True))
            return
        if len(self._policies) >= POLICIES_KEPT:
            self._policies.clear()
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
            decision.remember(TaskAccepted(number, job.number, tid, policy, submission.after))
        self._last_number = number
        job.counts[state] += len(new)
        decision.say(sender, Accepted([message.request]))
        if told_again := [recalled[task.tid] for task in message.tasks if task.tid in recalled]:
            self._results.setdefault(job, []).extend(told_again)
        if after:
            self._settle(new, after, recalled, decision)
        else:
            self.placement.ready.extend(new)
        for task in new:
            if task.policy.expires_s is not None:
                self._alarms.set(now + task.policy.expires_s, (task, 0))

    def _why_not_now(self, job: Job, message: Submit, recalled: Mapping[str, TaskEnd], full: str) -> str:
        """Why these cannot be taken before others have ended; "" if they can."""
        open_tasks = len(job.tasks)
        if not full and open_tasks + len(message.tasks) <= self.window:
            return ""
        # What is handed in again takes no place, also if the window was wider once.
        new = sum(task.tid not in job.tasks and task.tid not in recalled for task in message.tasks)
        if full and new:
            return full
        if not new or open_tasks + new <= self.window:
            return ""
        return f"{open_tasks} tasks of the job {job.name!r} have not ended, and its window is {self.window}"

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
        # Only now does the graph know all that come after these, and must be skipped with them.
        for task, name in skipped:
            self._end(task, Event.SKIPPED, decision, reason=_skipped_by(name, recalled[name].state))

    def _on_close(self, sender: Peer, message: Close, now: float, decision: Decision) -> None:
        job = self.jobs.get(message.job)
        if job is not None and job.client not in (None, sender):
            # A letter of a former life that comes late. Without an answer, whoever does work on it says this again.
            return
        if job is not None:
            failing = message.failed or job.state is JobState.FAILING
            self._seal(job, JobState.FAILING if failing else JobState.SEALED, decision)
            self._close_if_over(job, decision)
        decision.say(sender, Accepted([message.request]))

    def _on_cancel(self, sender: Peer, message: Cancel, now: float, decision: Decision) -> None:
        job = self.jobs.get(message.job)
        if job is None:
            decision.say(sender, Refused(f"job {message.job} is not open", message.request))
            return
        if why := self._why_not(sender, job, now):
            decision.say(sender, Refused(why, message.request))
            return
        for tid in message.tids:
            task = job.tasks.get(tid)
            if task is not None:
                self._cancel(task, "cancelled by a client", decision)
        decision.say(sender, Accepted([message.request]))

    # How attempts end.

    def _attempt_failed(self, task: Task, end: End, billed_to: Cause, now: float, decision: Decision) -> None:
        """An attempt that its controller holds has ended badly. The policy decides what becomes of the task."""
        assert task.bundle is not None
        controller = task.bundle.controller
        peer = controller.peer.name
        if billed_to is Cause.CRASH:
            self.exclusion.crashed(controller, task.number, now)
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
        move(task, event)
        if event is Event.RESTED:
            self._rest(task, now)
        else:
            self.placement.ready.push(task, returned=True)

    def _rest(self, task: Task, now: float) -> None:
        """Wake it when it has rested as long as its failures ask for."""
        history = task.history
        assert history is not None
        failed = history.billed[Cause.ERROR] + history.billed[Cause.TIMEOUT]
        history.rest_until = now + task.policy.retry.rest_s(failed, task.token)
        self._alarms.set(history.rest_until, (task, task.token))

    def _lose(
        self, controller: Controller, why: str, now: float, decision: Decision, *, suspects: int
    ) -> None:
        """This life of a controller is over, and nothing of it runs any more."""
        self._give_to_others([*controller.held.values()], why, now, decision, suspects=suspects)
        self._forget(controller)

    def _give_to_others(
        self, tasks: Sequence[Task], why: str, now: float, decision: Decision, *, suspects: int
    ) -> None:
        """A controller has lost these attempts (oldest first), or is lost with them.

        suspects: of those that were not heard to run so many of the oldest may have been running nevertheless.
        """
        # Each goes back to the front of its lane, so the oldest goes last.
        for place, task in reversed([*enumerate(tasks)]):
            if task.state is State.RUNNING or (suspects and task.is_suspect):
                # A suspect was given out alone, to a worker that had nothing else to do. One that takes its host down
                # at once is never heard to run, and would go from host to host for ever.
                billed_to = Cause.LOSS
            else:
                billed_to = Cause.UNKNOWN if place < suspects else Cause.NOBODY
            self._attempt_failed(
                task, End(task.token, outcome=Outcome.LOST, error=why), billed_to, now, decision
            )

    def _release(self, task: Task, decision: Decision) -> None:
        """Its controller holds it no more."""
        bundle = task.bundle
        assert bundle is not None
        del bundle.controller.held[task.token]
        task.bundle = None
        bundle.open -= 1
        if bundle.open == 0:
            self.placement.over(bundle)
            decision.remember(PlacementOver(bundle.first))

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
        decision.remember(TaskEnded(task.number, job.number, peer, task_end))
        del job.tasks[task.tid]
        if event is not Event.SUCCEEDED:
            job.marred = True
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

    def _tell_results(self, decision: Decision) -> None:
        if not self._results:
            return
        told, self._results = self._results, {}
        for job, ends in told.items():
            if job.client is not None and ends:
                job.serial += 1
                tokens = [end.end.token if end.state is State.SUCCEEDED and end.end else 0 for end in ends]
                decision.say(job.client, Results(job.number, job.serial, ends), tokens)
            self._close_if_over(job, decision)

    # Whether more will come.

    def _seal(self, job: Job, state: JobState, decision: Decision) -> None:
        if job.state is not state:
            job.state = state
            decision.remember(JobSealed(job.number, state))

    def _close_if_over(self, job: Job, decision: Decision) -> None:
        if _is_over(job) and self.jobs.pop(job.number, None) is not None:
            self._named.pop(job.name, None)
            failed = job.marred or job.state is JobState.FAILING
            job.state = JobState.FAILED if failed else JobState.SUCCEEDED
            self.failed_jobs += failed
            decision.remember(JobClosed(job.number, job.state))
            decision.note(f"job closed job={job.name} number={job.number} state={job.state}")

    # What time does.

    def _lose_the_silent(self, now: float, decision: Decision) -> None:
        for controller, silent_s, is_news, is_final in self.roster.silent(now):
            if is_news:
                decision.note(
                    f"controller silent name={controller.peer.name} seconds={silent_s:.1f}"
                    f" held={len(controller.held)}"
                )
            why = f"its controller was silent for {silent_s:.1f} s"
            lost = [task for task in controller.held.values() if self.roster.may_be_given_away(task, now)]
            self._give_to_others(lost, why, now, decision, suspects=SUSPECTS_MOST)
            if is_final and not controller.held:
                self.roster.forget(controller)
                self._forget(controller)

    def _forget(self, controller: Controller) -> None:
        self.placement.gone(controller)
        self.exclusion.gone(controller)
        self._sizes_changed = True

    def _exclusion_changed(self, controller: Controller, now: float, decision: Decision) -> None:
        """It gets nothing for a while, or gets something again."""
        self._sizes_changed = True
        until = controller.excluded_until
        if until is None:
            decision.note(f"controller gets tasks again name={controller.peer.name}")
            return
        decision.note(
            f"controller excluded name={controller.peer.name} host={controller.host} seconds={until - now:.0f}:"
            " workers die there whatever they execute"
        )
        self.placement.call_back_all(controller, now, decision)

    def _ring_alarms(self, now: float, decision: Decision) -> None:
        for task, rested_after in self._alarms.due(now):
            if rested_after:
                move(task, Event.WOKEN)
                self.placement.ready.push(task, returned=True)
            elif task.state is State.PLACED:
                # It may come back without having been started.
                self._alarms.set(now + EXPIRY_S, (task, 0))
            else:
                self._cancel(task, "it expired before it was started", decision)


def _problem_with(message: Submit) -> str:
    """Why a submission cannot be taken as a whole, whoever comes after whom; "" if it can."""
    if any(not 0 <= task.policy < len(message.policies) for task in message.tasks):
        return "a task names a policy that the message does not hold"
    for policy in message.policies:
        names = [name for name, _ in policy.resources]
        if WORKER in names:
            return f"every attempt takes one of the {WORKER!r}; they cannot be asked for"
        # Room is counted by name: of what stands there twice it would be looked for once and taken twice.
        if names != sorted(set(names)):
            return f"found the resources {', '.join(names)}, expected each once and sorted by name"
    return ""


def _is_moot(alarm: tuple[Task, Token]) -> bool:
    """The task does not rest any more after this attempt; or it cannot expire any more."""
    task, rested_after = alarm
    if rested_after:
        return task.state is not State.RESTING or task.token != rested_after
    return task.has_started


def _is_over(job: Job) -> bool:
    """All its tasks have ended, and no more will come."""
    return not job.tasks and job.state is not JobState.OPEN


def _started(controller: Controller, tokens: Iterable[Token]) -> None:
    """The controller has said that these run. What it does not hold any more is over, and was said before that."""
    for token in tokens:
        task = controller.held.get(token)
        if task is not None and task.state is State.PLACED:
            move(task, Event.STARTED)


def _shortened(view: SpoolView) -> SpoolView:
    """Without what a sink has too much to say."""
    if max(len(view.sink), len(view.trouble), len(view.sink_trouble)) <= TEXT_MOST:
        return view
    return msgspec.structs.replace(
        view,
        sink=view.sink[:TEXT_MOST],
        trouble=view.trouble[:TEXT_MOST],
        sink_trouble=view.sink_trouble[:TEXT_MOST],
    )


def _skipped_by(tid: str, state: State) -> str:
    return f"it comes after {tid!r}, which is {state}"


def _given_up(billed_to: Cause, history: History) -> str:
    times = history.billed[billed_to]
    return "" if times == 1 else f"given up after {times} attempts billed to: {billed_to}"
