from __future__ import annotations

import os
from pathlib import Path

import pytest

from cyclone.lustre.migration.journal import (
    Bits,
    Final,
    Flight,
    Head,
    Journal,
    JournalDamaged,
    Past,
    Retry,
    flights_of,
    read_head,
    read_lines,
)
from cyclone.lustre.migration.verdict import FileState

HEAD = Head("0123456789ab", ".2")
PATH = b"/lustre/a name\nof two lines"


def final(number: int, state: FileState = FileState.SUCCESS, reason: str = "") -> Final:
    return Final(number, 3, state, 4096, 12, number * 10, reason)


def written(file: Path) -> Journal:
    """A journal with a bit of everything in it, of a list of ten records."""
    journal = Journal.create(file, HEAD)
    journal.started(0, Flight(0, 0, 10, 3, PATH))
    journal.started(1, Flight(10, 0, 11, 3, PATH))
    journal.final(final(0))
    journal.retried(1, 1)
    journal.started(1, Flight(10, 1, 12, 3, PATH))
    journal.started(2, Flight(20, 0, 13, 3, PATH))
    journal.final(final(2, FileState.BUSY, "EBUSY"))
    journal.started(4, Flight(40, 2, 13, 3, PATH))
    journal.retried(4, 1)
    journal.final(final(3, FileState.FAILED, "it said:\nno  \t way"))
    journal.fed_back(FileState.BUSY)
    journal.flush()
    return journal


def past_of(file: Path, records: int = 10) -> tuple[Past, list[object]]:
    """What it tells, and what it told on the way."""
    past, told = Past(records), []  # type: ignore[var-annotated]
    for line in read_lines(file):
        past.add(line, told.append, told.append)
    return past, told


def test_it_tells_what_was_noted(tmp_path: Path) -> None:
    written(tmp_path / "journal").close()

    past, told = past_of(tmp_path / "journal")

    assert flights_of(tmp_path / "journal") == past.flights
    assert read_head(tmp_path / "journal") == HEAD
    assert past.flights == {1: Flight(offset=10, tries=1, target=12, source=3, path=PATH)}
    assert past.retries == {1: Retry(tries=1, billed=1), 4: Retry(tries=3, billed=1)}
    assert past.results == {FileState.SUCCESS: 1, FileState.BUSY: 1, FileState.FAILED: 1}
    assert past.sizes[FileState.SUCCESS] == 4096
    assert past.ended == {3: 3}
    assert (past.finals.count, past.nonsense) == (3, 0)
    assert [number for number in range(10) if number in past.finals] == [0, 2, 3]
    assert told == [
        final(0), final(2, FileState.BUSY, "EBUSY"), final(3, FileState.FAILED, "it said: no way"), FileState.BUSY,
    ]  # fmt: skip


def test_the_first_result_of_an_entry_counts(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "journal", HEAD)
    journal.final(final(1))
    journal.final(final(1, FileState.FAILED))
    journal.started(1, Flight(10, 1, 10, 3, PATH))
    journal.flush()
    journal.close()

    past, told = past_of(tmp_path / "journal")

    assert told == [final(1)]
    assert past.flights == {}


def test_cut_at_any_byte_it_tells_the_lines_that_are_whole_and_can_be_gone_on_with(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    written(whole).close()
    content = whole.read_bytes()
    first = content.index(b"\n") + 1

    for length in range(first, len(content) + 1):
        cut = tmp_path / "cut"
        cut.write_bytes(content[:length])
        journal = Journal.resume(cut)
        journal.final(final(9))
        journal.flush()
        journal.close()

        lines = content[:length].rpartition(b"\n")[0].split(b"\n")[1:]
        past, _ = past_of(cut)
        assert past.nonsense == 0
        assert 9 in past.finals
        assert past.finals.count == 1 + sum(line.startswith(b"=") for line in lines)


@pytest.mark.parametrize(
    "line",
    [
        b"", b"?", b"= 1", b"> 1 2 3", b"> 1 2 3 4 5", b"> 1 2 3 4 x /", b"= 1 3 WHAT 0 - 0 ", b"= -1 3 SUCCESS 0 - 0 ",
        b"= 10 3 SUCCESS 0 - 0 ", b"= 1 65536 SUCCESS 0 - 0 ", b"= 1 3 SUCCESS 0 x 0 ", b"! SUCCESS", b"! BUSY x",
        b"< ", b"< 1", b"> 99 0 0 0 3 /", b"\0" * 30, b"\xff\xff", b"> 1 0 0 70000 3 /", b"= " + b"9" * 30 + b" 3 SUCCESS 0 - 0 ",
    ],
)  # fmt: skip
def test_a_line_that_makes_no_sense_is_counted_and_left_out(tmp_path: Path, line: bytes) -> None:
    journal = written(tmp_path / "journal")
    journal.close()
    with open(tmp_path / "journal", "ab") as file:
        file.write(line + b"\n")

    past, _ = past_of(tmp_path / "journal")

    assert past.nonsense == 1
    assert past.finals.count == 3


def test_a_very_long_line_is_left_out(tmp_path: Path) -> None:
    written(tmp_path / "journal").close()
    with open(tmp_path / "journal", "ab") as file:
        file.write(b"\0" * 100_000)

    past, _ = past_of(tmp_path / "journal")

    assert past.finals.count == 3
    Journal.resume(tmp_path / "journal").close()
    assert (tmp_path / "journal").stat().st_size < 1000


@pytest.mark.parametrize(
    "first", [b"", b"{}\n", b'{"id": "x", "suffix": ""}\n', b"= 1\n", b'{"id": "0123456789ab"']
)
def test_a_first_line_that_cannot_be_read_is_told(tmp_path: Path, first: bytes) -> None:
    (tmp_path / "journal").write_bytes(first)

    with pytest.raises(JournalDamaged, match="first line"):
        read_head(tmp_path / "journal")


def test_a_suffix_cannot_lead_anywhere_else(tmp_path: Path) -> None:
    (tmp_path / "journal").write_bytes(b'{"id": "0123456789ab", "suffix": "/../../etc/x", "format": 1}\n')

    with pytest.raises(JournalDamaged):
        read_head(tmp_path / "journal")


def test_a_new_journal_takes_the_place_of_an_old_one(tmp_path: Path) -> None:
    written(tmp_path / "journal").close()

    Journal.create(tmp_path / "journal", Head("ffffffffffff", "")).close()

    assert (tmp_path / "journal").read_bytes().count(b"\n") == 1


def test_what_was_noted_is_with_the_kernel_after_a_flush(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "journal", HEAD)
    journal.final(final(1))
    before = (tmp_path / "journal").stat().st_size

    journal.flush()
    after = (tmp_path / "journal").stat().st_size
    journal.close()

    assert after > before


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    journal = Journal(tmp_path / "journal", descriptor)
    journal.final(final(1))

    with pytest.raises(OSError, match="No space"):
        journal.flush()
    journal.close()


def test_bits_remember_each_number_once() -> None:
    bits = Bits(20)

    assert [bits.add(number) for number in (0, 7, 8, 19, 7)] == [True, True, True, True, False]
    assert [number for number in range(20) if number in bits] == [0, 7, 8, 19]
    assert bits.count == 4
