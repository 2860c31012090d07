"""Runs a program for a bounded time and a bounded output, and leaves nothing of it behind."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, NamedTuple

from cyclone.clock import monotonic

_log = logging.getLogger(__name__)

#: What one stream of a program may hold: the layout of a file over 2,000 OSTs takes 200 kB.
OUTPUT_BYTES_MAX = 2**26

#: How long a killed program is waited for. One that is stuck in the kernel dies when the kernel lets go of it.
_BURIAL_S = 5.0

_CHUNK_BYTES = 2**16

#: How often to look whether a program was given up.
_LOOK_S = 0.1


class Ended(NamedTuple):
    """How a program ended. exit_code: minus the number of the signal, if one ended it."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class OutOfTime(Exception):
    """The program took longer than it was given, or was given up, and was killed with its whole group.

    left_behind: number of its process if it does not die, 0 otherwise.
    """

    def __init__(self, left_behind: int) -> None:
        self.left_behind = left_behind
        super().__init__(left_behind)


class TooMuchOutput(Exception):
    """The program wrote more than any sound one does, and was killed with its whole group."""


def run(
    command: Sequence[bytes],
    *,
    environment: Mapping[str, str],
    timeout_s: float | None,
    given_up: threading.Event | None = None,
) -> Ended:
    """Run a program with no input in a process group of its own. timeout_s: None is without bound.

    given_up: set by somebody who does not want to know any more.
    Raises OutOfTime, TooMuchOutput, and OSError when it cannot be started.
    """
    patience = _Patience(None if timeout_s is None else monotonic() + timeout_s, given_up)
    process: _Program | None = None
    outputs = None
    try:
        with _uninterrupted():
            process = _Program(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                process_group=0,
            )  # fmt: skip
        outputs = _outputs(process, patience)
        while process.returncode is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience.left())
    except _PatienceLost:
        outputs = None
    finally:
        # Also when the attempt is stopped: SIGTERM raises SystemExit here.
        if process is not None:
            process.end()
    assert process is not None
    if outputs is None:
        raise OutOfTime(process.pid if process.returncode is None else 0)
    return Ended(process.returncode, *outputs)


def is_left_behind(pid: int) -> bool:
    """Has a program that does not die still not ended? pid: one that `OutOfTime` told of in this process."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let SIGTERM wait: a program that has just been started is known to nobody yet, and would be left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield  # no handler of a signal is called here
        return
    came: list[int] = []
    former = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
        # Also when nothing could be started.
        if came:
            signal.raise_signal(signal.SIGTERM)


class _Program(subprocess.Popen[bytes]):
    """A program that leads a process group."""

    def end(self) -> None:
        """Kill its whole group, unless it has ended, and bury it."""
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        if self.returncode is not None:
            return
        # The leader has not been waited for, so the number of its group is still its own. A program that
        # `sudo` started may not be ours to kill: it finds its output closed and nobody waiting.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        try:
            self.wait(_BURIAL_S)
        except subprocess.TimeoutExpired:
            _log.warning("a killed program does not die, it is left behind pid=%d", self.pid)


class _PatienceLost(Exception):
    pass


class _Patience(NamedTuple):
    """How long a program is waited for. deadline: of the monotonic clock."""

    deadline: float | None
    given_up: threading.Event | None

    def left(self) -> float | None:
        """Wait so long, and then ask again. Raises _PatienceLost."""
        if self.given_up is not None and self.given_up.is_set():
            raise _PatienceLost
        most_s = None if self.given_up is None else _LOOK_S
        if self.deadline is None:
            return most_s
        left_s = self.deadline - monotonic()
        if left_s <= 0:
            raise _PatienceLost
        return left_s if most_s is None else min(left_s, most_s)


def _outputs(process: subprocess.Popen[bytes], patience: _Patience) -> tuple[bytes, bytes]:
    """Read stdout and stderr to their ends. Raises _PatienceLost."""
    assert process.stdout is not None
    assert process.stderr is not None
    outputs: dict[IO[bytes], bytearray] = {process.stdout: bytearray(), process.stderr: bytearray()}
    with selectors.DefaultSelector() as selector:
        for stream in outputs:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select(patience.left()):
                stream = key.fileobj  # type: ignore[assignment]
                chunk = os.read(key.fd, _CHUNK_BYTES)
                if not chunk:
                    selector.unregister(stream)
                elif len(outputs[stream]) + len(chunk) > OUTPUT_BYTES_MAX:
                    raise TooMuchOutput(f"more than {OUTPUT_BYTES_MAX} bytes of output")
                outputs[stream] += chunk
    return bytes(outputs[process.stdout]), bytes(outputs[process.stderr])
