"""Finds out what has become of records: whether they wait in the spool, are dead letters, or are rows.

A thread of its own, with connections of its own, so that neither those who deliver nor the writer wait for it. It looks
in the order in which a record goes: one that leaves the spool while it looks is found where it has gone.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from cyclone.errors import StoreError
from cyclone.messages import RecordView
from cyclone.record import Record
from cyclone.sinks.dead_letters import Obituaries
from cyclone.sinks.spool import Spool
from cyclone.sinks.sql import UIDS_MOST, Database, DatabaseFailure, Dialect, Table, table_of

log = logging.getLogger(__name__)

#: Whoever asks waits for the answer, so these are as many who ask at the same time.
_QUESTIONS_MOST = 16


class Traced(NamedTuple):
    """What is known of some records; see `RecordsKnown`."""

    records: list[RecordView]
    trouble: str = ""
    keeps: bool = True


#: Is told the answer; in any thread.
Answer = Callable[[Traced], None]


class Inquiry:
    """Owns the thread, and the questions that it has not answered yet."""

    def __init__(
        self,
        spool: Spool,
        kinds: Iterable[type[Record]],
        dialect: Dialect,
        dead_letters: str | Path,
    ) -> None:
        """Opens nothing before it is asked for the first time. spool: is open for as long as this is."""
        self._spool = spool
        self._tables = list({table.name: table for table in map(table_of, kinds)}.values())
        self._database = Database(dialect)
        self._obituaries = Obituaries(dead_letters)
        self._questions: queue.Queue[tuple[Sequence[bytes], Answer] | None] = queue.Queue(_QUESTIONS_MOST)
        # A daemon, for a database that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="inquiry", daemon=True)

    def ask(self, uids: Sequence[bytes], answer: Answer) -> None:
        """Never blocks; the answer comes when it is there."""
        if self._thread.ident is None:
            self._thread.start()
        try:
            self._questions.put_nowait((uids, answer))
        except queue.Full:
            answer(_untold(uids, f"{_QUESTIONS_MOST} questions wait for the database already"))

    def stop(self, timeout_s: float) -> None:
        """What is asked already is answered, if that takes no longer."""
        if self._thread.ident is not None:
            try:
                self._questions.put(None, timeout=timeout_s)
            except queue.Full:
                return
            self._thread.join(timeout_s)

    def _run(self) -> None:
        spool: Spool | None = None
        try:
            while (question := self._questions.get()) is not None:
                uids, answer = question
                try:
                    spool = spool or self._spool.another()
                    traced = self._trace(spool, uids)
                except StoreError as error:
                    traced = _untold(uids, str(error))
                except Exception as error:
                    log.exception("fault of the inquiry")
                    traced = _untold(uids, f"{type(error).__name__}: {error}")
                # The connection is not kept for whoever may ask tomorrow.
                if self._questions.empty():
                    self._database.close()
                answer(traced)
        finally:
            self._database.close()
            if spool is not None:
                spool.close()

    def _trace(self, spool: Spool, uids: Sequence[bytes]) -> Traced:
        lists = [uids[start : start + UIDS_MOST] for start in range(0, len(uids), UIDS_MOST)]
        waiting = {uid for some in lists for uid in spool.holds(some)}
        refused = self._obituaries.known()
        rows: Counter[bytes] = Counter()
        trouble = ""
        try:
            for table in self._tables:
                for some in lists:
                    rows += self._rows(table, some)
        except DatabaseFailure as failure:
            trouble = str(failure)
        return Traced([RecordView(rows[uid], uid in waiting, uid in refused) for uid in uids], trouble)

    def _rows(self, table: Table, uids: Sequence[bytes]) -> Counter[bytes]:
        return self._database.ask(lambda connection: connection.holds(table, uids))


def _untold(uids: Sequence[bytes], trouble: str) -> Traced:
    return Traced([RecordView()] * len(uids), trouble)
