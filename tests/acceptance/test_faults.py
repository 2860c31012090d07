"""Faults, one at a time: what breaks, who notices, and that the work goes on as if nothing had been."""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

import msgspec
import pytest
import zmq
from acceptance.cluster import Cluster, wait_for

from cyclone.errors import EXIT_INTERNAL, EXIT_OK
from cyclone.messages import Ended, Open, Report
from cyclone.model.task import End
from cyclone.wire import keys
from cyclone.wire.keys import Role
from cyclone.wire.line import Line

WORK = """
class Work(BaseTask):
    retry = Retry(losses=100, crashes=100)

    def __init__(self, seconds):
        self.seconds = seconds

    def execute(self):
        note("begun", f"{{self.tid}} {{self.attempt.number}}")
        time.sleep(self.seconds)
        note("done", self.tid)

class Job(Telling):
    def generate(self):
        for number in range({count}):
            task = Work({seconds})
            task.tid = number
            yield task
"""

BEATING = """
class Beating(BaseTask):
    def __init__(self, tid, exclusive):
        self.tid, self.exclusive = tid, exclusive

    def execute(self):
        for _ in range(80):
            note(self.tid, f"{self.attempt.number} {os.getpid()}")
            time.sleep(0.1)

class Job(Telling):
    def generate(self):
        yield Beating("exclusive", True)
        yield Beating("ordinary", False)
"""

BREAKING = """
class Work(BaseTask):
    def __init__(self, seconds):
        self.seconds = seconds

    def execute(self):
        note("begun", self.tid)
        time.sleep(self.seconds)
        note("done", self.tid)

class Job(Telling):
    def generate(self):
        for number in range(20):
            if number == 10 and not os.path.exists("mended"):
                while len(open("begun").readlines() if os.path.exists("begun") else ()) < 2:
                    time.sleep(0.01)
                raise OSError("the list of files ends here")
            task = Work(1 if number < 2 else 0.01)
            task.tid = number
            yield task
"""


# The master.


def test_a_restarted_master_takes_up_what_is_running(steady_cluster: Cluster) -> None:
    cluster = steady_cluster
    cluster.write_job(WORK.format(count=2, seconds=6))
    master = cluster.start_master()
    controller = cluster.start_controller()
    cluster.wait_for_notes("begun", 2)

    master.restart()
    codes = master.wait(), controller.wait()

    assert codes == (EXIT_OK, EXIT_OK)
    assert sorted(cluster.notes("begun")) == ["0 1", "1 1"]
    assert sorted(cluster.notes("done")) == ["0", "1"]
    assert sorted(told["tid"] for told in cluster.told()) == ["0", "1"]


def test_nothing_that_has_ended_runs_again_after_everything_was_killed(steady_cluster: Cluster) -> None:
    cluster = steady_cluster
    cluster.write_job(WORK.format(count=300, seconds=0.05))
    master = cluster.start_master()
    controller = cluster.start_controller(workers=4)
    cluster.wait_for_notes("done", 100)

    cluster.kill_all()
    ended = {
        tid for (tid,) in cluster.question("SELECT tid FROM task JOIN ended ON task.number = ended.task")
    }
    begun_before = len(cluster.notes("begun"))
    cluster.start_master()
    controller.start()
    codes = master.wait(), controller.wait()

    assert codes == (EXIT_OK, EXIT_OK)
    again = {line.split()[0] for line in cluster.notes("begun")[begun_before:]}
    assert len(ended) >= 50
    assert ended.isdisjoint(again)
    assert {int(tid) for tid in cluster.notes("done")} == set(range(300))
    assert {told["tid"] for told in cluster.told()} == {str(number) for number in range(300)}


@pytest.mark.parametrize("frozen", ["master", "controller"])
def test_an_exclusive_task_is_stopped_before_anybody_else_may_have_it(cluster: Cluster, frozen: str) -> None:
    cluster.write_job(BEATING)
    master = cluster.start_master()
    controller = cluster.start_controller()
    pid = int(cluster.wait_for_notes("exclusive", 1)[0].split()[1])
    cluster.wait_for_notes("ordinary", 1)
    silent = master if frozen == "master" else controller

    # To the other side, a daemon that is stopped looks like a network that is cut.
    silent.signal(signal.SIGSTOP)
    wait_for("the end of the exclusive attempt", lambda: pid not in cluster.pids("cyclone-worker"), 6)
    silent.signal(signal.SIGCONT)
    codes = master.wait(), controller.wait()

    assert codes == (EXIT_OK, EXIT_OK)
    # One that was given out and taken back before it began has a number as well.
    beats = [int(line.split()[0]) for line in cluster.notes("exclusive")]
    assert beats == sorted(beats)
    assert len(set(beats)) == 2
    assert beats.count(beats[-1]) == 80


def test_an_ordinary_task_goes_on_while_the_master_is_away(cluster: Cluster) -> None:
    cluster.write_job(BEATING.replace('        yield Beating("exclusive", True)\n', ""))
    master = cluster.start_master()
    controller = cluster.start_controller()
    cluster.wait_for_notes("ordinary", 1)

    master.signal(signal.SIGSTOP)
    cluster.wait_for_notes("ordinary", 60)
    master.signal(signal.SIGCONT)
    codes = master.wait(), controller.wait()

    assert codes == (EXIT_OK, EXIT_OK)
    assert len(cluster.notes("ordinary")) == 80


# Controllers.


def test_the_tasks_of_a_lost_controller_are_given_to_others(cluster: Cluster) -> None:
    cluster.write_job(WORK.format(count=40, seconds=0.3))
    master = cluster.start_master()
    lost = cluster.start_controller("lost", workers=4)
    staying = cluster.start_controller("staying", workers=2)
    cluster.wait_for_notes("begun", 10)

    lost.kill()
    codes = master.wait(), staying.wait()

    assert codes == (EXIT_OK, EXIT_OK)
    told = Counter(one["tid"] for one in cluster.told())
    assert told == Counter(str(number) for number in range(40))


def test_a_controller_that_is_started_again_gets_its_tasks_back_at_once(cluster: Cluster) -> None:
    cluster.write_job(WORK.format(count=4, seconds=1))
    master = cluster.start_master({"control": {"controller_timeout": 60}})
    controller = cluster.start_controller(workers=4)
    cluster.wait_for_notes("begun", 4)

    controller.restart()

    # Long before the lease of its former life has run out.
    assert master.wait(20) == EXIT_OK
    assert controller.wait() == EXIT_OK
    assert Counter(cluster.notes("done")) == Counter("0123")


def test_a_controller_that_was_frozen_goes_on(cluster: Cluster) -> None:
    cluster.write_job(WORK.format(count=60, seconds=0.2))
    master = cluster.start_master()
    frozen, other = cluster.start_controller("frozen"), cluster.start_controller("other")
    cluster.wait_for_notes("begun", 8)

    frozen.signal(signal.SIGSTOP)
    master.wait_for_log("frozen", times=2)  # that it came, and that it is gone
    frozen.signal(signal.SIGCONT)
    codes = master.wait(), frozen.wait(), other.wait()

    assert codes == (EXIT_OK, EXIT_OK, EXIT_OK)
    assert Counter(one["tid"] for one in cluster.told()) == Counter(str(number) for number in range(60))


# The generator.


def test_a_generator_that_raises_ends_the_master_and_the_next_start_resumes(cluster: Cluster) -> None:
    cluster.write_job(BREAKING)
    master = cluster.start_master()
    controller = cluster.start_controller()

    codes = master.wait(), controller.wait()

    assert codes == (EXIT_INTERNAL, EXIT_OK)
    assert "OSError: the list of files ends here" in master.log
    assert 'raise OSError("the list of files ends here")' in master.log
    assert {"0", "1"} <= set(cluster.notes("done"))
    assert sorted(cluster.notes("begun")) == sorted(cluster.notes("done"))

    cluster.write("mended", "")
    cluster.start_master()
    controller.start()
    codes = master.wait(), controller.wait()

    assert codes == (EXIT_OK, EXIT_OK)
    assert sorted(map(int, cluster.notes("done"))) == list(range(20))
    assert cluster.question("SELECT name, state FROM job") == [("Job", "succeeded")]


def test_a_generator_that_is_killed_is_started_again(cluster: Cluster) -> None:
    cluster.write_job(WORK.format(count=60, seconds=0.1))
    master = cluster.start_master()
    controller = cluster.start_controller()
    cluster.wait_for_notes("done", 5)

    # Its guard as well, with whose death it may be dead already.
    for pid in cluster.pids("generator_host"):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    codes = master.wait(), controller.wait()

    assert codes == (EXIT_OK, EXIT_OK)
    assert sorted(map(int, cluster.notes("done"))) == list(range(60))
    assert {told["tid"] for told in cluster.told()} == {str(number) for number in range(60)}


# Strangers, and friends who talk nonsense.


def talk_garbage(cluster: Cluster, dice: random.Random) -> None:
    with suppress(OSError), socket.create_connection(("127.0.0.1", cluster.port), 1) as connection:
        connection.settimeout(0.2)
        connection.sendall(dice.randbytes(dice.randint(1, 3000)))
        connection.recv(1000)


def greet_and_hang(cluster: Cluster, dice: random.Random) -> None:
    """Half of a greeting of ZMTP, or the whole of it with a mechanism that does not exist."""
    mechanism = dice.choice([b"NULL", b"PLAIN", b"CURVE", b"XXXX"])
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01" + mechanism.ljust(20, b"\0") + b"\0" + bytes(31)
    with suppress(OSError), socket.create_connection(("127.0.0.1", cluster.port), 1) as connection:
        connection.settimeout(0.2)
        connection.sendall(
            greeting[: dice.choice([9, 12, len(greeting)])] + dice.randbytes(dice.choice([0, 50]))
        )
        connection.recv(1000)


def come_without_a_key(cluster: Cluster, dice: random.Random) -> None:
    speak(cluster, [dice.randbytes(20), msgspec.msgpack.encode(Report(0.0, (("workers", 10**9),), []))])


def come_with_a_key_of_ones_own(cluster: Cluster, dice: random.Random) -> None:
    public, secret = zmq.curve_keypair()
    speak(cluster, [b"", dice.randbytes(50)], secret=secret, public=public)


def talk_nonsense_as_a_friend(cluster: Cluster, dice: random.Random) -> None:
    pair = keys.load_pair(cluster.directory / "keys", dice.choice(["bad-controller", "bad-client"]))
    frames = [dice.randbytes(dice.randint(0, 200)) for _ in range(dice.randint(1, 8))]
    speak(cluster, frames, secret=pair.secret, public=pair.public)


def say_what_another_role_may_say(cluster: Cluster, dice: random.Random) -> None:
    """A client that claims to have executed every task, and a controller that opens a job."""
    directory = cluster.directory / "keys"
    master = keys.load_public(directory, "master")
    address = f"tcp://127.0.0.1:{cluster.port}"
    for name, message, enclosure in (
        ("bad-client", Ended([End(token) for token in range(1 << 40, (1 << 40) + 100)]), [b""] * 100),
        ("bad-controller", Open("Job"), None),
        ("bad-controller", Ended([End(token) for token in range(1 << 40, (1 << 40) + 100)]), [b""] * 100),
    ):
        with Line(address, keys.load_pair(directory, name), master, instance="x", life="y") as line:
            wait_until = time.monotonic() + 2
            while not line.connected and time.monotonic() < wait_until:
                line.wait(0.1)
            line.say(message, enclosure)


def speak(cluster: Cluster, frames: list[bytes], secret: bytes = b"", public: bytes = b"") -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as peer:
        peer.setsockopt(zmq.LINGER, 100)
        peer.setsockopt(zmq.SNDTIMEO, 300)
        if secret:
            peer.setsockopt(
                zmq.CURVE_SERVERKEY, keys.load_public(cluster.directory / "keys", "master").public
            )
            peer.setsockopt(zmq.CURVE_SECRETKEY, secret)
            peer.setsockopt(zmq.CURVE_PUBLICKEY, public)
        peer.connect(f"tcp://127.0.0.1:{cluster.port}")
        with suppress(zmq.Again):
            for _ in range(20):
                peer.send_multipart(frames)


@contextmanager
def crowd(cluster: Cluster) -> Iterator[Counter[str]]:
    """Everybody of the above, again and again, for as long as the context lasts. Yields who has come how often.

    Friends have keys of their own: whoever has the same key on the same host is suspended with them.
    """
    key_dir = cluster.directory / "keys"
    for role in (Role.CONTROLLER, Role.CLIENT):
        keys.make(key_dir, f"bad-{role}", role)
        keys.authorize(key_dir, key_dir / f"bad-{role}.public")
    over, came = Event(), Counter[str]()
    guests = (
        talk_garbage, greet_and_hang, come_without_a_key, come_with_a_key_of_ones_own, talk_nonsense_as_a_friend,
        say_what_another_role_may_say,
    )  # fmt: skip

    def come(seed: int) -> None:
        dice = random.Random(seed)
        while not over.is_set():
            guest = dice.choice(guests)
            guest(cluster, dice)
            came[guest.__name__] += 1

    threads = [Thread(target=come, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield came
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_strangers_and_nonsense_do_not_disturb_a_run(cluster: Cluster) -> None:
    cluster.write_job(WORK.format(count=300, seconds=0.05))
    master = cluster.start_master()

    with crowd(cluster) as came:
        controller = cluster.start_controller(workers=4)
        wait_for("everybody", lambda: len(came) == 6)
        cluster.wait_for_notes("done", 300)
    codes = master.wait(), controller.wait()

    assert codes == (EXIT_OK, EXIT_OK)
    assert Counter(cluster.notes("done")) == Counter(str(number) for number in range(300))
    assert Counter(one["tid"] for one in cluster.told()) == Counter(str(number) for number in range(300))
    assert "Traceback" not in master.log + controller.log


@pytest.mark.parametrize("curve", ["on", "off"])
def test_a_run_on_one_host_works_with_and_without_keys(cluster: Cluster, curve: str) -> None:
    cluster.write_job(WORK.format(count=10, seconds=0))

    master = cluster.start_master({"security": {"curve": curve}})
    controller = cluster.start_controller(settings={"security": {"curve": curve}})

    assert (master.wait(), controller.wait()) == (EXIT_OK, EXIT_OK)
