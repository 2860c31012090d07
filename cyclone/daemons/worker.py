"""A worker: takes tasks, executes them one after the other, tells how each ended.

This is the only place where a task is unpickled and where code of a user runs, so whatever it does stays inside: its
exceptions become ends, its forks are kept from posing as this worker, and a signal is let in only where it can do no
harm. Ends are kept back for a few milliseconds and sent together; if a task then takes long, the controller sees it on
the progress page, and nudges. A worker that is nudged sends what it kept back, and gives back what it has not begun.
"""

from __future__ import annotations

import io
import os
import pickle
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from types import FrameType
from typing import Any

from cyclone.base_task import Attempt
from cyclone.clock import monotonic_ns
from cyclone.errors import EXIT_OK, EXIT_TASK_FAILED, CommandFailed, RecordError, TaskError
from cyclone.messages import NUDGE, VALUE_BYTES_MAX, Assignment, Entry, Finished, Place
from cyclone.model.lifecycle import Outcome
from cyclone.model.task import End, Token
from cyclone.plugins import make_importable
from cyclone.process.channel import Channel
from cyclone.process.progress import Progress
from cyclone.process.reaper import Reaper
from cyclone.record import RECORD_BYTES_MAX, RECORDS_BYTES_MAX, SINKS_VARIABLE, Record, encode, uid

#: Ends are kept back no longer than this, unless the next task takes longer than that.
_KEEP_BACK_NS = 5_000_000
_KEEP_BACK_BYTES = 4 << 20

#: Of the text of an error, in UTF-8.
_ERROR_BYTES_MAX = 16 * 1024
_SUMMARY_BYTES_MAX = 2 * 1024

#: Of a record besides its fields, its job and its tid.
_ENTRY_BYTES = 128

_PICKLE_PROTOCOL = 5

#: Has not come about (None is a value that a task may return).
_NOT_YET: Any = object()


def main(link_fd: int) -> None:
    """Run the reaper, whose forks are workers. link_fd: see `Reaper`."""
    make_importable(())
    Reaper(link_fd, worker_main).run()


def worker_main(channel_fd: int, progress_fd: int, slot: int) -> None:
    """Work until the controller closes the channel; on SIGTERM die of it, after `finally` has run.

    slot: whose worker this is; for those who look at a process from outside.
    """
    os.environ["CYCLONE_SLOT"] = str(slot)
    # What tasks print goes to the log of the controller, a line at a time, and is not lost with the worker.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
    channel = Channel(socket.socket(fileno=channel_fd), Place, blocking=True)
    progress = Progress(progress_fd)
    os.close(progress_fd)
    Worker(channel, progress).run()


class Worker:
    """Owns the ends that were not sent yet, and says when a signal may interrupt."""

    def __init__(self, channel: Channel[Place], progress: Progress) -> None:
        self._channel = channel
        self._progress = progress
        self._places = 0
        self._ends: list[End] = []
        self._values: list[bytes] = []
        self._entries: list[Entry] = []
        self._kept_bytes = 0
        self._rest: Iterator[tuple[int, tuple[Assignment, bytes]]] = iter(())  # what has not been begun
        # What is missing in the environment was not started by a controller, as in tests.
        self._sinks = frozenset(filter(None, os.environ.get(SINKS_VARIABLE, "").split(",")))
        self._may_interrupt = False  # we are inside a task, or waiting: nothing of ours is half done
        self._is_ending = False
        self._is_fork = False

    def run(self) -> None:
        """Return when the channel has ended."""
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(NUDGE, self._on_nudge)
        os.register_at_fork(after_in_child=self._on_fork)
        try:
            while not self._channel.closed:
                for place, payloads in self._hear():
                    self._work(place, payloads)
        except SystemExit:
            if not self._is_ending:
                raise
            self._die()

    def _hear(self) -> list[tuple[Place, list[bytes]]]:
        self._may_interrupt = True
        if self._is_ending:
            raise SystemExit
        heard = self._channel.receive()
        self._may_interrupt = False
        return heard

    def _work(self, place: Place, payloads: list[bytes]) -> None:
        """Make all attempts of one message, and send what was kept back."""
        self._places += 1
        places, mark, clock = self._places, self._progress.mark, monotonic_ns
        # Unix time is asked for once: from there on it is counted, and a step of the wall clock does no harm.
        started = sent = clock()
        unix_offset_s = time.time() - started * 1e-9
        task = value = _NOT_YET
        self._rest = rest = enumerate(zip(place.assignments, payloads, strict=True))
        for index, (assignment, payload) in rest:
            mark(places, index, started)
            recorder = Recorder(self._sinks, assignment)
            failure: tuple[Outcome, int, str] | None = None
            enclosed = b""
            try:
                self._may_interrupt = True
                if self._is_ending:
                    raise SystemExit
                task = pickle.loads(payload)  # noqa: S301 - who may submit may run code; that is what it is for
                attempt = Attempt(assignment.job, assignment.tid, assignment.token, assignment.attempt)
                # Past __setattr__, so that a frozen dataclass may be a task.
                object.__setattr__(task, "_attempt", attempt)
                object.__setattr__(task, "_recorder", recorder)
                value = task.execute()
                if value is not None:
                    enclosed = _enclosed(value)
                self._may_interrupt = False
            except BaseException as error:  # noqa: BLE001 - the border to the code of a user
                self._may_interrupt = False
                failure = _failure(error, task, value)
            if self._is_fork:
                os._exit(EXIT_OK if failure is None else EXIT_TASK_FAILED)
            if self._is_ending:
                raise SystemExit
            # Whatever their destructors do still belongs to this attempt.
            task = value = _NOT_YET
            ended = clock()
            duration_s, started_at = (ended - started) * 1e-9, unix_offset_s + started * 1e-9
            if failure is None:
                if recorder.entries:
                    # A thread that the task left behind may still add to them.
                    entries = [*recorder.entries]
                    self._ends.append(End(assignment.token, duration_s, started_at, records=_sent(entries)))
                    self._entries += entries
                    self._kept_bytes += sum(len(entry.body) for entry in entries)
                else:
                    self._ends.append(End(assignment.token, duration_s, started_at))
                self._kept_bytes += len(enclosed)
                self._values.append(enclosed)
            else:
                outcome, code, text = failure
                self._ends.append(End(assignment.token, duration_s, started_at, outcome, code, error=text))
                self._values.append(b"")
            started = ended
            if ended - sent >= _KEEP_BACK_NS or self._kept_bytes >= _KEEP_BACK_BYTES:
                self._send()
                sent = ended
        mark(places, -1, started)
        self._send()

    def _send(self, unbegun: Sequence[Token] = ()) -> None:
        if self._ends or unbegun:
            finished, values = Finished(self._ends, self._entries, [*unbegun]), self._values
            self._ends, self._values, self._entries, self._kept_bytes = [], [], [], 0
            self._channel.send(finished, values)

    # Signals and forks.

    def _on_term(self, _signum: int, _frame: FrameType | None) -> None:
        # The second one is for the impatient; a `finally` that runs is not interrupted by it.
        first, self._is_ending = not self._is_ending, True
        if first and self._may_interrupt:
            raise SystemExit(128 + signal.SIGTERM)

    def _on_nudge(self, _signum: int, _frame: FrameType | None) -> None:
        if self._may_interrupt:
            self._may_interrupt = False
            # Others may do what comes after a task that takes long. This ends the loop that makes the attempts.
            self._send([assignment.token for _, (assignment, _) in self._rest])
            self._may_interrupt = True
            if self._is_ending:
                raise SystemExit(128 + signal.SIGTERM)

    def _on_fork(self) -> None:
        """A task has forked, and this is the child: it must neither speak nor work in this worker's place."""
        self._is_fork = True
        self._channel.close()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(NUDGE, signal.SIG_DFL)

    def _die(self) -> None:
        """Tell what was finished before, and die of the signal that asked for it."""
        self._send()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)


class Recorder:
    """What one attempt records, until it is known whether it succeeded. entries: in the order of the calls.

    One for each attempt: what a thread that a task left behind records later goes nowhere.
    """

    __slots__ = ("_assignment", "_bytes", "_sinks", "entries")

    #: A task may record in several threads. One for all attempts, which are as many as the tasks.
    _one_at_a_time = threading.Lock()

    def __init__(self, sinks: frozenset[str], assignment: Assignment) -> None:
        self._sinks = sinks
        self._assignment = assignment
        self._bytes = 0
        self.entries: list[Entry] = []

    def record(
        self, sink: str, kind: type[Record], fields: Mapping[str, Any], at: float | None = None
    ) -> None:
        """See `BaseTask.record`. at: Unix time; None is now."""
        if sink not in self._sinks:
            named = ", ".join(sorted(self._sinks)) or "none"
            raise RecordError(f"no sink {sink!r} in [sinks] of this controller; there: {named}")
        if not (isinstance(kind, type) and issubclass(kind, Record)):
            raise RecordError(f"found {kind!r}, expected a kind of record: a subclass of cyclone.Record")
        body = encode(kind, fields)
        if len(body) > RECORD_BYTES_MAX:
            raise RecordError(f"a record of {len(body)} bytes, {RECORD_BYTES_MAX} are allowed")
        assignment, moment = self._assignment, time.time() if at is None else at
        with self._one_at_a_time:
            self._bytes += len(body) + len(assignment.tid) + len(assignment.job) + _ENTRY_BYTES
            if self._bytes > RECORDS_BYTES_MAX:
                raise RecordError(f"more than {RECORDS_BYTES_MAX} bytes of records of one attempt")
            key = uid(assignment.job_key, assignment.tid, len(self.entries))
            self.entries.append(Entry(key, sink, kind.kind, assignment.job, assignment.tid, moment, body))


def _sent(entries: Sequence[Entry]) -> tuple[tuple[str, int], ...]:
    """See `End.records`."""
    return tuple((sink, len([*run])) for sink, run in groupby(entries, attrgetter("sink")))


def _enclosed(value: object) -> bytes:
    pickled = pickle.dumps(value, _PICKLE_PROTOCOL)
    if len(pickled) > VALUE_BYTES_MAX:
        raise TaskError(
            f"the result has {len(pickled)} bytes, {VALUE_BYTES_MAX} may be sent; write it to a file"
        )
    return pickled


def _failure(error: BaseException, task: object, value: object) -> tuple[Outcome, int, str]:
    """What to call it, the code that goes with it, and what to tell people."""
    said = _said(error)
    what = f"{type(error).__name__}: {said}" if said else type(error).__name__
    if task is _NOT_YET:
        return Outcome.RAISED, 0, _text(f"the task cannot be unpickled here: {what}", error)
    if not hasattr(task, "execute"):
        return Outcome.RAISED, 0, _text(f"a {type(task).__name__} was submitted, which is not a task", None)
    if isinstance(error, TaskError):
        text = _text(said or what, None)
        if isinstance(error, CommandFailed) and error.returncode > 0:
            return Outcome.EXITED, error.returncode, text
        if isinstance(error, CommandFailed) and error.returncode < 0:
            return Outcome.SIGNALLED, -error.returncode, text
        return Outcome.RAISED, 0, text
    if value is not _NOT_YET:
        kind = type(value).__name__
        return Outcome.RAISED, 0, _text(f"the result, a {kind}, cannot be pickled: {what}", error)
    return Outcome.RAISED, 0, _text(what, error)


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as worse:  # noqa: BLE001 - __str__ is code of a user, too
        return f"(its text cannot be had: {type(worse).__name__})"


def _text(summary: str, error: BaseException | None) -> str:
    """One line, then the traceback; of one that is too long the end is kept, where the error is."""
    head = _utf8(" ".join(summary.split()))[:_SUMMARY_BYTES_MAX]
    if error is None:
        return head.decode("utf-8", "ignore")
    # Without the first frame, which is ours.
    inner = error.__traceback__.tb_next if error.__traceback__ else None
    trace = _utf8("".join(traceback.format_exception(type(error), error, inner)))
    tail = trace[-(_ERROR_BYTES_MAX - len(head) - 1) :]
    return b"\n".join((head, tail)).decode("utf-8", "ignore").rstrip("\n")


def _utf8(text: str) -> bytes:
    # A file name that is no UTF-8 may be part of an error, and must not keep its end from being told.
    return text.encode("utf-8", "backslashreplace")
