"""Faults on order: each thing that can be made to go wrong does, and only where the rule fits."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from simulated_lustre import SimulatedLustre, simulated_lustre


@pytest.fixture
def sim(tmp_path: Path) -> SimulatedLustre:
    return simulated_lustre(tmp_path)


def _migrate(sim: SimulatedLustre, path: Path, target: int = 4) -> subprocess.CompletedProcess[str]:
    return sim.lfs("migrate", "-n", "-o", str(target), path)


# What happens.


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("EBUSY", 16, "cannot get lease: Device or resource busy"),
        ("ENOSPC", 28, "cannot create volatile file: No space left on device"),
        ("EIO", 5, "data copy failed: Input/output error"),
        ("ENOENT", 2, "cannot open source file: No such file or directory"),
        (95, 95, "cannot open source file: Operation not supported"),
    ],
)
def test_an_errno_expands_to_the_words_of_a_migration(
    name: str | int, code: int, text: str, sim: SimulatedLustre
) -> None:
    path = sim.file("f", 10, "-i", "1")
    sim.fault(cmd="migrate", errno=name)

    result = _migrate(sim, path)

    assert (result.returncode, result.stderr) == (code, f"error: lfs migrate: {path}: {text}\n")
    assert sim.osts_of(path) == [1]


def test_the_step_may_be_named(sim: SimulatedLustre) -> None:
    sim.fault(cmd="migrate", errno="EIO", where="cannot swap layout")

    assert "cannot swap layout: Input/output error" in _migrate(sim, sim.file("f")).stderr


def test_status_and_text_may_be_free(sim: SimulatedLustre) -> None:
    sim.fault(cmd="check", exit=77, stderr="something strange")

    result = sim.lfs("check", "osts")

    assert (result.returncode, result.stdout, result.stderr) == (77, "", "something strange\n")


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("getstripe", "error: getstripe failed for f."),
        ("setstripe", "lfs setstripe: setstripe error for 'f': No such file or directory"),
        ("path2fid", "lfs path2fid: cannot get fid for 'f': No such file or directory"),
        ("hsm_state", "can't get hsm state for f: No such file or directory"),
    ],
)
def test_a_file_may_seem_not_to_exist(command: str, text: str, sim: SimulatedLustre) -> None:
    sim.file("f", 10, "-i", "1")
    sim.fault(cmd=command, not_found=True)

    result = sim.lfs(command, "f")

    assert (result.returncode, result.stderr) == (2, text + "\n")


def test_a_delay_delays_and_nothing_else(sim: SimulatedLustre) -> None:
    sim.fault(cmd="check", delay=0.3)

    assert sim.lfs("check", "osts").returncode == 0

    assert sim.calls()[-1]["seconds"] >= 0.3


def test_a_hang_lasts_until_it_is_ended(sim: SimulatedLustre) -> None:
    sim.fault(cmd="df", hang=True)
    process = sim.start("lfs", "df")

    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.3)
    process.terminate()

    assert process.wait(timeout=10) == -15
    process.communicate()


@pytest.mark.parametrize("time_scale", [0, 1000])
def test_a_kill_midway_leaves_the_file_where_it_was(time_scale: float, sim: SimulatedLustre) -> None:
    sim.setting("time_scale", time_scale)
    path = sim.file("f", 10, "-i", "1")
    sim.fault(cmd="migrate", kill=True, count=1)

    assert _migrate(sim, path).returncode == -9

    assert sim.osts_of(path) == [1]
    assert sim.verify()["clean"]
    assert _migrate(sim, path).returncode == 0


def test_any_command_may_be_killed(sim: SimulatedLustre) -> None:
    sim.fault(cmd="check", kill=True)

    assert sim.lfs("check", "osts").returncode == -9


@pytest.mark.parametrize("command", ["migrate", "setstripe"])
def test_a_file_may_be_displaced(command: str, sim: SimulatedLustre) -> None:
    path = sim.mount / "f" if command == "setstripe" else sim.file("f", 10, "-i", "1")
    sim.fault(cmd=command, displace=5)

    assert sim.lfs(command, "-o", "4", path).returncode == 0

    assert sim.osts_of(path) == [5]


def test_corruption_is_silent_and_verify_finds_it(sim: SimulatedLustre) -> None:
    sim.simctl("populate", "--files", "2", "--sizes", "fixed:1000")
    damaged, whole = sorted(sim.mount.rglob("plain-*"))
    before, content = damaged.stat(), damaged.read_bytes()
    sim.fault(cmd="migrate", path=f"*/{damaged.name}", corrupt=True)

    results = [_migrate(sim, damaged), _migrate(sim, whole)]

    assert [result.returncode for result in results] == [0, 0]
    assert (damaged.stat().st_mtime_ns, damaged.stat().st_size) == (before.st_mtime_ns, before.st_size)
    assert sum(old != new for old, new in zip(content, damaged.read_bytes(), strict=True)) == 1
    assert sim.verify()["problems"] == [f"{damaged}: corrupt: its bytes are not those that were written"]


@pytest.mark.parametrize("how", ["-n", "-b"])
def test_a_change_during_the_copy_is_noticed(how: str, sim: SimulatedLustre) -> None:
    path = sim.file("f", 10, "-i", "1")
    sim.fault(cmd="migrate", touch=True)

    result = sim.lfs("migrate", how, "-o", "4", path)

    assert result.returncode == 11
    assert "file changed: Resource temporarily unavailable" in result.stderr
    assert (sim.osts_of(path), path.stat().st_size) == ([1], 11)


def test_stdout_may_be_cut_or_noise(sim: SimulatedLustre) -> None:
    whole = sim.said("check", "osts")
    sim.fault(cmd="check", truncate_stdout=50, count=1)
    sim.fault(cmd="check", truncate_stdout=True, count=1)
    sim.fault(cmd="check", garbage_stdout=True, count=2)

    told = [sim.lfs("check", "osts").stdout for _ in range(4)]

    assert told[0] == whole[:50]
    assert told[1] == whole[: len(whole) // 2]
    assert told[2] == told[3]
    assert "active" not in told[2]


def test_stderr_may_stay_silent(sim: SimulatedLustre) -> None:
    sim.fault(cmd="migrate", errno="EBUSY", no_stderr=True)

    result = _migrate(sim, sim.file("f"))

    assert (result.returncode, result.stdout, result.stderr) == (16, "", "")


@pytest.mark.parametrize("command", [("check", "osts"), ("df",), ("osts",)])
def test_one_ost_may_be_missing_in_what_is_said(command: tuple[str, ...], sim: SimulatedLustre) -> None:
    whole = sim.said(*command)
    sim.fault(lose_ost_line=3)

    lines = sim.said(*command).splitlines()

    lost = set(whole.splitlines()) - set(lines)
    assert len(lost) == 1
    assert "OST0003" in lost.pop()


def test_a_stale_layout_is_shown_once(sim: SimulatedLustre) -> None:
    path = sim.file("f", 10, "-i", "1")
    _migrate(sim, path)
    sim.fault(cmd="getstripe", stale_getstripe=True, count=1)

    assert [sim.said("getstripe", "-i", path) for _ in range(2)] == ["1\n", "4\n"]


# Where it happens.


def test_the_first_rule_that_fits_is_taken(sim: SimulatedLustre) -> None:
    sim.fault(cmd="df", exit=1)
    sim.fault(cmd=["check", "migrate"], exit=2)
    sim.fault(exit=3)

    assert [sim.lfs(command, "osts").returncode for command in ("df", "check", "osts")] == [1, 2, 3]


def test_rules_look_at_source_target_and_path(sim: SimulatedLustre) -> None:
    on1, on2 = sim.file("a/on1", 10, "-i", "1"), sim.file("b/on2", 10, "-i", "2")
    sim.fault(cmd="migrate", source=1, target=4, exit=14)
    sim.fault(cmd="migrate", ost=3, exit=3)
    sim.fault(cmd="migrate", path="*/b/*", exit=66)

    codes = [_migrate(sim, on1, 4), _migrate(sim, on1, 5), _migrate(sim, on2, 3), _migrate(sim, on2, 4)]

    assert [result.returncode for result in codes] == [14, 0, 3, 66]


def test_rules_look_at_arguments_program_and_host(
    sim: SimulatedLustre, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim.fault(argv=r"^df .*-l", exit=1)
    sim.fault(program="lctl", exit=2)
    sim.fault(host="node[78]", exit=3)

    assert sim.lfs("df").returncode == 0
    assert sim.lfs("df", "-l").returncode == 1
    assert sim.run("lctl", "dl").returncode == 2
    monkeypatch.setenv("CYCLONE_SIMLUSTRE_HOST", "node7")
    assert sim.lfs("df").returncode == 3
    assert sim.calls()[-1]["host"] == "node7"


def test_rules_look_at_the_attempt(sim: SimulatedLustre) -> None:
    first, second = sim.file("first", 10, "-i", "1"), sim.file("second", 10, "-i", "1")
    sim.fault(cmd="migrate", attempts=[2, 3], errno="EBUSY")

    codes = [_migrate(sim, first).returncode for _ in range(4)]

    assert codes == [0, 16, 16, 0]
    assert _migrate(sim, second).returncode == 0


def test_a_rule_ends_with_its_count(sim: SimulatedLustre) -> None:
    sim.fault(cmd="check", exit=9, count=2)

    assert [sim.lfs("check", "osts").returncode for _ in range(3)] == [9, 9, 0]


def test_a_probability_hits_the_same_files_in_every_run(tmp_path: Path) -> None:
    def hit(name: str) -> list[int]:
        sim = simulated_lustre(tmp_path / name)
        sim.simctl("populate", "--files", "30", "--sizes", "fixed:10")
        sim.fault(cmd="getstripe", probability=0.4, exit=5)
        return [sim.lfs("getstripe", "-c", path).returncode for path in sorted(sim.mount.rglob("plain-*"))]

    codes = hit("one")

    assert 3 < codes.count(5) < 27
    assert hit("another") == codes


def test_every_call_says_in_the_log_which_rule_hit_it(sim: SimulatedLustre) -> None:
    sim.fault(cmd="df", delay=0)

    sim.lfs("check", "osts")
    sim.lfs("df")

    assert [call["fault"] for call in sim.calls()] == [None, 1]


def test_rules_are_added_listed_and_cleared_by_simctl(sim: SimulatedLustre) -> None:
    rule = {"cmd": "check", "errno": "EIO", "count": 3}

    assert sim.simctl("fault", "add", json.dumps(rule)) == "rule 1\n"
    assert json.loads(sim.simctl("fault", "list", "--json")) == [{"id": 1, "rule": rule, "remaining": 3}]
    assert sim.lfs("check", "osts").returncode == 5
    sim.simctl("fault", "clear")

    assert sim.lfs("check", "osts").returncode == 0


@pytest.mark.parametrize(
    "rule", ['{"cmd":"check"}', '{"cmd":"check","colour":"red"}', '{"errno":"EWRONG"}', "not JSON", "[]"]
)
def test_a_rule_that_makes_no_sense_is_refused(rule: str, sim: SimulatedLustre) -> None:
    result = sim.run("simctl", "fault", "add", rule)

    assert result.returncode == 3
    assert result.stderr.startswith("simctl fault: ")
