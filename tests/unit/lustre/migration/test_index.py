from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from cyclone.lustre.migration.index import Cancelled, Unreadable, index
from cyclone.lustre.migration.lines import Rules, read_record
from cyclone.lustre.migration.names import ListFiles

RULES = Rules(b"/lustre")


def a_list(directory: Path, content: bytes, name: str = "a.input") -> ListFiles:
    file = directory / name
    file.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return ListFiles(file)


def entries(files: ListFiles) -> dict[int, list[tuple[int, bytes]]]:
    """`{OST: [(number, record)]}` as the index tells it."""
    found = index(files, RULES)
    with open(found.content, "rb") as stream:
        return {
            ost: [
                (number, read_record(stream.fileno(), offset, files.separator))
                for number, offset in found.take(ost, 10**6)
            ]
            for ost in sorted(found.lengths())
        }


def test_entries_are_found_by_ost_in_their_order(tmp_path: Path) -> None:
    files = a_list(tmp_path, b"3 /lustre/a\n5 /lustre/b\n3 /lustre/c\n")

    assert entries(files) == {3: [(0, b"3 /lustre/a"), (2, b"3 /lustre/c")], 5: [(1, b"5 /lustre/b")]}


@pytest.mark.parametrize("name", ["a.input0", "a.input0.gz"])
def test_names_may_hold_newlines_where_records_end_with_a_nul(tmp_path: Path, name: str) -> None:
    files = a_list(tmp_path, b"3 /lustre/a\nb\x005 /lustre/c\r\x00", name)

    assert entries(files) == {3: [(0, b"3 /lustre/a\nb")], 5: [(1, b"5 /lustre/c\r")]}


def test_a_packed_list_is_unpacked_beside_it(tmp_path: Path) -> None:
    files = a_list(tmp_path, b"3 /lustre/a\n" * 1000, "a.input.gz")

    assert len(entries(files)[3]) == 1000
    assert files.plain.read_bytes() == b"3 /lustre/a\n" * 1000


@pytest.mark.parametrize("cut", [5, 20, -1])
def test_a_packed_list_that_is_cut_short_cannot_be_read(tmp_path: Path, cut: int) -> None:
    files = a_list(tmp_path, b"3 /lustre/a\n" * 1000, "a.input.gz")
    files.base.write_bytes(files.base.read_bytes()[:cut])

    with pytest.raises(Unreadable):
        index(files, RULES)

    assert sorted(os.listdir(tmp_path)) == ["a.input.gz"]


def test_what_is_not_packed_but_called_so_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.input.gz").write_bytes(b"3 /lustre/a\n")

    with pytest.raises(Unreadable, match=r"a\.input\.gz"):
        index(ListFiles(tmp_path / "a.input.gz"), RULES)


def test_records_that_are_no_entries_are_written_down_with_the_reason(tmp_path: Path) -> None:
    files = a_list(tmp_path, b"3 /lustre/a\nx\n\n4 /elsewhere/\xff\n5 /lustre/b\n")

    found = index(files, RULES)

    assert (found.entries, found.rejected, found.records) == (2, 3, 5)
    assert files.draft.read_bytes() == (
        b"2\tdoes not begin with the index of an OST\tx\n"
        b"3\tblank line\t\n"
        b"4\tthe path is not below the file system\t4 /elsewhere/\xff\n"
    )


def test_a_rejected_record_with_newlines_is_one_line(tmp_path: Path) -> None:
    files = a_list(tmp_path, b"3 /elsewhere/a\nb\0", "a.input0")

    index(files, RULES)

    assert files.draft.read_bytes() == b"1\tthe path is not below the file system\t3 /elsewhere/a\\nb\n"


def test_carriage_returns_are_noticed_and_are_no_part_of_the_paths(tmp_path: Path) -> None:
    files = a_list(tmp_path, b"3 /lustre/a\r\n4 /lustre/b\n")

    found = index(files, RULES)

    assert found.carriage_returns
    assert (found.entries, found.rejected) == (2, 0)


@pytest.mark.parametrize("content", [b"", b"\n", b"rubbish", b"3 /lustre/a"])
def test_a_list_may_hold_anything(tmp_path: Path, content: bytes) -> None:
    found = index(a_list(tmp_path, content), RULES)

    assert found.records == content.count(b"\n") + (not content.endswith(b"\n") and bool(content))


def test_an_index_is_taken_as_it_is_when_the_list_is_the_same(tmp_path: Path) -> None:
    files = a_list(tmp_path, b"3 /lustre/a\n")
    index(files, RULES)
    before = files.index.stat().st_ino

    again = index(files, RULES)

    assert files.index.stat().st_ino == before
    assert again.take(3, 9) == [(0, 0)]


@pytest.mark.parametrize("damage", ["cut", "empty", "garbage", "foreign", "missing"])
def test_an_index_that_is_damaged_or_of_something_else_is_made_anew(tmp_path: Path, damage: str) -> None:
    files = a_list(tmp_path, b"3 /lustre/a\n")
    index(files, RULES)
    content = files.index.read_bytes()
    if damage == "cut":
        files.index.write_bytes(content[:-5])
    elif damage == "empty":
        files.index.write_bytes(b"")
    elif damage == "garbage":
        files.index.write_bytes(b"\xff" * 20 + content[-34:])
    elif damage == "foreign":
        files.base.write_bytes(b"3 /lustre/a\n4 /lustre/b\n")
    else:
        files.index.unlink()

    found = index(files, RULES)

    assert found.take(3, 9) == [(0, 0)]
    assert found.entries == (2 if damage == "foreign" else 1)


def test_other_rules_make_another_index(tmp_path: Path) -> None:
    files = a_list(tmp_path, b"3 /lustre/a\n")
    index(files, RULES)

    found = index(files, Rules(b"/other"))

    assert (found.entries, found.rejected) == (0, 1)


def test_it_ends_when_nobody_wants_it_any_more(tmp_path: Path) -> None:
    files = a_list(tmp_path, b"3 /lustre/a\n")

    with pytest.raises(Cancelled):
        index(files, RULES, is_wanted=lambda: False)

    assert sorted(os.listdir(tmp_path)) == ["a.input"]


def test_a_list_that_is_not_there_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        index(ListFiles(tmp_path / "a.input"), RULES)
