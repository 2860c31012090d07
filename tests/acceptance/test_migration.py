"""Files move between the OSTs of a simulated Lustre: real daemons, real programs, real kills."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from acceptance.cluster import Cluster, Daemon, ini, wait_for
from simulated_lustre import SimulatedLustre, simulated_lustre

from cyclone.errors import EXIT_OK

SOURCES, TARGETS = range(4), range(4, 8)

TASKS = """<tasks>
    <task name="Migrate">
        <class module="task.lustre_ost_migrate_task" name="LustreOstMigrateTask"/>
        <property>
            <filename/><source_ost/><target_ost/>
            <direct_io>False</direct_io><block>{block}</block><skip>True</skip><verify>checksum</verify>
            <lfs_bin>{sim.bin}/lfs</lfs_bin>
        </property>
    </task>
</tasks>"""

MIGRATION = {
    "input_dir": "input",
    "ost_fill_level_threshold_source": 5,
    "ost_fill_level_threshold_target": 95,
    "ost_targets": "4-7",
    "settle_time": 0,
    "retry_delay": 1,
    "keep_journal": "on",
    "stop_when_done": "on",
    "report_file": "report.json",
}


@pytest.fixture
def sim(tmp_path_factory: pytest.TempPathFactory) -> SimulatedLustre:
    return simulated_lustre(tmp_path_factory.mktemp("lustre"), osts=8, oss=4)


def populate(cluster: Cluster, sim: SimulatedLustre, files: int, *more: str) -> Path:
    """Files on the sources, and lists of them. Returns the directory of the lists."""
    lists = cluster.directory / "input"
    lists.mkdir(exist_ok=True)
    sim.simctl(
        "populate",
        "--files",
        str(files),
        "--osts",
        "0-3",
        "--sizes",
        "fixed:2048",
        "--lists",
        lists,
        "--list-per-ost",
        *more,
    )
    return lists


def start(
    cluster: Cluster,
    sim: SimulatedLustre,
    *,
    workers: int = 4,
    controllers: int = 1,
    block: str = "no",
    **migration: object,
) -> Daemon:
    """A master that migrates, and controllers. Returns the master."""
    cluster.write("tasks.xml", TASKS.format(sim=sim, block=block))
    settings = {
        "control.threshold": {"update_fill_level": 1, "reload_files": 1, "print_caches": 1},
        "task": {"task_file": "tasks.xml", "task_name": "Migrate"},
        "migration": {**MIGRATION, **migration},
        "lustre": {"fs_path": sim.mount, "lfs_bin": sim.bin / "lfs"},
    }
    cluster.write("migration.conf", ini(settings))
    generator = {
        "module": "task.generator.lustre_ost_migration_task_generator",
        "class": "LustreOstMigrationTaskGenerator",
        "config_file": "migration.conf",
    }
    master = cluster.start_master({"task_generator": generator})
    for number in range(controllers):
        cluster.start_controller(f"controller{number}", workers)
    return master


def report(cluster: Cluster) -> dict[str, dict[str, dict[str, int]]]:
    found: dict[str, dict[str, dict[str, int]]] = json.loads((cluster.directory / "report.json").read_text())
    return found


def finals(lists: Path) -> Counter[tuple[str, str]]:
    """`{(list, number of the entry): how many results}`, as the journals that were kept tell it."""
    return Counter(
        (audit.name, line.split()[1])
        for audit in lists.glob("*.audit")
        for line in audit.read_text().splitlines()
        if line.startswith("= ")
    )


def states(lists: Path) -> Counter[str]:
    return Counter(
        line.split()[3]
        for audit in lists.glob("*.audit")
        for line in audit.read_text().splitlines()
        if line.startswith("= ")
    )


def assert_all_is_well(sim: SimulatedLustre, lists: Path, files: int) -> None:
    verdict = sim.verify()
    assert verdict["problems"] == []
    assert (verdict["changed"], verdict["deleted"]) == (0, 0)
    assert len(finals(lists)) == files
    assert set(finals(lists).values()) == {1}
    assert {file.suffix for file in lists.iterdir()} <= {".done", ".audit", ".rejected"}


def command(cluster: Cluster, *arguments: str) -> str:
    done = subprocess.run(
        [Path(sys.executable).parent / "cyclone", "migration", *arguments, "-f", cluster.directory / "master.conf"],
        cwd=cluster.directory, env=cluster.environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == EXIT_OK, done
    return done.stdout


def most(sim: SimulatedLustre) -> dict[str, int]:
    """The high-water mark of each scope."""
    return {scope: max(marks.values()) for scope, marks in sim.marks().items() if marks}


def test_all_files_of_all_lists_arrive_and_no_limit_is_exceeded(
    cluster: Cluster, sim: SimulatedLustre
) -> None:
    lists = populate(cluster, sim, 120)
    sim.setting("time_scale", 1000)

    master = start(cluster, sim, workers=8, source_max_tasks=2, target_max_tasks=3, pair_max_tasks=1)

    assert master.wait(120) == EXIT_OK, master.log
    assert_all_is_well(sim, lists, 120)
    assert states(lists) == {"SUCCESS": 120}
    assert most(sim)["source"] <= 2
    assert most(sim)["target"] <= 3
    assert most(sim)["pair"] == 1
    assert all(sim.objects_on(ost) == 0 for ost in SOURCES)
    assert sum(sim.objects_on(ost) for ost in TARGETS) == 120


def test_the_limit_of_a_server_is_kept(cluster: Cluster, sim: SimulatedLustre) -> None:
    lists = populate(cluster, sim, 40)
    sim.setting("time_scale", 1000)

    master = start(
        cluster, sim, workers=8, source_max_tasks=4, target_max_tasks=4, pair_max_tasks=0, oss_max_tasks=2,
        oss_map=write_oss_map(cluster, sim),
    )  # fmt: skip

    assert master.wait(120) == EXIT_OK, master.log
    assert_all_is_well(sim, lists, 40)
    assert 1 <= most(sim)["oss"] <= 2


def write_oss_map(cluster: Cluster, sim: SimulatedLustre) -> Path:
    description = json.loads((sim.root / "sim.json").read_text())
    by_server: dict[str, list[str]] = {}
    for ost in description["filesystems"][0]["osts"]:
        by_server.setdefault(ost["oss"], []).append(str(ost["index"]))
    text = "".join(f"{server} {','.join(osts)}\n" for server, osts in by_server.items())
    return cluster.write("oss.map", text)


def test_whatever_is_killed_no_entry_is_lost_and_none_is_reported_twice(
    steady_cluster: Cluster, sim: SimulatedLustre
) -> None:
    cluster, files, chance = steady_cluster, 300, random.Random(7)
    lists = populate(cluster, sim, files)
    sim.setting("time_scale", 2000)
    master = start(cluster, sim, controllers=2, source_max_tasks=2, target_max_tasks=2)
    controllers = [daemon for daemon in cluster.daemons if daemon is not master]

    kills = 0
    deadline = time.monotonic() + 240
    while master.is_alive and time.monotonic() < deadline:
        time.sleep(chance.uniform(0.3, 1.5))
        if kills >= 12:
            continue
        kills += 1
        victim = chance.choice(["master", "controller", "generator", "worker", "lfs"])
        if victim == "master":
            if master.is_alive:
                master.restart()
        elif victim == "controller":
            daemon = chance.choice(controllers)
            if daemon.is_alive:
                daemon.kill()
            daemon.start()
        elif victim == "generator":
            kill_one(cluster, "cyclone.daemons.generator_host", chance)
        elif victim == "worker":
            kill_one(cluster, "cyclone-worker", chance)
        else:
            kill_one(cluster, "migrate", chance)
        if not master.is_alive and not all_done(lists):
            master.wait()
            master.start()

    assert not master.is_alive, master.log[-3000:]
    assert kills >= 5
    assert_all_is_well(sim, lists, files)
    assert set(states(lists)) <= {"SUCCESS", "IGNORED"}
    assert all(sim.objects_on(ost) == 0 for ost in SOURCES)
    assert most(sim)["source"] <= 2
    assert most(sim)["target"] <= 2
    assert most(sim)["pair"] <= 1


def kill_one(cluster: Cluster, kind: str, chance: random.Random) -> None:
    pids = cluster.pids(kind)
    if pids:
        try:
            os.kill(chance.choice(pids), signal.SIGKILL)
        except ProcessLookupError:
            return


def all_done(lists: Path) -> bool:
    return not any(file.name.endswith((".input", ".active")) for file in lists.iterdir())


def test_a_file_that_is_written_to_is_busy_and_moves_when_it_is_fed_back(
    cluster: Cluster, sim: SimulatedLustre
) -> None:
    lists = populate(cluster, sim, 12)
    lines = "".join(file.read_text() for file in sorted(lists.glob("*.input"))).splitlines()
    source, path = lines[0].split(" ", 1)
    with open(path, "r+b"):
        start(cluster, sim, retry_max=1, stop_when_done="off")
        wait_for("the list of busy files", lambda: list(lists.glob("*.busy")))
        wait_for("all lists to be done", lambda: all_done(lists))
        (busy,) = lists.glob("*.busy")
        assert busy.read_text() == f"{source} {path}\n"
    status = json.loads(command(cluster, "status", "--json"))
    assert status["results"]["BUSY"] == {"EBUSY": 1}

    made = json.loads(command(cluster, "retry-busy", "--json"))["lists"]
    wait_for("it to be done", lambda: (lists / f"{made[0]}.done").exists())
    command(cluster, "stop")

    assert cluster.daemons[0].wait() == EXIT_OK
    assert sim.osts_of(Path(path))[0] in TARGETS
    assert states(lists) == {"SUCCESS": 12, "BUSY": 1}
    assert list(lists.glob("*.busy")) == []


def test_corrupted_data_ends_everything(cluster: Cluster, sim: SimulatedLustre) -> None:
    lists = populate(cluster, sim, 60)
    sim.fault(cmd="migrate", source=2, corrupt=True, count=1)

    master = start(cluster, sim)

    assert master.wait(60) not in (EXIT_OK, None)
    assert re.search(r"no more tasks are started .*because: verify: /", master.log), master.log[-2000:]
    failed = "".join(file.read_text() for file in lists.glob("*.failed"))
    assert failed.count("\n") == 1
    assert failed.startswith("2 ")
    assert any(file.name.endswith(".active") for file in lists.iterdir())


def test_targets_that_take_nothing_are_left_alone_and_the_files_go_elsewhere(
    cluster: Cluster, sim: SimulatedLustre
) -> None:
    lists = populate(cluster, sim, 40)
    sim.ost(5, state="readonly")
    sim.fault(cmd="migrate", target=6, errno="ENOSPC", count=2)

    master = start(cluster, sim)

    assert master.wait(120) == EXIT_OK, master.log
    assert_all_is_well(sim, lists, 40)
    assert states(lists) == {"SUCCESS": 40}
    assert sim.objects_on(5) == 0
    assert "locked ost=5 role=target reason=takes nothing: read-only" in master.log


def test_hard_links_stay_and_the_file_moves_once(cluster: Cluster, sim: SimulatedLustre) -> None:
    lists = cluster.directory / "input"
    lists.mkdir()
    lines = []
    for number in range(6):
        file = sim.file(f"f{number}", 100, "-i", "0", "-c", "1")
        link = sim.mount / f"link{number}"
        os.link(file, link)
        lines += [f"0 {file}", f"0 {link}"]
    (lists / "a.input").write_text("".join(f"{line}\n" for line in lines))

    master = start(cluster, sim, block="yes", source_max_tasks=4, target_max_tasks=4)

    assert master.wait(60) == EXIT_OK, master.log
    assert states(lists) == {"SUCCESS": 6, "IGNORED": 6}
    assert most(sim)["all"] == 1
    for number in range(6):
        assert os.path.samefile(sim.mount / f"f{number}", sim.mount / f"link{number}")
        assert sim.osts_of(sim.mount / f"f{number}")[0] in TARGETS


def test_a_dry_run_moves_nothing_and_tells_bytes(cluster: Cluster, sim: SimulatedLustre) -> None:
    lists = populate(cluster, sim, 20)
    before = {file.name: file.read_bytes() for file in lists.iterdir()}

    master = start(cluster, sim, dry_run="on")

    assert master.wait(60) == EXIT_OK, master.log
    assert {file.name: file.read_bytes() for file in lists.iterdir()} == before
    assert report(cluster)["results"] == {"SKIPPED": {"dry-run": 20}}
    assert report(cluster)["bytes"] == {"SKIPPED": 20 * 2048}
    assert all(call["argv"][:1] != ["migrate"] for call in sim.calls())


def test_what_it_was_told_while_it_runs_counts(cluster: Cluster, sim: SimulatedLustre) -> None:
    lists = populate(cluster, sim, 60)
    sim.setting("time_scale", 300)
    master = start(cluster, sim, ost_exclude="4-6")

    wait_for("the first files", lambda: json.loads(command(cluster, "status", "--json"))["files"] >= 3)
    command(cluster, "pause")
    wait_for("nothing in flight", lambda: not json.loads(command(cluster, "status", "--json"))["in_flight"])
    paused = json.loads(command(cluster, "status", "--json"))
    assert {sim_ost for sim_ost in TARGETS if sim.objects_on(sim_ost)} == {7}
    command(cluster, "include", "4-6")
    command(cluster, "limits", "target_max_tasks=2", "source_max_tasks=2")
    sim.setting("time_scale", 0)
    command(cluster, "resume")

    assert master.wait(120) == EXIT_OK, master.log
    assert paused["state"] == "drained"
    assert_all_is_well(sim, lists, 60)
    assert all(sim.objects_on(ost) for ost in TARGETS)


def test_lists_that_a_walk_has_found_can_be_migrated(cluster: Cluster, sim: SimulatedLustre) -> None:
    populate(cluster, sim, 12, "--lists", str(cluster.directory / "other"))
    expected = {
        line for file in (cluster.directory / "other").iterdir() for line in file.read_bytes().splitlines()
    }
    lists = cluster.directory / "walked"
    lists.mkdir()

    done = subprocess.run(
        [
            Path(sys.executable).parent / "cyclone", "make-input", "--from-find", sim.mount, "--osts", "0-3",
            "--lfs", sim.bin / "lfs", "--shuffle", "--split", "2", "--name", "found", "--output", lists,
        ],
        cwd=cluster.directory, env=cluster.environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == EXIT_OK, done
    found = {line for file in lists.iterdir() for line in file.read_bytes().split(b"\0")[:-1]}
    master = start(cluster, sim, input_dir=lists)

    assert found == expected
    assert master.wait(60) == EXIT_OK, master.log
    assert {file.name for file in lists.glob("*.done")} == {"found-1.input0.done", "found-2.input0.done"}
    assert_all_is_well(sim, lists, 12)
