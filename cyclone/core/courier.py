"""Brings what waits for one sink to it, a batch at a time.

A batch is repeated until the sink says that it is safe there; only then may the spool forget it. One is on its way
at a time: a sink keeps a thousand records within some milliseconds, and there is nothing to put in order again. A sink
that takes its time is given more of it: repeating what lies before it would make it slower still.
"""

from __future__ import annotations

from cyclone.messages import Stored

#: A batch that is not answered within this time is sent again; the sink knows each record by its key. Each time that
#: this happens it is twice as long, up to the longest.
AGAIN_S = 10.0
AGAIN_MOST_S = 600.0

#: While nothing is to be delivered, the sink is asked this often how it does.
ASK_S = 5.0

#: After a refusal: the sink has no room, say.
REFUSED_S = 2.0


class Courier:
    """Owns which batch is on its way to one sink, and what the sink has said of itself.

    trouble: why the sink does not take what waits, "" if it does.
    sink_entries, sink_trouble, sink_refused: what waits there, and why, and what never will be taken, as it said last.
    """

    def __init__(self, now: float) -> None:
        self.trouble = "not connected yet"
        self.sink_entries = 0
        self.sink_trouble = ""
        self.sink_refused = 0
        self._serial = 0
        # By serial: where the batch ends in the spool, and when it was sent. More than one if it was repeated.
        self._on_the_way: dict[int, tuple[int, float]] = {}
        self._patience_s = AGAIN_S
        self._again_at = now
        self._is_connected = False

    def connected(self, now: float) -> None:
        """There is a new connection: what was on its way over a former one may be lost."""
        self._is_connected, self.trouble = True, ""
        self._on_the_way.clear()
        self._patience_s, self._again_at = AGAIN_S, now

    def disconnected(self, reason: str) -> None:
        """There is no connection any more, or it was refused."""
        self._is_connected, self.trouble = False, reason

    def is_due(self, now: float, *, waiting: bool) -> bool:
        """Is a batch to be sent now? waiting: there is something for this sink in the spool."""
        if not self._is_connected:
            return False
        return now >= self._again_at or (waiting and not self._on_the_way and not self.trouble)

    def sent(self, through: int, now: float) -> int:
        """A batch that ends here is about to be sent; an empty one ends at 0. Returns the serial to send it under.

        It begins with what is oldest in the spool.
        """
        if self._on_the_way:
            self._patience_s = min(2 * self._patience_s, AGAIN_MOST_S)
        self._serial += 1
        self._on_the_way[self._serial] = (through, now)
        self._again_at = now + self._patience_s
        return self._serial

    def stored(self, message: Stored, now: float) -> int:
        """The sink has answered. Returns up to where the spool may forget; 0 is nothing."""
        if message.serial not in self._on_the_way:
            return 0
        through, sent_at = self._on_the_way[message.serial]
        self._on_the_way = {
            serial: batch for serial, batch in self._on_the_way.items() if serial > message.serial
        }
        self._patience_s = min(max(AGAIN_S, 2 * (now - sent_at)), AGAIN_MOST_S)
        self._again_at = now + (self._patience_s if self._on_the_way else ASK_S)
        self.trouble = ""
        self.sink_entries, self.sink_trouble = message.entries, message.trouble
        self.sink_refused = message.refused
        return through

    def refused(self, reason: str, now: float) -> None:
        """The sink does not take what was sent."""
        self.trouble = reason
        self._on_the_way.clear()
        self._again_at = now + REFUSED_S

    def next_moment(self, *, waiting: bool) -> float | None:
        """When `is_due` may become true by itself; None if never. waiting: as there."""
        if not self._is_connected:
            return None
        return float("-inf") if self.is_due(float("-inf"), waiting=waiting) else self._again_at
