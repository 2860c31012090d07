"""Everything that runs one of Lustre's programs goes through here.

Built on `lfsutils`, the package of the trade, as far as it is right: bounds of indexes, names of OSTs, the line
that tells a migration. What it gets wrong is done here instead; each such override has a test in
`tests/unit/lustre/test_lfsutils_defects.py` that fails once the package has been mended, so that it can go.

A path is text as `os.fsdecode` makes it, and is handed to the programs as the bytes that it came from.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import NamedTuple, TypeVar

from lfsutils.lib import LfsUtils, MigrateResult, MigrateState, to_ost_hex

from cyclone.errors import TaskError
from cyclone.lustre import parsing
from cyclone.lustre.parsing import HsmState, Layout, Ost, Usage, shown
from cyclone.lustre.program import Ended, OutOfTime, TooMuchOutput, run
from cyclone.model.task import signal_name

__all__ = [
    "FailureClass", "HsmState", "Layout", "Lfs", "LfsError", "LfsMissing", "LfsTimedOut", "Ost", "Usage",
    "classify", "result_line", "shown",
]  # fmt: skip

_Parsed = TypeVar("_Parsed")

#: A shell tells the same of a program that there is not.
_EXIT_MISSING = 127

#: Of a path in the log: each of its bytes may have to be escaped.
_SHOWN_PATH_MAX = 4 * 4096

#: Where `lctl` is on systems whose users do not have it on their PATH.
_SYSTEM_DIRECTORIES = "/usr/sbin:/sbin"


class FailureClass(StrEnum):
    """What a failure means for whoever asked."""

    BUSY = "busy"  # somebody uses the file: try again later
    GONE = "gone"  # the file vanished, which is no error
    TARGET = "target"  # the target takes nothing: lock it, try another
    QUOTA = "quota"  # the owner of the file has all the room that he may have, on whichever target: try again later
    OST = "ost"  # source or target is in trouble, or the file is damaged: try again later
    PERMANENT = "permanent"  # this file will never work
    SKIP = "skip"  # there is nothing to move
    OUR_BUG = "our_bug"  # we called the program wrongly, or it is missing: stop
    UNKNOWN = "unknown"  # killed, hung or garbled: look where the file is


_CLASSES = {
    **dict.fromkeys((errno.EBUSY, errno.EAGAIN, errno.ETXTBSY), FailureClass.BUSY),
    **dict.fromkeys((errno.ENOENT, errno.ESTALE), FailureClass.GONE),
    **dict.fromkeys((errno.ENOSPC, errno.EREMOTEIO, errno.ENODEV), FailureClass.TARGET),
    errno.EDQUOT: FailureClass.QUOTA,
    # What an OST answers on which no objects are to be made (max_create_count=0).
    errno.ENOBUFS: FailureClass.TARGET,
    **dict.fromkeys((errno.EIO, errno.ENOTCONN, errno.ESHUTDOWN, errno.ETIMEDOUT), FailureClass.OST),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOKEY), FailureClass.PERMANENT),
    # ENOTTY is what `lfs getstripe` says of a file that is not on Lustre.
    **dict.fromkeys((errno.EINVAL, errno.ERANGE, errno.EOPNOTSUPP, errno.ENOTTY), FailureClass.PERMANENT),
    errno.ENODATA: FailureClass.SKIP,
    # `lfs` ends with 4 after a usage error, which is the number of EINTR.
    errno.EINTR: FailureClass.OUR_BUG,
    _EXIT_MISSING: FailureClass.OUR_BUG,
}


def classify(exit_code: int) -> FailureClass:
    """What an exit code of `lfs` means; it is the errno of the first thing that failed."""
    return _CLASSES.get(exit_code, FailureClass.UNKNOWN)


class LfsError(TaskError):
    """One of Lustre's programs failed, or answered what is no answer.

    command: such as "migrate". exit_code: an errno, minus the number of a signal, or 0 for a wrong answer.
    text: what the program told, on one line.
    """

    def __init__(self, command: str, exit_code: int, text: str) -> None:
        self.command, self.exit_code, self.text = command, exit_code, text
        super().__init__(command, exit_code, text)

    @property
    def failure(self) -> FailureClass:
        """What it means."""
        # A mount that is read-only would have failed at the source already: this is the OST.
        if self.exit_code == errno.EROFS and "cannot create volatile file" in self.text:
            return FailureClass.TARGET
        return classify(self.exit_code)

    def __str__(self) -> str:
        return f"lfs {self.command}: {self.text}" + (
            f" (exit code {self.exit_code})" if self.exit_code else ""
        )


class LfsTimedOut(LfsError):
    """A program took longer than it was given, and was killed.

    left_behind: number of its process if it does not die, 0 otherwise.
    """

    def __init__(self, command: str, exit_code: int, text: str, left_behind: int = 0) -> None:
        self.left_behind = left_behind
        super().__init__(command, exit_code, text)


class LfsMissing(LfsError):
    """There is no such program, or it cannot be executed."""


class Osts(NamedTuple):
    """What is known of the OSTs of a file system, growing index. doubt: why there may be others, "" if there are none."""

    found: dict[int, Ost]
    doubt: str


class Lfs:
    """Lustre's programs. Keeps nothing but how to call them.

    lfs, lctl: names to be found on PATH, or paths.
    sudo: for what only root may do (check, df, mkdir, lctl); never for what makes or moves a file.
    timeout_s: of one command, after which it is killed with everything that it started; so it is when given_up is set.

    Each method raises LfsError when the program fails or answers what is no answer, LfsTimedOut when it takes too
    long, LfsMissing when there is none; and nothing else.
    """

    def __init__(
        self,
        lfs: str = "lfs",
        lctl: str = "lctl",
        *,
        sudo: bool = False,
        timeout_s: float = 60.0,
        given_up: threading.Event | None = None,
    ) -> None:
        self.lfs, self.lctl, self.sudo, self.timeout_s = lfs, lctl, sudo, timeout_s
        self._given_up = given_up

    def version(self) -> tuple[int, ...]:
        """Such as (2, 15, 5)."""
        return self._answer("--version", self._lfs("--version"), parsing.version)

    # OSTs.

    def osts(self, fs: str) -> Osts:
        """The OSTs of a mounted file system, also those that cannot be reached.

        A server that hangs lets this wait until the time is over.
        """
        ended = self._whole("check", self._lfs("check", "osts"))
        try:
            found = parsing.osts(os.fsdecode(ended.stdout), os.fsdecode(ended.stderr), fs)
        except ValueError as error:
            raise _failure("check", ended, str(error)) from None
        # Of an OST that cannot be reached it tells without an error: it may have broken off.
        return Osts(found, str(_failure("check", ended, "")) if ended.exit_code else "")

    def usage(self, path: str) -> dict[int, Usage]:
        """How full the OSTs of the file system are that the path is on.

        An OST that cannot be asked is missing here: how full it is is unknown. The exit code then tells of that
        OST, while all other rows are valid.
        """
        # Without --lazy it waits for each OST that is not connected.
        ended = self._whole("df", self._lfs("df", "--lazy", "--", path))
        try:
            return parsing.usage(os.fsdecode(ended.stdout))
        except ValueError as error:
            raise _failure("df", ended, str(error)) from None

    def oss_of(self, fs: str) -> dict[int, str]:
        """`{OST: address or name of the server that it is reached through}`."""
        command = [self.lctl, "get_param", f"osc.{fs}-OST*-osc-*.ost_conn_uuid"]
        return self._answer("get_param", command, lambda text: parsing.connections(text, fs), sudo=True)

    def deactivated(self, fs: str) -> frozenset[int]:
        """The OSTs that somebody has switched off on this client. `osts` cannot tell them from those that are down."""
        command = [self.lctl, "get_param", f"osc.{fs}-OST*-osc-*.active"]
        return self._answer("get_param", command, lambda text: parsing.deactivated(text, fs), sudo=True)

    def drop_lock_cache(self, fs: str, ost: int) -> bool:
        """Drop what this client caches of an OST, data and locks; False if we may not."""
        name = f"ldlm.namespaces.{fs}-OST{_hex(ost)}-osc-*.lru_size=clear"
        ended = self._run("set_param", [self.lctl, "set_param", name], self.timeout_s, sudo=True)
        if ended.exit_code in (errno.EPERM, errno.EACCES):
            return False
        _expect_success("set_param", ended)
        return True

    def pool_members(self, path: str, pool: str) -> frozenset[int]:
        """The OSTs in a pool of the file system that the path is on."""
        # Neither of these two knows `--`.
        fs = self._answer("osts", self._lfs("osts", _absolute(path)), parsing.file_system)
        return self._answer("pool_list", self._lfs("pool_list", f"{fs}.{pool}"), parsing.pool_members)

    # Files.

    def layout(self, path: str) -> Layout:
        """Where a file lies. Of a directory it raises LfsError."""
        command = self._lfs("getstripe", "-y", "--", path)
        return self._answer("getstripe", command, lambda text: parsing.layout(text, path))

    def fid(self, path: str) -> str:
        """Such as `[0x200000403:0x11f:0x0]`."""
        return self._answer("path2fid", self._lfs("path2fid", "--", path), parsing.fid)

    def hsm_state(self, path: str) -> HsmState:
        """What HSM knows of a file."""
        # It does not know `--`.
        return self._answer("hsm_state", self._lfs("hsm_state", _absolute(path)), parsing.hsm_state)

    def create(
        self, path: str, ost: int, *, exact: bool = True, stripe_size: int | None = None, pool: str = ""
    ) -> None:
        """Make a file with one stripe on an OST. exact: there or nowhere; else the OST is where the search begins.

        stripe_size: bytes; that of the directory by default.
        """
        where = _where(ost, exact, 1, stripe_size, pool)
        self._do("setstripe", self._lfs("setstripe", *where, "--", path), self.timeout_s)

    def migrate(
        self,
        path: str,
        ost: int,
        *,
        exact: bool = True,
        block: bool = False,
        direct_io: bool = True,
        stripe_size: int | None = None,
        pool: str = "",
        bandwidth_mb: int | None = None,
        timeout_s: float | None = None,
        stripe_count: int = 1,
    ) -> None:
        """Move the data of a file to an OST, within a new plain layout. The file keeps its inode and its links.

        exact: to this OST or nowhere; else, and always for more than one stripe, the search begins there.
        block: let others wait who use the file; else give up when they do.
        bandwidth_mb: MB/s at the most, from Lustre 2.16 on. timeout_s: None is without bound.
        """
        how = [*_how(block, direct_io, bandwidth_mb), *_where(ost, exact, stripe_count, stripe_size, pool)]
        self._do("migrate", self._lfs("migrate", *how, "--", path), timeout_s)

    def migrate_keeping_layout(
        self,
        path: str,
        *,
        block: bool = False,
        direct_io: bool = True,
        bandwidth_mb: int | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """Move the data of a file to wherever Lustre finds room, and keep its layout, also one of components.

        Before Lustre 2.16 the data of a composite file stays on the very same OSTs (LU-16500).
        """
        how = _how(block, direct_io, bandwidth_mb)
        self._do("migrate", self._lfs("migrate", *how, "--", path), timeout_s)

    # Directories.

    def mdt_of_directory(self, path: str) -> int:
        """The index of the MDT that a directory is on."""
        return self._answer("getdirstripe", self._lfs("getdirstripe", "-m", "--", path), parsing.mdt)

    def make_directory(self, path: str, mdt: int) -> None:
        """Make a directory on an MDT."""
        self._do("mkdir", self._lfs("mkdir", "-i", str(mdt), "--", path), self.timeout_s, sudo=True)

    # Programs.

    def _lfs(self, *words: str) -> list[str]:
        return [self.lfs, *words]

    def _answer(
        self, name: str, command: Sequence[str], parse: Callable[[str], _Parsed], *, sudo: bool = False
    ) -> _Parsed:
        """What a program answers. name: of its command, for errors."""
        ended = self._run(name, command, self.timeout_s, sudo=sudo)
        _expect_success(name, ended)
        try:
            return parse(os.fsdecode(ended.stdout))
        except ValueError as error:
            raise LfsError(name, 0, str(error)) from None

    def _whole(self, name: str, command: Sequence[str]) -> Ended:
        """How a program ended that answers for many OSTs, and whose exit code may be about one of them."""
        ended = self._run(name, command, self.timeout_s, sudo=True)
        if ended.exit_code < 0:
            # Cut off by a signal: the OSTs that it did not come to would be taken for missing.
            raise _failure(name, ended, "")
        return ended

    def _do(self, name: str, command: Sequence[str], timeout_s: float | None, *, sudo: bool = False) -> None:
        _expect_success(name, self._run(name, command, timeout_s, sudo=sudo))

    def _run(
        self, name: str, command: Sequence[str], timeout_s: float | None, *, sudo: bool = False
    ) -> Ended:
        if sudo and self.sudo:
            command = ["sudo", "-n", *command]  # rather fail than ask for a password
        search_path = f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_DIRECTORIES}"
        environment = {**os.environ, "LC_ALL": "C", "PATH": search_path}
        try:
            return run(
                [os.fsencode(word) for word in command],
                environment=environment,
                timeout_s=timeout_s,
                given_up=self._given_up,
            )
        except OutOfTime as error:
            is_given_up = self._given_up is not None and self._given_up.is_set()
            problem = (
                "killed, nobody wants to know any more" if is_given_up else f"killed after {timeout_s:g} s"
            )
            raise LfsTimedOut(name, -signal.SIGKILL, problem, error.left_behind) from None
        except TooMuchOutput as error:
            raise LfsError(name, -signal.SIGKILL, f"killed: {error}") from None
        except ValueError as error:  # a NUL in a path
            raise LfsError(name, errno.EINVAL, str(error)) from None
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            problem = f"cannot execute {command[0]!r}: {error.strerror}"
            raise LfsMissing(name, _EXIT_MISSING, problem) from None
        except OSError as error:
            number = error.errno or 0
            if number == errno.ENOEXEC:
                raise LfsMissing(name, _EXIT_MISSING, f"{command[0]!r} is no program") from None
            raise LfsError(name, number, f"cannot be started: {error.strerror}") from None


def result_line(
    state: str, path: str, elapsed_s: float, source: int | None, target: int | None, message: str
) -> str:
    """One migration as `lfsutils` writes it to the log: `SUCCESS|path|H:MM:SS.ffffff|source|target`.

    state: one of theirs; a file that was busy counts as FAILED there.
    target: where the file is now; of one that failed, where it was to go.
    """
    known = MigrateState(state) if state in MigrateState.__members__ else MigrateState.FAILED
    elapsed = timedelta(seconds=elapsed_s)
    # A FAILED without a message would raise.
    result = MigrateResult(
        known, shown(path), elapsed, source, target, shown(message) or "no reason was told"
    )
    return str(result)


def _where(ost: int, exact: bool, stripe_count: int, stripe_size: int | None, pool: str) -> list[str]:
    """The options of a plain layout.

    With `-i` Lustre takes the next usable OST if this one is not, and reports success; with `-o` it fails.
    """
    options = ["-c", str(stripe_count), "-o" if exact and stripe_count == 1 else "-i", str(_checked(ost))]
    if stripe_size:
        options += ["-S", str(stripe_size)]
    if pool:
        options += ["-p", pool]
    return options


def _how(block: bool, direct_io: bool, bandwidth_mb: int | None) -> list[str]:
    options = ["--block" if block else "--non-block"]
    if not direct_io:
        options.append("--non-direct")
    if bandwidth_mb is not None:
        options += ["-W", str(bandwidth_mb)]
    return options


def _checked(ost: int) -> int:
    if not LfsUtils.MIN_OST_INDEX <= ost <= LfsUtils.MAX_OST_INDEX:
        expected = f"expected {LfsUtils.MIN_OST_INDEX} to {LfsUtils.MAX_OST_INDEX}"
        raise LfsError("index", errno.EINVAL, f"found the index {ost}, {expected}")
    return ost


def _hex(ost: int) -> str:
    return str(to_ost_hex(_checked(ost)))


def _absolute(path: str) -> str:
    """The path for a command that would take one with a leading `-` for an option. Not tidied: `..` may follow a link."""
    if os.path.isabs(path):
        return path
    try:
        return os.path.join(os.getcwd(), path)
    except OSError as error:
        raise LfsError("path", error.errno or 0, f"the working directory: {error.strerror}") from None


def _expect_success(name: str, ended: Ended) -> None:
    if ended.exit_code != 0:
        raise _failure(name, ended, "")


def _failure(name: str, ended: Ended, otherwise: str) -> LfsError:
    """The error of a program that has ended badly. otherwise: what to tell where it told nothing."""
    code = ended.exit_code
    if code < 0:
        return LfsError(name, code, f"killed by {signal_name(-code)}")
    text = parsing.told(os.fsdecode(ended.stderr)) if code else ""
    text = text.removeprefix("error: ").removeprefix(f"lfs {name}: ").removeprefix(f"{name}: ")
    return LfsError(name, code, text or otherwise or os.strerror(code))
