"""Removes files that tasks left behind whose workers were killed."""

from __future__ import annotations

import logging
import os
import re
import stat
import time
from collections.abc import Iterable, Sequence

from cyclone.base_task import BaseTask

_log = logging.getLogger(__name__)

#: What `OstTask.file_name` makes, and nothing that a person would.
_NAME = re.compile(r"(?P<ost>\d+)_[A-Za-z0-9.-]+_\d+_[A-Za-z0-9.-]+(_file_creation_check)?\.tmp\Z")

OLD_S = 86_400.0


class RemoveLeftoversTask(BaseTask):
    """Removes the files of dead tasks from these directories and returns how many there were.

    older_than_s: by their time of modification; so old that no task can still be at work on them.
    osts_avoided: whose files are left alone: only to ask for their age would wait until the OST is back.
    """

    timeout = 600.0

    def __init__(
        self, directories: Sequence[str], older_than_s: float = OLD_S, osts_avoided: Iterable[int] = ()
    ) -> None:
        super().__init__()
        self.directories, self.older_than_s = tuple(directories), older_than_s
        self.osts_avoided = frozenset(osts_avoided)

    def execute(self) -> int:
        before = time.time() - self.older_than_s
        return sum(self._clear(directory, before) for directory in self.directories)

    def _clear(self, directory: str, before: float) -> int:
        removed = 0
        try:
            names = os.listdir(directory)
        except OSError as error:
            _log.warning("cannot be searched for leftovers directory=%s reason=%s", directory, error.strerror)
            return 0
        for name in names:
            match = _NAME.match(name)
            if match is None or int(match["ost"]) in self.osts_avoided:
                continue
            path = os.path.join(directory, name)
            try:
                found = os.lstat(path)
                if stat.S_ISREG(found.st_mode) and found.st_mtime < before:
                    os.unlink(path)
                    removed += 1
            except FileNotFoundError:
                continue
            except OSError as error:
                _log.warning("a leftover cannot be removed file=%s reason=%s", path, error.strerror)
        return removed
