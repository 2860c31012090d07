"""The OSTs of a simulated Lustre are watched by real daemons, and what is found reaches a database and people."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from acceptance.cluster import Cluster, Daemon, wait_for
from simulated_lustre import SimulatedLustre, simulated_lustre
from smtp_server import SmtpServer

from cyclone.errors import EXIT_OK

TASKS = """<tasks>
    <task name="io"><class module="task.lustre_io_task" name="LustreIOTask"/>
        <property>{common}<phase_timeout>60</phase_timeout></property></task>
    <task name="alert"><class module="task.lustre_alert_io_task" name="LustreAlertIOTask"/>
        <property>
            <mail_server>127.0.0.1:{port}</mail_server><mail_sender>cyclone@example.org</mail_sender>
            <mail_receiver>one@example.org</mail_receiver><mail_threshold>3</mail_threshold>
            <mail_claims>claims</mail_claims>{common}<phase_timeout>60</phase_timeout>
        </property></task>
</tasks>"""

COMMON = """
    <ost_idx/><block_size_bytes>16K</block_size_bytes><total_size_bytes>64K</total_size_bytes>
    <write_file_sync>on</write_file_sync><target_dir>{sim.mount}</target_dir><lfs_bin>{sim.bin}/lfs</lfs_bin>
    <lctl_bin>{sim.bin}/lctl</lctl_bin><lfs_target>lustre</lfs_target><db_proxy_target>on</db_proxy_target>
"""

ROWS = "SELECT ost, state, tid, write_throughput FROM ost_perf_history"


@pytest.fixture
def sim(tmp_path_factory: pytest.TempPathFactory) -> SimulatedLustre:
    return simulated_lustre(tmp_path_factory.mktemp("lustre"), osts=4)


@pytest.fixture
def smtp() -> Iterator[SmtpServer]:
    with SmtpServer() as server:
        yield server


def start(
    cluster: Cluster, sim: SimulatedLustre, task: str = "io", port: int = 25, **control: object
) -> Daemon:
    """A master that watches, a proxy that keeps rows in a file, and a controller. Returns the master."""
    cluster.write("tasks.xml", TASKS.format(common=COMMON.format(sim=sim), port=port))
    settings = {"state_file": "memory.json", "measure_interval": 1, **control}
    lines = "\n".join(f"{key} = {value}" for key, value in settings.items())
    cluster.write(
        "monitoring.conf",
        f"[control]\n{lines}\n[task]\ntask_file = tasks.xml\ntask_name = {task}\n[mail]\nspool = spool\n"
        f"[lustre]\ntarget = lustre\nlfs_bin = {sim.bin}/lfs\nlctl_bin = {sim.bin}/lctl\n"
        "lfs_timeout = 2\n",
    )
    generator = {
        "module": "task.generator.lustre_ost_monitoring_task_generator",
        "class": "LustreOstMonitoringTaskGenerator",
        "config_file": "monitoring.conf",
    }
    master = cluster.start_master({"task_generator": generator})
    sink = {
        "db": {"dialect": "sqlite", "file": "rows.sqlite", "store_timeout": 0.1, "store_max_count": 500},
        "spool": {"file": "proxy.spool", "dead_letters": "proxy.dead"},
        "records": {"modules": ""},
    }
    cluster.start_sink("database-proxy", sink)
    made = cluster.run("-f", "database-proxy.conf", "--create-table", program="database-proxy")
    assert made.returncode == EXIT_OK, made
    cluster.start_controller(
        workers=4, settings={"sinks": {"database": cluster.sink_address("database-proxy")}}
    )
    return master


def rows(cluster: Cluster) -> list[tuple[int, str, str, int | None]]:
    with closing(
        sqlite3.connect(f"file:{cluster.directory / 'rows.sqlite'}?mode=ro", uri=True)
    ) as connection:
        return list(connection.execute(ROWS))


def states(cluster: Cluster, ost: int) -> list[str]:
    return [state for found, state, _, _ in rows(cluster) if found == ost]


def command(cluster: Cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).parent / "cyclone", "command", "-f", cluster.directory / "master.conf", *arguments],
        cwd=cluster.directory, env=cluster.environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_each_round_leaves_a_row_for_each_ost_also_for_one_that_is_down(
    cluster: Cluster, sim: SimulatedLustre
) -> None:
    sim.ost(1, state="down")

    # The first round begins with the master, and waits for the controller.
    master = start(cluster, sim, cycles=2, measure_interval=12, hung_after=30)

    assert master.wait() == EXIT_OK, master.log
    wait_for("all rows", lambda: len(rows(cluster)) == 8)
    assert Counter((ost, state) for ost, state, _, _ in rows(cluster)) == {
        (0, "OK"): 2, (1, "DOWN"): 2, (2, "OK"): 2, (3, "OK"): 2,
    }  # fmt: skip
    assert all((pace or 0) > 0 for _, state, _, pace in rows(cluster) if state == "OK")
    assert list(sim.mount.glob("*.tmp")) == []
    assert master.log.count("ok=3 failed=0 down=1 hung=0 skipped=0") == 2


def test_an_ost_that_hangs_is_told_of_while_it_hangs_and_the_others_go_on(
    cluster: Cluster, sim: SimulatedLustre, smtp: SmtpServer
) -> None:
    sim.setting("down_block_s", 1000)  # Lustre does not give it up, or it would be DOWN and not HUNG
    start(cluster, sim, "alert", smtp.port, hung_after=6)
    wait_for("a row for each", lambda: {ost for ost, *_ in rows(cluster)} == {0, 1, 2, 3})

    sim.ost(2, state="hang")

    begun = {
        "[LUSTRE Monitoring] OST Create Performance Degradation Detected: lustre-OST0002 (2)",
        "[LUSTRE Monitoring] OST HUNG: lustre-OST0002 (2)",
    }
    wait_for("both mails", lambda: begun <= set(smtp.subjects()))
    wait_for("a row for it", lambda: "HUNG" in states(cluster, 2))
    wait_for("many for the others", lambda: len(states(cluster, 3)) >= 3)
    status = json.loads(command(cluster, "status", "--json").stdout)
    assert [each["ost"] for each in status["open"] if each["age_s"] > 6] == [2]

    sim.ost(2, state="active")

    wait_for("its recovery", lambda: "OK" in states(cluster, 2))
    over = {
        "[LUSTRE Monitoring] OST Recovered (create): lustre-OST0002 (2)",
        "[LUSTRE Monitoring] OST Recovered (reach): lustre-OST0002 (2)",
    }
    wait_for("both mails", lambda: over <= set(smtp.subjects()))
    assert Counter(subject for subject in smtp.subjects() if "(2)" in subject) == Counter(begun | over)


def test_a_master_that_is_killed_again_and_again_measures_nothing_twice(
    cluster: Cluster, sim: SimulatedLustre
) -> None:
    master = start(cluster, sim, hung_after=30)

    for _ in range(4):
        wanted = len(rows(cluster)) + 6
        wait_for("more rows", lambda wanted=wanted: len(rows(cluster)) >= wanted)
        master.restart()
    wait_for("more rows", lambda: len(rows(cluster)) >= wanted + 6)
    master.signal(signal.SIGTERM)
    master.wait()

    found = rows(cluster)
    assert {state for _, state, _, _ in found} == {"OK"}
    assert max(Counter(tid for _, _, tid, _ in found).values()) == 1
