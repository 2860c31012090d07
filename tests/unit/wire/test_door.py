"""Claims about the master's end: who gets in, who is heard, and that nobody can disturb the others."""

from __future__ import annotations

import socket as sockets

import pytest
import zmq

from cyclone.errors import AddressError, ConfigError, KeyFileError, RuleBroken
from cyclone.messages import (
    PROTOCOL,
    Agreed,
    AskRecords,
    Deliver,
    Drop,
    Ended,
    Goodbye,
    Leave,
    Open,
    Place,
    Refused,
    Report,
    Started,
)
from cyclone.model.peer import Peer
from cyclone.model.task import End
from cyclone.wire import codec, keys
from cyclone.wire import door as door_module
from cyclone.wire.complaints import Complaints
from cyclone.wire.door import SINK, Door
from cyclone.wire.keys import Role, new_pair
from cyclone.wire.stranger import Stranger
from cyclone.wire.strikes import OUT_S, STRIKES_MOST, WITHIN_S

REPORT = Report(1.0, (), [])


def frames(message=REPORT, *, instance="", life="life-1", enclosure=None) -> list[bytes]:
    return [codec.frame(codec.seal(instance, life), message, enclosure)]


# Who gets in.


def test_a_listed_key_is_heard_under_its_name_and_role(network):
    network.say(network.line("controller"), REPORT)

    heard = network.hear()

    assert heard == [(Peer("controller", "life-1"), Role.CONTROLLER, REPORT, [])]


def test_an_instance_is_part_of_the_name(network):
    network.say(network.line("controller", instance="node-1"), REPORT)

    heard = network.hear()

    assert heard[0].peer == Peer("controller/node-1", "life-1")


def test_an_enclosure_arrives_as_it_was(network):
    network.say(network.line(), Ended([End(1), End(2)]), [b"one", b"\x00" * 100_000])

    heard = network.hear()

    assert heard[0].enclosure == [b"one", b"\x00" * 100_000]


def stranger(network, kind: str) -> zmq.Socket[bytes]:
    """Somebody who must not get in."""
    socket = network.socket(None)
    own = keys.load_pair(network.key_dir, "controller")
    fresh_public, fresh_secret = zmq.curve_keypair()
    match kind:
        case "no keys":
            pass
        case "password":
            socket.plain_username, socket.plain_password = b"controller", b"secret"
        case "wrong server key":
            socket.curve_publickey, socket.curve_secretkey = own.public, own.secret
            socket.curve_serverkey = fresh_public
        case "unlisted key":
            socket.curve_publickey, socket.curve_secretkey = fresh_public, fresh_secret
            socket.curve_serverkey = network.master.public
        case "listed key without its secret":
            socket.curve_publickey, socket.curve_secretkey = own.public, fresh_secret
            socket.curve_serverkey = network.master.public
    return socket


@pytest.mark.parametrize(
    "kind", ["no keys", "password", "wrong server key", "unlisted key", "listed key without its secret"]
)
def test_a_stranger_is_not_heard_and_others_are(network, kind: str):
    intruder = stranger(network, kind)
    monitor = intruder.get_monitor_socket(
        zmq.EVENT_HANDSHAKE_FAILED_AUTH
        | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
        | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        | zmq.EVENT_HANDSHAKE_SUCCEEDED
    )
    intruder.connect(network.address)
    for _ in range(5):
        intruder.send_multipart(frames())
    network.until(lambda: monitor.poll(0))
    told = zmq.utils.monitor.parse_monitor_message(monitor.recv_multipart())
    intruder.disable_monitor()
    monitor.close(0)

    network.say(network.line("client"), Open("job"))
    heard = network.hear()

    assert told["event"] != zmq.EVENT_HANDSHAKE_SUCCEEDED
    assert [one.peer.name for one in heard] == ["client"]


def test_a_refused_key_is_counted(network):
    network.line(own=fresh_pair())

    network.until(lambda: network.door.dropped["refused"])

    assert network.door.dropped == {"refused": 1}


def fresh_pair(role: Role = Role.CONTROLLER) -> keys.KeyPair:
    return keys.KeyPair("fresh", role, *zmq.curve_keypair())


def test_a_key_that_is_revoked_is_neither_heard_nor_told_over_its_open_connection(network):
    line = network.line("controller")
    network.say(line, REPORT)
    peer = network.hear()[0].peer
    keys.revoke(network.key_dir, "controller")
    network.ring.reload()

    network.say(line, REPORT)
    network.until(lambda: network.door.dropped["revoked"])
    told = network.door.say(peer, Drop([1]))

    assert not told
    assert network.door.dropped["revoked"] == 2


def test_a_key_authorized_while_the_master_runs_is_heard_after_a_reload(network, tmp_path):
    pair = keys.make(tmp_path / "node", "node-9", Role.CONTROLLER)
    keys.authorize(network.key_dir, tmp_path / "node" / "node-9.public")
    network.ring.reload()

    network.say(network.line(own=pair), REPORT)

    assert network.hear()[0].peer.name == "node-9"


# What is dropped.


@pytest.mark.parametrize(
    ("key", "message"), [("client", REPORT), ("client", Started([1])), ("controller", Open("job"))]
)
def test_a_message_of_another_role_is_dropped(network, key, message):
    network.say(network.line(key), message)

    network.until(lambda: network.door.dropped["wrong role"])

    assert network.door.dropped == {"wrong role": 1}


def test_what_a_role_may_not_say_is_not_decoded(network, monkeypatch):
    def decoded(frames):
        raise AssertionError("decoded")

    for decoder in (network.door._decoders[None], network.door._decoders[Role.CLIENT]):
        monkeypatch.setattr(decoder, "decode", decoded)
    socket = network.socket("controller")
    socket.connect(network.address)

    socket.send_multipart(frames(Open("job")))
    socket.send(codec.join(codec.seal("", "life"), b"\x92\xa4Open\xc0"))  # nor if it is wrong
    network.until(lambda: network.door.dropped["wrong role"] == 2)

    assert network.door.dropped == {"wrong role": 2}


def nonsense(network, socket: zmq.Socket[bytes], count: int = STRIKES_MOST) -> None:
    expected = network.door.dropped["undecodable"] + count
    for _ in range(count):
        socket.send(codec.join(codec.seal("", "life"), b"\xc1"))
    network.until(lambda: network.door.dropped["undecodable"] == expected)


def test_whoever_talks_nonsense_for_long_is_not_read_for_a_while_and_others_are(network, monkeypatch, caplog):
    network.door._complaints = Complaints(lambda: network.now)
    socket, again, client = network.socket(), network.line("controller"), network.line("client")
    socket.connect(network.address)
    network.connect(client)
    nonsense(network, socket)
    with monkeypatch.context() as patch:
        patch.setattr(codec, "unseal", None)  # whoever reads fails
        network.say(again, REPORT)
        socket.send_multipart(frames())
        network.until(lambda: network.door.dropped["suspended"] == 3)

    network.say(client, Open("job"))
    others = network.hear()
    network.now = OUT_S
    network.say(again, REPORT)
    later = network.hear()

    assert [one.message for one in (*others, *later)] == [Open("job"), REPORT]
    assert len([one for one in caplog.messages if one.startswith("suspended: 100 bad messages")]) == 1


def test_some_nonsense_now_and_then_is_forgiven(network):
    socket = network.socket()
    socket.connect(network.address)
    for _ in range(3):
        nonsense(network, socket, STRIKES_MOST - 1)
        network.now += WITHIN_S

    socket.send_multipart(frames())

    assert network.hear()[0].message == REPORT


# The list while the door is open.


@pytest.fixture
def later(network):
    """Some seconds later by the clock of the door."""

    def pass_by(seconds: float = 10.0) -> None:
        network.now += seconds

    return pass_by


def test_a_door_notices_a_revoked_key_by_itself(network, later):
    line = network.line("controller")
    network.say(line, REPORT)
    network.hear()
    keys.revoke(network.key_dir, "controller")

    later()
    network.say(line, REPORT)
    network.until(lambda: network.door.dropped["revoked"])

    assert network.door.dropped == {"revoked": 1}


def test_a_door_notices_an_authorized_key_by_itself(network, later, tmp_path):
    pair = keys.make(tmp_path / "node", "node-9", Role.CONTROLLER)
    keys.authorize(network.key_dir, tmp_path / "node" / "node-9.public")

    later()
    network.say(network.line(own=pair), REPORT)

    assert network.hear()[0].peer.name == "node-9"


def test_a_list_with_an_error_is_told_of_and_keys_are_revoked_all_the_same(network, later, caplog):
    caplog.set_level("INFO")
    line, other = network.line("client"), network.line("controller")
    network.say(line, Open("job"))
    network.hear()
    bad = network.key_dir / "authorized" / "bad.public"
    bad.write_text("name = half")
    keys.revoke(network.key_dir, "client")
    later()
    network.say(line, Open("job"))
    network.until(lambda: network.door.dropped["revoked"])
    network.say(other, Started([1]))
    heard = network.hear()

    bad.unlink()
    later()
    network.until(lambda: "read anew, for" in caplog.text)

    assert heard[0].message == Started([1])
    assert str(bad) in caplog.text
    assert [key.name for key in network.ring.keys.values()] == ["controller"]


@pytest.mark.parametrize(
    ("key", "wanted", "other"),
    [("client", AskRecords(1, []), Deliver(1, [])), ("controller", Deliver(1, []), AskRecords(1, []))],
)
def test_a_sink_hears_records_from_controllers_and_questions_from_clients(network, key, wanted, other):
    door = network.stack.enter_context(Door(keys.load_pair(network.key_dir, "sink"), network.ring, SINK))
    address = f"tcp://127.0.0.1:{door.bind('tcp://127.0.0.1:0')}"
    line = network.line(key, address=address, server=keys.load_public(network.key_dir, "sink"))

    network.wait_for(lambda: line.connected, lambda: (network.poll(door), line.wait(0)))
    line.say(other)
    line.say(wanted)
    [heard] = network.hear(1, door)

    assert (heard.message, door.dropped) == (wanted, {"wrong role": 1})


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ([b""], "undecodable"),
        ([b"", b""], "undecodable"),
        ([bytes((PROTOCOL,))], "undecodable"),
        ([codec.seal("", "life")], "wrong version"),
        ([codec.join(codec.seal("", "life"), b"")], "undecodable"),
        ([codec.join(codec.seal("", "life"), b"\xc1")], "undecodable"),
        ([codec.join(b"\x92\xa3a/b\xa4life", codec.encode(REPORT))], "undecodable"),
        ([codec.join(codec.seal("", "life"), codec.encode(Drop([1])))], "undecodable"),
        ([frames()[0] + b"\x91\xc4\x00"], "undecodable"),
        ([*frames(), b"", b""], "too many parts"),
        ([*frames(), *[b"x"] * 100], "too many parts"),
        ([b"\x02", b"anything"], "wrong version"),
        ([b"\xff"] * 4, "wrong version"),
    ],
)
def test_a_bad_message_is_dropped_and_its_sender_heard_again(network, sent, reason):
    socket = network.socket()
    socket.connect(network.address)

    socket.send_multipart(sent)
    socket.send_multipart(frames())
    heard = network.hear()

    assert [one.message for one in heard] == [REPORT]
    assert network.door.dropped == {reason: 1}


def test_a_message_of_very_many_parts_does_not_hold_up_others(network):
    socket = network.socket()
    socket.connect(network.address)
    line = network.line("client")
    network.connect(line)

    socket.send_multipart([*frames(), *[b"x"] * 20_000])
    network.say(line, Open("job"))
    heard = network.hear()
    network.until(lambda: network.door.dropped["too many parts"])

    assert [one.message for one in heard] == [Open("job")]


def test_one_turn_reads_no_more_than_its_limit(network):
    line = network.line()
    for number in range(10):
        network.say(line, Started([number]))
    network.wait_for(lambda: network.door.sockets[0].poll(100))

    turns = []
    network.wait_for(lambda: turns.append(len(network.door.receive(4))) or sum(turns) == 10)

    assert max(turns) <= 4


def test_a_frame_over_the_limit_ends_its_connection_only(network):
    door = network.open_door(max_message_bytes=10_000)
    network.address = f"tcp://127.0.0.1:{door.bind('tcp://127.0.0.1:0')}"
    giant, line = network.line("controller"), network.line("client")
    network.connect(giant, door)
    network.connect(line, door)

    assert giant.say(Goodbye("x" * 20_000))
    network.until(lambda: not giant.connected or giant.connections > 1, door, giant)
    assert line.say(Open("job"))
    heard = network.hear(door=door)

    assert [one.message for one in heard] == [Open("job")]


def test_another_version_is_answered_with_both(network):
    socket = network.socket()
    socket.connect(network.address)

    socket.send_multipart([bytes((PROTOCOL + 8,)) + b"?", b"?"])
    network.until(lambda: socket.poll(0))
    [frame] = socket.recv_multipart()

    _, parts = codec.unseal(frame)
    answer, _ = codec.FROM_SERVER.decode(parts)
    assert isinstance(answer, Refused)
    assert f"version {PROTOCOL + 8}" in answer.reason
    assert f"version {PROTOCOL}" in answer.reason


def test_complaints_about_one_peer_are_written_once_a_minute(network, caplog):
    socket = network.socket()
    socket.connect(network.address)

    for _ in range(3):
        socket.send_multipart([b"\x01", b"noise"])
    network.until(lambda: network.door.dropped["undecodable"] == 3)

    assert len([record for record in caplog.records if "peer=controller" in record.getMessage()]) == 1


# Letters.


def test_a_letter_reaches_the_life_it_is_for(network):
    line = network.line(instance="node-1")
    network.say(line, REPORT)
    peer = network.hear()[0].peer

    assert network.door.say(peer, Agreed(1.0, [], 5.0, 20.0))

    assert network.said(line) == [(Agreed(1.0, [], 5.0, 20.0), [])]


def test_nobody_is_told_what_was_for_somebody_unknown(network):
    told = network.door.say(Peer("controller", "never seen"), Leave())

    assert not told
    assert network.door.dropped == {"nobody there": 1}


def test_a_peer_that_has_gone_is_an_answer_not_an_error(network):
    line = network.line()
    network.say(line, REPORT)
    peer = network.hear()[0].peer

    line.close()
    network.until(lambda: not network.door.say(peer, Leave()))

    assert network.door.dropped["gone"] == 1


def test_a_peer_that_does_not_read_is_an_answer_and_others_are_served(network):
    socket, line = network.socket("controller"), network.line("client")
    network.connect(line)
    socket.rcvhwm = 1
    socket.connect(network.address)
    socket.send_multipart(frames())
    network.say(line, Open("job"))
    heard = {one.role: one.peer for one in network.hear(2)}

    network.wait_for(lambda: not network.door.say(heard[Role.CONTROLLER], Leave("x" * 100_000)))
    told = network.door.say(heard[Role.CLIENT], Leave())

    assert told
    assert network.door.dropped == {"clogged": 1}


def test_letters_go_over_the_newest_connection(network):
    line = network.line()
    network.say(line, REPORT)
    peer = network.hear()[0].peer
    line.reconnect()
    network.say(line, REPORT)
    network.hear()

    assert network.door.say(peer, Drop([5]))

    assert network.said(line) == [(Drop([5]), [])]


def test_last_words_over_a_former_connection_do_not_bring_it_back(network):
    first, second = network.socket(), network.socket()
    for socket in (first, second):
        socket.connect(network.address)
        socket.send_multipart(frames())
        peer = network.hear()[0].peer
    first.send_multipart(frames())
    network.hear()

    network.door.say(peer, Drop([5]))

    assert second.poll(5000)
    assert not first.poll(0)


def test_the_least_recently_heard_is_forgotten_beyond_the_bound(network, monkeypatch):
    monkeypatch.setattr(door_module, "_ROUTES_MAX", 2)
    socket = network.socket()
    socket.connect(network.address)

    for life in ("a", "b", "a", "c"):
        socket.send_multipart(frames(life=life))
    network.hear(4)

    known = [life for life in "abc" if network.door.say(Peer("controller", life), Leave())]
    assert known == ["a", "c"]


def test_whoever_invents_peers_by_the_thousand_is_forgotten_before_others(network, monkeypatch):
    monkeypatch.setattr(door_module, "_ROUTES_MAX", 10)
    victim, flood = network.socket("client"), network.socket("controller")
    for socket in (victim, flood):
        socket.connect(network.address)
    victim.send_multipart(frames(Open("job"), life="victim"))
    network.hear()

    for number in range(50):
        flood.send_multipart(frames(life=f"life-{number}"))
    network.hear(50)

    assert network.door.say(Peer("client", "victim"), Leave())
    assert network.door.say(Peer("controller", "life-49"), Leave())
    assert not network.door.say(Peer("controller", "life-0"), Leave())


def test_a_letter_over_the_limit_is_not_sent_for_ever(network):
    door = network.open_door(max_message_bytes=10_000)
    network.address = f"tcp://127.0.0.1:{door.bind('tcp://127.0.0.1:0')}"
    socket = network.socket()
    socket.connect(network.address)
    socket.send_multipart(frames())
    peer = network.hear(door=door)[0].peer

    told = door.say(peer, Leave("x" * 20_000))

    assert not told
    assert door.dropped == {"too large": 1}


def test_a_letter_that_breaks_the_rules_is_a_bug(network):
    network.say(network.line("controller"), REPORT)
    peer = network.hear()[0].peer

    with pytest.raises(RuleBroken):
        network.door.say(peer, Place(1.0, [], []), [b"one too many"])


# Addresses.


def test_a_port_in_use_is_named(network):
    door = network.open_door()

    with pytest.raises(
        AddressError, match=f"{network.address} cannot be listened on: Address already in use"
    ):
        door.bind(network.address)


@pytest.mark.parametrize(
    "address",
    [
        "", "127.0.0.1:5555", "tcp://127.0.0.1", "tcp://127.0.0.1:", "tcp://:5555", "tcp://127.0.0.1:65536",
        "tcp://127.0.0.1:x", "udp://127.0.0.1:5555", "inproc://x", "tcp://a b:1", "tcp://127.0.0.1:5555;x",
    ],
)  # fmt: skip
def test_what_is_no_address_is_named(network, address):
    with pytest.raises(AddressError) as raised:
        network.door.bind(address)

    assert repr(address) in str(raised.value)


@pytest.mark.parametrize("address", ["tcp://host.invalid:0", "tcp://192.0.2.1:0"])
def test_an_address_of_another_host_is_named(network, address):
    with pytest.raises(AddressError, match=address):
        network.door.bind(address)


@pytest.mark.parametrize("address", ["tcp://*:0", "tcp://localhost:0", "tcp://127.0.0.1:0"])
def test_with_keys_any_address_is_listened_on(network, address):
    door = network.open_door()

    port = door.bind(address)

    with sockets.create_connection(("127.0.0.1", port), timeout=5):
        assert 0 < port < 65536


@pytest.mark.parametrize("address", ["tcp://*:0", "tcp://0.0.0.0:0", "tcp://[::]:0", "tcp://lo:0"])
def test_without_keys_the_network_is_not_listened_on(address):
    with Door(None, None) as door, pytest.raises(AddressError, match=r"switch \[security\] curve on"):
        door.bind(address)


@pytest.mark.parametrize("address", ["tcp://[::1]:0", "tcp://*:0"])
def test_ipv6_is_listened_on_by_choice(network, address):
    door = network.open_door(ipv6=True)
    if not has_ipv6():
        with pytest.raises(AddressError):
            door.bind(address)
        return
    network.address = f"tcp://[::1]:{door.bind(address)}"
    line = network.line(ipv6=True)
    network.connect(line, door)

    assert line.say(REPORT)

    assert network.hear(door=door)[0].message == REPORT


def has_ipv6() -> bool:
    try:
        with sockets.socket(sockets.AF_INET6) as socket:
            socket.bind(("::1", 0))
    except OSError:
        return False
    return True


# Without keys.


def test_without_keys_roles_follow_from_what_is_said(network):
    door = network.stack.enter_context(Door(None, None))
    address = f"tcp://127.0.0.1:{door.bind('tcp://localhost:0')}"
    lines = [network.line(address=address, own=None, server=None, instance=name) for name in ("node-1", "")]
    for line in lines:
        network.connect(line, door)

    for line, message in zip(lines, (REPORT, Open("job")), strict=True):
        assert line.say(message)
    heard = network.hear(2, door)

    assert {(one.peer.name, one.role) for one in heard} == {
        ("keyless/node-1", Role.CONTROLLER),
        ("keyless", Role.CLIENT),
    }


# The test of itself.


def test_a_door_that_lets_strangers_in_does_not_open(network, monkeypatch):
    door = network.open_door()
    monkeypatch.setattr(network.ring, "admitted", lambda raw: network.master)

    with pytest.raises(AddressError, match="on no list"):
        door.bind("tcp://127.0.0.1:0")


class Nobody:
    """In the place of who answers questions about keys."""

    def __init__(self, context, *_):
        self.socket = context.socket(zmq.PAIR)

    def serve(self, **_):
        pass

    def close(self):
        self.socket.close(0)


def test_while_nobody_answers_for_keys_nobody_is_let_in(network, monkeypatch):
    monkeypatch.setattr(door_module, "Zap", Nobody)
    port = network.open_door().bind("tcp://127.0.0.1:0")

    with Stranger(
        f"tcp://127.0.0.1:{port}", new_pair("stranger", Role.CONTROLLER), network.master
    ) as stranger:
        # It may be told so, or never hear anything.
        assert not stranger.knock(3.0)


def test_every_limit_of_a_socket_is_set(network):
    line = network.line()
    context = zmq.Context()
    with context.socket(zmq.ROUTER) as bare:
        for socket in (network.door._socket, line.sockets[0]):
            # That of libzmq happens to be what we want.
            assert (socket.sndhwm, socket.rcvhwm) == (1000, 1000)
            for option in (
                zmq.LINGER, zmq.MAXMSGSIZE, zmq.HANDSHAKE_IVL, zmq.HEARTBEAT_IVL, zmq.HEARTBEAT_TIMEOUT,
                zmq.HEARTBEAT_TTL, zmq.TCP_KEEPALIVE, zmq.TCP_KEEPALIVE_IDLE, zmq.TCP_KEEPALIVE_INTVL,
                zmq.TCP_KEEPALIVE_CNT,
            ):  # fmt: skip
                assert socket.get(option) > 0
                assert socket.get(option) != bare.get(option)
        assert network.door._socket.backlog != bare.backlog
        assert line.sockets[0].reconnect_ivl_max != bare.reconnect_ivl_max
    context.term()


def test_a_routing_id_that_is_taken_is_not_taken_over(network):
    first, second = network.socket("controller"), network.socket("client")
    first.routing_id = second.routing_id = b"the same"
    first.connect(network.address)
    first.send_multipart(frames())
    [heard] = network.hear()
    monitor = second.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
    second.connect(network.address)
    network.until(lambda: monitor.poll(0))
    second.disable_monitor()
    monitor.close(0)
    # One that takes over is heard by now.
    for _ in range(10):
        network.poll()

    network.door.say(heard.peer, Leave("go"))

    assert first.poll(5000)
    assert not second.poll(0)


def test_the_test_of_itself_leaves_no_complaint(network, caplog):
    assert network.door.dropped == {}
    assert caplog.records == []


def test_a_frame_that_nobody_vouched_for_is_dropped(network):
    context = zmq.Context()
    with context.socket(zmq.PAIR) as one, context.socket(zmq.PAIR) as other:
        one.bind("inproc://unvouched")
        other.connect("inproc://unvouched")
        other.send_multipart([b"route", *frames()])

        heard = network.door._admit(one.recv_multipart(copy=False))

    context.term()
    assert heard is None
    assert network.door.dropped == {"revoked": 1}


def test_a_library_that_is_too_old_is_refused(network, monkeypatch):
    monkeypatch.setattr(zmq, "zmq_version_info", lambda: (4, 3, 1))

    with pytest.raises(ConfigError, match=r"expected 4\.3\.3 or newer"):
        network.open_door()


@pytest.mark.parametrize("name", ["controller", "client"])
def test_only_the_key_of_a_master_opens_a_door(network, name):
    with pytest.raises(KeyFileError, match="expected master"):
        Door(keys.load_pair(network.key_dir, name), network.ring)


def test_a_key_without_a_list_is_a_bug(network):
    with pytest.raises(RuleBroken):
        Door(keys.load_pair(network.key_dir, "master"), None)
