"""A cluster of its own on this host: real daemons, in a directory that goes away with them."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from cyclone.cli.page import visible
from cyclone.client import Client
from cyclone.daemons.desk import Desk
from cyclone.errors import CycloneError, MasterUnreachable, RuleBroken
from cyclone.messages import AskCluster, Cluster
from cyclone.process.lineage import on_death_of_parent
from cyclone.wire.keys import Role, load_pair, load_public
from cyclone.wire.line import Line, connect

START_S = 30.0
#: Nobody waits for what they hold: it is a cluster to measure with.
STOP_S = 5.0
_POLL_S = 0.02
#: So often it is looked whether the master that does not answer is alive.
_ASK_S = 2.0
_LOG_LINES = 30
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class PrivateCluster:
    """Owns its daemons, their directory, and the connections to them that it has handed out.

    Keys and the durable store are as they are by default. To be used in a `with`, from the main thread: the
    daemons die with it, and SIGTERM interrupts it as ^C does. When it ends with an error, the ends of the logs of the
    daemons are shown.

    keep: leave the directory where it is.
    """

    def __init__(self, *, keep: bool = False) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="cyclone-bench-"))
        self._keep = keep
        self._port = 0
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._desks: list[Desk] = []
        self._clients: list[Client] = []

    def start_master(self) -> None:
        """Start it, again if it has ended, and return when it listens; on the same port every time.

        Raises CycloneError when it ends or does not listen in time.
        """
        port_file = self.directory / "port"
        port_file.unlink(missing_ok=True)
        lines = [
            "[control]", f"pid_file = {self.directory}/master.pid",
            "[comm]", "target = 127.0.0.1", f"port = {self._port}", f"port_file = {port_file}",
            "[store]", f"path = {self.directory}/store.db", "durability = full",
            "[security]", f"key_dir = {self._key_dir}",
        ]  # fmt: skip
        self._start("master", "cyclone.daemons.master", lines)
        deadline = time.monotonic() + START_S
        while not port_file.exists():
            self.check()
            if time.monotonic() > deadline:
                raise CycloneError(f"the master does not listen after {START_S:g} s")
            time.sleep(_POLL_S)
        self._port = int(port_file.read_text(encoding="ascii"))

    def start_controllers(self, count: int, workers: int) -> None:
        """Start so many, with so many workers each; the master must have listened once. See `await_controllers`."""
        for number in range(1, count + 1):
            name = f"controller-{number}"
            lines = [
                "[control]", f"pid_file = {self.directory}/{name}.pid", f"name = {name}",
                "request_retry_wait_duration = 2", "max_num_request_retries = 1000",
                "[comm]", "target = 127.0.0.1", f"port = {self._port}",
                "[processing]", f"worker_count = {workers}",
                "[security]", f"key_dir = {self._key_dir}",
            ]  # fmt: skip
            self._start(name, "cyclone.daemons.controller", lines)

    def await_controllers(self, count: int, timeout_s: float = START_S) -> None:
        """Return when the master knows so many. Raises CycloneError when a daemon ends or it takes too long."""
        client = self.client()
        deadline = time.monotonic() + timeout_s
        while (known := len(self.ask(client).controllers)) < count:
            self.check()
            if time.monotonic() > deadline:
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
        own, master = load_pair(self._key_dir, "client"), load_public(self._key_dir, "master")
        client = Client(self.address, own, master, instance="asking", life=secrets.token_hex(8))
        self._clients.append(client)
        return client

    def connect(self, instance: str, key: str = "client") -> Line:
        """A line of one's own with the key of this name, to be closed by the caller."""
        role = Role.CONTROLLER if key == Role.CONTROLLER else Role.CLIENT
        return connect(self.address, self._key_dir, key, role, instance=instance, life=secrets.token_hex(8))

    def ask(self, client: Client) -> Cluster:
        """What the master says of itself. Raises CycloneError when a daemon has ended or there is no answer."""
        deadline = time.monotonic() + START_S
        while True:
            try:
                reply = client.ask(AskCluster(request=0), timeout_s=_ASK_S)
            except MasterUnreachable:
                self.check()
                if time.monotonic() > deadline:
                    raise
            else:
                if not isinstance(reply, Cluster):
                    raise RuleBroken(f"the master answered with {type(reply).__name__}")
                return reply

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self._port}"

    @property
    def _key_dir(self) -> Path:
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

    # The end.

    def kill_master(self) -> None:
        """As kill -9 does. What is connected to it stays as it is."""
        master = self._daemons.pop("master")
        master.kill()
        master.wait()

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
            if error is not None and not isinstance(error, KeyboardInterrupt):
                self._show_logs()
        finally:
            if self._keep:
                print(f"kept {self.directory}", file=sys.stderr)
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
            daemon.terminate()
        deadline = time.monotonic() + STOP_S
        for daemon in self._daemons.values():
            try:
                daemon.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def _show_logs(self) -> None:
        for log in sorted(self.directory.glob("*.log")):
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            print(f"--- {log.stem}", *map(visible, lines[-_LOG_LINES:]), sep="\n", file=sys.stderr)

    def _start(self, name: str, module: str, ini: Sequence[str]) -> None:
        file = self.directory / f"{name}.conf"
        file.write_text("\n".join(ini) + "\n", encoding="utf-8")
        with open(self.directory / f"{name}.log", "ab") as log:
            self._daemons[name] = subprocess.Popen(
                [sys.executable, "-m", module, "-f", str(file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # ^C in this terminal is for us: we stop them in order.
                start_new_session=True,
                preexec_fn=_die_with_us,
            )


def _die_with_us() -> None:
    on_death_of_parent(signal.SIGKILL)
