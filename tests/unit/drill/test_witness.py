"""What the witness writes down, and that it does not get in the way of what it watches."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cyclone.base_task import Attempt, BaseTask
from cyclone.drill import clock
from cyclone.drill.notes import Began, Ended, Handed, Told, Woke
from cyclone.drill.witness import VARIABLE, Witness, Witnessed, WitnessedTask, mark, now
from cyclone.drill.work import PACE
from cyclone.ini import Ini
from cyclone.model.task import Retry
from cyclone.record import Record
from cyclone.task_generator import Result


class Row(Record, frozen=True):
    kind = "row"
    number: int


class Doubling(BaseTask):
    priority = 3
    retry = Retry(errors=4)

    def __init__(self, number: int, *, fails: bool = False) -> None:
        self.number, self.fails = number, fails
        self.tid = number

    def execute(self) -> int:
        self.record("database", Row, number=self.number)
        if self.fails:
            raise ValueError("it is broken")
        return self.number * 2 + self.attempt.number - 1


#: Hands in three tasks, and hears of two of them before it returns.
THREE = """
from cyclone import BaseTask, TaskGenerator

class Nothing(BaseTask):
    def execute(self):
        pass

class Three(TaskGenerator):
    heard = []

    def run(self):
        for number in range(3):
            task = Nothing()
            task.tid = number
            self.submit(task)
        for result in self.results(0):
            self.on_result(result)
            if len(self.heard) == 2:
                return

    def on_result(self, result):
        self.heard.append(result.tid)
"""


class FakeDesk:
    """Tells of every task that was handed in, in two goes."""

    stopping = False

    def __init__(self) -> None:
        self.tasks: list[BaseTask] = []

    def submit(self, task: BaseTask) -> str:
        self.tasks.append(task)
        return str(task.tid)

    def results(self, timeout_s: float | None) -> Iterator[Result]:
        count = 2 if timeout_s == 0 else len(self.tasks)
        for _ in range(min(count, len(self.tasks))):
            yield Result(str(self.tasks.pop(0).tid), "succeeded", "succeeded", 0, 5, "", 1, 0.1)

    def sleep(self, seconds: float) -> None:
        time.sleep(0)


class FakeRecorder:
    def __init__(self) -> None:
        self.recorded: list[tuple[str, dict[str, int]]] = []

    def record(self, sink: str, kind: type[Record], fields: dict[str, int], at: float | None = None) -> None:
        self.recorded.append((sink, fields))


@pytest.fixture
def witness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Witness:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    monkeypatch.setenv("CYCLONE_DAEMON", "north")
    return Witness(tmp_path)


def lent(task: BaseTask, recorder: FakeRecorder | None = None) -> BaseTask:
    """As a worker does before it executes a task."""
    task._attempt = Attempt("job", str(task.tid), 77, 1)
    task._recorder = recorder or FakeRecorder()  # type: ignore[assignment]
    return task


def test_an_envelope_is_treated_as_what_is_in_it() -> None:
    inner = Doubling(4)
    inner.exclusive = True
    inner.after = ("3",)

    envelope = WitnessedTask(inner)

    assert (envelope.tid, envelope.priority, envelope.exclusive) == ("4", 3, True)
    assert (envelope.after, envelope.retry) == (("3",), Retry(errors=4))


def test_an_execution_leaves_two_lines_and_is_otherwise_as_without_a_witness(witness: Witness) -> None:
    recorder = FakeRecorder()

    value = lent(WitnessedTask(Doubling(4)), recorder).execute()

    assert value == 8
    assert recorder.recorded == [("database", {"number": 4})]
    began, ended = witness.notes()
    assert isinstance(began, Began)
    assert (began.tid, began.token, began.node, began.pid, began.alone) == (
        "4",
        77,
        "north",
        os.getpid(),
        True,
    )
    assert isinstance(ended, Ended)
    assert (ended.tid, ended.token, ended.records, ended.ok, ended.mark) == (
        "4",
        77,
        {"database": 1},
        True,
        mark(8),
    )
    assert ended.at >= began.at


def test_a_task_that_is_executed_in_the_place_of_another_one_is_called_by_its_own_name(
    witness: Witness,
) -> None:
    task = lent(WitnessedTask(Doubling(4)))
    task._attempt = Attempt("job", "5", 77, 1)

    task.execute()

    assert {note.tid for note in witness.notes() if isinstance(note, Began | Ended)} == {"4"}


def test_a_line_for_which_there_is_no_room_is_not_passed_over(
    witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, line: write(file, line[:-3]))

    with pytest.raises(OSError, match="No space left"):
        witness.note(Woke(now(), "life"))


def test_a_task_that_raises_has_ended_as_well(witness: Witness) -> None:
    with pytest.raises(ValueError, match="it is broken"):
        lent(WitnessedTask(Doubling(4, fails=True))).execute()

    _, ended = witness.notes()
    assert isinstance(ended, Ended)
    assert not ended.ok


def test_two_at_a_time_of_an_exclusive_task_are_seen(witness: Witness) -> None:
    task = Doubling(4)
    task.exclusive = True
    # Another process that executes it; its end frees the task, however it comes about.
    code = "from cyclone.drill.witness import ours; ours().claim('4'); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        lent(WitnessedTask(task)).execute()
        other.kill()
    lent(WitnessedTask(task)).execute()

    assert [note.alone for note in witness.notes() if isinstance(note, Began)] == [False, True]


def test_a_generator_is_watched_to_the_end_of_its_last_task(witness: Witness) -> None:
    (witness.directory / "three_tasks.py").write_text(THREE)
    keys = {"module": "three_tasks", "class": "Three", "path": str(witness.directory), "spare": "on"}
    generator = Witnessed(Ini({"task_generator": keys}))
    desk = FakeDesk()
    generator._attach(desk)

    generator.run()

    handed = [note.tid for note in witness.notes() if isinstance(note, Handed)]
    told = [(note.tid, note.state, note.mark) for note in witness.notes() if isinstance(note, Told)]
    assert handed == ["0", "1", "2"]
    assert told == [(tid, "succeeded", mark(5)) for tid in handed]
    assert generator._inner.heard == handed  # type: ignore[attr-defined]


def drilled(witness: Witness, began: float) -> Witnessed:
    """The work of a drill that began at this moment."""
    file = witness.directory / "stream.conf"
    file.write_text(f"[drill]\nseed = 4\nbegan = {began}\ngateway = off\n")
    keys = {"module": "cyclone.drill.work", "class": "Stream", "config_file": str(file), "spare": "off"}
    generator = Witnessed(Ini({"task_generator": keys}))
    generator._attach(FakeDesk())
    return generator


def test_each_life_that_begins_when_it_is_calm_hands_in_what_was_handed_in_before(witness: Witness) -> None:
    began = now() - 1
    witness.calm()

    for _ in range(2):
        drilled(witness, began).run()

    notes = witness.notes()
    lives = [note.life for note in notes if isinstance(note, Woke)]
    by_life = {life: [n.tid for n in notes if isinstance(n, Handed) and n.life == life] for life in lives}
    first, second = by_life.values()
    assert len(lives) == 2
    assert len(first) >= PACE
    assert second == first


def test_a_generator_that_stops_when_it_is_told_to_has_lived_all_the_same(witness: Witness) -> None:
    """So nobody expects that it was told of what its former lives had handed in."""
    (witness.directory / "no_tasks.py").write_text(THREE.replace("range(3)", "range(0)"))
    keys = {"module": "no_tasks", "class": "Three", "path": str(witness.directory), "spare": "on"}
    generator = Witnessed(Ini({"task_generator": keys}))
    generator._attach(FakeDesk())

    generator.run()

    assert [type(note) for note in witness.notes()] == [Woke]


def test_a_value_whose_text_differs_from_place_to_place_is_not_compared() -> None:
    assert mark(object()) == mark(None) == ""
    assert mark("1") != mark(1)


def test_a_stepped_clock_changes_the_wall_clock_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "north.clock").write_bytes(b"\0" * 8)
    code = (
        "import struct, sys, time\n"
        "def look(): return time.time(), time.time_ns() * 1e-9, time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME)\n"
        "before = look()\n"
        f"open({str(tmp_path / 'north.clock')!r}, 'r+b').write(struct.pack('=d', -86400.0))\n"
        "print(*(round(b - a, -2) for a, b in zip(before, look())))"
    )
    environment = {
        **os.environ, VARIABLE: str(tmp_path), "CYCLONE_DAEMON": "north", "PYTHONPATH": clock.__path__[0],
    }  # fmt: skip

    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )

    assert ended.stdout.split() == ["-86400.0", "-86400.0", "0.0", "0.0"]
