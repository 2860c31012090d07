"""Claims about commands to a generator; how a generator starts, breaks down and ends is shown with real daemons."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import ClassVar

import pytest

from cyclone.daemons.generator_host import carry_out
from cyclone.ini import Ini
from cyclone.messages import Command, CommandDone
from cyclone.task_generator import TaskGenerator


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
