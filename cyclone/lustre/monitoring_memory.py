"""What the monitoring of OSTs knows from one life to the next: one file, replaced as a whole."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from cyclone.generators.files import replacing
from cyclone.lustre.incidents import Incident
from cyclone.lustre.roster import KnownOst

_log = logging.getLogger(__name__)


class OpenTask(msgspec.Struct, frozen=True):
    """A task that was handed in and whose end was not heard. since: Unix time."""

    tid: str
    ost: int
    part: str
    since: float


class Memory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """round: number of the newest one, which is the Unix time at which it began, unless the clock was set back."""

    version: int = 1
    round: int = 0
    known: list[KnownOst] = []
    open: list[OpenTask] = []
    incidents: list[Incident] = []


def recall(file: Path) -> Memory:
    """What the file says; nothing if there is none. A file that makes no sense is set aside, as NAME.damaged."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Memory)
    except FileNotFoundError:
        return Memory()
    except msgspec.DecodeError as error:
        damaged = file.with_name(f"{file.name}.damaged")
        file.replace(damaged)
        _log.error("what was remembered is damaged, it begins anew file=%s reason=%s", damaged, error)
        return Memory()


def remember(file: Path, memory: Memory) -> None:
    """Replace the file. When this returns, it is on disk. Raises OSError."""
    with replacing(file) as stream:
        stream.write(msgspec.json.format(msgspec.json.encode(memory), indent=1) + b"\n")
