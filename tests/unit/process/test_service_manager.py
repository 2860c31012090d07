"""What is said to whoever started a daemon, and that nobody else says it."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cyclone.process.service_manager import ServiceManager


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(tmp_path / "notify"))
        ear.settimeout(10)
        yield ear


def manager_of(environment: dict[str, str]) -> ServiceManager:
    return ServiceManager.take(environment)


def test_it_is_told_how_the_daemon_does(ear: socket.socket) -> None:
    manager = manager_of({"NOTIFY_SOCKET": ear.getsockname()})

    manager.ready("serves")
    manager.alive()
    manager.stopping("enough")
    manager.close()

    heard = [ear.recv(100) for _ in range(3)]
    assert heard == [b"READY=1\nSTATUS=serves", b"WATCHDOG=1", b"STOPPING=1\nSTATUS=enough"]


def test_an_abstract_socket_is_one_that_begins_with_an_at_sign() -> None:
    name = f"cyclone-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(f"\0{name}")
        ear.settimeout(10)
        manager = manager_of({"NOTIFY_SOCKET": f"@{name}"})
        manager.alive()
        manager.close()

        assert ear.recv(100) == b"WATCHDOG=1"


def test_nobody_who_is_started_later_can_speak_for_the_daemon(ear: socket.socket) -> None:
    environment = {
        "NOTIFY_SOCKET": ear.getsockname(),
        "WATCHDOG_USEC": "60000000",
        "WATCHDOG_PID": str(os.getpid()),
        "HOME": "/",
    }

    manager_of(environment).close()

    assert environment == {"HOME": "/"}


@pytest.mark.parametrize(
    ("said", "every_s"),
    [
        ({"WATCHDOG_USEC": "60000000"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_half_of_the_time_after_which_it_is_given_up(
    said: dict[str, str], every_s: float | None, ear: socket.socket
) -> None:
    manager = manager_of({"NOTIFY_SOCKET": ear.getsockname(), **said})

    assert manager.alive_every_s == every_s
    manager.close()


def test_without_a_manager_nothing_is_said() -> None:
    manager = manager_of({"WATCHDOG_USEC": "60000000"})

    manager.ready("serves")
    manager.alive()

    assert manager.alive_every_s is None


def test_that_nobody_listens_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manager = manager_of({"NOTIFY_SOCKET": str(tmp_path / "nobody")})

    with caplog.at_level(logging.WARNING):
        manager.ready("serves")
        manager.alive()
        manager.alive()
    manager.close()

    assert [record.getMessage() for record in caplog.records] == [
        "the service manager cannot be told READY=1: No such file or directory"
    ]
