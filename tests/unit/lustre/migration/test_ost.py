"""The table of states, exhaustively."""

from __future__ import annotations

import pytest

from cyclone.lustre.migration.ost import OstState, ost_state

READY, BLOCKED, LOCKED, PENDING_LOCK = (
    OstState.READY, OstState.BLOCKED, OstState.LOCKED, OstState.PENDING_LOCK,
)  # fmt: skip

TABLE = [
    # limit, states while admissible for 0, 1, 2, 3, 4 tasks in flight
    (1, [READY, BLOCKED, BLOCKED, BLOCKED, BLOCKED]),
    (2, [READY, READY, BLOCKED, BLOCKED, BLOCKED]),
    (3, [READY, READY, READY, BLOCKED, BLOCKED]),
]


@pytest.mark.parametrize(("limit", "states"), TABLE)
@pytest.mark.parametrize("running", range(5))
def test_an_admissible_ost_is_ready_below_its_limit_and_blocked_at_it(
    limit: int, states: list[OstState], running: int
) -> None:
    assert ost_state(admissible=True, running=running, limit=limit) is states[running]


@pytest.mark.parametrize("limit", [1, 2, 3])
@pytest.mark.parametrize("running", range(5))
def test_an_inadmissible_ost_is_locked_as_soon_as_nothing_is_in_flight(limit: int, running: int) -> None:
    state = ost_state(admissible=False, running=running, limit=limit)

    assert state is (PENDING_LOCK if running else LOCKED)


def test_with_a_limit_of_one_the_states_follow_each_other_as_in_cyclone_2() -> None:
    steps = [
        # event, admissible, in flight
        ("start", True, 0, READY),
        ("dispatch", True, 1, BLOCKED),
        ("finish", True, 0, READY),
        ("dispatch", True, 1, BLOCKED),
        ("threshold crossed", False, 1, PENDING_LOCK),
        ("finish", False, 0, LOCKED),
        ("threshold fine again", True, 0, READY),
        ("threshold crossed", False, 0, LOCKED),
    ]

    states = [
        ost_state(admissible=admissible, running=running, limit=1) for _, admissible, running, _ in steps
    ]

    assert states == [expected for *_, expected in steps]


def test_a_pending_lock_is_blocked_again_when_the_level_recovers() -> None:
    assert ost_state(admissible=False, running=1, limit=1) is PENDING_LOCK

    assert ost_state(admissible=True, running=1, limit=1) is BLOCKED
