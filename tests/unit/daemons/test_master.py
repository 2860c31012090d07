"""The order of things in a turn of a master: what was decided is on disk before anybody hears of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cyclone.core.decision import Decision
from cyclone.daemons.master import Master
from cyclone.errors import StoreError, StoreFull
from cyclone.ini import Ini
from cyclone.messages import Accepted, Refused
from cyclone.model.changes import JobOpened
from cyclone.model.peer import Peer
from cyclone.process.service_manager import ServiceManager
from cyclone.settings import MasterSettings

CLIENT = Peer("client", "life-1")


class Turn:
    """A master, and what it does with its store and its door, in order."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        ini = {
            "control": {"pid_file": str(directory / "master.pid")},
            "comm": {"target": "127.0.0.1", "port": "0"},
            "store": {"path": str(directory / "store")},
            "security": {"curve": "off"},
        }
        self.master = Master(MasterSettings.of(Ini(ini)), None, ServiceManager())
        self.done: list[str] = []
        self.failures: list[StoreError] = []
        self.sync_failures: list[StoreError] = []
        monkeypatch.setattr(self.master._store, "remember", self._remember)
        monkeypatch.setattr(self.master._store, "sync", self._sync)
        monkeypatch.setattr(
            self.master._door,
            "say",
            lambda peer, message, *_: self.done.append(
                f"say {message.requests if isinstance(message, Accepted) else message.reason}"
            ),
        )
        monkeypatch.setattr(self.master._loop, "wait_for_signals", lambda _: self.done.append("wait"))

    def obey(self) -> None:
        decision = Decision(changes=[JobOpened(1, "job")])
        decision.say(CLIENT, Refused("no"))
        decision.say(CLIENT, Refused("perhaps"), binding=False)
        self.master._obey([decision])

    def _remember(self, *_: object) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.done.append("remember")

    def _sync(self) -> None:
        if self.sync_failures:
            raise self.sync_failures.pop(0)
        self.done.append("sync")


@pytest.fixture
def turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Turn]:
    turn = Turn(tmp_path, monkeypatch)
    yield turn
    turn.master._door.close()
    turn.master._store.close()
    turn.master._loop.close()


def test_what_was_decided_is_remembered_before_anything_is_said(turn: Turn) -> None:
    turn.obey()

    assert turn.done[0] == "remember"


def test_what_promises_something_is_said_when_it_is_on_disk_and_the_rest_before(turn: Turn) -> None:
    turn.obey()

    assert turn.done == ["remember", "say perhaps", "sync", "say no"]


def test_what_nobody_waits_for_is_synced_and_said_a_little_later(turn: Turn) -> None:
    decision = Decision(changes=[JobOpened(1, "job")])
    decision.say(CLIENT, Accepted([1]))
    decision.say(CLIENT, Refused("perhaps"), binding=False)

    turn.master._obey([decision])

    assert turn.done == ["remember", "say perhaps"]
    assert turn.master._put_off.moment is not None
    turn.master._promise(turn.master._put_off.take())
    assert turn.done == ["remember", "say perhaps", "sync", "say [1]"]


def test_what_cannot_be_synced_is_promised_to_nobody(turn: Turn) -> None:
    turn.sync_failures = [StoreError("cannot be synced")]

    with pytest.raises(StoreError, match="cannot be synced"):
        turn.obey()

    assert turn.done == ["remember", "say perhaps"]


def test_while_the_disk_is_full_nothing_is_said_and_then_everything(turn: Turn) -> None:
    turn.failures = [StoreFull("no room"), StoreFull("no room")]

    turn.obey()

    assert turn.done == ["wait", "wait", "remember", "say perhaps", "sync", "say no"]


def test_that_the_store_is_larger_than_it_should_be_is_told_once_and_that_it_is_not_any_more(
    turn: Turn, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    sizes = iter([False, True, True, False])
    monkeypatch.setattr(type(turn.master._store), "is_full", property(lambda _: next(sizes)))

    reasons = [bool(turn.master._why_full()) for _ in range(4)]

    assert reasons == [False, True, True, False]
    told = [record.getMessage() for record in caplog.records if "new tasks are taken" in record.getMessage()]
    assert len(told) == 2
    assert "is larger than [store] max_bytes: no new tasks are taken" in told[0]
    assert "has room again" in told[1]


def test_a_disk_that_fails_ends_the_master_and_nothing_is_said(turn: Turn) -> None:
    turn.failures = [StoreError("disk I/O error")]

    with pytest.raises(StoreError, match="disk I/O error"):
        turn.obey()

    assert turn.done == []
