"""`lfs setstripe`, and the layout options that `lfs migrate` shares with it."""

from __future__ import annotations

import errno
import os

from simlustre import compact
from simlustre.call import reason
from simlustre.errors import Refusal, Usage
from simlustre.files import contact, create, inherited, initialise, plan, replace, stored, write_attribute
from simlustre.layout import ATTRIBUTE, EOF, Wish
from simlustre.options import indices, parse, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from simlustre.call import Call
    from simlustre.state import Filesystem

LETTERS = "c:S:i:o:p:E:L:"
WORDS = {
    "stripe-count": "c", "count": "c", "stripe-size": "S", "size": "S", "stripe-index": "i", "index": "i",
    "ost": "o", "ost-list": "o", "pool": "p", "component-end": "E", "layout": "L", "copy": "copy=",
    "yaml": "yaml=",
}  # fmt: skip
MAX_STRIPES = 2000
STRIPE_SIZE_UNIT = 65536


def setstripe(call: Call) -> int:
    options = parse(call.arguments, LETTERS + "d", WORDS | {"delete": "d"})
    if not options.operands:
        raise Usage("setstripe wants a path")
    code = 0
    for path in options.operands:
        try:
            fs = call.filesystem_of(path if os.path.exists(path) else os.path.dirname(os.path.abspath(path)))
            if os.path.isdir(path):
                _set_default(call, fs, path, options.pairs)
            else:
                _create_file(call, fs, path, options.pairs)
        except Refusal as error:
            if error.where:
                call.complain(f"lfs setstripe: {error.where} '{path}': {reason(error.code)} ({error.code})")
            else:
                text = error.text or reason(error.code)
                call.complain(f"lfs setstripe: setstripe error for '{path}': {text}")
            code = code or error.code
    return code


def _set_default(call: Call, fs: Filesystem, path: str, pairs: Sequence[tuple[str, str]]) -> None:
    if any(name == "d" for name, _ in pairs) or not pairs:
        write_attribute(call.state, path, ATTRIBUTE, None)
        return
    parent = inherited(call.state, fs, os.path.dirname(os.path.realpath(path)))
    wishes, composite = wished(call, fs, pairs, parent[0])
    _check_pools(call, fs, wishes)
    for wish in wishes:
        wish.asked_pool = False  # a default is no request: an index outside of it drops the pool
    text = {"v": 1, "default": [wish.to_dict() for wish in wishes], "composite": composite}
    try:
        write_attribute(call.state, path, ATTRIBUTE, compact.dumps(text))
    except OSError as error:
        raise Refusal(error.errno or errno.EIO) from None


def _create_file(call: Call, fs: Filesystem, path: str, pairs: Sequence[tuple[str, str]]) -> None:
    directory = os.path.dirname(os.path.realpath(path))
    parent = inherited(call.state, fs, directory) if os.path.isdir(directory) else (fs.defaults, fs.composite)
    wishes, composite = wished(call, fs, pairs, parent[0]) if pairs else parent
    _check_pools(call, fs, wishes)
    displaced = call.fault.get("displace") if call.fault is not None else None
    if displaced is not None:
        for wish in wishes:
            wish.osts, wish.index = [displaced], -1
    call.wait_while_hanging(fs, [ost for wish in wishes for ost in wish.osts or [wish.index]])
    # All of it in one transaction: whoever looks at the file meanwhile would else give it a layout too.
    with call.state.writing():
        try:
            if os.path.lexists(path):
                _set_missing(call, fs, path, wishes, composite)
                return
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        except OSError as error:
            raise Refusal(error.errno or errno.EIO, "unable to open") from None
        try:
            create(call.state, fs, path, wishes, composite)
        except Refusal:
            os.unlink(path)
            raise


def _set_missing(call: Call, fs: Filesystem, path: str, wishes: list[Wish], composite: bool) -> None:
    """Give a file a layout that has none on purpose. Raises Refusal(EEXIST) for any other file."""
    layout = stored(call.state, path)
    if layout is None or "empty" not in layout.flags:
        raise Refusal(errno.EEXIST, text="stripe already set")
    layout.components, layout.composite, layout.flags = plan(wishes, composite), composite, []
    layout.size = os.stat(path).st_size
    initialise(call.state, fs, layout)
    layout.generation += 1
    replace(call.state, fs, path, layout)


def _check_pools(call: Call, fs: Filesystem, wishes: Sequence[Wish]) -> None:
    pools = call.state.pools(fs)
    if any(wish.asked_pool and wish.pool not in pools for wish in wishes):
        raise Refusal(errno.EINVAL)


def wished(
    call: Call, fs: Filesystem, pairs: Sequence[tuple[str, str]], defaults: Sequence[Wish]
) -> tuple[list[Wish], bool]:
    """(components, composite) that layout options ask for. What they leave out is as in `defaults`.

    Raises Usage for text that makes no sense, Refusal for what Lustre refuses.
    """
    for name, value in pairs:
        if name in ("copy", "yaml"):
            return _copied(call, value) if name == "copy" else _from_yaml(value)
    base = defaults[-1]
    groups: list[list[tuple[str, str]]] = [[]]
    composite = False
    for name, value in pairs:
        if name == "E":
            if composite:
                groups.append([])
            composite = True
        groups[-1].append((name, value))
    wishes: list[Wish] = []
    for group in groups:
        wish = Wish(count=base.count, size=base.size, pool=base.pool)
        if wishes:
            wish.size, wish.pool, wish.asked_pool = wishes[-1].size, wishes[-1].pool, wishes[-1].asked_pool
            wish.count = wishes[-1].count or base.count
        _apply(wish, group)
        wishes.append(wish)
    _check(wishes)
    return wishes, composite


def _apply(wish: Wish, group: Sequence[tuple[str, str]]) -> None:
    try:
        for name, value in group:
            if name == "c":
                wish.count = int(value)
            elif name == "S":
                wish.size = size(value) or 1 << 20
            elif name == "i":
                wish.index = int(value)
            elif name == "o":
                wish.osts = indices(value)
            elif name == "p":
                wish.pool, wish.asked_pool = value.rpartition(".")[2], True
                if value in ("", "none", "null"):
                    wish.pool, wish.asked_pool = None, False
            elif name == "E":
                wish.end = size(value)
            elif name == "L":
                wish.pattern = "mdt" if value == "mdt" else "raid0"
    except ValueError:
        raise Usage(f"invalid value '{value}' for -{name}") from None
    if wish.pattern == "mdt" and wish.end != EOF:
        wish.size, wish.count = wish.end, 0
    if wish.osts is not None:
        if not any(name == "c" for name, _ in group):
            wish.count = len(wish.osts)
        if wish.count not in (len(wish.osts), -1):
            raise Usage(f"stripe count {wish.count} doesn't match the number of OSTs: {len(wish.osts)}")
        if wish.index >= 0 and wish.index not in wish.osts:
            raise Refusal(errno.EINVAL)


def _check(wishes: Sequence[Wish]) -> None:
    previous = 0
    for wish in wishes:
        if (
            not -1 <= wish.count <= MAX_STRIPES
            or wish.size % STRIPE_SIZE_UNIT
            or wish.size <= 0
            or wish.index < -1
        ):
            raise Refusal(errno.EINVAL)
        if previous == EOF or (wish.end != EOF and wish.end <= previous):
            raise Refusal(errno.EINVAL)
        previous = wish.end


def _copied(call: Call, path: str) -> tuple[list[Wish], bool]:
    """The layout of another file or directory, its OSTs left open."""
    try:
        if os.path.isdir(path):
            return inherited(call.state, call.filesystem_of(path), os.path.realpath(path))
        layout = contact(call.state, call.filesystem_of(path), path)
    except OSError as error:
        raise Refusal(error.errno or errno.EIO) from None
    return [_template(component.wish) for component in layout.components], layout.composite


def _template(wish: Wish) -> Wish:
    return Wish(wish.end, wish.count, wish.size, wish.pattern, wish.pool)


def _from_yaml(path: str) -> tuple[list[Wish], bool]:
    """A layout that `lfs getstripe -y` printed: only what this simulation prints itself is understood."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.strip().removeprefix("- ") for line in file]
    except OSError as error:
        raise Refusal(error.errno or errno.EIO) from None
    wishes: list[Wish] = []
    composite = any(line.startswith("lcme_extent.e_end") for line in lines)
    end = EOF
    for line in lines:
        name, _, value = line.partition(":")
        value = value.strip()
        if name == "lcme_extent.e_end":
            end = size(value)
        elif name == "lmm_stripe_count":
            wishes.append(Wish(end, int(value)))
        elif name == "lmm_stripe_size":
            wishes[-1].size = int(value)
        elif name == "lmm_pattern":
            wishes[-1].pattern = value.split(",")[0]
        elif name == "lmm_pool":
            wishes[-1].pool, wishes[-1].asked_pool = value, True
    if not wishes:
        raise Refusal(errno.EINVAL)
    return wishes, composite
