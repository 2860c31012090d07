"""Whatever is killed, and whenever: a file has been moved or it has not, and the counters say the same."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from simulated_lustre import REPOSITORY, SimulatedLustre, simulated_lustre

from simlustre.errors import Refusal
from simlustre.files import contact, intend
from simlustre.recovery import recover
from simlustre.state import State


@pytest.fixture
def sim(tmp_path: Path) -> SimulatedLustre:
    return simulated_lustre(tmp_path)


def test_fifty_killed_migrations_leave_no_file_half_moved(tmp_path: Path) -> None:
    sim = simulated_lustre(tmp_path, settings={"time_scale": 1.0}, mbps=1.0)
    sim.simctl("populate", "--files", "50", "--sizes", "fixed:10000", "--kinds", "plain:3,striped,composite")
    paths = sorted(sim.mount.rglob("*-0*"))
    random = Random(1)

    def kill_at_random(path: Path, after_s: float) -> int:
        process = sim.start("lfs", "migrate", "-n", "-c", "1", "-o", "5", path)
        timer = threading.Timer(after_s, process.send_signal, [signal.SIGKILL])
        timer.start()
        process.communicate(timeout=60)
        timer.join()
        return process.returncode

    with ThreadPoolExecutor(4) as pool:
        codes = list(pool.map(kill_at_random, paths, [random.uniform(0.0, 0.12) for _ in paths]))

    assert -9 in codes
    result = sim.verify()
    assert result["problems"] == []
    assert result["in_flight"] == 0
    for path, code in zip(paths, codes, strict=True):
        assert code in (0, -9)
        if code == 0:
            assert sim.osts_of(path) == [5]


DYING = """
import os, sys
sys.path[:0] = [sys.argv[1]]
from simlustre import files, install
from simlustre.layout import ATTRIBUTE, Layout, Wish

state = install.open_state(sys.argv[2])
fs, path = state.filesystems()[0], sys.argv[3]
with state.writing():
    layout = files.contact(state, fs, path)
    new = Layout(layout.fid, files.plan([Wish(osts=[4])], False), generation=layout.generation + 1)
    new.size = layout.size
    files.initialise(state, fs, new)
    files.intend(state, fs, path, new.fid)
if sys.argv[4] == "True":
    files.write_attribute(state, path, ATTRIBUTE, new.to_text())
os.kill(os.getpid(), 9)
"""


def _leave_an_intent(sim: SimulatedLustre, path: Path, swap: bool) -> None:
    """Do what a migration to OST 4 does, up to its death just before or just after the layout changed."""
    command = [sys.executable, "-c", DYING, REPOSITORY, sim.root, path, str(swap)]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("renamed", [False, True])
def test_a_death_before_and_after_the_swap_is_made_good(
    swap: bool, renamed: bool, sim: SimulatedLustre
) -> None:
    path = sim.file("f", 100, "-i", "1")
    sim.said("getstripe", path)
    _leave_an_intent(sim, path, swap)
    if renamed:
        path = path.rename(sim.mount / "elsewhere")

    with closing(sim.state()) as state:
        assert recover(state) == 1

    assert sim.verify()["clean"]
    assert sim.osts_of(path) == ([4] if swap else [1])
    assert sim.bytes_on(4) == (100 if swap else 0)


def test_an_intent_for_a_file_that_is_gone_is_dropped(sim: SimulatedLustre) -> None:
    path = sim.file("f", 100, "-i", "1")
    sim.said("getstripe", path)
    _leave_an_intent(sim, path, swap=True)
    path.unlink()

    with closing(sim.state()) as state:
        assert recover(state) == 1
        assert recover(state) == 0

    assert sim.verify()["clean"]
    assert sim.rescan() == {"files": 0, "deleted": 1}
    assert sim.bytes_on(1) == sim.bytes_on(4) == 0


def test_a_living_migration_is_left_alone(sim: SimulatedLustre) -> None:
    path = sim.file("f", 100, "-i", "1")
    with closing(sim.state()) as state:
        layout = contact(state, state.filesystems()[0], str(path))
        with state.writing():
            intend(state, state.filesystems()[0], str(path), layout.fid)

        assert recover(state) == 0


def _fail_halfway(state: State) -> None:
    with state.writing():
        state.next_number("fid")
        raise Refusal(errno.EIO)


def test_a_failed_transaction_leaves_nothing(sim: SimulatedLustre) -> None:
    with closing(sim.state()) as state:
        with pytest.raises(Refusal):
            _fail_halfway(state)
        with state.writing():
            number = state.next_number("fid")

    assert number == 1
