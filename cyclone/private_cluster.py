"""A cluster of its own on this host: real daemons, in a directory that goes away with them."""

from __future__ import annotations

import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

from cyclone.client import Client
from cyclone.clock import monotonic
from cyclone.daemons.desk import Desk
from cyclone.errors import CycloneError, MasterUnreachable, RuleBroken
from cyclone.messages import AskCluster, Cluster
from cyclone.process.former_lives import sweep_former_lives
from cyclone.process.lineage import end_with_parent
from cyclone.wire.keys import Role, load_pair, load_public
from cyclone.wire.line import Line, connect

START_S = 30.0
#: Nobody waits for what they hold: it is a cluster to measure with.
STOP_S = 5.0
_POLL_S = 0.02
#: So often it is looked whether the master that does not answer is alive.
_ASK_S = 2.0
_LOG_LINES = 30
#: `{section: {key: value}}` of an ini file.
Sections: TypeAlias = Mapping[str, Mapping[str, object]]

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class PrivateCluster:
    """Owns its daemons, their directory, and the connections to them that it has handed out.

    Keys and the durable store are as they are by default. To be used in a `with`, from the main thread: the
    daemons die with it, and SIGTERM interrupts it as ^C does. When it ends with an error, the ends of the logs of the
    daemons are told.

    tell: is given a line for people at a time. name: what its directory is called after.
    keep: leave the directory where it is. environment: what the daemons have in addition to ours. Raises CycloneError.
    """

    def __init__(
        self, tell: Callable[[str], None], *, name: str = "bench", keep: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        try:
            self.directory = Path(tempfile.mkdtemp(prefix=f"cyclone-{name}-"))
        except OSError as error:
            raise CycloneError(f"a directory for the cluster cannot be made: {error}") from error
        self.environment = dict(environment or {})
        self._tell = tell
        self.is_kept = keep
        self._port = free_port()
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._modules: dict[str, str] = {}
        self._desks: list[Desk] = []
        self._clients: list[Client] = []
        self._last_steps = ExitStack()

    def start_master(self, settings: Sections | None = None, module: str = "cyclone.daemons.master") -> None:
        """Start it, again if it has ended, and return when it listens; on the same port every time.

        settings: besides what it needs to be here. Raises CycloneError when it ends or does not listen in time.
        """
        port_file = self.directory / "port"
        port_file.unlink(missing_ok=True)
        ours: Sections = {
            "control": {"pid_file": self.directory / "master.pid"},
            "comm": {"target": "127.0.0.1", "port": self._port, "port_file": port_file},
            "store": {"path": self.directory / "store.db", "durability": "full"},
            "security": {"key_dir": self.key_dir},
        }
        self.write("master", ours, settings or {})
        self.start("master", module)
        deadline = monotonic() + START_S
        while not port_file.exists():
            self.check()
            if monotonic() > deadline:
                raise CycloneError(f"the master does not listen after {START_S:g} s")
            time.sleep(_POLL_S)

    def start_controllers(self, count: int, workers: int) -> None:
        """Start so many, with so many workers each; the master must have listened once. See `await_controllers`."""
        for number in range(1, count + 1):
            self.start_controller(f"controller-{number}", workers)

    def start_controller(self, name: str, workers: int, settings: Sections | None = None) -> None:
        """Return at once. settings: besides what it needs to be here."""
        ours: Sections = {
            "control": {
                "pid_file": self.directory / f"{name}.pid", "name": name,
                "request_retry_wait_duration": 2, "max_num_request_retries": 1000,
            },
            "comm": {"target": "127.0.0.1", "port": self._port},
            "processing": {"worker_count": workers},
            "security": {"key_dir": self.key_dir},
        }  # fmt: skip
        self.write(name, ours, settings or {})
        self.start(name, "cyclone.daemons.controller")

    def await_controllers(self, count: int, timeout_s: float = START_S) -> None:
        """Return when the master knows so many. Raises CycloneError when a daemon ends or it takes too long."""
        client = self.client()
        deadline = monotonic() + timeout_s
        while (known := len(self.ask(client).controllers)) < count:
            self.check()
            if monotonic() > deadline:
                raise CycloneError(f"{known} of {count} controllers have reported after {timeout_s:g} s")
            time.sleep(_POLL_S)

    def check(self) -> None:
        """Raises CycloneError when a daemon has ended."""
        for name, daemon in self._daemons.items():
            if (status := daemon.poll()) is not None:
                raise CycloneError(f"the {name} ended with {status}")

    # How one speaks to it.

    def open_desk(self, job: str) -> Desk:
        """Where to hand in tasks of an open job of this name."""
        desk = Desk(self.connect(job), job)
        desk.open()
        self._desks.append(desk)
        return desk

    def hang_up(self, desk: Desk) -> None:
        """Close a desk before the end; its job and its tasks stay."""
        self._desks.remove(desk)
        desk.abandon()

    def client(self) -> Client:
        own, master = load_pair(self.key_dir, "client"), load_public(self.key_dir, "master")
        client = Client(self.address, own, master, instance="asking", life=secrets.token_hex(8))
        self._clients.append(client)
        return client

    def connect(self, instance: str, key: str = "client") -> Line:
        """A line of one's own with the key of this name, to be closed by the caller."""
        role = Role.CONTROLLER if key == Role.CONTROLLER else Role.CLIENT
        return connect(self.address, self.key_dir, key, role, instance=instance, life=secrets.token_hex(8))

    def ask(self, client: Client) -> Cluster:
        """What the master says of itself. Raises CycloneError when a daemon has ended or there is no answer."""
        deadline = monotonic() + START_S
        while True:
            try:
                reply = client.ask(AskCluster(request=0), timeout_s=_ASK_S)
            except MasterUnreachable:
                self.check()
                if monotonic() > deadline:
                    raise
            else:
                if not isinstance(reply, Cluster):
                    raise RuleBroken(f"the master answered with {type(reply).__name__}")
                return reply

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self._port}"

    @property
    def port(self) -> int:
        """Of the master."""
        return self._port

    @property
    def key_dir(self) -> Path:
        return self.directory / "keys"

    # What is measured of the master.

    def master_memory_bytes(self) -> int:
        """What it has in memory now. Source: proc_pid_statm(5), second field, in pages."""
        text = Path(f"/proc/{self._daemons['master'].pid}/statm").read_text(encoding="ascii")
        return int(text.split()[1]) * _PAGE_BYTES

    def master_processor_s(self) -> float:
        """What it has used of the processor. Source: proc_pid_stat(5), utime and stime."""
        text = Path(f"/proc/{self._daemons['master'].pid}/stat").read_text(encoding="utf-8")
        fields = text.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S

    # One daemon by its name.

    def write(self, name: str, *layers: Sections) -> None:
        """Write the ini file of this daemon; of the layers, later ones win."""
        write_ini(self.directory / f"{name}.conf", *layers)

    def start(self, name: str, module: str) -> None:
        """Start it, again if it has ended. module: that is run, with the ini file of this name. Returns at once."""
        self._modules[name] = module
        us = os.getpid()
        with open(self.directory / f"{name}.log", "ab") as log:
            self._daemons[name] = subprocess.Popen(
                self._command(module, name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # ^C in this terminal is for us: we stop them in order.
                start_new_session=True,
                env={**os.environ, **self.environment, "CYCLONE_DAEMON": name},
                preexec_fn=lambda: end_with_parent(us, signal.SIGKILL),
            )

    def call(self, module: str, name: str, *arguments: str) -> None:
        """Have a daemon do something else than serve, with the ini file of this name. Raises CycloneError."""
        command = [*self._command(module, name), *arguments]
        ended = subprocess.run(
            command, env={**os.environ, **self.environment}, capture_output=True, text=True, check=False
        )
        if ended.returncode != 0:
            raise CycloneError(
                f"{module} {' '.join(arguments)} ended with {ended.returncode}: {ended.stderr}"
            )

    def _command(self, module: str, name: str) -> list[str]:
        # -P: a file of the user's in the working directory must not replace a module of the library.
        return [sys.executable, "-P", "-m", module, "-f", str(self.directory / f"{name}.conf")]

    def restart(self, name: str) -> None:
        """Start one that has ended with the settings that it had. Returns at once."""
        self.start(name, self._modules[name])

    def pid(self, name: str) -> int:
        return self._daemons[name].pid

    def exit_code(self, name: str) -> int | None:
        """None while it lives, minus the number of the signal if one has killed it."""
        return self._daemons[name].poll()

    def signal(self, name: str, signum: int) -> None:
        """Nothing happens if it has ended."""
        self._daemons[name].send_signal(signum)

    def kill(self, name: str) -> None:
        """As kill -9 does. What is connected to it stays as it is; nothing happens if it has ended."""
        self._daemons[name].kill()
        self._daemons[name].wait()

    def kill_master(self) -> None:
        """As `kill`; from now on it is not missed."""
        self.kill("master")
        del self._daemons["master"]

    def at_end(self, step: Callable[[], None]) -> None:
        """Have this done when the daemons have ended and the directory is still there; what was asked for last comes first."""
        self._last_steps.callback(step)

    def keep(self) -> None:
        """Leave the directory where it is, also if that was not wanted at first."""
        self.is_kept = True

    # The end.

    def __enter__(self) -> Self:
        # Whoever ends us by SIGTERM wants the daemons and the directory to go away as well.
        self._on_term = signal.signal(signal.SIGTERM, signal.default_int_handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An impatient second signal must not leave daemons or the directory behind; this here is bounded in time.
        on_interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            self._hang_up_all()
            self._stop_daemons()
            for lives in self.directory.glob("*.lives"):
                # Of controllers that were killed; nobody starts them again, who would do this.
                sweep_former_lives(lives, "over")
            self._last_steps.close()
            if error is not None and not isinstance(error, KeyboardInterrupt):
                self._tell_logs()
        finally:
            if self.is_kept:
                self._tell(f"kept {self.directory}")
            else:
                shutil.rmtree(self.directory)
            signal.signal(signal.SIGINT, on_interrupt)
            signal.signal(signal.SIGTERM, self._on_term)

    def _hang_up_all(self) -> None:
        for desk in self._desks:
            desk.abandon()
        for client in self._clients:
            client.close()

    def _stop_daemons(self) -> None:
        for daemon in self._daemons.values():
            daemon.send_signal(signal.SIGCONT)
            daemon.terminate()
        deadline = monotonic() + STOP_S
        for daemon in self._daemons.values():
            try:
                daemon.wait(max(0.0, deadline - monotonic()))
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def _tell_logs(self) -> None:
        for log in sorted(self.directory.glob("*.log")):
            self._tell(f"--- {log.stem}")
            for line in log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]:
                self._tell(line)


def write_ini(file: Path, *layers: Sections) -> None:
    """Write an ini file, which may hold a password; later layers win, key by key."""
    sections: dict[str, dict[str, object]] = {}
    for layer in layers:
        for section, keys in layer.items():
            sections.setdefault(section, {}).update(keys)
    lines = [
        line
        for section, keys in sections.items()
        for line in (f"[{section}]", *(f"{key} = {value}" for key, value in keys.items()))
    ]
    file.touch(0o600)
    file.write_text("\n".join([*lines, ""]), encoding="utf-8")


def free_port() -> int:
    """As `free_ports`, one."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """So many ports of this host that nobody listens on, from below the range that the kernel gives to outgoing connections.

    From within that range a server that is started again might find its port taken by somebody's connection.
    """
    # All are held until the last one was found, so that no two are the same.
    with ExitStack() as held:
        found: list[int] = []
        while len(found) < count:
            port = random.randint(10_000, 32_000)
            probe = held.enter_context(socket.socket())
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
        return found
