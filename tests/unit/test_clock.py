"""The clock by which everything is waited for."""

import runpy
import subprocess
import sys
import time

import pytest

from cyclone import clock

#: What each clock of the kernel says on a host that has slept for an hour.
HOURS = {time.CLOCK_MONOTONIC: 2, time.CLOCK_BOOTTIME: 3}


@pytest.fixture
def slept(monkeypatch):
    """`time` of a host that was on for two hours and suspended for one."""
    monkeypatch.setattr(time, "clock_gettime", lambda which: HOURS[which] * 3600.0)
    monkeypatch.setattr(time, "clock_gettime_ns", lambda which: HOURS[which] * 3600 * 10**9)


def test_the_time_for_which_the_host_slept_counts(slept):
    read = runpy.run_path(clock.__file__)

    assert (read["monotonic"](), read["monotonic_ns"]()) == (10800.0, 10800 * 10**9)


def test_where_no_clock_counts_it_there_is_another(slept, monkeypatch):
    monkeypatch.delattr(time, "CLOCK_BOOTTIME")

    assert runpy.run_path(clock.__file__)["monotonic"]() == 7200.0


def test_seconds_and_nanoseconds_are_of_the_same_clock():
    before, between, after = clock.monotonic_ns(), clock.monotonic(), clock.monotonic_ns()

    assert before - 1000 <= between * 1e9 <= after + 1000


def test_another_process_has_the_same_clock():
    code = "from cyclone.clock import monotonic; print(repr(monotonic()))"

    before = clock.monotonic()
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert before <= float(told) <= clock.monotonic()
