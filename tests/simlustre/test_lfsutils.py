"""The library of this trade runs against the simulation, and reads it rightly. Where it is known to be wrong,
the test
shows it: such a test fails on the day on which the library is mended, and an override can go."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from lfsutils.lib import LfsUtils, LfsUtilsError
from simulated_lustre import SimulatedLustre, simulated_lustre


@pytest.fixture
def sim(tmp_path: Path) -> SimulatedLustre:
    return simulated_lustre(tmp_path)


@pytest.fixture
def lfsutils(sim: SimulatedLustre, monkeypatch: pytest.MonkeyPatch) -> LfsUtils:
    monkeypatch.setenv("PATH", str(sim.bin), prepend=":")  # it calls `sudo` by its bare name
    return LfsUtils(lfs=str(sim.bin / "lfs"), lctl=str(sim.bin / "lctl"))


# Where it is right.


def test_it_finds_every_active_ost(lfsutils: LfsUtils) -> None:
    states = lfsutils.retrieve_component_states()

    assert list(states) == ["lustre"]
    assert {index: ost.active for index, ost in states["lustre"].osts.items()} == dict.fromkeys(
        range(6), True
    )


def test_it_reads_the_fill_levels(sim: SimulatedLustre, lfsutils: LfsUtils) -> None:
    sim.simctl("fill", "3", "91%")
    sim.simctl("fill", "4", "100")

    levels = lfsutils.retrieve_ost_disk_usage(str(sim.mount))

    assert sorted(levels) == [0, 1, 2, 3, 4, 5]
    assert (levels[3], levels[4]) == (91, 100)


def test_it_finds_the_servers_of_the_osts(lfsutils: LfsUtils) -> None:
    assert lfsutils.ost_conn_uuid("lustre", 4) == "10.0.0.2"
    assert lfsutils.ost_conn_uuid_map("lustre") == {ost: f"10.0.0.{ost % 3 + 1}" for ost in range(6)}


def test_it_places_a_file_and_reads_its_place(sim: SimulatedLustre, lfsutils: LfsUtils) -> None:
    path = str(sim.mount / "f")

    lfsutils.set_ost_file_stripe(path, 4)

    found = lfsutils.stripe_info(path)
    assert (found.count, found.index) == (1, 4)
    assert lfsutils.is_ost_writable(2, str(sim.mount / "probe"))


@pytest.mark.parametrize("block", [True, False])
def test_it_migrates_a_file(block: bool, sim: SimulatedLustre, lfsutils: LfsUtils) -> None:
    path = sim.file("f", 100, "-i", "1")

    result = str(lfsutils.migrate_file(str(path), 1, 4, block=block))

    assert result.startswith(f"SUCCESS|{path}|0:00:0")
    assert result.endswith("|1|4")
    assert sim.osts_of(path) == [4]


def test_it_skips_ignores_and_tells_of_a_displaced_file(sim: SimulatedLustre, lfsutils: LfsUtils) -> None:
    striped = sim.file("striped", 100, "-i", "1", "-c", "2")
    elsewhere = sim.file("elsewhere", 100, "-i", "2")
    displaced = sim.file("displaced", 100, "-i", "1")
    sim.ost(4, state="nocreate")

    assert str(lfsutils.migrate_file(str(striped), 1, 4)) == f"SKIPPED|{striped}"
    assert str(lfsutils.migrate_file(str(elsewhere), 1, 4)) == f"IGNORED|{elsewhere}"
    result = str(lfsutils.migrate_file(str(displaced), 1, 4))
    assert result.startswith(f"DISPLACED|{displaced}|")
    assert result.endswith("|1|5")


def test_it_tells_of_a_failure_with_the_words_of_lfs(sim: SimulatedLustre, lfsutils: LfsUtils) -> None:
    path = sim.file("f", 100, "-i", "1")
    sim.fault(cmd="migrate", errno="ENOSPC")

    result = str(lfsutils.migrate_file(str(path), 1, 4))

    assert result.startswith(f"FAILED|{path}|")
    assert "cannot create volatile file: No space left on device" in result


# Where it is wrong.


def test_it_cannot_see_an_ost_that_is_down(sim: SimulatedLustre, lfsutils: LfsUtils) -> None:
    sim.ost(3, state="down")

    with pytest.raises(KeyError):  # the line is on stderr; the answer should be False
        lfsutils.is_ost_idx_active("lustre", 3)


@pytest.mark.parametrize("version", ["2.15.5", "2.16.1"])
def test_it_fails_on_every_composite_file(version: str, sim: SimulatedLustre, lfsutils: LfsUtils) -> None:
    path = sim.file("pfl", 100, "-E", "1M", "-c", "1", "-i", "1", "-E", "-1", "-c", "2")
    sim.setting("lustre_version", version)

    with pytest.raises(LfsUtilsError, match="lmm_stripe_count not found"):
        lfsutils.stripe_info(str(path))


def test_a_failure_without_words_escapes_from_it(sim: SimulatedLustre, lfsutils: LfsUtils) -> None:
    path = sim.file("f", 100, "-i", "1")
    sim.fault(cmd="migrate", errno="EBUSY", no_stderr=True)

    with pytest.raises(LfsUtilsError, match="requires error_msg"):
        lfsutils.migrate_file(str(path), 1, 4)


def test_one_ost_in_error_hides_all_fill_levels_from_it(sim: SimulatedLustre, lfsutils: LfsUtils) -> None:
    sim.ost(3, state="error")

    with pytest.raises(subprocess.CalledProcessError):
        lfsutils.retrieve_ost_disk_usage(str(sim.mount))


def test_it_waits_for_an_ost_that_is_down(sim: SimulatedLustre, lfsutils: LfsUtils) -> None:
    sim.ost(3, state="down")
    lazy = sim.lfs("df", "--lazy", sim.mount)

    with pytest.raises(subprocess.CalledProcessError) as raised:  # it calls df without --lazy
        lfsutils.retrieve_ost_disk_usage(str(sim.mount))

    assert raised.value.returncode == 107
    assert lazy.returncode == 0


def test_it_does_not_see_five_digit_osts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sim = simulated_lustre(tmp_path, osts=1, first_index=10000)
    monkeypatch.setenv("PATH", str(sim.bin), prepend=":")

    with pytest.raises(LfsUtilsError):
        LfsUtils(lfs=str(sim.bin / "lfs")).retrieve_ost_disk_usage(str(sim.mount))


def test_it_leaves_a_file_behind_on_an_ost_that_takes_none(sim: SimulatedLustre, lfsutils: LfsUtils) -> None:
    sim.ost(2, state="readonly")

    writable = lfsutils.is_ost_writable(2, str(sim.mount / "probe"))

    assert not writable
    assert (sim.mount / "probe").exists()


def test_it_sends_an_impossible_target_to_lfs(sim: SimulatedLustre, lfsutils: LfsUtils) -> None:
    path = sim.file("f", 100, "-i", "1")

    result = str(lfsutils.migrate_file(str(path), 1, 70000))  # the bound is checked on the source instead

    assert result.startswith("FAILED")
    assert "70000" in sim.calls()[-1]["argv"]
