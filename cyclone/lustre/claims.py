"""Who of several processes may do something of which there shall be only so many."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from enum import Enum, auto
from pathlib import Path

from cyclone.lustre.mail import make_private_directory

_OLD_S = 86_400.0


class Claim(Enum):
    """What came of asking."""

    MINE = auto()  # also when somebody has it who has not told that it is done: he may have been killed
    DONE = auto()
    TOO_MANY = auto()


class Claims:
    """Claims on a directory that those who compete can all see: a file for each, made by whoever comes first, and
    with something in it as soon as what was claimed is done.

    Claims belong to groups; a group that is older than a day is forgotten.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def take(self, group: str, key: str, most: int) -> Claim:
        """Claim a key, of which there may be so many in the group. Raises OSError.

        Of several that come at the same time, fewer than allowed may get theirs, never more.
        """
        make_private_directory(self._directory)
        file = self._file(group, key)
        place = file.parent
        place.mkdir(mode=0o700, exist_ok=True)
        try:
            os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return Claim.DONE if file.stat().st_size else Claim.MINE
        if len(os.listdir(place)) > most:
            file.unlink(missing_ok=True)
            return Claim.TOO_MANY
        self._forget_old(place)
        return Claim.MINE

    def done(self, group: str, key: str) -> None:
        """Nobody needs to do it again. Raises OSError."""
        self._file(group, key).write_text("done\n")

    def give_back(self, group: str, key: str) -> None:
        """Let others have it: nothing came of it."""
        self._file(group, key).unlink(missing_ok=True)

    def _file(self, group: str, key: str) -> Path:
        return self._directory / _name(group) / _name(key)

    def _forget_old(self, newest: Path) -> None:
        before = time.time() - _OLD_S
        for place in self._directory.iterdir():
            try:
                is_old = place.stat().st_mtime < before
            except FileNotFoundError:
                continue  # another process was here first
            if place != newest and is_old:
                shutil.rmtree(place, ignore_errors=True)


def default_directory() -> Path:
    """One for this user on this host."""
    return Path(tempfile.gettempdir()) / f"cyclone-mail-{os.geteuid()}"


def _name(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:32]
