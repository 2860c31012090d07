"""Where live tasks are, so that waking up reads them and not a hundred million ended ones.

Task numbers are cut into blocks. A block whose tasks have all ended never holds a live one again, because new
tasks get numbers above every earlier one. So a list of the blocks that may hold live tasks errs on the safe
side when it is old: it names too many blocks, never too few. It is written now and then, in a transaction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import msgspec

from cyclone.errors import StoreCorrupt
from cyclone.model.task import TaskNumber

#: A straggler costs the reading of one block when the master wakes up: 2^14 rows, about ten milliseconds.
_BITS = 14

#: Above every task number: SQLite's integers are signed and have 64 bits.
_END = 2**63 - 1


class LiveBlocks:
    """How many live tasks each block of numbers holds.

    stale: a block has emptied for ever since `written` was called, so that a new list is worth its while. The newest
    block fills up again: where tasks come one at a time, it is empty after each of them.
    """

    def __init__(self) -> None:
        self._live: Counter[int] = Counter()
        self._newest = -1
        self.stale = False

    def accepted(self, numbers: Sequence[TaskNumber]) -> None:
        """Count new tasks. numbers: ascending."""
        if not numbers:
            return
        first, last = numbers[0] >> _BITS, numbers[-1] >> _BITS
        if first == last:
            self._live[first] += len(numbers)
        else:
            self._live.update([number >> _BITS for number in numbers])
        if last != self._newest:
            former, self._newest = self._newest, last
            self._leave_out_if_empty(former)

    def ended(self, numbers: Sequence[TaskNumber]) -> None:
        if not numbers:
            return
        for block, count in Counter([number >> _BITS for number in numbers]).items():
            self._live[block] -= count
            if block != self._newest:
                self._leave_out_if_empty(block)

    def _leave_out_if_empty(self, block: int) -> None:
        if block in self._live and self._live[block] <= 0:
            del self._live[block]
            self.stale = True

    def listed(self, last: TaskNumber) -> bytes:
        """What `ranges` takes. last: of all tasks counted so far, the largest number."""
        return msgspec.msgpack.encode(
            (last, sorted(block for block, count in self._live.items() if count > 0))
        )

    def written(self) -> None:
        self.stale = False


def ranges(listed: bytes | None) -> list[tuple[TaskNumber, TaskNumber]]:
    """The numbers among which all live tasks are: `[(first, last), …]`, ascending, both ends included.

    listed: None if nothing was ever listed: any number may be live then.
    Raises StoreCorrupt.
    """
    if listed is None:
        return [(0, _END)]
    try:
        known, blocks = msgspec.msgpack.decode(listed, type=tuple[TaskNumber, list[TaskNumber]])
    except msgspec.DecodeError as error:
        raise StoreCorrupt(f"the store is damaged: live_blocks: {error}") from error
    if any(later <= earlier for earlier, later in pairwise([-1, *blocks, (known >> _BITS) + 1])):
        # A block that came twice would make two of each task in it.
        raise StoreCorrupt(f"the store is damaged: live_blocks: found {blocks} up to {known}")
    found: list[tuple[int, int]] = []
    for block in blocks:
        first, last = block << _BITS, min(((block + 1) << _BITS) - 1, known)
        if found and found[-1][1] + 1 == first:
            found[-1] = found[-1][0], last
        else:
            found.append((first, last))
    return [*found, (known + 1, _END)]
