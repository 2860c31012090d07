"""`bin/lustre-demo`: what it leaves for those who look at it and try it again."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

import pytest
import simulated_lustre  # noqa: F401  # it makes the package findable

from cyclone.errors import AlreadyRunning
from cyclone.process.pid_file import PidFile
from simlustre.demo import Demo, DemoFailed


def _port(ini: Path) -> int:
    parser = ConfigParser()
    parser.read(ini)
    return parser.getint("comm", "port")


def test_the_daemons_of_a_demo_find_each_other_again_when_they_are_started_by_hand(tmp_path: Path) -> None:
    Demo(tmp_path / "demo", files=10, seed=1).prepare()

    master, controller = (_port(tmp_path / "demo" / f"{name}.conf") for name in ("master", "controller"))

    assert master == controller
    assert master >= 1024


def test_a_demo_removes_nothing_that_is_not_from_a_demo(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()

    with pytest.raises(DemoFailed, match="not from a demo"):
        Demo(tmp_path, files=10, seed=1).prepare()

    assert (tmp_path / "precious").exists()


@pytest.mark.parametrize("name", ["master", "controller"])
def test_a_demo_removes_nothing_under_a_daemon_that_lives(tmp_path: Path, name: str) -> None:
    (tmp_path / ".lustre-demo").touch()
    (tmp_path / "input").touch()

    with PidFile(tmp_path / f"{name}.pid"), pytest.raises(AlreadyRunning, match=f"{name}.pid"):
        Demo(tmp_path, files=10, seed=1).prepare()

    assert (tmp_path / "input").exists()
