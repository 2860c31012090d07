from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from migration_builders import AtOnce, a_mind

from cyclone.ini import Ini
from cyclone.lustre.migration import supply as module
from cyclone.lustre.migration.background import Chore, Threads
from cyclone.lustre.migration.input_list import load
from cyclone.lustre.migration.inputs import Inputs
from cyclone.lustre.migration.lines import Rules
from cyclone.lustre.migration.mind import Mind
from cyclone.lustre.migration.settings import MigrationSettings
from cyclone.lustre.migration.supply import LINKED, Supply, look_at
from cyclone.lustre.migration.verdict import FileState, Report


class Slow:
    """Chores that are done when somebody says so."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], Any]] = []
        self.done = False

    def start(self, call: Callable[[], Any]) -> Chore[Any]:
        self.calls.append(call)
        slow = self

        class Waiting:
            def is_done(self) -> bool:
                return slow.done

            def result(self) -> Any:
                return call()

        return Waiting()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    directory = tmp_path / "files"
    directory.mkdir()
    return directory


def inputs_with(tmp_path: Path, root: Path, lines: list[str]) -> Inputs:
    (tmp_path / "a.input").write_text("".join(f"{line}\n" for line in lines))
    inputs = Inputs(tmp_path, Rules(bytes(root)), settle_s=0)
    inputs.admit(load(tmp_path / "a.input", inputs.rules))
    return inputs


def settings(tmp_path: Path, **migration: str) -> MigrationSettings:
    return MigrationSettings.of(Ini({
        "task": {"task_file": "x", "task_name": "x"},
        "migration": {
            "input_dir": str(tmp_path), "ost_fill_level_threshold_source": "0",
            "ost_fill_level_threshold_target": "100", "ost_targets": "10", **migration,
        },
        "lustre": {"fs_path": "/lustre"},
    }))  # fmt: skip


def hungry_mind(*sources: int) -> Mind:
    mind = a_mind()
    mind.expect(sources)
    return mind


def test_a_look_tells_size_and_inode(files: Path) -> None:
    (files / "a").write_bytes(b"12345")
    os.link(files / "a", files / "b")
    os.symlink("a", files / "link")

    a, b, link, missing = look_at([bytes(files / name) for name in ("a", "b", "link", "missing")], False)

    assert a is not None
    assert link is not None
    assert (a.size, link.size) == (5, 1)
    assert a == b
    assert a.key != link.key
    assert missing is None


def test_all_files_with_links_have_one_key_where_one_is_moved_at_a_time(files: Path) -> None:
    for name in ("a", "b", "c"):
        (files / name).touch()
    os.link(files / "a", files / "a2")
    os.link(files / "b", files / "b2")

    a, b, c = look_at([bytes(files / name) for name in ("a", "b2", "c")], True)

    assert a is not None
    assert b is not None
    assert c is not None
    assert a.key == b.key == LINKED
    assert c.key != LINKED


def test_a_hungry_source_gets_a_few_entries_and_the_others_wait_on_disk(tmp_path: Path) -> None:
    inputs = inputs_with(tmp_path, Path("/lustre"), [f"0 /lustre/{number}" for number in range(500)])
    mind = hungry_mind(0)
    supply = Supply(inputs, AtOnce(), settings(tmp_path, look_at_files="off"), block=False)

    supply.advance(mind, 0)
    inputs.close()

    assert mind.waiting(0) == 128
    assert 0 not in mind.hungry
    assert inputs.has_more(0, 0)


def test_while_files_are_looked_at_the_others_go_on(tmp_path: Path, files: Path) -> None:
    inputs = inputs_with(tmp_path, files, [f"{ost} {files}/{ost}" for ost in (0, 1)])
    mind, slow = hungry_mind(0, 1), Slow()
    supply = Supply(inputs, slow, settings(tmp_path), block=False)

    supply.advance(mind, 0)
    supply.advance(mind, 1)
    before = (mind.waiting(0), mind.waiting(1), len(slow.calls), supply.since)
    slow.done = True
    supply.advance(mind, 2)
    inputs.close()

    assert before == (0, 0, 2, 0)
    assert (mind.waiting(0), mind.waiting(1), supply.since) == (1, 1, None)


def test_a_look_that_is_stuck_takes_nobody_s_place(
    tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOOKS_MOST", 2)
    inputs = inputs_with(tmp_path, files, [f"{ost} {files}/{ost}" for ost in range(5)])
    mind, slow = hungry_mind(*range(5)), Slow()
    supply = Supply(inputs, slow, settings(tmp_path), block=False)

    supply.advance(mind, 0)
    supply.advance(mind, 10)
    before = len(slow.calls)
    supply.advance(mind, 31)
    inputs.close()

    assert before == 2
    assert len(slow.calls) == 4
    assert supply.stuck(31) == {0: 31, 1: 31}


def test_a_file_that_cannot_be_looked_at_is_handed_in_all_the_same(tmp_path: Path, files: Path) -> None:
    inputs = inputs_with(tmp_path, files, [f"0 {files}/missing"])
    mind = hungry_mind(0)

    ended = Supply(inputs, AtOnce(), settings(tmp_path, min_size="10"), block=False).advance(mind, 0)
    inputs.close()

    assert ended == []
    (run,) = mind.decide(0).started
    assert run.entry.size is None


def test_a_file_that_cannot_be_looked_at_may_have_links(tmp_path: Path, files: Path) -> None:
    (files / "a").touch()
    os.link(files / "a", files / "a2")
    inputs = inputs_with(tmp_path, files, [f"0 {files}/a", f"1 {files}/missing"])
    mind = hungry_mind(0, 1)

    Supply(inputs, AtOnce(), settings(tmp_path), block=True).advance(mind, 0)
    inputs.close()

    assert len(mind.decide(0).started) == 1


def test_files_of_other_sizes_have_their_result_at_once(tmp_path: Path, files: Path) -> None:
    for name, size in (("small", 1), ("right", 10), ("large", 100)):
        (files / name).write_bytes(b"x" * size)
    inputs = inputs_with(tmp_path, files, [f"0 {files}/{name}" for name in ("small", "right", "large")])
    mind = hungry_mind(0)

    ended = Supply(inputs, AtOnce(), settings(tmp_path, min_size="5", max_size="50"), block=False).advance(
        mind, 0
    )
    inputs.close()

    assert [(each.entry.id.number, each.report) for each in ended] == [
        (0, Report(FileState.SKIPPED, "size", size=1)), (2, Report(FileState.SKIPPED, "size", size=100)),
    ]  # fmt: skip
    assert mind.waiting(0) == 1


def test_after_files_that_are_not_wanted_the_next_ones_are_brought_at_once(
    tmp_path: Path, files: Path
) -> None:
    for number in range(300):
        (files / f"{number}").touch()
    inputs = inputs_with(tmp_path, files, [f"0 {files}/{number}" for number in range(300)])
    mind = hungry_mind(0)
    supply = Supply(inputs, AtOnce(), settings(tmp_path, min_size="10"), block=False)

    batches = []
    while supply.next_moment(mind, 0) == 0:
        batches.append(len(supply.advance(mind, 0)))
    inputs.close()

    assert batches == [128, 128, 44]


def test_any_order_is_made_of_all_that_may_be_in_memory(tmp_path: Path) -> None:
    inputs = inputs_with(tmp_path, Path("/lustre"), [f"0 /lustre/{number}" for number in range(500)])
    mind = hungry_mind(0)

    Supply(inputs, AtOnce(), settings(tmp_path, look_at_files="off", order="random"), block=False).advance(
        mind, 0
    )
    inputs.close()

    numbers = []
    while (turn := mind.decide(0)).started:
        (run,) = turn.started
        numbers.append(run.entry.id.number)
        mind.on_end(run.entry.id, Report(FileState.SUCCESS), 0)
    assert sorted(numbers) == list(range(500))
    assert numbers != sorted(numbers)


def test_threads_tell_what_came_of_it() -> None:
    def fail() -> None:
        raise ValueError("no")

    chores = [Threads().start(lambda: 42), Threads().start(fail)]
    while not all(chore.is_done() for chore in chores):
        os.sched_yield()

    assert chores[0].result() == 42
    with pytest.raises(ValueError, match="no"):
        chores[1].result()


def test_what_is_done_at_once_tells_the_same() -> None:
    def fail() -> None:
        raise ValueError("no")

    assert AtOnce().start(lambda: 42).result() == 42
    with pytest.raises(ValueError, match="no"):
        AtOnce().start(fail).result()
