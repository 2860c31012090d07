"""A cluster that works while somebody throws what is malformed at every one of its doors; and what must be true then.

The master, two controllers, the database proxy and the Pushgateway client are real daemons. Mallory has two keys that
are authorised: one of a controller, one of a client.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from acceptance.cluster import PATIENCE_S, TESTS, Cluster, Daemon, wait_for
from fuzz.echo import Echo

from cyclone.cli.audit import audit_store
from cyclone.daemons.desk import Desk
from cyclone.wire import keys
from cyclone.wire.keys import Role
from cyclone.wire.line import connect

MALLORY = {"mallory-controller": Role.CONTROLLER, "mallory-client": Role.CLIENT}
JOB = "honest"


class Siege:
    """Owns the desk at which the honest client works, and the attackers; the cluster is the caller's."""

    def __init__(
        self, cluster: Cluster, *, workers: int = 2, window: int = 100_000, lease_s: float = 4
    ) -> None:
        """Start everything and return when it is there."""
        self.cluster = cluster
        self.accepted = 0
        self._number = 0
        self._attackers: list[subprocess.Popen[str]] = []
        self.key_dir = cluster.directory / "keys"
        keys.ensure(self.key_dir)
        for name, role in MALLORY.items():
            keys.make(self.key_dir, name, role)
            keys.authorize(self.key_dir, self.key_dir / f"{name}.public")
        cluster.start_master(
            {
                "task_generator": {"module": None, "class": None, "window": window},
                "control": {"controller_timeout": lease_s},
            }
        )
        records = {
            "records": {"modules": "fuzz.echo"},
            "spool": {"file": "spool.db"},
            "db": {"dialect": "sqlite", "file": "records.db", "store_timeout": 0.5},
        }
        cluster.start_sink("database-proxy", records).wait_for_log("Started")
        cluster.run("-f", "database-proxy.conf", "--create-table", program="database-proxy")
        cluster.start_sink(
            "pushgateway-client",
            {"records": {"modules": "fuzz.echo"}, "push": {"url": "", "textfile": "metrics.prom"}},
        ).wait_for_log("Started")
        sinks = {
            "database": cluster.sink_address("database-proxy"),
            "pushgateway": cluster.sink_address("pushgateway-client"),
        }
        for number in range(2):
            cluster.start_controller(
                f"controller-{number}", workers, {"sinks": sinks, "resources": {"honesty": 1000}}
            ).wait_for_log("Started")
        self.desk = self._open_desk()

    @property
    def doors(self) -> dict[str, tuple[str, str]]:
        """`{daemon: (its address, the name of its key)}`."""
        sinks = {name: f"tcp://127.0.0.1:{port}" for name, port in self.cluster.sink_ports.items()}
        return {
            "master": (f"tcp://127.0.0.1:{self.cluster.port}", "master"),
            **{name: (address, "sink") for name, address in sinks.items()},
        }

    def _open_desk(self) -> Desk:
        life = f"{time.time_ns():016x}{secrets.token_hex(6)}"
        address, _ = self.doors["master"]
        desk = Desk(connect(address, self.key_dir, "client", Role.CLIENT, instance=JOB, life=life), JOB)
        desk.open()
        return desk

    # Work.

    def work(self, count: int, *, records: bool = False) -> float:
        """Hand in so many tasks and wait until each has told its own number. Returns the seconds that it took."""
        expected: dict[str, int] = {}
        began = time.perf_counter()
        for _ in range(count):
            task = Echo(self._number, records=records)
            self._number += 1
            expected[self.desk.submit(task)] = task.number
            if len(expected) >= 20_000:
                self._collect(expected, 10_000)
        self._collect(expected, 0)
        self.accepted += count
        return time.perf_counter() - began

    def _collect(self, expected: dict[str, int], left: int) -> None:
        deadline = time.monotonic() + 10 * PATIENCE_S
        while len(expected) > left:
            for result in self.desk.results(1.0):
                assert result.ok, f"{result.tid} ended as {result.outcome}: {result.error}"
                assert result.value == expected.pop(result.tid), f"the value of {result.tid} is another one's"
                if len(expected) <= left:
                    break
            assert time.monotonic() < deadline, f"{len(expected)} results have not come"

    # Attacks.

    def attack(self, what: str, door: str, *options: object) -> subprocess.Popen[str]:
        """Return when one has begun at this door, in a process of its own; see `attacker.py`."""
        address, server = self.doors[door]
        command = [
            sys.executable, TESTS / "fuzz" / "attacker.py", what, "--address", address, "--key-dir", self.key_dir,
            "--server", server, *map(str, options),
        ]  # fmt: skip
        attacker = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=self.cluster.environment,
        )  # fmt: skip
        self._attackers.append(attacker)
        assert attacker.stdout is not None
        assert attacker.stdout.readline() == "begins\n"
        return attacker

    def reports(self, *, at_once: bool = False) -> list[dict[str, Any]]:
        """What the attackers have done, when they are through. at_once: end them now."""
        told = []
        for attacker in self._attackers:
            if at_once:
                attacker.send_signal(signal.SIGTERM)
            said, complained = attacker.communicate(timeout=10 * PATIENCE_S)
            assert attacker.returncode == 0, complained
            told.append(json.loads(said.splitlines()[-1]))
        self._attackers.clear()
        return told

    # What must be true.

    def memory_bytes(self) -> dict[str, int]:
        """What each daemon has in memory. Source: proc_pid_statm(5), second field, in pages."""
        return {
            daemon.name: int(Path(f"/proc/{daemon.pid}/statm").read_text().split()[1])
            * os.sysconf("SC_PAGE_SIZE")
            for daemon in self.cluster.daemons
        }

    def assert_everybody_lives(self) -> None:
        for daemon in self.cluster.daemons:
            assert daemon.is_alive, f"{daemon.name} ended:\n{daemon.log[-4000:]}\n{daemon.printed[-4000:]}"
            for sign in ("Traceback", "internal error"):
                assert sign not in daemon.log + daemon.printed, f"{sign} in the log of {daemon.name}"

    def assert_every_task_has_one_end(self) -> None:
        """As the store has it: all that were accepted for the honest job ended once, and none was added.

        The audit says the same of every job, those of the attackers included.
        """
        [(tasks, ended, badly)] = self.cluster.question(
            """SELECT count(*), count(ended.task), count(ended_badly.task) FROM job
            JOIN task ON task.job = job.number LEFT JOIN ended ON ended.task = task.number
            LEFT JOIN ended_badly ON ended_badly.task = task.number WHERE job.name = 'honest'"""
        )
        assert (tasks, ended, badly) == (self.accepted, self.accepted, 0)
        found = audit_store(self.cluster.directory / "store.db")
        assert found.is_sound, found.violations

    def assert_every_record_is_there_once(self, count: int) -> None:
        def rows() -> bool:
            with closing(sqlite3.connect(self.cluster.directory / "records.db")) as connection:
                return list(connection.execute("SELECT count(*), count(DISTINCT number) FROM echo")) == [
                    (count, count)
                ]

        wait_for(f"{count} records", rows)

    def end(self) -> None:
        """Everybody ends in order."""
        for attacker in self._attackers:
            attacker.kill()
            attacker.communicate()
        self.desk.close()
        for daemon in self.cluster.daemons:
            daemon.signal(signal.SIGTERM)
        ended = {daemon.name: _exit_code(daemon) for daemon in self.cluster.daemons}
        assert set(ended.values()) == {0}, ended


def _exit_code(daemon: Daemon) -> int:
    return daemon.wait()
