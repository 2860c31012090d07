"""A whole cluster in one process on simulated time: a storm of faults, then a calm in which all must settle.

The minds are the real ones; network, disks, clocks, processes and the client are played here. Every run is a
function of its seed. Faults: messages lost, doubled (also much later), delayed; links cut in one or both
directions; the master killed before, while and after it remembers, and held up by a slow disk; controllers
killed, stopped and started, frozen, frozen for longer than a lease, gone for good; workers killed while they
work; hosts where they die whatever they execute; the client killed; ends told by somebody else than who made the attempt; tasks cancelled; a resource that
nobody has for a while. A link keeps the order of what it carries, as TCP does.

The simulator keeps its own log of what was executed, and believes nothing that the minds say of themselves.

    python tests/simulation/cluster.py --seeds 1000 [--first 0] [--first-failure] [--traces]
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from signal import SIGKILL, SIGTERM

import msgspec

from cyclone.core import invariants
from cyclone.core.crew import ANNOUNCE_S, LINE, MASTER, REAPER, Crew
from cyclone.core.decision import Decision, Letter
from cyclone.core.scheduler import Scheduler
from cyclone.daemons.put_off import PATIENCE_S, PutOff
from cyclone.messages import (
    NUDGE,
    Accepted,
    Assignment,
    Cancel,
    Close,
    Ended,
    Guard,
    Hire,
    Kill,
    Leave,
    Message,
    Open,
    Opened,
    Place,
    Refused,
    Results,
    Submission,
    Submit,
    TaskEnd,
)
from cyclone.model.changes import TaskAccepted, TaskEnded
from cyclone.model.lifecycle import ENDED, JobState, Outcome, State
from cyclone.model.peer import Peer
from cyclone.model.resources import shape
from cyclone.model.task import End, Policy, Retry
from cyclone.store.memory import MemoryStore
from cyclone.store.promise import StoredTask

STORM_S, CALM_S, TICK_S, LEASE_S = 40.0, 2000.0, 0.2, 5.0
#: Cuts and freezes may go on for three leases after the storm. So long after it, what nobody wants any more
#: must have been stopped.
MENDING_S = 30.0
#: A task that takes so long has a time-out, and never gets that far.
ENDLESS_S = 100.0
#: A task that kills its controllers must have been stopped after so many executions.
DEATHS_MOST = 5
#: How long tasks of a kind take on average, if not a second.
MEAN_S = {"quick": 0.02, "tiny": 0.0002}
#: At this moment a controller is started again with a resource that nobody had before.
RARE_FROM_S = 15.0
#: What goes wrong. Each must have happened at least once in a campaign, or the campaign says nothing.
FAULTS = (
    "message lost",
    "message doubled",
    "slow answer, then a cut",
    "cut",
    "impostor",
    "master killed",
    "master killed before it remembered",
    "master killed before it spoke",
    "master killed after a letter that is not binding",
    "power cut",
    "slow disk",
    "controller killed",
    "controller gone for good",
    "controller stopped",
    "controller left",
    "controller frozen",
    "controller frozen for longer than a lease",
    "worker killed",
    "workers die whatever they execute",
    "excluded",
    "given back",
    "poison",
    "deadly",
    "client killed",
    "cancelled",
)
CLOSING = -1  # the request number of every Close
THE_MASTER = Peer("master", "0")


class Broken(AssertionError):
    """Something that must never happen has happened."""


@dataclass
class Execution:
    """One stretch of time in which a token was being executed. job: its key. ended is None while it goes on.

    on_broken_host: its worker dies of the host, whatever the task is.
    """

    tid: str
    job: int
    token: int
    node: str
    started: float
    on_broken_host: bool
    ended: float | None = None


@dataclass
class WorkerProcess:
    """A simulated worker: executes what it was given, one after the other."""

    pid: int
    assignments: list[Assignment] = field(default_factory=list)
    place: int = -1
    since: float = 0.0
    execution: Execution | None = None
    unsaid: list[End] = field(default_factory=list)
    generation: int = 0
    guarded_until: float | None = None


@dataclass(frozen=True)
class Behaviour:
    """What becomes of a task that is executed.

    fails: so many attempts raise before one succeeds; more than 2 is for ever. poison: kills its worker.
    straggles_s: so much longer its first attempt takes. deadly: kills its controller, before it is announced.
    """

    duration_s: float
    fails: int = 0
    poison: bool = False
    straggles_s: float = 0.0
    deadly: bool = False


@dataclass(frozen=True)
class Spec:
    """A task of the client."""

    policy: Policy
    after: tuple[str, ...]
    behaviour: Behaviour


class Cluster:
    """The world: events by time, links, and the nodes."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.now = 0.0
        self._trace = hashlib.blake2b(digest_size=8)
        self._order = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._arrival: dict[tuple[Peer, Peer], float] = {}
        self.cut_until: dict[tuple[str, str], float] = defaultdict(float)
        self.executions: list[Execution] = []
        self.sometimes: Counter[str] = Counter()  # which fault paths were taken at all
        self.client_lives = 0
        self.cancelled: set[str] = set()

        self.store = MemoryStore(clock=lambda: self.now)
        self.master: MasterNode | None = None
        self.nodes: dict[str, ControllerNode] = {}
        # What is over while the storm goes on has other stories to tell than what is not.
        self.specs = self._make_tasks(self.rng.choice((20, 80, 80)))
        self.client: ClientNode | None = None
        self.start_master()
        for name in ("a", "b", "c", "d")[: self.rng.randint(2, 4)]:
            self.nodes[name] = ControllerNode(self, name)
        self.start_client()
        self._chaos()
        self.at(RARE_FROM_S, self.nodes["a"].restart)
        self.at(STORM_S + MENDING_S, self._watch_what_runs)

    # Time.

    def at(self, delay: float, event: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._events, (self.now + delay, self._order, event))

    @property
    def storming(self) -> bool:
        return self.now < STORM_S

    def chance(self, probability: float) -> bool:
        return self.storming and self.rng.random() < probability

    def run(self) -> None:
        """Until everything has settled. Raises Broken when it does not, or when a rule was broken on the way."""
        while not self.settled():
            if self.now > STORM_S + CALM_S or not self._events:
                raise Broken(f"never settled: {self._state()}")
            moment, order, event = heapq.heappop(self._events)
            self.now = max(self.now, moment)
            self._trace.update(f"{moment:.9f} {order};".encode())
            event()
        self._check_the_end()

    @property
    def trace(self) -> str:
        """A digest of all that has happened: when, in which order, and what was said."""
        return self._trace.hexdigest()

    def settled(self) -> bool:
        return (
            not self.storming
            and self.master is not None
            and self.client is not None
            and self.client.finished
            and self.master.scheduler.is_idle
            and all(
                not node.crew or (not node.crew.held and not node.crew.undelivered)
                for node in self.nodes.values()
            )
        )

    # The network.

    def deliver_to_master(self, sender: Peer, message: Message) -> None:
        # The first Open of a life makes a job; a double of it, after that job was closed, would make another.
        first_open = isinstance(message, Open) and not message.number
        self._note(sender, THE_MASTER, message)
        self._send(sender, THE_MASTER, lambda: self._to_master(sender, message), may_double=not first_open)
        if isinstance(message, Ended) and self.chance(0.01):
            self.sometimes["impostor"] += 1
            impostor = Peer(self.rng.choice([name for name in self.nodes if name != sender.name]), "1")
            self._send(sender, THE_MASTER, lambda: self._to_master(impostor, message))

    def _to_master(self, sender: Peer, message: Message) -> None:
        if self.master is not None:
            self.master.hear(sender, message)

    def deliver_from_master(self, to: Peer, message: Message) -> None:
        self._note(THE_MASTER, to, message)
        client = self.client
        if to.name in self.nodes:
            self._send(THE_MASTER, to, lambda: self.nodes[to.name].hear(to.life, message))
        elif client is not None and client.peer == to:
            self._send(THE_MASTER, to, lambda: client.hear(message))

    def _note(self, sender: Peer, to: Peer, message: Message) -> None:
        self._trace.update(f"{sender}>{to}".encode() + msgspec.msgpack.encode(message))

    def _send(self, sender: Peer, to: Peer, deliver: Callable[[], None], *, may_double: bool = True) -> None:
        if self.chance(0.03) or self.cut_until[sender.name, to.name] > self.now:
            self.sometimes["message lost"] += 1
            return
        link = (sender, to)
        arrival = max(self._arrival.get(link, 0.0), self.now + self.rng.expovariate(50) + 0.001)
        if self.chance(0.02):
            arrival += self.rng.uniform(0, 3)
        self._arrival[link] = arrival
        self.at(arrival - self.now, deliver)
        if may_double and self.chance(0.02):
            self.sometimes["message doubled"] += 1
            self.at(arrival - self.now + self.rng.choice([0.0001, self.rng.uniform(0, 6)]), deliver)

    # Faults.

    def _chaos(self) -> None:
        if not self.storming:
            return
        rng = self.rng
        for name in [*self.nodes, "client"]:
            if self.chance(0.01):
                self._cut(name, rng.uniform(0.5, 3 * LEASE_S))
            if self.chance(0.02) and name != "client":
                self.sometimes["slow answer, then a cut"] += 1
                link = (THE_MASTER, self.nodes[name].peer)
                self._arrival[link] = max(self._arrival.get(link, 0.0), self.now + rng.uniform(2.5, 6))
                self.at(LEASE_S / 3, lambda name=name: self._cut(name, 1.6 * LEASE_S))  # type: ignore[misc]
        if self.chance(0.015):
            self.kill_master()
        if self.chance(0.01) and self.client:
            self.sometimes["client killed"] += 1
            self.client.dead = True
            self.client = None
            self.at(rng.uniform(0, 5), self.start_client)
        for node in list(self.nodes.values()):
            node.chaos()
        self.at(0.25, self._chaos)

    def _cut(self, name: str, seconds: float) -> None:
        """Nothing gets through, in one direction or in both."""
        self.sometimes["cut"] += 1
        there, back = (name, "master"), ("master", name)
        for link in self.rng.choice([(there,), (back,), (there, back)]):
            self.cut_until[link] = self.now + seconds

    def kill_master(self) -> None:
        """Or cut the power of its host."""
        if self.master is not None:
            power_cut = self.chance(0.3)
            self.sometimes["power cut" if power_cut else "master killed"] += 1
            self.master.dead = True
            self.master = None
            self.store = self.store.crashed(power_cut=power_cut)
            self.at(self.rng.choice([0.01, self.rng.uniform(0, 2 * LEASE_S)]), self.start_master)

    def start_master(self) -> None:
        if self.master is None:
            self.master = MasterNode(self)

    def start_client(self) -> None:
        if self.client is None:
            self.client = ClientNode(self)

    def _make_tasks(self, amount: int) -> dict[str, Spec]:
        rng = self.rng
        retry = Retry(errors=2, timeouts=1, crashes=3, losses=1000, delay_s=0.5, delay_max_s=3)
        policies = [
            Policy("quick", retry=retry),
            Policy("slow", 1, retry=retry, timeout_s=6.0),
            Policy("large", retry=retry, resources=shape({"cpus": 2})),
            Policy("move", retry=retry, exclusive=True),
            Policy("brief move", retry=retry, exclusive=True, timeout_s=4.0),
            Policy("odd", -1, retry=retry, resources=shape({"licence": 1})),
            Policy("rare", 1, retry=retry, resources=shape({"gpu": 1})),
            Policy("tiny", retry=retry, resources=shape({"cpus": 0.5})),
        ]
        deadly = Policy("quick", retry=Retry(losses=2))
        tids = [f"t{number}" for number in range(amount)]
        made = {}
        for number, tid in enumerate(tids):
            policy = rng.choices(policies, [4, 4, 4, 9, 5, 4, 1, 10])[0]
            after = tuple(rng.sample(tids[:number], rng.choice([0, 0, 0, 1, 2]))) if number > 5 else ()
            duration_s = rng.expovariate(1 / MEAN_S.get(policy.kind, 1.0))
            if policy.timeout_s and rng.random() < 0.1:
                duration_s = ENDLESS_S
            straggles = rng.random() < (0.4 if policy.exclusive else 0.05)
            straggles_s = 40.0 if straggles and policy.timeout_s is None else 0.0
            if straggles and policy.kind == "tiny":
                straggles_s = 1.0
            fails = rng.choice([0, 0, 0, 0, 1, 2, 9])
            poison = rng.random() < 0.03
            made[tid] = Spec(policy, after, Behaviour(duration_s, fails, poison, straggles_s))
            if rng.random() < 0.01:
                made[tid] = Spec(deadly, after, Behaviour(rng.uniform(0, ANNOUNCE_S), deadly=True))
        return made

    # What must be true in the end.

    def _check_the_end(self) -> None:
        ends = self.store_ends()
        for tid in self.specs:
            if tid not in ends:
                raise Broken(f"{tid} was accepted and has no end")
        told = self.client.told if self.client else {}
        for tid, state in told.items():
            if ends[tid].state is not state:
                raise Broken(f"{tid} ended {ends[tid].state} and the client was told {state}")
        for tid, spec in self.specs.items():
            state, behaviour = ends[tid].state, spec.behaviour
            endless = spec.policy.timeout_s is not None and behaviour.duration_s >= ENDLESS_S
            hopeless = behaviour.poison or behaviour.deadly or behaviour.fails > 2 or endless
            if state is State.SUCCEEDED and hopeless:
                raise Broken(f"{tid} cannot succeed and has")

            if state is State.SUCCEEDED and not any(run.tid == tid for run in self.executions):
                raise Broken(f"{tid} succeeded without having been executed")
            if state is State.CANCELLED and tid not in self.cancelled:
                raise Broken(f"{tid} was cancelled by nobody")
            if state is State.SKIPPED and all(ends[each].state is State.SUCCEEDED for each in spec.after):
                raise Broken(f"{tid} was skipped for no reason")
            if state is State.SUCCEEDED and any(
                ends[each].state is not State.SUCCEEDED for each in spec.after
            ):
                raise Broken(f"{tid} succeeded although one it comes after did not")
        # A report of a former life that comes late makes it look as if what that life died of had never reached it.
        excused = {
            attempt.end.token
            for tid, spec in self.specs.items() if spec.behaviour.deadly
            for attempt in self._stored(tid).attempts if attempt.end.error == "it did not reach its controller"
        }  # fmt: skip
        deaths = Counter(
            (run.tid, run.job)
            for run in self.executions
            if self.specs[run.tid].behaviour.deadly and not run.on_broken_host and run.token not in excused
        )  # fmt: skip
        if not_stopped := [tid for (tid, _), times in deaths.items() if times > DEATHS_MOST]:
            raise Broken(f"not stopped in time: {not_stopped}")
        tokens = Counter(run.token for run in self.executions)
        if doubled := [token for token, times in tokens.items() if times > 1]:
            raise Broken(f"tokens executed more than once: {doubled[:5]}")
        self._check_exclusive()

    def _check_exclusive(self) -> None:
        by_tid: dict[str, list[Execution]] = defaultdict(list)
        for run in self.executions:
            if self.specs[run.tid].policy.exclusive:
                by_tid[run.tid].append(run)
        for tid, runs in by_tid.items():
            runs.sort(key=lambda run: run.started)
            for before, following in pairwise(runs):
                if before.ended is None or before.ended > following.started:
                    raise Broken(f"exclusive {tid} ran twice at the same time: {before} {following}")

    def _watch_what_runs(self) -> None:
        """In the calm nobody executes for long what the master does not count on, or does not know to run."""
        if self.now > STORM_S + MENDING_S and self.master is not None:
            for node in self.nodes.values():
                known = self.master.scheduler.controllers.get(node.name)
                held = known.held if known is not None else {}
                for worker in node.workers.values():
                    execution = worker.execution
                    if execution is None:
                        continue
                    if execution.token not in held:
                        raise Broken(f"executes what nobody wants: {execution}")
                    ran_s = self.now - execution.started
                    if ran_s > LEASE_S and held[execution.token].state is not State.RUNNING:
                        raise Broken(f"is not known to run: {execution}")
        self.at(1.0, self._watch_what_runs)

    def _stored(self, tid: str) -> StoredTask:
        stored = self.store.task(tid)
        assert stored is not None
        return stored

    def store_ends(self) -> dict[str, TaskEnd]:
        assert self.client is not None
        ends = self.store.recall(self.client.job, list(self.specs))
        return {tid: end for tid, (end, _) in ends.items()}

    def _state(self) -> str:
        if self.master is None:
            return "no master"
        jobs = {job.name: dict(job.counts) for job in self.master.scheduler.jobs.values()}
        holds = {name: len(node.crew.held) if node.crew else None for name, node in self.nodes.items()}
        return f"jobs={jobs} holds={holds} client={self.client and self.client.open_count()}"


class MasterNode:
    """A master daemon: hears, decides, remembers, says."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.dead = False
        self.busy = False  # with a slow disk: what is said to it meanwhile, it hears later
        self.unheard: list[tuple[Peer, Message]] = []
        self.put_off = PutOff()
        self.scheduler = Scheduler(cluster.store.wake(), cluster.now, lease_s=LEASE_S, window=30)
        self._ticking()

    def hear(self, sender: Peer, message: Message) -> None:
        if self.dead:
            return
        if self.busy:
            self.unheard.append((sender, message))
            return
        recalled = {}
        if isinstance(message, Submit):
            tids = {tid for task in message.tasks for tid in (task.tid, *task.after)}
            found = self.cluster.store.recall(message.job, sorted(tids))
            recalled = {tid: end for tid, (end, _) in found.items()}
        before = self._current(message)
        decision = self.scheduler.receive(sender, message, self.cluster.now, recalled)
        self._check_ends(message, before, decision, sender)
        self._obey(decision)

    def _ticking(self) -> None:
        if not self.dead:
            if not self.busy:
                self._obey(self.scheduler.tick(self.cluster.now))
                excluded = [
                    each for each in self.scheduler.controllers.values() if each.excluded_until is not None
                ]
                self.cluster.sometimes["excluded"] += len(excluded)
            self.cluster.at(self.cluster.rng.uniform(0.02, TICK_S), self._ticking)

    def _obey(self, decision: Decision) -> None:
        cluster = self.cluster
        invariants.check_scheduler(self.scheduler)
        if cluster.chance(0.002):
            cluster.sometimes["master killed before it remembered"] += 1
            return cluster.kill_master()
        if decision.changes and cluster.chance(0.005):
            cluster.sometimes["slow disk"] += 1
            self.busy = True
            delay = cluster.rng.choice([cluster.rng.uniform(0.05, 1.0), cluster.rng.uniform(1, 2 * LEASE_S)])
            cluster.at(delay, lambda: self._go_on(decision))
            return None
        return self._remember_and_say(decision)

    def _go_on(self, decision: Decision) -> None:
        """The disk has answered at last."""
        if self.dead:
            return
        self._remember_and_say(decision)
        self.busy = False
        unheard, self.unheard = self.unheard, []
        for sender, message in unheard:
            self.hear(sender, message)

    def _remember_and_say(self, decision: Decision) -> None:
        cluster = self.cluster
        payloads, values = {}, {}
        for change in decision.changes:
            if isinstance(change, TaskAccepted):
                payloads[change.job, change.tid] = b"p"
            elif isinstance(change, TaskEnded) and change.end.end is not None:
                values[change.end.end.token] = b""
        if decision.changes:
            cluster.store.remember(decision.changes, payloads, values)
        # That a job is over is remembered a moment after its last end: a moment that is worth a visit.
        over = any(not job.tasks for job in self.scheduler.jobs.values() if job.state is not JobState.OPEN)
        if cluster.chance(0.3 if over else 0.002):
            cluster.sometimes["master killed before it spoke"] += 1
            return cluster.kill_master()
        early = [letter for letter in decision.letters if not letter.binding]
        for letter in early:
            cluster.deliver_from_master(letter.to, letter.message)
        if early and cluster.chance(0.02):
            cluster.sometimes["master killed after a letter that is not binding"] += 1
            return cluster.kill_master()
        was_quiet = self.put_off.moment is None
        if decision.changes:
            self.put_off.begin(cluster.now)
        binding = [letter for letter in decision.letters if letter.binding]
        if now := [letter for letter in binding if not self.put_off.add(letter, cluster.now)]:
            self._promise(now)
        if was_quiet and self.put_off.moment is not None:
            cluster.at(PATIENCE_S, self._do_what_was_put_off)
        return None

    def _do_what_was_put_off(self) -> None:
        if self.busy:
            self.cluster.at(PATIENCE_S, self._do_what_was_put_off)
        elif not self.dead:
            self._promise(self.put_off.take())

    def _promise(self, letters: list[Letter]) -> None:
        self.cluster.store.sync()
        for letter in letters:
            self.cluster.deliver_from_master(letter.to, letter.message)

    def _current(self, message: Message) -> dict[int, tuple[int, str]]:
        if not isinstance(message, Ended):
            return {}
        return {
            token: (task.number, controller.peer.name)
            for controller in self.scheduler.controllers.values()
            for token, task in controller.held.items()
        }

    def _check_ends(
        self, message: Message, before: dict[int, tuple[int, str]], decision: Decision, sender: Peer
    ) -> None:
        """What the mind counted must have been current, and held by who said it."""
        if not isinstance(message, Ended):
            return
        said = {end.token for end in message.ends}
        for change in decision.changes:
            end = getattr(change, "end", None)
            end = getattr(end, "end", end)
            if isinstance(end, End) and (
                end.token not in said or before.get(end.token, (0, ""))[1] != sender.name
            ):
                raise Broken(f"a stale end was believed: {end} from {sender}")


class ControllerNode:
    """A controller with its reaper and workers. A life ends with `kill`; `kept` survives a clean stop."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster, self.name = cluster, name
        self.lives = 0
        self.pids = 0
        self.size = cluster.rng.randint(2, 4)
        self.kept: list[End] = []
        self.crew: Crew | None = None
        self.workers: dict[int, WorkerProcess] = {}
        self.frozen_until = 0.0
        self.broken_until = 0.0  # its host: every worker dies of whatever it is given
        self.gone = False
        self.start()

    @property
    def peer(self) -> Peer:
        return Peer(self.name, f"{self.lives:06}")

    def start(self) -> None:
        if self.crew is not None or self.gone:
            return
        self.lives += 1
        kept, self.kept = self.kept, []
        resources: dict[str, int | float | str] = {"cpus": self.size, "licence": 1}
        if self.name == "a" and self.cluster.now >= RARE_FROM_S:
            resources["gpu"] = 1
        self.crew = Crew(
            self.cluster.now, workers=self.size, resources=shape(resources), host=self.name, pid=self.lives,
            stop_grace_s=4.0, hung_after_s=30.0, retry_wait_s=2.0, retries_max=6,
            jitter=self.cluster.rng.uniform(0.8, 1.0), kept=kept,
        )  # fmt: skip
        self._ticking(self.lives)

    def hear(self, life: str, message: Message) -> None:
        if self.crew is None or life != f"{self.lives:06}":
            return
        if self.frozen_until > self.cluster.now:
            self.cluster.at(self.frozen_until - self.cluster.now, lambda: self.hear(life, message))
            return
        self._obey(self.crew.receive(message, self.cluster.now))

    def _ticking(self, life: int) -> None:
        cluster = self.cluster
        if self.crew is None or life != self.lives:
            return
        if self.frozen_until <= cluster.now:
            for slot, worker in self.workers.items():
                if 0 <= worker.place < len(worker.assignments):
                    self.crew.observed(slot, worker.place, worker.since)
            self._obey(self.crew.tick(cluster.now))
            if self.crew is not None and (self.crew.is_done or self.crew.broken):
                cluster.sometimes["no worker could live" if self.crew.broken else "controller left"] += 1
                self.kept = self.crew.undelivered
                self._end_life()
        cluster.at(cluster.rng.uniform(0.02, TICK_S), lambda: self._ticking(life))

    def _obey(self, decision: Decision) -> None:
        assert self.crew is not None
        invariants.check_crew(self.crew)
        for to, message, _, _ in decision.letters:
            if to == MASTER:
                self.cluster.deliver_to_master(self.peer, message)
            elif to == REAPER:
                self._reap(message)
            elif to == LINE:
                self.cluster.at(0.05, self._reconnected)
            else:
                self._work(int(to.life), message)

    def _reconnected(self) -> None:
        if self.crew is not None:
            self.crew.connected(self.cluster.now)

    # The reaper.

    def _reap(self, message: Message) -> None:
        life = self.lives
        if isinstance(message, Hire):
            self.cluster.at(0.01, lambda: self._fork(life, message.slot))
        elif isinstance(message, Guard):
            guarded = self.workers.get(message.slot)
            if guarded is not None:
                self._guard(message.slot, guarded, message.until)
        elif isinstance(message, Kill):
            worker = self.workers.get(message.slot)
            stubborn = message.signal == SIGTERM and self.cluster.rng.random() < 0.3
            if worker is not None and message.signal == NUDGE:
                # One that is deep in code that is not Python hears it when it comes out of that.
                deep = self.cluster.rng.random() < 0.2
                self.cluster.at(1.0 if deep else 0.001, lambda: self._nudged(life, message.slot, worker))
            elif worker is not None and message.signal in (SIGTERM, SIGKILL) and not stubborn:
                pid = worker.pid
                self.cluster.at(0.02, lambda: self._worker_dies(life, message.slot, pid, -message.signal))

    def _guard(self, slot: int, worker: WorkerProcess, until: float | None) -> None:
        life, worker.guarded_until = self.lives, until
        if until is not None:
            self.cluster.at(
                max(0.0, until - self.cluster.now), lambda: self._enforce(life, slot, worker, until)
            )

    def _enforce(self, life: int, slot: int, worker: WorkerProcess, until: float) -> None:
        """The lease has run out and was not renewed. The reaper is not frozen, whatever its controller is."""
        if worker.guarded_until == until:
            self._worker_dies(life, slot, worker.pid, -SIGKILL)

    def _fork(self, life: int, slot: int) -> None:
        if life == self.lives and self.crew is not None:
            self.pids += 1
            self.workers[slot] = WorkerProcess(self.pids)
            self.crew.born(slot, self.pids)

    def _worker_dies(self, life: int, slot: int, pid: int, status: int) -> None:
        worker = self.workers.get(slot)
        if life != self.lives or self.crew is None or worker is None or worker.pid != pid:
            return
        if self.frozen_until > self.cluster.now:
            self._stop_executing(worker)
            worker.generation += 1
            self.cluster.at(
                self.frozen_until - self.cluster.now, lambda: self._worker_dies(life, slot, pid, status)
            )
            return
        self._stop_executing(worker)
        del self.workers[slot]
        # What it said before it died is heard before its death; what it did not say died with it.
        running = None if worker.place < 0 else worker.place
        self._obey(self.crew.died(slot, status, running, self.cluster.now))

    # Workers.

    def _work(self, slot: int, message: Message) -> None:
        assert isinstance(message, Place)
        worker = self.workers.get(slot)
        if worker is None:
            return  # it died a moment ago, and its death is about to be told
        worker.assignments, worker.place, worker.unsaid = message.assignments, -1, []
        worker.generation += 1
        self._next(slot, worker, worker.generation, self.lives)

    def _next(self, slot: int, worker: WorkerProcess, generation: int, life: int) -> None:
        cluster = self.cluster
        if life != self.lives or worker.generation != generation or self.workers.get(slot) is not worker:
            return
        worker.place += 1
        if worker.place >= len(worker.assignments):
            self._flush(slot, worker)
            return
        assignment = worker.assignments[worker.place]
        behaviour = cluster.specs[assignment.tid].behaviour
        worker.since = cluster.now
        first = not any(run.tid == assignment.tid for run in cluster.executions)
        is_broken = cluster.now < self.broken_until
        worker.execution = Execution(
            assignment.tid, assignment.job_key, assignment.token, self.name, cluster.now, is_broken
        )
        cluster.executions.append(worker.execution)
        if behaviour.poison or is_broken:
            cluster.sometimes["workers die whatever they execute" if is_broken else "poison"] += 1
            cluster.at(0.05, lambda: self._worker_dies(life, slot, worker.pid, -11))
        elif behaviour.deadly:
            cluster.sometimes["deadly"] += 1
            cluster.at(behaviour.duration_s, lambda: self._die_of(worker, generation, life))
        else:
            duration_s = behaviour.duration_s + (behaviour.straggles_s if first else 0.0)
            cluster.at(duration_s, lambda: self._end(slot, worker, generation, life))

    def _end(self, slot: int, worker: WorkerProcess, generation: int, life: int) -> None:
        cluster = self.cluster
        if life != self.lives or worker.generation != generation or self.workers.get(slot) is not worker:
            return
        assignment = worker.assignments[worker.place]
        behaviour = cluster.specs[assignment.tid].behaviour
        started = worker.since
        self._stop_executing(worker)
        errors = sum(run.tid == assignment.tid and run.ended is not None for run in cluster.executions)
        failed = errors <= behaviour.fails if behaviour.fails <= 2 else True
        outcome = Outcome.RAISED if failed and behaviour.fails else Outcome.SUCCEEDED
        worker.unsaid.append(End(assignment.token, cluster.now - started, started + 1, outcome))
        if cluster.rng.random() < 0.5 and worker.place + 1 < len(worker.assignments):
            self._flush(slot, worker)
        self._next(slot, worker, generation, life)

    def _nudged(self, life: int, slot: int, worker: WorkerProcess) -> None:
        if life == self.lives and self.workers.get(slot) is worker and worker.execution is not None:
            unbegun = worker.assignments[worker.place + 1 :]
            worker.assignments = worker.assignments[: worker.place + 1]
            if unbegun:
                self.cluster.sometimes["given back"] += 1
            self._flush(slot, worker, [assignment.token for assignment in unbegun])

    def _flush(self, slot: int, worker: WorkerProcess, unbegun: Sequence[int] = ()) -> None:
        if (worker.unsaid or unbegun) and self.crew is not None:
            ends, worker.unsaid = worker.unsaid, []
            life = self.lives
            delay = max(0.0, self.frozen_until - self.cluster.now)
            self.cluster.at(delay, lambda: self._heard(life, slot, worker, ends, unbegun))

    def _heard(
        self, life: int, slot: int, worker: WorkerProcess, ends: list[End], unbegun: Sequence[int]
    ) -> None:
        if life == self.lives and self.crew is not None and self.workers.get(slot) is worker:
            self._obey(self.crew.finished(slot, ends, self.cluster.now, unbegun))

    def _stop_executing(self, worker: WorkerProcess) -> None:
        if worker.execution is not None:
            worker.execution.ended = self.cluster.now
            worker.execution = None

    # Faults.

    def chaos(self) -> None:
        cluster = self.cluster
        if self.crew is None:
            return
        if cluster.chance(0.01):
            cluster.sometimes["controller killed"] += 1
            self._end_life()
            others = sum(not node.gone for node in cluster.nodes.values()) > 1
            if cluster.rng.random() < 0.1 and others and self.name != "a":
                cluster.sometimes["controller gone for good"] += 1
                self.gone = True
        elif cluster.chance(0.005):
            cluster.sometimes["controller stopped"] += 1
            self._obey(
                self.crew.leave("told by its administrator", cluster.now, at_once=cluster.rng.random() < 0.5)
            )
        elif cluster.chance(0.01):
            cluster.sometimes["controller frozen"] += 1
            self._freeze(cluster.rng.uniform(0.1, 0.5))
        elif cluster.chance(0.002):
            cluster.sometimes["controller frozen for longer than a lease"] += 1
            self._freeze(cluster.rng.uniform(1.0, 3.0) * LEASE_S)
        elif cluster.chance(0.002):
            self.broken_until = cluster.now + cluster.rng.uniform(1, 4 * LEASE_S)
        for slot, worker in list(self.workers.items()):
            if cluster.chance(0.01):
                cluster.sometimes["worker killed"] += 1
                self._worker_dies(self.lives, slot, worker.pid, -9)

    def _die_of(self, worker: WorkerProcess, generation: int, life: int) -> None:
        """What a worker executes takes the whole controller down."""
        if life == self.lives and worker.generation == generation and worker in self.workers.values():
            self._end_life()

    def _freeze(self, seconds: float) -> None:
        """The controller stands still; its workers and its reaper do not."""
        self.frozen_until = max(self.frozen_until, self.cluster.now + seconds)

    def restart(self) -> None:
        if self.crew is not None:
            self._end_life()

    def _end_life(self) -> None:
        """The process is gone, and with it all its workers."""
        for worker in self.workers.values():
            self._stop_executing(worker)
            worker.generation += 1
        self.workers = {}
        self.crew = None
        self.frozen_until = 0.0
        self.lives += 1  # letters to the former life find nobody
        self.cluster.at(self.cluster.rng.uniform(0, 3), self.start)


class ClientNode:
    """A client that hands in all tasks within its window and wants to know every end.

    hasty: it wants to know only that all were accepted, says that no more will come, and is not heard of again.
    """

    def __init__(self, cluster: Cluster) -> None:
        cluster.client_lives += 1
        self.cluster = cluster
        self.hasty = cluster.rng.random() < 0.3
        self.peer = Peer("client", str(cluster.client_lives))
        self.dead = False
        self.finished = False
        self.closed = False
        self.job = 0
        self.epoch = self.serial = 0
        self.window = 10
        self.left = list(cluster.specs)
        self.outstanding: dict[str, float] = {}  # tid -> when it was submitted last; inf once accepted
        self.told: dict[str, State] = {}
        self.requests: dict[int, list[str]] = {}
        self.request = 0
        self._beat()

    def open_count(self) -> tuple[int, int, int]:
        return len(self.left), len(self.outstanding), len(self.told)

    def _beat(self) -> None:
        if self.dead or self.finished:
            return
        self._say(Open("job", self.job))
        if self.job:
            overdue = [tid for tid, moment in self.outstanding.items() if self.cluster.now - moment > 2.0]
            self._submit(overdue)
            if self.outstanding and self.cluster.chance(0.05):
                self._cancel(self.cluster.rng.choice(list(self.outstanding)))
        self.cluster.at(0.5, self._beat)

    def hear(self, message: Message) -> None:
        if self.dead:
            return
        if self.finished:
            self.closed = self.closed or message == Accepted([CLOSING])
            return
        if isinstance(message, Opened):
            self.job, self.window = message.job, message.window
            if message.epoch != self.epoch or message.serial != self.serial:
                self.epoch, self.serial = message.epoch, message.serial
                self._submit(list(self.outstanding))
            self._fill()
        elif isinstance(message, Accepted):
            for request in message.requests:
                for tid in self.requests.pop(request, ()):
                    if tid in self.outstanding:
                        self.outstanding[tid] = float("inf")
        elif isinstance(message, Results):
            if message.serial == self.serial + 1:
                self.serial = message.serial
            for end in message.ends:
                if end.tid in self.told and self.told[end.tid] is not end.state:
                    raise Broken(f"{end.tid} was told twice, differently")
                if end.state not in ENDED:
                    raise Broken(f"{end.tid} was told as {end.state}")
                if self.outstanding.pop(end.tid, None) is not None:
                    self.told[end.tid] = end.state
            self._fill()
        elif isinstance(message, Refused):
            if message.request not in self.requests:
                return  # said twice
            tids = self.requests.pop(message.request)
            if not any(moment != float("inf") for tid, moment in self.outstanding.items() if tid not in tids):
                raise Broken(f"refused: {message.reason}")
            # What it comes after was in a submission that got lost: all of them are due again, in order.
            for tid in self.outstanding:
                self.outstanding[tid] = float("-inf")
        elif isinstance(message, Leave):
            raise Broken("nobody stopped the master")
        waits_for = [
            moment for moment in self.outstanding.values() if moment != float("inf") or not self.hasty
        ]
        if not self.left and not waits_for:
            self.finished = True
            self._close_until_heard()

    def _close_until_heard(self) -> None:
        if not self.dead and not self.closed:
            self._say(Open("job", self.job))
            self._say(Close(CLOSING, self.job))
            self.cluster.at(1.0, self._close_until_heard)

    def _cancel(self, tid: str) -> None:
        self.cluster.sometimes["cancelled"] += 1
        self.cluster.cancelled.add(tid)
        self.request += 1
        self._say(Cancel(self.request, self.job, [tid]))

    def _fill(self) -> None:
        if not self.job:
            return
        take = self.window - len(self.outstanding)
        tids, self.left = self.left[: max(0, take)], self.left[max(0, take) :]
        self._submit(tids)

    def _submit(self, tids: list[str]) -> None:
        if not tids:
            return
        self.request += 1
        self.requests[self.request] = tids
        policies: list[Policy] = []
        tasks = []
        for tid in tids:
            spec = self.cluster.specs[tid]
            if spec.policy not in policies:
                policies.append(spec.policy)
            tasks.append(Submission(tid, policies.index(spec.policy), spec.after))
            self.outstanding[tid] = self.cluster.now
        self._say(Submit(self.request, self.job, policies, tasks))

    def _say(self, message: Message) -> None:
        self.cluster.deliver_to_master(self.peer, message)


def run(seed: int) -> Cluster:
    cluster = Cluster(seed)
    cluster.run()
    return cluster


def main() -> int:
    parser = argparse.ArgumentParser(description="Run simulated clusters through a storm and a calm.")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--first-failure", action="store_true", help="stop at the first seed that fails")
    parser.add_argument("--traces", action="store_true", help="print a digest of all that has happened")
    options = parser.parse_args()
    sometimes: Counter[str] = Counter()
    failures = 0
    for seed in range(options.first, options.first + options.seeds):
        try:
            cluster = run(seed)
            sometimes += cluster.sometimes
            if options.traces:
                print(f"trace {seed}: {cluster.trace}")
        except Exception as error:  # noqa: BLE001 - every kind of trouble of a seed is to be printed
            failures += 1
            print(f"seed {seed}: {type(error).__name__}: {str(error)[:300]}", flush=True)
            if options.first_failure:
                break
    print(f"{failures} of {options.seeds} seeds failed; faults: {dict(sometimes)}")
    return failures > 0


if __name__ == "__main__":
    sys.exit(main())
