"""Short ways to say what a test of the migration is about."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar, cast

from cyclone.lustre.migration.background import Chore
from cyclone.lustre.migration.entry import Entry, EntryId
from cyclone.lustre.migration.fill import Level
from cyclone.lustre.migration.mind import Ended, Mind, Run, Turn
from cyclone.lustre.migration.plan import Plan
from cyclone.lustre.migration.verdict import FileState, Report

SUCCESS = Report(FileState.SUCCESS, size=0)
BUSY = Report(FileState.BUSY, "EBUSY", "busy")
KILLED = Report(FileState.FAILED, "killed", "unknown")
FULL = Report(FileState.FAILED, "ENOSPC", "target")
TROUBLE = Report(FileState.FAILED, "EIO", "ost")
HOPELESS = Report(FileState.FAILED, "EACCES", "permanent")
CORRUPT = Report(FileState.FAILED, "verify", "permanent")

STALE_S = 1000.0

_Result = TypeVar("_Result")


def a_plan(**different: Any) -> Plan:
    """Sources 0-9 above 30 %, targets 10-19 below 70 %."""
    given: dict[str, Any] = {
        "source_threshold": 30, "target_threshold": 70, "targets": frozenset(range(10, 20)), "retry_delay_s": 60,
    }  # fmt: skip
    return Plan(**{**given, **different})


def some_entries(source: int, count: int, first: int = 0, **different: Any) -> list[Entry]:
    return [
        Entry(
            EntryId(f"list{source}", number), offset=number * 100, source=source,
            path=b"/lustre/%d/%d" % (source, number), **different,
        )
        for number in range(first, first + count)
    ]  # fmt: skip


def levels(percent: float = 50, osts: Sequence[int] = range(20), **different: float) -> dict[int, Level]:
    """`ost7=20` is different about one. Without capacities, so that nothing is projected."""
    found = {ost: Level(percent) for ost in osts}
    return found | {int(name[3:]): Level(value) for name, value in different.items()}


def a_mind(plan: Plan | None = None, entries: Mapping[int, int] | None = None, **level: float) -> Mind:
    """A mind at the moment 0 that knows all levels. entries: `{source: how many}`."""
    mind = Mind(plan or a_plan(), 0, stale_s=STALE_S)
    mind.on_levels(levels(**level), 0)  # type: ignore[arg-type]
    for source, count in (entries or {}).items():
        mind.offer(source, some_entries(source, count))
    return mind


def pairs(turn: Turn) -> list[tuple[int, int]]:
    """`(source, target)` of the tasks that are to be started."""
    return [(run.entry.source, run.target) for run in turn.started]


def end(mind: Mind, run: Run, report: Report = SUCCESS, now: float = 0) -> Ended:
    ended = mind.on_end(run.entry.id, report, now)
    assert ended is not None
    return ended


class AtOnce:
    """Does each chore where it is started."""

    def start(self, call: Callable[[], _Result]) -> Chore[_Result]:
        return _Done(call)


class _Done(Generic[_Result]):
    def __init__(self, call: Callable[[], _Result]) -> None:
        self._outcome: _Result | None = None
        self._error: Exception | None = None
        try:
            self._outcome = call()
        except Exception as error:  # noqa: BLE001  it is raised where the result is asked for
            self._error = error

    def is_done(self) -> bool:
        return True

    def result(self) -> _Result:
        if self._error is not None:
            raise self._error
        return cast(_Result, self._outcome)
