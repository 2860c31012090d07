"""A controller's mind under anything that master, workers and time may do, in any order.

The machine keeps its own list of what was begun, and believes nothing that the crew says of itself.
"""

from __future__ import annotations

from signal import SIGKILL

from core_builders import LEASE_S, Node
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cyclone.core.crew import REAPER, WorkerState
from cyclone.messages import Drop, Ended, Kill, Place
from cyclone.model.lifecycle import Outcome


class CrewMachine(RuleBasedStateMachine):
    """place: how far each worker has come in its chunk."""

    @initialize(workers=st.integers(1, 3))
    def begin(self, workers: int) -> None:
        self.node = Node(workers, resources={"cpus": workers}, stop_grace_s=2.0)
        self.begun: set[int] = set()
        self.given: dict[int, list[int]] = {}
        self.place: dict[int, int] = {}
        self.unwanted: set[int] = set()
        self.placed: set[int] = set()
        self.killed: set[int] = set()

    def look(self) -> None:
        """What was handed to workers, and who was killed."""
        for letter in self.node.decision.letters:
            if isinstance(letter.message, Place):
                slot = int(letter.to.life)
                tokens = [assignment.token for assignment in letter.message.assignments]
                assert not self.begun.intersection(tokens), "a token is executed twice"
                self.given[slot], self.place[slot] = tokens, 0
            elif (
                letter.to == REAPER and isinstance(letter.message, Kill) and letter.message.signal == SIGKILL
            ):
                self.killed.add(letter.message.slot)

    def busy(self) -> list[int]:
        return sorted(slot for slot, tokens in self.given.items() if self.place[slot] < len(tokens))

    # The master.

    @rule(
        amount=st.integers(1, 6),
        exclusive=st.booleans(),
        alone=st.booleans(),
        limit_s=st.sampled_from([None, 3.0]),
        kind=st.sampled_from(["short", "long"]),
        late_s=st.sampled_from([0.0, 0.0, LEASE_S]),
    )
    def place_some(
        self, amount: int, exclusive: bool, alone: bool, limit_s: float | None, kind: str, late_s: float
    ) -> None:
        tids = [str(number) for number in range(amount)]
        tokens = self.node.place(
            *tids, alone=alone, at=self.node.now - late_s, exclusive=exclusive, timeout_s=limit_s, kind=kind
        )
        self.placed.update(tokens)
        self.look()

    @rule()
    def place_again(self) -> None:
        self.node.hear(self.node.last_place)
        self.look()

    @precondition(lambda self: self.node.mind.held or self.node.mind.undelivered)
    @rule(data=st.data(), unless_started=st.booleans())
    def drop(self, data: st.DataObject, unless_started: bool) -> None:
        here = [*self.node.mind.held, *(end.token for end in self.node.mind.undelivered)]
        token = data.draw(st.sampled_from(sorted(here)))
        if not unless_started:
            self.unwanted.add(token)
        self.node.hear(Drop([token], unless_started))
        self.look()

    @rule(renew=st.booleans(), age_s=st.sampled_from([0.0, 1.0, LEASE_S]))
    def agree(self, renew: bool, age_s: float) -> None:
        renewed = [token for token, held in self.node.mind.held.items() if held.policy.exclusive]
        self.node.agree(at=self.node.now - age_s, renewed=renewed if renew else [])
        self.look()

    # Workers.

    @rule(seconds=st.sampled_from([0.0, 0.0, 0.1, 1.0, 3.0, LEASE_S]))
    def tick(self, seconds: float) -> None:
        self.node.now += seconds
        for slot in self.busy():
            self.begun.add(self.given[slot][self.place[slot]])
            self.node.run(slot, self.place[slot], self.node.now - seconds)
        self.node.tick()
        self.look()

    @precondition(lambda self: self.busy())
    @rule(data=st.data(), outcome=st.sampled_from([Outcome.SUCCEEDED, Outcome.RAISED]))
    def finish(self, data: st.DataObject, outcome: Outcome) -> None:
        slot = data.draw(st.sampled_from(self.busy()))
        left = self.given[slot][self.place[slot] :]
        tokens = left[: data.draw(st.integers(1, len(left)))]
        self.begun.update(tokens)
        self.place[slot] += len(tokens)
        self.node.finish(slot, *tokens, duration_s=0.0001, outcome=outcome)
        self.look()

    @precondition(lambda self: self.busy())
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        """The worker was nudged while it executes one of its chunk."""
        slot = data.draw(st.sampled_from(self.busy()))
        tokens, running = self.given[slot], self.place[slot]
        self.begun.add(tokens[running])
        self.given[slot] = tokens[: running + 1]
        self.node.give_back(slot, *tokens[running + 1 :])
        self.look()

    @rule(data=st.data(), status=st.sampled_from([-9, -15, -11, 1]))
    def die(self, data: st.DataObject, status: int) -> None:
        """Anywhere in its chunk: before the first, in the middle, or when it was through and had not told."""
        slot = data.draw(st.sampled_from(sorted(self.node.mind.workers)))
        tokens = self.given.pop(slot, [])
        at = self.place.pop(slot, 0)
        running = data.draw(st.sampled_from([None, *range(at, len(tokens) + 1)])) if tokens else None
        if running is None and at:
            running = at
        if running is not None:
            self.begun.update(tokens[: running + 1])
        elif self.begun.intersection(tokens):
            running = 0
        self.node.die(slot, status, running)
        self.killed.discard(slot)
        self.look()

    @rule(at_once=st.booleans())
    @precondition(lambda self: len(self.placed) > 8)
    def leave(self, at_once: bool) -> None:
        self.node.leave(at_once=at_once)
        self.look()

    # What must be true.

    @invariant()
    def nothing_is_forgotten(self) -> None:
        if not hasattr(self, "node"):
            return
        here = {*self.node.mind.held, *(end.token for end in self.node.mind.undelivered)}
        assert self.placed <= here | self.unwanted, "an attempt is neither held nor told of"

    @invariant()
    def no_exclusive_attempt_outlives_its_lease(self) -> None:
        if not hasattr(self, "node"):
            return
        mind = self.node.mind
        self.node.tick()
        self.look()
        for held in mind.held.values():
            worker = held.worker
            if held.policy.exclusive and worker is not None and worker.state is not WorkerState.HUNG:
                assert mind.lease_s is not None
                over = self.node.now >= held.lease_from + mind.lease_s
                assert not over or worker.slot in self.killed, "its lease is over and nobody killed it"

    def teardown(self) -> None:
        """The calm: every worker ends what it does, every end is dropped."""
        if not hasattr(self, "node"):
            return
        for _ in range(300):
            if not self.node.mind.held and not self.node.mind.undelivered:
                break
            for slot in self.busy():
                worker = self.node.mind.workers[slot]
                if worker.state in (WorkerState.STOPPING, WorkerState.HUNG):
                    tokens, at = self.given.pop(slot), self.place.pop(slot)
                    self.begun.update(tokens[: at + 1])
                    self.node.die(slot, -9, at)
                    self.look()
                else:
                    tokens = self.given[slot][self.place[slot] :]
                    self.begun.update(tokens)
                    self.place[slot] = len(self.given[slot])
                    self.node.finish(slot, *tokens, duration_s=0.0001)
            self.tick(1.0)
            for slot, worker in self.node.mind.workers.items():
                if worker.state in (WorkerState.STOPPING, WorkerState.HUNG) and slot not in self.busy():
                    self.given.pop(slot, None)
                    self.place.pop(slot, None)
                    self.node.die(slot, -9, len(worker.chunk))
                    self.look()
            renewed = list(self.node.mind.held)
            self.node.agree(renewed=renewed)
            said = [
                end.token
                for message in self.node.to_master
                if isinstance(message, Ended)
                for end in message.ends
            ]
            self.node.to_master.clear()
            self.unwanted.update(said)
            self.node.hear(Drop(said))
            self.look()
        assert not self.node.mind.held or self.node.mind.broken, "an attempt never ended"
        super().teardown()


TestCrew = CrewMachine.TestCase
TestCrew.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
