"""Letters for which nobody waits: said a little later, as one, so that whoever hears them is woken up once for many.

And the disk is waited for once for many, if nobody waits for it before.
"""

from __future__ import annotations

from collections import defaultdict

from cyclone.core.decision import Letter
from cyclone.messages import Accepted, Drop
from cyclone.model.peer import Peer
from cyclone.model.task import Token

#: How long the first may wait for others.
PATIENCE_S = 0.01


class PutOff:
    """Owns what is remembered, and still to be synced and said.

    moment: monotonic seconds, when to sync and to `take` it; None while there is nothing.
    """

    def __init__(self) -> None:
        self.moment: float | None = None
        self._dropped: defaultdict[tuple[Peer, bool], list[Token]] = defaultdict(list)
        self._accepted: defaultdict[Peer, list[int]] = defaultdict(list)

    def begin(self, now: float) -> None:
        """Something was remembered."""
        if self.moment is None:
            self.moment = now + PATIENCE_S

    def add(self, letter: Letter, now: float) -> bool:
        """Put it off, if somebody can wait for it. Returns whether that was so."""
        to, message = letter.to, letter.message
        if isinstance(message, Drop):
            self._dropped[to, message.unless_started] += message.tokens
        elif isinstance(message, Accepted):
            self._accepted[to] += message.requests
        else:
            return False
        self.begin(now)
        return True

    def take(self) -> list[Letter]:
        """What is to be said now: one letter of a kind for each peer, each in the order in which it was added."""
        letters = [Letter(to, Drop(tokens, unless)) for (to, unless), tokens in self._dropped.items()]
        letters += [Letter(to, Accepted(requests)) for to, requests in self._accepted.items()]
        self._dropped.clear()
        self._accepted.clear()
        self.moment = None
        return letters
