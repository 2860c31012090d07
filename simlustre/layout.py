"""Layouts: where the bytes of a file lie, and how the extended attribute says so.

A `Wish` is one component before objects are taken for it, a `Component` the same afterwards; a plain file
has one component, a composite (PFL) file several, which follow one another without a gap. A component takes
objects when the file first reaches into it. Extent ends: bytes, -1 for the end of the file.
"""

from __future__ import annotations

from simlustre import compact

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ATTRIBUTE = "user.simlov"
MDT_ATTRIBUTE = "user.simlmv"
SUM_ATTRIBUTE = "user.simsum"

EOF = -1

# Bits of `lfs hsm_state`.
EXISTS, DIRTY, RELEASED, ARCHIVED, NORELEASE, NOARCHIVE, LOST = 0x1, 0x2, 0x4, 0x8, 0x10, 0x20, 0x40


class Wish:
    """One component as somebody asks for it.

    count: stripes, -1 for all OSTs. index: where the search starts, -1 for anywhere. osts: exactly these.
    asked_pool: the pool was named by the caller, so that it must be kept.
    """

    def __init__(
        self, end: int = EOF, count: int = 1, size: int = 1 << 20, pattern: str = "raid0",
        pool: str | None = None,
        index: int = -1, osts: list[int] | None = None, asked_pool: bool = False,
    ) -> None:  # fmt: skip
        self.end = end
        self.count = count
        self.size = size
        self.pattern = pattern
        self.pool = pool
        self.index = index
        self.osts = osts
        self.asked_pool = asked_pool

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Wish:
        return cls(**fields)

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


class Component:
    """One component of a file. `osts` and `objects` go together; both are empty until it is initialised."""

    def __init__(
        self,
        number: int,
        start: int,
        wish: Wish,
        osts: list[int] | None = None,
        objects: list[int] | None = None,
    ) -> None:
        self.number = number
        self.start = start
        self.wish = wish
        self.osts = osts or []
        self.objects = objects or []

    @property
    def initialised(self) -> bool:
        return bool(self.osts) or self.wish.pattern == "mdt"

    def reached_by(self, size: int) -> bool:
        return self.start == 0 or self.start < size

    def bytes_of(self, size: int) -> int:
        """How many of a file's first `size` bytes lie in this component."""
        end = size if self.wish.end == EOF else min(size, self.wish.end)
        return max(0, end - self.start)


class Layout:
    """The layout of one file.

    size: the file's length when its OSTs were charged last; the database knows it, not the attribute. flags:
    `released`, `encrypted`, `foreign`, `empty` (no layout at all). hsm: bits above. former: the components
    before the last migration, newest only.
    """

    def __init__(
        self, fid: int, components: list[Component], composite: bool = False, generation: int = 0,
        size: int = 0,
        mdt: int = 0, flags: list[str] | None = None, hsm: int = 0, archive: int = 0,
        former: list[Component] | None = None,
    ) -> None:  # fmt: skip
        self.fid = fid
        self.components = components
        self.composite = composite
        self.generation = generation
        self.size = size
        self.mdt = mdt
        self.flags = flags or []
        self.hsm = hsm
        self.archive = archive
        self.former = former or []

    def osts(self) -> list[int]:
        """The OSTs that hold objects of the file, each once, in the order of the layout."""
        return list(dict.fromkeys(ost for component in self.components for ost in component.osts))

    def last_initialised(self) -> Component:
        """The component whose values `lfs getstripe -c -i` prints."""
        ready = [component for component in self.components if component.initialised]
        return (ready or self.components)[-1]

    def shares(self) -> dict[int, int]:
        """{OST: bytes of the file there}. Every OST that holds an object is named, with 0 if need be."""
        found: dict[int, int] = {}
        for component in self.components:
            length = component.bytes_of(self.size)
            for place, ost in enumerate(component.osts):
                part = length // len(component.osts) + (place < length % len(component.osts))
                found[ost] = found.get(ost, 0) + part
        return found

    def object_counts(self) -> dict[int, int]:
        """{OST: objects of the file there}."""
        found: dict[int, int] = {}
        for component in self.components:
            for ost in component.osts:
                found[ost] = found.get(ost, 0) + 1
        return found

    # The text of the extended attribute.

    def to_text(self) -> str:
        return compact.dumps({
            "v": 1, "fid": self.fid, "gen": self.generation, "mdt": self.mdt,
            "composite": self.composite, "flags": self.flags, "hsm": self.hsm, "archive": self.archive,
            "components": [_dump(component) for component in self.components],
            "former": [_dump(component) for component in self.former],
        })  # fmt: skip

    @classmethod
    def from_text(cls, text: str) -> Layout:
        """Raises ValueError when the text is that of a directory, KeyError when it is none at all."""
        fields = compact.loads(text)
        if "default" in fields:
            raise ValueError("the default of a directory is no layout")
        return cls(
            fields["fid"], [_load(component) for component in fields["components"]], fields["composite"],
            fields["gen"], 0, fields["mdt"], fields["flags"], fields["hsm"], fields["archive"],
            [_load(component) for component in fields["former"]],
        )  # fmt: skip


def _dump(component: Component) -> list[Any]:
    return [component.number, component.start, component.osts, component.objects, component.wish.to_dict()]


def _load(fields: list[Any]) -> Component:
    number, start, osts, objects, wish = fields
    return Component(number, start, Wish.from_dict(wish), osts, objects)


def fid_text(fid: int) -> str:
    return f"0x200000401:{fid:#x}:0x0"


def object_fid_text(ost: int, number: int) -> str:
    return f"0x1{ost:04x}0000:{number:#x}:0x0"
