"""Asks Lustre's programs which OSTs there are, from a thread: the one that hangs most is the one that is needed most."""

from __future__ import annotations

import logging
import threading
from time import monotonic

from cyclone.lustre.inventory import Survey
from cyclone.lustre.lfs import Lfs, LfsError

_log = logging.getLogger(__name__)


class Surveyor:
    """One survey of a file system, begun when this is made.

    fs_path: a path on it for `lfs df`, "" for none. timeout_s: of all questions together; what was not answered by
    then is missing.
    """

    def __init__(self, lfs: str, lctl: str, fs: str, *, fs_path: str, sudo: bool, timeout_s: float) -> None:
        self._lfs, self._lctl, self._fs, self._fs_path, self._sudo = lfs, lctl, fs, fs_path, sudo
        self._until = monotonic() + timeout_s
        self._found = Survey()
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
        reasons = None
        in_usage: frozenset[int] = frozenset()
        servers: dict[int, str] = {}
        try:
            reasons = {index: ost.reason for index, ost in self._ask().osts(self._fs).items()}
            if self._fs_path:
                in_usage = frozenset(self._ask().usage(self._fs_path))
            servers = self._ask().oss_of(self._fs)
        except LfsError as error:
            # Without servers the order of tasks is worse; without reasons every OST is simply tried.
            _log.log(
                logging.ERROR if reasons is None else logging.DEBUG, "survey is not complete reason=%s", error
            )
        self._found = Survey(reasons, in_usage, servers)

    def _ask(self) -> Lfs:
        left_s = max(0.001, self._until - monotonic())
        return Lfs(self._lfs, self._lctl, sudo=self._sudo, timeout_s=left_s)
