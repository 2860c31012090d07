"""The daemons as services: what they tell systemd, and the units that tell systemd of them."""

from __future__ import annotations

import configparser
import select
import shutil
import signal
import socket
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from acceptance.cluster import Cluster, wait_for

from cyclone import errors

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "Configuration" / "systemd").glob("*.service"))

#: Whoever inherits what only daemons may know would say so here.
LOOK = """
class Look(BaseTask):
    def execute(self):
        note("seen", " ".join(sorted(os.environ)))

class Job(Telling):
    def generate(self):
        note("seen", " ".join(sorted(os.environ)))
        yield Look()
"""


class Manager:
    """Hears what a daemon says to its service manager."""

    def __init__(self, directory: Path) -> None:
        self._ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ear.bind(str(directory / "notify"))
        self._ear.settimeout(60)
        self.environment = {"NOTIFY_SOCKET": str(directory / "notify"), "WATCHDOG_USEC": "400000"}

    def hear(self) -> str:
        return self._ear.recv(4096).decode()

    def hear_until(self, beginning: str) -> str:
        while not (said := self.hear()).startswith(beginning):
            pass
        return said

    def forget(self) -> None:
        """What has been said by now."""
        while not self.is_quiet_for(0):
            self.hear()

    def is_quiet_for(self, seconds: float) -> bool:
        return not select.select([self._ear], [], [], seconds)[0]

    def close(self) -> None:
        self._ear.close()


def is_stopped(pid: int) -> bool:
    """Also when a name in it has blanks or brackets: the state follows the last one."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.fixture
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    manager = Manager(tmp_path_factory.mktemp("manager"))
    yield manager
    manager.close()


def test_a_master_tells_when_it_serves_lives_and_stops(cluster: Cluster, manager: Manager) -> None:
    cluster.write("jobs.py", "")
    cluster.environment.update(manager.environment)
    master = cluster.start_master({"task_generator": None})

    assert manager.hear() == f"READY=1\nSTATUS=serves at tcp://127.0.0.1:{cluster.port}"
    assert [manager.hear() for _ in range(3)] == ["WATCHDOG=1"] * 3

    master.signal(signal.SIGTERM)
    assert manager.hear_until("STOPPING") == "STOPPING=1\nSTATUS=the master was told to stop"


def test_a_controller_tells_when_it_serves_lives_and_stops(cluster: Cluster, manager: Manager) -> None:
    cluster.write("jobs.py", "")
    cluster.start_master({"task_generator": None})
    cluster.environment.update(manager.environment)
    controller = cluster.start_controller()

    assert manager.hear().startswith("READY=1\nSTATUS=serves as ")
    assert manager.hear() == "WATCHDOG=1"

    controller.signal(signal.SIGTERM)
    assert manager.hear_until("STOPPING") == "STOPPING=1\nSTATUS=it was told to stop"


def test_a_sink_tells_when_it_serves_lives_and_stops(cluster: Cluster, manager: Manager) -> None:
    cluster.environment.update(manager.environment)
    settings = {
        "db": {"dialect": "sqlite", "file": "rows.sqlite"},
        "spool": {"file": "spool", "dead_letters": "dead"},
        "records": None,
    }
    proxy = cluster.start_sink("database-proxy", settings)

    assert manager.hear().startswith("READY=1\nSTATUS=serves at tcp://127.0.0.1:")
    assert manager.hear() == "WATCHDOG=1"

    proxy.signal(signal.SIGTERM)
    assert manager.hear_until("STOPPING") == "STOPPING=1\nSTATUS=it was told to stop"


def test_a_master_that_stands_still_does_not_say_that_it_lives(cluster: Cluster, manager: Manager) -> None:
    cluster.write("jobs.py", "")
    cluster.environment.update(manager.environment)
    master = cluster.start_master({"task_generator": None})
    manager.hear_until("WATCHDOG")

    master.signal(signal.SIGSTOP)
    wait_for("it to stand still", lambda: is_stopped(master.pid))
    manager.forget()
    assert manager.is_quiet_for(1.0)

    master.signal(signal.SIGCONT)
    assert manager.hear() == "WATCHDOG=1"


def test_neither_tasks_nor_generators_can_speak_for_a_daemon(cluster: Cluster, manager: Manager) -> None:
    cluster.environment.update(manager.environment)
    cluster.write_job(LOOK)
    master = cluster.start_master()
    cluster.start_controller()

    assert master.wait() == errors.EXIT_OK
    seen = (cluster.directory / "seen").read_text()
    assert seen.count("HOME") == 2
    assert "NOTIFY_SOCKET" not in seen
    assert "WATCHDOG" not in seen


# The units.


def test_there_is_a_unit_for_each_daemon() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]

    assert {unit.stem for unit in UNITS} == {name for name in scripts if name != "cyclone"}


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_understands_the_unit(unit: Path, tmp_path: Path) -> None:
    installed = tmp_path / unit.name
    program = shutil.which("true")
    text = unit.read_text()
    assert text.count(f"ExecStart=/opt/cyclone/bin/{unit.stem} -f /etc/cyclone/") == 1
    installed.write_text(text.replace(f"/opt/cyclone/bin/{unit.stem}", str(program)))

    said = subprocess.run(
        ["systemd-analyze", "verify", str(installed)], capture_output=True, text=True, timeout=60
    )

    # Of other units of this host it may complain as well.
    assert unit.name not in said.stdout + said.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_daemon_that_somebody_has_to_mend_is_not_started_again(unit: Path) -> None:
    settings = configparser.ConfigParser(interpolation=None)
    settings.optionxform = str  # type: ignore[assignment,method-assign]
    settings.read(unit)

    never = {int(code) for code in settings["Service"]["RestartPreventExitStatus"].split()}

    assert {errors.EXIT_USAGE, errors.EXIT_CONFIG, errors.EXIT_ALREADY_RUNNING} <= never
    assert not {errors.EXIT_UNREACHABLE, errors.EXIT_INTERNAL} & never
    assert (errors.EXIT_TASK_FAILED in never) == (unit.stem == "cyclone-master")
