"""Asks Lustre's programs which OSTs there are, from a thread: the one that hangs most is the one that is needed most."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from typing import TypeVar

from cyclone.lustre.inventory import Survey
from cyclone.lustre.lfs import Lfs, LfsError
from cyclone.lustre.parsing import DEACTIVATED

_Answer = TypeVar("_Answer")


class Surveyor:
    """One survey of a file system, begun when this is made.

    fs_path: a path on it for `lfs df`, "" for none. timeout_s: of all questions together; what was not answered by
    then is missing, and none takes the time of those after it.
    """

    def __init__(self, lfs: str, lctl: str, fs: str, *, fs_path: str, sudo: bool, timeout_s: float) -> None:
        self._lfs, self._lctl, self._fs, self._fs_path, self._sudo = lfs, lctl, fs, fs_path, sudo
        self._until = monotonic() + timeout_s
        self._found = Survey()
        self._unanswered: dict[str, str] = {}
        self._thread = threading.Thread(target=self._run, name="survey", daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def found(self) -> Survey:
        """What was learned. Waits until it is over."""
        self._thread.join()
        return self._found

    def abandon(self, patience_s: float) -> None:
        """Nobody wants to know any more. Waits so long at most, so that no program is left behind without need."""
        self._thread.join(patience_s)

    def _run(self) -> None:
        # The one that waits for each server that hangs comes last. Without servers the order of tasks is worse; without
        # reasons every OST is simply tried.
        servers = self._answer("lctl ost_conn_uuid", lambda lfs: lfs.oss_of(self._fs), left=4)
        deactivated = self._answer("lctl active", lambda lfs: lfs.deactivated(self._fs), left=3)
        usage = (
            self._answer("lfs df", lambda lfs: lfs.usage(self._fs_path), left=2) if self._fs_path else None
        )
        osts = self._answer("lfs check", lambda lfs: lfs.osts(self._fs), left=1)
        reasons = None
        if osts is not None:
            reasons = {index: ost.reason for index, ost in osts.items()} | dict.fromkeys(
                deactivated or (), DEACTIVATED
            )
        self._found = Survey(reasons, frozenset(usage or ()), servers or {}, self._unanswered)

    def _answer(self, program: str, question: Callable[[Lfs], _Answer], *, left: int) -> _Answer | None:
        """What a program answers, None if it does not. left: questions that share the time that is left, this included."""
        timeout_s = max(0.001, self._until - monotonic()) / left
        try:
            return question(Lfs(self._lfs, self._lctl, sudo=self._sudo, timeout_s=timeout_s))
        except LfsError as error:
            self._unanswered[program] = str(error)
            return None
