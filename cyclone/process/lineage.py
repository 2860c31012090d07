"""Who descends from whom, and how to make sure that nobody is left.

A parent link is lost when a parent dies, a group or session is left at will, and an environment can be cleared. Each
of these alone lets processes escape; what closes the gaps is that an orphan goes to its nearest ancestor that has
asked for orphans (prctl(2), PR_SET_CHILD_SUBREAPER), so that everything stays below that ancestor for good.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from cyclone.clock import monotonic
from cyclone.errors import EXIT_INTERNAL

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)

#: Who could not be killed in this time is stuck in the kernel, and ends as soon as it leaves it.
LAST_SWEEP_S = 5.0

#: How often to look again whether what was killed is gone.
_LOOK_AGAIN_S = 0.002


def adopt_orphans(adopt: bool = True) -> None:
    """Become (or stop being) the parent of every descendant whose own parent dies."""
    _prctl(_PR_SET_CHILD_SUBREAPER, int(adopt))


def on_death_of_parent(signum: int) -> None:
    """Have the kernel send us a signal when the thread that started us ends.

    What happened before this call is not noticed: look at `getppid()` afterwards.
    """
    _prctl(_PR_SET_PDEATHSIG, signum)


def end_with_parent(parent: int, signum: int) -> None:
    """In a child that is about to become another program: get this signal when the parent ends, or end now if it has."""
    on_death_of_parent(signum)
    if os.getppid() != parent:
        os._exit(EXIT_INTERNAL)


def name_process(name: str) -> None:
    """The name that `top` and `pstree` show; at most 15 bytes."""
    _prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()))


class Process(NamedTuple):
    parent: int
    session: int


def processes() -> dict[int, Process]:
    """Everybody alive that we can see, by pid. Zombies are not alive."""
    table = {}
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                raw = file.read()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it is gone, or hidden from us
        # proc(5): `pid (name) state ppid pgrp session …`; the name may hold blanks and parentheses.
        fields = raw[raw.rindex(b")") + 2 :].split()
        # A process whose first thread has ended looks like a zombie while its other threads live.
        if fields[0] not in b"ZX" or int(fields[17]) > 1:
            table[int(name)] = Process(int(fields[1]), int(fields[3]))
    return table


def descendants(root: int, table: dict[int, Process]) -> set[int]:
    """Children, their children, and so on; without the root."""
    children: dict[int, list[int]] = {}
    for pid, process in table.items():
        children.setdefault(process.parent, []).append(pid)
    found: set[int] = set()
    ahead = [root]
    while ahead:
        below = [pid for pid in children.get(ahead.pop(), ()) if pid not in found]
        found.update(below)
        ahead += below
    return found


def has_variable(pid: int, variable: bytes) -> bool:
    """Was this process started with `NAME=value` in its environment? False if that cannot be known."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return variable in file.read().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False


def slay(find: Callable[[], set[int]]) -> set[int]:
    """Kill all that `find` finds, also what they fork meanwhile; do not wait for their end. Return who that was."""
    frozen: set[int] = set()
    # A fork does not succeed once a signal is pending for the one who forks. So when a round finds nobody new,
    # there is nobody new, and a parent that is stopped cannot lose a child to somebody else by dying first.
    while new := find() - frozen:
        for pid in new:
            send(pid, signal.SIGSTOP)
        frozen |= new
    for pid in frozen:
        send(pid, signal.SIGKILL)
    return frozen


def slay_and_wait(find: Callable[[], set[int]], within_s: float) -> set[int]:
    """Kill all that `find` finds until it finds nobody, and collect our own dead children. Return who is left.

    Somebody is left after `within_s` seconds only if stuck in the kernel, or not ours to kill.
    """
    deadline = monotonic() + within_s
    while left := slay(find):
        collect_dead()
        if monotonic() > deadline:
            return left
        time.sleep(_LOOK_AGAIN_S)
    collect_dead()
    return set()


def slay_descendants(within_s: float = LAST_SWEEP_S) -> set[int]:
    """Kill everything below this process. Return who is left; see `slay_and_wait`."""
    return slay_and_wait(lambda: descendants(os.getpid(), processes()), within_s)


def find_dead() -> int | None:
    """A child that has ended, if there is one. Its pid is nobody else's until it is collected."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if found is None else found.si_pid


def collect(pid: int) -> int:
    """Collect a child that has ended. Returns its exit code, or minus the number of a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def collect_dead() -> dict[int, int]:
    """Collect every child that has ended: `{pid: exit code or minus the number of a signal}`."""
    dead: dict[int, int] = {}
    while (pid := find_dead()) is not None:
        dead[pid] = collect(pid)
    return dead


def send(pid: int, signum: int) -> None:
    """Send a signal to one process. That it is gone, or belongs to somebody else, changes nothing for us."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signum)


def _prctl(option: int, argument: int | ctypes.c_char_p) -> None:
    if _libc.prctl(option, argument, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl {option}: {os.strerror(number)}")
