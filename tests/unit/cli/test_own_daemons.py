"""How daemons that a program has started for itself ended, and that they end with it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cyclone.cli import own_daemons
from cyclone.cli.own_daemons import OwnDaemons

NEWS = "2026-01-01 00:00:00,001 - INFO: controller joined"
TROUBLE = "2026-01-01 00:00:00,000 - WARNING: the disk is nearly full"


@pytest.fixture
def daemons() -> Iterator[OwnDaemons]:
    daemons = OwnDaemons()
    yield daemons
    daemons.stop()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "master.log"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What runs in the place of a daemon: a line of Python, the last one that was appended."""
    lines: list[str] = []
    popen = subprocess.Popen

    def start(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        return popen([sys.executable, "-c", lines[-1]], **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(own_daemons.subprocess, "Popen", start)
    return lines


def _ended(daemons: OwnDaemons, log: Path) -> str:
    daemons.start("master", log.with_suffix(".conf"), log, log.parent)
    daemons._daemons["master"].process.wait()
    return daemons.how_ended("master", after_kill="; again")


def test_a_daemon_that_was_killed_is_said_to_be_with_the_name_of_the_signal(
    daemons: OwnDaemons, log: Path, script: list[str]
) -> None:
    script.append("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")

    said = _ended(daemons, log)

    assert said == f"the master was killed by SIGKILL; again; see {log}"


def test_what_is_no_trouble_is_not_the_reason_of_an_end(
    daemons: OwnDaemons, log: Path, script: list[str]
) -> None:
    script.append(f"import sys; print({TROUBLE!r}); print({NEWS!r}); sys.exit(3)")

    said = _ended(daemons, log)

    assert said == f"the master ended with 3; {log}: {TROUBLE}"


def test_the_trouble_of_an_earlier_run_is_not_the_reason_of_an_end(
    daemons: OwnDaemons, log: Path, script: list[str]
) -> None:
    log.write_text(f"{TROUBLE}\n")
    script.append("import sys; sys.exit(3)")

    said = _ended(daemons, log)

    assert said == f"the master ended with 3; see {log}"


def test_what_a_daemon_says_before_it_has_a_log_is_the_reason_of_its_end(
    daemons: OwnDaemons, log: Path
) -> None:
    said = _ended(daemons, log)

    assert said.startswith(f"the master ended with 3; {log}: cyclone-master: ")
    assert str(log.with_suffix(".conf")) in said
