"""Who speaks, and in which of its lives."""

from __future__ import annotations

from typing import NamedTuple


class Peer(NamedTuple):
    """A daemon in one of its lives: a daemon that restarts is another peer.

    It is also the address of a letter, so what was meant for a former life never reaches the next one.

    name: vouched for by the key (`KEY` or `KEY/INSTANCE`), never only claimed.
    life: begins with the time of its start, so that later lives compare larger; then drawn at random.
    """

    name: str
    life: str

    @property
    def key(self) -> str:
        """The name of its key, which is all of its name that is vouched for."""
        return self.name.partition("/")[0]

    def is_later_than(self, other: Peer) -> bool:
        """Was this life of the same name begun after the other one? Wrong if the clock was set back in between."""
        return self.life > other.life

    def __str__(self) -> str:
        return f"{self.name}#{self.life}"
