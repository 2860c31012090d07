"""Connects those who ask for a command of a generator with the client that works on its job.

Nothing of it is remembered: whoever gets no answer asks again, and a command means the same when it comes twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from cyclone.core.decision import Letter
from cyclone.core.live import TEXT_MOST, Job
from cyclone.messages import AskGenerator, Command, CommandDone, GeneratorAnswer, Refused
from cyclone.model.peer import Peer
from cyclone.model.task import JobNumber

#: A generator looks for commands between tasks; one that does not for so long is busy with something else.
PATIENCE_S = 20.0

#: So many may wait at the same time.
WAITING_MOST = 1000

#: So many jobs are named to somebody who has named none.
NAMED_MOST = 20


class _Call(NamedTuple):
    asker: Peer
    request: int
    until: float
    client: Peer


class Switchboard:
    """Owns who waits for which answer, oldest first."""

    def __init__(self) -> None:
        self._calls: dict[int, _Call] = {}
        self._number = 0

    def ask(
        self, sender: Peer, message: AskGenerator, jobs: Mapping[JobNumber, Job], now: float
    ) -> list[Letter]:
        """Pass a command on. jobs: the open ones."""
        found = [job for job in jobs.values() if job.client is not None and message.job in ("", job.name)]
        if len(found) != 1:
            return [Letter(sender, Refused(_why_not(message.job, found, jobs), message.request))]
        if len(self._calls) >= WAITING_MOST:
            return [Letter(sender, Refused("too many commands wait for an answer already", message.request))]
        client = found[0].client
        assert client is not None
        self._number += 1
        self._calls[self._number] = _Call(sender, message.request, now + PATIENCE_S, client)
        return [Letter(client, Command(self._number, message.command, message.arguments))]

    def done(self, sender: Peer, message: CommandDone) -> list[Letter]:
        """Pass an answer back, if it comes from whom was asked."""
        call = self._calls.get(message.number)
        if call is None or call.client != sender:
            return []
        del self._calls[message.number]
        if message.problem:
            return [Letter(call.asker, Refused(message.problem, call.request))]
        return [Letter(call.asker, GeneratorAnswer(call.request, message.answer))]

    def tick(self, now: float) -> list[Letter]:
        """Tell those who have waited long enough."""
        if not self._calls:
            return []
        late = [number for number, call in self._calls.items() if now >= call.until]
        calls = [self._calls.pop(number) for number in late]
        reason = f"the generator did not answer within {PATIENCE_S:g} s"
        return [Letter(call.asker, Refused(reason, call.request)) for call in calls]

    def next_moment(self) -> float | None:
        """When `tick` has something to do, monotonic; None if never."""
        return next(iter(self._calls.values())).until if self._calls else None


def _why_not(name: str, found: list[Job], jobs: Mapping[JobNumber, Job]) -> str:
    if found:
        names = sorted({job.name for job in found})
        more = f" and {len(names) - NAMED_MOST} more" if len(names) > NAMED_MOST else ""
        return f"several jobs have a generator, name one of them: {', '.join(names[:NAMED_MOST])}{more}"
    if name and any(job.name == name for job in jobs.values()):
        return f"nobody works on the job {name!r} at the moment"
    return f"no open job {name[:TEXT_MOST]!r}" if name else "no generator is there"
