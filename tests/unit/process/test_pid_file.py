import os
import re
import signal
import subprocess
import sys

import pytest
from kindergarten import until

from cyclone.errors import AlreadyRunning, ConfigError
from cyclone.process.pid_file import PidFile

HOLD = """
import signal, sys
from cyclone.process.pid_file import PidFile
PidFile(sys.argv[1]).acquire()
print("held", flush=True)
signal.pause()
"""

HOLD_AND_START = """
import signal, subprocess, sys
from cyclone.process.pid_file import PidFile
PidFile(sys.argv[1]).acquire()
print(subprocess.Popen(["sleep", "60"], close_fds=False, stdout=subprocess.DEVNULL).pid, flush=True)
signal.pause()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "daemon.pid"


def hold(path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    return holder


def bury(holder):
    holder.kill()
    holder.wait()
    holder.stdout.close()


def test_the_file_names_the_holder_and_the_time(path):
    with PidFile(path):
        text = path.read_text()

    assert re.fullmatch(rf"{os.getpid()};\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\n", text)


def test_the_file_is_removed_in_the_end(path):
    with PidFile(path):
        pass

    assert not path.exists()


@pytest.mark.parametrize(
    ("directory", "reason"), [("/proc", "takes no files"), ("/nowhere", "does not exist")]
)
def test_a_directory_that_takes_no_file_is_told_from_one_that_is_not_there(directory, reason):
    with pytest.raises(ConfigError, match=f"the directory '{directory}' {reason}"):
        PidFile(f"{directory}/daemon.pid").acquire()


def test_a_second_holder_is_refused_and_told_the_first(path):
    first = PidFile(path)
    first.acquire()

    with pytest.raises(AlreadyRunning) as refusal:
        PidFile(path).acquire()

    assert refusal.value.owner == path.read_text().strip()
    first.release()


def test_a_refused_holder_leaves_the_file_alone(path):
    with PidFile(path):
        second = PidFile(path)
        with pytest.raises(AlreadyRunning):
            second.acquire()

        second.release()

        assert path.exists()


def test_a_living_process_is_not_pushed_aside(path):
    holder = hold(path)

    with pytest.raises(AlreadyRunning) as refusal:
        PidFile(path).acquire()

    assert refusal.value.owner.startswith(f"{holder.pid};")
    bury(holder)


def test_the_file_of_a_dead_owner_is_taken_over(path):
    bury(hold(path))
    assert path.exists()

    with PidFile(path):
        assert path.read_text().startswith(f"{os.getpid()};")


@pytest.mark.parametrize("stale", ["", "1;2020-01-01 00:00:00\n" * 20, "\0\xff"])
def test_whatever_stands_in_it_is_replaced(path, stale):
    path.write_text(stale)

    with PidFile(path):
        assert path.read_text().count(";") == 1


def test_a_path_without_a_directory_is_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with PidFile("daemon.pid"):
        assert (tmp_path / "daemon.pid").exists()


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(ConfigError, match="nowhere' does not exist") as error:
        PidFile(tmp_path / "nowhere" / "daemon.pid").acquire()

    assert error.value.file == tmp_path / "nowhere" / "daemon.pid"


def test_a_directory_in_its_place_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="Is a directory"):
        PidFile(tmp_path).acquire()


def test_a_link_in_its_place_is_not_followed(tmp_path, path):
    target = tmp_path / "precious"
    target.write_text("precious")
    path.symlink_to(target)

    with pytest.raises(ConfigError, match="symbolic link"):
        PidFile(path).acquire()

    assert target.read_text() == "precious"


def test_a_pipe_in_its_place_is_refused(path):
    os.mkfifo(path)

    with pytest.raises(ConfigError, match="not a regular file"):
        PidFile(path).acquire()


def test_a_file_that_was_put_in_its_place_is_not_removed(path):
    held = PidFile(path)
    held.acquire()
    path.unlink()
    path.write_text("somebody else's")

    held.release()

    assert path.read_text() == "somebody else's"


def test_a_lock_on_a_file_that_was_removed_meanwhile_is_taken_again(path, monkeypatch):
    """Its former holder leaves between our opening and our locking."""
    opened = []
    open_once = PidFile._open

    def open_and_lose(self):
        fd = open_once(self)
        opened.append(fd)
        if len(opened) == 1:
            path.unlink()
        return fd

    monkeypatch.setattr(PidFile, "_open", open_and_lose)

    with PidFile(path):
        assert len(opened) == 2
        assert path.exists()


def test_a_program_that_the_holder_started_does_not_keep_the_lock(path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD_AND_START, str(path)], stdout=subprocess.PIPE, text=True
    )
    program = int(holder.stdout.readline())
    # It does not release it: the file stays, and with it the lock of whoever has inherited that.
    bury(holder)

    try:
        with PidFile(path):
            pass
    finally:
        os.kill(program, signal.SIGKILL)


def test_of_many_that_start_at_once_one_gets_it(path):
    many = [
        subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for _ in range(8)
    ]

    until(lambda: sum(one.poll() is None for one in many) == 1, "a single holder")

    holder = next(one for one in many if one.poll() is None)
    assert holder.stdout.readline() == "held\n"
    holder.send_signal(signal.SIGKILL)
    for one in many:
        bury(one)
