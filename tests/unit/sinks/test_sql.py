from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from cyclone.errors import RecordError
from cyclone.record import Record, encode
from cyclone.sinks.sql import (
    Database,
    DatabaseFailure,
    Failure,
    difference,
    index_name,
    row_of,
    table_of,
    utc,
)


class Line:
    """A connection that does what it is told, once."""

    batch_bytes_max = 1000
    idle_s_max = 100.0

    def __init__(self, dialect: Product) -> None:
        self._dialect = dialect
        self.end = ""

    def insert(self, table, rows):
        assert not self.end
        if self._dialect.error is not None:
            raise self._dialect.error
        return len(rows)

    def execute(self, statement):
        raise AssertionError(statement)

    def definition(self, table):
        return {}

    def undo(self):
        if self._dialect.undone is not None:
            raise self._dialect.undone

    def close(self):
        self.end = "closed"
        if self._dialect.error is not None:
            raise self._dialect.error

    def drop(self):
        self.end = "dropped"


class Product:
    """A dialect that counts its connections."""

    place = "the product"

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.refusal: Exception | None = None
        self.error: Exception | None = None
        self.undone: Exception | None = None
        self.about = Failure.TRANSIENT

    def connect(self):
        if self.refusal is not None:
            raise self.refusal
        self.lines.append(Line(self))
        return self.lines[-1]

    def failure(self, error):
        return self.about

    def statements(self, table):
        return []

    def definition(self, table):
        return {}


@pytest.fixture
def product():
    return Product()


@pytest.fixture
def insert(reading):
    """Inserts one row."""
    return lambda database: database.insert(table_of(reading), [()])


# Connections.


def test_there_is_one_connection_for_many_batches(product, insert):
    database = Database(product, lambda: 0.0)

    assert [insert(database) for _ in range(3)] == [1, 1, 1]

    assert len(product.lines) == 1


def test_after_any_exception_the_connection_is_dropped(product, insert):
    database = Database(product, lambda: 0.0)
    product.error = RuntimeError("of any\n  kind")

    with pytest.raises(DatabaseFailure, match="RuntimeError: of any kind"):
        insert(database)

    product.error = None
    assert insert(database) == 1
    assert [line.end for line in product.lines] == ["dropped", ""]


def test_a_connection_over_which_rows_were_refused_is_kept(product, insert):
    database = Database(product, lambda: 0.0)
    product.error, product.about = RuntimeError("out of range"), Failure.ROW

    for _ in range(3):
        with pytest.raises(DatabaseFailure, match="out of range"):
            insert(database)

    product.error = None
    assert insert(database) == 1
    assert [line.end for line in product.lines] == [""]


def test_a_connection_over_which_refused_rows_cannot_be_undone_is_dropped(product, insert):
    database = Database(product, lambda: 0.0)
    product.error, product.about, product.undone = RuntimeError("too large"), Failure.ROW, OSError("gone")

    with pytest.raises(DatabaseFailure, match="too large"):
        insert(database)

    assert [line.end for line in product.lines] == ["dropped"]


def test_a_connection_that_was_idle_for_too_long_is_not_used_again(product, insert):
    now = 0.0
    database = Database(product, lambda: now)
    insert(database)
    now = 100.0
    insert(database)
    now = 200.1

    insert(database)

    assert [line.end for line in product.lines] == ["dropped", ""]


@pytest.mark.parametrize(
    ("about", "failure"),
    [
        (Failure.TRANSIENT, Failure.TRANSIENT),
        (Failure.CONFIGURATION, Failure.CONFIGURATION),
        # There are no rows while connecting.
        (Failure.ROW, Failure.CONFIGURATION),
    ],
)
def test_a_connection_that_cannot_be_made_is_told(product, insert, about, failure):
    product.refusal, product.about = OSError("refused"), about

    with pytest.raises(DatabaseFailure, match="refused") as raised:
        insert(Database(product))

    assert raised.value.failure is failure


def test_what_the_dialect_explained_itself_stays_as_it_is(product, insert):
    product.refusal = DatabaseFailure(Failure.CONFIGURATION, "no password")

    with pytest.raises(DatabaseFailure, match=r"\Ano password\Z"):
        insert(Database(product))


def test_closing_never_fails(product, insert):
    database = Database(product)
    database.close()
    insert(database)
    product.error = OSError("gone")

    database.close()

    assert product.lines[0].end == "dropped"


# Rows.


def test_a_row_has_the_key_first_and_then_the_fields_in_their_order(reading, entry):
    sent = entry(5, note="x")

    assert row_of(reading, sent) == (
        sent.uid,
        datetime(2026, 11, 20, 12, 0, 5, tzinfo=UTC),
        "watch",
        "task-5",
        "here",
        5,
        datetime(2026, 11, 20, 12, tzinfo=UTC),
        None,
        None,
        True,
        None,
        "x",
    )
    assert [column.name for column in table_of(reading).columns][:6] == [
        "uid", "recorded_at", "job", "tid", "place", "order"
    ]  # fmt: skip


@pytest.mark.parametrize("kw_only", [False, True])
def test_the_values_of_a_kind_that_extends_another_one_are_in_the_columns_of_their_names(entry, kw_only):
    class Trip(Record, frozen=True, kw_only=True):
        who: str

    class Return(Trip, frozen=True, kw_only=kw_only):
        kind = "return"
        whence: str

    sent = replace(entry(1), kind="return", body=encode(Return, {"who": "me", "whence": "there"}))

    columns = [column.name for column in table_of(Return).columns]
    row = dict(zip(columns, row_of(Return, sent), strict=True))

    assert (row["who"], row["whence"]) == ("me", "there")


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"uid": b"short"}, "its key has 5 bytes"),
        ({"uid": bytes(17)}, "its key has 17 bytes"),
        ({"at": float("nan")}, "recorded at nan"),
        ({"at": float("inf")}, "recorded at inf"),
        ({"at": 1e18}, r"recorded at 1e\+18"),
        ({"body": b""}, "'reading'"),
        ({"body": b"\xc1"}, "'reading'"),
        ({"body": b"\x91" * 100_000}, "'reading'"),
        ({"body": b"\x80"}, "place"),
    ],
)
def test_what_makes_no_row_is_refused(reading, entry, wrong, problem):
    with pytest.raises(RecordError, match=problem):
        row_of(reading, replace(entry(1), **wrong))


def test_a_moment_is_cut_to_the_millisecond_and_not_rounded():
    assert utc(datetime(1999, 12, 31, 23, 59, 59, 999999, UTC)) == datetime(  # noqa: DTZ001 - as a column keeps it
        1999, 12, 31, 23, 59, 59, 999000
    )


def test_names_of_indexes_are_short_and_differ():
    columns = ["a_column_with_quite_a_long_name"] * 3

    assert len(index_name(1, columns)) == 64
    assert index_name(1, columns) != index_name(2, columns)


# Differences.


def test_a_table_as_expected_has_no_differences():
    assert difference("t", {"column a": "int"}, {"column a": "int"}) == ""


def test_differences_are_told_in_the_order_of_what_is_expected():
    expected = {"column a": "int", "column b": "text", "unique (uid)": ""}

    assert difference("t", expected, {"column b": "blob", "column c": "int not null"}) == (
        "table t\n+ column a int\n- column b blob\n+ column b text\n+ unique (uid)\n- column c int not null\n"
    )
