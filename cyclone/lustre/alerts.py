"""The words in which people are told of faults of OSTs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from cyclone.lustre.incidents import Incident, Notice
from cyclone.lustre.ost_task import REACH, OstState

_TAG = "[LUSTRE Monitoring]"


def ost_name(fs: str, ost: int) -> str:
    """Such as `lustre-OST000a (10)`: as Lustre writes it, and the index as people write it."""
    return f"{fs}-OST{ost:04x} ({ost})"


def degradation_subject(fs: str, ost: int, phase: str) -> str:
    """Cyclone 2.x wrote it so, and mail filters look for it."""
    return f"{_TAG} OST {phase.capitalize()} Performance Degradation Detected: {ost_name(fs, ost)}"


def degradation_body(fs: str, ost: int, phase: str, begun: datetime, threshold_s: float, where: str) -> str:
    """Of a mail that is sent while the phase still lasts. begun: with a time zone. where: host and directory."""
    return (
        f"OST:       {ost_name(fs, ost)}\n"
        f"Phase:     {phase}\n"
        f"Begun:     {_moment(begun.timestamp())}\n"
        f"Threshold: {threshold_s:g} s have passed, and it has not ended yet\n"
        f"Where:     {where}\n"
    )


def subject(fs: str, notice: Notice) -> str:
    """Of the mail that tells of a notice."""
    first = notice.incidents[0]
    if notice.is_digest:
        count = len({each.ost for each in notice.incidents})
        what = "found at" if notice.about == "fault" else "over at"
        return f"{_TAG} Faults {what} {count} OSTs of {fs}"
    if notice.about == "recovery":
        return f"{_TAG} OST Recovered ({first.phase}): {ost_name(fs, first.ost)}"
    if first.state == OstState.SLOW:
        return degradation_subject(fs, first.ost, first.phase)
    if first.phase == REACH:
        return f"{_TAG} OST {first.state}: {ost_name(fs, first.ost)}"
    return f"{_TAG} OST {first.phase.capitalize()} {first.state}: {ost_name(fs, first.ost)}"


def body(fs: str, notice: Notice) -> str:
    """Of the mail that tells of a notice."""
    if notice.is_digest:
        return _digest(fs, notice.incidents)
    (one,) = notice.incidents
    lines = [
        f"OST:    {ost_name(fs, one.ost)}",
        f"Phase:  {one.phase}",
        f"State:  {one.state if notice.about == 'fault' else 'in order again, it was ' + one.state}",
        f"Since:  {_moment(one.since)}",
        f"Reason: {one.text}",
    ]
    return "\n".join(lines) + "\n"


def _digest(fs: str, incidents: Sequence[Incident]) -> str:
    lines = [
        f"{ost_name(fs, each.ost)}  {each.phase}  {each.state}  since {_moment(each.since)}  {each.text}"
        for each in incidents
    ]
    return "\n".join(lines) + "\n"


def _moment(unix_s: float) -> str:
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%d %H:%M:%S} UTC"
