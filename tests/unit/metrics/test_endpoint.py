from __future__ import annotations

import gzip
import http.client
import socket
import threading
from collections.abc import Iterator

import pytest
from acceptance.cluster import wait_for

from cyclone.errors import AddressError
from cyclone.metrics import endpoint
from cyclone.metrics.endpoint import CLIENTS_MOST, ScrapeEndpoint
from cyclone.metrics.exposition import Exposition
from cyclone.metrics.family import Declaration, Family

UP = Declaration("up_and_well", "Whether it is.")
DOWN = Declaration("down_and_out", "Whether it is.")
PATIENCE_S = 20


@pytest.fixture
def exposition() -> Exposition:
    exposition = Exposition()
    exposition.show("all", [Family(UP, {(): 1}), Family(DOWN, {(): 0})])
    return exposition


@pytest.fixture
def served(exposition: Exposition) -> Iterator[ScrapeEndpoint]:
    before = threading.active_count()
    served = ScrapeEndpoint(exposition)
    yield served
    served.close()
    assert threading.active_count() == before


def ask(
    served: ScrapeEndpoint, path: str = "/metrics", method: str = "GET", **headers: str
) -> tuple[int, str, bytes]:
    """Status, content type and body."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE_S)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, response.headers["Content-Type"], response.read()
    finally:
        connection.close()


def test_a_scrape_gets_what_was_shown_last(served: ScrapeEndpoint, exposition: Exposition) -> None:
    before = ask(served)
    exposition.show("all", [Family(UP, {(): 2})])

    status, kind, body = ask(served)

    assert before[2].splitlines()[-1] == b"up_and_well 1.0"
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert body == b"# HELP up_and_well Whether it is.\n# TYPE up_and_well gauge\nup_and_well 2.0\n"


def test_a_prometheus_gets_the_format_that_it_asks_for(served: ScrapeEndpoint) -> None:
    status, kind, body = ask(served, Accept="application/openmetrics-text;version=1.0.0")

    assert status == 200
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")


def test_a_body_is_compressed_where_that_is_understood(served: ScrapeEndpoint) -> None:
    body = ask(served, **{"Accept-Encoding": "gzip"})[2]

    assert b"up_and_well 1.0" in gzip.decompress(body)


def test_a_scrape_may_ask_for_some_metrics_only(served: ScrapeEndpoint) -> None:
    body = ask(served, "/metrics?name[]=up_and_well")[2]

    assert b"up_and_well" in body
    assert b"down_and_out" not in body


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/", 404), ("GET", "/metrics/x", 404), ("POST", "/metrics", 501)]
)
def test_there_is_nothing_else(served: ScrapeEndpoint, method: str, path: str, status: int) -> None:
    assert ask(served, path, method)[0] == status


@pytest.mark.parametrize(
    ("path", "accept"),
    [("http://[", "*/*"), ("/metrics", "application/openmetrics-text; version=1.x.y")],
)
def test_what_is_no_request_is_answered_so_and_does_not_fill_the_log(
    served: ScrapeEndpoint, caplog: pytest.LogCaptureFixture, path: str, accept: str
) -> None:
    told = [ask(served, path, Host="here", Accept=accept)[0] for _ in range(3)]

    assert told == [400] * 3
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith("no request for metrics: ")
    assert "peer=127.0.0.1 count=1" in line


def test_only_this_machine_can_ask_unless_told_otherwise(served: ScrapeEndpoint) -> None:
    listening = served._server.socket.getsockname()

    assert listening == ("127.0.0.1", served.port)


def test_an_address_that_is_taken_is_refused_by_name(served: ScrapeEndpoint) -> None:
    with pytest.raises(AddressError, match=f"127.0.0.1:{served.port} cannot be listened on"):
        ScrapeEndpoint(Exposition(), port=served.port)


@pytest.mark.parametrize(
    ("host", "port"), [("192.0.2.1", 0), ("127.0.0.1", 70000), ("no host", 0), ("a..b", 0)]
)
def test_an_address_that_cannot_be_had_is_refused(host: str, port: int) -> None:
    with pytest.raises(AddressError, match=host):
        ScrapeEndpoint(Exposition(), host, port)


def test_its_port_is_free_again_at_once() -> None:
    first = ScrapeEndpoint(Exposition())
    port = first.port
    ask(first)
    first.close()

    second = ScrapeEndpoint(Exposition(), port=port)

    assert ask(second)[0] == 200
    second.close()


def test_it_ends_although_clients_say_nothing(exposition: Exposition) -> None:
    before = threading.active_count()
    served = ScrapeEndpoint(exposition)
    silent = [socket.create_connection(("127.0.0.1", served.port), PATIENCE_S) for _ in range(3)]
    ask(served)

    served.close()

    assert threading.active_count() == before
    assert [client.recv(1) for client in silent] == [b"", b"", b""]
    for client in silent:
        client.close()


def test_a_crowd_of_silent_clients_keeps_nobody_away(served: ScrapeEndpoint) -> None:
    crowd = [
        socket.create_connection(("127.0.0.1", served.port), PATIENCE_S) for _ in range(2 * CLIENTS_MOST)
    ]

    status, _, _ = ask(served)

    assert status == 200
    assert crowd[0].recv(1) == b""
    for client in crowd:
        client.close()


def test_one_client_more_than_sixteen_costs_the_oldest_its_place_and_no_other(
    served: ScrapeEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    # None is cut off for its silence.
    monkeypatch.setattr(endpoint._Handler, "timeout", 10 * PATIENCE_S)
    crowd = [socket.create_connection(("127.0.0.1", served.port), PATIENCE_S) for _ in range(16)]

    ask(served)

    assert crowd[0].recv(1) == b""
    crowd[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        crowd[1].recv(1)
    for client in crowd:
        client.close()


def test_clients_that_come_at_once_wait_their_turn(served: ScrapeEndpoint) -> None:
    with served._server._lock:  # so that none but the first is accepted
        crowd = [socket.create_connection(("127.0.0.1", served.port), PATIENCE_S) for _ in range(100)]

    assert ask(served)[0] == 200
    for client in crowd:
        client.close()


def test_a_client_that_is_silent_for_too_long_is_cut_off(
    exposition: Exposition, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert endpoint._Handler.timeout == endpoint.SILENCE_S
    monkeypatch.setattr(endpoint._Handler, "timeout", 0.05)
    served = ScrapeEndpoint(exposition)
    with socket.create_connection(("127.0.0.1", served.port), PATIENCE_S) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nX: ")

        assert client.recv(1) == b""

    served.close()


#: More than the system keeps for a connection.
LONG = Family(Declaration("up_and_well", "x" * 50_000_000), {(): 1})


def test_a_client_that_does_not_read_its_answer_is_cut_off(
    exposition: Exposition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint._Handler, "timeout", 0.05)
    exposition.show("all", [LONG])
    served = ScrapeEndpoint(exposition)
    idle = threading.active_count()
    with socket.create_connection(("127.0.0.1", served.port), PATIENCE_S) as client:
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        client.recv(1)

        wait_for("its thread has ended", lambda: threading.active_count() == idle)

    served.close()


def test_a_client_that_leaves_before_the_end_is_no_error(
    served: ScrapeEndpoint, exposition: Exposition, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    exposition.show("all", [LONG])

    with socket.create_connection(("127.0.0.1", served.port), PATIENCE_S) as client:
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        client.recv(1)

    wait_for("that is noticed", lambda: "scrape was cut short" in caplog.text)
    assert {record.levelname for record in caplog.records} == {"DEBUG"}


def test_a_client_that_has_gone_cannot_be_cut_off_and_that_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    with socket.socket() as gone:
        endpoint._cut_off(gone)

    assert [record.levelname for record in caplog.records] == ["DEBUG"]


def test_what_cannot_be_rendered_ends_one_scrape_and_is_told_once(
    served: ScrapeEndpoint, exposition: Exposition, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    exposition.show("all", [Family(UP, {(): "not a number"})])  # type: ignore[dict-item]

    for _ in range(3):
        with pytest.raises(http.client.HTTPException):
            ask(served)
    exposition.show("all", [Family(UP, {(): 1})])

    assert ask(served)[0] == 200
    told = [record for record in caplog.records if "scrape failed" in record.getMessage()]
    assert [record.levelname for record in told if not record.exc_info] == ["WARNING"]
    assert [record.levelname for record in told if record.exc_info] == ["DEBUG"] * 3
