"""Brings what waits for one sink to it, a batch at a time.

A batch is repeated until the sink says that it is safe there; only then may the spool forget it. One is on its way
at a time: a sink keeps a thousand records within some milliseconds, and there is nothing to put in order again.
"""

from __future__ import annotations

from cyclone.messages import Stored

#: A batch that is not answered within this time is sent again; the sink knows each record by its key.
AGAIN_S = 10.0

#: While nothing is to be delivered, the sink is asked this often how it does.
ASK_S = 5.0

#: After a refusal: the sink has no room, say.
REFUSED_S = 2.0


class Courier:
    """Owns which batch is on its way to one sink, and what the sink has said of itself.

    trouble: why the sink does not take what waits, "" if it does.
    sink_entries, sink_trouble: what waits there, and why, as it said last.
    """

    def __init__(self, now: float) -> None:
        self.trouble = "not connected yet"
        self.sink_entries = 0
        self.sink_trouble = ""
        self._serial = 0
        self._through: int | None = None  # where the batch on its way ends in the spool
        self._again_at = now
        self._is_connected = False

    def connected(self, now: float) -> None:
        """There is a new connection: what was on its way over a former one may be lost."""
        self._is_connected, self.trouble = True, ""
        self._through, self._again_at = None, now

    def disconnected(self, reason: str) -> None:
        """There is no connection any more, or it was refused."""
        self._is_connected, self.trouble = False, reason

    def is_due(self, now: float, *, waiting: bool) -> bool:
        """Is a batch to be sent now? waiting: there is something for this sink in the spool."""
        if not self._is_connected:
            return False
        return now >= self._again_at or (waiting and self._through is None and not self.trouble)

    def sent(self, through: int, now: float) -> int:
        """A batch that ends here is about to be sent; an empty one ends at 0. Returns the serial to send it under."""
        self._serial += 1
        self._through = through
        self._again_at = now + AGAIN_S
        return self._serial

    def stored(self, message: Stored, now: float) -> int:
        """The sink has answered. Returns up to where the spool may forget; 0 is nothing."""
        if message.serial != self._serial or self._through is None:
            return 0  # it was sent again since
        through, self._through = self._through, None
        self._again_at = now + ASK_S
        self.trouble = ""
        self.sink_entries, self.sink_trouble = message.entries, message.trouble
        return through

    def refused(self, reason: str, now: float) -> None:
        """The sink does not take what was sent."""
        self.trouble = reason
        self._through, self._again_at = None, now + REFUSED_S

    def next_moment(self, *, waiting: bool) -> float | None:
        """When `is_due` may become true by itself; None if never. waiting: as there."""
        if not self._is_connected:
            return None
        return float("-inf") if self.is_due(float("-inf"), waiting=waiting) else self._again_at
