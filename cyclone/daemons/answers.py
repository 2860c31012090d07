"""What the master answers to those who only want to know.

What lives is known by the mind, what has ended by the store; a question is answered from both, with a bounded
amount of work, and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from cyclone.core import explain
from cyclone.core.live import TEXT_MOST, Task
from cyclone.core.scheduler import Scheduler
from cyclone.messages import (
    AskCluster,
    AskTask,
    AskTasks,
    AttemptView,
    Cluster,
    JobView,
    Refused,
    Tasks,
    TaskStory,
    TaskView,
)
from cyclone.model.lifecycle import ENDED, Outcome
from cyclone.model.task import End, JobNumber, cause
from cyclone.store.promise import Store, StoredTask

#: What one answer holds at most; whoever wants more asks for less at a time.
JOBS_MOST = 100
TASKS_MOST = 10_000
ATTEMPTS_MOST = 100
#: In a list an error is its first line, and no more than so many characters of it.
ERROR_MOST = 300
#: So far back the store is asked for jobs when an old one is still open.
JOBS_LOOKED_AT = 1000
#: Open jobs that are told of; each costs a look into the store.
OPEN_JOBS_MOST = 1000


@dataclass(frozen=True, slots=True)
class MasterFacts:
    """What only the daemon knows of itself. up_s: seconds since it was started; state: in one word."""

    version: str
    pid: int
    epoch: int
    state: str
    up_s: float
    store: str
    address: str


def answer(
    message: AskCluster | AskTasks | AskTask,
    scheduler: Scheduler,
    store: Store,
    now: float,
    facts: MasterFacts,
) -> Cluster | Tasks | TaskStory | Refused:
    """Answer a question about the state of things.

    Call it when everything that the scheduler has decided is remembered: otherwise a task may have left the one
    and not reached the other.
    Raises StoreError when the store cannot be read.
    """
    match message:
        case AskCluster():
            return _cluster(message, scheduler, store, now, facts)
        case AskTasks():
            return _tasks(message, scheduler, store)
        case AskTask():
            return _story(message, scheduler, store, now)


def _cluster(
    message: AskCluster, scheduler: Scheduler, store: Store, now: float, facts: MasterFacts
) -> Cluster:
    return Cluster(
        request=message.request,
        version=facts.version,
        pid=facts.pid,
        epoch=facts.epoch,
        state=facts.state,
        up_s=facts.up_s,
        store=facts.store,
        address=facts.address,
        controllers=explain.view_controllers(scheduler, now),
        jobs=_jobs(scheduler, store),
    )


def _jobs(scheduler: Scheduler, store: Store) -> list[JobView]:
    """The newest jobs and those that are open, newest first."""
    live = dict(sorted(explain.view_jobs(scheduler).items(), reverse=True)[:OPEN_JOBS_MOST])
    stored = store.jobs(JOBS_MOST)
    if not live.keys() <= {job.number for job in stored}:
        stored = store.jobs(JOBS_LOOKED_AT)
    known = {job.number: job for place, job in enumerate(stored) if place < JOBS_MOST or job.number in live}
    for number in live.keys() - known.keys():
        known[number] = JobView(number, scheduler.jobs[number].name, "open", 0.0, 0.0, {})
    return [
        msgspec.structs.replace(
            job, counts={**job.counts, **live.get(number, {})}, oldest_at=_oldest_at(number, scheduler, store)
        )
        for number, job in sorted(known.items(), reverse=True)
    ]


def _oldest_at(number: JobNumber, scheduler: Scheduler, store: Store) -> float:
    job = scheduler.jobs.get(number)
    # They are in the order in which they were accepted.
    oldest = None if job is None else next(iter(job.tasks), None)
    if job is None or oldest is None:
        return 0.0
    stored = store.task(oldest, job.name)
    return 0.0 if stored is None else stored.accepted_at


def _tasks(message: AskTasks, scheduler: Scheduler, store: Store) -> Tasks:
    """Live tasks first, then ended ones."""
    limit = max(0, min(message.limit, TASKS_MOST))
    states = dict.fromkeys(message.states)  # each may be named very often
    living = [state for state in states if state not in ENDED]
    ended = [state for state in states if state in ENDED]
    found: list[TaskView] = []
    more = False
    if living or not states:
        found, more = explain.live_tasks(scheduler, message.job, living, message.kind, limit)
    if ended or not states:
        listed, rest = store.tasks(message.job, ended, message.kind, limit - len(found))
        found += map(_brief, listed)
        more = more or rest
    return Tasks(message.request, found, more)


def _brief(view: TaskView) -> TaskView:
    if view.end is None or not view.end.error:
        return view
    error = explain.headline(view.end.error)[:ERROR_MOST]
    return msgspec.structs.replace(view, end=msgspec.structs.replace(view.end, error=error))


def _story(message: AskTask, scheduler: Scheduler, store: Store, now: float) -> TaskStory | Refused:
    stored = store.task(message.tid, message.job)
    if stored is None:
        of = f" of job {message.job[:TEXT_MOST]!r}" if message.job else ""
        return Refused(f"no task {message.tid[:TEXT_MOST]!r}{of} is known", message.request)
    if stored.end is not None:
        view = _ended_view(stored)
        reason = explain.why_ended(stored.end)
    else:
        task = explain.find_live(scheduler, message.tid, stored.job)
        if task is None or task.number != stored.number:
            return Refused(f"task {message.tid!r} is ending at this moment: ask again", message.request)
        view = _live_view(task, stored)
        reason = explain.why(scheduler, task, now, stored.after)
    return TaskStory(
        request=message.request,
        task=view,
        policy=stored.policy,
        after=list(stored.after),
        why=reason,
        attempts=_attempts(stored),
    )


def _live_view(task: Task, stored: StoredTask) -> TaskView:
    last = stored.attempts[-1].end if stored.attempts else None
    return msgspec.structs.replace(explain.view_task(task), end=last)


def _ended_view(stored: StoredTask) -> TaskView:
    how = stored.end
    assert how is not None
    return TaskView(
        number=stored.number,
        job=stored.job,
        tid=stored.tid,
        kind=stored.policy.kind,
        state=how.state,
        attempts=how.attempts,
        controller=stored.peer,
        end=how.end,
        reason=how.reason,
    )


def _attempts(stored: StoredTask) -> list[AttemptView]:
    """The newest attempts, oldest first; the one that ended the task is the last."""
    attempts = [
        AttemptView(ended.attempt, ended.peer, ended.cause.value, ended.end)
        for ended in stored.attempts[-ATTEMPTS_MOST:]
    ]
    if stored.end is not None and stored.end.end is not None:
        last = stored.end.end
        attempts.append(AttemptView(stored.end.attempts, stored.peer, _billed_to(last), last))
    return attempts[-ATTEMPTS_MOST:]


def _billed_to(last: End) -> str:
    # What is billed to nobody does not end a task, so this attempt is known to have been started.
    return "" if last.outcome is Outcome.SUCCEEDED else cause(last, started=True).value
