"""The directory of lists: what waits in it, what is being worked on, and what has been done of that.

A list is read while it still has the name that somebody gave it; it is taken, which is to say renamed, only when that went
well and nobody has changed it meanwhile. It is `done` when every entry has its result, and not before.

Whatever is killed at any moment: a list that was taken is found again by its journal, and goes on where it was. Its tasks
that were in flight are known by number, try and target, so they are handed in again exactly as they were.
"""

from __future__ import annotations

import logging
import os
import secrets
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, NamedTuple

from cyclone.errors import ConfigError, CycloneError
from cyclone.generators.files import replacing
from cyclone.lustre.migration.entry import Entry, EntryId
from cyclone.lustre.migration.index import Cancelled, Index, discard, index, opened
from cyclone.lustre.migration.journal import (
    Final,
    Flight,
    Head,
    Journal,
    JournalDamaged,
    Past,
    read_head,
    read_lines,
)
from cyclone.lustre.migration.lines import Rejected, Rules, read_record, trimmed
from cyclone.lustre.migration.names import (
    RETRYABLE,
    ListFiles,
    fed_back,
    retryable_lists,
    taken_lists,
    waiting_lists,
)
from cyclone.lustre.migration.queues import OstQueues
from cyclone.lustre.migration.verdict import FileState, Report

log = logging.getLogger(__name__)

_AGAIN_WIDTH = 4
_LOOK_EVERY = 1 << 14

#: What an entry is told that is not any more what it was when its list was read.
SPOILED = Report(FileState.FAILED, "list-changed", "permanent")


class ListChanged(CycloneError):
    """A list was changed, or renamed, while it was read."""


class Taken(NamedTuple):
    """Entries of one source, and those among them that cannot be had any more."""

    entries: list[Entry]
    spoiled: list[Entry]


class Loaded(NamedTuple):
    """A list that has been read. identity: when that began; head, past: of its journal, if it has one."""

    files: ListFiles
    found: Index
    identity: tuple[int, ...]
    head: Head | None = None
    past: Past | None = None


class InputList:
    """A list that is being worked on. Owns its journal, its index and its lists of retryable entries.

    id: names it in this life. results: `{state: how many}`; sizes: `{state: bytes}`. journal: None in a dry run.
    """

    def __init__(
        self, files: ListFiles, index: Index, rules: Rules, head: Head, journal: Journal | None, past: Past
    ) -> None:
        self.files = files
        self.id = head.id
        self.rejected = index.rejected
        self.entries = index.entries
        self.results, self.sizes = past.results, past.sizes
        self._index = index
        self._content = index.content
        self._rules = rules
        self._journal = journal
        self._past = past
        self._left = Counter(index.lengths())
        self._left.subtract(past.ended)
        self._open_files = ExitStack()
        self._retryable: dict[FileState, IO[bytes]] = {}
        self._again: tuple[OstQueues, int] | None = None  # and the descriptor of their file
        self._adopted = frozenset(past.flights)

    @property
    def left(self) -> int:
        """Entries without a result."""
        return self.entries - self._past.finals.count

    def left_of(self, source: int) -> int:
        return self._left[source]

    def sources(self) -> Iterator[int]:
        """OSTs with entries that have no result."""
        return (ost for ost, count in self._left.items() if count > 0)

    def flights(self) -> list[tuple[Entry, int]]:
        """Entries with their targets whose tasks were in flight when the former life ended."""
        found = []
        for number, flight in sorted(self._past.flights.items()):
            entry = self._entry_in_flight(number, flight)
            if entry is not None:
                found.append((entry, flight.target))
            else:
                log.warning("a task in flight belongs to no entry list=%s number=%d", self.files.name, number)
        self._adopted = frozenset(entry.id.number for entry, _ in found)
        self._past.flights.clear()
        return found

    def take(self, source: int, most: int) -> Taken:
        """The oldest entries of a source that have not been taken; none if there are no more. Raises OSError."""
        taken = Taken([], [])
        while len(taken.entries) < most and (elements := self._index.take(source, most - len(taken.entries))):
            fresh = [
                Entry(EntryId(self.id, number), offset, source, b"") for number, offset in elements
                if number not in self._past.finals and number not in self._adopted
            ]  # fmt: skip
            self._add(taken, fresh)
        if self._again is not None and len(taken.entries) < most:
            queues, descriptor = self._again
            elements = queues.take(source, most - len(taken.entries), descriptor)
            self._add(taken, [
                Entry(EntryId(self.id, number), offset, source, b"", tries=tries, billed=billed)
                for number, offset, tries, billed in elements
            ])  # fmt: skip
        return taken

    def has_more(self, source: int) -> bool:
        again = 0 if self._again is None else self._again[0].length(source)
        return self._index.length(source) + again > 0

    def put_away(self, entry: Entry) -> None:
        """Keep an entry until it is taken once more, after all others. It is forgotten with this process, as it may be."""
        if self._again is None:
            file = tempfile.TemporaryFile(dir=self.files.base.parent)  # noqa: SIM115  closed by `close`
            self._open_files.enter_context(file)
            self._again = OstQueues(file, _AGAIN_WIDTH), file.fileno()
        self._again[0].put(entry.source, entry.id.number, entry.offset, entry.tries, entry.billed)

    # What happens to an entry.

    def on_started(self, entry: Entry, target: int) -> None:
        if self._journal is not None:
            self._journal.started(entry.id.number, entry.offset, entry.tries, target)

    def on_retry(self, entry: Entry) -> None:
        if self._journal is not None:
            self._journal.retried(entry.id.number)

    def on_final(self, entry: Entry, report: Report) -> bool:
        """The entry has its result. False if it had one already: then nothing is noted."""
        if not self._past.finals.add(entry.id.number):
            return False
        self.results[report.state] += 1
        self.sizes[report.state] += report.size
        self._left[entry.source] -= 1
        if self._journal is not None:
            if report.state in RETRYABLE:
                self._retryable_file(report.state).write(self._record(entry.offset) + self.files.separator)
            self._journal.final(
                Final(
                    entry.id.number, entry.source, report.state, report.size, report.actual, entry.offset,
                    report.reason,
                )
            )  # fmt: skip
        return True

    def flush(self) -> None:
        """What was noted outlives this process from here on. Raises OSError."""
        for file in self._retryable.values():
            file.flush()
        if self._journal is not None:
            self._journal.flush()

    def feed_back(self, state: FileState) -> Path | None:
        """Make the entries with this result a new list that waits to be taken; None if there are none."""
        file = self._retryable.pop(state, None)
        if file is not None:
            file.close()
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
        """Every entry has its result, and that is on disk when this returns. Raises OSError."""
        if self._journal is not None:
            for file in self._retryable.values():
                file.flush()
                os.fsync(file.fileno())
            self._journal.sync()
        self.close()
        if self._journal is None:
            discard(self.files.index, self.files.plain, self.files.draft)
            return
        if self.files.active.exists():
            self.files.active.rename(self.files.done)
        clear_up(self.files, keep_journal=keep_journal)

    def close(self) -> None:
        """Give back what is open; the list goes on in another life."""
        self._open_files.close()
        for file in self._retryable.values():
            file.close()
        if self._journal is not None:
            self._journal.close()

    # Records.

    def _record(self, offset: int) -> bytes:
        with opened(self._content) as descriptor:
            return read_record(descriptor, offset, self.files.separator)

    def _add(self, taken: Taken, entries: list[Entry]) -> None:
        """Give the entries their paths."""
        if not entries:
            return
        with opened(self._content) as descriptor:
            for entry in entries:
                ost, path = self._parsed(read_record(descriptor, entry.offset, self.files.separator))
                if ost == entry.source:
                    entry.path = entry.key = path
                    taken.entries.append(entry)
                else:
                    taken.spoiled.append(entry)

    def _parsed(self, record: bytes) -> tuple[int, bytes]:
        """`(-1, b"")` if the record is none any more."""
        try:
            return self._rules.parse(trimmed(record, self.files.separator))
        except Rejected:
            return -1, b""

    def _entry_in_flight(self, number: int, flight: Flight) -> Entry | None:
        ost, path = self._parsed(self._record(flight.offset))
        if ost < 0:
            return None
        # Whom the earlier tries were billed to is not known any more.
        return Entry(
            EntryId(self.id, number), flight.offset, ost, path, tries=flight.tries, billed=flight.tries
        )

    def _retryable_file(self, state: FileState) -> IO[bytes]:
        file = self._retryable.get(state)
        if file is None:
            file = self._retryable[state] = open(self.files.retryable(state), "ab")  # noqa: SIM115  closed by `close`
        return file


# Reading, which takes long and may be done in another thread.


def load(base: Path, rules: Rules, is_wanted: Callable[[], bool] = lambda: True) -> Loaded:
    """Read a list that nobody has taken. Raises Unreadable, Cancelled."""
    files = ListFiles.new(base)
    identity = _identity(base)
    discard(files.index, files.plain, files.draft)
    return Loaded(files, index(files, rules, is_wanted), identity)


def load_again(base: Path, rules: Rules, is_wanted: Callable[[], bool] = lambda: True) -> Loaded:
    """Read a list that was taken in a former life, and its journal. Raises Unreadable, Cancelled, OSError."""
    head = _head_of(ListFiles(base).journal)
    if head is None:
        files = ListFiles.new(base)
        return Loaded(files, index(files, rules, is_wanted), ())
    files = ListFiles(base, head.suffix)
    found = index(files, rules, is_wanted)
    past = _replay(files, found, is_wanted)
    if past.nonsense:
        log.warning("lines of the journal make no sense list=%s lines=%d", files.name, past.nonsense)
    return Loaded(files, found, (), head, past)


def _head_of(journal: Path) -> Head | None:
    try:
        return read_head(journal)
    except FileNotFoundError:
        log.warning("no journal is left: every entry is looked at again journal=%s", journal)
    except JournalDamaged as error:
        aside = _set_aside(journal)
        log.error("every entry is looked at again, the journal is set aside reason=%s as=%s", error, aside)
    return None


def _set_aside(journal: Path) -> Path:
    return journal.replace(journal.with_name(f"{journal.name}.damaged"))


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


def _identity(file: Path) -> tuple[int, ...]:
    """Changes with the file."""
    try:
        status = file.stat()
    except OSError as error:
        raise ListChanged(f"{file}: {error.strerror}") from None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def clear_up(files: ListFiles, *, keep_journal: bool) -> None:
    """Remove what is of use only while a list is being worked on."""
    if keep_journal and files.journal.exists():
        files.journal.rename(files.audit)
    discard(files.journal, files.index, files.plain, files.draft)


class Inputs:
    """Owns the directory: every list in it, from the moment it is found until it is done.

    lists: `{id: list}`, those that are being worked on, oldest first.
    settle_s: a list that has not changed for so long is complete. done_on_load: call a list done when it is read, as
    scripts of old expect. is_dry: leave all names as they are and note nothing.
    """

    def __init__(
        self, directory: Path, rules: Rules, *,
        settle_s: float, done_on_load: bool = False, keep_journal: bool = False, is_dry: bool = False,
    ) -> None:  # fmt: skip
        self.directory = directory
        self.rules = rules
        self.settle_s = settle_s
        self.done_on_load = done_on_load
        self.keep_journal = keep_journal
        self.is_dry = is_dry
        self.lists: dict[str, InputList] = {}
        self._seen: dict[Path, tuple[tuple[int, ...], float]] = {}  # identity, and since when it is that one
        self._passed: dict[Path, tuple[int, ...]] = {}  # not to be loaded as long as they are these
        self._complete: set[Path] = set()  # made by ourselves
        self._touched: set[str] = set()  # lists with something to flush
        self._by_source: dict[
            int, list[InputList]
        ] = {}  # the lists with entries of each source, oldest first

    # Lists.

    def leftovers(self) -> list[Path]:
        """Lists that were taken in a former life and are not done. What is left of others is removed.

        Raises ConfigError when the directory cannot be read or written.
        """
        try:
            return [base for base in taken_lists(self.directory) if self._is_left(base)]
        except OSError as error:
            raise ConfigError(f"{self.directory}: {error.strerror}") from None

    def waiting(self, now: float, wall: float) -> list[Path]:
        """Lists that are complete and may be loaded, by name. now: monotonic; wall: by the clock of the files."""
        try:
            found = waiting_lists(self.directory)
        except OSError as error:
            log.error("the directory of lists cannot be read directory=%s reason=%s", self.directory, error)
            return []
        taken = {each.files.base for each in self.lists.values()}
        complete = [base for base in found if base not in taken and self._is_complete(base, now, wall)]
        for base in self._seen.keys() - set(found):
            del self._seen[base]
        return complete

    def admit(self, loaded: Loaded) -> InputList:
        """Take a list that was loaded, so that its entries may be. Raises ListChanged, OSError."""
        files, found = loaded.files, loaded.found
        self._complete.discard(files.base)
        past = loaded.past or Past(found.records)
        head = loaded.head or Head(secrets.token_hex(6), files.suffix)
        journal = None if self.is_dry else self._journal_of(loaded, head)
        admitted = self.lists[head.id] = InputList(files, found, self.rules, head, journal, past)
        for source in admitted.sources():
            self._by_source.setdefault(source, []).append(admitted)
        self._touched.add(head.id)
        return admitted

    def pass_over(self, base: Path) -> None:
        """Do not tell of this list as waiting before somebody has changed it."""
        self._passed[base] = _identity_or_none(base)

    def look_again(self) -> None:
        """Tell of all that is waiting."""
        self._passed.clear()

    def close(self) -> None:
        """Note what is to be noted, and go. Raises OSError."""
        for each in self.lists.values():
            each.flush()
            each.close()
        self.lists.clear()

    def settle(self) -> list[InputList]:
        """See that what was noted outlives this process, and put away lists of which every entry has its result.

        Returns those. Raises OSError.
        """
        touched = [self.lists[each] for each in self._touched]
        self._touched.clear()
        for each in touched:
            each.flush()
        done = [each for each in touched if each.left == 0]
        for each in done:
            self._forget(each)
            each.finish(keep_journal=self.keep_journal)
            if self.is_dry:
                self.pass_over(each.files.base)
        return done

    def feed_back(self, state: FileState) -> list[Path]:
        """Make new lists of all entries with this result, also of lists that are done. Raises OSError."""
        made = [to for each in self.lists.values() if (to := each.feed_back(state)) is not None]
        for retryable in retryable_lists(self.directory, state):
            to = fed_back(retryable)
            retryable.rename(to)
            made.append(to)
        self._complete.update(made)
        return made

    @property
    def is_expecting(self) -> bool:
        """Is there a list that waits to be complete, or to be taken, as of the last time that was looked at?"""
        return any(self._passed.get(base) != identity for base, (identity, _) in self._seen.items())

    # Entries.

    def take(self, source: int, most: int) -> Taken:
        """The oldest entries of a source, of the oldest list first. Raises OSError."""
        taken = Taken([], [])
        for each in self._by_source.get(source, ()):
            if len(taken.entries) >= most:
                break
            more = each.take(source, most - len(taken.entries))
            taken.entries.extend(more.entries)
            taken.spoiled.extend(more.spoiled)
        return taken

    def has_more(self, source: int) -> bool:
        return any(each.has_more(source) for each in self._by_source.get(source, ()))

    def put_away(self, entry: Entry) -> None:
        self.lists[entry.id.input].put_away(entry)

    def on_started(self, entry: Entry, target: int) -> None:
        """A task for this entry is about to be handed in: call `settle` before it is."""
        self._list_of(entry).on_started(entry, target)

    def on_retry(self, entry: Entry) -> None:
        """A task has ended, but the entry has no result yet."""
        self._list_of(entry).on_retry(entry)

    def on_final(self, entry: Entry, report: Report) -> bool:
        """The entry has its result. False if it had one already: then nothing is noted."""
        return self._list_of(entry).on_final(entry, report)

    def _list_of(self, entry: Entry) -> InputList:
        self._touched.add(entry.id.input)
        return self.lists[entry.id.input]

    def left(self) -> Counter[int]:
        """`{source: entries without a result}`"""
        left: Counter[int] = Counter()
        for each in self.lists.values():
            for source in each.sources():
                left[source] += each.left_of(source)
        return left

    def _forget(self, done: InputList) -> None:
        del self.lists[done.id]
        for source, lists in list(self._by_source.items()):
            if done in lists:
                lists.remove(done)
                if not lists:
                    del self._by_source[source]

    # Taking.

    @staticmethod
    def _is_left(base: Path) -> bool:
        """Is it being worked on? If it is not, what is left beside it is removed."""
        files = ListFiles(base)
        if files.active.exists():
            return True
        try:
            head = read_head(files.journal)
        except JournalDamaged as error:
            aside = _set_aside(files.journal)
            log.error("a journal without a list is set aside reason=%s as=%s", error, aside)
            return False
        files = ListFiles(base, head.suffix)
        if files.done.exists() or (files.plain.exists() and not base.exists()):
            return True  # it was called done when it was read, or the end of it was cut short
        log.info("a journal without a list is removed journal=%s", files.journal)
        discard(files.journal, files.index, files.plain, files.draft)
        return False

    def _is_complete(self, base: Path, now: float, wall: float) -> bool:
        identity = _identity_or_none(base)
        if not identity or self._passed.get(base) == identity:
            return False
        files = ListFiles(base)
        if files.active.exists() or files.journal.exists():
            return False  # an earlier list of this name is not done
        known, since = self._seen.get(base, ((), now))
        if known != identity:
            since = now
            self._seen[base] = identity, since
        if base in self._complete or now - since >= self.settle_s:
            return True
        mtime_s = identity[-1] / 1e9
        return wall - mtime_s >= self.settle_s

    def _journal_of(self, loaded: Loaded, head: Head) -> Journal:
        """Give the list the names of one that is being worked on."""
        files = loaded.files
        if loaded.head is not None:
            journal = Journal.resume(files.journal)
        else:
            # The journal first: a list that is called active always has its own.
            if loaded.identity and _identity_or_none(files.base) != loaded.identity:
                raise ListChanged(f"{files.base}: was changed while it was read")
            journal = Journal.create(files.journal, head)
            if loaded.identity:
                files.base.rename(files.active)
        if files.draft.exists():
            files.draft.rename(files.rejected)
        if self.done_on_load and files.active.exists():
            if not files.plain.exists():
                os.link(files.active, files.plain)
                loaded.found.content = files.plain
            files.active.rename(files.done)
        elif loaded.found.content == files.base:
            loaded.found.content = files.active
        _sync_directory(self.directory)
        return journal


def _identity_or_none(file: Path) -> tuple[int, ...]:
    """As `_identity`; nothing if there is no such file."""
    try:
        return _identity(file)
    except ListChanged:
        return ()


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
