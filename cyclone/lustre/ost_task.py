"""What all tasks have in common that look at one OST, and what they tell.

An OST that is slow, full or gone is a result and not an error: the task succeeds, its rows leave, and whoever made it
reads in the result what was found.
"""

from __future__ import annotations

import os
import re
import socket
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from hashlib import blake2b
from typing import Any, NamedTuple

from cyclone.base_task import BaseTask
from cyclone.lustre.properties import given, whole
from cyclone.lustre.records import ERROR_LENGTH_MAX, FS_LENGTH_MAX, HOST_LENGTH_MAX, INDEX_MAX
from cyclone.record import Record


class OstState(StrEnum):
    """In which state an OST was found. The names are an interface: they stand in tables and in metrics."""

    OK = "OK"
    DOWN = "DOWN"  # it does not answer
    INACTIVE = "INACTIVE"  # somebody has switched it off
    UNKNOWN = "UNKNOWN"  # the file system has no such OST
    RETIRED = "RETIRED"  # nobody expects it any more
    HUNG = "HUNG"  # a task has looked at it for too long, of this round or an earlier one
    TIMEOUT = "TIMEOUT"
    DISPLACED = "DISPLACED"  # the file was put on another OST
    WRITE_FAILED = "WRITE_FAILED"
    READ_FAILED = "READ_FAILED"
    CORRUPT = "CORRUPT"  # what was read is not what was written
    FAILED = "FAILED"  # the task could not do its work, or not every pair with an MDT takes files
    #: Not recorded: it went well, but took longer than it may.
    SLOW = "SLOW"


#: The phase that a fault belongs to when nothing was tried.
REACH = "reach"

_PLAIN = re.compile(r"[A-Za-z0-9.-]{1,60}\Z")


class Row(NamedTuple):
    """What is to be recorded: arguments of `BaseTask.record`."""

    sink: str
    kind: type[Record]
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Fault:
    """One thing that is not as it should be.

    phase: of looking at the OST, such as "write".
    mailed: whether a mail about it was sent already, for sure.
    mail_key: of that mail, or of one of which that is not sure; whoever tells of it once more uses the same.
    """

    phase: str
    state: OstState
    text: str
    mailed: bool = False
    mail_key: str = ""


@dataclass(frozen=True)
class OstResult:
    """What one look at an OST has found: the value of the task.

    state: OK, or what the first fault says that is more than slowness. fine: the phases without a fault.
    figures: `{name: value}`, for people and tests.
    """

    ost: int
    state: OstState
    faults: tuple[Fault, ...] = ()
    fine: tuple[str, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)


class OstTask(BaseTask):
    """Looks at one OST of a file system."""

    def __init__(self, ost_idx: int | str, lfs_target: str) -> None:
        super().__init__()
        self.ost_idx = whole("ost_idx", ost_idx, maximum=INDEX_MAX)
        self.lfs_target = given("lfs_target", lfs_target, "the name of a file system")
        if len(self.lfs_target) > FS_LENGTH_MAX:
            raise ValueError(f"lfs_target: found {lfs_target!r}, expected at most {FS_LENGTH_MAX} letters")

    @abstractmethod
    def execute(self) -> OstResult: ...

    @abstractmethod
    def sinks(self) -> tuple[str, ...]:
        """Names of the sinks that its records go to."""

    @abstractmethod
    def state_rows(self, state: OstState, text: str, moment: datetime) -> list[Row]:
        """What to record of this OST when it is not looked at, since its state is known."""

    def round_rows(
        self, results: Sequence[OstResult], known: Sequence[Row], started_at: datetime
    ) -> list[Row]:
        """What to record of a round, besides what each task has recorded: nothing, unless a subclass knows more.

        known: the `state_rows` of this round.
        """
        return []

    @abstractmethod
    def workplaces(self) -> list[str]:
        """Directories in which it makes files, whose names are those of `file_name`."""

    def file_name(self, ending: str) -> str:
        """`<ost>_<host>_<pid>_<tid><ending>`: a name that nothing else uses. Only inside `execute`."""
        return f"{self.ost_idx}_{_plain(host())}_{os.getpid()}_{_plain(self.attempt.tid)}{ending}"


def host() -> str:
    """The name of this host, as records have it."""
    return socket.gethostname()[:HOST_LENGTH_MAX] or "localhost"


def one_line(text: str) -> str:
    """A text for the column of errors: one line, not too long, and nothing that could not be stored."""
    plain = " ".join(text.encode("utf-8", "backslashreplace").decode("utf-8").split())
    return plain[:ERROR_LENGTH_MAX]


def _plain(text: str) -> str:
    """As a part of a file's name; two texts have two of them, but for chance."""
    if _PLAIN.match(text):
        return text
    plain = "".join(each if _PLAIN.match(each) else "-" for each in text[:40])
    return f"{plain}-{blake2b(text.encode(), digest_size=6).hexdigest()}"
