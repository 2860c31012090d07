"""A small store on disk with a little of everything in it, which is sound, for those who damage it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from cyclone.messages import TaskEnd
from cyclone.model.changes import (
    AttemptEnded,
    JobClosed,
    JobOpened,
    JobSealed,
    PlacementOver,
    TaskAccepted,
    TaskEnded,
    TasksPlaced,
)
from cyclone.model.lifecycle import JobState, Outcome, State
from cyclone.model.peer import Peer
from cyclone.model.task import Cause, End, Policy, first_token
from cyclone.store.sqlite import SqliteStore

NODE = Peer("node", "a1")


def make(path: Path) -> int:
    """Two jobs. Returns the first token.

    `day` (1) is closed: `a` (1) succeeded at its third attempt, `b` (2) failed, `c` (3) was cancelled before any.
    `night` (2) is open: `d` (4) succeeded, `e` (5) is placed, `f` (6) failed once and rests, `g` (7) was never placed,
    `h` (8) was cancelled while it was placed.
    """
    with closing(SqliteStore(path, "normal")) as store:
        woken = store.wake()
        list(woken.live)
        token = first_token(woken.epoch)

        def accept(job: int, numbers: dict[int, str]) -> None:
            tasks = [TaskAccepted(number, job, tid, Policy("k"), ()) for number, tid in numbers.items()]
            store.remember(tasks, {(job, tid): b"p" for tid in numbers.values()}, {})

        def failed(number: int, attempt: int, at: int) -> AttemptEnded:
            return AttemptEnded(number, attempt, "node", Cause.ERROR, End(token + at, outcome=Outcome.RAISED))

        store.remember([JobOpened(1, "day")], {}, {})
        accept(1, {1: "a", 2: "b", 3: "c"})
        store.remember([TasksPlaced(token, NODE, (1, 2))], {}, {})
        bad = End(token + 1, outcome=Outcome.RAISED)
        store.remember(
            [
                failed(1, 1, 0),
                TaskEnded(2, 1, "node", TaskEnd("b", State.FAILED, 1, bad)),
                TaskEnded(3, 1, "", TaskEnd("c", State.CANCELLED, 0)),
                PlacementOver(token),
                TasksPlaced(token + 2, NODE, (1,)),
            ],
            {},
            {},
        )
        store.remember(
            [PlacementOver(token + 2), failed(1, 2, 2), TasksPlaced(token + 3, NODE, (1,))], {}, {}
        )
        end = End(token + 3, 1.0, 1.0)
        store.remember(
            [
                TaskEnded(1, 1, "node", TaskEnd("a", State.SUCCEEDED, 3, end)),
                PlacementOver(token + 3),
                JobSealed(1, JobState.SEALED),
                JobClosed(1, JobState.FAILED),
            ],
            {},
            {token + 3: b"v"},
        )
        store.remember([JobOpened(2, "night")], {}, {})
        accept(2, {4: "d", 5: "e", 6: "f", 7: "g", 8: "h"})
        store.remember([TasksPlaced(token + 4, NODE, (4, 5, 6, 8))], {}, {})
        store.remember(
            [
                TaskEnded(4, 2, "node", TaskEnd("d", State.SUCCEEDED, 1, End(token + 4, 1.0, 1.0))),
                failed(6, 1, 6),
                TaskEnded(8, 2, "", TaskEnd("h", State.CANCELLED, 0)),
            ],
            {},
            {token + 4: b"v"},
        )
    return token
