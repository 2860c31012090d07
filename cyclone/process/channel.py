"""Messages with enclosures between a controller and one of its workers, over a pair of connected sockets.

A frame is: the length of all that follows the header (8 bytes), the length of the body (4), the number of enclosed
pieces (4); then the body in msgpack, the length of each piece (4 bytes each), the pieces. All little-endian.

One class serves both sides. The controller's socket does not block: what a stopped worker does not read is kept
here, and a large result arrives in many calls. The worker's socket blocks: it has nothing better to do.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

import msgspec

from cyclone.errors import RuleBroken, Undecodable
from cyclone.messages import Message, Place

#: No frame of a worker is longer; one that announces a longer one has lost its mind, or a task wrote to its channel.
#: What a controller says has no such bound: a chunk of tasks with large payloads may be longer.
FRAME_BYTES_MAX = 1 << 30

_HEADER = struct.Struct("<QII")
_READ_BYTES = 256 * 1024
#: Larger pieces are sent from where they lie; smaller ones are cheaper to copy than to list.
_LARGE_BYTES = 64 * 1024
#: Well below IOV_MAX of Linux, which is 1024.
_BUFFERS_PER_CALL = 256

_encode = msgspec.msgpack.Encoder().encode

# What msgspec raises for bytes that it cannot make sense of: text in a wrong encoding is a plain ValueError.
_SENSELESS = (ValueError, RecursionError, OverflowError, MemoryError)

Heard = TypeVar("Heard", bound=Message)


class Channel(Generic[Heard]):
    """One end. Owns the socket, what has not been sent yet, and what has not come in whole."""

    def __init__(self, connected: socket.socket, hears: type[Heard], *, blocking: bool) -> None:
        connected.setblocking(blocking)
        self._socket = connected
        # Only the worker hears work.
        self._is_worker = hears is Place
        self._decode = msgspec.msgpack.Decoder(hears).decode
        self._unsent: deque[memoryview] = deque()
        self._incoming = bytearray(_READ_BYTES)
        self._filled = 0
        self.closed = False  # the other side is gone, or we have closed

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def has_unsent(self) -> bool:
        """Call `flush` as soon as the socket takes more."""
        return bool(self._unsent)

    def send(self, message: Message, enclosure: list[bytes]) -> None:
        """Send as much as goes at once and keep the rest. What is sent to a side that is gone is dropped.

        Raises RuleBroken when the frame would be too long.
        """
        if self.closed:
            return
        body = _encode(message)
        sizes = list(map(len, enclosure))
        rest = len(body) + 4 * len(sizes) + sum(sizes)
        if self._is_worker and rest > FRAME_BYTES_MAX:
            raise RuleBroken(f"a frame of {rest} bytes, {FRAME_BYTES_MAX} are allowed")
        header = _HEADER.pack(rest, len(body), len(sizes))
        head = (header, body, struct.pack(f"<{len(sizes)}I", *sizes))
        self._unsent.extend(_buffers((*head, *enclosure)))
        self.flush()

    def flush(self) -> None:
        """Send what is unsent, as far as that goes."""
        while self._unsent and not self.closed:
            buffers = [self._unsent[index] for index in range(min(len(self._unsent), _BUFFERS_PER_CALL))]
            try:
                sent = self._socket.sendmsg(buffers)
            except BlockingIOError:
                return
            except (BrokenPipeError, ConnectionResetError):
                self._lose()
                return
            while sent:
                first = self._unsent.popleft()
                if sent < len(first):
                    self._unsent.appendleft(first[sent:])
                    break
                sent -= len(first)

    def receive(self) -> list[tuple[Heard, list[bytes]]]:
        """Read once and return the messages that are whole now, each with its enclosure; often none.

        Sets `closed` when the other side is gone; the messages before its end have all been returned then.
        Raises Undecodable when the bytes are no frame: nothing that comes after them can be understood.
        """
        if self.closed:
            return []
        try:
            with memoryview(self._incoming)[self._filled :] as free:
                count = self._socket.recv_into(free)
        except BlockingIOError:
            return []
        except ConnectionResetError:
            count = 0
        if count == 0:
            self._lose()
            return []
        self._filled += count
        return self._whole_frames()

    def drain(self) -> list[tuple[Heard, list[bytes]]]:
        """Everything that a worker that is dead now has said before. Raises Undecodable as `receive` does."""
        messages = []
        while not self.closed:
            before = self._filled
            heard = self.receive()
            messages += heard
            # A process that the worker left behind may hold the other end open, so its end may never be seen.
            if not heard and self._filled == before:
                break
        return messages

    def close(self) -> None:
        """Nothing happens if it is closed already."""
        self._lose()
        self._socket.close()

    def _lose(self) -> None:
        self.closed = True
        self._unsent.clear()

    def _whole_frames(self) -> list[tuple[Heard, list[bytes]]]:
        frames = []
        at = 0
        needed = _HEADER.size
        with memoryview(self._incoming) as view:
            while self._filled - at >= _HEADER.size:
                rest, body, pieces = _HEADER.unpack_from(view, at)
                if (rest > FRAME_BYTES_MAX and not self._is_worker) or body + 4 * pieces > rest:
                    raise Undecodable(f"no frame of ours: {rest} bytes, {body} of body, {pieces} pieces")
                needed = _HEADER.size + rest
                if self._filled - at < needed:
                    break
                frames.append(self._frame(view[at + _HEADER.size : at + needed], body, pieces))
                at += needed
                needed = _HEADER.size
        self._make_room(at, needed)
        return frames

    def _frame(self, frame: memoryview, body: int, pieces: int) -> tuple[Heard, list[bytes]]:
        try:
            message = self._decode(frame[:body])
        except _SENSELESS as error:
            raise Undecodable(f"no message of ours: {error}") from None
        sizes = struct.unpack_from(f"<{pieces}I", frame, body)
        at = body + 4 * pieces
        if at + sum(sizes) != len(frame):
            raise Undecodable("the lengths of the pieces do not add up to the frame")
        enclosure = []
        for size in sizes:
            enclosure.append(frame[at : at + size].tobytes())
            at += size
        return message, enclosure

    def _make_room(self, used: int, needed: int) -> None:
        """Move what is left to the front of a buffer that has room for the whole frame, as far as it has come in.

        What a frame only announces takes no memory: the buffer is at most twice as large as what is in it.
        """
        left = self._filled - used
        size = max(_READ_BYTES, min(needed, 2 * left))
        if size != len(self._incoming):
            # Also when a large frame is over: its buffer is given back.
            roomy = bytearray(size)
            roomy[:left] = memoryview(self._incoming)[used : self._filled]
            self._incoming = roomy
        elif used and left:
            self._incoming[:left] = self._incoming[used : self._filled]
        self._filled = left


def create_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets, one for each end of a channel."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in (ours, theirs):
        # The kernel gives as much of it as net.core.wmem_max allows.
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    return ours, theirs


def _buffers(parts: Iterable[bytes]) -> Iterator[memoryview]:
    """The same bytes in fewer pieces, none of them empty: neighbours that are small are joined."""
    small: list[bytes] = []
    for part in parts:
        if len(part) < _LARGE_BYTES:
            small.append(part)
            continue
        if joined := b"".join(small):
            yield memoryview(joined)
        small = []
        yield memoryview(part)
    if joined := b"".join(small):
        yield memoryview(joined)
