from __future__ import annotations

import errno
import gzip
import json
import logging
import os
import signal
from collections.abc import Callable, Mapping
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from migration_builders import AtOnce

from cyclone.base_task import BaseTask
from cyclone.errors import AlreadyRunning, ConfigError, CycloneError
from cyclone.ini import Ini
from cyclone.lustre.migrate_task import LustreOstMigrateTask, MigrationResult
from cyclone.lustre.migration import generator as module
from cyclone.lustre.migration import journal
from cyclone.lustre.migration.background import Threads
from cyclone.lustre.migration.fill import Level
from cyclone.lustre.migration.generator import LustreOstMigrationTaskGenerator
from cyclone.lustre.migration.input_list import load
from cyclone.lustre.migration.orders import Orders
from cyclone.lustre.migration.verdict import FileState
from cyclone.lustre.migration_record import MigrationOst
from cyclone.lustre.ost_state_task import OstStateTask
from cyclone.plugins import load_class
from cyclone.process.pid_file import PidFile
from cyclone.record import encode
from cyclone.task_generator import Result, TaskGenerator

TASKS = """<tasks>
  <task name="EmptyTask"><class module="task.empty_task" name="EmptyTask"/></task>
  <task name="Migrate"><class module="cyclone.lustre.migrate_task" name="LustreOstMigrateTask"/>
    <property><filename/><source_ost/><target_ost/><block>no</block></property></task>
  <task name="Blocking"><class module="cyclone.lustre.migrate_task" name="LustreOstMigrateTask"/>
    <property><filename/><source_ost/><target_ost/><block>true</block></property></task>
</tasks>"""

Keys = Mapping[tuple[str, str], object]


class Site:
    """A directory with everything in it, and generators that work there one after the other."""

    def __init__(self, directory: Path, desk: Any) -> None:
        self.directory, self.desk = directory, desk
        self.inputs = directory / "Input"
        self.inputs.mkdir()
        (directory / "tasks.xml").write_text(TASKS)
        self.keys: dict[tuple[str, str], str] = {
            ("control", "local_mode"): "yes",
            ("control.local_mode", "num_osts"): "20",
            ("task", "task_file"): str(directory / "tasks.xml"),
            ("task", "task_name"): "Migrate",
            ("migration", "input_dir"): str(self.inputs),
            ("migration", "ost_fill_level_threshold_source"): "0",
            ("migration", "ost_fill_level_threshold_target"): "100",
            ("migration", "ost_targets"): "10-19",
            ("migration", "stop_when_done"): "yes",
            ("migration", "settle_time"): "0",
            ("lustre", "fs_path"): "/lustre",
        }

    def put(self, name: str, *lines: str) -> Path:
        file = self.inputs / name
        file.write_bytes("".join(f"{line}\n" for line in lines).encode())
        return file

    def ini(self, keys: Keys = {}) -> Ini:  # noqa: B006  it is only read
        sections: dict[str, dict[str, str]] = {}
        for (section, key), value in {**self.keys, **keys}.items():
            sections.setdefault(section, {})[key] = str(value)
        file = self.directory / "migration.conf"
        lines = [
            line for name, values in sections.items()
            for line in [f"[{name}]", *(f"{key} = {value}" for key, value in values.items())]
        ]  # fmt: skip
        file.write_text("\n".join(lines))
        return Ini.read(file)

    def generator(self, **migration: object) -> LustreOstMigrationTaskGenerator:
        """With these keys of [migration] besides."""
        made = LustreOstMigrationTaskGenerator(
            self.ini({("migration", key): value for key, value in migration.items()})
        )
        made.background = AtOnce()
        made.monotonic = made.wall = lambda: self.desk.now  # type: ignore[method-assign]
        made.validate_config()
        made._attach(self.desk)
        return made

    def run(self, **migration: object) -> LustreOstMigrationTaskGenerator:
        made = self.generator(**migration)
        made.run()
        return made

    def names(self) -> set[str]:
        return {name for name in os.listdir(self.inputs) if not name.startswith(".")}


@pytest.fixture
def site(tmp_path: Path, desk: Any) -> Site:
    return Site(tmp_path, desk)


@pytest.fixture(autouse=True)
def _logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def moved(
    task: BaseTask, state: str = "SUCCESS", reason: str = "", failure: str = "", size: int = 0
) -> MigrationResult:
    assert isinstance(task, LustreOstMigrateTask)
    return MigrationResult(
        state=FileState(state), reason=reason, failure=failure, source=task.source_ost, target=task.target_ost,
        actual=task.target_ost, bytes=size,
    )  # fmt: skip


def routes(desk: Any) -> list[tuple[str, int, int]]:
    return [(task.filename, task.source_ost, task.target_ost) for task in desk.submitted]


def lines(source: int, count: int) -> list[str]:
    return [f"{source} /lustre/{source}/{number}" for number in range(count)]


def burdens(task: BaseTask) -> list[Any]:
    assert isinstance(task, LustreOstMigrateTask)
    source, target = task.source_ost, task.target_ost
    return [("source", source), ("target", target), ("pair", source, target), "all"]


def with_levels(monkeypatch: pytest.MonkeyPatch, levels: Callable[[], Mapping[int, Level]]) -> None:
    monkeypatch.setattr(module, "simulate", lambda osts, seed: levels)


# From lists to tasks.


def test_every_entry_becomes_a_task_from_its_ost_to_a_target(site: Site, desk: Any) -> None:
    site.put("a.input", "3 /lustre/x", "4 /lustre/y z", "3 /lustre/w")

    site.run()

    assert [(name, source) for name, source, _ in routes(desk)] == [
        ("/lustre/x", 3), ("/lustre/y z", 4), ("/lustre/w", 3),
    ]  # fmt: skip
    assert all(10 <= target < 20 for _, _, target in routes(desk))
    assert site.names() == {"a.input.done"}


def test_a_name_that_is_not_unicode_arrives_as_it_is(site: Site, desk: Any) -> None:
    (site.inputs / "a.input").write_bytes(b"3 /lustre/\xff|x\n")

    site.run()

    (task,) = desk.submitted
    assert os.fsencode(task.filename) == b"/lustre/\xff|x"


def test_any_task_will_do_in_a_simulation(site: Site, desk: Any) -> None:
    site.put("a.input", *lines(3, 5))
    site.keys["task", "task_name"] = "EmptyTask"

    site.run()

    assert len(desk.submitted) == 5
    assert site.names() == {"a.input.done"}


def test_every_task_has_a_tid_of_its_own_that_names_list_entry_and_try(site: Site, desk: Any) -> None:
    site.put("a.input", *lines(3, 2))
    answers = ["BUSY", "SUCCESS", "SUCCESS"]
    desk.answer = lambda task: moved(task, answers.pop(0))

    site.run(retry_delay=1)

    tids = [task.tid for task in desk.submitted]
    list_id = tids[0].split("-")[1]
    assert tids == [f"mig-{list_id}-0-0", f"mig-{list_id}-1-0", f"mig-{list_id}-0-1"]


def test_new_lists_are_found_while_it_runs(site: Site, desk: Any) -> None:
    site.put("a.input", *lines(3, 1))

    def script() -> None:
        if len(desk.submitted) == 1:
            site.put("b.input", *lines(4, 1))
        if site.names() == {"a.input.done", "b.input.done"}:
            desk.stopping = True

    desk.script = script
    site.run(stop_when_done="no")

    assert [source for _, source, _ in routes(desk)] == [3, 4]


def test_entries_of_an_ost_that_is_unknown_wait_and_are_told(
    site: Site, desk: Any, caplog: pytest.LogCaptureFixture
) -> None:
    site.put("a.input", "3 /lustre/x", "110 /lustre/y")

    site.run()

    assert [source for _, source, _ in routes(desk)] == [3]
    assert "a.input.active" in site.names()
    assert "source=110 left=1 because='fill level unknown'" in caplog.text
    assert caplog.text.count("locked ost=110 role=source reason=fill level unknown") == 1


def test_bad_lines_are_rejected_and_the_others_are_done(site: Site, desk: Any) -> None:
    site.put("a.input", "x", "3 /lustre/x", "3 /elsewhere")

    site.run()

    assert len(desk.submitted) == 1
    assert site.names() == {"a.input.done", "a.input.rejected"}


def test_a_list_that_cannot_be_read_is_told_once_and_taken_when_it_was_mended(
    site: Site, desk: Any, caplog: pytest.LogCaptureFixture
) -> None:
    site.put("a.input.gz", "3 /lustre/x")
    site.put("b.input", *lines(3, 9))
    made = site.generator()
    operator = Operator(desk, made)
    told: list[Any] = []
    operator.when(lambda: len(desk.submitted) == 5, lambda: told.append(operator.tell("status")["untaken"]))
    operator.when(
        lambda: True,
        lambda: (site.inputs / "a.input.gz").write_bytes(gzip.compress(b"4 /lustre/x\n")) and None,
    )

    made.run()

    assert list(told[0]) == ["a.input.gz"]
    assert caplog.text.count("a list cannot be read") == 1
    assert site.names() == {"a.input.gz.done", "b.input.done"}


def test_a_run_that_leaves_a_list_because_it_cannot_be_read_ends_with_an_error(
    site: Site, desk: Any, caplog: pytest.LogCaptureFixture
) -> None:
    site.put("a.input.gz", "3 /lustre/x")
    site.put("b.input", "3 /lustre/x")

    with pytest.raises(CycloneError, match=r"lists are not done: a\.input\.gz"):
        site.run(report_file=site.directory / "report.json")

    assert site.names() == {"a.input.gz", "b.input.done"}
    assert "migration ended list=a.input.gz not done" in caplog.text
    assert list(json.loads((site.directory / "report.json").read_text())["untaken"]) == ["a.input.gz"]


def test_a_list_for_which_there_is_no_room_is_taken_when_there_is(
    site: Site, desk: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    really = module.Inputs.admit

    def admit(self: Any, loaded: Any) -> Any:
        if desk.now < 1200:
            raise OSError(errno.ENOSPC, "No space left on device")
        return really(self, loaded)

    monkeypatch.setattr(module.Inputs, "admit", admit)
    site.put("a.input", *lines(3, 2))

    def script() -> None:
        desk.stopping = site.names() == {"a.input.done"}

    desk.script = script
    site.run(stop_when_done="no")

    assert caplog.text.count("a list cannot be taken for now") == 1
    assert len(desk.submitted) == 2


def test_a_list_of_a_former_life_for_which_there_is_no_room_is_taken_when_there_is(
    site: Site, desk: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site.put("a.input", *lines(3, 4))
    desk.answer = lambda _: desk.WAIT

    def script() -> None:
        desk.stopping = len(desk.open) == 1

    desk.script = script
    site.run()
    desk.stopping, desk.answer = False, moved
    really = module.Inputs.admit
    full_until = desk.now + 200

    def admit(self: Any, loaded: Any) -> Any:
        if desk.now < full_until:
            raise OSError(errno.ENOSPC, "No space left on device")
        return really(self, loaded)

    def until_done() -> None:
        desk.stopping = site.names() == {"a.input.done"}

    monkeypatch.setattr(module.Inputs, "admit", admit)
    desk.script = until_done
    site.run(stop_when_done="no")

    assert caplog.text.count("a list cannot be taken for now") == 1
    assert len(desk.recorded) == 4


# Limits.


@pytest.mark.parametrize(
    ("limits", "allowed"),
    [
        ({}, {"source": 1, "target": 1, "pair": 1}),
        ({"source_max_tasks": 3, "target_max_tasks": 2}, {"source": 3, "target": 2, "pair": 1}),
        (
            {"source_max_tasks": 4, "target_max_tasks": 4, "pair_max_tasks": 2},
            {"source": 4, "target": 4, "pair": 2},
        ),
        ({"max_tasks": 2}, {"all": 2}),
    ],
)
def test_limits_are_used_and_not_exceeded(
    site: Site, desk: Any, limits: dict[str, int], allowed: dict[str, int]
) -> None:
    for source in range(8):
        site.put(f"{source}.input", *lines(source, 12))
    desk.burdens, desk.answer = burdens, moved

    site.run(**limits, ost_targets="10-13")

    most: dict[str, int] = {}
    for key, count in desk.most.items():
        kind = key if isinstance(key, str) else key[0]
        most[kind] = max(most.get(kind, 0), count)
    assert {kind: most[kind] for kind in allowed} == allowed
    assert len(desk.submitted) == 96


def test_bounds_of_single_osts_are_kept(site: Site, desk: Any) -> None:
    site.put("a.input", *lines(3, 20), *lines(4, 20))
    desk.burdens, desk.answer = burdens, moved
    site.keys["migration.limits", "3,5"] = "source:4"

    site.run()

    assert (desk.most["source", 3], desk.most["source", 4]) == (4, 1)


def test_servers_are_not_burdened_beyond_their_limit(site: Site, desk: Any) -> None:
    site.put("a.input", *(line for source in range(6) for line in lines(source, 5)))
    (site.directory / "oss.map").write_text("oss1 0-5  # the old ones\n\noss2 10-13\n")
    desk.burdens, desk.answer = burdens, moved

    site.run(oss_max_tasks=2, oss_map=site.directory / "oss.map", ost_targets="10-13")

    assert desk.most["all"] == 2
    assert len(desk.submitted) == 30


# Fill levels.


def test_a_source_is_left_at_its_threshold_and_the_run_ends_with_a_report(
    site: Site, desk: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site.put("a.input", *lines(3, 10))
    sizes = iter(range(100))
    with_levels(monkeypatch, lambda: {3: Level(60.0 - 5 * len(desk.recorded)), 10: Level(50)})
    desk.answer = lambda task: moved(task, size=next(sizes))
    site.keys["control.threshold", "update_fill_level"] = "1"
    desk.task_s = 5

    made = site.run(ost_fill_level_threshold_source=40, report_file=site.directory / "report.json")

    report = json.loads((site.directory / "report.json").read_text())
    done = len(desk.submitted)
    assert 4 <= done <= 6
    assert report["left"] == 10 - done
    assert report["sources"]["3"]["reason"].startswith("not above the threshold")
    assert report["results"] == {"SUCCESS": {"": done}}
    assert "migration ended files=" in caplog.text
    assert made._inputs.lists == {}
    assert "a.input.active" in site.names()


def test_fill_levels_that_cannot_be_had_stop_nothing_but_new_tasks(
    site: Site, desk: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site.put("a.input", *lines(3, 2))
    begun = desk.now

    def measure() -> Mapping[int, Level]:
        if desk.now < begun + 500:
            raise CycloneError("lfs df: it does not answer")
        return {3: Level(60), 10: Level(50)}

    with_levels(monkeypatch, measure)

    site.run()

    assert caplog.text.count("fill levels cannot be had: lfs df: it does not answer") == 1
    assert "fill levels can be had again" in caplog.text
    assert site.names() == {"a.input.done"}


def test_simulated_levels_are_the_same_for_the_same_seed() -> None:
    one, same, other = (module.simulate(10, seed) for seed in (1, 1, 2))

    first = [one() for _ in range(3)]

    assert [same() for _ in range(3)] == first
    assert [other() for _ in range(3)] != first
    assert all(40 <= level.percent <= 60 for levels in first for level in levels.values())
    assert first[0].keys() == set(range(10))


# What comes of tasks.


def test_files_that_stay_busy_end_in_a_list_of_their_own(site: Site, desk: Any) -> None:
    site.put("a.input", *lines(3, 2))
    desk.answer = lambda task: moved(
        task, "BUSY" if task.filename.endswith("/0") else "SUCCESS", "EBUSY", "busy"
    )

    site.run(retry_max=2, retry_delay=100)

    assert site.names() == {"a.input.done", "a.input.busy"}
    assert (site.inputs / "a.input.busy").read_text() == "3 /lustre/3/0\n"
    assert len(desk.submitted) == 4
    assert desk.now > 1200


def test_between_two_tries_of_a_file_lies_the_delay_also_if_it_waits_on_disk(site: Site, desk: Any) -> None:
    site.put("a.input", *lines(3, 60))
    tried: dict[str, list[float]] = {}

    def answer(task: BaseTask) -> Any:
        tried.setdefault(task.filename, []).append(desk.now)
        return moved(task, "BUSY", "EBUSY", "busy")

    desk.answer = answer
    site.run(cache_entries_per_ost=20, retry_delay=300, retry_max=2)

    assert len(tried) == 60
    for moments in tried.values():
        assert len(moments) == 3
        assert all(300 <= later - earlier < 400 for earlier, later in pairwise(moments))


def test_a_file_has_one_task_also_if_its_list_was_changed_between_two_lives(site: Site, desk: Any) -> None:
    file = site.put("a.input", *lines(3, 3))
    desk.answer, desk.burdens = lambda _: desk.WAIT, lambda task: [task.filename]

    def until_all_are_in_flight() -> None:
        desk.stopping = len(desk.open) == 3

    desk.script = until_all_are_in_flight
    site.run(source_max_tasks=9)
    with open(f"{file}.active", "a") as active:
        active.write("3 /lustre/new\n")
    desk.stopping, desk.script = False, lambda: None
    asked = desk.asked
    desk.answer = lambda task: desk.WAIT if desk.asked < asked + 10 else moved(task)
    site.run(source_max_tasks=9)

    assert set(desk.most.values()) == {1}
    assert "/lustre/new" in {task.filename for task in desk.submitted}
    assert site.names() == {"a.input.done"}


def test_what_cannot_wait_on_disk_waits_in_memory(
    site: Site, desk: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    site.put("a.input", *lines(3, 60))
    monkeypatch.setattr(module.Inputs, "put_away", full)
    desk.answer = lambda task: moved(task, "BUSY", "EBUSY", "busy")
    site.run(cache_entries_per_ost=20, retry_max=2)

    assert len(desk.submitted) == 180
    assert caplog.text.count("entries that are tried again are kept in memory") == 1
    assert site.names() == {"a.input.done", "a.input.busy"}


@pytest.mark.parametrize(
    ("state", "outcome", "tries"),
    [
        ("failed", "timed_out", 3),
        ("quarantined", "lost", 3),
        ("cancelled", "cancelled", 1),
    ],
)
def test_a_task_that_does_not_succeed_is_billed_to_its_file(
    site: Site, desk: Any, state: str, outcome: str, tries: int
) -> None:
    site.put("a.input", *lines(3, 1))
    desk.answer = lambda task: Result(task.tid, state, outcome, 0, None, "Traceback\nKeyError: 'x'", 1, 0.1)

    site.run(retry_max=2, retry_delay=1)

    assert len(desk.submitted) == tries
    assert site.names() == {"a.input.done", "a.input.failed"}


def test_a_task_that_raises_ends_the_run_for_the_next_file_would_fare_no_better(
    site: Site, desk: Any
) -> None:
    site.put("a.input", *lines(3, 5))
    problem = "Traceback\nModuleNotFoundError: No module named 'lfsutils'"
    desk.answer = lambda task: Result(task.tid, "failed", "raised", 0, None, problem, 1, 0.1)

    with pytest.raises(CycloneError, match="raised: ModuleNotFoundError: No module named 'lfsutils'"):
        site.run()

    assert len(desk.submitted) == 1


def test_the_report_tells_of_each_list_also_of_one_without_an_entry(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.put("a.input", *lines(3, 2), "nonsense")
    site.put("b.input", "nonsense", "more of it")
    told = site.directory / "report.json"

    site.run(report_file=told)

    lists = {each["name"]: each for each in json.loads(told.read_text())["lists"]}
    assert [(lists[name]["entries"], lists[name]["rejected"]) for name in ("a.input", "b.input")] == [
        (2, 1),
        (0, 2),
    ]
    assert lists["a.input"]["results"] == {"SUCCESS": 2}
    assert "a list holds no entry that could be used list=b.input rejected=2" in caplog.text


def test_what_is_called_like_a_list_and_is_none_is_told_once(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.put("a.input", *lines(3, 1))
    (site.inputs / "b.input").symlink_to("nowhere")
    (site.inputs / "c.input").mkdir()

    site.run()

    told = [record.getMessage() for record in caplog.records if "not a list" in record.getMessage()]
    assert [line.rpartition("/")[2] for line in told] == ["b.input", "c.input"]


def test_a_file_that_is_not_what_it_was_ends_the_run_with_an_error(
    site: Site, desk: Any, caplog: pytest.LogCaptureFixture
) -> None:
    site.put("a.input", *lines(3, 5), *lines(4, 5))
    desk.answer = lambda task: (
        moved(task, "FAILED", "verify", "permanent") if task.source_ost == 3 else moved(task)
    )

    with pytest.raises(CycloneError, match="verify: /lustre/3/0"):
        site.run()

    assert len(desk.submitted) <= 3
    assert desk.open == {}
    assert "no more tasks are started" in caplog.text
    assert {"a.input.active", "a.input.failed"} <= site.names()


def test_too_many_failures_end_the_run_with_an_error(site: Site, desk: Any) -> None:
    site.put("a.input", *lines(3, 9))
    desk.answer = lambda task: moved(task, "FAILED", "EACCES", "permanent")

    with pytest.raises(CycloneError, match="3 files have failed"):
        site.run(max_failures=3)

    assert len(desk.submitted) == 3


def test_failures_of_a_former_life_do_not_count(site: Site, desk: Any) -> None:
    site.put("a.input", *lines(3, 9))
    desk.answer = lambda task: moved(task, "FAILED", "EACCES", "permanent")
    with pytest.raises(CycloneError):
        site.run(max_failures=3)

    made = site.generator(max_failures=3)
    Operator(desk, made).when(lambda: True, lambda: made.on_command("resume", {}))
    with pytest.raises(CycloneError, match="3 files have failed"):
        made.run()

    assert len(desk.submitted) == 6


def test_an_end_that_is_told_twice_or_belongs_to_nobody_is_ignored(
    site: Site, desk: Any, caplog: pytest.LogCaptureFixture
) -> None:
    site.put("a.input", *lines(3, 3))
    told: list[Result] = []

    def answer(task: BaseTask) -> Any:
        result = Result(task.tid or "", "succeeded", "succeeded", 0, moved(task), "", 1, 0.1)
        desk._ended += [*told, Result("of somebody else", "failed", "raised", 0, None, "", 1, 0.1)]
        told[:] = [result]
        return result

    desk.answer = answer
    site.run()

    assert site.names() == {"a.input.done"}
    assert caplog.text.count("is ignored tid=of somebody else") == 3
    assert caplog.text.count("is ignored tid=mig-") == 2


def test_a_dry_run_asks_the_task_for_one_and_changes_no_name(
    site: Site, desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.keys["control", "local_mode"] = "no"
    site.keys["lustre", "fs_path"] = str(site.directory)
    site.keys["lustre", "lfs_bin"] = "/bin/true"
    site.put("a.input", f"3 {site.directory}/x")
    desk.answer = lambda task: moved(task, "SKIPPED", "dry-run", size=5)
    monkeypatch.setattr(module, "measure_lustre", lambda lfs, path: lambda: {3: Level(60), 10: Level(50)})

    made = site.run(dry_run="yes")

    (task,) = desk.submitted
    assert task.dry_run
    assert site.names() == {"a.input"}
    assert made._statistics.bytes == {"SKIPPED": 5}


def test_a_dry_run_tells_why_records_are_rejected(
    site: Site, desk: Any, caplog: pytest.LogCaptureFixture
) -> None:
    site.put("a.input", *lines(3, 1), "rubbish")

    site.run(dry_run="yes")

    assert "rejected record: 2\tdoes not begin with the index of an OST\trubbish" in caplog.text


def test_an_ost_that_is_left_alone_is_told_at_once(
    site: Site, desk: Any, caplog: pytest.LogCaptureFixture
) -> None:
    site.keys["control.threshold", "update_fill_level"] = "3600"
    site.put("a.input", *lines(3, 4))
    answers = [("FAILED", "EIO", "ost")] * 3
    desk.answer = lambda task: moved(task, *(answers.pop() if answers else ()))

    site.run()

    assert caplog.text.count("locked ost=3 role=source reason=left alone after trouble") == 1
    assert caplog.text.count("may take part again ost=3 role=source") == 1


# Other lives.


def test_the_next_life_goes_on_where_the_last_one_was_stopped(site: Site, desk: Any) -> None:
    site.put("a.input", *lines(3, 20))
    desk.answer = moved

    def script() -> None:
        desk.stopping = len(desk.submitted) >= 7

    desk.script = script
    site.run()
    first = len(desk.submitted)
    desk.script, desk.stopping = (lambda: None), False
    site.run()

    names = [name for name, _, _ in routes(desk)]
    assert first == 7
    assert len(desk.recorded) == 20
    assert len(set(names)) == 20
    assert len(names) == 21  # the one that was in flight was handed in again, and not executed again
    assert site.names() == {"a.input.done"}


def test_what_was_in_flight_is_handed_in_again_exactly_as_it_was_and_counts(site: Site, desk: Any) -> None:
    site.put("a.input", *lines(3, 5), *lines(4, 5))
    desk.burdens = burdens
    desk.answer = lambda task: moved(task) if desk.now > 2000 else desk.WAIT

    def script() -> None:
        desk.stopping = len(desk.open) == 2 and desk.now < 2000

    desk.script = script
    site.run()
    before = routes(desk)
    desk.submitted.clear()
    desk.stopping, desk.now = False, 3000.0
    site.run(ost_targets="15")

    assert routes(desk)[:2] == before
    assert {target for _, _, target in routes(desk)[2:]} == {15}
    assert desk.most["source", 3] == desk.most["source", 4] == 1
    assert site.names() == {"a.input.done"}


def test_a_retry_keeps_its_number_in_the_next_life(site: Site, desk: Any) -> None:
    site.put("a.input", *lines(3, 1))
    desk.answer = lambda task: moved(task, "BUSY", "EBUSY", "busy")

    def script() -> None:
        desk.stopping = len(desk.submitted) == 2 and not desk.open

    desk.script = script
    site.run(retry_delay=10, retry_max=3)
    desk.script, desk.stopping = (lambda: None), False
    site.run(retry_delay=10, retry_max=3)

    tries = [task.tid.rpartition("-")[2] for task in desk.submitted]
    assert tries == ["0", "1", "2", "3"]
    assert len(desk.recorded) == 4
    assert site.names() == {"a.input.done", "a.input.busy"}


def test_only_one_generator_works_in_a_directory(site: Site) -> None:
    made = site.generator()

    with PidFile(site.inputs / ".cyclone-migration.pid"), pytest.raises(AlreadyRunning):
        made.run()


# Commands.


class Operator:
    """Gives commands while the generator waits."""

    def __init__(self, desk: Any, made: LustreOstMigrationTaskGenerator) -> None:
        self.desk, self.made = desk, made
        self.steps: list[tuple[Callable[[], bool], Callable[[], None]]] = []
        desk.script = self._look

    def when(self, condition: Callable[[], bool], act: Callable[[], None]) -> None:
        """Steps are taken one after the other."""
        self.steps.append((condition, act))

    def tell(self, name: str, **arguments: str) -> Any:
        return self.made.on_command(name, arguments)

    def _look(self) -> None:
        if self.steps and self.steps[0][0]():
            self.steps.pop(0)[1]()


def test_paused_it_starts_nothing_until_it_is_resumed(site: Site, desk: Any) -> None:
    site.put("a.input", *lines(3, 4))
    made = site.generator()
    operator = Operator(desk, made)
    counts: list[int] = []
    operator.when(
        lambda: len(desk.submitted) == 2, lambda: counts.append(operator.tell("pause")["in_flight"])
    )
    paused_at = [0.0]
    operator.when(lambda: not desk.open, lambda: paused_at.__setitem__(0, desk.now))
    operator.when(lambda: desk.now > paused_at[0] + 500, lambda: counts.append(len(desk.submitted)))
    operator.when(lambda: True, lambda: operator.tell("resume"))

    made.run()

    assert counts == [1, 2]
    assert len(desk.submitted) == 4


def test_drained_it_tells_when_nothing_is_in_flight(
    site: Site, desk: Any, caplog: pytest.LogCaptureFixture
) -> None:
    site.put("a.input", *lines(3, 4), *lines(4, 4))
    made = site.generator()
    operator = Operator(desk, made)
    operator.when(lambda: len(desk.submitted) == 2, lambda: operator.tell("drain"))
    operator.when(lambda: "drained: no task is in flight" in caplog.text, lambda: operator.tell("resume"))

    made.run()

    assert len(desk.submitted) == 8
    assert caplog.text.count("drained: no task is in flight") == 1


def test_stopped_it_ends_when_nothing_is_in_flight_and_its_lists_wait(site: Site, desk: Any) -> None:
    site.put("a.input", *lines(3, 9))
    made = site.generator(stop_when_done="no")
    operator = Operator(desk, made)
    operator.when(lambda: len(desk.submitted) == 3, lambda: operator.tell("stop"))

    made.run()

    assert (len(desk.submitted), desk.open) == (3, {})
    assert "a.input.active" in site.names()


def test_limits_and_targets_change_while_it_runs(site: Site, desk: Any) -> None:
    site.put("a.input", *lines(3, 30))
    desk.burdens, desk.answer = burdens, moved
    made = site.generator(ost_targets="10")
    operator = Operator(desk, made)
    told: list[Any] = []
    operator.when(
        lambda: len(desk.submitted) == 5,
        lambda: told.append(
            operator.tell("limits", source_max_tasks="3", ost_targets="11-15", pair_max_tasks="1")
        ),
    )

    made.run()

    assert told[0]["source_max_tasks"] == "3"
    assert desk.most["source", 3] == 3
    assert {target for _, _, target in routes(desk)[:5]} == {10}
    assert 10 not in {target for _, _, target in routes(desk)[6:]}


def test_a_wrong_limit_changes_nothing(site: Site, desk: Any) -> None:
    site.put("a.input", *lines(3, 3))
    made = site.generator()
    operator = Operator(desk, made)
    refusals: list[str] = []

    def try_all() -> None:
        before = operator.tell("limits")
        for arguments in (
            {"source_max_tasks": "0"}, {"sources_max_tasks": "1"}, {"ost_targets": ""}, {"input_dir": "/tmp"},
            {"source_max_tasks": "2", "time_window": "x"},
        ):  # fmt: skip
            with pytest.raises(ValueError, match="nothing was changed") as caught:
                operator.tell("limits", **arguments)
            refusals.append(str(caught.value))
        assert operator.tell("limits") == before

    operator.when(lambda: True, try_all)
    made.run()

    assert len(refusals) == 5
    assert "cannot be changed while the migration runs" in refusals[3]


def test_the_old_names_of_thresholds_are_understood_everywhere(site: Site, desk: Any) -> None:
    del site.keys["migration", "ost_fill_level_threshold_source"]
    site.keys["migration", "ost_fill_threshold_source"] = "10"
    site.put("a.input", *lines(3, 3))
    made = site.generator()
    operator = Operator(desk, made)
    told: list[Any] = []
    operator.when(lambda: True, lambda: told.append(operator.tell("limits", ost_fill_threshold_source="20")))

    made.run()

    assert made.settings.source_threshold == 20
    assert told[0]["ost_fill_level_threshold_source"] == "20"


def test_an_excluded_ost_is_left_alone_until_it_is_included(site: Site, desk: Any) -> None:
    site.put("a.input", *lines(3, 3), *lines(4, 3))
    made = site.generator(ost_exclude="3")
    operator = Operator(desk, made)
    seen: list[set[int]] = []
    told: list[Any] = []
    operator.when(
        lambda: not desk.open and len(desk.submitted) == 3,
        lambda: seen.append({task.source_ost for task in desk.submitted}),
    )
    operator.when(lambda: True, lambda: told.append(operator.tell("exclude", osts="10-11")))
    operator.when(lambda: True, lambda: told.append(operator.tell("include", osts="3,10-11")))

    made.run()

    assert seen == [{4}]
    assert told == [{"excluded": [3, 10, 11]}, {"excluded": []}]
    assert len(desk.submitted) == 6


def test_busy_files_are_fed_back_when_asked(site: Site, desk: Any) -> None:
    site.put("a.input", *lines(3, 3))
    desk.answer = lambda task: moved(task, "BUSY" if desk.now < 5000 else "SUCCESS", "EBUSY", "busy")
    made = site.generator(retry_max=0, stop_when_done="no")
    operator = Operator(desk, made)
    told: list[Any] = []

    def feed() -> None:
        desk.now = 6000.0
        told.append(operator.tell("retry-busy"))

    operator.when(lambda: "a.input.done" in site.names(), feed)
    operator.when(lambda: "a.busy-1.input.done" in site.names(), lambda: operator.tell("stop"))

    made.run()

    assert told == [{"lists": ["a.busy-1.input"]}]
    assert site.names() == {"a.input.done", "a.busy-1.input.done"}
    assert len(desk.submitted) == 6


def test_a_reload_takes_the_ini_file_and_new_lists(site: Site, desk: Any) -> None:
    site.put("a.input", *lines(3, 2))
    made = site.generator(stop_when_done="no")
    operator = Operator(desk, made)

    def change() -> None:
        site.put("b.input", *lines(4, 1))
        site.ini({("migration", "ost_targets"): "19", ("migration", "stop_when_done"): "yes"})
        assert operator.tell("reload") == {"changed": True}

    operator.when(lambda: "a.input.done" in site.names(), change)
    made.run()

    assert routes(desk)[2] == ("/lustre/4/0", 4, 19)


def test_shorter_intervals_count_at_once(site: Site, desk: Any, caplog: pytest.LogCaptureFixture) -> None:
    site.keys |= {
        ("control.threshold", "update_fill_level"): "3600", ("control.threshold", "print_caches"): "3600",
    }  # fmt: skip
    site.put("a.input", *lines(3, 30))
    desk.task_s = 20
    made = site.generator()
    operator = Operator(desk, made)
    shorter = {("control.threshold", "update_fill_level"): 60, ("control.threshold", "print_caches"): 60}
    operator.when(
        lambda: len(desk.submitted) == 5, lambda: site.ini(shorter) and operator.tell("reload") and None
    )

    made.run()

    assert desk.now < 2000
    assert caplog.text.count("migration running left=") > 5


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (("migration", "ost_targets"), "x", "ost_targets"),
        (("lustre", "fs_path"), "/other", "cannot be changed"),
    ],
)
def test_a_wrong_ini_file_is_not_taken(
    site: Site, desk: Any, key: tuple[str, str], value: str, reason: str
) -> None:
    site.put("a.input", *lines(3, 2))
    made = site.generator()
    operator = Operator(desk, made)

    def change() -> None:
        site.ini({key: value})
        with pytest.raises(ValueError, match=reason):
            operator.tell("reload")

    operator.when(lambda: True, change)
    made.run()

    assert made.settings.targets == frozenset(range(10, 20))
    assert operator.steps == []


def test_hanging_up_reloads(site: Site, desk: Any, caplog: pytest.LogCaptureFixture) -> None:
    site.put("a.input", *lines(3, 2))
    made = site.generator()
    operator = Operator(desk, made)
    before = signal.getsignal(signal.SIGHUP)
    operator.when(lambda: True, lambda: site.ini({("migration", "ost_targets"): "17"}) and None)
    operator.when(lambda: True, lambda: os.kill(os.getpid(), signal.SIGHUP))

    made.run()

    assert made.settings.targets == {17}
    assert signal.getsignal(signal.SIGHUP) is before


def test_the_status_can_be_said_in_json_and_tells_everything(site: Site, desk: Any) -> None:
    site.put("a.input", *lines(3, 5), *lines(44, 2), "rubbish")
    desk.answer = lambda task: moved(task, size=1000)
    made = site.generator()
    operator = Operator(desk, made)
    told: list[Any] = []
    operator.when(lambda: len(desk.submitted) == 3, lambda: told.append(operator.tell("status")))

    made.run()

    status = json.loads(json.dumps(told[0]))
    assert status["state"] == "running"
    assert status["results"] == {"SUCCESS": {"": 2}}
    assert (status["files"], status["left"]) == (2, 5)
    assert status["in_flight"][0]["path"] == "/lustre/3/2"
    assert status["sources"]["3"]["left"] == 3
    assert status["osts"]["3"]["source"]["state"] == "blocked"
    assert {"ost": 44, "role": "source", "reason": "fill level unknown"} in status["locked"]
    assert status["lists"][0]["rejected"] == 1
    assert status["speed"]["overall"]["files_per_s"] > 0
    assert status["eta_s"] > 0


def test_unknown_commands_and_arguments_are_refused(site: Site, desk: Any) -> None:
    site.put("a.input", *lines(3, 1))
    made = site.generator()
    with pytest.raises(ValueError, match="ask again later"):
        made.on_command("status", {})
    operator = Operator(desk, made)
    refused: list[str] = []

    def try_all() -> None:
        for name, arguments in (
            ("explode", {}), ("pause", {"x": "1"}), ("exclude", {}), ("exclude", {"osts": "x"}), ("exclude", {"ost": "1"}),
        ):  # fmt: skip
            with pytest.raises(ValueError, match="expected"):
                made.on_command(name, arguments)
            refused.append(name)

    operator.when(lambda: True, try_all)
    made.run()

    assert len(refused) == 5
    assert set(made.commands) == {
        "status", "pause", "resume", "drain", "reload", "limits", "retry-busy", "retry-failed", "exclude", "include", "stop",
    }  # fmt: skip


# Orders that outlive a process.


def next_life(site: Site, desk: Any) -> tuple[LustreOstMigrationTaskGenerator, Operator]:
    desk.stopping = False
    made = site.generator()
    return made, Operator(desk, made)


def stopping(desk: Any) -> Callable[[], None]:
    return lambda: setattr(desk, "stopping", True)


@pytest.mark.parametrize("order", ["pause", "drain"])
def test_paused_in_one_life_it_is_paused_in_the_next_until_it_is_resumed(
    site: Site, desk: Any, order: str
) -> None:
    site.put("a.input", *lines(3, 6))
    made, operator = next_life(site, desk)
    operator.when(lambda: len(desk.recorded) == 3, lambda: operator.tell(order))
    operator.when(lambda: not desk.open, stopping(desk))
    made.run()
    done = len(desk.recorded)

    made, operator = next_life(site, desk)
    counts: list[int] = []
    later = desk.now + 500
    operator.when(lambda: desk.now > later, lambda: counts.append(len(desk.recorded)))
    operator.when(lambda: True, lambda: operator.tell("resume"))
    made.run()
    made, operator = next_life(site, desk)
    site.put("b.input", *lines(4, 1))
    made.run()

    assert counts == [done]
    assert done < 6
    assert not (site.inputs / ".cyclone-migration.orders").exists()
    assert len(desk.recorded) == 7


def test_after_a_life_that_was_stopped_nothing_moves_before_somebody_resumes(
    site: Site, desk: Any, caplog: pytest.LogCaptureFixture
) -> None:
    site.put("a.input", *lines(3, 5))
    desk.answer = lambda task: moved(task, "FAILED", "verify", "permanent")
    with pytest.raises(CycloneError, match="verify"):
        site.run()
    desk.answer = moved

    made, operator = next_life(site, desk)
    later = desk.now + 500
    told: list[Any] = []
    operator.when(lambda: desk.now > later, lambda: told.append(operator.tell("status")))
    operator.when(lambda: True, lambda: operator.tell("resume"))
    made.run()

    assert told[0]["files"] == 0
    assert "a former life was stopped: verify: /lustre/3/0" in told[0]["reason"]
    assert len(desk.recorded) == 5


def test_what_stopped_a_life_is_kept_as_soon_as_there_is_room(
    site: Site, desk: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    really = Orders.write
    calls = 0

    def full_once(self: Orders, file: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        really(self, file)

    monkeypatch.setattr(Orders, "write", full_once)
    site.put("a.input", *lines(3, 5))
    desk.answer = lambda task: moved(task, "FAILED", "verify", "permanent")
    with pytest.raises(CycloneError, match="verify"):
        site.run()

    kept = Orders.read(site.inputs / ".cyclone-migration.orders")

    assert kept.stopped == "verify: /lustre/3/0"
    assert caplog.text.count("what is ordered cannot be kept") == 1


def test_orders_can_be_read_whatever_lustre_has_told(tmp_path: Path) -> None:
    Orders(stopped="a \udcff in it").write(tmp_path / "orders")

    assert Orders.read(tmp_path / "orders") == Orders(stopped="a \\udcff in it")


@pytest.mark.parametrize(("command", "excluded"), [("exclude", [4, 10]), ("include", [4])])
def test_an_order_about_osts_takes_effect_also_where_the_ini_file_is_wrong_by_now(
    site: Site, desk: Any, command: str, excluded: list[int]
) -> None:
    (site.directory / "oss.map").write_text("oss1 0-19\n")
    site.put("a.input", *lines(3, 6))
    site.keys["migration", "oss_map"] = str(site.directory / "oss.map")
    made = site.generator(ost_exclude="4" if command == "exclude" else "4,10")
    operator = Operator(desk, made)
    told: list[Any] = []
    desk.task_s = 1

    def order() -> None:
        (site.directory / "oss.map").unlink()
        told.append(operator.tell(command, osts="10"))
        told.append(operator.tell("status")["excluded"])

    operator.when(lambda: len(desk.submitted) == 2, order)
    made.run()

    assert told == [{"excluded": excluded}, excluded]
    assert made._mind.plan.excluded == frozenset(excluded)
    assert made._orders.standing.excluded == ({10} if command == "exclude" else frozenset())


def test_an_ost_stays_excluded_after_a_reload_and_a_restart(site: Site, desk: Any) -> None:
    site.put("a.input", *lines(3, 3), *lines(4, 3))
    made, operator = next_life(site, desk)
    told: list[Any] = []
    operator.when(lambda: True, lambda: operator.tell("exclude", osts="3"))
    operator.when(lambda: True, lambda: told.extend(operator.tell(name) for name in ("limits", "status")))
    operator.when(lambda: True, lambda: operator.tell("reload"))
    operator.when(lambda: len(desk.recorded) >= 2, stopping(desk))
    made.run()

    made, operator = next_life(site, desk)
    seen: list[set[int]] = []
    operator.when(
        lambda: not desk.open and len(desk.recorded) > 3,
        lambda: seen.append({task.source_ost for task in desk.submitted[1:]}),
    )
    operator.when(lambda: True, lambda: operator.tell("include", osts="3"))
    made.run()

    assert (told[0]["ost_exclude"], told[1]["excluded"]) == ("3", [3])
    assert seen == [{4}]
    assert len(desk.recorded) == 6


def test_orders_that_cannot_be_read_are_not_taken_for_none(site: Site) -> None:
    (site.inputs / ".cyclone-migration.orders").write_text("{")

    with pytest.raises(ConfigError, match="orders"):
        site.run()


def test_a_dry_run_neither_gives_nor_takes_orders(site: Site, desk: Any) -> None:
    site.put("a.input", *lines(3, 2))
    (site.inputs / ".cyclone-migration.orders").write_text('{"stopped": "verify"}')
    made = site.generator(dry_run="yes")
    operator = Operator(desk, made)
    operator.when(lambda: True, lambda: operator.tell("pause"))
    operator.when(lambda: True, lambda: operator.tell("resume"))

    made.run()

    assert len(desk.submitted) == 2
    assert (site.inputs / ".cyclone-migration.orders").read_text() == '{"stopped": "verify"}'


# Time.


def test_outside_of_its_hours_it_starts_nothing(
    site: Site, desk: Any, caplog: pytest.LogCaptureFixture
) -> None:
    begin = datetime(2026, 3, 10, 19, 50).astimezone()
    desk.now = begin.timestamp()
    site.put("a.input", *lines(3, 3))

    site.run(time_window="20:00-06:00")

    assert desk.now - begin.timestamp() >= 600
    assert desk.now - begin.timestamp() < 700
    assert "the hours of migration have begun" in caplog.text


def test_progress_is_told_at_its_interval(site: Site, desk: Any, caplog: pytest.LogCaptureFixture) -> None:
    site.put("a.input", *lines(3, 10), *lines(77, 2))
    desk.task_s = 20
    desk.answer = moved
    site.keys["control.threshold", "print_caches"] = "60"

    site.run()

    assert 3 <= caplog.text.count("migration running left=") <= 8
    assert "migration left 3:" in caplog.text
    assert "migration locked 77:source" in caplog.text


# Sizes and orders need a look at real files.


@pytest.mark.parametrize(
    ("keys", "order"),
    [
        ({}, ["b", "a", "c"]),
        ({"order": "small_first"}, ["a", "b", "c"]),
        ({"order": "large_first"}, ["c", "b", "a"]),
        ({"min_size": 15, "max_size": "25"}, ["b"]),
    ],
)
def test_files_are_looked_at_for_their_sizes(
    site: Site, desk: Any, monkeypatch: pytest.MonkeyPatch, keys: dict[str, object], order: list[str]
) -> None:
    files = site.directory / "files"
    files.mkdir()
    for name, size in (("a", 10), ("b", 20), ("c", 30)):
        (files / name).write_bytes(b"x" * size)
    site.keys |= {
        ("control", "local_mode"): "no", ("lustre", "fs_path"): str(files), ("lustre", "lfs_bin"): "/bin/true",
    }  # fmt: skip
    monkeypatch.setattr(module, "measure_lustre", lambda lfs, path: lambda: {3: Level(60), 10: Level(50)})
    site.put("x.input", *(f"3 {files / name}" for name in ("b", "a", "c")))
    desk.answer = moved

    made = site.run(**keys)

    assert [Path(name).name for name, _, _ in routes(desk)] == order
    assert made._statistics.files == 3
    assert site.names() == {"x.input.done"}


def test_while_others_are_made_to_wait_only_one_file_with_links_is_moved_at_a_time(
    site: Site, desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = site.directory / "files"
    files.mkdir()
    for name in ("a", "b", "c"):
        (files / name).write_bytes(b"x")
        os.link(files / name, files / f"{name}-link")
    tasks = site.directory / "tasks.xml"
    tasks.write_text(TASKS.replace("<block>no", "<block>yes"))
    site.keys |= {
        ("control", "local_mode"): "no", ("lustre", "fs_path"): str(files), ("lustre", "lfs_bin"): "/bin/true",
    }  # fmt: skip
    monkeypatch.setattr(
        module, "measure_lustre", lambda lfs, path: lambda: dict.fromkeys(range(20), Level(60))
    )
    for source, name in enumerate(("a", "a-link", "b", "b-link", "c", "c-link")):
        site.put(f"{source}.input", f"{source} {files / name}")
    desk.burdens, desk.answer = burdens, moved

    site.run()

    assert desk.most["all"] == 1
    assert len(desk.submitted) == 6


# When something is in the way.


def on_real_files(site: Site, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Not a simulation, but the levels are made up. Returns where files may be."""
    files = site.directory / "files"
    files.mkdir()
    site.keys |= {
        ("control", "local_mode"): "no", ("lustre", "fs_path"): str(files), ("lustre", "lfs_bin"): "/bin/true",
    }  # fmt: skip
    monkeypatch.setattr(
        module, "measure_lustre", lambda lfs, path: lambda: dict.fromkeys(range(20), Level(60))
    )
    return files


def test_lustre_is_asked_for_the_servers_of_osts(
    site: Site, desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = on_real_files(site, monkeypatch)
    monkeypatch.setattr(module.Lfs, "oss_of", lambda self, fs: {0: fs, 1: fs, 10: "other", 11: "other"})
    site.keys["lustre", "fs_name"] = "scratch"
    site.put("a.input", *(f"{ost} {files}/{ost}{number}" for ost in (0, 1) for number in range(3)))
    desk.burdens, desk.answer = burdens, moved

    site.run(oss_map="auto", oss_max_tasks=1, ost_targets="10-11")

    assert desk.most["all"] == 1
    assert len(desk.submitted) == 6


def test_what_was_in_flight_is_adopted_though_its_files_cannot_be_looked_at(
    site: Site, desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = on_real_files(site, monkeypatch)
    site.put("a.input", f"3 {files}/x")
    desk.answer = lambda task: moved(task) if desk.now > 2000 else desk.WAIT

    def script() -> None:
        desk.stopping = bool(desk.open) and desk.now < 2000

    desk.script = script
    site.run()
    desk.stopping, desk.now = False, 3000.0
    made = site.generator()

    class Stuck:
        """Looks at files never end; all else is done at once."""

        def start(self, call: Callable[[], Any]) -> Any:
            if getattr(call, "func", None) is module.look_at:
                return type("Never", (), {"is_done": lambda self: False})()
            return AtOnce().start(call)

    made.background = Stuck()
    made.run()

    assert [task.tid for task in desk.submitted[:2]] == [desk.submitted[0].tid] * 2
    assert desk.now >= 3060
    assert site.names() == {"a.input.done"}


def test_while_nothing_can_be_noted_nothing_is_started(
    site: Site, desk: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site.put("a.input", *lines(3, 20))
    really_write = os.write
    full_from, writes = desk.now + 1, []

    def write(descriptor: int, content: bytes) -> int:
        if not full_from < desk.now < full_from + 600:
            return really_write(descriptor, content)
        writes.append(len(desk.submitted))
        if len(writes) == 1:
            return really_write(descriptor, bytes(content)[:7])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(journal.os, "write", write)
    site.run(keep_journal="yes")

    assert len(writes) > 100
    assert len(set(writes)) == 1
    assert desk.now > full_from + 600
    assert caplog.text.count("nothing can be noted, and nothing is started until it can") == 1
    assert len(desk.submitted) == len(desk.recorded) == 20
    assert site.names() == {"a.input.done", "a.input.audit"}
    audit = (site.inputs / "a.input.audit").read_text().splitlines()
    assert sum(line.startswith("= ") for line in audit) == sum(line.startswith("> ") for line in audit) == 20
    assert len(audit) == 41


def test_whatever_cannot_be_written_in_the_end_the_rest_is_told(
    site: Site, desk: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    site.put("a.input", *lines(3, 3))
    (site.directory / "report").mkdir()
    monkeypatch.setattr(module.Inputs, "close", full)

    site.run(report_file=site.directory / "report")

    assert "migration ended files=3" in caplog.text
    assert "the report cannot be written" in caplog.text
    assert "not everything could be noted" in caplog.text


def test_a_begun_list_that_cannot_be_read_keeps_no_other_from_being_done(
    site: Site, desk: Any, caplog: pytest.LogCaptureFixture
) -> None:
    site.put("a.input.gz.active", "3 /lustre/x")
    site.put("b.input", "3 /lustre/y")

    with pytest.raises(CycloneError, match=r"lists are not done: a\.input\.gz"):
        site.run()

    assert "a list that was begun cannot be read, it waits for the next start" in caplog.text
    assert site.names() == {"a.input.gz.active", "b.input.done"}


def test_a_list_that_changes_while_it_is_read_is_taken_when_it_is_complete(
    site: Site, desk: Any, caplog: pytest.LogCaptureFixture
) -> None:
    site.put("a.input", *lines(3, 1))
    made = site.generator()

    class Meddler:
        """When a list has been read for the first time, somebody adds to it."""

        has_read = False

        def start(self, call: Callable[[], Any]) -> Any:
            done = AtOnce().start(call)
            if getattr(call, "func", None) is load and not self.has_read:
                self.has_read = True
                site.put("a.input", *lines(3, 2))
            return done

    made.background = Meddler()
    made.run()

    assert "a list is not complete" in caplog.text
    assert len(desk.submitted) == 2
    assert site.names() == {"a.input.done"}


def test_entries_that_are_added_to_a_list_that_was_taken_are_done_as_well(
    site: Site, desk: Any, caplog: pytest.LogCaptureFixture
) -> None:
    site.put("a.input", *lines(3, 5))

    def script() -> None:
        if len(desk.submitted) == 2:
            site.put("a.input.active", *lines(3, 5), "3 /lustre/late")

    desk.script = script
    site.run()

    assert "/lustre/late" in {name for name, _, _ in routes(desk)}
    assert caplog.text.count("what is there is read again list=a.input") == 1
    assert site.names() == {"a.input.done"}


def test_while_a_list_takes_long_to_read_it_is_not_asked_for_without_end(site: Site, desk: Any) -> None:
    site.keys["control.threshold", "reload_files"] = "1"
    site.put("a.input", *lines(3, 1))
    made = site.generator()

    class Slow:
        """To read a list takes an hour."""

        def start(self, call: Callable[[], Any]) -> Any:
            done = AtOnce().start(call)
            if getattr(call, "func", None) is load:
                done.is_done = lambda: desk.now > 4600  # type: ignore[attr-defined]
            return done

    made.background = Slow()
    made.run()

    assert desk.asked < 8000  # a second each, and a few more at the beginning
    assert site.names() == {"a.input.done"}


def test_targets_that_no_limit_of_servers_bounds_are_told(
    site: Site, desk: Any, caplog: pytest.LogCaptureFixture
) -> None:
    (site.directory / "oss.map").write_text("oss1 0-18\n")

    site.run(oss_map=site.directory / "oss.map", oss_max_tasks=2)

    assert "does not bound targets that are not in oss_map: 19" in caplog.text


# What it is called, and what it refuses.


@pytest.mark.parametrize("name", ["LustreOstMigrationTaskGenerator", "LustreOstMigrateGenerator"])
@pytest.mark.parametrize(
    "place", ["cyclone.lustre.migration.generator", "task.generator.lustre_ost_migration_task_generator"]
)
def test_it_is_found_under_its_old_and_new_names(place: str, name: str) -> None:
    assert load_class(place, name, TaskGenerator) is LustreOstMigrationTaskGenerator


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ({("task", "task_name"): "Nobody"}, "task_name"),
        ({("control", "local_mode"): "no"}, "fs_path"),
        (
            {
                ("control", "local_mode"): "no",
                ("lustre", "fs_path"): "/tmp",
                ("task", "task_name"): "EmptyTask",
            },
            "task_name",
        ),
        (
            {
                ("control", "local_mode"): "no",
                ("lustre", "fs_path"): "/tmp",
                ("lustre", "lfs_bin"): "no-such-lfs",
            },
            "lfs_bin",
        ),
        ({("task", "task_name"): "EmptyTask", ("migration", "verify"): "stat"}, "verify"),
        (
            {
                ("control", "local_mode"): "no",
                ("lustre", "fs_path"): "/tmp",
                ("task", "task_name"): "Blocking",
                ("migration", "look_at_files"): "off",
            },
            "look_at_files",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(site: Site, keys: Keys, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        LustreOstMigrationTaskGenerator(site.ini(keys)).validate_config()

    assert caught.value.key == key
    assert site.names() == set()


def test_what_is_allowed_but_not_meant_is_told(
    site: Site, desk: Any, caplog: pytest.LogCaptureFixture
) -> None:
    site.put("a.input", *lines(10, 1))

    site.run(ost_fill_level_threshold_source=30, ost_fill_level_threshold_target=70)

    assert caplog.text.count("probably not meant: OSTs are both source and target") == 1


def test_with_threads_it_comes_to_the_same(site: Site, desk: Any) -> None:
    site.put("a.input", *lines(3, 50), *lines(4, 50))
    made = site.generator()
    made.background = Threads()
    desk.answer = moved
    # The clock of the desk is far ahead of threads, but nothing is decided by how long they take.
    made.run()

    assert len(desk.submitted) == 100
    assert site.names() == {"a.input.done"}


def test_how_the_osts_stand_is_recorded_where_that_is_asked_for(site: Site, desk: Any) -> None:
    site.keys["control.threshold", "print_caches"] = "1"
    site.put("a.input", *lines(3, 40))
    desk.task_s = 1.0

    site.run(pushgateway="yes", ost_targets="10-11")

    told = [task.rows for task in desk.submitted if isinstance(task, OstStateTask)]
    assert told
    for rows in told:
        assert {(row.sink, row.kind) for row in rows} == {("pushgateway", MigrationOst)}
        for row in rows:
            encode(row.kind, row.fields)
    fields = [row.fields for row in told[0]]
    assert [(each["ost"], each["role"], each["source"]) for each in fields] == [
        (3, "source", 3), (10, "target", None), (11, "target", None),
    ]  # fmt: skip
    assert 0 < fields[0]["left"] <= 40
    assert {each["state"] for each in fields} <= {"ready", "blocked", "locked", "pending_lock"}
    assert all(0 < each["fill"] < 1 for each in fields)


def test_nothing_of_the_osts_is_recorded_otherwise(site: Site, desk: Any) -> None:
    site.keys["control.threshold", "print_caches"] = "1"
    site.put("a.input", *lines(3, 40))
    desk.task_s = 1.0

    site.run()

    assert not any(isinstance(task, OstStateTask) for task in desk.submitted)


def test_how_the_osts_stand_is_not_recorded_twice_at_a_time(site: Site, desk: Any) -> None:
    site.keys["control.threshold", "print_caches"] = "1"
    site.put("a.input", *lines(3, 40))
    desk.task_s = 1.0
    desk.answer = lambda task: desk.WAIT if isinstance(task, OstStateTask) else moved(task)
    desk.together = 2

    site.run(pushgateway="yes", ost_targets="10-11")

    assert sum(isinstance(task, OstStateTask) for task in desk.submitted) == 1
