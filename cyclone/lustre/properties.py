"""Properties of tasks, as Python has them or as the text that task files of Cyclone 2.x hold.

Each function takes the name of a property and its value, and gives the value back checked and of its type. All
raise ValueError that tells the property, what was found and what was expected.
"""

from __future__ import annotations

import math
import re

from cyclone.errors import ConfigError
from cyclone.ini import Ini

#: A week. No step of a look at an OST sensibly takes longer, and clocks of the system cannot count to any number.
STEP_S_MAX = 604_800

_SIZE = re.compile(r"(\d+)\s*(?:([KMGT])(?:i?B)?)?\Z", re.IGNORECASE)
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def whole(name: str, value: int | str, minimum: int = 0, maximum: int | None = None) -> int:
    """A whole number within its bounds."""
    bounds = f"from {minimum}" if maximum is None else f"from {minimum} to {maximum}"
    try:
        number = int(str(value))
    except ValueError:
        raise _wrong(name, value, f"a whole number {bounds}") from None
    if number < minimum or (maximum is not None and number > maximum):
        raise _wrong(name, value, f"a whole number {bounds}")
    return number


def size_bytes(name: str, value: int | str) -> int:
    """A number of bytes from 1: `4096`, `64K`, `1M`, `2GiB`; units are powers of 1024."""
    found = _SIZE.match(str(value).strip())
    number = int(found[1]) * _UNITS.get((found[2] or "").upper(), 1) if found else 0
    if not 0 < number < 2**63:
        raise _wrong(name, value, "a number of bytes from 1, such as 4096 or 1M")
    return number


def seconds(name: str, value: float | str, *, zero: bool = False, maximum: float | None = None) -> float:
    """A duration above 0; also 0 where that means something."""
    expected = "a number of seconds " + ("from 0" if zero else "above 0")
    if maximum is not None:
        expected += f", at most {maximum:g}"
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise _wrong(name, value, expected) from None
    is_too_long = maximum is not None and number > maximum
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero) or is_too_long:
        raise _wrong(name, value, expected)
    return number


def switch(name: str, value: bool | str) -> bool:
    """On or off, in any of the usual spellings."""
    if isinstance(value, bool):
        return value
    try:
        return Ini({"property": {name: str(value)}}).boolean("property", name)
    except ConfigError as error:
        raise ValueError(f"{name}: {error.problem}") from None


def given(name: str, value: str, expected: str = "text") -> str:
    """Text that is not empty."""
    text = str(value).strip()
    if not text:
        raise _wrong(name, value, expected)
    return text


def words(value: str) -> tuple[str, ...]:
    """What commas and blanks separate."""
    return tuple(value.replace(",", " ").split())


def _wrong(name: str, value: object, expected: str) -> ValueError:
    return ValueError(f"{name}: found {value!r}, expected {expected}")
