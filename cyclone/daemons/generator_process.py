"""The master's side of the process in which a task generator lives."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from typing import Self

import msgspec

from cyclone.errors import EXIT_CONFIG, EXIT_INTERNAL, CycloneError
from cyclone.process.lineage import adopt_orphans, slay_descendants
from cyclone.settings import MasterSettings

log = logging.getLogger(__name__)

_LETTER_BYTES_MAX = 1 << 16

#: Of a problem: each character may become twelve bytes of a letter.
_PROBLEM_LONGEST = 4000

#: Of a meaning that can be sent: each character may become six bytes of a letter.
_MEANING_LONGEST = 10_000

#: A process that is killed before its generator was checked is started again, but not for ever.
STARTS_MOST = 5
_PAUSE_S = 0.5


class Errand(msgspec.Struct, frozen=True):
    """What a generator host is started for; all paths as the ini file has them.

    master_file: the ini file of the master, in which the generator is named.
    """

    module: str
    class_name: str
    config_file: str | None
    path: list[str]
    job: str
    master_file: str | None
    log_file: str | None
    debug: bool


class Verdict(msgspec.Struct, frozen=True):
    """Whether the generator can be used; problem: why not, "" if it can. meaning: of its ini file, if it tells."""

    problem: str = ""
    exit_code: int = EXIT_CONFIG
    meaning: str = ""

    @classmethod
    def refusing(cls, problem: str, exit_code: int) -> Self:
        """A problem of whatever length and characters, so that it fits into a letter."""
        told = problem if len(problem) <= _PROBLEM_LONGEST else f"{problem[:_PROBLEM_LONGEST]} ..."
        return cls(_sendable(told), exit_code)

    @classmethod
    def accepting(cls, meaning: str) -> Self:
        """What an ini file means, as far as it fits into a letter."""
        return cls(meaning=_sendable(meaning)[:_MEANING_LONGEST])


class Go(msgspec.Struct, frozen=True):
    """The master listens: begin. key_dir: None if connections are not encrypted."""

    address: str
    key_dir: str | None


class GeneratorUnusable(CycloneError):
    """The task generator cannot be loaded or refuses its configuration."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.problem)
        self.exit_code = verdict.exit_code


class GeneratorProcess:
    """Owns the process, one at a time, and all that is below the process that we are in.

    It ends with the master, whatever happens to either, and so does what it has started.
    """

    def __init__(self, settings: MasterSettings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._pidfd = -1

    def start(self) -> Verdict:
        """Start the process and return when the generator in it has accepted its configuration.

        Raises GeneratorUnusable when it has not; the process has ended then.
        """
        for number in range(STARTS_MOST):
            if number:
                time.sleep(_PAUSE_S)  # what is missing now may be there then
            self.spawn()
            verdict = self.verdict()
            if verdict is not None:
                break
            log.warning(
                "the process of the task generator was killed before it was checked: starting it again"
            )
        else:
            verdict = Verdict("the process of the task generator is killed whenever it starts", EXIT_INTERNAL)
        if verdict.problem:
            raise GeneratorUnusable(verdict)
        return verdict

    def spawn(self) -> None:
        """Start the process; when `link` is readable, there is a `verdict`.

        One for which the system has no room counts as killed.
        """
        adopt_orphans()
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # -P: a file of the user's in the working directory must not replace a module of the library.
            command = [sys.executable, "-P", "-m", "cyclone.daemons.generator_host", str(theirs.fileno())]
            try:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True
                )
                self._pidfd = os.pidfd_open(self._process.pid)
            except OSError as error:
                log.warning("the process of the task generator cannot be started: %s", error)
                if self._process is not None:
                    # Nobody would notice its end.
                    self._process.kill()
                    self._process.wait()
                    self._process = None
                return
        self._tell(self._errand())

    @property
    def link(self) -> socket.socket:
        assert self._link is not None
        return self._link

    def verdict(self) -> Verdict | None:
        """Wait for it; None if a signal killed the process before. Unless it is good, the process is collected."""
        try:
            answer = self.link.recv(_LETTER_BYTES_MAX)
        except ConnectionResetError:
            answer = b""
        if not answer:
            if self._process is None:
                self.link.close()
                return None
            status = self.collect()
            if status < 0:
                return None
            return Verdict(
                f"the process of the task generator died before it was checked, with exit code {status}"
            )
        verdict = msgspec.json.decode(answer, type=Verdict)
        if verdict.problem:
            self.collect()
        return verdict

    def _tell(self, letter: Errand | Go) -> None:
        try:
            self.link.send(msgspec.json.encode(letter))
        except (BrokenPipeError, ConnectionResetError):
            log.debug("the generator has ended")  # which is about to be noticed

    def _errand(self) -> Errand:
        settings = self._settings
        return Errand(
            settings.generator_module,
            settings.generator_class,
            None if settings.generator_config_file is None else str(settings.generator_config_file),
            [str(directory) for directory in settings.plugin_path],
            settings.job_name,
            None if settings.ini_file is None else str(settings.ini_file),
            None if settings.log_file is None else str(settings.log_file),
            logging.getLogger().isEnabledFor(logging.DEBUG),
        )

    def go(self, address: str) -> None:
        """The master listens here."""
        key_dir = str(self._settings.key_dir) if self._settings.curve else None
        self._tell(Go(address, key_dir))

    def fileno(self) -> int:
        """Readable when the process has ended; `collect` it then."""
        return self._pidfd

    def collect(self) -> int:
        """Its exit code, or minus the number of the signal that killed it. What it left behind is killed."""
        assert self._process is not None
        status = self._process.wait()
        if left := slay_descendants():
            log.warning("what the generator has started cannot be killed pids=%s", sorted(left))
        self._process = None
        os.close(self._pidfd)
        self._pidfd = -1
        if self._link is not None:
            self._link.close()
        return status

    def ask_to_stop(self) -> None:
        """Have `stopping` become true there."""
        if self._process is not None:
            self._process.terminate()

    def hang_up(self) -> None:
        """Tell it to read again what it has read, if it listens to that."""
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)

    def end_now(self) -> None:
        """Kill it; it is to be collected as when it ends by itself."""
        if self._process is not None:
            self._process.kill()

    def kill(self) -> None:
        """Kill it and collect it. Nothing happens if there is none."""
        if self._process is not None:
            self._process.kill()
            self.collect()


def _sendable(text: str) -> str:
    """The text with what UTF-8 does not have escaped."""
    return text.encode("utf-8", "backslashreplace").decode()
