"""Moves records from a spool into a database, in a thread of its own.

An entry leaves the spool when the database has committed its row, or when it lies among the dead letters; whatever
fails in between, it is tried again. Its uid keeps it from being in the database twice; among the dead letters it may be
twice, if the writer was killed before the spool had forgotten it.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from cyclone.clock import monotonic
from cyclone.errors import RecordError, StoreError
from cyclone.messages import Entry
from cyclone.record import Record
from cyclone.sinks import legacy
from cyclone.sinks.batch import RETRY_MAX_S, Batching, BatchRule, Health, Portion
from cyclone.sinks.dead_letters import DeadLetters, sift
from cyclone.sinks.spool import Spool
from cyclone.sinks.sql import (
    ROWS_MAX,
    Database,
    DatabaseFailure,
    Dialect,
    Failure,
    Row,
    Table,
    row_of,
    table_of,
)

log = logging.getLogger(__name__)

#: Nobody is bothered by a look at the local disk.
_DISK_RETRY_S = 5.0


@dataclass(frozen=True)
class Figures:
    """How a writer does: counts since it was started, what waits, and its health.

    last_success: Unix time of the last commit, 0 if there was none; batch_s: how long that took.
    oldest_at: when the first of what waits was recorded, Unix time; 0 if nothing waits.
    unwritten: dead letters that were not written, see `DeadLetters`.
    reason: why the health is not ok.
    """

    stored: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    unwritten: int = 0
    spool_entries: int = 0
    spool_bytes: int = 0
    oldest_at: float = 0.0
    last_success: float = 0.0
    batch_s: float = 0.0
    health: Health = Health.OK
    reason: str = ""


class _Waiting(NamedTuple):
    seq: int
    entry: Entry
    row: Row


class Writer:
    """The thread, its connections, and the figures. It alone deletes entries of its sink from the spool."""

    def __init__(
        self,
        spool: Spool,
        sink: str,
        kinds: Mapping[str, type[Record]],
        dialect: Dialect,
        dead_letters: DeadLetters,
        rule: BatchRule | None = None,
        *,
        clock: Callable[[], float] = monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Connect to the spool, but to nothing else yet: `start` does.

        spool: is open for as long as this is. sink: the name under which entries are in it; kinds: `{name: kind}`.
        Raises what `Spool` raises; RuleBroken: a kind that is not sound.
        """
        self._sink = sink
        self._kinds = {name: (kind, table_of(kind)) for name, kind in kinds.items()}
        self._database = Database(dialect, clock)
        self._dead_letters = dead_letters
        rule = rule or BatchRule()
        self._batching = Batching(rule)
        self._portion = Portion(min(ROWS_MAX, rule.count))
        self._clock = clock
        self._jitter = jitter
        self._figures = Figures()
        # What was read from the spool up to here and is still there is held: its kind waits for somebody.
        self._came_to = 0
        self._held_entries = 0
        self._held_kinds: dict[str, str] = {}
        self._news = threading.Condition()
        self._is_woken = self._is_asked = self._is_stopping = False
        self._gives_up_at = math.inf
        self._spool = spool.another()
        # A daemon, for a database that hangs must not keep the process from ending: the spool has everything.
        self._thread = threading.Thread(target=self._run, name=f"writer of {sink}", daemon=True)

    @property
    def figures(self) -> Figures:
        """As of the last thing that happened; for any thread."""
        return self._figures

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Something was appended to the spool."""
        with self._news:
            self._is_woken = True
            self._news.notify()

    def flush(self) -> None:
        """Move everything now, however little it is, and try again what is held."""
        with self._news:
            self._is_asked = True
            self._news.notify()

    def stop(self, timeout_s: float) -> bool:
        """Move what is left, if the database takes it, and end. Returns whether the thread has ended by then."""
        if self._thread.ident is None:
            self._spool.close()
            return True
        with self._news:
            self._gives_up_at = self._clock() + timeout_s
            self._is_stopping = True
            self._news.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # The thread.

    def _run(self) -> None:
        try:
            self._try_database()
            while not self._is_stopping:
                self._step()
                self._sleep()
            self._batching.ask()
            self._step()
        finally:
            self._database.close()
            self._spool.close()

    def _try_database(self) -> None:
        """Who has just started a daemon looks at its log, and may not when the first entry comes."""
        try:
            self._database.open()
        except DatabaseFailure as failure:
            log.warning("the database cannot be used yet sink=%s reason=%s", self._sink, failure)

    def _sleep(self) -> None:
        """Until something is due or somebody says something."""
        with self._news:
            if not (self._is_woken or self._is_asked or self._is_stopping):
                pause_s = self._batching.due() - self._clock()
                if pause_s > 0:
                    self._news.wait(min(pause_s, threading.TIMEOUT_MAX))
            if self._is_asked:
                self._batching.ask()
            self._is_woken = self._is_asked = False

    def _step(self) -> None:
        """Move what waits, if it is due. The only place that catches everything: no fault may end the thread."""
        try:
            waiting = self._look()
            if self._batching.due() <= self._clock():
                self._move(waiting)
        except DatabaseFailure as failure:
            self._failed(str(failure), to_mend=failure.failure is not Failure.TRANSIENT)
        except StoreError as error:
            self._failed(str(error), to_mend=False, longest_s=_DISK_RETRY_S)
        except Exception as error:
            log.exception("fault of the writer sink=%s", self._sink)
            self._failed(f"{type(error).__name__}: {error}", to_mend=True)
        self._figures = replace(self._figures, health=self._batching.health, reason=self._batching.reason)

    def _look(self) -> int:
        """How many entries wait."""
        entries, size, oldest_at = self._spool.fill().get(self._sink, (0, 0, 0.0))
        self._figures = replace(self._figures, spool_entries=entries, spool_bytes=size, oldest_at=oldest_at)
        waiting = max(0, entries - self._held_entries)
        self._batching.saw(waiting, self._clock())
        return waiting

    def _move(self, waiting: int) -> None:
        """Move so many entries, and those that are held if it is time for them."""
        began = self._clock()
        if self._batching.look_at <= began:
            waiting += self._held_entries
            self._came_to, self._held_entries, self._held_kinds = 0, 0, {}
        while waiting > 0 and not (self._is_stopping and self._clock() >= self._gives_up_at):
            bytes_max = self._database.open()
            rows = self._spool.read(self._sink, self._came_to, self._portion.rows, bytes_max)
            if not rows:
                # The file was set aside, or mended: what is held may lie elsewhere, and is counted anew as well.
                self._came_to, self._held_entries = 0, 0
                break
            self._move_rows(rows)
            waiting -= len(rows)
        left, health = self._look(), self._batching.health
        if self._held_kinds:
            reason = "; ".join(f"{kind}: {why}" for kind, why in sorted(self._held_kinds.items()))
            self._batching.held(left, began, self._clock(), reason)
            return
        # All of it is gone; whatever comes is looked for from the beginning.
        self._came_to = 0
        self._batching.moved(left, began)
        if health is not Health.OK:
            log.info("the database takes entries again sink=%s", self._sink)

    def _move_rows(self, rows: Sequence[tuple[int, Entry]]) -> None:
        groups: dict[str, list[_Waiting]] = {}
        dead: list[tuple[_Waiting, str]] = []
        held = 0
        for seq, entry in rows:
            # Not even read: there may be millions of them, and each is looked at again and again.
            if entry.kind in self._held_kinds:
                held += 1
                continue
            if entry.kind == legacy.UNREAD:
                dead.append((_Waiting(seq, entry, ()), legacy.why_unread(entry.body)))
                continue
            kind = self._kinds.get(entry.kind)
            if kind is None:
                dead.append((_Waiting(seq, entry, ()), f"no kind {entry.kind!r} is known here"))
                continue
            try:
                groups.setdefault(entry.kind, []).append(_Waiting(seq, entry, row_of(kind[0], entry)))
            except RecordError as error:
                dead.append((_Waiting(seq, entry, ()), str(error)))
        if dead:
            self._bury(dead)
        for name, group in groups.items():
            held += self._insert(name, group)
        self._held_entries += held
        self._came_to = rows[-1][0]

    def _insert(self, name: str, group: Sequence[_Waiting]) -> int:
        """Move rows of one kind. Returns how many are held, because their table is not as it must be."""
        table = self._kinds[name][1]
        left = len(group)
        dead: list[tuple[_Waiting, str]] = []
        try:
            for settled in sift(group, lambda some: self._commit(table, some)):
                if settled.reason:
                    dead += [(each, settled.reason) for each in settled.rows]
                else:
                    self._spool.delete(each.seq for each in settled.rows)
                left -= len(settled.rows)
        except DatabaseFailure as failure:
            if failure.failure is not Failure.CONFIGURATION:
                raise
            log.error("entries are held until somebody mends it kind=%s reason=%s", name, failure)
            self._held_kinds[name] = str(failure)
        finally:
            if dead:
                self._bury(dead)
        return left

    def _commit(self, table: Table, some: Sequence[_Waiting]) -> int:
        began = self._clock()
        try:
            new = self._database.insert(table, [each.row for each in some])
        except DatabaseFailure as failure:
            if failure.failure is Failure.TRANSIENT:
                self._portion.failed(len(some), self._clock() - began)
            raise
        self._portion.succeeded(len(some))
        self._figures = replace(
            self._figures,
            stored=self._figures.stored + new,
            duplicates=self._figures.duplicates + len(some) - new,
            last_success=time.time(),
            batch_s=self._clock() - began,
        )
        return new

    def _bury(self, dead: Sequence[tuple[_Waiting, str]]) -> None:
        self._dead_letters.append([(each.entry, reason) for each, reason in dead], time.time())
        self._spool.delete(each.seq for each, _ in dead)
        self._figures = replace(
            self._figures,
            dead_letters=self._figures.dead_letters + len(dead),
            unwritten=self._dead_letters.unwritten,
        )
        (first, reason), kinds = dead[0], sorted({each.entry.kind for each, _ in dead})
        log.warning(
            "entries refused count=%d kinds=%s file=%s unwritten=%d; the first: tid=%s reason=%s",
            len(dead), ",".join(kinds), self._dead_letters.path, self._figures.unwritten, first.entry.tid, reason,
        )  # fmt: skip

    def _failed(self, reason: str, *, to_mend: bool, longest_s: float = RETRY_MAX_S) -> None:
        self._batching.failed(self._clock(), reason, self._jitter(), to_mend=to_mend, longest_s=longest_s)
        pause_s = max(0.0, self._batching.due() - self._clock())
        if to_mend:
            log.error("entries are kept until somebody mends it sink=%s reason=%s", self._sink, reason)
        else:
            log.warning("entries are kept sink=%s next_try_s=%.0f reason=%s", self._sink, pause_s, reason)
