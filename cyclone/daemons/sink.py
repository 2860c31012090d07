"""What the daemons of all sinks have in common: they hear what controllers deliver, keep it, and say so.

The same four verbs as everywhere: hear, decide (whether it is new is a matter of its key), remember, and only
then say that it is safe here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
from collections.abc import Sequence
from itertools import accumulate, takewhile
from pathlib import Path
from socket import socketpair
from typing import NamedTuple, Protocol

from cyclone.clock import monotonic
from cyclone.daemons.entry import raise_descriptor_limit, report_ready
from cyclone.errors import EXIT_OK, ConfigError, StoreError, StoreFull
from cyclone.loop import Loop
from cyclone.messages import AskRecords, Deliver, Entry, RecordsKnown, Refused, Stored
from cyclone.model.peer import Peer
from cyclone.process.replace import replace_content
from cyclone.process.service_manager import ServiceManager
from cyclone.settings import endpoint, is_ipv6
from cyclone.sinks.inquiry import Answer, Traced
from cyclone.sinks.settings import SinkSettings
from cyclone.wire import keys
from cyclone.wire.door import SINK, Door
from cyclone.wire.text_inbox import TextInbox

log = logging.getLogger("sink")

#: Deliveries that are kept in one transaction.
BATCH_MOST = 50

#: Texts of tasks of Cyclone 2.x that are read at once.
TEXTS_MOST = 1000

#: Bytes of them that are kept in one transaction, or one text: they fit into any spool that is empty.
TEXT_BYTES_MOST = 2**20

#: Texts for which there was no room are tried again so often.
AGAIN_S = 2.0


class Standing(NamedTuple):
    """How a sink does. entries: what waits here; trouble: why it does not go on, "" if it does.

    refused: what it has put aside in this life because nobody takes it.
    """

    entries: int
    trouble: str = ""
    refused: int = 0


class Keeper(Protocol):
    """What a sink does with records."""

    def keep(self, entries: Sequence[Entry]) -> None:
        """Return when they are safe here. Raises StoreFull: none of them was kept, and it may be tried again."""

    def keep_texts(self, texts: Sequence[bytes]) -> None:
        """As `keep`, for what tasks of Cyclone 2.x have pushed; what cannot be read is told.

        Raises StoreError: the same texts come again, and no others until these are kept.
        """

    def trace(self, uids: Sequence[bytes], answer: Answer) -> None:
        """Find out what has become of these records, without blocking, and tell it, in any thread."""

    def tick(self) -> None:
        """Called after every turn of the loop."""

    def flush(self) -> None:
        """Somebody does not want to wait (SIGUSR1): pass on now what is here."""

    def standing(self) -> Standing: ...

    def finish(self) -> None:
        """The daemon ends: pass on what can be passed on."""


class Answers:
    """What threads have found out, on its way to those who asked: their answers wake the loop."""

    def __init__(self) -> None:
        self._found: queue.SimpleQueue[tuple[Peer, RecordsKnown]] = queue.SimpleQueue()
        self._posted, self._post = socketpair()
        self._posted.setblocking(False)
        self._post.setblocking(False)

    def fileno(self) -> int:
        """Readable when there are any."""
        return self._posted.fileno()

    def to(self, peer: Peer, request: int) -> Answer:
        def answer(traced: Traced) -> None:
            self._found.put((peer, RecordsKnown(request, *traced)))
            # One that is full wakes the loop just the same; one that is closed wakes nobody any more.
            with contextlib.suppress(OSError):
                self._post.send(b"!")

        return answer

    def take(self) -> list[tuple[Peer, RecordsKnown]]:
        with contextlib.suppress(BlockingIOError):
            self._posted.recv(4096)
        return [self._found.get() for _ in range(self._found.qsize())]

    def close(self) -> None:
        self._posted.close()
        self._post.close()


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
        self._answers = Answers()
        self._stopping = False

    def serve(self, keeper: Keeper, manager: ServiceManager) -> int:
        """Until somebody says stop. Returns the exit code."""
        raise_descriptor_limit()
        loop = Loop()
        for socket in self._door.sockets:
            loop.register(socket, _nothing)
        loop.register(self._answers, _nothing)
        intake = TextIntake(self._texts, loop) if self._texts is not None else None
        loop.on_signal(signal.SIGTERM, self._on_term)
        loop.on_signal(signal.SIGINT, self._on_term)
        loop.on_signal(signal.SIGHUP, self._on_hangup)
        loop.on_signal(signal.SIGUSR1, keeper.flush)
        log.info("Sink PID: %d", os.getpid())
        address = endpoint(self._settings.target, self.port)
        log.info("Started address=%s", address)
        report_ready(loop, manager, f"serves at {address}")
        while not self._stopping:
            pause_s = self._settings.poll_timeout_s or 1.0
            loop.wait(min(pause_s, AGAIN_S) if intake is not None and intake.held else pause_s)
            self._hear(keeper)
            self._answer()
            if intake is not None:
                intake.pass_on(keeper, monotonic())
            keeper.tick()
        manager.stopping("it was told to stop")
        if intake is not None and intake.held:
            log.error("texts of tasks of Cyclone 2.x are lost, at least count=%d", len(intake.held))
        keeper.finish()
        self._answer()
        self.close()
        loop.close()
        log.info("Finished")
        return EXIT_OK

    def close(self) -> None:
        self._door.close()
        self._answers.close()
        if self._texts is not None:
            self._texts.close()

    def _hear(self, keeper: Keeper) -> None:
        deliveries: list[tuple[Peer, Deliver]] = []
        for heard in self._door.receive(BATCH_MOST):
            if isinstance(heard.message, Deliver):
                log.debug("heard %d records from %s", len(heard.message.entries), heard.peer)
                deliveries.append((heard.peer, heard.message))
            elif isinstance(heard.message, AskRecords):
                keeper.trace(heard.message.uids, self._answers.to(heard.peer, heard.message.request))
        if not deliveries:
            return
        refusals = keep_what_fits(keeper, [delivery for _, delivery in deliveries])
        standing = keeper.standing()
        for (peer, delivery), refusal in zip(deliveries, refusals, strict=True):
            if refusal:
                # Controllers keep what they have, and come again.
                self._door.say(peer, Refused(f"the sink has no room: {refusal}", delivery.serial))
            else:
                self._door.say(peer, Stored(delivery.serial, *standing))

    def _answer(self) -> None:
        for peer, answer in self._answers.take():
            self._door.say(peer, answer)

    def _on_term(self) -> None:
        log.info("told to stop")
        self._stopping = True

    def _on_hangup(self) -> None:
        try:
            if self._ring is not None:
                self._ring.reload()
            log.info("keys read anew")
        except ConfigError as error:
            log.error("keys in disorder: %s", error)


class TextIntake:
    """Owns what tasks of Cyclone 2.x have pushed and what is not kept yet.

    While there is any, no more is read, so that the rest waits with those who push: they expect no answer, and what
    was read from them would be lost.
    """

    def __init__(self, inbox: TextInbox, loop: Loop) -> None:
        self._inbox = inbox
        self._loop = loop
        self._again_at = 0.0
        self.held: list[bytes] = []
        for socket in inbox.sockets:
            loop.register(socket, _nothing)

    def pass_on(self, keeper: Keeper, now: float) -> None:
        """Let the keeper have what is held, or else what has come in. Called after every turn of the loop."""
        was_held = bool(self.held)
        come = self._inbox.receive(0 if was_held else TEXTS_MOST)
        if was_held and now < self._again_at:
            return
        self.held += come
        socket = self._inbox.sockets[0]
        try:
            while self.held:
                some = self._first_held()
                keeper.keep_texts(some)
                del self.held[: len(some)]
        except StoreError as error:
            if not was_held:
                log.error("texts of tasks of Cyclone 2.x wait until they can be kept: %s", error)
                # It stays readable, and the loop would never rest.
                self._loop.unregister(socket)
            self._again_at = now + AGAIN_S
            return
        if was_held:
            log.info("texts of tasks of Cyclone 2.x are kept again")
            self._loop.register(socket, _nothing)

    def _first_held(self) -> list[bytes]:
        """At least one, and as many as are kept together."""
        sizes = accumulate(map(len, self.held))
        return self.held[: max(1, sum(1 for _ in takewhile(TEXT_BYTES_MOST.__ge__, sizes)))]


def keep_what_fits(keeper: Keeper, deliveries: Sequence[Deliver]) -> list[str]:
    """Keep all of these at once, which takes one transaction, or else each for which there is room by itself.

    Returns why each was not kept, "" if it was.
    """
    try:
        if entries := [entry for delivery in deliveries for entry in delivery.entries]:
            keeper.keep(entries)
    except StoreFull as error:
        if len(deliveries) == 1:
            return [str(error)]
        return [reason for delivery in deliveries for reason in keep_what_fits(keeper, [delivery])]
    return [""] * len(deliveries)


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
