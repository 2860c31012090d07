"""`lfs migrate`: the file stays, its data moves, and whoever writes to it comes first."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from simulated_lustre import SimulatedLustre, simulated_lustre

MIB = 1 << 20


@pytest.fixture
def sim(tmp_path: Path) -> SimulatedLustre:
    return simulated_lustre(tmp_path)


@pytest.fixture
def slow(tmp_path: Path) -> SimulatedLustre:
    """Migrations hardly move, until the test lets them."""
    return simulated_lustre(tmp_path, settings={"time_scale": 0.001}, mbps=1.0, oss_mbps=1.0)


def _until_under_way(sim: SimulatedLustre, count: int = 1) -> None:
    deadline = time.monotonic() + 30
    while sim.report()["in_flight"] < count:
        assert time.monotonic() < deadline, "no migration began"
        time.sleep(0.005)


# What stays and what moves.


@pytest.mark.parametrize("how", ["-n", "-b"])
def test_inode_content_owner_and_times_stay(how: str, sim: SimulatedLustre) -> None:
    path = sim.file("f", 5000, "-i", "1")
    path.chmod(0o640)
    os.utime(path, ns=(1_600_000_000_000_000_000, 1_500_000_000_123_456_789))
    before, content, fid = path.stat(), path.read_bytes(), sim.layout(path).fid
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert sim.lfs("migrate", how, "-c", "1", "-o", "4", path).returncode == 0

    after = path.stat()
    same = ("st_ino", "st_mode", "st_uid", "st_gid", "st_size", "st_mtime_ns", "st_atime_ns", "st_nlink")
    assert [getattr(after, name) for name in same] == [getattr(before, name) for name in same]
    assert stat.S_IMODE(after.st_mode) == 0o640
    assert (path.read_bytes(), sim.layout(path).fid, sim.osts_of(path)) == (content, fid, [4])


def test_the_times_may_come_back_in_whole_seconds(sim: SimulatedLustre) -> None:
    sim.simctl("set", "whole_seconds", "true")
    sim.simctl("populate", "--files", "1", "--osts", "1")
    (path,) = sim.mount.rglob("plain-*")
    before = path.stat().st_mtime_ns

    sim.said("migrate", "-n", "-o", "4", path)

    assert path.stat().st_mtime_ns == before // 10**9 * 10**9
    assert (sim.verify()["clean"], sim.verify()["changed"]) == (True, 0)


def test_room_and_objects_move_with_the_file(sim: SimulatedLustre) -> None:
    path = sim.file("f", 5000, "-i", "1")
    sim.said("getstripe", path)

    sim.said("migrate", "-o", "4", path)

    assert (sim.bytes_on(1), sim.objects_on(1), sim.bytes_on(4), sim.objects_on(4)) == (0, 0, 5000, 1)


def test_all_hard_links_see_the_one_move(sim: SimulatedLustre) -> None:
    path = sim.file("f", 100, "-i", "1")
    link = sim.mount / "link"
    link.hardlink_to(path)

    sim.said("migrate", "-n", "-o", "4", path)

    assert sim.osts_of(link) == [4]
    assert link.stat().st_ino == path.stat().st_ino
    assert sim.bytes_on(4) == 100


def test_without_options_the_layout_is_kept(sim: SimulatedLustre) -> None:
    path = sim.file("f", 100, "-c", "2", "-S", "4M")

    sim.said("migrate", path)

    component = sim.layout(path).components[0]
    assert (len(component.osts), component.wish.size) == (2, 4 * MIB)


def test_with_any_option_size_and_pool_of_the_file_are_lost(tmp_path: Path) -> None:
    sim = simulated_lustre(tmp_path, pools={"hdd": [0, 1, 2]})
    path = sim.file("f", 100, "-c", "1", "-S", "4M", "-p", "hdd", "-i", "0")

    sim.said("migrate", "-c", "1", "-i", "1", path)

    wish = sim.layout(path).components[0].wish
    assert (wish.size, wish.pool) == (MIB, None)


def test_size_and_pool_stay_when_they_are_named(tmp_path: Path) -> None:
    sim = simulated_lustre(tmp_path, pools={"hdd": [0, 1, 2]})
    path = sim.file("f", 100, "-c", "1", "-S", "4M", "-p", "hdd", "-i", "0")

    sim.said("migrate", "-c", "1", "-o", "1", "-S", "4M", "-p", "hdd", path)

    wish = sim.layout(path).components[0].wish
    assert (wish.size, wish.pool) == (4 * MIB, "hdd")


def test_an_option_flattens_a_composite_file(sim: SimulatedLustre) -> None:
    path = sim.file("pfl", 100, "-E", "1M", "-c", "1", "-i", "1", "-E", "-1", "-c", "2")

    sim.said("migrate", "-c", "1", "-o", "4", path)

    layout = sim.layout(path)
    assert (layout.composite, layout.osts()) == (False, [4])


@pytest.mark.parametrize(("version", "moves"), [("2.15.5", False), ("2.16.1", True)])
def test_before_2_16_a_composite_file_stays_on_its_osts(
    version: str, moves: bool, sim: SimulatedLustre
) -> None:
    path = sim.file("pfl", 100, "-E", "1M", "-c", "1", "-i", "5", "-E", "-1", "-c", "2")
    sim.setting("lustre_version", version)

    sim.said("migrate", path)

    assert sim.layout(path).composite
    assert (sim.osts_of(path) != [5]) == moves


# Who else uses the file.


def test_a_file_open_for_writing_is_busy(sim: SimulatedLustre) -> None:
    path = sim.file("f", 100, "-i", "1")

    with path.open("ab"):
        result = sim.lfs("migrate", "-n", "-o", "4", path)

    assert result.returncode == 16
    assert result.stderr == f"error: lfs migrate: {path}: cannot get lease: Device or resource busy\n"
    assert sim.osts_of(path) == [1]


def test_a_file_open_for_reading_is_not(sim: SimulatedLustre) -> None:
    path = sim.file("f", 100, "-i", "1")

    with path.open("rb"):
        assert sim.lfs("migrate", "-n", "-o", "4", path).returncode == 0


def test_a_busy_file_can_be_moved_when_its_writer_is_done(sim: SimulatedLustre) -> None:
    path = sim.file("f", 100, "-i", "1")
    with path.open("ab") as file:
        sim.lfs("migrate", "-n", "-o", "4", path)
        file.write(b"more")

    assert sim.lfs("migrate", "-n", "-o", "4", path).returncode == 0

    assert (sim.osts_of(path), sim.bytes_on(4)) == ([4], 104)


def test_a_writer_who_comes_later_breaks_the_lease(slow: SimulatedLustre) -> None:
    path = slow.file("f", MIB, "-i", "1")
    migration = slow.start("lfs", "migrate", "-n", "-o", "4", path)
    _until_under_way(slow)

    with path.open("ab") as file:  # waits until the migration has let go
        file.write(b"more")
    _, error = migration.communicate(timeout=30)

    assert migration.returncode == 16
    assert error.decode() == f"error: lfs migrate: {path}: data copy failed: Device or resource busy\n"
    assert slow.osts_of(path) == [1]
    assert slow.verify()["clean"]


def test_a_blocking_migration_notices_a_change(slow: SimulatedLustre) -> None:
    path = slow.file("f", MIB, "-i", "1")
    migration = slow.start("lfs", "migrate", "-b", "-o", "4", path)
    _until_under_way(slow)

    with path.open("ab") as file:
        file.write(b"more")
    slow.setting("time_scale", 0)
    _, error = migration.communicate(timeout=30)

    assert migration.returncode == 11
    assert b"file changed: Resource temporarily unavailable" in error


def test_a_running_program_is_busy(sim: SimulatedLustre) -> None:
    path = sim.file("program", 0, "-i", "1")
    path.write_bytes(Path("/bin/sleep").read_bytes())
    path.chmod(0o755)
    running = subprocess.Popen([path, "60"])

    try:
        result = sim.lfs("migrate", "-n", "-o", "4", path)
    finally:
        running.kill()
        running.wait()

    assert result.returncode == 26
    assert result.stderr.endswith("cannot open source file: Text file busy\n")


def test_of_two_migrations_of_one_file_the_second_wins(slow: SimulatedLustre) -> None:
    path = slow.file("f", MIB, "-i", "1")
    first = slow.start("lfs", "migrate", "-n", "-o", "4", path)
    _until_under_way(slow)

    second = slow.start("lfs", "migrate", "-n", "-o", "5", path)
    first.communicate(timeout=30)
    slow.setting("time_scale", 0)
    second.communicate(timeout=30)

    assert (first.returncode, second.returncode) == (16, 0)
    assert slow.osts_of(path) == [5]
    assert slow.verify()["clean"]


# Room for the copy.


def _used(sim: SimulatedLustre, ost: int) -> int:
    """KiB, as `lfs df` tells it."""
    (row,) = [line for line in sim.said("df").splitlines() if f"[OST:{ost}]" in line]
    return int(row.split()[2])


def _half_copied(sim: SimulatedLustre) -> tuple[Path, subprocess.Popen[bytes], int]:
    """A file of 8 MiB on OST 1, its migration to OST 4 of which a part is done, and what OST 4 held before."""
    path = sim.file("f", 8 * MIB, "-i", "1")
    empty = _used(sim, 4)
    sim.setting("time_scale", 1.0)
    migration = sim.start("lfs", "migrate", "-n", "-o", "4", path)
    deadline = time.monotonic() + 30
    while _used(sim, 4) - empty < 1024:
        assert time.monotonic() < deadline, "nothing was copied"
    sim.setting("time_scale", 0.001)
    return path, migration, empty


def test_a_copy_takes_room_while_it_goes_on(slow: SimulatedLustre) -> None:
    _, migration, empty = _half_copied(slow)

    part, objects = _used(slow, 4) - empty, slow.objects_on(4)
    slow.setting("time_scale", 0)
    migration.communicate(timeout=30)

    assert 1024 <= part < 8192
    assert (_used(slow, 4) - empty, objects) == (8192, 0)
    assert slow.verify()["clean"]


def test_a_copy_that_fails_gives_its_room_back(slow: SimulatedLustre) -> None:
    path, migration, empty = _half_copied(slow)

    with path.open("ab"):  # breaks the lease
        pass
    migration.communicate(timeout=30)

    assert migration.returncode == 16
    assert _used(slow, 4) == empty


def test_a_copy_that_is_killed_gives_its_room_back(slow: SimulatedLustre) -> None:
    _, migration, empty = _half_copied(slow)

    migration.kill()
    migration.communicate(timeout=30)

    assert _used(slow, 4) == empty


def test_two_copies_that_do_not_fit_together_do_not_both_get_there(slow: SimulatedLustre) -> None:
    _, first, _ = _half_copied(slow)
    path = slow.file("second", 8 * MIB, "-i", "2")
    slow.ost(4, kib=12 * 1024, base_used_kib=0)
    second = slow.start("lfs", "migrate", "-n", "-o", "4", path)
    _until_under_way(slow, 2)

    slow.setting("time_scale", 0)
    for process in (first, second):
        process.communicate(timeout=30)

    assert sorted([first.returncode, second.returncode]) == [0, 28]
    assert slow.bytes_on(4) == 8 * MIB
    assert slow.verify()["clean"]


# Files that cannot be moved.


@pytest.mark.parametrize(
    ("kind", "code", "text"),
    [
        ("empty", 61, "cannot get existing layout: No data available"),
        ("released", 61, "data copy failed: No data available"),
        ("encrypted", 126, "cannot open source file: Required key not available"),
    ],
)
def test_some_files_are_refused(kind: str, code: int, text: str, sim: SimulatedLustre) -> None:
    sim.simctl("populate", "--files", "1", "--kinds", kind)
    (path,) = sim.mount.rglob(f"{kind}-*")

    result = sim.lfs("migrate", "-n", "-o", "4", path)

    assert (result.returncode, result.stderr) == (code, f"error: lfs migrate: {path}: {text}\n")


def test_several_files_are_all_tried_and_the_first_error_is_kept(sim: SimulatedLustre) -> None:
    good, busy = sim.file("good", 10, "-i", "1"), sim.file("busy", 10, "-i", "1")

    with busy.open("ab"):
        result = sim.lfs("migrate", "-n", "-v", "-o", "4", busy, sim.mount / "gone", good)

    assert (result.returncode, result.stdout) == (16, f"{good}\n")
    assert len(result.stderr.splitlines()) == 2


def test_lists_of_files_are_read_from_2_17_on(tmp_path: Path) -> None:
    sim = simulated_lustre(tmp_path, settings={"lustre_version": "2.17.0"})
    paths = [sim.file(name, 10, "-i", "1") for name in ("a", "with\nnewline")]
    listed = tmp_path / "list"
    listed.write_bytes(b"\0".join(os.fsencode(path) for path in paths))

    sim.said("migrate", "-o", "4", "-0", "--files-from", listed)

    assert [sim.osts_of(path) for path in paths] == [[4], [4]]


def test_names_are_bytes(sim: SimulatedLustre) -> None:
    path = sim.file(os.fsdecode(b"caf\xe9 %s|"), 10, "-i", "1")

    told = sim.said("migrate", "-v", "-o", "4", path)

    assert told == f"{path}\n"
    assert os.fsencode(sim.calls()[-1]["argv"][-1]) == os.fsencode(path)


# How long it takes, and how many at once.


def test_a_migration_takes_the_time_that_its_osts_need(tmp_path: Path) -> None:
    sim = simulated_lustre(tmp_path, settings={"time_scale": 10.0}, mbps=2.0, oss_mbps=100.0)
    path = sim.file("f", 4 * MIB, "-i", "1")

    sim.said("migrate", "-o", "4", path)

    assert sim.calls()[-1]["seconds"] >= 0.2  # 4 MiB at 2 MiB/s, ten times as fast


def test_a_slow_ost_and_a_bandwidth_limit_slow_it_down(tmp_path: Path) -> None:
    sim = simulated_lustre(tmp_path, settings={"time_scale": 0, "lustre_version": "2.16.1"}, mbps=4.0)
    path = sim.file("f", 8 * MIB, "-i", "1")

    def seconds(*options: str) -> str:
        return sim.said("migrate", "--stats", *options, path).split("seconds: ")[1].split(",")[0]

    assert seconds("-o", "4") == "2"
    assert seconds("-o", "1", "-W", "1") == "8"
    sim.ost(5, slow=3.0)
    assert seconds("-o", "5") == "6"


def test_migrations_at_the_same_ost_share_its_speed(tmp_path: Path) -> None:
    sim = simulated_lustre(tmp_path, settings={"time_scale": 0.001}, mbps=2.0, oss_mbps=100.0)
    paths = [sim.file(f"f{place}", 2 * MIB, "-i", str(place)) for place in range(4)]
    started = [sim.start("lfs", "migrate", "-n", "-o", "5", path) for path in paths]
    _until_under_way(sim, 4)

    began = time.time()
    sim.setting("time_scale", 10.0)
    for process in started:
        process.communicate(timeout=30)

    # Together 8 MiB through one OST of 2 MiB/s, ten times as fast; one alone would need 0.1 s.
    ends = [call["time"] + call["seconds"] for call in sim.calls() if call["argv"][0] == "migrate"]
    assert max(ends) - began >= 0.3
    assert sim.marks()["target"] == {"5": 4}


def test_stats_are_told_every_interval(tmp_path: Path) -> None:
    sim = simulated_lustre(tmp_path, settings={"time_scale": 20.0, "lustre_version": "2.16.1"}, mbps=1.0)
    path = sim.file("f", 8 * MIB, "-i", "1")

    lines = sim.said("migrate", "--stats", "--stats-interval", "3", "-o", "4", path).splitlines()

    assert lines[0] == f"{path}:"
    assert lines[1].startswith("- { seconds: 3, rmbps:     1, wmbps:     1, copied: 3, total: 8, pct: 3")
    assert lines[-1].endswith("copied: 8, total: 8, pct: 100% }")


def test_high_water_marks_count_osts_servers_and_pairs(slow: SimulatedLustre) -> None:
    # Six OSTs are dealt out to three servers: 0 and 3, 1 and 4, 2 and 5 lie together.
    moves = [(0, 5), (0, 4), (1, 5), (2, 5)]
    paths = [slow.file(f"f{place}", MIB, "-i", str(source)) for place, (source, _) in enumerate(moves)]

    started = [
        slow.start("lfs", "migrate", "-n", "-o", str(target), path)
        for path, (_, target) in zip(paths, moves, strict=True)
    ]
    _until_under_way(slow, 4)
    slow.setting("time_scale", 0)
    for process in started:
        process.communicate(timeout=30)

    marks = slow.marks()
    assert marks["all"] == {"": 4}
    assert marks["source"] == {"0": 2, "1": 1, "2": 1}
    assert marks["target"] == {"4": 1, "5": 3}
    assert marks["ost"] == {"0": 2, "1": 1, "2": 1, "4": 1, "5": 3}
    assert marks["oss"] == {"oss001": 2, "oss002": 2, "oss003": 3}
    assert marks["pair"] == {"0>5": 1, "0>4": 1, "1>5": 1, "2>5": 1}


def test_one_after_the_other_never_counts_as_two(sim: SimulatedLustre) -> None:
    path = sim.file("f", 10, "-i", "1")

    for target in (4, 1, 4, 1):
        sim.said("migrate", "-n", "-o", str(target), path)

    assert sim.marks()["ost"] == {"1": 1, "4": 1}


def test_a_killed_migration_does_not_count_any_more(slow: SimulatedLustre) -> None:
    paths = [slow.file(f"f{place}", MIB, "-i", "1") for place in range(2)]
    killed = slow.start("lfs", "migrate", "-n", "-o", "4", paths[0])
    _until_under_way(slow)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=30)
    slow.setting("time_scale", 0)

    slow.said("migrate", "-n", "-o", "4", paths[1])

    assert slow.marks()["ost"] == {"1": 1, "4": 1}
    assert slow.report()["in_flight"] == 0


def test_many_at_once_leave_everything_in_order(sim: SimulatedLustre) -> None:
    sim.simctl("populate", "--files", "200", "--sizes", "fixed:1000", "--kinds", "plain:8,striped,composite")
    paths = sorted(sim.mount.rglob("*-0*"))

    with ThreadPoolExecutor(24) as pool:
        results = list(pool.map(lambda path: sim.lfs("migrate", "-n", "-c", "1", "-o", "5", path), paths))

    assert [result.returncode for result in results] == [0] * 200
    assert sim.verify() == {
        "clean": True, "files": 200, "inodes": 200, "changed": 0, "deleted": 0, "in_flight": 0,
        "problems": [],
    }  # fmt: skip
    assert (sim.objects_on(5), sim.bytes_on(5), sim.bytes_on(0)) == (200, 200_000, 0)
