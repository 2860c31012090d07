"""A program, or a line for the shell, as a task."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from cyclone.base_task import BaseTask
from cyclone.errors import CommandFailed, TaskError
from cyclone.model.task import signal_name

#: Between SIGTERM and SIGKILL to a program whose attempt is stopped; less than a controller gives a worker.
_GRACE_S = 5.0

_ERROR_BYTES_MAX = 2048

#: A line that means the same to the shell and to us: words, and nothing that the shell would change.
_PLAIN = re.compile(r"[A-Za-z0-9_@%+:,./-]+( +[A-Za-z0-9_@%+=:,./-]+)* *\Z")

_FILE_NAME = re.compile(r"[A-Za-z0-9_@%+=:,-][A-Za-z0-9_@%+=:,.-]{0,199}\Z")


class CommandTask(BaseTask):
    """Runs a program with no input in a process group of its own; any exit code but 0 is a failure.

    command: a list is a program and its arguments; text is a line for `/bin/sh -c`.
    cwd: where to run it; None is the working directory of the controller.
    env: added to the environment of the controller, as are CYCLONE_JOB, CYCLONE_TID, CYCLONE_ATTEMPT (1 for
    the first) and CYCLONE_TOKEN (a number larger than that of every earlier attempt).
    stdout, stderr: files to write to; an attempt starts them anew, missing directories are made, `{tid}` stands
    for the tid (its hash, where it could not be the name of a file); relative ones are below `cwd`; both may be
    the same. None: the output is dropped, except for the end of stderr, which becomes part of the error.
    """

    def __init__(
        self,
        command: str | Sequence[str],
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        stdout: str | Path | None = None,
        stderr: str | Path | None = None,
    ) -> None:
        super().__init__()
        if not command:
            raise ValueError("a command cannot be empty")
        self.command = command if isinstance(command, str) else [os.fspath(word) for word in command]
        self.cwd = None if cwd is None else str(cwd)
        self.env = dict(env or {})
        self.stdout = None if stdout is None else str(stdout)
        self.stderr = None if stderr is None else str(stderr)

    def execute(self) -> None:
        with contextlib.ExitStack() as open_files:
            stdout, stderr, tail = self._outputs(open_files)
            process: _Program | None = None
            try:
                process = self._start(stdout, stderr)
                returncode = process.wait()
            except BaseException:  # SystemExit from SIGTERM: the attempt is stopped.
                if process is not None:
                    _end_group(process)
                raise
            if returncode != 0:
                raise CommandFailed(returncode, _sentence(returncode, tail))

    def _start(self, stdout: IO[bytes] | int, stderr: IO[bytes] | int) -> _Program:
        if self.cwd is not None and not os.path.isdir(self.cwd):
            raise TaskError(f"cannot run in {self.cwd!r}: no such directory")
        # Popen starts by vfork unless preexec_fn is given, and is then as fast as posix_spawn.
        options: dict[str, Any] = {
            "cwd": self.cwd, "env": self._environment(), "stdin": subprocess.DEVNULL,
            "stdout": stdout, "stderr": stderr, "process_group": 0,
        }  # fmt: skip
        if isinstance(self.command, str):
            # A shell takes as long to start as a small program to run, so it is spared where it would change
            # nothing. What is no program by itself (`exit`, a script without `#!`) is left to it all the same.
            if _PLAIN.match(self.command):
                with contextlib.suppress(OSError):
                    return _Program(shlex.split(self.command), **options)
            return _Program(["/bin/sh", "-c", self.command], **options)
        try:
            return _Program(self.command, **options)
        except FileNotFoundError:
            raise CommandFailed(127, f"no such program: {self.command[0]!r}") from None
        except OSError as error:
            raise CommandFailed(126, f"cannot run {self.command[0]!r}: {error.strerror}") from None

    def _environment(self) -> dict[str, str]:
        attempt = self.attempt
        return {
            **os.environ,
            **self.env,
            "CYCLONE_JOB": attempt.job,
            "CYCLONE_TID": attempt.tid,
            "CYCLONE_TOKEN": str(attempt.token),
            "CYCLONE_ATTEMPT": str(attempt.number),
        }

    def _outputs(
        self, open_files: contextlib.ExitStack
    ) -> tuple[IO[bytes] | int, IO[bytes] | int, IO[bytes] | None]:
        """Where stdout and stderr go, and what the end of stderr can be read from, if anything."""
        stdout: IO[bytes] | int = subprocess.DEVNULL
        if self.stdout is not None:
            stdout = open_files.enter_context(self._open(self.stdout))
        if self.stderr is None:
            # A file and not a pipe: a pipe must be read while the program runs, and stays open as long as
            # anything that the program left behind.
            tail = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  closed with the others
            open_files.enter_context(tail)
            return stdout, tail, tail
        if self.stderr == self.stdout:
            return stdout, stdout, None
        return stdout, open_files.enter_context(self._open(self.stderr)), None

    def _open(self, pattern: str) -> IO[bytes]:
        tid = self.attempt.tid
        if not _FILE_NAME.match(tid):
            tid = hashlib.sha256(tid.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        file = Path(self.cwd or "", pattern.replace("{tid}", tid))
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            return open(file, "wb", buffering=0)
        except OSError as error:
            raise TaskError(f"cannot write to {file}: {error.strerror}") from None


class _Program(subprocess.Popen[bytes]):
    """A program that is ended if whoever starts it is interrupted while it starts."""

    def __init__(self, command: Sequence[str], **options: Any) -> None:
        try:
            super().__init__(command, **options)
        except BaseException:
            # One that could not be executed has been waited for already.
            if getattr(self, "pid", None) is not None and self.returncode is None:
                _end_group(self)
            raise


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End the program and everything in its process group."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(_GRACE_S)
    except (subprocess.TimeoutExpired, ProcessLookupError):
        pass
    finally:
        # Whatever has outlived its leader still holds the group's number; if nothing has, there is no group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _sentence(returncode: int, stderr: IO[bytes] | None) -> str:
    if returncode < 0:
        sentence = f"the program was killed by {signal_name(-returncode)}"
    else:
        sentence = f"the program ended with exit code {returncode}"
    if stderr is None:
        return sentence
    size = stderr.seek(0, os.SEEK_END)
    stderr.seek(max(0, size - _ERROR_BYTES_MAX))
    end = stderr.read(_ERROR_BYTES_MAX).decode("utf-8", "replace").strip()
    return f"{sentence}: {end}" if end else sentence
