"""One start of `lfs` or `lctl`: its arguments, what it says, and the fault put upon it."""

from __future__ import annotations

import errno
import os
import time

from simlustre.errors import Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simlustre.faults import Fault
    from simlustre.state import Filesystem, State

HANG_POLL_S = 0.05

# Set by `sudo` here, for what it becomes. Who runs the simulation says nothing: tests often run as root.
SUDO_VARIABLE = "CYCLONE_SIMLUSTRE_SUDO"


class Call:
    """What a command is given. What it says leaves when it ends, or at `flush`.

    arguments: those behind the name of the command. fault: None when none applies.
    """

    def __init__(self, state: State, program: str, command: str, arguments: list[str]) -> None:
        self.state = state
        self.program = program
        self.command = command
        self.arguments = arguments
        self.fault: Fault | None = None
        self._out: list[str] = []
        self._error: list[str] = []

    @property
    def may_administer(self) -> bool:
        """Whether what only root may do is allowed."""
        return not self.state.is_on("needs_root") or SUDO_VARIABLE in os.environ

    def say(self, line: str, end: str = "\n") -> None:
        self._out.append(line + end)

    def complain(self, line: str) -> None:
        self._error.append(line + "\n")

    def flush(self, last: bool = False) -> None:
        """Write out what was gathered. With a fault, which may change any of it, only at the end."""
        if self.fault is not None and not last:
            return
        out = "".join(self._out).encode("utf-8", "surrogateescape")
        error = "".join(self._error).encode("utf-8", "surrogateescape")
        self._out, self._error = [], []
        if self.fault is not None:
            out, error = self.fault.tamper(out, error)
        for descriptor, text in ((1, out), (2, error)):
            while text:
                text = text[os.write(descriptor, text) :]

    def filesystem_of(self, path: str) -> Filesystem:
        """Raises Refusal outside of Lustre: EOPNOTSUPP, or ENOENT when there is no such path."""
        fs = self.state.filesystem_of(path)
        if fs is None:
            raise Refusal(errno.EOPNOTSUPP if os.path.exists(path) else errno.ENOENT)
        return fs

    def wait_while_hanging(self, fs: Filesystem, osts: list[int], patience_s: float = float("inf")) -> bool:
        """Whether none of the OSTs hangs any more. Waits so long at most; real seconds."""
        until = time.monotonic() + patience_s
        while any(ost.state == "hang" for ost in self.state.some_osts(fs, osts)):
            left_s = until - time.monotonic()
            if left_s <= 0:
                return False
            self.flush()
            time.sleep(min(HANG_POLL_S, left_s))
            self.state.apply_changes()
        return True


def reason(code: int) -> str:
    return os.strerror(code)
