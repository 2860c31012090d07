"""Records of tasks become metrics that Prometheus can ask for, and those of the daemons themselves stand beside them."""

from __future__ import annotations

import re
import signal
from urllib.request import urlopen

from acceptance.cluster import Cluster, free_port, wait_for

from cyclone.errors import EXIT_OK

KINDS = """
from cyclone import Metric, Record


class Measured(Record):
    kind = "measured"
    metrics = (
        Metric("site_measured_seconds", "How long it took.", ("place",), lambda row: row.seconds),
        Metric("site_measurements_total", "How often.", ("place",), lambda row: 1, "counter"),
    )
    place: str
    seconds: float
"""

JOB = """
from kinds import Measured


class Measure(BaseTask):
    def __init__(self, number):
        super().__init__()
        self.number = number

    def execute(self):
        self.record("pushgateway", Measured, place=f"p{self.number % 3}", seconds=float(self.number))


class Job(TaskGenerator):
    def generate(self):
        for number in range(30):
            task = Measure(number)
            task.tid = str(number)
            yield task
"""


def scraped(port: int) -> str:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def test_what_tasks_record_and_how_the_cluster_does_can_be_scraped(cluster: Cluster) -> None:
    cluster.write("kinds.py", KINDS)
    cluster.write_job(JOB)
    sink_port, controller_port = free_port(), free_port()
    master = cluster.start_master({"control": {"when_finished": "wait"}})
    sink = cluster.start_sink(
        "pushgateway-client",
        {
            "push": {"url": "", "interval": 0.2},
            "metrics": {"port": sink_port},
            "master": {"address": f"127.0.0.1:{cluster.port}"},
        },
    )
    cluster.start_controller(
        settings={
            "sinks": {"pushgateway": cluster.sink_address("pushgateway-client")},
            "metrics": {"port": controller_port},
        }
    )

    sink.wait_for_log("Started")
    wait_for("the last record", lambda: 'site_measurements_total{place="p2"} 10.0' in scraped(sink_port))
    text = scraped(sink_port)
    assert 'site_measured_seconds{place="p0"}' in text
    wait_for(
        "the end of the job as the master tells it",
        lambda: 'cyclone_tasks_ended_total{job_name="Job",state="succeeded"} 30.0' in scraped(sink_port),
    )
    assert "cyclone_workers" in scraped(controller_port)

    master.signal(15)
    assert master.wait() == EXIT_OK
    sink.signal(15)
    assert sink.wait() == EXIT_OK


def test_master_and_database_proxy_can_be_scraped(cluster: Cluster) -> None:
    cluster.write("kinds.py", KINDS)
    cluster.write_job(JOB.replace('"pushgateway"', '"database"'))
    master_port, proxy_port = free_port(), free_port()
    cluster.start_master({"control": {"when_finished": "wait"}, "metrics": {"port": master_port}})
    proxy = cluster.start_sink(
        "database-proxy",
        {
            "db": {"dialect": "sqlite", "file": "rows.sqlite", "store_timeout": 3600},
            "spool": {"file": "proxy.spool", "dead_letters": "proxy.dead"},
            "metrics": {"port": proxy_port},
        },
    )
    proxy.wait_for_log("Started")
    done = cluster.run("-f", "database-proxy.conf", "--create-table", program="database-proxy")
    assert done.returncode == EXIT_OK, done

    cluster.start_controller(settings={"sinks": {"database": cluster.sink_address("database-proxy")}})

    ended = 'cyclone_tasks_ended_total{job_name="Job",state="succeeded"} 30.0'
    wait_for("the end of the job", lambda: ended in scraped(master_port))
    waiting = 'cyclone_spool_records{sink="database"} 30.0'
    wait_for("records that wait for others to be stored with", lambda: waiting in scraped(proxy_port))
    age = re.compile(r'^cyclone_spool_oldest_seconds\{sink="database"\} (?!0\.0$)', re.MULTILINE)
    assert age.search(scraped(proxy_port))
    proxy.signal(signal.SIGUSR1)
    wait_for("rows", lambda: "cyclone_database_rows_stored_total 30.0" in scraped(proxy_port))
