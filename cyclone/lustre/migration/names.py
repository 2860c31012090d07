"""How a list and the files beside it are called.

NAME is what somebody has put there: `X.input`, lines; `X.input0`, records that end with a NUL; either with `.gz`.

    NAME                waits to be taken
    NAME.active         is being worked on
    NAME.journal        what has been done of it
    NAME.journal.aside  a journal that does not belong to the list, or cannot be read
    NAME.index          where the entries of each OST are
    NAME.plain          its records, where the list itself is compressed or may be taken away
    NAME.done           every entry has its result
    NAME.rejected       records that are no entries, with the reason
    NAME.busy, .failed  entries that may be tried again, as a list
    NAME.audit          the journal of a list that is done, if it is to be kept

If one of the last five is there already, of an earlier list of that name, a number is put behind all of them: `NAME.done.2`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cyclone.lustre.migration.verdict import FileState

_LIST = re.compile(r"[^.].*\.input0?(\.gz)?\Z", re.DOTALL)

#: `X.input.busy`, also of an earlier list of that name, and lists that were made of such.
_RETRYABLE = re.compile(r"(?P<name>.+\.input0?(?:\.gz)?)\.(?P<kind>busy|failed)(?:\.[0-9]+)?\Z", re.DOTALL)
_FED_BACK = re.compile(r"\.(?:busy|failed)-[0-9]+\Z")
_ENDING = re.compile(r"\.input0?(?:\.gz)?\Z")

#: Whatever a list is called now, and whatever has been put behind that.
_RECORDS = re.compile(r".*\.input(?P<nul>0?)(?:\.|\Z)", re.DOTALL)
#: A list that was packed is so until it is done, but what is made of it is not; anything may have been packed later.
_PACKED = re.compile(r".*(?:\.gz|\.input0?\.gz\.(?:active|done(?:\.[0-9]+)?))\Z", re.DOTALL)

_COUNTERS_MOST = 1_000_000

#: The results that may be another if the entry is tried again, and what the lists of them are called.
RETRYABLE = {FileState.BUSY: "busy", FileState.FAILED: "failed"}


@dataclass(frozen=True)
class ListFiles:
    """The files of one list. base: the list itself as it was put there; suffix: a dot and a number, or nothing."""

    base: Path
    suffix: str = ""

    @classmethod
    def new(cls, base: Path) -> ListFiles:
        """For a list that begins its life: with a suffix that no file of an earlier one has."""
        for counter in range(1, _COUNTERS_MOST):
            files = cls(base, "" if counter == 1 else f".{counter}")
            if not any(file.exists() for file in files.lasting()):
                return files
        raise RuntimeError(f"{base}: there are {_COUNTERS_MOST} lists of this name already")

    def lasting(self) -> Iterator[Path]:
        """What stays when the list is done."""
        yield self.done
        yield self.rejected
        yield self.audit
        for state in RETRYABLE:
            yield self.retryable(state)

    @property
    def name(self) -> str:
        return self.base.name

    @property
    def separator(self) -> bytes:
        return form_of(self.base).separator

    @property
    def is_packed(self) -> bool:
        return form_of(self.base).is_packed

    @property
    def active(self) -> Path:
        return self._beside("active")

    @property
    def journal(self) -> Path:
        return self._beside("journal")

    @property
    def index(self) -> Path:
        return self._beside("index")

    @property
    def plain(self) -> Path:
        return self._beside("plain")

    @property
    def draft(self) -> Path:
        """What will be called `rejected` once the list is taken."""
        return self._beside("rejected.draft")

    @property
    def done(self) -> Path:
        return self._beside(f"done{self.suffix}")

    @property
    def rejected(self) -> Path:
        return self._beside(f"rejected{self.suffix}")

    @property
    def audit(self) -> Path:
        return self._beside(f"audit{self.suffix}")

    def retryable(self, state: FileState) -> Path:
        """The list of the entries with this result, which is one of RETRYABLE."""
        return self._beside(f"{RETRYABLE[state]}{self.suffix}")

    def current(self) -> Path:
        """The list, as it is called now."""
        return next((file for file in (self.active, self.done) if file.exists()), self.base)

    def _beside(self, ending: str) -> Path:
        return self.base.with_name(f"{self.base.name}.{ending}")


class Form(NamedTuple):
    """How the records of a list are written. separator: ends each."""

    separator: bytes
    is_packed: bool


def form_of(file: Path) -> Form:
    """By its name, which may be that of a list in any state; else it is a file of lines, with `.gz` or without."""
    records = _RECORDS.match(file.name)
    separator = b"\0" if records is not None and records["nul"] else b"\n"
    return Form(separator, _PACKED.match(file.name) is not None)


def waiting_lists(directory: Path) -> tuple[list[Path], list[Path]]:
    """What may be taken, and what is only called like a list: a directory, a link to nowhere. By name. Raises OSError."""
    waiting: list[Path] = []
    false: list[Path] = []
    for file in sorted(file for file in directory.iterdir() if _LIST.match(file.name)):
        (waiting if file.is_file() else false).append(file)
    return waiting, false


def taken_lists(directory: Path) -> list[Path]:
    """Lists that have been taken and are not done, or of which a journal is left: the names they had. Raises OSError."""
    found = set()
    for file in directory.iterdir():
        for ending in (".active", ".journal"):
            base = file.name.removesuffix(ending)
            if base != file.name and _LIST.match(base):
                found.add(file.with_name(base))
    return sorted(found)


def retryable_lists(directory: Path, state: FileState) -> list[Path]:
    """All lists of entries with this result, also of lists that are done. Raises OSError."""
    matches = ((file, _RETRYABLE.match(file.name)) for file in directory.iterdir())
    kind = RETRYABLE[state]
    return sorted(file for file, match in matches if match is not None and match["kind"] == kind)


def fed_back(retryable: Path) -> Path:
    """A name under which such a list may wait to be taken: `X.busy-1.input` for `X.input.busy`."""
    match = _RETRYABLE.match(retryable.name)
    assert match is not None
    name = match["name"]
    ending = _ENDING.search(name)
    assert ending is not None
    stem = _FED_BACK.sub("", name[: ending.start()])
    records = ".input0" if ending.group().startswith(".input0") else ".input"
    siblings = {file.name for file in retryable.parent.iterdir()}
    for counter in range(1, _COUNTERS_MOST):
        found = f"{stem}.{match['kind']}-{counter}{records}"
        if not any(sibling.startswith(found) for sibling in siblings):
            return retryable.with_name(found)
    raise RuntimeError(f"{retryable}: there are {_COUNTERS_MOST} lists of this name already")
