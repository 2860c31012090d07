"""From what the store remembers back to what the scheduler knew.

Only facts are stored; where each live task stands follows from them, so states are set here and not moved.
Attempts that were given out and are not over are still held by whoever got them: their controllers may come
back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cyclone.core.graph import Graph
from cyclone.core.live import Bundle, Controller, History, Job, Task, with_worker
from cyclone.model.changes import Remembered, TasksPlaced
from cyclone.model.lifecycle import JobState, State
from cyclone.model.task import Cause, JobNumber, Policy, TaskNumber, Token, job_key


@dataclass(slots=True)
class Woken:
    """What a scheduler starts with.

    ready: by age. resting: those that did, and begin their rest anew. expiring: `(task, moment)` for each task
    that may expire.
    """

    jobs: dict[JobNumber, Job] = field(default_factory=dict)
    controllers: dict[str, Controller] = field(default_factory=dict)
    policies: dict[Policy, Policy] = field(default_factory=dict)
    graph: Graph = field(default_factory=Graph)
    ready: list[Task] = field(default_factory=list)
    resting: list[Task] = field(default_factory=list)
    expiring: list[tuple[Task, float]] = field(default_factory=list)


def wake(remembered: Remembered, now: float) -> Woken:
    """now: monotonic seconds; leases of what is held begin here."""
    woken = Woken()
    for number, name in remembered.jobs.items():
        woken.jobs[number] = Job(
            number,
            name,
            job_key(remembered.store, number),
            state=remembered.sealed.get(number, JobState.OPEN),
            marred=number in remembered.marred,
            remember_s=remembered.remember_s.get(number),
        )
    free, known = _live_tasks(remembered, woken, now)
    last_causes = _histories(remembered, known)
    for placement in remembered.placements:
        _hold_again(placement, known, woken, now)
    for task in free:
        if task.bundle is not None:
            continue
        # How much of a rest is left is not remembered, so it is taken again in full.
        if last_causes.get(task.number) in (Cause.ERROR, Cause.TIMEOUT):
            task.state = State.RESTING
            woken.resting.append(task)
        else:
            task.state = State.READY
            woken.ready.append(task)
    for job in woken.jobs.values():
        job.counts.update(task.state for task in job.tasks.values())
    return woken


def _live_tasks(
    remembered: Remembered, woken: Woken, now: float
) -> tuple[list[Task], dict[TaskNumber, Task]]:
    """All live tasks: those that wait for nobody, by age; and by number, those that were ever placed."""
    placed = {number for placement in remembered.placements for number in placement.numbers}
    placed.update(attempt.number for attempt in remembered.attempts)
    free: list[Task] = []
    known: dict[TaskNumber, Task] = {}
    waiting: list[tuple[Task, tuple[str, ...]]] = []
    for live in remembered.live:
        job = woken.jobs[live.job]
        policy = woken.policies.setdefault(live.policy, live.policy)
        task = job.tasks[live.tid] = Task(live.number, job, live.tid, policy, State.WAITING)
        if live.number in placed:
            known[live.number] = task
        if live.after:
            waiting.append((task, live.after))
        else:
            free.append(task)
        if policy.expires_s is not None:
            woken.expiring.append((task, now + policy.expires_s - live.waited_s))
    for task, after in waiting:
        # Those that ended did so successfully, or this one would have been skipped in the same transaction.
        alive = [task.job.tasks[tid] for tid in dict.fromkeys(after) if tid in task.job.tasks]
        if alive:
            woken.graph.add(task, alive)
        else:
            free.append(task)
    free.sort(key=lambda task: task.number)
    return free, known


def _histories(remembered: Remembered, known: Mapping[TaskNumber, Task]) -> dict[TaskNumber, Cause]:
    """Count what attempts were billed to; what the last one of each task was billed to."""
    last: dict[TaskNumber, Cause] = {}
    for attempt in sorted(remembered.attempts, key=lambda attempt: attempt.end.token):
        task = known.get(attempt.number)
        if task is not None:
            if task.history is None:
                task.history = History()
            task.history.attempts += 1
            task.history.billed[attempt.cause] += 1
            task.token = attempt.end.token
            last[attempt.number] = attempt.cause
    return last


def _hold_again(placement: TasksPlaced, known: Mapping[TaskNumber, Task], woken: Woken, now: float) -> None:
    """Give what is not over of a placement back to who held it; its room is known when it reports."""
    held: list[tuple[Token, Task]] = []
    for token, number in enumerate(placement.numbers, placement.first):
        task = known.get(number)
        # A task has one attempt at a time: if one with this or a larger token has ended, this is not the one.
        if task is not None and task.token < token:
            held.append((token, task))
    if not held:
        return
    controller = woken.controllers.get(placement.peer.name)
    if controller is None:
        controller = woken.controllers[placement.peer.name] = Controller(placement.peer, now)
    shape = with_worker(held[0][1].policy.resources)
    size = len(placement.numbers)
    bundle = Bundle(placement.first, controller, shape, size, len(held), now, now, ahead=False)
    controller.take(bundle)
    for token, task in held:
        task.state = State.PLACED
        task.token, task.bundle = token, bundle
        controller.held[token] = task
