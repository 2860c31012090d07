from __future__ import annotations

import errno
import json
import os
import random
from base64 import b64decode

import pytest
from msgspec.structs import replace

from cyclone.errors import ConfigError, StoreError, StoreFull
from cyclone.messages import Entry
from cyclone.sinks import legacy
from cyclone.sinks.dead_letters import DeadLetters, sift
from cyclone.sinks.sql import DatabaseFailure, Failure

# The file.


@pytest.fixture
def path(tmp_path):
    return tmp_path / "dead.jsonl"


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_letter_tells_what_was_refused_and_why(path, entry):
    sent = entry(3, note="x")

    DeadLetters(path).append([(sent, "too long")], at=1_790_000_000.0)

    [letter] = lines(path)
    assert letter.pop("fields") == {
        "place": "here", "order": 3, "at": "2026-11-20T12:00:00Z", "change": None, "seconds": None, "fine": True,
        "seen": None, "note": "x",
    }  # fmt: skip
    assert b64decode(letter.pop("body")) == sent.body
    assert letter == {
        "refused_at": "2026-09-21T14:13:20Z",
        "reason": "too long",
        "kind": "reading",
        "job": "watch",
        "tid": "task-3",
        "at": sent.at,
        "uid": sent.uid.hex(),
        "sink": "database",
    }


def test_a_file_full_of_texts_takes_records_only_and_counts_the_others(path, entry, monkeypatch):
    monkeypatch.setattr("cyclone.sinks.dead_letters.TEXTS_BYTES_MOST", 1000)
    junk = [
        (legacy.unread(b"x" * 500, sink="database", at=1.79e9, number=number), "junk") for number in range(3)
    ]
    letters = DeadLetters(path)
    letters.append(junk, at=1_790_000_000.0)

    letters.append([*junk, (entry(3), "too long")], at=1_790_000_000.0)

    assert [letter["reason"] for letter in lines(path)] == ["junk"] * 3 + ["too long"]
    assert letters.unwritten == 3
    path.unlink()
    letters.append(junk, at=1_790_000_000.0)
    assert (len(lines(path)), letters.unwritten) == (3, 3)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x91" * 100_000,
        b"\x81\x01\x02",
        b"\x81\x90\x02",
        b"\xc7\x01\x63\x00",
        b"\xca\x7f\xc0\x00\x00",
    ],
)
def test_nothing_is_so_broken_that_it_cannot_be_put_aside(path, entry, body):
    broken = replace(entry(1), body=body, tid='"\n\0\U0001f300', uid=b"", at=float("nan"))

    DeadLetters(path).append([(broken, "r")], at=0.0)

    [letter] = lines(path)
    assert b64decode(letter["body"]) == body
    assert letter["tid"] == broken.tid


def test_the_file_only_grows_and_is_for_its_owner_alone(path, entry):
    DeadLetters(path).append([(entry(1), "a"), (entry(2), "b")], at=0.0)
    DeadLetters(path).append([(entry(3), "c")], at=0.0)

    assert [letter["reason"] for letter in lines(path)] == ["a", "b", "c"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_was_moved_away_is_begun_anew(path, entry):
    letters = DeadLetters(path)
    letters.append([(entry(1), "a")], at=0.0)
    path.rename(path.with_suffix(".1"))

    letters.append([(entry(2), "b")], at=0.0)

    assert [letter["reason"] for letter in lines(path)] == ["b"]


def test_half_a_line_does_not_take_the_next_one_with_it(path, entry):
    path.write_text('{"reason": "ha')

    DeadLetters(path).append([(entry(1), "whole")], at=0.0)

    assert json.loads(path.read_text().splitlines()[1])["reason"] == "whole"


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, StoreFull), (errno.EIO, StoreError)])
def test_a_disk_that_does_not_take_a_letter_takes_no_part_of_it(path, entry, monkeypatch, number, kind):
    letters = DeadLetters(path)
    letters.append([(entry(1), "a")], at=0.0)
    before = path.read_bytes()
    write = os.write

    def fail_in_the_middle(descriptor, text):
        if len(text) > 100:
            return write(descriptor, text[:100])
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "write", fail_in_the_middle)
    with pytest.raises(kind):
        letters.append([(entry(2), "b")], at=0.0)
    monkeypatch.undo()

    assert path.read_bytes() == before


def test_a_place_that_cannot_be_written_to_is_refused_at_once(tmp_path):
    with pytest.raises(ConfigError, match=r"none/dead\.jsonl: cannot be used: No such file"):
        DeadLetters(tmp_path / "none" / "dead.jsonl")


# Sifting.


class Sieve:
    """Takes all rows but the bad ones, and counts how often it was asked."""

    def __init__(self, bad):
        self.bad = set(bad)
        self.asked = 0
        self.taken = []

    def insert(self, rows):
        self.asked += 1
        if refused := self.bad & set(rows):
            raise DatabaseFailure(Failure.ROW, f"no {min(refused)}")
        self.taken += rows
        return len(rows)


def test_a_batch_without_fault_is_inserted_in_one_go():
    sieve = Sieve([])

    [settled] = sift(range(1000), sieve.insert)

    assert (list(settled.rows), settled.new, settled.reason) == (list(range(1000)), 1000, "")
    assert sieve.asked == 1


def test_an_empty_batch_asks_for_nothing():
    sieve = Sieve([])

    assert list(sift([], sieve.insert)) == []
    assert sieve.asked == 0


@pytest.mark.parametrize(
    "bad", [[0], [999], [500], [0, 999], list(range(0, 1000, 100)), list(range(1000)), [7, 8, 9]]
)
def test_good_rows_go_in_and_each_bad_one_is_told_with_its_reason(bad):
    sieve = Sieve(bad)

    settled = list(sift(range(1000), sieve.insert))

    assert sieve.taken == [row for row in range(1000) if row not in bad]
    assert [(list(each.rows), each.reason) for each in settled if each.reason] == [
        ([row], f"no {row}") for row in bad
    ]
    assert sorted(row for each in settled for row in each.rows) == list(range(1000))


def test_one_bad_row_costs_few_questions():
    sieve = Sieve([random.Random(1).randrange(1000)])

    list(sift(range(1000), sieve.insert))

    assert sieve.asked <= 21


def test_a_failure_that_is_not_about_rows_goes_on_and_leaves_the_rest():
    def insert(rows):
        if 3 in rows and len(rows) > 1:
            raise DatabaseFailure(Failure.ROW, "no")
        if 3 in rows:
            raise DatabaseFailure(Failure.TRANSIENT, "gone")
        return len(rows)

    told = sift(range(8), insert)

    assert [list(next(told).rows) for _ in range(2)] == [[0, 1], [2]]
    with pytest.raises(DatabaseFailure, match="gone"):
        next(told)


def test_rows_that_were_there_already_are_told():
    [settled] = sift([1, 2, 3], lambda rows: 1)

    assert settled.new == 1


def test_an_entry_is_a_row_like_any_other(entry):
    [settled] = sift([entry(1)], len)

    assert isinstance(settled.rows[0], Entry)
