from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyclone.errors import TaskError
from cyclone.tasks.checksum import ChecksumTask, escaped, path_tid

names = st.binary(min_size=1, max_size=20).filter(lambda name: b"\0" not in name)


def test_it_returns_the_sha256_of_the_content(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 3_000_000)

    checksum = ChecksumTask(file).execute()

    assert checksum == hashlib.sha256(b"x" * 3_000_000).hexdigest()


@pytest.mark.parametrize("name", [b"new\nline", b"back\\slash", b"not \xff utf-8", b"\xc3\xa9", b" "])
def test_any_name_survives_the_journey(tmp_path: Path, name: bytes) -> None:
    file = os.path.join(os.fsencode(tmp_path), name)
    with open(file, "wb") as stream:
        stream.write(b"abc")

    arrived = pickle.loads(pickle.dumps(ChecksumTask(os.fsdecode(file))))

    assert arrived.path == file
    assert arrived.execute() == hashlib.sha256(b"abc").hexdigest()


@given(names, names)
def test_different_names_have_different_tids_of_valid_text(one: bytes, other: bytes) -> None:
    tids = [path_tid(one), path_tid(other)]

    assert (tids[0] == tids[1]) == (one == other)
    assert all(tid.encode("utf-8") for tid in tids)


@given(names)
def test_an_escaped_name_is_on_one_line(name: bytes) -> None:
    assert b"\n" not in escaped(name)
    assert b"\r" not in escaped(name)


def test_a_byte_that_is_not_utf8_is_not_taken_for_its_spelling() -> None:
    assert path_tid(b"\xff") != path_tid(rb"\xff")


def test_a_name_too_long_for_a_tid_is_hashed() -> None:
    long = b"\xff" * 4000

    task = ChecksumTask(long)

    assert task.tid == "\\#" + hashlib.sha256(long).hexdigest()


def test_a_missing_file_is_an_error_without_a_traceback(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="No such file or directory"):
        ChecksumTask(tmp_path / "none").execute()


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(TaskError, match="not a plain file"):
        ChecksumTask(tmp_path / "pipe").execute()


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="directory"):
        ChecksumTask(tmp_path).execute()
