"""Daemons that a program starts for itself on this host: whatever happens to it, they end with it.

Signals are blocked and asked for in the one place where such a program waits. So none can come between the start
of a daemon and the note that it is there, and none can interrupt the stopping.
"""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cyclone.clock import monotonic
from cyclone.model.task import signal_name
from cyclone.process.lineage import end_with_parent

LOOK_EVERY_S = 0.1
#: Whoever stops takes a moment; one that takes longer is told of.
_TELL_AFTER_S = 2.0
#: First it is asked to end, then to end at once, then it is killed; so long each may take.
STOPPING = ((signal.SIGTERM, 15.0), (signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0))

_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
#: A line of a log that is the reason of nothing, as `daemons/entry.py` has it written. All else is: warnings, errors,
#: the end of a traceback, and what a daemon says before it has read where its log is.
_NEWS = re.compile(r"[-\d]+ [:,\d]+ - (INFO|DEBUG): ")


class Interrupted(Exception):
    """Somebody wants this to end."""

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(signal.Signals(signum).name)


def block_signals() -> None:
    """From here on they are heard by `wait` only; to be called before anything is started."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def wait(seconds: float) -> None:
    """Wait, and raise Interrupted if somebody wants this to end."""
    told = signal.sigtimedwait(_SIGNALS, seconds)
    if told is not None:
        raise Interrupted(told.si_signo)


def tie_to(parent: int) -> None:
    """In a child that is about to become another program: end when the parent ends, and hear signals again."""
    end_with_parent(parent, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


@dataclass(frozen=True)
class _Daemon:
    """said_before: how many bytes of its log are of earlier runs."""

    process: subprocess.Popen[bytes]
    log: Path
    said_before: int


class OwnDaemons:
    """Owns the daemons that this program has started, by name: `master`, `controller`."""

    def __init__(self) -> None:
        self._daemons: dict[str, _Daemon] = {}

    def start(
        self, name: str, ini: Path, log: Path, directory: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        """environment: what it has in addition to ours. What it says outside of its log goes there as well."""
        us = os.getpid()
        with open(log, "ab") as out:
            said_before = out.tell()
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", f"cyclone.daemons.{name}", "-f", str(ini)],
                cwd=directory, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                # ^C in a terminal is for this program alone, which stops them in order.
                start_new_session=True,
                env={**os.environ, **(environment or {})},
                preexec_fn=lambda: tie_to(us),
            )  # fmt: skip
        self._daemons[name] = _Daemon(process, log, said_before)

    def pids(self) -> dict[str, int]:
        return {name: daemon.process.pid for name, daemon in self._daemons.items()}

    def exit_code(self, name: str) -> int | None:
        """None while it lives, minus the number of the signal if one has killed it."""
        return self._daemons[name].process.poll()

    def how_ended(self, name: str, after_kill: str = "") -> str:
        """Say how one that lives no more has ended, and the last trouble that it has told of or where its log is.

        after_kill: what its reader is advised to do if a signal has killed it.
        """
        daemon = self._daemons[name]
        code = daemon.process.returncode
        how = f"was killed by {signal_name(-code)}{after_kill}" if code < 0 else f"ended with {code}"
        said = daemon.log.read_bytes()[daemon.said_before :].decode("utf-8", "replace").splitlines()
        troubles = [line for line in said if line.strip() and not _NEWS.match(line)]
        return f"the {name} {how}; {f'{daemon.log}: {troubles[-1]}' if troubles else f'see {daemon.log}'}"

    def stop(self) -> None:
        """Return when nothing of it runs any more; tell of whoever takes its time."""
        tell_at = monotonic() + _TELL_AFTER_S
        for signum, within_s in STOPPING:
            deadline = monotonic() + within_s
            # One that is on its way out because everything has ended is not hurried.
            for name in self._living():
                self._daemons[name].process.send_signal(signum)
            while (living := self._living()) and monotonic() < deadline:
                if monotonic() > tell_at:
                    tell_at = math.inf
                    print(f"Waiting for the end of the {' and the '.join(living)}; ^C: at once", flush=True)
                if signal.sigtimedwait(_SIGNALS, LOOK_EVERY_S) is not None:
                    break  # the impatient need not wait

    def _living(self) -> list[str]:
        return [name for name, daemon in self._daemons.items() if daemon.process.poll() is None]
