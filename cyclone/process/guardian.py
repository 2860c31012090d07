"""A process that stands between a daemon and another one that it has started, and clears up below when either ends.

The daemon itself can do that only for as long as it lives. Nobody who is killed with SIGKILL has a last word, so it
takes somebody else to have it.
"""

from __future__ import annotations

import os
import signal

from cyclone.process.lineage import (
    adopt_orphans,
    collect_dead,
    name_process,
    on_death_of_parent,
    send,
    slay_descendants,
)

#: What the kernel sends when the daemon has died. Not one that a daemon sends.
_PARENT_DIED = signal.SIGUSR1
_PASSED_ON = (signal.SIGTERM, signal.SIGHUP)
_HEARD = frozenset({signal.SIGCHLD, signal.SIGINT, _PARENT_DIED, *_PASSED_ON})


def go_on_guarded() -> None:
    """Go on in a child; who called this becomes its guardian, and ends as the child does.

    SIGTERM and SIGHUP reach the child. When it ends, or the parent of the guardian, nothing is left below the guardian;
    when the guardian itself is killed, the child is. To be called before there is a second thread.
    """
    daemon = os.getppid()
    adopt_orphans()
    former = signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
    guardian = os.getpid()
    child = os.fork()
    if child == 0:
        on_death_of_parent(signal.SIGKILL)
        if os.getppid() != guardian:
            os._exit(0)
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
        return
    name_process("cyclone-guard")
    on_death_of_parent(_PARENT_DIED)
    if os.getppid() != daemon:
        send(guardian, _PARENT_DIED)
    _end_as(_guard(child))


def _guard(child: int) -> int:
    """Until the child or the daemon has ended. Returns the child's exit code, or minus the number of a signal."""
    status: int | None = None
    while status is None:
        heard = signal.sigwait(_HEARD)
        if heard in _PASSED_ON:
            send(child, heard)
        elif heard == _PARENT_DIED:
            status = -signal.SIGKILL
        # One signal may stand for many deaths; most are of orphans, which concern nobody.
        status = collect_dead().get(child, status)
    slay_descendants()
    return status


def _end_as(status: int) -> None:
    """Nothing of what Python does at its end is ours: it belongs to the child."""
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {-status})
        os.kill(os.getpid(), -status)
    os._exit(status)
