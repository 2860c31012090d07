"""The daemons of one run: a master, three controllers, a database proxy and a Pushgateway client, and the relays between them.

    north ── relay of messages ──┐                 all three ── relay of bytes ── database proxy
    south ── relay of bytes ─────┼── master        all three ── Pushgateway client ── what plays the Pushgateway
    west ────────────────────────┤
    task generator ── of both ───┘

Each daemon has a disk of its own for what it must not forget, where mounts can be had, and a wall clock of its own.
"""

from __future__ import annotations

import math
import os
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from cyclone.clock import monotonic
from cyclone.core.audit import Findings, audit
from cyclone.drill import master, work
from cyclone.drill.checker import Stored
from cyclone.drill.disk import Disk
from cyclone.drill.notes import AnyNote, tids
from cyclone.drill.plan import (
    DAEMONS,
    DATABASE,
    GENERATOR,
    KEEPERS,
    LEASE_S,
    MASTER,
    NODES,
    NORTH,
    PUSHGATEWAY,
    SOUTH,
)
from cyclone.drill.relay import PASS, Errand, Way
from cyclone.drill.witness import VARIABLE, Witness, now
from cyclone.errors import CycloneError
from cyclone.ini import Ini
from cyclone.private_cluster import PrivateCluster, Sections, free_ports, write_ini
from cyclone.process.lineage import descendants, end_with_parent, has_variable, processes
from cyclone.store.audit import StoredFacts
from cyclone.store.sqlite import SqliteStore
from cyclone.wire.keys import Role, authorize, make

_PROXY = "cyclone.daemons.database_proxy"
WORKERS = 3
WINDOW = 400
#: Keys of their own for peers who may speak and talk nonsense: a door suspends them, and nobody else is to suffer.
NONSENSE, FORMER = "nonsense", "former"
FRIENDS = (NONSENSE, FORMER)

#: A daemon that ended by itself is started again after this, as systemd would.
_RESTART_S = 0.3
_EXCUSED_S = 1.0
#: A controller that was told to leave may be seen to be gone before its master is.
_TOGETHER_S = 5.0
_LOOK_S = 0.02
_CLOCK = struct.Struct("=d")
#: Whoever has a port, besides the master: relays, the sinks, and what plays the Pushgateway.
_LISTENERS = (NORTH, SOUTH, "generator bytes", "generator messages", "sink", DATABASE, PUSHGATEWAY, "gateway")

#: Longer than any clock is set ahead: nothing is to vanish because of that.
_STALE_S = 10 * 86_400
_SAMPLE = re.compile(rf'{re.escape(work.SAMPLES)}{{.*\btask="([^"]+)".*}} (\d+)')


@dataclass
class _Standing:
    """How one daemon is to be looked at. down: the drill holds it down. excused_until: until then it may end by itself.

    leaves: this life of it was told to leave, and may end with 0 at any time.
    gone_at: when it was seen to have ended by itself. Moments are monotonic; gone_at is None while it lives.
    """

    down: bool = False
    excused_until: float = 0.0
    leaves: bool = False
    gone_at: float | None = None


@dataclass
class Site:
    """Owns what is known of the daemons of a cluster, and their relays, disks and clocks."""

    cluster: PrivateCluster
    witness: Witness
    generator: Sections
    seed: int
    kinds: Sequence[str]
    has_disks: bool
    has_gateway: bool
    died: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.daemons = DAEMONS if self.has_gateway else KEEPERS
        #: When the last life of the Pushgateway client began, on the boot-time clock.
        self.client_began_at = 0.0
        self._standing = {name: _Standing() for name in self.daemons}
        # That of the master is given to it already, and nobody listens there yet.
        found = [port for port in free_ports(len(_LISTENERS) + 1) if port != self.cluster.port]
        self._ports = dict(zip(_LISTENERS, found, strict=False))
        self._relays: subprocess.Popen[bytes] | None = None
        self.disks: dict[str, Disk] = {}

    # The beginning.

    def begin(self) -> None:
        """Start everything, of which nothing is left when the cluster ends. Raises CycloneError."""
        self.cluster.at_end(self.close)
        try:
            self._begin()
        except OSError as error:
            raise CycloneError(f"the cluster of the drill cannot be started: {error}") from error

    def _begin(self) -> None:
        directory = self.cluster.directory
        (directory / "disks").mkdir()
        for name in self.daemons:
            (directory / f"{name}.clock").write_bytes(_CLOCK.pack(0.0))
        for name in KEEPERS:
            if self.has_disks:
                self.disks[name] = Disk(directory / "disks" / name)
            else:
                (directory / "disks" / name).mkdir()
        for name in FRIENDS:
            make(self.cluster.key_dir, name, Role.CONTROLLER)
            authorize(self.cluster.key_dir, self.cluster.key_dir / f"{name}.public")
        config = directory / "generator.conf"
        own_ini: Sections = {"task_generator": {"config_file": config}} if self.is_ours else {}
        write_ini(
            config,
            self.generator,
            own_ini,
            {"drill": {"seed": self.seed, "began": now(), "gateway": self.has_gateway}},
        )
        self.cluster.environment[master.VARIABLE] = f"tcp://127.0.0.1:{self._ports['generator bytes']}"
        self.cluster.start_master(self._master(config), master.__name__)
        self.cluster.write(DATABASE, self._database())
        self.cluster.call(_PROXY, DATABASE, "--create-table")
        self.cluster.start(DATABASE, _PROXY)
        self._start_relays()
        if self.has_gateway:
            self.cluster.write(PUSHGATEWAY, self._pushgateway())
            self.client_began_at = now()
            self.cluster.start(PUSHGATEWAY, "cyclone.daemons.pushgateway_client")
        for name in NODES:
            self.cluster.start_controller(name, WORKERS, self._controller(name))

    @property
    def is_ours(self) -> bool:
        """Whether the work is that of the drill itself."""
        return self.generator["task_generator"]["module"] == work.__name__

    def disk(self, name: str) -> Path:
        return self.cluster.directory / "disks" / name

    @property
    def database_port(self) -> int:
        """Where the database proxy itself listens, past the relay."""
        return self._ports[DATABASE]

    @property
    def records(self) -> Path:
        """The database of the sink."""
        return self.disk(DATABASE) / "records.sqlite"

    def _master(self, config: Path) -> Sections:
        keys: dict[str, object] = {
            "module": "cyclone.drill.witness", "class": "Witnessed", "config_file": config, "job": "drill",
            "window": WINDOW,
        }  # fmt: skip
        return {
            "control": {"controller_timeout": LEASE_S},
            "task_generator": keys,
            "store": {"path": self.disk(MASTER) / "store.db"},
        }

    def _controller(self, name: str) -> Sections:
        sinks = {DATABASE: "sink", **({PUSHGATEWAY: PUSHGATEWAY} if self.has_gateway else {})}
        return {
            "control": {"state_dir": self.disk(name) / "state", "request_retry_wait_duration": 1},
            "comm": {"port": self._ports.get(name, self.cluster.port)},
            "processing": {"stop_grace": 1},
            "sinks": {sink: f"127.0.0.1:{self._ports[listener]}" for sink, listener in sinks.items()},
        }

    def _database(self) -> Sections:
        disk, directory = self.disk(DATABASE), self.cluster.directory
        return {
            "control": {"pid_file": directory / f"{DATABASE}.pid"},
            "comm": {"target": "127.0.0.1", "port": self._ports[DATABASE]},
            "db": {"dialect": "sqlite", "file": self.records, "store_timeout": 0.2},
            "spool": {"file": disk / "spool", "dead_letters": disk / "dead"},
            "records": self._records(),
            "security": {"key_dir": self.cluster.key_dir},
        }

    def _pushgateway(self) -> Sections:
        return {
            "control": {"pid_file": self.cluster.directory / f"{PUSHGATEWAY}.pid"},
            "comm": {"target": "127.0.0.1", "port": self._ports[PUSHGATEWAY]},
            "push": {
                "url": f"http://127.0.0.1:{self._ports['gateway']}", "interval": 0.5, "timeout": 1, "stale_after": _STALE_S,
            },
            "records": self._records(),
            "security": {"key_dir": self.cluster.key_dir},
        }  # fmt: skip

    def _records(self) -> dict[str, object]:
        return {
            "modules": ", ".join([work.__name__, *self.kinds]),
            "path": self.generator["task_generator"].get("path", ""),
        }

    def _start_relays(self) -> None:
        errand = Errand(
            str(self.cluster.key_dir),
            [
                Way(NORTH, "messages", self._ports[NORTH], self.cluster.port),
                Way(SOUTH, "bytes", self._ports[SOUTH], self.cluster.port),
                Way(GENERATOR, "bytes", self._ports["generator bytes"], self._ports["generator messages"]),
                Way(GENERATOR, "messages", self._ports["generator messages"], self.cluster.port),
                Way(DATABASE, "bytes", self._ports["sink"], self._ports[DATABASE]),
            ],
            PUSHGATEWAY,
            self._ports["gateway"],
            str(self._shown),
        )
        us = os.getpid()
        with open(self.cluster.directory / "relays.log", "ab") as log:
            self._relays = subprocess.Popen(
                [sys.executable, "-P", "-m", "cyclone.drill.relay", msgspec.json.encode(errand).decode()],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, bufsize=0, start_new_session=True,
                preexec_fn=lambda: end_with_parent(us, signal.SIGKILL),
            )  # fmt: skip
        self._answer()

    # What faults use.

    def relay(self, name: str, mode: str, dice: int = 0) -> int:
        """Have a relay do this from now on. Returns how much the former mode has touched."""
        assert self._relays is not None
        assert self._relays.stdin is not None
        self._relays.stdin.write(f"{name} {mode} {dice}\n".encode("ascii"))
        return int(self._answer())

    def relay_as_before(self, name: str) -> int:
        return self.relay(name, PASS)

    def _answer(self) -> bytes:
        assert self._relays is not None
        assert self._relays.stdout is not None
        if not (line := self._relays.stdout.readline()):
            raise CycloneError("the relays of the drill have ended; see relays.log")
        return line

    def kill(self, name: str) -> None:
        """With kill -9; it stays down until `start`."""
        self._standing[name].down = True
        self.cluster.kill(name)

    def start(self, name: str) -> None:
        """Start it, if it has ended. Returns at once."""
        before = self._standing[name]
        leaves = before.leaves
        if self.cluster.exit_code(name) is not None:
            if name == PUSHGATEWAY:
                self.client_began_at = now()
            self.cluster.restart(name)
            leaves = False
        self._standing[name] = _Standing(excused_until=before.excused_until, leaves=leaves)

    @contextmanager
    def excused(self, name: str) -> Iterator[None]:
        """It may end by itself meanwhile, and a moment later, for what it has met with meanwhile."""
        self._standing[name].excused_until = math.inf
        try:
            yield
        finally:
            self._standing[name].excused_until = monotonic() + _EXCUSED_S

    def let_leave(self, name: str) -> None:
        """The master has told it to leave: it may end with 0."""
        self._standing[name].leaves = True

    def hold_down(self, name: str) -> None:
        """That it ends is what is wanted."""
        self._standing[name].down = True

    def step_clock(self, name: str, seconds: float) -> None:
        """Set its wall clock that far from that of the machine."""
        # In place: the processes have this file mapped.
        with open(self.cluster.directory / f"{name}.clock", "r+b") as file:
            file.write(_CLOCK.pack(seconds))

    def goes_by_our_clock(self, name: str) -> bool:
        """Whether this daemon has the file of its clock mapped."""
        file = str(self.cluster.directory / f"{name}.clock")
        try:
            maps = Path(f"/proc/{self.cluster.pid(name)}/maps").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return False
        return any(line.endswith(file) for line in maps.splitlines())

    def below(self, name: str, is_meant: Callable[[str, str], bool]) -> list[int]:
        """Processes below a daemon. is_meant: is asked with the name and the command line of each."""
        found = []
        for pid in sorted(descendants(self.cluster.pid(name), processes())):
            told = _name_and_command(pid)
            if told is not None and is_meant(*told):
                found.append(pid)
        return found

    # Looking after it.

    def tend(self, moment: float) -> bool:
        """Start again what has ended by itself, and note whom that was not allowed. Returns whether the run is over."""
        if self._has_ended(MASTER) and self.cluster.exit_code(MASTER) in (0, 1):
            return True
        for name, standing in self._standing.items():
            if standing.down or not self._has_ended(name):
                continue
            if standing.gone_at is None:
                standing.gone_at = moment
            code = self.cluster.exit_code(name)
            leaves = name in NODES and code == 0
            if moment - standing.gone_at < (_TOGETHER_S if leaves and not standing.leaves else _RESTART_S):
                continue
            if standing.gone_at > standing.excused_until and not (leaves and standing.leaves):
                self.died.append(f"the {name} ended by itself with {code}; see {name}.log")
            self.start(name)
        return False

    def _has_ended(self, name: str) -> bool:
        return not self._standing[name].down and self.cluster.exit_code(name) is not None

    # The end.

    def end(self, within_s: float) -> list[str]:
        """Have everybody else end now that the master has. Returns what there is to say of those who did not."""
        until = monotonic() + within_s
        together = monotonic() + _TOGETHER_S
        while self._living(NODES) and monotonic() < together:
            time.sleep(_LOOK_S)
        for name in self._living(NODES):
            # The drill itself has started it after the master had ended.
            self.cluster.signal(name, signal.SIGTERM)
        slow = self._await_end(NODES, until)
        # Only now nobody delivers any more: the sinks pass on what they have, and end.
        sinks = [name for name in self.daemons if name in (DATABASE, PUSHGATEWAY)]
        for name in sinks:
            self.hold_down(name)
            self.cluster.signal(name, signal.SIGTERM)
        return slow + self._await_end(sinks, until)

    def _await_end(self, names: Sequence[str], until: float) -> list[str]:
        while living := self._living(names):
            if monotonic() > until:
                return [f"the {name} did not end after the master" for name in living]
            time.sleep(_LOOK_S)
        codes = {name: self.cluster.exit_code(name) for name in names}
        return [f"the {name} ended with {code} after the master" for name, code in codes.items() if code != 0]

    def _living(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if self.cluster.exit_code(name) is None]

    def close(self) -> None:
        """Stop the relays and unmount the disks; what is on them is moved to where they were if all is to be kept."""
        if self._relays is not None:
            self._relays.kill()
            self._relays.communicate()
        for disk in self.disks.values():
            disk.unmount_keeping() if self.cluster.is_kept else disk.unmount()
        self.disks.clear()

    def left(self) -> dict[int, str]:
        """`{pid: command line}` of all living processes of this run."""
        variable = f"{VARIABLE}={self.witness.directory}".encode()
        us = os.getpid()
        return {
            pid: (_name_and_command(pid) or ("", ""))[1]
            for pid in processes()
            if pid != us and has_variable(pid, variable)
        }

    def audited(self) -> list[str]:
        """What the store, as it was left by the master, says against itself: see `cyclone audit`."""
        with StoredFacts(self.disk(MASTER) / "store.db") as facts:
            return [str(finding) for finding in audit(facts, str(facts.path), Findings()).findings]

    @property
    def _shown(self) -> Path:
        return self.cluster.directory / "pushgateway.shown"

    def shown(self) -> dict[str, int] | None:
        """`{tid: samples}`, as what plays the Pushgateway was given them last; None without a client."""
        if not self.has_gateway:
            return None
        text = self._shown.read_text(encoding="utf-8") if self._shown.exists() else ""
        return {tid: int(value) for tid, value in _SAMPLE.findall(text)}

    def stored(self, notes: list[AnyNote]) -> tuple[list[Stored], int]:
        """What the store says of each task, and how many ends it counts; when the master has ended."""
        store = SqliteStore(self.disk(MASTER) / "store.db")
        try:
            found = {task.tid: Stored(task.tid, "") for task in store.wake().live}
            for tid in tids(notes) - found.keys():
                task = store.task(tid)
                if task is not None and task.end is not None:
                    last = task.end.end
                    found[tid] = Stored(tid, task.end.state.value, last.token if last is not None else 0)
            counted = sum(sum(job.counts.values()) for job in store.jobs())
        finally:
            store.close()
        return list(found.values()), counted


def generator_of(file: Path | None) -> Sections:
    """The section of the task generator under drill: that of a master's ini file, or our own stream.

    Raises ConfigError.
    """
    if file is None:
        ours = {
            "module": "cyclone.drill.work",
            "class": "Stream",
            "config_file": "",
            "path": "",
            "spare": "off",
        }
        return {"task_generator": ours}
    ini = Ini.read(file)
    # The rest of the file is the affair of its master.
    theirs = {key: ini.text("task_generator", key, "") for key in ("config_file", "path")}
    needed = {key: ini.text("task_generator", key) for key in ("module", "class")}
    return {"task_generator": {**theirs, **needed, "spare": "on"}}


def _name_and_command(pid: int) -> tuple[str, str] | None:
    try:
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return name, b" ".join(words).decode("utf-8", "replace").strip()
