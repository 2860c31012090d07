from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from cyclone.errors import RecordError
from cyclone.lustre.records import OstPerformance
from cyclone.messages import Entry
from cyclone.record import UID_BYTES, decode
from cyclone.sinks import legacy

LINE = b"'2026-11-20 12:00:00','2026-11-20 12:00:01','OST000a',1000000,250000000,125000000,4,8"


def entry(line: bytes, number: int = 1) -> Entry:
    return legacy.entry(
        line, OstPerformance, sink="database", fs="lustre", zone=UTC, at=1.79e9, number=number
    )


def row(line: bytes) -> OstPerformance:
    return decode(OstPerformance, entry(line).body)


def test_a_line_becomes_a_record():
    assert row(LINE) == OstPerformance(
        fs="lustre",
        ost=10,
        state="OK",
        size=1_000_000,
        read_timestamp=datetime(2026, 11, 20, 12, tzinfo=UTC),
        write_timestamp=datetime(2026, 11, 20, 12, 0, 1, tzinfo=UTC),
        read_throughput=250_000_000,
        write_throughput=125_000_000,
        read_duration=4.0,
        write_duration=8.0,
    )


def test_an_entry_is_addressed_and_has_a_key():
    made = entry(LINE)

    assert (made.sink, made.kind, made.job, made.tid) == ("database", "ost_perf", "legacy", "ost-10")
    assert made.at == 1.79e9
    assert len(made.uid) == UID_BYTES


def test_two_lines_that_are_alike_have_keys_of_their_own():
    assert len({entry(LINE, number).uid for number in range(1000)}) == 1000


def test_a_line_that_comes_again_under_its_number_has_the_same_key():
    assert entry(LINE, 7).uid == entry(LINE, 7).uid


def test_a_line_that_is_none_is_kept_as_it_came():
    kept = legacy.unread(b"\xff none", sink="database", at=1.79e9, number=1)

    assert (kept.kind, kept.body) == (legacy.UNREAD, b"\xff none")
    assert len(kept.uid) == UID_BYTES
    assert legacy.unread(b"x" * 60_000, sink="database", at=1.79e9, number=1).body == b"x" * 1000
    assert "expected a line of 8 values" in legacy.why_unread(kept.body)


@pytest.mark.parametrize(
    ("name", "fs", "index"),
    [
        (b"'OST0000'", "lustre", 0),
        (b"OST00FF", "lustre", 255),
        (b"'12'", "lustre", 12),
        (b"12", "lustre", 12),
        (b"'scratch-OST0001'", "scratch", 1),
    ],
)
def test_an_ost_is_told_in_more_than_one_way(name, fs, index):
    found = row(LINE.replace(b"'OST000a'", name))

    assert (found.fs, found.ost) == (fs, index)


@pytest.mark.parametrize(
    ("numbers", "state"),
    [
        (b"1000000,250000000,125000000,0,0", "OK"),
        (b"1000000,-1,125000000,-1,8", "READ_FAILED"),
        (b"1000000,-1,-1,-1,-1", "WRITE_FAILED"),
        (b"0,0,0,0,0", "DOWN"),
    ],
)
def test_numbers_that_stood_for_something_else_become_states(numbers, state):
    found = row(LINE.replace(b"1000000,250000000,125000000,4,8", numbers))

    assert found.state == state
    assert (found.read_throughput is None) == (state != "OK")
    assert (found.write_throughput is None) == (state in ("WRITE_FAILED", "DOWN"))
    assert -1 not in (found.read_duration, found.write_duration)


def test_a_moment_that_never_was_is_none():
    assert row(LINE.replace(b"2026-11-20 12:00:00", b"0000-00-00 00:00:00")).read_timestamp is None


def test_moments_are_in_local_time_unless_said_otherwise(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        found = legacy.parse(LINE, fs="lustre", zone=None)
    finally:
        monkeypatch.undo()
        time.tzset()

    assert found["read_timestamp"] == datetime(2026, 11, 20, 11, tzinfo=UTC)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff\xfe\x00",
        b"," * 7,
        LINE + b",1",
        LINE[:-2],
        LINE + b"\nx",
        LINE + b"),(SLEEP(10)",
        LINE.replace(b"OST000a", b"x'); DROP TABLE ost_perf_history; --"),
        LINE.replace(b"OST000a", b"(SELECT 1)"),
        LINE.replace(b"OST000a", "OST\u0660\u0660\u0660\u0661".encode()),
        LINE.replace(b"1000000", b"-1"),
        LINE.replace(b"1000000", b"-2"),
        LINE.replace(b"1000000", b"1e6"),
        LINE.replace(b"1000000", b"9" * 19),
        LINE.replace(b"2026-11-20 12:00:00", b"2026-02-30 12:00:00"),
        LINE.replace(b"2026-11-20 12:00:00", b"NOW()"),
        LINE.replace(b"OST000a", b"99999"),
        LINE.replace(b"2026-11-20 12:00:00", b"0001-01-01 00:00:00"),
        b"'" * 100_000,
        b"1" * 190,
    ],
)
def test_what_is_no_such_line_is_refused(line):
    with pytest.raises(RecordError):
        row(line)
