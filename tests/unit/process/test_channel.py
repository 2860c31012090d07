import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cyclone.errors import RuleBroken, Undecodable
from cyclone.messages import Assignment, Ended, Place
from cyclone.model.task import End
from cyclone.process import channel as channel_module
from cyclone.process.channel import Channel, create_pair


@pytest.fixture
def pair():
    """A controller's end and a worker's, neither of them blocking."""
    ours, theirs = create_pair()
    controller = Channel(ours, Ended, blocking=False)
    worker = Channel(theirs, Place, blocking=False)
    yield controller, worker
    controller.close()
    worker.close()


def place(count):
    return Place(0.0, [], [Assignment(number, f"tid-{number}", "job", 1, 0) for number in range(count)])


def carry(sender, receiver):
    """Let them take turns until everything has arrived."""
    messages = receiver.receive()
    while sender.has_unsent:
        sender.flush()
        messages += receiver.receive()
    return messages + receiver.drain()


def test_a_message_arrives_with_its_enclosure(pair):
    controller, worker = pair

    controller.send(place(3), [b"one", b"", b"three"])

    assert worker.receive() == [(place(3), [b"one", b"", b"three"])]


def test_messages_arrive_in_their_order(pair):
    controller, worker = pair

    for count in range(5):
        controller.send(place(count), [b"x"] * count)

    assert [len(enclosure) for _, enclosure in worker.receive()] == [0, 1, 2, 3, 4]


def test_both_sides_speak(pair):
    controller, worker = pair

    worker.send(Ended([End(7)]), [b"value"])

    assert controller.receive() == [(Ended([End(7)]), [b"value"])]


def test_nothing_to_read_is_nothing_heard(pair):
    controller, _ = pair

    assert controller.receive() == []
    assert not controller.closed


def test_a_large_frame_arrives_in_many_calls(pair):
    controller, worker = pair
    value = bytes(range(256)) * (100 << 10)

    worker.send(Ended([End(1), End(2)]), [value, b"small"])
    messages = carry(worker, controller)

    assert messages == [(Ended([End(1), End(2)]), [value, b"small"])]


def test_the_buffer_of_a_large_frame_is_given_back(pair):
    controller, worker = pair
    worker.send(Ended([End(1)]), [bytes(10 << 20)])
    carry(worker, controller)

    worker.send(Ended([End(2)]), [b"next"])

    assert controller.drain() == [(Ended([End(2)]), [b"next"])]
    assert len(controller._incoming) < 1 << 20


def test_more_pieces_than_one_call_takes_arrive(pair):
    controller, worker = pair
    pieces = [bytes([number % 256]) * (65 << 10) for number in range(600)]

    controller.send(place(600), pieces)

    assert carry(controller, worker) == [(place(600), pieces)]


def test_an_empty_piece_after_a_large_one_arrives(pair):
    controller, worker = pair
    pieces = [b"", bytes(1 << 20), b"", bytes(1 << 20), b""]

    controller.send(place(5), pieces)

    assert carry(controller, worker) == [(place(5), pieces)]


def test_who_does_not_read_blocks_nobody(pair):
    controller, worker = pair

    for _ in range(50):
        controller.send(place(1), [bytes(1 << 20)])

    assert controller.has_unsent
    assert len(carry(controller, worker)) == 50
    assert not controller.has_unsent


def test_the_end_of_the_other_side_comes_after_its_last_word(pair):
    controller, worker = pair
    worker.send(Ended([End(1)]), [b"last"])
    worker.close()

    assert controller.drain() == [(Ended([End(1)]), [b"last"])]
    assert controller.closed


def test_half_a_frame_before_the_end_is_no_message(pair):
    controller, worker = pair
    worker.send(Ended([End(1)]), [bytes(50 << 20)])
    worker.close()

    assert controller.drain() == []
    assert controller.closed


def test_speaking_to_who_is_gone_is_no_error(pair):
    controller, worker = pair
    worker.close()

    controller.send(place(1), [b"x"])
    controller.send(place(1), [b"x"])

    assert controller.closed
    assert not controller.has_unsent


def test_a_drain_ends_though_somebody_holds_the_other_end_open(pair):
    controller, worker = pair
    worker.send(Ended([End(1)]), [b"x"])

    assert controller.drain() == [(Ended([End(1)]), [b"x"])]
    assert not controller.closed


def test_a_frame_that_is_too_long_is_not_sent(pair, monkeypatch):
    controller, worker = pair
    monkeypatch.setattr(channel_module, "FRAME_BYTES_MAX", 1000)

    with pytest.raises(RuleBroken):
        worker.send(Ended([End(1)]), [bytes(1001)])

    assert controller.receive() == []


def test_a_chunk_for_a_worker_may_be_longer(pair, monkeypatch):
    controller, worker = pair
    monkeypatch.setattr(channel_module, "FRAME_BYTES_MAX", 1000)

    controller.send(place(1), [bytes(1001)])

    assert worker.receive() == [(place(1), [bytes(1001)])]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff" * 16,
        struct.pack("<QII", 1 << 40, 0, 0),
        struct.pack("<QII", 10, 11, 0) + bytes(10),
        struct.pack("<QII", 8, 0, 3) + bytes(8),
        struct.pack("<QII", 3, 3, 0) + b"abc",
        struct.pack("<QII", 4, 0, 1) + struct.pack("<I", 0),
        b"this was printed by a task, to the wrong place",
    ],
)
def test_what_is_no_frame_is_refused(pair, garbage):
    controller, worker = pair
    worker._socket.sendall(garbage)

    with pytest.raises(Undecodable):
        controller.receive()


def test_pieces_must_add_up(pair):
    controller, worker = pair
    body = channel_module._encode(Ended([]))
    rest = body + struct.pack("<I", 5) + b"only4"[:4]
    worker._socket.sendall(struct.pack("<QII", len(rest), len(body), 1) + rest)

    with pytest.raises(Undecodable, match="add up"):
        controller.receive()


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 200_000), max_size=20), min_size=1, max_size=8),
    st.integers(1, 300_000),
)
def test_however_it_is_cut_it_arrives_whole(sizes, step):
    ours, theirs = create_pair()
    sender, receiver = Channel(ours, Ended, blocking=False), Channel(theirs, Place, blocking=False)
    sent = [(place(len(pieces)), [bytes(size) for size in pieces]) for pieces in sizes]

    heard = []
    receiver._incoming = bytearray(min(step, len(receiver._incoming)))
    for message, enclosure in sent:
        sender.send(message, enclosure)
        heard += receiver.receive()
    heard += carry(sender, receiver)

    assert heard == sent
    sender.close()
    receiver.close()


def test_text_in_a_wrong_encoding_is_undecodable(pair):
    controller, worker = pair
    body = b"\x92\xa5Ended\x91\x97\x01\x00\x00\xa9\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8\xf7\x00\xc2\xa0"
    worker._socket.send(struct.pack("<QII", len(body), len(body), 0) + body)

    with pytest.raises(Undecodable):
        controller.receive()


def test_a_frame_that_is_only_announced_takes_no_memory(pair):
    controller, worker = pair
    worker._socket.send(struct.pack("<QII", channel_module.FRAME_BYTES_MAX, 100, 1) + bytes(100))

    assert controller.receive() == []
    assert len(controller._incoming) <= 2 * channel_module._READ_BYTES


def test_a_large_frame_grows_as_it_comes_in(pair):
    controller, worker = pair
    value = bytes(range(256)) * 40_000

    worker.send(Ended([End(7)]), [value])

    assert carry(worker, controller) == [(Ended([End(7)]), [value])]
    assert len(controller._incoming) == channel_module._READ_BYTES
