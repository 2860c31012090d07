"""Brings what tasks have recorded from the disk of a controller to the sinks."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cyclone.clock import monotonic
from cyclone.core.courier import Courier
from cyclone.errors import StoreFull
from cyclone.loop import Loop
from cyclone.messages import Deliver, Entry, Refused, SpoolView, Stored
from cyclone.settings import ControllerSettings, SinkAddress, endpoint, is_ipv6
from cyclone.sinks.spool import Fill, Spool
from cyclone.wire.keys import Role
from cyclone.wire.line import Line, connect

log = logging.getLogger("records")

BATCH_ENTRIES = 2000
BATCH_BYTES = 4 << 20
#: How often a sink that is away is looked for anew; libzmq itself does not come back from a refusal.
RECONNECT_S = 5.0
#: When a controller ends, it goes on delivering until nothing was taken for so long.
LAST_S = 5.0
#: As long as the disk has no room, the log tells of it so often.
NO_ROOM_TOLD_S = 60.0

#: A full spool forgets so small a part of itself more than it must, or it would be full again a moment later.
_DROPPED_AT_ONCE = 100


def spool_file(settings: ControllerSettings) -> Path:
    return settings.state_dir / "records.db"


@dataclass(slots=True)
class _Way:
    """To one sink. connections: as many as the courier was told of."""

    address: SinkAddress
    line: Line
    courier: Courier
    connections: int = 0
    reconnect_at: float = 0.0
    waiting: int = 0  # entries in the spool for it
    told_trouble: str = ""


class Delivery:
    """Owns the spool of a controller, and the connections to its sinks. dropped: records that had no room in it."""

    def __init__(self, settings: ControllerSettings, name: str, life: str, loop: Loop) -> None:
        """Opens the spool in the state directory, which has to be there. Raises StoreError, ConfigError."""
        self._loop = loop
        self._max_bytes = settings.spool_max_mb * 2**20
        self._drops_oldest = settings.spool_when_full == "drop_oldest"
        self._spool = Spool(spool_file(settings))
        self._ways: dict[str, _Way] = {}
        self._is_stale = True  # what is known of the fill
        self._size = 0
        self._fill: dict[str, Fill] = {}
        self.dropped = 0
        self._told_of_no_room_at = -NO_ROOM_TOLD_S
        now = monotonic()
        try:
            for sink in settings.sinks:
                line = connect(
                    endpoint(sink.host, sink.port), settings.keys, settings.key, Role.CONTROLLER,
                    server="sink", instance=name, life=life, ipv6=is_ipv6(sink.host),
                )  # fmt: skip
                self._ways[sink.name] = _Way(sink, line, Courier(now))
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """Begin to listen to the sinks."""
        for way in self._ways.values():
            self._register(way)

    def keep(self, entries: Sequence[Entry]) -> None:
        """Return when these are on disk. Raises StoreFull: nothing was kept then, and it may be tried again."""
        self._spool.append(entries)
        self._is_stale = True

    @property
    def has_room(self) -> bool:
        """Whether more may be recorded."""
        return self._size < self._max_bytes

    def views(self) -> list[SpoolView]:
        """What waits for each sink, also for those that are not named any more."""
        unix_time = time.time()
        views = []
        for sink in sorted({*self._ways, *self._fill}):
            entries, size, oldest_at = self._fill.get(sink, (0, 0, unix_time))
            oldest_s = max(0.0, unix_time - oldest_at)
            if sink in self._ways:
                courier = self._ways[sink].courier
                told = (
                    courier.trouble, courier.sink_entries, courier.sink_trouble, courier.sink_refused,
                )  # fmt: skip
            else:
                told = ("no such sink in [sinks]", 0, "", 0)
            views.append(SpoolView(sink, entries, size, oldest_s, *told))
        return views

    def tick(self) -> None:
        """Hear what the sinks say, and send what is due."""
        now = monotonic()
        if self._is_stale:
            self._look()
        for way in self._ways.values():
            self._mind(way, now)
            if way.courier.is_due(now, waiting=way.waiting > 0):
                self._send(way, now)

    def next_moment(self) -> float | None:
        """When `tick` has something to do by itself, monotonic; None if never."""
        moments = [way.courier.next_moment(waiting=way.waiting > 0) for way in self._ways.values()]
        moments += [way.reconnect_at for way in self._ways.values() if way.reconnect_at]
        return min((moment for moment in moments if moment is not None), default=None)

    def finish(self) -> None:
        """Deliver what is left, as long as the sinks take it; the rest stays on disk for the next start."""
        self._look()
        taken_at = monotonic()
        left = sum(way.waiting for way in self._ways.values())
        while left and monotonic() - taken_at < LAST_S:
            self.tick()
            self._loop.wait(0.1)
            if (now_left := sum(way.waiting for way in self._ways.values())) < left:
                left, taken_at = now_left, monotonic()
        self._look()
        for view in [view for view in self.views() if view.entries]:
            log.warning("records kept for the next start sink=%s count=%d", view.sink, view.entries)

    def close(self) -> None:
        for way in self._ways.values():
            self._unregister(way)
            way.line.close()
        self._spool.close()

    # The spool.

    def _look(self) -> None:
        self._is_stale = False
        self._measure()
        if self._drops_oldest and self._size >= self._max_bytes:
            try:
                lost = self._spool.drop_oldest(
                    self._size - self._max_bytes + self._max_bytes // _DROPPED_AT_ONCE
                )
            except StoreFull as error:
                self._is_stale = True  # the disk may have room the next time
                if monotonic() - self._told_of_no_room_at >= NO_ROOM_TOLD_S:
                    self._told_of_no_room_at = monotonic()
                    log.error("the oldest records cannot be dropped: %s", error)
                return
            self.dropped += lost
            log.error(
                "the spool is full: the oldest records were dropped count=%d total=%d", lost, self.dropped
            )
            self._measure()

    def _measure(self) -> None:
        self._fill = self._spool.fill()
        self._size = sum(filled.size for filled in self._fill.values())
        for sink, way in self._ways.items():
            way.waiting = self._fill[sink].entries if sink in self._fill else 0

    # One sink.

    def _mind(self, way: _Way, now: float) -> None:
        """Notice that a connection came or went, and look for a sink anew that has refused us."""
        line, courier = way.line, way.courier
        if line.connected and line.connections != way.connections:
            way.connections = line.connections
            courier.connected(now)
        elif not line.connected:
            reason = line.refused_reason or f"nobody answers at {line.address}"
            if courier.trouble != reason:
                courier.disconnected(reason)
        if line.refused_reason and not way.reconnect_at:
            way.reconnect_at = now + RECONNECT_S
        elif way.reconnect_at and now >= way.reconnect_at:
            way.reconnect_at = 0.0
            if not line.connected:
                self._reconnect(way)
        self._tell(way)

    def _tell(self, way: _Way) -> None:
        trouble = way.courier.trouble or way.courier.sink_trouble
        # The first attempts to connect are no news.
        if trouble == way.told_trouble or (not way.connections and not way.line.refused_reason):
            return
        way.told_trouble = trouble
        if way.courier.trouble:
            log.warning("sink takes no records sink=%s: %s", way.address.name, trouble)
        elif trouble:
            log.warning("sink takes records, and cannot pass them on sink=%s: %s", way.address.name, trouble)
        else:
            log.info("sink takes records sink=%s", way.address.name)

    def _send(self, way: _Way, now: float) -> None:
        batch = self._spool.read(way.address.name, 0, BATCH_ENTRIES, BATCH_BYTES) if way.waiting else []
        if way.waiting and not batch:
            # The file of the spool was set aside, or moved away, with what was in it.
            self._is_stale = True
        through = batch[-1][0] if batch else 0
        serial = way.courier.sent(through, now)
        # One that cannot be sent is lost, like one that was lost on the way: it is sent again.
        way.line.say(Deliver(serial, [entry for _, entry in batch]))

    def _hear(self, way: _Way) -> None:
        now = monotonic()
        for message, _ in way.line.receive():
            if isinstance(message, Stored):
                if through := way.courier.stored(message, now):
                    self._forget(way, through, now)
            elif isinstance(message, Refused):
                way.courier.refused(message.reason, now)
        self._mind(way, now)

    def _forget(self, way: _Way, through: int, now: float) -> None:
        self._is_stale = True
        try:
            self._spool.delete_upto(way.address.name, through)
        except StoreFull as error:
            # It is delivered once more then; the sink knows each record by its key.
            way.courier.refused(f"what it has cannot be forgotten here: {error}", now)

    def _register(self, way: _Way) -> None:
        for end in way.line.sockets:
            self._loop.register(end, lambda: self._hear(way))

    def _unregister(self, way: _Way) -> None:
        for end in way.line.sockets:
            self._loop.unregister(end)

    def _reconnect(self, way: _Way) -> None:
        self._unregister(way)
        way.line.reconnect()
        self._register(way)
