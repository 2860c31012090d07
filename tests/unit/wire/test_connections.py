"""Claims about who is cut off, on real connections: too many of them, and messages without an end."""

from __future__ import annotations

import resource
import socket as sockets
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from cyclone.messages import Open, Started
from cyclone.wire import codec, connections
from cyclone.wire import sockets as sockets_module
from cyclone.wire.door import Door, Heard


def hung_up(silent: sockets.socket) -> bool:
    """Whether the other side has."""
    try:
        return silent.recv(64, sockets.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def address(network) -> tuple[str, int]:
    host, port = network.address.removeprefix("tcp://").split(":")
    return host, int(port)


@pytest.fixture
def knock(network) -> Iterator[Callable[[int], list[sockets.socket]]]:
    """Connections that say nothing, not even the greeting of ZMTP."""
    with ExitStack() as stack:

        def connect(count: int) -> list[sockets.socket]:
            before = len(network.door._connections)
            silent = [stack.enter_context(sockets.create_connection(address(network))) for _ in range(count)]
            network.until(lambda: len(network.door._connections) == before + count)
            return silent

        yield connect


def test_connections_that_come_and_go_are_known(network, knock):
    line = network.line("controller")
    network.connect(line)
    silent = knock(5)
    for one in silent:
        one.close()

    network.until(lambda: len(network.door._connections) == 1)


def test_beyond_the_bound_the_oldest_silent_ones_are_cut_off(network, knock, monkeypatch):
    line = network.line("client")
    network.say(line, Open("job"))
    network.hear()
    first, second, third = knock(3)
    monkeypatch.setattr(connections, "CONNECTIONS_MAX", 3)

    with sockets.create_connection(first.getpeername()) as late:
        network.until(lambda: hung_up(first) and hung_up(second))
        network.say(line, Open("job"))
        heard = network.hear()

        assert (hung_up(third), hung_up(late)) == (False, False)
    assert heard[0].message == Open("job")
    assert network.door.dropped == {"too many connections": 1}


def test_most_of_the_descriptors_are_for_others(network, knock, monkeypatch):
    knock(4)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (12, 12))

    with sockets.create_connection(address(network)):
        network.until(lambda: network.door.dropped["too many connections"])

    assert len(network.door._connections) == 4


def test_who_holds_all_connections_leaves_room_for_others(network, monkeypatch):
    greedy = [network.line("controller", instance=str(number)) for number in range(9)]
    for number, line in enumerate(greedy):
        network.say(line, Started([number]))
        network.hear()
    monkeypatch.setattr(connections, "CONNECTIONS_MAX", 10)

    other = network.line("client")
    network.say(other, Open("job"))
    [heard] = network.hear()
    network.until(lambda: not greedy[-1].connected, line=greedy[-1])
    for number, line in enumerate(greedy[:-1]):
        network.say(line, Started([number]))

    assert heard.message == Open("job")
    assert {one.message.tokens[0] for one in network.hear(8)} == {*range(8)}


def test_a_connection_that_is_one_too_many_is_not_heard(network, monkeypatch):
    lines = [network.line("controller", instance=str(number)) for number in range(10)]
    monkeypatch.setattr(connections, "CONNECTIONS_MAX", 10)
    for number, line in enumerate(lines[:-1]):
        network.say(line, Started([number]))
        network.hear()

    network.connect(lines[-1])
    assert lines[-1].say(Started([9]))
    heard = []
    network.wait_for(
        lambda: not lines[-1].connected, lambda: (heard.extend(network.poll()), lines[-1].wait(0))
    )

    assert heard == []
    assert network.door.dropped == {"too many connections": 1}


# Messages without an end.


class Raw:
    """Speaks ZMTP 3.0 by hand (rfc.zeromq.org/spec/23), for libzmq itself sends nothing before a message is whole."""

    MORE, LONG, COMMAND = 1, 2, 4

    def __init__(self, port: int) -> None:
        self.socket = sockets.create_connection(("127.0.0.1", port))
        greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0")
        self.socket.sendall(greeting.ljust(64, b"\0"))
        ready = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
        self.socket.sendall(bytes((self.COMMAND, len(ready))) + ready)

    def say(self, *parts: bytes, more: bool) -> None:
        for number, part in enumerate(parts, 1):
            flags = self.LONG | (self.MORE if more or number < len(parts) else 0)
            self.socket.sendall(bytes((flags,)) + len(part).to_bytes(8, "big") + part)


FRAME_BYTES = 1_000_000


@pytest.fixture
def keyless(network) -> tuple[Door, int]:
    door = Door(None, None, max_message_bytes=FRAME_BYTES, clock=lambda: network.now)
    network.stack.enter_context(door)
    return door, door.bind("tcp://127.0.0.1:0")


def turn(network, door: Door) -> list[Heard]:
    network.now += 10.0
    return network.poll(door)


def test_a_message_without_an_end_ends_its_connection_and_no_other(network, keyless):
    door, port = keyless
    raw, honest = Raw(port), Raw(port)

    def is_cut_off() -> bool:
        try:
            raw.say(b"x" * FRAME_BYTES, more=True)
        except (ConnectionResetError, BrokenPipeError):
            return True
        turn(network, door)
        return False

    with raw.socket, honest.socket:
        network.wait_for(is_cut_off)
        honest.say(codec.frame(codec.seal("", "life"), Open("job")), more=False)
        heard = network.hear(door=door)

    assert [one.message for one in heard] == [Open("job")]
    assert door.dropped == {"endless message": 1}


def test_the_largest_message_that_is_allowed_may_take_its_time(network, keyless):
    door, port = keyless
    raw = Raw(port)
    with raw.socket:
        for _ in range(10):
            for _ in range(3):
                turn(network, door)
            raw.say(b"x" * FRAME_BYTES, more=False)
        network.until(lambda: door.dropped["wrong version"] == 10, door)

    assert door.dropped == {"wrong version": 10}


def test_who_says_nothing_at_all_is_hung_up_on(network, monkeypatch):
    monkeypatch.setattr(sockets_module, "_HANDSHAKE_MS", 300)
    door = network.open_door()
    port = door.bind("tcp://127.0.0.1:0")

    with sockets.create_connection(("127.0.0.1", port)) as silent:
        network.until(lambda: hung_up(silent), door)
