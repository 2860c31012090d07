"""The checksum of one file, whatever its name is made of.

The name of a file is bytes. Three forms of it are needed: the bytes themselves for the kernel, the escaped
bytes for a manifest with a line for each file, and text for a tid. `escaped` and `path_tid` make the latter two;
different names stay different in both.
"""

from __future__ import annotations

import hashlib
import os
import stat

from cyclone.base_task import BaseTask
from cyclone.errors import TaskError

_TID_BYTES_MAX = 4096


class ChecksumTask(BaseTask):
    """Returns the SHA-256 of a file, in hexadecimal. Follows symbolic links; reads plain files only.

    path: text as `os.fsdecode` makes it, or bytes; its tid is made from it.
    """

    def __init__(self, path: str | bytes | os.PathLike[str]) -> None:
        super().__init__()
        self.path = os.fsencode(path)
        self.tid = path_tid(self.path)

    def execute(self) -> str:
        try:
            # Without O_NONBLOCK the opening of a pipe that has come to stand here would wait for ever.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            with open(descriptor, "rb", buffering=0) as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise TaskError("not a plain file")
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise TaskError(error.strerror or str(error)) from None


def escaped(path: bytes) -> bytes:
    """The name on one line: backslash, newline and carriage return as `sha256sum` writes them.

    Source: GNU coreutils manual, "md5sum invocation": such names are escaped and the line starts with a backslash.
    """
    return path.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")


def path_tid(path: bytes) -> str:
    r"""Valid text that no other name has: escaped, and `\xNN` for each byte that is not UTF-8.

    A name too long for a tid becomes `\#` and its hash; no escaped name contains a lone `\#`.
    """
    text = escaped(path).decode("utf-8", "backslashreplace")
    if len(text.encode()) <= _TID_BYTES_MAX:
        return text
    return "\\#" + hashlib.sha256(path).hexdigest()
