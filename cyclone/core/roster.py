"""Who is there, in which of its lives, and how long what it holds is its own.

A controller is there while it is heard at least once a lease. One that was started again is another peer, and what
its former life held is over. An exclusive attempt belongs to its controller for longer than anything else: until
the controller, by its own clock, must have killed it.

This file answers and never acts: what becomes of the tasks of a controller that is not there is not its affair.
"""

from __future__ import annotations

from typing import NamedTuple

from cyclone.core.live import Bundle, Controller, Task
from cyclone.messages import Leave, Refused
from cyclone.model.peer import Peer

#: The master waits this much longer than the lease before it gives an exclusive attempt to somebody else:
#: clocks may run at rates that differ by 1 %, and the killing takes a moment.
LEASE_MARGIN = 0.1
LEASE_MARGIN_S = 1.0
#: A silence of so many leases is final.
LEASES_MOST = 100
#: As many as a door has routes to. Each is told of for LEASES_MOST leases after its last word.
CONTROLLERS_MOST = 10_000
#: So many lives that are over are remembered, so that two controllers that share a name by mistake are told.
FORMER_LIVES = 10_000


class Admission(NamedTuple):
    """The controller that reports, or why it is none; and its former life that is over with this, if there was one."""

    controller: Controller | None = None
    replaced: Controller | None = None
    refusal: Leave | Refused | None = None


class Silence(NamedTuple):
    """A controller that is not heard, and for how long.

    is_news: it was not known before. is_final: so long that it may be forgotten when it holds nothing.
    """

    controller: Controller
    seconds: float
    is_news: bool
    is_final: bool


class Roster:
    """Owns the controllers, each in its newest life, and the lives that are over.

    controllers: by name. lease_s: seconds, at least half a second.
    """

    def __init__(self, controllers: dict[str, Controller], now: float, lease_s: float) -> None:
        self.controllers = controllers
        self.lease_s = max(lease_s, 0.5)
        self._former_lives: dict[Peer, None] = {}  # the oldest first
        self._look_for_silence_at = now
        self._looked_at = now
        self._absent_s = 0.0  # in all

    # Who comes and goes.

    def hear(self, peer: Peer, now: float) -> None:
        """Somebody has spoken, who may be a controller in its present life."""
        controller = self.controllers.get(peer.name)
        if controller is not None and controller.peer == peer:
            controller.heard_at = now
            controller.silent = False

    def admit(self, peer: Peer, now: float) -> Admission:
        """Somebody reports. The caller has to give up what a replaced life held, and to say a refusal."""
        known = self.controllers.get(peer.name)
        if known is not None and known.peer == peer:
            return Admission(known)
        if peer in self._former_lives:
            why = f"another controller took over the name {peer.name!r}: give each its own [control] name"
            return Admission(refusal=Leave(why, now=True))
        if known is not None:
            # What a former life said may be overtaken by what the next one says, and this master may have been started
            # in between and know the next one from its store alone.
            if not peer.is_later_than(known.peer) and not known.silent:
                return Admission(refusal=Refused(f"a later life of {peer.name!r} is here already"))
            self.retire(known)
        elif len(self.controllers) >= CONTROLLERS_MOST:
            return Admission(refusal=Refused(f"{CONTROLLERS_MOST} controllers are here already"))
        fresh = self.controllers[peer.name] = Controller(peer, now)
        return Admission(fresh, known)

    def retire(self, controller: Controller) -> None:
        """This life of it is over."""
        self.forget(controller)
        if len(self._former_lives) >= FORMER_LIVES:
            del self._former_lives[next(iter(self._former_lives))]
        self._former_lives[controller.peer] = None

    def forget(self, controller: Controller) -> None:
        """Nothing is known of it any more; it may come back in the same life."""
        del self.controllers[controller.peer.name]

    # Who is silent.

    @property
    def next_moment(self) -> float:
        """When to look for silence, monotonic seconds."""
        return self._look_for_silence_at

    def excuse_own_absence(self, now: float) -> None:
        """While this daemon was stopped, or stuck on its disk, it could not hear: that was nobody's silence."""
        absent_s, self._looked_at = now - self._looked_at, now
        if absent_s > self.lease_s / 5:  # it wakes up twice as often, to look for silence
            self._absent_s += absent_s
            for controller in self.controllers.values():
                controller.heard_at = min(now, controller.heard_at + absent_s)

    def attended(self, now: float) -> float:
        """The moment on a clock that stands still while this daemon is absent."""
        return now - self._absent_s

    def silent(self, now: float) -> list[Silence]:
        """Those that were not heard for a lease; none between two looks."""
        if now < self._look_for_silence_at:
            return []
        self._look_for_silence_at = now + self.lease_s / 10
        found = []
        for controller in self.controllers.values():
            silent_s = now - controller.heard_at
            if silent_s >= self.lease_s:
                is_final = silent_s >= LEASES_MOST * self.lease_s
                found.append(Silence(controller, silent_s, not controller.silent, is_final))
                controller.silent = True
        return found

    @property
    def is_deserted(self) -> bool:
        """No controller is left that could still have something to say."""
        return all(controller.silent for controller in self.controllers.values())

    # Whose an attempt is.

    def may_be_given_away(self, task: Task, now: float) -> bool:
        """May somebody else have what a silent controller holds? An exclusive attempt may still be running there."""
        assert task.bundle is not None
        return not task.policy.exclusive or now >= self.lease_end(task.bundle)

    def lease_end(self, bundle: Bundle) -> float:
        """When an exclusive attempt is given to somebody else, monotonic seconds."""
        return bundle.renewed_at + self.lease_s * (1 + LEASE_MARGIN) + LEASE_MARGIN_S
