"""The work of a drill: of every kind that faults treat differently, in a stream that does not end before the faults do."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator

from cyclone.base_task import BaseTask
from cyclone.drill.plan import DATABASE, LEASE_S, PUSHGATEWAY
from cyclone.drill.witness import now, ours
from cyclone.ini import Ini
from cyclone.model.task import Retry
from cyclone.record import Metric, Record
from cyclone.task_generator import Result, TaskGenerator

#: Of a counter that the Pushgateway client shows, by tid.
SAMPLES = "cyclone_drill_samples_total"

#: So many tasks a second are handed in: what two cores do between two faults.
PACE = 20
_SLICE_S = 0.1
_LONGER_THAN_A_LEASE_S = (1.5 * LEASE_S, 3.0 * LEASE_S)

#: Workers and hosts are taken away by the drill as often as it likes.
SPARED = Retry(errors=1, crashes=10**6, losses=10**6, delay_s=0.2)
#: One that takes its workers along itself: the usual number of deaths, and whatever the drill adds.
_POISONED = Retry(crashes=2, losses=10**6)


class DrillRecord(Record, frozen=True):
    """A row of a task under drill, the same whichever attempt has made it. place: among those of the task."""

    kind = "drill"

    number: int
    place: int


class DrillSample(Record, frozen=True):
    """For the Pushgateway, of a task under drill."""

    kind = "drill_sample"
    metrics = (Metric(SAMPLES, "Samples of tasks under drill.", ("task",), lambda _: 1, "counter"),)

    task: str


class Work(BaseTask):
    """Sleeps so many seconds, makes so many records, and fails at its first attempt if it should.

    sampled: whether each record is sent to the Pushgateway as well.
    """

    retry = SPARED

    def __init__(
        self, number: int, seconds: float, *, records: int = 0, fails: bool = False, sampled: bool = False
    ) -> None:
        self.number, self.seconds, self.records, self.fails = number, seconds, records, fails
        self.sampled = sampled
        self.tid = f"work-{number}"

    def execute(self) -> str:
        time.sleep(self.seconds)
        if self.fails and self.attempt.number == 1:
            raise OSError("the first attempt fails, as it should")
        for place in range(self.records):
            self.record(DATABASE, DrillRecord, number=self.number, place=place)
            if self.sampled:
                self.record(PUSHGATEWAY, DrillSample, task=self.tid)
        return f"{self.number * 2}"


class Poison(BaseTask):
    """Kills the worker that executes it."""

    retry = _POISONED

    def __init__(self, number: int) -> None:
        self.tid = f"poison-{number}"

    def execute(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Stream(TaskGenerator):
    """Short and long tasks, some that fail once, exclusive ones, some with records, some after others, one poison.

    Which task is of which kind is drawn from the seed and its number, so each life of the generator makes the same ones.
    """

    def __init__(self, config: Ini) -> None:
        super().__init__(config)
        self._seed = config.integer("drill", "seed")
        #: On the boot-time clock.
        self._began = config.seconds("drill", "began")
        self._has_gateway = config.boolean("drill", "gateway")

    def run(self) -> None:
        """As that of every generator, but that one that is told to stop for the calm makes those first that are due."""
        for task in self.generate():
            self.submit(task)
            for result in self.results(timeout=0):
                self.on_result(result)

    def generate(self) -> Iterator[BaseTask]:
        number = 0
        while not self._is_over(number):
            # After a restart those of before come first, without a pause: most are answered at once.
            yield self.task(number)
            number += 1
            if number > PACE * (now() - self._began):
                self.sleep(_SLICE_S)

    def _is_over(self, number: int) -> bool:
        """A life that begins when it is calm already hands in what the former ones have: it wants to hear of it."""
        calm_at = ours().calm_at
        if calm_at is not None:
            return number > PACE * (calm_at - self._began)
        return self.stopping

    def task(self, number: int) -> BaseTask:
        """The task of this number."""
        if number == PACE:
            return Poison(number)
        dice = random.Random(self._seed * 1_000_003 + number)
        short_s = dice.uniform(0.002, 0.05)
        match dice.choices(
            ("short", "long", "fails", "exclusive", "records", "after"), (45, 4, 8, 12, 23, 8)
        )[0]:
            case "long":
                return Work(number, dice.uniform(0.5, 3.0))
            case "fails":
                return Work(number, short_s, fails=True)
            case "exclusive":
                # Some for longer than a lease: they have to be killed by a node that nobody hears of any more.
                lasts_s = (
                    dice.uniform(*_LONGER_THAN_A_LEASE_S) if dice.random() < 0.25 else dice.uniform(0.05, 0.5)
                )
                task = Work(number, lasts_s, records=1)
                task.exclusive = True
                return task
            case "records":
                return Work(number, short_s, records=dice.randint(1, 5), sampled=self._has_gateway)
            case "after":
                task = Work(number, short_s)
                # Of those just before; whichever they are, but for the poison, which never succeeds.
                earlier = {max(0, number - dice.randint(1, 9)) for _ in range(dice.randint(1, 3))}
                task.after = tuple(f"work-{each}" for each in sorted(earlier - {number, PACE}))
                return task
            case _:
                return Work(number, short_s)

    def on_result(self, result: Result) -> None:
        if not result.ok and not result.tid.startswith("poison"):
            self.log.warning("tid=%s ended as %s: %s", result.tid, result.outcome, result.error)
