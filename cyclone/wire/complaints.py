"""What was refused or dropped: always counted, but told of only now and then, so that nobody can fill the log.

About each peer there is one line a minute. Peers may be invented, so there is a bound to all lines as well.
"""

from __future__ import annotations

import codecs
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable

from cyclone.clock import monotonic

_log = logging.getLogger("cyclone.wire")

_QUIET_S = 60.0
_KNOWN_MAX = 1000
_LINES_MOST = 100
_TEXT_MAX = 300

# Python loads a codec when it is used first, which must not be when there are no descriptors left.
codecs.lookup("unicode_escape")


class Complaints:
    """Counts by reason. Owns when it last wrote to the log about whom, for the latest thousand of them.

    And how many lines it has written in this minute.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self.counts: Counter[str] = Counter()
        self._clock = clock
        self._told: OrderedDict[str, float] = OrderedDict()
        self._lines, self._lines_since = 0, clock()

    def add(self, reason: str, who: str, detail: str = "") -> None:
        """Count it, and log a warning unless there was one about them within the last minute."""
        self.counts[reason] += 1
        now = self._clock()
        if now - self._told.get(who, -_QUIET_S) < _QUIET_S:
            return
        self._told[who] = now
        self._told.move_to_end(who)
        if len(self._told) > _KNOWN_MAX:
            self._told.popitem(last=False)
        if now - self._lines_since >= _QUIET_S:
            self._lines, self._lines_since = 0, now
        self._lines += 1
        if self._lines > _LINES_MOST:
            if self._lines == _LINES_MOST + 1:
                _log.warning(
                    "more than that is counted and not told within this minute: %s", dict(self.counts)
                )
            return
        # The detail may quote what a peer has sent: no line breaks, no end of it.
        quoted = detail[:_TEXT_MAX].encode("unicode_escape").decode("ascii")
        _log.warning("%s: %s peer=%s count=%d", reason, quoted, who, self.counts[reason])
