from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from cyclone.daemons.sink import AGAIN_S, Sink, Standing, TextIntake, keep_what_fits
from cyclone.errors import StoreFull
from cyclone.ini import Ini
from cyclone.messages import Deliver, Entry, Message, Refused, Stored
from cyclone.model.peer import Peer
from cyclone.sinks.settings import DatabaseProxySettings
from cyclone.wire.door import Heard
from cyclone.wire.keys import Role


class Keeper:
    """Has room for so many entries or texts."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.kept: list[str] = []

    def keep(self, entries: Sequence[Entry]) -> None:
        self._take([entry.tid for entry in entries])

    def keep_texts(self, texts: Sequence[bytes]) -> None:
        self._take([text.decode() for text in texts])

    def _take(self, some: Sequence[str]) -> None:
        if len(some) > self.room:
            raise StoreFull("full")
        self.room -= len(some)
        self.kept += some

    def standing(self) -> Standing:
        return Standing(len(self.kept))


def delivery(serial: int, *tids: str) -> Deliver:
    return Deliver(serial, [Entry(bytes(16), "database", "reading", "job", tid, 0.0, b"") for tid in tids])


# Deliveries.


def test_deliveries_that_fit_are_kept_at_once():
    keeper = Keeper(room=3)

    assert keep_what_fits(keeper, [delivery(1, "a", "b"), delivery(2), delivery(3, "c")]) == ["", "", ""]

    assert keeper.kept == ["a", "b", "c"]


def test_of_deliveries_that_do_not_fit_together_those_are_kept_that_fit():
    keeper = Keeper(room=3)

    refusals = keep_what_fits(
        keeper, [delivery(1, "a", "b"), delivery(2, "c", "d"), delivery(3), delivery(4, "e")]
    )

    assert refusals == ["", "full", "", ""]
    assert keeper.kept == ["a", "b", "e"]


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[Sink]:
    ini = {
        "control": {"pid_file": str(tmp_path / "pid")},
        "comm": {"target": "127.0.0.1", "port": "0"},
        "db": {"dialect": "sqlite", "file": str(tmp_path / "rows.db")},
        "security": {"curve": "off"},
    }
    sink = Sink(DatabaseProxySettings.of(Ini(ini)), 0)
    yield sink
    sink.close()


def test_a_delivery_is_acknowledged_after_it_was_kept_and_refused_if_it_was_not(
    sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper, node = Keeper(room=2), Peer("node", "life-1")
    come = [Heard(node, Role.CONTROLLER, each, []) for each in (delivery(1, "a", "b"), delivery(2, "c"))]
    said: list[tuple[Message, list[str]]] = []
    monkeypatch.setattr(sink._door, "receive", lambda _: come)
    monkeypatch.setattr(sink._door, "say", lambda _, message: said.append((message, [*keeper.kept])))

    sink._hear(keeper)

    assert said == [
        (Stored(1, 2), ["a", "b"]),
        (Refused("the sink has no room: full", 2), ["a", "b"]),
    ]


# Texts.


class Inbox:
    """What was pushed; and whether the loop waits for more of it."""

    sockets = ("texts", "door")

    def __init__(self, *texts: bytes) -> None:
        self.texts = list(texts)
        self.waited_for: set[str] = set()

    def receive(self, limit: int) -> list[bytes]:
        come, self.texts = self.texts[:limit], self.texts[limit:]
        return come

    def register(self, socket: str, _: object) -> None:
        self.waited_for.add(socket)

    def unregister(self, socket: str) -> None:
        self.waited_for.remove(socket)


@pytest.fixture
def inbox(monkeypatch):
    monkeypatch.setattr("cyclone.daemons.sink.TEXTS_MOST", 2)
    return Inbox(b"1", b"2", b"3")


def test_texts_are_passed_on_as_they_come(inbox):
    keeper = Keeper(room=9)
    intake = TextIntake(inbox, inbox)

    intake.pass_on(keeper, 0.0)
    intake.pass_on(keeper, 0.0)
    intake.pass_on(keeper, 0.0)

    assert keeper.kept == ["1", "2", "3"]


def test_while_texts_cannot_be_kept_no_more_are_read(inbox, caplog):
    keeper = Keeper(room=1)
    intake = TextIntake(inbox, inbox)

    intake.pass_on(keeper, 0.0)
    intake.pass_on(keeper, 0.0)

    assert (keeper.kept, inbox.texts, inbox.waited_for) == ([], [b"3"], {"door"})
    assert caplog.text.count("wait until they can be kept") == 1


def test_texts_that_could_not_be_kept_come_first_when_there_is_room(inbox):
    keeper = Keeper(room=1)
    intake = TextIntake(inbox, inbox)
    intake.pass_on(keeper, 0.0)
    keeper.room = 9

    intake.pass_on(keeper, AGAIN_S - 0.1)
    assert keeper.kept == []
    intake.pass_on(keeper, AGAIN_S)
    intake.pass_on(keeper, AGAIN_S)

    assert (keeper.kept, inbox.waited_for) == (["1", "2", "3"], {"texts", "door"})


def test_texts_that_are_too_much_for_once_are_kept_one_part_after_the_other(monkeypatch):
    monkeypatch.setattr("cyclone.daemons.sink.TEXT_BYTES_MOST", 3)
    inbox, keeper = Inbox(b"1", b"22", b"333", b"4444", b"5", b"6"), Keeper(room=4)
    inbox.waited_for.add("texts")
    intake = TextIntake(inbox, inbox)

    intake.pass_on(keeper, 0.0)

    assert keeper.kept == ["1", "22", "333", "4444"]
    assert (intake.held, inbox.waited_for) == ([b"5", b"6"], {"door"})
    keeper.room = 9
    intake.pass_on(keeper, AGAIN_S)
    assert keeper.kept[4:] == ["5", "6"]
    assert (intake.held, inbox.waited_for) == ([], {"texts", "door"})
