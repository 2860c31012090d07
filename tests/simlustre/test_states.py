"""Servers in trouble, and files and room as they change."""

from __future__ import annotations

import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from simulated_lustre import SimulatedLustre, simulated_lustre


@pytest.fixture
def sim(tmp_path: Path) -> SimulatedLustre:
    return simulated_lustre(tmp_path)


def _fill(sim: SimulatedLustre, ost: int) -> float:
    fill: float = sim.report()["filesystems"]["lustre"]["osts"][str(ost)]["fill_percent"]
    return fill


# States.


@pytest.mark.parametrize(
    ("state", "code"),
    [("down", 107), ("deactivated", 108), ("error", 5)],
    ids=["down", "deactivated", "error"],
)
@pytest.mark.parametrize("side", ["source", "target"])
def test_a_server_in_trouble_stops_a_migration(state: str, code: int, side: str, tmp_path: Path) -> None:
    sim = simulated_lustre(tmp_path, settings={"time_scale": 0.001}, mbps=1.0)
    path = sim.file("f", 100_000, "-i", "1")
    migration = sim.start("lfs", "migrate", "-n", "-o", "4", path)
    while sim.report()["in_flight"] == 0:
        time.sleep(0.005)

    sim.ost(1 if side == "source" else 4, state=state)
    _, error = migration.communicate(timeout=30)

    assert migration.returncode == code
    assert error.decode().startswith(f"error: lfs migrate: {path}: data copy failed: ")
    assert sim.osts_of(path) == [1]


def test_a_hanging_ost_holds_a_migration_until_it_recovers(sim: SimulatedLustre) -> None:
    path = sim.file("f", 100, "-i", "1")
    sim.ost(1, state="hang")
    migration = sim.start("lfs", "migrate", "-n", "-o", "4", path)
    with pytest.raises(subprocess.TimeoutExpired):
        migration.wait(timeout=0.3)

    sim.ost(1, state="active")

    assert migration.wait(timeout=30) == 0
    migration.communicate()


def test_a_hanging_ost_holds_a_create_which_sigterm_ends(sim: SimulatedLustre) -> None:
    sim.ost(4, state="hang")
    create = sim.start("lfs", "setstripe", "-o", "4", sim.mount / "f")
    with pytest.raises(subprocess.TimeoutExpired):
        create.wait(timeout=0.3)

    create.terminate()

    assert create.wait(timeout=30) == -15
    create.communicate()
    assert not (sim.mount / "f").exists()


@pytest.mark.parametrize("command", [("check", "osts"), ("df", "--lazy")], ids=["check", "df"])
def test_who_asks_a_hanging_ost_waits_for_it(command: tuple[str, ...], sim: SimulatedLustre) -> None:
    sim.setting("down_block_s", 1000)
    sim.ost(3, state="hang")
    asking = sim.start("lfs", *command)
    with pytest.raises(subprocess.TimeoutExpired):
        asking.wait(timeout=0.3)

    sim.ost(3, state="active")
    out, error = asking.communicate(timeout=30)

    assert (asking.returncode, error) == (0, b"")
    assert b"OST0003" in out


def test_a_hanging_ost_is_given_up_and_is_then_one_that_is_down(sim: SimulatedLustre) -> None:
    sim.ost(3, state="hang", code=110)

    checked, lazy, patient = sim.lfs("check", "osts"), sim.lfs("df", "--lazy"), sim.lfs("df")

    assert "OST0003" not in checked.stdout + lazy.stdout
    assert checked.stderr.endswith(": Connection timed out (110)\n")
    assert (checked.returncode, lazy.returncode, patient.returncode) == (0, 0, 110)
    assert "OST0003             : Connection timed out\n" in patient.stdout
    assert all(call["seconds"] >= 0.2 for call in sim.calls())


def test_df_waits_for_an_ost_that_is_down_unless_it_is_lazy(sim: SimulatedLustre) -> None:
    sim.ost(3, state="down", code=110)
    sim.setting("down_block_s", 0.5)

    waiting, lazy = sim.lfs("df"), sim.lfs("df", "-l")

    first, second = (call["seconds"] for call in sim.calls())
    assert (waiting.returncode, lazy.returncode) == (110, 0)
    assert first >= 0.5
    assert second < first
    assert "OST0003             : Connection timed out\n" in waiting.stdout
    assert "OST0003" not in lazy.stdout


def test_a_full_ost_stops_a_copy_that_does_not_fit(sim: SimulatedLustre) -> None:
    path = sim.file("f", 2_000_000, "-i", "1")
    sim.ost(4, kib=1_000_000, base_used_kib=998_500)

    result = sim.lfs("migrate", "-n", "-o", "4", path)

    assert (result.returncode, result.stderr) == (
        28, f"error: lfs migrate: {path}: data copy failed: No space left on device\n",
    )  # fmt: skip


def test_a_change_can_be_planned_by_time_and_comes_back(sim: SimulatedLustre) -> None:
    sim.simctl("ost", "2,4", "--state", "down", "--errno", "ETIMEDOUT", "--for", "0.3")
    while_down = sim.lfs("check", "osts")
    time.sleep(0.3)

    afterwards = sim.lfs("check", "osts")

    assert while_down.stderr.count("(110)") == 2
    assert afterwards.stderr == ""


def test_a_change_can_be_planned_by_calls(sim: SimulatedLustre) -> None:
    sim.simctl("ost", "2", "--state", "degraded", "--after-calls", "2")

    told = [sim.said("df") for _ in range(3)]

    assert ["[OST:2] D" in text for text in told] == [False, False, True]


# What only root may do.


@pytest.mark.parametrize(
    ("command", "code", "complaint"),
    [
        (("lfs", "check", "mdts"), 0, "lfs check: error: check 'lustre-MDT0000-mdc-"),
        (("lfs", "check", "osts"), 0, "lfs check: error: check 'lustre-OST0005-osc-"),
        (("lfs", "mkdir", "-i", "1", "d"), 1, "dirstripe error on 'd': Operation not permitted\n"),
        (
            ("lctl", "get_param", "osc.*.import"), 13,
            "error: get_param: opening '/sys/fs/lustre/osc/lustre-OST0005-osc-",
        ),
        (
            ("lctl", "set_param", "ldlm.namespaces.lustre-OST0003-osc-1.lru_size=clear"), 13,
            "error: set_param: opening '/sys/fs/lustre/ldlm/namespaces/lustre-OST0003-osc-1/lru_size': Permission denied\n",
        ),
    ],
    ids=["mdts", "osts", "mkdir", "get_param", "set_param"],
)  # fmt: skip
def test_root_may_be_needed(
    command: tuple[str, ...], code: int, complaint: str, sim: SimulatedLustre
) -> None:
    sim.simctl("set", "needs_root", "true")

    refused = sim.run(*command)
    allowed = sim.run("sudo", "-n", *command)

    assert (refused.returncode, refused.stdout) == (code, "")
    assert complaint in refused.stderr
    assert (allowed.returncode, allowed.stderr) == (0, "")


# Room.


def test_fill_sets_and_growth_raises_the_level(sim: SimulatedLustre) -> None:
    sim.simctl("fill", "3", "91%")
    assert _fill(sim, 3) == pytest.approx(91, abs=0.01)

    sim.simctl("fill", "3", "--growth", str(sim._counter(3).kib))  # all of it in a second
    time.sleep(0.05)

    assert _fill(sim, 3) > 94


def test_verify_finds_an_ost_that_holds_more_than_fits(sim: SimulatedLustre) -> None:
    sim.ost(1, kib=1000, base_used_kib=0)
    sim.said("getstripe", sim.file("f", 1800 * 1024, "-i", "1"))

    assert sim.verify()["problems"] == ["lustre OST 1: overfull: 800 KiB more than its 1000 KiB"]


def test_an_ost_that_others_fill_up_is_full_and_no_more(sim: SimulatedLustre) -> None:
    sim.said("getstripe", sim.file("f", 100, "-i", "1"))

    sim.simctl("fill", "1", "100%", "--growth", "1e12")

    assert (_fill(sim, 1), sim.verify()["clean"]) == (100, True)


def test_files_count_with_their_scaled_size(tmp_path: Path) -> None:
    sim = simulated_lustre(tmp_path, size_scale=1e6, fill=(50.0, 50.0))
    before = sim._counter(1).used_kib

    sim.said("getstripe", sim.file("f", 1024, "-i", "1"))

    assert sim._counter(1).used_kib - before == pytest.approx(1e6, rel=1e-3)


def test_a_file_that_grew_is_charged_at_its_next_contact(sim: SimulatedLustre) -> None:
    path = sim.file("f", 100, "-i", "1")
    sim.said("getstripe", path)
    with path.open("ab") as file:
        file.write(bytes(900))

    sim.said("getstripe", path)

    assert sim.bytes_on(1) == 1000


def test_a_composite_file_that_grew_gets_objects_for_its_next_component(sim: SimulatedLustre) -> None:
    path = sim.file("f", 10, "-E", "64K", "-c", "1", "-i", "1", "-E", "-1", "-c", "2", "-i", "3")
    sim.said("getstripe", path)
    assert sim.osts_of(path) == [1]
    with path.open("ab") as file:
        file.write(bytes(100_000))

    sim.said("getstripe", path)

    assert sim.osts_of(path) == [1, 3, 4]
    assert sim.bytes_on(1) == 65536
    assert sim.verify()["clean"]


def test_df_notices_deleted_files(sim: SimulatedLustre) -> None:
    paths = [sim.file(f"f{place}", 1000, "-i", "1") for place in range(3)]
    for path in paths:
        sim.said("getstripe", path)
    paths[0].unlink()
    paths[1].rename(sim.mount / "renamed")

    sim.said("df")

    assert (sim.bytes_on(1), sim.objects_on(1)) == (2000, 2)
    assert sim.verify()["deleted"] == 0


def test_a_directory_in_the_place_of_a_deleted_file_is_not_taken_for_it(sim: SimulatedLustre) -> None:
    path = sim.file("f", 1000, "-i", "1")
    sim.said("getstripe", path)
    path.unlink()
    path.mkdir()
    sim.said("setstripe", "-i", "2", path)

    sim.said("df")

    assert sim.bytes_on(1) == 0


@pytest.mark.parametrize("default", [True, False])
@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (("hsm_state",), "can't get hsm state for {}: Inappropriate ioctl for device\n"),
        (
            ("data_version", "-n"),
            "lfs data_version: cannot get version for '{}': Inappropriate ioctl for device\n",
        ),
    ],
    ids=["hsm_state", "data_version"],
)
def test_what_only_files_have_is_refused_for_a_directory(
    command: tuple[str, ...], complaint: str, default: bool, sim: SimulatedLustre
) -> None:
    directory = sim.mount / "d"
    directory.mkdir()
    if default:
        sim.said("setstripe", "-c", "2", directory)
    before = sim.said("getstripe", "-d", directory)

    result = sim.lfs(*command, directory)

    assert (result.returncode, result.stdout, result.stderr) == (25, "", complaint.format(directory))
    assert sim.said("getstripe", "-d", directory) == before


def test_find_names_files_without_layout_too(tmp_path: Path) -> None:
    sim = simulated_lustre(tmp_path, settings={"lustre_version": "2.15.5"})
    sim.simctl("populate", "--files", "1", "--kinds", "empty")
    (path,) = sim.mount.rglob("empty-*")

    assert sim.said("find", sim.mount, "--type", "f", "--printf", "%p %Lc\\n") == f"{path} 0\n"


# Files that nobody made with lfs.


def test_a_plain_file_gets_the_default_of_its_file_system(sim: SimulatedLustre) -> None:
    path = sim.mount / "f"
    path.write_bytes(b"x" * 100)

    sim.said("getstripe", path)

    (ost,) = sim.osts_of(path)
    assert sim.bytes_on(ost) == 100


def test_a_plain_file_gets_the_default_of_the_nearest_directory(sim: SimulatedLustre) -> None:
    inner = sim.mount / "outer" / "inner"
    inner.mkdir(parents=True)
    sim.said("setstripe", "-c", "2", "-i", "4", sim.mount / "outer")
    (inner / "f").write_bytes(b"x")

    sim.said("getstripe", inner / "f")

    assert sim.osts_of(inner / "f") == [4, 5]


def test_a_plain_file_has_an_ost_even_when_none_is_usable(sim: SimulatedLustre) -> None:
    sim.ost(0, 1, 2, 3, 4, 5, state="down")
    (sim.mount / "f").write_bytes(b"x")

    assert sim.said("getstripe", "-c", sim.mount / "f") == "1\n"


def test_a_file_that_is_looked_at_while_it_is_made_gets_one_layout(sim: SimulatedLustre) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = [pool.submit(sim.lfs, "setstripe", "-o", "3", sim.mount / f"f{place}") for place in range(30)]
        seen = [pool.submit(sim.lfs, "find", sim.mount, "--ost", "3") for _ in range(10)]

    assert {future.result().returncode for future in (*made, *seen)} == {0}
    assert sim.objects_on(3) == 30
    assert sim.verify()["clean"]


def test_a_file_keeps_its_layout_when_it_is_renamed_or_linked(sim: SimulatedLustre) -> None:
    path = sim.file("f", 10, "-i", "3")
    os.link(path, sim.mount / "link")

    path.rename(sim.mount / "renamed")

    assert sim.osts_of(sim.mount / "renamed") == sim.osts_of(sim.mount / "link") == [3]


@pytest.mark.parametrize("attributes", ["xattr", "table"])
def test_layouts_may_live_in_a_table_instead_of_attributes(attributes: str, tmp_path: Path) -> None:
    sim = simulated_lustre(tmp_path, attributes=attributes)
    path = sim.file("f", 10, "-i", "1")

    sim.said("migrate", "-n", "-o", "4", path)

    assert (os.listxattr(path) != []) == (attributes == "xattr")
    assert sim.said("getstripe", "-i", path) == "4\n"
    assert sim.verify()["clean"]


def test_two_file_systems_do_not_know_each_other(tmp_path: Path) -> None:
    from simulated_lustre import install

    world = install.world(
        [install.description(name="a", osts=2), install.description(name="b", osts=3)], time_scale=0
    )
    sim = SimulatedLustre(tmp_path / "sim", world)
    other = sim.root / "mnt" / "b"

    sim.said("setstripe", "-i", "2", other / "f")

    assert sim.lfs("setstripe", "-i", "2", sim.mount / "f").returncode == 22
    assert sim.lfs("check", "osts").stdout.count("active.") == 5
    assert sim.said("df", other).count("[OST:") == 3
