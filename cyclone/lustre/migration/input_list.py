"""A list that is being worked on: its entries, what has been done of them, and what is noted of that.

Whatever is killed at any moment: the list is found again by its journal, and goes on where it was. Its tasks that were in
flight are known by number, try and target, so they are handed in again exactly as they were.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from cyclone.errors import CycloneError
from cyclone.generators.files import replacing
from cyclone.lustre.migration.away import Away
from cyclone.lustre.migration.entry import Entry, EntryId
from cyclone.lustre.migration.index import Cancelled, Index, discard, index, no_index, opened
from cyclone.lustre.migration.journal import (
    NEVER_TRIED,
    Final,
    Flight,
    Head,
    Journal,
    JournalDamaged,
    Past,
    flights_of,
    read_head,
    read_lines,
    write_out,
)
from cyclone.lustre.migration.lines import Rejected, Rules, read_record, trimmed
from cyclone.lustre.migration.names import RETRYABLE, ListFiles, fed_back
from cyclone.lustre.migration.verdict import FileState, Report

log = logging.getLogger(__name__)

_LOOK_EVERY = 1 << 14


class ListChanged(CycloneError):
    """A list was changed, or renamed, while it was read."""


class Loaded(NamedTuple):
    """A list that has been read.

    identity: when that began, of a list that nobody has taken. stamp: then; head, past: of its journal, if it has one.
    was_changed: since it was taken; then these are its tasks in flight only.
    """

    files: ListFiles
    found: Index
    identity: tuple[int, ...] = ()
    stamp: tuple[int, int] | None = None
    head: Head | None = None
    past: Past | None = None
    was_changed: bool = False


class InputList:
    """A list that is being worked on. Owns its journal, its index and its lists of retryable entries.

    id: names it in this life. was_changed: after it was taken, whatever it is now. Nothing more comes of it then, and it is
    given back when nothing of it is out, to be read again.
    results: `{state: how many}`; sizes: `{state: bytes}`. journal: None in a dry run.
    """

    def __init__(self, loaded: Loaded, rules: Rules, head: Head, journal: Journal | None, past: Past) -> None:
        index = loaded.found
        self.files = loaded.files
        self.id = head.id
        self.was_changed = loaded.was_changed
        self.rejected = index.rejected
        self.entries = index.entries
        self.results, self.sizes = past.results, past.sizes
        self._index = index
        self._head = head
        self._rules = rules
        self._journal = journal
        self._past = past
        self._left = Counter(index.lengths())
        self._left.subtract(past.ended)
        self._retryable: dict[FileState, bytearray] = {}  # records that are not yet in its file
        self._away: Away | None = None
        self._adopted = frozenset(past.flights)
        # `{source: entries that were taken, have no result, and are not kept here}`
        self._out = Counter(flight.source for flight in past.flights.values())

    @property
    def left(self) -> int:
        """Entries without a result."""
        return self.entries - self._past.finals.count

    @property
    def is_over(self) -> bool:
        """Is no entry of it out, and will none be any more?"""
        return not self._out.total() and (self.was_changed or not self.left)

    def left_by_source(self) -> Counter[int]:
        """`{source: entries that may get a result}`"""
        return +(self._out if self.was_changed else self._left)

    def flights(self) -> list[tuple[Entry, int]]:
        """Entries with their targets whose tasks were in flight when the former life ended."""
        found = []
        for number, flight in sorted(self._past.flights.items()):
            entry = self._entry(number, flight.offset, flight.source)
            entry.path = entry.key = flight.path
            entry.tries = flight.tries
            found.append((entry, flight.target))
        self._past.flights.clear()
        return found

    def take(self, source: int, most: int, now: float) -> list[Entry]:
        """The oldest entries of a source that have not been taken, then those whose next try is due. Raises OSError."""
        if self.was_changed:
            return []
        taken: list[Entry] = []
        while len(taken) < most and (elements := self._index.take(source, most - len(taken))):
            taken += [
                self._entry(number, offset, source) for number, offset in elements
                if number not in self._past.finals and number not in self._adopted
            ]  # fmt: skip
        if self._away is not None and len(taken) < most:
            taken += [
                Entry(EntryId(self.id, number), offset, source, b"", tries=tries, billed=billed)
                for number, offset, tries, billed in self._away.take(source, most - len(taken), now)
            ]
        if taken:
            self._give_paths(taken)
        if self.was_changed:
            return []
        self._out[source] += len(taken)
        return taken

    def _entry(self, number: int, offset: int, source: int) -> Entry:
        """As the former life has left it, but for its path."""
        tries, billed = self._past.retries.pop(number, NEVER_TRIED)
        return Entry(EntryId(self.id, number), offset, source, b"", tries=tries, billed=billed)

    def has_more(self, source: int, now: float) -> bool:
        """Would `take` give any?"""
        if self.was_changed:
            return False
        return self._index.length(source) > 0 or (self._away is not None and self._away.has_due(source, now))

    def put_away(self, entry: Entry, until: float) -> None:
        """Keep an entry until it may be taken once more, after all others."""
        if self._away is None:
            self._away = Away(self.files.base.parent)
        self._away.put(entry, until)
        self._out[entry.source] -= 1

    @property
    def away(self) -> int:
        """How many entries are kept so."""
        return 0 if self._away is None else self._away.count

    # What happens to an entry.

    def on_started(self, entry: Entry, target: int) -> None:
        if self._journal is not None:
            flight = Flight(entry.offset, entry.tries, target, entry.source, entry.path)
            self._journal.started(entry.id.number, flight)

    def on_retry(self, entry: Entry) -> None:
        if self._journal is not None:
            self._journal.retried(entry.id.number, entry.billed)

    def on_final(self, entry: Entry, report: Report) -> bool:
        """The entry has its result. False if it had one already: then nothing is noted."""
        if not self._past.finals.add(entry.id.number):
            return False
        self.results[report.state] += 1
        self.sizes[report.state] += report.size
        self._left[entry.source] -= 1
        self._out[entry.source] -= 1
        if self._journal is not None:
            if report.state in RETRYABLE:
                records = self._retryable.setdefault(report.state, bytearray())
                records += b"%d %s%s" % (entry.source, entry.path, self.files.separator)
            self._journal.final(
                Final(
                    entry.id.number, entry.source, report.state, report.size, report.actual, entry.offset,
                    report.reason,
                )
            )  # fmt: skip
        return True

    def flush(self) -> None:
        """What was noted outlives this process from here on. Raises OSError."""
        for state, records in self._retryable.items():
            if records:
                # Not kept open: whoever has renamed it meanwhile would find more in it than he looked at.
                with _appending(self.files.retryable(state)) as descriptor:
                    write_out(descriptor, records)
        if self._journal is not None:
            self._journal.flush()

    def feed_back(self, state: FileState) -> Path | None:
        """Make the entries with this result a new list that waits to be taken; None if there are none."""
        self.flush()
        retryable = self.files.retryable(state)
        if not retryable.exists():
            return None
        to = fed_back(retryable)
        # In this order: a crash between the two makes them a list once more, which does no harm.
        retryable.rename(to)
        if self._journal is not None:
            self._journal.fed_back(state)
            self._journal.flush()
        return to

    def finish(self, *, keep_journal: bool) -> None:
        """It is over, and what came of it is on disk when this returns. Raises OSError.

        A list that was changed after it was taken is given back, to be read again as it is now; where there is another one
        of its name by now, that is up to the next life.
        """
        files = self.files
        listed = files.base if self._journal is None else files.active
        self.was_changed = self.was_changed or is_another(listed, self._head, self._rules)
        if self._journal is not None:
            self.flush()
            for file in filter(Path.exists, map(files.retryable, RETRYABLE)):
                with opened(file) as descriptor:
                    os.fsync(descriptor)
            self._journal.sync()
            if self.was_changed and not files.active.exists():
                # It was called done when it was read, and may have been taken away since.
                for file in [file for file in (files.plain, files.done) if file.exists()]:
                    file.replace(files.active)
        discard(files.index, files.plain, files.draft)
        if self._journal is not None:
            if files.active.exists():
                if not self.was_changed:
                    files.active.rename(files.done)
                elif not files.base.exists():
                    files.active.rename(files.base)
            # Last: by the journal a list is found again whose end was cut short.
            if keep_journal and files.journal.exists():
                files.journal.rename(files.audit)
            discard(files.journal)
        # Whoever had to wait for room on the way calls this again.
        self.close()

    def close(self) -> None:
        """Give back what is open; the list goes on in another life."""
        if self._away is not None:
            self._away.close()
        if self._journal is not None:
            self._journal.close()

    # Records.

    def _give_paths(self, entries: list[Entry]) -> None:
        """Give the entries their paths, which are theirs only if the list is not known to have changed after that."""
        separator = self.files.separator
        with opened(self._index.content) as descriptor:
            try:
                for entry in entries:
                    record = trimmed(read_record(descriptor, entry.offset, separator), separator)
                    ost, entry.path = self._rules.parse(record)
                    entry.key = entry.path
                    if ost != entry.source:
                        raise Rejected("stands for another OST now")
            except Rejected as problem:
                log.debug("not what it was list=%s record=%s", self.files.name, problem)
                self.was_changed = True
            # Last, for then also what was written while they were read is known by its time.
            if not self._index.is_of(os.fstat(descriptor), self._rules):
                self.was_changed = True


@contextmanager
def _appending(file: Path) -> Iterator[int]:
    """A descriptor by which to write to the end of a file, which is made if it is missing."""
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


# Reading, which takes long and may be done in another thread.


def load(
    base: Path, rules: Rules, is_wanted: Callable[[], bool] = lambda: True, *, in_copy: bool = False
) -> Loaded:
    """Read a list that nobody has taken. Raises Unreadable, Cancelled, ListChanged, OSError.

    in_copy: what becomes of the list is not up to us, so a copy is made of its records.
    """
    files = ListFiles.new(base)
    identity = identity_of(base)
    discard(files.index, files.plain, files.draft)
    return Loaded(files, index(files, rules, is_wanted, in_copy=in_copy), identity, stamp_of(base))


def load_again(
    base: Path, rules: Rules, is_wanted: Callable[[], bool] = lambda: True, *, in_copy: bool = False
) -> Loaded:
    """Read a list that was taken in a former life, and its journal. Raises Unreadable, Cancelled, OSError.

    in_copy: see `load`.
    Of one that was changed or taken away meanwhile there is no more than its tasks in flight, if it has any: what is there
    of its name is read when they have ended, for no file must be moved by two tasks at once.
    """
    files = ListFiles(base)
    head = _head_of(files)
    if head is not None and (is_another(files.active, head, rules) or _is_gone(ListFiles(base, head.suffix))):
        flights = flights_of(files.journal)
        if flights:
            return _load_flights(ListFiles(base, head.suffix), head, flights)
        _start_anew(files, f"{files.active} was changed, or fs_path is another one")
        head = None
    if head is None:
        files = ListFiles.new(base)
        stamp = stamp_of(files.active)
        if stamp is not None:
            # Made of the list as it was; of one that was called done at once nothing else is left.
            discard(files.index, files.plain, files.draft)
        return Loaded(files, index(files, rules, is_wanted, in_copy=in_copy), stamp=stamp)
    files = ListFiles(base, head.suffix)
    found = index(files, rules, is_wanted, in_copy=in_copy)
    past = _replay(files, found, is_wanted)
    if past.nonsense:
        log.warning("lines of the journal make no sense list=%s lines=%d", files.name, past.nonsense)
    return Loaded(files, found, head=head, past=past)


def _is_gone(files: ListFiles) -> bool:
    return not any(file.exists() for file in (files.active, files.done, files.plain))


def _head_of(files: ListFiles) -> Head | None:
    try:
        return read_head(files.journal)
    except FileNotFoundError:
        log.warning("no journal is left: every entry is looked at again journal=%s", files.journal)
        return None
    except JournalDamaged as error:
        _start_anew(files, str(error))
        return None


def _start_anew(files: ListFiles, reason: str) -> None:
    aside = set_aside(files.journal)
    log.error("every entry is looked at again, the journal is set aside reason=%s as=%s", reason, aside)


def _load_flights(files: ListFiles, head: Head, flights: dict[int, Flight]) -> Loaded:
    log.error(
        "a list was changed or taken away, or fs_path is another one; what is there is read when its tasks in flight have "
        "ended list=%s in_flight=%d",
        files.name, len(flights),
    )  # fmt: skip
    past = Past(max(flights) + 1)
    past.flights.update(flights)
    return Loaded(files, no_index(files, len(flights)), head=head, past=past, was_changed=True)


def set_aside(journal: Path) -> Path:
    """Give it another name besides: until there is a new one the list may be found by it only."""
    aside = journal.with_name(f"{journal.name}.aside")
    discard(aside)
    os.link(journal, aside)
    return aside


def _replay(files: ListFiles, found: Index, is_wanted: Callable[[], bool]) -> Past:
    """What the journal tells. The lists of retryable entries are written anew from it: they hold neither more nor less."""
    past = Past(found.records)
    with opened(found.content) as content, ExitStack() as open_files:
        streams: dict[FileState, IO[bytes]] = {}

        def on_final(final: Final) -> None:
            if final.state in RETRYABLE:
                if final.state not in streams:
                    to = files.retryable(final.state)
                    streams[final.state] = open_files.enter_context(replacing(to))
                record = read_record(content, final.offset, files.separator)
                streams[final.state].write(record + files.separator)

        def on_fed(state: FileState) -> None:
            if state in streams:
                streams[state].seek(0)
                streams[state].truncate()

        for number, line in enumerate(read_lines(files.journal)):
            past.add(line, on_final, on_fed)
            if number % _LOOK_EVERY == 0 and not is_wanted():
                raise Cancelled(f"{files.base}: not wanted any more")
        empty = [state for state in RETRYABLE if state not in streams or not streams[state].tell()]
    discard(*(files.retryable(state) for state in empty))
    return past


def identity_of(file: Path) -> tuple[int, ...]:
    """Changes with the file."""
    try:
        status = file.stat()
    except OSError as error:
        raise ListChanged(f"{file}: {error.strerror}") from None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def stamp_of(file: Path) -> tuple[int, int] | None:
    """Changes with the content of a file, not with its name: size, and when it was written to; None if it is not there."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns


def is_another(list_file: Path, head: Head, rules: Rules) -> bool:
    """Was a list changed since it was taken, or read by other rules?

    Its stamp is not asked if it is not there, for it was called done at once.
    """
    now = stamp_of(list_file)
    return head.root not in (None, rules.root) or (None not in (head.stamp, now) and head.stamp != now)
