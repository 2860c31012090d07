"""Rows in a database, whichever it is: the table of a kind, and what an error of a database means.

Names of tables and columns come from kinds alone, which `record.fields` has checked; values from the network are
parameters of a statement and never part of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import NamedTuple, Protocol, TypeAlias, TypeVar

from cyclone.clock import monotonic
from cyclone.errors import EXIT_CONFIG, EXIT_UNREACHABLE, CycloneError, RecordError
from cyclone.messages import Entry
from cyclone.record import UID_BYTES, Field, Record, Value, decode, fields, table

#: Of one transaction at most: more rows gain nothing (measured).
ROWS_MAX = 1000

#: Keys that one question lists: SQLite before 3.32 takes 999 values (sqlite.org/limits.html).
UIDS_MOST = 500

#: `(uid, recorded_at, job, tid, …the fields of the kind)`
Row: TypeAlias = tuple[Value | bytes, ...]

#: `{what: how it is}` of a table: `{"column ost": "bigint unsigned not null", …}`
Definition: TypeAlias = Mapping[str, str]

JOB_LENGTH_MAX = 255
TID_LENGTH_MAX = 4096

_Answer = TypeVar("_Answer")


class Failure(StrEnum):
    """What a failure is about, which is to say what can be done."""

    TRANSIENT = "transient"  # wait, connect anew, try again
    ROW = "row"  # at least one of the rows is not taken, whatever is tried
    CONFIGURATION = "configuration"  # somebody has to mend the database, or the ini file


class DatabaseFailure(CycloneError):
    """The database did not do what it was asked to. The text is its own."""

    def __init__(self, failure: Failure, text: str) -> None:
        self.failure = failure
        self.exit_code = EXIT_UNREACHABLE if failure is Failure.TRANSIENT else EXIT_CONFIG
        super().__init__(text)


class Table(NamedTuple):
    """What the rows of a kind go to. columns: without the `id` that the database counts; a uid is of type bytes."""

    name: str
    columns: tuple[Field, ...]
    indexes: tuple[tuple[str, ...], ...]


class Connection(Protocol):
    """One connection. After an exception it must not be used again, only dropped; unless the database itself has refused
    rows, and `undo` went well.

    batch_bytes_max: entries of so many bytes together make no statement that is too large.
    idle_s_max: the other side hangs up if nothing is said for longer. All methods raise what the library raises.
    """

    batch_bytes_max: int
    idle_s_max: float

    def insert(self, table: Table, rows: Sequence[Row]) -> int:
        """Insert those that are not there yet, by their uid, and commit: all or none. Returns how many were new."""

    def holds(self, table: Table, uids: Sequence[bytes]) -> Counter[bytes]:
        """How many rows of the table have each of these keys: none, where it has them not or is not there.

        uids: `UIDS_MOST` of them at most.
        """

    def execute(self, statement: str) -> None:
        """Execute one of the statements of the dialect, and commit."""

    def definition(self, table: Table) -> Definition:
        """How the table of this name is; empty if there is none.

        A site may add indexes, and columns that need no value: these are not told.
        """

    def undo(self) -> None:
        """Take back what a statement that was refused has done so far."""

    def close(self) -> None:
        """End it in good order."""

    def drop(self) -> None:
        """End it without a word to the other side, which may be dead or frozen. Raises nothing."""


class Dialect(Protocol):
    """A product: how it is connected to, its words, its errors. place: what it is connected to, for errors."""

    @property
    def place(self) -> str: ...

    def connect(self) -> Connection:
        """Raises what the library raises, or DatabaseFailure."""

    def failure(self, error: Exception) -> Failure:
        """What an exception of the library is about."""

    def statements(self, table: Table) -> Sequence[str]:
        """What creates the table, if there is none of this name."""

    def definition(self, table: Table) -> Definition:
        """How the table must be."""


def _row_field(name: str, type_: type, bound: int | None = None) -> Field:
    return Field(name, type_, optional=False, bound=bound, unsigned=False, unit="", description="")


#: The columns of every table but the `id`, which the database counts.
_ROW_FIELDS = (
    _row_field("uid", bytes, UID_BYTES),
    _row_field("recorded_at", datetime),
    _row_field("job", str, JOB_LENGTH_MAX),
    _row_field("tid", str, TID_LENGTH_MAX),
)


def table_of(kind: type[Record]) -> Table:
    """Raises RuleBroken when the declaration is not sound."""
    return Table(table(kind), (*_ROW_FIELDS, *fields(kind)), kind.indexes)


def row_of(kind: type[Record], entry: Entry) -> Row:
    """The row of an entry. Raises RecordError naming what does not fit."""
    record = decode(kind, entry.body)
    if len(entry.uid) != UID_BYTES:
        raise RecordError(f"a record of the kind {kind.kind!r}: its key has {len(entry.uid)} bytes")
    try:
        recorded_at = datetime.fromtimestamp(entry.at, UTC)
    except (ValueError, OverflowError, OSError):
        raise RecordError(f"a record of the kind {kind.kind!r}: recorded at {entry.at}") from None
    return (
        entry.uid, recorded_at, entry.job, entry.tid, *(getattr(record, name) for name in record.__struct_fields__)
    )  # fmt: skip


def utc(moment: datetime) -> datetime:
    """In UTC, to the millisecond, without a time zone: as a column keeps it."""
    moment = moment.astimezone(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000, tzinfo=None)


def index_name(number: int, columns: Sequence[str]) -> str:
    """The name of the index of these columns, the first one being 1: 64 characters at most."""
    return f"k_{number}_{'_'.join(columns)}"[:64]


def print_sql(dialect: Dialect, kinds: Iterable[type[Record]]) -> str:
    """The statements that create the tables of these kinds."""
    return "".join(f"{each};\n" for kind in kinds for each in dialect.statements(table_of(kind)))


class Database:
    """A connection when there is need for one. Not for more than one thread.

    After an exception the connection is dropped: one that has seen a time-out answers the next question with what was
    meant for the last (measured). Not after one about rows, which is an answer: there may be thousands of these.
    """

    def __init__(self, dialect: Dialect, clock: Callable[[], float] = monotonic) -> None:
        self._dialect = dialect
        self._clock = clock
        self._connection: Connection | None = None
        self._used_at = 0.0

    def open(self) -> int:
        """Connect, unless there is a connection that can be used. Returns its `batch_bytes_max`.

        Raises DatabaseFailure.
        """
        connection = self._connection
        if connection is not None and self._clock() - self._used_at > connection.idle_s_max:
            self.drop()
            connection = None
        if connection is None:
            try:
                connection = self._connection = self._dialect.connect()
            except Exception as error:
                raise self._explained(error, connecting=True) from error
        self._used_at = self._clock()
        return connection.batch_bytes_max

    def insert(self, table: Table, rows: Sequence[Row]) -> int:
        """Insert all of these or none; whoever has its uid there already is passed over. Returns how many were new.

        Raises DatabaseFailure. Even then they may be there: the answer may have been lost.
        """
        return self.ask(lambda connection: connection.insert(table, rows))

    def create_tables(self, kinds: Iterable[type[Record]]) -> str:
        """Create what is missing. Returns in what tables of these names differ from what they must be, "" if in nothing.

        Raises DatabaseFailure.
        """
        return "".join([self.ask(partial(self._create, table_of(kind))) for kind in kinds])

    def _create(self, table: Table, connection: Connection) -> str:
        for statement in self._dialect.statements(table):
            connection.execute(statement)
        return difference(table.name, self._dialect.definition(table), connection.definition(table))

    def close(self) -> None:
        """End the connection in good order, if there is one. Raises nothing."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except Exception:  # noqa: BLE001 - it has committed what it had; the other side may be gone
                connection.drop()

    def drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.drop()

    def ask(self, question: Callable[[Connection], _Answer]) -> _Answer:
        """Let somebody use the connection. Raises DatabaseFailure, whatever he raises."""
        self.open()
        assert self._connection is not None
        try:
            answer = question(self._connection)
        except Exception as error:
            explained = self._explained(error)
            if explained.failure is not Failure.ROW or not self._is_undone():
                self.drop()
            raise explained from error
        self._used_at = self._clock()
        return answer

    def _is_undone(self) -> bool:
        assert self._connection is not None
        try:
            self._connection.undo()
        except Exception:  # noqa: BLE001 - whatever it is, the connection is of no use any more
            return False
        return True

    def _explained(self, error: Exception, *, connecting: bool = False) -> DatabaseFailure:
        if isinstance(error, DatabaseFailure):
            return error
        failure = self._dialect.failure(error)
        if connecting and failure is Failure.ROW:
            failure = Failure.CONFIGURATION
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        # What is about a row is the same in any database.
        return DatabaseFailure(failure, text if failure is Failure.ROW else f"{self._dialect.place}: {text}")


def difference(name: str, expected: Definition, found: Definition) -> str:
    """What is found (-) and what was expected (+), a line each; "" if the table serves as it is."""
    lines = []
    for what in dict.fromkeys((*expected, *found)):
        theirs, ours = found.get(what), expected.get(what)
        if theirs != ours:
            lines += [
                f"{sign} {what} {how}".rstrip()
                for sign, how in (("-", theirs), ("+", ours))
                if how is not None
            ]
    return "".join(f"{line}\n" for line in [f"table {name}", *lines]) if lines else ""
