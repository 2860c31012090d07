"""Small disks of the drill's own, that can be full or read-only without harm to anybody.

They are mounted in a mount namespace that the drill makes for itself and its children (unshare(2)): nobody else sees
them, and they vanish with the last process in it, however that ends. Root may do so; others may where the kernel lets
them make a user namespace.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from cyclone.clock import monotonic

_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MS_RDONLY, _MS_REMOUNT, _MS_REC, _MS_PRIVATE = 1, 32, 16384, 1 << 18
_MNT_DETACH = 2

_SIZE = "48m"
#: How long files may stay open for writing after their process was killed.
_CLOSING_S = 2.0

_libc = ctypes.CDLL(None, use_errno=True)


class CannotMount(Exception):
    """The kernel does not let us have mounts of our own; the text says why."""


def leave_mounts_of_others() -> None:
    """From now on what this process mounts is seen by it and its later children alone.

    To be called before there is any thread. Raises CannotMount.
    """
    user, group = os.geteuid(), os.getegid()
    try:
        if user == 0:
            _call(_libc.unshare, _CLONE_NEWNS)
        else:
            _call(_libc.unshare, _CLONE_NEWUSER | _CLONE_NEWNS)
            # user_namespaces(7): without privilege only one's own ids can be mapped, and setgroups must be denied.
            Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
            Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
            Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")
        # Else the mounts would go back to where the namespace came from (mount_namespaces(7)).
        _mount("none", "/", None, _MS_REC | _MS_PRIVATE, None)
    except OSError as error:
        raise CannotMount(f"no mounts of one's own here: {error.strerror}") from error


class Disk:
    """One tmpfs. Owns what fills it up."""

    def __init__(self, directory: Path) -> None:
        """Mount it on this directory, which is made. Raises CannotMount."""
        self.directory = directory
        directory.mkdir(mode=0o700)
        self._ballast = directory / "ballast"
        try:
            _mount("cyclone-drill", str(directory), "tmpfs", 0, f"size={_SIZE},mode=0700")
        except OSError as error:
            directory.rmdir()
            raise CannotMount(f"no tmpfs can be mounted here: {error.strerror}") from error

    def fill(self) -> None:
        """Take all room that there is; to be called again, because others give some back."""
        descriptor = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while True:
                left = os.fstatvfs(descriptor).f_bavail * os.fstatvfs(descriptor).f_frsize
                if left == 0:
                    return
                os.posix_fallocate(descriptor, os.fstat(descriptor).st_size, left)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
        finally:
            os.close(descriptor)

    def free(self) -> None:
        self._ballast.unlink(missing_ok=True)

    def make_read_only(self) -> bool:
        """Nobody may have a file open for writing. Whether it came to that."""
        until = monotonic() + _CLOSING_S
        while True:
            try:
                _mount("cyclone-drill", str(self.directory), None, _MS_REMOUNT | _MS_RDONLY, None)
                return True
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                if monotonic() > until:
                    return False
            time.sleep(0.02)

    def make_writable(self) -> None:
        _mount("cyclone-drill", str(self.directory), None, _MS_REMOUNT, None)

    def unmount_keeping(self) -> None:
        """As `unmount`, and what is on it stands in its place."""
        copy = self.directory.with_name(f"{self.directory.name}.kept")
        shutil.copytree(self.directory, copy)
        self.unmount()
        self.directory.rmdir()
        copy.rename(self.directory)

    def unmount(self) -> None:
        """What is open in it stays as it is until it is closed."""
        _call(_libc.umount2, os.fsencode(self.directory), _MNT_DETACH)


def _mount(source: str, target: str, kind: str | None, flags: int, options: str | None) -> None:
    def encoded(text: str | None) -> bytes | None:
        return None if text is None else text.encode()

    _call(
        _libc.mount,
        source.encode(),
        os.fsencode(target),
        encoded(kind),
        ctypes.c_ulong(flags),
        encoded(options),
    )


def _call(function: Callable[..., int], *arguments: object) -> None:
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
