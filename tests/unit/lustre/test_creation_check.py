from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from lustre_builders import FakeRecorder, attempt
from simulated_lustre import SimulatedLustre, simulated_lustre

from cyclone.lustre import creation_check_task
from cyclone.lustre.creation_check_task import LustreFileCreationCheckTask
from cyclone.lustre.lfs import Lfs, LfsMissing
from cyclone.lustre.ost_task import OstResult, OstState
from cyclone.task_file import TaskFile

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture
def sim(tmp_path: Path) -> SimulatedLustre:
    """With a directory on each of three MDTs."""
    made = simulated_lustre(tmp_path, mdts=3)
    for mdt in range(3):
        made.said("mkdir", "-i", str(mdt), made.mount / f"mdt{mdt}")
    return made


def task(sim: SimulatedLustre, **given: Any) -> LustreFileCreationCheckTask:
    properties = {
        "ost_idx": 3,
        "lfs_target": "lustre",
        "target_base_dir": str(sim.mount),
        "target_mdt_sub_dir": "mdt",
        "mdt_index_rangeset": "0-2",
        "pushgateway_client_name": "gateway",
        "pushgateway_client_port": "5888",
        "pushgateway_client_timeout": "10000",
        "lfs_bin": str(sim.bin / "lfs"),
    }
    return LustreFileCreationCheckTask(**{**properties, **given})


def checked(made: LustreFileCreationCheckTask) -> tuple[OstResult, list[Mapping[str, Any]]]:
    """The result, and the fields of each pair in the order of MDTs."""
    recorder = FakeRecorder()
    result = attempt(made, recorder=recorder)
    assert isinstance(result, OstResult)
    assert {(sink, kind) for sink, kind, _ in recorder.rows} == {("pushgateway", "file_creation")}
    return result, [fields for _, _, fields in recorder.rows]


def leftovers(sim: SimulatedLustre) -> list[Path]:
    return list(sim.mount.glob("mdt*/*"))


# What goes well.


def test_every_pair_is_told_of_with_its_indexes(sim: SimulatedLustre) -> None:
    before = datetime.now(UTC)

    result, pairs = checked(task(sim))

    assert [(pair["target"], pair["mdt_index"], pair["ost_index"]) for pair in pairs] == [
        ("lustre", 0, 3), ("lustre", 1, 3), ("lustre", 2, 3),
    ]  # fmt: skip
    for pair in pairs:
        assert (pair["state"], pair["reason"], pair["error"], pair["errno"]) == ("OK", "", None, None)
        assert pair["actual_ost"] == 3
        assert pair["create_seconds"] > 0
        assert pair["unlink_seconds"] > 0
        assert before <= pair["checked_at"] <= datetime.now(UTC)
    assert (result.state, result.faults) == (OstState.OK, ())
    assert set(result.fine) == {"reach", "mdt0", "mdt1", "mdt2"}


def test_files_are_made_on_their_mdt_and_ost_and_removed(sim: SimulatedLustre) -> None:
    checked(task(sim))

    made = [call["argv"] for call in sim.calls() if "setstripe" in call["argv"]]
    assert [Path(argv[-1]).parent.name for argv in made] == ["mdt0", "mdt1", "mdt2"]
    assert {argv[argv.index("-o") + 1] for argv in made} == {"3"}
    assert leftovers(sim) == []


def test_lustre_may_be_asked_as_cyclone_2_did(sim: SimulatedLustre) -> None:
    checked(task(sim, ost_list="off"))

    made = [call["argv"] for call in sim.calls() if "setstripe" in call["argv"]]
    assert {argv[argv.index("-i") + 1] for argv in made} == {"3"}


def test_a_task_file_of_cyclone_2_goes_on_working(sim: SimulatedLustre, tmp_path: Path) -> None:
    file = tmp_path / "tasks.xml"
    file.write_text(
        f"""<tasks><task name="LustreFileCreationCheckTask">
            <class module="task.lustre_file_creation_check_task" name="LustreFileCreationCheckTask"/>
            <property>
                <ost_idx/>
                <lfs_target>lustre</lfs_target>
                <target_base_dir>{sim.mount}</target_base_dir>
                <target_mdt_sub_dir>mdt</target_mdt_sub_dir>
                <mdt_index_rangeset>0,1-2</mdt_index_rangeset>
                <pushgateway_client_name>localhost</pushgateway_client_name>
                <pushgateway_client_port>5888</pushgateway_client_port>
                <pushgateway_client_timeout>10000</pushgateway_client_timeout>
                <lfs_bin>{sim.bin / "lfs"}</lfs_bin>
            </property></task></tasks>"""
    )

    made = TaskFile.read(file).make("LustreFileCreationCheckTask", ost_idx=1)

    assert isinstance(made, LustreFileCreationCheckTask)
    assert len(checked(made)[1]) == 3


@pytest.mark.parametrize(
    ("given", "sinks"),
    [
        ({"pushgateway_client_name": ""}, []),
        ({"pushgateway_client_name": "", "database": "on"}, ["database"]),
        ({"database": True}, ["pushgateway", "database"]),
    ],
)
def test_rows_go_to_the_sinks_that_were_asked_for(
    sim: SimulatedLustre, given: dict[str, Any], sinks: list[str]
) -> None:
    recorder = FakeRecorder()

    attempt(task(sim, mdt_index_rangeset="1", **given), recorder=recorder)

    assert [sink for sink, _, _ in recorder.rows] == sinks


# What goes wrong.


def test_a_file_that_was_put_elsewhere_tells_where(sim: SimulatedLustre) -> None:
    sim.fault(cmd="setstripe", displace=5, path="*/mdt1/*")

    result, pairs = checked(task(sim))

    assert [(pair["state"], pair["actual_ost"]) for pair in pairs] == [("OK", 3), ("FAILED", 5), ("OK", 3)]
    assert (pairs[1]["reason"], pairs[1]["error"]) == ("FAILED", "the file is on 5 instead of 3")
    assert [(fault.phase, fault.state) for fault in result.faults] == [("mdt1", OstState.DISPLACED)]
    assert leftovers(sim) == []


def test_without_a_list_the_next_usable_ost_is_found_out(sim: SimulatedLustre) -> None:
    sim.ost(3, state="nocreate")

    _, pairs = checked(task(sim, ost_list=False))

    assert {(pair["state"], pair["actual_ost"]) for pair in pairs} == {("FAILED", 4)}


def test_an_error_of_one_pair_is_told_with_its_indexes_and_the_others_go_on(sim: SimulatedLustre) -> None:
    sim.fault(cmd="setstripe", errno="ENOSPC", path="*/mdt1/*")

    _, pairs = checked(task(sim))

    assert [pair["state"] for pair in pairs] == ["OK", "ERROR", "OK"]
    assert (pairs[1]["mdt_index"], pairs[1]["ost_index"], pairs[1]["errno"]) == (1, 3, 28)
    assert pairs[1]["reason"] == "ENOSPC"
    assert "No space left on device" in pairs[1]["error"]


def test_an_ost_that_a_metadata_server_cannot_reach_is_an_error_of_its_pairs(sim: SimulatedLustre) -> None:
    sim.ost(3, state="down")

    result, pairs = checked(task(sim))

    assert {(pair["state"], pair["reason"]) for pair in pairs} == {("ERROR", "EREMOTEIO")}
    assert "reach" not in result.fine


def test_a_pair_that_hangs_keeps_no_other_waiting(sim: SimulatedLustre) -> None:
    sim.fault(cmd="setstripe", hang=True, path="*/mdt1/*")

    _, pairs = checked(task(sim, pair_timeout=3))

    assert [(pair["state"], pair["reason"]) for pair in pairs] == [
        ("OK", ""), ("TIMEOUT", "TIMEOUT"), ("OK", ""),
    ]  # fmt: skip


def test_a_directory_on_another_mdt_is_found_out(sim: SimulatedLustre) -> None:
    (sim.mount / "mdt1").rmdir()
    sim.said("mkdir", "-i", "2", sim.mount / "mdt1")

    _, pairs = checked(task(sim))

    assert [pair["state"] for pair in pairs] == ["OK", "MISPLACED_DIR", "OK"]
    assert pairs[1]["error"].endswith("mdt1 is on MDT 2")
    assert pairs[1]["reason"] == "MISPLACED_DIR"


def test_a_missing_directory_is_an_error(sim: SimulatedLustre) -> None:
    (sim.mount / "mdt1").rmdir()

    _, pairs = checked(task(sim))

    assert [(pair["state"], pair["reason"]) for pair in pairs] == [
        ("OK", ""),
        ("ERROR", "ENOENT"),
        ("OK", ""),
    ]


def test_a_missing_directory_is_made_if_that_is_wanted(sim: SimulatedLustre) -> None:
    (sim.mount / "mdt1").rmdir()

    _, pairs = checked(task(sim, create_dirs="yes"))

    assert [pair["state"] for pair in pairs] == ["OK", "OK", "OK"]
    assert sim.said("getdirstripe", "-m", sim.mount / "mdt1").strip() == "1"


def test_a_node_without_lfs_says_nothing_about_any_pair(sim: SimulatedLustre) -> None:
    recorder = FakeRecorder()

    with pytest.raises(LfsMissing):
        attempt(task(sim, lfs_bin="/no/lfs"), recorder=recorder)

    assert recorder.rows == []


def test_the_attempt_has_a_time_limit_above_those_of_its_pairs(sim: SimulatedLustre) -> None:
    assert task(sim, pair_timeout=10).timeout == 90


# What is known without looking.


@pytest.mark.parametrize(
    ("state", "recorded"),
    [
        (OstState.DOWN, "DOWN"),
        (OstState.HUNG, "HUNG"),
        (OstState.TIMEOUT, "TIMEOUT"),
        (OstState.FAILED, "ERROR"),
    ],
)
def test_the_state_of_an_ost_is_that_of_all_its_pairs(
    sim: SimulatedLustre, state: OstState, recorded: str
) -> None:
    recorder = FakeRecorder()

    for row in task(sim).state_rows(state, "no answer", NOON):
        recorder.record(row.sink, row.kind, row.fields)

    assert [(fields["mdt_index"], fields["state"]) for _, _, fields in recorder.rows] == [
        (mdt, recorded) for mdt in range(3)
    ]


def test_a_round_tells_how_many_pairs_had_an_error(sim: SimulatedLustre) -> None:
    sim.fault(cmd="setstripe", errno="EIO", path="*/mdt1/*")
    sim.fault(cmd="setstripe", displace=5, path="*/mdt2/*")
    result, _ = checked(task(sim))

    (row,) = task(sim).round_rows([result], [], NOON)

    recorder = FakeRecorder()
    recorder.record(row.sink, row.kind, row.fields)
    assert recorder.only() == {"target": "lustre", "started_at": NOON, "pairs": 3, "errors": 1}


def test_a_round_counts_pairs_that_no_task_could_tell_of(sim: SimulatedLustre) -> None:
    result, _ = checked(task(sim))
    late = task(sim, database="on").state_rows(OstState.HUNG, "its task has not ended", NOON)
    lost = task(sim, ost_idx=4, database="on").state_rows(OstState.FAILED, "no program lfs", NOON)

    rows = task(sim, database="on").round_rows([result], [*late, *lost], NOON)

    assert {(row.fields["pairs"], row.fields["errors"]) for row in rows} == {(6, 3)}


def test_a_pair_has_one_bound_for_all_its_steps_and_only_making_the_file_is_measured(
    sim: SimulatedLustre, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    left_s: list[float] = []

    def lasting(name: str, duration_s: float) -> None:
        really = getattr(Lfs, name)

        def step(self: Lfs, *given: Any, **named: Any) -> Any:
            left_s.append(self.timeout_s)
            clock[0] += duration_s
            return really(self, *given, **named)

        monkeypatch.setattr(Lfs, name, step)

    monkeypatch.setattr("cyclone.lustre.creation_check_task.perf_counter", lambda: clock[0])
    for name, duration_s in (("mdt_of_directory", 50.0), ("create", 200.0), ("layout", 300.0)):
        lasting(name, duration_s)

    _, (pair,) = checked(task(sim, mdt_index_rangeset="0", pair_timeout=900))

    assert left_s == [900.0, 850.0, 650.0]
    assert (pair["create_seconds"], pair["unlink_seconds"]) == (200.0, 0.0)


# What is refused.


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mdt_index_rangeset", ""), ("mdt_index_rangeset", "5-1"), ("mdt_index_rangeset", "-1"),
        ("target_base_dir", ""), ("target_mdt_sub_dir", " "), ("pair_timeout", 0), ("pair_timeout", 1e11), ("create_dirs", "x"), ("lfs_bin", ""),
    ],
)  # fmt: skip
def test_a_wrong_property_is_refused_by_its_name(sim: SimulatedLustre, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}: "):
        task(sim, **{name: value})


def test_a_directory_that_another_task_makes_at_the_same_time_is_as_good(sim: SimulatedLustre) -> None:
    sim.fault(cmd="getdirstripe", path="*/mdt1", not_found=True, count=1)
    sim.fault(cmd="mkdir", errno="EEXIST")

    _, pairs = checked(task(sim, create_dirs=True))

    assert [pair["state"] for pair in pairs] == ["OK", "OK", "OK"]


def test_a_directory_that_cannot_be_made_is_an_error(sim: SimulatedLustre) -> None:
    (sim.mount / "mdt1").rmdir()
    sim.fault(cmd="mkdir", errno="EPERM")

    _, pairs = checked(task(sim, create_dirs=True))

    assert [pair["reason"] for pair in pairs] == ["", "EPERM", ""]


def test_a_file_that_cannot_be_removed_is_logged(
    sim: SimulatedLustre, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: str) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(creation_check_task.os, "unlink", refuse)

    _, pairs = checked(task(sim, mdt_index_rangeset="0"))

    assert (pairs[0]["state"], pairs[0]["unlink_seconds"]) == ("OK", None)
    assert "cannot be removed" in caplog.text
