from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from typing import Any

import msgspec
import pytest

from cyclone.daemons.generator_process import (
    _LETTER_BYTES_MAX,
    STARTS_MOST,
    GeneratorProcess,
    GeneratorUnusable,
    Verdict,
)
from cyclone.ini import Ini
from cyclone.settings import MasterSettings


def settings() -> MasterSettings:
    return MasterSettings.of(Ini({"task_generator": {"module": "somewhere", "class": "Some"}}))


@pytest.mark.parametrize("character", ["x", "\0", "\udc80", "\U0001f600"])
def test_a_problem_of_any_length_fits_into_a_letter(character: str) -> None:
    letter = msgspec.json.encode(Verdict.refusing(character * 10**6, 3))

    assert len(letter) < _LETTER_BYTES_MAX
    assert msgspec.json.decode(letter, type=Verdict).exit_code == 3


@pytest.mark.parametrize("character", ["x", "\0", "\udc80", "\U0001f600"])
def test_a_meaning_of_any_length_fits_into_a_letter(character: str) -> None:
    letter = msgspec.json.encode(Verdict.accepting(character * 10**6))

    assert len(letter) < _LETTER_BYTES_MAX
    assert msgspec.json.decode(letter, type=Verdict).problem == ""


def test_a_process_for_which_the_system_has_no_room_counts_as_killed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refused)
    process = GeneratorProcess(settings())

    process.spawn()

    assert process.verdict() is None
    assert "cannot be started" in caplog.text


def test_a_process_whose_end_nobody_would_notice_is_not_left_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    children: list[subprocess.Popen[bytes]] = []
    really = subprocess.Popen

    def start(*arguments: Any, **keywords: Any) -> subprocess.Popen[bytes]:
        children.append(really(*arguments, **keywords))
        return children[0]

    monkeypatch.setattr(os, "pidfd_open", refused)
    monkeypatch.setattr(subprocess, "Popen", start)
    process = GeneratorProcess(settings())

    process.spawn()

    assert process.verdict() is None
    assert "Too many open files" in caplog.text
    assert children[0].returncode == -signal.SIGKILL


def test_between_its_starts_a_process_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    pauses: list[float] = []
    monkeypatch.setattr(subprocess, "Popen", refused)
    monkeypatch.setattr(time, "sleep", pauses.append)

    with pytest.raises(GeneratorUnusable, match="killed whenever it starts"):
        GeneratorProcess(settings()).start()

    assert len(pauses) == STARTS_MOST - 1
