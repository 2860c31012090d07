"""A queue for each OST, in one file: what does not fit into memory waits on disk.

An element is a few whole numbers. They are gathered in memory, a few hundred for each OST, and written in chunks; only
where the chunks are is remembered.
"""

from __future__ import annotations

import os
from array import array
from typing import IO

#: Numbers that are gathered for one OST before they are written, and for all.
_CHUNK_NUMBERS = 2048
_GATHERED_MOST = 1 << 21

_BYTES = 8


class _Queue:
    """What waits for one OST: chunks of the file, then what is in memory.

    chunks: position in bytes and count of numbers, alternating. chunk, taken: the chunk that comes next, and how many
    of its numbers have been taken.
    """

    __slots__ = ("chunk", "chunks", "fresh", "length", "taken")

    def __init__(self) -> None:
        self.chunks = array("Q")
        self.chunk = self.taken = self.length = 0
        self.fresh = array("Q")


class OstQueues:
    """First in, first out, for each OST by itself.

    file: where chunks are written to, from its beginning; None if nothing will be put.
    width: how many numbers make an element.
    """

    def __init__(self, file: IO[bytes] | None, width: int) -> None:
        self._file = file
        self._width = width
        self._end = 0
        self._gathered = 0
        self._queues: dict[int, _Queue] = {}

    def put(self, ost: int, *numbers: int) -> None:
        """Add one element. Raises OSError; then it was not added."""
        queue = self._queues.get(ost)
        if queue is None:
            queue = self._queues[ost] = _Queue()
        # First room is made: whoever is refused keeps the element, and it must not be here as well.
        if len(queue.fresh) >= _CHUNK_NUMBERS:
            self._write(queue)
        elif self._gathered >= _GATHERED_MOST:
            self.write_all()
        queue.fresh.extend(numbers)
        queue.length += 1
        self._gathered += self._width

    def take(self, ost: int, most: int, descriptor: int) -> list[tuple[int, ...]]:
        """The oldest elements, and they are here no more. descriptor: of the file. Raises OSError."""
        queue = self._queues.get(ost)
        if queue is None:
            return []
        wanted = min(most, queue.length) * self._width
        found = array("Q")
        while len(found) < wanted:
            some = self._next(queue, wanted - len(found), descriptor)
            if not some:
                raise OSError("a queue on disk has fewer elements than it should")
            found.extend(some)
        queue.length -= len(found) // self._width
        numbers = iter(found)
        return list(zip(*[numbers] * self._width, strict=True))

    def length(self, ost: int) -> int:
        """How many elements wait for this OST."""
        queue = self._queues.get(ost)
        return 0 if queue is None else queue.length

    def lengths(self) -> dict[int, int]:
        """`{OST: how many elements}`"""
        return {ost: queue.length for ost, queue in self._queues.items()}

    # Keeping them for later.

    def write_all(self) -> None:
        """Put everything into the file."""
        for queue in self._queues.values():
            self._write(queue)

    def end(self) -> int:
        """Where the chunks end, in bytes."""
        return self._end

    def directory(self) -> dict[int, bytes]:
        """`{OST: where its chunks are}`, all of them: nothing may have been taken. Call `write_all` before."""
        return {ost: queue.chunks.tobytes() for ost, queue in self._queues.items()}

    def restore(self, directory: dict[int, bytes], end: int) -> None:
        """Take over what the file holds, as `directory` and `end` told it. Raises ValueError."""
        self._end = end
        for ost, chunks in directory.items():
            queue = self._queues[ost] = _Queue()
            queue.chunks.frombytes(chunks)
            queue.length = sum(queue.chunks[1::2]) // self._width

    def _write(self, queue: _Queue) -> None:
        if not queue.fresh:
            return
        assert self._file is not None
        content = queue.fresh.tobytes()
        self._file.seek(self._end)
        self._file.write(content)
        self._file.flush()
        queue.chunks.extend((self._end, len(queue.fresh)))
        self._end += len(content)
        self._gathered -= len(queue.fresh)
        queue.fresh = array("Q")

    def _next(self, queue: _Queue, most: int, descriptor: int) -> array[int]:
        """Up to so many of the oldest numbers."""
        if queue.chunk < len(queue.chunks):
            position, count = queue.chunks[queue.chunk], queue.chunks[queue.chunk + 1]
            found = _read(descriptor, position + queue.taken * _BYTES, min(most, count - queue.taken))
            queue.taken += len(found)
            if queue.taken == count:
                queue.chunk, queue.taken = queue.chunk + 2, 0
            return found
        found, queue.fresh = queue.fresh[:most], queue.fresh[most:]
        self._gathered -= len(found)
        return found


def _read(descriptor: int, position: int, count: int) -> array[int]:
    content = os.pread(descriptor, count * _BYTES, position)
    if len(content) != count * _BYTES:
        raise OSError(f"a queue on disk ends at {position + len(content)}, earlier than it should")
    found = array("Q")
    found.frombytes(content)
    return found
