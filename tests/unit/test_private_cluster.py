"""Ports and ini files of a private cluster; the daemons themselves are started by the tests of `bench` and `drill`."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from cyclone.ini import Ini
from cyclone.private_cluster import free_ports, write_ini


def ports_of_the_kernel(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def test_ports_that_are_found_together_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, three = ports_of_the_kernel(3)
    drawn = iter([one, one, two, one, three])
    monkeypatch.setattr(random, "randint", lambda _low, _high: next(drawn))

    assert free_ports(3) == [one, two, three]


def test_a_port_on_which_somebody_listens_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    [free] = ports_of_the_kernel(1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        drawn = iter([listener.getsockname()[1], free])
        monkeypatch.setattr(random, "randint", lambda _low, _high: next(drawn))

        assert free_ports(1) == [free]


def test_later_settings_win_key_by_key(tmp_path: Path) -> None:
    file = tmp_path / "x.conf"

    write_ini(file, {"comm": {"port": 1, "target": "a"}}, {"comm": {"port": 2}, "store": {"path": tmp_path}})

    assert dict(Ini.read(file).sections()) == {
        "comm": {"port": "2", "target": "a"}, "store": {"path": str(tmp_path)},
    }  # fmt: skip
