"""Claims about the client's end of the protocol, each with a master that answers as it is told."""

from __future__ import annotations

import contextlib
import pickle
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TypeVar

import pytest
import zmq

from cyclone.base_task import BaseTask
from cyclone.daemons import desk as desk_module
from cyclone.daemons.desk import Desk
from cyclone.errors import MasterUnreachable, Refusal, RuleBroken
from cyclone.messages import (
    Accepted,
    Close,
    Leave,
    Message,
    Open,
    Opened,
    Refused,
    Results,
    Submit,
    TaskEnd,
)
from cyclone.model.lifecycle import State
from cyclone.model.task import Policy
from cyclone.wire.door import Door
from cyclone.wire.line import Line

DEADLINE_S = 20.0
BEAT_S = 0.02
OVERDUE_S = 0.1

JOB = 7

Found = TypeVar("Found")


def until(question: Callable[[], Found], what: str = "it") -> Found:
    deadline = time.monotonic() + DEADLINE_S
    while not (answer := question()):
        assert time.monotonic() < deadline, f"{what} did not come about"
        time.sleep(0.005)
    return answer


class Task(BaseTask):
    def __init__(self, tid: str, *after: str) -> None:
        self.tid, self.after = tid, after

    def execute(self) -> None:
        raise AssertionError("nobody executes anything here")


class Nameless(BaseTask):
    def execute(self) -> None:
        raise AssertionError("nobody executes anything here")


class Master:
    """Hears one client and gives it the usual answers, or those of `answer` where that has one."""

    def __init__(self, answer: Callable[[Message], list[Message] | None] = lambda _: None) -> None:
        self.answer = answer
        self.heard: list[Message] = []
        self.epoch, self.serial, self.window = 1, 0, 1000
        self.reads = True
        self._says: list[tuple[Message, list[bytes] | None]] = []
        self._stopping = False
        self._door = Door(None, None)
        self.port = self._door.bind("tcp://127.0.0.1:0")
        self._begin()

    def submitted(self) -> list[list[str]]:
        """The tids of each `Submit` that had any."""
        submits = [message for message in list(self.heard) if isinstance(message, Submit) and message.tasks]
        return [[task.tid for task in message.tasks] for message in submits]

    def tids(self) -> list[str]:
        """The same, of all of them."""
        return [tid for tids in self.submitted() for tid in tids]

    def heard_kinds(self) -> list[type[Message]]:
        return [type(message) for message in list(self.heard) if not isinstance(message, Open)]

    def say(self, message: Message, enclosure: list[bytes] | None = None) -> None:
        self._says.append((message, enclosure))

    def tell(self, *tids: str, value: object = None) -> None:
        """These have succeeded."""
        self.serial += 1
        ends = [TaskEnd(tid, State.SUCCEEDED, 1) for tid in tids]
        self.say(Results(JOB, self.serial, ends), [pickle.dumps(value)] * len(tids))

    def reconnect(self) -> None:
        """Cut all connections, and listen again."""
        self.close()
        self.reopen()

    def reopen(self) -> None:
        self._door = Door(None, None)
        self._door.bind(f"tcp://127.0.0.1:{self.port}")
        self._begin()

    def close(self) -> None:
        self._stopping = True
        self._thread.join()
        self._door.close()

    def _begin(self) -> None:
        self._stopping = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stopping:
            zmq.select(list(self._door.sockets), [], [], 0.01)
            if not self.reads:
                continue
            for heard in self._door.receive():
                self.heard.append(heard.message)
                answers = self.answer(heard.message)
                for message in self._usual(heard.message) if answers is None else answers:
                    self._door.say(heard.peer, message)
                while self._says:
                    self._door.say(heard.peer, *self._says.pop(0))

    def _usual(self, message: Message) -> list[Message]:
        match message:
            case Open(name):
                return [Opened(name, JOB, self.epoch, self.serial, self.window)]
            case Submit(request) | Close(request):
                return [Accepted([request])]
        raise AssertionError(message)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "BEAT_S", BEAT_S)
    monkeypatch.setattr(desk_module, "OVERDUE_S", OVERDUE_S)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def master(stack: ExitStack) -> Master:
    master = Master()
    stack.callback(lambda: master.close())
    return master


@pytest.fixture
def desk(master: Master, stack: ExitStack) -> Desk:
    """An open one."""
    desk = Desk(Line(f"tcp://127.0.0.1:{master.port}", None, None, life="life-1"), "nightly")
    stack.callback(hang_up, desk)
    desk.open(DEADLINE_S)
    return desk


def test_a_job_is_opened_with_the_time_for_which_its_tasks_are_to_be_remembered(
    master: Master, stack: ExitStack
) -> None:
    line = Line(f"tcp://127.0.0.1:{master.port}", None, None, life="life-1")
    desk = Desk(line, "rounds", 3600.0)
    stack.callback(hang_up, desk)

    desk.open(DEADLINE_S)

    assert Open("rounds", 0, 3600.0) in master.heard


@pytest.fixture
def caller(desk: Desk, stack: ExitStack) -> ThreadPoolExecutor:
    """Calls the desk while the test looks on."""
    caller = stack.enter_context(ThreadPoolExecutor(1))
    stack.callback(desk.stop)
    return caller


def hang_up(desk: Desk) -> None:
    """Nothing happens if it was closed."""
    if not desk._closed:
        desk.abandon()


def close(desk: Desk, caller: ThreadPoolExecutor) -> None:
    caller.submit(desk.close).result(DEADLINE_S)


def let_overdue_pass() -> None:
    moment = time.monotonic() + 5 * OVERDUE_S
    until(lambda: time.monotonic() > moment)


# Handing in and taking out.


def test_a_task_without_a_tid_gets_one_of_its_own(desk: Desk, master: Master) -> None:
    tids = [desk.submit(Nameless()) for _ in range(3)]

    until(lambda: master.tids() == tids)
    assert len(set(tids)) == 3


def test_what_is_no_task_is_refused_at_once(desk: Desk) -> None:
    with pytest.raises(TypeError, match="a str was handed in"):
        desk.submit("echo")  # type: ignore[arg-type]


def test_a_task_that_is_too_large_is_refused_at_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "VALUE_BYTES_MAX", 10)

    with pytest.raises(RuleBroken, match="10 are allowed"):
        desk.submit(Task("large"))


def test_a_tid_that_is_open_is_handed_in_once(desk: Desk, master: Master) -> None:
    for tid in ("a", "a", "b"):
        desk.submit(Task(tid))

    until(lambda: master.tids() == ["a", "b"])


def test_each_end_is_yielded_once_with_its_value(desk: Desk, master: Master) -> None:
    desk.submit(Task("a"))
    master.tell("a", value=5)
    master.tell("a", value=5)

    results = list(desk.results(None))

    assert [(result.tid, result.value, result.ok) for result in results] == [("a", 5, True)]


def test_results_end_at_once_when_nothing_is_open(desk: Desk) -> None:
    assert list(desk.results(None)) == []


@pytest.mark.parametrize("timeout_s", [0, 0.3])
def test_results_end_when_nothing_came_for_so_long(
    desk: Desk, caller: ThreadPoolExecutor, timeout_s: float
) -> None:
    """Although the master is heard much more often."""
    desk.submit(Task("a"))

    assert caller.submit(lambda: list(desk.results(timeout_s))).result(DEADLINE_S) == []


def test_a_full_window_keeps_the_caller_waiting(
    desk: Desk, master: Master, caller: ThreadPoolExecutor
) -> None:
    master.window = 2
    until(lambda: desk.window == 2)
    for tid in ("a", "b"):
        desk.submit(Task(tid))

    third = caller.submit(desk.submit, Task("c"))
    until(lambda: master.tids() == ["a", "b"])
    assert not third.done()
    master.tell("a")

    assert third.result(DEADLINE_S) == "c"


def test_what_there_is_no_room_for_is_handed_in_again(desk: Desk, master: Master) -> None:
    refusals = iter(["no room", "no room"])
    master.answer = lambda message: (
        [Refused(why, message.request, later=True)]
        if isinstance(message, Submit) and (why := next(refusals, None))
        else None
    )

    desk.submit(Task("a"))
    until(lambda: len(master.submitted()) >= 3)
    master.tell("a")

    assert [result.tid for result in desk.results(None)] == ["a"]


def test_what_tasks_come_after_counts_for_how_many_are_handed_in_at_once(
    desk: Desk, master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk_module, "SUBMIT_BYTES", 4000)
    long_before = [f"{number:0100}" for number in range(30)]
    with desk._duty._turn:  # so that all of them wait to be sent
        for number in range(4):
            desk._open[str(number)] = desk_module._Open(Policy(), tuple(long_before), b"")
            desk._unsent.append(str(number))
        sizes = [len(desk._next_batch()[0]) for _ in range(2)]
        desk._open.clear()

    assert sizes == [2, 2]


def test_no_more_is_handed_in_at_once_than_the_window_holds(desk: Desk, master: Master) -> None:
    for number in range(5):
        desk.submit(Task(str(number)))
    until(lambda: len(master.tids()) >= 5)
    master.window, master.epoch = 2, 2
    master.heard.clear()

    until(lambda: len(master.tids()) >= 5)

    assert max(map(len, master.submitted())) == 2


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_a_value_that_cannot_be_unpickled_is_an_error_of_that_result(
    desk: Desk, master: Master, error: type[BaseException]
) -> None:
    desk.submit(Task("a"))
    master.say(Results(JOB, 1, [TaskEnd("a", State.SUCCEEDED, 1)]), [pickle.dumps(Trap(error))])

    (result,) = desk.results(None)

    assert result.value is None
    assert f"{error.__name__}: not here" in result.error


class Trap:
    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __reduce__(self) -> tuple[object, ...]:
        return spring, (self.error,)


def spring(error: type[BaseException]) -> None:
    raise error("not here")


def test_being_told_to_leave_ends_everything(desk: Desk, master: Master) -> None:
    desk.submit(Task("a"))
    master.say(Leave("enough"))

    assert list(desk.results(None)) == []
    assert desk.stopping


# What is handed in again.


def test_a_silent_master_is_not_told_everything_again(
    desk: Desk, master: Master, caller: ThreadPoolExecutor
) -> None:
    master.reads = False
    for number in range(100):
        desk.submit(Task(f"{number}"))
    let_overdue_pass()

    master.reads = True
    close(desk, caller)

    assert len(master.tids()) == 100


def test_a_job_is_closed_after_all_of_it_was_accepted(
    desk: Desk, master: Master, caller: ThreadPoolExecutor
) -> None:
    master.reads = False
    desk.submit(Task("a"))
    closing = caller.submit(desk.close)
    let_overdue_pass()

    master.reads = True
    closing.result(DEADLINE_S)

    first_close = master.heard_kinds().index(Close)
    assert set(master.heard_kinds()[first_close:]) == {Close}
    assert Submit in master.heard_kinds()[:first_close]


def test_what_was_not_answered_is_handed_in_again_over_a_new_connection(desk: Desk, master: Master) -> None:
    desk.submit(Task("accepted"))
    until(lambda: not desk._asked and master.submitted())
    master.answer = lambda message: [] if isinstance(message, Submit) else None
    for tid in ("a", "b"):
        desk.submit(Task(tid))
        until(lambda tid=tid: [tid] in master.submitted())  # type: ignore[misc]

    master.answer = lambda _: None
    master.reconnect()

    until(lambda: master.tids() == ["accepted", "a", "b", "a", "b"])
    until(lambda: not desk._asked)


def test_what_was_passed_over_by_a_later_answer_is_handed_in_again(desk: Desk, master: Master) -> None:
    master.answer = lambda message: [] if isinstance(message, Submit) and message.request == 1 else None
    desk.submit(Task("a"))
    until(lambda: master.submitted() == [["a"]])

    desk.submit(Task("b"))

    until(lambda: master.submitted() == [["a"], ["b"], ["a"]])
    until(lambda: not desk._asked)


def test_a_lost_answer_comes_to_light_although_nothing_else_is_handed_in(desk: Desk, master: Master) -> None:
    master.answer = lambda message: [] if isinstance(message, Submit) and message.request == 1 else None

    desk.submit(Task("a"))

    until(lambda: master.submitted() == [["a"], ["a"]])
    until(lambda: not desk._asked)


@pytest.mark.parametrize("changed", ["epoch", "serial"])
def test_all_that_is_open_is_handed_in_again_when_something_was_missed(
    desk: Desk, master: Master, changed: str
) -> None:
    desk.submit(Task("a"))
    until(lambda: not desk._asked and master.submitted())

    setattr(master, changed, getattr(master, changed) + 1)

    until(lambda: master.submitted() == [["a"], ["a"]])


# Refusals.


def refuse(tid: str) -> Callable[[Message], list[Message] | None]:
    def answer(message: Message) -> list[Message] | None:
        if isinstance(message, Submit) and tid in [task.tid for task in message.tasks]:
            return [Refused("no such predecessor", message.request)]
        return None

    return answer


def test_a_refusal_is_raised_where_the_next_task_is_handed_in(desk: Desk, master: Master) -> None:
    master.answer = refuse("a")
    desk.submit(Task("a"))
    until(lambda: desk._trouble)

    with pytest.raises(Refusal, match=r"no such predecessor \(task 'a' and 0 more\)"):
        desk.submit(Task("b"))


@pytest.mark.parametrize("timeout_s", [None, 0, 1])
def test_a_refusal_is_raised_where_results_are_taken(
    desk: Desk, master: Master, timeout_s: float | None
) -> None:
    master.answer = refuse("a")
    desk.submit(Task("a"))
    until(lambda: desk._trouble)

    with pytest.raises(Refusal, match="no such predecessor"):
        list(desk.results(timeout_s))


def test_a_refusal_is_raised_where_the_job_is_closed(
    desk: Desk, master: Master, caller: ThreadPoolExecutor
) -> None:
    master.answer = refuse("a")
    desk.submit(Task("a"))

    with pytest.raises(Refusal, match="no such predecessor"):
        close(desk, caller)


def test_a_refusal_waits_for_the_answers_to_what_was_asked_before(
    desk: Desk, master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A master says it sooner than what it has accepted."""
    monkeypatch.setattr(desk_module, "OVERDUE_S", DEADLINE_S)
    master.answer = lambda message: [] if isinstance(message, Submit) else None
    desk.submit(Task("good"))
    until(lambda: master.submitted())
    master.answer = refuse("bad")
    desk.submit(Task("bad"))
    until(lambda: 2 in desk._asked and desk._asked[2].refusal)
    trouble_before = desk._trouble

    master.say(Accepted([1]))

    assert trouble_before is None
    until(lambda: isinstance(desk._trouble, Refusal))
    assert master.submitted() == [["good"], ["bad"]]


def test_what_was_refused_because_of_something_lost_is_handed_in_again(desk: Desk, master: Master) -> None:
    def answer(message: Message) -> list[Message] | None:
        if isinstance(message, Submit) and message.request == 1:
            return []
        if isinstance(message, Submit) and message.request == 2:
            return [Refused("comes after one that is not known", 2)]
        return None

    master.answer = answer
    desk.submit(Task("first"))
    until(lambda: master.submitted())

    desk.submit(Task("second", "first"))

    until(lambda: master.tids() == ["first", "second", "first", "second"])
    until(lambda: not desk._asked)
    assert desk._trouble is None


def test_a_refusal_of_what_was_handed_in_again_meanwhile_is_none(desk: Desk, master: Master) -> None:
    master.answer = lambda message: [] if isinstance(message, Submit) and message.request == 1 else None
    desk.submit(Task("a"))
    until(lambda: master.submitted() == [["a"], ["a"]])

    master.say(Refused("too late", 1))
    master.tell("a")

    assert [result.tid for result in desk.results(None)] == ["a"]


def test_a_closed_job_that_is_not_open_any_more_is_closed(
    desk: Desk, master: Master, caller: ThreadPoolExecutor
) -> None:
    """The answer that said so got lost."""

    def answer(message: Message) -> list[Message] | None:
        if isinstance(message, Close):
            return []
        if isinstance(message, Open) and Close in master.heard_kinds():
            return [Refused("job 7 is not open")]
        return None

    master.answer = answer

    close(desk, caller)


def test_an_open_job_that_is_not_open_any_more_is_trouble(desk: Desk, master: Master) -> None:
    master.answer = lambda message: [Refused("job 7 is not open")] if isinstance(message, Open) else None

    until(lambda: isinstance(desk._trouble, Refusal))


# The beginning and the end.


def test_a_job_is_closed_until_the_master_knows(
    desk: Desk, master: Master, caller: ThreadPoolExecutor
) -> None:
    def answer(message: Message) -> list[Message] | None:
        return [] if isinstance(message, Close) and master.heard_kinds().count(Close) < 3 else None

    master.answer = answer

    close(desk, caller)

    assert master.heard_kinds() == [Close, Close, Close]


def test_a_job_that_is_cut_short_stays_open(desk: Desk, master: Master, caller: ThreadPoolExecutor) -> None:
    desk.submit(Task("a"))
    until(lambda: not desk._asked and master.submitted())
    desk.stop()

    close(desk, caller)

    assert master.heard_kinds() == [Submit]


def let_be_refused(desk: Desk, master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes is hung up on, until the desk has begun anew or has given up."""
    begun: list[str | None] = []
    reconnect = desk._line.reconnect
    monkeypatch.setattr(
        desk._line, "reconnect", lambda: (begun.append(desk._line.refused_reason), reconnect())
    )
    master.close()
    with socket.create_server(("127.0.0.1", master.port)) as shut_door:
        shut_door.settimeout(0.05)
        while not begun and desk._trouble is None:
            with contextlib.suppress(TimeoutError):
                shut_door.accept()[0].close()


def test_whoever_was_let_in_once_comes_again_when_he_was_refused(
    desk: Desk, master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_be_refused(desk, master, monkeypatch)
    master.reopen()

    desk.submit(Task("a"))

    until(lambda: master.tids() == ["a"])


def test_whoever_was_never_let_in_comes_again_for_a_while(
    master: Master, monkeypatch: pytest.MonkeyPatch, stack: ExitStack
) -> None:
    master.close()
    desk = Desk(Line(f"tcp://127.0.0.1:{master.port}", None, None, life="life-1"), "nightly")
    stack.callback(desk.abandon)
    opening = stack.enter_context(ThreadPoolExecutor()).submit(desk.open, DEADLINE_S)
    let_be_refused(desk, master, monkeypatch)
    master.reopen()

    opening.result(DEADLINE_S)

    assert desk.submit(Task("a")) == "a"


def test_whoever_is_refused_for_too_long_gives_up(
    desk: Desk, master: Master, monkeypatch: pytest.MonkeyPatch, stack: ExitStack
) -> None:
    stack.callback(master.reopen)  # for its end
    monkeypatch.setattr(desk_module, "REFUSED_S", 0.0)
    let_be_refused(desk, master, monkeypatch)
    until(lambda: desk._trouble)

    with pytest.raises(MasterUnreachable, match="does not speak without keys as this side does"):
        desk.submit(Task("a"))


def test_a_master_that_says_nothing_is_unreachable(master: Master, stack: ExitStack) -> None:
    master.answer = lambda _: []
    desk = Desk(Line(f"tcp://127.0.0.1:{master.port}", None, None, life="life-1"), "nightly")
    stack.callback(desk.abandon)

    with pytest.raises(MasterUnreachable, match="no answer from the master"):
        desk.open(0.1)
