from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cyclone.messages import Entry, RecordView
from cyclone.record import Record
from cyclone.sinks.dead_letters import DeadLetters
from cyclone.sinks.dialects.csv_files import Csv
from cyclone.sinks.dialects.sqlite import Sqlite
from cyclone.sinks.inquiry import Inquiry, Traced
from cyclone.sinks.spool import Spool
from cyclone.sinks.sql import Database, Dialect, row_of, table_of

PATIENCE_S = 30.0
STORED, WAITING, REFUSED, UNKNOWN = (
    RecordView(1), RecordView(0, True), RecordView(0, False, True), RecordView(),
)  # fmt: skip


@dataclass
class Site:
    """What a proxy has on its disk."""

    directory: Path
    kinds: dict[str, type[Record]]
    dialect: Dialect

    def __post_init__(self) -> None:
        self.spool = Spool(self.directory / "spool")
        self.dead = DeadLetters(self.directory / "dead")
        self.inquiry = Inquiry(self.spool, self.kinds.values(), self.dialect, self.dead.path)

    def store(self, entry: Entry, kind: type[Record]) -> None:
        with closing(Database(self.dialect)) as database:
            database.create_tables(self.kinds.values())
            database.insert(table_of(kind), [row_of(kind, entry)])

    def ask(self, *entries: Entry) -> Traced:
        answers: queue.SimpleQueue[Traced] = queue.SimpleQueue()
        self.inquiry.ask([entry.uid for entry in entries], answers.put)
        return answers.get(timeout=PATIENCE_S)


@pytest.fixture(params=["sqlite", "csv"])
def site(request: Any, tmp_path: Path, kinds: dict[str, type[Record]]) -> Iterator[Site]:
    site = Site(tmp_path, kinds, Sqlite(tmp_path / "rows.db") if request.param == "sqlite" else Csv(tmp_path))
    yield site
    site.inquiry.stop(PATIENCE_S)
    site.spool.close()
    assert not [each for each in threading.enumerate() if each.name == "inquiry"]


def test_a_record_is_found_wherever_it_is(
    site: Site, reading: type[Record], entry: Callable[..., Entry]
) -> None:
    site.store(entry(0), reading)
    site.spool.append([entry(1)])
    site.dead.append([(entry(2), "too long")], 0.0)

    traced = site.ask(*map(entry, range(4)))

    assert traced == Traced([STORED, WAITING, REFUSED, UNKNOWN])


def test_before_there_is_a_table_nothing_is_stored(site: Site, entry: Callable[..., Entry]) -> None:
    assert site.ask(entry(0)) == Traced([UNKNOWN])


def test_a_key_that_is_in_two_tables_is_told_as_two_rows(
    site: Site, reading: type[Record], entry: Callable[..., Entry]
) -> None:
    class Other(reading, frozen=True):  # type: ignore[misc, valid-type]
        kind = "other"
        table = "others"

    site.kinds["other"] = Other
    site.inquiry = Inquiry(site.spool, site.kinds.values(), site.dialect, site.dead.path)
    site.store(entry(0), reading)
    site.store(entry(0), Other)

    assert site.ask(entry(0)).records == [RecordView(2)]


def test_as_many_as_may_be_asked_for_at_once_are_answered_in_their_order(
    site: Site, reading: type[Record], entry: Callable[..., Entry]
) -> None:
    site.store(entry(1234), reading)
    site.spool.append([entry(number) for number in range(0, 5000, 7)])

    traced = site.ask(*map(entry, range(5000)))

    expected = [WAITING if number % 7 == 0 else UNKNOWN for number in range(5000)]
    expected[1234] = STORED
    assert traced.records == expected


def test_letters_that_are_written_later_are_found_and_those_moved_away_are_not(
    site: Site, entry: Callable[..., Entry]
) -> None:
    site.dead.append([(entry(0), "no")], 0.0)
    first = site.ask(entry(0), entry(1))
    with site.dead.path.open("ab") as file:
        file.write(b'{"uid": "half a li')
    site.dead.append([(entry(1), "no")], 0.0)
    second = site.ask(entry(0), entry(1))
    site.dead.path.rename(site.directory / "dead.1")
    third = site.ask(entry(0), entry(1))

    assert first.records == [REFUSED, UNKNOWN]
    assert second.records == [REFUSED, REFUSED]
    assert third.records == [UNKNOWN, UNKNOWN]


class Away(Sqlite):
    """A server that is down."""

    def connect(self) -> Any:
        raise OSError("nobody is there")


def test_while_the_database_is_away_the_rest_is_told_and_why(
    tmp_path: Path, kinds: dict[str, type[Record]], entry: Callable[..., Entry]
) -> None:
    site = Site(tmp_path, kinds, Away(tmp_path / "rows.db"))
    site.spool.append([entry(0)])

    traced = site.ask(entry(0), entry(1))
    site.inquiry.stop(PATIENCE_S)
    site.spool.close()

    assert traced.records == [WAITING, UNKNOWN]
    assert "nobody is there" in traced.trouble


class Slow(Sqlite):
    """A database that answers nobody before it is told to."""

    def connect(self) -> Any:
        assert self.may_answer.wait(PATIENCE_S)
        return super().connect()

    may_answer = threading.Event()


def test_who_asks_a_slow_database_too_often_is_told_so_at_once(
    tmp_path: Path, kinds: dict[str, type[Record]], entry: Callable[..., Entry]
) -> None:
    Slow.may_answer.clear()
    site = Site(tmp_path, kinds, Slow(tmp_path / "rows.db"))
    answers: queue.SimpleQueue[Traced] = queue.SimpleQueue()

    for _ in range(18):
        site.inquiry.ask([entry(0).uid], answers.put)
    refused = answers.get(timeout=PATIENCE_S)
    Slow.may_answer.set()
    site.inquiry.stop(PATIENCE_S)
    site.spool.close()

    assert "questions wait for the database already" in refused.trouble
    assert answers.qsize() == 17
    assert sum(answers.get().trouble == "" for _ in range(17)) >= 16
