"""Passwords and keys stand where they were put, and in nothing that daemons and commands say or write."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from acceptance.cluster import Cluster, free_port, wait_for
from acceptance.test_access import command
from acceptance.test_database_sink import JOB, KINDS

from cyclone.errors import EXIT_CONFIG, EXIT_OK
from cyclone.sinks.settings import PASSWORD_VARIABLE
from cyclone.wire import keys
from cyclone.wire.keys import Role

DB_PASSWORD, URL_PASSWORD = "planted-for-the-database", "planted-for-the-gateway"


def said_by_processes(cluster: Cluster) -> bytes:
    """Command line and environment of everything that runs."""
    said = b""
    for pid in cluster.processes():
        for name in ("cmdline", "environ"):
            try:
                said += Path(f"/proc/{pid}/{name}").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended meanwhile
    return said


def test_no_secret_is_told_by_anybody(cluster: Cluster) -> None:
    """Neither in logs of --debug, nor where a database and a gateway cannot be reached, nor by commands."""
    cluster.arguments = ("--debug",)
    cluster.write("kinds.py", KINDS)
    cluster.write_job(JOB)
    cluster.write("job.conf", "[run]\ntasks = 20\n")
    master = cluster.start_master(
        {"task_generator": {"config_file": "job.conf"}, "control": {"when_finished": "wait"}}
    )
    proxy = cluster.start_sink(
        "database-proxy",
        {
            "db": {"dialect": "mysql", "host": "127.0.0.1", "port": free_port(), "password": DB_PASSWORD,
                   "connect_timeout": 1, "store_timeout": 0.1},
            "spool": {"file": "proxy.spool", "dead_letters": "proxy.dead"},
        },
    )  # fmt: skip
    client = cluster.start_sink(
        "pushgateway-client",
        {
            "push": {"url": f"http://cyclone:{URL_PASSWORD}@127.0.0.1:{free_port()}", "interval": 0.1},
            "metrics": {"port": free_port()},
        },
    )
    controller = cluster.start_controller(
        settings={"sinks": {name: cluster.sink_address(sink) for name, sink in
                            (("database", "database-proxy"), ("pushgateway", "pushgateway-client"))}}
    )  # fmt: skip
    proxy.wait_for_log("entries are kept")
    client.wait_for_log("push failed")
    controller.wait_for_log("sink takes records, and cannot pass them on")
    wait_for("the tasks", lambda: cluster.question("SELECT state FROM job") == [("succeeded",)])

    key_dir = cluster.directory / "keys"
    keys.make(key_dir, "node-1", Role.CONTROLLER)
    told = said_by_processes(cluster)
    for words in (
        ["info"], ["info", "--json"], ["tasks", "--json"], ["explain", "1"], ["explain", "1", "--json"],
        ["keys", "list"], ["keys", "make", "node-2", "--role", "controller"], ["keys", "fingerprint"],
        ["keys", "authorize", key_dir / "node-1.public"], ["keys", "revoke", "node-1"],
    ):  # fmt: skip
        done = command(cluster, *words)
        assert done.returncode == EXIT_OK, done.stderr
        told += (done.stdout + done.stderr).encode()
    for daemon in (master, proxy, client, controller):
        program = "master" if daemon is master else daemon.name
        done = cluster.run("-f", daemon.config, "--check", program=program)
        assert done.returncode == EXIT_OK, done.stderr
        told += (done.stdout + done.stderr).encode()
    for daemon in (proxy, client, controller, master):
        daemon.signal(signal.SIGTERM)
    cluster.stop()

    secrets = list(key_dir.glob("*.secret"))
    planted = [
        DB_PASSWORD,
        URL_PASSWORD,
        *(keys.load_pair(key_dir, file.stem).secret.decode() for file in secrets),
    ]
    written = [
        file for file in cluster.directory.rglob("*")
        if file.is_file() and file not in secrets and file.suffix != ".conf"
    ]  # fmt: skip
    assert len(planted) == 8
    assert {file.name for file in written} >= {
        "master.log",
        "database-proxy.log",
        "store.db",
        "controller.log",
    }
    assert "DEBUG" in master.log
    for secret in planted:
        assert secret.encode() not in told
        assert [file.name for file in written if secret.encode() in file.read_bytes()] == []


LOOK = """
from cyclone.tasks.command import CommandTask

class Job(Telling):
    def run(self):
        with open("generator", "w") as file:
            file.write(repr(dict(os.environ)))
        self.submit(CommandTask(["env"], stdout="program"))
        for result in self.results():
            self.on_result(result)
"""


def test_programs_of_tasks_get_the_environment_of_their_controller_and_no_secret(cluster: Cluster) -> None:
    cluster.environment |= {PASSWORD_VARIABLE: DB_PASSWORD, "LOADEDMODULES": "gcc/14"}
    cluster.write_job(LOOK)
    master = cluster.start_master()
    controller = cluster.start_controller()

    assert (master.wait(), controller.wait()) == (EXIT_OK, EXIT_OK)

    for name in ("program", "generator"):
        seen = (cluster.directory / name).read_text()
        assert [word for word in ("PATH", "HOME", "LOADEDMODULES") if word not in seen] == []
        assert DB_PASSWORD not in seen


@pytest.mark.parametrize(
    ("mode", "words"),
    [(0o644, "everybody can read [db] password"), (0o622, "everybody can write"), (0o600, "")],
)
def test_who_lets_others_read_a_password_or_write_the_file_is_refused(
    cluster: Cluster, mode: int, words: str
) -> None:
    file = cluster.write("proxy.conf", f"[db]\npassword = {DB_PASSWORD}\n")
    file.chmod(mode)

    ended = cluster.run("-f", file, "--check", program="database-proxy")

    assert ended.returncode == (EXIT_CONFIG if words else EXIT_OK)
    assert words in ended.stderr
    assert len(ended.stderr.splitlines()) == bool(words)


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("database-proxy", f"[db]\npassword {DB_PASSWORD}\n"),
        ("database-proxy", f"{DB_PASSWORD}\n[db]\n"),
        ("database-proxy", f"[db]\npassword = {DB_PASSWORD}\npassword = {DB_PASSWORD}\n"),
        ("database-proxy", f"[db]\npasswort = {DB_PASSWORD}\n"),
        ("database-proxy", f"[db]\npassword = {DB_PASSWORD}\npassword_file = x\n"),
        ("database-proxy", f"[db]\npassword = {DB_PASSWORD}\nport = http\n"),
        ("pushgateway-client", f"[push]\nurl = http://cyclone:{DB_PASSWORD}@[gateway/\n"),
        ("pushgateway-client", f"[push]\nurl = http://cyclone:{DB_PASSWORD}@gateway:99999999/\n"),
        ("pushgateway-client", f"[push]\nurl = ftp://cyclone:{DB_PASSWORD}@gateway/\n"),
        ("pushgateway-client", f"[push]\nurl = http://cyclone:a/{DB_PASSWORD}@gateway/\n"),
    ],
)
def test_an_ini_file_that_is_refused_is_not_quoted_where_a_password_may_stand(
    cluster: Cluster, program: str, text: str
) -> None:
    file = cluster.write("bad.conf", text)
    file.chmod(0o600)

    ended = cluster.run("-f", file, "--check", program=program)

    assert ended.returncode == EXIT_CONFIG, ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert DB_PASSWORD not in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text + "x",
        lambda text: text.replace("secret =", "secret"),
        lambda text: text.replace("secret = ", "secret = x"),
        lambda text: text * 2,
    ],
)
def test_a_key_file_that_is_refused_is_not_quoted(cluster: Cluster, spoil: object) -> None:
    key_dir = cluster.directory / "keys"
    keys.ensure(key_dir)
    secret = keys.load_pair(key_dir, "master").secret.decode()
    file = key_dir / "master.secret"
    file.write_text(spoil(file.read_text()))  # type: ignore[operator]
    cluster.write_job("class Job(TaskGenerator):\n    def generate(self):\n        return []\n")

    ended = cluster.run("-f", cluster.configure_master())

    assert ended.returncode == EXIT_CONFIG
    assert "master.secret" in ended.stderr
    assert secret[:20] not in ended.stdout + ended.stderr
    assert secret[:20] not in (cluster.directory / "master.log").read_text()
