"""Why everything that lives stands where it stands, read from the scheduler and told to people.

Nothing here decides or changes anything, and no question costs more than a bounded look: a master that is
asked about a million tasks must not fall silent over the answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import islice

from cyclone.core.live import WORKER, Controller, Job, Task
from cyclone.core.ready_queue import Lane
from cyclone.core.scheduler import Scheduler
from cyclone.messages import ControllerView, TaskEnd, TaskView
from cyclone.model.lifecycle import HELD, Outcome, State
from cyclone.model.resources import UNIT, Shape
from cyclone.model.task import Cause, End, JobNumber, first_token, signal_name

#: At most so many tasks are looked at for one list, or counted before a ready one: some tens of milliseconds.
LOOKED_AT_MOST = 300_000
COUNTED_MOST = 100_000
#: So many names stand in a sentence; the rest is a number.
NAMED_MOST = 5

_SIZES = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"))


# Lists.


def view_controllers(scheduler: Scheduler, now: float) -> list[ControllerView]:
    """Every controller that the scheduler knows of, by name."""
    some_run = any(job.counts[State.RUNNING] for job in scheduler.jobs.values())
    views = []
    for name, controller in sorted(scheduler.controllers.items()):
        running = 0
        if some_run:
            running = sum(task.state is State.RUNNING for task in controller.held.values())
        room = controller.room
        views.append(
            ControllerView(
                name=name,
                life=controller.peer.life,
                host=controller.host,
                pid=controller.pid,
                state=standing(controller),
                silent_s=now - controller.heard_at,
                room=tuple(sorted(room.capacity.items())),
                free=tuple(sorted((each, room.free.get(each, 0)) for each in room.capacity)),
                placed=len(controller.held) - running,
                running=running,
                workers=room.capacity.get(WORKER, 0) // UNIT,
                workers_busy=controller.workers_busy,
                workers_hung=controller.workers_hung,
                spools=controller.spools,
            )
        )
    return views


def standing(controller: Controller) -> str:
    """`up`, `silent`, `leaving`, `excluded`, or `awaited`: remembered from before a restart, not heard of since."""
    if controller.silent:
        return "silent"
    if controller.leaving or controller.told_to_leave:
        return "leaving"
    if controller.report_at is None:
        return "awaited"
    return "up" if controller.excluded_until is None else "excluded"


def view_jobs(scheduler: Scheduler) -> dict[JobNumber, dict[str, int]]:
    """How many live tasks each open job has: `{job: {state: tasks}}`, without zeros."""
    return {
        number: {state.value: tasks for state, tasks in job.counts.items() if tasks}
        for number, job in scheduler.jobs.items()
    }


def live_tasks(
    scheduler: Scheduler, job: str, states: Collection[State], kind: str, limit: int
) -> tuple[list[TaskView], bool]:
    """Live tasks, of the newest jobs first, in each the oldest first, and whether the list was cut.

    job, kind: "" for any; states: none for any. Cut by the limit, or by `LOOKED_AT_MOST`.
    """
    jobs = [each for _, each in sorted(scheduler.jobs.items(), reverse=True) if job in ("", each.name)]
    wanted = frozenset(states) or frozenset(State)
    left = sum(each.counts[state] for each in jobs for state in wanted)
    found: list[TaskView] = []
    for looked, task in enumerate(_candidates(scheduler, jobs, wanted)):
        if left == 0:
            break
        if looked == LOOKED_AT_MOST:
            return found, True
        if task.state in wanted:
            left -= 1
            if kind in ("", task.policy.kind):
                if len(found) == limit:
                    return found, True
                found.append(view_task(task))
    return found, False


def _candidates(scheduler: Scheduler, jobs: Sequence[Job], wanted: Collection[State]) -> Iterable[Task]:
    """Every task that may be in one of these states."""
    if not HELD.issuperset(wanted):
        return (task for job in jobs for task in job.tasks.values())
    # What is held may be a few among a million that are ready, and anywhere among them.
    chosen = set(map(id, jobs))
    held = [
        task
        for controller in scheduler.controllers.values()
        for task in controller.held.values()
        if id(task.job) in chosen
    ]
    return sorted(held, key=lambda task: (-task.job.number, task.number))


def view_task(task: Task) -> TaskView:
    """A live task in a line; an attempt that is being made counts, how earlier ones ended is not known here."""
    bundle = task.bundle
    return TaskView(
        number=task.number,
        job=task.job.name,
        tid=task.tid,
        kind=task.policy.kind,
        state=task.state,
        attempts=task.attempts_over + (bundle is not None),
        controller="" if bundle is None else bundle.controller.peer.name,
    )


def find_live(scheduler: Scheduler, tid: str, job: str = "") -> Task | None:
    """The live task of this tid: of the newest open job (of this name, "" for any) that has one."""
    for _, each in sorted(scheduler.jobs.items(), reverse=True):
        if job in ("", each.name) and tid in each.tasks:
            return each.tasks[tid]
    return None


# Why a task that lives stands where it stands.


def why(scheduler: Scheduler, task: Task, now: float, after: Sequence[str] = ()) -> str:
    """Say why a live task is in its state, in one to three sentences.

    after: the tids that it comes after, as it was submitted; the scheduler itself only counts them.
    """
    match task.state:
        case State.WAITING:
            return _why_waiting(scheduler, task, after)
        case State.READY:
            return _why_ready(scheduler, task, now)
        case State.RESTING:
            return _why_resting(task, now)
        case _:
            return _why_held(scheduler, task, now)


def _why_waiting(scheduler: Scheduler, task: Task, after: Sequence[str]) -> str:
    alive = [tid for tid in dict.fromkeys(after) if tid in task.job.tasks]
    count = scheduler.waits_for(task)
    named = alive[:NAMED_MOST]
    if not named:
        return f"It waits for {_counted(count, 'task')} to succeed."
    states = ", ".join(f"{tid!r} ({task.job.tasks[tid].state})" for tid in named)
    rest = max(count, len(alive)) - len(named)
    return f"It waits for {states}{f' and {rest} more' if rest else ''} to succeed."


def _why_ready(scheduler: Scheduler, task: Task, now: float) -> str:
    lane = scheduler.ready.lane_of(task)
    assert lane is not None, "a ready task is in a lane"
    return f"{_position(lane, task)} {_obstacle(scheduler, lane, now)}"


def _position(lane: Lane, task: Task) -> str:
    before = 0
    for other in islice(_in_order(lane), COUNTED_MOST):
        if other is task:
            break
        before += other.state is State.READY
    else:
        return f"More than {before} tasks with the same needs stand before it."
    if not before:
        return "It is the next of all tasks with the same needs."
    return f"{_counted(before, 'task')} with the same needs stand{'s' * (before == 1)} before it."


def _in_order(lane: Lane) -> Iterable[Task]:
    """The tasks of a lane in their order, with those among them that have ended and are not swept out yet."""
    levels = lane._levels
    return (task for priority in sorted(levels, reverse=True) for task in levels[priority])


def _obstacle(scheduler: Scheduler, lane: Lane, now: float) -> str:
    """What keeps the head of a lane from being placed."""
    if scheduler.draining:
        return "The master is stopping and places nothing more: it is kept for the next start."
    controllers = list(scheduler.controllers.values())
    takers = [controller for controller in controllers if controller.takes_tasks]
    if not controllers:
        return "No controller is connected."
    if not takers:
        return f"No controller takes tasks: {_standings(controllers)}."
    able = [taker for taker in takers if taker.room.could_fit(lane.shape)]
    if not able:
        others = [each for each in controllers if each not in takers and each.room.could_fit(lane.shape)]
        return _too_big(lane.shape, takers) + (f" Big enough but: {_standings(others)}." if others else "")
    return _no_room(scheduler, lane, able, now)


def _too_big(shape: Shape, takers: Sequence[Controller]) -> str:
    short = []
    for name, units in shape:
        largest = max(taker.room.capacity.get(name, 0) for taker in takers)
        if units > largest:
            has = f"the largest has {amount_text(largest)}" if largest else "none has any"
            short.append(f"it needs {name} {amount_text(units)}, {has}")
    if not short:
        return f"No controller has all at once that it needs: {shape_text(shape)}."
    return f"No controller is big enough: {'; '.join(short)}."


def _no_room(scheduler: Scheduler, lane: Lane, able: Sequence[Controller], now: float) -> str:
    """Why none of the controllers that are big enough takes it now."""
    reservation = scheduler.placement.reservation
    if reservation is not None and reservation[0] is lane:
        return f"It found no room for long, so room is being kept free for it on {reservation[1].peer.name}."
    with_room = [controller for controller in able if controller.room.fits(lane.shape)]
    if any(not scheduler.placement.is_kept_from(lane.shape, controller) for controller in with_room):
        return "There is room for it: it is placed next when its turn comes."
    if with_room and reservation is not None:
        other, keeper = reservation
        return f"Room on {keeper.peer.name} is kept for tasks that need {shape_text(other.shape)}."
    since = lane.passed_over_since
    so_far = "" if since is None else f", for {duration_text(now - since)} so far"
    if len(able) == 1:
        return f"{able[0].peer.name}, the only controller that is big enough for it, is busy{so_far}."
    return f"All {len(able)} controllers that are big enough for it are busy{so_far}."


def _why_resting(task: Task, now: float) -> str:
    history, retry = task.history, task.policy.retry
    assert history is not None, "a task rests after an attempt"
    return (
        f"It rests for another {duration_text(max(0.0, history.rest_until - now))} before its next attempt. "
        f"Attempts so far: {history.attempts}, billed to {_bill(history.billed)}; "
        f"allowed are {_counted(retry.errors, 'retry')} after an error "
        f"and {_counted(retry.timeouts, 'retry')} after a time-out."
    )


def _why_held(scheduler: Scheduler, task: Task, now: float) -> str:
    bundle = task.bundle
    assert bundle is not None, "a task that is placed or running is in a bundle"
    controller = bundle.controller
    placed_ago = duration_text(now - bundle.placed_at)
    if task.token < first_token(scheduler.epoch):
        placed = f"before this master was started {placed_ago} ago"
    else:
        placed = f"{placed_ago} ago"
    if task.state is State.RUNNING:
        sentences = [f"It runs on {controller.peer.name}, where it was placed {placed}."]
    else:
        sentences = [f"It was placed on {controller.peer.name} {placed} and is not known to have started."]
        if bundle.ahead:
            sentences.append("It was sent ahead of free room and waits there for others to end.")
    if controller.report_at is None:
        sentences.append("That controller has not reported to this master yet.")
    elif controller.silent:
        sentences.append(f"That controller has been silent for {duration_text(now - controller.heard_at)}.")
    if controller.silent and task.policy.exclusive:
        left = duration_text(max(0.0, scheduler.roster.lease_end(bundle) - now))
        sentences.append(f"It is exclusive, so others get it only when its lease has run out, in {left}.")
    return " ".join(sentences)


def _standings(controllers: Iterable[Controller]) -> str:
    counts = Counter(standing(controller) for controller in controllers)
    return ", ".join(f"{count} {word}" for word, count in sorted(counts.items()))


def _bill(billed: Counter[Cause]) -> str:
    return ", ".join(f"{cause} ({count})" for cause, count in billed.items() if count)


# How a task ended.


def why_ended(end: TaskEnd) -> str:
    """Say how a task ended, from what is stored of it."""
    sentences = [f"It {_ENDINGS[end.state]}{f': {end.reason}' if end.reason else ''}."]
    last = end.end
    if last is None:
        sentences.append("No attempt was made." if end.attempts == 0 else _made(end.attempts))
    else:
        # An attempt that was lost has no duration: nobody is left who could tell.
        took = f" after {duration_text(last.duration_s)}" if last.started_at else ""
        line = headline(last.error)
        sentences.append(f"Attempt {end.attempts} {outcome_text(last)}{took}{f': {line}' if line else '.'}")
    return " ".join(sentences)


_ENDINGS = {
    State.SUCCEEDED: "succeeded",
    State.FAILED: "failed",
    State.CANCELLED: "was cancelled",
    State.SKIPPED: "was skipped",
    State.QUARANTINED: "was quarantined, because workers or hosts died near it",
}


def _made(attempts: int) -> str:
    return f"{_counted(attempts, 'attempt')} had been made."


def outcome_text(end: End) -> str:
    """The outcome of an attempt as a verb: `raised`, `exited with 3`, `was killed by SIGKILL`."""
    match end.outcome:
        case Outcome.EXITED:
            return f"exited with {end.code}"
        case Outcome.SIGNALLED:
            return f"was killed by {signal_name(end.code)}"
        case Outcome.TIMED_OUT:
            return "timed out"
        case Outcome.EVICTED | Outcome.LOST | Outcome.CANCELLED:
            return f"was {end.outcome}"
        case _:
            return str(end.outcome)


# Words for amounts.


def headline(error: str) -> str:
    """The line of an error that is for people."""
    return error.lstrip().partition("\n")[0].rstrip()


def duration_text(seconds: float) -> str:
    """Two units at most: `12 ms`, `3.2 s`, `5 min 3 s`, `2 h 5 min`, `3 d 4 h`."""
    if seconds < 0.00005:
        return "0 s"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.00995 else f"{seconds * 1000:.1f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole >= 86400:
        return f"{whole // 86400} d {whole % 86400 // 3600} h"
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s"


def amount_text(units: int) -> str:
    """An amount of a resource, given in ten-thousandths: `2`, `0.5`, `64 GiB`."""
    value = units / UNIT
    for size, name in _SIZES:
        if abs(value) >= size:
            return f"{value / size:.4g} {name}"
    return f"{value:.10g}"


def shape_text(shape: Shape) -> str:
    """`cpus 2, memory 64 GiB`; `nothing`."""
    return ", ".join(f"{name} {amount_text(units)}" for name, units in shape) or "nothing"


def _counted(count: int, noun: str) -> str:
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun[:-1]}ies" if noun.endswith("y") else f"{count} {noun}s"
