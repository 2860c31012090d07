"""`cyclone audit` on real clusters: under load, at rest, after everybody was killed, and with sinks."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from acceptance.cluster import Cluster, free_port, wait_for
from acceptance.test_database_sink import COUNTS, create_table, prepared, rows

from cyclone.errors import EXIT_OK, EXIT_TASK_FAILED, EXIT_UNREACHABLE

LOAD = """
class Work(BaseTask):
    retry = Retry(errors=2, crashes=1000, losses=1000, delay_s=0.01)

    def execute(self):
        if int(self.tid) % 7 == 0 and self.attempt.number == 1:
            raise ValueError("the first time")
        if int(self.tid) % 50 == 0:
            sys.exit(3)
        while int(self.tid) >= 2980 and not os.path.exists("gate"):
            time.sleep(0.01)

class Job(Telling):
    def generate(self):
        for number in range(3000):
            task = Work()
            task.tid = number
            yield task
"""


def audit(cluster: Cluster, *arguments: object) -> tuple[int, dict[str, Any]]:
    """The exit code, and what it tells programs."""
    done = subprocess.run(
        [Path(sys.executable).parent / "cyclone", "audit", "-f", "master.conf", "--json", *map(str, arguments)],
        cwd=cluster.directory, env=cluster.environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def test_under_load_and_after_everybody_was_killed_and_at_rest_nothing_is_wrong(
    steady_cluster: Cluster,
) -> None:
    cluster = steady_cluster
    cluster.write_job(LOAD)
    master = cluster.start_master()
    controllers = [cluster.start_controller(name) for name in ("a", "b")]
    cluster.wait_for_notes("told", 300)

    looks = [audit(cluster) for _ in range(3)]
    cluster.kill_all()
    killed = audit(cluster)
    cluster.write("gate", "")
    for daemon in cluster.daemons:
        daemon.start()
    assert master.wait() == EXIT_TASK_FAILED, "some of the tasks are meant to fail"
    for controller in controllers:
        controller.wait()
    ended = audit(cluster)

    for code, told in [*looks, killed, ended]:
        assert (code, told["violations"]) == (EXIT_OK, {}), told
        assert told["accepted"] == told["ended"] + told["open"]
    assert all(told["open"] > 0 for _, told in [*looks, killed])
    assert [told["ended"] for _, told in [*looks, killed, ended]] == sorted(
        told["ended"] for _, told in [*looks, killed, ended]
    )
    assert (ended[1]["accepted"], ended[1]["open"]) == (3000, 0)
    assert ended[1]["jobs"][0]["ended"] == {"succeeded": 2940, "failed": 60}
    assert ended[1]["attempts"] > 3400


def test_a_store_in_which_somebody_has_been_at_work_is_not_sound(cluster: Cluster) -> None:
    cluster.write_job(LOAD.replace("range(3000)", "range(100)"))
    master = cluster.start_master()
    cluster.start_controller()
    master.wait()

    with closing(sqlite3.connect(cluster.directory / "store.db")) as connection, connection:
        connection.execute("DELETE FROM ended WHERE task = 42")
    code, told = audit(cluster)

    assert code == EXIT_TASK_FAILED
    assert {"job", "count"} <= told["violations"].keys()
    [finding] = [each for each in told["findings"] if each["rule"] == "job"]
    assert (finding["number"], finding["tid"], finding["found"]) == (
        42,
        "41",
        "no end, in a job that is failed",
    )


# Records.


def records(told: dict[str, Any]) -> dict[str, Any]:
    """The sums of the one sink that there is, without those that are 0; none before something was recorded."""
    if not told["records"]:
        return {}
    [sums] = told["records"]
    assert (sums["sink"], sums["keeps"]) == ("database", True)
    return {name: value for name, value in sums.items() if value and name not in ("sink", "keeps")}


def test_records_that_somebody_has_deleted_are_missing_and_named(cluster: Cluster) -> None:
    settings = prepared(cluster, 50, "wait")
    proxy = cluster.start_sink("database-proxy", settings)
    create_table(cluster)
    cluster.start_controller(settings={"sinks": {"database": cluster.sink_address("database-proxy")}})
    wait_for("all rows", lambda: rows(cluster, COUNTS) == [(500, 500)])

    sound = audit(cluster, "--sinks", "controller.conf")
    uncounted = audit(cluster)
    with closing(sqlite3.connect(cluster.directory / "rows.sqlite")) as connection, connection:
        connection.execute("DELETE FROM measurements WHERE number = 7 AND part = 3")
    damaged = audit(cluster, "--sinks", "controller.conf")
    proxy.signal(signal.SIGTERM)
    assert proxy.wait() == EXIT_OK
    away = audit(cluster, "--sinks", "controller.conf")

    assert (sound[0], sound[1]["violations"]) == (EXIT_OK, {})
    assert records(sound[1]) == {"sent": 500, "asked": 500, "stored": 500}
    assert (uncounted[0], records(uncounted[1])) == (EXIT_OK, {"sent": 500})
    assert (damaged[0], damaged[1]["violations"]) == (EXIT_TASK_FAILED, {"record": 1})
    [finding] = damaged[1]["findings"]
    assert finding["tid"] == "7"
    assert finding["found"].startswith("record 3 (")
    assert finding["found"].endswith(" for database neither there nor at a controller")
    assert records(damaged[1]) == {"sent": 500, "asked": 500, "stored": 499, "missing": 1}
    assert (away[0], away[1]["violations"]) == (EXIT_UNREACHABLE, {})
    assert records(away[1])["untold"] == 500
    assert "no sink 'database'" in records(away[1])["trouble"]


def test_what_has_not_come_to_the_database_yet_is_not_missing(cluster: Cluster) -> None:
    settings = prepared(cluster, 20, "wait")
    proxy = cluster.start_sink("database-proxy", settings)
    proxy.wait_for_log("Started")
    controller = cluster.start_controller(
        settings={"sinks": {"database": cluster.sink_address("database-proxy")}}
    )

    # There is no table: the records come to the spool of the sink and stay there.
    in_spool = wait_for("all records in the spool of the sink", lambda: look(cluster, "waiting"))
    # A sink that has lost its spool, while a controller has more than it has delivered.
    proxy.kill()
    for file in cluster.directory.glob("proxy.spool*"):
        file.unlink()
    proxy.start()
    lost = audit(cluster, "--sinks", "controller.conf")

    assert in_spool == {"sent": 200, "asked": 200, "waiting": 200}
    assert (lost[0], lost[1]["violations"]) == (EXIT_TASK_FAILED, {"record": 200})
    assert controller.is_alive


def test_what_waits_at_a_controller_is_underway_and_not_missing(cluster: Cluster) -> None:
    settings = prepared(cluster, 20, "wait")
    # A sink of the same name that this controller does not know of, so that it delivers to nobody.
    cluster.start_sink("database-proxy", settings)
    cluster.start_controller(settings={"sinks": {"database": f"127.0.0.1:{free_port()}"}})
    wait_for("all ends", lambda: audit(cluster)[1]["ended"] == 20)
    other = cluster.write(
        "other.conf", (cluster.directory / "controller.conf").read_text().partition("[sinks]")[0]
    )
    with other.open("a") as file:
        file.write(f"[sinks]\ndatabase = {cluster.sink_address('database-proxy')}\n")

    code, told = audit(cluster, "--sinks", "other.conf")

    assert (code, told["violations"]) == (EXIT_OK, {})
    assert records(told) == {"sent": 200, "asked": 200, "underway": 200}


def look(cluster: Cluster, where: str) -> dict[str, Any] | None:
    """What becomes of the records, once all of them are there. Whatever way they are on, nothing is missing."""
    code, told = audit(cluster, "--sinks", "controller.conf")
    assert (code, told["violations"]) == (EXIT_OK, {})
    found = records(told)
    return found if found.get(where) == 200 else None


def test_at_rest_what_no_sink_has_is_missing_for_no_master_tells(cluster: Cluster) -> None:
    settings = prepared(cluster, 20)
    cluster.start_sink("database-proxy", settings).kill()
    controller = cluster.start_controller(
        settings={"sinks": {"database": cluster.sink_address("database-proxy")}}
    )
    assert controller.wait() == EXIT_OK
    wait_for("the end of the master", lambda: not cluster.daemons[0].is_alive)

    cluster.daemons[1].start()
    create_table(cluster)
    cluster.daemons[1].wait_for_log("Started")
    code, told = audit(cluster, "--sinks", "controller.conf")

    assert (code, told["violations"]) == (EXIT_TASK_FAILED, {"record": 200})
    assert told["findings"][0]["found"].endswith("nor known to wait elsewhere: no master tells")
