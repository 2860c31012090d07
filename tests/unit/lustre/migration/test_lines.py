from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from cyclone.lustre.migration.lines import (
    PATH_BYTES_MAX,
    RECORD_BYTES_MAX,
    Rejected,
    Rules,
    read_record,
    read_records,
    trimmed,
)

RULES = Rules(b"/lustre")


@pytest.mark.parametrize(
    ("record", "entry"),
    [
        (b"3 /lustre/a", (3, b"/lustre/a")),
        (b"05 /lustre/a", (5, b"/lustre/a")),
        (b"65535 /lustre/a", (65535, b"/lustre/a")),
        (b"0 /lustre/a b  c ", (0, b"/lustre/a b  c ")),
        (b"1 /lustre/\xff\xfe|x", (1, b"/lustre/\xff\xfe|x")),
        (b"1 //lustre///a", (1, b"//lustre///a")),
        (b"1 /lustre/..a/b..", (1, b"/lustre/..a/b..")),
        (b"1 /lustre/new\nline", (1, b"/lustre/new\nline")),
        (b"1 /lustre/" + b"x" * (PATH_BYTES_MAX - 8), (1, b"/lustre/" + b"x" * (PATH_BYTES_MAX - 8))),
    ],
)
def test_an_entry_is_an_index_a_blank_and_a_path(record: bytes, entry: tuple[int, bytes]) -> None:
    assert RULES.parse(record) == entry


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"", "blank line"),
        (b" 3 /lustre/a", "does not begin"),
        (b"3  /lustre/a", "not below"),
        (b"3\t/lustre/a", "does not begin"),
        (b"-1 /lustre/a", "does not begin"),
        (b"0x3 /lustre/a", "does not begin"),
        (b"\xd9\xa3 /lustre/a", "does not begin"),
        (b"9" * 5000 + b" /lustre/a", "does not begin"),
        (b"65536 /lustre/a", "from 0 to 65535"),
        (b"3", "no path"),
        (b"3 ", "not below"),
        (b"3 /lustre", "not below"),
        (b"3 /lustre/", "not below"),
        (b"3 /lustre2/a", "not below"),
        (b"3 lustre/a", "not below"),
        (b"3 /other/a", "not below"),
        (b"3 /lustre/../etc/passwd", "holds .."),
        (b"3 /lustre//..//a", "holds .."),
        (b"3 /lustre/a/..", "holds .."),
        (b"3 /lustre/a\0b", "NUL"),
        (b"3 /lustre/" + b"x" * PATH_BYTES_MAX, "longer than"),
    ],
)
def test_anything_else_is_rejected_with_a_reason(record: bytes, reason: str) -> None:
    with pytest.raises(Rejected, match=reason) as caught:
        RULES.parse(record)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("root", [b"/lustre", b"/lustre/", b"//lustre//"])
def test_the_root_may_be_written_in_any_way(root: bytes) -> None:
    assert Rules(root).parse(b"1 /lustre/a") == (1, b"/lustre/a")


def test_what_means_something_in_a_pattern_means_nothing_in_the_root() -> None:
    with pytest.raises(Rejected):
        Rules(b"/l.stre").parse(b"1 /lustre/a")


def test_everything_is_below_the_root_of_all() -> None:
    assert Rules(b"/").parse(b"1 /a") == (1, b"/a")


@pytest.mark.parametrize(
    ("content", "records"),
    [
        (b"", []),
        (b"a\nbb\n", [(0, b"a"), (2, b"bb")]),
        (b"a\n\nb", [(0, b"a"), (2, b""), (3, b"b")]),
        (b"\n", [(0, b"")]),
    ],
)
def test_records_are_told_with_their_offsets(content: bytes, records: list[tuple[int, bytes]]) -> None:
    assert list(read_records(io.BytesIO(content), b"\n")) == records


def test_a_record_without_end_does_not_fill_the_memory_and_the_next_ones_are_right() -> None:
    long = b"1 /lustre/" + b"x" * (3 * 2**20)
    content = b"first\n" + long + b"\nlast\n"

    found = list(read_records(io.BytesIO(content), b"\n"))

    assert [(offset, len(record)) for offset, record in found] == [
        (0, 5), (6, RECORD_BYTES_MAX), (6 + len(long) + 1, 4),
    ]  # fmt: skip


@pytest.mark.parametrize("length", [0, 1, 511, 512, 513, 5000, RECORD_BYTES_MAX])
def test_a_record_can_be_read_by_its_offset(tmp_path: Path, length: int) -> None:
    file = tmp_path / "list"
    file.write_bytes(b"before\n" + b"x" * length + b"\nafter\n")

    with open(file, "rb") as stream:
        record = read_record(stream.fileno(), 7, b"\n")

    assert record == b"x" * length


def test_a_record_behind_the_end_is_empty(tmp_path: Path) -> None:
    file = tmp_path / "list"
    file.write_bytes(b"short")
    descriptor = os.open(file, os.O_RDONLY)

    record = read_record(descriptor, 1000, b"\n")
    os.close(descriptor)

    assert record == b""


def test_a_carriage_return_belongs_to_the_end_of_a_line_and_to_a_name_elsewhere() -> None:
    assert trimmed(b"1 /lustre/a\r", b"\n") == b"1 /lustre/a"
    assert trimmed(b"1 /lustre/a\r", b"\0") == b"1 /lustre/a\r"
