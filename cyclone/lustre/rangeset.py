"""Sets of indexes of OSTs and MDTs as people write them: `0-9,12,20-40/2`."""

from __future__ import annotations

import re

from ClusterShell.RangeSet import RangeSet, RangeSetParseError

INDEX_MAX = 65535

#: ClusterShell takes `1_0`, `+4` and digits of any script for numbers, `-1` for a member below 0, and spells out
#: every member of `0-99999999999`.
_NUMBERS = re.compile(r"[0-9,/\s-]*\Z", re.ASCII)
_LARGE = re.compile(r"[1-9][0-9]{5}", re.ASCII)
_NEGATIVE = re.compile(r"(?:^|[,-])\s*-", re.ASCII)


def indexes(text: str, what: str = "") -> tuple[int, ...]:
    """The indexes that a range set names, each once, growing; none for empty text.

    what: it stands for, as the error names it, such as "osts"; "" where whoever tells of the error names it.
    Raises ValueError when it is no range set, or names an index below 0 or above 65535.
    """
    text = text.strip()
    if not text:
        return ()
    if not _NUMBERS.match(text):
        raise _wrong(text, what, "only digits and `,-/`")
    if _NEGATIVE.search(text) or _LARGE.search(text):
        raise _wrong(text, what, f"no index below 0 or above {INDEX_MAX}")
    try:
        found = tuple(sorted(RangeSet(text).intiter()))
    except (RangeSetParseError, ValueError) as error:
        raise _wrong(text, what, str(error)) from None
    if found[-1] > INDEX_MAX:
        raise _wrong(text, what, f"no index above {INDEX_MAX}")
    return found


def _wrong(text: str, what: str, reason: str) -> ValueError:
    shown = text if len(text) <= 80 else f"{text[:80]}…"
    name = f"{what}: " if what else ""
    return ValueError(f"{name}found {shown!r}, expected indexes such as 0-9,12 ({reason})")
