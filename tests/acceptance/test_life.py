"""How daemons begin and end: PID files, signals, and what becomes of running tasks."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from acceptance.cluster import Cluster, Daemon, Waited, free_port, wait_for

from cyclone.errors import EXIT_ALREADY_RUNNING, EXIT_INTERNAL, EXIT_OK, EXIT_UNREACHABLE, EXIT_USAGE
from cyclone.wire import keys

#: A task that takes its time, and leaves a note at its beginning and at its end.
SLOW = """
class Slow(BaseTask):
    def __init__(self, seconds):
        self.seconds = seconds

    def execute(self):
        note("begun", f"{{self.tid}} {{self.attempt.number}}")
        time.sleep(self.seconds)
        note("done", self.tid)

class Job(Telling):
    def generate(self):
        for number in range({count}):
            task = Slow({seconds})
            task.tid = number
            yield task
"""

STUBBORN = """
class Job(TaskGenerator):
    def run(self):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        note("begun", "")
        while True:
            time.sleep(60)
"""

FAMILY = """
class Family(BaseTask):
    def execute(self):
        subprocess.Popen(["setsid", "sleep", "600"])
        note("begun", "")
        time.sleep(600)

class Job(Telling):
    def generate(self):
        yield Family()
        yield Family()
"""


@pytest.fixture
def idle(cluster: Cluster) -> Cluster:
    """One with a master and a controller that have nothing to do."""
    cluster.write("jobs.py", "")
    cluster.start_master({"task_generator": None})
    cluster.start_controller()
    wait_for("two workers", lambda: len(cluster.pids("cyclone-worker")) == 2)
    return cluster


def named(cluster: Cluster, name: str) -> Daemon:
    return next(daemon for daemon in cluster.daemons if daemon.name == name)


def wait_for_workers(cluster: Cluster, controller: Daemon, count: int) -> set[int]:
    def have_come() -> list[int]:
        assert controller.is_alive, controller.log
        pids = cluster.pids("cyclone-worker", of=controller)
        return pids if len(pids) == count else []

    return set(wait_for(f"{count} workers", have_come))


# One daemon per PID file.


@pytest.mark.parametrize("program", ["master", "controller"])
def test_a_second_daemon_on_a_pid_file_is_refused_in_one_line(idle: Cluster, program: str) -> None:
    first = named(idle, program)

    second = idle.run("-f", f"{program}.conf", program=program)

    assert second.returncode == EXIT_ALREADY_RUNNING
    assert len(second.stderr.splitlines()) == 1
    assert f"{program}.pid: already running ({first.pid};" in second.stderr
    assert first.is_alive


def test_a_pid_file_tells_pid_and_time_and_the_log_tells_the_pid(idle: Cluster) -> None:
    master = named(idle, "master")

    text = master.pid_file.read_text().strip()

    assert re.fullmatch(rf"{master.pid};\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d", text)
    assert f"Master PID: {master.pid}" in master.log


def test_the_pid_file_of_a_killed_daemon_keeps_nobody_out(idle: Cluster) -> None:
    master, controller = named(idle, "master"), named(idle, "controller")
    master.kill()
    controller.kill()
    assert master.pid_file.exists()
    assert controller.pid_file.exists()

    idle.start_master()
    controller.start()

    controller.wait_for_log("Started name=", times=2)
    assert master.pid_file.read_text().startswith(f"{master.pid};")
    assert controller.is_alive


# Being told to stop.


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_master_that_is_told_to_stop_lets_running_tasks_end(cluster: Cluster, signum: int) -> None:
    cluster.write_job(SLOW.format(count=10, seconds=2))
    master = cluster.start_master()
    controllers = [cluster.start_controller("a"), cluster.start_controller("b")]
    begun = cluster.wait_for_notes("begun", 4)

    master.signal(signum)
    codes = master.wait(), *(controller.wait() for controller in controllers)

    assert codes == (EXIT_OK, EXIT_OK, EXIT_OK)
    assert sorted(cluster.notes("done")) == sorted(line.split()[0] for line in begun)
    assert cluster.notes("begun") == begun


def test_a_job_that_was_stopped_is_resumed_by_the_next_start(cluster: Cluster) -> None:
    cluster.write_job(SLOW.format(count=12, seconds=0.5))
    master = cluster.start_master()
    controller = cluster.start_controller()
    cluster.wait_for_notes("begun", 4)
    master.signal(signal.SIGTERM)
    assert (master.wait(), controller.wait()) == (EXIT_OK, EXIT_OK)
    done_before = len(cluster.notes("done"))

    master = cluster.start_master()
    controller.start()
    codes = master.wait(), controller.wait()

    assert codes == (EXIT_OK, EXIT_OK)
    assert 2 <= done_before < 12
    assert sorted(map(int, cluster.notes("done"))) == list(range(12))
    assert cluster.question("SELECT name, state FROM job") == [("Job", "succeeded")]


def test_a_controller_that_is_told_to_stop_lets_its_tasks_end_and_gives_the_rest_back(
    cluster: Cluster,
) -> None:
    cluster.write_job(SLOW.format(count=6, seconds=2))
    master = cluster.start_master()
    leaving = cluster.start_controller("leaving")
    cluster.wait_for_notes("begun", 2)

    leaving.signal(signal.SIGTERM)
    code = leaving.wait()
    done = cluster.notes("done")
    staying = cluster.start_controller("staying")

    assert code == EXIT_OK
    assert len(done) == 2
    assert (master.wait(), staying.wait()) == (EXIT_OK, EXIT_OK)
    assert sorted(map(int, cluster.notes("done"))) == list(range(6))
    assert len(cluster.notes("begun")) == 6


def test_a_second_term_stops_a_controller_at_once_and_its_tasks_run_elsewhere(cluster: Cluster) -> None:
    cluster.write_job(
        SLOW.replace("self.seconds)", "0 if os.path.exists('calm') else self.seconds)").format(
            count=2, seconds=600
        )
    )
    master = cluster.start_master()
    stopped = cluster.start_controller("stopped")
    cluster.wait_for_notes("begun", 2)

    stopped.signal(signal.SIGTERM)
    stopped.wait_for_log("told to stop now=False")
    stopped.signal(signal.SIGTERM)
    code = stopped.wait(10)
    cluster.write("calm", "")
    other = cluster.start_controller("other")

    assert code == EXIT_OK
    assert cluster.pids("cyclone-worker", of=stopped) == []
    assert (master.wait(), other.wait()) == (EXIT_OK, EXIT_OK)
    assert sorted(cluster.notes("done")) == ["0", "1"]


def test_a_second_term_stops_a_master_and_its_controllers_at_once(cluster: Cluster) -> None:
    cluster.write_job(SLOW.format(count=2, seconds=600))
    master = cluster.start_master()
    controller = cluster.start_controller()
    cluster.wait_for_notes("begun", 2)

    master.signal(signal.SIGTERM)
    master.wait_for_log("told to stop now=False")
    master.signal(signal.SIGTERM)
    codes = master.wait(15), controller.wait(15)

    assert codes == (EXIT_OK, EXIT_OK)
    assert cluster.notes("done") == []
    cluster.assert_nothing_is_left()


def test_an_interrupt_does_not_stop_a_controller(idle: Cluster) -> None:
    controller = named(idle, "controller")

    controller.signal(signal.SIGINT)

    controller.wait_for_log("interrupt ignored")
    assert controller.is_alive
    assert len(idle.pids("cyclone-worker")) == 2


def test_a_generator_that_does_not_listen_is_killed_after_ten_seconds(cluster: Cluster) -> None:
    cluster.write_job(STUBBORN)
    master = cluster.start_master()
    cluster.wait_for_notes("begun", 1)

    master.signal(signal.SIGTERM)

    with pytest.raises(Waited):
        master.wait(8)
    assert master.wait(6) == EXIT_OK
    cluster.assert_nothing_is_left()


def test_a_log_that_is_moved_away_at_any_moment_is_begun_anew_and_no_line_is_lost(idle: Cluster) -> None:
    master = named(idle, "master")

    def kept() -> str:
        return "".join(file.read_text() for file in idle.directory.glob("master.log*"))

    for number in range(1, 51):
        master.signal(signal.SIGHUP)
        if master.log_file.exists():
            master.log_file.rename(idle.directory / f"master.log.{number}")
        wait_for("every line", lambda heard=number: kept().count("keys read anew") == heard)


# Being without a master.


@pytest.mark.parametrize("wait_s", [0, 0.05, 0.3, 0.5])
def test_a_controller_that_is_in_a_hurry_reaches_its_master_all_the_same(
    cluster: Cluster, wait_s: float
) -> None:
    cluster.write_job(SLOW.format(count=2, seconds=0))
    master = cluster.start_master()

    controller = cluster.start_controller(settings={"control": {"request_retry_wait_duration": wait_s}})

    assert (master.wait(15), controller.wait(15)) == (EXIT_OK, EXIT_OK)


def test_a_controller_that_reaches_no_master_tries_as_often_as_configured(cluster: Cluster) -> None:
    cluster.port = free_port()
    keys.ensure(cluster.directory / "keys")

    controller = cluster.start_controller(
        settings={"control": {"request_retry_wait_duration": 0.3, "max_num_request_retries": 2}}
    )
    code = controller.wait()

    assert code == EXIT_UNREACHABLE
    assert "retry limit reached" in controller.log
    assert 2 <= controller.log.count("connecting anew") <= 3
    assert not controller.pid_file.exists()


def test_results_that_no_master_took_are_kept_for_the_next_start(steady_cluster: Cluster) -> None:
    cluster = steady_cluster
    cluster.write_job(SLOW.format(count=2, seconds=2.5))
    master = cluster.start_master()
    controller = cluster.start_controller(
        settings={"control": {"request_retry_wait_duration": 0.3, "max_num_request_retries": 2}}
    )
    cluster.wait_for_notes("begun", 2)
    master.kill()
    assert controller.wait() == EXIT_UNREACHABLE
    assert len(cluster.notes("done")) == 2

    cluster.start_master()
    controller.start()
    codes = master.wait(), controller.wait()

    assert codes == (EXIT_OK, EXIT_OK)
    assert len(cluster.notes("begun")) == 2
    assert sorted(told["tid"] for told in cluster.told()) == ["0", "1"]


# Workers, the reaper, and what tasks have started.


@pytest.mark.parametrize("workers", [2, 12])
def test_workers_that_are_killed_are_replaced(idle: Cluster, workers: int) -> None:
    controller = idle.start_controller("other", workers=workers)
    before = wait_for_workers(idle, controller, workers)

    for pid in before:
        os.kill(pid, signal.SIGKILL)

    wait_for("the end of them all", lambda: before.isdisjoint(idle.pids("cyclone-worker", of=controller)))
    wait_for_workers(idle, controller, workers)


@pytest.mark.parametrize("workers", [2, 12])
def test_a_reaper_that_is_killed_is_replaced_and_its_workers_with_it(idle: Cluster, workers: int) -> None:
    controller = idle.start_controller("other", workers=workers)
    before = wait_for_workers(idle, controller, workers)

    [reaper] = idle.pids("cyclone-reaper", of=controller)
    os.kill(reaper, signal.SIGKILL)

    wait_for("the end of them all", lambda: before.isdisjoint(idle.pids("cyclone-worker", of=controller)))
    wait_for_workers(idle, controller, workers)


def test_a_controller_whose_reaper_dies_again_and_again_gives_up(idle: Cluster) -> None:
    controller = named(idle, "controller")

    def kill_reaper() -> bool:
        for pid in idle.pids("cyclone-reaper"):
            os.kill(pid, signal.SIGKILL)
        return not controller.is_alive

    wait_for("the end of the controller", kill_reaper)

    assert controller.wait() == EXIT_INTERNAL
    assert "giving up:" in controller.log
    assert idle.pids("cyclone-worker") == []


def test_nothing_that_a_task_started_outlives_its_controller(cluster: Cluster) -> None:
    cluster.write_job(FAMILY)
    master = cluster.start_master()
    controller = cluster.start_controller()
    cluster.wait_for_notes("begun", 2)
    wait_for("two sleepers", lambda: len(cluster.pids("sleep 600")) == 2)

    controller.kill()

    generator_and_master = {master.pid, *cluster.pids("generator_host")}
    wait_for("the end of all but the master", lambda: set(cluster.processes()) == generator_and_master, 5)


# The command line.


@pytest.mark.parametrize("program", ["master", "controller"])
def test_version_usage_and_check_have_their_exit_codes(cluster: Cluster, program: str) -> None:
    sample = Path(__file__).parents[2] / "Configuration" / f"{program}.conf"
    plain = "\n".join(
        line for line in sample.read_text().splitlines() if not line.startswith("config_file = Configuration")
    )
    config = cluster.write("sample.conf", plain.replace("generators.checksum", "generators.benchmark").replace(
        "ChecksumTaskGenerator", "BenchmarkTaskGenerator"
    ))  # fmt: skip

    version = cluster.run("-v", program=program)
    usage = cluster.run("--nope", program=program)
    check = cluster.run("--check", "-f", config, program=program)

    assert (version.returncode, usage.returncode, check.returncode) == (EXIT_OK, EXIT_USAGE, EXIT_OK)
    assert version.stdout.startswith(f"cyclone-{program} 3.")
    assert "pid_file = Runtime/" in check.stdout
    assert {file.name for file in cluster.directory.iterdir()} == {"home", "sample.conf"}
