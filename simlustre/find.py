"""`lfs find`: walk a tree and name what fits."""

from __future__ import annotations

import errno
import os
import stat
import time

from simlustre.call import reason
from simlustre.errors import Refusal, Usage
from simlustre.files import contact
from simlustre.layout import RELEASED
from simlustre.options import indices, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from simlustre.call import Call
    from simlustre.layout import Layout
    from simlustre.state import Filesystem

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
TYPES = {"f": stat.S_ISREG, "d": stat.S_ISDIR, "l": stat.S_ISLNK, "p": stat.S_ISFIFO}
SHORT = {"-O": "--ost", "-t": "--type", "-c": "--stripe-count", "-i": "--stripe-index", "-L": "--layout",
         "-s": "--size", "-D": "--maxdepth", "-n": "--name", "-0": "--print0"}  # fmt: skip
SHORT |= {
    "-" + word: "--" + word
    for word in ("ost", "type", "size", "mtime", "pool", "name", "maxdepth", "print", "print0")
}
VALUED = {"--ost", "--type", "--size", "--mtime", "--pool", "--stripe-count", "--stripe-index", "--layout",
          "--comp-count", "--maxdepth", "--name", "--printf"}  # fmt: skip
PRINTS_FORMAT = (2, 13)


class _Test:
    """One condition. `!` in front turns it round."""

    def __init__(self, name: str, value: str, negated: bool) -> None:
        self.name = name
        self.value = value
        self.negated = negated


def find(call: Call) -> int:
    roots, tests, print0, form, depth = _command_line(call)
    code = 0
    for root in roots:
        try:
            fs = call.filesystem_of(root)
            if not os.path.lexists(root):
                raise Refusal(errno.ENOENT)
        except Refusal as error:
            call.complain(f"error: lfs find: failed for '{root}': {reason(error.code)}")
            code = code or error.code
            continue
        for path, status in _walk(root, depth):
            if all(_holds(call, fs, test, path, status) != test.negated for test in tests):
                if form is None:
                    call.say(path, "\0" if print0 else "\n")
                else:
                    call.say(_formatted(call, fs, form, path, status), "")
    return code


def _command_line(call: Call) -> tuple[list[str], list[_Test], bool, str | None, int]:
    """(directories, tests, NUL-terminated, format, depth). Raises Usage."""
    roots: list[str] = []
    tests: list[_Test] = []
    print0, negated, form, depth = False, False, None, 1 << 30
    rest = list(call.arguments)
    while rest:
        argument = rest.pop(0)
        word, equals, value = argument.partition("=") if argument.startswith("--") else (argument, "", "")
        word = SHORT.get(word, word)
        if word in VALUED:
            if not equals:
                if not rest:
                    raise Usage(f"option '{word}' requires an argument")
                value = rest.pop(0)
            if word == "--printf":
                if call.state.version() < PRINTS_FORMAT:
                    raise Usage("unrecognized option '--printf'")
                form = value
            elif word == "--maxdepth":
                if not value.isdecimal():
                    raise Usage(f"bad value '{value}' for --maxdepth")
                depth = int(value)
            else:
                tests.append(_checked(_Test(word, value, negated)))
            negated = False
        elif word == "--print0":
            print0 = True
        elif word == "!":
            negated = True
        elif word == "--":
            roots, rest = roots + rest, []
        elif word == "--print":
            continue
        elif word.startswith("-") and word != "-":
            raise Usage(f"unrecognized option '{word}'")
        else:
            roots.append(argument)
    if not roots:
        raise Usage("find wants a directory")
    return roots, tests, print0, form, depth


def _checked(test: _Test) -> _Test:
    """Raises Usage for a value that cannot be compared."""
    try:
        if test.name in ("--ost", "--stripe-index"):
            _osts(test.value)
        elif test.name == "--size":
            size(test.value.lstrip("+-"))
        elif test.name == "--mtime":
            _age_fits(test.value, 0.0)
        elif test.name in ("--stripe-count", "--comp-count"):
            _number_fits(test.value, 0)
        elif test.name == "--type" and test.value not in TYPES:
            raise ValueError
    except (ValueError, IndexError):
        raise Usage(f"bad value '{test.value}' for {test.name}") from None
    return test


def _walk(root: str, depth: int) -> Iterator[tuple[str, os.stat_result]]:
    try:
        status = os.lstat(root)
        yield root, status
        entries = list(os.scandir(root)) if stat.S_ISDIR(status.st_mode) and depth > 0 else []
    except FileNotFoundError:
        return  # deleted at this moment
    for entry in entries:
        yield from _walk(entry.path, depth - 1)


def _holds(call: Call, fs: Filesystem, test: _Test, path: str, status: os.stat_result) -> bool:
    if test.name == "--type":
        return TYPES[test.value](status.st_mode)
    if test.name == "--name":
        from fnmatch import fnmatchcase

        return fnmatchcase(os.path.basename(path), test.value)
    if test.name == "--size":
        return _size_fits(test.value, status.st_size)
    if test.name == "--mtime":
        return _age_fits(test.value, time.time() - status.st_mtime)
    layout = _layout(call, fs, path, status)
    return layout is not None and _layout_fits(test, layout)


def _layout(call: Call, fs: Filesystem, path: str, status: os.stat_result) -> Layout | None:
    """None for what has no layout, as links and some files, and for what is deleted at this moment."""
    if not stat.S_ISREG(status.st_mode):
        return None
    try:
        return contact(call.state, fs, path)
    except (Refusal, FileNotFoundError):
        return None


def _osts(text: str) -> list[int]:
    """Indices, or names such as `lustre-OST000a_UUID`. Raises ValueError."""
    found: list[int] = []
    for part in text.split(","):
        name = part.removesuffix("_UUID").rpartition("OST")
        found.extend([int(name[2], 16)] if name[1] else indices(part))
    return found


def _layout_fits(test: _Test, layout: Layout) -> bool:
    last = layout.last_initialised()
    if test.name == "--ost":
        return not set(_osts(test.value)).isdisjoint(layout.osts()) and not layout.hsm & RELEASED
    if test.name == "--pool":
        return any(part.wish.pool == test.value for part in layout.components)
    if test.name == "--stripe-count":
        return _number_fits(test.value, len(last.osts) or last.wish.count)
    if test.name == "--stripe-index":
        return bool(last.osts) and last.osts[0] in indices(test.value)
    if test.name == "--comp-count":
        return _number_fits(test.value, len(layout.components) if layout.composite else 0)
    if test.value == "released":
        return bool(layout.hsm & RELEASED)
    return any(part.wish.pattern == test.value for part in layout.components)


def _number_fits(text: str, number: int) -> bool:
    wanted = int(text.lstrip("+-"))
    return number > wanted if text[0] == "+" else number < wanted if text[0] == "-" else number == wanted


def _size_fits(text: str, length: int) -> bool:
    """As Lustre compares: in whole units of the suffix, rounded up; without one in bytes."""
    limit = size(text.lstrip("+-"))
    unit = limit // int(text.lstrip("+-")[:-1]) if text[-1:].isalpha() and limit else 1
    units, wanted = -(-length // unit), limit // unit
    return units > wanted if text[0] == "+" else units < wanted if text[0] == "-" else units == wanted


def _age_fits(text: str, age_s: float) -> bool:
    bare = text.lstrip("+-")
    unit = UNITS_S.get(bare[-1:], 86400)
    wanted = int(bare[:-1] if bare[-1:].isalpha() else bare)
    units = int(age_s // unit)
    return units > wanted if text[0] == "+" else units < wanted if text[0] == "-" else units == wanted


def _formatted(call: Call, fs: Filesystem, form: str, path: str, status: os.stat_result) -> str:
    """`--printf`: %p path, %s size, %i inode, %LF FID, %Lo OSTs, %Lc stripe count; \\n, \\t and \\0."""
    layout = _layout(call, fs, path, status)
    from simlustre.layout import fid_text

    text = form.replace("%p", path).replace("%s", str(status.st_size)).replace("%i", str(status.st_ino))
    text = text.replace("%LF", f"[{fid_text(layout.fid)}]" if layout is not None else "")
    text = text.replace("%Lo", ",".join(map(str, layout.osts())) if layout is not None else "")
    text = text.replace("%Lc", str(len(layout.last_initialised().osts)) if layout is not None else "0")
    return text.replace("\\n", "\n").replace("\\t", "\t").replace("\\0", "\0")
