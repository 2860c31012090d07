"""Ports and ini files of a private cluster; the daemons themselves are started by the tests of `bench` and `drill`."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from cyclone.errors import CycloneError
from cyclone.ini import Ini
from cyclone.private_cluster import PrivateCluster, free_ports, write_ini
from cyclone.process.former_lives import LIFE_VARIABLE


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


def test_a_place_where_nothing_can_be_made_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))

    with pytest.raises(CycloneError, match="a directory for the cluster cannot be made: "):
        PrivateCluster(print)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PrivateCluster:
    """Of daemons that only wait."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "waiting.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    return PrivateCluster(print)


def test_the_last_steps_are_taken_when_nobody_runs_and_the_directory_is_there(
    cluster: PrivateCluster,
) -> None:
    seen: list[tuple[str, int | None, bool]] = []

    def step(name: str) -> None:
        seen.append((name, cluster.exit_code("one"), cluster.directory.exists()))

    with cluster:
        cluster.start("one", "waiting")
        cluster.at_end(lambda: step("last"))
        cluster.at_end(lambda: step("first"))

    assert seen == [("first", -signal.SIGTERM, True), ("last", -signal.SIGTERM, True)]
    assert not cluster.directory.exists()


def test_what_a_killed_controller_left_is_swept_away(cluster: PrivateCluster) -> None:
    with subprocess.Popen(["sleep", "600"], env={**os.environ, LIFE_VARIABLE: "a-life"}) as left:
        with cluster:
            (cluster.directory / "north.lives").write_text("a-life\n")

        left.wait(10)  # which raises if it lives


def test_later_settings_win_key_by_key(tmp_path: Path) -> None:
    file = tmp_path / "x.conf"

    write_ini(file, {"comm": {"port": 1, "target": "a"}}, {"comm": {"port": 2}, "store": {"path": tmp_path}})

    assert dict(Ini.read(file).sections()) == {
        "comm": {"port": "2", "target": "a"}, "store": {"path": str(tmp_path)},
    }  # fmt: skip
