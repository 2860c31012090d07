"""What may become of a task, and of one attempt at it. This file is the only place that knows.

A *task* has a state. An *attempt* is one numbered execution of it on one controller and ends with an
outcome. Outcome and retry policy decide the next event (`Retry.verdict` in `task.py`); the table below
decides what the event leads to. The diagram in `Documentation/architecture.md` is drawn from the table.
"""

from __future__ import annotations

from enum import StrEnum


class _Word(StrEnum):
    """A word of the lifecycle, cheap to look up: `Enum.__hash__` is written in Python, and this is the hot path."""

    __hash__ = str.__hash__


class State(_Word):
    """Where a task stands."""

    WAITING = "waiting"  # for the tasks it comes after
    READY = "ready"  # may be placed
    PLACED = "placed"  # given to a controller, not known to run yet
    RUNNING = "running"
    RESTING = "resting"  # will be ready again after its delay
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"  # a task it comes after did not succeed
    QUARANTINED = "quarantined"  # it was near too many deaths of workers or hosts


class JobState(_Word):
    """Where a job stands."""

    OPEN = "open"
    SEALED = "sealed"  # no more tasks will come: it ends with the last one
    FAILING = "failing"  # sealed, because whoever made its tasks broke down
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # one of its tasks did not succeed, or it was failing


class Event(_Word):
    """What may happen to a task."""

    FREED = "freed"  # the last task it comes after has succeeded
    PLACED = "placed"
    STARTED = "started"
    RETURNED = "returned"  # its attempt is over, and that was not the task's doing
    RESTED = "rested"  # its attempt failed and the policy allows another after a delay
    WOKEN = "woken"  # the delay is over
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    QUARANTINED = "quarantined"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"  # by somebody, or because it expired before it was started


class Outcome(_Word):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    RAISED = "raised"
    EXITED = "exited"  # with a code other than 0
    SIGNALLED = "signalled"  # killed by a signal
    TIMED_OUT = "timed_out"
    EVICTED = "evicted"  # its controller stopped it for reasons of its own
    LOST = "lost"  # with its controller, or on the way to or from it
    CANCELLED = "cancelled"  # stopped, or taken back before it started, by order of the master


HELD = frozenset({State.PLACED, State.RUNNING})
ENDED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.SKIPPED, State.QUARANTINED})

_ATTEMPT_OVER = {
    Event.RETURNED: State.READY,
    Event.RESTED: State.RESTING,
    Event.SUCCEEDED: State.SUCCEEDED,
    Event.FAILED: State.FAILED,
    Event.QUARANTINED: State.QUARANTINED,
    Event.CANCELLED: State.CANCELLED,
}

#: state -> event -> next state. What is not here cannot happen; ended states have no way out.
LIFECYCLE: dict[State, dict[Event, State]] = {
    State.WAITING: {
        Event.FREED: State.READY,
        Event.SKIPPED: State.SKIPPED,
        Event.CANCELLED: State.CANCELLED,
    },
    State.READY: {Event.PLACED: State.PLACED, Event.CANCELLED: State.CANCELLED},
    State.PLACED: {Event.STARTED: State.RUNNING, **_ATTEMPT_OVER},
    State.RUNNING: {**_ATTEMPT_OVER},
    State.RESTING: {Event.WOKEN: State.READY, Event.CANCELLED: State.CANCELLED},
}
