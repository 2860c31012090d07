"""Claims about frames: what is said is heard again, and no bytes break anything."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyclone.errors import RuleBroken, Undecodable, WrongVersion
from cyclone.messages import (
    PROTOCOL,
    Agreed,
    Assignment,
    Cluster,
    Drop,
    Ended,
    Goodbye,
    Open,
    Place,
    Report,
    Results,
    Started,
    Submission,
    Submit,
    TaskEnd,
)
from cyclone.model.lifecycle import State
from cyclone.model.task import End, Policy
from cyclone.wire import codec

TOWARDS_MASTER = [
    (Report(1.5, (("cpus", 10_000), ("workers", 20_000)), [1, 2, 3]), None),
    (Started([7]), None),
    (Ended([End(1), End(2, error="no")]), [b"one", b""]),
    (Goodbye("done"), None),
    (Open("nightly"), None),
    (Submit(3, 1, [Policy()], [Submission("a", 0, ("b",))]), [b"payload"]),
]

FROM_SERVER = [
    (Place(1.0, [Policy()], [Assignment(1, "a", "j", 1, 0), Assignment(2, "b", "j", 1, 0)]), [b"1", b"2"]),
    (Drop([1, 2]), None),
    (Agreed(1.0, [2], 5.0, 20.0), None),
    (Results(1, 1, [TaskEnd("a", State.SUCCEEDED, 1, End(1))]), [b"value"]),
    (Cluster(1, "3", 1, 1, "up", 1.0, "", "", [], []), None),
]


@pytest.mark.parametrize(("message", "enclosure"), TOWARDS_MASTER, ids=lambda one: type(one).__name__)
def test_what_is_said_to_the_master_is_heard_by_it(message, enclosure):
    frame = codec.frame(codec.seal("node-1", "life-1"), message, enclosure)

    envelope, parts = codec.unseal(frame)

    assert codec.TO_MASTER.decode(parts) == (message, enclosure or [])
    assert envelope == codec.Envelope("node-1", "life-1")


@pytest.mark.parametrize(("message", "enclosure"), FROM_SERVER, ids=lambda one: type(one).__name__)
def test_what_the_master_says_is_heard(message, enclosure):
    frame = codec.frame(codec.seal("", "life-1"), message, enclosure)

    envelope, parts = codec.unseal(memoryview(frame))

    assert codec.FROM_SERVER.decode(parts) == (message, enclosure or [])
    assert envelope == codec.Envelope("", "life-1")


def test_a_message_of_the_other_direction_is_not_understood():
    body = codec.encode(Drop([1]))

    with pytest.raises(Undecodable):
        codec.TO_MASTER.decode([body])


@given(st.binary(max_size=400))
def test_no_bytes_do_more_than_be_no_frame(noise):
    try:
        codec.unseal(noise)
    except Undecodable:
        pass


@given(st.binary(max_size=400))
def test_no_bytes_behind_the_version_do_more_than_be_no_frame(noise):
    try:
        codec.unseal(bytes((PROTOCOL,)) + noise)
    except WrongVersion:
        pytest.fail("the version was ours")
    except Undecodable:
        pass


@given(st.binary(max_size=200), st.binary(max_size=200), st.binary(max_size=200))
def test_no_bytes_as_an_envelope_do_more_than_be_none(envelope, body, enclosure):
    try:
        _, parts = codec.unseal(codec.join(envelope, body, enclosure))
    except Undecodable:
        return
    assert [bytes(part) for part in parts] == ([body, enclosure] if enclosure else [body])


@given(st.lists(st.binary(max_size=400), min_size=1, max_size=2))
def test_no_bytes_do_more_than_be_no_message(noise):
    for decoder in (codec.TO_MASTER, codec.FROM_SERVER):
        try:
            decoder.decode(noise)
        except Undecodable:
            pass


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(st.characters(codec="utf-8"), max_size=8)
    | st.binary(max_size=8)
    | st.sampled_from(["Report", "Ended", "Submit", "Open", "Place", "Results", "succeeded"]),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=30,
)


@given(
    st.sampled_from(["Report", "Ended", "Submit", "Started", "Cancel"]),
    st.lists(_VALUES, max_size=6),
    _VALUES,
)
def test_nearly_right_messages_do_no_more_either(tag, fields, enclosed):
    frames = [msgspec.msgpack.encode([tag, *fields]), msgspec.msgpack.encode(enclosed)]

    for part in (frames, frames[:1]):
        try:
            message, enclosure = codec.TO_MASTER.decode(part)
        except Undecodable:
            continue
        assert type(message).__name__ == tag
        assert all(type(one) is bytes for one in enclosure)


@given(st.data())
def test_a_message_with_a_damaged_byte_does_no_more_either(data):
    message, enclosure = data.draw(st.sampled_from(TOWARDS_MASTER))
    frame = bytearray(codec.frame(codec.seal("n", "l"), message, enclosure))
    frame[data.draw(st.integers(0, len(frame) - 1))] ^= data.draw(st.integers(1, 255))

    try:
        _, parts = codec.unseal(bytes(frame))
        codec.TO_MASTER.decode(parts)
    except (Undecodable, WrongVersion):
        pass


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x93\xa7Goodbye\xa0" + b"\x91" * 100_000,
        b"\x92\xa7Started\xdd\xff\xff\xff\xff",
        b"\x94\xa6Report\xcb" + b"\x00" * 8 + b"\xdd\xff\xff\xff\xff\x90",
        b"\x92\xa7Goodbye\xdb\xff\xff\xff\xff",
        b"\x92\xa7Goodbye\xa2\xff\xfe",
        b"\x92\xa7Goodbye\xa0\x00",
        b"\x92\xa7Started\x91\xa11",
        b"\x92\xa7Started\x91\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00",
        b"\x92\xa7Goodbye\xc7\x00\xff",
        b"\x92\xa4Evil\xa0",
        b"\xc1",
    ],
    ids=[
        "nothing", "too deep", "endless list", "endless tuple", "endless text", "not UTF-8", "more behind it",
        "text for a number", "infinite token", "extension", "unknown tag", "reserved byte",
    ],
)  # fmt: skip
def test_hostile_bodies_are_undecodable(body):
    with pytest.raises(Undecodable):
        codec.TO_MASTER.decode([body])


def test_another_version_is_told_by_its_number():
    frame = bytes((PROTOCOL + 1,)) + b"whatever they may put here"

    with pytest.raises(WrongVersion) as raised:
        codec.unseal(frame)

    assert (raised.value.theirs, raised.value.ours) == (PROTOCOL + 1, PROTOCOL)


def test_an_empty_frame_is_undecodable():
    with pytest.raises(Undecodable):
        codec.unseal(b"")


@pytest.mark.parametrize("size", range(1, 40))
def test_a_frame_that_is_cut_short_is_undecodable(size):
    frame = codec.frame(codec.seal("node", "life"), Goodbye("a reason that is long enough"))

    with pytest.raises(Undecodable):
        codec.unseal(frame[:size])


def test_lengths_that_are_longer_than_the_frame_are_undecodable():
    frame = codec.frame(codec.seal("", "life"), Goodbye())

    for lengths in (b"\xff\xff\0\0\0\0", b"\0\0\xff\xff\xff\xff"):
        with pytest.raises(Undecodable):
            codec.unseal(frame[:1] + lengths + frame[7:])


@pytest.mark.parametrize("instance", ["a/b", "a b", "line\n", "x" * 129, "ü"])
def test_a_bad_instance_is_neither_understood_nor_said(instance):
    with pytest.raises(Undecodable):
        codec.unseal(codec.join(msgspec.msgpack.encode([instance, "life"]), b""))
    with pytest.raises(RuleBroken):
        codec.seal(instance, "life")


def test_an_instance_that_is_no_text_is_not_said():
    with pytest.raises(RuleBroken):
        codec.seal("\udc80", "life")


@pytest.mark.parametrize("life", ["", "a/b", "x" * 129])
def test_a_bad_life_is_neither_understood_nor_said(life):
    with pytest.raises(Undecodable):
        codec.unseal(codec.join(msgspec.msgpack.encode(["", life]), b""))
    with pytest.raises(RuleBroken):
        codec.seal("", life)


@pytest.mark.parametrize(
    ("message", "enclosure"),
    [(Ended([End(1)]), []), (Ended([End(1)]), [b"", b""]), (Goodbye(), [b""]), (Ended([]), [b"x"])],
)
def test_an_enclosure_of_another_length_is_undecodable(message, enclosure):
    frames = [codec.encode(message), msgspec.msgpack.encode(enclosure)]

    with pytest.raises(Undecodable):
        codec.TO_MASTER.decode(frames)


def test_a_missing_enclosure_is_undecodable():
    with pytest.raises(Undecodable):
        codec.TO_MASTER.decode([codec.encode(Ended([End(1)]))])


def test_an_enclosure_of_text_is_undecodable():
    frames = [codec.encode(Ended([End(1)])), msgspec.msgpack.encode(["text"])]

    with pytest.raises(Undecodable):
        codec.TO_MASTER.decode(frames)


def test_an_enclosure_of_another_length_is_not_said():
    with pytest.raises(RuleBroken):
        codec.frame(codec.seal("", "life"), Ended([End(1)]), [])


@pytest.mark.parametrize("message", [Goodbye("\udc80"), Started([2**64])])
def test_what_cannot_travel_is_not_said(message):
    with pytest.raises(RuleBroken):
        codec.encode(message)


def test_thousands_of_entries_travel_in_one_message():
    count = 20_000
    message, enclosure = Ended([End(token) for token in range(count)]), [b"value"] * count

    _, parts = codec.unseal(codec.frame(codec.seal("", "life"), message, enclosure))

    assert codec.TO_MASTER.decode(parts) == (message, enclosure)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (codec.encode(Goodbye("bye")), "Goodbye"),
        (b"\x92\xa4Open\xc0", "Open"),
        (b"", ""),
        (b"\xc1", ""),
        (b"\x91\x05", ""),
        (b"\x92\xa4Open" + b"\x91" * 100_000, ""),
    ],
)
def test_a_body_is_asked_for_its_name_and_nothing_else(body, kind):
    assert codec.kind(body) == kind
