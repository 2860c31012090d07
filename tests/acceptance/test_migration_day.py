"""A migration from end to end on the simulated Lustre, while files are busy, OSTs fail, and daemons are killed.

With CYCLONE_MIGRATION_FILES=20000 it is as large as a day's work on a small site; as it stands it takes some seconds.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from acceptance.cluster import TESTS, Cluster, wait_for

from cyclone.errors import EXIT_OK

FILES = int(os.environ.get("CYCLONE_MIGRATION_FILES", "400"))
#: Under load a call of lfs takes 40 ms, and a file takes three.
WITHIN_S = 120 + FILES / 5

SOURCES, TARGETS = range(16), range(16, 24)
DOWN, FILLING = 17, 18
LIMITS = {"source": 2, "target": 3, "pair": 1, "oss": 6}

TASKS = """<tasks>
  <task name="Migrate">
    <class module="cyclone.lustre.migrate_task" name="LustreOstMigrateTask"/>
    <property>
      <filename/><source_ost/><target_ost/>
      <direct_io>off</direct_io><block>off</block><skip>on</skip>
      <lfs_bin>{lfs}</lfs_bin>
    </property>
  </task>
</tasks>
"""


class Lustre:
    """A simulated one below a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.mount = root / "mnt" / "lustre"
        program = TESTS.parent / "simlustre" / "simlustre.py"
        self._call(
            sys.executable, program, "init", root, "--osts", "24", "--oss", "6", "--mdts", "2", "--fill", "20..30",
            "--time-scale", "1000", "--seed", "5",
        )  # fmt: skip

    def simctl(self, *arguments: object) -> str:
        return self._call(self.root / "bin" / "simctl", *arguments)

    def files_on(self, ost: int) -> set[bytes]:
        found = subprocess.run(
            [self.root / "bin" / "lfs", "find", self.mount, "--ost", str(ost), "-type", "f"],
            capture_output=True, check=True,
        )  # fmt: skip
        return set(found.stdout.splitlines())

    def _call(self, *command: object) -> str:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done
        return done.stdout


def prepared(cluster: Cluster) -> Lustre:
    lustre = Lustre(cluster.directory / "sim")
    (cluster.directory / "input").mkdir()
    lustre.simctl("fill", "0-15", "80%")
    lustre.simctl(
        "populate",
        "--files",
        FILES,
        "--osts",
        "0-15",
        "--lists",
        cluster.directory / "input",
        "--list-per-ost",
    )
    lustre.simctl("fault", "add", json.dumps({"cmd": "migrate", "probability": 0.02, "errno": "EBUSY"}))
    cluster.write("tasks.xml", TASKS.format(lfs=lustre.root / "bin" / "lfs"))
    cluster.write(
        "migration.conf",
        f"""
[control.threshold]
update_fill_level = 1
reload_files = 1
print_caches = 5

[task]
task_file = tasks.xml
task_name = Migrate

[migration]
input_dir = input
ost_fill_level_threshold_source = 10
ost_fill_level_threshold_target = 90
ost_targets = 16-23
source_max_tasks = {LIMITS["source"]}
target_max_tasks = {LIMITS["target"]}
pair_max_tasks = {LIMITS["pair"]}
oss_max_tasks = {LIMITS["oss"]}
oss_map = oss.map
settle_time = 0
retry_delay = 1
retry_max = 8
verify = checksum
stop_when_done = on
report_file = report.json

[lustre]
fs_path = {lustre.mount}
lfs_bin = {lustre.root / "bin" / "lfs"}
""",
    )
    servers: dict[str, list[int]] = {}
    for ost in json.loads((lustre.root / "sim.json").read_text())["filesystems"][0]["osts"]:
        servers.setdefault(ost["oss"], []).append(ost["index"])
    lines = [f"{oss} {','.join(map(str, osts))}" for oss, osts in servers.items()]
    cluster.write("oss.map", "\n".join(lines) + "\n")
    return lustre


def final_results(cluster: Cluster) -> int:
    """Entries with a final result: those that a journal has, and all of a list that is done."""
    lists = cluster.directory / "input"
    journals = sum(file.read_bytes().count(b"\n= ") for file in lists.glob("*.journal"))
    return journals + sum(file.read_bytes().count(b"\n") for file in lists.glob("*.done"))


def has_come_to(cluster: Cluster, share: float) -> bool:
    return final_results(cluster) >= share * FILES


def leftovers(cluster: Cluster) -> set[bytes]:
    """The files that stand in a list of what could not be moved."""
    return {
        line.split(b" ", 1)[1]
        for ending in ("busy", "failed")
        for file in (cluster.directory / "input").glob(f"*.input*.{ending}")
        for line in file.read_bytes().splitlines()
    }


def test_every_file_is_moved_or_told_of_though_osts_fail_and_daemons_are_killed(cluster: Cluster) -> None:
    lustre = prepared(cluster)
    everything = {path for ost in SOURCES for path in lustre.files_on(ost)}
    assert len(everything) == FILES
    settings = {
        "task_generator": {
            "module": "cyclone.lustre.migration.generator",
            "class": "LustreOstMigrationTaskGenerator",
            "config_file": "migration.conf",
            "job": "migration",
        }
    }
    master = cluster.start_master(settings)
    controllers = [cluster.start_controller(f"controller-{number}", workers=8) for number in (1, 2)]

    # What an ordinary day brings.
    chance = random.Random(11)
    for share, what in (
        (0.1, lambda: lustre.simctl("ost", DOWN, "--state", "down")),
        (0.2, lambda: controllers[0].restart()),
        (0.4, lambda: lustre.simctl("fill", FILLING, "95%")),
        (0.5, lambda: master.restart()),
        (0.7, lambda: controllers[1].restart()),
    ):
        wait_for(f"{share:.0%} of the files", partial(has_come_to, cluster, share), WITHIN_S)
        time.sleep(chance.uniform(0, 0.3))
        what()
    assert master.wait(WITHIN_S) == EXIT_OK

    verdict = json.loads(lustre.simctl("verify", "--json"))
    assert verdict["clean"], verdict
    on_targets = {path for ost in TARGETS for path in lustre.files_on(ost)}
    left = leftovers(cluster)
    assert everything - on_targets - left == set()
    assert len(left) < 0.05 * FILES
    assert not list((cluster.directory / "input").glob("*.active"))
    assert_no_limit_was_exceeded(json.loads(lustre.simctl("marks", "--json"))["lustre"])


def assert_no_limit_was_exceeded(marks: dict[str, Any]) -> None:
    """marks: how many migrations there were at most at the same time, counted by the simulation itself."""
    for scope, most in LIMITS.items():
        exceeded = {name: mark for name, mark in marks[scope].items() if mark > most}
        assert exceeded == {}, f"{scope}: {exceeded}, {most} are allowed"
