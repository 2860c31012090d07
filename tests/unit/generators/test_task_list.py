from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from cyclone.errors import ConfigError
from cyclone.generators.task_list import TaskListGenerator
from cyclone.ini import Ini
from cyclone.model.task import Retry


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def generator(desk: Any, lines: bytes, **keys: str) -> TaskListGenerator:
    Path("list").write_bytes(lines)
    made = TaskListGenerator(Ini({"tasks": {"file": "list", **keys}}))
    made.validate_config()
    made._attach(desk)
    return made


def test_each_line_is_a_command_but_for_blanks_and_comments(desk: Any) -> None:
    generator(desk, b"true\n\n  # a comment\n  echo a # b  \n\ttrue").run()

    assert [task.command for task in desk.submitted] == ["true", "echo a # b", "true"]


def test_the_same_line_may_stand_there_twice(desk: Any) -> None:
    generator(desk, b"true\ntrue\n").run()

    assert len(set(desk.executed)) == 2
    assert {tid.split("-")[1] for tid in desk.executed} == {desk.executed[0].split("-")[1]}


def test_a_line_that_was_run_before_is_not_run_again(desk: Any) -> None:
    generator(desk, b"true\ntrue 2\n").run()

    generator(desk, b"true\ntrue 3\n").run()

    assert [tid.split("-")[0] for tid in desk.executed] == ["1", "2", "2"]


def test_output_goes_to_files_named_after_the_task(desk: Any, tmp_path: Path) -> None:
    generator(desk, b"echo a; echo b >&2\n", stdout_dir="out").run()

    (tid,) = desk.executed
    assert (tmp_path / "out" / f"{tid}.out").read_text() == "a\n"
    assert (tmp_path / "out" / f"{tid}.err").read_text() == "b\n"


def test_commands_run_where_they_were_told(desk: Any, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()

    generator(desk, b"echo a > here\n", cwd="there").run()

    assert (tmp_path / "there" / "here").read_text() == "a\n"


def test_commands_run_in_the_working_directory_by_default(desk: Any, tmp_path: Path) -> None:
    generator(desk, b"echo a > here\n").run()

    assert (tmp_path / "here").read_text() == "a\n"
    assert desk.submitted[0].cwd == str(tmp_path)


def test_timeout_and_retries_are_handed_on(desk: Any) -> None:
    generator(desk, b"true\n", timeout="1.5", retries="2").run()

    (task,) = desk.submitted
    assert task.timeout == 1.5
    assert task.retry == Retry(errors=2, timeouts=2)


def test_a_command_that_is_not_utf8_is_run_as_it_is(desk: Any) -> None:
    generator(desk, b"echo a > \xff\n").run()

    assert Path(b"\xff".decode("utf-8", "surrogateescape")).exists()


def test_failures_are_told_and_counted(desk: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        generator(desk, b"true\nfalse\n").run()

    assert "the program ended with exit code 1" in caplog.text
    assert "task list ended succeeded=1 failed=1" in caplog.text


@pytest.mark.parametrize(
    ("key", "value"), [("file", "none"), ("timeout", "0"), ("retries", "-1"), ("stdoutdir", "x")]
)
def test_a_wrong_value_is_refused_before_anything_starts(key: str, value: str) -> None:
    Path("list").write_text("")

    with pytest.raises(ConfigError) as caught:
        TaskListGenerator(Ini({"tasks": {"file": "list", key: value}})).validate_config()

    assert (caught.value.section, caught.value.key) == ("tasks", key)
