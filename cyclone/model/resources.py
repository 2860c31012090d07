"""Named amounts that tasks need and controllers have: `cpus`, `memory`, any name a site invents.

Amounts are whole numbers of ten-thousandths, so that ten tasks of 0.1 cpus fill one cpu exactly.
A `Shape` is what one task needs; all tasks of one shape are interchangeable when room is looked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated

from msgspec import Meta

UNIT = 10_000

#: `((name, amount), …)` sorted by name, amounts in ten-thousandths, none of them zero.
Shape = Annotated[
    tuple[tuple[Annotated[str, Meta(max_length=64)], Annotated[int, Meta(ge=1, lt=2**53)]], ...],
    Meta(max_length=100),
]

#: The same as it is told of: amounts may be zero, or negative where more is taken than there is (see `Room`).
Amounts = tuple[tuple[str, int], ...]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}\Z")
_SUFFIXES = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(?:i?b)?)?\Z", re.IGNORECASE)


def amount(value: int | float | str) -> int:
    """Ten-thousandths of a value: `2`, `0.5`, or text such as `1.5` and `64GiB` (powers of 1024).

    Raises ValueError when it is negative, not a number, or not written as one.
    """
    if isinstance(value, str):
        match = _AMOUNT.match(value.strip())
        if match is None:
            raise ValueError(f"{value!r} is not an amount such as 2, 0.5 or 64GiB")
        exact = Fraction(match[1]) * _SUFFIXES.get((match[2] or "").lower(), 1)
    else:
        exact = Fraction(value)
    if exact < 0:
        raise ValueError(f"{value!r} is negative")
    return round(exact * UNIT)


def shape(needs: Mapping[str, int | float | str]) -> Shape:
    """The canonical form of what a task needs. Raises ValueError naming the bad name or amount."""
    for name in needs:
        if not _NAME.match(name):
            raise ValueError(f"{name!r} is not a name for a resource")
    amounts = ((name, amount(value)) for name, value in needs.items())
    return tuple(sorted((name, units) for name, units in amounts if units))


def plain(shape: Shape) -> dict[str, float]:
    """The amounts as people write them."""
    return {name: units // UNIT if units % UNIT == 0 else units / UNIT for name, units in shape}


class Room:
    """How much of each resource is there and how much is taken. Owned by whoever places into it.

    Taking more than there is, is allowed (a restarted master takes what it remembers before the
    controller said how big it is); nothing fits then until enough was given back.
    """

    __slots__ = ("capacity", "free")

    def __init__(self, capacity: Shape = ()) -> None:
        self.capacity: dict[str, int] = dict(capacity)
        self.free: dict[str, int] = dict(capacity)

    def resize(self, capacity: Shape) -> None:
        """Change what is there; what is taken stays taken."""
        new = dict(capacity)
        taken = {name: self.capacity.get(name, 0) - free for name, free in self.free.items()}
        self.capacity = new
        self.free = {name: new.get(name, 0) - taken.get(name, 0) for name in {*new, *taken}}

    def fits(self, shape: Shape) -> bool:
        """Is there room for it now?"""
        free = self.free
        return all(free.get(name, 0) >= units for name, units in shape)

    def could_fit(self, shape: Shape) -> bool:
        """Would there be room for it if nothing else were here?"""
        capacity = self.capacity
        return all(capacity.get(name, 0) >= units for name, units in shape)

    def take(self, shape: Shape) -> None:
        for name, units in shape:
            self.free[name] = self.free.get(name, 0) - units

    def give_back(self, shape: Shape) -> None:
        for name, units in shape:
            self.free[name] = self.free.get(name, 0) + units
