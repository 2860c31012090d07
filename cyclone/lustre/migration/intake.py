"""Looks for lists that wait, reads them beside the loop, one after the other, and takes them."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

from cyclone.errors import CycloneError
from cyclone.lustre.migration.background import Background, Chore
from cyclone.lustre.migration.input_list import InputList, ListChanged, Loaded, load, load_again
from cyclone.lustre.migration.inputs import Inputs

log = logging.getLogger(__name__)

_SHOWN_MOST = 10


class Intake:
    """Owns the list that is being read, and those that are to be read next. Moments are monotonic seconds.

    is_wanted: asked by whoever reads, now and then; False makes an end of it.
    """

    def __init__(
        self, inputs: Inputs, background: Background, is_wanted: Callable[[], bool], now: float
    ) -> None:
        self._inputs = inputs
        self._background = background
        self._is_wanted = is_wanted
        self._next: deque[Path] = deque()
        self._begun: set[Path] = set()  # lists of a former life that could not be taken yet
        self._reading: tuple[Path, Chore[Loaded]] | None = None
        self.since: float | None = None  # when the reading began that is going on
        self._look_at = now
        self._has_looked = self._is_asked = False

    def look_now(self) -> None:
        """Look for lists as soon as possible, also for those that could not be read."""
        self._is_asked = True

    def look_again(self, now: float) -> None:
        """There may be more by now."""
        self._look_at, self._has_looked = now, False

    def advance(self, interval_s: float, now: float) -> list[InputList]:
        """Go on. Returns lists whose entries may be taken from now on."""
        if (now >= self._look_at or self._is_asked) and self._reading is None and not self._next:
            self._look(interval_s, now)
        if self._reading is None and self._next:
            base = self._next.popleft()
            self.since = now
            call = partial(
                load_again if base in self._begun else load, base, self._inputs.rules, self._is_wanted,
                in_copy=self._inputs.done_on_load,
            )  # fmt: skip
            self._reading = base, self._background.start(call)
        if self._reading is None or not self._reading[1].is_done():
            return []
        (base, chore), self._reading, self.since = self._reading, None, None
        try:
            loaded = chore.result()
        except ListChanged as error:
            log.info("a list is not complete: %s", error)
            return []
        except CycloneError as error:
            if self._inputs.cannot_take(base, str(error)):
                log.error("a list cannot be read, it is passed over until somebody changes it: %s", error)
            self._inputs.pass_over(base)
            self._begun.discard(base)
            return []
        except OSError as error:
            self.put_off(base, error, is_begun=base in self._begun)
            return []
        taken = self.take(loaded)
        return [] if taken is None else [taken]

    def take(self, loaded: Loaded) -> InputList | None:
        """Take a list that was read; None if that is not possible."""
        try:
            taken = self._inputs.admit(loaded)
        except ListChanged as error:
            log.info("a list is not complete: %s", error)
            return None
        except OSError as error:
            self.put_off(loaded.files.base, error, is_begun=not loaded.identity)
            return None
        self._begun.discard(loaded.files.base)
        log.info(
            "list taken list=%s id=%s entries=%d rejected=%d left=%d",
            taken.files.name, taken.id, taken.entries, taken.rejected, taken.left,
        )  # fmt: skip
        if loaded.found.carriage_returns:
            log.warning(
                "carriage returns at the ends of lines are no part of the paths list=%s", taken.files.name
            )
        if taken.rejected:
            log.warning("records were rejected list=%s records=%d", taken.files.name, taken.rejected)
            if self._inputs.is_dry:
                self._show_rejected(taken.files.draft)
        return taken

    @staticmethod
    def _show_rejected(draft: Path) -> None:
        """A dry run leaves no file with the reasons."""
        with open(draft, "rb") as complaints:
            for line in islice(complaints, _SHOWN_MOST):
                log.warning("rejected record: %s", line.decode("utf-8", "backslashreplace").rstrip("\n"))

    def put_off(self, base: Path, error: OSError, *, is_begun: bool) -> None:
        """A disk that is full now may have room at the next look. is_begun: in a former life."""
        if is_begun:
            self._begun.add(base)
        if self._inputs.cannot_take(base, str(error)):
            log.error("a list cannot be taken for now list=%s reason=%s", base.name, error)

    @property
    def is_idle(self) -> bool:
        """Has it looked, and is there nothing to be read, or to be waited for until it is complete?"""
        is_busy = self._is_asked or self._reading is not None or self._next or self._inputs.is_expecting
        return self._has_looked and not is_busy

    def due(self, now: float) -> float:
        """When `advance` has something to do, apart from a reading that ends."""
        if self._reading is not None:
            return math.inf
        if self._is_asked or self._next:
            return now
        return self._look_at

    def _look(self, interval_s: float, now: float) -> None:
        if self._is_asked:
            self._inputs.look_again()
        self._is_asked, self._look_at = False, now + interval_s
        self._next.extend(sorted(self._begun))
        self._next.extend(self._inputs.waiting(now))
        self._has_looked = True
