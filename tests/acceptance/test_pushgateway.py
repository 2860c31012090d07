"""What a real Pushgateway holds after real pushes, and what Prometheus would see of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from acceptance.cluster import wait_for
from pushgateway import Labels, Pushgateway, running_pushgateway

from cyclone.messages import Cluster, ControllerView
from cyclone.metrics.exposition import Exposition
from cyclone.metrics.family import Declaration, Family
from cyclone.metrics.own import cluster_families
from cyclone.metrics.push import REJECTED_S, Group, Pusher, group_url
from cyclone.metrics.series import CurrentSeries
from cyclone.record import Metric, Record

PATIENCE_S = 20
INTERVAL_S = 0.1


class Look(Record):
    """One look at one OST."""

    kind = "look"
    metrics = (
        Metric("look_ok", "Whether it went well.", ("ost",), lambda row: row.ok),
        Metric("look_seconds", "How long it took.", ("ost",), lambda row: row.seconds),
        Metric("look_errors_total", "Looks that went badly.", ("ost",), lambda row: not row.ok, "counter"),
    )

    ost: str
    ok: bool = True
    seconds: float | None = None


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Pushgateway]:
    with running_pushgateway(tmp_path) as gateway:
        yield gateway


class Client:
    """What a Pushgateway client is made of: series, what is shown of them, and a pusher."""

    def __init__(
        self, gateway: Pushgateway, instance: str = "node1", timeout_s: float = PATIENCE_S, **settings: object
    ) -> None:
        self.series = CurrentSeries([Look], stale_after_s=180)
        self.exposition = Exposition()
        group = Group(group_url(gateway.url, "cyclone", {"instance": instance}), timeout_s)
        self.pusher = Pusher(self.exposition, group, interval_s=INTERVAL_S, **settings)  # type: ignore[arg-type]
        self.now = 1_795_176_000.0
        self._uid = 0

    def hear(self, *looks: Look) -> None:
        for look in looks:
            self._uid += 1
            self.series.take(self._uid.to_bytes(16), look, self.now, self.now)
        self.show()

    def show(self) -> None:
        self.series.expire(self.now)
        self.exposition.show("records", self.series.families())

    def push(self, now: float = 0.0) -> None:
        self.pusher.push(now, self.now)

    def push_well(self) -> bool:
        self.push()
        return self.pusher.figures.trouble == ""


@pytest.fixture
def client(gateway: Pushgateway) -> Iterator[Client]:
    """A client whose pushes the test makes."""
    client = Client(gateway)
    with closing(client.pusher._group):
        yield client


@pytest.fixture
def busy(gateway: Pushgateway) -> Iterator[Callable[..., Client]]:
    """Makes clients whose thread pushes."""
    clients: list[Client] = []

    def make(**settings: object) -> Client:
        clients.append(Client(gateway, **settings))
        clients[-1].pusher.start()
        return clients[-1]

    yield make
    for client in clients:
        assert client.pusher.stop(PATIENCE_S)


def place(ost: str, instance: str = "node1") -> Labels:
    return (("instance", instance), ("job", "cyclone"), ("ost", ost))


# What arrives.


def test_a_gateway_holds_what_is_shown_and_when_it_was_pushed(gateway: Pushgateway, client: Client) -> None:
    client.hear(Look(ost="1", seconds=1.5), Look(ost="2", ok=False))

    client.push()

    assert client.pusher.figures.trouble == ""
    assert gateway.series("look_ok") == {place("1"): 1, place("2"): 0}
    assert gateway.series("look_seconds") == {place("1"): 1.5}
    assert gateway.series("look_errors_total") == {place("1"): 0, place("2"): 1}
    [pushed_at] = gateway.series("push_time_seconds").values()
    assert abs(pushed_at - time.time()) < PATIENCE_S


def test_both_halves_of_a_round_stay_although_they_were_pushed_apart(
    gateway: Pushgateway, client: Client
) -> None:
    client.hear(Look(ost="1"), Look(ost="2"))
    client.push()

    client.hear(Look(ost="3"), Look(ost="4"))
    client.push()

    assert gateway.series("look_ok") == {place(ost): 1 for ost in "1234"}


def test_a_push_without_news_changes_nothing(gateway: Pushgateway, client: Client) -> None:
    client.hear(Look(ost="1"))
    client.push()

    client.push()

    assert gateway.series("look_ok") == {place("1"): 1}


@pytest.mark.parametrize(
    "value",
    [
        'a "quoted" word',
        "back\\slash\\n",
        "two\nlines\r\n",
        '"} 1\nlook_ok{ost="forged',
        "tab\tnul\0bell\a",
        "Straße 北京 🌀\u2028\x85",
        "{}#,=",
        " blanks ",
        "x" * 10_000,
    ],
)
def test_whatever_stands_in_a_label_arrives_as_it_is(
    gateway: Pushgateway, client: Client, value: str
) -> None:
    client.hear(Look(ost=value), Look(ost="2"))

    client.push()

    assert client.pusher.figures.trouble == ""
    assert client.pusher.figures.rejected == ()
    assert gateway.series("look_ok") == {place(value): 1, place("2"): 1}


@pytest.mark.parametrize("value", ["node1", "a/b", "", "..", "a b+c%20", "Straße?#", "a@base64", "="])
def test_a_group_is_called_what_it_was_to_be_called(gateway: Pushgateway, value: str) -> None:
    with closing(Group(group_url(gateway.url, "my job/1", {"instance": value}), timeout_s=2)) as group:
        answer = group.put(b"look_ok 1\n")

    assert answer.is_good
    assert gateway.series("look_ok") == {(("instance", value), ("job", "my job/1")): 1}


def test_a_url_of_version_2_is_taken_as_it_is(gateway: Pushgateway) -> None:
    with closing(Group(group_url(f"{gateway.url}/metrics/job/cyclone"), timeout_s=2)) as group:
        answer = group.put(b"look_ok 1\n")

    assert answer.is_good
    assert gateway.series("look_ok") == {(("instance", ""), ("job", "cyclone")): 1}


def test_two_clients_do_not_disturb_one_another(gateway: Pushgateway) -> None:
    clients = [Client(gateway, name) for name in ("node1", "node2")]
    for client in clients:
        client.hear(Look(ost="1"))

    for client in clients:
        client.push()
        client.pusher._group.close()

    assert gateway.series("look_ok") == {place("1", "node1"): 1, place("1", "node2"): 1}


# What vanishes.


def test_what_was_not_heard_of_for_too_long_vanishes(gateway: Pushgateway, client: Client) -> None:
    client.hear(Look(ost="1"))
    client.now += 100
    client.hear(Look(ost="2"))
    client.push()

    client.now += 100
    client.show()
    client.push()

    assert gateway.series("look_ok") == {place("2"): 1}
    assert client.series.figures.stale == 1


def test_a_controller_that_vanished_vanishes(gateway: Pushgateway, client: Client) -> None:
    def cluster(*names: str) -> list[Family]:
        views = [ControllerView(name, "", "", 1, "up", 0.0, (), (), 0, 0, 4, 0, 0) for name in names]
        return cluster_families(Cluster(1, "3", 1, 1, "running", 1.0, "", "tcp://x", views, []))

    client.exposition.show("cluster", cluster("node1", "node2"))
    client.push()
    before = gateway.series("cyclone_controller_workers")

    client.exposition.show("cluster", cluster("node2"))
    client.push()

    assert len(before) == 2
    after = gateway.series("cyclone_controller_workers")
    assert after == {(("controller", "node2"), ("instance", "node1"), ("job", "cyclone")): 4}


# A gateway in trouble.


def test_a_gateway_that_was_started_anew_soon_has_everything_again(
    gateway: Pushgateway, busy: Callable[..., Client]
) -> None:
    client = busy()
    client.hear(*(Look(ost=str(ost)) for ost in range(100)))
    wait_for("the first push", lambda: len(gateway.series("look_ok")) == 100)

    gateway.restart()

    wait_for("everything is there again", lambda: len(gateway.series("look_ok")) == 100)


def test_nothing_is_lost_and_nobody_waits_while_there_is_no_gateway(
    gateway: Pushgateway, busy: Callable[..., Client]
) -> None:
    gateway.stop()
    client = busy()
    wait_for("failures", lambda: client.pusher.figures.failures >= 3)

    for ost in range(1000):
        client.hear(Look(ost=str(ost), ok=False))
    trouble = client.pusher.figures.trouble
    gateway.start()
    client.pusher.push_soon()

    assert "refused" in trouble
    wait_for("everything is there", lambda: len(gateway.series("look_ok")) == 1000)
    wait_for("it is known to be", lambda: client.pusher.figures.trouble == "")
    assert sum(gateway.series("look_errors_total").values()) == 1000


def test_nobody_waits_for_a_gateway_that_hangs(gateway: Pushgateway, busy: Callable[..., Client]) -> None:
    client = busy(timeout_s=PATIENCE_S)
    wait_for("a push", lambda: client.pusher.figures.pushes)
    gateway.freeze()
    before = client.pusher.figures.pushes

    for ost in range(1000):
        client.hear(Look(ost=str(ost)))
    meanwhile = client.pusher.figures.pushes - before
    gateway.thaw()

    assert meanwhile <= 1  # one may have been answered just before
    wait_for("everything is there", lambda: len(gateway.series("look_ok")) == 1000)


def test_a_gateway_that_hangs_is_given_up(gateway: Pushgateway) -> None:
    client = Client(gateway, timeout_s=0.1)
    client.hear(Look(ost="1"))
    gateway.freeze()

    client.push()
    trouble = client.pusher.figures.trouble
    gateway.thaw()

    assert "timed out" in trouble
    wait_for("a push", client.push_well)
    client.pusher._group.close()
    assert gateway.series("look_ok") == {place("1"): 1}


# What a gateway refuses.


@pytest.fixture
def claimed(gateway: Pushgateway) -> str:
    """Another group, which calls one of our gauges a counter. Returns its path."""
    path = "/metrics/job/other"
    status, text = gateway.ask("PUT", path, b"# TYPE look_seconds counter\nlook_seconds 1\n")
    assert status == 200, text
    return path


def test_what_a_gateway_refuses_does_not_keep_the_rest_from_it(
    gateway: Pushgateway, client: Client, claimed: str, caplog: pytest.LogCaptureFixture
) -> None:
    client.hear(Look(ost="1", seconds=1.0), Look(ost="2", seconds=2.0))

    client.push()
    client.push(1)

    assert gateway.series("look_ok") == {place("1"): 1, place("2"): 1}
    assert gateway.series("look_errors_total") == {place("1"): 0, place("2"): 0}
    assert client.pusher.figures.rejected == ("look_seconds",)
    [told] = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "metric=look_seconds" in told
    assert "inconsistent" in told


def test_what_was_refused_arrives_when_nothing_is_in_its_way_any_more(
    gateway: Pushgateway, client: Client, claimed: str
) -> None:
    client.hear(Look(ost="1", seconds=1.0))
    client.push()
    gateway.ask("DELETE", claimed)
    wait_for("it is gone", lambda: not gateway.series("look_seconds"))

    client.push(REJECTED_S + 1)

    assert gateway.series("look_seconds") == {place("1"): 1}
    assert client.pusher.figures.rejected == ()


def test_the_body_that_was_refused_is_kept(gateway: Pushgateway, claimed: str, tmp_path: Path) -> None:
    client = Client(gateway, rejected_file=tmp_path / "rejected.prom")
    client.hear(Look(ost="1", seconds=1.0))

    client.push()
    client.pusher._group.close()

    status, text = gateway.ask("PUT", "/metrics/job/again", (tmp_path / "rejected.prom").read_bytes())
    assert (status, "look_seconds" in text) == (400, True)


def test_a_gateway_that_refuses_everything_is_left_as_it_was(
    gateway: Pushgateway, client: Client, claimed: str
) -> None:
    client.exposition.show("odd", [Family(Declaration("look_seconds", "Odd."), {(): 1})])
    gateway.ask("PUT", "/metrics/job/cyclone/instance/node1", b"former 1\n")

    client.push()

    assert client.pusher.figures.failures == 1
    assert client.pusher.figures.trouble.startswith("400 ")
    assert gateway.series("former") == {(("instance", "node1"), ("job", "cyclone")): 1}


# The end.


def test_at_the_end_the_last_state_is_pushed_and_stays(
    gateway: Pushgateway, busy: Callable[..., Client]
) -> None:
    client = busy()
    client.hear(Look(ost="last"))

    ended = client.pusher.stop(PATIENCE_S)

    assert ended
    assert gateway.series("look_ok") == {place("last"): 1}


def test_a_group_that_is_not_to_stay_is_deleted_at_the_end(
    gateway: Pushgateway, busy: Callable[..., Client]
) -> None:
    client = busy(delete_at_end=True)
    client.hear(Look(ost="1"))
    wait_for("a push", lambda: gateway.series("look_ok"))

    client.pusher.stop(PATIENCE_S)

    wait_for("it is gone", lambda: not gateway.series("look_ok") and not gateway.series("push_time_seconds"))


# The size of a site.


def test_every_ost_of_a_large_site_fits_into_one_push(gateway: Pushgateway, client: Client) -> None:
    client.hear(*(Look(ost=f"{ost}-{mdt}", seconds=1.0) for ost in range(784) for mdt in range(3)))

    client.push()

    assert {len(gateway.series(name)) for name in ("look_ok", "look_seconds", "look_errors_total")} == {2352}
