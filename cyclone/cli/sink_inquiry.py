"""Asks sinks what has become of the records of tasks, while a store is audited and a little longer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from cyclone.client import Client
from cyclone.clock import monotonic
from cyclone.core.audit import Findings, Sent
from cyclone.core.trail import BATCH, Traced, Trail
from cyclone.errors import MasterUnreachable, Refusal, RuleBroken
from cyclone.messages import AskRecords, RecordsKnown, RecordView
from cyclone.model.audit import Audit, RecordSum
from cyclone.settings import SinkAddress

#: A database may take so long for one question. A sink that did not answer in time is not asked any more.
ANSWER_S = 60.0

#: … and a sink that is there for this one.
CONNECT_S = 10.0

#: What is on its way is asked for again so often.
AGAIN_S = 0.5

#: `{sink: how many of its records wait at controllers}`; None if nobody can tell.
Spools = Callable[[], Mapping[str, int] | None]


class SinkInquiry:
    """Owns the connections to sinks, and the trail of records to each name.

    sinks: by name; controllers may have several of one name between them. connect: may raise CycloneError.
    patience_s: after so long what waits at controllers is known to `spools`, and was delivered or not.
    """

    def __init__(
        self,
        sinks: Mapping[str, Sequence[SinkAddress]],
        connect: Callable[[SinkAddress], Client],
        spools: Spools,
        patience_s: float,
        answer_s: float = ANSWER_S,
    ) -> None:
        self._sinks = sinks
        self._connect = connect
        self._spools = spools
        self._patience_s = patience_s
        self._answer_s = answer_s
        self._findings = Findings()
        self._trails: dict[str, Trail] = {}
        self._clients: dict[SinkAddress, Client] = {}
        self._away: dict[SinkAddress, str] = {}

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def begin(self, findings: Findings) -> None:
        """A store is about to be read. findings: where those about records belong."""
        self._findings, self._trails = findings, {}

    def recorded(self, sent: Sent) -> None:
        """Follow the records of a task. See `core.audit.audit`."""
        place = 0
        for sink, count in sent.runs:
            if (trail := self._trails.get(sink)) is None:
                trail = self._trails[sink] = Trail(RecordSum(sink), self._findings)
            # Not all at once: a number in a damaged store may be a large one.
            for start in range(place, place + count, BATCH):
                trail.add(sent, range(start, min(start + BATCH, place + count)))
                while trail.is_full:
                    self._ask(sink, trail)
            place += count

    def settle(self, audit: Audit) -> None:
        """Ask for the rest, and again for what is on its way; write the sums into the report."""
        deadline = monotonic() + self._patience_s
        for sink, trail in self._trails.items():
            while trail.due:
                self._ask(sink, trail)
        waiting = self._spools() if self._has_unknown() else {}
        while waiting is not None and self._has_unknown() and (left_s := deadline - monotonic()) > 0:
            time.sleep(min(AGAIN_S, left_s))
            # Before the sinks are asked, or what arrives in between would be nowhere.
            waiting = self._spools()
            for sink, trail in self._trails.items():
                self._ask_again(sink, trail)
        where = "at a controller" if waiting is not None else "known to wait elsewhere: no master tells"
        for sums in audit.records:
            trail = self._trails[sums.sink]
            trail.settle((waiting or {}).get(sums.sink, 0), where)
            trail.sums.sent = sums.sent
        audit.records = [self._trails[sums.sink].sums for sums in audit.records]

    def _has_unknown(self) -> bool:
        return any(trail.unknown for trail in self._trails.values())

    def _ask(self, sink: str, trail: Trail) -> None:
        trail.answered(self._answers(sink, trail.due[:BATCH]))

    def _ask_again(self, sink: str, trail: Trail) -> None:
        unknown = trail.unknown
        for start in range(0, len(unknown), BATCH):
            some = unknown[start : start + BATCH]
            trail.answered_again(some, self._answers(sink, some))

    def _answers(self, sink: str, records: Sequence[Traced]) -> list[RecordsKnown]:
        uids = [record.key for record in records]
        addresses = self._sinks.get(sink, ())
        if not addresses:
            return [_untold(uids, f"no sink {sink!r} in [sinks] of the ini files that were named")]
        return [self._answer(address, uids) for address in addresses]

    def _answer(self, address: SinkAddress, uids: list[bytes]) -> RecordsKnown:
        if address in self._away:
            return _untold(uids, self._away[address])
        try:
            if address not in self._clients:
                client = self._clients[address] = self._connect(address)
                # About nothing at all, which needs no database: is anybody there?
                client.ask(AskRecords(0, []), timeout_s=CONNECT_S)
            reply = self._clients[address].ask(AskRecords(0, uids), timeout_s=self._answer_s)
        except (MasterUnreachable, Refusal) as error:
            self._away[address] = str(error)
            return _untold(uids, str(error))
        if not isinstance(reply, RecordsKnown) or (reply.keeps and len(reply.records) != len(uids)):
            raise RuleBroken(f"the sink {address.name} answered with {type(reply).__name__}")
        return reply


def _untold(uids: Sequence[bytes], trouble: str) -> RecordsKnown:
    return RecordsKnown(0, [RecordView()] * len(uids), trouble)
