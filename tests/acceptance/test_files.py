"""Files that daemons make: for whom they are readable, whatever the umask is, and that no planted link is followed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
from pathlib import Path

import pytest
from acceptance.cluster import Cluster, Daemon, free_port, wait_for
from acceptance.test_access import command
from acceptance.test_database_sink import KINDS, create_table, rows

from cyclone.errors import EXIT_OK
from cyclone.wire import keys

JOB = """
from kinds import Measured

class Measure(BaseTask):
    def execute(self):
        self.record("database", Measured, number=int(self.tid), part=0, text="x")
        self.record("pushgateway", Measured, number=int(self.tid), part=2, text="x")

class Job(TaskGenerator):
    def generate(self):
        for number in range(10):
            task = Measure()
            task.tid = str(number)
            yield task
"""

#: What others may read. Nobody but its owner may write to anything.
FOR_ALL = re.compile(
    r"(keys/)?[\w-]+\.(pid|log|public)|keys/authorized(/[\w-]+\.(public|revoked))?|port|client-port|cyclone\.prom"
    r"|rows\.sqlite(-wal|-shm)?"
)


class Place:
    """A directory with a master, a controller and both sinks, whose files have the names of the settings below."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        cluster.write("kinds.py", KINDS)
        cluster.write_job(JOB)
        self.ours = self.files()

    def files(self) -> set[str]:
        return {str(path.relative_to(self.cluster.directory)) for path in self.cluster.directory.rglob("*")}

    def made(self) -> set[str]:
        """What daemons have made, but for what the tests themselves have."""
        written = re.compile(r".*\.(conf|err)")
        return {name for name in self.files() - self.ours if not written.fullmatch(name)}

    def start_master(self) -> Daemon:
        return self.cluster.start_master({"control": {"when_finished": "wait"}})

    def start_proxy(self) -> Daemon:
        return self.cluster.start_sink(
            "database-proxy",
            {
                "db": {"dialect": "sqlite", "file": "rows.sqlite", "store_timeout": 0.1},
                "spool": {"file": "proxy.spool", "dead_letters": "proxy.dead"},
            },
        )

    def start_client(self) -> Daemon:
        return self.cluster.start_sink(
            "pushgateway-client",
            {
                "push": {"url": "", "interval": 0.1, "textfile": "cyclone.prom"},
                "comm": {"port_file": "client-port"},
                "metrics": {"port": free_port()},
            },
        )

    def start_controller(self) -> Daemon:
        return self.cluster.start_controller(
            settings={
                "control": {"state_dir": "state", "pid_file": "controller.pid"},
                "log": {"filename": "controller.log"},
                "sinks": {
                    "database": self.cluster.sink_address("database-proxy"),
                    "pushgateway": self.cluster.sink_address("pushgateway-client"),
                },
            }
        )

    def run_through(self) -> None:
        """Everything that makes files: a run, and the ends of all."""
        directory = self.cluster.directory
        self.start_master()
        proxy, client = self.start_proxy(), self.start_client()
        create_table(self.cluster)
        controller = self.start_controller()
        wait_for("every row", lambda: rows(self.cluster, "SELECT count(*) FROM measurements") == [(10,)])
        wait_for("the metrics", (directory / "cyclone.prom").exists)
        controller.kill()
        for daemon in (proxy, client):
            daemon.signal(signal.SIGHUP)
        self.start_controller().wait_for_log("Started", times=2)


@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_nobody_else_may_write_to_what_daemons_make_nor_read_most_of_it(cluster: Cluster, umask: int) -> None:
    place = Place(cluster)
    cluster.umask = umask

    place.run_through()
    modes = {name: stat.S_IMODE((cluster.directory / name).lstat().st_mode) for name in place.made()}

    expected = {
        "master.pid",
        "store.db",
        "store.db-wal",
        "proxy.spool",
        "proxy.dead",
        "state",
        "keys/master.secret",
    }
    assert expected <= modes.keys()
    assert {name: oct(mode) for name, mode in modes.items() if mode & 0o022} == {}
    assert {name: oct(mode) for name, mode in modes.items() if not mode & stat.S_IRUSR} == {}
    open_to_others = {name for name, mode in modes.items() if mode & 0o044}
    assert {name for name in open_to_others if not FOR_ALL.fullmatch(name)} == set()


def test_commands_make_nothing_that_others_may_write_to(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    cluster.write("master.conf", "[security]\nkey_dir = deep/below/keys\n")
    before = os.umask(0)
    try:
        made = command(cluster, "keys", "make", "node-1", "--role", "controller")
    finally:
        os.umask(before)

    assert made.returncode == EXIT_OK
    found = [tmp_path / "deep", *(tmp_path / "deep").rglob("*")]
    assert len(found) == 5
    assert [path for path in found if path.stat().st_mode & 0o022] == []


#: What each daemon makes: a link in its place is replaced or refused.
NAMES = {
    "master": ["master.pid", "port", "port.new", "store.db.lock", "store.db-wal", "store.db-shm"],
    "controller": ["controller.pid", "controller.lives", "controller.lives.new", "state"],
    "database-proxy": ["database-proxy.pid", "proxy.spool.lock", "proxy.spool.reserve", "proxy.dead"],
    "pushgateway-client": ["pushgateway-client.pid", "client-port", "cyclone.prom", "cyclone.prom.new"],
}

#: Here a link of an administrator's is followed, and one of somebody else is not; only root can plant such a one.
NAMES_OF_LINKS = {
    "master": ["master.log", "store.db"],
    "controller": ["controller.log"],
    "database-proxy": ["database-proxy.log", "proxy.spool", "rows.sqlite"],
    "pushgateway-client": ["pushgateway-client.log"],
}
SOMEBODY = 54321


@pytest.mark.parametrize("name", NAMES)
def test_a_planted_link_is_not_followed(steady_cluster: Cluster, name: str) -> None:
    """To a file that is precious, and to one that is not there yet."""
    cluster, directory = steady_cluster, steady_cluster.directory
    place = Place(cluster)
    keys.ensure(directory / "keys")
    start = {
        "master": lambda: started(cluster, cluster._daemon("master", "master"), cluster.configure_master()),
        "controller": place.start_controller,
        "database-proxy": place.start_proxy,
        "pushgateway-client": place.start_client,
    }[name]
    precious, nowhere = cluster.write("precious/file", "precious"), directory / "precious" / "nowhere"
    precious.chmod(0o600)
    links = NAMES[name] + (NAMES_OF_LINKS[name] if os.geteuid() == 0 else [])

    for link in links:
        for target in (precious, nowhere):
            planted = directory / link
            shutil.rmtree(planted, ignore_errors=True)
            planted.unlink(missing_ok=True)
            planted.symlink_to(target)
            if os.geteuid() == 0:
                os.chown(planted, SOMEBODY, SOMEBODY, follow_symlinks=False)
            see_what_becomes_of_it(start())
            planted.unlink(missing_ok=True)

            assert (precious.read_text(), precious.stat().st_mode & 0o777) == ("precious", 0o600), link
            assert not nowhere.exists(), link


def see_what_becomes_of_it(daemon: Daemon) -> None:
    begun = daemon.log.count("Started")
    wait_for("the start", lambda: not daemon.is_alive or daemon.log.count("Started") > begun)
    if daemon.is_alive:
        daemon.kill()


def started(cluster: Cluster, daemon: Daemon, _config: Path) -> Daemon:
    return daemon.start()
