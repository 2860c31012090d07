from __future__ import annotations

import math
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from migration_builders import AtOnce, a_mind, levels
from simulated_lustre import simulated_lustre

from cyclone.errors import CycloneError
from cyclone.lustre.lfs import Lfs, LfsTimedOut
from cyclone.lustre.migration.background import Chore
from cyclone.lustre.migration.fill import Level
from cyclone.lustre.migration.levels import Gauge, measure_lustre
from cyclone.lustre.migration.ost import OstState, Role

DF = """#!/bin/sh
cat <<END
UUID                   1K-blocks        Used   Available Use% Mounted on
lustre-MDT0000_UUID          100          50          50  50% /lustre[MDT:0]
lustre-OST0000_UUID         1100         333         667  34% /lustre[OST:0]
OST0001             : Input/output error
lustre-OST0002_UUID         1000        1000           0 100% /lustre[OST:2] S
END
exit 5
"""


def test_levels_are_reckoned_from_the_blocks_and_not_from_the_rounded_percents(tmp_path: Path) -> None:
    program = tmp_path / "lfs"
    program.write_text(DF)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)

    found = measure_lustre(Lfs(str(program)), "/lustre")()

    assert found == {0: Level(33.3, 1000, 667), 2: Level(100.0, 1000, 0, "out of space")}


@pytest.mark.parametrize(
    ("flags", "closed"),
    [
        ("", ""), ("D", ""), ("f", ""), ("R", "read-only"), ("N", "creates no objects"),
        ("DSR", "read-only, out of space"), ("I", "out of inodes"),
    ],
)  # fmt: skip
def test_the_letters_of_an_ost_tell_whether_anything_can_come_to_it(
    tmp_path: Path, flags: str, closed: str
) -> None:
    program = tmp_path / "lfs"
    row = f"lustre-OST0000_UUID         1000         500         500  50% /lustre[OST:0] {flags}"
    program.write_text(f"#!/bin/sh\necho '{row}'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)

    assert measure_lustre(Lfs(str(program)), "/lustre")()[0].closed == closed


def test_a_server_that_hangs_keeps_a_measurement_no_longer_than_it_was_given(tmp_path: Path) -> None:
    sim = simulated_lustre(tmp_path, settings={"down_block_s": 1000})
    sim.ost(1, state="hang")
    measure = measure_lustre(Lfs(str(sim.bin / "lfs"), timeout_s=1.0), str(sim.mount))

    with pytest.raises(LfsTimedOut):
        measure()


class Never:
    """A measurement that does not end."""

    def __init__(self) -> None:
        self.started = 0

    def start(self, call: Callable[[], Any]) -> Chore[Any]:
        self.started += 1

        class Waiting:
            def is_done(self) -> bool:
                return False

            def result(self) -> Any:
                raise AssertionError

        return Waiting()


def test_it_is_asked_for_at_regular_intervals() -> None:
    moments: list[float] = []
    mind, now = a_mind(), 0.0

    def measure() -> Mapping[int, Level]:
        moments.append(now)
        return levels()

    gauge = Gauge(measure, AtOnce(), 0)
    for moment in (0, 4, 9.9, 10, 14, 25, 30, 31):
        now = moment
        gauge.advance(mind, 10, moment)

    assert moments == [0, 10, 25, 30]
    assert gauge.count == 4
    assert gauge.due() == 40


def test_a_measurement_that_does_not_end_is_not_followed_by_another() -> None:
    never = Never()
    gauge = Gauge(dict, never, 0)

    for moment in range(0, 100, 10):
        assert not gauge.advance(a_mind(), 10, moment)

    assert never.started == 1
    assert gauge.due() == math.inf
    assert gauge.since == 0


def test_one_that_fails_changes_nothing_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    mind = a_mind(entries={0: 1})

    def measure() -> Mapping[int, Level]:
        raise CycloneError("it hangs")

    gauge = Gauge(measure, AtOnce(), 0)
    for moment in (0, 10, 20):
        assert not gauge.advance(mind, 10, moment)

    assert mind.state(0, Role.SOURCE) is OstState.READY
    assert caplog.text.count("it hangs") == 1
    assert gauge.count == 0
