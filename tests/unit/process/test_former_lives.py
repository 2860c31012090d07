import os
import subprocess
import uuid

import pytest
from kindergarten import is_alive, until

from cyclone.errors import ConfigError
from cyclone.process.former_lives import carriers, forget_lives, group_name, sweep_former_lives


@pytest.fixture
def file(tmp_path):
    return tmp_path / "controller.pid.lives"


@pytest.fixture
def former():
    return uuid.uuid4().hex


@pytest.fixture
def leftover(former):
    child = subprocess.Popen(
        ["sleep", "600"], env={**os.environ, "CYCLONE_LIFE": former}, start_new_session=True
    )
    until(lambda: carriers(former) == {child.pid})
    yield child
    child.kill()
    child.wait()


def test_a_first_life_writes_itself_down(file):
    sweep_former_lives(file, "first")

    assert file.read_text() == "first\n"


def test_what_a_former_life_left_is_killed(file, former, leftover):
    sweep_former_lives(file, former)

    left = sweep_former_lives(file, "next")

    assert left == set()
    assert not is_alive(leftover.pid)
    assert file.read_text() == "next\n"


def test_what_root_has_started_is_found_also_when_it_has_become_somebody_else(file, former):
    nobody = 65534 if os.geteuid() == 0 else None
    child = subprocess.Popen(["sleep", "600"], env={**os.environ, "CYCLONE_LIFE": former}, user=nobody)
    until(lambda: carriers(former) == {child.pid})
    sweep_former_lives(file, former)

    left = sweep_former_lives(file, "next")

    assert left == set()
    assert not is_alive(child.pid)
    child.wait()


def test_the_kernel_is_asked_to_kill_whom_we_may_not(file, former, tmp_path, monkeypatch):
    """A program that a task has started with sudo has the control group of its worker, and no other sign."""
    monkeypatch.setattr("cyclone.process.control_group.hierarchy", lambda: tmp_path / "groups")
    group = tmp_path / "groups" / group_name(former)
    group.mkdir(parents=True)
    (group / "cgroup.kill").touch()
    sweep_former_lives(file, former)

    monkeypatch.setattr("cyclone.process.control_group.ControlGroup.remove", lambda _: True)
    sweep_former_lives(file, "next")

    assert (group / "cgroup.kill").read_text() == "1"


def test_what_carries_another_life_is_left_alone(file, leftover):
    sweep_former_lives(file, "another")

    sweep_former_lives(file, "next")

    assert is_alive(leftover.pid)


def test_a_life_that_could_not_be_ended_is_kept_for_the_next_time(file, former, monkeypatch):
    sweep_former_lives(file, former)
    monkeypatch.setattr("cyclone.process.former_lives.carriers", lambda life: {2**22 + 1})

    left = sweep_former_lives(file, "next", within_s=0.01)

    assert left == {2**22 + 1}
    assert file.read_text() == f"{former}\nnext\n"


@pytest.mark.parametrize("content", ["", "\n", "a b\n", "\0\0\0", "x" * 200, "\xff"])
def test_what_is_no_life_names_nobody(file, content):
    file.write_text(content, encoding="latin-1")

    assert sweep_former_lives(file, "next") == set()
    assert file.read_text() == "next\n"


def test_a_link_in_its_place_is_refused(file, tmp_path):
    file.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(ConfigError, match="cannot be read"):
        sweep_former_lives(file, "next")


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot be written"):
        sweep_former_lives(tmp_path / "nowhere" / "lives", "next")


def test_a_life_that_ends_in_order_leaves_no_file(file):
    sweep_former_lives(file, "only")

    forget_lives(file)

    assert not file.exists()


def test_lives_that_somebody_still_carries_are_not_forgotten(file, former, leftover):
    file.write_text(f"{former}\nthis\n")

    left = forget_lives(file)

    assert left == {leftover.pid}
    assert file.read_text() == f"{former}\n"


def test_forgetting_without_a_file_is_no_error(file):
    assert forget_lives(file) == set()
