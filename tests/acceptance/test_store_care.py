"""Looking after the store of a real master: it forgets, it is copied while it runs, it is upgraded and compacted."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from acceptance.cluster import Cluster, wait_for

from cyclone.errors import EXIT_ALREADY_RUNNING, EXIT_CONFIG, EXIT_OK, EXIT_TASK_FAILED, EXIT_UNREACHABLE
from cyclone.store import database

FIRST_VERSION = Path(__file__).parents[1] / "unit" / "store" / "version-1.sql"

#: A second or so, in days.
MOMENT = "0.00001"

WORK = """
class Work(BaseTask):
    def __init__(self, tid, seconds=0):
        self.tid, self.seconds = tid, seconds

    def execute(self):
        note("done", self.tid)
        time.sleep(self.seconds)

class Job(Telling):
    def generate(self):
        for number in range({count}):
            yield Work(number, {seconds})
"""

ROUNDS = """
class Look(BaseTask):
    def __init__(self, tid, seconds):
        self.tid, self.seconds = tid, seconds

    def execute(self):
        note("done", self.tid)
        time.sleep(self.seconds)

class Job(Telling):
    remember_s = 2.0

    def run(self):
        self.submit(Look("long", 1000))
        self.submit(Look("again", 0))
        round = 0
        while not self.stopping:
            for number in range(50):
                self.submit(Look(f"{round}-{number}", 0))
            for result in self.results(timeout=0.1):
                self.on_result(result)
            if os.path.exists("once-more"):
                os.remove("once-more")
                self.submit(Look("again", 0))
            round += 1
"""


def run_command(cluster: Cluster, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).parent / "cyclone", *words],
        cwd=cluster.directory, env=cluster.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip


def command(cluster: Cluster, name: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return run_command(cluster, name, "-f", "master.conf", *words)


def rows(cluster: Cluster, table: str) -> int:
    [(count,)] = cluster.question(f"SELECT count(*) FROM {table}")
    return int(count)


# Forgetting.


def test_a_master_forgets_a_job_that_was_closed_long_enough_ago(steady_cluster: Cluster) -> None:
    cluster = steady_cluster
    cluster.write_job(WORK.format(count=300, seconds=0))
    settings = {
        "control": {"pid_file": "master.pid", "when_finished": "wait"},
        "store": {"path": "store.db", "keep_finished": "1"},
    }
    master = cluster.start_master(settings)
    master.wait_for_log("Started")
    cluster.start_controller()
    wait_for("the end of the job", lambda: cluster.question("SELECT 1 FROM job WHERE closed_at > 0"))
    assert command(cluster, "explain", "7").returncode == EXIT_OK

    # As if it had been yesterday.
    master.signal(signal.SIGTERM)
    assert master.wait() == EXIT_OK
    with closing(sqlite3.connect(cluster.directory / "store.db")) as store:
        store.execute("UPDATE job SET closed_at = closed_at - 86400")
        store.commit()
    store_settings = {"path": "store.db", "keep_finished": MOMENT}
    master = cluster.start_master({**settings, "store": store_settings, "task_generator": None})
    wait_for(
        "the last row",
        lambda: not any(rows(cluster, t) for t in ("job", "task", "parcel", "ended", "erasing")),
    )

    assert command(cluster, "explain", "7").returncode == 1
    assert command(cluster, "tasks").stdout.count("\n") <= 1
    assert "Jobs: 0" in command(cluster, "info").stdout
    [(last,)] = cluster.question("SELECT value FROM meta WHERE key = 'last_task'")
    assert last == 300
    master.signal(signal.SIGTERM)
    assert master.wait() == EXIT_OK


def test_a_job_that_never_ends_forgets_what_its_generator_says_and_survives_kills(
    steady_cluster: Cluster,
) -> None:
    cluster = steady_cluster
    cluster.write_job(ROUNDS)
    master = cluster.start_master({"store": {"path": "store.db", "keep_finished": MOMENT}})
    cluster.start_controller()

    master.wait_for_log("Started")

    def forgotten() -> int:
        [(count,)] = cluster.question("SELECT coalesce(sum(forgotten), 0) FROM job") or [(0,)]
        return int(count)

    wait_for("something forgotten", lambda: forgotten() > 200)
    assert cluster.notes("done").count("again") == 1
    cluster.write("once-more", "")
    wait_for("a tid that was forgotten", lambda: cluster.notes("done").count("again") == 2)
    for _ in range(3):
        master.restart()
        cluster.wait_for_port(master)
        before = forgotten()
        wait_for("more forgotten", lambda before=before: forgotten() > before + 100)
    assert cluster.notes("done").count("long") == 1
    told = command(cluster, "info").stdout
    assert "FORGOTTEN" in told
    # Its end is not told before that of the long task: killed, and everything counted.
    cluster.kill_all()
    [(counted,)] = cluster.question("SELECT sum(tasks) FROM job_count")
    [(kept,)] = cluster.question("SELECT count(*) FROM ended")
    assert counted == kept + forgotten()
    assert cluster.question("SELECT 1 FROM task WHERE tid = 'long'") == [(1,)]
    with cluster.store() as store:
        assert "long" in {task.tid for task in store.wake().live}


# Damage.


def overwrite_pages_of(cluster: Cluster, table: str) -> None:
    """The first page of a table, and with it the way to all others."""
    path = cluster.directory / "store.db"
    with closing(sqlite3.connect(path)) as store:
        [(page,)] = store.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,))
        [(size,)] = store.execute("PRAGMA page_size")
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xa5" * size)


@pytest.fixture
def ended(steady_cluster: Cluster) -> Cluster:
    """A cluster at rest whose store knows some ended tasks."""
    steady_cluster.write_job(WORK.format(count=50, seconds=0))
    master, controller = steady_cluster.start_master(), steady_cluster.start_controller()
    assert (master.wait(), controller.wait()) == (EXIT_OK, EXIT_OK)
    return steady_cluster


@pytest.mark.parametrize("what", ["a page", "a row"])
def test_a_master_refuses_a_damaged_store_in_a_line(ended: Cluster, what: str) -> None:
    if what == "a page":
        overwrite_pages_of(ended, "parcel")
    else:
        with closing(sqlite3.connect(ended.directory / "store.db")) as store, store:
            store.execute("UPDATE meta SET value = 'x' WHERE key = 'epoch'")

    refused = ended.run("-f", "master.conf")

    assert refused.returncode == EXIT_CONFIG
    assert "store.db: " in refused.stderr
    assert "the file is damaged; expected an intact store of Cyclone" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_a_master_that_comes_upon_damage_later_ends_with_a_line(ended: Cluster) -> None:
    overwrite_pages_of(ended, "ended")
    log_before = (ended.directory / "master.log").read_text()
    master = ended.start_master({"task_generator": None})
    ended.wait_for_port(master)

    asked = command(ended, "tasks")

    assert master.wait() == EXIT_CONFIG
    assert asked.returncode == EXIT_UNREACHABLE
    [line] = [line for line in master.log.removeprefix(log_before).splitlines() if "ERROR" in line]
    assert "the file is damaged; expected an intact store of Cyclone" in line
    assert "Traceback" not in master.log
    audited = command(ended, "audit")
    assert audited.returncode == EXIT_TASK_FAILED
    assert "file: found" in audited.stdout
    assert audited.stderr == ""


# Back-ups.


def test_a_back_up_under_load_is_whole_and_a_master_goes_on_from_it(steady_cluster: Cluster) -> None:
    cluster = steady_cluster
    cluster.write_job(WORK.format(count=1500, seconds=0.01))
    master = cluster.start_master()
    controller = cluster.start_controller()
    cluster.wait_for_notes("done", 300)

    made = command(cluster, "backup", "copy.db")

    assert (made.returncode, made.stderr) == (EXIT_OK, "")
    assert "looked through" in made.stdout
    again = command(cluster, "backup", "copy.db")
    assert again.returncode == EXIT_CONFIG
    assert again.stderr.count("\n") == 1
    assert (master.wait(), controller.wait()) == (EXIT_OK, EXIT_OK)
    [(last_epoch,)] = cluster.question("SELECT value FROM meta WHERE key = 'epoch'")

    # The store is lost, and what was done since is done again.
    for left in cluster.directory.glob("store.db*"):
        left.unlink()
    shutil.copy(cluster.directory / "copy.db", cluster.directory / "store.db")
    assert cluster.question("SELECT state FROM job") == [("open",)]
    ended = {
        tid for (tid,) in cluster.question("SELECT tid FROM task JOIN ended ON task.number = ended.task")
    }
    done_before = len(cluster.notes("done"))
    master = cluster.start_master()
    controller.start()
    codes = master.wait(), controller.wait()

    assert codes == (EXIT_OK, EXIT_OK)
    assert "a back-up was made a store" in master.log
    done = cluster.notes("done")[done_before:]
    assert ended.isdisjoint(done)
    assert ended | set(done) == {str(number) for number in range(1500)}
    [(epoch,)] = cluster.question("SELECT value FROM meta WHERE key = 'epoch'")
    assert epoch > last_epoch + 60_000


def test_controllers_that_lived_on_work_for_a_master_that_was_restored(steady_cluster: Cluster) -> None:
    """Tokens of a restored master are larger than all that the controllers have seen, and its late ends are no ends."""
    cluster = steady_cluster
    cluster.write_job(WORK.format(count=400, seconds=0.02))
    master = cluster.start_master()
    controller = cluster.start_controller()
    cluster.wait_for_notes("done", 20)
    assert command(cluster, "backup", "copy.db").returncode == EXIT_OK
    for _ in range(3):
        master.restart()
        cluster.wait_for_port(master)
    cluster.wait_for_notes("done", 60)

    master.kill()
    for left in cluster.directory.glob("store.db*"):
        left.unlink()
    shutil.copy(cluster.directory / "copy.db", cluster.directory / "store.db")
    master.start()
    codes = master.wait(), controller.wait()

    assert codes == (EXIT_OK, EXIT_OK)
    assert set(cluster.notes("done")) == {str(number) for number in range(400)}
    assert cluster.question("SELECT state FROM job") == [("succeeded",)]
    [(tokens,)] = cluster.question("SELECT count(*) FROM ended")
    assert tokens == 400


# Upgrades.


def test_a_master_upgrades_the_store_of_the_first_version_and_says_so(cluster: Cluster) -> None:
    with closing(sqlite3.connect(cluster.directory / "store.db")) as store:
        store.executescript(FIRST_VERSION.read_text())

    master = cluster.start_master(
        {"task_generator": None, "store": {"path": "store.db", "keep_finished": "forever"}}
    )

    master.wait_for_log("store: it was upgraded from version 1 to version 2")
    told = command(cluster, "tasks", "--state", "failed").stdout
    assert "night" in told
    assert command(cluster, "explain", "y").returncode == EXIT_OK
    assert cluster.question("PRAGMA user_version") == [(database.VERSION,)]


def test_a_master_refuses_a_store_of_a_newer_version_in_a_line(cluster: Cluster) -> None:
    with closing(sqlite3.connect(cluster.directory / "store.db")) as store:
        store.executescript(FIRST_VERSION.read_text())
        store.execute("PRAGMA user_version=99")
    cluster.configure_master({"task_generator": None})

    ended = cluster.run("-f", "master.conf")

    assert ended.returncode == EXIT_CONFIG
    assert "found a store of version 99, expected version 2 or an older one" in ended.stderr
    assert ended.stderr.count("\n") == 1


# Compaction.


def test_a_store_is_compacted_when_its_master_rests_and_not_before(steady_cluster: Cluster) -> None:
    cluster = steady_cluster
    cluster.write_job(WORK.format(count=2000, seconds=0))
    master = cluster.start_master({"control": {"pid_file": "master.pid", "when_finished": "wait"}})
    cluster.start_controller()
    cluster.wait_for_notes("done", 2000)

    refused = command(cluster, "compact")

    assert refused.returncode == EXIT_ALREADY_RUNNING
    assert refused.stderr.count("\n") == 1
    master.signal(signal.SIGTERM)
    assert master.wait() == EXIT_OK
    with closing(sqlite3.connect(cluster.directory / "store.db")) as store:
        store.execute("UPDATE job SET closed_at = 1")
        store.commit()
    large = (cluster.directory / "store.db").stat().st_size
    settings = {"task_generator": None, "store": {"path": "store.db", "keep_finished": MOMENT}}
    master = cluster.start_master(settings)
    wait_for("the last row", lambda: not rows(cluster, "erasing") and not rows(cluster, "task"))
    master.signal(signal.SIGTERM)
    assert master.wait() == EXIT_OK

    compacted = command(cluster, "compact")

    assert compacted.returncode == EXIT_OK
    assert (cluster.directory / "store.db").stat().st_size < large / 2
    master = cluster.start_master(settings)
    assert "Jobs: 0" in command(cluster, "info").stdout
