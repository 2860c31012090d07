"""What generators leave behind: files that are there as a whole or not at all."""

from __future__ import annotations

import heapq
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Self


@contextmanager
def replacing(file: Path) -> Iterator[IO[bytes]]:
    """Write to a file that takes the place of `file`, whole and on disk, when the block ends without an error.

    It is called `NAME.tmp` until then. Missing directories are made.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f"{file.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # of somebody who was killed in the middle of this
        with open(temporary, "xb", opener=_new) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _new(path: str, flags: int) -> int:
    """For everybody to read, whatever the umask allows; a link that somebody has put there is not followed."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o644)


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Replace a file by this object, for people and programs to read."""
    with replacing(file) as stream:
        stream.write(json.dumps(content, indent=2).encode() + b"\n")


class SortedLines:
    """Any number of lines, given back in order: what does not fit into memory waits in files without a name.

    key: what to order by. lines_in_memory: how many are kept before they are put into a file.
    """

    def __init__(self, key: Callable[[bytes], Any], lines_in_memory: int = 500_000) -> None:
        self._key = key
        self._limit = lines_in_memory
        self._here: list[bytes] = []
        self._away = ExitStack()
        self._files: list[IO[bytes]] = []
        self.count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._away.close()

    def add(self, line: bytes) -> None:
        """line: ends with its only newline."""
        self._here.append(line)
        self.count += 1
        if len(self._here) >= self._limit:
            self._put_away()

    def __iter__(self) -> Iterator[bytes]:
        """All lines in order. May be asked for once, after the last was added."""
        runs: list[Iterable[bytes]] = [*self._files, sorted(self._here, key=self._key)]
        for file in self._files:
            file.seek(0)
        return heapq.merge(*runs, key=self._key)

    def _put_away(self) -> None:
        file = tempfile.TemporaryFile()  # noqa: SIM115  closed with the others, when the block ends
        self._away.enter_context(file)
        self._here.sort(key=self._key)
        file.writelines(self._here)
        self._files.append(file)
        self._here.clear()
