"""What the monitoring of OSTs knows from one life to the next: one file, replaced as a whole."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

import msgspec

from cyclone.errors import ConfigError
from cyclone.generators.files import replacing
from cyclone.lustre.incidents import Incident, Notice
from cyclone.lustre.inventory import KnownOst

_log = logging.getLogger(__name__)


class OpenTask(msgspec.Struct, frozen=True):
    """A task that was handed in and whose end was not heard. since: Unix time."""

    tid: str
    ost: int
    part: str
    since: float


class Selected(msgspec.Struct, frozen=True):
    """Which OSTs are looked at; empty is all. configured: what the ini file said when they were selected."""

    configured: tuple[int, ...]
    osts: tuple[int, ...]


class Memory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is remembered.

    fs: name of the file system, "" in local mode: OSTs of one must not be expected of another.
    task: name of the task in the task file, of which those are that have not ended.
    untold: notices that were decided on, and of which nobody knows whether they were posted.
    round: number of the newest one, which is the Unix time at which it began, unless the clock was set back.
    """

    version: Literal[1] = 1
    fs: str = ""
    task: str = ""
    round: int = 0
    known: list[KnownOst] = []
    open: list[OpenTask] = []
    incidents: list[Incident] = []
    untold: list[Notice] = []
    selected: Selected | None = None


def recall(file: Path, fs: str) -> Memory:
    """What the file says of this file system; nothing if there is none, or if it is about another one.

    A file that makes no sense is set aside, as NAME.damaged. Raises ConfigError when it is there and cannot be read.
    """
    try:
        memory = msgspec.json.decode(file.read_bytes(), type=Memory)
    except FileNotFoundError:
        return Memory(fs=fs)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=file) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        damaged = file.with_name(f"{file.name}.damaged")
        file.replace(damaged)
        _log.error("what was remembered is damaged, it begins anew file=%s reason=%s", damaged, error)
        return Memory(fs=fs)
    if memory.fs != fs:
        _log.warning("what was remembered is about another file system, it begins anew fs=%s", memory.fs)
        # Numbers go on, since tids are made of them.
        return Memory(fs=fs, round=memory.round)
    return memory


def remember(file: Path, memory: Memory) -> None:
    """Replace the file. When this returns, it is on disk. Raises OSError."""
    with replacing(file) as stream:
        stream.write(msgspec.json.format(msgspec.json.encode(memory), indent=1) + b"\n")
