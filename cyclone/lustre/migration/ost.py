"""In which state an OST is, in one of its two roles.

The state follows from two numbers and a yes or no: how many tasks are in flight, how many there may be, and
whether the OST is admissible (its fill level is beyond the threshold of its role, and nobody has excluded it).
Nothing is remembered, so nothing can be forgotten: an OST cannot stay blocked after its task has ended.
"""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """What an OST is in a migration. One OST may be both, though never in the same task."""

    SOURCE = "source"
    TARGET = "target"


class OstState(StrEnum):
    """What may be done with an OST now."""

    READY = "ready"  # may take part in another task
    BLOCKED = "blocked"  # has as many tasks as it may have
    LOCKED = "locked"  # must not take part, and does not
    PENDING_LOCK = "pending_lock"  # must not take part any more, but still does


def ost_state(*, admissible: bool, running: int, limit: int) -> OstState:
    """The state of an OST with so many tasks in flight, of so many that there may be."""
    if not admissible:
        return OstState.PENDING_LOCK if running else OstState.LOCKED
    return OstState.READY if running < limit else OstState.BLOCKED
