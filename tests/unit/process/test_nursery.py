import os
import select
import signal
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager
from pathlib import Path

import pytest
import task_zoo
from kindergarten import DEADLINE_S, Kindergarten, is_alive, pid_in, until
from task_zoo import Call

from cyclone.clock import monotonic, monotonic_ns
from cyclone.errors import RuleBroken
from cyclone.process import nursery as nursery_module
from cyclone.process.former_lives import carriers, sweep_former_lives
from cyclone.process.nursery import Nursery, ReaperDied
from cyclone.process.reaper import Born, Died, Unborn

HERE = Path(__file__).parent

#: Each leaves more behind than its worker.
MULTIPLYING = [
    task_zoo.fork_a_sleeper,
    task_zoo.fork_a_stubborn_daemon,
    task_zoo.start_a_daemon,
]

STUBBORN = [task_zoo.mark_and_nap, task_zoo.ignore_sigterm, *MULTIPLYING]


def name(function):
    return function.__name__


def has_news(nursery, within_s=0.0):
    poll = select.poll()
    poll.register(nursery, select.POLLIN)
    return bool(poll.poll(within_s * 1000))


def wait_for_news(nursery):
    """Wait until there is something to receive, and leave it there."""
    assert has_news(nursery, DEADLINE_S)


def state(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@contextmanager
def stopped(pid):
    """It does nothing while this is entered, and goes on afterwards. First it does what it had begun."""
    until(lambda: state(pid) == "S", "its rest")
    os.kill(pid, signal.SIGSTOP)
    until(lambda: state(pid) == "T", "its stop")
    yield
    os.kill(pid, signal.SIGCONT)


# Coming and going.


def test_a_worker_is_born_and_works(garden):
    pid = garden.employ(1)

    _, value = garden.result(Call(task_zoo.echo, 5))

    assert value == 5
    assert is_alive(pid)


def test_many_workers_work_side_by_side(garden):
    slots = range(20)
    for slot in slots:
        garden.hire(slot)
        garden.place(slot, Call(task_zoo.echo, slot))

    garden.until(lambda: all(garden.values[slot] for slot in slots), "all values")

    assert [garden.values[slot] for slot in slots] == [[slot] for slot in slots]


@pytest.mark.parametrize(
    ("task", "status"),
    [
        (Call(task_zoo.vanish, 7), 7),
        (Call(task_zoo.die, signal.SIGKILL), -signal.SIGKILL),
        (Call(task_zoo.die, signal.SIGSEGV), -signal.SIGSEGV),
    ],
    ids=["exit", "kill", "segfault"],
)
def test_the_death_of_a_worker_is_told_with_its_cause(garden, task, status):
    pid = garden.employ(1)

    garden.place(1, task)

    assert garden.expect(Died) == Died(1, pid, status)


def test_a_slot_may_be_filled_again(garden):
    first = garden.employ(1)
    garden.nursery.kill(1, signal.SIGKILL)
    garden.expect(Died, 1)

    second = garden.employ(1)

    assert second != first
    assert garden.result(Call(task_zoo.echo, 5))[1] == 5


def test_a_slot_has_one_worker_at_a_time(garden):
    garden.employ(1)

    with pytest.raises(RuleBroken):
        garden.nursery.hire(1)


def test_killing_nobody_is_no_error(garden):
    garden.nursery.kill(1, signal.SIGKILL)
    garden.employ(1)

    assert garden.result(Call(task_zoo.echo, 5))[1] == 5


def test_a_worker_that_cannot_be_made_is_not_born(garden, monkeypatch):
    """The program of this test forks once and then has used up what it may."""
    nursery = Nursery("barren_reaper")
    nursery.start(uuid.uuid4().hex)
    hired = nursery.hire(1)

    events = []
    until(lambda: events.extend(nursery.receive()) or events)

    assert events == [Unborn(1, "fork: Resource temporarily unavailable")]
    hired.channel.close()
    hired.progress.close()
    assert nursery.close() == frozenset()


# Who did it, and how far it was.


def test_the_page_names_the_attempt_that_killed_its_worker(garden):
    garden.employ(1)
    garden.place(1, *(Call(task_zoo.nothing) for _ in range(3)))
    garden.place(1, Call(task_zoo.nothing), Call(task_zoo.die, signal.SIGKILL), Call(task_zoo.nothing))

    garden.expect(Died, 1)

    standing = garden.hired[1].progress.read()
    assert (standing.place, standing.assignment) == (2, 1)


def test_the_page_tells_since_when(garden, tmp_path):
    before = monotonic_ns()
    garden.employ(1)
    garden.place(1, Call(task_zoo.mark_and_nap, str(tmp_path / "note")))
    pid_in(tmp_path / "note")

    standing = garden.hired[1].progress.read()

    assert before < standing.started_ns < monotonic_ns()


def test_the_page_of_an_idle_worker_names_no_attempt(garden):
    garden.employ(1)
    garden.result(Call(task_zoo.nothing))

    garden.until(lambda: garden.hired[1].progress.read().assignment is None, "rest")

    assert garden.hired[1].progress.read().place == 1


def test_what_ended_before_the_death_is_heard(garden):
    garden.employ(1)
    garden.place(1, Call(task_zoo.nap, 0.01), Call(task_zoo.vanish, 1))

    garden.expect(Died, 1)

    assert [end.token for end in garden.ends[1]] == [1]


def test_a_stopped_worker_blocks_nobody(garden):
    stopped = garden.employ(1)
    garden.employ(2)
    os.kill(stopped, signal.SIGSTOP)

    garden.place(1, *(Call(task_zoo.echo, bytes(1 << 20)) for _ in range(40)))
    _, value = garden.result(Call(task_zoo.echo, "on time"), slot=2)

    assert value == "on time"
    assert garden.hired[1].channel.has_unsent
    os.kill(stopped, signal.SIGCONT)
    garden.until(lambda: len(garden.ends[1]) == 40, "the late ones")


# Guards.


@pytest.mark.parametrize("function", [task_zoo.mark_and_nap, task_zoo.start_a_daemon], ids=name)
def test_a_guarded_worker_dies_at_its_moment_without_another_word(garden, tmp_path, function):
    worker = garden.employ(1)
    garden.nursery.guard(1, monotonic() + 0.3)

    garden.place(1, Call(function, str(tmp_path / "note")))
    started = pid_in(tmp_path / "note")

    # Nothing is heard or said here, as if this process were stopped.
    until(lambda: not is_alive(worker) and not is_alive(started), "its end")
    assert garden.expect(Died, 1) == Died(1, worker, -signal.SIGKILL)


def test_a_guard_is_not_forgotten_while_the_host_sleeps(garden):
    garden.employ(1)

    def clocks():
        """proc(5), /proc/pid/fdinfo: of the timers that run. A time-out of `poll` would stand still meanwhile."""
        timers = [
            dict(line.split(":", 1) for line in said.splitlines())
            for descriptor in Path(f"/proc/{garden.nursery._reaper.pid}/fdinfo").iterdir()
            if "clockid" in (said := descriptor.read_text())
        ]
        return [int(timer["clockid"]) for timer in timers if timer["it_value"].strip() != "(0, 0)"]

    assert clocks() == []
    garden.nursery.guard(1, monotonic() + 3600)

    until(lambda: clocks() == [time.CLOCK_BOOTTIME], "a timer")


def test_a_guard_that_was_taken_back_or_put_off_kills_nobody(garden):
    workers = [garden.employ(slot) for slot in (1, 2, 3)]
    for slot in (1, 2, 3):
        garden.nursery.guard(slot, monotonic() + 0.2)
    garden.nursery.guard(1, None)
    garden.nursery.guard(2, monotonic() + 60)

    assert garden.expect(Died, 3).pid == workers[2]

    assert [garden.result(Call(task_zoo.echo, slot), slot=slot)[1] for slot in (1, 2)] == [1, 2]


def test_a_guard_that_crosses_the_death_of_its_worker_spares_the_next_one(garden):
    first = garden.employ(1)
    garden.employ(2)
    moment = monotonic() + 1
    os.kill(first, signal.SIGKILL)
    wait_for_news(garden.nursery)
    garden.nursery.guard(1, moment)
    garden.expect(Died, 1)
    second = garden.employ(1)

    garden.nursery.guard(2, moment + 0.01)
    garden.expect(Died, 2)

    assert garden.result(Call(task_zoo.echo, 5))[1] == 5
    assert is_alive(second)


def test_a_guard_that_was_taken_back_kills_nobody_although_the_reaper_is_late(garden):
    worker = garden.employ(1)
    moment = monotonic() + 0.5
    garden.nursery.guard(1, moment)
    garden.employ(2)
    with stopped(garden.nursery._reaper.pid):
        garden.nursery.guard(1, None)
        until(lambda: monotonic() > moment)

    garden.employ(3)

    assert is_alive(worker)


def test_a_guard_is_kept_while_the_controller_hears_nothing(cramped_garden):
    """The program of this test may have a handful of letters on the way."""
    garden = cramped_garden
    guarded, *others = (garden.employ(slot) for slot in range(20))
    garden.nursery.guard(0, monotonic() + 0.5)
    for slot in range(1, 20):
        garden.nursery.kill(slot, signal.SIGKILL)

    until(lambda: not is_alive(guarded), "the end of the guarded one")

    assert [garden.expect(Died, slot + 1).pid for slot in range(19)] == others


# Letters.


def test_a_burst_of_letters_arrives_whole_and_in_order(garden):
    worker = garden.employ(1)
    with stopped(garden.nursery._reaper.pid):
        for _ in range(2000):
            garden.nursery.guard(1, monotonic() + 1000)
        garden.nursery.guard(1, monotonic())
        garden.turn()

    assert garden.expect(Died, 1) == Died(1, worker, -signal.SIGKILL)
    assert garden.events == []


def test_the_descriptor_tells_when_there_is_room_for_letters_again(garden):
    garden.employ(1)
    with stopped(garden.nursery._reaper.pid):
        for _ in range(2000):
            garden.nursery.guard(1, None)
        before = has_news(garden.nursery)

    wait_for_news(garden.nursery)

    assert not before
    garden.until(lambda: not garden.nursery._unsent, "the sending of all")
    assert not has_news(garden.nursery)


# Nobody is left.


@pytest.mark.parametrize("function", STUBBORN[:3] + STUBBORN[4:], ids=name)
def test_sigkill_takes_all_that_a_task_has_started(garden, tmp_path, function):
    worker = garden.employ(1)
    garden.employ(2)
    garden.place(1, Call(function, str(tmp_path / "note")))
    started = pid_in(tmp_path / "note")

    garden.nursery.kill(1, signal.SIGKILL)

    assert garden.expect(Died, 1) == Died(1, worker, -signal.SIGKILL)
    until(lambda: not is_alive(started), "its end")
    assert garden.result(Call(task_zoo.echo, 5), slot=2)[1] == 5


@pytest.mark.parametrize("function", [task_zoo.fork_a_sleeper, task_zoo.start_a_daemon], ids=name)
def test_the_death_of_a_worker_takes_all_that_it_has_started(garden, tmp_path, function):
    worker = garden.employ(1)
    garden.place(1, Call(function, str(tmp_path / "note")))
    started = pid_in(tmp_path / "note")

    os.kill(worker, signal.SIGKILL)

    garden.expect(Died, 1)
    until(lambda: not is_alive(started), "its end")


def test_a_worker_does_not_take_what_another_has_started(garden, tmp_path):
    garden.employ(1)
    garden.employ(2)
    garden.place(2, Call(task_zoo.start_a_daemon, str(tmp_path / "note")))
    started = pid_in(tmp_path / "note")

    garden.nursery.kill(1, signal.SIGKILL)
    garden.expect(Died, 1)

    assert is_alive(started)


def test_sigterm_takes_nobody_who_ignores_it(garden, tmp_path):
    worker = garden.employ(1)
    garden.place(1, Call(task_zoo.ignore_sigterm, str(tmp_path / "note")))
    pid_in(tmp_path / "note")

    garden.nursery.kill(1, signal.SIGTERM)
    garden.employ(2)

    assert is_alive(worker)


@pytest.mark.parametrize("function", STUBBORN, ids=name)
def test_closing_leaves_nobody(tmp_path, function):
    garden = Kindergarten()
    garden.employ(1)
    garden.place(1, Call(function, str(tmp_path / "note")))
    pid_in(tmp_path / "note")

    garden.close()

    assert carriers(garden.life) == set()


@pytest.mark.parametrize("function", STUBBORN, ids=name)
def test_a_killed_reaper_leaves_nobody(garden, tmp_path, function):
    garden.employ(1)
    garden.employ(2)
    garden.place(1, Call(function, str(tmp_path / "note")))
    pid_in(tmp_path / "note")

    os.kill(garden.nursery._reaper.pid, signal.SIGKILL)

    assert garden.expect(ReaperDied) == ReaperDied(-signal.SIGKILL, frozenset())
    assert carriers(garden.life) == set()


def test_after_a_killed_reaper_there_may_be_another(garden):
    garden.employ(1)
    garden.place(1, Call(task_zoo.kill_the_reaper))
    garden.expect(ReaperDied)

    garden.nursery.start(garden.life)
    garden.employ(1)

    assert garden.result(Call(task_zoo.echo, 5))[1] == 5


def look_after(garden, times, monkeypatch):
    """As somebody does who has all the time that it takes."""
    for _ in range(times):
        due = garden.nursery._look_at
        monkeypatch.setattr("cyclone.process.nursery.monotonic", lambda due=due: due)
        assert garden.nursery.look_after_reaper() == due + nursery_module.LOOK_S


@pytest.mark.parametrize(
    "letters", [0, 100_000], ids=["with nothing to read", "with more to read than it can"]
)
def test_a_reaper_that_is_stopped_is_ended_in_the_end(garden, monkeypatch, letters):
    garden.employ(1)
    os.kill(garden.nursery._reaper.pid, signal.SIGSTOP)
    for _ in range(letters):
        garden.nursery.kill(1, signal.SIGURG)

    look_after(garden, nursery_module.LOOKS_MOST + 1, monkeypatch)

    assert garden.expect(ReaperDied) == ReaperDied(-signal.SIGKILL, frozenset())
    assert carriers(garden.life) == set()


def test_a_reaper_is_not_ended_because_its_controller_was_stopped_or_its_host_slept(garden, monkeypatch):
    garden.employ(1)
    with stopped(garden.nursery._reaper.pid):
        # In each of these an hour or a year may have passed since the last.
        look_after(garden, nursery_module.LOOKS_MOST, monkeypatch)
    garden.turn()

    assert garden.result(Call(task_zoo.echo, 5))[1] == 5


def test_a_reaper_that_answers_is_asked_again(garden, monkeypatch):
    garden.employ(1)

    for _ in range(3):
        look_after(garden, nursery_module.LOOKS_MOST, monkeypatch)
        garden.until(lambda: garden.nursery._looks == 0, "its answer")

    assert garden.result(Call(task_zoo.echo, 5))[1] == 5


def test_a_reaper_that_has_not_said_anything_yet_may_take_long_to_start(garden, monkeypatch):
    with stopped(garden.nursery._reaper.pid):
        look_after(garden, nursery_module.LOOKS_MOST * 3, monkeypatch)

    garden.employ(1)


def test_a_program_that_is_no_reaper_is_a_dead_reaper(capfd):
    nursery = Nursery("cyclone.nowhere")
    nursery.start(uuid.uuid4().hex)

    events = []
    until(lambda: events.extend(nursery.receive()) or events)

    assert events == [ReaperDied(1, frozenset())]
    nursery.close()


def stand_in(tmp_path, functions):
    """A controller with a worker for each function, all of them at work; its life with it."""
    life = uuid.uuid4().hex
    command = [sys.executable, str(HERE / "stand_in_controller.py"), life, str(tmp_path / "note")]
    controller = subprocess.Popen([*command, *map(name, functions)])
    for function in functions:
        pid_in(tmp_path / f"note.{name(function)}")
    return controller, life


def test_a_killed_controller_leaves_nobody(tmp_path):
    controller, life = stand_in(tmp_path, STUBBORN)
    below = len(carriers(life))

    controller.kill()
    controller.wait()

    assert below >= 1 + len(STUBBORN) + len(MULTIPLYING)
    until(lambda: not carriers(life), "the end of all")


def test_what_a_controller_and_its_reaper_leave_is_swept_by_the_next_life(tmp_path):
    controller, life = stand_in(tmp_path, STUBBORN)
    (reaper,) = (pid for pid in carriers(life) if is_child(pid, controller.pid))
    sweep_former_lives(tmp_path / "lives", life)
    os.kill(controller.pid, signal.SIGSTOP)
    os.kill(reaper, signal.SIGKILL)
    controller.kill()
    controller.wait()
    # The daemon that had its own session and was started by a program has nobody above it any more.
    assert carriers(life)

    left = sweep_former_lives(tmp_path / "lives", "next")

    assert left == set()
    assert carriers(life) == set()


def test_a_worker_dies_with_its_reaper_although_nobody_is_left_to_kill_it(tmp_path):
    controller, life = stand_in(tmp_path, [task_zoo.mark_and_nap])
    (reaper,) = (pid for pid in carriers(life) if is_child(pid, controller.pid))
    os.kill(controller.pid, signal.SIGSTOP)

    os.kill(reaper, signal.SIGKILL)
    controller.kill()
    controller.wait()

    until(lambda: not carriers(life), "the end of all")


def is_child(pid, parent):
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rsplit(b")", 1)[1].split()[1]) == parent


def test_events_come_in_their_order(garden):
    garden.employ(1)
    garden.nursery.kill(1, signal.SIGKILL)
    garden.until(lambda: any(isinstance(event, Died) for event in garden.events))
    garden.employ(1)

    garden.nursery.kill(1, signal.SIGKILL)
    garden.until(lambda: sum(isinstance(event, Died) for event in garden.events) == 2)

    assert [type(event) for event in garden.events] == [Died, Died]
    assert not any(isinstance(event, Born) for event in garden.events)
