"""Claims about asking the master: answers, refusals, silence."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from cyclone.client import Client
from cyclone.errors import EXIT_UNREACHABLE, MasterUnreachable, Refusal
from cyclone.messages import (
    Accepted,
    AskCluster,
    AskTasks,
    Cancel,
    Leave,
    Message,
    Open,
    Opened,
    Refused,
    Submission,
    Submit,
    Tasks,
)
from cyclone.model.task import Policy
from cyclone.wire import keys
from cyclone.wire.door import Door, Heard
from cyclone.wire.keys import Role

Answer = Callable[[Heard], list[Message]]


@pytest.fixture
def key_dir(tmp_path: Path) -> Path:
    keys.ensure(tmp_path / "keys")
    return tmp_path / "keys"


@contextmanager
def master(key_dir: Path, answer: Answer, port: int = 0) -> Iterator[str]:
    """A master in a thread that answers as it is told; yields its address."""
    door = Door(keys.load_pair(key_dir, "master"), keys.KeyRing(key_dir))
    address = f"tcp://127.0.0.1:{door.bind(f'tcp://127.0.0.1:{port}')}"
    stopping = threading.Event()

    def serve() -> None:
        while not stopping.is_set():
            zmq.select(list(door.sockets), [], [], 0.02)
            for heard in door.receive():
                for message in answer(heard):
                    door.say(heard.peer, message)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield address
    finally:
        stopping.set()
        thread.join()
        door.close()


def client(key_dir: Path, address: str, **changes: object) -> Client:
    settings = {
        "own": keys.load_pair(key_dir, "client"),
        "master": keys.load_public(key_dir, "master"),
        "life": "life-1",
        **changes,
    }
    return Client(address, **settings)  # type: ignore[arg-type]


def accept(heard: Heard) -> list[Message]:
    return [Accepted([heard.message.request])]  # type: ignore[attr-defined]


def test_an_answer_is_found_by_its_number(key_dir):
    def answer(heard: Heard) -> list[Message]:
        number = heard.message.request
        return [Accepted([number + 100]), Tasks(number, [])]

    with master(key_dir, answer) as address, client(key_dir, address) as asker:
        reply = asker.ask(AskTasks(0))

    assert reply == Tasks(1, [])


def test_several_requests_may_be_accepted_at_once(key_dir):
    def answer(heard: Heard) -> list[Message]:
        number = heard.message.request
        return [Accepted([number + 100]), Accepted([number - 1, number])]

    with master(key_dir, answer) as address, client(key_dir, address) as asker:
        reply = asker.ask(Cancel(0, 1, ["a"]))

    assert reply == Accepted([0, 1])


def test_each_request_has_a_number_of_its_own(key_dir):
    with master(key_dir, accept) as address, client(key_dir, address) as asker:
        replies = [asker.ask(Cancel(0, 1, ["a"])) for _ in range(3)]

    assert replies == [Accepted([1]), Accepted([2]), Accepted([3])]


def test_payloads_travel_with_the_request(key_dir):
    enclosures = []

    def answer(heard: Heard) -> list[Message]:
        enclosures.append(heard.enclosure)
        return accept(heard)

    with master(key_dir, answer) as address, client(key_dir, address) as asker:
        asker.ask(Submit(0, 1, [Policy()], [Submission("a", 0)]), [b"pickle"])

    assert enclosures == [[b"pickle"]]


def test_the_opening_of_a_job_is_answered_by_its_name(key_dir):
    def answer(heard: Heard) -> list[Message]:
        return [Opened("another", 1, 1, 0, 10), Opened("nightly", 2, 1, 0, 10)]

    with master(key_dir, answer) as address, client(key_dir, address) as asker:
        reply = asker.ask(Open("nightly"))

    assert reply == Opened("nightly", 2, 1, 0, 10)


def test_what_comes_in_between_is_kept(key_dir):
    def answer(heard: Heard) -> list[Message]:
        return [Leave("soon"), *accept(heard), Leave("now")]

    with master(key_dir, answer) as address, client(key_dir, address) as asker:
        asker.ask(Cancel(0, 1, []))
        kept = asker.receive()
        while len(kept) < 2 and asker.line.wait(5):
            kept += asker.receive()

    assert kept == [(Leave("soon"), []), (Leave("now"), [])]


@pytest.mark.parametrize("number", [0, 1])
def test_a_refusal_is_raised_with_its_reason(key_dir, number):
    with (
        master(key_dir, lambda _: [Refused("the disk is full", number)]) as address,
        client(key_dir, address) as asker,
        pytest.raises(Refusal, match="the disk is full"),
    ):
        asker.ask(AskCluster(0))


def test_a_master_that_is_not_there_is_unreachable(key_dir):
    with master(key_dir, accept) as address:
        pass

    with (
        client(key_dir, address) as asker,
        pytest.raises(MasterUnreachable, match="can be reached") as raised,
    ):
        asker.ask(AskCluster(0), timeout_s=0.1)

    assert raised.value.exit_code == EXIT_UNREACHABLE
    assert address in str(raised.value)


def test_a_master_that_is_silent_is_unreachable(key_dir):
    with (
        master(key_dir, lambda _: []) as address,
        client(key_dir, address) as asker,
        pytest.raises(MasterUnreachable, match="no master answers"),
    ):
        asker.ask(AskCluster(0), timeout_s=0.3)


def test_a_question_may_be_given_up_while_it_is_asked(key_dir):
    heard = threading.Event()

    def swallow(_: Heard) -> list[Message]:
        heard.set()
        return []

    with (
        master(key_dir, swallow) as address,
        client(key_dir, address) as asker,
        pytest.raises(MasterUnreachable, match="was given up"),
    ):
        asker.ask(AskCluster(0), timeout_s=3600, given_up=heard.is_set)


def test_a_key_that_is_not_admitted_is_told_at_once(key_dir):
    stranger = keys.KeyPair("stranger", Role.CLIENT, *zmq.curve_keypair())
    begin = time.monotonic()

    with (
        master(key_dir, accept) as address,
        client(key_dir, address, own=stranger) as asker,
        pytest.raises(MasterUnreachable, match="does not admit the key stranger"),
    ):
        asker.ask(AskCluster(0), timeout_s=60)

    assert time.monotonic() - begin < 30


def test_a_request_is_repeated_when_the_connection_was_lost(key_dir):
    heard_first = threading.Event()

    def swallow(_: Heard) -> list[Message]:
        heard_first.set()
        return []

    replies: list[Message] = []
    with master(key_dir, swallow) as address:
        asker = client(key_dir, address)
        asking = threading.Thread(target=lambda: replies.append(asker.ask(Cancel(0, 1, []), timeout_s=30)))
        asking.start()
        assert heard_first.wait(10)
    with master(key_dir, accept, int(address.rpartition(":")[2])):
        asking.join(30)
    asker.close()

    assert replies == [Accepted([1])]
