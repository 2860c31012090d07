"""What a user writes: a task and a generator in a directory of the user's own, run from there."""

from __future__ import annotations

import signal

import pytest
from acceptance.cluster import Cluster

from cyclone.errors import EXIT_CONFIG, EXIT_INTERNAL, EXIT_OK, EXIT_TASK_FAILED

YIELDING = """
import hashlib
from pathlib import Path

from cyclone import BaseTask, ConfigError, TaskGenerator


class Checksum(BaseTask):
    def __init__(self, path):
        super().__init__()
        self.path = path

    def execute(self):
        return hashlib.sha256(Path(self.path).read_bytes()).hexdigest()


class Checksums(TaskGenerator):
    def validate_config(self):
        if not Path(self.config["files"]["directory"]).is_dir():
            raise ConfigError("is not a directory", section="files", key="directory")

    def generate(self):
        for path in sorted(Path(self.config["files"]["directory"]).iterdir()):
            yield Checksum(str(path))

    def on_result(self, result):
        with open("sums", "a") as sums:
            sums.write(f"{result.value} {result.outcome} {result.attempts} {result.error.split(':')[0]}\\n")
"""

REACTING = """
from cyclone import BaseTask, TaskGenerator


class Halve(BaseTask):
    def __init__(self, number):
        self.number = number

    def execute(self):
        return self.number // 2


class Halves(TaskGenerator):
    def run(self):
        tid = self.submit(Halve(int(self.config["start"]["number"])))
        with open("sums", "w") as sums:
            while True:
                self.sleep(0.01)
                for result in self.results(timeout=1):
                    assert result.tid == tid
                    sums.write(f"{result.value} {result.duration_s >= 0}\\n")
                    if result.value == 0 or self.stopping:
                        return
                    tid = self.submit(Halve(result.value))
"""

PAIRS = """
class Half(BaseTask):
    def __init__(self, tid, *after):
        self.tid, self.after = tid, after

    def execute(self):
        note("executed", self.tid)

class Job(Telling):
    def run(self):
        dice, waiting = random.Random(1), []
        for number in range(3000):
            self.submit(Half(f"first {number}"))
            waiting.append(number)
            if len(waiting) > 300:
                # The other half of one that has ended already, or will in a while, or does so right now.
                self.submit(second_half(waiting.pop(dice.randrange(300))))
                time.sleep(0.0005)
        for number in waiting:
            self.submit(second_half(number))
        for result in self.results():
            self.on_result(result)

def second_half(number):
    return Half(f"second {number}", f"first {number}")
"""

WRONG_VALUE = """
class Trap:
    def __reduce__(self):
        return exec, ("raise RuntimeError('not here')",)

class Trapped(BaseTask):
    def execute(self):
        return Trap()

class Plain(BaseTask):
    def execute(self):
        return 1

class Job(Telling):
    def generate(self):
        for number, kind in enumerate([Plain, Trapped, Plain]):
            task = kind()
            task.tid = number
            yield task
"""

WORK = """
class Work(BaseTask):
    def execute(self):
        return 1
"""

LEAVING = {
    "run": """
class Job(TaskGenerator):
    def run(self):
        self.submit(Work())
        sys.exit(0)
""",
    "generate": """
class Job(TaskGenerator):
    def generate(self):
        yield Work()
        sys.exit(0)
""",
    "on_result": """
class Job(TaskGenerator):
    def generate(self):
        yield Work()

    def on_result(self, result):
        sys.exit(0)
""",
    "validate_config": """
class Job(TaskGenerator):
    def validate_config(self):
        sys.exit(0)
""",
}

RETURNING_AT_ONCE = """
class Work(BaseTask):
    tid = "second"
    after = ("first",)

    def execute(self):
        return 1

class Job(TaskGenerator):
    def run(self):
        self.submit(Work())
"""

WAITING = """
class Slow(BaseTask):
    def execute(self):
        while not os.path.exists("enough"):
            time.sleep(0.01)

class Job(TaskGenerator):
    def run(self):
        self.submit(Slow())
        for result in self.results(timeout=3):
            note("came", result.tid)
        note("waited", "three seconds")
        open("enough", "w").close()
        for result in self.results():
            note("came", result.tid)
"""


def test_a_generator_that_yields_is_told_value_error_and_attempts(cluster: Cluster) -> None:
    cluster.write("sums_of_files.py", YIELDING)
    cluster.write("files/a", "one")
    cluster.write("files/b", "two")
    (cluster.directory / "files" / "c").symlink_to("nowhere")
    cluster.write("checksums.ini", "[files]\ndirectory = files\n")
    section = {"module": "sums_of_files", "class": "Checksums", "config_file": "checksums.ini"}

    master = cluster.start_master({"task_generator": section})
    controller = cluster.start_controller()
    codes = master.wait(), controller.wait()

    assert codes == (EXIT_TASK_FAILED, EXIT_OK)
    assert sorted(cluster.notes("sums")) == [
        "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3 succeeded 1 ",
        "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed succeeded 1 ",
        "None raised 1 FileNotFoundError",
    ]


def test_a_generator_may_make_tasks_of_results(cluster: Cluster) -> None:
    cluster.write("halves.py", REACTING)
    cluster.write("halves.ini", "[start]\nnumber = 100\n")
    section = {"module": "halves", "class": "Halves", "config_file": "halves.ini"}

    master = cluster.start_master({"task_generator": section})
    controller = cluster.start_controller()
    codes = master.wait(), controller.wait()

    assert codes == (EXIT_OK, EXIT_OK)
    assert cluster.notes("sums") == [f"{value} True" for value in (50, 25, 12, 6, 3, 1, 0)]


def test_a_task_may_come_after_one_that_is_just_ending(cluster: Cluster) -> None:
    cluster.write_job(PAIRS)

    master = cluster.start_master()
    controller = cluster.start_controller()
    codes = master.wait(), controller.wait()

    assert codes == (EXIT_OK, EXIT_OK), master.log
    executed = {tid: place for place, tid in enumerate(cluster.notes("executed"))}
    assert len(executed) == 6000
    assert all(executed[f"first {number}"] < executed[f"second {number}"] for number in range(3000))


@pytest.mark.parametrize("name", ["queue", "signal", "zmq", "msgspec"])
def test_a_file_with_the_name_of_a_library_module_harms_nobody(cluster: Cluster, name: str) -> None:
    cluster.write(f"{name}.py", "raise RuntimeError('this is not the module that was meant')\n")
    cluster.write("halves.py", REACTING)
    cluster.write("halves.ini", "[start]\nnumber = 1\n")
    section = {"module": "halves", "class": "Halves", "config_file": "halves.ini"}

    master = cluster.start_master({"task_generator": section})
    controller = cluster.start_controller()

    assert (master.wait(), controller.wait()) == (EXIT_OK, EXIT_OK)


def test_a_result_that_the_generator_cannot_unpickle_ends_that_task_only(cluster: Cluster) -> None:
    cluster.write_job(WRONG_VALUE)

    master = cluster.start_master()
    controller = cluster.start_controller()
    master.wait()
    controller.wait()

    told = {one["tid"]: one for one in cluster.told()}
    assert set(told) == {"0", "1", "2"}
    assert told["0"]["value"] == told["2"]["value"] == "1"
    assert "not here" in told["1"]["error"]


@pytest.mark.parametrize("method", ["run", "generate", "on_result"])
def test_a_generator_that_calls_exit_has_broken_down(cluster: Cluster, method: str) -> None:
    """Whatever it says itself: nobody can know whether it was through."""
    cluster.write_job(WORK + LEAVING[method])

    master = cluster.start_master()
    cluster.start_controller()

    assert master.wait() == EXIT_INTERNAL
    assert "the task generator broke down: it called sys.exit(0)" in master.log


def test_a_generator_that_calls_exit_before_it_is_started_cannot_be_used(cluster: Cluster) -> None:
    cluster.write_job(LEAVING["validate_config"])

    run = cluster.run("-f", cluster.configure_master())

    assert run.returncode == EXIT_CONFIG
    assert "jobs.Job: SystemExit: 0" in run.stderr


def test_a_refusal_is_told_although_the_generator_does_not_wait_for_it(cluster: Cluster) -> None:
    cluster.write_job(RETURNING_AT_ONCE)

    master = cluster.start_master()

    assert master.wait() == EXIT_INTERNAL
    assert "the task generator broke down: task 'second' comes after 'first'" in master.log


def test_waiting_for_results_has_an_end(cluster: Cluster) -> None:
    cluster.write_job(WAITING)

    master = cluster.start_master()
    controller = cluster.start_controller()
    codes = master.wait(), controller.wait()

    assert codes == (EXIT_OK, EXIT_OK)
    assert cluster.notes("waited") == ["three seconds"]
    assert len(cluster.notes("came")) == 1


def test_a_hang_up_of_the_master_reaches_the_generator(cluster: Cluster) -> None:
    cluster.write_job(
        "class Job(TaskGenerator):\n"
        "    def run(self):\n"
        "        signal.signal(signal.SIGHUP, lambda *_: note('heard', 'hang-up'))\n"
        "        note('heard', 'ready')\n"
        "        while not self.stopping:\n"
        "            self.sleep(0.05)\n"
    )
    master = cluster.start_master()
    cluster.wait_for_notes("heard", 1)

    master.signal(signal.SIGHUP)

    assert cluster.wait_for_notes("heard", 2) == ["ready", "hang-up"]
    master.signal(signal.SIGTERM)
    assert master.wait() == EXIT_OK


def test_a_hang_up_does_no_harm_to_a_generator_that_does_not_listen(cluster: Cluster) -> None:
    cluster.write_job(
        "class Job(TaskGenerator):\n"
        "    def run(self):\n"
        "        note('heard', 'ready')\n"
        "        while not self.stopping:\n"
        "            self.sleep(0.05)\n"
    )
    master = cluster.start_master()
    cluster.wait_for_notes("heard", 1)

    master.signal(signal.SIGHUP)
    master.wait_for_log("keys read anew")
    master.signal(signal.SIGTERM)

    assert master.wait() == EXIT_OK
    assert "starting it again" not in master.log
