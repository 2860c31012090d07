"""Changes are facts: they cannot be changed after they came about."""

from __future__ import annotations

import pytest

from cyclone.messages import TaskEnd
from cyclone.model.changes import (
    AttemptEnded,
    Change,
    JobClosed,
    JobOpened,
    PlacementOver,
    TaskAccepted,
    TaskEnded,
    TasksPlaced,
)
from cyclone.model.lifecycle import State
from cyclone.model.peer import Peer
from cyclone.model.task import Cause, End, Policy

FACTS: list[tuple[Change, str]] = [
    (JobOpened(1, "job"), "name"),
    (JobClosed(1, "failed"), "state"),
    (TaskAccepted(1, 1, "t", Policy(), ()), "tid"),
    (TasksPlaced(1, Peer("node", "1"), (1,)), "numbers"),
    (PlacementOver(1), "first"),
    (AttemptEnded(1, 1, "node", Cause.ERROR, End(1)), "cause"),
    (TaskEnded(1, 1, "node", TaskEnd("t", State.SUCCEEDED, 1)), "end"),
]


@pytest.mark.parametrize(("fact", "field"), FACTS)
def test_a_fact_does_not_change(fact: Change, field: str) -> None:
    with pytest.raises(AttributeError):
        setattr(fact, field, None)
