"""What a controller keeps before it tells of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cyclone.core.decision import Decision
from cyclone.daemons.controller import Controller, KeptResults
from cyclone.errors import AlreadyRunning, ConfigError, StoreFull
from cyclone.ini import Ini
from cyclone.messages import Entry, Finished
from cyclone.model.task import End
from cyclone.private_cluster import free_ports
from cyclone.process.service_manager import ServiceManager
from cyclone.record import SINKS_VARIABLE
from cyclone.settings import ControllerSettings

ENTRY = Entry(bytes(16), "database", "reading", "job", "tid", 0.0, b"")


class Turn:
    """A controller without workers, and what it does with its spool and its mind, in order."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        # A controller says it to its workers; other tests of this process are not to hear it.
        monkeypatch.setenv(SINKS_VARIABLE, "")
        master, sink = free_ports(2)
        ini = {
            "control": {
                "pid_file": str(directory / "controller.pid"),
                "state_dir": str(directory / "state"),
            },
            "comm": {"target": "127.0.0.1", "port": str(master)},
            "sinks": {"database": f"127.0.0.1:{sink}"},
            "security": {"curve": "off"},
        }
        self.controller = Controller(ControllerSettings.of(Ini(ini)), "0" * 16, ServiceManager())
        self.done: list[str] = []
        self.has_room = True
        monkeypatch.setattr(self.controller._delivery, "keep", self._keep)
        monkeypatch.setattr(self.controller._crew, "ended", lambda slot: None)
        monkeypatch.setattr(
            self.controller, "_finished", lambda slot, message, values: self.done.append("hear")
        )

    def _keep(self, entries: list[Entry]) -> None:
        if not self.has_room:
            raise StoreFull("no room")
        self.done.append(f"keep {len(entries)}")


@pytest.fixture
def turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Turn]:
    turn = Turn(tmp_path, monkeypatch)
    yield turn
    turn.controller._delivery.close()
    turn.controller._nursery.close()
    turn.controller._line.close()
    turn.controller._kept.close()
    turn.controller._loop.close()


def test_an_end_is_heard_of_when_what_it_has_recorded_is_on_disk(turn: Turn) -> None:
    turn.controller._on_finished(0, Finished([End(1)], [ENTRY]), [b""])
    turn.controller._on_finished(1, Finished([End(2)], []), [b""])
    turn.controller._keep_records()

    assert turn.done == ["keep 1", "hear", "hear"]


def test_while_the_disk_has_no_room_what_was_recorded_has_not_ended(turn: Turn) -> None:
    turn.has_room = False

    turn.controller._on_finished(0, Finished([End(1)], [ENTRY]), [b""])
    turn.controller._keep_records()

    assert turn.done == []


def test_what_a_worker_was_not_given_is_not_believed(turn: Turn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    done: list[str] = []
    monkeypatch.setattr(turn.controller._crew, "may_tell", lambda *_: False)
    monkeypatch.setattr(turn.controller._crew, "finished", lambda *_: done.append("hear") or Decision())
    monkeypatch.setattr(turn.controller, "_distrust", lambda *_: done.append("distrust"))

    turn.controller._on_finished(0, Finished([End(1)], []), [b""])

    assert done == ["distrust"]


def test_results_that_nobody_took_are_there_for_the_next_life(tmp_path: Path) -> None:
    with closing(KeptResults(tmp_path)) as former:
        former.keep([End(7), End(8)], {7: b"value"})

    with closing(KeptResults(tmp_path)) as kept:
        assert kept.ends() == [End(7), End(8)]
        assert kept.values() == {7: b"value"}


def test_a_second_controller_gets_no_state_directory_of_another(tmp_path: Path) -> None:
    with closing(KeptResults(tmp_path)), pytest.raises(AlreadyRunning, match=str(tmp_path)) as refused:
        KeptResults(tmp_path)

    assert refused.value.owner.startswith(f"{os.getpid()};")


def test_results_are_not_read_where_everybody_can_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)

    with pytest.raises(ConfigError, match="found mode 0777: everybody can write to it; run: chmod o-w "):
        KeptResults(tmp_path)


@pytest.mark.parametrize(("before", "written"), [(b"", b"\xffuck"), (b"\xc1", b"luck")])
def test_results_that_cannot_be_read_are_set_aside_and_given_up(
    tmp_path: Path, before: bytes, written: bytes
) -> None:
    with closing(KeptResults(tmp_path)) as former:
        former.keep([End(7, error="no luck")], {})
    file = tmp_path / "undelivered"
    damaged = before + file.read_bytes().replace(b"luck", written)
    file.write_bytes(damaged)

    with closing(KeptResults(tmp_path)) as kept:
        assert kept.ends() == []
    assert (tmp_path / "undelivered.damaged").read_bytes() == damaged
