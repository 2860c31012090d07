from __future__ import annotations

import socket
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyclone.metrics.exposition import Exposition, render
from cyclone.metrics.family import Declaration, Family
from cyclone.metrics.push import REJECTED_S, Answer, Group, Pusher, group_url, sift, wait_s

GOOD, DELETED, GONE = Answer(200, ""), Answer(202, ""), Answer(0, "connection refused")
BAD = Answer(400, "inconsistent")
NOON = 1_795_176_000.0
PATIENCE_S = 20


def family(name: str, value: float = 1) -> Family:
    return Family(Declaration(name, f"About {name}."), {(): value})


class FakeGroup(Group):
    """Holds what a gateway would, and answers as the test wants; `bad` names what it does not take."""

    def __init__(self) -> None:
        self.name = "http://gateway/metrics/job/x"
        self.bad: set[str] = set()
        self.answers: list[Answer] = []
        self.requests: list[bytes | None] = []
        self.holds: bytes | None = None
        self.closed = False
        self.on_put: Callable[[], object] = lambda: None

    def put(self, body: bytes) -> Answer:
        return self._hear(body, {})

    def post(self, body: bytes) -> Answer:
        return self._hear(body, _parts(self.holds or b""))

    def _hear(self, body: bytes, others: dict[bytes, bytes]) -> Answer:
        self.requests.append(body)
        self.on_put()
        answer = self.answers.pop(0) if self.answers else GOOD
        if answer.is_good and any(f"# TYPE {name} " in body.decode() for name in self.bad):
            answer = BAD
        if answer.is_good:
            self.holds = b"".join(part for _, part in sorted({**others, **_parts(body)}.items()))
        return answer

    def delete(self) -> Answer:
        self.requests.append(None)
        self.holds = None
        return self.answers.pop(0) if self.answers else DELETED

    def close(self) -> None:
        self.closed = True


def _parts(body: bytes) -> dict[bytes, bytes]:
    """`{name: text}` of each family."""
    texts = [b"# HELP " + text for text in body.split(b"# HELP ")[1:]]
    return {text.split(maxsplit=3)[2]: text for text in texts}


class Stage:
    """A pusher whose pushes the test makes itself."""

    def __init__(self, **settings: object) -> None:
        self.group, self.exposition = FakeGroup(), Exposition()
        self.pusher = Pusher(self.exposition, self.group, interval_s=15, **settings)  # type: ignore[arg-type]
        self.now = 1000.0

    def show(self, *families: Family) -> None:
        self.exposition.show("all", families)

    def push(self, after_s: float = 15) -> None:
        self.now += after_s
        self.pusher.push(self.now, NOON + self.now)


@pytest.fixture
def stage() -> Stage:
    return Stage()


# Where it is pushed to.


@pytest.mark.parametrize("host", ["gate..way", "a" * 64 + ".org", "ä..x", "x x", "*x", "%zz"])
def test_a_host_that_nobody_could_look_up_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="expected http://HOST:PORT") as raised:
        group_url(f"http://me:word@{host}:9091", "cyclone")

    assert "word" not in str(raised.value)


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("http://pg:9091", "http://pg:9091/metrics/job/cyclone/instance/node1"),
        ("http://pg:9091/", "http://pg:9091/metrics/job/cyclone/instance/node1"),
        ("https://pg/behind/a/proxy", "https://pg/behind/a/proxy/metrics/job/cyclone/instance/node1"),
        ("http://[::1]:9091", "http://[::1]:9091/metrics/job/cyclone/instance/node1"),
        ("http://me:word@pg", "http://me:word@pg/metrics/job/cyclone/instance/node1"),
    ],
)
def test_a_group_is_named_by_job_and_labels(address: str, url: str) -> None:
    assert group_url(address, "cyclone", {"instance": "node1"}) == url


@pytest.mark.parametrize(
    "path", ["/metrics/job/cyclone", "/metrics/job/cyclone/fs/home", "/x/metrics/job@base64/YQ=="]
)
def test_a_url_of_a_group_is_taken_as_it_is(path: str) -> None:
    assert group_url(f"http://pg:9091{path}/", "other", {"instance": "a"}) == f"http://pg:9091{path}"


@pytest.mark.parametrize(
    ("value", "pair"),
    [
        ("node1.example-x_y", "/fs/node1.example-x_y"),
        ("", "/fs@base64/="),
        ("a/b", "/fs@base64/YS9i"),
        ("..", "/fs@base64/Li4="),
        ("a b", "/fs@base64/YSBi"),
        ("100%", "/fs@base64/MTAwJQ=="),
        ("é?", "/fs@base64/w6k_"),
    ],
)
def test_a_value_that_a_path_cannot_hold_is_in_base64(value: str, pair: str) -> None:
    assert group_url("http://pg", "x", {"fs": value}) == f"http://pg/metrics/job/x{pair}"


@pytest.mark.parametrize(
    ("address", "job", "grouping", "problem"),
    [
        ("http://pg:9091/metrics", "x", {}, "names no group; expected"),
        ("http://pg/behind/metrics/", "x", {}, "names no group; expected"),
        ("http://pg/metrics/job/", "x", {}, "names no group; expected"),
        ("pg:9091", "x", {}, "expected http://HOST:PORT"),
        ("ftp://pg", "x", {}, "expected http://HOST:PORT"),
        ("http://", "x", {}, "expected http://HOST:PORT"),
        ("http://pg:x", "x", {}, "expected http://HOST:PORT"),
        ("http://pg:99999", "x", {}, "expected http://HOST:PORT"),
        ("http://[::1", "x", {}, "expected http://HOST:PORT"),
        ("http://pg?a=b", "x", {}, "expected http://HOST:PORT"),
        ("http://pg/metrics/job/x/instance", "x", {}, "a label has no value"),
        ("http://pg", "", {}, "expected a job"),
        ("http://pg", "x", {"fs-name": "a"}, "'fs-name'"),
        ("http://pg", "x", {"__fs": "a"}, "'__fs'"),
    ],
)
def test_what_names_no_group_is_refused(
    address: str, job: str, grouping: dict[str, str], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        group_url(address, job, grouping)


@pytest.mark.parametrize("password", ["word", "wo@word", "@word@"])
def test_a_complaint_does_not_tell_the_password(password: str) -> None:
    with pytest.raises(ValueError, match="//pg/") as raised:
        group_url(f"http://me:{password}@pg/a@b", "")

    assert "word" not in str(raised.value)


@pytest.mark.parametrize("password", ["se/cret", "se?cret", "se#cret", "se/cr@et", "[/cret"])
def test_a_complaint_does_not_tell_a_password_that_is_taken_for_something_else(password: str) -> None:
    with pytest.raises(ValueError, match="found 'http://pg:9091', expected") as raised:
        group_url(f"http://me:{password}@pg:9091", "cyclone")

    assert "cr" not in str(raised.value)


# The requests.


class Gateway(BaseHTTPRequestHandler):
    """Answers every request with `status` and `body`, and remembers the requests of the class."""

    requests: ClassVar[list[tuple[str, str, dict[str, str], bytes]]]
    status: ClassVar[int]
    body: ClassVar[bytes]
    port: ClassVar[int]

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.requests.append((self.command, self.path, dict(self.headers), body))
        self.send_response(self.status)
        self.send_header("Location", "/elsewhere")
        self.end_headers()
        try:
            self.wfile.write(self.body)
        except OSError:
            assert len(self.body) > 4096, "only an answer that is too long is not read to its end"

    do_PUT = do_POST = do_DELETE = do_GET = _answer

    def log_message(self, format: str, *args: object) -> None:
        """Not here."""


@pytest.fixture
def gateway() -> Iterator[type[Gateway]]:
    kind = type("_Gateway", (Gateway,), {"requests": [], "status": 200, "body": b""})
    with HTTPServer(("127.0.0.1", 0), kind) as server:
        kind.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield kind
        server.shutdown()
        thread.join()


def group_at(port: int, timeout_s: float = PATIENCE_S, who: str = "") -> Group:
    return Group(f"http://{who}127.0.0.1:{port}/metrics/job/x", timeout_s)


def test_a_body_is_put_as_it_is(gateway: type[Gateway]) -> None:
    with closing(group_at(gateway.port)) as group:
        answer = group.put(b"a 1\n")

    [(command, path, headers, body)] = gateway.requests
    assert answer == GOOD
    assert (command, path, body) == ("PUT", "/metrics/job/x", b"a 1\n")
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_a_body_may_be_posted_beside_what_the_group_holds(gateway: type[Gateway]) -> None:
    with closing(group_at(gateway.port)) as group:
        group.post(b"a 1\n")

    assert [(command, body) for command, _, _, body in gateway.requests] == [("POST", b"a 1\n")]


def test_a_group_is_deleted(gateway: type[Gateway]) -> None:
    gateway.status = 202

    with closing(group_at(gateway.port)) as group:
        answer = group.delete()

    assert answer == DELETED
    assert gateway.requests[0][:2] == ("DELETE", "/metrics/job/x")


def test_a_password_is_sent_and_not_shown(gateway: type[Gateway]) -> None:
    with closing(group_at(gateway.port, who="me:word@")) as group:
        group.put(b"")
        name = group.name

    assert gateway.requests[0][2]["Authorization"] == "Basic bWU6d29yZA=="
    assert "word" not in name


def test_a_redirection_is_not_followed(gateway: type[Gateway]) -> None:
    gateway.status = 302

    with closing(group_at(gateway.port)) as group:
        answer = group.put(b"")

    assert answer.status == 302
    assert not answer.is_good
    assert len(gateway.requests) == 1


def test_the_environment_sends_nothing_elsewhere(
    gateway: type[Gateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:1")
    monkeypatch.delenv("no_proxy", raising=False)

    with closing(group_at(gateway.port)) as group:
        answer = group.put(b"")

    assert answer.is_good


def test_of_a_long_answer_only_the_beginning_is_read_and_made_harmless(gateway: type[Gateway]) -> None:
    gateway.status, gateway.body = 400, b"\x1b[2Jno\nway\xff " + b"x" * 10_000_000

    with closing(group_at(gateway.port)) as group:
        answer = group.put(b"")

    assert answer.is_rejection
    assert answer.text.startswith("[2Jno way\ufffd x")
    assert len(answer.text) <= 500


def test_a_gateway_that_is_not_there_is_no_exception() -> None:
    with socket.socket() as taken, closing(group_at(_bound(taken))) as group:
        answer = group.put(b"")

    assert answer.status == 0
    assert "refused" in answer.text


def test_a_gateway_that_never_answers_is_given_up() -> None:
    with socket.socket() as silent:
        port = _bound(silent)
        silent.listen()
        with closing(group_at(port, timeout_s=0.05)) as group:
            answer = group.put(b"")

    assert answer.status == 0
    assert "timed out" in answer.text.lower()


def _bound(bare: socket.socket) -> int:
    bare.bind(("127.0.0.1", 0))
    port: int = bare.getsockname()[1]
    return port


# When.


def test_after_failures_it_is_tried_more_seldom_but_at_least_once_a_minute() -> None:
    assert [wait_s(15, failures) for failures in (0, 1, 2, 3, 1000)] == [15, 30, 60, 60, 60]


def test_an_interval_longer_than_a_minute_stays_as_it_is() -> None:
    assert [wait_s(300, failures) for failures in (0, 1, 5)] == [300, 300, 300]


# What.


def test_everything_that_is_shown_is_pushed_each_time(stage: Stage) -> None:
    stage.show(family("a"), family("b", 2))

    stage.push()
    stage.push()

    assert stage.group.requests == [render([family("a"), family("b", 2)])] * 2
    figures = stage.pusher.figures
    assert (figures.pushes, figures.failures) == (2, 0)
    assert figures.last_success_at == NOON + stage.now


def test_a_push_that_fails_loses_nothing(stage: Stage) -> None:
    stage.show(family("a"))
    stage.group.answers = [GONE, Answer(503, "busy"), GOOD]

    for _ in range(3):
        stage.push()

    assert stage.group.holds == render([family("a")])
    assert (stage.pusher.figures.pushes, stage.pusher.figures.failures) == (3, 2)


def test_trouble_is_told_until_it_is_over(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    stage.group.answers = [GONE, GONE, Answer(503, "busy"), GOOD]

    told = []
    for _ in range(4):
        stage.push()
        told.append((stage.pusher.figures.trouble, stage.pusher.figures.failures_in_a_row))

    assert told == [("connection refused", 1), ("connection refused", 2), ("503 busy", 3), ("", 0)]
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "INFO"]


@pytest.mark.parametrize("status", [301, 401, 404, 413, 500])
def test_no_other_answer_counts_as_a_success(stage: Stage, status: int) -> None:
    stage.group.answers = [Answer(status, "no")]

    stage.push()

    assert stage.pusher.figures.trouble == f"{status} no"
    assert len(stage.group.requests) == 1


# What is refused.


@given(st.lists(st.booleans(), max_size=40).filter(lambda goodness: not all(goodness)))
def test_exactly_the_bad_ones_are_found_and_each_good_one_is_posted_once(goodness: list[bool]) -> None:
    families = [family(f"f{number}") for number in range(len(goodness))]
    bad = [each for each, is_good in zip(families, goodness, strict=True) if not is_good]
    held: list[Family] = []

    def post(some: Sequence[Family]) -> Answer:
        if any(each in bad for each in some):
            return BAD
        held.extend(some)
        return GOOD

    sifted = sift(families, BAD, post)

    assert sifted.rejected == [(each, BAD) for each in bad]
    assert sifted.accepted == [each for each in families if each not in bad]
    assert held == sifted.accepted


def test_one_bad_one_among_many_costs_few_requests() -> None:
    families = [family(f"f{number}") for number in range(64)]
    requests = []

    def put(some: Sequence[Family]) -> Answer:
        requests.append(some)
        return BAD if families[20] in some else GOOD

    sift(families, BAD, put)

    assert len(requests) == 12


def test_the_search_ends_when_the_gateway_does() -> None:
    families = [family("a"), family("b")]
    answers = [GOOD, GONE]

    sifted = sift(families, BAD, lambda _: answers.pop(0))

    assert sifted.failure == GONE
    assert sifted.accepted == [family("a")]


def test_what_the_gateway_takes_is_pushed_without_what_it_refuses(stage: Stage) -> None:
    stage.group.bad = {"b"}
    stage.show(family("a"), family("b"), family("c"))

    stage.push()

    assert stage.group.holds == render([family("a"), family("c")])
    assert stage.pusher.figures.rejected == ("b",)
    assert stage.pusher.figures.trouble == ""


def test_what_was_refused_is_left_out_for_a_while_and_tried_again_later(stage: Stage) -> None:
    stage.group.bad = {"b"}
    stage.show(family("a"), family("b"), family("c"))
    stage.push()
    stage.group.requests.clear()

    stage.push()
    left_out = list(stage.group.requests)
    stage.group.bad = set()
    stage.push(REJECTED_S)

    assert left_out == [render([family("a"), family("c")])]
    assert stage.group.holds == render([family("a"), family("b"), family("c")])
    assert stage.pusher.figures.rejected == ()


def test_a_refusal_is_told_once_and_its_body_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = tmp_path / "rejected.prom"
    stage = Stage(rejected_file=kept)
    stage.group.bad = {"b"}
    stage.show(family("a"), family("b"))

    stage.push()
    stage.push(REJECTED_S + 1)

    [told] = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "metric=b" in told
    assert "answer=inconsistent" in told
    assert str(kept) in told
    assert kept.read_bytes() == render([family("a"), family("b")])
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert [*tmp_path.iterdir()] == [kept]


def test_a_body_that_cannot_be_kept_does_not_end_the_push(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage(rejected_file=tmp_path / "no such directory" / "rejected.prom")
    stage.group.bad = {"b"}
    stage.show(family("a"), family("b"))

    stage.push()

    assert stage.group.holds == render([family("a")])
    assert "cannot be kept" in caplog.text


def test_while_the_bad_ones_are_looked_for_the_group_misses_nothing_that_it_held(stage: Stage) -> None:
    families = [family(name) for name in "abcdefgh"]
    stage.show(*families)
    stage.push()
    stage.group.bad = {"c"}
    held: list[set[bytes]] = []
    stage.group.on_put = lambda: held.append({*_parts(stage.group.holds or b"")})

    stage.push()

    assert held == [{each.encode() for each in "abcdefgh"}] * len(held)
    assert stage.group.holds == render([each for each in families if each.declaration.name != "c"])


def test_a_group_that_refuses_everything_is_not_searched_each_time(stage: Stage) -> None:
    families = [family(name) for name in "abcd"]
    stage.group.bad = set("abcd")
    stage.show(*families)
    stage.push()
    stage.group.requests.clear()

    stage.push()

    assert stage.group.requests == [render(families)]
    assert stage.group.holds is None
    assert stage.pusher.figures.failures_in_a_row == 2
    assert stage.pusher.figures.trouble == "400 inconsistent"


def test_a_gateway_that_goes_away_during_the_search_has_failed(stage: Stage) -> None:
    stage.show(family("a"), family("b"))
    stage.group.answers = [BAD, GONE]

    stage.push()

    assert stage.pusher.figures.trouble == "connection refused"
    assert stage.pusher.figures.rejected == ()


def test_what_was_found_before_the_gateway_went_away_is_left_out_of_the_next_push(stage: Stage) -> None:
    stage.show(family("a"), family("b"), family("c"))
    stage.push()
    stage.group.answers = [BAD, BAD, GONE]  # everything, a alone, then b and c

    stage.push()
    rejected = stage.pusher.figures.rejected
    held = stage.group.holds
    stage.push()

    assert rejected == ("a",)
    assert held == render([family("a"), family("b"), family("c")])
    assert stage.group.requests[-1] == render([family("b"), family("c")])


# The thread.


def test_it_pushes_each_interval_until_it_is_stopped_and_once_more_then() -> None:
    group, exposition = FakeGroup(), Exposition()
    exposition.show("all", [family("a")])
    pushed = threading.Semaphore(0)
    group.on_put = pushed.release
    pusher = Pusher(exposition, group, interval_s=0.01)

    pusher.start()
    thrice = [pushed.acquire(timeout=PATIENCE_S) for _ in range(3)]
    exposition.show("all", [family("last")])
    ended = pusher.stop(PATIENCE_S)

    assert thrice == [True] * 3
    assert ended
    assert group.holds == render([family("last")])
    assert group.closed
    assert None not in group.requests


def test_it_can_be_told_not_to_wait() -> None:
    group, exposition = FakeGroup(), Exposition()
    pushed = threading.Event()
    group.on_put = pushed.set
    pusher = Pusher(exposition, group, interval_s=3600)
    pusher.start()

    pusher.push_soon()

    assert pushed.wait(PATIENCE_S)
    assert pusher.stop(PATIENCE_S)


@pytest.mark.parametrize("answer", [DELETED, GONE])
def test_it_deletes_the_group_at_the_end_if_that_is_wanted(
    answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    group = FakeGroup()
    group.answers = [answer]
    pusher = Pusher(Exposition(), group, interval_s=3600, delete_at_end=True)
    pusher.start()

    ended = pusher.stop(PATIENCE_S)

    assert ended
    assert group.requests == [None]
    assert ("group not deleted" in caplog.text) == (answer is GONE)


def test_nobody_waits_for_a_gateway_that_hangs() -> None:
    group, exposition = FakeGroup(), Exposition()
    hanging, let_go = threading.Event(), threading.Event()

    def hang() -> None:
        hanging.set()
        let_go.wait(PATIENCE_S)

    group.on_put = hang
    pusher = Pusher(exposition, group, interval_s=0.01)
    pusher.start()
    assert hanging.wait(PATIENCE_S)

    exposition.show("all", [family("a")])
    pusher.push_soon()
    ended = pusher.stop(0.01)

    assert not ended
    assert pusher.figures.pushes == 0
    let_go.set()
    assert pusher.stop(PATIENCE_S)


def test_a_bug_does_not_end_the_pushing(caplog: pytest.LogCaptureFixture) -> None:
    group = FakeGroup()
    pushed = threading.Semaphore(0)

    def trip() -> None:
        pushed.release()
        if len(group.requests) == 1:
            raise ZeroDivisionError

    group.on_put = trip
    pusher = Pusher(Exposition(), group, interval_s=0.01)

    pusher.start()
    twice = [pushed.acquire(timeout=PATIENCE_S) for _ in range(2)]

    assert twice == [True, True]
    assert pusher.stop(PATIENCE_S)
    assert pusher.figures.failures == 1
    assert "ZeroDivisionError" in caplog.text
