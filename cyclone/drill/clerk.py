"""A client that hands in tasks of its own, and never again once the master has said that it has accepted them.

Generators hand in everything again when a master starts anew, and would cover up for one that has forgotten what it had
promised. So somebody has to believe it at its word.
"""

from __future__ import annotations

import pickle

from cyclone.drill.notes import Given
from cyclone.drill.witness import Witness, WitnessedTask, now
from cyclone.drill.work import SPARED, Work
from cyclone.messages import Accepted, Close, Message, Open, Opened, Refused, Submission, Submit
from cyclone.model.task import Policy
from cyclone.wire.line import Line

JOB = "clerk"
#: Of what it has said and had no answer to; and between two batches.
_AGAIN_S = 1.0
_BATCH = 3


class Clerk:
    """Owns its line and the one request that it waits for an answer to."""

    def __init__(self, line: Line, witness: Witness) -> None:
        self._line, self._witness = line, witness
        self._job = 0
        self._handed = 0
        self._request = 0
        self._tids: list[str] = []  # of the request that is open
        self._close_request = 0
        self._closing = self.is_done = False
        self._said_at = self._beat_at = -_AGAIN_S

    def calm(self) -> None:
        """Hand in no more, and close the job as soon as all is accepted."""
        self._closing = True

    def tick(self, moment: float) -> None:
        """moment: monotonic seconds. Never blocks."""
        for message, _ in self._line.receive():
            self._hear(message)
        if self._line.refused_reason is not None:
            self._line.reconnect()
        if self.is_done or not self._line.connected:
            return
        if moment - self._beat_at >= _AGAIN_S:
            self._beat_at = moment
            self._line.say(Open(JOB, self._job))
        if self._job and moment - self._said_at >= _AGAIN_S:
            self._said_at = moment
            self._say()

    def close(self) -> None:
        self._line.close()

    def _say(self) -> None:
        if not self._tids and self._closing:
            self._close_request = self._close_request or self._request + 1
            self._line.say(Close(self._close_request, self._job))
            return
        if not self._tids:
            self._request += 1
            self._tids = [f"given-{self._handed + number}" for number in range(_BATCH)]
            self._handed += _BATCH
        tasks = [_task(tid) for tid in self._tids]
        policy = Policy(kind=f"{WitnessedTask.__module__}.{WitnessedTask.__qualname__}", retry=SPARED)
        submissions = [Submission(tid, 0) for tid in self._tids]
        self._line.say(Submit(self._request, self._job, [policy], submissions), tasks)

    def _hear(self, message: Message) -> None:
        match message:
            case Opened(name=name, job=job) if name == JOB:
                self._job = job
            case Accepted(requests=requests) if self._request in requests and self._tids:
                for tid in self._tids:
                    self._witness.note(Given(now(), tid))
                self._tids = []
            case Accepted(requests=requests) if self._close_request and self._close_request in requests:
                self.is_done = True
            case Refused() if self._close_request:
                # The job is not open any more: it was closed, and the answer that said so got lost.
                self.is_done = True


def _task(tid: str) -> bytes:
    task = Work(0, 0.01)
    task.tid = tid
    return pickle.dumps(WitnessedTask(task))
