"""What is witnessed in a drill: one note for each thing that tasks, generators and the clerk have seen with their own eyes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import msgspec

from cyclone.model.task import Token


class Note(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """One line. at: seconds on the boot-time clock."""


class Woke(Note, frozen=True):
    """A generator begins a life of its own, in which it may hand in nothing at all."""

    at: float
    life: str


class Handed(Note, frozen=True):
    """A task was handed in. life: of the generator; after: tids that it comes after."""

    at: float
    tid: str
    life: str
    after: list[str] = []


class Told(Note, frozen=True):
    """The generator was told of an end. mark: of the value; see `mark`."""

    at: float
    tid: str
    life: str
    state: str
    mark: str = ""


class Began(Note, frozen=True):
    """An attempt begins. node: the name of the controller. alone: False if another attempt at an exclusive task runs."""

    at: float
    tid: str
    token: Token
    node: str
    pid: int
    alone: bool = True


class Ended(Note, frozen=True):
    """An attempt has ended by itself. records: `{sink: how many it made}`; ok: it did not raise; mark: of the value."""

    at: float
    tid: str
    token: Token
    records: dict[str, int]
    ok: bool
    mark: str = ""


class Given(Note, frozen=True):
    """The master has said that it has accepted a task; it was never handed in again after that."""

    at: float
    tid: str


#: What is about one task.
TaskNote: TypeAlias = Handed | Told | Began | Ended | Given
AnyNote: TypeAlias = TaskNote | Woke


def tids(notes: Iterable[AnyNote]) -> set[str]:
    """Of all tasks that they are about."""
    return {note.tid for note in notes if not isinstance(note, Woke)}
