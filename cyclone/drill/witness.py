"""Writes down what was really executed and told, past all daemons, so that the store is not its own witness.

`Witnessed` is the task generator of every drill. It runs another one, of any class, and puts each of its tasks into an
envelope, `WitnessedTask`, that writes a line when it begins and one when it has ended. What the inner task does, returns
and records is not touched; its treatment (retries, exclusive, …) is taken over.

Lines are JSON arrays, each written by one write(2) to a file opened with O_APPEND: whole, in order, and there as soon as
the call returns, whoever is killed the moment after. Times are on the boot-time clock, which nobody can set.

Whether two attempts at an exclusive task overlap is asked of the kernel: each holds an flock on a file of the task's,
which goes with the process whatever becomes of it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from cyclone.base_task import Attempt, BaseTask, Recorder
from cyclone.clock import monotonic
from cyclone.drill.notes import AnyNote, Began, Ended, Handed, Told, Woke
from cyclone.ini import Ini
from cyclone.plugins import load_class
from cyclone.process.replace import replace_content
from cyclone.record import Record
from cyclone.task_generator import Desk, Result, TaskGenerator

#: In the environment of everybody who belongs to a run: the directory of its witness.
VARIABLE = "CYCLONE_DRILL"

_NOTES, _LOCKS, _CALM = "witness", "locks", "calm"

#: So often a generator that waits looks whether it is to come to an end.
_LOOK_S = 0.2


@dataclass(frozen=True)
class Witness:
    """The files of one run, in a directory that is there."""

    directory: Path

    def note(self, note: AnyNote) -> None:
        line = msgspec.json.encode(note) + b"\n"
        file = os.open(self.directory / _NOTES, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.write(file, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(file)

    def notes(self) -> list[AnyNote]:
        """All so far, in the order in which they were written. Raises msgspec.DecodeError for a line that is none."""
        file = self.directory / _NOTES
        if not file.exists():
            return []
        decode = msgspec.json.Decoder(AnyNote).decode
        return [decode(line) for line in file.read_bytes().splitlines()]

    def claim(self, tid: str) -> tuple[int, bool]:
        """Take the task for this process until its end. Returns a descriptor to keep open, and whether it was free."""
        (self.directory / _LOCKS).mkdir(exist_ok=True)
        name = blake2b(tid.encode(), digest_size=16).hexdigest()
        file = os.open(self.directory / _LOCKS / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return file, False
        return file, True

    def calm(self) -> None:
        """From now on no more tasks are to be made: those that are there come to their end."""
        replace_content(self.directory / _CALM, repr(now()).encode("ascii"))

    @property
    def calm_at(self) -> float | None:
        """Since when, on the boot-time clock; None as long as more tasks are wanted."""
        try:
            return float((self.directory / _CALM).read_text(encoding="ascii"))
        except FileNotFoundError:
            return None


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def mark(value: object) -> str:
    """Tells values apart that look the same wherever they are; "" for others, whose text may hold addresses."""
    if not isinstance(value, str | bytes | int | float | bool):
        return ""
    return blake2b(repr(value).encode("utf-8", "backslashreplace"), digest_size=6).hexdigest()


def ours() -> Witness:
    """The witness of the run that this process belongs to."""
    return Witness(Path(os.environ[VARIABLE]))


class WitnessedTask(BaseTask):
    """The envelope. inner: the task that is really executed, here and nowhere else."""

    def __init__(self, inner: BaseTask) -> None:
        self.inner = inner
        for name in (*BaseTask.POLICY, "after"):
            setattr(self, name, getattr(inner, name))
        if inner.tid is not None:
            self.tid = inner.tid

    def execute(self) -> Any:
        witness, attempt = ours(), self.attempt
        # Its own: what the worker calls it is what is on trial.
        tid = attempt.tid if self.tid is None else self.tid
        lock, alone = witness.claim(tid) if self.exclusive else (None, True)
        node = os.environ.get("CYCLONE_DAEMON", "")
        witness.note(Began(now(), tid, attempt.token, node, os.getpid(), alone))
        count = _Count(self._recorder)
        ok, value = False, None
        try:
            value = _execute(self.inner, attempt, count)
            ok = True
            return value
        finally:
            witness.note(Ended(now(), tid, attempt.token, count.records, ok, mark(value)))
            if lock is not None:
                os.close(lock)


def _execute(task: BaseTask, attempt: Attempt, recorder: Recorder) -> Any:
    # Past __setattr__, so that a frozen dataclass may be a task.
    object.__setattr__(task, "_attempt", attempt)
    object.__setattr__(task, "_recorder", recorder)
    return task.execute()


class _Count:
    """Passes records on, and counts them."""

    def __init__(self, recorder: Recorder | None) -> None:
        self._recorder = recorder
        self.records: Counter[str] = Counter()  # by sink

    def record(
        self, sink: str, kind: type[Record], fields: Mapping[str, Any], at: float | None = None
    ) -> None:
        assert self._recorder is not None, "tasks are executed by workers, which lend a recorder"
        self._recorder.record(sink, kind, fields, at)
        self.records[sink] += 1


class Witnessed(TaskGenerator):
    """Runs the task generator that its ini file names, as the ini file of a master does, and bears witness.

    spare: whether tasks may lose workers and hosts without end. The drill takes many more of them than would be an
    accident, and that is not the tasks' fault.
    """

    def __init__(self, config: Ini) -> None:
        super().__init__(config)
        file = config.text("task_generator", "config_file", "")
        path = [part for part in config.text("task_generator", "path", "").split(":") if part]
        kind = load_class(
            config.text("task_generator", "module"), config.text("task_generator", "class"), TaskGenerator, path,
            file=config.file, section="task_generator",
        )  # fmt: skip
        self._inner: TaskGenerator = kind(Ini.read(file) if file else Ini({}))
        self._spare = config.boolean("task_generator", "spare")

    def validate_config(self) -> None:
        self._inner.validate_config()

    def run(self) -> None:
        desk = _WitnessingDesk(self._lent, ours(), spare=self._spare)
        self._inner._attach(desk)
        self._inner.run()
        # One that was told to stop may return before all has ended; the drill wants to see the end of everything.
        for result in desk.results(None):
            self._inner.on_result(result)


class _WitnessingDesk:
    """A desk that writes down what passes over it, and says `stopping` when no more tasks are wanted."""

    def __init__(self, desk: Desk, witness: Witness, *, spare: bool) -> None:
        self._desk, self._witness, self._spare = desk, witness, spare
        self._life = secrets.token_hex(6)
        witness.note(Woke(now(), self._life))

    @property
    def stopping(self) -> bool:
        return self._desk.stopping or self._witness.calm_at is not None

    def submit(self, task: BaseTask) -> str:
        envelope = WitnessedTask(task)
        if self._spare:
            envelope.retry = msgspec.structs.replace(task.retry, crashes=10**6, losses=10**6)
        if envelope.tid is not None:
            # Before: it may be executed before `submit` returns.
            self._witness.note(Handed(now(), envelope.tid, self._life, [*task.after]))
            task.tid = self._desk.submit(envelope)
        else:
            task.tid = self._desk.submit(envelope)
            self._witness.note(Handed(now(), task.tid, self._life, [*task.after]))
        return str(task.tid)

    def results(self, timeout_s: float | None) -> Iterator[Result]:
        for result in self._desk.results(timeout_s):
            self._witness.note(Told(now(), result.tid, self._life, result.state, mark(result.value)))
            yield result

    def sleep(self, seconds: float) -> None:
        until = monotonic() + seconds
        while not self.stopping and (left_s := until - monotonic()) > 0:
            self._desk.sleep(min(left_s, _LOOK_S))
