"""What must be true of a mind after every decision. Checked by the simulator and by property tests."""

from __future__ import annotations

from collections import Counter

from cyclone.core.crew import Crew, WorkerState
from cyclone.core.scheduler import Scheduler
from cyclone.model.lifecycle import ENDED, HELD, State


def check_scheduler(mind: Scheduler) -> None:
    """Raises AssertionError, saying what is wrong."""
    held = {}
    for controller in mind.controllers.values():
        used: Counter[str] = Counter()
        ahead: Counter[str] = Counter()
        bundles = {task.bundle for task in controller.held.values()}
        for token, task in controller.held.items():
            assert token not in held, f"token {token} is held twice"
            held[token] = task
            assert task.token == token, f"{task.tid} is held under a token that is not its newest"
            assert task.state in HELD, f"{task.tid} is held and {task.state}"
            assert not task.policy.exclusive or (task.bundle and task.bundle.size == 1), (
                f"{task.tid} is exclusive and shares its lease"
            )
            assert task.job.tasks.get(task.tid) is task, f"{task.tid} is held and has ended"
        assert bundles == controller.bundles.keys(), f"{controller.peer}: bundles are counted wrongly"
        for bundle in bundles:
            assert bundle is not None
            assert bundle.controller is controller, "a bundle is with another controller"
            count = sum(task.bundle is bundle for task in controller.held.values())
            assert bundle.open == count, f"bundle {bundle.first} counts {bundle.open}, holds {count}"
            assert not bundle.ahead or bundle in controller.waiting, (
                f"bundle {bundle.first} will never move up"
            )
            (ahead if bundle.ahead else used).update(dict(bundle.shape))
        for room, uses in ((controller.room, used), (controller.ahead, ahead)):
            for name, capacity in room.capacity.items():
                taken = capacity - room.free[name]
                assert taken == uses[name], f"{controller.peer}: {name} taken {taken}, used {uses[name]}"
    ready = 0
    for job in mind.jobs.values():
        counts: Counter[State] = Counter(task.state for task in job.tasks.values())
        assert counts == +job.counts, f"job {job.name}: counted {dict(job.counts)}, there are {dict(counts)}"
        for task in job.tasks.values():
            assert task.state not in ENDED, f"{task.tid} has ended and is kept among the live"
            assert (task.state in HELD) == (task.bundle is not None), (
                f"{task.tid}: {task.state} and its bundle"
            )
            assert task.state not in HELD or held.get(task.token) is task, f"{task.tid} is held by nobody"
            assert task.state is not State.WAITING or mind.waits_for(task) > 0, f"{task.tid} waits for nobody"
            ready += task.state is State.READY
    assert ready == len(mind.ready), f"{ready} tasks are ready, {len(mind.ready)} are queued"


def check_crew(mind: Crew) -> None:
    """Raises AssertionError, saying what is wrong."""
    used: Counter[str] = Counter()
    for worker in mind.workers.values():
        busy = worker.state in (WorkerState.BUSY, WorkerState.STOPPING, WorkerState.HUNG) and worker.chunk
        assert bool(worker.chunk) == bool(busy), f"worker {worker.slot} is {worker.state} and has a chunk"
        through = worker.chunk and worker.done >= len(worker.chunk)
        assert not through or worker.state is not WorkerState.BUSY, (
            f"worker {worker.slot} has nothing left to do"
        )
        if worker.shape is not None:
            used.update(dict(worker.shape))
        for held in worker.chunk[worker.done :]:
            assert held.worker is worker, "a worker has what is not its own"
    for name, capacity in mind.room.capacity.items():
        assert capacity - mind.room.free[name] == used[name], f"{name} is counted wrongly"
        assert used[name] <= capacity, f"more {name} is used than there is"
    queued = {held.assignment.token for held in mind.queued()}
    handed = {held.assignment.token for held in mind.held.values() if held.worker is not None}
    assert queued | handed == mind.held.keys(), "an attempt is neither queued nor with a worker"
    assert not queued & handed, "an attempt is queued and with a worker"
    assert not mind.held.keys() & {end.token for end in mind.undelivered}, "an attempt is held and has ended"
