import os
import stat

import pytest

from cyclone.process.replace import replace_content


@pytest.fixture
def file(tmp_path):
    return tmp_path / "file"


def test_what_is_not_there_is_made(file):
    replace_content(file, b"new")

    assert file.read_bytes() == b"new"


def test_what_was_there_is_gone(file):
    file.write_bytes(b"a long former content")

    replace_content(file, b"new")

    assert file.read_bytes() == b"new"
    assert os.listdir(file.parent) == ["file"]


def test_what_a_killed_writer_left_is_in_nobodys_way(file):
    file.with_name("file.new").write_bytes(b"half of")

    replace_content(file, b"new")

    assert file.read_bytes() == b"new"
    assert os.listdir(file.parent) == ["file"]


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_the_mode_is_that_of_the_caller(file, mode):
    file.write_bytes(b"")
    file.chmod(0o666)

    replace_content(file, b"new", mode=mode)

    assert stat.S_IMODE(file.stat().st_mode) == mode


@pytest.mark.parametrize("name", ["file", "file.new"])
def test_a_link_in_its_place_is_replaced_and_not_followed(file, tmp_path, name):
    (tmp_path / "elsewhere").write_bytes(b"precious")
    (tmp_path / name).symlink_to(tmp_path / "elsewhere")

    replace_content(file, b"new")

    assert not file.is_symlink()
    assert (tmp_path / "elsewhere").read_bytes() == b"precious"


def test_a_full_disk_leaves_what_was_there(file, monkeypatch):
    file.write_bytes(b"old")

    def refuse(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)

    with pytest.raises(OSError, match="No space"):
        replace_content(file, b"new")

    assert file.read_bytes() == b"old"
    assert os.listdir(file.parent) == ["file"]


def test_the_content_is_on_disk_before_it_has_the_name(file, monkeypatch):
    synced = []
    really = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(file.exists()), really(fd)))

    replace_content(file, b"new")

    assert synced == [False, True]


def test_a_missing_directory_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        replace_content(tmp_path / "nowhere" / "file", b"new")
