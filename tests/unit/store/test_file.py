from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cyclone.errors import AlreadyRunning, ConfigError, StoreFull
from cyclone.store import file


@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_a_new_file_may_be_read_by_its_owner_alone_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    old = os.umask(umask)
    try:
        file.claim(tmp_path / "store").close()
    finally:
        os.umask(old)

    assert (tmp_path / "store").stat().st_mode & 0o777 == 0o600


def test_the_mode_of_an_old_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store"
    path.touch()
    path.chmod(0o640)

    file.claim(path).close()

    assert path.stat().st_mode & 0o777 == 0o640


def test_a_second_claim_is_refused_and_told_who_holds_the_first(tmp_path: Path) -> None:
    path = tmp_path / "store"

    with file.claim(path), pytest.raises(AlreadyRunning) as refused:
        file.claim(path)

    assert refused.value.owner.startswith(f"{os.getpid()};")
    assert str(path) in str(refused.value)


def test_a_claim_of_a_process_that_was_killed_is_over(tmp_path: Path) -> None:
    path = tmp_path / "store"
    script = (
        "import sys, os, signal; from pathlib import Path; from cyclone.store import file\n"
        "lock = file.claim(Path(sys.argv[1])); os.kill(os.getpid(), signal.SIGKILL)"
    )
    died = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert died.returncode == -9

    file.claim(path).close()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_lock_needs_no_room_for_the_name_of_its_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pwrite", refuse)

    with file.lock(tmp_path / "store"), pytest.raises(AlreadyRunning):
        file.lock(tmp_path / "store")


def test_a_lock_names_its_last_holder_and_nobody_before(tmp_path: Path) -> None:
    (tmp_path / "store.lock").write_text("7" * 90)

    with file.lock(tmp_path / "store"):
        text = (tmp_path / "store.lock").read_text()

    assert text.startswith(f"{os.getpid()};")
    assert text.endswith("\n")


def test_a_missing_directory_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none/store: cannot be used: No such file or directory; expected"):
        file.claim(tmp_path / "none" / "store")


def test_a_directory_that_everybody_can_write_to_is_refused_unless_it_is_sticky(tmp_path: Path) -> None:
    place = tmp_path / "a place"
    place.mkdir()
    place.chmod(0o777)

    with pytest.raises(ConfigError) as refused:
        file.claim(place / "store")

    problem = "found mode 0777: everybody can write to it; run: chmod o-w"
    assert str(refused.value) == f"{place}: {problem} '{place}'"
    assert list(place.iterdir()) == []
    for mode in (0o1777, 0o775):
        place.chmod(mode)
        file.claim(place / "store").close()


def test_a_directory_in_place_of_the_file_is_refused_and_leaves_no_claim(tmp_path: Path) -> None:
    path = tmp_path / "store"
    path.mkdir()
    for _ in range(2):
        with pytest.raises(ConfigError, match="Is a directory"):
            file.claim(path)


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.EACCES, ConfigError), (errno.EROFS, ConfigError), (errno.EDQUOT, StoreFull)]
)
def test_what_the_system_refuses_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)

    with pytest.raises(kind, match=os.strerror(number)):
        file.claim(tmp_path / "store")


def test_a_lock_that_cannot_be_written_is_let_go_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)

    with pytest.raises(ConfigError, match="No locks"):
        file.claim(tmp_path / "store")


@pytest.mark.parametrize(("kind", "name"), [(0x6969, "NFS"), (-0xACB2BE, "CIFS"), (0x0BD00BD0, "Lustre")])
def test_network_file_systems_are_known_whatever_the_sign_of_their_number(kind: int, name: str) -> None:
    assert file.network_name(kind) == name


def test_a_local_disk_is_no_network_file_system(tmp_path: Path) -> None:
    assert file.network_name(file.filesystem_kind(tmp_path)) is None


def test_a_store_on_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "filesystem_kind", lambda directory: 0x0BD00BD0)

    with pytest.raises(ConfigError, match="found a store on Lustre, expected one on a local disk"):
        file.claim(tmp_path / "store")

    assert list(tmp_path.iterdir()) == []


def test_the_file_system_of_a_missing_directory_cannot_be_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        file.filesystem_kind(tmp_path / "none")


def test_there_is_room_where_there_is_room(tmp_path: Path) -> None:
    assert file.has_room(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_there_is_no_room_when_disk_or_quota_is_used_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, "")

    monkeypatch.setattr(os, "write", refuse)

    assert not file.has_room(tmp_path)


def test_another_failure_to_write_is_not_a_lack_of_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EIO, "")

    monkeypatch.setattr(os, "write", refuse)

    with pytest.raises(OSError, match=str(errno.EIO)):
        file.has_room(tmp_path)


def test_a_link_of_somebody_else_is_not_followed_to_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "store"
    link.symlink_to(tmp_path / "elsewhere")
    theirs = os.stat_result((stat.S_IFLNK | 0o777, 1, 1, 1, 4242, 4242, 0, 0, 0, 0))
    monkeypatch.setattr(Path, "lstat", lambda _: theirs)

    with pytest.raises(ConfigError, match="symbolic link of somebody else"):
        file.resolved(link)
