"""Asks Lustre's programs which OSTs there are, from a thread: the one that hangs most is the one that is needed most."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

from cyclone.clock import monotonic
from cyclone.lustre.inventory import Survey
from cyclone.lustre.lfs import Lfs, LfsError, LfsTimedOut
from cyclone.lustre.program import is_left_behind

_Answer = TypeVar("_Answer")


class Surveyor:
    """One survey of a file system, begun when this is made.

    fs_path: a path on it for `lfs df`, "" for none. timeout_s: of all questions together; what was not answered by
    then is missing, and none takes the time of those after it.
    left_behind: of the survey before, see `Survey`. What still does not die is not begun once more: each round would
    leave one more behind.
    """

    def __init__(
        self, lfs: str, lctl: str, fs: str, *,
        fs_path: str, sudo: bool, timeout_s: float, left_behind: Mapping[str, int],
    ) -> None:  # fmt: skip
        self._lfs, self._lctl, self._fs, self._fs_path, self._sudo = lfs, lctl, fs, fs_path, sudo
        self._until = monotonic() + timeout_s
        self._found = Survey()
        self._unanswered: dict[str, str] = {}
        self._left_behind = dict(left_behind)
        self._given_up = threading.Event()
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
        """Nobody wants to know any more: kill the program that is at work. Waits so long at most until it is dead."""
        self._given_up.set()
        self._thread.join(patience_s)

    def _run(self) -> None:
        # The one that waits for each server that hangs comes last. Without servers the order of tasks is worse; without
        # reasons every OST is simply tried that was not switched off.
        servers = self._answer("lctl ost_conn_uuid", lambda lfs: lfs.oss_of(self._fs), left=4)
        deactivated = self._answer("lctl active", lambda lfs: lfs.deactivated(self._fs), left=3)
        usage = (
            self._answer("lfs df", lambda lfs: lfs.usage(self._fs_path), left=2) if self._fs_path else None
        )
        osts = self._answer("lfs check", lambda lfs: lfs.osts(self._fs), left=1)
        if osts is not None and osts.doubt:
            self._unanswered["lfs check"] = osts.doubt
        reasons = {} if osts is None else {index: ost.reason for index, ost in osts.found.items()}
        self._found = Survey(
            reasons, frozenset(usage or ()), servers or {}, self._unanswered, self._left_behind,
            deactivated or frozenset(), is_whole=osts is not None and not osts.doubt,
        )  # fmt: skip

    def _answer(self, program: str, question: Callable[[Lfs], _Answer], *, left: int) -> _Answer | None:
        """What a program answers, None if it does not. left: questions that share the time that is left, this included."""
        if self._given_up.is_set():
            return None
        timeout_s = max(0.001, self._until - monotonic()) / left
        pid = self._left_behind.pop(program, 0)
        if pid and is_left_behind(pid):
            self._left_behind[program] = pid
            self._unanswered[program] = f"that of an earlier survey does not die pid={pid}"
            return None
        try:
            return question(
                Lfs(self._lfs, self._lctl, sudo=self._sudo, timeout_s=timeout_s, given_up=self._given_up)
            )
        except LfsError as error:
            if isinstance(error, LfsTimedOut) and error.left_behind:
                self._left_behind[program] = error.left_behind
            self._unanswered[program] = str(error)
            return None
