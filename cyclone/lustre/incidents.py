"""Which faults of OSTs people are told of, and when.

An *incident* is a fault in one phase of looking at one OST; it lasts from the first look that found it to the first
that found this phase in order. The rules:

* Of an incident people are told once when it begins, again when it gets worse (what is slow fails, what did not answer
  in time is down) and after each `repeat_s` while it lasts, and once when it is over, if they were told of it at all.
* Of the first `digest_most` incidents in a round each is told of by itself, at once. What comes beyond waits for a
  digest, which names all incidents of the round that stood in none: a server that fails takes many OSTs with it. The
  same goes for what is over.
* A task may have told of a fault while it lasted; that counts as told. If it does not know whether it has, it is told
  of with the same key.

This mind lives in one place, the generator: tasks run on many nodes and know nothing of each other. Its incidents
outlive it, so `now` is Unix time in seconds. A notice counts as told when it is returned: whoever gets it remembers it
together with the incidents, tells it, and then forgets it, so that the next life tells what this one may not have told,
with the same key. What waited for a digest is told as the next life finds it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from cyclone.lustre.ost_task import Fault, OstState


@dataclass(frozen=True)
class Incident:
    """since: when it was first found.

    told_at: when people were last told of it; 0 if they were not yet. told_state: what they were told then.
    """

    ost: int
    phase: str
    state: str
    text: str
    since: float
    told_at: float = 0.0
    told_state: str = ""


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

#: How bad a state is, "" if people were told of none; what does not stand here is worse than all.
_GRAVITY = {"": 0, OstState.SLOW.value: 1, OstState.TIMEOUT.value: 2}
_GRAVEST = 3


class Incidents:
    """Owns every incident that is not over."""

    def __init__(self, remembered: Iterable[Incident] = (), *, repeat_s: float, digest_most: int) -> None:
        """remembered: of a former life. repeat_s: 0 is never."""
        self._repeat_s, self._digest_most = repeat_s, digest_most
        self._open: dict[int, dict[str, Incident]] = {}
        for each in remembered:
            self._keep(each)
        # Over, and waits for a digest.
        self._over: dict[_Key, Incident] = {}
        # Of this round: what was told and is not over, what waits for a digest, and how many notices there were.
        self._listed: set[_Key] = set()
        self._untold: set[_Key] = set()
        self._notices: Counter[str] = Counter()

    def open(self) -> list[Incident]:
        """Those that are not over, by OST."""
        return [self._open[ost][phase] for ost in sorted(self._open) for phase in sorted(self._open[ost])]

    def unsettled(self) -> list[Incident]:
        """What the next life has to remember: those that are not over, and those of whose end nobody was told."""
        return [*self._over.values(), *self.open()]

    def quiet(self, ost: int, now: float) -> tuple[str, ...]:
        """The phases of which a task need not tell by itself: people know, and it is not yet time to repeat it."""
        incidents = self._open.get(ost, {})
        return tuple(phase for phase in sorted(incidents) if not self._is_due(incidents[phase], now))

    def hear(self, ost: int, faults: Sequence[Fault], fine: Sequence[str], now: float) -> list[Notice]:
        """A look at an OST found these faults, and these phases in order. Returns what to tell at once."""
        notices = []
        for fault in _worth_hearing(faults):
            notices += self._on_fault(ost, fault, now)
        for phase in fine:
            notices += self._on_fine(ost, phase)
        return notices

    def begin_round(self) -> None:
        """So many incidents may be told of by themselves once more. What still waits for a digest goes on waiting."""
        self._listed, self._notices = set(), Counter()

    def digest(self, now: float) -> list[Notice]:
        """What waits until there is no more to come for now. Returns what to tell."""
        notices = []
        if self._untold:
            named = [self._open[ost][phase] for ost, phase in sorted(self._listed | self._untold)]
            notices.append(_notice("fault", named))
            for each in named:
                self._mark(each, max(each.told_state, each.state, key=_gravity), now)
        if self._over:
            notices.append(_notice("recovery", list(self._over.values())))
        self._listed, self._untold, self._over = set(), set(), {}
        return notices

    def forget(self, ost: int) -> None:
        """Nobody expects this OST any more."""
        for phase in self._open.pop(ost, {}):
            self._listed.discard((ost, phase))
            self._untold.discard((ost, phase))
        for key in [key for key in self._over if key[0] == ost]:
            del self._over[key]

    def _on_fault(self, ost: int, fault: Fault, now: float) -> list[Notice]:
        key = (ost, fault.phase)
        # If nobody was told yet that it was over, it goes on.
        known = self._known(key) or self._over.pop(key, None)
        incident = Incident(ost, fault.phase, fault.state.value, fault.text, now)
        if known is not None:
            incident = replace(
                incident, since=known.since, told_at=known.told_at, told_state=known.told_state
            )
        self._keep(incident)
        notices = []
        if fault.mailed:
            self._notices["fault"] += 1
            # A task does not know what else people were told of it: what was worse is no news when it comes back.
            self._mark(incident, max(incident.told_state, incident.state, key=_gravity), now)
        elif not self._is_due(incident, now) and _gravity(incident.state) <= _gravity(incident.told_state):
            return []
        elif self._may_tell("fault"):
            notices.append(_notice("fault", [incident], fault.mail_key))
            self._mark(incident, incident.state, now)
        else:
            self._untold.add(key)
            return []
        self._listed.add(key)
        return notices

    def _on_fine(self, ost: int, phase: str) -> list[Notice]:
        key = (ost, phase)
        incident = self._known(key)
        if incident is None:
            return []
        del self._open[ost][phase]
        self._listed.discard(key)
        self._untold.discard(key)
        if not incident.told_at:
            return []
        if self._may_tell("recovery"):
            return [_notice("recovery", [incident])]
        self._over[key] = incident
        return []

    def _may_tell(self, about: str) -> bool:
        """Whether there may be one more notice by itself in this round; if so, it is counted."""
        if self._notices[about] >= self._digest_most:
            return False
        self._notices[about] += 1
        return True

    def _mark(self, incident: Incident, state: str, now: float) -> None:
        """People know of it, as being in this state."""
        self._keep(replace(incident, told_at=now, told_state=state))
        self._untold.discard((incident.ost, incident.phase))

    def _known(self, key: _Key) -> Incident | None:
        return self._open.get(key[0], {}).get(key[1])

    def _keep(self, incident: Incident) -> None:
        self._open.setdefault(incident.ost, {})[incident.phase] = incident

    def _is_due(self, incident: Incident, now: float) -> bool:
        """Is it time to tell of it, for the first time or again?"""
        return not incident.told_at or (bool(self._repeat_s) and now - incident.told_at >= self._repeat_s)


def _worth_hearing(faults: Sequence[Fault]) -> list[Fault]:
    """The worst fault of each phase, and before it what people were mailed of already."""
    worst: dict[str, Fault] = {}
    for fault in faults:
        known = worst.get(fault.phase)
        if known is None or _gravity(fault.state) > _gravity(known.state):
            worst[fault.phase] = fault
    by_gravity = sorted(faults, key=lambda fault: _gravity(fault.state))
    return [fault for fault in by_gravity if fault.mailed or fault is worst[fault.phase]]


def _gravity(state: str) -> int:
    return _GRAVITY.get(state, _GRAVEST)


def _notice(about: Literal["fault", "recovery"], incidents: Sequence[Incident], key: str = "") -> Notice:
    """key: of a mail about the same that a task may have sent."""
    # Told once for each time that it was due: after a restart the same moment comes to the same key.
    moments = (f"{each.ost}/{each.phase}/{each.since}/{each.told_at}" for each in incidents)
    return Notice(about, tuple(incidents), key or f"{about}/{' '.join(moments)}")
