"""Control groups, cgroups(7) version 2: what is started in one stays in it, whatever else it casts off.

An ordinary user may make groups only below one that was handed over to him, as systemd does with `Delegate=yes`. Where
there is none, processes are known by other signs; see `lineage`.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

#: What says that it is not ours to have: no rights, a file system that is read-only, a limit of the administrator's, a group
#: for threads only.
_NOT_FOR_US = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.EAGAIN, errno.ENOENT, errno.ENOSPC, errno.EBUSY, errno.EOPNOTSUPP
}  # fmt: skip

_ESCAPED = re.compile(r"\\([0-7]{3})")


class ControlGroup:
    """Owns a directory of the kernel's."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def below_ours(cls, name: str) -> ControlGroup | None:
        """A new one of this name below the one that we are in; None where we may not make any."""
        top = hierarchy()
        ours = _group_of_ours()
        if top is None or ours is None:
            return None
        return cls(top / ours.lstrip("/")).make(name)

    def below(self, name: str) -> ControlGroup:
        """The one of this name in it, whether or not there is one."""
        return ControlGroup(self.path / name)

    def make(self, name: str) -> ControlGroup | None:
        """One of this name in it, which may be there already; None if we may not."""
        group = self.below(name)
        try:
            group.path.mkdir(exist_ok=True)
        except OSError as error:
            if error.errno not in _NOT_FOR_US:
                raise
            return None
        return group

    def enter(self) -> bool:
        """Move this process into it, and thereby all that it will start; False if we may not."""
        try:
            (self.path / "cgroup.procs").write_text("0")
        except OSError as error:
            if error.errno not in _NOT_FOR_US:
                raise
            return False
        return True

    def kill(self) -> None:
        """All in it and below it, whoever they are, and whoever they fork meanwhile.

        Needs Linux 5.14; on older ones nothing happens.
        """
        try:
            fd = os.open(self.path / "cgroup.kill", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, b"1")
            finally:
                os.close(fd)
        except OSError as error:
            # ENODEV: it was removed meanwhile.
            if error.errno not in (*_NOT_FOR_US, errno.ENODEV):
                raise

    def members(self) -> set[int]:
        """The pids of all in it and below it, also of zombies."""
        found: set[int] = set()
        for directory, _, files in os.walk(self.path):
            if "cgroup.procs" not in files:
                continue
            try:
                found.update(map(int, Path(directory, "cgroup.procs").read_text().split()))
            except OSError as error:
                # It was removed meanwhile, and nobody was in it then.
                if error.errno not in (errno.ENOENT, errno.ENODEV):
                    raise
        return found

    def remove(self) -> bool:
        """With all below it; False if somebody is in it."""
        try:
            for directory, _, _ in os.walk(self.path, topdown=False):
                os.rmdir(directory)
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return False
        return True


def named(name: str) -> list[ControlGroup]:
    """All groups of this name, wherever they are."""
    top = hierarchy()
    if top is None:
        return []
    return [ControlGroup(Path(directory, name)) for directory, below, _ in os.walk(top) if name in below]


def hierarchy() -> Path | None:
    """Where the groups of version 2 are; None if there are none. Source: proc(5), /proc/self/mounts."""
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        _, place, kind, *_ = line.split(" ")
        if kind == "cgroup2":
            return Path(_ESCAPED.sub(lambda found: chr(int(found[1], 8)), place))
    return None


def _group_of_ours() -> str | None:
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        if line.startswith("0::"):
            return line.removeprefix("0::")
    return None
