"""What a mind returns: first remember the changes, then say the letters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cyclone.messages import Message
from cyclone.model.changes import Change
from cyclone.model.peer import Peer


class Letter(NamedTuple):
    """A message, the peer it is for, and what is to be enclosed.

    enclose: runs parallel to the list of the message that has an enclosure, and names what goes with each
    entry: the number of a task for its payload, or the token of an attempt for its payload or value (0: nothing).
    binding: whoever hears it may rely for ever on what was decided, so it has to be on disk before. One that is not
    binding may be said as soon as a kill cannot undo what was decided any more, though a power cut still can.
    """

    to: Peer
    message: Message
    enclose: Sequence[int] = ()
    binding: bool = True


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

    def say(self, to: Peer, message: Message, enclose: Sequence[int] = (), *, binding: bool = True) -> None:
        self.letters.append(Letter(to, message, enclose, binding))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def extend(self, other: Decision) -> None:
        self.changes += other.changes
        self.letters += other.letters
        self.notes += other.notes
