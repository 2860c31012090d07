from __future__ import annotations

import dataclasses

import pytest
from migration_builders import (
    BUSY,
    CORRUPT,
    FULL,
    HOPELESS,
    KILLED,
    STALE_S,
    SUCCESS,
    TROUBLE,
    a_mind,
    a_plan,
    end,
    levels,
    pairs,
    some_entries,
)

from cyclone.lustre.migration.admission import LOCK_MOST_S
from cyclone.lustre.migration.entry import Entry
from cyclone.lustre.migration.fill import Level
from cyclone.lustre.migration.mind import TRIES_MOST, Mind
from cyclone.lustre.migration.ost import OstState, Role
from cyclone.lustre.migration.plan import Bounds
from cyclone.lustre.migration.verdict import FileState, Report

GIB = 2**30


def changed(mind: Mind, now: float = 0, **different: object) -> None:
    mind.change(dataclasses.replace(mind.plan, **different), now)  # type: ignore[arg-type]


# Who goes where.


def test_by_default_each_ost_has_one_task_in_one_role() -> None:
    mind = a_mind(entries={0: 5, 1: 5, 2: 5})

    turn = mind.decide(0)

    assert pairs(turn) == [(0, 10), (1, 11), (2, 12)]
    assert mind.decide(0).started == []


def test_there_are_no_more_tasks_than_targets() -> None:
    mind = a_mind(a_plan(targets=frozenset({10, 11})), entries={0: 5, 1: 5, 2: 5})

    assert pairs(mind.decide(0)) == [(0, 10), (1, 11)]


def test_the_next_task_takes_what_the_last_one_has_freed() -> None:
    mind = a_mind(a_plan(targets=frozenset({10})), entries={0: 2, 1: 1})
    (first,) = mind.decide(0).started

    end(mind, first)
    (second,) = mind.decide(0).started
    end(mind, second)
    (third,) = mind.decide(0).started

    assert [run.entry.source for run in (first, second, third)] == [0, 1, 0]


def test_entries_of_a_source_keep_their_order() -> None:
    mind = a_mind(entries={0: 5})

    numbers = []
    for _ in range(5):
        (run,) = mind.decide(0).started
        numbers.append(run.entry.id.number)
        end(mind, run)

    assert numbers == [0, 1, 2, 3, 4]


def test_sources_take_turns_also_with_several_tasks_each() -> None:
    plan = a_plan(source_max_tasks=2, target_max_tasks=4, pair_max_tasks=0, targets=frozenset({10}))

    turn = a_mind(plan, entries={0: 9, 1: 9, 2: 9}).decide(0)

    assert [source for source, _ in pairs(turn)] == [0, 1, 2, 0]


def test_the_emptiest_target_is_taken_first() -> None:
    mind = a_mind(entries={0: 1, 1: 1, 2: 1}, ost15=20, ost17=30, ost10=60)

    assert [target for _, target in pairs(mind.decide(0))] == [15, 17, 11]


def test_of_two_targets_the_one_with_less_of_its_limit_in_flight_is_taken() -> None:
    plan = a_plan(
        source_max_tasks=9,
        target_max_tasks=2,
        pair_max_tasks=0,
        targets=frozenset({10, 11}),
        bounds={11: Bounds(target=4)},
    )

    turn = a_mind(plan, entries={0: 9}).decide(0)

    assert [target for _, target in pairs(turn)] == [10, 11, 11, 10, 11, 11]


def test_a_source_is_never_its_own_target() -> None:
    plan = a_plan(targets=frozenset({0, 1}))

    turn = a_mind(plan, entries={0: 1, 1: 1}, ost0=31, ost1=40).decide(0)

    assert pairs(turn) == [(0, 1), (1, 0)]


def test_the_only_target_being_the_only_source_nothing_ever_starts() -> None:
    mind = a_mind(a_plan(targets=frozenset({0})), entries={0: 3})

    assert mind.decide(0).started == []
    assert mind.is_over_for([0])


# Limits.


def test_the_limit_of_a_pair_is_kept() -> None:
    plan = a_plan(source_max_tasks=5, target_max_tasks=5, pair_max_tasks=2, targets=frozenset({10, 11}))

    turn = a_mind(plan, entries={0: 9}).decide(0)

    assert sorted(pairs(turn)) == [(0, 10), (0, 10), (0, 11), (0, 11)]


def test_the_limit_of_all_tasks_is_kept() -> None:
    mind = a_mind(a_plan(max_tasks=2), entries={0: 1, 1: 1, 2: 1})

    assert len(mind.decide(0).started) == 2


def test_bounds_of_an_ost_go_before_the_general_ones() -> None:
    plan = a_plan(bounds={0: Bounds(source=3), 10: Bounds(target=0)}, pair_max_tasks=1)

    turn = a_mind(plan, entries={0: 9, 1: 9}).decide(0)

    assert pairs(turn) == [(0, 11), (1, 12), (0, 13), (0, 14)]
    assert a_mind(plan).obstacle(10, Role.TARGET) is not None


def test_an_ost_with_a_bound_of_0_for_both_roles_takes_no_part() -> None:
    plan = a_plan(bounds={0: Bounds(ost=0), 10: Bounds(ost=0)}, targets=frozenset({10, 11}))

    mind = a_mind(plan, entries={0: 1, 1: 1})

    assert pairs(mind.decide(0)) == [(1, 11)]
    assert str(mind.obstacle(0, Role.SOURCE)) == "its limit is 0"


def test_the_limit_of_both_roles_together_is_kept() -> None:
    plan = a_plan(targets=frozenset({0, 10}), ost_max_tasks=1)
    mind = a_mind(plan, entries={0: 1, 1: 1}, ost0=40)

    turn = mind.decide(0)

    assert pairs(turn) == [(0, 10)]
    assert mind.state(0, Role.TARGET) is OstState.BLOCKED


def test_the_limit_of_a_server_counts_sources_and_targets() -> None:
    oss_of = {0: "a", 1: "a", 2: "b", 10: "b", 11: "c", 12: "c"}
    plan = a_plan(oss_max_tasks=1, oss_of=oss_of, targets=frozenset({10, 11, 12}))
    mind = a_mind(plan, entries={0: 1, 1: 1, 2: 1})

    first = mind.decide(0)
    end(mind, first.started[0])
    after = mind.decide(0)

    # All of a and b is in use: 1 and 2 wait, although 11 and 12 are free.
    assert pairs(first) == [(0, 10)]
    # What 1 takes with 10, the servers a and b, is not there for 2.
    assert pairs(after) == [(1, 10)]


def test_sources_of_one_server_take_turns() -> None:
    plan = a_plan(oss_max_tasks=1, oss_of={0: "a", 1: "a", 2: "a"})
    mind = a_mind(plan, entries={0: 9, 1: 9, 2: 9})

    order = []
    for _ in range(6):
        (run,) = mind.decide(0).started
        order.append(run.entry.source)
        end(mind, run)

    assert order == [0, 1, 2, 0, 1, 2]


def test_a_task_between_two_osts_of_one_server_burdens_it_once() -> None:
    plan = a_plan(oss_max_tasks=1, oss_of={0: "a", 10: "a"}, targets=frozenset({10}))

    assert pairs(a_mind(plan, entries={0: 1}).decide(0)) == [(0, 10)]


def test_a_lower_limit_lets_what_is_in_flight_end() -> None:
    plan = a_plan(source_max_tasks=3, pair_max_tasks=1)
    mind = a_mind(plan, entries={0: 9})
    runs = mind.decide(0).started

    changed(mind, source_max_tasks=1)
    for run in runs[:2]:
        end(mind, run)
    still_full = mind.decide(0).started
    end(mind, runs[2])
    (next_one,) = mind.decide(0).started

    assert len(runs) == 3
    assert still_full == []
    assert next_one.entry.source == 0


def test_other_targets_count_at_once() -> None:
    mind = a_mind(entries={0: 2})
    (run,) = mind.decide(0).started

    changed(mind, targets=frozenset({19}))
    end(mind, run)

    assert pairs(mind.decide(0)) == [(0, 19)]


def test_tasks_of_a_former_life_count_even_beyond_the_limits() -> None:
    mind = a_mind(entries={0: 3, 1: 3})
    adopted = [mind.adopt(entry, 10, 0) for entry in some_entries(0, 2, first=100)]

    turn = mind.decide(0)
    end(mind, adopted[0])

    assert pairs(turn) == [(1, 11)]
    assert mind.decide(0).started == []
    end(mind, adopted[1])
    assert [source for source, _ in pairs(mind.decide(0))] == [0]


# Fill levels.


@pytest.mark.parametrize(
    ("source_fill", "target_fill", "starts"),
    [(30, 50, False), (30.01, 50, True), (50, 70, False), (50, 69.99, True)],
)
def test_thresholds_are_strict(source_fill: float, target_fill: float, starts: bool) -> None:
    mind = a_mind(a_plan(targets=frozenset({10})), entries={0: 1}, ost0=source_fill, ost10=target_fill)

    assert bool(mind.decide(0).started) is starts


def test_an_ost_that_was_not_measured_is_left_alone() -> None:
    mind = a_mind(entries={0: 1, 77: 1})

    assert pairs(mind.decide(0)) == [(0, 10)]
    assert str(mind.obstacle(77, Role.SOURCE)) == "fill level unknown"
    assert mind.state(77, Role.SOURCE) is OstState.LOCKED


@pytest.mark.parametrize(("before", "is_over"), [({}, True), ({0: Level(60), 10: Level(50)}, False)])
@pytest.mark.parametrize(
    "now", [{10: Level(50)}, {0: Level(60)}, {0: Level(60), 10: Level(50, closed="read-only")}]
)
def test_it_is_not_over_for_osts_that_were_there_before(
    before: dict[int, Level], now: dict[int, Level], is_over: bool
) -> None:
    mind = Mind(a_plan(targets=frozenset({10})), 0, stale_s=STALE_S)
    mind.expect([0])

    mind.on_levels(before, 0)
    mind.on_levels(now, 1)

    assert mind.is_over_for([0]) is is_over


def test_before_the_first_measurement_nothing_starts() -> None:
    mind = Mind(a_plan(), 0, stale_s=STALE_S)
    mind.offer(0, some_entries(0, 1))

    assert mind.decide(0).started == []
    assert not mind.is_over_for([0])


def test_old_levels_are_no_levels() -> None:
    mind = a_mind(entries={0: 2})
    assert mind.next_moment(0) == STALE_S

    too_late = mind.decide(STALE_S + 1).started
    mind.on_levels(levels(), STALE_S + 2)

    assert too_late == []
    assert len(mind.decide(STALE_S + 2).started) == 1


def test_a_target_is_not_filled_beyond_its_threshold_by_what_is_on_its_way() -> None:
    plan = a_plan(source_max_tasks=9, target_max_tasks=9, pair_max_tasks=0, targets=frozenset({10}))
    mind = a_mind(plan)
    mind.on_levels({0: Level(90, 100 * 2**20, 0), 10: Level(60, 100 * 2**20, 40 * 2**20)}, 0)
    mind.offer(0, some_entries(0, 9, size=4 * GIB))

    turn = mind.decide(0)

    # 60, 64 and 68 % are below 70 %; 72 % is not.
    assert len(turn.started) == 3
    assert mind.state(10, Role.TARGET) is OstState.PENDING_LOCK
    assert mind.obstacle(10, Role.TARGET) is not None


def test_what_was_moved_counts_until_it_was_measured() -> None:
    plan = a_plan(targets=frozenset({10}))
    mind = a_mind(plan)
    full = {0: Level(90, 100 * 2**20, 0), 10: Level(68, 100 * 2**20, 32 * 2**20)}
    mind.on_levels(full, 0)
    mind.offer(0, some_entries(0, 9, size=4 * GIB))
    (run,) = mind.decide(0).started

    end(mind, run, Report(FileState.SUCCESS, actual=10, size=4 * GIB))
    before = mind.decide(0).started
    mind.on_measuring()
    mind.on_levels(full | {10: Level(69, 100 * 2**20, 31 * 2**20)}, 1)

    assert before == []
    assert len(mind.decide(1).started) == 1


def test_a_source_is_not_emptied_below_its_threshold_by_what_is_on_its_way() -> None:
    plan = a_plan(source_max_tasks=9)
    mind = a_mind(plan)
    mind.on_levels(levels() | {0: Level(35, 100 * 2**20, 65 * 2**20)}, 0)
    mind.offer(0, some_entries(0, 9, size=3 * GIB))

    assert len(mind.decide(0).started) == 2


def test_the_size_of_files_that_nobody_looked_at_is_the_mean_of_the_others() -> None:
    mind = a_mind(entries={0: 3})
    for size in (GIB, 3 * GIB):
        (run,) = mind.decide(0).started
        end(mind, run, Report(FileState.SUCCESS, actual=run.target, size=size))

    (run,) = mind.decide(0).started

    assert run.size == 2 * GIB


def test_a_displaced_file_counts_where_it_is() -> None:
    mind = a_mind()
    capacity = 100 * 2**20
    mind.on_levels({ost: Level(50, capacity, capacity // 2) for ost in range(20)}, 0)
    mind.offer(0, some_entries(0, 1, size=GIB))
    (run,) = mind.decide(0).started

    end(mind, run, Report(FileState.DISPLACED, "elsewhere", actual=15, size=GIB))

    assert mind.fills.percent(15) == pytest.approx(51)
    assert mind.fills.percent(run.target) == 50
    assert mind.fills.percent(0) == pytest.approx(49)


def test_in_a_dry_run_no_level_changes() -> None:
    mind = a_mind(a_plan(is_dry=True))
    mind.on_levels({ost: Level(50, 100, 50) for ost in range(20)}, 0)
    mind.offer(0, some_entries(0, 1, size=1))
    (run,) = mind.decide(0).started

    end(mind, run, Report(FileState.SUCCESS, size=10**6))

    assert {mind.fills.percent(ost) for ost in range(20)} == {50}


def test_the_reserve_of_a_target_stays_free() -> None:
    plan = a_plan(targets=frozenset({10, 11}), target_reserve_bytes=10 * GIB)
    mind = a_mind(plan)
    mind.on_levels(
        {0: Level(90), 10: Level(20, 100 * 2**20, 10 * 2**20), 11: Level(60, 100 * 2**20, 40 * 2**20)}, 0
    )
    mind.offer(0, some_entries(0, 1, size=GIB))

    turn = mind.decide(0)

    assert pairs(turn) == [(0, 11)]
    assert str(mind.obstacle(10, Role.TARGET)) == "no room above the reserve"


def test_a_target_that_takes_nothing_is_left_alone_and_may_be_a_source() -> None:
    mind = a_mind(a_plan(targets=frozenset({0, 10})))
    mind.on_levels(levels(ost0=20) | {10: Level(40, closed="read-only")}, 0)
    mind.offer(10, some_entries(10, 1))
    mind.offer(1, some_entries(1, 1))

    turn = mind.decide(0)

    assert sorted(pairs(turn)) in ([(10, 0)], [(1, 0)])
    assert str(mind.obstacle(10, Role.TARGET)) == "takes nothing: read-only"
    assert mind.obstacle(10, Role.SOURCE) is None


def test_a_file_goes_where_it_fits() -> None:
    plan = a_plan(targets=frozenset({10, 11}))
    mind = a_mind(plan)
    mind.on_levels({0: Level(90), 10: Level(20, 2**20, 2**19), 11: Level(60, 100 * 2**20, 40 * 2**20)}, 0)
    mind.offer(0, some_entries(0, 1, size=GIB))

    assert pairs(mind.decide(0)) == [(0, 11)]


def test_a_file_that_fits_nowhere_waits_and_then_fails_and_keeps_no_other_waiting() -> None:
    plan = a_plan(targets=frozenset({10}), retry_max=1, retry_delay_s=60)
    mind = a_mind(plan)
    mind.on_levels({0: Level(90), 10: Level(20, 2**20, 2**19)}, 0)
    mind.offer(0, some_entries(0, 1, size=GIB) + some_entries(0, 1, first=1, size=1))

    first, at_once, later = mind.decide(0), mind.decide(30), mind.decide(60)

    assert [run.entry.id.number for run in first.started] == [1]
    assert [ended.is_final for ended in first.ended] == [False]
    assert (at_once.started, at_once.ended) == ([], [])
    end(mind, first.started[0], now=60)
    (ended,) = later.ended or mind.decide(60).ended
    assert ended.is_final
    assert (ended.report.state, ended.report.failure) == (FileState.FAILED, "target")


def test_files_that_wait_for_room_cost_no_look_at_every_target(monkeypatch: pytest.MonkeyPatch) -> None:
    sources, targets = range(50), range(100, 120)
    mind = Mind(a_plan(targets=frozenset(targets)), 0, stale_s=STALE_S)
    roomy = {target: Level(50, 10**10, 10**9) for target in targets}
    mind.on_levels({source: Level(50) for source in sources} | roomy | {100: Level(20, 2**20, 2**19)}, 0)
    for source in sources:
        mind.offer(source, some_entries(source, 9, size=GIB))
    mind.decide(0)
    asked: list[int] = []
    really = mind.obstacle
    monkeypatch.setattr(mind, "obstacle", lambda ost, role: asked.append(ost) or really(ost, role))

    waiting = mind.decide(0)

    assert (waiting.started, waiting.ended) == ([], [])
    assert len(asked) <= 2 * len(sources)  # not 20 times


# What comes after an end.


def test_an_end_that_is_told_twice_counts_once() -> None:
    mind = a_mind(entries={0: 2})
    (run,) = mind.decide(0).started

    first = mind.on_end(run.entry.id, SUCCESS, 0)
    second = mind.on_end(run.entry.id, SUCCESS, 0)

    assert first is not None
    assert second is None
    assert mind.tasks(0, Role.SOURCE) == 0


def test_a_busy_file_is_tried_again_after_the_delay_while_others_go_on() -> None:
    mind = a_mind(entries={0: 2})
    (first,) = mind.decide(0).started

    ended = end(mind, first, BUSY)
    (other,) = mind.decide(0).started
    end(mind, other)
    before, after = mind.decide(59.9).started, mind.decide(60).started

    assert not ended.is_final
    assert other.entry.id.number == 1
    assert before == []
    assert [(run.entry.id.number, run.entry.tries) for run in after] == [(0, 1)]


def test_it_says_when_the_next_retry_is_due() -> None:
    mind = a_mind(entries={0: 1})
    (run,) = mind.decide(0).started
    end(mind, run, BUSY, now=5)

    assert mind.next_moment(5) == 65


def test_a_file_that_was_seen_and_is_gone_is_looked_for_again_and_then_ignored() -> None:
    gone = Report(FileState.IGNORED, "gone")
    mind = a_mind(a_plan(retry_max=1))
    mind.offer(0, some_entries(0, 1, size=GIB))

    ends = []
    for now in (0, 60):
        (run,) = mind.decide(now).started
        ends.append(end(mind, run, gone, now=now))

    assert [ended.is_final for ended in ends] == [False, True]
    assert ends[-1].report.state is FileState.IGNORED


@pytest.mark.parametrize(("report", "state"), [(BUSY, FileState.BUSY), (KILLED, FileState.FAILED)])
def test_a_file_that_has_used_up_its_tries_has_its_result(report: Report, state: FileState) -> None:
    mind = a_mind(a_plan(retry_max=2), entries={0: 1})

    finals = []
    for attempt in range(3):
        (run,) = mind.decide(attempt * 60).started
        finals.append(end(mind, run, report, now=attempt * 60))

    assert [ended.is_final for ended in finals] == [False, False, True]
    assert finals[-1].report.state is state
    assert mind.decide(1000).started == []


def test_more_busy_files_than_may_rest_in_memory_are_put_away() -> None:
    mind = a_mind(a_plan(queue_most=4), entries={0: 4})

    ends = []
    for _ in range(4):
        (run,) = mind.decide(0).started
        ends.append(end(mind, run, BUSY))

    assert [ended.away_until for ended in ends] == [None, None, 60, 60]
    assert mind.resting == 2
    assert mind.space(0) == 2


@pytest.mark.parametrize(("is_left_alone", "billed"), [(True, 0), (False, 1)])
def test_a_file_is_not_billed_while_a_target_with_room_for_it_is_left_alone(
    is_left_alone: bool, billed: int
) -> None:
    mind = Mind(a_plan(targets=frozenset({10, 11}), retry_delay_s=0), 0, stale_s=STALE_S)
    roomy = Level(50 if is_left_alone else 90, 10**9, 10**9)
    mind.on_levels({0: Level(50), 10: roomy, 11: Level(50, 10**9, 10)}, 0)
    if is_left_alone:
        mind.admission.leave_alone(10, 0)
    large, small = *some_entries(0, 1, size=2**30), *some_entries(0, 1, 1, size=2**10)
    mind.change(mind.plan, 0)
    mind.offer(0, [large, small])

    turn = mind.decide(0)

    assert [(run.entry, run.target) for run in turn.started] == [(small, 11)]
    assert [(ended.entry, ended.is_final) for ended in turn.ended] == [(large, False)]
    assert large.billed == billed
    assert mind.next_moment(0) == (1 if is_left_alone else 0)


def test_files_that_fit_nowhere_cost_no_look_at_every_target(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = frozenset(range(100, 200))
    mind = Mind(a_plan(targets=targets), 0, stale_s=STALE_S)
    full = {target: Level(90, 10**9, 10**9) for target in targets}
    mind.on_levels({0: Level(50)} | full | {100: Level(50, 10**9, 10)}, 0)
    mind.offer(0, some_entries(0, 200, size=2**30))
    asked = 0
    really = Mind.obstacle

    def obstacle(self: Mind, ost: int, role: Role) -> object:
        nonlocal asked
        asked += 1
        return really(self, ost, role)

    monkeypatch.setattr(Mind, "obstacle", obstacle)
    turn = mind.decide(0)

    assert len(turn.ended) == 200
    assert asked < 200


def test_files_that_fit_nowhere_are_not_held_against_every_open_target(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    targets = frozenset(range(100, 200))
    mind = Mind(a_plan(targets=targets), 0, stale_s=STALE_S)
    mind.on_levels({0: Level(50)} | {target: Level(50, 10**9, 10) for target in targets}, 0)
    mind.offer(0, some_entries(0, 200, size=2**30))
    asked = 0
    really = Mind._fits

    def fits(self: Mind, entry: Entry, target: int) -> bool:
        nonlocal asked
        asked += 1
        return really(self, entry, target)

    monkeypatch.setattr(Mind, "_fits", fits)
    turn = mind.decide(0)

    assert len(turn.ended) == 200
    assert asked <= 200


def test_a_target_without_room_is_left_alone_and_the_file_goes_elsewhere_at_once() -> None:
    mind = a_mind(entries={0: 1})
    (first,) = mind.decide(0).started

    end(mind, first, FULL)
    (second,) = mind.decide(0).started

    assert (first.target, second.target) == (10, 11)
    assert (second.entry.tries, second.entry.billed) == (1, 0)
    assert mind.state(10, Role.TARGET) is OstState.LOCKED
    assert mind.next_moment(0) == 60


def test_a_file_that_is_refused_again_by_targets_that_are_well_waits_at_its_own_expense() -> None:
    mind = a_mind(a_plan(retry_max=1), entries={0: 1, 1: 100})
    bad = mind.decide(0).started[0].entry

    now, locked, ends = 0.0, [], []
    while not (ends and ends[-1].is_final):
        for run in list(mind.running.values()):
            ended = end(mind, run, FULL if run.entry is bad else SUCCESS, now)
            if run.entry is bad:
                ends.append(ended)
                locked.append(len(list(mind.admission.left_alone())))
        now += 1
        mind.decide(now)

    assert locked == [1, 1, 0]
    assert (bad.tries, bad.billed, ends[-1].report.reason) == (3, 2, "ENOSPC")


def test_a_file_loses_nothing_while_no_target_takes_anything() -> None:
    mind = a_mind(entries={0: 1})
    mind.fills.stale_s = 1e9

    now = 0.0
    for _ in range(50):
        while not (started := mind.decide(now).started):
            now = mind.next_moment(now) or now
        end(mind, started[0], FULL, now)

    assert (started[0].entry.tries, started[0].entry.billed) == (50, 0)


def test_a_source_is_left_alone_after_trouble_in_a_row_twice_as_long_each_time() -> None:
    mind = a_mind(a_plan(retry_delay_s=60, retry_max=0), entries={0: 100})
    mind.fills.stale_s = 1e9

    now, pauses = 0.0, []
    while len(pauses) < 8:
        fresh = 0
        while runs := mind.decide(now).started:
            fresh += runs[0].entry.tries == 0
            end(mind, runs[0], TROUBLE, now)
        ((_, _, until),) = mind.admission.left_alone()
        assert fresh == 3
        pauses.append(until - now)
        now = until

    assert pauses == [60, 120, 240, 480, 960, 1920, LOCK_MOST_S, LOCK_MOST_S]


def test_a_file_in_trouble_does_not_hold_the_others_of_its_source() -> None:
    mind = a_mind(entries={0: 50})
    (run,) = mind.decide(0).started
    bad = run.entry

    now, good, ends = 0.0, 0, [end(mind, run, TROUBLE, 0)]
    while not ends[-1].is_final:
        now += 10
        for run in mind.decide(now).started:
            if run.entry is bad:
                ends.append(end(mind, run, TROUBLE, now))
            else:
                end(mind, run, SUCCESS, now)
                good += 1

    assert list(mind.admission.left_alone()) == []
    assert good == 4 * 5
    assert (bad.tries, bad.billed, ends[-1].report.reason) == (5, 4, "EIO")


def test_files_in_trouble_come_to_an_end_also_where_there_are_no_others() -> None:
    mind = a_mind(a_plan(retry_delay_s=0), entries={0: 20})

    now, tries, finals = 0.0, 0, 0
    while finals < 20:
        mind.on_levels(levels(), now)
        for run in mind.decide(now).started:
            tries += 1
            finals += end(mind, run, TROUBLE, now).is_final
        now = max(now, mind.next_moment(now) or now)

    assert tries <= 20 * (3 + 1 + 3)
    assert now < 7 * LOCK_MOST_S


def test_a_success_forgives_former_trouble() -> None:
    mind = a_mind(entries={0: 20})
    for _ in range(3):
        (run,) = mind.decide(0).started
        end(mind, run, TROUBLE, 0)
    (run,) = mind.decide(60).started
    end(mind, run, SUCCESS, 60)
    runs = [mind.decide(60).started[0]]
    for _ in range(4):
        end(mind, runs[-1], TROUBLE, 60)
        runs += mind.decide(60).started

    # Two had trouble before, three for the first time.
    assert [run.entry.billed for run in runs] == [1, 1, 0, 0, 0]
    end(mind, runs[-1], TROUBLE, 60)
    assert [until for _, role, until in mind.admission.left_alone() if role is Role.SOURCE] == [120]


def test_tasks_that_fail_together_lock_their_source_once() -> None:
    mind = a_mind(a_plan(source_max_tasks=3), entries={0: 3})
    runs = mind.decide(0).started

    for run in runs:
        end(mind, run, TROUBLE)

    assert len(runs) == 3
    assert mind.next_moment(0) == 60


def test_a_target_at_which_several_sources_fail_is_to_blame_as_well() -> None:
    mind = a_mind(a_plan(targets=frozenset({10})), entries={0: 1, 1: 1, 2: 1, 3: 1})

    for _ in range(3):
        (run,) = mind.decide(0).started
        end(mind, run, TROUBLE)

    assert mind.decide(0).started == []
    assert str(mind.obstacle(10, Role.TARGET)) == "left alone after trouble"


def test_a_target_is_to_blame_if_the_file_goes_to_another_one() -> None:
    mind = a_mind(entries={0: 9}, ost13=40)
    (first,) = mind.decide(0).started
    end(mind, first, TROUBLE)

    (second,) = mind.decide(60).started
    end(mind, second, SUCCESS, 60)
    (third,) = mind.decide(60).started

    assert (first.target, second.entry, second.target, third.target) == (13, first.entry, 10, 10)
    assert str(mind.obstacle(13, Role.TARGET)) == "left alone after trouble"


def test_targets_that_are_well_after_a_trouble_of_their_source_are_not_left_alone() -> None:
    mind = a_mind(a_plan(source_max_tasks=4), entries={0: 8})
    for run in mind.decide(0).started:
        end(mind, run, TROUBLE)

    for run in mind.decide(60).started:
        end(mind, run, now=61)

    assert list(mind.admission.left_alone()) == []
    assert len(mind.decide(61).started) == 4


def test_a_target_that_was_well_with_others_since_is_not_to_blame() -> None:
    mind = a_mind(entries={0: 1, 1: 1}, ost13=40)
    (first, other) = mind.decide(0).started
    end(mind, first, TROUBLE)
    mind.offer(2, some_entries(2, 1))
    (well,) = mind.decide(0).started
    end(mind, well, SUCCESS)

    (second,) = mind.decide(60).started
    end(mind, second, SUCCESS, 60)

    assert (first.target, other.target, well.target) == (13, 10, 13)
    assert second.target != 13
    assert mind.obstacle(13, Role.TARGET) is None


def test_the_only_target_is_tried_again_after_trouble() -> None:
    mind = a_mind(a_plan(targets=frozenset({10})), entries={0: 1})
    (first,) = mind.decide(0).started
    end(mind, first, TROUBLE)

    assert pairs(mind.decide(60)) == [(0, 10)]


def test_nobody_tries_for_ever() -> None:
    mind = a_mind(a_plan(retry_delay_s=0, targets=frozenset({10})), entries={0: 1})

    now, tries = 0.0, 0
    while True:
        (run,) = mind.decide(now).started
        tries += 1
        ended = end(mind, run, FULL, now)
        if ended.is_final:
            break
        now += LOCK_MOST_S
        mind.on_levels(levels(), now)

    assert tries == TRIES_MOST
    assert ended.report.reason.startswith(f"tried {TRIES_MOST} times")


# Stopping.


def test_a_file_that_is_not_what_it_was_stops_everything() -> None:
    mind = a_mind(entries={0: 2, 1: 2})
    first, second = mind.decide(0).started

    ended = end(mind, first, CORRUPT)
    nothing = mind.decide(0)
    end(mind, second)

    assert ended.is_final
    assert nothing.started == []
    assert mind.tripped.startswith("verify: /lustre/0/0")
    assert mind.decide(0).started == []
    assert mind.is_drained()


def test_so_many_failures_stop_everything() -> None:
    mind = a_mind(a_plan(max_failures=2), entries={0: 5})

    for _ in range(2):
        assert not mind.tripped
        (run,) = mind.decide(0).started
        end(mind, run, HOPELESS)

    assert mind.tripped == "2 files have failed"
    assert mind.decide(0).started == []


def test_busy_files_are_no_failures() -> None:
    mind = a_mind(a_plan(max_failures=1, retry_max=0), entries={0: 2})
    (run,) = mind.decide(0).started

    end(mind, run, BUSY)

    assert not mind.tripped


def test_while_anybody_holds_nothing_starts_and_what_is_in_flight_ends() -> None:
    mind = a_mind(entries={0: 2})
    (run,) = mind.decide(0).started

    mind.hold("pause", "paused")
    mind.hold("hours", "not at day")
    assert not mind.is_drained()
    end(mind, run)
    mind.release("pause")
    still_held = mind.decide(0).started
    drained = mind.is_drained()
    mind.release("hours")

    assert still_held == []
    assert drained
    assert len(mind.decide(0).started) == 1


def test_an_excluded_ost_takes_no_part_and_may_again() -> None:
    plan = a_plan(targets=frozenset({10, 11}), excluded=frozenset({0, 10}))
    mind = a_mind(plan, entries={0: 1, 1: 1})

    without = pairs(mind.decide(0))
    changed(mind, excluded=frozenset())

    assert without == [(1, 11)]
    assert pairs(mind.decide(0)) == [(0, 10)]


def test_only_named_sources_are_sources() -> None:
    mind = a_mind(a_plan(sources=frozenset({1})), entries={0: 1, 1: 1})

    assert pairs(mind.decide(0)) == [(1, 10)]
    assert str(mind.obstacle(0, Role.SOURCE)) == "not among the sources"


# Rates.


def test_no_more_files_are_handed_in_than_the_rate_allows() -> None:
    mind = a_mind(
        a_plan(source_max_tasks=100, rate_files_per_s=2, pair_max_tasks=0, target_max_tasks=100),
        entries={0: 99},
    )

    at_once = len(mind.decide(0).started)
    moment = mind.next_moment(0)
    assert moment is not None
    more = len(mind.decide(moment).started)

    assert at_once == 2
    assert 0 < moment <= 0.6
    assert more == 1


def test_bytes_that_were_guessed_wrong_are_paid_afterwards() -> None:
    mind = a_mind(a_plan(rate_mb_per_s=10), entries={0: 3})
    (run,) = mind.decide(0).started

    end(mind, run, Report(FileState.SUCCESS, size=100_000_000), now=0)

    assert mind.decide(8.9).started == []
    assert len(mind.decide(9.1).started) == 1


@pytest.mark.parametrize("report", [Report(FileState.IGNORED, "on-target"), BUSY, FULL, HOPELESS])
def test_what_was_not_moved_does_not_count_for_the_rate(report: Report) -> None:
    mind = a_mind(a_plan(rate_mb_per_s=10))
    mind.offer(0, some_entries(0, 2, size=10**9))
    (run,) = mind.decide(0).started

    end(mind, run, report, now=0)

    assert len(mind.decide(0).started) == 1


# The same file twice.


def test_two_entries_with_one_key_are_never_in_flight_together() -> None:
    mind = a_mind()
    mind.offer(0, some_entries(0, 1, key="inode"))
    mind.offer(1, some_entries(1, 1, key="inode") + some_entries(1, 1, first=1))

    first = mind.decide(0)
    end(mind, first.started[0])
    after = mind.decide(0)

    assert [(run.entry.source, run.entry.id.number) for run in first.started] == [(0, 0), (1, 1)]
    end(mind, first.started[1])
    last = mind.decide(0)
    assert [(run.entry.source, run.entry.id.number) for run in [*after.started, *last.started]] == [(1, 0)]


def test_a_source_of_which_all_files_wait_for_a_key_goes_on_when_it_is_free() -> None:
    mind = a_mind()
    mind.offer(0, some_entries(0, 1, key="linked"))
    mind.offer(1, some_entries(1, 3, key="linked"))
    order = []

    for _ in range(4):
        (run,) = mind.decide(0).started
        order.append((run.entry.source, run.entry.id.number))
        end(mind, run)

    assert order == [(0, 0), (1, 0), (1, 1), (1, 2)]


# More entries.


def test_a_source_that_may_take_part_and_has_little_left_is_hungry() -> None:
    mind = a_mind(ost1=10)

    mind.expect([0, 1, 77])
    hungry = set(mind.hungry)
    mind.hungry.clear()
    mind.on_levels(levels(ost1=80), 1)

    assert hungry == {0}
    assert 1 in mind.hungry


def test_a_source_with_enough_entries_is_not_hungry() -> None:
    mind = a_mind(entries={0: 200})
    mind.hungry.clear()

    (run,) = mind.decide(0).started
    end(mind, run)

    assert mind.hungry == set()
    assert mind.space(0) == 801


# The end of it all.


def test_it_is_over_when_all_sources_or_all_targets_have_reached_their_thresholds() -> None:
    for level in ({"ost0": 30.0, "ost1": 10.0}, {f"ost{target}": 70.0 for target in range(10, 20)}):
        mind = a_mind(entries={0: 1, 1: 1}, **level)

        assert mind.is_over_for([0, 1])


def test_it_is_not_over_while_one_source_may_go_on() -> None:
    assert not a_mind(entries={0: 1, 1: 1}, ost0=10).is_over_for([0, 1])


def test_it_is_not_over_while_a_task_is_in_flight_or_a_file_rests() -> None:
    mind = a_mind(entries={0: 1})
    (run,) = mind.decide(0).started
    mind.on_levels(levels(10), 0)
    in_flight = mind.is_over_for([0])
    end(mind, run, BUSY)

    assert not in_flight
    assert not mind.is_over_for([0])


def test_it_is_not_over_because_of_trouble_or_old_levels() -> None:
    mind = a_mind(a_plan(retry_max=0), entries={0: 2})
    (run,) = mind.decide(0).started
    end(mind, run, TROUBLE)
    in_trouble = mind.is_over_for([0])
    mind.decide(STALE_S + 1)

    assert not in_trouble
    assert not mind.is_over_for([0])


def test_what_is_only_projected_is_not_the_end() -> None:
    plan = a_plan(targets=frozenset({10}))
    mind = a_mind(plan)
    mind.on_levels({0: Level(90), 10: Level(69, 100 * 2**20, 31 * 2**20)}, 0)
    mind.offer(0, some_entries(0, 2, size=4 * GIB))
    (run,) = mind.decide(0).started

    end(mind, run, Report(FileState.SUCCESS, size=4 * GIB, actual=10))

    assert mind.state(10, Role.TARGET) is OstState.LOCKED
    assert not mind.is_over_for([0])


def test_an_unknown_ost_does_not_keep_it_going_when_the_others_were_measured() -> None:
    assert a_mind(entries={77: 1}).is_over_for([77])
