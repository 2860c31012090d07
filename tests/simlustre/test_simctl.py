"""`simctl`: making, filling and judging a simulation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from simulated_lustre import REPOSITORY, SimulatedLustre, simulated_lustre


@pytest.fixture
def sim(tmp_path: Path) -> SimulatedLustre:
    return simulated_lustre(tmp_path)


def _script(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, REPOSITORY / "simlustre" / "simlustre.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


# init


def test_a_sim_json_that_says_little_is_enough(tmp_path: Path) -> None:
    first = simulated_lustre(tmp_path / "first")
    said = json.loads((first.root / "sim.json").read_text())
    (tmp_path / "sim.json").write_text(json.dumps({"filesystems": said["filesystems"]}))

    made = _script("init", tmp_path / "second", "--from", tmp_path / "sim.json")

    assert made.returncode == 0, made


@pytest.mark.parametrize(("name", "value"), [("needs_root", "1"), ("seed", "x"), ("lustre_version", "two")])
def test_a_setting_is_not_set_to_nonsense(name: str, value: str, sim: SimulatedLustre) -> None:
    refused = sim.run("simctl", "set", name, value)

    assert refused.returncode == 3


def test_init_makes_programs_that_find_their_simulation_from_anywhere(tmp_path: Path) -> None:
    made = _script("init", tmp_path / "sim", "--osts", "7", "--fs", "one,two", "--first-index", "3")
    (tmp_path / "lfs").symlink_to(tmp_path / "sim" / "bin" / "lfs")

    told = subprocess.run(
        [tmp_path / "lfs", "check", "osts"], cwd="/", env={}, capture_output=True, text=True, check=True
    )

    assert made.returncode == 0, made
    lines = told.stdout.splitlines()
    assert len(lines) == 14
    assert lines[0].startswith("one-OST0003-osc-ffff")
    assert lines[-1].startswith("two-OST0009-osc-ffff")


def test_the_environment_names_another_simulation(tmp_path: Path) -> None:
    one = simulated_lustre(tmp_path / "one", osts=1)
    other = simulated_lustre(tmp_path / "other", osts=2)

    told = one.lfs("check", "osts", env={**os.environ, "CYCLONE_SIMLUSTRE": str(other.root)})

    assert len(told.stdout.splitlines()) == 2


def test_without_a_simulation_there_is_no_device(sim: SimulatedLustre) -> None:
    result = sim.lfs("df", env={"CYCLONE_SIMLUSTRE": "/nowhere"})

    assert (result.returncode, result.stderr) == (
        19, "lfs df: cannot find mounted Lustre filesystem: No such device\n",
    )  # fmt: skip


def test_init_takes_a_sim_json(tmp_path: Path) -> None:
    first = simulated_lustre(tmp_path / "first", osts=2, display="/lustre")

    made = _script("init", tmp_path / "second", "--from", first.root / "sim.json")

    assert made.returncode == 0, made
    told = subprocess.run([tmp_path / "second/bin/lfs", "df"], capture_output=True, text=True, check=True)
    assert told.stdout == first.said("df")


def test_init_does_not_overwrite_unless_it_is_forced(tmp_path: Path) -> None:
    assert _script("init", tmp_path / "sim").returncode == 0

    refused, forced = _script("init", tmp_path / "sim"), _script("init", tmp_path / "sim", "--force")

    assert (refused.returncode, forced.returncode) == (3, 0)
    assert "holds a simulation already" in refused.stderr


def test_an_interpreter_with_a_blank_in_its_path_works_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interpreter = tmp_path / "with blank" / "python"
    interpreter.parent.mkdir()
    interpreter.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))

    sim = simulated_lustre(tmp_path / "also blank")

    assert (sim.bin / "lfs").read_text().startswith("#!/bin/sh\n")
    assert sim.said("--version") == "lfs 2.15.5\n"


def test_a_start_imports_nothing_that_is_slow(sim: SimulatedLustre) -> None:
    path = sim.file("f", 10, "-i", "1")
    code = (
        "import os, sys\n"
        f"sys.path.insert(0, {str(sim.root / 'lib')!r})\n"
        f"sys.argv = [{str(sim.bin / 'lfs')!r}, 'migrate', '-n', '-o', '4', {str(path)!r}]\n"
        "import simlustre.entry as entry\n"
        "os._exit = sys.exit\n"
        "try: entry.main()\n"
        "finally: print(' '.join(sys.modules))\n"
    )

    done = subprocess.run([sys.executable, "-IS", "-c", code], capture_output=True, text=True, check=True)

    slow = {
        "json",
        "re",
        "enum",
        "typing",
        "argparse",
        "dataclasses",
        "pathlib",
        "sqlite3",
        "subprocess",
        "hashlib",
    }
    assert slow.isdisjoint(done.stdout.split()), done.stdout
    assert sim.osts_of(path) == [4]


# populate


def test_populate_spreads_files_evenly_and_lists_them_shuffled(sim: SimulatedLustre) -> None:
    sim.simctl(
        "populate", "--per-ost", "20", "--osts", "1-3", "--sizes", "fixed:100", "--lists", sim.root / "in"
    )

    (listed,) = (sim.root / "in").glob("*.input")
    entries = [line.split(" ", 1) for line in listed.read_text().splitlines()]
    assert len(entries) == 60
    assert [sim.objects_on(ost) for ost in range(6)] == [0, 20, 20, 20, 0, 0]
    assert entries != sorted(entries, key=lambda entry: entry[1])
    for ost, path in entries[:5]:
        assert sim.osts_of(Path(path)) == [int(ost)]


def test_populate_makes_every_kind_of_file(sim: SimulatedLustre) -> None:
    kinds = "plain,striped,composite,dom,released,archived,empty,encrypted,hardlink"
    sim.simctl("populate", "--files", "200", "--kinds", kinds, "--sizes", "uniform:1K-200K", "--sparse")

    def first(kind: str) -> Path:
        return min(sim.mount.rglob(f"{kind}-*"))

    assert len(sim.osts_of(first("striped"))) == 4
    assert "lcm_entry_count:   3" in sim.said("getstripe", first("composite"))
    assert "lmm_pattern:       mdt" in sim.said("getstripe", first("dom"))
    assert "released exists archived" in sim.said("hsm_state", first("released"))
    assert "exists archived, archive_id:1" in sim.said("hsm_state", first("archived"))
    assert sim.said("getstripe", first("empty")) == f"{first('empty')} has no stripe info\n"
    assert sim.lfs("migrate", "-o", "1", first("encrypted")).returncode == 126
    assert first("hardlink").stat().st_nlink > 1
    assert sim.verify()["clean"]


def test_populate_adds_to_what_is_there(sim: SimulatedLustre) -> None:
    for _ in range(2):
        sim.simctl("populate", "--files", "3", "--sizes", "fixed:10")

    assert sorted(path.name[-1] for path in sim.mount.rglob("plain-*")) == list("012345")
    assert sim.verify()["files"] == 6


def test_an_empty_file_can_be_given_a_layout(sim: SimulatedLustre) -> None:
    sim.simctl("populate", "--files", "1", "--kinds", "empty", "--sizes", "fixed:100")
    (path,) = sim.mount.rglob("empty-*")

    sim.said("setstripe", "-o", "3", path)

    assert (sim.osts_of(path), sim.bytes_on(3)) == ([3], 100)
    assert sim.lfs("setstripe", "-o", "3", path).returncode == 17


def test_a_released_file_burdens_no_ost(sim: SimulatedLustre) -> None:
    sim.simctl("populate", "--files", "10", "--kinds", "released", "--sizes", "fixed:100")

    assert sum(sim.bytes_on(ost) for ost in range(6)) == 0
    assert sim.verify()["clean"]


def test_sparse_files_are_long_but_small(sim: SimulatedLustre) -> None:
    sim.simctl("populate", "--files", "3", "--sizes", "fixed:1G", "--sparse")

    path = min(sim.mount.rglob("plain-*"))
    assert path.stat().st_size == 1 << 30
    assert path.stat().st_blocks * 512 < 1 << 20
    assert sim.verify()["clean"]


def test_lists_can_be_one_for_each_ost(sim: SimulatedLustre) -> None:
    sim.simctl("populate", "--per-ost", "2", "--osts", "0,4", "--list-per-ost")

    assert sorted(path.name for path in (sim.root / "lists").iterdir()) == [
        "lustre-data-ost0000.input", "lustre-data-ost0004.input",
    ]  # fmt: skip


def test_a_size_or_kind_or_ost_that_is_unknown_is_refused(sim: SimulatedLustre) -> None:
    for option, value in (("--sizes", "huge"), ("--kinds", "strange"), ("--osts", "99"), ("--fs", "other")):
        result = sim.run("simctl", "populate", option, value)
        assert (result.returncode, result.stderr.startswith("simctl populate: ")) == (3, True)


# verify and rescan


def test_verify_finds_a_counter_that_is_wrong(sim: SimulatedLustre) -> None:
    sim.simctl("populate", "--files", "6")
    sim.ost(2, bytes=1)

    result = sim.run("simctl", "verify", "--json")

    found = json.loads(result.stdout)
    assert (result.returncode, found["clean"], len(found["problems"])) == (1, False, 1)
    assert found["problems"][0].startswith("lustre OST 2: counts (1, 1)")


def test_verify_finds_a_file_that_is_half_moved(sim: SimulatedLustre) -> None:
    path = sim.file("f", 100, "-i", "1")
    sim.said("getstripe", path)
    layout = sim.layout(path)
    layout.components[0].osts = [4]
    os.setxattr(path, "user.simlov", layout.to_text().encode())

    (problem,) = sim.verify()["problems"]

    assert problem.startswith(f"{path}: half moved")


def test_verify_tells_a_users_change_from_corruption(sim: SimulatedLustre) -> None:
    sim.simctl("populate", "--files", "2", "--sizes", "fixed:100")
    changed, untouched = sorted(sim.mount.rglob("plain-*"))
    changed.write_bytes(b"new")

    result = sim.verify()

    assert (result["clean"], result["changed"]) == (True, 1)
    times = untouched.stat()
    untouched.write_bytes(b"x" * 100)
    os.utime(untouched, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not sim.verify()["clean"]


def test_rescan_learns_of_new_grown_and_deleted_files(sim: SimulatedLustre) -> None:
    grown, deleted = sim.file("grown", 10, "-i", "1"), sim.file("deleted", 10, "-i", "2")
    sim.rescan()
    with grown.open("ab") as file:
        file.write(bytes(90))
    deleted.unlink()
    (sim.mount / "new").write_bytes(bytes(50))

    assert sim.rescan() == {"files": 2, "deleted": 1}

    assert (sim.bytes_on(1), sim.bytes_on(2)) in ((100, 0), (150, 0), (100, 50))
    assert sum(sim.bytes_on(ost) for ost in range(6)) == 150
    assert sim.verify()["deleted"] == 0


# report, marks, set, reset


def test_report_counts_calls_by_command_and_exit(sim: SimulatedLustre) -> None:
    sim.lfs("check", "osts")
    sim.lfs("getstripe", "missing")
    sim.lfs("getstripe", "missing")

    found = json.loads(sim.simctl("report", "--json"))

    assert found["calls"]["lfs check"]["exits"] == {"0": 1}
    assert found["calls"]["lfs getstripe"]["exits"] == {"2": 2}
    assert len(found["filesystems"]["lustre"]["osts"]) == 6


def test_report_is_readable_too(sim: SimulatedLustre) -> None:
    sim.said("migrate", "-o", "4", sim.file("f", 10, "-i", "1"))

    told = sim.simctl("report")

    assert f"lustre at {sim.mount}: 1 files" in told
    assert "lfs migrate: 1 calls" in told


def test_marks_can_be_cleared(sim: SimulatedLustre) -> None:
    sim.said("migrate", "-o", "4", sim.file("f", 10, "-i", "1"))
    before = json.loads(sim.simctl("marks", "--json"))

    sim.simctl("marks", "--clear")

    assert before["lustre"]["pair"] == {"1>4": 1}
    assert set(map(str, sim.marks().values())) == {"{}"}


def test_settings_change_while_it_runs(sim: SimulatedLustre) -> None:
    sim.simctl("set", "lustre_version", "2.17.0")

    assert sim.said("--version") == "lfs 2.17.0\n"
    assert sim.run("simctl", "set", "time_scale", "fast").returncode == 3


def test_reset_begins_anew(sim: SimulatedLustre) -> None:
    sim.simctl("populate", "--files", "5")
    sim.fault(cmd="check", exit=9)

    sim.simctl("reset")

    assert list(sim.mount.iterdir()) == []
    assert sim.lfs("check", "osts").returncode == 0
    assert sim.report()["filesystems"]["lustre"]["files"] == 0


def test_simctl_without_a_simulation_says_so(tmp_path: Path) -> None:
    result = _script("--root", tmp_path, "report")

    assert (result.returncode, result.stderr) == (3, f"simctl report: {tmp_path} holds no simulation\n")
