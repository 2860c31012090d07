"""`lfs hsm_state`, `hsm_set`, `hsm_clear`, `hsm_action`."""

from __future__ import annotations

import errno
import os

from simlustre.call import reason
from simlustre.errors import Refusal, Usage
from simlustre.files import contact, replace, stored
from simlustre.layout import ARCHIVED, DIRTY, EXISTS, LOST, NOARCHIVE, NORELEASE, RELEASED
from simlustre.options import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from simlustre.call import Call
    from simlustre.layout import Layout
    from simlustre.state import Filesystem

# In the order in which they are printed.
NAMES = (
    (RELEASED, "released"), (EXISTS, "exists"), (DIRTY, "dirty"), (ARCHIVED, "archived"),
    (NORELEASE, "never_release"), (NOARCHIVE, "never_archive"), (LOST, "lost_from_hsm"),
)  # fmt: skip
WORDS = {
    "norelease": NORELEASE, "noarchive": NOARCHIVE, "lost": LOST, "dirty": DIRTY, "exists": EXISTS,
    "archived": ARCHIVED,
}  # fmt: skip


def hsm_state(call: Call) -> int:
    return _each(call, parse(call.arguments, "", {}).operands, _tell_state)


def _tell_state(call: Call, path: str, fs: Filesystem, layout: Layout) -> None:
    words = " ".join(word for bit, word in NAMES if layout.hsm & bit)
    text = f"{path}: (0x{layout.hsm:08x})"
    if words:
        text += f" {words}"
    if layout.archive:
        text += f", archive_id:{layout.archive}"
    call.say(text)


def hsm_action(call: Call) -> int:
    # Nobody copies to an archive here, so nothing is ever under way.
    return _each(
        call, parse(call.arguments, "", {}).operands, lambda call, path, *_: call.say(f"{path}: NOOP")
    )


def hsm_set(call: Call) -> int:
    return _change(call, True)


def hsm_clear(call: Call) -> int:
    return _change(call, False)


def _change(call: Call, on: bool) -> int:
    options = parse(call.arguments, "i:", {**{word: word for word in WORDS}, "archive-id": "i"})
    bits = sum(bit for word, bit in WORDS.items() if word in options)

    def change(call: Call, path: str, fs: Filesystem, _: Layout) -> None:
        with call.state.writing():
            layout = stored(call.state, path)
            if layout is None:
                raise Refusal(errno.ENODATA)
            layout.size = os.stat(path).st_size
            layout.hsm = layout.hsm | bits if on else layout.hsm & ~bits
            layout.archive = int(options.last("i") or layout.archive)
            layout.generation += 1
            replace(call.state, fs, path, layout)

    return _each(call, options.operands, change)


def _each(call: Call, paths: list[str], act: Callable[[Call, str, Filesystem, Layout], None]) -> int:
    if not paths:
        raise Usage(f"{call.command} wants a file")
    code = 0
    for path in paths:
        try:
            fs = call.state.filesystem_of(path)
            if fs is None:
                raise OSError(errno.ENOTTY if os.path.exists(path) else errno.ENOENT, "")
            act(call, path, fs, contact(call.state, fs, path))
        except (OSError, Refusal) as error:
            number = error.code if isinstance(error, Refusal) else error.errno or errno.EIO
            call.complain(f"can't get hsm state for {path}: {reason(number)}")
            code = code or number
    return code
