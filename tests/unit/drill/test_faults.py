"""Faults that nobody has felt do not count: the sheet would tell of what never happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from cyclone.drill import faults
from cyclone.drill.faults import Broken, NoEffect, begin
from cyclone.drill.plan import Stroke
from cyclone.messages import Agreed, Message, Refused
from cyclone.wire.keys import KeyPair, PublicKey, Role, new_pair


class FakeCluster:
    """One daemon, which is a process of the test or has ended."""

    port = 1024

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def exit_code(self, _name: str) -> int | None:
        return self._process.poll()

    def pid(self, _name: str) -> int:
        return self._process.pid


class FakeSite:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.cluster = FakeCluster(process)
        self.done: list[str] = []
        self.found: list[int] = []
        self.is_ours_the_clock = True

    def kill(self, name: str) -> None:
        self.done.append(f"kill {name}")

    def start(self, name: str) -> None:
        self.done.append(f"start {name}")

    def below(self, _name: str, _is_meant: object) -> list[int]:
        return self.found

    def step_clock(self, _name: str, seconds: float) -> None:
        self.done.append(f"{seconds:g}")

    def goes_by_our_clock(self, _name: str) -> bool:
        return self.is_ours_the_clock


class FakeStranger:
    """Nobody is there, or somebody who does as he is told."""

    admitted: bool | None = None
    answers: tuple[Message, ...] = ()

    def __init__(self, _address: str, _own: KeyPair, _server: PublicKey) -> None:
        pass

    def knock(self, _timeout_s: float) -> bool | None:
        return self.admitted

    def say(self, _frames: list[bytes]) -> bool:
        return True

    def hear(self, _timeout_s: float) -> tuple[Message, ...]:
        return self.answers

    def __enter__(self) -> FakeStranger:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def living() -> Iterator[FakeSite]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield FakeSite(process)
        process.kill()


@pytest.fixture
def dead() -> FakeSite:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return FakeSite(process)


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> type[FakeStranger]:
    class Ours(FakeStranger):
        """Of this test alone."""

    monkeypatch.setattr(faults, "Stranger", Ours)
    monkeypatch.setattr(faults, "_address", lambda *_: "tcp://127.0.0.1:1024")
    monkeypatch.setattr(faults, "_server", lambda *_: new_pair("stranger", Role.MASTER).public_key)
    monkeypatch.setattr(faults, "load_pair", lambda *_: new_pair("stranger", Role.CONTROLLER))
    monkeypatch.setattr(FakeCluster, "key_dir", None, raising=False)
    return Ours


def made(fault: str, site: Any, victim: str = "master") -> str:
    """What came of it. Nobody waits."""
    course = begin(Stroke(0.0, fault, victim, 0.0, 7), site)
    while True:
        try:
            next(course)
        except StopIteration as over:
            return str(over.value)


@pytest.mark.parametrize(
    ("fault", "victim"),
    [
        ("kill-master", "master"),
        ("stop-master", "master"),
        ("kill-worker", "north"),
        ("stop-reaper", "north"),
    ],
)
def test_who_has_ended_already_is_not_killed_or_stopped(dead: FakeSite, fault: str, victim: str) -> None:
    dead.found = [os.getpid()]  # of somebody who has been given the number of the dead one

    with pytest.raises(NoEffect, match="it had ended just before"):
        made(fault, dead, victim)

    assert dead.done == []


@pytest.mark.parametrize("fault", ["kill-worker", "stop-worker"])
def test_a_process_that_is_gone_when_the_signal_comes_was_not_hit(living: FakeSite, fault: str) -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    living.found = [gone.pid]

    with pytest.raises(NoEffect, match="it had ended just before"):
        made(fault, living, "north")


def test_a_process_that_only_waits_for_its_burial_was_not_stopped(living: FakeSite) -> None:
    with subprocess.Popen(["true"]) as unburied:
        os.waitid(os.P_PID, unburied.pid, os.WEXITED | os.WNOWAIT)
        living.found = [unburied.pid]

        with pytest.raises(NoEffect, match="it had ended just before"):
            made("stop-worker", living, "north")


def test_a_process_that_is_stopped_is_seen_to_be(living: FakeSite) -> None:
    pid = living.cluster.pid("master")
    before = faults.is_stopped(pid)
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)

    assert (before, faults.is_stopped(pid)) == (False, True)


@pytest.mark.parametrize("fault", ["clock-step", "clock-step-restart"])
def test_a_clock_that_nobody_looks_at_was_not_set(living: FakeSite, fault: str) -> None:
    made(fault, living)
    living.is_ours_the_clock = False
    living.done.clear()

    with pytest.raises(NoEffect, match="does not look at the clock"):
        made(fault, living)

    assert living.done[-1] == "0"


def test_a_door_that_nobody_answers_has_refused_nobody(
    living: FakeSite, stranger: type[FakeStranger]
) -> None:
    with pytest.raises(NoEffect, match="nobody answered the door"):
        made("wrong-key", living)

    stranger.admitted = False
    assert made("wrong-key", living).endswith(" peers, none let in")

    stranger.admitted = True
    with pytest.raises(Broken, match="the master let in a key that is on no list"):
        made("wrong-key", living)


def test_another_version_has_to_be_refused(living: FakeSite, stranger: type[FakeStranger]) -> None:
    stranger.admitted = True
    with pytest.raises(NoEffect, match="nobody answered"):
        made("old-version", living)

    stranger.answers = (Refused("version 0 was spoken"),)
    assert "refused by name" in made("old-version", living)

    stranger.answers = (Agreed(1.0, [], 1.0, 2.0),)
    with pytest.raises(Broken, match="the master answered another version"):
        made("old-version", living)
