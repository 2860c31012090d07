"""Tasks that behave as tasks do, good and bad; importable in test and worker alike."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from cyclone.base_task import BaseTask
from cyclone.errors import CommandFailed, TaskError
from cyclone.record import Record


class Call(BaseTask):
    """Executes one of the functions below."""

    def __init__(self, function, *arguments):
        super().__init__()
        self.function = function
        self.arguments = arguments

    def execute(self):
        return self.function(self, *self.arguments)


@dataclass(frozen=True)
class Frozen(BaseTask):
    number: int

    def execute(self):
        return self.number * 2, self.attempt.tid


class CannotBeUnpickled(BaseTask):
    def __reduce__(self):
        return _explode, ()

    def execute(self):
        raise AssertionError("never reached")


def _explode():
    raise ValueError("no way back")


class RudeError(Exception):
    def __str__(self):
        raise RuntimeError("no text for you")


def nothing(task):
    return None


def echo(task, value):
    return value


def attempt(task):
    return tuple(task.attempt)


def large(task, size):
    return b"x" * size


def unpicklable(task):
    return lambda: None


def fail(task, text):
    raise ValueError(text)


def fail_rudely(task):
    raise RudeError


def fail_quietly(task, text):
    raise TaskError(text)


def fail_deeply(task, depth):
    if depth:
        fail_deeply(task, depth - 1)
    raise ValueError("x" * 100_000)


def leave(task, code):
    sys.exit(code)


def interrupt(task):
    raise KeyboardInterrupt


def command(task, returncode):
    raise CommandFailed(returncode, f"it said {returncode}")


def die(task, signum):
    os.kill(os.getpid(), signum)


def vanish(task, code):
    os._exit(code)


def nap(task, seconds):
    time.sleep(seconds)


def mark_and_nap(task, file, seconds=3600):
    Path(file).write_text(str(os.getpid()))
    time.sleep(seconds)


def clean_up_when_stopped(task, file):
    try:
        mark_and_nap(task, file)
    finally:
        Path(file).write_text("cleaned up")


def swallow_the_stop(task, file):
    try:
        mark_and_nap(task, file)
    except SystemExit:
        return "as if nothing had happened"


def ignore_sigterm(task, file):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    mark_and_nap(task, file)


def fork_and_return(task, file):
    """The classic mistake: both parent and child go on."""
    if os.fork() == 0:
        Path(file).write_text(str(os.getpid()))
        return "from the child"
    os.wait()
    return "from the parent"


def fork_a_sleeper(task, file):
    if os.fork() == 0:
        mark_and_nap(task, file)
    time.sleep(3600)


def fork_a_stubborn_daemon(task, file):
    """Forked twice, in a session of its own, deaf to SIGTERM, and no program was started."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            ignore_sigterm(task, file)
        os._exit(0)
    time.sleep(3600)


def start_a_daemon(task, file):
    """A program, started by a shell that is gone, in a session of its own."""
    subprocess.run(["sh", "-c", f"setsid sh -c 'echo $$ > {file}; exec sleep 3600' & exit 0"], check=True)
    time.sleep(3600)


def start_a_daemon_and_return(task, file):
    subprocess.run(["sh", "-c", f"setsid sh -c 'echo $$ > {file}; exec sleep 3600' & exit 0"], check=True)


def environment(task):
    return {name: value for name, value in os.environ.items() if name.startswith("CYCLONE_")}


def surroundings(task):
    return {
        "session is own": os.getsid(0) == os.getpid(),
        "stdin": os.readlink("/proc/self/fd/0"),
        "descriptors": sorted(int(fd) for fd in os.listdir("/proc/self/fd")),
        "sigint": signal.getsignal(signal.SIGINT) == signal.SIG_DFL,
        "mask": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "here": str(Path.cwd()) in sys.path,
    }


def kill_the_reaper(task):
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(3600)


def close_all_descriptors(task):
    os.closerange(3, 1024)


def last_words(task, code):
    print("last words")
    os._exit(code)


class Measured(Record):
    kind = "measured"
    place: str
    count: int
    text: str = ""


def measure(task, times):
    for count in range(times):
        task.record("database", Measured, place="here", count=count)


def measure_for(task, *sinks):
    for sink in sinks:
        task.record(sink, Measured, place="here", count=1)


def measure_what_was_known(task, at):
    task.record_as_of(at, "database", Measured, place="here", count=0)
    task.record("database", Measured, place="here", count=1)


def measure_and_fail(task):
    measure(task, 1)
    raise ValueError("after it has recorded")


def measure_nonsense(task):
    task.record("database", Measured, colour="red")


def measure_for_nobody(task):
    task.record("nobody", Measured, place="here", count=1)


def measure_no_kind(task):
    task.record("database", "measured", place="here", count=1)


def measure_too_much(task):
    task.record("database", Measured, place="here", count=1, text="x" * 65536)


def measure_without_end(task):
    for _ in range(2000):
        task.record("database", Measured, place="here", count=1, text="x" * 60_000)


def measure_little_under_a_long_name(task):
    for _ in range(20_000):
        measure(task, 1)


def measure_for_no_name(task):
    task.record("", Measured, place="here", count=1)


def measure_and_return_too_much(task):
    measure(task, 1)
    return bytes(33 << 20)


def measure_in_threads(task, count, times):
    sys.setswitchinterval(1e-6)
    try:
        crowd = [threading.Thread(target=measure, args=(task, times)) for _ in range(count)]
        for one in crowd:
            one.start()
        for one in crowd:
            one.join()
    finally:
        sys.setswitchinterval(0.005)


_may_record, _has_recorded = threading.Event(), threading.Event()


def leave_a_recording_thread(task):
    def record_later():
        _may_record.wait(30)
        measure(task, 1)
        _has_recorded.set()

    threading.Thread(target=record_later, daemon=True).start()


def let_it_record(task):
    _may_record.set()
    assert _has_recorded.wait(30)
