"""`lfs check`, `lfs df`, `lfs osts`, `lfs mdts`, `lfs pool_list`: the servers and their room."""

from __future__ import annotations

import errno
import os
import time

from simlustre.call import reason
from simlustre.errors import Refusal, Usage
from simlustre.options import parse
from simlustre.recovery import recover, sweep
from simlustre.state import DEACTIVATED, DOWN, ERROR, HANG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simlustre.call import Call
    from simlustre.options import Options
    from simlustre.state import Filesystem, Ost

# From this version on there are two blanks before the mount column.
TWO_BLANKS = (2, 17)


def check(call: Call) -> int:
    options = parse(call.arguments, "", {})
    kinds = ("osts", "mdts", "mgts", "servers", "all")
    if not options.operands or options.operands[0] not in kinds:
        raise Usage("check wants one of: osts, mdts, mgts, servers, all")
    kind, paths = options.operands[0], options.operands[1:]
    if paths and call.state.version() < (2, 16):
        raise Usage("check takes no path before 2.16")
    code = 0
    filesystems = call.state.filesystems()
    if paths:
        try:
            filesystems = [call.filesystem_of(path) for path in paths]
        except Refusal as error:
            call.complain(f"lfs check: {paths[0]}: {reason(error.code)} ({error.code})")
            return error.code
    for fs in filesystems:
        if kind in ("mdts", "servers", "all"):
            for index, *_ in call.state.mdts(fs):
                _tell_ping(call, "mdc", f"{fs.name}-MDT{index:04x}-mdc-{fs.instance}")
        if kind in ("osts", "servers", "all"):
            for ost in call.state.osts(fs):
                _check_ost(call, fs, ost)
        if kind in ("mgts", "all"):
            _tell_ping(call, "mgc", f"MGC{call.state.mdts(fs)[0][3]}")
    return code


def _asked(call: Call, fs: Filesystem, ost: Ost) -> Ost:
    """An OST as it is after it was asked something.

    One that hangs blocks whoever asks until the client gives its connection up; from then on it is down.
    """
    if ost.state != HANG:
        return ost
    if not call.wait_while_hanging(fs, [ost.index], call.state.down_block_s()):
        ost.state = DOWN
        return ost
    return call.state.some_osts(fs, [ost.index])[0]


def _check_ost(call: Call, fs: Filesystem, ost: Ost) -> None:
    code = 0
    if call.may_administer:
        ost = _asked(call, fs, ost)
        if ost.state in (DEACTIVATED, DOWN):
            code = errno.ESHUTDOWN if ost.state == DEACTIVATED else ost.code or errno.ENOTCONN
    _tell_ping(call, "osc", f"{fs.name}-{ost.name}-osc-{fs.instance}", code)


def _tell_ping(call: Call, kind: str, name: str, code: int = 0) -> None:
    """Say what a ping has met; code: errno. It is a write to a file, which old versions open for root only."""
    if not call.may_administer:
        code = errno.EACCES
        call.complain(f"lfs check: error opening /sys/fs/lustre/{kind}/{name}/ping: {reason(code)} ({code})")
    if code:
        call.complain(f"lfs check: error: check '{name}': {reason(code)} ({code})")
    else:
        call.say(f"{name} active.")


def osts(call: Call) -> int:
    return _devices(call, "OBDS:", "OST")


def mdts(call: Call) -> int:
    return _devices(call, "MDTS:", "MDT")


def _devices(call: Call, heading: str, kind: str) -> int:
    paths = parse(call.arguments, "", {}).operands
    try:
        filesystems = [call.filesystem_of(path) for path in paths] or call.state.filesystems()
    except Refusal as error:
        call.complain(f"lfs {call.command}: cannot open '{paths[0]}': {reason(error.code)} ({error.code})")
        return error.code
    for fs in filesystems:
        call.say(heading)
        if kind == "MDT":
            for index, *_ in call.state.mdts(fs):
                call.say(f"{index}: {fs.name}-MDT{index:04x}_UUID ACTIVE")
        else:
            for ost in call.state.osts(fs):
                word = "INACTIVE" if ost.state in (DEACTIVATED, DOWN) else "ACTIVE"
                call.say(f"{ost.index}: {fs.name}-{ost.name}_UUID {word}")
    return 0


def pool_list(call: Call) -> int:
    operands = parse(call.arguments, "", {}).operands
    if len(operands) != 1:
        raise Usage("pool_list wants FSNAME, FSNAME.POOL or a path")
    name, _, pool = operands[0].partition(".")
    fs = call.state.filesystem(name)
    if fs is None:
        fs, pool = call.state.filesystem_of(operands[0]), ""
    if fs is None or (pool and pool not in call.state.pools(fs)):
        call.complain(
            f"lfs pool_list: cannot list pool '{operands[0]}': {reason(errno.ENOENT)} ({errno.ENOENT})"
        )
        return errno.ENOENT
    pools = call.state.pools(fs)
    if pool:
        call.say(f"Pool: {fs.name}.{pool}")
        for index in sorted(pools[pool]):
            call.say(f"{fs.name}-OST{index:04x}_UUID")
    else:
        call.say(f"Pools from {fs.name}:")
        for known in pools:
            call.say(f"{fs.name}.{known}")
    return 0


# lfs df


def df(call: Call) -> int:
    new = call.state.version() >= (2, 17)
    words = {"human-readable": "h", "si": "H", "inodes": "i", "lazy": "l", "verbose": "v", "pool": "p"}
    letters = "hHilvp:"
    if new:
        words |= {"no-header": "noheader", "mdt": "m", "ost": "o"}
        letters += "mo"
    options = parse(call.arguments, letters, words)
    filesystems: list[Filesystem] = []
    code = 0
    for path in options.operands:
        try:
            if not os.path.lexists(path):
                raise Refusal(errno.ENOENT)
            filesystems.append(call.filesystem_of(path))
        except Refusal as error:
            call.complain(f"error: invalid path '{path}': {reason(error.code)}")
            code = code or error.code
    if not options.operands:
        filesystems = call.state.filesystems()
    for fs in filesystems:
        status = _Table(call, fs, options).print()
        code = code or status
    return code


class _Table:
    """The rows of one file system."""

    def __init__(self, call: Call, fs: Filesystem, options: Options) -> None:
        self.call = call
        self.fs = fs
        self.options = options
        self.inodes = "i" in options
        self.verbose = "v" in options
        self.code = 0
        self.gap = "  " if call.state.version() >= TWO_BLANKS else " "

    def print(self) -> int:
        """Print all of it; the exit status."""
        call, fs = self.call, self.fs
        recover(call.state)
        sweep(call.state, fs)
        if "noheader" not in self.options:
            self._say_header()
        every = ("m" in self.options) == ("o" in self.options)
        mdts = self._mdts() if every or "m" in self.options else (0, 0)
        osts = self._osts() if every or "o" in self.options else (0, 0)
        call.say("")
        self._say("filesystem_summary:", *self._summary(mdts, osts), fs.display)
        call.say("")
        return self.code

    def _mdts(self) -> tuple[int, int]:
        """Print the rows; (total, used) of all."""
        rows: list[tuple[int, int]] = []
        for index, kib, used_kib, _ in self.call.state.mdts(self.fs):
            rows.append((kib * 2 // 5, used_kib // 8) if self.inodes else (kib, used_kib))
            self._say(f"{self.fs.name}-MDT{index:04x}_UUID", *rows[-1], f"{self.fs.display}[MDT:{index}]")
        return sum(row[0] for row in rows), sum(row[1] for row in rows)

    def _osts(self) -> tuple[int, int]:
        rows: list[tuple[int, int]] = []
        for member in self._members():
            ost = _asked(self.call, self.fs, member)
            if self._shown(ost):
                rows.append((ost.inodes, ost.objects) if self.inodes else (ost.kib, ost.used_kib))
                mount = f"{self.fs.display}[OST:{ost.index}]{self._letters(ost)}"
                self._say(f"{self.fs.name}-{ost.name}_UUID", *rows[-1], mount)
        return sum(row[0] for row in rows), sum(row[1] for row in rows)

    def _summary(self, mdts: tuple[int, int], osts: tuple[int, int]) -> tuple[int, int]:
        """(total, used): room is on OSTs; inodes are on MDTs, but no more are free than objects on OSTs."""
        if not self.inodes:
            return osts if osts[0] else mdts
        free = mdts[0] - mdts[1]
        if osts[0]:
            free = min(free, osts[0] - osts[1])
        return mdts[1] + free, mdts[1]

    def _members(self) -> list[Ost]:
        osts = self.call.state.osts(self.fs)
        pool = self.options.last("p")
        if pool is None:
            return osts
        members = self.call.state.pools(self.fs).get(pool.rpartition(".")[2], set())
        return [ost for ost in osts if ost.index in members]

    def _shown(self, ost: Ost) -> bool:
        """Whether an OST has numbers; says what is said instead of them."""
        if ost.state == DEACTIVATED:
            if self.verbose:
                self.call.say(f"{ost.name:<20}: inactive device")
            return False
        if ost.state == DOWN and "l" in self.options:
            return False
        if ost.state in (DOWN, ERROR):
            code = ost.code or (errno.EIO if ost.state == ERROR else errno.ENOTCONN)
            if ost.state == DOWN:
                self.call.flush()
                time.sleep(self.call.state.down_block_s())
            self.call.say(f"{ost.name:<20}: {reason(code)}")
            self.code = self.code or code
            return False
        return True

    def _letters(self, ost: Ost) -> str:
        """The column behind the row, with its blank: states, and with -v that an OST is flash."""
        if not ost.letters and not ost.flash:
            return ""
        return " " + ost.letters + ("f" if ost.flash and self.verbose else "")

    def _say_header(self) -> None:
        human = "h" in self.options or "H" in self.options
        if self.inodes:
            columns = ("Inodes", "IUsed", "IFree", "IUse%")
        else:
            columns = ("bytes" if human else "1K-blocks", "Used", "Available", "Use%")
        self._row("UUID", *columns, "Mounted on")

    def _say(self, name: str, total: int, used: int, mount: str) -> None:
        free = total - used
        percent = -(-used * 100 // (used + free)) if used + free else 0
        self._row(name, self._amount(total), self._amount(used), self._amount(free), f"{percent}%", mount)

    def _row(self, name: str, total: str, used: str, free: str, percent: str, mount: str) -> None:
        self.call.say(f"{name:<20} {total:>11} {used:>11} {free:>11} {percent:>4}{self.gap}{mount}")

    def _amount(self, number: int) -> str:
        if "h" not in self.options and "H" not in self.options:
            return str(number)
        base = 1024 if "h" in self.options else 1000
        amount = float(number if self.inodes else number * 1024)
        place = 0
        while amount > base:
            amount /= base
            place += 1
        if place == 0:
            return str(int(amount))
        return f"{amount:8.1f}{('KMGTPEZY' if base == 1024 else 'kMGTPEZY')[place - 1]}"
