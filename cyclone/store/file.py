"""The place of a store or a spool: a file on a local disk that its owner alone may read, and one process at a time."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import glob
import os
import stat
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from cyclone.errors import AlreadyRunning, ConfigError, StoreFull
from cyclone.ini import too_open

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})

_PART = ".part"
_LOCK = ".lock"

#: `f_type` of statfs(2), from linux/magic.h and the sources of the file systems. "WAL does not work over a
#: network filesystem" (sqlite.org/wal.html): its readers and writers share memory.
_NETWORK = {
    0x00006969: "NFS",
    0x0000517B: "SMB",
    0xFF534D42: "CIFS",
    0xFE534D42: "SMB2",
    0x0BD00BD0: "Lustre",
    0x00C36400: "Ceph",
    0x47504653: "GPFS",
    0x19830326: "BeeGFS",
    0x20030528: "OrangeFS",
    0x5346414F: "AFS",
    0x01021997: "9P",
}


def network_name(kind: int) -> str | None:
    """The name of a network file system by its `f_type`; None for any other."""
    return _NETWORK.get(kind & 0xFFFFFFFF)


def filesystem_kind(directory: Path) -> int:
    """`f_type` of the file system that holds the directory. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    # `struct statfs` begins with f_type, one word long, and is 120 bytes on the largest platform.
    answer = (ctypes.c_long * 64)()
    if libc.statfs(os.fsencode(directory), ctypes.byref(answer)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(directory))
    return int(answer[0])


def resolved(path: Path) -> Path:
    """The file itself, where its name is a link that an administrator has put there.

    Raises ConfigError for a link of somebody else, who would like to choose what is written where.
    """
    try:
        status = path.lstat()
    except OSError:
        return Path(os.path.realpath(path))  # whoever opens it says why that cannot be done
    if stat.S_ISLNK(status.st_mode) and status.st_uid not in (0, os.geteuid()):
        raise ConfigError("is a symbolic link of somebody else", file=path)
    return Path(os.path.realpath(path))


def refuse_exchangeable(directory: Path) -> None:
    """Raises ConfigError for a directory where everybody can put a file in the place of another; and OSError.

    In a sticky one, such as /tmp, only the owner of a file can. The group may: somebody has chosen it.
    """
    status = os.stat(directory)
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        raise ConfigError(
            too_open(status, "everybody can write to it", "o-w", directory.absolute()), file=directory
        )


def names(path: Path) -> list[Path]:
    """All files that may be of a store at this path: those of SQLite (sqlite.org/tempfiles.html) and the lock."""
    return [path.with_name(path.name + kind) for kind in ("", "-wal", "-shm", "-journal", _LOCK)]


def claim(path: Path, what: str = "store") -> BinaryIO:
    """Make sure that the file may be a store and belongs to this process; create it if there is none.

    what: is kept there, for people. Returns a file that has to stay open for as long as the store is used: it holds
    the lock.

    Raises ConfigError for a directory that is missing, unwritable, open to everybody or on a network file system;
    AlreadyRunning when another process has the store open; StoreFull when there is no room for even an empty file.
    """
    directory = path.parent
    try:
        network = network_name(filesystem_kind(directory))
        if network is not None:
            raise ConfigError(f"found a {what} on {network}, expected one on a local disk", file=path)
        refuse_exchangeable(directory)
    except OSError as error:
        raise refused(path, error) from error
    held = lock(path)
    try:
        create(path)
        # A directory or an unreadable file is told as such here; SQLite would only say that it cannot open.
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW))
    except OSError as error:
        held.close()
        raise refused(path, error) from error
    return held


def application_id(path: Path) -> int:
    """What the head of a database says whose file it is; 0 if it is too short to be one.

    Not to be called while this process has the database open: see `lock`. Raises OSError.
    """
    # sqlite.org/fileformat2.html#the_database_header
    with open(path, "rb") as head:
        return int.from_bytes(head.read(72)[68:72])


def sync_directory(directory: Path) -> None:
    """A new name is on disk when its directory is (fsync(2)). Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def room_bytes(directory: Path) -> int:
    """How much may still be written here by who asks. Raises OSError."""
    room = os.statvfs(directory)
    return room.f_bavail * room.f_frsize


@contextlib.contextmanager
def whole(file: Path, *, replace: bool) -> Iterator[Path]:
    """A file of another name, for its owner alone, which gets this name when the block ends without an error.

    It is on disk then; a crash leaves either nothing of this name or the whole. Those that a killed process has left are
    removed by the next who writes a file of the same name. Nothing of SQLite may be open at the end of the block.
    replace: whether there may be such a file already.
    Raises FileExistsError, and any other OSError.
    """
    for left in file.parent.glob(f".{glob.escape(file.name)}.*{_PART}"):
        _remove_if_left(left)
    descriptor, name = tempfile.mkstemp(_PART, f".{file.name}.", file.parent)
    part = Path(name)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield part
        os.fsync(descriptor)
        if replace:
            part.replace(file)
        else:
            # A rename would replace what somebody else has put there meanwhile.
            os.link(part, file)
            part.unlink()
        sync_directory(file.parent)
    finally:
        part.unlink(missing_ok=True)
        os.close(descriptor)


def _remove_if_left(part: Path) -> None:
    """Whoever works on it holds a lock on it."""
    with contextlib.suppress(FileNotFoundError, PermissionError), open(part, "rb") as left:
        try:
            fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        part.unlink()


def append(descriptor: int, data: bytes) -> None:
    """Write these bytes at the end of a file, all or none; they are on disk on return.

    descriptor: opened with O_APPEND. Raises OSError.
    """
    end = os.fstat(descriptor).st_size
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, end)
        raise


def has_room(directory: Path) -> bool:
    """Can a little more be written here? Raises OSError when that fails for any reason but a lack of room."""
    probe = os.open(directory, os.O_TMPFILE | os.O_WRONLY, 0o600)
    try:
        os.write(probe, bytes(64 * 1024))
    except OSError as error:
        if error.errno in NO_ROOM:
            return False
        raise
    finally:
        os.close(probe)
    return True


def lock(path: Path) -> BinaryIO:
    """Have what lies at this path to oneself, for as long as the file that is returned stays open.

    The kernel gives the lock back when its holder dies, however it dies; programs that he starts do not get it.
    Raises AlreadyRunning when another process has it; ConfigError, StoreFull.
    """
    # The lock is on a file beside the store: SQLite keeps POSIX locks on the store itself, and the closing of
    # any descriptor of a file drops all POSIX locks that the process holds on it (fcntl(2)). The file is
    # never removed, or two processes could hold locks on two files of the same name.
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        held = os.fdopen(os.open(path.with_name(path.name + _LOCK), flags, 0o600), "rb+", 0)
    except OSError as error:
        raise refused(path, error) from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _sign(held)
    except BlockingIOError:
        owner = held.read(100).decode("utf-8", "replace").strip()
        held.close()
        raise AlreadyRunning(path, owner) from None
    except OSError as error:
        held.close()
        raise refused(path, error) from error
    return held


def create(path: Path) -> None:
    """An empty file for its owner alone, unless there is one, which is not opened: see `lock`. Raises OSError."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    try:
        # The mode that open(2) was given is cut down by the umask. SQLite gives its side files the same mode.
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
    sync_directory(path.parent)


def refused(path: Path, error: OSError) -> ConfigError | StoreFull:
    """What to tell of a place that the system does not let us use."""
    reason = os.strerror(error.errno or 0)
    if error.errno in NO_ROOM:
        return StoreFull(f"{path}: {reason}")
    return ConfigError(f"cannot be used: {reason}; expected a writable file on a local disk", file=path)


def _sign(held: BinaryIO) -> None:
    """Write down who holds the lock, for people only: a full disk keeps nobody from emptying what lies beside it."""
    text = f"{os.getpid()};{datetime.now().astimezone():%Y-%m-%d %H:%M:%S}\n".encode()
    try:
        os.pwrite(held.fileno(), text, 0)
        held.truncate(len(text))
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
