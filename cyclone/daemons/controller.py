"""`cyclone-controller`: runs the tasks of one node.

The mind is `core/crew.py`. This daemon hears for it (the master, its workers, the reaper, signals), carries
payloads and values past it, and says what it decides.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, TypeVar

import msgspec

from cyclone.clock import monotonic
from cyclone.core.crew import LINE, MASTER, REAPER, Crew, WorkerState
from cyclone.core.decision import Decision, Letter
from cyclone.core.intensity import Intensity
from cyclone.daemons.delivery import NO_ROOM_TOLD_S, Delivery, spool_file
from cyclone.daemons.enclosures import split
from cyclone.daemons.entry import new_life, raise_descriptor_limit, report_ready, run_daemon
from cyclone.daemons.scraping import Scraping
from cyclone.errors import (
    EXIT_INTERNAL,
    EXIT_OK,
    EXIT_UNREACHABLE,
    ConfigError,
    KeyFileMissing,
    StoreFull,
    Undecodable,
)
from cyclone.loop import Loop
from cyclone.messages import (
    Drop,
    Ended,
    Finished,
    Guard,
    Hire,
    Kill,
    Message,
    Place,
    Started,
)
from cyclone.model.lifecycle import Outcome
from cyclone.model.task import End, Token
from cyclone.process.former_lives import forget_lives, sweep_former_lives
from cyclone.process.nursery import Hired, Nursery, ReaperDied
from cyclone.process.reaper import Born, Died, Unborn
from cyclone.process.replace import replace_content
from cyclone.process.service_manager import ServiceManager
from cyclone.record import SINKS_VARIABLE
from cyclone.settings import ControllerSettings, endpoint, is_ipv6
from cyclone.store import file
from cyclone.wire.keys import Role
from cyclone.wire.line import Line, connect

if TYPE_CHECKING:
    from cyclone.metrics.family import Family

log = logging.getLogger("controller")

#: The reaper may be killed by an administrator's mistake now and then; more often than this within a minute it
#: cannot live here.
REAPER_DEATHS_MOST = 5
#: While there are no keys yet.
KEYS_AGAIN_S = 0.2
#: While the disk has no room for records.
KEEP_AGAIN_S = 1.0


_Opened = TypeVar("_Opened")


class Controller:
    """Owns the ports of one controller, and what the mind must not see: payloads and values, by token."""

    def __init__(self, settings: ControllerSettings, life: str, manager: ServiceManager) -> None:
        self._settings = settings
        self._manager = manager
        self._life = life
        # First what may be refused, so that nothing is left behind then.
        self._keys_until = (
            monotonic() + settings.request_retry_wait_duration_s * settings.max_num_request_retries
        )
        self._line = self._with_keys(self._connect)
        self._connections = 0  # how many were reported over
        self._kept = KeptResults(settings.state_dir)
        self._payloads: dict[Token, bytes] = {}
        self._values: dict[Token, bytes] = self._kept.values()
        self._loop = Loop()
        self._delivery = self._with_keys(self._open_delivery)
        self._scraping = Scraping(settings)
        self._nursery = Nursery("cyclone.daemons.worker")
        self._outbox: list[Letter] = []  # to the master, until the end of the turn
        # What has ended with records that are not on disk yet, and what came from workers after it.
        self._unkept: deque[tuple[int, Finished, list[bytes]]] = deque()
        self._keep_again_at = 0.0
        self._told_of_no_room_at = -NO_ROOM_TOLD_S
        self._hired: dict[int, Hired] = {}
        self._places: dict[int, int] = {}  # slot -> how many `Place` its worker was sent
        self._reaper_deaths = Intensity(REAPER_DEATHS_MOST)
        self._told_to_stop = 0
        self._broken = ""
        self._crew = Crew(
            monotonic(),
            workers=settings.worker_count,
            resources=settings.room,
            host=socket.gethostname(),
            pid=os.getpid(),
            stop_grace_s=settings.stop_grace_s,
            hung_after_s=settings.hung_after_s,
            retry_wait_s=settings.request_retry_wait_duration_s,
            retries_max=settings.max_num_request_retries,
            # Reports of controllers that were started together drift apart.
            jitter=0.8 + 0.2 * int(life[-4:], 16) / 0xFFFF,
            kept=self._kept.ends(),
        )

    def run(self) -> int:
        """Hear, decide, say, until there is nothing more to say. Returns the exit code."""
        log.info("Controller PID: %d", os.getpid())
        log.info("Started name=%s life=%s workers=%d", self._name, self._life, self._settings.worker_count)
        self._nursery.start(self._life)
        # Two descriptors for each worker; after the reaper was started, so that tasks have the limits of the shell.
        raise_descriptor_limit()
        self._loop.register(self._nursery, self._on_reaper)
        self._register_line()
        if self._delivery is not None:
            self._delivery.start()
        self._loop.on_signal(signal.SIGTERM, self._on_term)
        self._loop.on_signal(signal.SIGHUP, self._on_hangup)
        # Ctrl-C in the terminal in which it was started must not stop it (but its workers are in sessions of
        # their own, and a controller that should end gets SIGTERM).
        self._loop.on_signal(signal.SIGINT, self._on_interrupt)
        report_ready(self._loop, self._manager, f"serves as {self._name}")
        try:
            while not (self._crew.is_done or self._crew.broken or self._broken):
                self._keep_records()
                self._observe()
                self._obey(self._crew.tick(monotonic()))
                self._post()
                self._deliver()
                self._scraping.show(monotonic(), self._families)
                self._wait()
        finally:
            self._loop.unregister(self._nursery)
            self._nursery.close()
        return self._end()

    def _wait(self) -> None:
        now = monotonic()
        moments = [
            self._crew.next_moment(now),
            now + self._settings.poll_timeout_s,
            self._nursery.look_after_reaper(),
        ]
        if self._unkept:
            moments.append(self._keep_again_at)
        if self._delivery is not None and (moment := self._delivery.next_moment()) is not None:
            moments.append(moment)
        self._loop.wait(max(0.0, min(moments) - now))

    # Hear.

    def _on_master(self) -> None:
        heard = self._line.receive()
        if self._line.connections != self._connections:
            self._connections = self._line.connections
            self._crew.connected(monotonic())
        for message, enclosure in heard:
            log.debug("heard %s", type(message).__name__)
            self._obey(self._crew.receive(message, monotonic()))
            if isinstance(message, Place):
                for assignment, payload in zip(message.assignments, enclosure, strict=True):
                    if assignment.token in self._crew.held:
                        self._payloads[assignment.token] = payload
            elif isinstance(message, Drop) and not message.unless_started:
                for token in message.tokens:
                    self._payloads.pop(token, None)
                    self._values.pop(token, None)

    def _on_worker(self, slot: int) -> None:
        """Its channel is readable. That it is closed is no news: the reaper tells of a death."""
        hired = self._hired.get(slot)
        if hired is None:
            return
        try:
            for message, values in hired.channel.receive():
                self._on_finished(slot, message, values)
        except Undecodable as error:
            self._distrust(slot, str(error))
            return
        if hired.channel.closed:
            self._loop.unregister(hired.channel)

    def _distrust(self, slot: int, why: str) -> None:
        """The worker has lost its mind, or a task wrote where only the worker may: nothing more is heard of it."""
        log.warning("worker said nonsense slot=%d: %s", slot, why)
        hired = self._hired.get(slot)
        if hired is not None:
            self._nursery.kill(slot, signal.SIGKILL)
            self._loop.unregister(hired.channel)
            hired.channel.close()

    def _on_finished(self, slot: int, message: Finished, values: list[bytes]) -> None:
        """An end is heard of when what it has recorded is on disk, so that no record is lost with this process."""
        if message.entries or self._unkept:
            self._unkept.append((slot, message, values))
            self._crew.ended(slot)
        else:
            self._finished(slot, message, values)

    def _keep_records(self) -> None:
        """Write down what was recorded in this turn; while the disk has no room, what recorded it has not ended."""
        now = monotonic()
        if not self._unkept or now < self._keep_again_at:
            return
        entries = [entry for _, message, _ in self._unkept for entry in message.entries]
        try:
            if entries and self._delivery is not None:
                self._delivery.keep(entries)
        except StoreFull as error:
            self._keep_again_at = now + KEEP_AGAIN_S
            if now - self._told_of_no_room_at >= NO_ROOM_TOLD_S:
                self._told_of_no_room_at = now
                log.error("%s: trying again every second until there is room", error)
            return
        unkept, self._unkept = self._unkept, deque()
        for slot, message, values in unkept:
            self._finished(slot, message, values)

    def _finished(self, slot: int, message: Finished, values: list[bytes]) -> None:
        if len(values) != len(message.ends) or not self._crew.may_tell(slot, message.ends, message.unbegun):
            self._distrust(slot, f"it tells of {len(message.ends)} attempts that are not what it was given")
            return
        for end in message.ends:
            self._payloads.pop(end.token, None)
        decision = self._crew.finished(slot, message.ends, monotonic(), message.unbegun)
        for end, value in zip(message.ends, values, strict=True):
            # Nobody will ever ask us to drop what the mind does not keep: the attempt was not wanted any more.
            if value and end.outcome is Outcome.SUCCEEDED and self._crew.keeps_end(end.token):
                self._values[end.token] = value
        self._obey(decision)

    def _on_reaper(self) -> None:
        for event in self._nursery.receive():
            log.debug("reaper said %s", event)
            match event:
                case Born(slot, pid):
                    self._crew.born(slot, pid)
                case Unborn(slot, reason):
                    log.error("no worker slot=%d reason=%s", slot, reason)
                    self._bury(slot, -signal.SIGKILL)
                case Died(slot, _, status):
                    self._bury(slot, status)
                case ReaperDied(status, left):
                    self._restart_reaper(status, left)

    def _bury(self, slot: int, status: int) -> None:
        """Hear the last words of a worker, then tell the mind of its death."""
        hired = self._hired.pop(slot, None)
        if hired is None:
            return
        self._loop.unregister(hired.channel)
        try:
            for message, values in hired.channel.drain():
                self._on_finished(slot, message, values)
        except Undecodable as error:
            log.warning("worker died while it spoke slot=%d: %s", slot, error)
        self._keep_records()
        # What could not be kept is tried again with its task.
        self._unkept = deque(unkept for unkept in self._unkept if unkept[0] != slot)
        running = self._place_of(slot, hired)
        hired.channel.close()
        hired.progress.close()
        log.debug("worker died slot=%d status=%d running=%s", slot, status, running)
        self._obey(self._crew.died(slot, status, running, monotonic()))

    def _place_of(self, slot: int, hired: Hired) -> int | None:
        """Which place of its chunk a dead worker was executing; see `Crew.died`."""
        standing = hired.progress.read()
        through = len(self._crew.workers[slot].chunk)
        if standing is None:
            return through
        if standing.place < self._places[slot]:
            return None
        return through if standing.assignment is None else standing.assignment

    def _restart_reaper(self, status: int, left: frozenset[int]) -> None:
        log.error("reaper died status=%d; its workers died with it, unkillable=%s", status, sorted(left))
        for slot in list(self._hired):
            self._bury(slot, -signal.SIGKILL)
        self._loop.unregister(self._nursery)
        if self._reaper_deaths.one_more(monotonic()):
            self._broken = f"the reaper died more than {REAPER_DEATHS_MOST} times within a minute"
            return
        self._nursery.start(self._life)
        self._loop.register(self._nursery, self._on_reaper)

    def _observe(self) -> None:
        """Look at the progress pages of those who work."""
        for slot, worker in self._crew.workers.items():
            if worker.chunk and (hired := self._hired.get(slot)) is not None:
                standing = hired.progress.read()
                if (
                    standing is not None
                    and standing.assignment is not None
                    and standing.place == self._places[slot]
                ):
                    self._crew.observed(slot, standing.assignment, standing.started_ns * 1e-9)

    def _on_term(self) -> None:
        self._told_to_stop += 1
        at_once = self._told_to_stop > 1
        log.info("told to stop now=%s", at_once)
        self._manager.stopping("it was told to stop")
        self._obey(self._crew.leave("it was told to stop", monotonic(), at_once=at_once))

    def _on_interrupt(self) -> None:
        log.info("interrupt ignored: stop me with kill %d", os.getpid())

    def _on_hangup(self) -> None:
        log.info("hang-up: connecting anew")
        self._reconnect()

    # Say.

    def _obey(self, decision: Decision) -> None:
        for note in decision.notes:
            log.info("%s", note)
        for letter in decision.letters:
            if letter.to == MASTER:
                self._outbox.append(letter)
                if isinstance(letter.message, Started):
                    # It may be the announcement of a task that kills whoever begins it.
                    self._post()
            elif letter.to == REAPER:
                self._order(letter.message)
            elif letter.to == LINE:
                log.info("no answer from the master: connecting anew%s", self._why_refused())
                self._reconnect()
            else:
                self._give(int(letter.to.life), letter)

    def _post(self) -> None:
        """Say to the master what the turn has brought, when all workers have something to do again."""
        letters, self._outbox = self._outbox, []
        for kind, alike in groupby(letters, key=lambda letter: type(letter.message)):
            if kind is Ended:
                self._say_to_master(_joined(alike))
            else:
                for letter in alike:
                    self._say_to_master(letter)

    def _say_to_master(self, letter: Letter) -> None:
        values = [self._values.get(token, b"") for token in letter.enclose]
        for message, enclosure in split(letter.message, values):
            log.debug("said %s", type(message).__name__)
            # One that cannot be sent is lost, like one that was lost on the way: the mind repeats what matters.
            self._line.say(message, enclosure)

    def _deliver(self) -> None:
        """Bring records to their sinks, and tell the mind how much room for more there is."""
        if self._delivery is not None:
            self._delivery.tick()
            self._crew.spools = self._delivery.views()
            self._crew.has_no_room_for_records = not self._delivery.has_room

    def _order(self, message: Message) -> None:
        if isinstance(message, Hire):
            hired = self._hired[message.slot] = self._nursery.hire(message.slot)
            self._places[message.slot] = 0
            self._loop.register(hired.channel, lambda: self._on_worker(message.slot))
        elif isinstance(message, Kill):
            self._nursery.kill(message.slot, message.signal)
        elif isinstance(message, Guard):
            self._nursery.guard(message.slot, message.until)

    def _give(self, slot: int, letter: Letter) -> None:
        """Hand work to a worker; what it does not take at once is sent when it does."""
        hired = self._hired[slot]
        self._places[slot] += 1
        hired.channel.send(letter.message, [self._payloads[token] for token in letter.enclose])
        self._mind_unsent(slot, hired)

    def _mind_unsent(self, slot: int, hired: Hired) -> None:
        def flush() -> None:
            hired.channel.flush()
            if not hired.channel.has_unsent:
                self._loop.register(hired.channel, readable)

        def readable() -> None:
            self._on_worker(slot)

        if hired.channel.has_unsent:
            self._loop.register(hired.channel, readable, flush)

    # The line.

    @property
    def _name(self) -> str:
        """Tells this controller from others with the same key: by default those on other hosts and PID files."""
        name = self._settings.name or f"{socket.gethostname()}:{self._settings.pid_file.stem}"
        return re.sub(r"[^A-Za-z0-9._:-]", "-", name)[:128]

    def _connect(self) -> Line:
        settings = self._settings
        return connect(
            endpoint(settings.target, settings.port), settings.keys, settings.key, Role.CONTROLLER,
            instance=self._name, life=self._life, ipv6=is_ipv6(settings.target),
        )  # fmt: skip

    def _with_keys(self, open_: Callable[[], _Opened]) -> _Opened:
        """Wait for the keys as for the master, who makes them if it was started first, a moment ago."""
        told = ""
        while True:
            try:
                return open_()
            except KeyFileMissing as error:
                if monotonic() >= self._keys_until:
                    raise
                if str(error) != told:
                    told = str(error)
                    log.info("waiting for a key: %s", error)
            sleep(KEYS_AGAIN_S)

    def _open_delivery(self) -> Delivery | None:
        os.environ[SINKS_VARIABLE] = ",".join(sink.name for sink in self._settings.sinks)
        # Also what waits for sinks that are not named any more is to be told of.
        if not self._settings.sinks and not spool_file(self._settings).exists():
            return None
        return Delivery(self._settings, self._name, self._life, self._loop)

    def _register_line(self) -> None:
        for end in self._line.sockets:
            self._loop.register(end, self._on_master)

    def _unregister_line(self) -> None:
        for end in self._line.sockets:
            self._loop.unregister(end)

    def _reconnect(self) -> None:
        self._unregister_line()
        self._line.reconnect()
        self._register_line()

    def _why_refused(self) -> str:
        return f" ({self._line.refused_reason})" if self._line.refused_reason else ""

    def _families(self) -> list[Family]:
        from cyclone.metrics.figures import ControllerFigures
        from cyclone.metrics.own import controller_families

        crew = self._crew
        states = Counter(worker.state for worker in crew.workers.values())
        hung = states[WorkerState.HUNG]
        return controller_families(
            ControllerFigures(
                workers=len(crew.workers),
                workers_busy=states[WorkerState.BUSY] + states[WorkerState.STOPPING] + hung,
                workers_hung=hung,
                queued=sum(held.worker is None for held in crew.held.values()),
                values_kept=len(self._values),
                values_kept_bytes=sum(map(len, self._values.values())),
                spools=crew.spools,
                dropped=self._delivery.dropped if self._delivery is not None else 0,
                spool_max_bytes=self._settings.spool_max_mb * 2**20,
            )
        )

    # The end.

    def _end(self) -> int:
        self._post()
        undelivered = self._crew.undelivered
        try:
            self._kept.keep(undelivered, self._values)
        except OSError as error:
            log.error(
                "results are lost, their tasks are given out again count=%d: %s", len(undelivered), error
            )
        # Records may go on being delivered; the master is heard and called no more.
        self._unregister_line()
        self._loop.on_signal(signal.SIGHUP, lambda: None)
        self._line.close()
        if self._delivery is not None:
            self._delivery.finish()
            self._delivery.close()
        self._scraping.close()
        self._loop.close()
        self._kept.close()
        if undelivered:
            log.warning("results kept for the next start count=%d file=%s", len(undelivered), self._kept.file)
        if broken := self._crew.broken or self._broken:
            log.error("giving up: %s", broken)
            return EXIT_INTERNAL
        if self._crew.unreachable and not self._told_to_stop:
            log.error(
                "retry limit reached: no answer from the master at %s%s",
                self._line.address,
                self._why_refused(),
            )
            return EXIT_UNREACHABLE
        log.info("Finished")
        return EXIT_OK


def _joined(letters: Iterable[Letter]) -> Letter:
    """What several workers have ended, in one letter."""
    ends: list[End] = []
    for letter in letters:
        assert isinstance(letter.message, Ended)
        ends += letter.message.ends
    return Letter(MASTER, Ended(ends), [end.token for end in ends])


class KeptResults:
    """Ends that could not be delivered, with their values, from one life of a controller to the next.

    It owns the directory: two controllers would each remove what the other has kept.
    """

    def __init__(self, directory: Path) -> None:
        """Raises ConfigError when the directory cannot be made or is open to everybody, or what is in it cannot be read;
        StoreFull, AlreadyRunning."""
        self.file = directory / "undelivered"
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            file.refuse_exchangeable(directory)
        except OSError as error:
            raise ConfigError(f"cannot be made: {error.strerror}", file=directory) from None
        self._lock = file.lock(self.file)
        try:
            self._read = self._left()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Leave the directory to the next controller."""
        self._lock.close()

    def _left(self) -> list[tuple[End, bytes]]:
        try:
            content = self.file.read_bytes()
            return msgspec.msgpack.decode(content, type=list[tuple[End, bytes]])
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ConfigError(f"cannot be used: {error.strerror}", file=self.file.parent) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            # Nothing is lost: the tasks are given out again. It is set aside for whoever wants to know.
            aside = self.file.with_suffix(".damaged")
            self.file.replace(aside)
            log.error("results of a former life cannot be read, set aside file=%s: %s", aside, error)
            return []

    def ends(self) -> list[End]:
        return [end for end, _ in self._read]

    def values(self) -> dict[Token, bytes]:
        return {end.token: value for end, value in self._read if value}

    def keep(self, ends: list[End], values: dict[Token, bytes]) -> None:
        """Write them down, durably, in the place of what was there."""
        if not ends:
            self.file.unlink(missing_ok=True)
            return
        content = msgspec.msgpack.encode([(end, values.get(end.token, b"")) for end in ends])
        replace_content(self.file, content)


def serve(settings: ControllerSettings, manager: ServiceManager) -> int:
    life = new_life()
    lives = settings.pid_file.with_suffix(".lives")
    controller = Controller(settings, life, manager)
    # Nothing was reported yet: by then nobody of a former life may be left.
    if left := sweep_former_lives(lives, life):
        log.warning("processes of a former life cannot be killed pids=%s", sorted(left))
    code = controller.run()
    if left := forget_lives(lives):
        log.warning("processes cannot be killed, the next start tries again pids=%s", sorted(left))
    return code


def main() -> int:
    """Entry point of `cyclone-controller`."""
    what = "Run the tasks of this node: hold what the master places here, keep its workers busy, tell it the ends."
    return run_daemon("controller", what, ControllerSettings, serve)


if __name__ == "__main__":
    sys.exit(main())
