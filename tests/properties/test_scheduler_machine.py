"""The master's mind under anything that may be said to it, in any order.

Every decision is remembered, and the invariants are checked after each. Nodes are played honestly where honesty
matters at the end: when the storm is over, they finish what they hold, and then every task that was ever accepted
must have exactly one end.
"""

from __future__ import annotations

from core_builders import CLIENT, LEASE_S, Master
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, precondition, rule

from cyclone.messages import Cancel, Close, Ended, Goodbye
from cyclone.model.changes import TaskAccepted, TaskEnded
from cyclone.model.lifecycle import ENDED, JobState, Outcome
from cyclone.model.peer import Peer
from cyclone.model.resources import shape
from cyclone.model.task import End, Policy, Retry

RETRY = Retry(errors=1, timeouts=1, crashes=1, losses=2, delay_s=1.0)
POLICIES = [
    Policy("plain", retry=RETRY),
    Policy("urgent", 2, retry=RETRY),
    Policy("large", resources=shape({"cpus": 2}), retry=RETRY),
    Policy("move", exclusive=True, retry=RETRY),
    Policy("brief", expires_s=20.0, retry=RETRY),
]
BAD_ENDS = [
    {"outcome": Outcome.RAISED},
    {"outcome": Outcome.TIMED_OUT},
    {"outcome": Outcome.SIGNALLED, "died": True},
    {"outcome": Outcome.EVICTED},
    {"outcome": Outcome.CANCELLED},
    {"outcome": Outcome.LOST},
]
NAMES = ["a", "b", "c"]


class SchedulerMachine(RuleBasedStateMachine):
    """Tokens of every attempt that was ever given out can be said again at any time, by anybody."""

    tids = Bundle("tids")

    @initialize()
    def begin(self) -> None:
        self.master = Master()
        self.job = self.master.open()
        self.lives = dict.fromkeys(NAMES, 0)
        self.peers: dict[str, Peer] = {}
        self.accepted: set[str] = set()
        self.ended: dict[str, object] = {}
        self.count = 0

    def take_note(self) -> None:
        for change in self.master.decision.changes:
            if isinstance(change, TaskAccepted):
                assert change.tid not in self.accepted, "a task was accepted twice"
                self.accepted.add(change.tid)
            elif isinstance(change, TaskEnded):
                assert change.end.tid not in self.ended, "a task ended twice"
                assert change.end.state in ENDED
                self.ended[change.end.tid] = change.end.state
        for end in self.master.results:
            assert self.ended[end.tid] == end.state, "what was told is not what was remembered"

    def tokens(self) -> list[int]:
        return sorted({each.token for _, place in self.master.places for each in place.assignments})

    # Clients.

    @rule(
        target=tids,
        policy=st.sampled_from(POLICIES),
        amount=st.integers(1, 5),
        after=st.lists(tids, max_size=2),
    )
    def submit(self, policy: Policy, amount: int, after: list[str]) -> str:
        names = [f"t{self.count + number}" for number in range(amount)]
        self.count += amount
        self.master.submit(*names, after=tuple(after), job=self.job, policy=policy)
        self.take_note()
        return names[-1]

    @rule(tid=tids)
    def submit_again(self, tid: str) -> None:
        self.master.submit(tid, job=self.job)
        self.take_note()

    @rule(tid=consumes(tids))
    def cancel(self, tid: str) -> None:
        self.master.hear(CLIENT, Cancel(1, self.job, [tid]))
        self.take_note()

    @rule()
    def open_again(self) -> None:
        self.master.open(number=self.job)

    @precondition(lambda self: self.master.mind.jobs[self.job].tasks)
    @rule(failed=st.booleans(), restarted=st.booleans())
    def close_and_open_anew(self, failed: bool, restarted: bool) -> None:
        self.master.open(number=self.job)
        self.master.hear(CLIENT, Close(1, self.job, failed))
        if restarted:
            self.master.start()
        sealed = self.master.mind.jobs[self.job].state
        assert sealed is (JobState.FAILING if failed else JobState.SEALED), "that it is sealed was forgotten"
        assert self.master.open() == self.job
        assert self.master.mind.jobs[self.job].state is JobState.OPEN

    # Controllers.

    @rule(name=st.sampled_from(NAMES), workers=st.integers(1, 3))
    def start(self, name: str, workers: int) -> None:
        self.lives[name] += 1
        self.master.now += 0.01
        self.peers[name] = self.master.join(name, str(self.lives[name]), workers)
        self.take_note()

    @precondition(lambda self: self.peers)
    @rule(data=st.data(), share=st.sampled_from([0, 1, 1]), leaving=st.booleans())
    def report(self, data: st.DataObject, share: int, leaving: bool) -> None:
        peer = data.draw(st.sampled_from(sorted(self.peers.values())))
        known = self.master.mind.controllers.get(peer.name)
        held = list(known.held) if known is not None and share else []
        strange = data.draw(st.lists(st.sampled_from(self.tokens() or [1]), max_size=2))
        started = data.draw(st.lists(st.sampled_from([*held, *strange] or [1]), max_size=2))
        self.master.report(peer, [*held, *strange], leaving=leaving, started=started)
        self.take_note()

    @precondition(lambda self: self.peers and self.master.places)
    @rule(data=st.data())
    def started(self, data: st.DataObject) -> None:
        peer = data.draw(st.sampled_from(sorted(self.peers.values())))
        self.master.started(peer, data.draw(st.sampled_from(self.tokens())))
        self.take_note()

    @precondition(lambda self: self.peers and self.master.places)
    @rule(data=st.data(), good=st.booleans(), bad=st.sampled_from(BAD_ENDS))
    def ended_somehow(self, data: st.DataObject, good: bool, bad: dict[str, object]) -> None:
        """By who holds it or not, for the first time or again."""
        peer = data.draw(st.sampled_from(sorted(self.peers.values())))
        known = self.master.mind.controllers.get(peer.name)
        likely = list(known.held) if known is not None and known.held else self.tokens()
        token = data.draw(st.sampled_from(likely) | st.sampled_from(self.tokens()))
        rightful = known is not None and token in known.held
        started_at = data.draw(st.sampled_from([0.0, 1.0]))
        end = End(token, 0.01, started_at) if good else End(token, 0.01, started_at, **bad)  # type: ignore[arg-type]
        self.master.hear(peer, Ended([end, end]))
        said = [change for change in self.master.decision.changes if isinstance(change, TaskEnded)]
        assert rightful or not said, "an end was believed of somebody who does not hold the attempt"
        self.take_note()

    @precondition(lambda self: self.peers)
    @rule(data=st.data())
    def goodbye(self, data: st.DataObject) -> None:
        peer = data.draw(st.sampled_from(sorted(self.peers.values())))
        self.master.hear(peer, Goodbye())
        self.take_note()

    # Time, and the master itself.

    @rule(seconds=st.sampled_from([0.0, 0.0, 0.3, 1.0, 3.0, LEASE_S, 3 * LEASE_S]))
    def tick(self, seconds: float) -> None:
        self.master.tick(seconds)
        self.take_note()

    @rule()
    def restart(self) -> None:
        self.master.start()

    def teardown(self) -> None:
        """The calm: everybody is there, loses nothing, and finishes what it is given."""
        if not hasattr(self, "master"):
            return
        master = self.master
        master.open(number=self.job)
        for _ in range(200):
            for name in NAMES:
                known = master.mind.controllers.get(name)
                if known is None or name not in self.peers or known.report_at is None or known.leaving:
                    self.start(name, 3)
                peer = self.peers[name]
                master.report(peer)
                self.take_note()
                master.ended(peer, *list(master.controller(peer).held))
                self.take_note()
            if not master.mind.jobs[self.job].tasks:
                break
            self.tick(1.0)
        assert self.ended.keys() == self.accepted, "a task was lost"
        master.hear(CLIENT, Close(1, self.job))
        assert master.mind.is_idle
        super().teardown()


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
