"""A disk that is really full: a small tmpfs in a mount namespace of its own, which a user namespace allows to anybody."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from acceptance.cluster import Cluster, Daemon, wait_for

from cyclone.errors import EXIT_OK

WORK = """
class Work(BaseTask):
    def __init__(self, tid):
        self.tid, self.ballast = tid, bytes(500)

    def execute(self):
        note("done", self.tid)
        time.sleep(0.01)

class Job(Telling):
    def generate(self):
        for number in range(600):
            yield Work(number)
"""

#: Mounts a disk of so many KiB on the directory, and becomes the program.
ON_SMALL_DISK = 'mount -t tmpfs -o size="$1"k none "$2" && shift 2 && exec "$@"'


def on_small_disk(kib: int, directory: Path, *command: str | Path) -> list[str]:
    words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", ON_SMALL_DISK, "sh", str(kib)]
    return [*words, str(directory), *map(str, command)]


def start_master_on_small_disk(cluster: Cluster, kib: int, settings: dict[str, str]) -> Daemon:
    disk = cluster.directory / "disk"
    disk.mkdir()
    program = Path(sys.executable).parent / "cyclone-master"
    words = " ".join(f"'{word}'" for word in on_small_disk(kib, disk, program))
    wrapper = cluster.write("master-on-small-disk", f'#!/bin/sh\nexec {words} "$@"\n')
    wrapper.chmod(0o755)
    cluster.configure_master({"store": {"path": "disk/store.db", **settings}})
    master = cluster._daemon("master", "master")
    master._program = wrapper
    master.start()
    cluster.wait_for_port(master)
    return master


def fill(master: Daemon, disk: Path) -> Path:
    """Take the last byte of the disk that only the master sees. Returns what has to be removed."""
    junk = Path(f"/proc/{master.pid}/root{disk}/junk")
    with open(junk, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
    return junk


def test_a_master_whose_disk_is_full_waits_and_goes_on_when_there_is_room(steady_cluster: Cluster) -> None:
    cluster = steady_cluster
    cluster.write_job(WORK)
    master = start_master_on_small_disk(cluster, 40_000, {})
    controller = cluster.start_controller()
    cluster.wait_for_notes("done", 20)

    junk = fill(master, cluster.directory / "disk")
    master.wait_for_log("trying again every second until there is room")
    assert master.is_alive
    junk.unlink()
    codes = master.wait(), controller.wait()

    assert codes == (EXIT_OK, EXIT_OK)
    assert Counter(one["tid"] for one in cluster.told()) == Counter(map(str, range(600)))
    assert set(cluster.notes("done")) == set(map(str, range(600)))


ENDLESS = """
class Look(BaseTask):
    def __init__(self, tid):
        self.tid, self.ballast = tid, bytes(15_000)

    def execute(self):
        note("done", self.tid)

class Job(Telling):
    remember_s = 2.0

    def run(self):
        number = 0
        while not self.stopping:
            for number in range(number, number + 40):
                self.submit(Look(number + 1))
            number += 1
            for result in self.results(timeout=0.05):
                self.on_result(result)
"""


def test_a_store_that_has_reached_its_bound_goes_on_with_the_room_of_what_is_forgotten(
    steady_cluster: Cluster,
) -> None:
    """It takes in many times as much as there is room for."""
    cluster = steady_cluster
    cluster.write_job(ENDLESS)
    store = {"path": "store.db", "max_bytes": 6_000_000, "keep_finished": "0.00001"}
    # What is open can never be forgotten, and has to fit.
    window = {"module": "jobs", "class": "Job", "window": 100}
    master = cluster.start_master({"store": store, "task_generator": window})
    cluster.start_controller()

    # 15 MB of payloads alone.
    cluster.wait_for_notes("done", 1000)
    assert "no new tasks are taken" in master.log
    assert "has room again" in master.log

    # What was taken when the bound was reached goes on: a window of tasks, and the pages that hold them.
    assert (cluster.directory / "store.db").stat().st_size <= 9_000_000
    master.signal(signal.SIGTERM)
    assert master.wait() == EXIT_OK


MAKE = """
import sys
from pathlib import Path
from cyclone.model.changes import JobOpened, TaskAccepted
from cyclone.model.task import Policy
from cyclone.store.sqlite import SqliteStore

def make(path):
    store = SqliteStore(path, "normal")
    list(store.wake().live)
    store.remember([JobOpened(1, "night")], {}, {})
    tasks = [TaskAccepted(number, 1, f"t{number}", Policy(), ()) for number in range(1, 1001)]
    store.remember(tasks, {(1, task.tid): bytes(2000) for task in tasks}, {})
    store.close()

def live(path):
    store = SqliteStore(path)
    found = len(list(store.wake().live))
    store.close()
    return found
"""

BACK_UP = """
from cyclone.errors import StoreFull
from cyclone.store import file
from cyclone.store.backup import back_up
make(sys.argv[1])
if sys.argv[3] == "late":
    file.room_bytes = lambda directory: 10**12
try:
    back_up(sys.argv[1], sys.argv[2] + "/copy")
except StoreFull as error:
    print(error)
print(sorted(each.name for each in Path(sys.argv[2]).iterdir()), live(sys.argv[1]))
"""

COMPACT = """
from cyclone.errors import StoreFull
from cyclone.store import file
from cyclone.store.compaction import compact
store = sys.argv[2] + "/store"
make(store)
room = file.room_bytes(Path(sys.argv[2]))
Path(sys.argv[2], "ballast").write_bytes(bytes(room - 1_000_000))
if sys.argv[3] == "late":
    file.room_bytes = lambda directory: 10**12
try:
    compact(store)
except StoreFull as error:
    print(error)
print(sorted(each.name for each in Path(sys.argv[2]).iterdir()), live(store))
"""


@pytest.mark.parametrize(
    ("when", "told"), [("early", "found room for"), ("late", "database or disk is full")]
)
def test_a_back_up_that_has_no_room_is_not_there_and_harms_nothing(
    tmp_path: Path, when: str, told: str
) -> None:
    (tmp_path / "disk").mkdir()

    # About two megabytes onto a disk of one.
    ended = subprocess.run(
        on_small_disk(
            1000, tmp_path / "disk", sys.executable, "-c", MAKE + BACK_UP, tmp_path / "store", tmp_path / "disk", when
        ),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert ended.returncode == EXIT_OK, ended.stderr
    first, last = ended.stdout.splitlines()
    assert told in first
    assert last == "[] 1000"


@pytest.mark.parametrize(
    ("when", "told"), [("early", "found room for"), ("late", "database or disk is full")]
)
def test_a_compaction_that_has_no_room_leaves_the_store_as_it_was(
    tmp_path: Path, when: str, told: str
) -> None:
    (tmp_path / "disk").mkdir()

    # About two megabytes, beside which one is left.
    ended = subprocess.run(
        on_small_disk(
            20_000, tmp_path / "disk", sys.executable, "-c", MAKE + COMPACT, "", tmp_path / "disk", when
        ),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert ended.returncode == EXIT_OK, ended.stderr
    first, last = ended.stdout.splitlines()
    assert told in first
    assert last == "['ballast', 'store', 'store.lock'] 1000"


def test_this_machine_can_make_small_disks(tmp_path: Path) -> None:
    """What all of the above stands on."""
    ended = subprocess.run(
        on_small_disk(500, tmp_path, "df", "--output=size", tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.stdout.split()[-1] == "500", ended.stderr
    assert wait_for("its end", lambda: not os.listdir(tmp_path)) is True
