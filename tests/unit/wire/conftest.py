"""A key directory, doors and lines over loopback, and patience with a bound."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import zmq

from cyclone.messages import Message
from cyclone.wire import keys
from cyclone.wire.door import Door, Heard
from cyclone.wire.line import Line

DEADLINE_S = 10.0


class Network:
    """One door with keys, and whoever knocks at it. Closes all of them."""

    def __init__(self, key_dir: Path, stack: ExitStack) -> None:
        self.key_dir = key_dir
        self.stack = stack
        self.now = 0.0
        self.ring = keys.KeyRing(key_dir)
        self.master = keys.load_public(key_dir, "master")
        self.door = self.open_door()
        self.address = f"tcp://127.0.0.1:{self.door.bind('tcp://127.0.0.1:0')}"

    def open_door(self, **changes: object) -> Door:
        own = keys.load_pair(self.key_dir, "master")
        door = Door(own, self.ring, clock=lambda: self.now, **changes)  # type: ignore[arg-type]
        return self.stack.enter_context(door)

    def line(self, key: str = "controller", *, life: str = "life-1", **changes: object) -> Line:
        own = keys.load_pair(self.key_dir, key)
        settings = {"address": self.address, "own": own, "server": self.master, "life": life, **changes}
        return self.stack.enter_context(Line(**settings))  # type: ignore[arg-type]

    def socket(self, key: str | None = "controller") -> zmq.Socket[bytes]:
        """A bare socket that keeps no rule of ours; with the key of that name."""
        context = zmq.Context()
        self.stack.callback(context.term)
        socket = context.socket(zmq.DEALER)
        self.stack.callback(socket.close, 0)
        if key is not None:
            pair = keys.load_pair(self.key_dir, key)
            socket.curve_publickey, socket.curve_secretkey = pair.public, pair.secret
            socket.curve_serverkey = self.master.public
        return socket

    def poll(self, door: Door | None = None, timeout_s: float = 0.02) -> list[Heard]:
        """One turn of a daemon's loop."""
        door = door or self.door
        zmq.select(list(door.sockets), [], [], timeout_s)
        return door.receive()

    def hear(self, count: int = 1, door: Door | None = None) -> list[Heard]:
        """Turn until so many were heard."""
        heard: list[Heard] = []
        end = time.monotonic() + DEADLINE_S
        while len(heard) < count:
            assert time.monotonic() < end, f"heard {heard} only"
            heard += self.poll(door)
        return heard

    def until(
        self, reached: Callable[[], object], door: Door | None = None, line: Line | None = None
    ) -> None:
        """Turn, also the line if one is given, until that is so; what the door hears meanwhile is lost."""
        self.wait_for(reached, lambda: (self.poll(door), line and line.wait(0)))

    def wait_for(self, reached: Callable[[], object], meanwhile: Callable[[], object] = lambda: None) -> None:
        """Ask until that is so."""
        end = time.monotonic() + DEADLINE_S
        while not reached():
            assert time.monotonic() < end, "did not come about in time"
            meanwhile()

    def connect(self, line: Line, door: Door | None = None) -> None:
        self.until(lambda: line.connected, door, line)

    def say(self, line: Line, message: Message, enclosure: list[bytes] | None = None) -> None:
        """Connect, and say it."""
        if not line.connected:
            self.connect(line)
        assert line.say(message, enclosure)

    def said(self, line: Line) -> list[tuple[Message, list[bytes]]]:
        """The next of what the line was told."""
        told: list[tuple[Message, list[bytes]]] = []
        self.wait_for(lambda: told.extend(line.receive()) or told, lambda: line.wait(0.05))
        return told


@pytest.fixture(scope="session")
def made_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    key_dir = tmp_path_factory.mktemp("made") / "keys"
    keys.ensure(key_dir)
    return key_dir


@pytest.fixture
def key_dir(made_keys: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made_keys, tmp_path / "keys"))


@pytest.fixture
def network(key_dir: Path) -> Iterator[Network]:
    with ExitStack() as stack:
        yield Network(key_dir, stack)
