"""A file with new content, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def replace_content(file: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write the file anew, and return when that is on disk. A crash leaves what was there or what is new.

    One process at a time may do so: the content is written beside it first, to the same name with `.new`.
    mode: of the file, less the umask. A link that stands in its place is replaced, not followed.
    Raises OSError when this cannot be promised.
    """
    new = file.with_name(f"{file.name}.new")
    new.unlink(missing_ok=True)  # of somebody who was killed in the middle of this
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        with open(fd, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(fd)
        new.replace(file)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    _sync_directory(file.parent)


def _sync_directory(directory: Path) -> None:
    """A new name is on disk when its directory is (fsync(2))."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
