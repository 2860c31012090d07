"""Which faults of OSTs people are told of, and when.

An *incident* is a fault in one phase of looking at one OST; it lasts from the first look that found it to the first
that found this phase in order. The rules:

* Of an incident people are told once when it begins, again after each `repeat_s` while it lasts, and once when it is
  over, if they were told of it at all.
* Of the first `digest_most` incidents in a round each is told of by itself, at once. What comes beyond waits for the
  end of the round and is told of in one digest, which names all incidents of the round: a server that fails takes
  many OSTs with it. The same goes for what is over.
* A task may have told of a fault while it lasted; that counts as told.

This mind lives in one place, the generator: tasks run on many nodes and know nothing of each other. Its incidents
outlive it, so `now` is Unix time in seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from cyclone.lustre.ost_task import Fault, OstState


@dataclass(frozen=True)
class Incident:
    """since: when it was first found. told_at: when people were last told of it; 0 if they were not yet."""

    ost: int
    phase: str
    state: str
    text: str
    since: float
    told_at: float = 0.0


@dataclass(frozen=True)
class Notice:
    """What is to be told in one mail. key: of two notices with the same key one is enough."""

    about: Literal["fault", "recovery"]
    incidents: tuple[Incident, ...]
    key: str

    @property
    def is_digest(self) -> bool:
        return len(self.incidents) > 1


_Key = tuple[int, str]


class Incidents:
    """Owns every incident that is not over."""

    def __init__(self, remembered: Iterable[Incident] = (), *, repeat_s: float, digest_most: int) -> None:
        """remembered: of a former life. repeat_s: 0 is never."""
        self._repeat_s, self._digest_most = repeat_s, digest_most
        self._open: dict[_Key, Incident] = {(each.ost, each.phase): each for each in remembered}
        # Of this round.
        self._told: dict[_Key, Incident] = {}
        self._untold: set[_Key] = set()
        self._over: list[Incident] = []
        self._told_over = 0

    def open(self) -> list[Incident]:
        """Those that are not over, by OST."""
        return sorted(self._open.values(), key=lambda each: (each.ost, each.phase))

    def quiet(self, ost: int, now: float) -> tuple[str, ...]:
        """The phases of which a task need not tell by itself: people know, and it is not yet time to repeat it."""
        return tuple(
            incident.phase
            for incident in self.open()
            if incident.ost == ost and incident.told_at and not self._is_due(incident, now)
        )

    def hear(self, ost: int, faults: Sequence[Fault], fine: Sequence[str], now: float) -> list[Notice]:
        """A look at an OST found these faults, and these phases in order. Returns what to tell at once."""
        notices = []
        for fault in _by_phase(faults):
            notices += self._on_fault(ost, fault, now)
        for phase in fine:
            notices += self._on_fine(ost, phase, now)
        return notices

    def end_round(self, now: float) -> list[Notice]:
        """The round is over: returns what is still to be told of it."""
        notices = []
        held = [self._open[key] for key in sorted(self._untold) if key in self._open]
        if held:
            listed = {**self._told, **{(each.ost, each.phase): each for each in held}}
            for each in held:
                self._open[each.ost, each.phase] = replace(each, told_at=now)
            notices.append(_notice("fault", [listed[key] for key in sorted(listed)], now))
        if self._over:
            notices.append(_notice("recovery", self._over, now))
        self._told, self._untold, self._over, self._told_over = {}, set(), [], 0
        return notices

    def forget(self, ost: int) -> None:
        """Nobody expects this OST any more."""
        for key in [key for key in self._open if key[0] == ost]:
            del self._open[key]
            self._told.pop(key, None)
            self._untold.discard(key)

    def _on_fault(self, ost: int, fault: Fault, now: float) -> list[Notice]:
        key = (ost, fault.phase)
        known = self._open.get(key)
        incident = Incident(ost, fault.phase, fault.state.value, fault.text, now)
        if known is not None:
            incident = replace(incident, since=known.since, told_at=known.told_at)
        notices = []
        if fault.mailed:
            incident = self._told[key] = replace(incident, told_at=now)
        elif not incident.told_at or self._is_due(incident, now):
            if len(self._told) < self._digest_most:
                notices.append(_notice("fault", [incident], now))
                incident = self._told[key] = replace(incident, told_at=now)
            else:
                self._untold.add(key)
        self._open[key] = incident
        return notices

    def _on_fine(self, ost: int, phase: str, now: float) -> list[Notice]:
        incident = self._open.pop((ost, phase), None)
        self._told.pop((ost, phase), None)
        self._untold.discard((ost, phase))
        if incident is None or not incident.told_at:
            return []
        if self._told_over < self._digest_most:
            self._told_over += 1
            return [_notice("recovery", [incident], now)]
        self._over.append(incident)
        return []

    def _is_due(self, incident: Incident, now: float) -> bool:
        return bool(self._repeat_s) and now - incident.told_at >= self._repeat_s


def _by_phase(faults: Sequence[Fault]) -> list[Fault]:
    """One fault for each phase: what is worse than slowness counts, and whether people were told of either."""
    found: dict[str, Fault] = {}
    for fault in faults:
        known = found.get(fault.phase)
        if known is None:
            found[fault.phase] = fault
        else:
            worse = fault if known.state is OstState.SLOW else known
            found[fault.phase] = replace(worse, mailed=fault.mailed or known.mailed)
    return list(found.values())


def _notice(about: Literal["fault", "recovery"], incidents: Sequence[Incident], now: float) -> Notice:
    if len(incidents) == 1:
        (one,) = incidents
        # Told once for each time that it was due: after a restart the same moment comes to the same key.
        key = f"{about}/{one.ost}/{one.phase}/{one.since}/{one.told_at}"
    else:
        key = f"{about}/digest/{now}"
    return Notice(about, tuple(incidents), key)
