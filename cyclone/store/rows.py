"""How tasks lie in the tables: in parcels, and each end as a story.

What is not searched for is kept as msgpack, as on the wire.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import msgspec

from cyclone.errors import StoreCorrupt
from cyclone.model.lifecycle import State
from cyclone.model.task import End, JobNumber, TaskNumber
from cyclone.store.database import Database

encode = msgspec.msgpack.Encoder().encode


def decoder(kind: Any) -> Callable[[bytes], Any]:
    """Reads what was written in msgpack. Raises StoreCorrupt: what went in whole came out damaged."""
    decode = msgspec.msgpack.Decoder(kind).decode

    def checked(body: bytes) -> Any:
        try:
            return decode(body)
        except msgspec.DecodeError as error:
            raise StoreCorrupt(f"the store is damaged: {error}") from error

    return checked


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
        return next(row for row in self.tasks if row[0] == number)


def parcels(db: Database, first: TaskNumber, last: TaskNumber) -> Iterator[Parcel]:
    """The parcels that these tasks are in, in their order."""
    rows = db.rows(
        """SELECT first, last, accepted_at, tasks FROM parcel
        WHERE first >= coalesce((SELECT max(first) FROM parcel WHERE first <= :first), :first)
        AND first <= :last AND last >= :first ORDER BY first""",
        {"first": first, "last": last},
    )
    return (Parcel(start, end, accepted_at, rows_of(tasks)) for start, end, accepted_at, tasks in rows)
