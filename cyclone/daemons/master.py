"""`cyclone-master`: takes tasks, places them on controllers, remembers what became of them.

The mind is `core/scheduler.py`. The loop below hears for it, remembers what it decides, and then says what
it decides, in this order and never in another. What it says is synced before, unless it promises nothing.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

import cyclone
from cyclone.clock import monotonic
from cyclone.core.decision import Decision, Letter
from cyclone.core.intensity import Intensity
from cyclone.core.scheduler import Scheduler
from cyclone.core.spare_time import SpareTime
from cyclone.core.switchboard import Switchboard
from cyclone.daemons.answers import MasterFacts, answer
from cyclone.daemons.enclosures import Enclosures, split
from cyclone.daemons.entry import raise_descriptor_limit, report_ready, run_daemon
from cyclone.daemons.generator_process import GeneratorProcess
from cyclone.daemons.put_off import PutOff
from cyclone.daemons.questions import Question, Questions
from cyclone.daemons.scraping import Scraping
from cyclone.errors import EXIT_INTERNAL, EXIT_OK, EXIT_TASK_FAILED, ConfigError, CycloneError, StoreFull
from cyclone.loop import Loop
from cyclone.messages import (
    AskCluster,
    AskGenerator,
    Cluster,
    CommandDone,
    Place,
    Results,
    Submit,
    TaskEnd,
)
from cyclone.model.changes import Change
from cyclone.process.replace import replace_content
from cyclone.process.service_manager import ServiceManager
from cyclone.settings import MasterSettings, endpoint, is_ipv6, reachable
from cyclone.store.sqlite import SqliteStore
from cyclone.wire import keys
from cyclone.wire.door import Door, Heard

if TYPE_CHECKING:
    from cyclone.metrics.family import Family

log = logging.getLogger("master")

#: Messages that are decided about together and remembered in one transaction.
BATCH_MOST = 200
#: What comes sooner after the last thing is not slept for: a round trip has two such pauses.
SPIN_S = 0.0005
#: A generator that is killed is started again, but not more often than this within a minute.
GENERATOR_DEATHS_MOST = 5
GENERATOR_GRACE_S = 10.0
#: How often to look for what may be forgotten, at most and at least, and how many times while something is to be kept.
FORGET_S = 0.5, 60.0
LOOKS = 16


class Master:
    """Owns the ports of the master, and for one turn of the loop what the mind must not see."""

    def __init__(
        self, settings: MasterSettings, generator: GeneratorProcess | None, manager: ServiceManager
    ) -> None:
        """Opens the door and then the store. Raises StoreError or ConfigError."""
        self._settings = settings
        self._generator = generator
        self._manager = manager
        self._started_at = monotonic()
        self._stopping = 0  # how often it was told to
        self._waits_for_room = False  # on the disk
        self._questions = Questions()
        self._put_off = PutOff()
        self._exit_code = EXIT_OK
        self._generator_deaths = Intensity(GENERATOR_DEATHS_MOST)
        self._generator_must_end_by: float | None = None
        self._enclosures = Enclosures()
        self._is_full = False  # the store, when tasks were submitted last
        self._loop = Loop(SPIN_S)
        # First what may be refused, so that no store is left behind then.
        self._door, self._ring, self.address = _open_door(settings)
        try:
            self._store = SqliteStore(
                settings.store_path, durability=settings.durability, max_bytes=settings.store_max_bytes or 0
            )
        except CycloneError:
            self._door.close()
            raise
        self._switchboard = Switchboard()
        self._scraping = Scraping(settings)
        now = monotonic()
        look_s = FORGET_S[1] if settings.keep_s is None else settings.keep_s / LOOKS
        # Not at once: clients ask again first for what they have not heard.
        self._spare_time = SpareTime(now, min(max(look_s, FORGET_S[0]), FORGET_S[1]))
        remembered = self._store.wake()
        self._mind = Scheduler(remembered, now, lease_s=settings.lease_s, window=settings.window)

    def run(self) -> int:
        """Serve until everything has ended or somebody says stop. Returns the exit code."""
        self._begin()
        while not self._is_over():
            self._wait()
            heard = self._hear()
            decisions = [self._decide(one) for one in heard]
            decisions.append(self._mind.tick(monotonic()))
            decisions.append(Decision(letters=self._switchboard.tick(monotonic())))
            self._obey(decisions)
            self._answer()
            self._scraping.show(monotonic(), self._families)
            if (due := self._put_off.moment) is not None and monotonic() >= due:
                self._promise(self._put_off.take())
            if self._spare_time.has_come(monotonic(), busy=bool(heard)):
                self._forget()
            self._mind_the_end()
        return self._end()

    # Hear.

    def _wait(self) -> None:
        now = monotonic()
        moments = [
            now + (self._settings.poll_timeout_s or 1.0),
            self._mind.next_moment(now),
            self._spare_time.next_moment,
            self._switchboard.next_moment(),
            self._questions.next_moment(),
            self._generator_must_end_by,
            self._put_off.moment,
        ]
        first = min(moment for moment in moments if moment is not None)
        self._loop.wait(max(0.0, first - now))

    def _hear(self) -> list[Heard]:
        """What has come in; what clients say first, so that the store can recall all that has ended before it."""
        return sorted(self._door.receive(BATCH_MOST), key=lambda heard: heard.role is keys.Role.CONTROLLER)

    def _decide(self, heard: Heard) -> Decision:
        """Let the mind decide about one message, and keep what it encloses for the rest of this turn."""
        sender, message = heard.peer, heard.message
        log.debug("heard %s from %s", type(message).__name__, sender)
        if isinstance(message, Question):
            refused = self._questions.add(sender, message)
            return Decision() if refused is None else Decision(letters=[Letter(sender, refused)])
        if isinstance(message, AskGenerator):
            return Decision(letters=self._switchboard.ask(sender, message, self._mind.jobs, monotonic()))
        if isinstance(message, CommandDone):
            return Decision(letters=self._switchboard.done(sender, message))
        recalled: dict[str, TaskEnd] | None = None
        full = ""
        if isinstance(message, Submit):
            recalled, full = self._recall(message), self._why_full()
        decision = self._mind.receive(sender, message, monotonic(), recalled, full=full)
        self._enclosures.keep(message, heard.enclosure, decision)
        return decision

    def _why_full(self) -> str:
        """Why the store takes no new tasks; "" if it does."""
        was_full, self._is_full = self._is_full, self._store.is_full
        if self._is_full and not was_full:
            log.warning("%s is larger than [store] max_bytes: no new tasks are taken", self._store.path)
        elif was_full and not self._is_full:
            log.info("%s has room again: new tasks are taken", self._store.path)
        return "the store of the master is larger than [store] max_bytes" if self._is_full else ""

    def _recall(self, message: Submit) -> dict[str, TaskEnd]:
        """What has ended already of the tasks that are submitted and of those that they come after."""
        if message.job not in self._mind.jobs:
            return {}
        tids = [task.tid for task in message.tasks]
        for task in message.tasks:
            tids += task.after
        recalled = self._store.recall(message.job, tids)
        for end, value in recalled.values():
            if end.end is not None and value:
                self._enclosures.values[end.end.token] = value
        return {tid: end for tid, (end, _) in recalled.items()}

    # Remember, then say.

    def _obey(self, decisions: Sequence[Decision]) -> None:
        changes = list(chain.from_iterable(decision.changes for decision in decisions))
        if changes:
            self._remember(changes)
        for decision in decisions:
            for note in decision.notes:
                log.info("%s", note)
        now = monotonic()
        if changes:
            self._put_off.begin(now)
        binding: list[Letter] = []
        for letter in chain.from_iterable(decision.letters for decision in decisions):
            if not letter.binding:
                self._say(letter)
            elif not self._put_off.add(letter, now):
                binding.append(letter)
        if binding:
            self._promise(binding)
        self._enclosures.clear()

    def _promise(self, letters: Sequence[Letter]) -> None:
        """Say what somebody may rely on, when all that was remembered is on disk."""
        self._store.sync()
        for letter in letters:
            self._say(letter)

    def _remember(self, changes: list[Change]) -> None:
        """Return when it is in the store. On a full disk nothing is said, so nothing promised, until there is room."""
        told_at = -60.0
        while True:
            try:
                self._store.remember(changes, self._enclosures.payloads, self._enclosures.values)
            except StoreFull as error:
                if self._forget():
                    continue  # as long as there is something to be forgotten, that may make room
                if monotonic() - told_at >= 60:
                    told_at = monotonic()
                    log.error("%s: trying again every second until there is room", error)
                stopping = self._stopping
                self._waits_for_room = True
                self._loop.wait_for_signals(1.0)
                self._waits_for_room = False
                if self._stopping > stopping:
                    raise  # nothing was promised that is not on disk
            else:
                if told_at > 0:
                    log.info("there is room again")
                return

    def _forget(self) -> bool:
        """Make a slice of it. Returns whether there is more."""
        began = monotonic()
        more = False
        try:
            more = self._store.forget(self._settings.keep_s)
        except StoreFull as error:
            log.warning("%s: nothing can be forgotten until there is room", error)
        self._spare_time.spent(began, monotonic(), more=more)
        return more

    def _say(self, letter: Letter) -> None:
        to, message = letter.to, letter.message
        enclosure: list[bytes] | None = None
        if isinstance(message, Place):
            enclosure = self._store.payloads(letter.enclose)
        elif isinstance(message, Results):
            values = self._enclosures.values
            enclosure = [values.get(token, b"") for token in letter.enclose]
        for part, enclosed in split(message, enclosure or []):
            log.debug("say %s to %s", type(part).__name__, to)
            # What cannot be sent is lost, like what gets lost on the way: reports and serials bring it to light.
            self._door.say(to, part, enclosed if enclosure is not None else None)

    def _answer(self) -> None:
        """Answer questions when mind and store know the same: after what was decided has been remembered."""
        while (asked := self._questions.next(began := monotonic())) is not None:
            sender, question = asked
            self._door.say(sender, answer(question, self._mind, self._store, began, self._facts()))
            self._questions.took(began, monotonic())

    def _families(self) -> list[Family]:
        from cyclone.metrics.own import cluster_families

        cluster = answer(AskCluster(request=0), self._mind, self._store, monotonic(), self._facts())
        assert isinstance(cluster, Cluster)
        return cluster_families(cluster)

    # The beginning.

    def _begin(self) -> None:
        raise_descriptor_limit()
        log.info("Master PID: %d", os.getpid())
        log.info(
            "Started address=%s store=%s epoch=%d", self.address, self._settings.store_path, self._mind.epoch
        )
        if self._store.beginning:
            log.info("store: %s", self._store.beginning)
        for socket in self._door.sockets:
            self._loop.register(socket, _nothing)
        self._loop.on_signal(signal.SIGTERM, self._on_term)
        self._loop.on_signal(signal.SIGINT, self._on_term)
        self._loop.on_signal(signal.SIGHUP, self._on_hangup)
        if self._generator is not None:
            self._let_generator_go()
        report_ready(self._loop, self._manager, f"serves at {self.address}")

    def _let_generator_go(self) -> None:
        assert self._generator is not None
        self._generator.go(self.address)
        self._loop.register(self._generator, self._on_generator_end)

    # The end.

    def _on_term(self) -> None:
        self._stopping += 1
        log.info("told to stop now=%s", self._stopping > 1)
        if self._waits_for_room:
            return
        self._stop("the master was told to stop", at_once=self._stopping > 1)

    def _stop(self, reason: str, *, at_once: bool = False) -> None:
        self._obey([self._mind.stop(reason, at_once=at_once)])
        self._manager.stopping(reason)
        if self._generator is not None and self._generator_must_end_by is None:
            # It was told with the letter to its client; this is for one that does not listen.
            self._generator_must_end_by = monotonic() + GENERATOR_GRACE_S
            self._generator.ask_to_stop()

    def _on_hangup(self) -> None:
        try:
            if self._ring is not None:
                self._ring.reload()
            log.info("keys read anew")
        except ConfigError as error:
            log.error("keys in disorder: %s", error)
        if self._generator is not None:
            self._generator.hang_up()

    def _on_generator_end(self) -> None:
        """Its process has ended: in order, broken, or killed."""
        assert self._generator is not None
        self._loop.unregister(self._generator)
        status = self._generator.collect()
        if status == 0 or self._mind.draining:
            log.info("generator ended status=%d", status)
            self._generator = None
            return
        if status < 0 and self._may_restart_generator():
            log.warning("generator was killed by signal %d: starting it again", -status)
            self._generator.spawn()
            self._loop.register(self._generator.link, self._on_generator_checked)
            return
        self._lose_generator(f"its process ended with {status}")

    def _on_generator_checked(self) -> None:
        """One that was started again has looked at its configuration, which may have changed meanwhile."""
        assert self._generator is not None
        self._loop.unregister(self._generator.link)
        if self._mind.draining:
            self._generator.kill()
            self._generator = None
            return
        verdict = self._generator.verdict()
        if verdict is not None and not verdict.problem:
            self._let_generator_go()
        elif verdict is None and self._may_restart_generator():
            self._generator.spawn()
            self._loop.register(self._generator.link, self._on_generator_checked)
        else:
            self._lose_generator(
                verdict.problem if verdict is not None else "it is killed whenever it starts"
            )

    def _lose_generator(self, why: str) -> None:
        log.error("generator broke down: %s: stopping when what runs has ended", why)
        self._generator = None
        self._exit_code = EXIT_INTERNAL
        self._stop("the task generator broke down")

    def _may_restart_generator(self) -> bool:
        return not self._generator_deaths.one_more(monotonic())

    def _mind_the_end(self) -> None:
        finished = self._settings.stops_when_finished and self._generator is None and self._mind.is_idle
        if finished and not self._mind.draining:
            log.info(
                "finished: the generator and all tasks have ended jobs_failed=%d", self._mind.failed_jobs
            )
            self._exit_code = EXIT_TASK_FAILED if self._mind.failed_jobs else EXIT_OK
            self._stop("all tasks have ended")
        must_end_by = self._generator_must_end_by
        if self._generator is not None and must_end_by is not None and monotonic() >= must_end_by:
            log.warning("generator did not stop within %g s: killing it", GENERATOR_GRACE_S)
            self._generator.end_now()
            self._generator_must_end_by = None

    def _is_over(self) -> bool:
        return self._mind.draining and self._mind.is_deserted and self._generator is None

    def _end(self) -> int:
        self._promise(self._put_off.take())
        self._scraping.close()
        self._door.close()
        self._store.close()
        self._loop.close()
        log.info("Finished")
        return self._exit_code

    def _facts(self) -> MasterFacts:
        return MasterFacts(
            version=cyclone.__version__,
            pid=os.getpid(),
            epoch=self._mind.epoch,
            state="stopping" if self._mind.draining else "running",
            up_s=monotonic() - self._started_at,
            store=str(self._settings.store_path),
            address=self.address,
        )


def _open_door(settings: MasterSettings) -> tuple[Door, keys.KeyRing | None, str]:
    """The bound door, who may come in, and the address under which this host reaches it."""
    own = ring = None
    if settings.curve:
        for made in keys.ensure(settings.key_dir):
            log.info("key made file=%s", made)
        own, ring = keys.load_pair(settings.key_dir, "master"), keys.KeyRing(settings.key_dir)
    door = Door(own, ring, max_message_bytes=settings.max_message_bytes, ipv6=is_ipv6(settings.target))
    try:
        port = door.bind(endpoint(settings.target, settings.port))
    except ConfigError:
        door.close()
        raise
    address = endpoint(reachable(settings.target), port)
    if settings.port_file is not None:
        try:
            _write_port(settings, address)
        except ConfigError:
            door.close()
            raise
    return door, ring, address


def _write_port(settings: MasterSettings, address: str) -> None:
    """For clients of a master that took any free port."""
    file = settings.port_file
    assert file is not None
    try:
        replace_content(file, f"{address.rpartition(':')[2]}\n".encode("ascii"), mode=0o644)
    except OSError as error:
        raise ConfigError(
            f"cannot be written: {error.strerror}", file=file, section="comm", key="port_file"
        ) from None


def _nothing() -> None:
    """The loop wakes up; the door is read once a turn, however many messages there are."""


def serve(settings: MasterSettings, manager: ServiceManager) -> int:
    """Check the plug-in first: if it cannot be used, nothing else was started."""
    generator = GeneratorProcess(settings) if settings.has_generator else None
    try:
        if generator is not None:
            generator.start()
        return Master(settings, generator, manager).run()
    finally:
        if generator is not None:
            generator.kill()


def check(settings: MasterSettings) -> None:
    """For `--check`: load the generator and let it check and explain its own ini file, in a process of its own."""
    if settings.has_generator:
        # What it has to say belongs on the terminal of who asked, not into the log of a daemon that may be running.
        generator = GeneratorProcess(replace(settings, log_file=None))
        try:
            meaning = generator.start().meaning
        finally:
            generator.kill()
        if meaning:
            print(f"\n{settings.generator_class}:\n\n{meaning}")  # noqa: T201 - this is what was asked for


def main() -> int:
    """Entry point of `cyclone-master`."""
    what = "Take tasks from a task generator and from clients, place them on controllers, lose none."
    return run_daemon("master", what, MasterSettings, serve, check)


if __name__ == "__main__":
    sys.exit(main())
