from __future__ import annotations

import argparse
import errno
import gzip
import io
import os
import stat
import sys
from pathlib import Path

import pytest

from cyclone.cli import make_input
from cyclone.errors import EXIT_OK, EXIT_TASK_FAILED, ConfigError
from cyclone.lustre.migration.names import waiting_lists

LFS = """#!/bin/sh
echo "$@" >> "$0.calls"
case "$*" in
    *"--ost 3 "*) printf '/lustre/a\\0/lustre/new\\nline\\0' ;;
    *"--ost 5 "*) printf '/lustre/b\\0' ;;
    *) echo "it broke" >&2; exit 5 ;;
esac
"""


@pytest.fixture
def output(tmp_path: Path) -> Path:
    directory = tmp_path / "input"
    directory.mkdir()
    return directory


@pytest.fixture
def lfs(tmp_path: Path) -> Path:
    program = tmp_path / "lfs"
    program.write_text(LFS)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def run(output: Path, *arguments: object) -> int:
    parser = argparse.ArgumentParser()
    make_input.add_arguments(parser)
    given = [*map(str, arguments), "--output", str(output), "--name", "made"]
    return make_input.run(parser.parse_args(given))


def report(tmp_path: Path, *lines: str) -> Path:
    file = tmp_path / "report.csv"
    file.write_bytes("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))
    return file


def lines_of(output: Path, name: str = "made.input") -> list[bytes]:
    content = (output / name).read_bytes()
    return content.split(b"\0" if name.endswith("0") else b"\n")[:-1]


# Walks.


def test_a_walk_is_taken_for_each_ost(output: Path, lfs: Path) -> None:
    code = run(output, "--from-find", "/lustre", "--osts", "3,5", "--lfs", lfs)

    assert code == EXIT_OK
    assert lines_of(output, "made.input0") == [b"3 /lustre/a", b"3 /lustre/new\nline", b"5 /lustre/b"]
    assert Path(f"{lfs}.calls").read_text().splitlines() == [
        "find /lustre -type f --ost 3 --print0", "find /lustre -type f --ost 5 --print0",
    ]  # fmt: skip


def test_a_walk_that_breaks_is_told_and_the_others_count(
    output: Path, lfs: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = run(output, "--from-find", "/lustre", "--osts", "5,7", "--lfs", lfs)

    assert code == EXIT_TASK_FAILED
    assert lines_of(output, "made.input0") == [b"5 /lustre/b"]
    assert "not complete: lfs find --ost 7 ended with 5" in capfd.readouterr().err


def test_without_osts_there_is_nothing_to_walk_for(output: Path) -> None:
    with pytest.raises(ConfigError, match="needs --osts"):
        run(output, "--from-find", "/lustre")


def test_without_lfs_there_is_no_walk(output: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be executed"):
        run(output, "--from-find", "/lustre", "--osts", "3", "--lfs", "/no/such/lfs")

    assert os.listdir(output) == []


# Robinhood.

HEADER = "type, size, path, stripe_cnt, stripe_size, pool, stripes, data_on_ost{}"


@pytest.mark.parametrize(
    ("lines", "arguments", "expected"),
    [
        # With a header, as it is by default, and columns behind the path.
        (
            [HEADER.format(3), "file, 10, /lustre/a, b, 1, 1048576, hdd, ost#3: 77, yes", "Total: 1 entries, 10 bytes (10)"],
            (), [b"3 /lustre/a, b"],
        ),
        # Striped over several OSTs, of which some are asked for.
        (
            [HEADER.format("[3,5]"), "file, 10, /lustre/a, 2, 1048576, , ost#3: 77,ost#9: 78, yes"],
            ("--osts", "3,5"), [b"3 /lustre/a"],
        ),
        # A stripe without data.
        ([HEADER.format(3), "file, 10, /lustre/a, 2, 1048576, , ost#3: 77, no"], (), []),
        # Without a header, path last.
        (["file, 10, root, hdd, ost#3: 77, yes, /lustre/a b"], (), [b"3 /lustre/a b"]),
        # Without stripes: the OST that was asked for.
        (["      file,  10, root, /lustre/a"], ("--osts", "3"), [b"3 /lustre/a"]),
        ([HEADER.format(12), "file, 10, /lustre/a"], (), [b"12 /lustre/a"]),
        # What has no data on an OST.
        (["dir, 4096, /lustre/d, , , , , ", "symlink, 3, /lustre/l"], ("--osts", "3"), []),
        (["file, 10, /lustre/\udcff, 1, 1048576, hdd, ost#3: 1, yes\r"], (), [b"3 /lustre/\xff"]),
    ],
)  # fmt: skip
def test_a_report_of_robinhood_becomes_a_list(
    tmp_path: Path, output: Path, lines: list[str], arguments: tuple[str, ...], expected: list[bytes]
) -> None:
    code = run(output, "--from-robinhood", report(tmp_path, *lines), *arguments)

    assert code == EXIT_OK
    assert (lines_of(output) if expected else os.listdir(output)) == expected


def test_a_report_may_come_from_standard_input(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"file, 10, /lustre/a\n")))

    assert run(output, "--from-robinhood", "--osts", "3") == EXIT_OK
    assert lines_of(output) == [b"3 /lustre/a"]


@pytest.mark.parametrize("line", ["rubbish", "file, 10, lustre/a", "file, 10, /lustre/a"])
def test_lines_that_make_no_sense_are_counted_and_told(
    tmp_path: Path, output: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(output, "--from-robinhood", report(tmp_path, line, line, "file, 1, /x, 1, 1, , ost#4: 1, yes"))

    assert code == EXIT_TASK_FAILED
    assert f"2 lines make no sense, such as {line}" in capsys.readouterr().err
    assert lines_of(output) == [b"4 /x"]


# Other lists.


def test_lists_can_be_made_of_lists(tmp_path: Path, output: Path) -> None:
    (tmp_path / "a.input").write_bytes(b"3 /lustre/a\r\n4 /lustre/b\n")
    (tmp_path / "b.input.gz").write_bytes(gzip.compress(b"3 /lustre/c\n"))

    code = run(output, "--osts", "3", "--from-lists", tmp_path / "a.input", tmp_path / "b.input.gz")

    assert code == EXIT_OK
    assert lines_of(output) == [b"3 /lustre/a", b"3 /lustre/c"]


def test_a_name_with_a_newline_stays_in_lists_that_can_hold_it(tmp_path: Path, output: Path) -> None:
    (tmp_path / "a.input0").write_bytes(b"3 /lustre/new\nline\0")

    run(output, "--from-lists", tmp_path / "a.input0")

    assert lines_of(output, "made.input0") == [b"3 /lustre/new\nline"]


@pytest.mark.parametrize("name", ["a.input0.busy", "a.input0.gz.failed.2", "a.input0.active"])
def test_lists_of_records_that_end_with_a_nul_are_known_by_whatever_name(
    tmp_path: Path, output: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(b"3 /lustre/a\x003 /lustre/b\0")

    run(output, "--from-lists", tmp_path / name)

    assert lines_of(output, "made.input0") == [b"3 /lustre/a", b"3 /lustre/b"]


@pytest.mark.parametrize(
    ("name", "is_packed"),
    [
        ("a.input.done.10", False), ("a.input.gz.done", True), ("a.input.gz.done.2", True), ("a.input.gz.busy", False),
        ("a.input.gz.active", True), ("somewhere.gz", True), ("list0", False),
    ],
)  # fmt: skip
def test_lists_of_lines_are_known_by_whatever_name(
    tmp_path: Path, output: Path, name: str, is_packed: bool
) -> None:
    content = b"3 /lustre/a\n3 /lustre/b\n"
    (tmp_path / name).write_bytes(gzip.compress(content) if is_packed else content)

    assert run(output, "--from-lists", tmp_path / name) == EXIT_OK

    assert lines_of(output) == [b"3 /lustre/a", b"3 /lustre/b"]


def test_a_packed_list_that_is_damaged_is_told(tmp_path: Path, output: Path) -> None:
    packed = bytearray(gzip.compress(os.urandom(5000).hex().encode()))
    packed[60:120] = b"\xff" * 60
    (tmp_path / "a.input.gz").write_bytes(packed)

    with pytest.raises(ConfigError, match="cannot be read"):
        run(output, "--from-lists", tmp_path / "a.input.gz")


def test_lists_for_which_there_is_no_room_are_told(
    tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "a.input").write_bytes(b"3 /lustre/a\n")
    monkeypatch.setattr(make_input, "_write", full)

    with pytest.raises(ConfigError, match="No space left"):
        run(output, "--from-lists", tmp_path / "a.input")


def test_a_list_that_cannot_be_read_is_told_and_none_is_made(tmp_path: Path, output: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        run(output, "--from-lists", tmp_path / "missing.input")

    assert os.listdir(output) == []


# What is made of them.


def many(tmp_path: Path, count: int) -> Path:
    file = tmp_path / "many.input"
    file.write_bytes(b"".join(b"%d /lustre/%d\n" % (number % 7, number) for number in range(count)))
    return file


def test_shuffled_it_holds_the_same_in_another_order_which_a_seed_repeats(
    tmp_path: Path, output: Path
) -> None:
    source = many(tmp_path, 5000)
    orders = []
    for seed in (1, 1, 2):
        run(output, "--shuffle", "--seed", seed, "--from-lists", source)
        orders.append(lines_of(output))
        (output / "made.input").unlink()

    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(source.read_bytes().splitlines())
    assert orders[0] != source.read_bytes().splitlines()


def test_split_it_becomes_lists_of_the_same_length(tmp_path: Path, output: Path) -> None:
    source = many(tmp_path, 10)

    run(output, "--split", 3, "--from-lists", source)

    lists = [lines_of(output, file.name) for file in waiting_lists(output)[0]]
    assert [len(lines) for lines in lists] == [4, 3, 3]
    assert sorted(line for lines in lists for line in lines) == sorted(source.read_bytes().splitlines())


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ((), "abc"),
        (("--min-size", "15"), "bc"),
        (("--max-size", "0.02k"), "ab"),
        (("--min-size", "15", "--max-size", "25"), "b"),
    ],
)
def test_only_files_of_the_wanted_sizes_are_in_the_list(
    tmp_path: Path, output: Path, arguments: tuple[str, ...], names: str
) -> None:
    for name, size in (("a", 10), ("b", 20), ("c", 30)):
        (tmp_path / name).write_bytes(b"x" * size)
    (tmp_path / "x.input").write_text("".join(f"3 {tmp_path / name}\n" for name in "abc"))

    run(output, *arguments, "--from-lists", tmp_path / "x.input")

    assert [Path(os.fsdecode(line)).name for line in lines_of(output)] == list(names)


def test_sizes_of_a_report_are_believed(tmp_path: Path, output: Path) -> None:
    source = report(tmp_path, "file, 10, /lustre/a", "file, 20, /lustre/b")

    run(output, "--min-size", 15, "--osts", 3, "--from-robinhood", source)

    assert lines_of(output) == [b"3 /lustre/b"]


@pytest.mark.parametrize("left", ["made.input", "made.input.active", "made.input.done"])
def test_no_list_takes_the_name_of_another(tmp_path: Path, output: Path, left: str) -> None:
    (output / left).touch()

    with pytest.raises(ConfigError, match="another --name"):
        run(output, "--from-lists", many(tmp_path, 3))

    assert os.listdir(output) == [left]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--split", "0"),
        ("--split", "x"),
        ("--osts", "x"),
        ("--osts", "70000"),
        ("--min-size", "-1"),
        ("--name", "a/b"),
        (),
    ],
)
def test_wrong_arguments_are_a_wrong_usage(tmp_path: Path, output: Path, arguments: tuple[str, ...]) -> None:
    source = ("--from-lists", many(tmp_path, 3)) if arguments else ()

    with pytest.raises(SystemExit) as caught:
        run(output, *arguments, *source)

    assert caught.value.code == 2


def test_there_must_be_a_directory_for_the_lists(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a directory"):
        run(tmp_path / "missing", "--from-lists", many(tmp_path, 3))
