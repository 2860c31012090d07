"""How each fault of the plan is done to the daemons of a site.

A fault is a course: a generator that does its harm, yields how many seconds to wait, and undoes it. What it returns says
what was done; `NoEffect` says that there was nothing to be done. Several courses run at the same time, so none blocks.
A course that is closed half-way undoes its harm as well.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import socket
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

from cyclone.clock import monotonic
from cyclone.drill import database
from cyclone.drill.plan import FAULTS, MASTER, NODES, Stroke
from cyclone.drill.site import FORMER, NONSENSE, Site
from cyclone.messages import Ended, Message, Refused, Report
from cyclone.model.task import End
from cyclone.wire import codec
from cyclone.wire.keys import PublicKey, Role, load_pair, load_public, new_pair
from cyclone.wire.stranger import Stranger, of_version

Course: TypeAlias = Generator[float, None, str]

_TICK_S = 0.1
_KNOCK_S = 0.3
#: Of the day of a clock that was set.
_STEPS_S = (-86_400.0, -3600.0, -60.0, 60.0, 3600.0, 86_400.0)
_SILENT = 1000
#: A controller lets run what runs, which takes some seconds; a proxy waits for its database.
_ENDING_S = 45.0


class NoEffect(Exception):
    """There was nobody, or nothing, that the fault could have befallen. The text says what was missing."""


class Broken(Exception):
    """What a fault met with was not as it was promised. The text says what."""


def begin(stroke: Stroke, site: Site) -> Course:
    """The course of one stroke."""
    return _COURSES[stroke.fault](stroke, site)


# Deaths.


def kill_daemon(stroke: Stroke, site: Site) -> Course:
    _expect_life(stroke.victim, site)
    site.kill(stroke.victim)
    yield stroke.lasts_s
    site.start(stroke.victim)
    return f"down for {stroke.lasts_s:.1f} s"


def kill_everything(stroke: Stroke, site: Site) -> Course:
    for name in site.daemons:
        site.kill(name)
    yield stroke.lasts_s
    for name in random.Random(stroke.dice).sample(site.daemons, len(site.daemons)):
        site.start(name)
    return f"down for {stroke.lasts_s:.1f} s"


def _expect_life(name: str, site: Site) -> None:
    """Raises NoEffect if it has ended by itself, and is about to be started again."""
    if site.cluster.exit_code(name) is not None:
        raise NoEffect("it had ended just before")


def end_controller(stroke: Stroke, site: Site) -> Course:
    yield from _told_to_end(stroke.victim, site)
    yield stroke.lasts_s
    site.start(stroke.victim)
    return f"down for {stroke.lasts_s:.1f} s"


def end_master(stroke: Stroke, site: Site) -> Course:
    """Those whom it takes along are down as well; one that does not hear of it, because it has just been started, is not."""
    for name in NODES:
        site.hold_down(name)
    try:
        yield from _told_to_end(MASTER, site)
        yield stroke.lasts_s
        taken = [name for name in NODES if site.cluster.exit_code(name) is not None]
    finally:
        for name in (MASTER, *NODES):
            # One that still runs may have been told, and goes when what it runs has ended.
            site.let_leave(name)
            site.start(name)
    return f"down for {stroke.lasts_s:.1f} s; it took along {', '.join(taken) or 'nobody'}"


def _told_to_end(name: str, site: Site) -> Generator[float, None, None]:
    """Return when it has ended. Raises Broken when it does not, or not in order."""
    site.hold_down(name)
    if site.cluster.exit_code(name) is not None:
        return  # it is about to be started again; that is put off
    site.cluster.signal(name, signal.SIGTERM)
    until = monotonic() + _ENDING_S
    while (code := site.cluster.exit_code(name)) is None:
        if monotonic() > until:
            site.kill(name)
            site.start(name)
            raise Broken(f"the {name} was told to end, and did not within {_ENDING_S:g} s")
        yield _TICK_S
    # One that has just been started dies of the signal: it has nothing yet that would have to be put in order.
    if code not in (0, -signal.SIGTERM):
        site.start(name)
        raise Broken(f"the {name} was told to end, and ended with {code}")


def kill_one(find: Callable[[str, str], bool]) -> Callable[[Stroke, Site], Course]:
    def course(stroke: Stroke, site: Site) -> Course:
        pid = _one(stroke, site, find)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            raise NoEffect("it had ended just before") from None
        yield 0.0
        return f"pid {pid}"

    return course


def _one(stroke: Stroke, site: Site, find: Callable[[str, str], bool]) -> int:
    _expect_life(stroke.victim, site)
    pids = site.below(stroke.victim, find)
    if not pids:
        raise NoEffect("there was none")
    return random.Random(stroke.dice).choice(pids)


def _is_reaper(name: str, _command: str) -> bool:
    return name == "cyclone-reaper"


def _is_worker(name: str, _command: str) -> bool:
    return name == "cyclone-worker"


def _is_generator(name: str, command: str) -> bool:
    return "cyclone.daemons.generator_host" in command and not _is_guard(name, command)


def _is_guard(name: str, _command: str) -> bool:
    return name == "cyclone-guard"


# Pauses.


def stop_daemon(stroke: Stroke, site: Site) -> Course:
    _expect_life(stroke.victim, site)
    yield from _stopped(site.cluster.pid(stroke.victim), stroke.lasts_s)
    return f"for {stroke.lasts_s:.1f} s"


def stop_one(find: Callable[[str, str], bool]) -> Callable[[Stroke, Site], Course]:
    def course(stroke: Stroke, site: Site) -> Course:
        pid = _one(stroke, site, find)
        yield from _stopped(pid, stroke.lasts_s)
        return f"pid {pid} for {stroke.lasts_s:.1f} s"

    return course


def _stopped(pid: int, lasts_s: float) -> Generator[float, None, None]:
    try:
        os.kill(pid, signal.SIGSTOP)
        yield _TICK_S
        if not is_stopped(pid):
            raise NoEffect("it had ended just before")
        yield lasts_s
    except ProcessLookupError:
        raise NoEffect("it had ended just before") from None
    finally:
        with suppress(ProcessLookupError):  # it may have been killed meanwhile, for having been silent
            os.kill(pid, signal.SIGCONT)


def is_stopped(pid: int) -> bool:
    """Whether a signal has stopped it; one that has ended and was not collected takes signals as well."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    # proc_pid_stat(5): the state follows the name, which stands in parentheses.
    return stat.rpartition(b")")[2].split()[0] == b"T"


# The network.


def through_relay(stroke: Stroke, site: Site) -> Course:
    touched = 0
    site.relay(stroke.victim, stroke.fault, stroke.dice)
    try:
        yield stroke.lasts_s
    finally:
        touched = site.relay_as_before(stroke.victim)
    if not touched:
        raise NoEffect("nothing passed meanwhile")
    return f"{touched} touched in {stroke.lasts_s:.1f} s"


# The sink.


def absent_sink(stroke: Stroke, site: Site) -> Course:
    yield from _told_to_end(stroke.victim, site)
    yield stroke.lasts_s
    site.start(stroke.victim)
    return f"away for {stroke.lasts_s:.1f} s"


def slow_sink(stroke: Stroke, site: Site) -> Course:
    if not site.records.exists():
        raise NoEffect("there was no database yet")
    try:
        with database.locked(site.records):
            yield stroke.lasts_s
    except database.Busy as error:
        raise NoEffect(f"the database could not be locked: {error}") from None
    return f"locked for {stroke.lasts_s:.1f} s"


# Disks and clocks.


def full_disk(stroke: Stroke, site: Site) -> Course:
    disk = site.disks[stroke.victim]
    with site.excused(stroke.victim):
        try:
            if stroke.fault == "full-disk-restart":
                site.kill(stroke.victim)
                disk.fill()
                site.start(stroke.victim)
            for pause_s in _ticks(stroke.lasts_s):
                disk.fill()
                yield pause_s
        finally:
            disk.free()
    return f"for {stroke.lasts_s:.1f} s"


def read_only_disk(stroke: Stroke, site: Site) -> Course:
    disk = site.disks[stroke.victim]
    site.kill(stroke.victim)
    if not disk.make_read_only():
        site.start(stroke.victim)
        raise NoEffect("somebody has a file open for writing")
    try:
        site.start(stroke.victim)
        site.hold_down(stroke.victim)  # once is enough
        yield stroke.lasts_s
        code = site.cluster.exit_code(stroke.victim)
    finally:
        site.kill(stroke.victim)
        disk.make_writable()
        site.start(stroke.victim)
    return f"for {stroke.lasts_s:.1f} s; {'it waited' if code is None else f'it ended with {code}'}"


def clock_step(stroke: Stroke, site: Site) -> Course:
    step_s = random.Random(stroke.dice).choice(_STEPS_S)
    with _stepped(stroke.victim, step_s, site):
        yield stroke.lasts_s
        _expect_step(stroke.victim, site)
    return f"by {step_s:g} s, and back after {stroke.lasts_s:.1f} s"


def clock_step_restart(stroke: Stroke, site: Site) -> Course:
    step_s = random.Random(stroke.dice).choice(_STEPS_S)
    with _stepped(stroke.victim, step_s, site):
        yield stroke.lasts_s / 2
        site.kill(stroke.victim)
        site.start(stroke.victim)
        yield stroke.lasts_s / 2
        _expect_step(stroke.victim, site)
    return f"by {step_s:g} s, and back after {stroke.lasts_s:.1f} s; killed and started meanwhile"


@contextmanager
def _stepped(name: str, step_s: float, site: Site) -> Iterator[None]:
    site.step_clock(name, step_s)
    try:
        yield
    finally:
        site.step_clock(name, 0.0)


def _expect_step(name: str, site: Site) -> None:
    """Raises NoEffect if it goes by the clock of this host: Python may find another module in the place of ours."""
    if not site.goes_by_our_clock(name):
        raise NoEffect("it does not look at the clock that was set")


# Strangers, and friends who talk nonsense.


def old_version(stroke: Stroke, site: Site) -> Course:
    refusals = said = 0
    own, server = load_pair(site.cluster.key_dir, FORMER), _server(stroke, site)
    for pause_s in _ticks(stroke.lasts_s):
        with Stranger(_address(stroke, site), own, server) as stranger:
            if stranger.knock(_KNOCK_S):
                said += stranger.say(of_version(0, Report(0.0, (), []), "former", "life"))
                for answer in stranger.hear(_KNOCK_S):
                    if not isinstance(answer, Refused):
                        raise Broken(f"the {stroke.victim} answered another version: {answer}")
                    refusals += 1
        yield pause_s
    if not refusals:
        raise NoEffect(f"nobody answered what was said {said} times")
    return f"said {said} times, refused by name {refusals} times"


def wrong_key(stroke: Stroke, site: Site) -> Course:
    dice = random.Random(stroke.dice)
    knocked = 0
    server = _server(stroke, site)
    for pause_s in _ticks(stroke.lasts_s):
        own = new_pair("stranger", dice.choice((Role.CONTROLLER, Role.CLIENT)))
        # Now and then one who does not know the server either.
        theirs = server if dice.random() < 0.7 else new_pair("wrong", server.role).public_key
        with Stranger(_address(stroke, site), own, theirs) as stranger:
            admitted = stranger.knock(_KNOCK_S)
        if admitted:
            raise Broken(f"the {stroke.victim} let in a key that is on no list")
        knocked += admitted is False
        yield pause_s
    if not knocked:
        raise NoEffect("nobody answered the door")
    return f"{knocked} peers, none let in"


def garbage(stroke: Stroke, site: Site) -> Course:
    dice = random.Random(stroke.dice)
    friends = bytes_ = 0
    own, server = load_pair(site.cluster.key_dir, NONSENSE), _server(stroke, site)
    for pause_s in _ticks(stroke.lasts_s):
        bytes_ += _talk_bytes(stroke, site, dice)
        with Stranger(_address(stroke, site), own, server) as stranger:
            if stranger.knock(_KNOCK_S):
                for _ in range(20):
                    frames = [dice.randbytes(dice.randint(0, 200)) for _ in range(dice.randint(1, 8))]
                    friends += stranger.say(*frames)
                # Sense, but none that belongs to anybody: ends of attempts that were never given to this peer.
                friends += stranger.say(_made_up(dice))
        yield pause_s
    if not friends and not bytes_:
        raise NoEffect("nobody could be spoken to")
    return f"{friends} messages, {bytes_} connections"


def _made_up(dice: random.Random) -> bytes:
    ends = [End(dice.randrange(2**62)) for _ in range(50)]
    message: Message = Ended(ends)
    return codec.frame(codec.seal("nobody", "no-life"), message, [b""] * len(ends))


def _talk_bytes(stroke: Stroke, site: Site, dice: random.Random) -> int:
    """Half of a greeting of ZMTP, or no greeting at all (rfc.zeromq.org/spec/23)."""
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32)
    said = dice.choice(
        (dice.randbytes(dice.randint(1, 3000)), greeting[: dice.randint(1, 64)] + dice.randbytes(60))
    )
    try:
        with socket.create_connection(("127.0.0.1", _port(stroke, site)), 0.5) as connection:
            connection.sendall(said)
    except OSError:
        return 0  # nobody listens now
    return 1


def silent_connections(stroke: Stroke, site: Site) -> Course:
    with ExitStack() as stack:
        opened = 0
        for _ in range(_most_connections()):
            try:
                stack.enter_context(socket.create_connection(("127.0.0.1", _port(stroke, site)), 0.2))
            except OSError:
                break  # it does not listen now, or takes no more
            opened += 1
            if opened % 50 == 0:
                yield 0.0
        if not opened:
            raise NoEffect("nobody could be connected to")
        yield stroke.lasts_s
    return f"{opened} connections for {stroke.lasts_s:.1f} s"


def _most_connections() -> int:
    """As many as this process may have, but for some that it needs itself."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max(50, min(_SILENT, hard - 200))


def _server(stroke: Stroke, site: Site) -> PublicKey:
    return load_public(site.cluster.key_dir, "master" if stroke.victim == MASTER else "sink")


def _address(stroke: Stroke, site: Site) -> str:
    return f"tcp://127.0.0.1:{_port(stroke, site)}"


def _port(stroke: Stroke, site: Site) -> int:
    return site.cluster.port if stroke.victim == MASTER else site.database_port


def _ticks(lasts_s: float) -> Iterator[float]:
    """Pauses, until so much time has passed; one at least."""
    until = monotonic() + lasts_s
    yield _TICK_S
    while monotonic() < until:
        yield _TICK_S


_COURSES: dict[str, Callable[[Stroke, Site], Course]] = {
    "kill-master": kill_daemon,
    "kill-controller": kill_daemon,
    "kill-reaper": kill_one(_is_reaper),
    "kill-worker": kill_one(_is_worker),
    "kill-generator": kill_one(_is_generator),
    "kill-guard": kill_one(_is_guard),
    "kill-proxy": kill_daemon,
    "kill-everything": kill_everything,
    "end-master": end_master,
    "end-controller": end_controller,
    "stop-master": stop_daemon,
    "stop-controller": stop_daemon,
    "stop-reaper": stop_one(_is_reaper),
    "stop-worker": stop_one(_is_worker),
    "stop-generator": stop_one(_is_generator),
    "stop-proxy": stop_daemon,
    "lose-messages": through_relay,
    "double-messages": through_relay,
    "delay-messages": through_relay,
    "reorder-messages": through_relay,
    "cut-connections": through_relay,
    "hold-bytes": through_relay,
    "halve-frames": through_relay,
    "drip-bytes": through_relay,
    "garble-bytes": through_relay,
    "one-way-up": through_relay,
    "one-way-down": through_relay,
    "absent-sink": absent_sink,
    "slow-sink": slow_sink,
    "kill-pushgateway": kill_daemon,
    "stop-pushgateway": stop_daemon,
    "absent-pushgateway": absent_sink,
    "broken-gateway": through_relay,
    "full-disk": full_disk,
    "full-disk-restart": full_disk,
    "read-only-disk": read_only_disk,
    "clock-step": clock_step,
    "clock-step-restart": clock_step_restart,
    "old-version": old_version,
    "wrong-key": wrong_key,
    "garbage": garbage,
    "silent-connections": silent_connections,
}

assert _COURSES.keys() == {fault.name for fault in FAULTS}
