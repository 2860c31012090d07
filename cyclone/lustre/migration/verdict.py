"""What follows from how one try at a file has ended."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class FileState(StrEnum):
    """What became of a file, as the task tells it and as lists and statistics name it."""

    SUCCESS = "SUCCESS"
    DISPLACED = "DISPLACED"  # moved, but to another OST than it should have been
    IGNORED = "IGNORED"  # there was nothing to do
    SKIPPED = "SKIPPED"  # it was left where it is, because of what it is
    BUSY = "BUSY"  # somebody used it
    FAILED = "FAILED"


class Report(NamedTuple):
    """What is known of a try that has ended.

    state: FAILED as well if the task itself did not succeed. reason: a few words, "" if there is nothing to say.
    failure: the class of the failure in one word, "" for none: `cyclone.lustre.lfs.FailureClass`.
    actual: the OST where the file is now, if anybody looked. size: of what was moved (or would be), in bytes.
    message: what Lustre told of it, for people.
    """

    state: FileState
    reason: str = ""
    failure: str = ""
    actual: int | None = None
    size: int = 0
    message: str = ""


class Verdict(StrEnum):
    """What is to be done."""

    FINAL = "final"  # nothing more
    LATER = "later"  # try it again after a while; this is billed to the file
    OTHER_TARGET = "other_target"  # leave the target alone for a while, and try the file again
    OST_TROUBLE = (
        "ost_trouble"  # try the file again; nobody knows if source, target or the file itself is to blame
    )
    STOP = "stop"  # nothing more, and no other file either


#: A file that is not what it was before: the safety of what is stored comes before all progress.
VERIFY = "verify"

_BY_FAILURE = {
    "busy": Verdict.LATER,
    "unknown": Verdict.LATER,
    "quota": Verdict.LATER,
    "target": Verdict.OTHER_TARGET,
    "ost": Verdict.OST_TROUBLE,
    "our_bug": Verdict.STOP,
}

_GONE = "gone"

_HARMLESS = {_GONE: FileState.IGNORED, "skip": FileState.SKIPPED}


def has_moved(report: Report, source: int) -> bool:
    """Is the file elsewhere now, and that by this try?"""
    return report.state in (FileState.SUCCESS, FileState.DISPLACED) and report.actual != source


def settled(report: Report) -> Report:
    """The same with its true state: a file that has vanished, or has nothing to move, has not failed."""
    if report.state is FileState.FAILED and report.failure in _HARMLESS:
        return report._replace(state=_HARMLESS[report.failure], reason=report.reason or report.failure)
    return report


def judge(report: Report, *, was_seen: bool = False) -> Verdict:
    """What follows from a try, if the budget of the file allows it.

    was_seen: somebody else has seen the file a while ago, so whether it has vanished is to be asked more than once.
    """
    if report.state is FileState.BUSY:
        return Verdict.LATER
    if was_seen and report.state is FileState.IGNORED and report.reason == _GONE:
        return Verdict.LATER
    if report.state is not FileState.FAILED:
        return Verdict.FINAL
    if report.reason.partition(":")[0].strip() == VERIFY:
        return Verdict.STOP
    return _BY_FAILURE.get(report.failure, Verdict.FINAL)
