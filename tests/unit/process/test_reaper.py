"""What a reaper does to one worker. How it lives and dies with its controller is told in `test_nursery.py`."""

import os
import signal
import socket
import subprocess
import uuid

import pytest
from kindergarten import until

from cyclone.process import control_group, lineage
from cyclone.process import reaper as reaper_module
from cyclone.process.former_lives import LIFE_VARIABLE, group_name
from cyclone.process.reaper import Reaper, Worker


class Stage:
    """A reaper that is not served, with one worker, and control groups that are mere directories."""

    def __init__(self, groups):
        self.link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.reaper = Reaper(theirs.detach(), lambda *_: None)
        self.child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        self.reaper._workers[1] = Worker(self.child.pid)
        self.group = groups / group_name(os.environ[LIFE_VARIABLE]) / str(self.child.pid)
        self.group.mkdir()
        (self.group / "cgroup.kill").touch()

    def close(self):
        self.child.kill()
        self.child.wait()
        for end in (self.link, self.reaper._link, self.reaper._posted, self.reaper._post, self.reaper._timer):
            end.close()


@pytest.fixture
def stage(tmp_path, monkeypatch):
    monkeypatch.setattr(control_group, "hierarchy", lambda: tmp_path)
    monkeypatch.setattr(control_group, "_group_of_ours", lambda: "/")
    monkeypatch.setattr(control_group.ControlGroup, "remove", lambda _: True)
    monkeypatch.setenv(LIFE_VARIABLE, uuid.uuid4().hex)
    stage = Stage(tmp_path)
    yield stage
    stage.close()


def test_who_has_become_another_user_is_killed_with_the_worker(stage):
    """We may not send him a signal; the kernel may."""
    stage.reaper._kill(1, signal.SIGKILL)

    assert (stage.group / "cgroup.kill").read_text() == "1"


def test_who_has_become_another_user_is_killed_after_the_death_of_the_worker(stage):
    stage.child.kill()
    until(lineage.find_dead)

    stage.reaper._bury()

    assert (stage.group / "cgroup.kill").read_text() == "1"


def test_the_pid_of_a_dead_worker_is_nobody_elses_while_its_family_is_looked_for(stage, monkeypatch):
    seen = []

    def slay(find):
        os.kill(stage.child.pid, 0)  # raises if there were nobody of that number
        seen.append(find())

    monkeypatch.setattr(reaper_module, "slay", slay)
    stage.child.kill()
    until(lineage.find_dead)

    stage.reaper._bury()

    assert seen == [set()]
    assert lineage.find_dead() is None
