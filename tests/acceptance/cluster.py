"""A private cluster of real daemons in one directory: started, watched and ended as an administrator would do it.

Everything that is started here carries the directory in its environment, and so does everything that those start.
That is how a cluster finds its own processes among those of others, however they were orphaned, and how it knows at
the end that nobody is left. Nothing here sleeps for a fixed time: whatever is waited for has a deadline.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from cyclone.private_cluster import free_port
from cyclone.store.sqlite import SqliteStore

#: Names the directory of the cluster that a process belongs to.
VARIABLE = "CYCLONE_CLUSTER"

#: For what takes well under a second on an idle machine. Only a failing test ever waits so long.
PATIENCE_S = 40.0

TESTS = Path(__file__).parents[1]

#: `{section: {key: value}}`; one that is None is left out of the file.
Sections = Mapping[str, Mapping[str, object] | None]

_Found = TypeVar("_Found")


class Waited(AssertionError):
    """What was waited for did not come about."""


def wait_for(what: str, find: Callable[[], _Found], within_s: float = PATIENCE_S) -> _Found:
    """What `find` returns as soon as that is true."""
    deadline = time.monotonic() + within_s
    while not (found := find()):
        if time.monotonic() > deadline:
            raise Waited(f"{what}: not within {within_s} s")
        time.sleep(0.01)
    return found


class Daemon:
    """One daemon by its name, over all its lives: `NAME.conf`, `NAME.log`, `NAME.pid` and what it prints."""

    def __init__(self, cluster: Cluster, name: str, program: str) -> None:
        self.name = name
        self._directory = cluster.directory
        self.config = cluster.directory / f"{name}.conf"
        self.pid_file = cluster.directory / f"{name}.pid"
        self.log_file = cluster.directory / f"{name}.log"
        self.printed_file = cluster.directory / f"{name}.err"
        self._environment = cluster.environment
        self._program = Path(sys.executable).parent / f"cyclone-{program}"
        self._umask = cluster.umask
        self._arguments = cluster.arguments
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Daemon:
        with open(self.printed_file, "ab") as printed:
            self._process = subprocess.Popen(
                [self._program, "-f", self.config, *self._arguments],
                cwd=self._directory, env=self._environment, stdin=subprocess.DEVNULL, stdout=printed, stderr=printed,
                # As a shell does it with job control: a signal for the tests is none for the daemons.
                start_new_session=True,
                umask=self._umask,
            )  # fmt: skip
        return self

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def wait(self, within_s: float = PATIENCE_S) -> int:
        """The exit code, or minus the number of the signal that ended it."""
        assert self._process is not None
        try:
            return self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise Waited(
                f"{self.name} did not end within {within_s} s; its log:\n{self.log[-4000:]}"
            ) from None

    def signal(self, signum: int) -> None:
        assert self._process is not None
        self._process.send_signal(signum)

    def kill(self) -> None:
        """As the kernel does it when memory is short."""
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def restart(self) -> None:
        """Kill it, and start it again at once."""
        self.kill()
        self.start()

    @property
    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    @property
    def printed(self) -> str:
        return self.printed_file.read_text() if self.printed_file.exists() else ""

    def wait_for_log(self, text: str, within_s: float = PATIENCE_S, *, times: int = 1) -> None:
        def is_there() -> bool:
            if self.log.count(text) >= times:
                return True
            assert self.is_alive, f"{self.name} ended before it logged {text!r}:\n{self.log}\n{self.printed}"
            return False

        wait_for(f"{text!r} in the log of {self.name}", is_there, within_s)


class Cluster:
    """One master and any number of controllers. Owns their directory and whatever runs in their name."""

    def __init__(self, directory: Path, port: int = 0) -> None:
        """port: 0 lets the master take any free one, and keeps it when the master is started again."""
        self.directory = directory.resolve()
        self.port = port
        self.home = self.directory / "home"
        self.home.mkdir()
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV_"))},
            VARIABLE: str(self.directory),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH")))),
            "PYTHONDONTWRITEBYTECODE": "1",
            # Whoever writes to the usual places without having been told to leaves something here.
            "HOME": str(self.home),
            "TMPDIR": str(self.home),
        }
        self.umask = -1  # that of the tests, unless somebody wants another one
        self.arguments: tuple[str, ...] = ()  # of daemons, such as --debug
        self.daemons: list[Daemon] = []
        self.sink_ports: dict[str, int] = {}
        self._master_settings: Sections = {}

    # Setting it up.

    def write(self, name: str, text: str) -> Path:
        file = self.directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(0o600 if file.suffix == ".conf" else 0o644)
        file.write_text(text)
        return file

    def write_job(self, source: str) -> None:
        """The module with the task generator `Job`. What it imports most often is imported already."""
        imports = (
            "import json, os, random, signal, subprocess, sys, time\n"
            "from cyclone import BaseTask, CommandFailed, Retry, TaskGenerator\n"
            "from acceptance.witness import Telling, note\n"
        )
        self.write("jobs.py", imports + source)

    def configure_master(self, settings: Sections | None = None) -> Path:
        """Write `master.conf`: short leases, the generator `jobs.Job`. settings: what is different."""
        if settings is not None:
            self._master_settings = settings
        ours: dict[str, dict[str, object]] = {
            "control": {"pid_file": "master.pid", "controller_timeout": 3},
            "comm": {"target": "127.0.0.1", "port": self.port, "port_file": "port"},
            "log": {"filename": "master.log"},
            "task_generator": {"module": "jobs", "class": "Job"},
            "store": {"path": "store.db"},
            "security": {"key_dir": "keys"},
        }
        return self.write("master.conf", ini(ours, self._master_settings))

    def start_master(self, settings: Sections | None = None) -> Daemon:
        """Return when it listens."""
        self.configure_master(settings)
        (self.directory / "port").unlink(missing_ok=True)
        master = self._daemon("master", "master").start()
        self.wait_for_port(master)
        return master

    def wait_for_port(self, master: Daemon) -> None:
        """Wait until this life of the master listens, and keep its port for the next one."""

        def listens() -> bool:
            assert master.is_alive, f"the master ended with {master.wait()}:\n{master.log}\n{master.printed}"
            file = self.directory / "port"
            return file.exists() and file.read_text() != ""

        wait_for("the port of the master", listens)
        if self.port == 0:
            self.port = int((self.directory / "port").read_text())
            self.configure_master()

    def start_controller(
        self, name: str = "controller", workers: int = 2, settings: Sections | None = None
    ) -> Daemon:
        """Return at once: in which order daemons start must not matter."""
        assert self.port, "a controller is told the port of the master, so the master has to be first"
        ours: dict[str, dict[str, object]] = {
            "control": {
                "pid_file": self.directory / f"{name}.pid",
                "request_retry_wait_duration": 1,
                "max_num_request_retries": 60,
            },
            "comm": {"target": "127.0.0.1", "port": self.port},
            "log": {"filename": self.directory / f"{name}.log"},
            "processing": {"worker_count": workers, "stop_grace": 1},
            "security": {"key_dir": self.directory / "keys"},
        }
        self.write(f"{name}.conf", ini(ours, settings or {}))
        return self._daemon(name, "controller").start()

    def start_sink(self, name: str, settings: Sections) -> Daemon:
        """`database-proxy` or `pushgateway-client`. Returns at once; its address is `sink_address(name)`."""
        self.sink_ports.setdefault(name, free_port())
        ours: dict[str, dict[str, object]] = {
            "control": {"pid_file": self.directory / f"{name}.pid"},
            "comm": {"target": "127.0.0.1", "port": self.sink_ports[name]},
            "log": {"filename": self.directory / f"{name}.log"},
            "security": {"key_dir": self.directory / "keys"},
            "records": {"modules": "kinds"},
        }
        self.write(f"{name}.conf", ini(ours, settings))
        return self._daemon(name, name).start()

    def sink_address(self, name: str) -> str:
        """As it stands in `[sinks]`, also before it was started."""
        return f"127.0.0.1:{self.sink_ports.setdefault(name, free_port())}"

    def run(
        self, *arguments: str | Path, program: str = "master", within_s: float = PATIENCE_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a daemon that is expected to end by itself, with these arguments."""
        return subprocess.run(
            [Path(sys.executable).parent / f"cyclone-{program}", *arguments],
            cwd=self.directory, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=within_s, check=False,
        )  # fmt: skip

    def _daemon(self, name: str, program: str) -> Daemon:
        for daemon in self.daemons:
            if daemon.name == name:
                assert not daemon.is_alive
                return daemon
        daemon = Daemon(self, name, program)
        self.daemons.append(daemon)
        return daemon

    # Looking at it.

    def notes(self, name: str) -> list[str]:
        """The lines that tasks and generators have noted under this name, in the order of time."""
        file = self.directory / name
        return file.read_text().splitlines() if file.exists() else []

    def wait_for_notes(self, name: str, count: int, within_s: float = PATIENCE_S) -> list[str]:
        wait_for(f"{count} lines in {name}", lambda: len(self.notes(name)) >= count, within_s)
        return self.notes(name)

    def told(self) -> list[dict[str, Any]]:
        """Every result that `on_result` was told, in order."""
        return [json.loads(line) for line in self.notes("told")]

    @contextmanager
    def store(self) -> Iterator[SqliteStore]:
        """The store of a master that has ended."""
        store = SqliteStore(self.directory / "store.db")
        try:
            yield store
        finally:
            store.close()

    def question(self, statement: str) -> list[tuple[Any, ...]]:
        """What the store answers, also while a master has it open."""
        with closing(sqlite3.connect(f"file:{self.directory / 'store.db'}?mode=ro", uri=True)) as connection:
            return list(connection.execute(statement))

    def processes(self) -> dict[int, str]:
        """Everything alive that belongs to this cluster: `{pid: command line}`."""
        mark = f"{VARIABLE}={self.directory}".encode()
        found = {}
        for name in filter(str.isdecimal, os.listdir("/proc")):
            process = Path("/proc", name)
            try:
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    words = (process / "cmdline").read_bytes().split(b"\0")
                    found[int(name)] = b" ".join(words).decode("utf-8", "replace").strip()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # it is gone, or somebody else's
        return found

    def pids(self, kind: str, of: Daemon | None = None) -> list[int]:
        """By name: `cyclone-worker`, `cyclone-reaper`, or a part of the command line. of: only those below it."""
        found = []
        for pid, command in self.processes().items():
            try:
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                is_meant = kind == name if kind.startswith("cyclone-") else kind in command
                if is_meant and (of is None or of.pid in _ancestors(pid)):
                    found.append(pid)
            except (FileNotFoundError, ProcessLookupError):
                continue
        return sorted(found)

    # Ending it.

    def stop(self) -> None:
        """Tell every daemon to end at once, by its PID, and wait until it has."""
        for daemon in self.daemons:
            if daemon.is_alive:
                daemon.signal(signal.SIGCONT)
                daemon.signal(signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE_S
        for daemon in self.daemons:
            # The second one must not come before the first was heard, or the two are one.
            while daemon.is_alive:
                try:
                    daemon.wait(1.0)
                except Waited:
                    if time.monotonic() > deadline:
                        raise
                    daemon.signal(signal.SIGTERM)

    def kill_all(self) -> None:
        """Kill whatever is left; for the end of a test that has failed, or of a host that has."""
        while left := self.processes():
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            for daemon in self.daemons:
                if daemon.is_alive and daemon.pid in left:
                    daemon.wait()

    def assert_nothing_is_left(self, within_s: float = 10.0) -> None:
        """No process anywhere, and no file outside of the directory."""
        wait_for(
            f"the end of all processes, which are {self.processes()}", lambda: not self.processes(), within_s
        )
        assert list(self.home.iterdir()) == []


def ini(*layers: Sections) -> str:
    """The text of an ini file. Later layers win; a value or a section that is None is left out."""
    sections: dict[str, dict[str, object]] = {}
    for layer in layers:
        for section, keys in layer.items():
            if keys is None:
                sections.pop(section, None)
            else:
                sections.setdefault(section, {}).update(keys)
    return "\n".join(
        line
        for section, keys in sections.items()
        for line in (
            f"[{section}]",
            *(f"{key} = {value}" for key, value in keys.items() if value is not None),
        )
    )


def _ancestors(pid: int) -> set[int]:
    found: set[int] = set()
    while pid > 1 and pid not in found:
        found.add(pid)
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return found
