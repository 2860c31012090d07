"""One line of a list on its way through the mind."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple


class EntryId(NamedTuple):
    """Names an entry for ever. input: of the list in one of its lives; number: of the record in it, from 0."""

    input: str
    number: int


@dataclass(slots=True, eq=False)
class Entry:
    """A file that is to leave its source.

    offset: where its record begins in the list, in bytes. size: bytes; None as long as nobody has looked.
    key: no two entries with the same key are in flight at the same time; the path, unless more is known.
    tries: how many have ended. billed: how many of them are the file's own doing.
    avoid: the target of the last try that ended in trouble of which nobody knows whose it is.
    """

    id: EntryId
    offset: int
    source: int
    path: bytes
    size: int | None = None
    key: Hashable = None
    tries: int = 0
    billed: int = 0
    avoid: int | None = None

    def __post_init__(self) -> None:
        if self.key is None:
            self.key = self.path
