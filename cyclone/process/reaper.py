"""The process between a controller and its workers: it forks them, kills them and buries them.

It has one thread and knows no network, so that it may fork at any time; it has imported all that a worker needs, so
that a fork is a worker at once. It ends when its controller ends, for whatever reason, and takes everything below it
along: its last act is to look through /proc until nobody is left.

What a worker has started is known by these signs: it descends from the worker; or it is in the worker's session;
or it carries the worker's pid in its environment; or it is in the worker's control group, where there is one. Whoever
has none of them is found at the very end, because the reaper has adopted it.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import struct
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import TypeAlias

import msgspec

from cyclone.clock import monotonic
from cyclone.errors import EXIT_INTERNAL, EXIT_OK
from cyclone.messages import NUDGE, Guard, Hire, Kill
from cyclone.process.control_group import ControlGroup
from cyclone.process.former_lives import LIFE_VARIABLE, group_name
from cyclone.process.lineage import (
    adopt_orphans,
    collect,
    descendants,
    find_dead,
    has_variable,
    name_process,
    on_death_of_parent,
    processes,
    send,
    slay,
    slay_descendants,
)
from cyclone.process.timer import Timer

#: The environment variable with the pid of the worker; everything that a worker starts carries it.
WORKER_VARIABLE = "CYCLONE_WORKER"


_LETTER_BYTES_MAX = 4096

#: The two descriptors that come with a `Hire`.
_FDS = struct.Struct("=2i")
_FDS_BYTES = socket.CMSG_SPACE(_FDS.size)


class Letter(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """One packet between controller and reaper; what a mind has it told are messages of `cyclone.messages`."""


class Echo(Letter, frozen=True):
    """Controller to reaper, which says it again: it is neither stopped nor stuck."""


# Reaper to controller.


class Born(Letter, frozen=True):
    """The slot has a worker."""

    slot: int
    pid: int


class Unborn(Letter, frozen=True):
    """The slot has none, because the system refused to make a process."""

    slot: int
    reason: str


class Died(Letter, frozen=True):
    """The slot has none any more. status: its exit code, or minus the number of the signal that killed it."""

    slot: int
    pid: int
    status: int


ToReaper: TypeAlias = Hire | Kill | Guard | Echo
FromReaper: TypeAlias = Born | Unborn | Died | Echo

#: What a worker does: `work(channel descriptor, progress descriptor, slot)`, until its channel ends.
Work = Callable[[int, int, int], None]


@dataclass(slots=True)
class Worker:
    """One that has not been collected. until: when it must be dead, monotonic; None if nothing guards it."""

    pid: int
    until: float | None = None


class Reaper:
    """Owns the workers, by slot, and the letters that its controller has not taken yet.

    Letters come in the order in which they were written, and a slot is hired for again only after the death in it
    was heard of. So what is asked for a slot without a worker is about one that is dead, never about the next.
    """

    def __init__(self, link_fd: int, work: Work) -> None:
        """link_fd: of the SOCK_SEQPACKET socket whose other end the controller holds."""
        self._link = socket.socket(fileno=link_fd)
        self._link.set_inheritable(False)
        self._work = work
        self._workers: dict[int, Worker] = {}
        self._unsent: deque[bytes] = deque()
        self._decode = msgspec.msgpack.Decoder(ToReaper).decode
        self._encode = msgspec.msgpack.Encoder().encode
        self._ending = False
        # Each worker has a group of its own in it.
        self._group = ControlGroup.below_ours(group_name(os.environ[LIFE_VARIABLE]))
        self._posted, self._post = socket.socketpair()
        # When the next guard is due. A time-out of `poll` would stand still while the host is suspended.
        self._timer = Timer()

    def run(self) -> None:
        """Serve until the controller is gone; return when nothing that could be killed is left below."""
        self._settle()
        poll = select.poll()
        poll.register(self._posted, select.POLLIN)
        poll.register(self._timer, select.POLLIN)
        while not self._ending:
            poll.register(self._link, select.POLLIN | (select.POLLOUT if self._unsent else 0))
            self._timer.set(self._next_guard())
            poll.poll()
            self._forget_posted()
            # Before any guard is enforced: it may have been put off or taken back while we were late.
            self._obey()
            self._enforce()
            self._bury()
            self._say()
        if self._group is not None:
            self._group.kill()
        slay_descendants()
        if self._group is not None:
            self._group.remove()

    def _settle(self) -> None:
        name_process("cyclone-reaper")
        adopt_orphans()
        self._posted.setblocking(False)
        self._post.setblocking(False)
        signal.set_wakeup_fd(self._post.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _posted_already)
        signal.signal(signal.SIGTERM, self._on_term)
        # Whoever wants this tree to end speaks to the controller.
        for signum in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(signum, signal.SIG_IGN)
        on_death_of_parent(signal.SIGTERM)
        # Nothing of what is imported by now is ever collected: without this, the first collection in each worker
        # would write to all these pages and so copy them.
        gc.collect()
        gc.freeze()

    def _on_term(self, _signum: int, _frame: FrameType | None) -> None:
        self._ending = True

    def _forget_posted(self) -> None:
        try:
            self._posted.recv(4096)
        except BlockingIOError:
            return

    # What the controller wants.

    def _obey(self) -> None:
        while not self._ending:
            try:
                # Not `socket.recv_fds`: that of Python 3.11 takes flags and forgets them.
                packet, rights, _, _ = self._link.recvmsg(
                    _LETTER_BYTES_MAX, _FDS_BYTES, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return
            except ConnectionResetError:
                packet = b""
            if not packet:
                self._ending = True
                return
            match self._decode(packet):
                case Hire(slot):
                    # cmsg(3): `[(SOL_SOCKET, SCM_RIGHTS, the descriptors)]`.
                    self._fork(slot, *_FDS.unpack(rights[0][2]))
                case Kill(slot, signum):
                    self._kill(slot, signum)
                case Guard(slot, until):
                    if slot in self._workers:
                        self._workers[slot].until = until
                case Echo() as echo:
                    self._tell(echo)

    def _next_guard(self) -> float | None:
        """When the next guarded worker is due; None if there is none."""
        guards = [worker.until for worker in self._workers.values() if worker.until is not None]
        return min(guards, default=None)

    def _enforce(self) -> None:
        """Kill those whose controller did not renew their lease: it may be stopped, and others may begin soon."""
        now = monotonic()
        for slot, worker in self._workers.items():
            if worker.until is not None and worker.until <= now:
                worker.until = None
                self._kill(slot, signal.SIGKILL)

    def _fork(self, slot: int, channel_fd: int, progress_fd: int) -> None:
        us = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self._tell(Unborn(slot, f"fork: {error.strerror}"))
        else:
            if pid == 0:
                self._be_worker(us, channel_fd, progress_fd, slot)
            self._workers[slot] = Worker(pid)
            self._tell(Born(slot, pid))
        os.close(channel_fd)
        os.close(progress_fd)

    def _kill(self, slot: int, signum: int) -> None:
        if slot not in self._workers:
            return  # it died while the letter was on its way
        pid = self._workers[slot].pid
        if signum == signal.SIGKILL:
            self._slay_family(pid)
        elif signum == NUDGE:
            send(pid, signum)
        else:
            # The group of a worker that has not yet come to making one is not there; nor is a task then.
            send(-pid, signum)

    # What has died.

    def _bury(self) -> None:
        slots = {worker.pid: slot for slot, worker in self._workers.items()}
        while (pid := find_dead()) is not None:
            slot = slots.get(pid)
            if slot is None:
                collect(pid)  # an orphan that we had adopted
                continue
            # First what it left behind, then the news: who hears it may start the same work anew.
            self._slay_family(pid)
            # Only now may the system give its pid to somebody else, who is not to be taken for it.
            status = collect(pid)
            if self._group is not None:
                # One in which somebody has yet to die is removed at the end.
                self._group.below(str(pid)).remove()
            del self._workers[slot]
            self._tell(Died(slot, pid, status))
            # Many may die at once, and each takes a while: we are not stuck.
            self._say()

    def _slay_family(self, worker: int) -> None:
        slay(lambda: self._family(worker))
        if self._group is not None:
            # Also who is another user by now, whom we may not send a signal.
            self._group.below(str(worker)).kill()

    def _family(self, worker: int) -> set[int]:
        """The worker, if it lives, and all that bears a sign of having been started by it."""
        table = processes()
        family = descendants(worker, table)
        if worker in table:
            family.add(worker)
        elsewhere = descendants(os.getpid(), table) - family
        for other in self._workers.values():
            if other.pid != worker:
                elsewhere -= {other.pid, *descendants(other.pid, table)}
        variable = f"{WORKER_VARIABLE}={worker}".encode()
        family.update(pid for pid in elsewhere if table[pid].session == worker or has_variable(pid, variable))
        if self._group is not None:
            family |= self._group.below(str(worker)).members() & table.keys()
        return family

    def _tell(self, letter: FromReaper) -> None:
        self._unsent.append(self._encode(letter))

    def _say(self) -> None:
        """As far as the controller hears: while it is stopped, guards must be enforced all the same."""
        while self._unsent and not self._ending:
            try:
                self._link.send(self._unsent[0], socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except (BrokenPipeError, ConnectionResetError):
                self._ending = True
            else:
                self._unsent.popleft()

    # What only happens in the child.

    def _be_worker(self, reaper: int, channel_fd: int, progress_fd: int, slot: int) -> None:
        """Never returns."""
        status = EXIT_INTERNAL
        try:
            on_death_of_parent(signal.SIGKILL)
            if os.getppid() != reaper:
                os._exit(EXIT_INTERNAL)
            os.setsid()
            name_process("cyclone-worker")
            _reset_signals()
            for ours in (self._link, self._posted, self._post, self._timer):
                ours.close()
            os.environ[WORKER_VARIABLE] = str(os.getpid())
            self._enter_group()
            self._work(channel_fd, progress_fd, slot)
            status = EXIT_OK
        except BaseException:  # noqa: BLE001 - the border of a process
            # Above this line stands the reaper, which must not be run twice.
            traceback.print_exc()
        finally:
            os._exit(status)

    def _enter_group(self) -> None:
        group = None if self._group is None else self._group.make(str(os.getpid()))
        if group is not None:
            group.enter()


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    # SIGPIPE and SIGXFSZ stay ignored: Python code expects exceptions in their place.
    kept = {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ}
    for signum in signal.valid_signals() - kept:
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _posted_already(_signum: int, _frame: FrameType | None) -> None:
    # SIGCHLD has a handler only because a signal without one wakes nobody.
    pass
