"""The migration, for any course of events."""

from __future__ import annotations

import dataclasses
import io
import os
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from migration_builders import (
    BUSY,
    FULL,
    HOPELESS,
    KILLED,
    SUCCESS,
    TROUBLE,
    levels,
    some_entries,
)

from cyclone.lustre.migration.admission import LOCK_MOST_S
from cyclone.lustre.migration.entry import Entry, EntryId
from cyclone.lustre.migration.fill import Level
from cyclone.lustre.migration.input_list import load, load_again
from cyclone.lustre.migration.inputs import Inputs
from cyclone.lustre.migration.journal import read_lines
from cyclone.lustre.migration.lines import RECORD_BYTES_MAX, Rejected, Rules, read_records
from cyclone.lustre.migration.mind import Ended, Mind, Run
from cyclone.lustre.migration.ost import OstState, Role
from cyclone.lustre.migration.plan import Bounds, Plan
from cyclone.lustre.migration.verdict import FileState, Report

OSTS = range(6)
SERVERS = {0: "a", 1: "a", 2: "b", 3: "b", 4: "c"}  # 5 is on none that anybody knows

osts = st.sampled_from(list(OSTS))
some_osts = st.frozensets(osts)
limits = st.integers(1, 3)
limits_or_none = st.integers(0, 3)
reports = st.sampled_from([
    SUCCESS, BUSY, KILLED, FULL, TROUBLE, HOPELESS,
    Report(FileState.DISPLACED, "elsewhere", actual=3, size=10), Report(FileState.IGNORED, "gone"),
    Report(FileState.SKIPPED, "striped", size=5), Report(FileState.FAILED, "ENOENT", "gone"),
    Report(FileState.SUCCESS, "", "", 4, 1000),
])  # fmt: skip
bounds = st.builds(
    Bounds, source=st.none() | limits_or_none, target=st.none() | limits_or_none, ost=st.none() | limits
)
plans = st.builds(
    Plan,
    source_threshold=st.just(30.0),
    target_threshold=st.just(70.0),
    targets=some_osts.filter(bool),
    sources=st.just(frozenset[int]()) | some_osts,
    excluded=st.just(frozenset[int]()) | some_osts,
    source_max_tasks=limits,
    target_max_tasks=limits,
    pair_max_tasks=limits_or_none,
    oss_max_tasks=limits_or_none,
    ost_max_tasks=limits_or_none,
    max_tasks=st.integers(0, 4),
    bounds=st.dictionaries(osts, bounds, max_size=2),
    oss_of=st.sampled_from([{}, SERVERS]),
    retry_max=st.integers(0, 3),
    retry_delay_s=st.sampled_from([0.0, 1.0, 100.0]),
    rate_files_per_s=st.sampled_from([0.0, 0.0, 5.0]),
    rate_mb_per_s=st.sampled_from([0.0, 0.0, 0.001]),
    target_reserve_bytes=st.sampled_from([0, 1 << 20]),
    queue_most=st.integers(1, 8),
)


class MigrationMachine(RuleBasedStateMachine):
    """Everything that may happen to a mind, in any order; in the end it goes calm, and everything must settle."""

    @initialize(plan=plans)
    def begin(self, plan: Plan) -> None:
        self.now = 0.0
        self.mind = Mind(plan, 0.0, stale_s=1000.0)
        self.offered: set[EntryId] = set()
        self.put_away: list[Ended] = []
        self.finals: dict[EntryId, Report] = {}
        self.running: dict[EntryId, Run] = {}

    # What happens.

    @rule(
        source=osts,
        count=st.integers(1, 4),
        key=st.none() | st.sampled_from(["x", "y"]),
        size=st.none() | st.integers(0, 10**6),
    )
    def offer(self, source: int, count: int, key: str | None, size: int | None) -> None:
        count = min(count, self.mind.space(source))
        entries = some_entries(source, count, first=len(self.offered), key=key, size=size)
        self.offered |= {entry.id for entry in entries}
        self.mind.offer(source, entries)

    @rule(levels=st.dictionaries(osts, st.floats(0, 100)), capacity=st.none() | st.integers(1, 10**4))
    def measure(self, levels: dict[int, float], capacity: int | None) -> None:
        self.mind.on_measuring()
        found = {
            ost: Level(percent, capacity, int((capacity or 0) * (100 - percent) / 100))
            for ost, percent in levels.items()
        }
        self.mind.on_levels(found, self.now)

    @rule(seconds=st.sampled_from([0.0, 0.5, 60.0, 300.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def decide(self) -> None:
        held = bool(self.mind.holds or self.mind.tripped)
        turn = self.mind.decide(self.now)
        for run in turn.started:
            assert run.entry.id not in self.running
            assert run.entry.id not in self.finals
            self.running[run.entry.id] = run
        for ended in turn.ended:
            self._take(ended)
        if held:
            assert not turn.started
        check_limits(self.mind, turn.started)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), report=reports)
    def end(self, data: st.DataObject, report: Report) -> None:
        entry_id = data.draw(st.sampled_from(sorted(self.running)))
        del self.running[entry_id]
        ended = self.mind.on_end(entry_id, report, self.now)
        assert ended is not None
        self._take(ended)

    @rule(number=st.integers(0, 50))
    def told_twice(self, number: int) -> None:
        entry_id = EntryId("list0", number)
        if entry_id not in self.running:
            assert self.mind.on_end(entry_id, SUCCESS, self.now) is None

    @rule(plan=plans)
    def change(self, plan: Plan) -> None:
        self.mind.change(plan, self.now)

    @rule()
    def hold(self) -> None:
        self.mind.hold("pause", "paused")

    @rule()
    def release(self) -> None:
        self.mind.release("pause")

    @precondition(lambda self: self.put_away)
    @rule()
    def offer_again(self) -> None:
        entry = self.put_away.pop(0).entry
        self.mind.offer(entry.source, [entry])

    # What must hold.

    @invariant()
    def what_is_in_flight_is_known(self) -> None:
        if hasattr(self, "mind"):
            assert self.mind.running.keys() == self.running.keys()
            for ost in OSTS:
                sources = sum(run.entry.source == ost for run in self.running.values())
                targets = sum(run.target == ost for run in self.running.values())
                assert self.mind.tasks(ost, Role.SOURCE) == sources
                assert self.mind.tasks(ost, Role.TARGET) == targets

    @invariant()
    def no_file_goes_where_it_is_and_none_is_moved_twice_at_a_time(self) -> None:
        if hasattr(self, "mind"):
            assert all(run.entry.source != run.target for run in self.running.values())
            keys = [run.entry.key for run in self.running.values()]
            assert len(keys) == len(set(keys))

    @invariant()
    def every_entry_is_somewhere(self) -> None:
        if hasattr(self, "mind"):
            waiting = sum(self.mind.waiting(ost) for ost in OSTS)
            assert waiting + len(self.running) + len(self.finals) + len(self.put_away) == len(self.offered)

    @invariant()
    def locked_follows_from_inadmissible(self) -> None:
        if hasattr(self, "mind"):
            for ost in OSTS:
                for role in Role:
                    shut = self.mind.obstacle(ost, role) is not None
                    locked = self.mind.state(ost, role) in (OstState.LOCKED, OstState.PENDING_LOCK)
                    assert shut == locked

    def teardown(self) -> None:
        if not hasattr(self, "mind"):
            return
        if self.mind.tripped:
            return
        plan = dataclasses.replace(
            self.mind.plan, targets=frozenset(OSTS), sources=frozenset(), excluded=frozenset(), bounds={},
            target_reserve_bytes=0, rate_mb_per_s=0.0,
        )  # fmt: skip
        self.mind.change(plan, self.now)
        self.mind.release("pause")
        for _ in range(100 * (len(self.offered) + 1)):
            self.now += LOCK_MOST_S
            self.mind.on_levels(levels(osts=OSTS), self.now)
            while self.put_away:
                self.offer_again()
            self.decide()
            for entry_id in sorted(self.running):
                del self.running[entry_id]
                ended = self.mind.on_end(entry_id, SUCCESS, self.now)
                assert ended is not None
                self._take(ended)
            if len(self.finals) == len(self.offered):
                break
        assert self.finals.keys() == self.offered
        assert self.mind.is_over_for([])

    # Helpers of the machine itself.

    def _take(self, ended: Ended) -> None:
        if ended.away_until is not None:
            self.put_away.append(ended)
        elif ended.is_final:
            assert ended.entry.id not in self.finals
            self.finals[ended.entry.id] = ended.report


def check_limits(mind: Mind, started: list[Run]) -> None:
    """Whoever got a task has no more than its limit, now that all were started."""
    plan, runs = mind.plan, list(mind.running.values())
    assert not started or not plan.max_tasks or len(runs) <= plan.max_tasks
    for run in started:
        for ost, role in ((run.entry.source, Role.SOURCE), (run.target, Role.TARGET)):
            assert mind.tasks(ost, role) <= plan.limit(ost, role)
            both = plan.limit_of_both(ost)
            assert both is None or sum(mind.tasks(ost, each) for each in Role) <= both
            # What was started may have closed the door behind itself.
            obstacle = mind.obstacle(ost, role)
            assert obstacle is None or obstacle.reason in CLOSED_BY_WHAT_IS_ON_ITS_WAY
        if plan.pair_max_tasks:
            assert sum(pair(each) == pair(run) for each in runs) <= plan.pair_max_tasks
        for server in {plan.oss_of.get(ost) for ost in pair(run)} - {None}:
            burdens = [each for each in runs if server in {plan.oss_of.get(ost) for ost in pair(each)}]
            assert not plan.oss_max_tasks or len(burdens) <= plan.oss_max_tasks


CLOSED_BY_WHAT_IS_ON_ITS_WAY = (
    "not above the threshold",
    "not below the threshold",
    "no room above the reserve",
)


def pair(run: Run) -> tuple[int, int]:
    return run.entry.source, run.target


TestMigrationMachine = MigrationMachine.TestCase
TestMigrationMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


# A source whose entry waits for a key was looked at while the key was in flight, and then never woken.
@example(
    plan=Plan(
        source_threshold=30.0,
        target_threshold=70.0,
        targets=frozenset({0}),
        pair_max_tasks=0,
        ost_max_tasks=1,
        retry_max=0,
        retry_delay_s=0.0,
        queue_most=1,
    ),
    counts={0: 3, 1: 3, 2: 3},
    keys=["x", "x", "y", "x", "x", "x", "x", "x", "x"],
    answers=[],
)
@given(
    plan=plans,
    counts=st.dictionaries(osts, st.integers(1, 6)),
    keys=st.lists(st.sampled_from(["x", "y"]), max_size=20),
    answers=st.lists(reports, max_size=60),
)
@settings(max_examples=150, deadline=None)
def test_in_any_calm_plan_every_entry_ends_in_exactly_one_result(
    plan: Plan, counts: dict[int, int], keys: list[str], answers: list[Report]
) -> None:
    plan = dataclasses.replace(
        plan, sources=frozenset(), excluded=frozenset(), targets=frozenset(OSTS), bounds={}, rate_mb_per_s=0.0
    )
    mind = Mind(plan, 0.0, stale_s=1e12)
    mind.on_levels(levels(osts=OSTS), 0.0)
    waiting = [entry for source, count in counts.items() for entry in some_entries(source, count)]
    for number, key in zip(range(len(waiting)), keys, strict=False):
        waiting[number].key = key
    finals: Counter[EntryId] = Counter()
    total, now = len(waiting), 0.0

    for _ in range(10_000):
        held_back = []
        for entry in waiting:
            if mind.space(entry.source):
                mind.offer(entry.source, [entry])
            else:
                held_back.append(entry)
        waiting = held_back
        turn = mind.decide(now)
        ends = list(turn.ended)
        for run in turn.started:
            ended = mind.on_end(run.entry.id, answers.pop() if answers else SUCCESS, now)
            assert ended is not None
            ends.append(ended)
        for ended in ends:
            if ended.away_until is not None:
                waiting.append(ended.entry)
            elif ended.is_final:
                finals[ended.entry.id] += 1
        if len(finals) == total:
            break
        # Whoever waits says until when: without that nothing would ever happen again.
        if not turn.started and not turn.ended:
            moment = mind.next_moment(now)
            assert moment is not None
            assert moment > now
            now = moment

    assert len(finals) == total
    assert set(finals.values()) <= {1}


@given(
    plan=plans,
    entries=st.lists(st.tuples(osts, st.sampled_from([None, None, "x", "y"])), min_size=1, max_size=30),
    ends=st.lists(st.integers(0, 9), max_size=30),
)
@settings(max_examples=400, deadline=None)
def test_no_limit_is_ever_exceeded_and_none_is_left_unused(
    plan: Plan, entries: list[tuple[int, str | None]], ends: list[int]
) -> None:
    plan = dataclasses.replace(
        plan,
        sources=frozenset(),
        excluded=frozenset(),
        rate_mb_per_s=0.0,
        rate_files_per_s=0.0,
        queue_most=100,
    )
    mind = Mind(plan, 0.0, stale_s=1e12)
    mind.on_levels(levels(osts=OSTS), 0.0)
    waiting: dict[EntryId, Entry] = {}
    for number, (source, key) in enumerate(entries):
        (entry,) = some_entries(source, 1, first=number, key=key)
        waiting[entry.id] = entry
        mind.offer(source, [entry])

    for number in ends:
        turn = mind.decide(0.0)
        check_limits(mind, turn.started)
        for run in turn.started:
            del waiting[run.entry.id]
        assert not any(
            might_start(mind, entry, target) for entry in waiting.values() for target in plan.targets
        )
        if mind.running:
            run = list(mind.running.values())[number % len(mind.running)]
            mind.on_end(run.entry.id, SUCCESS, 0.0)


def might_start(mind: Mind, entry: Entry, target: int) -> bool:
    """By the rules alone: could this entry be started now?

    Entries whose key is in flight keep their order, so one of another key may wait behind such a one.
    """
    plan, runs, source = mind.plan, list(mind.running.values()), entry.source
    servers = {plan.oss_of.get(source), plan.oss_of.get(target)} - {None}
    return (
        source != target
        and entry.key not in ("x", "y")
        and (not plan.max_tasks or len(runs) < plan.max_tasks)
        and mind.state(source, Role.SOURCE) is OstState.READY
        and mind.state(target, Role.TARGET) is OstState.READY
        and (
            not plan.pair_max_tasks
            or sum(pair(run) == (source, target) for run in runs) < plan.pair_max_tasks
        )
        and all(
            not plan.oss_max_tasks
            or sum(server in {plan.oss_of.get(ost) for ost in pair(run)} for run in runs) < plan.oss_max_tasks
            for server in servers
        )
    )


# Lists.

RULES = Rules(b"/fs")

pieces = st.sampled_from(
    [b"1 /fs/a", b"2 /fs/b", b"0 /fs/", b"\n", b"\r", b"\0", b"..", b"/", b"7", b" ", b"\xff", b"x" * 5000]
)
lines = st.sampled_from([b"1 /fs/a\n", b"2 /fs/b c\n", b"1 /fs/d\r\n", b"2 /fs/\xff\0", b"1 /fs/new\nline\0"])
contents = st.lists(lines | pieces | st.binary(max_size=12), max_size=40).map(b"".join)
separators = st.sampled_from([b"\n", b"\0"])


@given(content=contents, separator=separators)
def test_records_are_what_stands_between_the_separators(content: bytes, separator: bytes) -> None:
    found = list(read_records(io.BytesIO(content), separator))

    expected = content.split(separator)
    if not expected[-1]:
        expected.pop()
    assert [record for _, record in found] == [record[:RECORD_BYTES_MAX] for record in expected]
    assert all(content[offset:].startswith(record) for offset, record in found)


@given(record=contents)
def test_any_record_is_an_entry_below_the_root_or_is_rejected(record: bytes) -> None:
    try:
        ost, path = RULES.parse(record)
    except Rejected:
        return
    assert 0 <= ost <= 65535
    assert path.startswith(b"/fs/")
    assert os.path.normpath(path).startswith(b"/fs")
    assert b".." not in path.split(b"/")
    assert record.endswith(b" " + path)


@given(
    name=st.sampled_from(["a.input", "a.input0"]),
    contents=contents,
    lives=st.lists(st.tuples(st.lists(st.integers(0, 3), max_size=12), st.integers(0, 200)), max_size=4),
)
@settings(max_examples=150, deadline=None)
def test_whenever_it_is_killed_no_entry_is_lost_and_none_has_two_results(
    name: str, contents: bytes, lives: list[tuple[list[int], int]]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        base = Path(directory) / name
        base.write_bytes(contents)
        expected = valid_entries(contents, base)
        for what, cut in lives:
            inputs = next_life(base.parent)
            entries = available(inputs)
            done = results_in_journal(base)
            assert Counter(entry.id.number for entry in entries) == Counter(expected.keys() - done.keys())
            assert all(entry.path == expected[entry.id.number] for entry in entries)
            if not entries:
                kill(inputs)
                break
            for entry, step in zip(entries, what, strict=False):
                inputs.on_started(entry, 9)
                if step == 1:
                    inputs.on_retry(entry)
                elif step > 1:
                    state = FileState.BUSY if step == 2 else FileState.SUCCESS
                    assert inputs.on_final(entry, Report(state))
            for each in inputs.lists.values():
                each.flush()
            kill(inputs)
            cut_off(Path(f"{base}.journal"), cut)
        inputs = next_life(base.parent)
        results = results_in_journal(base)
        for entry in available(inputs):
            assert results.setdefault(entry.id.number, "SUCCESS") == "SUCCESS"
            assert inputs.on_final(entry, Report(FileState.SUCCESS))
        busy = Path(f"{base}.busy")
        records = busy.read_bytes().split(separator_of(base))[:-1] if busy.exists() else []
        inputs.settle()

        assert inputs.lists == {}
        assert results.keys() == expected.keys()
        assert len(records) == list(results.values()).count("BUSY")
        left_over = set(os.listdir(directory))
        assert left_over - {f"{name}.rejected", f"{name}.busy"} == {f"{name}.done"}
        assert Path(f"{base}.done").read_bytes() == contents


def separator_of(base: Path) -> bytes:
    return b"\0" if base.name.endswith("0") else b"\n"


def valid_entries(content: bytes, base: Path) -> dict[int, bytes]:
    """`{number of the record: path}`, in the slow and simple way."""
    found = {}
    for number, record in enumerate(content.split(separator_of(base))):
        if separator_of(base) == b"\n" and record.endswith(b"\r"):
            record = record[:-1]
        try:
            found[number] = RULES.parse(record)[1]
        except Rejected:
            continue
    return found


def next_life(directory: Path) -> Inputs:
    inputs = Inputs(directory, RULES, settle_s=0)
    for base in inputs.leftovers():
        inputs.admit(load_again(base, RULES))
    for base in inputs.waiting(0):
        inputs.admit(load(base, RULES))
    return inputs


def available(inputs: Inputs) -> list[Entry]:
    """Everything that is to be done: what was in flight, and the rest."""
    found = [entry for each in inputs.lists.values() for entry, _ in each.flights()]
    for source in list(inputs.left()):
        found += inputs.take(source, 10**6, 0)
    return found


def results_in_journal(base: Path) -> dict[int, str]:
    found: dict[int, str] = {}
    journal = Path(f"{base}.journal")
    if journal.exists():
        for line in read_lines(journal):
            words = line.split()
            if words[0] == b"=":
                assert int(words[1]) not in found
                found[int(words[1])] = words[3].decode()
    return found


def kill(inputs: Inputs) -> None:
    for each in inputs.lists.values():
        each.close()


def cut_off(file: Path, length: int) -> None:
    """Leave out so many bytes of the end, but not of the first line."""
    content = file.read_bytes()
    file.write_bytes(content[: max(content.index(b"\n") + 1, len(content) - length)])
