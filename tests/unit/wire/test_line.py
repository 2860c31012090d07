"""Claims about the other end: what is heard, what is said, and how being refused differs from being alone."""

from __future__ import annotations

import re
import socket as sockets
import time

import pytest
import zmq

from cyclone.errors import AddressError, KeyFileError, RuleBroken
from cyclone.messages import PROTOCOL, Drop, Ended, Goodbye, Report
from cyclone.model.task import End
from cyclone.wire import codec, keys
from cyclone.wire.door import Door
from cyclone.wire.keys import Role
from cyclone.wire.line import Line

REPORT = Report(1.0, (), [])


@pytest.fixture
def free_port():
    with sockets.socket() as socket:
        socket.bind(("127.0.0.1", 0))
        return socket.getsockname()[1]


@pytest.fixture
def stand_in():
    """A bare socket in the master's place, without keys, and its address."""
    context = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    socket.linger = 0
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    yield socket, f"tcp://127.0.0.1:{port}"
    socket.close()
    context.term()


def answered(network, stand_in, *answers: list[bytes]) -> Line:
    """A line that has been sent these frames."""
    socket, address = stand_in
    line = network.line(address=address, own=None, server=None)
    network.wait_for(lambda: line.connected, lambda: line.wait(0.05))
    assert line.say(REPORT)
    assert socket.poll(5000)
    route = socket.recv_multipart()[0]
    for frames in answers:
        socket.send_multipart([route, *frames])
    return line


def frames(message, life="life-1", enclosure=None) -> list[bytes]:
    return [codec.frame(codec.seal("", life), message, enclosure)]


# Hearing.


def test_what_is_for_a_former_life_is_dropped(network, stand_in):
    line = answered(network, stand_in, frames(Drop([1]), life="life-0"), frames(Drop([2])))

    said = network.said(line)

    assert said == [(Drop([2]), [])]
    assert line.dropped == {"former life": 1}


@pytest.mark.parametrize(
    "noise",
    [
        [b""], [codec.join(codec.seal("", "life-1"), b"")], [codec.join(codec.seal("", "life-1"), b"\xc1")], [*frames(REPORT)],
        [*frames(Drop([1])), b"", b""], [*frames(Drop([1])), *[b"x"] * 100],
    ],
)  # fmt: skip
def test_noise_from_the_master_is_dropped(network, stand_in, noise):
    line = answered(network, stand_in, noise, frames(Drop([2])))

    said = network.said(line)

    assert said == [(Drop([2]), [])]
    assert line.dropped == {"undecodable": 1}


def test_a_master_of_another_version_is_a_reason(network, stand_in):
    line = answered(network, stand_in, [bytes((PROTOCOL + 1,)) + b"?", b"?"])

    network.wait_for(lambda: line.receive() or line.refused_reason, lambda: line.wait(0.05))

    assert f"version {PROTOCOL + 1}" in line.refused_reason


# Saying.


def test_nothing_is_said_while_the_master_is_away(network, free_port):
    line = network.line(address=f"tcp://127.0.0.1:{free_port}")

    said = line.say(REPORT)

    assert not said
    assert not line.connected
    assert line.refused_reason is None


def test_the_line_comes_back_with_the_master(network, free_port):
    line = network.line(address=f"tcp://127.0.0.1:{free_port}")
    door = network.open_door()
    assert not line.wait(0)

    door.bind(f"tcp://127.0.0.1:{free_port}")
    network.connect(line, door)

    assert line.say(REPORT)
    assert network.hear(door=door)[0].message == REPORT


def test_a_master_that_restarts_is_found_again(network, free_port):
    line = network.line(address=f"tcp://127.0.0.1:{free_port}")
    first = network.open_door()
    first.bind(f"tcp://127.0.0.1:{free_port}")
    network.connect(line, first)
    first.close()
    network.wait_for(lambda: not line.connected, lambda: line.wait(0.05))

    second = network.open_door()
    second.bind(f"tcp://127.0.0.1:{free_port}")
    network.connect(line, second)

    assert line.connections == 2
    assert line.say(REPORT)


def test_what_was_said_last_arrives_though_the_line_is_closed(network):
    line = network.line()
    network.connect(line)

    line.say(Goodbye("done"))
    line.close()

    assert network.hear()[0].message == Goodbye("done")


def test_a_message_over_the_limit_is_a_broken_rule(network):
    line = network.line(max_message_bytes=1000)

    with pytest.raises(RuleBroken, match="at most 1000"):
        line.say(Ended([End(1)]), [b"x" * 1000])


def test_a_line_begins_anew_in_the_same_life(network):
    line = network.line()
    network.say(line, REPORT)
    before = network.hear()[0].peer

    line.reconnect()
    network.say(line, REPORT)

    assert network.hear()[0].peer == before


def test_closing_twice_is_closing_once(network):
    line = network.line()

    line.close()
    line.close()

    assert all(socket.closed for socket in line.sockets)


# Being refused.


def test_after_nonsense_the_line_has_to_begin_anew_and_says_so(network, free_port):
    """libzmq gives up such a connection for good, and does not tell anybody (measured with 4.3.5)."""
    now = [0.0]
    with sockets.create_server(("127.0.0.1", free_port)) as nobody_of_ours:
        line = network.line(address=f"tcp://127.0.0.1:{free_port}", clock=lambda: now[0])
        connection, _ = nobody_of_ours.accept()
        with connection:
            # The tenth byte of a greeting makes it one of the first version, after which nothing can be understood
            # (rfc.zeromq.org/spec/23, "Backwards Interoperability").
            connection.sendall(b"\xff" + bytes(8) + b"\x80" + b"\xff" * 100)
            network.wait_for(lambda: line._gone_at is not None, lambda: line.wait(0.05))
    at_once = line.refused_reason
    now[0] += 1.0
    reason = line.refused_reason
    door = network.open_door()
    door.bind(f"tcp://127.0.0.1:{free_port}")

    line.reconnect()
    network.connect(line, door)

    assert at_once is None
    assert "does not speak with keys as this side does" in reason
    assert line.refused_reason is None


def test_a_key_of_no_list_is_told_so(network):
    stranger = keys.KeyPair("node-7", Role.CONTROLLER, *zmq.curve_keypair())
    line = network.line(own=stranger)

    network.until(lambda: line.refused_reason, line=line)

    assert "does not admit the key node-7" in line.refused_reason
    assert stranger.public_key.fingerprint in line.refused_reason


def test_a_refused_key_gets_in_by_a_new_connection_once_it_is_authorized(network, tmp_path):
    pair = keys.make(tmp_path / "node", "node-7", Role.CONTROLLER)
    line = network.line(own=pair)
    network.until(lambda: line.refused_reason, line=line)
    keys.authorize(network.key_dir, tmp_path / "node" / "node-7.public")
    network.ring.reload()

    line.reconnect()
    network.connect(line)

    assert line.refused_reason is None
    assert line.say(REPORT)


def test_a_wrong_key_of_the_master_is_told_after_some_tries(network):
    other = keys.PublicKey("master", Role.MASTER, zmq.curve_keypair()[0])
    line = network.line(server=other)

    network.until(lambda: line.refused_reason, line=line)

    assert other.fingerprint in line.refused_reason


def test_a_master_with_keys_is_a_reason_for_a_line_without(network):
    line = network.line(own=None, server=None)

    network.until(lambda: line.refused_reason, line=line)

    assert "without keys" in line.refused_reason


def test_a_master_without_keys_is_a_reason_for_a_line_with(network):
    door = network.stack.enter_context(Door(None, None))
    line = network.line(address=f"tcp://127.0.0.1:{door.bind('tcp://127.0.0.1:0')}")

    network.until(lambda: line.refused_reason, door, line)

    assert "with keys" in line.refused_reason


# Settings.


@pytest.mark.parametrize("address", ["127.0.0.1:5555", "tcp://127.0.0.1", "tcp://*:5555x", "ipc://x"])
def test_what_is_no_address_is_refused(network, address):
    with pytest.raises(AddressError, match="expected tcp://HOST:PORT"):
        network.line(address=address)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:0", "tcp://*:5555", "tcp://-:5555"])
def test_an_address_that_nobody_can_have_is_refused(network, address):
    with pytest.raises(AddressError, match=re.escape(address)):
        network.line(address=address)


@pytest.mark.parametrize(
    "names", [{"instance": "a/b"}, {"instance": "a b"}, {"life": ""}, {"life": "x" * 200}]
)
def test_an_instance_or_life_that_no_master_would_take_is_a_bug(network, names):
    with pytest.raises(RuleBroken):
        network.line(**names)


def test_half_the_keys_are_a_bug(network):
    with pytest.raises(RuleBroken):
        network.line(server=None)


def test_only_the_key_of_a_master_is_believed(network):
    with pytest.raises(KeyFileError, match="expected master"):
        network.line(server=keys.load_public(network.key_dir, "client"))


def test_waiting_ends_after_its_time(network, free_port):
    line = network.line(address=f"tcp://127.0.0.1:{free_port}")
    begin = time.monotonic()

    ready = line.wait(0.05)

    assert not ready
    assert time.monotonic() - begin >= 0.05
