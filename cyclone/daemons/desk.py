"""Where a generator hands tasks in and takes results out: the client's end of the protocol.

The caller's thread makes tasks and may compute for as long as it likes. Whoever has a turn at the line (`duty.py`) sends
what was handed in, hears the ends, and tells the master that we are here: that thread itself while it waits, otherwise
another one. Between them stands one lock around the tasks that are open.

Nothing is lost on the way: a task is kept here until its end was heard. All that are open are handed in again when
the master has started anew or has said more than was heard; those that it has not accepted, when the connection was
lost, or when it has answered something that was asked later, for it answers in order. That it is silent is no reason:
it may wait for its disk, and then nothing was lost.
"""

from __future__ import annotations

import logging
import pickle
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

import msgspec

from cyclone.base_task import BaseTask
from cyclone.clock import monotonic
from cyclone.daemons.duty import Duty
from cyclone.errors import CycloneError, MasterUnreachable, Refusal, RuleBroken
from cyclone.loop import Selector
from cyclone.messages import (
    VALUE_BYTES_MAX,
    Accepted,
    Close,
    Command,
    CommandDone,
    Leave,
    Message,
    Open,
    Opened,
    Refused,
    Results,
    Submission,
    Submit,
    TaskEnd,
)
from cyclone.model.resources import shape
from cyclone.model.task import JobNumber, Policy
from cyclone.task_generator import Result
from cyclone.wire.line import Line

log = logging.getLogger("generator")

SUBMIT_MOST = 2000
SUBMIT_BYTES = 8 << 20
#: Tasks that come in a stream are sent in batches this far apart; one that comes alone is sent at once.
GATHER_S = 0.002
STREAM = 16
BEAT_S = 2.0
#: How soon what could not be sent is tried again.
CLOGGED_S = 0.05
#: When nothing was answered for so long, something later is asked: the answer tells whether anything was lost.
OVERDUE_S = 10.0
#: So long one who was let in before may be refused, and one who never was.
REFUSED_S = 60.0
REFUSED_FIRST_S = 10.0
_PROTOCOL = 5


class _Open(NamedTuple):
    """A task that was handed in and whose end was not heard."""

    policy: Policy
    after: tuple[str, ...]
    payload: bytes


@dataclass(slots=True)
class _Request:
    """A `Submit` that waits for its answer.

    said_at: monotonic seconds. refusal: the answer, if it came while something earlier waits for its own.
    """

    said_at: float
    tids: list[str]
    refusal: str = ""


class Desk:
    """Owns the line and the open tasks of one job."""

    def __init__(self, line: Line, job: str, remember_s: float | None = None) -> None:
        """remember_s: see `TaskGenerator`."""
        self._line = line
        self._job_name = job
        self._remember_s = remember_s
        self._lock = threading.Lock()
        # Under the lock.
        self._open: dict[str, _Open] = {}  # by tid, in the order in which they were handed in
        self._unsent: deque[str] = deque()
        # Each has one end at the line and one in the caller's thread.
        self._ended: deque[tuple[TaskEnd, bytes]] = deque()
        self._commands: deque[Command] = deque()
        self._done: deque[CommandDone] = deque()
        # Said once, by one of both, and seen by the other.
        self._stopping = False
        self._trouble: CycloneError | None = None
        self._closing = False
        self._closed = False
        # Of whoever has a turn at the line.
        self._job: JobNumber = 0
        self._epoch = self._serial = 0
        self._parts = 0
        self._request = 0
        self._asked: dict[int, _Request] = {}  # by number, oldest first
        self._close_request = 0  # said when all was accepted; nothing is handed in after it
        self._connections = 0  # how many the line has had
        self._connected_at = 0.0  # when it was last seen to be, or began
        self._beat_at = 0.0
        self._sent_at = 0.0
        self._batch = 0  # how many tasks were sent then
        self._room_at = 0.0  # when to hand in again what there was no room for
        self._selector = Selector()
        self._duty = Duty(self._attend, self._leave_line)
        # Of the caller's thread alone.
        self._policies: dict[type[BaseTask], Policy] = {}
        self._unique = secrets.token_hex(6)
        self._count = 0
        self._has_waited = False  # since something was sent for him
        self.window = 0  # known when the job is open
        self.carry_out: Callable[[Command], CommandDone] = _carry_out_nothing

    # What a generator uses.

    @property
    def stopping(self) -> bool:
        return self._stopping

    def submit(self, task: BaseTask) -> str:
        """See `TaskGenerator.submit`. Raises Refusal when the master refused what was handed in before."""
        if not isinstance(task, BaseTask):
            raise TypeError(f"a {type(task).__name__} was handed in, which is not a BaseTask")
        tid = task.tid
        if tid is None:
            self._count += 1
            tid = task.tid = f"{self._unique}-{self._count}"
        payload = pickle.dumps(task, _PROTOCOL)
        if len(payload) > VALUE_BYTES_MAX:
            raise RuleBroken(f"task {tid!r} has {len(payload)} bytes, {VALUE_BYTES_MAX} are allowed")
        entry = _Open(self._policy_of(task), tuple(task.after), payload)
        self._carry_out_commands()
        while len(self._open) >= self.window and not self._stopping:
            self._wait(1.0)
        self._raise_trouble()
        with self._lock:
            if tid in self._open:
                return tid
            self._open[tid] = entry
            self._unsent.append(tid)
            first = len(self._unsent) == 1
        if first:
            self._have_it_sent()
        return tid

    def results(self, timeout_s: float | None) -> Iterator[Result]:
        """See `TaskGenerator.results`."""
        while self._await_end(timeout_s):
            while self._ended:
                yield _result(*self._ended.popleft())

    def _await_end(self, timeout_s: float | None) -> bool:
        """Whether there is an end to be told; False if there was none for so long, or none can come."""
        until = None if timeout_s is None else monotonic() + timeout_s
        self._carry_out_commands()
        while not self._ended:
            self._raise_trouble()
            left_s = None if until is None else until - monotonic()
            if self._stopping or (not self._open if left_s is None else left_s <= 0):
                return False
            self._wait(1.0 if left_s is None else left_s)
        return True

    def sleep(self, seconds: float) -> None:
        """See `TaskGenerator.sleep`."""
        until = monotonic() + seconds
        while not self._stopping and (left := until - monotonic()) > 0:
            self._wait(left)

    def _wait(self, timeout_s: float) -> None:
        """Attend to the line until something happens there, and carry out what somebody asks for."""
        self._raise_trouble()
        self._has_waited = True
        self._duty.take(timeout_s)
        self._carry_out_commands()

    def _carry_out_commands(self) -> None:
        while self._commands:
            self._done.append(self.carry_out(self._commands.popleft()))
            self._have_it_sent()

    def _have_it_sent(self) -> None:
        """The first thing after a wait at once; if more follows, by the other thread, in batches."""
        if self._has_waited and self._duty.is_callers:
            self._has_waited = False
            self._duty.take(0.0)
        else:
            self._duty.hand_over()

    # What the host uses.

    def open(self, timeout_s: float = 60.0) -> None:
        """Begin to speak, and return when the job is open. Raises MasterUnreachable, also when that takes too long."""
        self._connected_at = monotonic()
        until = self._connected_at + timeout_s
        self._register_line()
        self._selector.register(self._duty.wake_fd, self._duty.heed_waking)
        self._duty.start()
        while self.window == 0 and not self._stopping:
            if monotonic() >= until:
                raise MasterUnreachable(f"no answer from the master within {timeout_s:g} s")
            self._wait(1.0)

    def stop(self) -> None:
        """From a signal handler: have `stopping` become true."""
        # No lock: the thread that is interrupted may hold it.
        self._stopping = True
        self._duty.wake()

    def close(self) -> None:
        """No more tasks will come. Returns when the master knows; if it is stopping, at once."""
        # A job that is cut short stays open, so that the next start goes on with it.
        self._closing = not self._stopping
        while not (self._closed or self._stopping):
            self._wait(1.0)
        self.abandon()

    def abandon(self) -> None:
        """Stop speaking. The job stays open unless it was closed."""
        self._closed = True
        self._duty.close()

    def _raise_trouble(self) -> None:
        if self._trouble is not None:
            raise self._trouble

    def _policy_of(self, task: BaseTask) -> Policy:
        """Almost all tasks of a class are to be treated alike, and say so by not overriding anything."""
        kind = type(task)
        if not BaseTask.POLICY.isdisjoint(vars(task)):
            return _policy(task)
        policy = self._policies.get(kind)
        if policy is None:
            policy = self._policies[kind] = _policy(task)
        return policy

    # At the line.

    def _attend(self, timeout_s: float) -> bool:
        """One turn. What goes wrong is raised where the caller asks for something next."""
        if self._closed:
            return False
        try:
            self._beat()
            pause_s = self._gathering_s()
            if pause_s <= 0:
                self._send()
                pause_s = self._pause_s()
            self._selector.wait(min(pause_s, timeout_s))
        except CycloneError as error:
            self._trouble = error
        except Exception as error:  # nobody else would hear of it
            log.exception("internal error: please report this")
            self._trouble = CycloneError(f"internal error: {error}")
        except BaseException:
            # Ctrl-C, in the caller's thread and in the midst of anything: what was being sent is sent again.
            self._hand_in_all_again()
            raise
        return self._trouble is None

    def _pause_s(self) -> float:
        """For how long there is nothing to be done at the line unless something is heard."""
        if not self._line.connected:
            return inf
        now = monotonic()
        moment = self._beat_at
        if self._unsent:
            # There was no room for them, at the master or on the way.
            moment = min(moment, max(self._room_at, now + CLOGGED_S))
        return max(0.0, moment - now)

    def _leave_line(self) -> None:
        self._selector.close()
        self._line.close()

    def _beat(self) -> None:
        if self._line.connections != self._connections:
            self._connections = self._line.connections
            self._beat_at = 0.0
            self._hand_in_again()
        now = monotonic()
        if self._line.connected:
            self._connected_at = now
        if self._line.refused_reason:
            self._come_again(now, self._line.refused_reason)
        if now < self._beat_at or not self._line.connected:
            return
        self._beat_at = now + BEAT_S
        self._line.say(Open(self._job_name, self._job, self._remember_s))
        if self._close_request:
            self._line.say(Close(self._close_request, self._job))
        elif self._asked and now - next(reversed(self._asked.values())).said_at > OVERDUE_S:
            self._say_submit([], [])

    def _come_again(self, now: float, reason: str) -> None:
        """One may be refused because a network is bad, or many crowd at the door: that passes.

        Raises MasterUnreachable when it does not.
        """
        patience_s = REFUSED_S if self._connections else REFUSED_FIRST_S
        if self._line.connected or now - self._connected_at > patience_s:
            raise MasterUnreachable(reason)
        if now >= self._beat_at:
            self._beat_at = now + BEAT_S
            self._unregister_line()
            self._line.reconnect()
            self._register_line()

    def _register_line(self) -> None:
        for end in self._line.sockets:
            self._selector.register(end, self._receive)

    def _unregister_line(self) -> None:
        for end in self._line.sockets:
            self._selector.unregister(end)

    def _send(self) -> None:
        while self._done and self._line.connected:
            # One that gets lost is asked for again by whoever misses it.
            self._line.say(self._done.popleft())
        self._batch = 0
        while self._job and self._unsent and self._line.connected and monotonic() >= self._room_at:
            with self._lock:
                tids, entries = self._next_batch()
            self._sent_at = monotonic()
            self._batch += len(tids)
            if not self._say_submit(tids, entries):
                with self._lock:
                    self._unsent.extendleft(reversed(tids))
                return
        if self._closing and self._job and not (self._unsent or self._asked or self._close_request):
            # Said again with each beat until it is answered.
            self._request += 1
            self._close_request = self._request
            self._beat_at = 0.0

    def _gathering_s(self) -> float:
        """How long to let tasks gather before they are sent."""
        if self._batch < STREAM or len(self._unsent) >= SUBMIT_MOST:
            return 0.0
        return self._sent_at + GATHER_S - monotonic()

    def _next_batch(self) -> tuple[list[str], list[_Open]]:
        tids: list[str] = []
        entries: list[_Open] = []
        size = 0
        # The window may be narrower since a restart of the master, and more than it holds would never be taken.
        most = min(SUBMIT_MOST, self.window)
        while self._unsent and len(tids) < most and size < SUBMIT_BYTES:
            tid = self._unsent.popleft()
            entry = self._open.get(tid)
            if entry is not None:
                tids.append(tid)
                entries.append(entry)
                size += len(entry.payload) + sum(map(len, entry.after))
        return tids, entries

    def _say_submit(self, tids: list[str], entries: list[_Open]) -> bool:
        indexes: dict[Policy, int] = {}
        last: Policy | None = None
        index = 0
        tasks = []
        for tid, entry in zip(tids, entries, strict=True):
            if entry.policy is not last:
                last = entry.policy
                index = indexes.setdefault(last, len(indexes))
            tasks.append(Submission(tid, index, entry.after))
        self._request += 1
        message = Submit(self._request, self._job, list(indexes), tasks)
        if not self._line.say(message, [entry.payload for entry in entries]):
            return False
        self._asked[self._request] = _Request(monotonic(), tids)
        return True

    def _hand_in_again(self) -> None:
        """Everything that waits for an answer, in the order of before: what came later may refer to what came first."""
        with self._lock:
            again = [tid for request in self._asked.values() for tid in request.tids]
            self._asked.clear()
            self._unsent.extendleft(reversed(again))

    def _hand_in_all_again(self) -> None:
        if self._close_request:
            return  # all is on the master's disk, and nobody takes results any more
        with self._lock:
            self._asked.clear()
            self._unsent = deque(self._open)

    def _receive(self) -> None:
        for message, enclosure in self._line.receive():
            self._hear(message, enclosure)

    def _hear(self, message: Message, enclosure: list[bytes]) -> None:
        if isinstance(message, Results):
            self._on_results(message, enclosure)
        elif isinstance(message, Accepted):
            self._on_accepted(message)
        elif isinstance(message, Opened):
            self._on_opened(message)
        elif isinstance(message, Command):
            self._commands.append(message)
        elif isinstance(message, Refused):
            self._on_refused(message)
        elif isinstance(message, Leave):
            log.info("told to stop reason=%r", message.reason)
            self._stopping = True

    def _on_opened(self, message: Opened) -> None:
        self._job, self.window = message.job, message.window
        if (message.epoch, message.serial) != (self._epoch, self._serial):
            if self._epoch:
                log.info("handing in again epoch=%d open=%d", message.epoch, len(self._open))
            self._epoch, self._serial, self._parts = message.epoch, message.serial, 0
            self._hand_in_all_again()

    def _on_accepted(self, message: Accepted) -> None:
        for request in message.requests:
            if request == self._close_request:
                self._be_closed()
            elif self._asked.pop(request, None) is not None:
                if next(iter(self._asked), request) < request:
                    # What was asked before this, or its answer, got lost: only refusals come sooner than in their turn.
                    self._hand_in_again()
                self._raise_refusal()

    def _on_results(self, message: Results, enclosure: list[bytes]) -> None:
        if message.serial == self._serial + 1:
            self._parts += 1
            if self._parts == message.parts:
                self._serial, self._parts = message.serial, 0
        tasks, ended = self._open, self._ended
        with self._lock:
            for end, value in zip(message.ends, enclosure, strict=True):
                if tasks.pop(end.tid, None) is not None:
                    ended.append((end, value))

    def _on_refused(self, message: Refused) -> None:
        request = self._asked.get(message.request)
        if request is not None and message.later:
            # Tasks of a former life of this client fill the window, or the store is too large.
            self._room_at = monotonic() + BEAT_S
            self._hand_in_again()
        elif request is not None:
            request.refusal = message.reason
            self._raise_refusal()
        elif message.request == 0 and self._close_request:
            # The job is not open any more, which is what we wanted; the answer that said so got lost.
            self._be_closed()
        elif message.request == 0:
            raise Refusal(message.reason)

    def _raise_refusal(self) -> None:
        """Of the oldest request. A later one may refer to tasks of an earlier one that got lost on the way."""
        oldest = next(iter(self._asked.values()), None)
        if oldest is not None and oldest.refusal:
            first = next(iter(oldest.tids), None)
            where = f" (task {first!r} and {len(oldest.tids) - 1} more)" if first else ""
            raise Refusal(f"{oldest.refusal}{where}")

    def _be_closed(self) -> None:
        self._closed = True


def _carry_out_nothing(command: Command) -> CommandDone:
    return CommandDone(command.number, "", "this client knows no commands")


def _policy(task: BaseTask) -> Policy:
    """Raises ValueError when the task asks for something that cannot be."""
    kind = type(task)
    policy = Policy(
        kind=f"{kind.__module__}.{kind.__qualname__}",
        priority=task.priority,
        resources=shape(task.resources),
        timeout_s=task.timeout,
        retry=task.retry,
        expires_s=task.expires,
        exclusive=task.exclusive,
    )
    try:
        # The master would drop what is out of bounds, and nobody would hear of it.
        msgspec.convert(msgspec.to_builtins(policy), Policy)
    except msgspec.ValidationError as error:
        raise ValueError(f"{kind.__qualname__}: {error}") from None
    return policy


def _result(end: TaskEnd, value: bytes) -> Result:
    last = end.end
    loaded, trouble = _loaded(value)
    outcome = end.state.value if last is None else last.outcome.value
    error = trouble or (last.error if last is not None else "") or end.reason
    return Result(
        tid=end.tid,
        state=end.state.value,
        outcome=outcome,
        code=0 if last is None else last.code,
        value=loaded,
        error=error,
        attempts=end.attempts,
        duration_s=0.0 if last is None else last.duration_s,
    )


def _loaded(value: bytes) -> tuple[Any, str]:
    """A result, and why it is missing. What cannot be read must not end the generator: it is told at each resume."""
    if not value:
        return None, ""
    try:
        return pickle.loads(value), ""  # noqa: S301 - it comes from our own tasks
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the border to the code of a user
        return None, f"the result cannot be unpickled here: {type(error).__name__}: {error}"
