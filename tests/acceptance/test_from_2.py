"""Ini files, task files and lists of Cyclone 2.x, as its manual has them, are taken as they are."""

from __future__ import annotations

import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from acceptance.cluster import Cluster, Daemon, wait_for

from cyclone.errors import EXIT_CONFIG, EXIT_OK

OLD = Path(__file__).parent / "from_2"


@pytest.fixture
def site(cluster: Cluster) -> Cluster:
    """A directory as a site of 2.x has it."""
    for name in ("Runtime", "Input", "Configuration"):
        (cluster.directory / name).mkdir()
    for file in OLD.iterdir():
        shutil.copy(file, cluster.directory / "Configuration" / file.name)
    return cluster


def change(site: Cluster, name: str, *changes: tuple[str, str]) -> None:
    file = site.directory / "Configuration" / name
    text = file.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    file.write_text(text)


@pytest.mark.parametrize("program", ["master", "controller", "database-proxy", "pushgateway-client"])
def test_an_ini_file_is_accepted_as_it_is(site: Cluster, program: str) -> None:
    # One that holds a password and that others can read is refused.
    (site.directory / "Configuration" / f"{program}.conf").chmod(0o600)

    done = site.run("-f", f"Configuration/{program}.conf", "--check", program=program)

    assert (done.returncode, done.stderr) == (EXIT_OK, "")


@pytest.mark.parametrize(
    "task", ["EmptyTask", "LustreFileCreationCheckTask", "LustreIOTask", "LustreAlertIOTask"]
)
def test_the_tasks_of_the_monitoring_are_accepted_as_they_are(site: Cluster, task: str) -> None:
    change(site, "lustre_ost_monitoring_task_generator.conf", ("EmptyTask", task))

    done = site.run("-f", "Configuration/master.conf", "--check")

    assert (done.returncode, done.stderr) == (EXIT_OK, "")
    assert f"task {task} of " in done.stdout


def start(site: Cluster, *changes: tuple[str, str]) -> Daemon:
    """The daemons with their old ini files, but for places of this test. Returns the master."""
    change(
        site, "master.conf",
        ("target = *", "target = 127.0.0.1"), ("port = 5678", "port = 0\nport_file = port"), *changes,
    )  # fmt: skip
    append(site, "master.conf", "\n[store]\npath = Runtime/store.db\n[security]\nkey_dir = Runtime/keys\n")
    master = site._daemon("Configuration/master", "master")
    master.log_file = site.directory / "Runtime" / "master.log"
    master.start()
    wait_for("the master", lambda: "Started" in master.log)
    port = (site.directory / "port").read_text().strip()
    change(site, "controller.conf", ("localhost", "127.0.0.1"), ("port = 5678", f"port = {port}"))
    append(site, "controller.conf", "\n[security]\nkey_dir = Runtime/keys\n")
    site._daemon("Configuration/controller", "controller").start()
    return master


def append(site: Cluster, name: str, text: str) -> None:
    with open(site.directory / "Configuration" / name, "a") as ini:
        ini.write(text)


def test_a_monitoring_runs(site: Cluster) -> None:
    # What another test has left in the usual place would put the first round off.
    old = "measure_interval = 60"
    change(site, "lustre_ost_monitoring_task_generator.conf", (old, f"{old}\nstate_file = monitoring.json"))

    master = start(site)

    wait_for("100 OSTs", lambda: succeeded(site) == [(100,)])
    master.signal(signal.SIGTERM)

    assert master.wait() == EXIT_OK


def test_a_migration_runs_and_what_cannot_be_read_is_set_aside(site: Cluster) -> None:
    site.write("Input/x01.input", "0 /lustre/a\n4 /lustre/b c\n110 /lustre/unknown\nnonsense\n")
    change(
        site, "lustre_ost_migration_task_generator.conf",
        ("ost_targets = 1-3,5,8", "ost_targets = 1-3,5,8\nstop_when_done = on"),
    )  # fmt: skip

    master = start(
        site,
        ("lustre_ost_monitoring_task_generator", "lustre_ost_migration_task_generator"),
        ("LustreOstMonitoring", "LustreOstMigration"),
    )

    assert master.wait() == EXIT_OK
    assert succeeded(site) == [(2,)]
    assert "nonsense" in (site.directory / "Input" / "x01.input.rejected").read_text()
    # What lies on an OST that nobody knows has no final result, so the list is not done.
    assert (site.directory / "Input" / "x01.input.active").exists()


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        ("master.conf", "poll_timeout", "poll_timeot", "did you mean poll_timeout?"),
        ("lustre_ost_monitoring_task_generator.conf", "measure_interval = 60", "measure_interval = 0", "measure_interval"),
        ("lustre_ost_monitoring_tasks.xml", "<ost_idx>", "<ost_idx/><nonsense>", "line"),
        ("lustre_ost_monitoring_tasks.xml", "task.empty_task", "task.no_task", "task.no_task"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_its_place(
    site: Cluster, file: str, old: str, new: str, problem: str
) -> None:
    text = (site.directory / "Configuration" / file).read_text()
    (site.directory / "Configuration" / file).write_text(text.replace(old, new, 1))

    done = site.run("-f", "Configuration/master.conf", "--check")

    assert done.returncode == EXIT_CONFIG
    assert problem in done.stderr
    assert file in done.stderr


def succeeded(site: Cluster) -> list[tuple[int, ...]]:
    with closing(sqlite3.connect(f"file:{site.directory}/Runtime/store.db?mode=ro", uri=True)) as connection:
        return list(connection.execute("SELECT tasks FROM job_count WHERE state = 'succeeded'"))
