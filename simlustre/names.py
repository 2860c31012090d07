"""`lfs path2fid`, `fid2path`, `getdirstripe`, `setdirstripe`/`mkdir`, `data_version`."""

from __future__ import annotations

import errno
import os
import stat

from simlustre.call import reason
from simlustre.errors import Refusal, Usage
from simlustre.files import contact, mdt_of, stored, upwards, walk, write_attribute
from simlustre.layout import MDT_ATTRIBUTE, fid_text
from simlustre.options import parse
from simlustre.recovery import seen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simlustre.call import Call
    from simlustre.state import Filesystem


def _fid_of(call: Call, fs: Filesystem, path: str) -> str:
    """The FID of a file or directory as text. Raises OSError."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        # Directories have no layout of their own to keep a FID in; the inode number is as steady.
        return f"0x200000402:{status.st_ino:#x}:0x0"
    layout = stored(call.state, path)
    if layout is None:
        layout = contact(call.state, fs, path)
    return fid_text(layout.fid)


def path2fid(call: Call) -> int:
    options = parse(call.arguments, "", {"parents": "parents"})
    if not options.operands:
        raise Usage("path2fid wants a path")
    code = 0
    for path in options.operands:
        try:
            fs = call.state.filesystem_of(path)
            if fs is None:
                raise OSError(errno.ENOTTY if os.path.exists(path) else errno.ENOENT, "")
            text = f"[{_fid_of(call, fs, path)}]"
            if "parents" in options:
                text = "\t".join(_parents(call, fs, path))
        except OSError as error:
            number = error.errno or errno.EIO
            call.complain(f"lfs path2fid: cannot get fid for '{path}': {reason(number)}")
            code = code or number
            continue
        call.say(f"{path}: {text}" if len(options.operands) > 1 else text)
    return code


def _parents(call: Call, fs: Filesystem, path: str) -> list[str]:
    """`[FID of the directory]/name` for each link of a file."""
    links = [os.path.abspath(path)]
    if os.path.isfile(path) and os.stat(path).st_nlink > 1:
        links = _paths_of(call, fs, _fid_of(call, fs, path))
    return [f"[{_fid_of(call, fs, os.path.dirname(link))}]/{os.path.basename(link)}" for link in links]


def fid2path(call: Call) -> int:
    operands = parse(call.arguments, "", {}).operands
    if len(operands) < 2:
        raise Usage("fid2path wants a mount point (or file system name) and FIDs")
    fs = call.state.filesystem(operands[0]) or call.state.filesystem_of(operands[0])
    if fs is None:
        call.complain(f"lfs fid2path: cannot find '{operands[0]}': {reason(errno.ENODEV)} ({errno.ENODEV})")
        return errno.ENODEV
    code = 0
    for fid in operands[1:]:
        paths = _paths_of(call, fs, fid.strip("[]"))
        # With the name of the file system, paths are told relative to its root, as Lustre does.
        for path in paths:
            inside = path[len(fs.mount) :]
            call.say(inside.lstrip("/") if operands[0] == fs.name else operands[0].rstrip("/") + inside)
        if not paths:
            call.complain(f"lfs fid2path: cannot find '{fid}': {reason(errno.ENOENT)}")
            code = code or errno.ENOENT
    return code


def _paths_of(call: Call, fs: Filesystem, fid: str) -> list[str]:
    found = []
    for path in walk(fs.mount):
        layout = seen(call.state, path)
        if layout is not None and fid_text(layout.fid) == fid:
            found.append(path)
    return sorted(found)


def getdirstripe(call: Call) -> int:
    words = {
        "mdt-index": "m",
        "mdt-count": "c",
        "yaml": "y",
        "default": "D",
        "recursive": "r",
        "hash-type": "H",
    }
    options = parse(call.arguments, "micyDrH", words)
    if not options.operands:
        raise Usage("getdirstripe wants a directory")
    code = 0
    for path in options.operands:
        try:
            if not os.path.lexists(path):
                raise Refusal(errno.ENOENT)
            fs = call.state.filesystem_of(path)
            if fs is None:
                raise Refusal(errno.ENOTTY)
        except Refusal as error:
            call.complain(f"error: getdirstripe failed for {path}.")
            code = code or error.code
            continue
        # A file has no directory stripes; its number is -1.
        mdt = mdt_of(call.state, fs, os.path.realpath(path)) if os.path.isdir(path) else -1
        if "m" in options or "i" in options:
            call.say(str(mdt))
        elif "c" in options:
            call.say("0")
        else:
            call.say(f"lmv_stripe_count: 0 lmv_stripe_offset: {mdt} lmv_hash_type: none")
    return code


def setdirstripe(call: Call) -> int:
    """`lfs mkdir` too: a directory on a given MDT, without an index on the one of its parent."""
    words = {"mdt-index": "i", "index": "i", "mdt-count": "c", "count": "c", "mode": "o", "hash-type": "H",
             "default": "D", "delete": "d"}  # fmt: skip
    options = parse(call.arguments, "i:m:c:o:H:Dd", words)
    if not options.operands:
        raise Usage(f"{call.command} wants a directory")
    text = options.last("i") or options.last("m")
    code = 0
    for path in options.operands:
        try:
            _make_directory(call, path, text, options.last("o"))
        except (Refusal, OSError) as error:
            number = error.code if isinstance(error, Refusal) else error.errno or errno.EIO
            call.complain(f"lfs {call.command}: dirstripe error on '{path}': {reason(number)}")
            call.complain(f"lfs setdirstripe: cannot create dir '{path}': {reason(number)}")
            code = code or number
    return code


def _make_directory(call: Call, path: str, index: str | None, mode: str | None) -> None:
    """Raises Refusal and OSError."""
    fs = call.filesystem_of(os.path.dirname(os.path.abspath(path)))
    parent = os.path.realpath(os.path.dirname(os.path.abspath(path)))
    try:
        wanted = -1 if index is None else int(index.split(",")[0])
    except ValueError:
        raise Usage(f"bad MDT index '{index}'") from None
    mdt = wanted if wanted >= 0 else next((mdt_of(call.state, fs, place) for place in upwards(fs, parent)), 0)
    # Unless `enable_remote_dir_gid` lets a group do it.
    if wanted >= 0 and not call.may_administer:
        raise Refusal(errno.EPERM)
    if mdt not in [row[0] for row in call.state.mdts(fs)]:
        raise Refusal(errno.ENODEV)
    os.mkdir(path, int(mode, 8) if mode else 0o777)
    write_attribute(call.state, path, MDT_ATTRIBUTE, str(mdt))


def data_version(call: Call) -> int:
    operands = parse(call.arguments, "nrw", {"no-flush": "n"}).operands
    if len(operands) != 1:
        raise Usage("data_version wants one file")
    path = operands[0]
    try:
        fs = call.state.filesystem_of(path)
        if fs is None:
            raise OSError(errno.ENOTTY if os.path.exists(path) else errno.ENOENT, "")
        layout = contact(call.state, fs, path)
        # It changes with the data, and with the layout, as Lustre's does.
        version = (os.stat(path).st_mtime_ns // 1000) * 16 + layout.generation
    except (OSError, Refusal) as error:
        number = error.code if isinstance(error, Refusal) else error.errno or errno.EIO
        call.complain(f"lfs data_version: cannot get version for '{path}': {reason(number)}")
        return number
    call.say(str(version))
    return 0
