"""What is told of a drill in the end: fault by fault, how often, what was lost, how long it took to recover."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cyclone.drill.checker import Kind, Violation
from cyclone.drill.notes import AnyNote, Began, Ended, Told, tids
from cyclone.drill.plan import NODES, Stroke


@dataclass(frozen=True)
class Struck:
    """A fault that has befallen somebody. began_at, over_at: on the boot-time clock, in seconds.

    what: what was done, in a few words. happened: whether it had any effect: a relay may have found nothing to lose.
    """

    stroke: Stroke
    began_at: float
    over_at: float
    what: str = ""
    happened: bool = True


@dataclass(frozen=True)
class Made:
    """What came of one fault. tasks: that were under way meanwhile; recovery_s: see `recovery_s`."""

    struck: Struck
    tasks: int = 0
    lost: int = 0
    doubled: int = 0
    recovery_s: float | None = None


@dataclass(frozen=True)
class RunReport:
    """What became of one run. told: tasks of whose end the generator heard; lasted_s: from the first daemon to the last check.

    Without its notes: a drill may last for a week.
    """

    seed: int
    made: Sequence[Made]
    told: int
    violations: Sequence[Violation]
    has_ended: bool
    lasted_s: float


@dataclass
class Line:
    """One kind of fault over all runs. tasks: that were under way meanwhile, each counted once a fault."""

    tried: int = 0
    without_effect: int = 0
    tasks: int = 0
    lost: int = 0
    doubled: int = 0
    recovery_s: list[float] = field(default_factory=list)


def recovery_s(struck: Struck, notes: Sequence[AnyNote]) -> float | None:
    """How long after the fault was over the next task had ended that began after it.

    Of a node: that began there. Of anybody else: of whose end the generator was told, so that the whole way is open.
    None if there was none.
    """
    over_at, victim = struck.over_at, struck.stroke.victim
    began = [note for note in notes if isinstance(note, Began) and note.at >= over_at]
    if victim in NODES:
        tokens = {note.token for note in began if note.node == victim}
        ends = [note.at for note in notes if isinstance(note, Ended) and note.token in tokens]
    else:
        fresh = tids(began)
        ends = [
            note.at for note in notes if isinstance(note, Told) and note.tid in fresh and note.at >= over_at
        ]
    return min(ends) - over_at if ends else None


def judge(struck: Struck, notes: Sequence[AnyNote], violations: Sequence[Violation]) -> Made:
    """What came of this fault. What was lost is charged to every fault that the task has seen."""
    if not struck.happened:
        return Made(struck)
    recovered_s = recovery_s(struck, notes)
    until = struck.over_at + (recovered_s or 0.0)
    touched = tids(note for note in notes if struck.began_at <= note.at <= until)
    seen = [violation.kind for violation in violations if violation.tid in touched]
    return Made(struck, len(touched), seen.count(Kind.LOST), seen.count(Kind.DOUBLED), recovered_s)


def lines(runs: Sequence[RunReport], faults: Sequence[str]) -> dict[str, Line]:
    """`{fault: line}`."""
    sheet: defaultdict[str, Line] = defaultdict(Line, {name: Line() for name in faults})
    for made in (made for run in runs for made in run.made):
        line = sheet[made.struck.stroke.fault]
        if not made.struck.happened:
            line.without_effect += 1
            continue
        line.tried += 1
        line.tasks += made.tasks
        line.lost += made.lost
        line.doubled += made.doubled
        if made.recovery_s is not None:
            line.recovery_s.append(made.recovery_s)
    return dict(sheet)


def report(
    runs: Sequence[RunReport], faults: Sequence[str], left_out: Mapping[str, str], seed: int
) -> dict[str, Any]:
    """Everything, for programs. faults: those that were asked for; left_out: `{fault: why it cannot be done here}`."""
    sheet = lines(runs, faults)
    violations = [violation for run in runs for violation in run.violations]
    return {
        "seed": seed,
        "passed": bool(runs) and not violations,
        "faults_made": sum(line.tried for line in sheet.values()),
        "tasks": sum(run.told for run in runs),
        "lost": sum(violation.kind is Kind.LOST for violation in violations),
        "doubled": sum(violation.kind is Kind.DOUBLED for violation in violations),
        "wrong": sum(violation.kind is Kind.WRONG for violation in violations),
        "runs": [
            {
                "seed": run.seed,
                "ended": run.has_ended,
                "seconds": round(run.lasted_s, 1),
                "faults": [_told(made) for made in run.made],
                "violations": [str(violation) for violation in run.violations],
            }
            for run in runs
        ],
        "faults": {
            name: {
                "tried": line.tried, "without_effect": line.without_effect, "tasks": line.tasks, "lost": line.lost,
                "doubled": line.doubled, "recovery_s": _recovery(line.recovery_s),
            }
            for name, line in sheet.items()
        },
        "never": [name for name, line in sheet.items() if not line.tried and name not in left_out],
        "left_out": dict(left_out),
    }  # fmt: skip


def _told(made: Made) -> dict[str, Any]:
    struck, stroke = made.struck, made.struck.stroke
    return {
        "fault": stroke.fault, "victim": stroke.victim, "at_s": stroke.at_s, "lasts_s": stroke.lasts_s,
        "what": struck.what, "happened": struck.happened,
        "recovery_s": None if made.recovery_s is None else round(made.recovery_s, 2),
    }  # fmt: skip


def _recovery(seconds: Sequence[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    ordered = sorted(seconds)
    return {"p50": round(ordered[len(ordered) // 2], 2), "max": round(ordered[-1], 2)}
