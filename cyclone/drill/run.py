"""One run: a cluster is started, the plan befalls it, it is left in peace, it has to come to its end, it is judged."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cyclone.clock import monotonic
from cyclone.drill import clock, database, faults
from cyclone.drill.checker import Evidence, Kind, Violation, any_end, check
from cyclone.drill.clerk import Clerk
from cyclone.drill.notes import AnyNote, Given, Told
from cyclone.drill.plan import EVERYBODY, GENERATOR, NEED_DISKS, Stroke, draw, same_victim
from cyclone.drill.sheet import RunReport, Struck, judge
from cyclone.drill.site import Site
from cyclone.drill.witness import VARIABLE, Witness, now
from cyclone.errors import CycloneError
from cyclone.private_cluster import PrivateCluster, Sections

#: Work goes on for so long after the last fault, so that it is seen how the cluster recovers.
_AFTER_S = 1.5
#: So long a cluster that is left in peace may take to end, with a few hundred tasks in it.
_END_S = 60.0
#: Those who were cut off are back by then: they try again every second.
_BACK_S = 4.0
#: The kernel may take a moment to bury what was killed.
_GONE_S = 2.0
_TICK_S = 0.02


@dataclass(frozen=True)
class Orders:
    """What a run is to be like.

    length_s: of the time in which faults are made. kinds: modules with kinds of records besides our own.
    has_disks: see `disk`. has_gateway: a Pushgateway client can be started.
    """

    seed: int
    length_s: float
    faults: Collection[str]
    generator: Sections
    kinds: Sequence[str]
    has_disks: bool
    has_gateway: bool
    keep: bool
    tell: Callable[[str], None]
    show: Callable[[str], None]


def run(orders: Orders) -> RunReport:
    """Raises CycloneError when the cluster cannot even be started."""
    began = monotonic()
    with PrivateCluster(orders.tell, name="drill", keep=orders.keep) as cluster:
        witness = Witness(cluster.directory)
        cluster.environment.update(_environment(witness))
        site = Site(
            cluster,
            witness,
            orders.generator,
            orders.seed,
            orders.kinds,
            orders.has_disks,
            orders.has_gateway,
        )
        site.begin()
        drill = _Drill(site, draw(orders.seed, orders.length_s, orders.faults), orders)
        has_ended = drill.go()
        troubles = site.died + (site.end(_END_S) if has_ended else [])
        notes = _notes(witness)
        if has_ended:
            stored, counted = site.stored(notes)
            evidence = Evidence(
                notes,
                stored,
                counted,
                database.rows(site.records),
                site.shown(),
                site.client_began_at,
                _left(site),
                misplaced=database.rows_of_others(site.records),
                findings=site.audited(),
                expected=expected_of_ours if site.is_ours else any_end,
                died=troubles,
            )
        else:
            evidence = Evidence(notes, [], 0, None, has_ended=False, died=troubles)
        violations = [*check(evidence), *drill.broken]
        if has_ended and site.is_ours:
            violations += in_vain(notes, was_calm=witness.calm_at is not None)
        if violations:
            cluster.keep()
    made = [judge(struck, notes, violations) for struck in drill.struck]
    told = len({note.tid for note in notes if isinstance(note, Told)})
    return RunReport(orders.seed, made, told, violations, has_ended, monotonic() - began)


def _notes(witness: Witness) -> list[AnyNote]:
    """Raises CycloneError when some could not be written down, so that nobody knows what became of the run."""
    try:
        return witness.notes()
    except msgspec.DecodeError as error:
        raise CycloneError(f"the witness of the drill could not write down everything: {error}") from error


def in_vain(notes: Sequence[AnyNote], *, was_calm: bool) -> list[Violation]:
    """Why a run of our own work proves nothing. was_calm: nobody has ended it before its time."""
    reasons = []
    if not was_calm:
        reasons.append("the master ended while tasks were still to come")
    if not any(isinstance(note, Told) and note.state == "succeeded" for note in notes):
        reasons.append("no task succeeded")
    if not any(isinstance(note, Given) for note in notes):
        reasons.append("nothing of the clerk was accepted")
    return [Violation(Kind.WRONG, "", reason) for reason in reasons]


def expected_of_ours(tid: str) -> str:
    """How each task of our own work has to end."""
    return "quarantined" if tid.startswith("poison-") else "succeeded"


def _environment(witness: Witness) -> dict[str, str]:
    path = [str(Path(clock.__path__[0])), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {VARIABLE: str(witness.directory), "PYTHONPATH": os.pathsep.join(path)}


def _left(site: Site) -> dict[int, str]:
    until = monotonic() + _GONE_S
    while (left := site.left()) and monotonic() < until:
        time.sleep(_TICK_S)
    return left


@dataclass
class _Underway:
    """A fault that is being made. wake_at: when its course goes on, monotonic; began_at: boot time."""

    stroke: Stroke
    course: faults.Course
    began_at: float
    wake_at: float


class _Drill:
    """Owns what befalls the site now, and what has."""

    def __init__(self, site: Site, plan: list[Stroke], orders: Orders) -> None:
        self.struck: list[Struck] = []
        self.broken: list[Violation] = []
        self._site, self._orders = site, orders
        self._ahead = plan
        self._underway: list[_Underway] = []
        self._clerk = Clerk(site.cluster.connect("clerk"), site.witness)

    def go(self) -> bool:
        """Return when the run has come to its end, or has not for too long; whether it has."""
        began = monotonic()
        calm_at = began + self._orders.length_s + _AFTER_S
        end_by: float | None = None
        back_by: float | None = None
        is_over = False
        try:
            while True:
                moment = monotonic()
                self._begin_what_is_due(moment - began)
                self._go_on(moment)
                self._clerk.tick(moment)
                if not is_over and self._site.tend(moment):
                    # With a generator that has no more to do, this may be long before the last fault.
                    is_over = True
                    self._ahead.clear()
                if is_over and not self._underway:
                    return True
                if end_by is None and moment >= calm_at and not (self._underway or self._ahead):
                    end_by = moment + _END_S
                    self._site.witness.calm()
                    back_by = moment + _BACK_S
                if back_by is not None and moment > back_by:
                    # Not at once, or the master could end while somebody has not come back to it with what he holds.
                    self._clerk.calm()
                    back_by = None
                if end_by is not None and moment > end_by:
                    return False
                self._show(end_by)
                time.sleep(_TICK_S)
        finally:
            for underway in self._underway:
                underway.course.close()
            self._clerk.close()

    def _begin_what_is_due(self, moment_s: float) -> None:
        """Whoever still suffers, because a daemon took longer to end than was planned, is spared until that is over."""
        for stroke in self._ahead[:]:
            if stroke.at_s > moment_s:
                return
            if any(same_victim(stroke, underway.stroke) for underway in self._underway):
                continue
            self._ahead.remove(stroke)
            if self._is_possible(stroke):
                course = faults.begin(stroke, self._site)
                self._underway.append(_Underway(stroke, course, now(), 0.0))

    def _is_possible(self, stroke: Stroke) -> bool:
        if stroke.fault in NEED_DISKS:
            return bool(self._site.disks)
        return stroke.victim in (*self._site.daemons, GENERATOR, EVERYBODY)

    def _go_on(self, moment: float) -> None:
        for underway in self._underway[:]:
            if underway.wake_at > moment:
                continue
            try:
                underway.wake_at = moment + next(underway.course)
                continue
            except StopIteration as over:
                self._over(underway, str(over.value), happened=True)
            except faults.NoEffect as reason:
                self._over(underway, str(reason), happened=False)
            except faults.Broken as broken:
                self.broken.append(Violation(Kind.WRONG, "", str(broken)))
                self._over(underway, str(broken), happened=True)
            self._underway.remove(underway)

    def _over(self, underway: _Underway, what: str, *, happened: bool) -> None:
        self.struck.append(Struck(underway.stroke, underway.began_at, now(), what, happened))

    def _show(self, end_by: float | None) -> None:
        now_ = ", ".join(f"{each.stroke.fault} {each.stroke.victim}" for each in self._underway) or "-"
        state = "coming to its end" if end_by is not None else now_
        self._orders.show(f"seed {self._orders.seed}: {len(self.struck)} faults; {state}")
