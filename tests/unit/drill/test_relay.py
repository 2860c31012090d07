"""What each mode of a relay does to letters and to bytes, and that the dice are the plan's."""

from __future__ import annotations

import http.client
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from cyclone.drill.relay import PASS, Errand, MessageRelay, Way, Weather
from cyclone.loop import Loop
from cyclone.messages import Started
from cyclone.private_cluster import free_ports
from cyclone.wire import keys
from cyclone.wire.door import Door
from cyclone.wire.keys import KeyRing, Role, load_pair
from cyclone.wire.line import connect

PATIENCE_S = 20.0

LETTERS = [(Started([number]), ()) for number in range(200)]


def through(mode: str, dice: int = 1, until: float = 100.0) -> tuple[list[int], int]:
    """The tokens that come out, in their order, of letters that come a hundredth of a second apart."""
    weather = Weather()
    weather.change(mode, dice)
    out = []
    for number, letter in enumerate(LETTERS):
        weather.take(letter, number / 100)
        out += weather.due(number / 100)
    out += weather.due(until)
    return [message.tokens[0] for message, _ in out], weather.change(PASS, 0)


def test_in_good_weather_all_passes_at_once() -> None:
    tokens, touched = through(PASS, until=1.99)

    assert (tokens, touched) == (list(range(200)), 0)


def test_some_are_lost() -> None:
    tokens, touched = through("lose-messages")

    assert tokens == sorted(set(tokens))
    assert 30 < touched < 100
    assert len(tokens) == 200 - touched


def test_some_come_twice() -> None:
    tokens, touched = through("double-messages")

    assert set(tokens) == set(range(200))
    assert len(tokens) == 200 + touched
    assert touched > 50


def test_late_ones_keep_their_order() -> None:
    tokens, touched = through("delay-messages")

    assert (tokens, touched) == (list(range(200)), 200)
    assert len(through("delay-messages", until=1.99)[0]) < 200


def test_some_overtake_others_and_none_is_lost() -> None:
    tokens, _ = through("reorder-messages")

    assert sorted(tokens) == list(range(200))
    assert tokens != sorted(tokens)


def test_where_nothing_passes_all_is_lost() -> None:
    assert through("nothing") == ([], 200)


def test_what_is_forgotten_does_not_arrive() -> None:
    weather = Weather()
    weather.change("delay-messages", 1)
    weather.take(LETTERS[0], 0.0)

    weather.forget()

    assert (weather.next_moment, weather.due(100.0)) == (None, [])


@pytest.mark.parametrize("mode", ["lose-messages", "double-messages", "reorder-messages"])
def test_the_same_dice_do_the_same(mode: str) -> None:
    assert through(mode, 5) == through(mode, 5)
    assert through(mode, 5) != through(mode, 6)


def test_what_is_under_way_when_the_weather_changes_arrives() -> None:
    weather = Weather()
    weather.change("delay-messages", 1)
    weather.take(LETTERS[0], 0.0)
    weather.change(PASS, 0)

    assert weather.next_moment is not None
    assert weather.due(weather.next_moment) == [LETTERS[0]]
    assert weather.next_moment is None


# A relay of messages between real peers.


def until(is_so: Callable[[], bool], meanwhile: Callable[[], object] = lambda: None) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        meanwhile()
        time.sleep(0.005)


@pytest.fixture
def key_dir(tmp_path: Path) -> Path:
    keys.ensure(tmp_path / "keys")
    return tmp_path / "keys"


def test_what_one_life_has_said_does_not_come_from_the_next_one(key_dir: Path) -> None:
    here, there = free_ports(2)
    with closing(Loop()) as loop, Door(load_pair(key_dir, "master"), KeyRing(key_dir)) as master:
        master.bind(f"tcp://127.0.0.1:{there}")
        relay = MessageRelay(Way("north", "messages", here, there), key_dir, loop)

        def turn() -> None:
            relay.tick(0.0)  # a clock that stands still, so that nothing that is delayed arrives
            master.receive()

        relay.change("delay-messages", 1)
        for life, token in (("one", 1), ("two", 2)):
            with connect(
                f"tcp://127.0.0.1:{here}", key_dir, "controller", Role.CONTROLLER, instance="north", life=life
            ) as line:
                until(lambda line=line: line.wait(0) or line.connected, turn)  # type: ignore[misc]
                line.say(Started([token]))
                until(lambda life=life: relay._spoken is not None and relay._spoken.peer.life == life, turn)  # type: ignore[misc]
        on_their_way = [message for _, _, (message, _) in relay.up._waiting]
        assert relay._spoken is not None
        relay._unregister(relay._spoken.line)
        relay._spoken.line.close()
        relay._door.close()

    assert on_their_way == [Started([2])]


# The process, with a relay of bytes and what plays the Pushgateway.


class Process:
    def __init__(self, directory: Path) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.shown = directory / "shown"
        self.port, self.gateway_port = free_ports(2)
        ways = [Way("south", "bytes", self.port, self.server.getsockname()[1])]
        errand = Errand(str(directory), ways, "gateway", self.gateway_port, str(self.shown))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cyclone.drill.relay", msgspec.json.encode(errand).decode()],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def change(self, name: str, mode: str) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{name} {mode} 1\n".encode())
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def ends(self) -> tuple[socket.socket, socket.socket]:
        """Of one connection: that of a controller, and that of its master."""
        ours = socket.create_connection(("127.0.0.1", self.port), PATIENCE_S)
        theirs, _ = self.server.accept()
        theirs.settimeout(PATIENCE_S)
        return ours, theirs

    def put(self, body: bytes) -> int:
        """The status of the answer; 0 if there was none."""
        with closing(
            http.client.HTTPConnection("127.0.0.1", self.gateway_port, timeout=PATIENCE_S)
        ) as client:
            client.request("PUT", "/metrics/job/x", body)
            try:
                return client.getresponse().status
            except http.client.RemoteDisconnected:
                return 0

    def close(self) -> None:
        self.server.close()
        self._process.communicate()  # it ends with its standard input


@pytest.fixture
def relays(tmp_path: Path) -> Iterator[Process]:
    with closing(Process(tmp_path)) as process:
        yield process


@pytest.mark.parametrize(("mode", "open_way"), [("one-way-up", "up"), ("one-way-down", "down")])
def test_bytes_pass_one_way_and_wait_the_other_way(relays: Process, mode: str, open_way: str) -> None:
    up, down = relays.ends()
    with up, down:
        source, target = (up, down) if open_way == "up" else (down, up)
        relays.change("south", mode)
        target.sendall(b"held")
        source.sendall(b"passed")
        assert target.recv(100) == b"passed"

        touched = 0
        while not touched:  # until the relay has had them in its hands
            touched = relays.change("south", mode)
        early, _, _ = select.select([source], [], [], 0)
        relays.change("south", PASS)

        assert (early, source.recv(100)) == ([], b"held")


def test_garbled_bytes_are_as_many_and_others(relays: Process) -> None:
    ours, theirs = relays.ends()
    with ours, theirs:
        relays.change("south", "garble-bytes")
        ours.sendall(b"garbled")
        arrived = theirs.recv(100)

    assert len(arrived) == len(b"garbled")
    assert arrived != b"garbled"
    assert relays.change("south", PASS) == 1


def test_the_gateway_keeps_what_was_put_last(relays: Process) -> None:
    assert [relays.put(body) for body in (b"one 1\n", b"two 2\n")] == [200, 200]

    assert relays.shown.read_bytes() == b"two 2\n"


def test_a_broken_gateway_keeps_nothing(relays: Process) -> None:
    relays.put(b"one 1\n")
    relays.change("gateway", "broken-gateway")
    with socket.create_connection(("127.0.0.1", relays.gateway_port), PATIENCE_S) as client:
        client.sendall(b"PUT /metrics/job/x HTTP/1.1\r\nContent-Length: 6\r\n\r\ntwo 2\n")
        touched = 0
        while not touched:
            touched = relays.change("gateway", "broken-gateway")
        relays.change("gateway", PASS)
        client.shutdown(socket.SHUT_WR)
        assert b"200" not in client.recv(1000)

    assert relays.shown.read_bytes() == b"one 1\n"


def test_a_name_may_stand_for_relays_of_both_kinds(key_dir: Path, tmp_path: Path) -> None:
    """What the generator is behind."""
    first, second, target, gateway = free_ports(4)
    ways = [Way("generator", "bytes", first, second), Way("generator", "messages", second, target)]
    errand = msgspec.json.encode(Errand(str(key_dir), ways, "gateway", gateway, str(tmp_path / "shown")))
    ended = subprocess.run(
        [sys.executable, "-m", "cyclone.drill.relay", errand.decode()],
        input=b"generator lose-messages 1\ngenerator cut-connections 1\ngenerator pass 1\n",
        capture_output=True, timeout=PATIENCE_S, check=True,
    )  # fmt: skip

    assert ended.stdout.split() == [b"ready", b"0", b"0", b"0"]
