from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cyclone import __version__
from cyclone.cli.commands import COMMANDS
from cyclone.cli.main import main
from cyclone.errors import MasterUnreachable, RuleBroken
from cyclone.messages import Tasks, TaskView
from cyclone.model.lifecycle import State
from cyclone.wire import keys


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])

    assert ended.value.code == 0
    assert capsys.readouterr().out == f"cyclone {__version__}\n"


def test_the_help_names_every_command_and_loads_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])

    told = capsys.readouterr().out
    assert all(f"    {name} " in told for name in COMMANDS)


@pytest.mark.parametrize("command", ["info", "tasks", "explain", "keys", "completion"])
def test_the_docstring_of_a_command_is_its_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])

    assert ended.value.code == 0
    first_line = (sys.modules[f"cyclone.cli.{command}"].__doc__ or "").splitlines()[0]
    assert first_line in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["nonsense"], ["info", "--nope"], ["info", "--watch", "0"]])
def test_a_wrong_usage_ends_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)

    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"), [(MasterUnreachable("nobody\nanswers\x1b"), 4), (RuleBroken("x"), 70)]
)
def test_an_expected_error_is_one_line_and_its_exit_code(
    error: Exception, code: int, client, ini, capsys: pytest.CaptureFixture[str]
) -> None:
    client.replies = [error]

    assert main(["info", "-f", ini]) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("cyclone: ")
    assert told.err.count("\n") == 1
    assert "\x1b" not in told.err


def test_a_missing_ini_file_ends_with_3(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["info", "-f", str(tmp_path / "nope.conf")])

    assert code == 3
    assert "nope.conf: no such file" in capsys.readouterr().err


def test_an_interrupt_ends_quietly(client, ini, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(message: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(client, "ask", interrupted)

    assert main(["info", "-f", ini]) == 130
    assert capsys.readouterr().err == ""


def test_a_reader_that_has_gone_is_nothing_to_tell_of(tmp_path: Path) -> None:
    keys.ensure(tmp_path)
    reading, writing = os.pipe()
    os.close(reading)

    ended = subprocess.run(
        [sys.executable, "-m", "cyclone.cli.main", "keys", "--key-dir", tmp_path],
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)

    assert ended.returncode == 0
    assert ended.stderr == b""


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["at the last flush", "at once"])
@pytest.mark.parametrize("words", [["--help"], ["keys"], ["completion", "bash"]])
def test_output_that_is_lost_is_one_line(words: list[str], unbuffered: str, tmp_path: Path) -> None:
    keys.ensure(tmp_path)
    directory = ["--key-dir", tmp_path] if words == ["keys"] else []

    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "cyclone.cli.main", *words, *directory],
            stdout=full, stderr=subprocess.PIPE, check=False, env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )  # fmt: skip

    assert ended.returncode == 70
    assert ended.stderr == b"cyclone: standard output: No space left on device\n"


def test_output_that_is_lost_is_no_failed_task(
    client, ini, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client.replies = [Tasks(1, [TaskView(1, "work", "a", "", State.READY, 0)])]
    with open("/dev/full", "w", buffering=1) as full:
        monkeypatch.setattr(sys, "stdout", full)

        code = main(["tasks", "-f", ini])

    assert code == 70
    assert capsys.readouterr().err == "cyclone: standard output: No space left on device\n"


def test_an_error_of_another_file_is_not_blamed_on_the_output(client, ini, monkeypatch) -> None:
    def fail(message: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(client, "ask", fail)

    with pytest.raises(OSError, match="No space left"):
        main(["info", "-f", ini])


def test_what_a_terminal_cannot_show_is_escaped(client, ini, monkeypatch) -> None:
    client.replies = [Tasks(1, [TaskView(1, "work", "θ", "", State.READY, 0)])]
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))

    code = main(["tasks", "-f", ini])

    assert code == 0
    assert rb"\u03b8" in written.getvalue()
