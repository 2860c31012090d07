"""Who gets in, who is heard, and for how long: real daemons, real sockets, and all sorts of keys.

Whatever intruders say carries a mark. The daemons note when bytes with that mark reach the codec
(`listening_in/sitecustomize.py`), so that "nothing of theirs is decoded" is counted and not believed.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple

import pytest
import zmq
from acceptance.cluster import TESTS, Cluster, Daemon, free_port, wait_for
from acceptance.test_database_sink import COUNTS, JOB, KINDS, create_table, settings_of
from acceptance.witness import MARK
from zmq.utils.monitor import parse_monitor_message

from cyclone.errors import EXIT_OK, EXIT_UNREACHABLE
from cyclone.messages import (
    AskCluster,
    AskRecords,
    Cancel,
    Deliver,
    Ended,
    Entry,
    Message,
    Open,
    Report,
    Submit,
)
from cyclone.model.task import End
from cyclone.wire import codec, keys
from cyclone.wire.keys import Role
from cyclone.wire.line import Line

INTRUDER = MARK.decode()

ENTRY = Entry(bytes(16), "database", "measured", INTRUDER, INTRUDER, 0.0, b"")

#: What each role may say where, with the mark.
TO_MASTER: dict[str, list[Message]] = {
    "controller": [Report(1.0, (("workers", 10_000),), [], host=INTRUDER)],
    "client": [Open(INTRUDER), Cancel(1, 1, [INTRUDER])],
}
TO_SINK: list[Message] = [Deliver(1, [ENTRY])]

#: The run does not end before the test has done what it does meanwhile: some tasks wait for it, or the generator does.
SLOW = """
def held():
    return not os.path.exists(os.path.join(os.environ["CYCLONE_CLUSTER"], "go on"))

class Slow(BaseTask):
    def execute(self):
        note("begun", f"{{self.tid}} {{os.getppid()}}")
        time.sleep(0.1)
        while int(self.tid) >= {task_waits} and held():
            time.sleep(0.05)
        note("done", self.tid)

class Job(Telling):
    def generate(self):
        for number in range({count}):
            while number == {generator_waits} and held() and not self.stopping:
                self.sleep(0.05)
            task = Slow()
            task.tid = str(number)
            yield task
"""


class Server(NamedTuple):
    """Something that listens. key: the name of its public key; said: what somebody with a key might say to it."""

    name: str
    port: int
    key: str
    said: list[Message]

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"


class Site:
    """A cluster with both sinks, in which everybody listens in."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.key_dir = cluster.directory / "keys"
        cluster.environment["PYTHONPATH"] = os.pathsep.join(
            (str(TESTS / "acceptance" / "listening_in"), cluster.environment["PYTHONPATH"])
        )

    def start(self, tasks: int) -> None:
        """Everything but a controller."""
        self.cluster.write("kinds.py", KINDS)
        self.cluster.write_job(JOB)
        self.cluster.write("job.conf", f"[run]\ntasks = {tasks}\n")
        master = self.cluster.start_master(
            {"task_generator": {"config_file": "job.conf"}, "control": {"when_finished": "wait"}}
        )
        proxy = self.cluster.start_sink("database-proxy", settings_of(self.cluster))
        client = self.cluster.start_sink(
            "pushgateway-client", {"push": {"url": ""}, "metrics": {"port": free_port()}}
        )
        create_table(self.cluster)
        self.daemons = [master, proxy, client]
        for daemon in self.daemons:
            daemon.wait_for_log("Started")
        everything = [message for messages in TO_MASTER.values() for message in messages]
        self.servers = [
            Server("master", self.cluster.port, "master", everything),
            Server("database-proxy", self.cluster.sink_ports["database-proxy"], "sink", TO_SINK),
            Server("pushgateway-client", self.cluster.sink_ports["pushgateway-client"], "sink", TO_SINK),
        ]

    def start_controller(self) -> Daemon:
        return self.cluster.start_controller(
            settings={"sinks": {"database": self.cluster.sink_address("database-proxy")}}
        )

    @property
    def marks(self) -> Counter[str]:
        """What was done in all daemons with what an intruder has said."""
        return Counter(self.cluster.notes("codec"))

    def rows(self) -> tuple[int, int]:
        with closing(
            sqlite3.connect(f"file:{self.cluster.directory / 'rows.sqlite'}?mode=ro", uri=True)
        ) as rows:
            [(all_of_them, different)] = rows.execute(COUNTS)
            return all_of_them, different


@pytest.fixture(scope="module")
def site(make_module_cluster: Callable[[], Cluster]) -> Site:
    """One that has nothing to do but to listen."""
    site = Site(make_module_cluster())
    site.start(0)
    return site


# Strangers.


def no_key(peer: zmq.Socket[bytes], server: Server, key_dir: Path) -> None:
    pass


def password(peer: zmq.Socket[bytes], server: Server, key_dir: Path) -> None:
    peer.plain_username, peer.plain_password = b"controller", b"controller"


def own_key(peer: zmq.Socket[bytes], server: Server, key_dir: Path) -> None:
    use(peer, *zmq.curve_keypair(), keys.load_public(key_dir, server.key).public)


def revoked_key(peer: zmq.Socket[bytes], server: Server, key_dir: Path) -> None:
    pair = keys.load_pair(key_dir, "left")
    use(peer, pair.public, pair.secret, keys.load_public(key_dir, server.key).public)


def key_without_its_secret(peer: zmq.Socket[bytes], server: Server, key_dir: Path) -> None:
    listed, (_, secret) = keys.load_public(key_dir, "controller"), zmq.curve_keypair()
    use(peer, listed.public, secret, keys.load_public(key_dir, server.key).public)


def wrong_server_key(peer: zmq.Socket[bytes], server: Server, key_dir: Path) -> None:
    pair = keys.load_pair(key_dir, "controller")
    use(peer, pair.public, pair.secret, zmq.curve_keypair()[0])


def key_of_a_sink(peer: zmq.Socket[bytes], server: Server, key_dir: Path) -> None:
    pair = keys.load_pair(key_dir, "sink")
    use(peer, pair.public, pair.secret, keys.load_public(key_dir, server.key).public)


def key_of_the_master(peer: zmq.Socket[bytes], server: Server, key_dir: Path) -> None:
    pair = keys.load_pair(key_dir, "master")
    use(peer, pair.public, pair.secret, keys.load_public(key_dir, server.key).public)


STRANGERS = (
    no_key, password, own_key, revoked_key, key_without_its_secret, wrong_server_key, key_of_a_sink, key_of_the_master,
)  # fmt: skip

VERDICTS = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
)


def use(peer: zmq.Socket[bytes], public: bytes, secret: bytes, server: bytes) -> None:
    peer.curve_publickey, peer.curve_secretkey, peer.curve_serverkey = public, secret, server


def somebody_who_has_left(key_dir: Path) -> None:
    keys.make(key_dir, "left", Role.CONTROLLER)
    keys.authorize(key_dir, key_dir / "left.public")
    keys.revoke(key_dir, "left")


def knock(stranger: Callable[..., None], server: Server, key_dir: Path, count: int) -> Counter[int]:
    """So many connections of this stranger, each with as much to say as there is. How the handshakes have ended."""
    verdicts: Counter[int] = Counter()
    with ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        monitors = []
        for _ in range(count):
            peer = stack.enter_context(context.socket(zmq.DEALER))
            peer.linger = 0
            stranger(peer, server, key_dir)
            monitor = stack.enter_context(peer.get_monitor_socket(VERDICTS))
            stack.callback(peer.disable_monitor)
            peer.connect(server.address)
            for message in server.said:
                # Whoever was refused by now has nobody to say anything to, and would wait for ever.
                with suppress(zmq.Again):
                    peer.send(codec.frame(codec.seal(INTRUDER, INTRUDER), message), zmq.NOBLOCK)
            monitors.append(monitor)
        for monitor in monitors:
            assert monitor.poll(20_000), f"{stranger.__name__} was told nothing at the {server.name}"
            verdicts[parse_monitor_message(monitor.recv_multipart())["event"]] += 1
    return verdicts


def test_a_thousand_strangers_are_refused_while_a_cluster_works(cluster: Cluster) -> None:
    site = Site(cluster)
    site.start(tasks=400)
    somebody_who_has_left(site.key_dir)
    controller = site.start_controller()

    verdicts: Counter[int] = Counter()
    for stranger in STRANGERS:
        for server in site.servers:
            verdicts += knock(stranger, server, site.key_dir, 42)
    wait_for("every row", lambda: site.rows() == (4000, 4000))

    assert verdicts.total() == len(STRANGERS) * 3 * 42 >= 1000
    assert verdicts[zmq.EVENT_HANDSHAKE_SUCCEEDED] == 0
    assert site.marks == {}
    assert all(daemon.is_alive for daemon in (*site.daemons, controller))
    for daemon in site.daemons:
        # Told of at most once a minute for each address, with how many there were.
        assert "refused: the key SHA256:" in daemon.log
        assert "Traceback" not in daemon.log + daemon.printed


# Those who are let in, and say what is not theirs to say.


def say(
    site: Site, server: Server, key: str, *messages: Message, enclosure: list[bytes] | None = None
) -> None:
    own, other = keys.load_pair(site.key_dir, key), keys.load_public(site.key_dir, server.key)
    with Line(server.address, own, other, instance=INTRUDER, life=INTRUDER) as line:
        wait_for("the connection", lambda: line.connected or (line.wait(0.05) and line.connected))
        for message in messages:
            assert line.say(message, enclosure)


def test_who_listens_in_hears_what_is_decoded(site: Site) -> None:
    master, _, _ = site.servers

    say(site, master, "client", AskCluster(1), Open(INTRUDER, 77))

    wait_for("the notes", lambda: site.marks["decoded Open"])
    assert site.marks["unseal"] >= 2


@pytest.mark.parametrize(
    ("name", "key", "message", "enclosure"),
    [
        ("master", "client", Report(1.0, (), [], host=INTRUDER), None),
        ("master", "client", Ended([End(1, error=INTRUDER)]), [b""]),
        ("master", "client", Deliver(1, [ENTRY]), None),
        ("master", "controller", Open(INTRUDER), None),
        ("master", "controller", Submit(1, 1, [], []), None),
        ("master", "controller", Cancel(1, 1, [INTRUDER]), None),
        ("master", "controller", AskCluster(1), None),
        ("database-proxy", "client", Deliver(1, [ENTRY]), None),
        ("pushgateway-client", "client", Deliver(1, [ENTRY]), None),
        ("database-proxy", "controller", AskCluster(1), None),
        ("database-proxy", "controller", AskRecords(1, [MARK.ljust(16)]), None),
        ("master", "client", AskRecords(1, [MARK.ljust(16)]), None),
        ("pushgateway-client", "controller", Open(INTRUDER), None),
        ("database-proxy", "controller", Report(1.0, (), [], host=INTRUDER), None),
    ],
)  # fmt: skip
def test_a_key_says_nothing_that_is_not_for_its_role(
    site: Site, name: str, key: str, message: Message, enclosure: list[bytes] | None
) -> None:
    [server] = [each for each in site.servers if each.name == name]
    [daemon] = [each for each in site.daemons if each.name == name]
    own = new_key(site, Role(key), daemon)
    before = site.marks

    say(site, server, own, message, enclosure=enclosure)

    daemon.wait_for_log(f"peer={own} ")
    [told] = [line for line in daemon.log.splitlines() if f"peer={own} " in line]
    assert "wrong role: " in told or "undecodable: " in told
    assert [mark for mark in site.marks - before if mark.startswith("decoded")] == []


def new_key(site: Site, role: Role, daemon: Daemon) -> str:
    """The name of a new key that this daemon has noticed: a peer is complained about once a minute only."""
    name = f"{role}-{len(list(site.key_dir.glob('*.secret')))}"
    # It may still have to notice keys that others were waiting for: what it has read when it was told to holds them.
    read = daemon.log.count("keys read anew\n")
    daemon.signal(signal.SIGHUP)
    daemon.wait_for_log("keys read anew\n", times=read + 1)
    noticed = daemon.log.count("keys read anew, for the list has changed")
    keys.make(site.key_dir, name, role)
    keys.authorize(site.key_dir, site.key_dir / f"{name}.public")
    daemon.wait_for_log("keys read anew, for the list has changed", times=noticed + 1)
    return name


def test_who_talks_nonsense_a_hundred_times_is_not_read_and_others_are(site: Site) -> None:
    master, *_ = site.servers
    bad, good = (new_key(site, Role.CLIENT, site.daemons[0]) for _ in range(2))
    pair, other = keys.load_pair(site.key_dir, bad), keys.load_public(site.key_dir, "master")
    with zmq.Context() as context, context.socket(zmq.DEALER) as peer:
        peer.linger = 0
        use(peer, pair.public, pair.secret, other.public)
        peer.connect(master.address)
        for _ in range(100):
            peer.send_multipart([codec.seal("", "life"), b"\xc1"])
        site.daemons[0].wait_for_log(
            f"suspended: 100 bad messages; nothing of theirs is read for 60 s peer=client:{bad}:"
        )
        before = site.marks
        peer.send(codec.frame(codec.seal("", INTRUDER), Open(INTRUDER, 77)))
        # What comes after it over the same connection would be heard after it.
        with Line(master.address, keys.load_pair(site.key_dir, good), other, life="other") as line:
            wait_for("the connection", lambda: line.wait(0.05) and line.connected)
            assert line.say(AskCluster(1))
            wait_for("the answer", lambda: line.wait(0.05) and line.receive())

        assert site.marks == before


# Connections that say nothing.


def descriptors(daemon: Daemon) -> int:
    return len(os.listdir(f"/proc/{daemon.pid}/fd"))


@contextmanager
def silence(port: int, count: int) -> Iterator[None]:
    """So many connections that do not even greet; for each that is cut off comes another, until the context ends."""
    over = Event()

    def hold_on() -> None:
        held: list[socket.socket] = []
        try:
            while not over.wait(0.02):
                held = [peer for peer in held if not is_closed(peer)]
                for _ in range(min(count - len(held), 100)):
                    held.append(socket.socket())
                    held[-1].setblocking(False)
                    held[-1].connect_ex(("127.0.0.1", port))
        finally:
            for peer in held:
                peer.close()

    thread = Thread(target=hold_on)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def is_closed(peer: socket.socket) -> bool:
    try:
        closed = peer.recv(100) == b""
    except BlockingIOError:
        return False
    except OSError:
        closed = True
    if closed:
        peer.close()
    return closed


def test_two_thousand_silent_connections_keep_nobody_away(site: Site) -> None:
    with silence(site.servers[0].port, 2000):
        wait_for("them", lambda: descriptors(site.daemons[0]) > 2000)
        told = command(site.cluster, "info")

    assert told.returncode == EXIT_OK, told.stderr


def test_silent_connections_leave_descriptors_for_those_who_work(cluster: Cluster) -> None:
    """Without a bound a master dies of the first file that it cannot open."""
    site = Site(cluster)
    site.start(tasks=100)
    for daemon in site.daemons:
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (600, 600))

    with ExitStack() as stack:
        for server in site.servers:
            stack.enter_context(silence(server.port, 800))
        for daemon in site.daemons:
            daemon.wait_for_log("too many connections: at most 200")
            wait_for("room", lambda daemon=daemon: descriptors(daemon) < 400)
            new_key(site, Role.CLIENT, daemon)
        controller = site.start_controller()
        wait_for("every row", lambda: site.rows() == (1000, 1000))

    assert all(daemon.is_alive for daemon in (*site.daemons, controller))


# Keys that come and go while a master runs.


def command(cluster: Cluster, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).parent / "cyclone", *words, "-f", cluster.directory / "master.conf"],
        cwd=cluster.directory, env=cluster.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip


def keys_command(cluster: Cluster, *words: str | Path) -> None:
    done = command(cluster, "keys", *words)
    assert done.returncode == EXIT_OK, done.stderr


def node(cluster: Cluster, name: str) -> Path:
    """The key directory of another host: a key of its own, that the master has authorized, and nothing else."""
    directory = cluster.directory / f"{name}-keys"
    keys.make(directory, name, Role.CONTROLLER)
    shutil.copy(cluster.directory / "keys" / "master.public", directory)
    keys_command(cluster, "authorize", directory / f"{name}.public")
    return directory


def start_node(cluster: Cluster, name: str, key: str, directory: Path, retries: int = 60) -> Daemon:
    settings = {
        "control": {"max_num_request_retries": retries},
        "security": {"key_dir": directory, "key": key},
    }
    return cluster.start_controller(name, settings=settings)


def each_once(cluster: Cluster, count: int) -> bool:
    return Counter(one["tid"] for one in cluster.told()) == Counter(map(str, range(count)))


def assert_done(cluster: Cluster, count: int) -> None:
    """Also where a second life of the generator was told again of what ended in the first one."""
    assert {one["tid"] for one in cluster.told()} == set(map(str, range(count)))
    assert cluster.question("SELECT name, state FROM job") == [("Job", "succeeded")]


def test_a_revoked_controller_is_cut_off_and_its_work_goes_elsewhere(cluster: Cluster) -> None:
    cluster.write_job(SLOW.format(count=60, task_waits=8, generator_waits=60))
    master = cluster.start_master()
    first, second = (start_node(cluster, name, name, node(cluster, name), 5) for name in ("node-1", "node-2"))
    for name in ("node-1", "node-2"):
        master.wait_for_log(f"controller joined name={name}/")
    cluster.wait_for_notes("done", 4)

    # Also before the master had looked at the list again, in which it stands since a moment ago.
    times = first.log.count("does not admit the key node-1")
    keys_command(cluster, "revoke", "node-1")
    first.wait_for_log("does not admit the key node-1", times=times + 1)
    cluster.write("go on", "")
    codes = master.wait(), first.wait(), second.wait()

    assert codes == (EXIT_OK, EXIT_UNREACHABLE, EXIT_OK)
    assert each_once(cluster, 60)


def test_the_key_of_a_controller_is_exchanged_while_the_master_runs(cluster: Cluster) -> None:
    cluster.write_job(SLOW.format(count=40, task_waits=40, generator_waits=10))
    master = cluster.start_master()
    directory = node(cluster, "node-1")
    controller = start_node(cluster, "node", "node-1", directory)
    cluster.wait_for_notes("done", 4)

    keys_command(cluster, "make", "node-1b", "--role", "controller", "--key-dir", directory)
    keys_command(cluster, "authorize", directory / "node-1b.public")
    controller.signal(signal.SIGTERM)
    assert controller.wait() == EXIT_OK
    controller = start_node(cluster, "node", "node-1b", directory)
    keys_command(cluster, "revoke", "node-1")
    cluster.write("go on", "")

    assert (master.wait(), controller.wait()) == (EXIT_OK, EXIT_OK)
    assert each_once(cluster, 40)


def test_the_key_of_the_master_is_exchanged_between_two_lives(cluster: Cluster) -> None:
    cluster.write_job(SLOW.format(count=30, task_waits=30, generator_waits=10))
    master = cluster.start_master()
    directory = node(cluster, "node-1")
    controller = start_node(cluster, "node", "node-1", directory)
    cluster.wait_for_notes("done", 4)
    old = keys.load_public(directory, "master").fingerprint

    master.kill()
    for name in ("master.secret", "master.public"):
        (cluster.directory / "keys" / name).unlink()
    cluster.start_master()
    controller.wait_for_log(f"its key is not {old}, which is expected of the master")
    shutil.copy(cluster.directory / "keys" / "master.public", directory)
    controller.restart()
    cluster.write("go on", "")

    assert (master.wait(), controller.wait()) == (EXIT_OK, EXIT_OK)
    assert keys.load_public(directory, "master").fingerprint != old
    assert_done(cluster, 30)


def test_the_key_of_clients_is_exchanged_between_two_lives_of_the_master(cluster: Cluster) -> None:
    cluster.write_job(SLOW.format(count=30, task_waits=30, generator_waits=10))
    master = cluster.start_master()
    controller = cluster.start_controller()
    cluster.wait_for_notes("done", 4)
    key_dir = cluster.directory / "keys"
    old = keys.load_pair(key_dir, "client")

    master.kill()
    keys_command(cluster, "revoke", "client")
    for name in ("client.secret", "client.public"):
        (key_dir / name).unlink()
    keys_command(cluster, "make", "client", "--role", "client")
    keys_command(cluster, "authorize", key_dir / "client.public")
    cluster.start_master()

    assert command(cluster, "info").returncode == EXIT_OK
    with Line(
        f"tcp://127.0.0.1:{cluster.port}", old, keys.load_public(key_dir, "master"), life="old"
    ) as line:
        wait_for("the refusal", lambda: line.wait(0.05) or line.refused_reason)
    cluster.write("go on", "")
    assert (master.wait(), controller.wait()) == (EXIT_OK, EXIT_OK)
    assert_done(cluster, 30)
