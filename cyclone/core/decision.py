"""What a mind returns: first remember the changes, then say the letters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from cyclone.messages import Message
from cyclone.model.changes import Change
from cyclone.model.peer import Peer


class Letter(NamedTuple):
    """A message and the peer it is for."""

    to: Peer
    message: Message


@dataclass(slots=True)
class Decision:
    """Changes in the order they came about, letters in the order they are to be said.

    Whoever gets a decision must remember all its changes before it says any of its letters; several
    decisions may share one transaction as long as that order is kept.
    """

    changes: list[Change] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # for the log: what an operator wants to know

    def remember(self, change: Change) -> None:
        self.changes.append(change)

    def say(self, to: Peer, message: Message) -> None:
        self.letters.append(Letter(to, message))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def extend(self, others: Iterable[Decision]) -> None:
        for other in others:
            self.changes += other.changes
            self.letters += other.letters
            self.notes += other.notes
