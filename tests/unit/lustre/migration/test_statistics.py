from __future__ import annotations

import pytest

from cyclone.lustre.migration.statistics import REASONS_MOST, Statistics
from cyclone.lustre.migration.verdict import FileState, Report

MB = 1_000_000
SUCCESS = FileState.SUCCESS


def steady(seconds: int, files_per_s: int = 2, size: int = MB, source: int = 0) -> Statistics:
    """So many files a second from the moment 0 on."""
    statistics = Statistics(now=0)
    for second in range(seconds):
        for _ in range(files_per_s):
            statistics.on_final(source, Report(SUCCESS, "", size=size), now=second)
    return statistics


def test_results_are_counted_by_state_and_reason() -> None:
    statistics = Statistics(now=0)

    statistics.on_final(1, Report(SUCCESS, "", size=5), now=1)
    statistics.on_final(1, Report(FileState.SKIPPED, "striped", size=7), now=1)
    statistics.on_final(2, Report(FileState.SKIPPED, "striped", size=7), now=1)
    statistics.on_final(2, Report(FileState.FAILED, "EIO: what this file had to say", size=0), now=1)

    assert statistics.results == {
        (SUCCESS, ""): 1, (FileState.SKIPPED, "striped"): 2, (FileState.FAILED, "EIO"): 1,
    }  # fmt: skip
    assert statistics.count(FileState.SKIPPED) == 2
    assert (statistics.files, statistics.moved_bytes) == (4, 5)
    assert statistics.bytes[FileState.SKIPPED] == 14


def test_a_steady_speed_is_the_same_over_any_span() -> None:
    speed = steady(1200).speed(now=1200)

    for span in ("1min", "10min", "overall"):
        assert speed[span].files == pytest.approx(2, rel=0.1)
        assert speed[span].mb == pytest.approx(2, rel=0.1)


def test_the_short_spans_forget_and_the_whole_does_not() -> None:
    speed = steady(100).speed(now=700)

    assert (speed["1min"].files, speed["1min"].mb) == (0, 0)
    assert speed["10min"].files == pytest.approx(0, abs=0.02)
    assert speed["overall"].files == pytest.approx(200 / 700)


def test_a_moment_after_the_start_no_wild_number_is_told() -> None:
    statistics = Statistics(now=0)

    statistics.on_final(0, Report(SUCCESS, "", size=MB), now=0.001)

    assert statistics.speed(now=0.001)["1min"].files == 1


def test_what_was_not_moved_is_no_speed_of_bytes() -> None:
    statistics = Statistics(now=0)

    statistics.on_final(0, Report(FileState.SKIPPED, "dry-run", size=MB), now=0)

    assert statistics.speed(now=10)["overall"].mb == 0


def test_how_long_the_rest_takes_is_told_by_source_and_in_all() -> None:
    statistics = steady(600, source=3)

    assert statistics.eta_s(1000, now=600) == pytest.approx(500, rel=0.1)
    assert statistics.source_eta_s(3, 100, now=600) == pytest.approx(50, rel=0.1)
    assert statistics.source_eta_s(4, 100, now=600) is None
    assert statistics.eta_s(0, now=600) == 0


def test_before_anything_has_ended_nobody_knows_how_long_it_takes() -> None:
    assert Statistics(now=0).eta_s(10, now=100) is None


def test_reasons_without_number_do_not_fill_the_memory() -> None:
    statistics = Statistics(now=0)

    for number in range(2 * REASONS_MOST):
        statistics.on_final(0, Report(FileState.FAILED, f"reason {number}", size=0), now=0)

    assert len(statistics.results) == REASONS_MOST + 1
    assert statistics.results[FileState.FAILED, "other"] == REASONS_MOST


def test_a_file_that_is_on_its_source_still_was_not_moved() -> None:
    statistics = Statistics(0)

    statistics.on_final(3, Report(FileState.DISPLACED, "still-on-source", actual=3, size=MB), now=1)
    statistics.on_final(3, Report(FileState.DISPLACED, "elsewhere", actual=4, size=MB), now=1)

    assert statistics.moved_bytes == MB
    assert statistics.bytes == {FileState.DISPLACED: 2 * MB}
