"""Claims about commands to a generator; how a generator starts, breaks down and ends is shown with real daemons."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest

from cyclone.daemons import generator_host
from cyclone.daemons.generator_host import carry_out
from cyclone.daemons.generator_process import Errand
from cyclone.errors import EXIT_CONFIG, EXIT_OK, PluginError
from cyclone.ini import Ini
from cyclone.messages import Command, CommandDone
from cyclone.task_generator import TaskGenerator

#: Says that it is being loaded, and waits until somebody wants it to go on.
SLOW = """
import time
from pathlib import Path
from cyclone import TaskGenerator

class Slow(TaskGenerator):
    def validate_config(self):
        directory = Path(self.config.text("slow", "directory"))
        (directory / "loading").touch()
        while not (directory / "go on").exists():
            time.sleep(0.01)
        if self.config.text("slow", "config") == "bad":
            raise self.config.wrong("slow", "config", "is bad")
"""


class Raising(TaskGenerator):
    commands: ClassVar[Mapping[str, str]] = {"raise": "raise something"}
    error: BaseException = ValueError("a number is expected")

    def on_command(self, name: str, arguments: Mapping[str, str]) -> object:
        raise self.error


def raising(error: BaseException) -> CommandDone:
    generator = Raising(Ini({}))
    generator.error = error
    return carry_out(generator, Command(3, "raise", {}))


def test_a_value_error_tells_the_asker_what_was_wrong() -> None:
    assert raising(ValueError("a number is expected")) == CommandDone(3, "", "a number is expected")


@pytest.mark.parametrize("error", [OSError("no such file"), SystemExit("no such file")])
def test_a_command_that_breaks_down_leaves_the_generator_alone(error: BaseException) -> None:
    done = raising(error)

    assert done == CommandDone(3, "", f"the command broke down: {type(error).__name__}: no such file")


def test_an_unknown_command_is_answered_with_those_that_are_known() -> None:
    done = carry_out(Raising(Ini({})), Command(3, "rise", {}))

    assert done == CommandDone(3, "", "Raising knows no command 'rise'; expected one of: help, raise")


def test_a_master_that_is_told_to_stop_before_it_has_said_anything_leaves_no_traceback() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.close()

    ended = subprocess.run(
        [sys.executable, "-m", "cyclone.daemons.generator_host", str(theirs.fileno())],
        pass_fds=[theirs.fileno()], capture_output=True, timeout=60,
    )  # fmt: skip
    theirs.close()

    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.parametrize("config", ["good", "bad"])
def test_a_master_that_is_killed_while_its_generator_is_loaded_leaves_no_traceback(
    tmp_path: Path, config: str
) -> None:
    """It hears of it at the first word that it says, whichever that is."""
    (tmp_path / "slow.py").write_text(SLOW)
    ini = tmp_path / "slow.conf"
    ini.write_text(f"[slow]\ndirectory = {tmp_path}\nconfig = {config}\n")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    errand = Errand("slow", "Slow", str(ini), [str(tmp_path)], "job", None, None, False)
    ours.send(msgspec.json.encode(errand))

    with subprocess.Popen(
        [sys.executable, "-m", "cyclone.daemons.generator_host", str(theirs.fileno())],
        pass_fds=[theirs.fileno()], stderr=subprocess.PIPE, text=True,
    ) as host:  # fmt: skip
        theirs.close()
        while not (tmp_path / "loading").exists():
            assert host.poll() is None, host.communicate()
            time.sleep(0.01)
        ours.close()
        (tmp_path / "go on").touch()
        _, told = host.communicate(timeout=60)

    assert "Traceback" not in told
    assert host.returncode == (EXIT_OK if config == "good" else EXIT_CONFIG)


class Forgetful(TaskGenerator):
    pass


@pytest.mark.parametrize("wrong", [-1.0, "a day", float("nan"), 1e12])
def test_a_time_to_remember_that_cannot_be_is_refused_before_anything_is_started(
    monkeypatch: pytest.MonkeyPatch, wrong: object
) -> None:
    monkeypatch.setattr(Forgetful, "remember_s", wrong)
    errand = Errand(__name__, "Forgetful", None, [], "job", None, None, False)
    monkeypatch.setattr("cyclone.daemons.generator_host.load_class", lambda *_, **__: Forgetful)

    with pytest.raises(
        PluginError, match=r"Forgetful: found remember_s = .*expected seconds from 0, or None"
    ):
        generator_host._load(errand)


@pytest.mark.parametrize("right", [None, 0, 86400, 0.5])
def test_a_time_to_remember_is_seconds_or_as_long_as_the_job_is_open(
    monkeypatch: pytest.MonkeyPatch, right: object
) -> None:
    monkeypatch.setattr(Forgetful, "remember_s", right)
    errand = Errand(__name__, "Forgetful", None, [], "job", None, None, False)
    monkeypatch.setattr("cyclone.daemons.generator_host.load_class", lambda *_, **__: Forgetful)

    assert generator_host._load(errand).remember_s == right
