"""Measures one OST: writes a file on it, reads it back, removes it.

What is measured must be the OST and nothing else. So the file is asked for on exactly this OST and looked for there
afterwards; its content cannot be compressed; and it is read past the cache of this client, or the result says that it
was not. Servers cache, too: files larger than their memory are the only thing that helps against that.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import mmap
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, ClassVar

from cyclone.errors import TaskError
from cyclone.lustre.lfs import Lfs, LfsError, LfsMissing, LfsTimedOut
from cyclone.lustre.ost_task import REACH, Fault, OstResult, OstState, OstTask, Row, host, one_line
from cyclone.lustre.payload import Payload
from cyclone.lustre.properties import STEP_S_MAX, given, seconds, size_bytes, switch
from cyclone.lustre.records import OstPerformance

_log = logging.getLogger(__name__)

CREATE, WRITE, READ = "create", "write", "read"

#: What a metadata server or a client says of an OST that it cannot reach.
_UNREACHABLE = frozenset(
    {errno.ENODEV, errno.ENOTCONN, errno.ESHUTDOWN, errno.ETIMEDOUT, errno.EREMOTEIO, errno.EHOSTUNREACH}
)

#: What is said of a directory that is missing on this node, not on Lustre, or not ours: the same for every OST.
_NO_PLACE = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ENOTTY, errno.EOPNOTSUPP, errno.EACCES, errno.EPERM}
)

#: Addresses, lengths and positions of direct I/O are multiples of it (Linux, open(2), "O_DIRECT").
_PAGE_BYTES = mmap.PAGESIZE

# How a file was read back.
_DIRECT = "direct"  # with O_DIRECT
_DROPPED = "dropped"  # after the locks of this OST were given back, and the pages with them
_ADVISED = "advised"  # after the pages were given up, which they were
_CACHED = "cached"  # possibly from the memory of this client: no figure of the OST


class LustreIOTask(OstTask):
    """Writes a file of `total_size_bytes` on one OST in blocks, reads it back, and records how long that took.

    write_file_sync: whether the write ends only when the data is on the OST.
    target_dir: where the file is made. lfs_bin: of the nodes. lfs_target: name of the file system.
    db_proxy_target: whether to send a row to the sink `database`: not if it is empty. What it says is not used
    otherwise, nor is db_proxy_port: the ini file of the controller knows where the sink is.
    pushgateway: whether to send it to the sink `pushgateway`.
    phase_timeout: seconds that each of creating, writing and reading may take.
    ost_list: ask for exactly this OST; off asks where to begin to look for one that takes it, as Cyclone 2.x did.
    direct_read: read with O_DIRECT where the file system can. lctl_bin, use_sudo: to drop the cache otherwise.

    Its result is an `OstResult`; figures: seconds of each phase and of `unlink`, `read_mode`, `write_bytes_per_second`,
    `read_bytes_per_second`.
    """

    #: Seconds that an attempt may take besides its phases.
    spare_s: ClassVar[float] = 60.0

    def __init__(
        self,
        ost_idx: int | str,
        block_size_bytes: str | int,
        total_size_bytes: str | int,
        write_file_sync: bool | str,
        target_dir: str,
        lfs_bin: str,
        lfs_target: str,
        db_proxy_target: str = "",
        db_proxy_port: str | int = "",
        *,
        pushgateway: bool | str = False,
        phase_timeout: float | str = 120.0,
        ost_list: bool | str = True,
        direct_read: bool | str = True,
        lctl_bin: str = "lctl",
        use_sudo: bool | str = False,
    ) -> None:
        super().__init__(ost_idx, lfs_target)
        self.block_size_bytes = size_bytes("block_size_bytes", block_size_bytes)
        self.total_size_bytes = size_bytes("total_size_bytes", total_size_bytes)
        self.write_file_sync = switch("write_file_sync", write_file_sync)
        self.target_dir = given("target_dir", target_dir, "a directory of the file system")
        self.lfs_bin = given("lfs_bin", lfs_bin, "a path")
        self.db_proxy_target = db_proxy_target.strip()
        self.db_proxy_port = db_proxy_port
        self.pushgateway = switch("pushgateway", pushgateway)
        self.phase_timeout_s = seconds("phase_timeout", phase_timeout, maximum=STEP_S_MAX)
        self.ost_list = switch("ost_list", ost_list)
        self.direct_read = switch("direct_read", direct_read)
        self.lctl_bin, self.use_sudo = lctl_bin, switch("use_sudo", use_sudo)
        # Creating asks `lfs` twice. Between two blocks the task looks at the clock by itself; what hangs within
        # one is ended by this.
        self.timeout = 4 * self.phase_timeout_s + self.spare_s

    def execute(self) -> OstResult:
        path = os.path.join(self.target_dir, self.file_name(".tmp"))
        look = Look()
        payload = Payload(f"{self.lfs_target}/{path}", self.total_size_bytes, self._chunk_bytes)
        try:
            self._create(look, path)
            self._write(look, path, payload)
            self._read(look, path, payload)
        except _Found as found:
            look.faults.append(found.fault)
        finally:
            self._remove(look, path)
        row = self._row(look)
        for sink in self.sinks():
            self.record(sink, OstPerformance, **row)
        faulty = {fault.phase for fault in look.faults}
        fine = tuple(phase for phase in look.passed if phase not in faulty)
        return OstResult(self.ost_idx, look.state, tuple(look.faults), fine, look.figures)

    def sinks(self) -> tuple[str, ...]:
        wanted = {"database": bool(self.db_proxy_target), "pushgateway": self.pushgateway}
        return tuple(sink for sink, is_wanted in wanted.items() if is_wanted)

    def state_rows(self, state: OstState, text: str, moment: datetime) -> list[Row]:
        fields = {
            "fs": self.lfs_target,
            "ost": self.ost_idx,
            "state": state,
            "size": self.total_size_bytes,
            "host": host(),
            "error": one_line(text),
        }
        return [Row(sink, OstPerformance, fields) for sink in self.sinks()]

    def workplaces(self) -> list[str]:
        return [self.target_dir]

    def watch(self, look: Look, phase: str) -> AbstractContextManager[object]:
        """Entered when a phase begins, left when it ends. For subclasses that want to know while it lasts."""
        return nullcontext()

    # The phases.

    def _create(self, look: Look, path: str) -> None:
        with self._phase(look, CREATE):
            try:
                lfs = self._lfs()
                lfs.create(path, self.ost_idx, exact=self.ost_list)
                layout = lfs.layout(path)
            except LfsMissing:
                # Nothing is known of the OST by that: this node is not fit for the task.
                raise
            except LfsTimedOut as error:
                raise _Found(CREATE, OstState.TIMEOUT, str(error)) from None
            except LfsError as error:
                if error.exit_code in _NO_PLACE:
                    raise
                if error.exit_code in _UNREACHABLE:
                    raise _Found(REACH, OstState.DOWN, str(error)) from None
                raise _Found(CREATE, OstState.WRITE_FAILED, str(error)) from None
        if layout.osts != (self.ost_idx,):
            found = ", ".join(map(str, layout.osts)) or "no OST"
            raise _Found(CREATE, OstState.DISPLACED, f"the file is on {found} instead of {self.ost_idx}")
        look.passed.append(REACH)

    def _write(self, look: Look, path: str, payload: Payload) -> None:
        look.write_timestamp = datetime.now(UTC)
        with self._phase(look, WRITE), _failing(WRITE, OstState.WRITE_FAILED):
            fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                begin = perf_counter()
                position = 0
                while position < self.total_size_bytes:
                    length = min(self.block_size_bytes, self.total_size_bytes - position)
                    position += self.write_block(fd, payload.piece(position, length))
                    self._keep_time(WRITE, begin)
                if self.write_file_sync:
                    os.fsync(fd)
                duration = perf_counter() - begin
                self._keep_time(WRITE, begin)
            finally:
                os.close(fd)
        look.write_duration = duration
        look.figures["write_bytes_per_second"] = self._pace(duration)

    def _read(self, look: Look, path: str, payload: Payload) -> None:
        look.read_timestamp = datetime.now(UTC)
        with self._phase(look, READ), _failing(READ, OstState.READ_FAILED):
            fd, look.read_mode = self._open_past_cache(path)
            try:
                duration = self._read_back(fd, payload)
            finally:
                os.close(fd)
        look.read_duration = duration
        look.figures["read_mode"] = look.read_mode
        look.figures["read_bytes_per_second"] = self._pace(duration)

    def _remove(self, look: Look, path: str) -> None:
        begin = perf_counter()
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        except OSError as error:
            _log.warning("cannot be removed file=%s reason=%s", path, error.strerror)
        look.figures["unlink"] = perf_counter() - begin

    @contextmanager
    def _phase(self, look: Look, phase: str) -> Iterator[None]:
        with self.watch(look, phase):
            # Within, since the one who watches may have to wait for a mail server afterwards.
            begin = perf_counter()
            try:
                yield
            finally:
                look.figures[phase] = perf_counter() - begin
        look.passed.append(phase)

    def _keep_time(self, phase: str, begin: float) -> None:
        if perf_counter() - begin > self.phase_timeout_s:
            raise _Found(phase, OstState.TIMEOUT, f"it took longer than {self.phase_timeout_s:g} s")

    # Reading and writing.

    @property
    def _chunk_bytes(self) -> int:
        """Of one read: a block, in whole pages."""
        block = min(self.block_size_bytes, self.total_size_bytes)
        return -(-block // _PAGE_BYTES) * _PAGE_BYTES

    def write_block(self, fd: int, block: bytes) -> int:
        """Write the beginning of a block at least, and return how many bytes."""
        return os.write(fd, block)

    def read_block(self, fd: int, block: memoryview) -> int:
        """Fill the beginning of a block at least, and return how many bytes; 0 at the end of the file."""
        return os.readv(fd, [block])

    def _read_back(self, fd: int, payload: Payload) -> float:
        """Read and compare everything. Returns the seconds that reading alone took."""
        begin, reading = perf_counter(), 0.0
        position = 0
        # Freed with its last view; closing it would fail while the traceback of an error still holds one.
        pages = mmap.mmap(-1, self._chunk_bytes)
        block = memoryview(pages)
        while position < self.total_size_bytes:
            before = perf_counter()
            length = self.read_block(fd, block)
            reading += perf_counter() - before
            if length == 0:
                text = f"the file ended after {position} of {self.total_size_bytes} bytes"
                raise _Found(READ, OstState.READ_FAILED, text)
            if pages[:length] != payload.piece(position, length):
                text = f"what was read differs from what was written, from byte {position} on"
                raise _Found(READ, OstState.CORRUPT, text)
            position += length
            self._keep_time(READ, begin)
        return reading

    def _open_past_cache(self, path: str) -> tuple[int, str]:
        """Open the file for reading, so that it is not read from the memory of this node. Returns how, too."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(path, flags)
        try:
            # What was not written yet cannot be given up.
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            if self.direct_read:
                with contextlib.suppress(OSError):
                    direct = os.open(path, flags | os.O_DIRECT)
                    os.close(fd)
                    return direct, _DIRECT
            if self._drop_lock_cache():
                return fd, _DROPPED
            return fd, _CACHED if _may_be_in_memory(fd) else _ADVISED
        except BaseException:
            os.close(fd)
            raise

    def _drop_lock_cache(self) -> bool:
        try:
            return self._lfs().drop_lock_cache(self.lfs_target, self.ost_idx)
        except LfsError as error:
            _log.debug("locks are not dropped reason=%s", error)
            return False

    def _lfs(self) -> Lfs:
        return Lfs(self.lfs_bin, self.lctl_bin, sudo=self.use_sudo, timeout_s=self.phase_timeout_s)

    def _pace(self, duration: float) -> int | None:
        return round(self.total_size_bytes / duration) if duration > 0 else None

    def _row(self, look: Look) -> dict[str, Any]:
        wrote, read = look.write_duration, look.read_duration
        telling = next((fault for fault in look.faults if fault.state != OstState.SLOW), None)
        return {
            "fs": self.lfs_target,
            "ost": self.ost_idx,
            "state": look.state,
            "size": self.total_size_bytes,
            "write_timestamp": look.write_timestamp,
            "read_timestamp": look.read_timestamp,
            "write_throughput": None if wrote is None else self._pace(wrote),
            "read_throughput": None if read is None else self._pace(read),
            "write_duration": wrote,
            "read_duration": read,
            "host": host(),
            "error": None if telling is None else one_line(telling.text),
            "read_mode": look.read_mode,
        }


@dataclass
class Look:
    """What is known so far of the OST, while a task looks at it. passed: phases that came to their end."""

    faults: list[Fault] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    write_timestamp: datetime | None = None
    read_timestamp: datetime | None = None
    write_duration: float | None = None
    read_duration: float | None = None
    read_mode: str | None = None

    @property
    def state(self) -> OstState:
        return next((fault.state for fault in self.faults if fault.state != OstState.SLOW), OstState.OK)


class _Found(TaskError):
    """Ends the look: there is nothing more to be learned."""

    def __init__(self, phase: str, state: OstState, text: str) -> None:
        self.fault = Fault(phase, state, text)
        super().__init__(text)


@contextmanager
def _failing(phase: str, state: OstState) -> Iterator[None]:
    """Whatever the system refuses within is a fault of this phase."""
    try:
        yield
    except OSError as error:
        if error.errno in _UNREACHABLE:
            phase, state = REACH, OstState.DOWN
        raise _Found(phase, state, f"[Errno {error.errno}] {error.strerror}") from None


def _may_be_in_memory(fd: int) -> bool:
    """Is the beginning of the file in the cache of this node, or can that not be known?"""
    try:
        os.preadv(fd, [bytearray(1)], 0, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
