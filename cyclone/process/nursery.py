"""The controller's side of the reaper: workers are hired and killed here, and heard of when they come and go."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from collections import deque
from typing import NamedTuple, TypeAlias

import msgspec

from cyclone.clock import monotonic
from cyclone.errors import RuleBroken
from cyclone.messages import Finished, Guard, Hire, Kill
from cyclone.process.channel import Channel, create_pair
from cyclone.process.former_lives import LIFE_VARIABLE, remove_groups
from cyclone.process.lineage import adopt_orphans, slay_descendants
from cyclone.process.progress import Progress, create_page
from cyclone.process.reaper import Born, Died, Echo, FromReaper, ToReaper, Unborn

#: Each hire carries two descriptors, and the kernel bounds how many may be on their way (unix(7), ETOOMANYREFS).
_HIRES_ON_THE_WAY_MAX = 16

_LETTER_BYTES_MAX = 65536

#: A reaper that has not said a word when it was looked after so many times, so far apart, is stopped or stuck. Without it
#: nobody can be killed and no lease is enforced; without it nobody below it lives either. Times are counted and not
#: seconds, because for those in which we were stopped ourselves, or our host slept, nobody is to blame.
LOOK_S = 2.0
LOOKS_MOST = 5

#: From the end of its link to the end of the reaper.
_LAST_BREATH_S = 1.0

#: The path of the controller is handed down as it is, so that the reaper imports the same Cyclone; -P keeps the
#: working directory from being put before it, where a file of a user may have the name of a module.
_START = (
    "import sys; link, program, sys.path[:] = int(sys.argv[1]), sys.argv[2], sys.argv[3:]; "
    "sys.argv[:] = [program]; import importlib; importlib.import_module(program).main(link)"
)


class ReaperDied(NamedTuple):
    """There is no reaper and no worker any more; `start` makes another.

    status: the exit code of the reaper, or minus the number of the signal that killed it.
    left: pids that could not be killed.
    """

    status: int
    left: frozenset[int]


class Hired(NamedTuple):
    """What the controller holds of one worker; both are to be closed by it when the worker has died."""

    slot: int
    channel: Channel[Finished]
    progress: Progress


Event: TypeAlias = Born | Unborn | Died | ReaperDied


class Nursery:
    """Owns the reaper and, through it, all workers. The process that has one has no other children.

    Nothing here blocks but `start`, `close`, and the sweep after a reaper that was killed, which are bounded.
    """

    def __init__(self, program: str) -> None:
        """program: the module whose `main(link descriptor)` runs the reaper."""
        self._program = program
        self._life = ""
        self._reaper: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._ready = select.epoll()
        self._slots: set[int] = set()
        self._waits_for_room = False  # in the link, for letters
        self._look_at = 0.0  # when to look after the reaper again, monotonic
        self._looks: int | None = None  # since its last word; None: it has not said one yet
        self._unsent: deque[tuple[ToReaper, list[int]]] = deque()
        self._on_the_way = 0
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(FromReaper).decode

    def start(self, life: str) -> None:
        """Start the reaper. To be called in the main thread: the reaper ends when the thread that started it ends.

        life: everything below carries it in its environment, for `sweep_former_lives`.
        """
        if self._reaper is not None:
            raise RuleBroken("the nursery has a reaper already")
        self._life = life
        self._looks = None
        self._hang_up()
        adopt_orphans()
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._link.setblocking(False)
        self._ready.register(self._link, select.EPOLLIN)
        with theirs:
            path = [entry or os.getcwd() for entry in sys.path]
            self._reaper = subprocess.Popen(
                [sys.executable, "-P", "-c", _START, str(theirs.fileno()), self._program, *path],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env={**os.environ, LIFE_VARIABLE: life},
            )

    def fileno(self) -> int:
        """Readable when `receive` is to be called: it has something to tell, or the reaper takes letters again."""
        return self._ready.fileno()

    def hire(self, slot: int) -> Hired:
        """Ask for a worker. `Born` or `Unborn` follows; the channel may be used at once."""
        if slot in self._slots or self._reaper is None:
            raise RuleBroken(f"slot {slot} has a worker already, or there is no reaper")
        self._slots.add(slot)
        ours, theirs = create_pair()
        page = create_page()
        hired = Hired(slot, Channel(ours, Finished, blocking=False), Progress(page))
        self._unsent.append((Hire(slot), [theirs.detach(), page]))
        self._send()
        return hired

    def kill(self, slot: int, signum: int) -> None:
        """Ask for a signal; see `Kill`. A slot without a worker is left alone."""
        if slot in self._slots:
            self._unsent.append((Kill(slot, signum), []))
            self._send()

    def guard(self, slot: int, until: float | None) -> None:
        """Have the worker killed at this moment; see `Guard`. A slot without a worker is left alone."""
        if slot in self._slots:
            self._unsent.append((Guard(slot, until), []))
            self._send()

    def look_after_reaper(self) -> float:
        """End it if it is stopped or stuck; `ReaperDied` follows. Returns when to call again, monotonic seconds."""
        now = monotonic()
        if now >= self._look_at and self._reaper is not None:
            self._look_at = now + LOOK_S
            if not self._looks:
                self._unsent.append((Echo(), []))
                self._send()
            if self._looks is not None:
                self._looks += 1
                if self._looks > LOOKS_MOST:
                    self._reaper.kill()
        return self._look_at

    def receive(self) -> list[Event]:
        """What has happened since, in order. A slot may be hired for again after its `Died` or `Unborn`.

        Letters that the reaper did not take before are sent on.

        After `ReaperDied` the descriptor stays open, and readable for ever, until `start` or `close`.
        """
        events: list[Event] = []
        while self._reaper is not None and self._link is not None:
            try:
                packet = self._link.recv(_LETTER_BYTES_MAX)
            except BlockingIOError:
                break
            except ConnectionResetError:
                packet = b""
            if not packet:
                events.append(self._mourn(self._reaper))
                break
            self._looks = 0
            letter = self._decode(packet)
            if isinstance(letter, Echo):
                continue
            events.append(letter)
            if isinstance(letter, Born | Unborn):
                self._on_the_way -= 1
            if isinstance(letter, Died | Unborn):
                self._slots.discard(letter.slot)
        self._send()
        return events

    def close(self, within_s: float = 10.0) -> frozenset[int]:
        """Kill everything below this process and wait for its end. Return who is left after so many seconds."""
        left: frozenset[int] = frozenset()
        self._hang_up()
        self._ready.close()
        if self._reaper is not None:
            # It ends because its link did, after everything below it; we do it ourselves only if it does not.
            try:
                self._reaper.wait(within_s / 2)
            except subprocess.TimeoutExpired:
                self._reaper.kill()
            left = self._mourn(self._reaper, within_s / 2).left
        # As the reaper does, unless it was killed.
        remove_groups(self._life)
        adopt_orphans(False)
        return left

    def _send(self) -> None:
        """Send what is unsent, as far as that goes."""
        has_room = True
        while has_room and self._unsent and self._reaper is not None and self._link is not None:
            letter, fds = self._unsent[0]
            hires = isinstance(letter, Hire)
            if hires and self._on_the_way >= _HIRES_ON_THE_WAY_MAX:
                break
            try:
                socket.send_fds(self._link, [self._encode(letter)], fds)
            except BlockingIOError:
                has_room = False
            except (BrokenPipeError, ConnectionResetError):
                break  # `receive` will say so
            else:
                self._on_the_way += hires
                self._unsent.popleft()
                for fd in fds:
                    os.close(fd)
        self._wait_for_room(not has_room)

    def _wait_for_room(self, waits: bool) -> None:
        if self._link is not None and waits != self._waits_for_room:
            self._waits_for_room = waits
            self._ready.modify(self._link, select.EPOLLIN | (select.EPOLLOUT if waits else 0))

    def _hang_up(self) -> None:
        if self._link is not None:
            self._ready.unregister(self._link)
            self._link.close()
            self._link = None
            self._waits_for_room = False

    def _mourn(self, reaper: subprocess.Popen[bytes], within_s: float = 2.0) -> ReaperDied:
        """Collect the reaper and kill what it left to us."""
        try:
            status = reaper.wait(_LAST_BREATH_S)
        except subprocess.TimeoutExpired:
            reaper.kill()
            status = reaper.wait()
        left = slay_descendants(within_s)
        for _, fds in self._unsent:
            for fd in fds:
                os.close(fd)
        self._unsent.clear()
        self._slots.clear()
        self._on_the_way = 0
        self._reaper = None
        return ReaperDied(status, frozenset(left))
