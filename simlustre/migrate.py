"""`lfs migrate`: copy the data to other OSTs, then let the same inode have the new layout.

The inode is never replaced, as in Lustre: number, FID, owner, times and hard links stay. Nothing is really
copied, because the "OSTs" are only said to hold the data; the data is read, and the copy takes the time that
the speed model gives it, and room on the targets as it goes on. A non-blocking migration holds a read lease of
the kernel meanwhile: a writer's open breaks it and waits until it is let go of, which is how Lustre behaves; a
blocking one holds an exclusive lock in place of a group lock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

from simlustre.call import reason
from simlustre.content import data_extents
from simlustre.errors import Refusal, Usage
from simlustre.files import (
    contact,
    forget,
    inherited,
    initialise,
    intend,
    plan,
    settle,
    stored,
    write_attribute,
)
from simlustre.layout import ATTRIBUTE, RELEASED, Layout, Wish
from simlustre.options import parse
from simlustre.recovery import recover
from simlustre.setstripe import LETTERS, WORDS, wished
from simlustre.state import DEACTIVATED, DOWN, ERROR, HANG

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal

    from simlustre.call import Call
    from simlustre.options import Options
    from simlustre.state import Filesystem, Ost, State
else:
    import _signal as signal  # the package around it builds enumerations, which takes 3 ms

SLICE_S = 0.05
MIB = 1 << 20

KEEPS_LAYOUT = (2, 14)  # from here on, without layout options
MOVES_COMPOSITE = (2, 16)  # before, such a migration of a composite file took the very same OSTs
LIMITS_BANDWIDTH = (2, 16)
READS_LISTS = (2, 17)


def migrate(call: Call) -> int:
    options, paths = _command_line(call)
    code = 0
    for path in paths:
        try:
            _Migration(call, options, path).run()
        except Refusal as error:
            call.complain(f"error: lfs migrate: {path}: {error.where}: {reason(error.code)}")
            code = code or error.code
        else:
            if "v" in options:
                call.say(path)
    return code


def _command_line(call: Call) -> tuple[Options, list[str]]:
    version = call.state.version()
    letters = LETTERS + "nbDv"
    words = {**WORDS, "non-block": "n", "block": "b", "non-direct": "D", "verbose": "v"}
    if version >= LIMITS_BANDWIDTH:
        letters += "W:"
        words |= {"bandwidth-limit": "W", "stats": "stats", "stats-interval": "stats-interval="}
    if version >= READS_LISTS:
        letters += "0"
        words |= {"files-from": "files-from=", "null": "0"}
    options = parse(call.arguments, letters, words)
    paths = list(options.operands)
    listed = options.last("files-from")
    if listed is not None:
        try:
            with open(0 if listed == "-" else listed, "rb", closefd=listed != "-") as file:
                names = file.read().split(b"\0" if "0" in options else b"\n")
        except OSError as error:
            raise Usage(f"cannot open '{listed}': {error.strerror}") from None
        paths += [os.fsdecode(name) for name in names if name]
    if not paths:
        raise Usage("no file name was given")
    if "n" in options and "b" in options:
        raise Usage("--block and --non-block exclude each other")
    return options, paths


class _Migration:
    """The migration of one file, in the order of its steps."""

    def __init__(self, call: Call, options: Options, path: str) -> None:
        self.call = call
        self.state = call.state
        self.options = options
        self.path = path
        self.block = "n" not in options
        fault = call.fault
        self.displaced = fault.get("displace") if fault is not None else None
        self.corrupts = bool(fault is not None and fault.get("corrupt"))
        self.touches = bool(fault is not None and fault.get("touch"))
        self.dies = bool(fault is not None and fault.get("kill"))
        self.written: dict[int, int] = {}  # {OST: bytes of the volatile file}

    def run(self) -> None:
        """Raises Refusal with the step that failed."""
        if not os.path.lexists(self.path):
            raise Refusal(errno.ENOENT, "cannot open source file")
        fs = self.state.filesystem_of(self.path)
        if fs is None:
            raise Refusal(errno.EOPNOTSUPP, "cannot get MDT index")
        self._check_open()
        layout, wishes, composite = self._wish(fs)
        descriptor = self._open()
        try:
            before = os.fstat(descriptor)
            self._hold(descriptor)
            new, intent = self._take_objects(fs, layout, wishes, composite, before.st_size)
            try:
                self._copy(fs, descriptor, layout, new, intent)
                self._check_unchanged(descriptor, before)
                self._swap(fs, descriptor, layout, new, intent)
                intent = 0
                if self.state.is_on("whole_seconds"):
                    os.utime(descriptor, (int(before.st_atime), int(before.st_mtime)))
            finally:
                if intent:
                    with self.state.writing():
                        forget(self.state, intent)
        finally:
            os.close(descriptor)  # lets go of the lease and of the lock
        if self.corrupts:
            _corrupt(self.path, before)

    def _check_open(self) -> None:
        """Lustre opens the source for writing, which breaks the lease of another migration of the file."""
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            raise Refusal(error.errno or errno.EIO, "cannot open source file") from None

    def _open(self) -> int:
        """The source, for reading, without leaving a trace in its access time where that is allowed."""
        try:
            return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOATIME)
        except PermissionError:  # neither its owner nor privileged
            return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)

    def _wish(self, fs: Filesystem) -> tuple[Layout, list[Wish], bool]:
        """(layout now, components wished, composite)."""
        try:
            layout = contact(self.state, fs, self.path)
        except Refusal as error:
            raise Refusal(error.code, "cannot get existing layout") from None
        if "encrypted" in layout.flags:
            raise Refusal(errno.ENOKEY, "cannot open source file")
        if "foreign" in layout.flags:
            raise Refusal(errno.EOPNOTSUPP, "cannot get existing layout")
        if layout.hsm & RELEASED:
            # The restore that opening it starts finds no copy tool here.
            raise Refusal(errno.ENODATA, "data copy failed")
        pairs = [pair for pair in self.options.pairs if pair[0] in "cSiopEL" or pair[0] in ("copy", "yaml")]
        try:
            if pairs:
                parent = inherited(self.state, fs, os.path.dirname(os.path.realpath(self.path)))[0]
                return layout, *wished(self.call, fs, pairs, parent)
        except Refusal as error:
            raise Refusal(error.code, "cannot create volatile file") from None
        if self.state.version() < KEEPS_LAYOUT:
            return layout, *inherited(self.state, fs, os.path.dirname(os.path.realpath(self.path)))
        stays = layout.composite and self.state.version() < MOVES_COMPOSITE
        wishes = [
            Wish(part.wish.end, part.wish.count, part.wish.size, part.wish.pattern, part.wish.pool,
                 osts=part.osts if stays and part.osts else None)
            for part in layout.components
        ]  # fmt: skip
        return layout, wishes, layout.composite

    def _hold(self, descriptor: int) -> None:
        if self.block:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            return
        # The kernel tells of a broken lease by SIGIO, which kills whoever does not expect it.
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError as error:
            code = errno.EBUSY if error.errno == errno.EAGAIN else error.errno or errno.EIO
            raise Refusal(code, "cannot get lease") from None

    def _check_lease(self, descriptor: int) -> None:
        if not self.block and fcntl.fcntl(descriptor, fcntl.F_GETLEASE) != fcntl.F_RDLCK:
            raise Refusal(errno.EBUSY, "data copy failed")

    def _take_objects(
        self, fs: Filesystem, layout: Layout, wishes: list[Wish], composite: bool, size: int
    ) -> tuple[Layout, int]:
        """(new layout, number of the intent). Who uses which OST is written down with it."""
        if self.displaced is not None:
            for wish in wishes:
                wish.osts, wish.index = [self.displaced], -1
        wanted = [ost for wish in wishes for ost in wish.osts or [wish.index]]
        self.call.wait_while_hanging(fs, [*layout.osts(), *wanted])
        recover(self.state)
        with self.state.writing():
            current = stored(self.state, self.path)
            if current is not None:
                layout.components, layout.generation = current.components, current.generation
            new = Layout(
                layout.fid, plan(wishes, composite), composite, layout.generation + 1, size, layout.mdt,
                layout.flags, layout.hsm, layout.archive, layout.components,
            )  # fmt: skip
            try:
                initialise(self.state, fs, new)
            except Refusal as error:
                raise Refusal(error.code, "cannot create volatile file") from None
            intent = intend(self.state, fs, self.path, new.fid)
            _note_use(self.state, fs, intent, layout.osts(), new.osts())
        return new, intent

    def _copy(self, fs: Filesystem, descriptor: int, layout: Layout, new: Layout, intent: int) -> None:
        """Read the data, and take as long as the OSTs need for it."""
        sources = layout.osts()
        try:
            for start, end in data_extents(descriptor):
                for offset in range(start, end, MIB):
                    os.pread(descriptor, min(MIB, end - offset), offset)
        except OSError as error:
            raise Refusal(error.errno or errno.EIO, "data copy failed") from None
        total = new.size * fs.size_scale
        stats = _Stats(self, total) if "stats" in self.options else None
        limit = float(self.options.last("W") or "inf") * MIB
        done = elapsed_s = 0.0  # simulated bytes, simulated seconds
        osts = self._check_servers(fs, descriptor, sources, new)
        while done < total:
            rate = min(_rate(self.state, fs, osts), limit)
            needed_s = (total - done) / rate
            if self.dies:
                needed_s /= 2
            time_scale = self.state.time_scale()
            pause_s = min(SLICE_S, needed_s / time_scale) if time_scale else 0.0
            step_s = min(needed_s, pause_s * time_scale) if time_scale else needed_s
            time.sleep(pause_s)
            self.state.apply_changes()
            done += step_s * rate
            elapsed_s += step_s
            self._write(fs, new, intent, min(done / total, 1.0))
            if self.dies and done * 2 >= total:
                os.kill(os.getpid(), 9)
            if stats is not None:
                stats.tell(min(done, total), elapsed_s)
            osts = self._check_servers(fs, descriptor, sources, new)
            self._check_lease(descriptor)
        if self.dies:  # there was nothing to copy
            os.kill(os.getpid(), 9)
        if self.touches:
            self._touch(descriptor)
        self._check_lease(descriptor)

    def _write(self, fs: Filesystem, new: Layout, intent: int, share: float) -> None:
        """Let the volatile file grow to a share of its size. Raises Refusal when a target has no room for that."""
        wanted = {ost: int(length * share) for ost, length in new.shares().items()}
        with self.state.writing():
            for ost in self.state.some_osts(fs, wanted):
                more = wanted[ost.index] - self.written.get(ost.index, 0)
                if more * fs.size_scale / 1024 > ost.available_kib:
                    raise Refusal(errno.ENOSPC, "data copy failed")
            self.state.db.executemany(
                "INSERT OR REPLACE INTO volatile VALUES (?,?,?,?)",
                [(intent, fs.name, ost, length) for ost, length in wanted.items()],
            )
        self.written = wanted

    def _check_servers(self, fs: Filesystem, descriptor: int, sources: list[int], new: Layout) -> list[Ost]:
        """The OSTs involved, when none of them hangs any more. Raises Refusal when one is in trouble."""
        while True:
            osts = self.state.some_osts(fs, dict.fromkeys([*sources, *new.osts()]))
            _check_servers(osts)
            if not any(ost.state == HANG for ost in osts):
                return osts
            self.call.wait_while_hanging(fs, [ost.index for ost in osts])
            self._check_lease(descriptor)

    def _touch(self, descriptor: int) -> None:
        """Change the file as a user may in the middle of a copy, without a lease that would stop it."""
        if not self.block:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        with open(self.path, "ab") as file:
            file.write(b"!")
        if not self.block:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)

    def _check_unchanged(self, descriptor: int, before: os.stat_result) -> None:
        now = os.fstat(descriptor)
        if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise Refusal(errno.EAGAIN, "file changed" if self.block else "source file changed")

    def _swap(self, fs: Filesystem, descriptor: int, layout: Layout, new: Layout, intent: int) -> None:
        with self.state.writing():
            current = stored(self.state, descriptor)
            if current is None or current.generation != layout.generation:
                raise Refusal(errno.EBUSY, "cannot swap layout")
            write_attribute(self.state, descriptor, ATTRIBUTE, new.to_text())
            settle(self.state, fs, self.path, new, intent)


class _Stats:
    """The lines of `--stats`."""

    def __init__(self, migration: _Migration, total: float) -> None:
        self.call = migration.call
        self.total = total
        self.interval_s = float(migration.options.last("stats-interval") or 5)
        self.told_s = 0.0
        self.call.say(f"{migration.path}:")

    def tell(self, done: float, seconds: float) -> None:
        """seconds: simulated ones, since the copy began."""
        if seconds - self.told_s < self.interval_s and done < self.total:
            return
        self.told_s = seconds
        rate = int(done / MIB / max(seconds, 0.001))
        share = int(100 * done / self.total) if self.total else 100
        self.call.say(
            f"- {{ seconds: {int(seconds)}, rmbps: {rate:5d}, wmbps: {rate:5d}, copied: {int(done / MIB)},"
            f" total: {int(self.total / MIB)}, pct: {share}% }}"
        )
        self.call.flush()


def _check_servers(osts: list[Ost]) -> None:
    """Raises Refusal when a server is in trouble."""
    for ost in osts:
        if ost.state in (DOWN, DEACTIVATED, ERROR):
            usual = {DOWN: errno.ENOTCONN, DEACTIVATED: errno.ESHUTDOWN, ERROR: errno.EIO}[ost.state]
            raise Refusal(ost.code or usual, "data copy failed")


def _corrupt(path: str, before: os.stat_result) -> None:
    """Change one byte where there is data, and leave no trace in the times."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    for start, _ in data_extents(descriptor):
        byte = os.pread(descriptor, 1, start)
        os.pwrite(descriptor, bytes([byte[0] ^ 0xFF]), start)
        break
    os.utime(descriptor, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.close(descriptor)


# Who uses what, and how fast that goes.


def _note_use(state: State, fs: Filesystem, io: int, sources: list[int], targets: list[int]) -> None:
    """Enter a migration under all that it burdens, and raise the high-water marks. Only inside `writing`."""
    osts = list(dict.fromkeys([*sources, *targets]))
    uses = {("all", "")}
    uses |= {("ost", str(ost)) for ost in osts}
    uses |= {("source", str(ost)) for ost in sources} | {("target", str(ost)) for ost in targets}
    uses |= {("pair", f"{source}>{target}") for source in sources for target in targets}
    uses |= {("oss", ost.oss) for ost in state.some_osts(fs, osts)}
    state.db.executemany("INSERT INTO io_use VALUES (?,?,?,?)", [(io, fs.name, *use) for use in uses])
    state.db.execute(
        "INSERT INTO high_water SELECT mine.fs, mine.scope, mine.name, count(*) FROM io_use AS mine"
        " JOIN io_use AS every ON every.fs = mine.fs AND every.scope = mine.scope AND every.name = mine.name"
        " WHERE mine.io = ? GROUP BY mine.scope, mine.name"
        " ON CONFLICT (fs, scope, name) DO UPDATE SET peak = max(peak, excluded.peak)", (io,)
    )  # fmt: skip


def _rate(state: State, fs: Filesystem, osts: list[Ost]) -> float:
    """Bytes per second: the least of what each OST and each OSS has for one of its migrations."""
    rates = []
    for ost in osts:
        rates.append(ost.mbps / _users(state, fs, "ost", str(ost.index)) / ost.slow)
    for name in {ost.oss for ost in osts}:
        row = state.db.execute("SELECT mbps FROM oss WHERE fs=? AND name=?", (fs.name, name)).fetchone()
        rates.append(row[0] / _users(state, fs, "oss", name))
    return min(rates) * MIB if rates else float(1 << 40)


def _users(state: State, fs: Filesystem, scope: str, name: str) -> int:
    (count,) = state.db.execute(
        "SELECT count(*) FROM io_use WHERE fs=? AND scope=? AND name=?", (fs.name, scope, name)
    ).fetchone()
    return max(1, int(count))
