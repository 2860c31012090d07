"""Rules of the smaller parts, for any input."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

from core_builders import a_policy
from hypothesis import given, settings
from hypothesis import strategies as st

from cyclone.core.alarms import Alarms
from cyclone.core.graph import find_cycle
from cyclone.core.live import Job, Task
from cyclone.core.pace import Pace
from cyclone.core.ready_queue import ReadyQueue
from cyclone.model.lifecycle import Event, State
from cyclone.model.resources import UNIT, Room, Shape, amount, plain, shape
from cyclone.model.task import SPREAD, Cause, Retry

NAMES = st.sampled_from(["cpus", "memory", "gpu", "licence"])
SHAPES: st.SearchStrategy[Shape] = st.dictionaries(NAMES, st.integers(1, 100).map(lambda n: n / 10)).map(
    shape
)


@given(capacity=SHAPES, needs=st.lists(SHAPES, max_size=8), sizes=st.lists(SHAPES, max_size=4))
def test_room_is_what_it_was_when_everything_was_given_back(
    capacity: Shape, needs: list[Shape], sizes: list[Shape]
) -> None:
    room = Room(capacity)
    for need in needs:
        room.take(need)
    for size in [*sizes, capacity]:
        room.resize(size)

    for need in needs:
        room.give_back(need)

    assert all(room.free[name] == units for name, units in capacity)
    assert not any(units for name, units in room.free.items() if name not in dict(capacity))


@given(capacity=SHAPES, need=SHAPES)
def test_what_fits_can_be_taken_without_owing_anything(capacity: Shape, need: Shape) -> None:
    room = Room(capacity)
    fits = room.fits(need)

    room.take(need)

    assert fits == all(free >= 0 for free in room.free.values())
    assert fits == Room(capacity).could_fit(need)


@given(needs=st.dictionaries(NAMES, st.integers(0, 10**6)))
def test_a_shape_is_sorted_without_zeros_and_can_be_read_back(needs: dict[str, int]) -> None:
    canonical = shape(needs)

    assert list(canonical) == sorted(canonical)
    assert all(units for _, units in canonical)
    assert shape(plain(canonical)) == canonical


@given(number=st.fractions(min_value=0, max_value=10**9, max_denominator=10_000))
def test_an_amount_is_the_nearest_number_of_ten_thousandths(number: Fraction) -> None:
    assert abs(amount(float(number)) - number * UNIT) <= Fraction(1, 2) + number / 10**9


@given(
    edges=st.dictionaries(
        st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdef"), max_size=3).map(tuple)
    )
)
def test_a_circle_is_found_if_and_only_if_there_is_one(edges: dict[str, tuple[str, ...]]) -> None:
    left = dict(edges)
    while free := [tid for tid, after in left.items() if not set(after) & left.keys()]:
        for tid in free:
            del left[tid]

    cycle = find_cycle(edges)

    assert bool(cycle) == bool(left)
    assert not cycle or cycle[0] == cycle[-1]
    assert all(following in edges[tid] for tid, following in pairwise(cycle))


@given(
    priorities=st.lists(st.integers(-2, 2), min_size=1, max_size=30),
    cpus=st.lists(st.integers(1, 2), min_size=30, max_size=30),
    cancelled=st.sets(st.integers(0, 29)),
    most=st.integers(1, 5),
)
def test_tasks_leave_the_queue_by_priority_then_age_and_none_is_lost(
    priorities: list[int], cpus: list[int], cancelled: set[int], most: int
) -> None:
    queue, job = ReadyQueue(), Job(1, "job")
    tasks = []
    for number, priority in enumerate(priorities):
        policy = a_policy(priority=priority, resources={"cpus": cpus[number]})
        tasks.append(Task(number, job, str(number), policy, State.READY))
    queue.extend(tasks)
    for number in cancelled:
        if number < len(tasks):
            queue.forget(tasks[number])
            tasks[number].state = State.CANCELLED

    left: dict[Shape, list[Task]] = {}
    while lanes := queue.in_turn():
        turns = [(-lane.head().policy.priority, lane.head().number) for lane in lanes]  # type: ignore[union-attr]
        assert turns == sorted(turns)
        left.setdefault(lanes[0].shape, []).extend(lanes[0].take(most, alone=False))

    taken = [task for lane in left.values() for task in lane]
    assert sorted(task.number for task in taken) == [
        number for number in range(len(tasks)) if number not in cancelled
    ]
    for lane_tasks in left.values():
        order = [(-task.policy.priority, task.number) for task in lane_tasks]
        assert order == sorted(order)
    assert len(queue) == 0


@given(moments=st.lists(st.floats(0, 100), max_size=50), now=st.floats(0, 100))
def test_alarms_ring_when_they_are_due_and_in_order(moments: list[float], now: float) -> None:
    alarms: Alarms[float] = Alarms(lambda moment: False)
    for moment in moments:
        alarms.set(moment, moment)

    rung = list(alarms.due(now))

    assert rung == sorted(moment for moment in moments if moment <= now)
    assert alarms.next_moment == min((moment for moment in moments if moment > now), default=None)


@given(
    batches=st.lists(st.lists(st.floats(0, 1000), max_size=20), max_size=20),
    stretch_s=st.floats(0.001, 10),
    most=st.integers(1, 5000),
)
def test_a_bundle_is_never_empty_and_never_too_large(
    batches: list[list[float]], stretch_s: float, most: int
) -> None:
    pace = Pace()
    for batch in batches:
        pace.learn("kind", batch)

    size = pace.bundle_size("kind", stretch_s, most)

    assert 1 <= size <= most
    mean = pace.mean_s("kind")
    durations = [duration for batch in batches for duration in batch]
    assert (mean is None) == (not durations)
    if mean is not None:
        assert min(durations) - 1e-6 <= mean <= max(durations) + 1e-6
        assert size == 1 or size * mean <= stretch_s * (1 + 1e-6) + size * 1e-6


@settings(max_examples=50)
@given(billed_to=st.sampled_from(Cause), budget=st.integers(0, 10), billed=st.integers(1, 20))
def test_a_verdict_changes_once_from_again_to_never(billed_to: Cause, budget: int, billed: int) -> None:
    retry = Retry(budget, budget, budget, budget, budget)
    again = {Event.RETURNED, Event.RESTED}

    verdict = retry.verdict(billed_to, billed)

    unbounded = billed_to in (Cause.NOBODY, Cause.UNKNOWN)
    assert (verdict in again) == (billed <= budget or unbounded)


@given(
    delay_s=st.floats(0, 1e6),
    backoff=st.floats(1, 1000),
    most=st.floats(0, 1e6),
    billed=st.integers(1, 10**6),
    token=st.integers(0, 2**63 - 1),
)
def test_rests_never_shrink_and_never_exceed_their_bound(
    delay_s: float, backoff: float, most: float, billed: int, token: int
) -> None:
    retry = Retry(delay_s=delay_s, backoff=backoff, delay_max_s=most)

    assert 0 <= retry.rest_s(billed, token) <= retry.rest_s(billed + 1, token) <= most * (1 + SPREAD)
