"""What the daemons of all sinks have in common: they hear what controllers deliver, keep it, and say so.

The same four verbs as everywhere: hear, decide (whether it is new is a matter of its key), remember, and only
then say that it is safe here.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from cyclone.daemons.entry import raise_descriptor_limit
from cyclone.errors import EXIT_OK, ConfigError, StoreFull
from cyclone.loop import Loop
from cyclone.messages import Deliver, Entry, Refused, Stored
from cyclone.model.peer import Peer
from cyclone.process.replace import replace_content
from cyclone.settings import endpoint, is_ipv6
from cyclone.sinks.settings import SinkSettings
from cyclone.wire import keys
from cyclone.wire.door import SINK, Door
from cyclone.wire.text_inbox import TextInbox

log = logging.getLogger("sink")

#: Deliveries that are kept in one transaction.
BATCH_MOST = 50


class Standing(NamedTuple):
    """How a sink does. entries: what waits here; trouble: why it does not go on, "" if it does."""

    entries: int
    trouble: str


class Keeper(Protocol):
    """What a sink does with records."""

    def keep(self, entries: Sequence[Entry]) -> None:
        """Return when they are safe here. Raises StoreFull: none of them was kept, and it may be tried again."""

    def keep_texts(self, texts: Sequence[bytes]) -> None:
        """As `keep`, for what tasks of Cyclone 2.x have pushed; what cannot be read is told and dropped."""

    def tick(self) -> None:
        """Called after every turn of the loop."""

    def flush(self) -> None:
        """Somebody does not want to wait (SIGUSR1): pass on now what is here."""

    def standing(self) -> Standing: ...

    def finish(self) -> None:
        """The daemon ends: pass on what can be passed on."""


class Sink:
    """Owns the door of a sink."""

    def __init__(self, settings: SinkSettings, port: int) -> None:
        """Listens from now on. Raises ConfigError."""
        self._settings = settings
        own = self._ring = None
        if settings.curve:
            for made in keys.ensure(settings.key_dir):
                log.info("key made file=%s", made)
            own, self._ring = keys.load_pair(settings.key_dir, "sink"), keys.KeyRing(settings.key_dir)
        self._door = Door(own, self._ring, SINK, ipv6=is_ipv6(settings.target))
        try:
            self.port = self._door.bind(endpoint(settings.target, port))
            if settings.port_file is not None:
                _write_port(settings.port_file, self.port)
            self._texts = _open_text_inbox(settings)
        except BaseException:
            self._door.close()
            raise
        self._stopping = False

    def serve(self, keeper: Keeper) -> int:
        """Until somebody says stop. Returns the exit code."""
        raise_descriptor_limit()
        loop = Loop()
        for socket in (*self._door.sockets, *(self._texts.sockets if self._texts else ())):
            loop.register(socket, _nothing)
        loop.on_signal(signal.SIGTERM, self._on_term)
        loop.on_signal(signal.SIGINT, self._on_term)
        loop.on_signal(signal.SIGHUP, self._on_hangup)
        loop.on_signal(signal.SIGUSR1, keeper.flush)
        log.info("Sink PID: %d", os.getpid())
        log.info("Started address=%s", endpoint(self._settings.target, self.port))
        while not self._stopping:
            loop.wait(self._settings.poll_timeout_s or 1.0)
            self._hear(keeper)
            self._hear_texts(keeper)
            keeper.tick()
        keeper.finish()
        self.close()
        loop.close()
        log.info("Finished")
        return EXIT_OK

    def close(self) -> None:
        self._door.close()
        if self._texts is not None:
            self._texts.close()

    def _hear(self, keeper: Keeper) -> None:
        deliveries: list[tuple[Peer, Deliver]] = []
        for heard in self._door.receive(BATCH_MOST):
            if isinstance(heard.message, Deliver):
                log.debug("heard %d records from %s", len(heard.message.entries), heard.peer)
                deliveries.append((heard.peer, heard.message))
        entries = [entry for _, delivery in deliveries for entry in delivery.entries]
        if not deliveries:
            return
        try:
            if entries:
                keeper.keep(entries)
        except StoreFull as error:
            # Controllers keep what they have, and come again.
            for peer, delivery in deliveries:
                self._door.say(peer, Refused(f"the sink has no room: {error}", delivery.serial))
            return
        standing = keeper.standing()
        for peer, delivery in deliveries:
            self._door.say(peer, Stored(delivery.serial, standing.entries, standing.trouble))

    def _hear_texts(self, keeper: Keeper) -> None:
        if self._texts is None or not (texts := self._texts.receive()):
            return
        try:
            keeper.keep_texts(texts)
        except StoreFull as error:
            # Those who pushed them expect no answer, and ask nobody else.
            log.error("no room for what tasks of Cyclone 2.x have pushed lost=%d: %s", len(texts), error)

    def _on_term(self) -> None:
        log.info("told to stop")
        self._stopping = True

    def _on_hangup(self) -> None:
        try:
            if self._ring is not None:
                self._ring.reload()
            log.info("keys read anew")
        except ConfigError as error:
            log.error("keys not read anew, the former ones stay in force: %s", error)


def _open_text_inbox(settings: SinkSettings) -> TextInbox | None:
    if settings.legacy_port is None:
        return None
    inbox = TextInbox(settings.legacy_allow, ipv6=is_ipv6(settings.legacy_target))
    try:
        inbox.bind(endpoint(settings.legacy_target, settings.legacy_port))
    except BaseException:
        inbox.close()
        raise
    return inbox


def _write_port(file: Path, port: int) -> None:
    try:
        replace_content(file, f"{port}\n".encode(), mode=0o644)
    except OSError as error:
        problem = f"cannot be written: {error.strerror}"
        raise ConfigError(problem, file=file, section="comm", key="port_file") from None


def _nothing() -> None:
    """What has come in is received in its turn."""
