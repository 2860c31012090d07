"""How far the migration is, as one object that JSON can say, and in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from cyclone.lustre.migration.admission import Obstacle
from cyclone.lustre.migration.input_list import InputList
from cyclone.lustre.migration.inputs import Inputs
from cyclone.lustre.migration.mind import Mind, Run
from cyclone.lustre.migration.ost import Role
from cyclone.lustre.migration.statistics import Speed, Statistics
from cyclone.lustre.migration.verdict import FileState

_ON_A_LINE = 25


def status(mind: Mind, inputs: Inputs, statistics: Statistics, now: float) -> dict[str, Any]:
    """Everything. Durations in seconds; what is counted is of this life, but for lists, which count all of theirs."""
    left = inputs.left()
    return {
        "state": state_of(mind),
        "reason": mind.tripped or "; ".join(mind.holds.values()),
        "results": results(statistics),
        "bytes": {str(state): size for state, size in statistics.bytes.items()},
        "files": statistics.files,
        "retries": statistics.retries,
        "speed": speeds(statistics, now),
        "left": left.total(),
        "eta_s": statistics.eta_s(left.total(), now),
        "in_flight": [in_flight(run, now) for run in mind.running.values()],
        "resting": mind.resting + inputs.away,
        "sources": {
            str(source): {
                "left": count,
                "in_memory": mind.waiting(source),
                "eta_s": statistics.source_eta_s(source, count, now),
            }
            for source, count in sorted(left.items())
        },
        "osts": {str(ost): ost_status(mind, ost) for ost in mind.osts()},
        "locked": [
            {"ost": ost, "role": str(role), "reason": reason} for ost, role, reason in locked(mind, left)
        ],
        "left_alone": [
            {"ost": ost, "role": str(role), "for_s": round(until - now, 3)}
            for ost, role, until in mind.admission.left_alone()
        ],
        "excluded": sorted(mind.plan.excluded),
        "lists": [list_status(each) for each in inputs.lists.values()],
        "untaken": untaken(inputs),
    }


def state_of(mind: Mind) -> str:
    """What it is doing, in a word."""
    if mind.tripped:
        return "stopped" if not mind.running else "stopping"
    if mind.holds:
        return "drained" if not mind.running else "draining"
    return "running"


def results(statistics: Statistics) -> dict[str, dict[str, int]]:
    """`{state: {reason: how many}}`"""
    found: dict[str, dict[str, int]] = {}
    for (state, reason), count in sorted(statistics.results.items()):
        found.setdefault(str(state), {})[reason] = count
    return found


def speeds(statistics: Statistics, now: float) -> dict[str, dict[str, float]]:
    return {span: _speed(speed) for span, speed in statistics.speed(now).items()}


def _speed(speed: Speed) -> dict[str, float]:
    return {"files_per_s": round(speed.files, 3), "mb_per_s": round(speed.mb, 3)}


def in_flight(run: Run, now: float) -> dict[str, Any]:
    return {
        "path": run.entry.path.decode("utf-8", "backslashreplace"),
        "source": run.entry.source,
        "target": run.target,
        "try": run.entry.tries,
        "size": run.entry.size,
        "age_s": round(now - run.since, 3),
    }


def ost_status(mind: Mind, ost: int) -> dict[str, Any]:
    """fill: percent as measured; projected: with what has been moved since. Only the roles that it may have."""
    fill, projected = mind.fills.measured_percent(ost), mind.fills.percent(ost)
    found: dict[str, Any] = {
        "fill": None if fill is None else round(fill, 4),
        "projected": None if projected is None else round(projected, 4),
    }
    for role in Role:
        obstacle = mind.obstacle(ost, role)
        found[str(role)] = {
            "state": str(mind.state(ost, role)),
            "in_flight": mind.tasks(ost, role),
            "reason": "" if obstacle is None else str(obstacle),
        }
    return found


def locked(mind: Mind, left: Mapping[int, int]) -> Iterator[tuple[int, Role, str]]:
    """`(OST, role, reason)` of those that have something to do but must not."""
    for role, osts in ((Role.SOURCE, sorted(left)), (Role.TARGET, sorted(mind.plan.targets))):
        for ost in osts:
            obstacle = mind.obstacle(ost, role)
            if obstacle is not None:
                yield ost, role, str(obstacle)


def list_status(each: InputList) -> dict[str, Any]:
    return {
        "name": each.files.name,
        "id": each.id,
        "entries": each.entries,
        "rejected": each.rejected,
        "left": each.left,
        "results": {str(state): count for state, count in each.results.items() if count},
    }


def untaken(inputs: Inputs) -> dict[str, str]:
    """`{name of a list: why it is not done}`"""
    return {base.name: reason for base, reason in sorted(inputs.untaken.items())}


# In words.


def progress_lines(mind: Mind, inputs: Inputs, statistics: Statistics, now: float) -> Iterator[str]:
    """How far it is, for the log."""
    left = inputs.left()
    counts = " ".join(f"{state.lower()}={statistics.count(state)}" for state in FileState)
    speed = statistics.speed(now)
    yield (
        f"migration {state_of(mind)} left={left.total()} {counts} in_flight={len(mind.running)}"
        f" resting={mind.resting + inputs.away} retries={statistics.retries} moved_gb={statistics.moved_bytes / 1e9:.3f}"
        f" eta={eta_text(statistics.eta_s(left.total(), now))}"
    )
    yield "migration speed " + " ".join(
        f"files_per_s_{span}={each.files:.1f} mb_per_s_{span}={each.mb:.1f}" for span, each in speed.items()
    )
    yield from _in_lines("migration left", (f"{ost}:{count}" for ost, count in sorted(left.items())))
    shut = [f"{ost}:{role}" for ost, role, _ in locked(mind, left)]
    yield from _in_lines("migration locked", iter(shut))


def _in_lines(title: str, words: Iterator[str]) -> Iterator[str]:
    line: list[str] = []
    for word in words:
        line.append(word)
        if len(line) == _ON_A_LINE:
            yield f"{title} {' '.join(line)}"
            line.clear()
    if line:
        yield f"{title} {' '.join(line)}"


def eta_text(seconds: float | None) -> str:
    """Such as `3d04h`, `2h05m`, `12m`; `unknown`."""
    if seconds is None:
        return "unknown"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours < 24 else f"{hours // 24}d{hours % 24:02}h"


def ost_rows(mind: Mind, left: Mapping[int, int], moment: datetime) -> list[dict[str, Any]]:
    """The fields of a `MigrationOst` for each OST in each role that it may have. left: entries by source."""
    roles = [(ost, Role.SOURCE) for ost in sorted(left)] + [
        (ost, Role.TARGET) for ost in sorted(mind.plan.targets)
    ]
    rows = []
    for ost, role in roles:
        percent = mind.fills.percent(ost, role)
        rows.append(
            {
                "ost": ost,
                "role": str(role),
                "state": str(mind.state(ost, role)),
                "in_flight": mind.tasks(ost, role),
                "source": ost if role is Role.SOURCE else None,
                "left": left[ost] if role is Role.SOURCE else None,
                "fill": None if percent is None else max(0.0, percent / 100),
                "moment": moment,
            }
        )
    return rows


def obstacles(mind: Mind, sources: Iterable[int]) -> dict[tuple[int, Role], Obstacle | None]:
    """`{(OST, role): why it must not take part, None if it may}` of those that have something to do."""
    found = {(source, Role.SOURCE): mind.obstacle(source, Role.SOURCE) for source in sources}
    for target in mind.plan.targets:
        found[target, Role.TARGET] = mind.obstacle(target, Role.TARGET)
    return found


def report(
    mind: Mind, inputs: Inputs, statistics: Statistics, now: float,
    *, ended: Sequence[dict[str, Any]], why_left: str,
) -> dict[str, Any]:  # fmt: skip
    """What was done in this life, and what is left and why.

    ended: lists that were done in this life, each as its `list_status`, whose results are those of all lives.
    why_left: said of entries that nothing else kept from being moved.
    """
    left = inputs.left()
    return {
        "results": results(statistics),
        "bytes": {str(state): size for state, size in statistics.bytes.items()},
        "files": statistics.files,
        "moved_bytes": statistics.moved_bytes,
        "retries": statistics.retries,
        "speed": speeds(statistics, now)["overall"],
        "reason": mind.tripped,
        "left": left.total(),
        "sources": {
            str(source): {
                "left": count,
                "reason": str(mind.obstacle(source, Role.SOURCE) or why_left),
            }
            for source, count in sorted(left.items())
        },
        "lists": [*ended, *(list_status(each) for each in inputs.lists.values())],
        "untaken": untaken(inputs),
    }
