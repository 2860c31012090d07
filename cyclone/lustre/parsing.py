"""What Lustre's programs print, taken apart. Pure: text in, nouns out, ValueError where the text is not theirs.

The formats are those of Lustre 2.12 to 2.17. Nothing here trusts the text further than its own line: a line that
is not understood is passed over, and text of which nothing was understood is an error. So an OST that is missing
from the answer is *unknown* to the caller, never an error of its neighbours.

Text comes from `os.fsdecode`: names of files are bytes, and some of them are not UTF-8.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from cyclone.lustre.rangeset import INDEX_MAX


@dataclass(frozen=True, slots=True)
class Ost:
    """One OST as the client sees it.

    name: such as "lustre-OST000a". reason: why it is not active, with the errno where one was told.
    """

    index: int
    name: str
    active: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Usage:
    """One OST in `lfs df`. flags: letters of its state such as "DR", "" for none."""

    index: int
    size_kib: int
    used_kib: int
    available_kib: int
    flags: str

    @property
    def fill(self) -> float:
        """Percent of what can be used that is used; `lfs df` itself rounds it up to a whole number."""
        usable = self.used_kib + self.available_kib
        return 100 * self.used_kib / usable if usable else 0.0


class Layout(NamedTuple):
    """Where a file lies.

    osts: of all its objects, in their order, each once.
    stripe_count, stripe_size (bytes), pool: of its first component that has objects; 0, 0, "" where there is none.
    composite: made of components (PFL, mirrors). on_mdt: its only data is on an MDT. released: by HSM.
    foreign: not made of objects at all. exists: False when it has no layout yet.
    """

    osts: tuple[int, ...]
    stripe_count: int
    stripe_size: int
    pool: str
    composite: bool
    on_mdt: bool
    released: bool
    foreign: bool
    exists: bool


class HsmState(NamedTuple):
    """flags: "exists", "archived", "released", "dirty", "never_release", "never_archive", "lost_from_hsm"."""

    flags: frozenset[str]


def version(text: str) -> tuple[int, ...]:
    """Of `lfs --version`: `lfs 2.15.5`, or with more after it."""
    match = re.search(r"\b(\d{1,6}(?:\.\d{1,6}){1,4})(?![.\d])", text[:_LINE_MAX], re.ASCII)
    if match is None:
        raise ValueError(_unlike(text, "a version"))
    return tuple(int(part) for part in match[1].split("."))


# OSTs.

#: The reason of an OST that does not answer since somebody has switched it off.
DEACTIVATED = "deactivated"

_OSC = re.compile(r"(.+)-OST([0-9a-fA-F]{4})-osc-.+", re.ASCII)

#: EPERM, EACCES: of who asks, not of the OST.
_NOT_ALLOWED = re.compile(r"\((?:1|13)\)\Z", re.ASCII)


def osts(stdout: str, stderr: str, fs: str) -> dict[int, Ost]:
    """The OSTs of one file system in `lfs check osts`.

    Of an OST that cannot be reached there is a line on stderr only, while the exit code stays 0. Where a file
    system is mounted twice, an OST is active only if it is through both mounts.
    Raises ValueError also when only root is told.
    """
    found: dict[int, Ost] = {}
    understood = False
    not_allowed = ""
    for line in [*_lines(stdout), *_lines(stderr)]:
        osc, state = _osc_and_state(line)
        match = _OSC.fullmatch(osc)
        if match is None or not state:
            continue
        understood = True
        if match[1] != fs:
            continue
        index = int(match[2], 16)
        if _NOT_ALLOWED.search(state):
            not_allowed = state
            continue
        reason = {"active": "", "inactive": DEACTIVATED}.get(state, state)
        if index not in found or reason:
            found[index] = Ost(index, f"{fs}-OST{index:04x}", not reason, reason)
    if not found and not_allowed:
        raise ValueError(f"{not_allowed}, expected to be root, or use_sudo")
    if not found:
        problem = (
            f"there is no file system {fs!r}" if understood else _unlike(stdout + stderr, "states of OSTs")
        )
        raise ValueError(problem)
    return dict(sorted(found.items()))


def _osc_and_state(line: str) -> tuple[str, str]:
    """Of `OSC STATE.` and `… 'OSC': REASON`. Not by one expression, which would look for an OSC anew at each quote."""
    before, is_error, reason = line.partition("':")
    if is_error:
        return before.rpartition("'")[2], reason.strip()
    osc, _, state = line.partition(" ")
    return osc, state.strip().removesuffix(".")


#: Whatever stands before the numbers may be shifted by a long UUID, and the path after them may hold blanks.
_USAGE_ROW = re.compile(
    r"\S+\s+(\d+)\s+(\d+)\s+(\d+)\s+(?:\d+%|-)\s+.*\[(OST|MDT):(\d+)\](?:\s+(\S*))?\s*$", re.ASCII
)
_USAGE_REST = re.compile(r"(?:filesystem_summary:|(?:OST|MDT)[0-9a-fA-F]{4}\s*: )", re.ASCII)


def usage(text: str) -> dict[int, Usage]:
    """The OSTs in `lfs df`; rows that hold an error instead of numbers are passed over."""
    found: dict[int, Usage] = {}
    understood = False
    for line in _lines(text):
        match = _USAGE_ROW.match(line)
        if match is None:
            understood = understood or _USAGE_REST.match(line) is not None
            continue
        understood = True
        index = int(match[5])
        if match[4] == "OST" and index <= INDEX_MAX:
            size, used, available = (int(number) for number in match.group(1, 2, 3))
            found[index] = Usage(index, size, used, available, match[6] or "")
    if not understood:
        raise ValueError(_unlike(text, "the usage of OSTs"))
    return found


_CONNECTION_LINE = re.compile(
    r"osc\.(.+)-OST([0-9a-fA-F]{4})-osc-[^.=]+\.ost_conn_uuid=(\S+?)(?:@[^@\s]*)?$", re.ASCII
)


def connections(text: str, fs: str) -> dict[int, str]:
    """`{OST: address of its server}` of `lctl get_param osc.*.ost_conn_uuid`: IPv4, IPv6 or a host's name."""
    matches = (_CONNECTION_LINE.match(line) for line in _lines(text))
    found = {int(match[2], 16): match[3] for match in matches if match is not None and match[1] == fs}
    if not found:
        raise ValueError(_unlike(text, f"connections of {fs!r}"))
    return found


_ACTIVE_LINE = re.compile(r"osc\.(.+)-OST([0-9a-fA-F]{4})-osc-[^.=]+\.active=([01])$", re.ASCII)


def deactivated(text: str, fs: str) -> frozenset[int]:
    """The OSTs that somebody has switched off, of `lctl get_param osc.*.active`; through one of several mounts is enough."""
    matches = [match for line in _lines(text) if (match := _ACTIVE_LINE.match(line)) and match[1] == fs]
    if not matches:
        raise ValueError(_unlike(text, f"what is active of {fs!r}"))
    return frozenset(int(match[2], 16) for match in matches if match[3] == "0")


def pool_members(text: str) -> frozenset[int]:
    """The OSTs in `lfs pool_list FS.POOL`."""
    lines = _lines(text)
    if not any(line.startswith("Pool: ") for line in lines):
        raise ValueError(_unlike(text, "the members of a pool"))
    matches = (re.match(r".+-OST([0-9a-fA-F]{4})_UUID$", line, re.ASCII) for line in lines)
    return frozenset(int(match[1], 16) for match in matches if match is not None)


def file_system(text: str) -> str:
    """The name of the file system in `lfs osts PATH`."""
    for line in _lines(text):
        if match := re.match(r"\d+: (.+)-OST[0-9a-fA-F]{4}_UUID\b", line, re.ASCII):
            return match[1]
    raise ValueError(_unlike(text, "the OSTs of a file system"))


# Files.


class _Component(NamedTuple):
    """One part of a layout, as far as it was told; a plain layout has one."""

    values: dict[str, str]
    objects: list[int]

    @property
    def osts(self) -> list[int]:
        if self.objects or "on_mdt" in self.kinds or "released" in self.kinds:
            return self.objects
        # Asked for the count and the offset only, `lfs getstripe` lists no objects.
        offset, count = self.number("lmm_stripe_offset", -1), self.number("lmm_stripe_count", 0)
        return [offset] if 0 <= offset <= INDEX_MAX and count > 0 else []

    @property
    def kinds(self) -> set[str]:
        words = set(re.split(r"[,|\s]+", self.values.get("lmm_pattern", "")))
        kinds = {"released", "foreign"} & words
        if "mdt" in words:
            kinds.add("on_mdt")
        if "lfm_magic" in self.values or "lfm_type" in self.values:
            kinds.add("foreign")
        return kinds

    @property
    def is_whole(self) -> bool:
        """Whether nothing of it is missing: an answer that was cut off would hide where a file lies."""
        count, offset = self.number("lmm_stripe_count", 0), self.number("lmm_stripe_offset", -1)
        if count <= 0 or self.kinds:
            return True
        if self.objects:
            return len(self.objects) == count
        instantiated = "lmm_stripe_offset" not in self.values or offset >= 0
        # Of an answer to a question for count and offset only, no objects are expected.
        return not instantiated or ("lmm_pattern" not in self.values and offset >= 0)

    def number(self, key: str, default: int) -> int:
        text = self.values.get(key, "")
        return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text, re.ASCII) else default


_FIELD = re.compile(r"(?:- )?((?:lmm|lcme|lcm|lfm)_[a-z_.]+|component\d+|components):(?:\s+(.*))?$", re.ASCII)
_OBJECT = re.compile(r"\bl_ost_idx:\s*(\d+)", re.ASCII)
_OBJECT_ROW = re.compile(r"(\d+)\s+\d+\s+0x[0-9a-fA-F]+\s+(?:0x[0-9a-fA-F]+|\d+)(?:\s+\*)?$", re.ASCII)
_COMPONENT = re.compile(r"lcme_id$|component\d+$", re.ASCII)

_NO_LAYOUT = Layout((), 0, 0, "", False, False, False, False, False)


def layout(text: str, path: str) -> Layout:
    """Of `lfs getstripe`, in YAML or not, of a plain or a composite file.

    By lines, not by a YAML parser: the same lines stand in every form and version, and what is no YAML at all (a
    path on top, a warning in between) is then no special case.
    path: as it was given; its name may look like anything, so it is taken out first.
    """
    rest = text[len(path) :] if text.startswith((f"{path}\n", f"{path} ")) else text
    components = list(_components(rest))
    composite = any(
        key.startswith("lc") or _COMPONENT.match(key) for each in components for key in each.values
    )
    told = [each for each in components if each.kinds or each.osts or "lmm_stripe_count" in each.values]
    if not told:
        if _end(text).endswith(" has no stripe info"):
            return _NO_LAYOUT
        raise ValueError(_unlike(text, "the layout of a file"))
    entries = {each.number("lcm_entry_count", 0) for each in components} - {0}
    named = sum("lcme_id" in each.values for each in components)
    if not all(each.is_whole for each in told) or entries - {named}:
        raise ValueError(_unlike(text, "the whole layout of a file"))
    laid = [each for each in told if each.osts]
    kinds = {kind for each in told for kind in each.kinds}
    indexes = dict.fromkeys(index for each in laid for index in each.osts)
    if any(index > INDEX_MAX for index in indexes):
        raise ValueError(_unlike(text, "indexes of OSTs"))
    first = laid[0] if laid else None
    return Layout(
        osts=tuple(indexes),
        stripe_count=_stripe_count(first) if first else 0,
        stripe_size=max(0, first.number("lmm_stripe_size", 0)) if first else 0,
        pool=first.values.get("lmm_pool", "") if first else "",
        composite=composite,
        on_mdt="on_mdt" in kinds and not laid,
        released="released" in kinds,
        foreign="foreign" in kinds,
        exists=True,
    )


def _components(text: str) -> Iterator[_Component]:
    component = _Component({}, [])
    for line in _lines(text):
        if field := _FIELD.match(line):
            if _COMPONENT.match(field[1]):
                yield component
                component = _Component({}, [])
            component.values.setdefault(field[1], field[2] or "")
        elif row := _OBJECT_ROW.match(line):
            component.objects.append(int(row[1]))
        component.objects.extend(int(index) for index in _OBJECT.findall(line))
    yield component


def _stripe_count(component: _Component) -> int:
    count = component.number("lmm_stripe_count", 0)
    return count if count > 0 else len(component.objects)


_HSM_BITS = {
    0x01: "exists", 0x02: "dirty", 0x04: "released", 0x08: "archived", 0x10: "never_release",
    0x20: "never_archive", 0x40: "lost_from_hsm",
}  # fmt: skip


def hsm_state(text: str) -> HsmState:
    """Of `lfs hsm_state`: `PATH: (0x00000009) exists archived, archive_id:1`."""
    match = re.search(r": \(0x([0-9a-fA-F]{1,16})\)[^():]*(?:archive_id:\d+)?$", _end(text), re.ASCII)
    if match is None:
        raise ValueError(_unlike(text, "a state of HSM"))
    bits = int(match[1], 16)
    return HsmState(frozenset(name for bit, name in _HSM_BITS.items() if bits & bit))


def fid(text: str) -> str:
    """Of `lfs path2fid`: `[0x200000403:0x11f:0x0]`."""
    match = re.search(
        r"\[?(0x[0-9a-fA-F]{1,16}:0x[0-9a-fA-F]{1,8}:0x[0-9a-fA-F]{1,8})\]?$", _end(text), re.ASCII
    )
    if match is None:
        raise ValueError(_unlike(text, "a FID"))
    return f"[{match[1]}]"


def mdt(text: str) -> int:
    """Of `lfs getdirstripe -m`: a number alone."""
    lines = _lines(text)
    if len(lines) != 1 or not re.fullmatch(r"[0-9]{1,5}", lines[0], re.ASCII) or int(lines[0]) > INDEX_MAX:
        raise ValueError(_unlike(text, "the index of an MDT"))
    return int(lines[0])


# Errors.

_TEXT_MAX = 1000


def told(stderr: str) -> str:
    """The sentence of stderr that tells what went wrong, on one line; "" if there is none.

    The last line that starts with `error:` and what follows it: newer versions print lines of their library before
    it, and a name may hold a newline. Else the last line.
    """
    stderr = _end(stderr)
    starts = [match.start() for match in re.finditer(r"^error: ", stderr, re.MULTILINE)]
    return shown(stderr[starts[-1] :] if starts else stderr.rsplit("\n", 1)[-1])


def shown(text: str, length_max: int = _TEXT_MAX) -> str:
    r"""On one line of valid text: newlines and backslashes escaped, `\xNN` for what is not UTF-8; cut in the middle."""
    text = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\0", "\\0")
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if len(text) <= length_max:
        return text
    half = (length_max - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


#: A line that holds a path. What is longer is none of theirs, and would keep a regular expression busy for long.
_LINE_MAX = 8192


def _lines(text: str) -> list[str]:
    """The lines without blanks around them, leaving out those that are empty, too long, or cut off at the end."""
    # Not `splitlines`, which also splits at what may stand within a path.
    return [line.strip() for line in text.split("\n")[:-1] if len(line) <= _LINE_MAX and line.strip()]


def _end(text: str) -> str:
    return text[-_LINE_MAX:].strip()


def _unlike(text: str, expected: str) -> str:
    return f"found {shown(text[:200])!r}, expected {expected}"
