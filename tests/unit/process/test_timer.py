"""A moment that is not missed while the host is suspended."""

import ctypes
import select
import time
from pathlib import Path

import pytest

from cyclone.clock import monotonic
from cyclone.process import timer as timer_module
from cyclone.process.timer import Timer


@pytest.fixture
def timer():
    made = Timer()
    yield made
    made.close()


def is_due(timer, within_s=0.0):
    return bool(select.select([timer], [], [], within_s)[0])


def told_by_kernel(timer):
    """proc(5), /proc/pid/fdinfo: `{"clockid": …, "settime flags": …, …}`."""
    lines = Path(f"/proc/self/fdinfo/{timer.fileno()}").read_text().splitlines()
    return dict(line.split(":", 1) for line in lines)


def test_it_is_due_at_its_moment_and_not_before(timer):
    moment = monotonic() + 0.05
    timer.set(moment)

    assert is_due(timer, 30)

    assert monotonic() >= moment - 1e-6


def test_the_kernel_counts_the_time_for_which_the_host_sleeps(timer):
    timer.set(monotonic() + 60)

    told = told_by_kernel(timer)

    assert int(told["clockid"]) == time.CLOCK_BOOTTIME
    # TFD_TIMER_ABSTIME: a moment, not so many seconds from now.
    assert int(told["settime flags"], 8) == 1


@pytest.mark.parametrize("moment", [-5.0, 0.0, 1e-10, 1.0])
def test_a_moment_that_is_over_is_due_at_once(timer, moment):
    timer.set(moment)

    assert is_due(timer, 30)


def test_without_a_moment_it_is_never_due(timer):
    assert not is_due(timer)

    timer.set(0.0)
    timer.set(None)

    assert not is_due(timer)


def test_a_moment_may_be_put_off(timer):
    timer.set(0.0)
    assert is_due(timer, 30)

    timer.set(monotonic() + 60)

    assert not is_due(timer)


class _Refusing:
    """A kernel that refuses this one call."""

    def __init__(self, call):
        self._call = call

    def __getattr__(self, name):
        if name != self._call:
            return getattr(ctypes.CDLL(None, use_errno=True), name)
        return lambda *_: ctypes.set_errno(24) or -1


@pytest.mark.parametrize("call", ["timerfd_create", "timerfd_settime"])
def test_what_the_kernel_refuses_is_told(monkeypatch, call):
    monkeypatch.setattr(timer_module, "_libc", _Refusing(call))

    with pytest.raises(OSError, match=call) as refused:
        Timer().set(1.0)

    assert refused.value.errno == 24
