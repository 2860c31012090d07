from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated

import msgspec
import pytest
from msgspec import Meta

from cyclone.errors import RecordError, RuleBroken
from cyclone.record import Field, Metric, Record, decode, encode, fields, make, table, uid


class Measured(Record):
    kind = "measured"
    table = "measurements"
    metrics = (Metric("measured_seconds", "How long it took.", ("place",), lambda row: row.seconds),)
    indexes = (("place", "at"),)

    place: Annotated[str, Meta(max_length=16)]
    count: Annotated[int, Meta(ge=0, description="how many")]
    at: datetime
    seconds: Annotated[float, Meta(ge=0, extra={"unit": "s"})] | None = None
    fine: bool = True


NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def test_a_record_arrives_as_it_was_sent():
    body = encode(Measured, {"place": "here", "count": 3, "at": NOON, "seconds": 1.5})

    assert decode(Measured, body) == Measured(place="here", count=3, at=NOON, seconds=1.5, fine=True)


def test_the_fields_tell_what_a_table_needs():
    assert fields(Measured) == (
        Field("place", str, optional=False, bound=16, unsigned=False, unit="", description=""),
        Field("count", int, optional=False, bound=None, unsigned=True, unit="", description="how many"),
        Field("at", datetime, optional=False, bound=None, unsigned=False, unit="", description=""),
        Field("seconds", float, optional=True, bound=None, unsigned=True, unit="s", description=""),
        Field("fine", bool, optional=False, bound=None, unsigned=False, unit="", description=""),
    )
    assert table(Measured) == "measurements"


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"place": 5}, "place"),
        ({"place": "x" * 17}, "place"),
        ({"count": -1}, "count"),
        ({"count": 1.5}, "count"),
        ({"at": "noon"}, "at"),
        ({"at": datetime(2026, 11, 20)}, "time zone"),  # noqa: DTZ001 - that is the fault
        ({"colour": "red"}, "colour"),
        ({"place": "\udcff"}, "surrogates"),
        ({"count": 2**70}, "count"),
        ({"count": 2**63}, "count"),
        ({"seconds": float("nan")}, "seconds"),
        ({"seconds": float("inf")}, r"not finite - at `\$\.seconds`"),
        ({"at": datetime(999, 12, 31, tzinfo=UTC)}, r"before the year 1000 - at `\$\.at`"),
        ({"at": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1)))}, "out of range"),
    ],
)
def test_a_wrong_field_is_named(wrong, problem):
    with pytest.raises(RecordError, match=problem) as raised:
        encode(Measured, {"place": "here", "count": 3, "at": NOON, **wrong})

    assert "'measured'" in str(raised.value)


def test_a_missing_field_is_named():
    with pytest.raises(RecordError, match="count"):
        encode(Measured, {"place": "here", "at": NOON})


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", b"\x91" * 100_000, encode(Measured, {"place": "", "count": 0, "at": NOON})[:-3]]
)
def test_bytes_that_are_no_record_are_refused(body):
    with pytest.raises(RecordError):
        decode(Measured, body)


class Strict(Record):
    kind = "strict"

    seconds: float

    def __post_init__(self):
        assert self.seconds >= 0, "found a negative time"
        {1.0: "fine"}[self.seconds]


@pytest.mark.parametrize(
    ("seconds", "problem"), [(-1.0, "AssertionError: found a negative time"), (2.0, "KeyError: 2.0")]
)
def test_whatever_the_code_of_a_site_raises_is_about_that_record_alone(seconds, problem):
    for refuse in (
        lambda: encode(Strict, {"seconds": seconds}),
        lambda: decode(Strict, msgspec.msgpack.encode({"seconds": seconds})),
        lambda: make(Strict, {"seconds": seconds}),
    ):
        with pytest.raises(RecordError, match=f"the kind 'strict': {problem}"):
            refuse()


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"seconds": float("nan")}, "seconds"),
        ({"seconds": float("inf")}, "not finite"),
        ({"count": 2**64 - 1}, "more than 64 bits"),
        ({"count": True}, "count"),
        ({"at": "2026-11-20T12:00:00"}, "no time zone"),
        ({"at": datetime(999, 12, 31, tzinfo=UTC)}, "before the year 1000"),
        ({"at": "0001-01-01T00:00:00+01:00"}, "out of range"),
        ({"place": b"\xff"}, "place"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_whoever_sends_past_the_checks_is_found_out_at_the_other_end(wrong, problem):
    body = msgspec.msgpack.encode({"place": "here", "count": 3, "at": NOON, **wrong})

    with pytest.raises(RecordError, match=problem):
        decode(Measured, body)


class Nameless(Record):
    field: int


class Injecting(Record):
    kind = "x; DROP TABLE y"


class Strange(Record):
    kind = "strange"
    parts: list[int]


class Unbuildable(Record):
    kind = "unbuildable"
    part: Annotated[str, Meta(ge=0)]


class Clashing(Record):
    kind = "clashing"
    tid: str


class Misnamed(Record):
    kind = "misnamed"
    indexes = (("here",),)
    there: int


@pytest.mark.parametrize("kind", [Nameless, Injecting, Strange, Unbuildable, Clashing, Misnamed])
def test_a_declaration_that_is_not_sound_is_refused(kind):
    with pytest.raises(RuleBroken, match=kind.__name__):
        fields(kind)


def test_a_key_is_the_same_for_each_attempt_and_differs_for_everything_else():
    keys = {
        uid(1, "a", 0),
        uid(2, "a", 0),
        uid(1, "b", 0),
        uid(1, "a", 1),
    }

    assert len(keys) == 4
    assert uid(1, "a", 0) in keys
