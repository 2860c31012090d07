import os
import signal
import socket
import time

import pytest
import zmq

from cyclone.loop import Loop, Selector


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def pair():
    left, right = socket.socketpair()
    yield left, right
    left.close()
    right.close()


def test_what_is_readable_is_called(loop, pair):
    left, right = pair
    heard = []
    loop.register(left, lambda: heard.append(left.recv(10)))
    right.send(b"hello")

    loop.wait(5)

    assert heard == [b"hello"]


def test_a_zmq_socket_is_waited_for_like_any_other(loop):
    with zmq.Context() as context, context.socket(zmq.PAIR) as left, context.socket(zmq.PAIR) as right:
        left.bind("inproc://loop")
        right.connect("inproc://loop")
        heard = []
        loop.register(left, lambda: heard.append(left.recv()))
        right.send(b"hello")

        loop.wait(5)

        assert heard == [b"hello"]
        loop.unregister(left)


def test_nothing_to_do_ends_with_the_time(loop, pair):
    loop.register(pair[0], lambda: pytest.fail("nothing was said"))
    before = time.monotonic()

    loop.wait(0.01)

    assert time.monotonic() - before >= 0.009


def test_the_end_of_the_other_side_is_readable(loop, pair):
    left, right = pair
    heard = []
    loop.register(left, lambda: heard.append(left.recv(10)))
    right.close()

    loop.wait(5)

    assert heard == [b""]


def test_room_to_write_is_called_only_where_it_is_waited_for(loop, pair):
    left, _ = pair
    written = []
    loop.register(left, lambda: None, lambda: written.append(1))
    loop.wait(5)

    loop.register(left, lambda: None)
    loop.wait(0)

    assert written == [1]


def test_what_is_unregistered_is_not_called(loop, pair):
    left, right = pair
    loop.register(left, lambda: pytest.fail("nobody listens"))
    right.send(b"hello")

    loop.unregister(left)
    loop.unregister(left)
    loop.wait(0)


def test_a_callback_may_unregister_another_that_is_ready(loop, pair):
    left, right = pair
    called = []

    def first_of(mine, other):
        def on_readable():
            called.append(mine)
            loop.unregister(other)

        return on_readable

    loop.register(left, first_of(left, right))
    loop.register(right, first_of(right, left))
    left.send(b"x")
    right.send(b"x")

    loop.wait(5)

    assert len(called) == 1


def test_a_callback_may_unregister_itself_before_it_would_write(loop, pair):
    left, right = pair
    loop.register(left, lambda: loop.unregister(left), lambda: pytest.fail("it was unregistered"))
    right.send(b"x")

    loop.wait(5)


def test_what_a_callback_raises_is_raised(loop, pair):
    left, right = pair

    def fail():
        raise ValueError("no luck")

    loop.register(left, fail)
    right.send(b"x")

    with pytest.raises(ValueError, match="no luck"):
        loop.wait(5)


def test_a_signal_is_called_from_the_loop_and_not_before(loop):
    called = []
    loop.on_signal(signal.SIGUSR1, lambda: called.append("usr1"))
    os.kill(os.getpid(), signal.SIGUSR1)
    assert called == []

    loop.wait(5)

    assert called == ["usr1"]


def test_each_signal_is_called_for(loop):
    called = []
    loop.on_signal(signal.SIGUSR1, lambda: called.append("usr1"))
    loop.on_signal(signal.SIGUSR2, lambda: called.append("usr2"))
    for signum in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1):
        os.kill(os.getpid(), signum)

    loop.wait(5)

    assert sorted(called) == ["usr1", "usr1", "usr2"]


def test_a_signal_ends_the_waiting(loop):
    loop.on_signal(signal.SIGALRM, lambda: None)
    before = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 0.02)

    loop.wait(30)

    assert time.monotonic() - before < 20


def test_closing_gives_the_signals_back():
    former = signal.getsignal(signal.SIGUSR1)
    loop = Loop()
    loop.on_signal(signal.SIGUSR1, lambda: None)
    loop.on_signal(signal.SIGUSR1, lambda: None)

    loop.close()

    assert signal.getsignal(signal.SIGUSR1) == former
    assert signal.set_wakeup_fd(-1) == -1


def test_a_pulse_beats_whether_or_not_anything_happens(loop, pair):
    left, right = pair
    loop.register(left, lambda: left.recv(10))
    beats = []
    loop.pulse(0.01, lambda: beats.append("beat"))

    while len(beats) < 3:
        loop.wait(60)
    right.send(b"hello")
    while len(beats) < 6:
        loop.wait()


def test_a_pulse_beats_while_only_signals_are_waited_for(loop):
    beats = []
    loop.pulse(0.01, lambda: beats.append("beat"))

    while len(beats) < 3:
        loop.wait_for_signals(60)


def test_a_pulse_does_not_beat_more_often_than_asked_for(loop):
    beats = []
    loop.pulse(3600, lambda: beats.append("beat"))

    for _ in range(5):
        loop.wait(0)

    assert beats == ["beat"]


class Polls:
    """Stands in for the descriptors of a loop: what each poll finds, and how long it may wait. Each look takes 0.1 ms."""

    def __init__(self, loop, monkeypatch):
        self.finds = []  # for each poll in turn; nothing after the last
        self.timeouts = []
        self.now = 100.0
        self._real = loop._epoll
        loop._epoll = self
        monkeypatch.setattr("cyclone.loop.monotonic", self._clock)

    def poll(self, timeout_s):
        self.timeouts.append(timeout_s)
        self.now += 0.0001 + (timeout_s or 0.0)
        return self.finds.pop(0) if self.finds else []

    def close(self):
        self._real.close()

    def _clock(self):
        return self.now


@pytest.fixture
def spinning(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    loop = Selector(spin_s=0.001)
    yield loop
    loop.close()


READY = [(999, 1)]  # somebody whom nobody waits for any more


def test_one_who_was_kept_waiting_goes_to_sleep_at_once(spinning, monkeypatch):
    polls = Polls(spinning, monkeypatch)

    spinning.wait(5.0)
    spinning.wait(5.0)

    assert [timeout > 0 for timeout in polls.timeouts] == [False, True] * 2


def test_when_the_last_thing_came_soon_the_next_one_is_looked_for_before_going_to_sleep(
    spinning, monkeypatch
):
    polls = Polls(spinning, monkeypatch)
    polls.finds = [READY]
    spinning.wait(5.0)
    polls.timeouts.clear()
    polls.finds = [[], [], READY]
    spinning.wait(5.0)
    assert polls.timeouts == [0, 0, 0]
    polls.timeouts.clear()

    spinning.wait(5.0)

    *looks, sleep = polls.timeouts
    assert looks == [0] * len(looks)
    assert len(looks) > 5
    assert 4.9 < sleep < 5.0
    polls.timeouts.clear()
    spinning.wait(5.0)
    assert len(polls.timeouts) == 2  # it did not come soon


def test_nobody_looks_for_longer_than_was_asked_for(spinning, monkeypatch):
    polls = Polls(spinning, monkeypatch)
    polls.finds = [READY]
    spinning.wait(5.0)
    began = polls.now

    spinning.wait(0.0003)

    assert polls.now - began < 0.0008


def test_without_bound_it_sleeps_without_bound(spinning, monkeypatch):
    polls = Polls(spinning, monkeypatch)
    polls.finds = [READY]
    spinning.wait(5.0)

    spinning.wait(None)

    assert polls.timeouts[-1] is None


def test_on_the_only_processor_nobody_looks(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3})
    loop = Selector(spin_s=0.001)
    polls = Polls(loop, monkeypatch)
    polls.finds = [READY]

    loop.wait(5.0)
    loop.wait(5.0)
    loop.close()

    assert polls.timeouts == [5.0, 5.0]
