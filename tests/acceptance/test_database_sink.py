"""Rows of tasks reach the database once each, whoever is killed on the way."""

from __future__ import annotations

import csv
import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from acceptance.cluster import Cluster, Daemon, free_port, wait_for
from servers import MariaDb

from cyclone.errors import EXIT_CONFIG, EXIT_OK, EXIT_UNREACHABLE

KINDS = """
from typing import Annotated
from msgspec import Meta
from cyclone import Record


class Measured(Record):
    kind = "measured"
    table = "measurements"
    number: int
    part: int
    text: Annotated[str, Meta(max_length=40)]
"""

JOB = """
from kinds import Measured


class Measure(BaseTask):
    retry = Retry(crashes=1000, losses=1000)

    def __init__(self, number):
        super().__init__()
        self.number = number

    def execute(self):
        for part in range(10):
            self.record("database", Measured, number=self.number, part=part, text=f"'; DROP TABLE x -- {part}")


class Job(TaskGenerator):
    def generate(self):
        for number in range(int(self.config["run"]["tasks"])):
            task = Measure(number)
            task.tid = str(number)
            yield task
"""


def rows(cluster: Cluster, statement: str) -> list[tuple[int, ...]]:
    file = cluster.directory / "rows.sqlite"
    if not file.exists():
        return [(0, 0)]
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        try:
            return list(connection.execute(statement))
        except sqlite3.OperationalError:
            return [(0, 0)]


COUNTS = "SELECT count(*), count(DISTINCT number * 10 + part) FROM measurements"


def spools(cluster: Cluster) -> list[dict[str, Any]]:
    """What `cyclone info` tells of records that wait."""
    told = subprocess.run(
        [Path(sys.executable).parent / "cyclone", "info", "--json", "-f", cluster.directory / "master.conf"],
        cwd=cluster.directory, env=cluster.environment, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return [spool for controller in json.loads(told.stdout)["controllers"] for spool in controller["spools"]]


def settings_of(cluster: Cluster) -> dict[str, dict[str, object]]:
    return {
        "db": {"dialect": "sqlite", "file": "rows.sqlite", "store_timeout": 0.1, "store_max_count": 500},
        "spool": {"file": "proxy.spool", "dead_letters": "proxy.dead"},
    }


def prepared(cluster: Cluster, tasks: int, when_finished: str = "stop") -> dict[str, dict[str, object]]:
    cluster.write("kinds.py", KINDS)
    cluster.write_job(JOB)
    cluster.write("job.conf", f"[run]\ntasks = {tasks}\n")
    cluster.start_master(
        {"task_generator": {"config_file": "job.conf"}, "control": {"when_finished": when_finished}}
    )
    settings = settings_of(cluster)
    cluster.sink_address("database-proxy")
    return settings


def create_table(cluster: Cluster) -> None:
    done = cluster.run("-f", "database-proxy.conf", "--create-table", program="database-proxy")
    assert (done.returncode, done.stdout) == (EXIT_OK, ""), done


def run_through(cluster: Cluster, tasks: int, db: dict[str, object] | None = None) -> None:
    """A run with a proxy, until all of them have ended by themselves or in good order. db: where rows go instead."""
    settings = prepared(cluster, tasks)
    proxy = cluster.start_sink("database-proxy", {**settings, "db": db or settings["db"]})
    create_table(cluster)
    controller = cluster.start_controller(
        settings={"sinks": {"database": cluster.sink_address("database-proxy")}}
    )

    assert controller.wait() == EXIT_OK
    proxy.signal(signal.SIGTERM)
    assert proxy.wait() == EXIT_OK


def test_every_row_of_a_run_is_stored_before_its_daemons_are_gone(cluster: Cluster) -> None:
    run_through(cluster, 200)

    assert rows(cluster, COUNTS) == [(2000, 2000)]


def test_rows_go_to_text_files_as_well(cluster: Cluster) -> None:
    run_through(cluster, 50, {"dialect": "csv", "directory": "."})

    with (cluster.directory / "measurements.csv").open(newline="") as file:
        found = {(row["number"], row["part"]) for row in csv.DictReader(file)}
    assert len(found) == 500


def test_a_table_that_is_missing_is_said_and_waited_for(cluster: Cluster) -> None:
    settings = prepared(cluster, 20, "wait")
    proxy = cluster.start_sink("database-proxy", settings)
    cluster.start_controller(settings={"sinks": {"database": cluster.sink_address("database-proxy")}})
    proxy.wait_for_log("measurements")

    def trouble() -> str:
        return " ".join(spool["sink_trouble"] for spool in spools(cluster))

    wait_for("the trouble of the sink in cyclone info", lambda: "measurements" in trouble())
    create_table(cluster)
    cluster.daemons[1].restart()

    wait_for("all rows", lambda: rows(cluster, COUNTS) == [(200, 200)])


def kill_again_and_again(
    cluster: Cluster,
    victims: list[Daemon],
    is_done: Callable[[], bool],
    meanwhile: Callable[[], None] | None = None,
) -> int:
    """For some seconds, as long as there is something to do. All are alive at the end. Returns how many were killed."""
    chance = random.Random(7)
    deadline = time.monotonic() + 12
    kills = 0
    while time.monotonic() < deadline and not is_done():
        time.sleep(chance.uniform(0.05, 0.4))
        if meanwhile is not None and chance.random() < 0.2:
            meanwhile()
        victim = chance.choice(victims)
        if victim.is_alive:
            victim.kill()
            kills += 1
        victim.start()
    for daemon in victims:
        if not daemon.is_alive:
            daemon.start()
    return kills


def test_what_is_wrong_with_a_proxy_is_said_in_a_line_with_its_place(cluster: Cluster) -> None:
    cluster.write("kinds.py", KINDS)
    settings = settings_of(cluster)
    for changes, code, problem in (
        ({"table": "x; DROP TABLE y"}, EXIT_CONFIG, "[db] table: found 'x; DROP TABLE y'"),
        ({"dialect": "oracle"}, EXIT_CONFIG, "[db] dialect: found 'oracle'"),
        ({"hots": "here"}, EXIT_CONFIG, "did you mean host?"),
        ({"dialect": "mysql", "host": "127.0.0.1", "port": free_port()}, EXIT_UNREACHABLE, "127.0.0.1"),
    ):
        cluster.start_sink("database-proxy", {**settings, "db": {**settings["db"], **changes}}).kill()
        done = cluster.run("-f", "database-proxy.conf", "--create-table", program="database-proxy")

        assert (done.returncode, done.stdout, problem in done.stderr) == (code, "", True), done
        assert len(done.stderr.splitlines()) == 1


def test_a_sink_that_is_away_is_told_by_cyclone_info_and_gets_everything_later(cluster: Cluster) -> None:
    settings = prepared(cluster, 20, "wait")
    cluster.start_controller(settings={"sinks": {"database": cluster.sink_address("database-proxy")}})
    wait_for("200 records that wait", lambda: [spool["entries"] for spool in spools(cluster)] == [200])
    [spool] = spools(cluster)
    assert "nobody answers" in spool["trouble"]

    cluster.start_sink("database-proxy", settings)
    create_table(cluster)

    wait_for("all rows", lambda: rows(cluster, COUNTS) == [(200, 200)])


def test_a_controller_that_is_stopped_keeps_what_no_sink_took_for_its_next_life(cluster: Cluster) -> None:
    settings = prepared(cluster, 20, "wait")
    controller = cluster.start_controller(
        settings={"sinks": {"database": cluster.sink_address("database-proxy")}}
    )
    wait_for("all records on disk", lambda: [spool["entries"] for spool in spools(cluster)] == [200])

    controller.signal(signal.SIGTERM)
    controller.wait_for_log("told to stop")
    controller.signal(signal.SIGHUP)
    assert controller.wait() == EXIT_OK, controller.log
    assert "records kept for the next start sink=database count=200" in controller.log

    cluster.start_sink("database-proxy", settings)
    create_table(cluster)
    controller.restart()
    wait_for("all rows", lambda: rows(cluster, COUNTS) == [(200, 200)])


def test_each_row_is_there_once_though_everybody_is_killed_again_and_again(cluster: Cluster) -> None:
    settings = prepared(cluster, 2000)
    proxy = cluster.start_sink("database-proxy", settings)
    create_table(cluster)
    sinks = {"sinks": {"database": cluster.sink_address("database-proxy")}}
    controllers = [cluster.start_controller(f"controller-{number}", settings=sinks) for number in (1, 2)]

    kills = kill_again_and_again(
        cluster, [proxy, proxy, *controllers], lambda: rows(cluster, COUNTS)[0][0] >= 20_000
    )

    wait_for("all rows", lambda: rows(cluster, COUNTS) == [(20_000, 20_000)], within_s=90)
    assert kills > 3


def test_each_row_is_in_a_mariadb_that_is_stopped_and_started_meanwhile(
    cluster: Cluster, tmp_path: Path
) -> None:
    with MariaDb(tmp_path / "maria") as server:
        settings = prepared(cluster, 2000)
        settings["db"] = {
            "dialect": "mysql", "host": "127.0.0.1", "port": server.port, "database": server.database,
            "user": server.user, "password": server.password, "store_timeout": 0.1, "store_max_count": 500,
        }  # fmt: skip
        proxy = cluster.start_sink("database-proxy", settings)
        create_table(cluster)
        sinks = {"sinks": {"database": cluster.sink_address("database-proxy")}}
        controllers = [cluster.start_controller(f"controller-{number}", settings=sinks) for number in (1, 2)]

        def restart_the_server() -> None:
            server.stop()
            server.start()

        def stored() -> list[Any]:
            return server.ask(
                "SELECT count(*), count(DISTINCT number * 10 + part) FROM measurements", server.database
            )

        kill_again_and_again(
            cluster, [proxy, *controllers], lambda: stored()[0][0] >= 20_000, meanwhile=restart_the_server
        )

        wait_for("all rows", lambda: stored() == [(20_000, 20_000)], within_s=90)
        cluster.stop()
