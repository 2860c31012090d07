"""Who has a turn at a line. No test looks at a clock: what is waited for is that somebody gets a turn at all."""

from __future__ import annotations

import math
import select
import threading
from collections.abc import Iterator

import pytest

from cyclone.daemons import duty as duty_module
from cyclone.daemons.duty import Duty

DEADLINE_S = 20.0


class Bench:
    """A line at which nothing happens but that somebody is woken up. turns: who had one, oldest first."""

    def __init__(self) -> None:
        self.turns: list[str] = []
        self.goes_on = True
        self.trouble: BaseException | None = None
        self.ended: list[str] = []
        self.at_it = threading.Semaphore(0)
        self.busy = threading.Lock()
        self.duty = Duty(self.serve, lambda: self.ended.append(threading.current_thread().name))
        self._poll = select.epoll()
        self._poll.register(self.duty.wake_fd, select.EPOLLIN)

    def serve(self, timeout_s: float) -> bool:
        assert self.busy.acquire(blocking=False), "two at a time"
        try:
            self.turns.append(threading.current_thread().name)
            self.at_it.release()
            if self.trouble is not None and threading.current_thread().name == CALLER:
                raise self.trouble
            if self._poll.poll(timeout_s):
                self.duty.heed_waking()
            return self.goes_on
        finally:
            self.busy.release()

    def close(self) -> None:
        self.goes_on = False
        self.duty.close()
        self._poll.close()

    def forget(self) -> None:
        while self.at_it.acquire(blocking=False):
            pass
        self.turns.clear()


CALLER = threading.current_thread().name


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    bench.duty.start()
    yield bench
    if not bench.ended:
        bench.close()


def test_as_long_as_the_caller_does_not_wait_the_deputy_attends(bench: Bench) -> None:
    for _ in range(3):
        assert bench.at_it.acquire(timeout=DEADLINE_S)

    assert set(bench.turns) == {"line"}
    assert not bench.duty.is_callers


def test_a_caller_who_waits_has_the_turn_himself_and_is_taken_to_be_around_after_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duty_module, "AROUND_S", 1000.0)
    assert bench.at_it.acquire(timeout=DEADLINE_S)

    bench.duty.take(0.0)
    bench.forget()
    for _ in range(5):
        bench.duty.take(0.01)

    assert bench.turns == [CALLER] * 5
    assert bench.duty.is_callers


def test_what_is_handed_over_is_the_deputys_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duty_module, "AROUND_S", 1000.0)
    bench.duty.take(0.0)
    bench.forget()

    bench.duty.hand_over()

    assert bench.at_it.acquire(timeout=DEADLINE_S)
    assert bench.turns[0] == "line"
    assert not bench.duty.is_callers


def test_a_caller_who_does_not_come_back_is_stood_in_for(bench: Bench) -> None:
    bench.duty.take(0.0)
    bench.forget()

    assert bench.at_it.acquire(timeout=DEADLINE_S)

    assert bench.turns[0] == "line"


def test_the_deputy_sleeps_while_the_caller_has_a_long_turn_and_is_there_again_after_it(bench: Bench) -> None:
    for _ in range(20):
        bench.duty.take(0.04)  # the deputy looks in the midst of it
        bench.forget()
        assert bench.at_it.acquire(timeout=DEADLINE_S)


def test_a_turn_takes_no_longer_than_the_caller_wants_nor_than_a_turn_takes(bench: Bench) -> None:
    seen: list[float] = []
    bench.close()
    duty = Duty(lambda timeout_s: bool(seen.append(timeout_s)) or True, lambda: None)

    for timeout_s in (0.0, 0.01, 3600.0):
        duty.take(timeout_s)
    duty.close()

    assert seen == [0.0, 0.01, duty_module.TURN_S]


def test_what_is_raised_in_the_callers_turn_reaches_him_and_the_deputy_goes_on(bench: Bench) -> None:
    bench.duty.take(0.0)
    bench.trouble = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        bench.duty.take(1.0)
    bench.trouble = None
    bench.forget()

    assert bench.duty._caller_until < math.inf
    assert bench.at_it.acquire(timeout=DEADLINE_S)
    assert bench.turns[0] == "line"


@pytest.mark.parametrize("caller_is_around", [True, False])
def test_after_the_last_turn_the_deputy_ends_it_once_and_nobody_has_another(
    bench: Bench, caller_is_around: bool
) -> None:
    if caller_is_around:
        bench.duty.take(0.0)
    bench.close()
    turns = len(bench.turns)

    assert bench.ended == ["line"]
    bench.duty.wake()  # as a signal handler does that comes late
    assert len(bench.turns) == turns


def test_one_that_never_began_can_be_closed() -> None:
    duty = Duty(lambda _: True, lambda: None)

    duty.close()
