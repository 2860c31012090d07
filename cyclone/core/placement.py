"""Who gets what next.

A controller reports how much room it has, and the scheduler takes from that what it places there. Tasks that
are known to be short travel in bundles that share the room of one attempt, because a worker executes them one
after the other; as much again may be sent ahead, so that no worker waits for the network. Whoever works
fastest has room soonest, and so gets the most.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import ceil

from cyclone.core.decision import Decision
from cyclone.core.live import WORKER, Bundle, Controller, Task, move
from cyclone.core.pace import Pace
from cyclone.core.ready_queue import Lane, ReadyQueue
from cyclone.messages import Assignment, Drop, Place
from cyclone.model.changes import TasksPlaced
from cyclone.model.lifecycle import Event
from cyclone.model.resources import UNIT, Shape
from cyclone.model.task import Policy, TaskNumber, first_token

#: A bundle is as much work as keeps a worker busy for so long, so that the cost of a message is small.
BUNDLE_S = 0.05
BUNDLE_MOST = 2000
#: Everybody shall have a share of what is ready, but not one of less work than this: it would cost more than it is.
SHARE_S = 0.002
#: Tasks of kinds that take longer than this on average are not sent ahead of free room.
AHEAD_S = 1.0
#: So long may other shapes overtake a task that fits nowhere; then room is kept for it.
PATIENCE_S = 1.0
#: How often to look whether work that waits behind other work could be done by somebody who is idle.
CALL_BACK_S = 0.05
#: A letter that calls back may get lost.
CALL_BACK_AGAIN_S = 1.0


class Placement:
    """Owns the tasks that are ready, the tokens, and what is known of how long tasks take."""

    def __init__(self, epoch: int) -> None:
        self.ready = ReadyQueue()
        self.pace = Pace()
        self._next_token = first_token(epoch) + 1
        self._roomy: dict[Controller, None] = {}  # those that may have room: nobody else is looked at
        self._workers = 0  # of all controllers
        self.reservation: tuple[Lane, Controller] | None = None  # where room is kept, and for which shape
        self._call_back_at = 0.0

    # Who has room.

    def resized(self, controllers: Collection[Controller]) -> None:
        """Controllers came, went, or reported another size: called once a turn, however many they were."""
        takers = [controller for controller in controllers if controller.takes_tasks]
        self._workers = sum(taker.room.capacity.get(WORKER, 0) for taker in takers) // UNIT
        self._roomy.update(dict.fromkeys(takers))

    def gone(self, controller: Controller) -> None:
        """It will never have room again. `resized` is to be called before anything else is placed."""
        self._roomy.pop(controller, None)
        if self.reservation is not None and self.reservation[1] is controller:
            self.reservation = None

    def over(self, bundle: Bundle) -> None:
        """All its attempts are over."""
        bundle.controller.give_back(bundle)
        self._roomy[bundle.controller] = None

    # Placing.

    def place(self, now: float, decision: Decision) -> None:
        """Place what is ready where there is room."""
        if not len(self.ready) or not self._roomy:
            return
        for controller in [controller for controller in self._roomy if not controller.has_spare_worker]:
            del self._roomy[controller]
        takers = [controller for controller in self._roomy if controller.takes_tasks]
        letters: dict[Controller, _Letter] = {}
        for lane in self.ready.in_turn():
            turn = _Turn(lane, takers, ceil(lane.size / max(1, self._workers)), now, decision, letters)
            placed = self._fill(turn, ahead=False) + self._fill(turn, ahead=True)
            self._mind_the_passed_over(turn, placed)
        for controller, letter in letters.items():
            assert controller.report_at is not None
            place = Place(controller.report_at, letter.policies, letter.assignments)
            # After a power cut the master knows nothing of an attempt that it had not on disk: its controller is told
            # to drop it, and the task is executed once more, perhaps at the same time.
            binding = any(policy.exclusive for policy in letter.policies)
            decision.say(controller.peer, place, letter.numbers, binding=binding)

    def _fill(self, turn: _Turn, *, ahead: bool) -> int:
        """Deal out bundles, one to each controller a round, the least busy first. Returns how many."""
        lane = turn.lane
        head = lane.head()
        if head is None or (ahead and not self._may_go_ahead(head)):
            return 0
        fitting = [
            taker
            for taker in turn.takers
            if taker.room_for(ahead).fits(lane.shape) and not self.is_kept_from(lane.shape, taker)
        ]
        fitting.sort(key=lambda controller: -controller.room.free.get(WORKER, 0))
        placed = 0
        while fitting:
            again = []
            for controller in fitting:
                head = lane.head()
                if head is None or (ahead and not self._may_go_ahead(head)):
                    return placed
                self._place_bundle(turn, head, controller, ahead=ahead)
                placed += 1
                if controller.room_for(ahead).fits(lane.shape):
                    again.append(controller)
            fitting = again
        return placed

    def _may_go_ahead(self, task: Task) -> bool:
        mean_s = self.pace.mean_s(task.policy.kind)
        return mean_s is not None and mean_s <= AHEAD_S and not task.policy.exclusive and not task.is_suspect

    def _place_bundle(self, turn: _Turn, head: Task, controller: Controller, *, ahead: bool) -> None:
        """Place the head of the lane, and as many of the same policy behind it as make up a bundle."""
        policy, lane, now = head.policy, turn.lane, turn.now
        alone = head.is_suspect
        most = 1 if alone or policy.exclusive else self._bundle_size(policy.kind, turn.share)
        tasks = lane.take(most, alone=alone)
        first = token = self._next_token
        self._next_token += len(tasks)
        bundle = Bundle(first, controller, lane.shape, len(tasks), len(tasks), now, now, ahead)
        letter = turn.letters.get(controller)
        if letter is None:
            letter = turn.letters[controller] = _Letter()
        index = letter.index_of(policy)
        held, assignments = controller.held, letter.assignments
        for task in tasks:
            move(task, Event.PLACED)
            task.token, task.bundle = token, bundle
            held[token] = task
            history = task.history
            attempt = 1 if history is None else history.attempts + 1
            assignments.append(
                Assignment(token, task.tid, task.job.name, attempt, index, alone, task.job.key)
            )
            token += 1
        numbers = [task.number for task in tasks]
        letter.numbers += numbers
        controller.take(bundle)
        turn.decision.remember(TasksPlaced(first, controller.peer, tuple(numbers)))

    def _bundle_size(self, kind: str, share: int) -> int:
        least = self.pace.bundle_size(kind, SHARE_S, BUNDLE_MOST)
        return self.pace.bundle_size(kind, BUNDLE_S, min(max(share, least), BUNDLE_MOST))

    # A large task is not starved by small ones.

    def _mind_the_passed_over(self, turn: _Turn, placed: int) -> None:
        """A shape that has been waiting for room for long gets a controller kept free of others for it."""
        lane, now, reserved = turn.lane, turn.now, self.reservation
        if placed or lane.size == 0:
            lane.passed_over_since = None
            if reserved is not None and reserved[0] is lane:
                self.reservation = None
            return
        if lane.passed_over_since is None:
            lane.passed_over_since = now
        if reserved is not None and reserved[0].size and reserved[1].takes_tasks:
            return
        self.reservation = None
        if now - lane.passed_over_since < PATIENCE_S:
            return
        able = [taker for taker in turn.takers if taker.room.could_fit(lane.shape)]
        if able:
            freest = max(able, key=lambda taker: (_readiness(taker, lane), taker.peer.name))
            self.reservation = (lane, freest)

    def is_kept_from(self, shape: Shape, controller: Controller) -> bool:
        """Is room there kept for another shape that needs some of the same?"""
        if self.reservation is None:
            return False
        lane, reserved = self.reservation
        if reserved is not controller or lane.shape == shape:
            return False
        kept = dict(lane.shape)
        free = controller.room.free
        return any(free.get(name, 0) - kept.get(name, 0) < units for name, units in shape)

    # Work does not wait at one place while another is idle.

    def call_back(self, controllers: Collection[Controller], now: float, decision: Decision) -> None:
        """If somebody is idle, take back what waits, unstarted, behind other work.

        Called after `place`: what is ready then fits nowhere, and must not keep from anybody what would fit.
        """
        if now < self._call_back_at:
            return
        self._call_back_at = now + CALL_BACK_S
        present = [controller for controller in controllers if controller.is_present]
        idle = [each for each in present if each.takes_tasks and each.room.free.get(WORKER, 0) > 0]
        workers = sum(taker.room.free[WORKER] for taker in idle) // UNIT
        wanted: dict[Shape, bool] = {}  # could one of the idle take it?
        for controller in present if idle else ():
            if controller.room.free.get(WORKER, 0) > 0:
                continue  # whatever waits there is about to begin
            for bundle in reversed(controller.bundles):
                if workers <= 0:
                    return
                if not _may_be_called_back(bundle, now):
                    continue
                shape = bundle.shape
                if shape not in wanted:
                    wanted[shape] = any(
                        taker.room.fits(shape) and not self.is_kept_from(shape, taker) for taker in idle
                    )
                if wanted[shape] and _call_back(bundle, now, decision):
                    workers -= 1

    def call_back_all(self, controller: Controller, now: float, decision: Decision) -> None:
        """Take back whatever waits there, unstarted."""
        for bundle in controller.bundles:
            _call_back(bundle, now, decision)


@dataclass(slots=True)
class _Turn:
    """It is the turn of this lane. share: no bundle holds more of it; letters: what was placed so far, for whom."""

    lane: Lane
    takers: list[Controller]
    share: int
    now: float
    decision: Decision
    letters: dict[Controller, _Letter]


class _Letter:
    """A `Place` that is being filled. numbers: of the tasks, for their payloads."""

    __slots__ = ("_indexes", "assignments", "numbers", "policies")

    def __init__(self) -> None:
        self.policies: list[Policy] = []
        self.assignments: list[Assignment] = []
        self.numbers: list[TaskNumber] = []
        self._indexes: dict[int, int] = {}

    def index_of(self, policy: Policy) -> int:
        index = self._indexes.get(id(policy))
        if index is None:
            index = self._indexes[id(policy)] = len(self.policies)
            self.policies.append(policy)
        return index


def _may_be_called_back(bundle: Bundle, now: float) -> bool:
    """It waits for longer than it should, and was not called back just now."""
    waits = bundle.ahead or bundle.open > 1
    return (
        waits and now - bundle.placed_at > 2 * BUNDLE_S and now - bundle.called_back_at >= CALL_BACK_AGAIN_S
    )


def _call_back(bundle: Bundle, now: float, decision: Decision) -> bool:
    """Returns whether anything of it is to be taken back."""
    tokens = bundle.unstarted
    if tokens:
        bundle.called_back_at = now
        decision.say(bundle.controller.peer, Drop(tokens, unless_started=True))
    return bool(tokens)


def _readiness(controller: Controller, lane: Lane) -> float:
    """How much of what the lane's tasks need is free there, from 0 to 1, by the scarcest resource."""
    free = controller.room.free
    return min(min(1.0, max(0, free.get(name, 0)) / units) for name, units in lane.shape)
