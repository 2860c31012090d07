"""Throws what is malformed at a server that runs: at its port without a key, and in sessions of an authorised key.

    python tests/fuzz/attacker.py strangers --address tcp://… --key-dir … --connections N
    python tests/fuzz/attacker.py garbage   --address tcp://… --connections N
    python tests/fuzz/attacker.py session   --address tcp://… --key-dir … --keys NAME,NAME --frames N [--share 0.2]

It prints a line when it begins. The last line that it prints is JSON: how many of each it was. A session speaks from ever new addresses of this host
(127.0.0.0/8), as many hosts with one key would, so that no limit for one peer keeps it from reaching the code behind.

--share: so much of a core it may use, its own threads of libzmq included. --aside: it makes and packs the same messages,
and says nothing: what it costs by itself. SIGTERM ends it, with its report.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:1] = [str(Path(__file__).resolve().parents[1])]

import zmq
from fuzz import samples
from fuzz.mutation import mutated_bytes, mutated_frames

from cyclone.errors import CycloneError
from cyclone.messages import (
    AskRecords,
    AskTasks,
    Cancel,
    Close,
    CommandDone,
    Deliver,
    Ended,
    Entry,
    Goodbye,
    Message,
    Open,
    Report,
    Started,
    Submission,
    Submit,
)  # fmt: skip
from cyclone.model.lifecycle import Outcome
from cyclone.model.resources import UNIT
from cyclone.model.task import End, Policy, first_token
from cyclone.wire import codec
from cyclone.wire.keys import Role, load_pair, load_public
from cyclone.wire.sockets import parse

#: What is said in one session, over one connection from one address: a key is suspended at an address after a hundred bad
#: messages, and somewhat more than a half of these are so bad that they are none.
_SESSION_FRAMES = 140
#: The processor time is looked at after so many.
_LOOK_EVERY = 20
#: No server of libzmq greets later.
_PATIENCE_S = 2.0
#: For the answer to what is right, behind all that is not.
_ANSWER_S = 10.0

# ZMTP 3.1 (ZeroMQ RFC 37): signature, version, mechanism, as-server, filler.
_SIGNATURE = b"\xff" + bytes(8) + b"\x7f"


def greeting(mechanism: bytes) -> bytes:
    return _SIGNATURE + b"\x03\x01" + mechanism.ljust(20, b"\0") + b"\0" + bytes(31)


def command(name: bytes, body: bytes) -> bytes:
    content = bytes((len(name),)) + name + body
    if len(content) < 256:
        return b"\x04" + bytes((len(content),)) + content
    return b"\x06" + struct.pack(">Q", len(content)) + content


class Pace:
    """Keeps this process below a share of a core. None: as fast as it goes."""

    def __init__(self, share: float | None) -> None:
        self._share = share
        self._began, self._used = time.monotonic(), time.process_time()

    def keep(self) -> None:
        if self._share is None:
            return
        due = self._began + (time.process_time() - self._used) / self._share
        if (wait_s := due - time.monotonic()) > 0:
            time.sleep(wait_s)


# Without a key: bytes on TCP.


def throw_garbage(
    address: str, connections: int, drawn: random.Random, pace: Pace, until: Callable[[], bool]
) -> Counter[str]:
    """So many connections that begin as ZMTP does, more or less."""
    told: Counter[str] = Counter()
    place = parse(address)
    for _ in range(connections):
        if until():
            break
        pace.keep()
        kind, pieces = _garbage(drawn)
        told[kind] += 1
        told["connections"] += 1
        # The other side may hang up at any byte.
        with suppress(OSError), socket.create_connection(place, _PATIENCE_S) as end:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            for piece in pieces:
                end.sendall(piece)
                told["bytes"] += len(piece)
            if drawn.random() < 0.2:
                end.settimeout(0.05)
                end.recv(256)
    return told


def _garbage(drawn: random.Random) -> tuple[str, list[bytes]]:
    """One connection: what it is, and what it sends."""
    mechanism = drawn.choice((b"NULL", b"CURVE", b"CURVE", b"PLAIN", b"GSSAPI", b"", b"CURVECURVECURVECURVE"))
    hello = command(b"HELLO", b"\x01\x00" + bytes(72) + drawn.randbytes(32 + 8 + 80))
    ready = command(b"READY", b"\x0bSocket-Type\x00\x00\x00\x06DEALER")
    right = [greeting(mechanism), hello if mechanism == b"CURVE" else ready]
    match drawn.randrange(8):
        case 0:
            return "random", [drawn.randbytes(drawn.choice((1, 9, 64, 1000)))]
        case 1:
            whole = b"".join(right)
            return "halved", [whole[: drawn.randrange(len(whole))]]
        case 2:
            return "doubled", [*right, *right]
        case 3:
            return "mutated", [mutated_bytes(drawn, b"".join(right))]
        case 4:
            # A command or a frame that announces up to 2^63 bytes.
            size = struct.pack(">Q", drawn.choice((2**63, 2**62, 2**40, 2**32, 300)))
            flags = drawn.choice((b"\x02", b"\x03", b"\x06", b"\xff"))
            return "huge size", [right[0], *right[1:], flags + size, drawn.randbytes(2000)]
        case 5:
            more = b"\x01\x01x" * 1000
            return "endless more", [*right, more, more]
        case 6:
            initiate = command(b"INITIATE", drawn.randbytes(drawn.choice((0, 8, 257, 5000))))
            return "wrong order", drawn.sample([*right, initiate, hello, ready], 5)
        case _:
            return "byte by byte", [bytes((byte,)) for byte in b"".join(right)[:100]]


# Without an authorised key: whole handshakes.


def knock_as_a_stranger(
    address: str, key_dir: Path, server: str, connections: int, drawn: random.Random, pace: Pace,
    until: Callable[[], bool],
) -> Counter[str]:  # fmt: skip
    """So many peers with keys that nobody knows, none, or the right public key and a wrong secret; each has much to say."""
    told: Counter[str] = Counter()
    known = load_public(key_dir, server)
    context = zmq.Context()
    batch: list[tuple[zmq.Socket[bytes], zmq.Socket[bytes]]] = []
    admitted = 0
    body = [codec.frame(codec.seal("", "stranger"), Open("stranger"))]
    try:
        for number in range(connections):
            if until():
                break
            pace.keep()
            told["connections"] += 1
            kind = ("unknown key", "no key", "a name", "wrong server", "wrong secret")[number % 5]
            told[kind] += 1
            knocking = context.socket(zmq.DEALER)
            knocking.linger, knocking.handshake_ivl = 0, 1000
            # Once is enough: each is another one.
            knocking.reconnect_ivl = -1
            public, secret = zmq.curve_keypair()
            if kind == "a name":
                knocking.plain_username, knocking.plain_password = b"client", b"client"
            elif kind != "no key":
                knocking.curve_publickey, knocking.curve_secretkey = public, secret
                knocking.curve_serverkey = public if kind == "wrong server" else known.public
            if kind == "wrong secret":
                knocking.curve_publickey = load_public(key_dir, "client").public
            monitor = knocking.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
            knocking.connect(address)
            for _ in range(5):
                with suppress(zmq.Again):
                    knocking.send_multipart(body, zmq.NOBLOCK)
            batch.append((knocking, monitor))
            if len(batch) == 50 or number == connections - 1:
                time.sleep(0.05)
                admitted += _hang_up(batch)
    finally:
        admitted += _hang_up(batch)
        context.term()
    told["admitted"] = admitted
    return told


def _hang_up(batch: list[tuple[zmq.Socket[bytes], zmq.Socket[bytes]]]) -> int:
    """How many of them were let in."""
    admitted = 0
    for knocking, monitor in batch:
        admitted += bool(monitor.poll(0))
        knocking.disable_monitor()
        monitor.close(0)
        knocking.close(0)
    batch.clear()
    return admitted


# With an authorised key.


def speak(
    address: str, key_dir: Path, server: str, keys: Sequence[str], frames: int, drawn: random.Random, pace: Pace,
    until: Callable[[], bool], *, aside: bool = False,
) -> Counter[str]:  # fmt: skip
    """Say so many malformed messages, in sessions of these keys by turns."""
    told: Counter[str] = Counter()
    known = load_public(key_dir, server)
    pairs = [load_pair(key_dir, key) for key in keys]
    everybody = [(own, _messages(drawn, own.role, known.role)) for own in pairs]
    host, port = parse(address)
    context = zmq.Context()
    try:
        while told["frames"] < frames and not until():
            source = ".".join(("127", *(str(drawn.randrange(1, 255)) for _ in range(3))))
            own, messages = everybody[told["sessions"] % len(everybody)]
            told["sessions"] += 1
            end = context.socket(zmq.DEALER)
            with closing(end):
                end.linger, end.sndtimeo, end.sndhwm = 1000, int(_PATIENCE_S * 1000), 1000
                end.curve_publickey, end.curve_secretkey, end.curve_serverkey = (
                    own.public, own.secret, known.public,
                )  # fmt: skip
                if not aside:
                    end.connect(f"tcp://{source}:0;{host}:{port}")
                for number in range(min(_SESSION_FRAMES, frames - told["frames"])):
                    if number % _LOOK_EVERY == 0:
                        pace.keep()
                        if until():
                            break
                        while not aside and end.poll(0):
                            end.recv_multipart()
                            told["answers"] += 1
                    kind, parts = next(messages)
                    if not aside:
                        try:
                            end.send_multipart(parts)
                        except zmq.Again:
                            told["not taken"] += 1
                            break
                    told["frames"] += 1
                    told[kind] += 1
                if not aside and not _is_answered(end, own.role, known.role):
                    told["sessions without an answer"] += 1
    finally:
        context.term()
    return told


def _is_answered(end: zmq.Socket[bytes], role: Role, server: Role) -> bool:
    """Ask for something that is answered, after all that was said: then it has all been heard."""
    question: Message = Report(0.0, (), []) if role is Role.CONTROLLER else Open("mallory 0")
    if server is Role.SINK:
        question = Deliver(1, []) if role is Role.CONTROLLER else AskRecords(1, [])
    with suppress(zmq.Again):
        end.send(codec.frame(codec.seal("asking", "asking"), question))
    ends_at = time.monotonic() + _ANSWER_S
    while end.poll(max(0, int((ends_at - time.monotonic()) * 1000))):
        parts = end.recv_multipart()
        with suppress(CycloneError):
            if codec.unseal(parts[0])[0].life == "asking":
                return True
    return False


def _messages(drawn: random.Random, role: Role, server: Role) -> Iterator[tuple[str, list[bytes]]]:
    """For ever: what it is, and its frames."""
    everything = [*samples.FROM_CONTROLLER, *samples.FROM_CLIENT, *samples.FROM_SERVER, *samples.TO_SINK]
    ours = samples.FROM_CONTROLLER if role is Role.CONTROLLER else samples.FROM_CLIENT
    forge = _forged_by_controller if role is Role.CONTROLLER else _forged_by_client
    if server is Role.SINK:
        ours = samples.TO_SINK
        forge = _forged_to_sink if role is Role.CONTROLLER else _asked_of_sink
    while True:
        instance, life = f"mallory-{drawn.randrange(50)}", f"{drawn.randrange(2**64):016x}"
        luck = drawn.random()
        if luck < 0.4:
            message, enclosure = drawn.choice(ours)
            yield "mutated", mutated_frames(drawn, message, enclosure, instance, life)
        elif luck < 0.5:
            message, enclosure = drawn.choice(everything)
            yield "any kind", mutated_frames(drawn, message, enclosure, instance, life)
        elif luck < 0.55:
            message, enclosure = drawn.choice(everything)
            with suppress(CycloneError):
                yield "wrong role", [codec.frame(codec.seal(instance, life), message, enclosure)]
        else:
            message, enclosure = forge(drawn)
            with suppress(CycloneError):
                yield "forged", [codec.frame(codec.seal(instance, life), message, enclosure)]


def _token(drawn: random.Random) -> int:
    """Of an attempt that may well be somebody's: the first epoch of a store is the minute of its first start."""
    epoch = int((time.time() - 1_577_836_800) / 60) - drawn.randrange(3)
    luck = drawn.random()
    if luck < 0.7:
        return first_token(epoch) + drawn.randrange(1, 20_000)
    return drawn.choice((0, 1, 2**63 - 1, first_token(epoch + 1_000_000) + 5, first_token(1) + 1))


def _forged_by_controller(drawn: random.Random) -> tuple[Message, list[bytes]]:
    tokens = [_token(drawn) for _ in range(drawn.choice((1, 5, 50)))]
    match drawn.randrange(5):
        case 0 | 1:
            outcomes = drawn.choice(([Outcome.SUCCEEDED], list(Outcome)))
            ends = [
                End(token, 0.1, time.time(), drawn.choice(outcomes), 1, True, "forged") for token in tokens
            ]
            return Ended(ends), [b"forged"] * len(ends)
        case 2:
            # No workers: it shall be given nothing.
            room = drawn.choice(((), (("cpus", 2**52), ("workers", UNIT // 2)), (("workers", 2**52),)))
            return Report(float("nan"), room, tokens, host="\n" * 10, started=tokens), []
        case 3:
            return Started(tokens), []
        case _:
            return Goodbye("\x1b[2J" * 100), []


def _forged_by_client(drawn: random.Random) -> tuple[Message, list[bytes]]:
    job = drawn.choice((1, 2, 3, 0, 2**62))
    tids = [f"t{drawn.randrange(1000)}" for _ in range(drawn.choice((1, 20)))]
    match drawn.randrange(7):
        case 0:
            return Close(drawn.randrange(2**31), job, drawn.random() < 0.5), []
        case 1:
            return Cancel(1, 2**62 - drawn.randrange(5), tids), []
        case 2:
            # Into a job that is open, and refused as a whole: a policy that is not there, a circle, a stranger.
            after = drawn.choice((("nobody",), tuple(tids), ()))
            tasks = [Submission(tid, 9 if not after else 0, (*after, "nobody")[:2]) for tid in tids]
            return Submit(1, job, [Policy("forged")], tasks), [b"forged"] * len(tasks)
        case 3:
            return CommandDone(drawn.randrange(100), "[]"), []
        case 4:
            return AskTasks(1, "", [], "", drawn.choice((-1, 0, 1, 2**31))), []
        case 5:
            policies = [Policy(f"kind-{drawn.randrange(10**6)}", number) for number in range(500)]
            return Submit(1, 2**62, policies, []), []
        case _:
            return Open(f"mallory {drawn.randrange(20)} \n\x00\u202e" + "x" * 100), []


def _forged_to_sink(drawn: random.Random) -> tuple[Message, list[bytes]]:
    kinds = ("file_creation", "ost_perf", "nothing", "", "x" * 1000)
    entries = [
        Entry(
            drawn.randbytes(16), drawn.choice(("database", "", "x")), drawn.choice(kinds), "mallory",
            f"t{number}", drawn.choice((0.0, 1e12, time.time())), mutated_bytes(drawn, samples.ENTRY.body),
        )
        for number in range(drawn.choice((0, 0, 0, 1)))
    ]  # fmt: skip
    return Deliver(drawn.choice((0, 1, 2**63 - 1)), entries), []


def _asked_of_sink(drawn: random.Random) -> tuple[Message, list[bytes]]:
    uids = [drawn.randbytes(16) for _ in range(drawn.choice((0, 1, 5)))]
    return AskRecords(drawn.choice((0, 2**63 - 1)), uids), []


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("strangers", "garbage", "session"))
    parser.add_argument("--address", required=True)
    parser.add_argument("--key-dir", type=Path, default=Path("keys"))
    parser.add_argument("--server", default="master", help="whose public key: master or sink")
    parser.add_argument("--keys", default="mallory", help="separated by commas")
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument(
        "--seconds", type=float, default=1e9, help="to end after so long, however many they were"
    )
    parser.add_argument("--share", type=float, help="of a core")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--aside", action="store_true")
    options = parser.parse_args()
    drawn, pace = random.Random(options.seed), Pace(options.share)
    ends_at = time.monotonic() + options.seconds
    began = time.monotonic(), time.process_time()
    # Whoever began this and is gone has no use for it any more.
    parent = os.getppid()

    told_to_end: list[int] = []
    signal.signal(signal.SIGTERM, lambda signum, _: told_to_end.append(signum))

    print("begins", flush=True)

    def until() -> bool:
        return bool(told_to_end) or time.monotonic() >= ends_at or os.getppid() != parent

    if options.what == "garbage":
        told = throw_garbage(options.address, options.connections, drawn, pace, until)
    elif options.what == "strangers":
        told = knock_as_a_stranger(
            options.address, options.key_dir, options.server, options.connections, drawn, pace, until
        )
    else:
        told = speak(
            options.address, options.key_dir, options.server, options.keys.split(","), options.frames, drawn,
            pace, until, aside=options.aside,
        )  # fmt: skip
    report: dict[str, Any] = dict(told)
    report["seconds"] = round(time.monotonic() - began[0], 2)
    report["processor_s"] = round(time.process_time() - began[1], 2)
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
