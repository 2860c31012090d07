"""Whoever is killed, nothing of what it has started is left, however hard that tries to stay."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from acceptance.cluster import Cluster, Daemon, wait_for

from cyclone.process import control_group
from cyclone.process.former_lives import group_name

#: Programs that do not want to end. Each is to be known by its last word, for some clear their environment.
FAMILY = r"""
def have_children(mark):
    sleep = f"exec -a {mark} sleep 86400"
    ways = {
        "plain": sleep,
        "deaf": f"trap '' TERM INT HUP; {sleep}",
        "session": f"setsid bash -c '{sleep}' & sleep 0.1",
        "daemon": f"setsid bash -c \"setsid bash -c '{sleep}' & exit\" & exit",
        "nameless": f"env -i setsid bash -c '{sleep}' & exit",
        "fertile": f"while true; do setsid bash -c '{sleep}' & sleep 1; done",
    }
    for way in ways.values():
        subprocess.Popen(["bash", "-c", way])

class Family(BaseTask):
    retry = Retry(crashes=1000, losses=1000)

    def __init__(self, mark):
        self.mark = mark

    def execute(self):
        have_children(self.mark + "-task")
        note("begun", str(os.getpid()))
        time.sleep(86400)

class Job(Telling):
    def run(self):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        mark = self.config["job"]["mark"]
        have_children(mark + "-generator")
        self.submit(Family(mark))
        for _ in self.results():
            pass
"""

#: At least so many sleepers of each: one of each way, and of the fertile one more every second.
WAYS = 6


def sleepers(mark: str) -> list[int]:
    """The pids of all who carry this mark as their name, whatever else they have cast off."""
    found = []
    for process in filter(str.isdecimal, os.listdir("/proc")):
        try:
            words = Path("/proc", process, "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if any(mark.encode() in word for word in words):
            found.append(int(process))
    return found


@pytest.fixture
def mark(tmp_path: Path) -> str:
    return f"cyclone-orphan-{os.getpid()}-{tmp_path.name}"


@pytest.fixture
def family(cluster: Cluster, mark: str) -> Iterator[tuple[Daemon, Daemon]]:
    """A master and a controller, with families below generator and worker."""
    cluster.write_job(FAMILY)
    cluster.write("job.conf", f"[job]\nmark = {mark}\n")
    master = cluster.start_master({"task_generator": {"config_file": "job.conf"}})
    controller = cluster.start_controller(workers=1)
    cluster.wait_for_notes("begun", 1)
    for who in ("task", "generator"):
        wait_for(f"the family of the {who}", lambda who=who: len(sleepers(f"{mark}-{who}")) >= WAYS)
    yield master, controller
    # Without a master it would keep what it has to tell for as long as it may.
    controller.kill()
    for pid in sleepers(mark):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def may_make_groups(mark: str) -> bool:
    group = control_group.ControlGroup.below_ours(mark)
    return group is not None and group.remove()


def below_task(mark: str) -> str:
    return f"{mark}-task"


def below_generator(mark: str) -> str:
    return f"{mark}-generator"


def test_of_a_controller_that_is_killed(family: tuple[Daemon, Daemon], mark: str) -> None:
    _, controller = family

    controller.kill()

    wait_for("the end of all below the controller", lambda: not sleepers(below_task(mark)))


def test_of_a_reaper_that_is_killed(cluster: Cluster, family: tuple[Daemon, Daemon], mark: str) -> None:
    former = set(sleepers(below_task(mark)))
    [reaper] = cluster.pids("cyclone-reaper")

    os.kill(reaper, signal.SIGKILL)

    wait_for("the end of all below the reaper", lambda: not former & set(sleepers(below_task(mark))))
    cluster.wait_for_notes("begun", 2)


def test_of_a_worker_that_is_killed(cluster: Cluster, family: tuple[Daemon, Daemon], mark: str) -> None:
    [worker] = cluster.notes("begun")

    os.kill(int(worker), signal.SIGKILL)
    cluster.wait_for_notes("begun", 2)
    # Those who were orphaned before may be unknown until the node is at its end.
    family[1].kill()

    wait_for("the end of all below the worker", lambda: not sleepers(below_task(mark)))


def test_of_a_master_that_is_killed(family: tuple[Daemon, Daemon], mark: str) -> None:
    master, _ = family

    master.kill()

    wait_for("the end of all below the master", lambda: not sleepers(below_generator(mark)))


@pytest.mark.parametrize("victim", ["cyclone-guard", "generator_host"])
def test_of_a_generator_that_is_killed(
    cluster: Cluster, family: tuple[Daemon, Daemon], mark: str, victim: str
) -> None:
    former = set(sleepers(below_generator(mark)))
    guard = cluster.pids("cyclone-guard")
    pids = guard if victim == "cyclone-guard" else set(cluster.pids(victim)) - set(guard)

    for pid in pids:
        os.kill(pid, signal.SIGKILL)

    wait_for("the end of all below the generator", lambda: not former & set(sleepers(below_generator(mark))))
    family[0].wait_for_log("generator was killed by signal 9: starting it again")


def test_of_daemons_that_are_told_to_stop_at_once(family: tuple[Daemon, Daemon], mark: str) -> None:
    master, controller = family

    for daemon in (master, controller):
        daemon.signal(signal.SIGTERM)
        daemon.wait_for_log("told to stop now=False")
        daemon.signal(signal.SIGTERM)

    assert (master.wait(), controller.wait()) == (0, 0)
    assert sleepers(mark) == []


def test_of_a_whole_node_that_was_killed_at_once_and_is_started_again(
    cluster: Cluster, family: tuple[Daemon, Daemon], mark: str
) -> None:
    _, controller = family
    [reaper] = cluster.pids("cyclone-reaper")
    former = set(sleepers(below_task(mark)))

    for pid in (reaper, controller.pid):
        os.kill(pid, signal.SIGSTOP)
    for pid in (reaper, controller.pid):
        os.kill(pid, signal.SIGKILL)
    controller.wait()
    controller.start()
    cluster.wait_for_notes("begun", 2)

    left = former & set(sleepers(below_task(mark)))
    # Whoever casts off everything is known by its control group alone, where we may make one.
    assert left == set() if may_make_groups(mark) else len(left) <= 1


def test_no_control_group_is_left(family: tuple[Daemon, Daemon]) -> None:
    master, controller = family
    life = (controller.pid_file.with_suffix(".lives")).read_text().strip()

    for daemon in (master, controller):
        daemon.signal(signal.SIGTERM)
        daemon.wait_for_log("told to stop now=False")
        daemon.signal(signal.SIGTERM)
    assert (master.wait(), controller.wait()) == (0, 0)

    assert control_group.named(group_name(life)) == []
