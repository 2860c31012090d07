"""Control groups as far as they are directories; that the kernel keeps processes in them is for the tests with daemons."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from cyclone.process import control_group
from cyclone.process.control_group import ControlGroup


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hierarchy in which we are in the group `/user/shell`."""
    monkeypatch.setattr(control_group, "hierarchy", lambda: tmp_path)
    monkeypatch.setattr(control_group, "_group_of_ours", lambda: "/user/shell")
    (tmp_path / "user" / "shell").mkdir(parents=True)
    return tmp_path / "user" / "shell"


def test_a_group_is_made_below_the_one_that_we_are_in(ours: Path) -> None:
    group = ControlGroup.below_ours("cyclone-1")

    assert group is not None
    assert group.path == ours / "cyclone-1"
    assert group.path.is_dir()


def test_without_a_hierarchy_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_group, "hierarchy", lambda: None)

    assert ControlGroup.below_ours("cyclone-1") is None
    assert control_group.named("cyclone-1") == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_where_we_may_not_make_any_there_is_none(
    ours: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(_path: Path, **_: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(Path, "mkdir", refuse)

    assert ControlGroup.below_ours("cyclone-1") is None


def test_whatever_else_goes_wrong_is_told(ours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(_path: Path, **_: object) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(Path, "mkdir", break_down)

    with pytest.raises(OSError, match="broken"):
        ControlGroup.below_ours("cyclone-1")


def test_members_are_those_of_all_below(ours: Path) -> None:
    group = ControlGroup(ours)
    below = group.make("17")
    assert below is not None
    (ours / "cgroup.procs").write_text("1\n2\n")
    (below.path / "cgroup.procs").write_text("17\n18\n")

    assert group.members() == {1, 2, 17, 18}
    assert below.members() == {17, 18}


def test_one_that_is_gone_has_no_members(ours: Path) -> None:
    assert ControlGroup(ours / "gone").members() == set()


def test_it_is_found_by_its_name_wherever_it_is(ours: Path, tmp_path: Path) -> None:
    made = ControlGroup.below_ours("cyclone-1")
    (tmp_path / "elsewhere" / "cyclone-1").mkdir(parents=True)
    (tmp_path / "elsewhere" / "cyclone-2").mkdir()

    assert made is not None
    assert {group.path for group in control_group.named("cyclone-1")} == {
        made.path,
        tmp_path / "elsewhere" / "cyclone-1",
    }


def test_it_is_removed_with_all_below(ours: Path) -> None:
    group = ControlGroup.below_ours("cyclone-1")
    assert group is not None
    group.make("17")

    assert group.remove()
    assert not group.path.exists()
    assert group.remove()


def test_one_with_somebody_in_it_stays(ours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = ControlGroup.below_ours("cyclone-1")
    assert group is not None

    def refuse(_path: object) -> None:
        raise OSError(errno.EBUSY, "busy")

    monkeypatch.setattr(control_group.os, "rmdir", refuse)

    assert not group.remove()
    assert group.path.exists()


def test_nobody_enters_where_we_may_not_write(ours: Path) -> None:
    assert not ControlGroup(ours / "gone").enter()


def test_the_kernel_is_asked_to_kill_all_in_it(ours: Path) -> None:
    (ours / "cgroup.kill").touch()

    ControlGroup(ours).kill()

    assert (ours / "cgroup.kill").read_text() == "1"


def test_a_kernel_that_does_not_know_how_to_kill_a_group_is_not_taught(ours: Path) -> None:
    ControlGroup(ours).kill()

    assert list(ours.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENODEV, errno.EACCES, errno.EOPNOTSUPP])
def test_a_group_that_is_gone_or_not_ours_is_not_killed(
    ours: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(_fd: int, _content: bytes) -> None:
        raise OSError(number, "no")

    (ours / "cgroup.kill").touch()
    monkeypatch.setattr(os, "write", refuse)

    ControlGroup(ours).kill()


def test_that_a_group_cannot_be_killed_for_another_reason_is_told(
    ours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(_fd: int, _content: bytes) -> None:
        raise OSError(errno.EIO, "broken")

    (ours / "cgroup.kill").touch()
    monkeypatch.setattr(os, "write", break_down)

    with pytest.raises(OSError, match="broken"):
        ControlGroup(ours).kill()
