"""What stands between the daemons of a drill: a process with relays that lose, double, delay, cut and halve.

Messages are encrypted, so whoever wants to lose or double one has to be a peer at both ends: to the controller it is
the master, to the master it is the controller, and the same for the task generator. The keys of its cluster are the drill's
own. A relay of bytes knows nothing of that: it cuts, holds, halves, garbles and slows down what it cannot read. Where both
stand on one line, each does what it is able to. The web server that plays the Pushgateway is here as well.

    python -m cyclone.drill.relay ERRAND

Then each line of standard input, `NAME MODE DICE`, changes what a relay does, and is answered with a line on standard
output: how many messages or pieces the mode has touched that ends now. It ends with its standard input.
"""

from __future__ import annotations

import heapq
import itertools
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from cyclone.clock import monotonic
from cyclone.loop import Loop
from cyclone.messages import Message
from cyclone.model.peer import Peer
from cyclone.process.replace import replace_content
from cyclone.wire.door import Door
from cyclone.wire.keys import KeyRing, load_pair, load_public
from cyclone.wire.line import Line

PASS = "pass"  # noqa: S105 - it is what a relay does most of the time
_UP, _DOWN = "one-way-up", "one-way-down"
_NOTHING = "nothing"

#: How late a message may come that is delayed, or that others overtake.
_LATE_S = 1.0
_OVERTAKEN_S = 0.4
#: A third is lost, half comes twice.
_LOST, _DOUBLED = 1 / 3, 1 / 2

_CHUNK = 64 * 1024
_DRIP_BYTES, _DRIP_S = 400, 0.02
_LOOK_S = 0.02


class Way(msgspec.Struct, frozen=True):
    """One relay: where it listens, and where it goes on to; ports of this host."""

    name: str
    kind: Literal["messages", "bytes"]
    port: int
    target: int


class Errand(msgspec.Struct, frozen=True):
    """What the process is told at its start. gateway: the name of the Pushgateway; shown: where it keeps what it was given."""

    key_dir: str
    ways: list[Way]
    gateway: str
    gateway_port: int
    shown: str


Letter: TypeAlias = tuple[Message, Sequence[bytes]]


class Weather:
    """The mind of a relay of messages, one way: when each comes out of it, if at all. Knows no clock."""

    def __init__(self) -> None:
        self.touched = 0
        self._mode = PASS
        self._dice = random.Random(0)
        self._count = itertools.count()
        self._waiting: list[tuple[float, int, Letter]] = []
        self._last_at = 0.0

    def change(self, mode: str, dice: int) -> int:
        """Do this from now on; returns how many letters the former mode has touched."""
        touched, self.touched = self.touched, 0
        self._mode, self._dice = mode, random.Random(dice)
        return touched

    def forget(self) -> None:
        """What is on its way gets lost."""
        self._waiting.clear()

    def take(self, letter: Letter, now: float) -> None:
        for at in self._moments(now):
            heapq.heappush(self._waiting, (at, next(self._count), letter))

    def _moments(self, now: float) -> Iterator[float]:
        """When this letter comes out: never, once or twice."""
        dice = self._dice
        match self._mode:
            case "lose-messages":
                if dice.random() < _LOST:
                    self.touched += 1
                else:
                    yield now
            case "nothing":
                self.touched += 1
            case "double-messages":
                yield now
                if dice.random() < _DOUBLED:
                    self.touched += 1
                    yield now + dice.choice((0.0, dice.uniform(0, _LATE_S)))
            case "delay-messages":
                self.touched += 1
                self._last_at = max(self._last_at, now + dice.uniform(0, _LATE_S))
                yield self._last_at
            case "reorder-messages":
                self.touched += 1
                yield now + dice.uniform(0, _OVERTAKEN_S)
            case _:
                yield now

    def due(self, now: float) -> list[Letter]:
        """What comes out by now."""
        letters = []
        while self._waiting and self._waiting[0][0] <= now:
            letters.append(heapq.heappop(self._waiting)[2])
        return letters

    @property
    def next_moment(self) -> float | None:
        return self._waiting[0][0] if self._waiting else None


class _Spoken(NamedTuple):
    """For whom the relay passes: the controller or generator, and the line on which it is him."""

    peer: Peer
    line: Line


class MessageRelay:
    """The master to one controller or generator, and that one to the master. Owns a door and a line."""

    def __init__(self, way: Way, key_dir: Path, loop: Loop) -> None:
        self.up, self.down = Weather(), Weather()
        self._key_dir, self._loop = key_dir, loop
        self._target = f"tcp://127.0.0.1:{way.target}"
        self._door = Door(load_pair(key_dir, "master"), KeyRing(key_dir))
        self._door.bind(f"tcp://127.0.0.1:{way.port}")
        for end in self._door.sockets:
            loop.register(end, _nothing)
        self._spoken: _Spoken | None = None

    def change(self, mode: str, dice: int) -> int:
        up, down = {_UP: (PASS, _NOTHING), _DOWN: (_NOTHING, PASS)}.get(mode, (mode, mode))
        return self.up.change(up, dice) + self.down.change(down, dice + 1)

    def tick(self, now: float) -> None:
        for heard in self._door.receive():
            self._speak_for(heard.peer)
            self.up.take((heard.message, heard.enclosure), now)
        if self._spoken is None:
            return
        peer, line = self._spoken
        for letter in line.receive():
            self.down.take(letter, now)
        for message, enclosure in self.up.due(now):
            line.say(message, enclosure or None)
        for message, enclosure in self.down.due(now):
            self._door.say(peer, message, enclosure or None)
        if line.refused_reason is not None:
            # A master that is started anew may hang up once too often; the controller itself would come again.
            self._unregister(line)
            line.reconnect()
            self._register(line)

    @property
    def next_moment(self) -> float | None:
        return min(filter(None, (self.up.next_moment, self.down.next_moment)), default=None)

    def _speak_for(self, peer: Peer) -> None:
        if self._spoken is not None:
            if self._spoken.peer == peer:
                return
            self._unregister(self._spoken.line)
            self._spoken.line.close()
            # What one life has said, or was told, another one cannot have: that is nothing that a network could do.
            self.up.forget()
            self.down.forget()
        key, _, instance = peer.name.partition("/")
        own, master = load_pair(self._key_dir, key), load_public(self._key_dir, "master")
        line = Line(self._target, own, master, instance=instance, life=peer.life)
        self._register(line)
        self._spoken = _Spoken(peer, line)

    def _register(self, line: Line) -> None:
        for end in line.sockets:
            self._loop.register(end, _nothing)

    def _unregister(self, line: Line) -> None:
        for end in line.sockets:
            self._loop.unregister(end)


class ByteRelay:
    """Passes bytes, each connection with two threads of its own. They share what it does now, one word."""

    def __init__(self, way: Way) -> None:
        self.touched = 0
        self._mode = PASS
        self._target = ("127.0.0.1", way.target)
        self._listener = socket.create_server(("127.0.0.1", way.port))
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._start(self._accept)

    def change(self, mode: str, _dice: int) -> int:
        touched, self.touched = self.touched, 0
        self._mode = mode
        if mode == "cut-connections":
            self._cut()
        return touched

    def _cut(self) -> None:
        for pair in list(self._pairs):
            self.touched += 1
            _hang_up(*pair)

    def _accept(self) -> None:
        while True:
            ours, _ = self._listener.accept()
            if self._mode == "cut-connections":
                self.touched += 1
                ours.close()
                continue
            try:
                theirs = socket.create_connection(self._target, 2.0)
            except OSError:
                ours.close()
                continue
            theirs.settimeout(None)
            self._pairs.add((ours, theirs))
            self._start(self._pump, ours, theirs, ("hold-bytes", _DOWN))
            self._start(self._pump, theirs, ours, ("hold-bytes", _UP))

    def _pump(self, source: socket.socket, target: socket.socket, held: Collection[str]) -> None:
        with suppress(OSError):
            while data := source.recv(_CHUNK):
                self._pass_on(data, target, held)
        _hang_up(source, target)
        self._pairs -= {(source, target), (target, source)}

    def _pass_on(self, data: bytes, target: socket.socket, held: Collection[str]) -> None:
        """held: the modes in which nothing passes this way. Raises OSError when the connection is over."""
        self.touched += self._mode in held
        while self._mode in held:
            time.sleep(_LOOK_S)
        if self._mode == "garble-bytes":
            self.touched += 1
            data = data[:-1] + bytes((data[-1] ^ 0xFF,))
        if self._mode == "halve-frames" and len(data) > 1:
            self.touched += 1
            target.sendall(data[: len(data) // 2])
            raise ConnectionAbortedError
        while self._mode == "drip-bytes" and data:
            self.touched += 1
            target.sendall(data[:_DRIP_BYTES])
            data = data[_DRIP_BYTES:]
            time.sleep(_DRIP_S)
        target.sendall(data)

    def _start(self, work: object, *arguments: object) -> None:
        threading.Thread(target=work, args=arguments, daemon=True).start()  # type: ignore[arg-type]


def _hang_up(*ends: socket.socket) -> None:
    for end in ends:
        with suppress(OSError):  # it may be over already
            end.shutdown(socket.SHUT_RDWR)
        end.close()


class Gateway:
    """A Pushgateway, as far as the client goes: what is put is kept in a file."""

    def __init__(self, port: int, shown: Path) -> None:
        self.touched = 0
        self._mode, self._dice = PASS, random.Random(0)
        gateway = self

        class Visit(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                gateway.answer(self, shown)

            def log_message(self, format: str, *args: object) -> None:
                """Nobody wants to read that."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Visit)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def change(self, mode: str, dice: int) -> int:
        touched, self.touched = self.touched, 0
        self._mode, self._dice = mode, random.Random(dice)
        return touched

    def answer(self, visit: BaseHTTPRequestHandler, shown: Path) -> None:
        length = int(visit.headers["Content-Length"])
        body = visit.rfile.read(length)
        if self._mode == "broken-gateway":
            self.touched += 1
            how = self._dice.choice(("hangs", "hangs up", "fails"))
            while how == "hangs" and self._mode == "broken-gateway":
                time.sleep(_LOOK_S)
            if how == "fails":
                visit.send_error(HTTPStatus.INTERNAL_SERVER_ERROR)
        elif len(body) == length:
            # Two may come at once, when the client has given one of them up.
            replace_content(shown, body)
            visit.send_response(HTTPStatus.OK)
            visit.end_headers()


class Relays:
    """Owns all relays of this process, and hears what they are to do."""

    def __init__(self, errand: Errand) -> None:
        self._loop = Loop()
        self._is_over = False
        self._unread = b""
        key_dir = Path(errand.key_dir)
        self._messages = {
            way.name: MessageRelay(way, key_dir, self._loop) for way in errand.ways if way.kind == "messages"
        }
        self._bytes = {way.name: ByteRelay(way) for way in errand.ways if way.kind == "bytes"}
        self._gateways = {errand.gateway: Gateway(errand.gateway_port, Path(errand.shown))}
        self._loop.register(0, self._hear)

    def run(self) -> None:
        while not self._is_over:
            now = monotonic()
            for relay in self._messages.values():
                relay.tick(now)
            moments = [relay.next_moment for relay in self._messages.values()]
            pause_s = min((at - now for at in moments if at is not None), default=1.0)
            self._loop.wait(min(1.0, max(0.0, pause_s)))

    def _hear(self) -> None:
        said = os.read(0, 4096)
        self._is_over = not said
        *lines, self._unread = (self._unread + said).split(b"\n")
        for line in lines:
            name, mode, dice = line.decode("ascii").split()
            found = (kind.get(name) for kind in (self._messages, self._bytes, self._gateways))
            touched = sum(relay.change(mode, int(dice)) for relay in found if relay is not None)
            print(touched, flush=True)  # noqa: T201 - the answer


def _nothing() -> None:
    """The loop wakes up; whatever has come in is passed on in its turn."""


if __name__ == "__main__":
    relays = Relays(msgspec.json.decode(sys.argv[1], type=Errand))
    print("ready", flush=True)  # noqa: T201 - the answer
    relays.run()
