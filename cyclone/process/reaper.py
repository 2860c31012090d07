"""The process between a controller and its workers: it forks them, kills them and buries them.

It has one thread and knows no network, so that it may fork at any time; it has imported all that a worker needs, so
that a fork is a worker at once. It ends when its controller ends, for whatever reason, and takes everything below it
along: its last act is to look through /proc until nobody is left.

What a worker has started is known by three signs: it descends from the worker; or it is in the worker's session;
or it carries the worker's pid in its environment. Whoever has none of them (forked twice, in a session of its own,
without ever starting a program) is found at the very end, because the reaper has adopted it.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import struct
import traceback
from collections.abc import Callable
from time import monotonic
from types import FrameType
from typing import TypeAlias

import msgspec

from cyclone.errors import EXIT_INTERNAL, EXIT_OK
from cyclone.messages import Guard, Hire, Kill
from cyclone.process.lineage import (
    adopt_orphans,
    collect_dead,
    descendants,
    has_variable,
    name_process,
    on_death_of_parent,
    processes,
    send,
    slay,
    slay_descendants,
)

#: The environment variable with the pid of the worker; everything that a worker starts carries it.
WORKER_VARIABLE = "CYCLONE_WORKER"

#: Asks a worker, and nobody else, to report at once what it has finished. Ignored by default (signal(7)), so that
#: it harms nobody, whenever it comes.
NUDGE = signal.SIGURG

#: Who could not be killed in this time is stuck in the kernel, and ends as soon as it leaves it.
_LAST_SWEEP_S = 5.0

_LETTER_BYTES_MAX = 4096

#: The two descriptors that come with a `Hire`.
_FDS = struct.Struct("=2i")
_FDS_BYTES = socket.CMSG_SPACE(_FDS.size)


class Letter(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """One packet from the reaper; what it is told are messages of `cyclone.messages`."""


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


ToReaper: TypeAlias = Hire | Kill | Guard
FromReaper: TypeAlias = Born | Unborn | Died

#: What a worker does: `work(channel descriptor, progress descriptor, slot)`, until its channel ends.
Work = Callable[[int, int, int], None]


class Reaper:
    """Owns the workers: `{slot: pid}` of those that have not been collected."""

    def __init__(self, link_fd: int, work: Work) -> None:
        """link_fd: of the SOCK_SEQPACKET socket whose other end the controller holds."""
        self._link = socket.socket(fileno=link_fd)
        self._link.set_inheritable(False)
        self._work = work
        self._workers: dict[int, int] = {}
        self._guards: dict[int, float] = {}  # slot -> when its worker must be dead, monotonic
        self._decode = msgspec.msgpack.Decoder(ToReaper).decode
        self._encode = msgspec.msgpack.Encoder().encode
        self._ending = False
        self._posted, self._post = socket.socketpair()

    def run(self) -> None:
        """Serve until the controller is gone; return when nothing that could be killed is left below."""
        self._settle()
        poll = select.poll()
        poll.register(self._link, select.POLLIN)
        poll.register(self._posted, select.POLLIN)
        while not self._ending:
            poll.poll(self._pause_ms())
            self._forget_posted()
            self._enforce()
            self._bury()
            self._obey()
        slay_descendants(_LAST_SWEEP_S)

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
                    self._guard(slot, until)

    def _guard(self, slot: int, until: float | None) -> None:
        if until is None:
            self._guards.pop(slot, None)
        else:
            self._guards[slot] = until

    def _pause_ms(self) -> float | None:
        """Until the next guarded worker is due; None if there is none."""
        if not self._guards:
            return None
        return max(0.0, min(self._guards.values()) - monotonic()) * 1000

    def _enforce(self) -> None:
        """Kill those whose controller did not renew their lease: it may be stopped, and others may begin soon."""
        if not self._guards:
            return
        now = monotonic()
        for slot in [slot for slot, until in self._guards.items() if until <= now]:
            del self._guards[slot]
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
            self._workers[slot] = pid
            self._tell(Born(slot, pid))
        os.close(channel_fd)
        os.close(progress_fd)

    def _kill(self, slot: int, signum: int) -> None:
        pid = self._workers.get(slot)
        if pid is None:
            return  # it died while the letter was on its way
        if signum == signal.SIGKILL:
            slay(lambda: self._family(pid))
        elif signum == NUDGE:
            send(pid, signum)
        else:
            # The group of a worker that has not yet come to making one is not there; nor is a task then.
            send(-pid, signum)

    # What has died.

    def _bury(self) -> None:
        slots = {pid: slot for slot, pid in self._workers.items()}
        for pid, status in collect_dead():
            slot = slots.get(pid)
            if slot is None:
                continue  # an orphan that we had adopted
            # First what it left behind, then the news: who hears it may start the same work anew.
            slay(lambda pid=pid: self._family(pid))  # type: ignore[misc]
            del self._workers[slot]
            self._guards.pop(slot, None)
            self._tell(Died(slot, pid, status))

    def _family(self, worker: int) -> set[int]:
        """The worker, if it lives, and all that bears a sign of having been started by it."""
        table = processes()
        family = descendants(worker, table)
        if worker in table:
            family.add(worker)
        elsewhere = descendants(os.getpid(), table) - family
        for pid in self._workers.values():
            if pid != worker:
                elsewhere -= {pid, *descendants(pid, table)}
        variable = f"{WORKER_VARIABLE}={worker}".encode()
        family.update(pid for pid in elsewhere if table[pid].session == worker or has_variable(pid, variable))
        return family

    def _tell(self, letter: FromReaper) -> None:
        try:
            self._link.send(self._encode(letter))
        except (BrokenPipeError, ConnectionResetError):
            self._ending = True

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
            for ours in (self._link, self._posted, self._post):
                ours.close()
            os.environ[WORKER_VARIABLE] = str(os.getpid())
            self._work(channel_fd, progress_fd, slot)
            status = EXIT_OK
        except BaseException:  # noqa: BLE001 - the border of a process
            # Above this line stands the reaper, which must not be run twice.
            traceback.print_exc()
        finally:
            os._exit(status)


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
