"""Moves the data of one file from one OST of Lustre to another.

What becomes of a file is a result, never an exception: a file that is busy, has vanished or cannot be moved is
nothing that a retry of the attempt would mend, and the generator decides what to do about it. It comes in six
states, each with a reason of one word:

    SUCCESS    moved. Reason "changed": somebody wrote to it, so that its checksum could not be compared
    DISPLACED  moved, but not (only) to the target: "elsewhere", "still-on-source"
    IGNORED    nothing to do: "gone", "not-regular", "not-on-source", "on-target"
    SKIPPED    left alone on purpose: "no-layout", "released", "archived", "on-mdt", "foreign", "composite",
               "striped", "needs-2.16", "dry-run"
    BUSY       somebody uses it, try again later: "EBUSY", "EAGAIN", "ETXTBSY"
    FAILED     not moved, or not right: the name of an errno, "timeout", "killed", "usage", "no-program",
               "wrong-answer", "needs-2.16", "not-mounted"; "verify" if it is not what it was, "unverified" if that is
               not known

The file keeps its inode, so that all its hard links stay valid. An attempt that is repeated (after the loss of its
controller, say) looks first where the file is, so that repeating it is harmless.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import stat
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from cyclone.base_task import BaseTask
from cyclone.clock import monotonic
from cyclone.lustre.lfs import (
    FailureClass,
    Layout,
    Lfs,
    LfsError,
    LfsMissing,
    LfsTimedOut,
    result_line,
    shown,
)
from cyclone.lustre.migration.verdict import FileState
from cyclone.lustre.migration_record import MESSAGE_LENGTH_MAX, PATH_LENGTH_MAX, Migration
from cyclone.lustre.properties import seconds, switch, whole, words
from cyclone.lustre.rangeset import INDEX_MAX

_log = logging.getLogger(__name__)

#: From this version on `lfs migrate` moves composite files when no layout is asked for (LU-16500), and knows `-W`.
_COMPLETE_VERSION = (2, 16)

_DAY_S = 86400.0

#: All that happens around the move itself, each step being bounded.
_AROUND_S = 600.0


@dataclass(frozen=True, kw_only=True)
class MigrationResult:
    """What `LustreOstMigrateTask` returns.

    failure: what a failure means, a `FailureClass`; "" if there was none. message: what Lustre told of it.
    target: where the file was to go. actual: where its first object is now, None if nobody looked.
    bytes: the size of the file, also of one that did not move; 0 if nobody looked. nlink: its hard links.
    fid: "" if nobody looked. attempt: 1 for the first.
    """

    state: FileState
    reason: str = ""
    failure: str = ""
    message: str = ""
    source: int
    target: int
    actual: int | None = None
    bytes: int = 0
    nlink: int = 0
    fid: str = ""
    seconds: float = 0.0
    attempt: int = 1


class _Verdict(NamedTuple):
    state: FileState
    reason: str = ""
    failure: str = ""
    message: str = ""
    actual: int | None = None


class _Before(NamedTuple):
    """What a file was before it moved. checksum: None if it is not to be compared."""

    status: os.stat_result
    layout: Layout
    checksum: bytes | None = None


class LustreOstMigrateTask(BaseTask):
    """Moves one file from an OST to another, and returns a `MigrationResult`.

    Values may be text, as XML has them: `True`, `yes`, `on`, `1`; numbers.

    filename        path of the file
    source_ost      it is moved only if it has an object there
    target_ost      where it is to go
    direct_io       copy with O_DIRECT
    block           let others wait who use the file; else leave a file alone that is used
    skip            leave alone what has more than one stripe; else its stripes are kept, beginning at the target
    use_ost_list    the target or nothing; else Lustre may take the next usable OST, and the file is DISPLACED
    preserve        of `stripe_size,pool`, what is kept; the pool only if the target is in it
    composite       what to do with composite files: `skip`; `keep` their layout and let Lustre choose the OSTs
                    (Lustre 2.16 or newer); `plain` makes them plain, which loses their layout
    bandwidth_mb    MB/s at the most (Lustre 2.16 or newer); None is without bound
    verify          `none`; `layout`: is it where it should be; `stat`: also inode, size, owner, mode and mtime as
                    before, for files to which nobody writes; `checksum`: also the content, unless somebody wrote
    timeout         seconds that the move may take
    hsm             `allow`, or `skip_archived`: leave alone what HSM has a copy of
    dry_run         only look, and say what would happen: SKIPPED with the reason "dry-run", and the bytes
    record          write a row `migration` to the sink "database"
    pushgateway     write it to the sink "pushgateway"
    lfs_bin         the program `lfs`
    lfs_timeout     seconds that each other command of Lustre may take
    """

    # A second `lfs migrate` of the same file that runs beside the first can hang a server (LU-16571).
    exclusive = True

    def __init__(
        self,
        filename: str | bytes | os.PathLike[str],
        source_ost: int | str,
        target_ost: int | str,
        direct_io: bool | str = False,
        block: bool | str = False,
        skip: bool | str = True,
        *,
        use_ost_list: bool | str = True,
        preserve: str = "stripe_size,pool",
        composite: str = "skip",
        bandwidth_mb: int | str | None = None,
        verify: str = "layout",
        timeout: float | str = _DAY_S,
        hsm: str = "allow",
        dry_run: bool | str = False,
        record: bool | str = False,
        pushgateway: bool | str = False,
        lfs_bin: str | Path = "lfs",
        lfs_timeout: float | str = 60.0,
    ) -> None:
        super().__init__()
        self.filename = os.fsdecode(filename)
        if not self.filename or "\0" in self.filename:
            raise ValueError(f"filename: found {self.filename!r}, expected the path of a file")
        self.source_ost = whole("source_ost", source_ost, 0, INDEX_MAX)
        self.target_ost = whole("target_ost", target_ost, 0, INDEX_MAX)
        self.direct_io = switch("direct_io", direct_io)
        self.block = switch("block", block)
        self.skip = switch("skip", skip)
        self.use_ost_list = switch("use_ost_list", use_ost_list)
        self.preserve = [_word("preserve", word, ("stripe_size", "pool")) for word in words(preserve)]
        self.composite = _word("composite", composite, ("skip", "keep", "plain"))
        self.bandwidth_mb: int | None = None
        if bandwidth_mb is not None and bandwidth_mb not in ("", "None"):
            self.bandwidth_mb = whole("bandwidth_mb", bandwidth_mb, 1)
        self.verify = _word("verify", verify, ("none", "layout", "stat", "checksum"))
        self.timeout_s = seconds("timeout", timeout)
        self.hsm = _word("hsm", hsm, ("allow", "skip_archived"))
        self.dry_run = switch("dry_run", dry_run)
        sinks = (("database", switch("record", record)), ("pushgateway", switch("pushgateway", pushgateway)))
        self.sinks = [sink for sink, wanted in sinks if wanted]
        self.lfs_bin = str(lfs_bin)
        self.lfs_timeout_s = seconds("lfs_timeout", lfs_timeout)
        # The attempt itself is bounded as well: a stat or a read of a hung server ends with nothing else.
        reads = 2 if self.verify == "checksum" else 0
        self.timeout = (1 + reads) * self.timeout_s + 10 * self.lfs_timeout_s + _AROUND_S

    def execute(self) -> MigrationResult:
        begun = monotonic()
        move = _Move(self, Lfs(self.lfs_bin, timeout_s=self.lfs_timeout_s))
        verdict = move.make()
        result = MigrationResult(
            **verdict._asdict(),
            source=self.source_ost, target=self.target_ost,
            bytes=move.bytes, nlink=move.nlink, fid=move.fid,
            seconds=monotonic() - begun, attempt=self.attempt.number,
        )  # fmt: skip
        self._tell(result)
        return result

    def _tell(self, result: MigrationResult) -> None:
        target = result.target if result.actual is None else result.actual
        message = f"{result.reason}: {result.message}" if result.message else result.reason
        line = result_line(result.state, self.filename, result.seconds, result.source, target, message)
        wrong = result.state in (FileState.FAILED, FileState.DISPLACED)
        _log.log(logging.WARNING if wrong else logging.INFO, "%s", line)
        for sink in self.sinks:
            self.record(
                sink, Migration,
                path=shown(self.filename, PATH_LENGTH_MAX), fid=result.fid,
                source=result.source, target=result.target, actual=result.actual,
                state=str(result.state), reason=result.reason, message=result.message[:MESSAGE_LENGTH_MAX],
                bytes=result.bytes, seconds=result.seconds, moment=datetime.now(UTC),
            )  # fmt: skip


class _Move:
    """One move of one file. Owns what was seen of the file, so that a failure can still be told with it."""

    def __init__(self, task: LustreOstMigrateTask, lfs: Lfs) -> None:
        self.task, self.lfs, self.path = task, lfs, task.filename
        self.bytes, self.nlink, self.fid = 0, 0, ""

    def make(self) -> _Verdict:
        """Look, move, look again; each step that fails ends it with its verdict."""
        try:
            before = self._look()
            if isinstance(before, _Verdict):
                return before
            return self._move(before)
        except LfsError as error:
            return self._failed(error)
        except OSError as error:
            return self._failed(LfsError("read", error.errno or errno.EIO, error.strerror or str(error)))

    # Before.

    def _look(self) -> _Before | _Verdict:
        status = os.lstat(self.path)
        if not stat.S_ISREG(status.st_mode):
            return _Verdict(FileState.IGNORED, "not-regular")
        self.bytes, self.nlink = status.st_size, status.st_nlink
        task = self.task
        layout = self.lfs.layout(self.path)
        refused = refusal(
            layout, task.source_ost, task.target_ost, skip=task.skip, composite=task.composite
        ) or self._refused_by_version(layout) or self._refused_by_hsm()  # fmt: skip
        if refused is not None:
            return refused
        self.fid = self.lfs.fid(self.path)
        if task.dry_run:
            return _Verdict(FileState.SKIPPED, "dry-run", actual=layout.osts[0])
        checksum = _checksum(self.path) if task.verify == "checksum" else None
        return _Before(status, layout, checksum)

    def _refused_by_version(self, layout: Layout) -> _Verdict | None:
        keep = self._keeps_components(layout)
        if not keep and self.task.bandwidth_mb is None:
            return None
        found = self.lfs.version()
        if found >= _COMPLETE_VERSION:
            return None
        message = f"found Lustre {'.'.join(map(str, found))}, expected 2.16 or newer"
        if keep:
            return _Verdict(FileState.SKIPPED, "needs-2.16", message=message)
        # A bound that was asked for and is not kept would be noticed by others first.
        return _Verdict(FileState.FAILED, "needs-2.16", FailureClass.OUR_BUG, f"bandwidth_mb: {message}")

    def _refused_by_hsm(self) -> _Verdict | None:
        if self.task.hsm == "allow":
            return None
        flags = self.lfs.hsm_state(self.path).flags
        for flag in ("released", "archived"):
            if flag in flags:
                return _Verdict(FileState.SKIPPED, flag)
        return None

    # The move itself.

    def _move(self, before: _Before) -> _Verdict:
        try:
            message = self._migrate(before.layout)
        except LfsError as error:
            if error.failure is not FailureClass.UNKNOWN:
                raise
            # Killed or hung: the move may have come about all the same.
            if not self._has_arrived():
                raise
            message = f"arrived, although: {error}"
        verdict = self._verified(before)
        return verdict if verdict.message else verdict._replace(message=message)

    def _migrate(self, layout: Layout) -> str:
        """Run `lfs migrate`. Returns what is to be told, "" for nothing."""
        task = self.task
        if self._keeps_components(layout):
            self.lfs.migrate_keeping_layout(
                self.path, block=task.block, direct_io=task.direct_io, bandwidth_mb=task.bandwidth_mb,
                timeout_s=task.timeout_s,
            )  # fmt: skip
            return ""
        pool = self._pool(layout)
        self.lfs.migrate(
            self.path, task.target_ost, exact=task.use_ost_list, block=task.block, direct_io=task.direct_io,
            stripe_size=layout.stripe_size if "stripe_size" in task.preserve else None, pool=pool,
            bandwidth_mb=task.bandwidth_mb, timeout_s=task.timeout_s, stripe_count=max(1, layout.stripe_count),
        )  # fmt: skip
        left = layout.pool if "pool" in task.preserve and not pool else ""
        return f"it left the pool {left!r}, to which the target does not belong" if left else ""

    def _pool(self, layout: Layout) -> str:
        """The pool to ask for: with one to which the target does not belong the move would be refused."""
        if not layout.pool or "pool" not in self.task.preserve:
            return ""
        try:
            members = self.lfs.pool_members(self.path, layout.pool)
        except LfsError as error:
            if error.exit_code != errno.ENOENT:
                raise
            return ""  # The pool has been removed since the file was made.
        return layout.pool if self.task.target_ost in members else ""

    def _has_arrived(self) -> bool:
        try:
            layout = self.lfs.layout(self.path)
        except LfsError as error:
            _log.warning("cannot look where a file is file=%s error=%s", shown(self.path), error)
            return False
        return layout.exists and self.task.source_ost not in layout.osts

    # After.

    def _verified(self, before: _Before) -> _Verdict:
        if self.task.verify == "none":
            return _Verdict(FileState.SUCCESS)
        layout = self.lfs.layout(self.path)
        actual = layout.osts[0] if layout.osts else None
        reason = ""
        if self.task.verify in ("stat", "checksum"):
            try:
                reason, wrong = self._compared(before)
            except OSError as error:
                if error.errno in _GONE:
                    raise
                # Not to be tried again: a repetition would find the file at its target and be content.
                reason, wrong = "unverified", error.strerror or str(error)
            if wrong:
                return _Verdict(FileState.FAILED, reason, FailureClass.PERMANENT, wrong, actual)
        wanted = None if self._keeps_components(before.layout) else self.task.target_ost
        displaced = displacement(layout, self.task.source_ost, wanted)
        if displaced:
            return _Verdict(FileState.DISPLACED, displaced, actual=actual)
        return _Verdict(FileState.SUCCESS, reason, actual=actual)

    def _compared(self, before: _Before) -> tuple[str, str]:
        """The reason of the verdict, and what is wrong; both "" if the file is what it was."""
        # The content first: somebody who writes while it is read is then noticed by the time that he leaves.
        checksum = None if before.checksum is None else _checksum(self.path)
        after = os.lstat(self.path)
        different = differences(before.status, after)
        if checksum is not None and different & {"inode", "size", "mtime"}:
            return "changed", ""
        if checksum != before.checksum:
            different.add("content")
        return ("verify", f"not as before: {', '.join(sorted(different))}") if different else ("", "")

    def _keeps_components(self, former: Layout) -> bool:
        return former.composite and self.task.composite == "keep"

    def _failed(self, error: LfsError) -> _Verdict:
        failure = error.failure
        if _is_gone(self.path):
            return self._gone()
        if failure is FailureClass.SKIP:
            return _Verdict(FileState.SKIPPED, "no-layout")
        state = FileState.BUSY if failure is FailureClass.BUSY else FileState.FAILED
        if failure is FailureClass.GONE:
            failure = FailureClass.UNKNOWN  # Something was not found, but the file is there.
        return _Verdict(state, _reason(error), failure, error.text)

    def _gone(self) -> _Verdict:
        """On a host where Lustre is not mounted no file is there: that says nothing of the file."""
        try:
            self.lfs.fid(_existing_directory(self.path))
        except LfsError as error:
            reason = "not-mounted" if error.exit_code == errno.ENOTTY else _reason(error)
            return _Verdict(FileState.FAILED, reason, FailureClass.UNKNOWN, error.text)
        return _Verdict(FileState.IGNORED, "gone")


# What can be said without asking anybody.


def refusal(layout: Layout, source: int, target: int, *, skip: bool, composite: str) -> _Verdict | None:
    """Why a file that lies so is not moved from the source to the target; None if it is."""
    skipped, ignored = FileState.SKIPPED, FileState.IGNORED
    keep = layout.composite and composite == "keep"
    actual = layout.osts[0] if layout.osts else None
    for state, reason, holds in (
        (skipped, "no-layout", not layout.exists),
        (skipped, "foreign", layout.foreign),
        (skipped, "released", layout.released),
        (skipped, "on-mdt", layout.on_mdt),
        (skipped, "no-layout", not layout.osts),
        (skipped, "composite", layout.composite and composite == "skip"),
        (skipped, "striped", layout.stripe_count > 1 and skip and not keep),
        (ignored, "on-target", layout.osts == (target,) or source == target),
        (ignored, "not-on-source", source not in layout.osts),
    ):
        if holds:
            return _Verdict(state, reason, actual=actual)
    return None


def displacement(layout: Layout, source: int, target: int | None) -> str:
    """In which way a moved file is not where it should be; "" if it is. target: None if Lustre was to choose."""
    if source in layout.osts:
        return "still-on-source"
    single = layout.stripe_count <= 1
    wrong = target is not None and (layout.osts[:1] != (target,) or (single and len(layout.osts) != 1))
    return "elsewhere" if wrong else ""


def differences(before: os.stat_result, after: os.stat_result) -> set[str]:
    """What is not as it was, of inode, size, owner, mode and mtime."""
    pairs = {
        "inode": ((before.st_dev, before.st_ino), (after.st_dev, after.st_ino)),
        "size": (before.st_size, after.st_size),
        "owner": ((before.st_uid, before.st_gid), (after.st_uid, after.st_gid)),
        "mode": (before.st_mode, after.st_mode),
    }
    found = {name for name, (old, new) in pairs.items() if old != new}
    # `lfs migrate` gives a file its mtime back in whole seconds, which is what Lustre keeps.
    if after.st_mtime_ns not in (before.st_mtime_ns, before.st_mtime_ns // 10**9 * 10**9):
        found.add("mtime")
    return found


def _reason(error: LfsError) -> str:
    code = error.exit_code
    if isinstance(error, LfsTimedOut):
        return "timeout"
    if isinstance(error, LfsMissing):
        return "no-program"
    if code <= 0:
        return "killed" if code else "wrong-answer"
    return "usage" if code == errno.EINTR else errno.errorcode.get(code, f"exit-{code}")


# The file itself.

#: ENOTDIR: a directory above it has become something else.
_GONE = (errno.ENOENT, errno.ESTALE, errno.ENOTDIR)


def _is_gone(path: str) -> bool:
    try:
        os.lstat(path)
    except OSError as error:
        return error.errno in _GONE
    return False


def _existing_directory(path: str) -> str:
    """The lowest one above it that is there."""
    directory = os.path.dirname(os.path.realpath(path))
    while not os.path.isdir(directory):
        directory = os.path.dirname(directory)
    return directory


def _checksum(path: str) -> bytes:
    """Of the content, read from the servers where that can be had, and leaving the atime alone where we may."""
    # Without O_NONBLOCK the opening of a pipe that has come to stand here would wait for ever.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags | os.O_NOATIME)
    except PermissionError:  # O_NOATIME is for the owner only.
        descriptor = os.open(path, flags)
    with open(descriptor, "rb", buffering=0) as file:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        digest = hashlib.file_digest(file, "blake2b").digest()
        # What is read for this only must not push out what others have in the cache.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return digest


def _word(name: str, value: str, allowed: Collection[str]) -> str:
    word = value.strip().lower()
    if word not in allowed:
        raise ValueError(f"{name}: found {value!r}, expected one of: {', '.join(allowed)}")
    return word
