from __future__ import annotations

import errno
import gzip
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cyclone.errors import ConfigError
from cyclone.lustre.migration import inputs as module
from cyclone.lustre.migration import journal
from cyclone.lustre.migration.entry import Entry
from cyclone.lustre.migration.input_list import InputList, ListChanged, load, load_again
from cyclone.lustre.migration.inputs import Inputs
from cyclone.lustre.migration.lines import Rules
from cyclone.lustre.migration.verdict import FileState, Report

RULES = Rules(b"/lustre")
SUCCESS = Report(FileState.SUCCESS, size=100, actual=9)
BUSY = Report(FileState.BUSY, "EBUSY", "busy")
FAILED = Report(FileState.FAILED, "EACCES", "permanent")


_alive: list[Inputs] = []


@pytest.fixture(autouse=True)
def _killed_in_the_end() -> Iterator[None]:
    yield
    while _alive:
        kill(_alive.pop())


def an_input(directory: Path, rules: Rules = RULES, **different: Any) -> Inputs:
    inputs = Inputs(directory, rules, **{"settle_s": 0.0, **different})
    _alive.append(inputs)
    return inputs


def kill(inputs: Inputs) -> None:
    """As a kill does: what has not reached the kernel is gone."""
    for each in inputs.lists.values():
        each.close()
    inputs.lists.clear()


def put(directory: Path, *lines: bytes, name: str = "a.input") -> Path:
    file = directory / name
    content = b"".join(line + (b"\0" if "input0" in name else b"\n") for line in lines)
    file.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return file


def take_all(inputs: Inputs) -> list[InputList]:
    """Load and take every list that waits."""
    return [inputs.admit(load(base, inputs.rules, in_copy=inputs.done_on_load)) for base in inputs.waiting(0)]


def resume(directory: Path, rules: Rules = RULES, **different: Any) -> Inputs:
    """Another life, in which everything that was begun is taken again."""
    while _alive:
        kill(_alive.pop())
    inputs = an_input(directory, rules, **different)
    for base in inputs.leftovers():
        inputs.admit(load_again(base, rules, in_copy=inputs.done_on_load))
    return inputs


def names(directory: Path) -> set[str]:
    return set(os.listdir(directory))


def entries(inputs: Inputs, source: int = 3, most: int = 1000) -> list[Entry]:
    return inputs.take(source, most, 0)


# The course of a list.


def test_a_list_is_done_when_every_entry_has_its_result_and_not_before(tmp_path: Path) -> None:
    put(tmp_path, b"3 /lustre/a", b"3 /lustre/b")
    inputs = an_input(tmp_path)
    take_all(inputs)
    first, second = entries(inputs)

    assert names(tmp_path) == {"a.input.active", "a.input.journal", "a.input.index"}
    inputs.on_final(first, SUCCESS)
    assert inputs.settle() == []
    assert (tmp_path / "a.input.active").exists()
    inputs.on_final(second, SUCCESS)
    (done,) = inputs.settle()

    assert names(tmp_path) == {"a.input.done"}
    assert (done.left, done.results) == (0, {FileState.SUCCESS: 2})
    assert inputs.lists == {}


def test_an_entry_has_one_result(tmp_path: Path) -> None:
    put(tmp_path, b"3 /lustre/a", b"3 /lustre/b")
    inputs = an_input(tmp_path)
    (taken,) = take_all(inputs)
    entry, _ = entries(inputs)

    assert inputs.on_final(entry, SUCCESS)
    assert not inputs.on_final(entry, FAILED)

    assert taken.results == {FileState.SUCCESS: 1}
    assert taken.left == 1


def test_entries_of_all_lists_come_in_the_order_of_the_lists(tmp_path: Path) -> None:
    put(tmp_path, b"3 /lustre/a", b"4 /lustre/b", b"3 /lustre/c", name="1.input")
    put(tmp_path, b"3 /lustre/d", name="2.input")
    inputs = an_input(tmp_path)
    take_all(inputs)

    found = [inputs.take(3, 2, 0), inputs.take(3, 2, 0), inputs.take(3, 2, 0)]

    assert [[entry.path for entry in some] for some in found] == [
        [b"/lustre/a", b"/lustre/c"],
        [b"/lustre/d"],
        [],
    ]
    assert inputs.left() == {3: 3, 4: 1}
    assert [inputs.has_more(source, 0) for source in (3, 4, 5)] == [False, True, False]


def test_lists_that_are_done_are_told_also_if_another_could_not_be_put_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.input", "b.input", "c.input"):
        put(tmp_path, b"3 /lustre/x", name=name)
    inputs = an_input(tmp_path)
    take_all(inputs)
    for entry in entries(inputs):
        inputs.on_final(entry, SUCCESS)
    really = InputList.finish
    calls = 0

    def refused_once(self: InputList, *, keep_journal: bool) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        really(self, keep_journal=keep_journal)

    monkeypatch.setattr(InputList, "finish", refused_once)
    with pytest.raises(OSError, match="No space left"):
        inputs.settle()
    ended = inputs.settle()

    assert {each.files.name for each in ended} == {"a.input", "b.input", "c.input"}
    assert inputs.settle() == []


def test_a_list_without_entries_is_done_at_once(tmp_path: Path) -> None:
    put(tmp_path, b"rubbish")
    inputs = an_input(tmp_path)
    take_all(inputs)

    inputs.settle()

    assert names(tmp_path) == {"a.input.done", "a.input.rejected"}


@pytest.mark.parametrize("name", ["a.input.gz", "a.input0", "a.input0.gz"])
def test_lists_of_all_kinds_go_the_same_way(tmp_path: Path, name: str) -> None:
    put(tmp_path, b"3 /lustre/a", b"3 /lustre/b", name=name)
    inputs = an_input(tmp_path)
    take_all(inputs)
    first, second = entries(inputs)

    inputs.on_final(first, BUSY)
    inputs.on_final(second, SUCCESS)
    inputs.settle()

    assert names(tmp_path) == {f"{name}.done", f"{name}.busy"}
    assert (tmp_path / f"{name}.busy").read_bytes() == b"3 /lustre/a" + (b"\0" if "input0" in name else b"\n")


def test_nothing_of_an_earlier_list_of_that_name_is_overwritten(tmp_path: Path) -> None:
    for content in (b"first", b"second", b"third"):
        put(tmp_path, b"3 /lustre/" + content, content)
        inputs = an_input(tmp_path)
        take_all(inputs)
        inputs.on_final(entries(inputs)[0], FAILED)
        inputs.settle()

    for suffix, content in (("", b"first"), (".2", b"second"), (".3", b"third")):
        assert content in (tmp_path / f"a.input.done{suffix}").read_bytes()
        assert content in (tmp_path / f"a.input.rejected{suffix}").read_bytes()
        assert content in (tmp_path / f"a.input.failed{suffix}").read_bytes()


def test_a_list_waits_while_an_earlier_one_of_its_name_is_worked_on(tmp_path: Path) -> None:
    put(tmp_path, b"3 /lustre/a")
    inputs = an_input(tmp_path)
    take_all(inputs)
    put(tmp_path, b"3 /lustre/b")

    while_first = inputs.waiting(0)
    inputs.on_final(entries(inputs)[0], SUCCESS)
    inputs.settle()

    assert while_first == []
    assert inputs.waiting(0) == [tmp_path / "a.input"]
    assert (tmp_path / "a.input.done").read_bytes() == b"3 /lustre/a\n"


def test_a_list_may_be_called_done_when_it_was_read(tmp_path: Path) -> None:
    put(tmp_path, b"3 /lustre/a", b"3 /lustre/b")
    inputs = an_input(tmp_path, done_on_load=True)
    take_all(inputs)
    # As scripts of old do.
    (tmp_path / "a.input.done").unlink()

    first, _ = entries(inputs)
    inputs.on_final(first, FAILED)
    inputs.settle()
    inputs.close()
    later = resume(tmp_path, done_on_load=True)
    (second,) = entries(later)
    later.on_final(second, SUCCESS)
    later.settle()

    assert second.path == b"/lustre/b"
    assert names(tmp_path) == {"a.input.failed"}


def test_the_journal_of_a_done_list_may_be_kept(tmp_path: Path) -> None:
    put(tmp_path, b"3 /lustre/a")
    inputs = an_input(tmp_path, keep_journal=True)
    take_all(inputs)

    inputs.on_final(entries(inputs)[0], SUCCESS)
    inputs.settle()

    assert names(tmp_path) == {"a.input.done", "a.input.audit"}
    assert b"= 0 3 SUCCESS 100 9 0 \n" in (tmp_path / "a.input.audit").read_bytes()


def test_a_dry_run_leaves_everything_as_it_is(tmp_path: Path) -> None:
    put(tmp_path, b"3 /lustre/a", b"rubbish", b"3 /lustre/b")
    inputs = an_input(tmp_path, is_dry=True)
    take_all(inputs)

    for entry, report in zip(entries(inputs), (BUSY, SUCCESS), strict=True):
        inputs.on_started(entry, 9)
        inputs.on_final(entry, report)
    (done,) = inputs.settle()

    assert names(tmp_path) == {"a.input"}
    assert (done.rejected, done.results) == (1, {FileState.BUSY: 1, FileState.SUCCESS: 1})
    assert inputs.waiting(0) == []
    put(tmp_path, b"3 /lustre/another")
    assert inputs.waiting(0) == [tmp_path / "a.input"]


# Complete lists.


def test_a_list_is_taken_when_it_has_not_changed_for_a_while(tmp_path: Path) -> None:
    file = put(tmp_path, b"3 /lustre/a")
    inputs = an_input(tmp_path, settle_s=10)

    looks = [inputs.waiting(0), inputs.waiting(9)]
    put(tmp_path, b"3 /lustre/a", b"3 /lustre/b")
    looks += [inputs.waiting(11), inputs.waiting(20.9)]
    settled = inputs.waiting(21)

    assert looks == [[], [], [], []]
    assert settled == [file]


@pytest.mark.parametrize("mtime_s", [1e9, 4e9])
def test_the_times_of_a_list_say_nothing_of_whether_it_is_complete(tmp_path: Path, mtime_s: float) -> None:
    file = put(tmp_path, b"3 /lustre/a")
    os.utime(file, (mtime_s, mtime_s))
    inputs = an_input(tmp_path, settle_s=10)

    assert inputs.waiting(0) == []
    assert inputs.waiting(10) == [file]


def test_it_knows_whether_a_list_is_still_to_come(tmp_path: Path) -> None:
    file = put(tmp_path, b"3 /lustre/a")
    inputs = an_input(tmp_path, settle_s=10)

    inputs.waiting(0)
    while_it_settles = inputs.is_expecting
    inputs.pass_over(file)
    after_passing = inputs.is_expecting
    file.unlink()
    inputs.waiting(1)
    after_it_went = inputs.is_expecting

    assert (while_it_settles, after_passing, after_it_went) == (True, False, False)


def test_a_list_that_was_taken_is_not_still_to_come(tmp_path: Path) -> None:
    put(tmp_path, b"3 /lustre/a")
    inputs = an_input(tmp_path)

    take_all(inputs)

    assert not inputs.is_expecting


def test_a_list_that_was_changed_while_it_was_read_is_not_taken(tmp_path: Path) -> None:
    file = put(tmp_path, b"3 /lustre/a")
    inputs = an_input(tmp_path)
    loaded = load(file, RULES)
    put(tmp_path, b"3 /lustre/a", b"3 /lustre/b")

    with pytest.raises(ListChanged):
        inputs.admit(loaded)

    assert file.exists()
    (taken,) = take_all(inputs)
    assert taken.entries == 2


@pytest.mark.parametrize("fails", [(module, "_sync_directory")])
def test_a_list_that_could_not_be_taken_has_its_names_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: tuple[Any, str]
) -> None:
    file = put(tmp_path, b"3 /lustre/a", b"rubbish")
    inputs = an_input(tmp_path, done_on_load=True)

    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    with monkeypatch.context() as patched:
        loaded = load(file, RULES)
        patched.setattr(*fails, refused)
        with pytest.raises(PermissionError):
            inputs.admit(loaded)

    assert names(tmp_path) == {"a.input", "a.input.index", "a.input.rejected.draft"}
    take_all(inputs)
    assert len(entries(inputs)) == 1


def test_a_journal_that_cannot_be_opened_is_not_left_beside_its_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = put(tmp_path, b"3 /lustre/a")
    inputs = an_input(tmp_path)

    def refused(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        loaded = load(file, RULES)
        patched.setattr(journal, "os", SimpleNamespace(**{**vars(os), "open": refused}))
        with pytest.raises(OSError, match="Too many open files"):
            inputs.admit(loaded)

    assert inputs.waiting(0) == [file]


def test_a_list_that_cannot_be_taken_is_not_waited_for_until_somebody_changes_it(tmp_path: Path) -> None:
    file = put(tmp_path, b"3 /lustre/a")
    inputs = an_input(tmp_path, settle_s=10)
    inputs.waiting(0)

    news = [inputs.cannot_take(file, "no room"), inputs.cannot_take(file, "no room")]
    refused = inputs.is_expecting
    put(tmp_path, b"3 /lustre/a", b"3 /lustre/b")
    inputs.waiting(1)

    assert (news, refused) == ([True, False], False)
    assert inputs.is_expecting
    assert inputs.untaken == {}


def test_a_list_that_is_passed_over_is_told_again_when_it_changes_or_when_asked(tmp_path: Path) -> None:
    file = put(tmp_path, b"3 /lustre/a")
    inputs = an_input(tmp_path)

    inputs.pass_over(file)
    passed = inputs.waiting(0)
    inputs.look_again()
    asked = inputs.waiting(0)
    inputs.pass_over(file)
    put(tmp_path, b"3 /lustre/a", b"3 /lustre/b")

    assert (passed, asked) == ([], [file])
    assert inputs.waiting(0) == [file]


def test_a_directory_that_cannot_be_read_is_told_and_survived(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inputs = an_input(tmp_path / "missing")

    assert inputs.waiting(0) == []
    assert "cannot be read" in caplog.text
    with pytest.raises(ConfigError):
        inputs.leftovers()


# Lists that are changed too late.


def test_a_list_that_was_added_to_after_it_was_taken_is_read_again(tmp_path: Path) -> None:
    put(tmp_path, b"3 /lustre/a")
    inputs = an_input(tmp_path)
    take_all(inputs)
    (first,) = entries(inputs)
    with open(tmp_path / "a.input.active", "ab") as file:
        file.write(b"3 /lustre/b\n")

    inputs.on_final(first, BUSY)
    (given_back,) = inputs.settle()

    assert given_back.was_changed
    assert names(tmp_path) == {"a.input", "a.input.busy"}
    take_all(inputs)
    assert [entry.path for entry in entries(inputs)] == [b"/lustre/a", b"/lustre/b"]


def test_a_list_that_was_changed_takes_no_place_of_another_of_its_name(tmp_path: Path) -> None:
    put(tmp_path, b"3 /lustre/a")
    inputs = an_input(tmp_path)
    take_all(inputs)
    (first,) = entries(inputs)
    put(tmp_path, b"3 /lustre/a", b"3 /lustre/b", name="a.input.active")
    put(tmp_path, b"3 /lustre/c")

    inputs.on_final(first, SUCCESS)
    inputs.settle()

    assert (tmp_path / "a.input").read_bytes() == b"3 /lustre/c\n"
    assert len(entries(resume(tmp_path))) == 2
    assert inputs.untaken.keys() == {tmp_path / "a.input"}


def test_of_a_list_that_was_changed_between_two_lives_every_entry_is_looked_at_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, b"3 /lustre/a", b"3 /lustre/b", b"3 /lustre/c")
    inputs = an_input(tmp_path)
    take_all(inputs)
    inputs.on_final(entries(inputs)[0], SUCCESS)
    inputs.settle()
    (tmp_path / "a.input.active").write_bytes(b"3 /lustre/b\n3 /lustre/c\n")

    later = resume(tmp_path)

    assert [entry.path for entry in entries(later)] == [b"/lustre/b", b"/lustre/c"]
    assert "the journal is set aside" in caplog.text


def test_a_packed_list_that_was_changed_between_two_lives_is_unpacked_anew(tmp_path: Path) -> None:
    put(tmp_path, b"3 /lustre/a", name="a.input.gz")
    take_all(an_input(tmp_path))
    put(tmp_path, b"3 /lustre/a", b"3 /lustre/b", name="b.input.gz").rename(tmp_path / "a.input.gz.active")

    later = resume(tmp_path)

    assert [entry.path for entry in entries(later)] == [b"/lustre/a", b"/lustre/b"]


def test_a_dry_run_looks_again_at_a_list_that_was_changed_meanwhile(tmp_path: Path) -> None:
    file = put(tmp_path, b"3 /lustre/a")
    inputs = an_input(tmp_path, is_dry=True)
    take_all(inputs)
    (first,) = entries(inputs)
    put(tmp_path, b"3 /lustre/a", b"3 /lustre/b")

    inputs.on_final(first, SUCCESS)
    inputs.settle()

    assert inputs.waiting(0) == [file]


# Another life.


def test_entries_with_results_are_not_told_again_and_those_in_flight_are_told_first(tmp_path: Path) -> None:
    put(tmp_path, *(b"3 /lustre/%d" % number for number in range(6)))
    inputs = an_input(tmp_path)
    (before,) = take_all(inputs)
    taken = entries(inputs)
    for entry in taken[:4]:
        inputs.on_started(entry, 10 + entry.id.number)
    inputs.on_final(taken[0], SUCCESS)
    inputs.on_final(taken[1], FAILED)
    taken[2].billed = 1
    inputs.on_retry(taken[2])
    inputs.settle()

    later = resume(tmp_path)
    (after,) = later.lists.values()
    flights = after.flights()

    assert after.id == before.id
    assert [(entry.id.number, entry.path, entry.tries, target) for entry, target in flights] == [
        (3, b"/lustre/3", 0, 13)
    ]
    rest = entries(later)
    assert [(entry.id.number, entry.tries, entry.billed) for entry in rest] == [
        (2, 1, 1),
        (4, 0, 0),
        (5, 0, 0),
    ]
    assert (after.left, after.results) == (4, {FileState.SUCCESS: 1, FileState.FAILED: 1})
    assert later.left() == {3: 4}


def test_a_list_that_was_finished_but_not_put_away_is_put_away(tmp_path: Path) -> None:
    put(tmp_path, b"3 /lustre/a")
    inputs = an_input(tmp_path)
    take_all(inputs)
    inputs.on_final(entries(inputs)[0], SUCCESS)
    for each in inputs.lists.values():
        each.flush()

    later = resume(tmp_path)
    later.settle()

    assert names(tmp_path) == {"a.input.done"}


def test_a_list_that_was_put_away_halfway_is_put_away(tmp_path: Path) -> None:
    put(tmp_path, b"3 /lustre/a")
    inputs = an_input(tmp_path)
    take_all(inputs)
    inputs.on_final(entries(inputs)[0], SUCCESS)
    for each in inputs.lists.values():
        each.flush()
    (tmp_path / "a.input.active").rename(tmp_path / "a.input.done")

    later = resume(tmp_path)
    later.settle()

    assert names(tmp_path) == {"a.input.done"}


def test_a_journal_without_its_list_is_removed(tmp_path: Path) -> None:
    put(tmp_path, b"3 /lustre/a")
    inputs = an_input(tmp_path)
    take_all(inputs)
    # Killed between the making of the journal and the renaming of the list.
    (tmp_path / "a.input.active").rename(tmp_path / "a.input")

    later = resume(tmp_path)

    assert names(tmp_path) == {"a.input"}
    assert later.lists == {}


@pytest.mark.parametrize("name", ["a.input", "a.input.gz"])
@pytest.mark.parametrize(("is_same", "is_in_flight"), [(False, False), (True, False), (True, True)])
def test_a_list_that_was_taken_goes_on_though_another_one_of_its_name_waits(
    tmp_path: Path, name: str, is_same: bool, is_in_flight: bool
) -> None:
    file = put(tmp_path, b"3 /lustre/a", b"3 /lustre/b", name=name)
    inputs = an_input(tmp_path, done_on_load=True)
    (before,) = take_all(inputs)
    (first, _) = entries(inputs)
    inputs.on_started(first, 9)
    if not is_in_flight:
        inputs.on_final(first, SUCCESS)
    inputs.settle()
    before.files.done.rename(tmp_path / "archived")
    if is_same:
        (tmp_path / "archived").rename(file)
    else:
        put(tmp_path, b"3 /lustre/c", b"3 /lustre/d", b"3 /lustre/e", name=name)

    later = resume(tmp_path, done_on_load=True)
    (after,) = later.lists.values()

    assert after.id == before.id
    assert len(after.flights()) == is_in_flight
    assert [entry.path for entry in entries(later)] == [b"/lustre/b"]
    assert later.waiting(0) == []


def test_tasks_in_flight_of_a_list_that_was_taken_away_end_before_another_of_its_name(tmp_path: Path) -> None:
    put(tmp_path, b"3 /lustre/a", b"3 /lustre/b")
    inputs = an_input(tmp_path)
    take_all(inputs)
    (first,) = entries(inputs, most=1)
    inputs.on_started(first, 9)
    inputs.settle()
    (tmp_path / "a.input.active").unlink()
    file = put(tmp_path, b"3 /lustre/a")

    later = resume(tmp_path)
    (after,) = later.lists.values()
    ((again, _),) = after.flights()
    before_its_end = later.waiting(0)
    later.on_final(again, SUCCESS)
    later.settle()

    assert (again.path, before_its_end) == (b"/lustre/a", [])
    assert names(tmp_path) == {"a.input"}
    assert later.waiting(0) == [file]


@pytest.mark.parametrize("name", ["a.input", "a.input.gz"])
@pytest.mark.parametrize("is_changed", [False, True])
def test_nothing_is_left_beside_a_list_whose_end_was_cut_short_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, is_changed: bool
) -> None:
    class Cut(Exception):
        pass

    def cut_after(count: int) -> Callable[..., Any]:
        def unlink(file: Path, *, missing_ok: bool = False) -> None:
            nonlocal count
            if file.exists():
                if count == 0:
                    raise Cut
                count -= 1
            os.unlink(file) if file.exists() else None

        return unlink

    for count in range(3):
        put(tmp_path, b"3 /lustre/a", name=name)
        inputs = an_input(tmp_path)
        take_all(inputs)
        (entry,) = entries(inputs)
        if is_changed:
            put(
                tmp_path, b"3 /lustre/b", b"3 /lustre/c", name="b.input.gz" if "gz" in name else "b.input"
            ).rename(tmp_path / f"{name}.active")
        inputs.on_final(entry, SUCCESS)
        with monkeypatch.context() as patched:
            patched.setattr(Path, "unlink", cut_after(count))
            with suppress(Cut):
                inputs.settle()

        later = resume(tmp_path)
        for each in entries(later):
            later.on_final(each, SUCCESS)
        later.settle()
        take_all(later)
        for each in entries(later):
            later.on_final(each, SUCCESS)
        later.settle()

        assert names(tmp_path) - {f"{name}.journal.aside"} == {f"{name}.done"}
        (tmp_path / f"{name}.done").unlink()


def test_without_a_journal_everything_is_looked_at_again(tmp_path: Path) -> None:
    put(tmp_path, b"3 /lustre/a", b"3 /lustre/b")
    inputs = an_input(tmp_path)
    (before,) = take_all(inputs)
    (tmp_path / "a.input.journal").unlink()

    later = resume(tmp_path)
    (after,) = later.lists.values()

    assert after.id != before.id
    assert len(entries(later)) == 2
    assert (tmp_path / "a.input.journal").exists()


def test_a_damaged_journal_is_set_aside(tmp_path: Path) -> None:
    put(tmp_path, b"3 /lustre/a")
    inputs = an_input(tmp_path)
    take_all(inputs)
    (tmp_path / "a.input.journal").write_bytes(b"\0" * 100)

    later = resume(tmp_path)

    assert len(entries(later)) == 1
    assert (tmp_path / "a.input.journal.aside").read_bytes() == b"\0" * 100


def test_without_a_journal_a_list_that_was_called_done_is_read_from_what_is_left_of_it(
    tmp_path: Path,
) -> None:
    put(tmp_path, b"3 /lustre/a")
    take_all(an_input(tmp_path, done_on_load=True))
    (tmp_path / "a.input.journal").write_bytes(b"\0" * 100)

    later = resume(tmp_path, done_on_load=True)
    (entry,) = entries(later)
    later.on_final(entry, SUCCESS)
    later.settle()

    assert entry.path == b"/lustre/a"
    assert names(tmp_path) == {"a.input.done", "a.input.journal.aside"}


def test_without_an_index_it_is_made_again(tmp_path: Path) -> None:
    put(tmp_path, b"3 /lustre/a", b"rubbish", b"3 /lustre/b", name="a.input.gz")
    inputs = an_input(tmp_path)
    take_all(inputs)
    inputs.on_final(entries(inputs, most=1)[0], SUCCESS)
    inputs.settle()
    for name in ("index", "plain", "rejected"):
        (tmp_path / f"a.input.gz.{name}").unlink()

    later = resume(tmp_path)

    assert [entry.path for entry in entries(later)] == [b"/lustre/b"]
    assert (tmp_path / "a.input.gz.rejected").read_bytes().startswith(b"2\t")


def test_the_lists_of_retryable_entries_hold_each_entry_once_also_after_a_kill(tmp_path: Path) -> None:
    put(tmp_path, *(b"3 /lustre/%d" % number for number in range(4)))
    inputs = an_input(tmp_path)
    take_all(inputs)
    first, second, third, _ = entries(inputs)
    inputs.on_final(first, BUSY)
    inputs.on_final(second, FAILED)
    inputs.settle()
    inputs.on_final(third, BUSY)
    with open(tmp_path / "a.input.busy", "ab") as busy:
        busy.write(b"3 /lustre/2\n")
    # Killed here: the third stands in the list of busy entries, but not in the journal.

    resume(tmp_path).close()

    assert (tmp_path / "a.input.busy").read_bytes() == b"3 /lustre/0\n"
    assert (tmp_path / "a.input.failed").read_bytes() == b"3 /lustre/1\n"


@pytest.mark.parametrize("is_dry", [False, True])
def test_of_a_list_that_is_edited_nothing_more_comes_though_it_is_put_back_later(
    tmp_path: Path, is_dry: bool
) -> None:
    put(tmp_path, *(b"3 /lustre/%d" % number for number in range(4)))
    inputs = an_input(tmp_path, is_dry=is_dry)
    (edited,) = take_all(inputs)
    (first,) = entries(inputs, most=1)
    file = edited.files.current()
    before, times = file.read_bytes(), file.stat()
    file.write_bytes(b"".join(reversed(before.splitlines(keepends=True))))
    os.utime(file, ns=(0, times.st_mtime_ns + 1))

    assert entries(inputs, most=2) == []
    file.write_bytes(before)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert entries(inputs) == []
    assert not inputs.has_more(3, 0)
    assert inputs.left() == {3: 1}
    assert inputs.settle() == []
    inputs.on_final(first, SUCCESS)
    assert inputs.settle() == [edited]

    assert edited.was_changed
    take_all(inputs)
    assert [entry.path for entry in entries(inputs)] == [b"/lustre/%d" % number for number in range(4)]


def test_a_list_that_is_edited_with_its_times_is_known_by_its_records(tmp_path: Path) -> None:
    file = put(tmp_path, b"3 /lustre/a", b"3 /lustre/b")
    inputs = an_input(tmp_path)
    (edited,) = take_all(inputs)
    file = edited.files.active
    times = file.stat()
    file.write_bytes(b"3 /lustre/a\n4 /lustre/b\n")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))

    assert entries(inputs) == []
    assert inputs.settle() == [edited]

    assert names(tmp_path) == {"a.input"}


def test_a_list_that_is_edited_ends_though_one_of_its_entries_is_put_away(tmp_path: Path) -> None:
    put(tmp_path, b"3 /lustre/a", b"3 /lustre/b")
    inputs = an_input(tmp_path)
    (edited,) = take_all(inputs)
    (first,) = entries(inputs, most=1)
    put(tmp_path, b"3 /lustre/c", name="a.input.active")
    assert entries(inputs) == []

    inputs.put_away(first, 60)

    assert inputs.settle() == [edited]


def test_what_becomes_of_a_list_that_is_called_done_at_once_is_no_matter(tmp_path: Path) -> None:
    put(tmp_path, b"3 /lustre/a", b"3 /lustre/b")
    inputs = an_input(tmp_path, done_on_load=True)
    take_all(inputs)

    (tmp_path / "a.input.done").write_bytes(b"moved\n")

    assert [entry.path for entry in entries(inputs)] == [b"/lustre/a", b"/lustre/b"]


@pytest.mark.parametrize("done_on_load", [False, True])
def test_a_list_that_was_changed_is_read_again_when_its_tasks_in_flight_have_ended(
    tmp_path: Path, done_on_load: bool
) -> None:
    put(tmp_path, b"3 /lustre/a", b"3 /lustre/b", b"4 /lustre/c\nd", name="a.input0")
    inputs = an_input(tmp_path)
    (before,) = take_all(inputs)
    _, second = entries(inputs)
    (third,) = entries(inputs, source=4)
    for entry in (second, third):
        inputs.on_started(entry, 9)
    inputs.settle()
    put(tmp_path, b"3 /lustre/new", b"3 /lustre/b", name="a.input0.active")

    # Twice, for the second life may be killed as well.
    for ending in (second, third):
        later = resume(tmp_path, done_on_load=done_on_load)
        (after,) = later.lists.values()
        flights = after.flights()
        assert after.id == before.id
        assert entries(later) == entries(later, source=4) == []
        assert later.waiting(0) == []
        (again,) = (entry for entry, _ in flights if entry.id == ending.id)
        assert again.path == ending.path
        later.on_final(again, SUCCESS)
        ended = later.settle()

    assert [each.was_changed for each in ended] == [True]
    assert names(tmp_path) == {"a.input0"}
    take_all(later)
    assert [entry.path for entry in entries(later)] == [b"/lustre/new", b"/lustre/b"]


def test_a_list_of_which_only_flights_were_read_is_not_done_though_it_is_put_back(tmp_path: Path) -> None:
    put(tmp_path, *(b"3 /lustre/%d" % number for number in range(4)))
    inputs = an_input(tmp_path)
    take_all(inputs)
    (first,) = entries(inputs, most=1)
    inputs.on_started(first, 9)
    inputs.settle()
    kept = (tmp_path / "a.input.active").rename(tmp_path / "kept")
    put(tmp_path, b"3 /lustre/new", name="a.input.active")
    later = resume(tmp_path)
    kept.replace(tmp_path / "a.input.active")

    later.on_final(first, SUCCESS)
    (ended,) = later.settle()

    assert ended.was_changed
    assert names(tmp_path) == {"a.input"}
    take_all(later)
    assert len(entries(later)) == 4


@pytest.mark.parametrize("is_in_flight", [False, True])
@pytest.mark.parametrize("done_on_load", [False, True])
def test_a_list_is_begun_anew_when_other_records_of_it_are_entries(
    tmp_path: Path, done_on_load: bool, is_in_flight: bool
) -> None:
    paths = [b"/lustre/a/0", b"/lustre/a/1", b"/lustre/b/0", b"/lustre/b/1"]
    put(tmp_path, *(b"3 " + path for path in paths))
    inputs = an_input(tmp_path, done_on_load=done_on_load)
    take_all(inputs)
    first, second = entries(inputs, most=2)
    for entry in (first, second):
        inputs.on_started(entry, 9)
    inputs.on_final(first, SUCCESS)
    if not is_in_flight:
        inputs.on_final(second, SUCCESS)
    inputs.settle()

    later = resume(tmp_path, Rules(b"/lustre/b"), done_on_load=done_on_load)
    if is_in_flight:
        assert entries(later) == []
        later.on_final(second, SUCCESS)
        (ended,) = later.settle()
        assert ended.was_changed
        take_all(later)
    again = entries(later)
    for entry in again:
        later.on_final(entry, SUCCESS)
    (done,) = later.settle()

    assert [entry.path for entry in again] == paths[2:]
    assert (done.entries, done.rejected) == (2, 2)
    assert {"a.input.active", "a.input.journal", "a.input"}.isdisjoint(names(tmp_path))


# Again.


def test_an_entry_that_is_put_away_comes_after_all_others(tmp_path: Path) -> None:
    put(tmp_path, b"3 /lustre/a", b"3 /lustre/b")
    inputs = an_input(tmp_path)
    take_all(inputs)
    (first,) = entries(inputs, most=1)
    first.tries, first.billed = 2, 1

    inputs.put_away(first, 60)
    (second,) = inputs.take(3, 9, 59)
    too_early = inputs.has_more(3, 59)
    (again,) = inputs.take(3, 9, 60)

    assert (second.path, again.path) == (b"/lustre/b", b"/lustre/a")
    assert (again.tries, again.billed, again.id) == (2, 1, first.id)
    assert not too_early
    assert not inputs.has_more(3, 60)


def test_entries_that_are_away_do_not_wait_for_those_before_them(tmp_path: Path) -> None:
    put(tmp_path, b"3 /lustre/a", b"3 /lustre/b", b"3 /lustre/c")
    inputs = an_input(tmp_path)
    take_all(inputs)

    # Somebody has shortened the time between two tries meanwhile.
    for entry, until in zip(entries(inputs), (30, 3600, 60), strict=True):
        inputs.put_away(entry, until)
    away = inputs.away
    first = inputs.take(3, 9, 59)
    others = inputs.take(3, 9, 60)

    assert (away, inputs.away) == (3, 0)
    assert [entry.path for entry in first + others] == [b"/lustre/a", b"/lustre/b", b"/lustre/c"]
    assert len(first) == 1


def test_what_is_made_a_list_is_what_was_tried_whatever_the_list_holds_by_now(tmp_path: Path) -> None:
    put(tmp_path, b"3 /lustre/a", b"3 /lustre/b")
    inputs = an_input(tmp_path)
    take_all(inputs)
    _, second = entries(inputs)
    (tmp_path / "a.input.active").write_bytes(b"# a longer line than before\n3 /lustre/b\n")

    inputs.on_final(second, BUSY)
    inputs.settle()

    assert (tmp_path / "a.input.busy").read_bytes() == b"3 /lustre/b\n"


def test_busy_entries_become_a_list_that_is_taken_at_once(tmp_path: Path) -> None:
    put(tmp_path, b"3 /lustre/a", b"3 /lustre/b", b"3 /lustre/c")
    inputs = an_input(tmp_path)
    take_all(inputs)
    inputs.settle_s = 1000
    first, second, third = entries(inputs)
    inputs.on_final(first, BUSY)
    inputs.on_final(second, FAILED)
    inputs.settle()

    (made,) = inputs.feed_back(FileState.BUSY)
    nothing_more = inputs.feed_back(FileState.BUSY)
    waiting = inputs.waiting(0)
    inputs.on_final(third, BUSY)
    inputs.settle()

    assert (made.name, nothing_more, waiting) == ("a.busy-1.input", [], [made])
    assert made.read_bytes() == b"3 /lustre/a\n"
    assert (tmp_path / "a.input.busy").read_bytes() == b"3 /lustre/c\n"
    assert (tmp_path / "a.input.done").exists()


def test_what_somebody_has_taken_away_for_himself_is_not_added_to(tmp_path: Path) -> None:
    put(tmp_path, b"3 /lustre/a", b"3 /lustre/b")
    inputs = an_input(tmp_path)
    take_all(inputs)
    first, second = entries(inputs)
    inputs.on_final(first, BUSY)
    inputs.settle()
    (tmp_path / "elsewhere").mkdir()
    mine = (tmp_path / "a.input.busy").rename(tmp_path / "elsewhere" / "b.input")

    inputs.on_final(second, BUSY)
    inputs.settle()

    assert mine.read_bytes() == b"3 /lustre/a\n"
    assert (tmp_path / "a.input.busy").read_bytes() == b"3 /lustre/b\n"


def test_what_was_fed_back_leaves_nothing_behind(tmp_path: Path) -> None:
    put(tmp_path, b"3 /lustre/a", b"3 /lustre/b")
    inputs = an_input(tmp_path)
    take_all(inputs)
    first, second = entries(inputs)
    inputs.on_final(first, BUSY)
    inputs.feed_back(FileState.BUSY)

    inputs.on_final(second, SUCCESS)
    inputs.settle()

    assert names(tmp_path) == {"a.busy-1.input", "a.input.done"}


def test_what_was_fed_back_is_not_fed_back_by_the_next_life(tmp_path: Path) -> None:
    put(tmp_path, b"3 /lustre/a", b"3 /lustre/b", b"3 /lustre/c")
    inputs = an_input(tmp_path)
    take_all(inputs)
    first, second, _ = entries(inputs)
    inputs.on_final(first, BUSY)
    inputs.settle()
    inputs.feed_back(FileState.BUSY)
    inputs.on_final(second, BUSY)
    inputs.settle()

    later = resume(tmp_path)

    assert (tmp_path / "a.input.busy").read_bytes() == b"3 /lustre/b\n"
    assert (tmp_path / "a.busy-1.input").read_bytes() == b"3 /lustre/a\n"
    assert len(entries(later)) == 1


def test_entries_of_lists_that_are_done_are_fed_back_as_well(tmp_path: Path) -> None:
    (tmp_path / "a.input.failed").write_bytes(b"3 /lustre/a\n")
    (tmp_path / "b.input.gz.failed.2").write_bytes(b"3 /lustre/b\n")

    made = an_input(tmp_path).feed_back(FileState.FAILED)

    assert sorted(file.name for file in made) == ["a.failed-1.input", "b.failed-1.input"]
