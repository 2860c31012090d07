"""The task that measures Cyclone itself."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

from cyclone.base_task import BaseTask
from cyclone.errors import TaskError


class BenchmarkTask(BaseTask):
    """Sleeps, or does nothing, and may write a line about it.

    sleep_ms: how long to sleep, in milliseconds; None sleeps `tid mod 101` of them, so the tid must be a number.
    payload: only there to be carried.
    directory: an existing directory; each worker appends `TID/PID/WAIT` lines to a file of its own in it
    (WAIT in milliseconds). None writes nothing.
    """

    sleep_ms: float | None = 0
    payload: bytes = b""
    directory: str | None = None

    def __init__(
        self, sleep_ms: float | None = 0, payload: bytes = b"", directory: str | Path | None = None
    ) -> None:
        super().__init__()
        # Attributes that keep their default stay out of the pickle: this task measures the system, not itself.
        if sleep_ms != 0:
            self.sleep_ms = sleep_ms
        if payload:
            self.payload = payload
        if directory is not None:
            self.directory = str(directory)

    def execute(self) -> None:
        wait_ms = int(self.tid or 0) % 101 if self.sleep_ms is None else self.sleep_ms
        if wait_ms:
            time.sleep(wait_ms / 1000)
        if self.directory is not None:
            pid = os.getpid()
            name = Path(self.directory) / f"benchmark_task_{pid}.tmp"
            _append(name, f"{self.tid}/{pid}/{wait_ms:g}\n".encode())


def _append(file: Path, line: bytes) -> None:
    # The directory may be one that others write to, and the name can be guessed: neither a link nor a file
    # that somebody else has laid there is written to.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    descriptor = os.open(file, flags, 0o600)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink != 1:
            raise TaskError(f"{file}: expected a plain file of our own")
        os.write(descriptor, line)
    finally:
        os.close(descriptor)
