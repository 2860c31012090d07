"""The daemon between tasks and a real Pushgateway: what it pushes and when, what it says, what it leaves."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from acceptance.cluster import Cluster, Daemon, free_port, wait_for
from acceptance.test_scraped_sink import JOB, KINDS, scraped
from pushgateway import Labels, Pushgateway, running_pushgateway

from cyclone.errors import EXIT_OK
from cyclone.wire import keys

#: So long that no push comes by itself.
NEVER_S = 3600

LAST = 'site_measurements_total{place="p2"} 10.0'
COUNTED: dict[Labels, float] = {
    (("instance", "here"), ("job", "cyclone"), ("place", place)): 10 for place in ("p0", "p1", "p2")
}


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Pushgateway]:
    with running_pushgateway(tmp_path) as gateway:
        yield gateway


def start(cluster: Cluster, **push: object) -> Daemon:
    """A client that has heard all that the tasks of a job have recorded, and pushes as it is told to."""
    cluster.write("kinds.py", KINDS)
    cluster.write_job(JOB)
    port = free_port()
    cluster.start_master({"control": {"when_finished": "wait"}})
    client = cluster.start_sink(
        "pushgateway-client",
        {
            "push": {"instance": "here", **push},
            "metrics": {"port": port},
            "master": {"address": f"127.0.0.1:{cluster.port}"},
        },
    )
    cluster.start_controller(settings={"sinks": {"pushgateway": cluster.sink_address("pushgateway-client")}})
    client.wait_for_log("Started")
    wait_for("the last record", lambda: LAST in scraped(port))
    return client


def end(client: Daemon) -> None:
    client.signal(signal.SIGTERM)
    assert client.wait() == EXIT_OK


def master_up(gateway: Pushgateway) -> list[float]:
    return [*gateway.series("cyclone_master_up").values()]


def test_what_is_there_at_the_end_is_pushed_and_stays(cluster: Cluster, gateway: Pushgateway) -> None:
    client = start(cluster, url=gateway.url, interval=NEVER_S)
    before = gateway.series("site_measurements_total")

    end(client)

    assert before == {}
    assert gateway.series("site_measurements_total") == COUNTED


def test_whoever_does_not_want_to_wait_signals_and_what_is_not_to_stay_goes_at_the_end(
    cluster: Cluster, gateway: Pushgateway
) -> None:
    client = start(cluster, url=gateway.url, interval=NEVER_S, delete_on_exit="on")

    client.signal(signal.SIGUSR1)
    wait_for("a push", lambda: gateway.series("site_measurements_total") == COUNTED)
    end(client)

    wait_for("the group is gone", lambda: not gateway.series("push_time_seconds"))


def test_a_master_that_dies_is_shown_to_be_down_until_it_is_back(
    cluster: Cluster, gateway: Pushgateway
) -> None:
    client = start(cluster, url=gateway.url, interval=0.1)
    [master] = [daemon for daemon in cluster.daemons if daemon.name == "master"]
    wait_for("it is up", lambda: master_up(gateway) == [1])

    master.kill()
    wait_for("it is down", lambda: master_up(gateway) == [0])
    master.start()

    wait_for("it is up again", lambda: master_up(gateway) == [1])
    client.wait_for_log("no answer from the master")
    client.wait_for_log("the master answers again")


def test_a_client_that_a_master_admits_only_later_is_answered_then(cluster: Cluster) -> None:
    port = free_port()
    cluster.write("kinds.py", KINDS)
    cluster.write_job(JOB)
    master = cluster.start_master({"control": {"when_finished": "wait"}})
    known, unknown = cluster.directory / "keys", cluster.directory / "other-keys"
    unknown.mkdir(mode=0o700)
    shutil.copy(known / "master.public", unknown)
    client = cluster.start_sink(
        "pushgateway-client",
        {
            "push": {"url": "", "interval": 0.1},
            "metrics": {"port": port},
            "security": {"key_dir": unknown},
            "master": {"address": f"127.0.0.1:{cluster.port}"},
        },
    )
    client.wait_for_log("does not admit the key client")

    of_a_visitor = (unknown / "client.public").read_text().replace("name = client", "name = visitor")
    keys.authorize(known, cluster.write("visitor.public", of_a_visitor))
    master.signal(signal.SIGHUP)

    wait_for("its answer", lambda: "cyclone_master_up 1.0" in scraped(port))


def test_a_gateway_that_is_away_is_the_trouble_of_the_sink(cluster: Cluster, gateway: Pushgateway) -> None:
    gateway.stop()
    start(cluster, url=gateway.url, interval=0.1)
    [controller] = [daemon for daemon in cluster.daemons if daemon.name == "controller"]
    controller.wait_for_log("sink takes records, and cannot pass them on sink=pushgateway: ")

    gateway.restart()

    controller.wait_for_log("sink takes records sink=pushgateway")
    wait_for("everything", lambda: gateway.series("site_measurements_total") == COUNTED)


def test_what_a_gateway_refuses_is_kept_beside_the_pid_file(cluster: Cluster, gateway: Pushgateway) -> None:
    claim = b"# TYPE site_measured_seconds counter\nsite_measured_seconds 1\n"
    assert gateway.ask("PUT", "/metrics/job/other", claim)[0] == 200

    client = start(cluster, url=gateway.url, interval=0.1)

    client.wait_for_log("gateway refuses metric=site_measured_seconds")
    wait_for("the others", lambda: gateway.series("site_measurements_total") == COUNTED)
    assert b"site_measured_seconds" in client.pid_file.with_suffix(".rejected").read_bytes()


def test_a_node_exporter_can_read_it_from_a_file(cluster: Cluster) -> None:
    file = cluster.directory / "cyclone.prom"

    client = start(cluster, url="", textfile=file, interval=0.1)

    wait_for("the last record", lambda: file.exists() and LAST in file.read_text())
    end(client)
    assert not [*cluster.directory.glob("cyclone.prom.*")]
