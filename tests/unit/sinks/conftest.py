from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import pytest
from msgspec import Meta

from cyclone.messages import Entry
from cyclone.record import Record, encode, uid

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


class Reading(Record, frozen=True):
    """A field of each type, each with and without a value; one is called like a word of SQL."""

    kind = "reading"
    table = "readings"
    indexes = (("place", "at"), ("note",))

    place: Annotated[str, Meta(max_length=16)]
    order: Annotated[int, Meta(ge=0)]
    at: datetime
    change: int | None = None
    seconds: float | None = None
    fine: bool = True
    seen: bool | None = None
    note: str | None = None


class Visit(Record, frozen=True):
    kind = "visit"

    who: Annotated[str, Meta(max_length=2000)]
    until: datetime | None = None


@pytest.fixture
def reading() -> type[Record]:
    return Reading


@pytest.fixture
def visit() -> type[Record]:
    return Visit


@pytest.fixture
def kinds() -> dict[str, type[Record]]:
    return {"reading": Reading, "visit": Visit}


@pytest.fixture
def entry() -> Callable[..., Entry]:
    """Makes the entry of this number: a reading, unless told otherwise."""

    def make(number: int, **values: Any) -> Entry:
        fields = {"place": "here", "order": number, "at": NOON, **values}
        return Entry(
            uid(1, "task", number),
            "database",
            "reading",
            "watch",
            f"task-{number}",
            NOON.timestamp() + number,
            encode(Reading, fields),
        )

    return make
