from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from simulated_lustre import SimulatedLustre, simulated_lustre

from cyclone.lustre import program
from cyclone.lustre.inventory import Inventory, Survey
from cyclone.lustre.surveyor import Surveyor


@pytest.fixture
def sim(tmp_path: Path) -> SimulatedLustre:
    return simulated_lustre(tmp_path, osts=3, oss=2)


def found(sim: SimulatedLustre, **given: Any) -> Survey:
    options = {"fs_path": "", "sudo": False, "timeout_s": 20.0, "left_behind": {}, **given}
    return Surveyor(str(sim.bin / "lfs"), str(sim.bin / "lctl"), "lustre", **options).found()


def test_it_learns_which_osts_there_are_and_what_server_each_is_on(sim: SimulatedLustre) -> None:
    survey = found(sim)

    assert survey.reasons == {0: "", 1: "", 2: ""}
    assert survey.servers[0] == survey.servers[2] != survey.servers[1]


def test_it_learns_why_an_ost_does_not_answer(sim: SimulatedLustre) -> None:
    sim.ost(1, state="down")

    survey = found(sim)

    assert "107" in survey.reasons[1]


def test_it_learns_that_an_ost_was_switched_off(sim: SimulatedLustre) -> None:
    sim.ost(1, state="deactivated")

    survey = found(sim)

    assert survey.deactivated == {1}


def test_it_learns_that_an_ost_was_switched_off_also_when_lfs_check_tells_nothing(
    sim: SimulatedLustre,
) -> None:
    sim.ost(1, state="deactivated")
    sim.fault(cmd="check", errno="EPERM")

    survey = found(sim)

    assert (survey.reasons, survey.is_whole, survey.deactivated) == ({}, False, {1})


def test_an_ost_that_one_list_loses_is_in_the_other(sim: SimulatedLustre) -> None:
    sim.fault(cmd="check", lose_ost_line=2)

    survey = found(sim, fs_path=str(sim.mount))

    assert set(survey.reasons) == {0, 1}
    assert survey.in_usage == {0, 1, 2}


def test_when_lfs_check_tells_nothing_the_others_are_asked_all_the_same(sim: SimulatedLustre) -> None:
    sim.fault(cmd="check", garbage_stdout=True)

    survey = found(sim, fs_path=str(sim.mount))

    assert (survey.is_whole, survey.in_usage, set(survey.servers)) == (False, {0, 1, 2}, {0, 1, 2})
    assert set(survey.unanswered) == {"lfs check"}


def test_of_what_lfs_check_did_not_come_to_nothing_is_known(sim: SimulatedLustre, tmp_path: Path) -> None:
    broken = tmp_path / "lfs"
    broken.write_text(
        "#!/bin/sh\necho lustre-OST0000-osc-ffff8ea7b7a28000 active.\n"
        "echo 'lfs check: error: cannot allocate memory' >&2\nexit 12\n"
    )
    broken.chmod(0o755)
    inventory = Inventory()
    inventory.hear(found(sim), 100.0)

    survey = Surveyor(
        str(broken), str(sim.bin / "lctl"), "lustre", fs_path="", sudo=False, timeout_s=20.0, left_behind={}
    ).found()
    inventory.hear(survey, 160.0)

    assert (survey.reasons, survey.is_whole) == ({0: ""}, False)
    assert "cannot allocate memory" in survey.unanswered["lfs check"]
    assert [target.state for target in inventory.targets(())] == [None, None, None]


def test_without_lctl_only_the_servers_are_missing(sim: SimulatedLustre) -> None:
    sim.fault(program="lctl", errno="EPERM")

    survey = found(sim)

    assert (survey.reasons, survey.servers) == ({0: "", 1: "", 2: ""}, {})
    assert set(survey.unanswered) == {"lctl ost_conn_uuid", "lctl active"}


def test_a_path_that_is_wrong_is_told(sim: SimulatedLustre) -> None:
    survey = found(sim, fs_path="/no/such/path")

    assert survey.reasons == {0: "", 1: "", 2: ""}
    assert "No such file" in survey.unanswered["lfs df"]


def test_a_program_that_hangs_takes_no_time_of_those_after_it(sim: SimulatedLustre) -> None:
    sim.fault(program="lctl", hang=True)

    survey = found(sim, fs_path=str(sim.mount), timeout_s=6.0)

    assert (survey.reasons, survey.in_usage) == ({0: "", 1: "", 2: ""}, {0, 1, 2})


@pytest.fixture
def strict(sim: SimulatedLustre, monkeypatch: pytest.MonkeyPatch) -> SimulatedLustre:
    """Where only root may ask, and `sudo` makes one root."""
    sim.setting("needs_root", "true")
    monkeypatch.setenv("PATH", f"{sim.bin}:{os.environ['PATH']}")
    return sim


def test_with_sudo_it_learns_what_only_root_may_know(strict: SimulatedLustre) -> None:
    survey = found(strict, sudo=True)

    assert survey.reasons == {0: "", 1: "", 2: ""}
    assert len(survey.servers) == 3


def test_without_sudo_it_tells_that_it_was_refused_and_calls_no_ost_down(strict: SimulatedLustre) -> None:
    survey = found(strict, sudo=False)

    assert not survey.is_whole
    assert "Permission denied (13), expected to be root, or use_sudo" in survey.unanswered["lfs check"]
    assert survey.servers == {}


def test_programs_that_hang_keep_it_no_longer_than_it_was_given(sim: SimulatedLustre) -> None:
    sim.fault(cmd="check", hang=True)

    assert not found(sim, timeout_s=0.3).is_whole


def test_a_server_that_hangs_keeps_it_no_longer_than_it_was_given(sim: SimulatedLustre) -> None:
    sim.setting("down_block_s", 1000)
    sim.ost(1, state="hang")

    assert not found(sim, timeout_s=1.0).is_whole


def test_a_server_that_hangs_is_told_of_when_lustre_gives_it_up(sim: SimulatedLustre) -> None:
    sim.setting("down_block_s", 0.1)
    sim.ost(1, state="hang")

    survey = found(sim, fs_path=str(sim.mount))

    assert "107" in survey.reasons[1]
    assert survey.in_usage == {0, 2}
    assert len(survey.servers) == 3


def test_what_does_not_die_is_not_begun_once_more_until_it_has_ended(
    sim: SimulatedLustre, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim.fault(cmd="check", hang=True, count=1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "killpg", lambda pid, number: None)
        patch.setattr(program, "_BURIAL_S", 0.0)
        patch.setattr(program._Program, "__del__", lambda _: None)  # It complains of what is left behind.
        first = found(sim, timeout_s=2.0)
    (pid,) = first.left_behind.values()

    second = found(sim, left_behind=first.left_behind)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    third = found(sim, left_behind=second.left_behind)

    assert second.unanswered == {"lfs check": f"that of an earlier survey does not die pid={pid}"}
    assert second.left_behind == first.left_behind == {"lfs check": pid}
    assert (third.reasons, third.left_behind) == ({0: "", 1: "", 2: ""}, {})


@pytest.mark.parametrize("ending", ["", "exec >/dev/null 2>&1; "])
def test_one_that_is_abandoned_leaves_no_program_behind(
    sim: SimulatedLustre, tmp_path: Path, ending: str
) -> None:
    lfs, begun = tmp_path / "lfs", tmp_path / "begun"
    os.mkfifo(begun)
    lfs.write_text(f"#!/bin/sh\n{ending}echo $$ >{begun}\nexec sleep 3600\n")
    lfs.chmod(0o755)
    surveyor = Surveyor(
        str(lfs), str(sim.bin / "lctl"), "lustre", fs_path="/", sudo=False, timeout_s=7200.0, left_behind={}
    )
    pid = int(begun.read_text())

    surveyor.abandon(20.0)

    try:
        assert surveyor.is_over
        assert not Path(f"/proc/{pid}").exists()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        surveyor.found()
