"""One daemon per PID file, for as long as it lives."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from cyclone.errors import AlreadyRunning, ConfigError


class PidFile:
    """A lock on a file; the text in it, `PID;YYYY-MM-DD HH:MM:SS`, is for people only.

    The kernel gives the lock back when its holder dies, however it dies, so what stands in the file never has to be
    believed. The descriptor is closed on exec: no program that the holder starts keeps the lock.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._fd = -1

    def acquire(self) -> None:
        """Take the lock and write the PID.

        Raises AlreadyRunning when another process has it, ConfigError when the file cannot be had.
        """
        while True:
            fd = self._open()
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_ours(fd):
                    text = f"{os.getpid()};{time.strftime('%Y-%m-%d %H:%M:%S')}\n"
                    os.ftruncate(fd, 0)
                    os.pwrite(fd, text.encode(), 0)
                    self._fd = fd
                    return
            except BlockingIOError:
                owner = os.pread(fd, 256, 0).decode("ascii", "replace").strip()
                os.close(fd)
                raise AlreadyRunning(self.path, owner) from None
            except OSError as error:
                os.close(fd)
                raise ConfigError(f"cannot be locked and written: {error.strerror}", file=self.path) from None
            # Between opening and locking, its former holder has removed the file: this lock guards nothing.
            os.close(fd)

    def release(self) -> None:
        """Remove the file and give the lock back. Nothing happens if it is not held."""
        if self._fd < 0:
            return
        # Removed while locked, and only if it is ours: somebody may have replaced it by hand.
        if self._is_ours(self._fd):
            self.path.unlink(missing_ok=True)
        os.close(self._fd)
        self._fd = -1

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.release()

    def _open(self) -> int:
        # O_NOFOLLOW: in a directory that others may write to, a planted link must not have its target overwritten.
        # O_NONBLOCK: nor must a planted pipe keep us waiting.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            fd = os.open(self.path, flags, 0o644)
        except FileNotFoundError:
            # Also what the kernel says where nobody can make a file, as in /proc.
            reason = "takes no files" if self.path.parent.is_dir() else "does not exist"
            problem = f"the directory {str(self.path.parent)!r} {reason}"
            raise ConfigError(problem, file=self.path) from None
        except OSError as error:
            problem = "is a symbolic link" if error.errno == errno.ELOOP else os.strerror(error.errno or 0)
            raise ConfigError(f"cannot be opened for writing: {problem}", file=self.path) from None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise ConfigError("is not a regular file", file=self.path)
        return fd

    def _is_ours(self, fd: int) -> bool:
        try:
            named = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(named, os.fstat(fd))
