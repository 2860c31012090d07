"""Whose question is answered next, and when: those who only want to know must not keep others from their work.

An answer may cost a hundred times what it costs to ask. So answers take a twentieth of the time at most, each key has its
turn, and of one key only so many questions wait.
"""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

from cyclone.messages import AskCluster, AskTask, AskTasks, Refused
from cyclone.model.peer import Peer

Question: TypeAlias = AskCluster | AskTasks | AskTask

#: Of the time, so much is for everything else, for each part that is for answers.
OTHERS_PARTS = 19
#: So much answering may come at once, in seconds.
BURST_S = 0.05
WAITING_MOST = 100


class Questions:
    """Owns what was asked and is not answered yet. Moments are monotonic seconds."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[tuple[Peer, Question]]] = {}  # by key, whose turn is next first
        self._paid_until = 0.0  # answers that were given have used up the time until then

    def add(self, sender: Peer, question: Question) -> Refused | None:
        """Somebody asks. Returns what he is to be told at once if it will not be answered."""
        waiting = self._waiting.setdefault(sender.key, deque())
        if len(waiting) >= WAITING_MOST:
            return Refused(f"{WAITING_MOST} questions of this key wait already", question.request)
        waiting.append((sender, question))
        return None

    def next(self, now: float) -> tuple[Peer, Question] | None:
        """The one that is to be answered now, if any; then say what it `took`."""
        if not self._waiting or self._paid_until - now > BURST_S:
            return None
        key, waiting = next(iter(self._waiting.items()))
        del self._waiting[key]
        asked = waiting.popleft()
        if waiting:
            self._waiting[key] = waiting
        return asked

    def took(self, began: float, ended: float) -> None:
        self._paid_until = max(self._paid_until, began) + (1 + OTHERS_PARTS) * (ended - began)

    def next_moment(self) -> float | None:
        """When `next` has one; None if nobody asks."""
        return self._paid_until - BURST_S if self._waiting else None
