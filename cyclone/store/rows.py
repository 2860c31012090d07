"""How tasks lie in the tables: in parcels, and each end as a story.

What is not searched for is kept as msgpack, as on the wire.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import msgspec

from cyclone.errors import StoreCorrupt
from cyclone.model.lifecycle import State
from cyclone.model.task import End, Epoch, JobNumber, Policy, TaskNumber
from cyclone.store.database import Database, checked, damaged

encode = msgspec.msgpack.Encoder().encode


def decoder(kind: Any) -> Callable[[bytes], Any]:
    """Reads what was written in msgpack. Raises StoreCorrupt: what went in whole came out damaged."""
    decode = msgspec.msgpack.Decoder(kind).decode

    def checked(body: bytes) -> Any:
        try:
            return decode(body)
        # UnicodeDecodeError: a text that is none; TypeError: not even bytes.
        except (msgspec.DecodeError, UnicodeDecodeError, TypeError) as error:
            raise StoreCorrupt(f"the store is damaged: {' '.join(str(error).split())}") from error

    return checked


class Meta(msgspec.Struct):
    """What the table `meta` knows of the store as a whole.

    epoch: of the last start, 0 if there was none. last_task, last_job: not used again, also if they are forgotten.
    live_blocks: see `LiveBlocks.listed`.
    """

    epoch: Epoch
    identity: str = ""
    last_task: TaskNumber = 0
    last_job: JobNumber = 0
    live_blocks: bytes | None = None

    @classmethod
    def of(cls, path: Path, rows: Iterable[tuple[str, object]]) -> Meta:
        """path: of the store. rows: `(key, value)`. Raises StoreCorrupt."""
        meta = checked(path, dict(rows), cls)
        if meta.epoch and not meta.identity:
            raise damaged(path, "found no identity")
        return meta


class Story(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How a task ended. peer: who made its last attempt. ended_at: Unix time; 0 where the first version wrote it."""

    state: State
    attempts: int
    peer: str
    end: End | None
    reason: str
    value: bytes
    ended_at: float = 0.0


#: `(number, job, tid, policy, after)`
Row: TypeAlias = tuple[TaskNumber, JobNumber, str, int, tuple[str, ...]]

end_of: Callable[[bytes], End] = decoder(End)
policy_of: Callable[[bytes], Policy] = decoder(Policy)
numbers_of: Callable[[bytes], tuple[TaskNumber, ...]] = decoder(tuple[TaskNumber, ...])
story_of: Callable[[bytes], Story] = decoder(Story)
payloads_of: Callable[[bytes], list[bytes]] = decoder(list[bytes])
rows_of: Callable[[bytes], list[Row]] = decoder(list[Row])


class Parcel(NamedTuple):
    """What travels together, without the payloads. tasks: ascending; there is none where some were forgotten."""

    first: TaskNumber
    last: TaskNumber
    accepted_at: float
    tasks: list[Row]

    def row(self, number: TaskNumber) -> Row:
        """Raises StoreCorrupt if the task is not among them."""
        for row in self.tasks:
            if row[0] == number:
                return row
        raise StoreCorrupt(f"the store is damaged: task {number} is in no parcel")


class _ParcelRow(NamedTuple):
    first: TaskNumber
    last: TaskNumber
    accepted_at: float
    tasks: bytes


def parcel_of(db: Database, number: TaskNumber) -> Parcel:
    """The one that this task is in. Raises StoreCorrupt if it is in none."""
    for parcel in parcels(db, number, number):
        return parcel
    raise damaged(db.path, f"task {number} is in no parcel")


def payloads_in(db: Database, parcel: Parcel) -> list[bytes]:
    """Of the tasks of a parcel, in their order. Raises StoreCorrupt."""
    for (body,) in db.rows("SELECT payloads FROM parcel WHERE first = ?", (parcel.first,)):
        payloads = payloads_of(body)
        if len(payloads) == len(parcel.tasks):
            return payloads
    raise damaged(db.path, f"found no payload for each task of parcel {parcel.first}")


def parcels(db: Database, first: TaskNumber, last: TaskNumber) -> Iterator[Parcel]:
    """The parcels that these tasks are in, in their order."""
    rows = db.facts(
        _ParcelRow,
        """SELECT first, last, accepted_at, tasks FROM parcel
        WHERE first >= coalesce((SELECT max(first) FROM parcel WHERE first <= :first), :first)
        AND first <= :last AND last >= :first ORDER BY first""",
        {"first": first, "last": last},
    )
    return (Parcel(start, end, accepted_at, rows_of(tasks)) for start, end, accepted_at, tasks in rows)
