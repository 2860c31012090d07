"""The directory of lists: what waits in it, what is being worked on, and what has been done of that.

A list is read while it still has the name that somebody gave it; it is taken, which is to say renamed, only when that went
well and nobody has changed it meanwhile. It is `done` when every entry has its result, and not before.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from cyclone.errors import ConfigError
from cyclone.lustre.migration.entry import Entry
from cyclone.lustre.migration.index import discard
from cyclone.lustre.migration.input_list import (
    InputList,
    ListChanged,
    Loaded,
    identity_of,
    is_another,
    set_aside,
    stamp_of,
)
from cyclone.lustre.migration.journal import (
    Head,
    Journal,
    JournalDamaged,
    Past,
    flights_of,
    read_head,
    read_lines,
)
from cyclone.lustre.migration.lines import Rules
from cyclone.lustre.migration.names import (
    ListFiles,
    fed_back,
    retryable_lists,
    taken_lists,
    waiting_lists,
)
from cyclone.lustre.migration.verdict import FileState, Report

log = logging.getLogger(__name__)


class Inputs:
    """Owns the directory: every list in it, from the moment it is found until it is done.

    lists: `{id: list}`, those that are being worked on, oldest first. untaken: `{list: why it is not done}`,
    for it could not be taken, or was changed after that.
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
        self.done_on_load = done_on_load and not is_dry
        self.keep_journal = keep_journal
        self.is_dry = is_dry
        self.lists: dict[str, InputList] = {}
        self.untaken: dict[Path, str] = {}
        self._seen: dict[Path, tuple[tuple[int, ...], float]] = {}  # identity, and since when it is that one
        self._passed: dict[Path, tuple[int, ...]] = {}  # not to be loaded as long as they are these
        self._complete: set[Path] = set()  # made by ourselves
        self._warned_of: set[Path] = set()
        self._touched: set[str] = set()  # lists with something to flush
        self._ended: list[InputList] = []  # lists that were put away, which nobody was told yet
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

    def waiting(self, now: float) -> list[Path]:
        """Lists that are complete and may be loaded, by name. now: monotonic."""
        try:
            found, false = waiting_lists(self.directory)
        except OSError as error:
            log.error("the directory of lists cannot be read directory=%s reason=%s", self.directory, error)
            return []
        self._warn_of(false)
        taken = {each.files.base for each in self.lists.values()}
        complete = [base for base in found if base not in taken and self._is_complete(base, now)]
        for base in self._seen.keys() - set(found):
            del self._seen[base]
            self.untaken.pop(base, None)
        return complete

    def _warn_of(self, false: list[Path]) -> None:
        for file in [file for file in false if file not in self._warned_of]:
            self._warned_of.add(file)
            log.warning("not a list, for it is no file: %s", file)

    def admit(self, loaded: Loaded) -> InputList:
        """Take a list that was loaded, so that its entries may be. Raises ListChanged, OSError."""
        files, found = loaded.files, loaded.found
        past = loaded.past or Past(found.records)
        head = loaded.head or Head(secrets.token_hex(6), files.suffix, loaded.stamp, self.rules.root)
        journal = None if self.is_dry else self._journal_of(loaded, head)
        self._complete.discard(files.base)
        self._seen.pop(files.base, None)
        self.untaken.pop(files.base, None)
        admitted = self.lists[head.id] = InputList(loaded, self.rules, head, journal, past)
        for source in admitted.left_by_source():
            self._by_source.setdefault(source, []).append(admitted)
        self._touched.add(head.id)
        return admitted

    def pass_over(self, base: Path) -> None:
        """Do not tell of this list as waiting before somebody has changed it."""
        self._passed[base] = _identity_or_none(base)

    def cannot_take(self, base: Path, reason: str) -> bool:
        """Remember that this list is not done. False if that was known with this reason."""
        is_news = self.untaken.get(base) != reason
        self.untaken[base] = reason
        return is_news

    def look_again(self) -> None:
        """Tell of all that is waiting."""
        self._passed.clear()

    def close(self) -> None:
        """Note what is to be noted, and go. Raises OSError when some of it could not be."""
        with ExitStack() as all_of_it:
            for each in self.lists.values():
                all_of_it.callback(each.close)
                all_of_it.callback(each.flush)
            self.lists.clear()

    def settle(self) -> list[InputList]:
        """See that what was noted outlives this process, and put away lists that are over.

        Returns those, also such as have to begin again. Raises OSError; the next call goes on where this one ended.
        """
        touched = [self.lists[each] for each in self._touched]
        for each in touched:
            each.flush()
        for each in touched:
            if each.is_over:
                self._finish(each)
                self._ended.append(each)
            self._touched.discard(each.id)
        ended, self._ended = self._ended, []
        return ended

    def _finish(self, each: InputList) -> None:
        each.finish(keep_journal=self.keep_journal)
        self._forget(each)
        if self.is_dry and not each.was_changed:
            self.pass_over(each.files.base)
        if each.files.active.exists():
            self.cannot_take(each.files.base, "was changed after it was taken; the next start reads it again")

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
        """Is there a list that waits to be complete, or to be taken, as of the last time that was looked at?

        One that could not be taken is not waited for, though it is tried again.
        """
        return any(
            self._passed.get(base) != identity
            for base, (identity, _) in self._seen.items() if base not in self.untaken
        )  # fmt: skip

    # Entries.

    def take(self, source: int, most: int, now: float) -> list[Entry]:
        """The oldest entries of a source, of the oldest list first. now: monotonic. Raises OSError."""
        taken: list[Entry] = []
        for each in self._by_source.get(source, ()):
            if len(taken) >= most:
                break
            taken += each.take(source, most - len(taken), now)
            self._touched.add(each.id)  # it may be over now, for it was changed
        return taken

    def has_more(self, source: int, now: float) -> bool:
        """Would `take` give any?"""
        return any(each.has_more(source, now) for each in self._by_source.get(source, ()))

    def put_away(self, entry: Entry, until: float) -> None:
        """Keep an entry on disk; from this moment on it may be taken again. Raises OSError."""
        self._list_of(entry).put_away(entry, until)

    @property
    def away(self) -> int:
        """How many entries are kept on disk until they may be taken again."""
        return sum(each.away for each in self.lists.values())

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
        """`{source: entries without a result}`; of a list that was changed only those that are out."""
        left: Counter[int] = Counter()
        for each in self.lists.values():
            left.update(each.left_by_source())
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
            if files.plain.exists():
                return True  # of a list that was called done when it was read
            aside = set_aside(files.journal)
            log.error("a journal without a list is set aside reason=%s as=%s", error, aside)
            discard(files.journal)
            return False
        files = ListFiles(base, head.suffix)
        # The journal of a list that still has its first name tells of nothing; whatever else is called so is another one.
        was_taken = bool(next(read_lines(files.journal), b"")) or stamp_of(base) != head.stamp
        if files.done.exists() or (files.plain.exists() and was_taken) or flights_of(files.journal):
            return True  # it was called done when it was read, or taken away, or the end of it was cut short
        log.info("a journal without a list is removed journal=%s", files.journal)
        discard(files.index, files.plain, files.draft)
        discard(files.journal)  # last: nobody looks for the others without it
        return False

    def _is_complete(self, base: Path, now: float) -> bool:
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
            self.untaken.pop(base, None)
        # Its own times say nothing: they are kept by many who copy, and are those of another clock.
        return base in self._complete or now - since >= self.settle_s

    def _journal_of(self, loaded: Loaded, head: Head) -> Journal:
        """Give the list the names of one that is being worked on, or leave all names as they are."""
        files = loaded.files
        with ExitStack() as undo:
            if loaded.head is not None:
                journal = Journal.resume(files.journal)
                undo.callback(journal.close)
            else:
                # The journal first: a list that is called active always has its own.
                if loaded.identity and _identity_or_none(files.base) != loaded.identity:
                    raise ListChanged(f"{files.base}: was changed while it was read")
                undo.callback(discard, files.journal)
                journal = Journal.create(files.journal, head)
                undo.callback(journal.close)
                if loaded.identity:
                    _rename(files.base, files.active, undo)
            if files.draft.exists():
                _rename(files.draft, files.rejected, undo)
            # One that was changed is not called done: it is given back when its tasks in flight have ended.
            if self.done_on_load and files.active.exists() and not is_another(files.active, head, self.rules):
                _rename(files.active, files.done, undo)
            elif loaded.found.content == files.base:
                loaded.found.content = files.active
            _sync_directory(self.directory)
            undo.pop_all()
        return journal


def _rename(file: Path, to: Path, undo: ExitStack) -> None:
    file.rename(to)
    undo.callback(to.rename, file)


def _identity_or_none(file: Path) -> tuple[int, ...]:
    """As `identity_of`; nothing if there is no such file."""
    try:
        return identity_of(file)
    except ListChanged:
        return ()


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
