"""What the scheduler knows of the living: tasks without an end, their jobs, and who holds what."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from math import inf

from cyclone.messages import SpoolView
from cyclone.model.lifecycle import ENDED, LIFECYCLE, Event, JobState, State
from cyclone.model.peer import Peer
from cyclone.model.resources import UNIT, Room, Shape
from cyclone.model.task import Cause, JobNumber, Policy, TaskNumber, Token

#: What each attempt takes besides the resources that its task names.
WORKER = "workers"
#: A task that came back so often without having run, as far as is known, is suspect.
RETURNS_MOST = 5
#: Of a text that was heard so much is told on; text that is quoted may grow tenfold.
TEXT_MOST = 300


class Task:
    """A task that has not ended. Very many of these exist at once, so there is nothing here but slots."""

    __slots__ = ("bundle", "history", "job", "number", "policy", "state", "tid", "token")

    def __init__(self, number: TaskNumber, job: Job, tid: str, policy: Policy, state: State) -> None:
        self.number = number
        self.job = job
        self.tid = tid
        self.policy = policy
        self.state = state
        self.token: Token = 0  # of the newest attempt, 0 before the first
        self.bundle: Bundle | None = None  # in which the newest attempt was placed, while it is held
        self.history: History | None = None  # None as long as no attempt has ended

    @property
    def attempts_over(self) -> int:
        return self.history.attempts if self.history else 0

    @property
    def has_started(self) -> bool:
        """As far as is known, somebody has begun to execute it, or it has ended."""
        if self.state is State.RUNNING or self.state in ENDED:
            return True
        return self.history is not None and any(
            count for cause, count in self.history.billed.items() if cause is not Cause.NOBODY
        )

    @property
    def is_suspect(self) -> bool:
        """A worker or a host died near it: its next attempt runs alone, so that the blame is certain.

        What came back again and again without a word may have been the reason, and had better tell.
        """
        if self.history is None:
            return False
        billed = self.history.billed
        return bool(
            billed[Cause.CRASH]
            or billed[Cause.LOSS]
            or billed[Cause.UNKNOWN]
            or billed[Cause.NOBODY] >= RETURNS_MOST
        )


@dataclass(slots=True)
class History:
    """How earlier attempts at a task ended. rest_until: monotonic seconds, while it is resting."""

    attempts: int = 0
    billed: Counter[Cause] = field(default_factory=Counter)
    rest_until: float = 0.0


@dataclass(slots=True, eq=False)
class Job:
    """Tasks that belong together under a name.

    key: tells it from the jobs of all stores. tasks: the live ones by tid. client: who hears their ends.
    heard_at: when that client was heard last; see `Roster.attended`.
    """

    number: JobNumber
    name: str
    key: int = 0
    tasks: dict[str, Task] = field(default_factory=dict)
    counts: Counter[State] = field(default_factory=Counter)  # of live tasks
    client: Peer | None = None
    heard_at: float = -inf
    serial: int = 0  # of the last `Results` said to the client
    state: JobState = JobState.OPEN
    marred: bool = False  # a task has ended and did not succeed
    remember_s: float | None = (
        None  # for how long after its end a task is remembered; None: as long as it is open
    )


@dataclass(slots=True, eq=False)
class Bundle:
    """Attempts that were placed in one go and share one worker's worth of room on a controller.

    Its tokens are `first … first + size - 1`; open: how many of these attempts are not over.
    ahead: it waits at the controller for others to end.
    renewed_at: when the lease of an exclusive attempt was last agreed on (such a bundle holds one attempt).
    called_back_at: when what is not started of it was last asked back.
    """

    first: Token
    controller: Controller
    shape: Shape
    size: int
    open: int
    placed_at: float
    renewed_at: float
    ahead: bool
    called_back_at: float = -inf

    @property
    def unstarted(self) -> list[Token]:
        """Those of its attempts that are not over and not known to run."""
        held = self.controller.held
        tasks = ((token, held.get(token)) for token in range(self.first, self.first + self.size))
        return [token for token, task in tasks if task is not None and task.state is State.PLACED]


class Controller:
    """A controller in one of its lives, as the master sees it."""

    def __init__(self, peer: Peer, now: float) -> None:
        self.peer = peer
        self.heard_at = now
        self.report_at: float | None = None  # the newest report's own time; None before the first
        self.silent = False
        self.leaving = False
        self.told_to_leave = False
        self.excluded_until: float | None = None  # monotonic seconds; see `exclusion.py`
        self.host, self.pid = "", 0
        self.workers_busy = self.workers_hung = 0
        self.spools: list[SpoolView] = []  # what waits there for sinks
        self.room = Room()
        self.ahead = Room()  # as large again: what waits there, so that no worker waits for the network
        self.held: dict[Token, Task] = {}
        self.bundles: dict[Bundle, None] = {}  # in which these were placed, oldest first
        self.waiting: deque[Bundle] = (
            deque()
        )  # those that are ahead, oldest first; may hold some that are over

    @property
    def is_present(self) -> bool:
        return self.report_at is not None and not (self.silent or self.leaving or self.told_to_leave)

    @property
    def takes_tasks(self) -> bool:
        return self.is_present and self.excluded_until is None

    @property
    def has_spare_worker(self) -> bool:
        return self.room.free.get(WORKER, 0) > 0 or self.ahead.free.get(WORKER, 0) > 0

    def room_for(self, ahead: bool) -> Room:
        return self.ahead if ahead else self.room

    def resize(self, room: Shape) -> bool:
        """Take note of how large it is. Returns whether that was news."""
        if self.room.capacity == dict(room):
            return False
        self.room.resize(room)
        self.ahead.resize(room)
        return True

    def take(self, bundle: Bundle) -> None:
        self.bundles[bundle] = None
        self.room_for(bundle.ahead).take(bundle.shape)
        if bundle.ahead:
            self.waiting.append(bundle)

    def give_back(self, bundle: Bundle) -> None:
        """The bundle is over: its room is free, and those that waited for it move up."""
        del self.bundles[bundle]
        self.room_for(bundle.ahead).give_back(bundle.shape)
        while self.waiting and (self.waiting[0].open == 0 or self.room.fits(self.waiting[0].shape)):
            next_one = self.waiting.popleft()
            if next_one.open:
                self.ahead.give_back(next_one.shape)
                self.room.take(next_one.shape)
                next_one.ahead = False


def move(task: Task, event: Event) -> None:
    """Let the event happen to the task. The only place where the state of a task changes."""
    before = task.state
    task.state = after = LIFECYCLE[before][event]
    counts = task.job.counts
    counts[before] -= 1
    if after not in ENDED:
        counts[after] += 1


def with_worker(shape: Shape) -> Shape:
    """What an attempt takes at a controller: the resources of its task and one worker."""
    return tuple(sorted((*shape, (WORKER, UNIT))))
