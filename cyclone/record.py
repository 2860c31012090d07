"""What a user subclasses to say which rows and samples his tasks send to a sink.

A kind of record is declared once, and everything else follows from it: what `BaseTask.record` takes, what the
table in the database looks like, what Prometheus sees.

    class OstPerformance(Record):
        kind = "ost_perf"
        table = "ost_perf_history"
        metrics = (Metric("cyclone_ost_write_seconds", "How long it took.", ("fs", "ost"), lambda row: row.seconds),)

        fs: Annotated[str, Meta(max_length=16)]
        ost: Annotated[int, Meta(ge=0)]
        seconds: Annotated[float, Meta(description="to write and sync", extra={"unit": "s"})] | None = None

A field is text, a whole number, a float, a bool or a moment (`datetime` with a time zone; kept in UTC to the
millisecond), or such or None. `Meta` bounds it, describes it and names its unit.
"""

from __future__ import annotations

import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeAlias

import msgspec

from cyclone.errors import RecordError, RuleBroken

#: What a field may hold.
Value: TypeAlias = str | int | float | bool | datetime | None

#: The types that a field may have. A bool before an int, for it is one.
FIELD_TYPES: tuple[type, ...] = (str, bool, int, float, datetime)

UID_BYTES = 16

#: Of one record. It is a row of measurements; what is larger belongs into a file.
RECORD_BYTES_MAX = 64 * 1024

#: Of all that one attempt records, each with its job and tid: they leave together.
RECORDS_BYTES_MAX = 64 * 2**20

#: In the environment of workers: the names of the sinks of this node, separated by commas.
SINKS_VARIABLE = "CYCLONE_SINKS"

#: Of kinds, tables, columns and metrics: whatever is put into SQL or an exposition is one of these.
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\Z", re.ASCII)
#: Of tables: sites have some with capital letters.
_TABLE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}\Z", re.ASCII)

#: The columns that every table has of its own.
ROW_COLUMNS = ("id", "uid", "recorded_at", "job", "tid")


@dataclass(frozen=True)
class Metric:
    """How the newest records of a kind show in Prometheus.

    labels: fields that become labels; one series for each set of their values.
    value: of a record; None removes the series.
    kind: a gauge shows the value of the newest record, a counter the sum over all.
    """

    name: str
    help: str
    labels: tuple[str, ...]
    value: Callable[[Any], float | None]
    kind: Literal["gauge", "counter"] = "gauge"


class Field(NamedTuple):
    """One declared field. bound: the longest text; unit: as people write it, "" without."""

    name: str
    type: type
    optional: bool
    bound: int | None
    unsigned: bool
    unit: str
    description: str


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A kind of record: subclass it, name it, and declare its fields.

    kind: its name; table: where its rows go, the kind if not said otherwise.
    metrics: what Prometheus sees of it. indexes: of the table, the fields of each in their order.
    """

    kind: ClassVar[str] = ""
    table: ClassVar[str] = ""
    metrics: ClassVar[tuple[Metric, ...]] = ()
    indexes: ClassVar[tuple[tuple[str, ...], ...]] = ()


def fields(kind: type[Record]) -> tuple[Field, ...]:
    """The fields in the order of the struct, which is that of the values of a row.

    That is the order in which they were declared; but what a kind adds to another one without `kw_only=True`, which is
    not inherited, comes before that (msgspec: "Structs"). Raises RuleBroken when the declaration is not sound.
    """
    if not _NAME.match(kind.kind) or not _TABLE_NAME.match(table(kind)):
        expected = "small letters, digits and underscores, a letter first, 64 at most; for a table, capital letters too"
        raise RuleBroken(
            f"{kind.__qualname__}: found kind {kind.kind!r}, table {table(kind)!r}; expected {expected}"
        )
    hints = typing.get_type_hints(kind, include_extras=True)
    found = tuple(_field(kind, name, hints[name]) for name in kind.__struct_fields__)
    names = {field.name for field in found}
    try:
        msgspec.msgpack.Decoder(kind)
    except TypeError as error:
        raise RuleBroken(f"{kind.__qualname__}: {error}") from None
    named = [name for metric in kind.metrics for name in metric.labels]
    named += [name for index in kind.indexes for name in index]
    if unknown := sorted(set(named) - names):
        raise RuleBroken(f"{kind.__qualname__}: a metric or an index names {unknown[0]!r}, which is no field")
    return found


def table(kind: type[Record]) -> str:
    """The table that rows of this kind go to."""
    return kind.table or kind.kind


def encode(kind: type[Record], values: Mapping[str, Any]) -> bytes:
    """A record as it travels. Raises RecordError naming the kind and the field that does not fit."""
    record = make(kind, values)
    try:
        return _encode(record)
    except Exception as error:
        raise _refusal(kind, error) from error


def make(kind: type[Record], values: Mapping[str, Any]) -> Record:
    """A record with these fields. Raises RecordError as `encode` does."""
    try:
        return _checked(msgspec.convert(dict(values), kind))
    except Exception as error:
        raise _refusal(kind, error) from error


def decode(kind: type[Record], body: bytes) -> Record:
    """Raises RecordError when the bytes are no record of this kind."""
    try:
        return _checked(msgspec.msgpack.decode(body, type=kind))
    except Exception as error:
        raise _refusal(kind, error) from error


def uid(job_key: int, tid: str, number: int) -> bytes:
    """The key of a record: the same for each attempt at a task, another for everything else.

    job_key: see `Assignment`. number: of the record within its attempt.
    """
    return blake2b(f"{job_key}/{number}/{tid}".encode(), digest_size=UID_BYTES).digest()


_encode = msgspec.msgpack.Encoder().encode


def _refusal(kind: type[Record], error: Exception) -> RecordError:
    """Of whatever was raised: the code of a site takes part, for a kind may have a `__post_init__`."""
    is_told = isinstance(error, ValueError | TypeError | OverflowError | RecursionError)
    reason = str(error) if is_told else f"{type(error).__name__}: {error}"
    return RecordError(f"a record of the kind {kind.kind!r}: {reason}")


def _checked(record: Record) -> Record:
    """The same. Raises TypeError, OverflowError for what msgspec lets through and a database would not take."""
    for name in record.__struct_fields__:
        value = getattr(record, name)
        if isinstance(value, float):
            if not math.isfinite(value):
                raise TypeError(f"the number is not finite - at `$.{name}`")
        elif isinstance(value, int):
            if not -(2**63) <= value < 2**63:
                raise TypeError(f"the number has more than 64 bits - at `$.{name}`")
        elif isinstance(value, datetime):
            if value.tzinfo is None:
                raise TypeError(f"the moment has no time zone - at `$.{name}`")
            # The calendar of a database begins there (MariaDB: "DATETIME", "1000-01-01 to 9999-12-31").
            if value.astimezone(UTC).year < 1000:
                raise TypeError(f"the moment is before the year 1000 - at `$.{name}`")
    return record


def _field(kind: type[Record], name: str, hint: Any) -> Field:
    # `Annotated[float, Meta(…)] | None`: msgspec itself takes bounds only where the type stands.
    options = typing.get_args(hint) if _is_union(hint) else (hint,)
    metas: list[msgspec.Meta] = []
    inner = []
    for option in options:
        if typing.get_origin(option) is Annotated:
            option, *extras = typing.get_args(option)
            metas += [extra for extra in extras if isinstance(extra, msgspec.Meta)]
        if option is not type(None):
            inner.append(option)
    if len(inner) != 1 or inner[0] not in FIELD_TYPES:
        allowed = ", ".join(each.__name__ for each in FIELD_TYPES)
        raise RuleBroken(f"{kind.__qualname__}.{name}: found {hint!r}, expected one of {allowed}, or None")
    if not _NAME.match(name) or name in ROW_COLUMNS:
        expected = f"small letters, digits and underscores, and none of {', '.join(ROW_COLUMNS)}"
        raise RuleBroken(
            f"{kind.__qualname__}.{name}: found {name!r} as the name of a field, expected {expected}"
        )
    bounds = [meta.max_length for meta in metas if meta.max_length is not None]
    return Field(
        name=name,
        type=inner[0],
        optional=type(None) in options,
        bound=min(bounds, default=None),
        unsigned=any(meta.ge is not None and meta.ge >= 0 for meta in metas),
        unit=next((str(meta.extra["unit"]) for meta in metas if meta.extra and "unit" in meta.extra), ""),
        description=next((meta.description for meta in metas if meta.description), ""),
    )


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)
