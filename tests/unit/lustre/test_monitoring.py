from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from lustre_builders import FakeRecorder, attempt
from simulated_lustre import simulated_lustre
from smtp_server import SmtpServer

from cyclone.base_task import BaseTask
from cyclone.errors import ConfigError
from cyclone.ini import Ini
from cyclone.lustre.alert_io_task import LustreAlertIOTask
from cyclone.lustre.incidents import Notice
from cyclone.lustre.inventory import Survey
from cyclone.lustre.io_task import LustreIOTask
from cyclone.lustre.leftovers import RemoveLeftoversTask
from cyclone.lustre.mail import Mail, Postman
from cyclone.lustre.monitoring import LustreOstMonitoringTaskGenerator
from cyclone.lustre.ost_state_task import OstStateTask
from cyclone.lustre.ost_task import Fault, OstResult, OstState, OstTask
from cyclone.task_generator import Result
from cyclone.tasks.empty import EmptyTask

#: Where the clock of the wall stands when a test begins.
UNIX = 1_800_000_000.0

TASKS = """<tasks>
    <task name="empty"><class module="cyclone.tasks.empty" name="EmptyTask"/></task>
    <task name="io"><class module="cyclone.lustre.io_task" name="LustreIOTask"/>
        <property>
            <ost_idx/><block_size_bytes>4K</block_size_bytes><total_size_bytes>4K</total_size_bytes>
            <write_file_sync>off</write_file_sync><target_dir>{mount}</target_dir><lfs_bin>{lfs}</lfs_bin>
            <lfs_target>lustre</lfs_target><db_proxy_target>proxy</db_proxy_target><db_proxy_port/>
        </property></task>
    <task name="alert"><class module="cyclone.lustre.alert_io_task" name="LustreAlertIOTask"/>
        <property>
            <mail_server>127.0.0.1:{port}</mail_server><mail_sender>cyclone@example.org</mail_sender>
            <mail_receiver>one@example.org</mail_receiver><mail_threshold>60</mail_threshold>
            <mail_digest>3</mail_digest><mail_repeat>3600</mail_repeat>
            <ost_idx/><block_size_bytes>4K</block_size_bytes><total_size_bytes>4K</total_size_bytes>
            <write_file_sync>off</write_file_sync><target_dir>{mount}</target_dir><lfs_bin>{lfs}</lfs_bin>
            <lfs_target>lustre</lfs_target><db_proxy_target>proxy</db_proxy_target><db_proxy_port/>
        </property></task>
    <task name="creation"><class module="cyclone.lustre.creation_check_task" name="LustreFileCreationCheckTask"/>
        <property>
            <ost_idx/><lfs_target>lustre</lfs_target><target_base_dir>{mount}</target_base_dir>
            <target_mdt_sub_dir>mdt</target_mdt_sub_dir><mdt_index_rangeset>0-1</mdt_index_rangeset>
            <pushgateway_client_name>gateway</pushgateway_client_name><pushgateway_client_port/>
            <pushgateway_client_timeout/><lfs_bin>{lfs}</lfs_bin>
        </property></task>
    <task name="strange"><class module="cyclone.tasks.command" name="CommandTask"/>
        <property><command>true</command></property></task>
</tasks>"""

Behaviour = Callable[[BaseTask], Result | None]


def ended(tid: str, value: object = None, **given: Any) -> Result:
    fields = {
        "state": "succeeded",
        "outcome": "succeeded",
        "code": 0,
        "error": "",
        "attempts": 1,
        "duration_s": 0.1,
    }
    return Result(tid=tid, value=value, **{**fields, **given})


def fine(task: BaseTask) -> Result:
    """What an OST in order leads to."""
    assert task.tid is not None
    if isinstance(task, OstTask):
        phases = ("reach", "create", "write", "read")
        return ended(task.tid, OstResult(task.ost_idx, OstState.OK, (), phases))
    return ended(task.tid)


class Stage:
    """A desk and two clocks: time passes only while the generator waits for results.

    behave: what becomes of a task that was handed in; None is that it does not end.
    until: the moment at which the master stops, on the monotonic clock, which begins at 0.
    remembered: what has ended, by tid, as a store does.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.until = 1e9
        self.behave: Behaviour = fine
        self.submitted: list[BaseTask] = []
        self.moments: list[float] = []
        self.remembered: dict[str, Result] = {}
        self.on_moment: Callable[[], None] = lambda: None
        self._idle = 0
        self._ends: list[Result] = []
        self._hanging: dict[str, BaseTask] = {}

    @property
    def stopping(self) -> bool:
        return self.now >= self.until

    def submit(self, task: BaseTask) -> str:
        tid = task.tid
        assert tid is not None
        self.submitted.append(task)
        self.moments.append(self.now)
        if tid not in self.remembered:
            self._hanging[tid] = task
        self.settle(tid)
        return tid

    def settle(self, tid: str) -> None:
        """Ask again what becomes of a task that did not end."""
        if tid in self._hanging:
            result = self.behave(self._hanging[tid])
            if result is None:
                return
            self.remembered[tid] = result
            del self._hanging[tid]
        self._ends.append(self.remembered[tid])

    def results(self, timeout_s: float | None) -> Iterator[Result]:
        assert timeout_s is not None
        self.on_moment()
        while self._ends:
            self._idle = 0
            yield self._ends.pop(0)
        # At least as much as a clock can tell apart.
        self.now += max(timeout_s, 0.001) if timeout_s else 0.0
        self._idle = self._idle + 1 if not timeout_s else 0
        assert self._idle < 10, "the generator does not wait"

    def sleep(self, seconds: float) -> None:
        raise AssertionError("the generator waits for results instead")

    def restart(self) -> None:
        """Another life of the generator: what runs goes on running, what has ended is told again when asked for."""
        self.submitted.clear()
        self.moments.clear()
        self._ends.clear()

    # Looking at it.

    def looked_at(self) -> list[int]:
        return [task.ost_idx for task in self.submitted if isinstance(task, OstTask)]

    def tids(self) -> list[str | None]:
        return [task.tid for task in self.submitted if isinstance(task, (OstTask, EmptyTask))]

    def rows(self, kind: str = "ost_perf") -> list[Any]:
        """The fields of what the generator had recorded by tasks of its own."""
        recorder = FakeRecorder()
        for task in self.submitted:
            if isinstance(task, OstStateTask):
                attempt(task, str(task.tid), recorder)
        return [fields for _, name, fields in recorder.rows if name == kind]


class Instant:
    """A survey that is over at once."""

    def __init__(self, survey: Survey) -> None:
        self._survey = survey

    is_over = True

    def found(self) -> Survey:
        return self._survey


class Watched(LustreOstMonitoringTaskGenerator):
    """A generator that is told by the test what surveys find, and what time it is."""

    stage: Stage
    survey = Survey({0: "", 1: "", 2: ""})

    def _survey(self) -> Any:
        return Instant(self.survey)


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def lfs(tmp_path: Path) -> Path:
    program = tmp_path / "lfs"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    return program


def config(
    tmp_path: Path, sections: dict[str, dict[str, str]], port: int = 25, mount: Path | None = None
) -> Ini:
    tasks = TASKS.format(mount=mount or tmp_path, lfs=tmp_path / "lfs", port=port)
    (tmp_path / "tasks.xml").write_text(tasks)
    complete = {
        "control": {"state_file": str(tmp_path / "state" / "memory.json")},
        "task": {"task_file": str(tmp_path / "tasks.xml"), "task_name": "io"},
        "lustre": {"target": "lustre", "lfs_bin": str(tmp_path / "lfs")},
        "mail": {"spool": str(tmp_path / "spool")},
    }
    for section, keys in sections.items():
        complete.setdefault(section, {}).update(keys)
    return Ini(complete)


def generator(stage: Stage, ini: Ini, survey: Survey | None = None, kind: type[Watched] = Watched) -> Watched:
    made = kind(ini)
    made.validate_config()
    made._attach(stage)
    made._monotonic = lambda: stage.now  # type: ignore[assignment]
    made._unix = lambda: UNIX + stage.now  # type: ignore[assignment]
    if survey is not None:
        made.survey = survey
    return made


def faulty(
    *osts: int, phase: str = "write", state: OstState = OstState.WRITE_FAILED, mailed: bool = False
) -> Behaviour:
    """These OSTs have a fault, the others are fine."""

    def behave(task: BaseTask) -> Result | None:
        if isinstance(task, OstTask) and task.ost_idx in osts:
            assert task.tid is not None
            fault = Fault(phase, state, "[Errno 5] Input/output error", mailed)
            told = OstState.OK if state is OstState.SLOW else state
            return ended(task.tid, OstResult(task.ost_idx, told, (fault,), ("reach",)))
        return fine(task)

    return behave


def hanging(*osts: int) -> Behaviour:
    """The tasks of these OSTs do not end."""
    return lambda task: None if isinstance(task, OstTask) and task.ost_idx in osts else fine(task)


# Rounds.


@pytest.mark.usefixtures("lfs")
def test_each_ost_is_looked_at_in_each_round(stage: Stage, tmp_path: Path) -> None:
    made = generator(stage, config(tmp_path, {"control": {"measure_interval": "60", "cycles": "3"}}))

    made.run()

    assert stage.looked_at() == [0, 1, 2] * 3
    assert len(set(stage.tids())) == 9


@pytest.mark.usefixtures("lfs")
def test_rounds_begin_at_a_fixed_rate(stage: Stage, tmp_path: Path) -> None:
    made = generator(stage, config(tmp_path, {"control": {"measure_interval": "60", "cycles": "5"}}))

    made.run()

    begins = [moment for task, moment in zip(stage.submitted, stage.moments, strict=True)
              if isinstance(task, OstTask) and task.ost_idx == 0]  # fmt: skip
    assert begins == pytest.approx([0, 60, 120, 180, 240], abs=0.1)


@pytest.mark.usefixtures("lfs")
def test_a_tid_names_round_and_ost(stage: Stage, tmp_path: Path) -> None:
    generator(stage, config(tmp_path, {"control": {"cycles": "1"}})).run()

    assert stage.tids() == [f"mon-{int(UNIX)}-{ost}" for ost in range(3)]


@pytest.mark.usefixtures("lfs")
def test_the_number_of_a_round_is_never_used_twice_when_the_clock_is_set_back(
    stage: Stage, tmp_path: Path
) -> None:
    generator(stage, config(tmp_path, {"control": {"cycles": "1"}})).run()
    later = generator(stage, config(tmp_path, {"control": {"cycles": "1"}}))
    later._unix = lambda: UNIX - 86_400  # type: ignore[assignment]

    later.run()

    assert len(set(stage.tids())) == 6


@pytest.mark.usefixtures("lfs")
def test_a_round_ends_with_its_counts_in_the_log_and_in_a_row(
    stage: Stage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    stage.behave = faulty(1)
    survey = Survey({0: "", 1: "", 2: "no answer (107)"})

    generator(stage, config(tmp_path, {"control": {"cycles": "1"}}), survey).run()

    assert "expected=3 ok=1 failed=1 down=1 hung=0 skipped=0" in caplog.text
    (row,) = stage.rows("ost_round")
    assert (row["fs"], row["task"], row["expected"], row["failed"]) == ("lustre", "io", 3, 1)
    assert row["started_at"].timestamp() == pytest.approx(UNIX, abs=0.1)


@pytest.mark.usefixtures("lfs")
def test_a_master_that_stops_ends_it(stage: Stage, tmp_path: Path) -> None:
    stage.until = 130.0

    generator(stage, config(tmp_path, {})).run()

    assert stage.looked_at() == [0, 1, 2] * 3


@pytest.mark.usefixtures("lfs")
def test_the_first_round_may_follow_the_time_of_day(stage: Stage, tmp_path: Path) -> None:
    local = datetime.fromtimestamp(UNIX).astimezone()
    at = f"{(local.hour + 1) % 24:02}:00"
    begin_s = 3600 - local.minute * 60 - local.second
    keys = {"at": at, "measure_interval": "86400", "cycles": "2"}

    generator(stage, config(tmp_path, {"control": keys}), Survey({0: ""})).run()

    begins = [
        moment
        for task, moment in zip(stage.submitted, stage.moments, strict=True)
        if isinstance(task, OstTask)
    ]
    assert begins == pytest.approx([begin_s, begin_s + 86_400], abs=0.1)


@pytest.mark.usefixtures("lfs")
def test_a_clock_that_is_set_back_a_little_measures_no_round_twice(stage: Stage, tmp_path: Path) -> None:
    local = datetime.fromtimestamp(UNIX).astimezone()
    keys = {"at": f"{(local.hour + 1) % 24:02}:00", "measure_interval": "86400"}
    made = generator(stage, config(tmp_path, {"control": keys}), Survey({0: ""}))
    stage.until = 7200.0
    # Two seconds, right when the round begins.
    made._unix = lambda: (
        UNIX + stage.now - (2.0 if stage.now >= 3600 - local.minute * 60 - local.second else 0.0)
    )

    made.run()

    assert stage.looked_at() == [0]


class Slow(Instant):
    """A survey that takes 35 seconds."""

    def __init__(self, stage: Stage, survey: Survey) -> None:
        super().__init__(survey)
        self._stage, self._until = stage, stage.now + 35.0

    @property
    def is_over(self) -> bool:  # type: ignore[override]
        return self._stage.now >= self._until

    def abandon(self, patience_s: float) -> None:
        pass


class SlowlySurveyed(Watched):
    def _survey(self) -> Any:
        return Slow(self.stage, self.survey)


@pytest.mark.usefixtures("lfs")
def test_a_survey_of_more_than_half_an_interval_costs_no_round(stage: Stage, tmp_path: Path) -> None:
    local = datetime.fromtimestamp(UNIX).astimezone()
    first_s = 60 - local.second
    SlowlySurveyed.stage = stage
    stage.until = first_s + 200.0
    ini = config(tmp_path, {"control": {"at": "00:00", "measure_interval": "60"}})

    generator(stage, ini, Survey({0: ""}), SlowlySurveyed).run()

    begins = [
        moment
        for task, moment in zip(stage.submitted, stage.moments, strict=True)
        if isinstance(task, OstTask)
    ]
    assert begins == pytest.approx([first_s + 35 + 60 * number for number in range(3)], abs=0.2)


@pytest.mark.usefixtures("lfs")
@pytest.mark.parametrize("keys", [{"cycles": "1"}, {"at": "00:00"}])
def test_several_monitors_do_not_begin_at_one_moment_however_they_are_told_when(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, str]
) -> None:
    begins = []
    for share in (0.0, 1.0):
        monkeypatch.setattr("random.uniform", lambda low, high, share=share: share * high)
        made = generator(stage, config(tmp_path, {"control": {**keys, "start_jitter": "7"}}))
        made._start()
        begins.append(made._schedule.due)

    assert (begins[1] - begins[0]) % 60 == pytest.approx(7.0)


@pytest.mark.usefixtures("lfs")
@pytest.mark.parametrize("jitter_s", [20, 45, 59])
def test_every_round_is_put_off_by_the_same_and_none_is_left_out(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jitter_s: int
) -> None:
    local = datetime.fromtimestamp(UNIX).astimezone()
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    keys = {"at": "00:00", "measure_interval": "60", "start_jitter": str(jitter_s), "cycles": "4"}

    generator(stage, config(tmp_path, {"control": keys}), Survey({0: ""})).run()

    first_s = (jitter_s - local.second) % 60
    begins = [
        moment
        for task, moment in zip(stage.submitted, stage.moments, strict=True)
        if isinstance(task, OstTask)
    ]
    assert begins == pytest.approx([first_s + 60 * number for number in range(4)], abs=0.2)


@pytest.mark.usefixtures("lfs")
def test_neighbours_are_on_different_servers_and_no_server_gets_too_many(
    stage: Stage, tmp_path: Path
) -> None:
    servers = {0: "a", 1: "a", 2: "b"}
    stage.behave = hanging(0, 1, 2)
    stage.until = 10.0
    ini = config(tmp_path, {"lustre": {"oss_max_tasks": "1"}})

    generator(stage, ini, Survey({0: "", 1: "", 2: ""}, servers=servers)).run()

    assert stage.looked_at() == [0, 2]


@pytest.mark.usefixtures("lfs")
def test_a_task_that_waits_too_long_for_a_worker_is_dropped_and_its_ost_skipped(
    stage: Stage, tmp_path: Path
) -> None:
    def behave(task: BaseTask) -> Result | None:
        if isinstance(task, OstTask) and task.ost_idx == 1:
            reason = "it expired before it was started"
            return ended(str(task.tid), state="cancelled", outcome="cancelled", attempts=0, error=reason)
        return fine(task)

    stage.behave = behave

    generator(stage, config(tmp_path, {"control": {"cycles": "1"}})).run()

    (row,) = stage.rows("ost_round")
    assert (row["ok"], row["skipped"], row["failed"]) == (2, 1, 0)
    assert {task.expires for task in stage.submitted if isinstance(task, OstTask)} == {30.0}


# Which OSTs.


@pytest.mark.usefixtures("lfs")
def test_an_ost_that_is_down_gets_a_row_at_once_and_no_task(stage: Stage, tmp_path: Path) -> None:
    survey = Survey({0: "", 1: "Cannot send after transport endpoint shutdown (108)"})

    generator(stage, config(tmp_path, {"control": {"cycles": "1"}}), survey).run()

    assert stage.looked_at() == [0]
    (row,) = stage.rows()
    assert (row["ost"], row["state"]) == (1, "DOWN")
    assert "(108)" in row["error"]
    assert isinstance(stage.submitted[0], OstStateTask)


@pytest.mark.usefixtures("lfs")
def test_an_ost_that_is_down_is_tried_if_that_is_wanted(stage: Stage, tmp_path: Path) -> None:
    ini = config(tmp_path, {"control": {"cycles": "1"}, "lustre": {"probe_down": "on"}})

    generator(stage, ini, Survey({0: "", 1: "no answer"})).run()

    assert stage.looked_at() == [0, 1]


@pytest.mark.usefixtures("lfs")
def test_a_selected_ost_that_does_not_exist_gets_a_row_and_stops_nothing(
    stage: Stage, tmp_path: Path
) -> None:
    ini = config(tmp_path, {"control": {"cycles": "1"}, "lustre": {"ost_select_list": "1,9"}})

    generator(stage, ini).run()

    assert stage.looked_at() == [1]
    assert [(row["ost"], row["state"]) for row in stage.rows()] == [(9, "UNKNOWN")]


@pytest.mark.usefixtures("lfs")
def test_an_ost_that_was_seen_once_is_expected_by_the_next_life(stage: Stage, tmp_path: Path) -> None:
    generator(stage, config(tmp_path, {"control": {"cycles": "1"}})).run()
    stage.restart()

    generator(stage, config(tmp_path, {"control": {"cycles": "1"}}), Survey({0: "", 2: ""})).run()

    assert [(row["ost"], row["state"]) for row in stage.rows()] == [(1, "DOWN")]
    assert "last seen" in stage.rows()[0]["error"]


@pytest.mark.usefixtures("lfs")
def test_when_lfs_tells_nothing_everything_known_is_tried(stage: Stage, tmp_path: Path) -> None:
    generator(stage, config(tmp_path, {"control": {"cycles": "1"}})).run()
    stage.restart()

    generator(stage, config(tmp_path, {"control": {"cycles": "1"}}), Survey(is_whole=False)).run()

    assert stage.looked_at() == [0, 1, 2]


@pytest.mark.usefixtures("lfs")
def test_when_nothing_is_known_at_all_it_goes_on_trying(
    stage: Stage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    generator(stage, config(tmp_path, {"control": {"cycles": "2"}}), Survey(is_whole=False)).run()

    assert stage.looked_at() == []
    assert caplog.text.count("no OST is known") == 2


@pytest.mark.usefixtures("lfs")
def test_a_survey_that_is_not_complete_is_told_once(
    stage: Stage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    survey = Survey({0: ""}, unanswered={"lfs df": "no such path"})

    generator(stage, config(tmp_path, {"control": {"cycles": "3"}}), survey).run()

    assert caplog.text.count("survey is not complete program=lfs df reason=no such path") == 1


@pytest.mark.usefixtures("lfs")
def test_files_of_dead_tasks_are_removed_now_and_then(stage: Stage, tmp_path: Path) -> None:
    stage.until = 7200.0

    generator(stage, config(tmp_path, {}), Survey({0: "", 4: "no answer"})).run()

    removals = [task for task in stage.submitted if isinstance(task, RemoveLeftoversTask)]
    assert [task.directories for task in removals] == [(str(tmp_path),)] * 2
    assert removals[0].osts_avoided == {4}


@pytest.mark.usefixtures("lfs")
def test_leftovers_are_not_looked_for_where_something_hangs_nor_twice_at_a_time(
    stage: Stage, tmp_path: Path
) -> None:
    def behave(task: BaseTask) -> Result | None:
        is_stuck = isinstance(task, RemoveLeftoversTask) and stage.now > 3000
        return None if is_stuck else hanging(1)(task)

    stage.behave = behave
    stage.until = 11_000.0
    ini = config(tmp_path, {"lustre": {"ost_select_list": "0-2", "probe_down": "on"}})

    generator(stage, ini, Survey({0: "", 1: "", 2: "no answer", 7: "no answer"})).run()

    removals = [task for task in stage.submitted if isinstance(task, RemoveLeftoversTask)]
    assert [task.osts_avoided for task in removals] == [{2, 7}, {1, 2, 7}]


@pytest.mark.usefixtures("lfs")
def test_leftovers_are_not_looked_for_where_something_hangs_that_is_selected_no_more(
    stage: Stage, tmp_path: Path
) -> None:
    stage.behave = hanging(2)
    stage.until = 3700.0
    made = generator(stage, config(tmp_path, {}))
    asking(stage, made, 200.0, "select", osts="0-1")

    made.run()

    removals = [task for task in stage.submitted if isinstance(task, RemoveLeftoversTask)]
    assert [task.osts_avoided for task in removals] == [set(), {2}]


# What hangs.


@pytest.mark.usefixtures("lfs")
def test_a_task_that_does_not_end_makes_its_ost_hung_and_gets_no_second_one(
    stage: Stage, tmp_path: Path
) -> None:
    stage.behave = hanging(1)
    stage.until = 130.0

    generator(stage, config(tmp_path, {})).run()

    assert stage.looked_at().count(1) == 1
    assert stage.looked_at().count(0) == 3
    rows = [row for row in stage.rows() if row["state"] == "HUNG"]
    assert [row["ost"] for row in rows] == [1, 1]
    assert "60 s ago" in rows[0]["error"]


@pytest.mark.usefixtures("lfs")
def test_what_hangs_is_told_long_before_the_next_round_if_rounds_are_rare(
    stage: Stage, tmp_path: Path
) -> None:
    stage.behave = hanging(1)
    stage.until = 3700.0

    generator(stage, config(tmp_path, {"control": {"measure_interval": "86400"}})).run()

    (row,) = [row for row in stage.rows() if row["state"] == "HUNG"]
    assert "3600 s ago" in row["error"]


@pytest.mark.usefixtures("lfs")
def test_an_ost_that_no_longer_hangs_is_looked_at_again(stage: Stage, tmp_path: Path) -> None:
    stage.behave = hanging(1)
    stage.until = 250.0

    def recover() -> None:
        if stage.now > 130 and stage.behave is not fine:
            stage.behave = fine
            stage.settle(f"mon-{int(UNIX)}-1")

    stage.on_moment = recover

    generator(stage, config(tmp_path, {})).run()

    looks = [moment for task, moment in zip(stage.submitted, stage.moments, strict=True)
             if isinstance(task, OstTask) and task.ost_idx == 1]  # fmt: skip
    assert looks == pytest.approx([0, 180, 240], abs=0.1)


@pytest.mark.usefixtures("lfs")
def test_a_run_of_so_many_rounds_ends_though_something_hangs(stage: Stage, tmp_path: Path) -> None:
    stage.behave = hanging(1)

    generator(stage, config(tmp_path, {"control": {"cycles": "1"}})).run()

    assert [row["state"] for row in stage.rows()] == ["HUNG"]
    (row,) = stage.rows("ost_round")
    assert (row["ok"], row["hung"]) == (2, 1)


@pytest.mark.usefixtures("lfs")
@pytest.mark.parametrize(
    ("outcome", "state"), [("timed_out", "TIMEOUT"), ("raised", "FAILED"), ("lost", "FAILED")]
)
def test_a_task_that_could_not_tell_gets_a_row_that_says_why(
    stage: Stage, tmp_path: Path, outcome: str, state: str
) -> None:
    def behave(task: BaseTask) -> Result | None:
        if isinstance(task, OstTask) and task.ost_idx == 1:
            return ended(str(task.tid), state="failed", outcome=outcome, error="no program lfs\nTraceback")
        return fine(task)

    stage.behave = behave

    generator(stage, config(tmp_path, {"control": {"cycles": "1"}})).run()

    assert [(row["ost"], row["state"], row["error"]) for row in stage.rows()] == [
        (1, state, "no program lfs")
    ]


@pytest.mark.usefixtures("lfs")
def test_a_run_of_so_many_rounds_ends_though_what_hangs_keeps_others_waiting(
    stage: Stage, tmp_path: Path
) -> None:
    stage.behave = hanging(0)

    generator(stage, config(tmp_path, {"control": {"cycles": "1", "max_tasks": "1"}})).run()

    (row,) = stage.rows("ost_round")
    assert (row["hung"], row["skipped"]) == (1, 2)


@pytest.mark.usefixtures("lfs")
def test_what_becomes_hung_as_a_round_begins_is_recorded_beside_what_already_was(
    stage: Stage, tmp_path: Path
) -> None:
    def behave(task: BaseTask) -> Result | None:
        return hanging(0, 1)(task) if stage.now < 100 else hanging(0, 1, 2)(task)

    stage.behave = behave
    stage.until = 190.0
    ini = config(tmp_path, {"control": {"hung_after": "60"}})

    generator(stage, ini).run()

    told = [task.tid for task in stage.submitted if isinstance(task, OstStateTask)]
    assert len(set(told)) == len(told)
    assert [row["ost"] for row in stage.rows() if row["state"] == "HUNG"].count(2) == 1


# Lives.


@pytest.mark.usefixtures("lfs")
def test_a_restart_hands_in_again_what_has_not_ended_and_nothing_beside_it(
    stage: Stage, tmp_path: Path
) -> None:
    stage.behave = hanging(1)
    stage.until = 10.0
    generator(stage, config(tmp_path, {})).run()
    stage.restart()
    stage.until = 100.0

    generator(stage, config(tmp_path, {})).run()

    assert stage.tids()[0] == f"mon-{int(UNIX)}-1"
    assert stage.looked_at().count(1) == 1
    assert [row["ost"] for row in stage.rows() if row["state"] == "HUNG"] == [1]


@pytest.mark.usefixtures("lfs")
def test_what_ended_while_nobody_listened_is_heard_after_the_restart(stage: Stage, tmp_path: Path) -> None:
    stage.behave = hanging(1)
    stage.until = 10.0
    generator(stage, config(tmp_path, {})).run()
    stage.behave = fine
    stage.settle(f"mon-{int(UNIX)}-1")
    stage.restart()
    stage.until = 70.0

    generator(stage, config(tmp_path, {})).run()

    assert [row for row in stage.rows() if row["state"] == "HUNG"] == []
    assert stage.looked_at().count(1) == 2


@pytest.mark.usefixtures("lfs")
def test_after_a_long_pause_nothing_hangs_that_has_ended(stage: Stage, tmp_path: Path) -> None:
    stage.behave = hanging(0, 1, 2)
    stage.until = 10.0
    generator(stage, config(tmp_path, {})).run()
    stage.behave = fine
    for ost in range(3):
        stage.settle(f"mon-{int(UNIX)}-{ost}")
    stage.restart()
    stage.now, stage.until = 400.0, 430.0

    generator(stage, config(tmp_path, {})).run()

    assert stage.rows() == []


@pytest.mark.usefixtures("lfs")
def test_open_tasks_of_another_name_are_left_to_themselves(
    stage: Stage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage.behave = lambda task: None
    stage.until = 10.0
    pairs = {"task": {"task_name": "creation", "per_pair": "on"}}
    generator(stage, config(tmp_path, pairs), Survey({3: ""})).run()
    stage.restart()
    stage.behave = fine
    stage.until = 70.0

    generator(stage, config(tmp_path, {"task": {"task_name": "io"}}), Survey({3: ""})).run()

    assert stage.tids() == [f"mon-{int(UNIX) + 60}-3"]
    assert "tasks of another kind are left to themselves count=2" in caplog.text


@pytest.mark.usefixtures("lfs")
def test_open_tasks_of_parts_that_there_are_no_longer_are_left_to_themselves(
    stage: Stage, tmp_path: Path
) -> None:
    stage.behave = lambda task: None
    stage.until = 10.0
    task = {"task_name": "creation"}
    generator(stage, config(tmp_path, {"task": {**task, "per_pair": "on"}}), Survey({3: ""})).run()
    stage.restart()
    stage.behave = fine
    stage.until = 70.0

    generator(stage, config(tmp_path, {"task": {**task, "per_pair": "off"}}), Survey({3: ""})).run()

    assert stage.tids() == [f"mon-{int(UNIX) + 60}-3"]


@pytest.mark.usefixtures("lfs")
def test_a_restart_keeps_the_bound_of_each_server(stage: Stage, tmp_path: Path) -> None:
    survey = Survey({0: "", 1: "", 2: ""}, servers={0: "a", 1: "a", 2: "b"})
    ini = {"lustre": {"oss_max_tasks": "1"}}
    stage.behave = hanging(0, 1, 2)
    stage.until = 10.0
    generator(stage, config(tmp_path, ini), survey).run()
    stage.restart()
    stage.until = 70.0

    generator(stage, config(tmp_path, ini), survey).run()

    assert sorted(stage.looked_at()) == [0, 2]


@pytest.mark.usefixtures("lfs")
def test_a_task_is_remembered_before_it_is_handed_in(stage: Stage, tmp_path: Path) -> None:
    memory = tmp_path / "state" / "memory.json"
    remembered: list[bool] = []

    def behave(task: BaseTask) -> Result | None:
        if isinstance(task, OstTask):
            remembered.append(str(task.tid) in memory.read_text())
        return fine(task)

    stage.behave = behave

    generator(stage, config(tmp_path, {"control": {"cycles": "2"}})).run()

    assert remembered == [True] * 6


@pytest.mark.usefixtures("lfs")
def test_rounds_that_were_missed_are_counted(
    stage: Stage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def oversleep() -> None:
        if 30 < stage.now < 60:
            stage.now = 200.0

    stage.on_moment = oversleep

    generator(stage, config(tmp_path, {"control": {"cycles": "2"}})).run()

    assert [line.rpartition(" ")[2] for line in caplog.messages if "round ended" in line] == [
        "missed=0",
        "missed=2",
    ]
    assert sum("rounds missed count=2 total=2" in line for line in caplog.messages) == 1


@pytest.mark.usefixtures("lfs")
def test_a_restart_keeps_the_rate_of_rounds(stage: Stage, tmp_path: Path) -> None:
    stage.until = 10.0
    generator(stage, config(tmp_path, {})).run()
    stage.restart()
    stage.until = 70.0

    generator(stage, config(tmp_path, {})).run()

    assert stage.moments[0] == pytest.approx(60.0, abs=0.1)


@pytest.mark.usefixtures("lfs")
def test_osts_of_one_file_system_are_not_expected_of_another(stage: Stage, tmp_path: Path) -> None:
    local = {"control": {"cycles": "1", "local_mode": "on"}, "task": {"task_name": "empty"}}
    generator(stage, config(tmp_path, local)).run()
    stage.restart()

    generator(stage, config(tmp_path, {"control": {"cycles": "1"}})).run()

    assert stage.looked_at() == [0, 1, 2]
    assert stage.rows() == []
    assert stage.tids()[0] == f"mon-{int(UNIX) + 1}-0"


@pytest.mark.usefixtures("lfs")
@pytest.mark.parametrize("content", [b"{", b'{"fs": "\xff"}', b'{"version": 2}'])
def test_a_memory_that_is_damaged_is_set_aside(
    stage: Stage, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    memory = tmp_path / "state" / "memory.json"
    memory.parent.mkdir()
    memory.write_bytes(content)

    generator(stage, config(tmp_path, {"control": {"cycles": "1"}})).run()

    assert memory.with_name("memory.json.damaged").read_bytes() == content
    assert "damaged" in caplog.text
    assert json.loads(memory.read_text())["round"] == int(UNIX)


@pytest.mark.usefixtures("lfs")
def test_it_goes_on_when_it_cannot_remember(
    stage: Stage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "state"

    def break_disk() -> None:
        if stage.now > 30 and directory.is_dir():
            shutil.rmtree(directory)
            directory.write_text("no directory any more")

    stage.on_moment = break_disk

    generator(stage, config(tmp_path, {"control": {"cycles": "2"}})).run()

    assert len(stage.looked_at()) == 6
    assert "not remembered" in caplog.text


@pytest.mark.usefixtures("lfs")
def test_a_memory_that_cannot_be_read_is_refused(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    keys = {"state_file": str(tmp_path / "file" / "memory.json")}

    with pytest.raises(ConfigError, match="cannot be read"):
        generator(stage, config(tmp_path, {"control": keys})).run()


# Local mode.


def test_in_local_mode_there_are_a_hundred_osts_and_no_lustre(stage: Stage, tmp_path: Path) -> None:
    sections = {
        "control": {"local_mode": "on", "cycles": "2"},
        "task": {"task_name": "empty"},
        "lustre": {"target": "", "lfs_bin": "/no/lfs"},
    }

    generator(stage, config(tmp_path, sections), kind=Watched).run()

    assert len(stage.tids()) == 200


def test_the_number_of_osts_in_local_mode_can_be_chosen(stage: Stage, tmp_path: Path) -> None:
    sections = {
        "control": {"local_mode": "on", "cycles": "1"},
        "control.local_mode": {"num_osts": "5"},
        "task": {"task_name": "empty"},
    }

    generator(stage, config(tmp_path, sections)).run()

    assert stage.tids() == [f"mon-{int(UNIX)}-{ost}" for ost in range(5)]


def test_fewer_osts_in_local_mode_leave_none_behind(stage: Stage, tmp_path: Path) -> None:
    sections = {"control": {"local_mode": "on", "cycles": "1"}, "task": {"task_name": "io"}}
    for count in ("5", "3"):
        stage.restart()
        made = generator(stage, config(tmp_path, {**sections, "control.local_mode": {"num_osts": count}}))
        made.run()

    assert stage.looked_at() == [0, 1, 2]
    assert stage.rows() == []


# The creation check.


@pytest.mark.usefixtures("lfs")
def test_a_creation_check_may_have_a_task_for_each_pair(stage: Stage, tmp_path: Path) -> None:
    sections = {"control": {"cycles": "1"}, "task": {"task_name": "creation", "per_pair": "on"}}

    generator(stage, config(tmp_path, sections), Survey({3: ""})).run()

    assert stage.tids() == [f"mon-{int(UNIX)}-3-0", f"mon-{int(UNIX)}-3-1"]
    assert [task.mdts for task in stage.submitted if isinstance(task, OstTask)] == [(0,), (1,)]  # type: ignore[attr-defined]


@pytest.mark.usefixtures("lfs")
def test_a_pair_that_hangs_is_told_by_itself_and_keeps_no_other_waiting(stage: Stage, tmp_path: Path) -> None:
    def behave(task: BaseTask) -> Result | None:
        assert task.tid is not None
        return None if task.tid.endswith("-3-0") else fine(task)

    stage.behave = behave
    sections = {
        "control": {"cycles": "2", "measure_interval": "60"},
        "task": {"task_name": "creation", "per_pair": "on"},
    }

    generator(stage, config(tmp_path, sections), Survey({3: ""})).run()

    assert [tid for tid in stage.tids() if str(tid).endswith("-3-1")] == [
        f"mon-{int(UNIX)}-3-1",
        f"mon-{int(UNIX) + 60}-3-1",
    ]
    assert {(row["mdt_index"], row["state"]) for row in stage.rows("file_creation")} == {(0, "HUNG")}
    assert [(row["pairs"], row["errors"]) for row in stage.rows("file_creation_round")][-1] == (1, 1)


@pytest.mark.usefixtures("lfs")
def test_a_round_in_which_every_check_breaks_down_counts_errors_and_late_ends_count_in_none(
    stage: Stage, tmp_path: Path
) -> None:
    def behave(task: BaseTask) -> Result | None:
        if isinstance(task, OstTask):
            if task.ost_idx == 3:
                return ended(str(task.tid), state="failed", outcome="lost", error="its host has vanished")
            return None
        return fine(task)

    def settle() -> None:
        if stage.now > 70 and stage.behave is behave:
            stage.behave = lambda task: ended(
                str(task.tid), OstResult(4, OstState.OK, figures={"pairs": [pair]})
            )
            stage.settle(f"mon-{int(UNIX)}-4")
            stage.behave = fine

    pair = {"mdt_index": 9, "ost_index": 4, "state": "OK"}
    stage.behave, stage.on_moment = behave, settle
    sections = {"control": {"cycles": "2", "hung_after": "30"}, "task": {"task_name": "creation"}}

    generator(stage, config(tmp_path, sections), Survey({3: "", 4: ""})).run()

    assert [(row["pairs"], row["errors"]) for row in stage.rows("file_creation_round")] == [(4, 4), (4, 4)]


@pytest.mark.usefixtures("lfs")
def test_a_check_of_an_earlier_round_that_breaks_down_late_is_no_error_of_this_one(
    stage: Stage, tmp_path: Path
) -> None:
    first = f"mon-{int(UNIX)}-1"

    def behave(task: BaseTask) -> Result | None:
        if task.tid == first:
            return ended(first, state="failed", outcome="timed_out") if stage.now > 70 else None
        # So that the second round is not over by then.
        return hanging(0)(task) if stage.now > 50 else fine(task)

    def settle() -> None:
        if stage.now > 70 and first not in stage.remembered:
            stage.settle(first)

    stage.behave, stage.on_moment, stage.until = behave, settle, 110.0
    sections = {"control": {"hung_after": "300"}, "task": {"task_name": "creation"}}
    made = generator(stage, config(tmp_path, sections))

    made.run()

    assert [row["errors"] for row in stage.rows("file_creation_round")] == [0, 0]
    assert made._status()["faults"] == {}


@pytest.mark.usefixtures("lfs")
def test_all_pairs_of_an_ost_that_is_down_are_told_of(stage: Stage, tmp_path: Path) -> None:
    sections = {"control": {"cycles": "1"}, "task": {"task_name": "creation"}}

    generator(stage, config(tmp_path, sections), Survey({0: "", 3: "no answer"})).run()

    rows = stage.rows("file_creation")
    assert [(row["mdt_index"], row["ost_index"], row["state"]) for row in rows] == [
        (0, 3, "DOWN"),
        (1, 3, "DOWN"),
    ]
    assert len(stage.rows("file_creation_round")) == 1


@pytest.mark.usefixtures("lfs")
def test_rows_are_of_the_moment_at_which_they_were_known(stage: Stage, tmp_path: Path) -> None:
    stage.behave, stage.until = hanging(1), 70.0

    generator(stage, config(tmp_path, {"control": {"hung_after": "30"}}), Survey({0: "", 1: ""})).run()

    recorder = FakeRecorder()
    for task in stage.submitted:
        if isinstance(task, OstStateTask):
            attempt(task, str(task.tid), recorder)
    told = [
        at for (_, _, fields), at in zip(recorder.rows, recorder.moments, strict=True)
        if fields.get("state") == "HUNG"
    ]  # fmt: skip
    # When it had become hung, and when the next round began.
    assert told == pytest.approx([UNIX + 30, UNIX + 60], abs=1.5)


# Mails.


@pytest.fixture
def smtp() -> Iterator[SmtpServer]:
    with SmtpServer() as server:
        yield server


def alert(tmp_path: Path, smtp: SmtpServer, **control: str) -> Ini:
    return config(tmp_path, {"control": control, "task": {"task_name": "alert"}}, port=smtp.port)


@pytest.mark.usefixtures("lfs")
def test_a_fault_is_mailed_once_and_so_is_its_end(stage: Stage, tmp_path: Path, smtp: SmtpServer) -> None:
    stage.until = 300.0

    def behave(task: BaseTask) -> Result | None:
        return (faulty(1) if stage.now < 130 else fine)(task)

    stage.behave = behave

    generator(stage, alert(tmp_path, smtp)).run()

    assert smtp.subjects() == [
        "[LUSTRE Monitoring] OST Write WRITE_FAILED: lustre-OST0001 (1)",
        "[LUSTRE Monitoring] OST Recovered (write): lustre-OST0001 (1)",
    ]


@pytest.mark.usefixtures("lfs")
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("the result cannot be unpickled here: ValueError: 'FOO' is not a valid OstState", "'FOO' is not"),
        ("", "found a NoneType, expected an OstResult"),
    ],
)
def test_a_result_that_nobody_can_read_is_a_fault_of_its_task_and_no_end_of_anything(
    stage: Stage, tmp_path: Path, smtp: SmtpServer, caplog: pytest.LogCaptureFixture, error: str, reason: str
) -> None:
    def behave(task: BaseTask) -> Result | None:
        if isinstance(task, OstTask) and task.ost_idx == 1 and stage.now > 50:
            return ended(str(task.tid), None, error=error)
        return faulty(1)(task)

    stage.behave = behave

    generator(stage, alert(tmp_path, smtp, cycles="2")).run()

    assert smtp.subjects() == [
        "[LUSTRE Monitoring] OST Write WRITE_FAILED: lustre-OST0001 (1)",
        "[LUSTRE Monitoring] OST Task FAILED: lustre-OST0001 (1)",
    ]
    assert [row["failed"] for row in stage.rows("ost_round")] == [1, 1]
    assert reason in caplog.text
    assert stage.rows("ost_perf") == []


@pytest.mark.usefixtures("lfs")
def test_without_workers_no_more_than_some_rounds_wait_to_be_recorded(stage: Stage, tmp_path: Path) -> None:
    accepted: dict[str, float] = {}

    def behave(task: BaseTask) -> Result | None:
        """As a master without controllers does."""
        begun = accepted.setdefault(str(task.tid), stage.now)
        if task.expires is None or stage.now < begun + task.expires:
            return None
        return ended(
            str(task.tid), state="cancelled", outcome="cancelled", attempts=0, error="it has expired"
        )

    def expire() -> None:
        most.append(len(stage._hanging))
        for tid in list(stage._hanging):
            stage.settle(tid)

    most: list[int] = []
    stage.behave, stage.on_moment, stage.until = behave, expire, 60 * 100

    generator(stage, config(tmp_path, {}), Survey({0: "", 1: "no answer"})).run()

    assert max(most) < 50


@pytest.mark.usefixtures("lfs")
def test_down_and_hung_osts_are_mailed(stage: Stage, tmp_path: Path, smtp: SmtpServer) -> None:
    stage.until = 130.0
    stage.behave = hanging(1)

    generator(stage, alert(tmp_path, smtp), Survey({0: "", 1: "", 2: "no answer"})).run()

    assert sorted(smtp.subjects()) == [
        "[LUSTRE Monitoring] OST DOWN: lustre-OST0002 (2)",
        "[LUSTRE Monitoring] OST HUNG: lustre-OST0001 (1)",
    ]


@pytest.mark.usefixtures("lfs")
def test_a_server_that_fails_leads_to_few_mails(stage: Stage, tmp_path: Path, smtp: SmtpServer) -> None:
    stage.until = 130.0

    generator(stage, alert(tmp_path, smtp), Survey(dict.fromkeys(range(700), "no answer"))).run()

    subjects = smtp.subjects()
    assert len(subjects) == 4
    assert subjects.count("[LUSTRE Monitoring] Faults found at 700 OSTs of lustre") == 1


@pytest.mark.usefixtures("lfs")
def test_what_a_task_has_mailed_is_not_mailed_again_and_the_next_task_is_told(
    stage: Stage, tmp_path: Path, smtp: SmtpServer
) -> None:
    stage.until = 130.0
    stage.behave = faulty(1, state=OstState.SLOW, mailed=True)

    generator(stage, alert(tmp_path, smtp)).run()

    assert smtp.mails == []
    tasks = [task for task in stage.submitted if isinstance(task, LustreAlertIOTask) and task.ost_idx == 1]
    assert [task.mail_quiet for task in tasks] == [frozenset(), {"write"}, {"write"}]
    assert [task.mail_round for task in tasks] == [str(int(UNIX) + moment) for moment in (0, 60, 120)]


@pytest.mark.usefixtures("lfs")
def test_a_slow_phase_that_nobody_could_mail_is_mailed_here(
    stage: Stage, tmp_path: Path, smtp: SmtpServer
) -> None:
    stage.behave = faulty(1, state=OstState.SLOW, mailed=False)

    generator(stage, alert(tmp_path, smtp, cycles="1")).run()

    assert smtp.subjects() == [
        "[LUSTRE Monitoring] OST Write Performance Degradation Detected: lustre-OST0001 (1)"
    ]


@pytest.mark.usefixtures("lfs")
def test_a_restart_mails_nothing_twice(stage: Stage, tmp_path: Path, smtp: SmtpServer) -> None:
    stage.behave = faulty(1)
    for until in (70.0, 140.0, 210.0):
        stage.until = until
        generator(stage, alert(tmp_path, smtp)).run()
        stage.restart()

    assert len(smtp.mails) == 1


@pytest.mark.usefixtures("lfs")
def test_mails_wait_for_a_server_that_is_gone(stage: Stage, tmp_path: Path, smtp: SmtpServer) -> None:
    stage.behave = faulty(1)
    smtp.stop()
    generator(stage, alert(tmp_path, smtp, cycles="1")).run()

    smtp.start()
    generator(stage, alert(tmp_path, smtp, cycles="1")).run()

    assert len(smtp.mails) == 1


@pytest.mark.usefixtures("lfs")
def test_what_a_round_found_that_is_cut_short_is_told(
    stage: Stage, tmp_path: Path, smtp: SmtpServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    stage.behave = lambda task: hanging(9)(task) and faulty(*range(9))(task)
    stage.until = 10.0

    generator(stage, alert(tmp_path, smtp), Survey(dict.fromkeys(range(10), ""))).run()

    assert len(smtp.mails) == 4
    assert "round ended" in caplog.text
    assert [row["skipped"] for row in stage.rows("ost_round")] == [1]


class Killed(BaseException):
    """The process is gone before anything else can happen."""


@pytest.mark.usefixtures("lfs")
def test_a_fault_that_was_mailed_right_before_a_kill_is_the_same_mail_afterwards(
    stage: Stage, tmp_path: Path, smtp: SmtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.behave = faulty(1)
    keys: list[str] = []

    def post(postman: Postman, mail: Mail) -> None:
        keys.append(mail.id)
        if len(keys) == 1:
            monkeypatch.setattr(Watched, "_save", lambda made: None)
            raise Killed

    monkeypatch.setattr(Postman, "post", post)
    with pytest.raises(Killed):
        generator(stage, alert(tmp_path, smtp)).run()
    monkeypatch.undo()
    monkeypatch.setattr(Postman, "post", post)
    stage.restart()
    stage.until = 70.0

    generator(stage, alert(tmp_path, smtp)).run()

    assert len(keys) == 2
    assert len(set(keys)) == 1


@pytest.mark.usefixtures("lfs")
@pytest.mark.parametrize("killed", ["before", "after"])
def test_a_kill_around_the_post_of_a_fault_keeps_no_mail_about_its_end_back(
    stage: Stage, tmp_path: Path, smtp: SmtpServer, monkeypatch: pytest.MonkeyPatch, killed: str
) -> None:
    stage.behave = faulty(1)
    post = Postman.post

    def post_and_die(postman: Postman, mail: Mail) -> None:
        if killed == "after":
            post(postman, mail)
            smtp.wait_for(1)
        monkeypatch.setattr(Watched, "_save", lambda made: None)
        raise Killed

    monkeypatch.setattr(Postman, "post", post_and_die)
    with pytest.raises(Killed):
        generator(stage, alert(tmp_path, smtp)).run()
    monkeypatch.undo()
    stage.restart()
    stage.behave, stage.until = fine, 130.0

    generator(stage, alert(tmp_path, smtp)).run()

    told = {mail.message["Message-ID"]: mail.message["Subject"] for mail in smtp.mails}
    assert list(told.values()) == [
        "[LUSTRE Monitoring] OST Write WRITE_FAILED: lustre-OST0001 (1)",
        "[LUSTRE Monitoring] OST Recovered (write): lustre-OST0001 (1)",
    ]


@pytest.mark.usefixtures("lfs")
def test_what_ends_after_its_round_was_over_is_told_soon_and_by_few_mails(
    stage: Stage, tmp_path: Path, smtp: SmtpServer
) -> None:
    osts = range(50)
    stage.behave, stage.until = hanging(*osts), 86_000.0
    made = generator(
        stage,
        alert(tmp_path, smtp, measure_interval="86400", hung_after="600"),
        Survey(dict.fromkeys(range(51), "")),
    )
    told: list[tuple[float, str, int]] = []
    mail = made._mail

    def watch(notices: Sequence[Notice]) -> None:
        told.extend((stage.now, notice.about, len(notice.incidents)) for notice in notices)
        mail(notices)

    def come_back() -> None:
        stage.behave = faulty(*osts, phase="read", state=OstState.CORRUPT)
        for tid in list(stage._hanging)[: int(stage.now - 1000)]:
            stage.settle(tid)

    made._mail = watch  # type: ignore[method-assign]
    stage.on_moment = lambda: come_back() if stage.now > 1000 else None
    made.run()

    late = [(moment, about, count) for moment, about, count in told if moment > 1000]
    assert sum(count for _, about, count in late if about == "recovery") == 50
    assert sum(count for _, about, count in late if about == "fault") == 50
    assert max(moment for moment, _, _ in late) < 1200
    assert len(late) <= 10


# Commands.


@pytest.mark.usefixtures("lfs")
def test_a_command_while_tasks_are_handed_in_again_forgets_none_of_them(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.behave, stage.until = hanging(0, 1, 2), 10.0
    generator(stage, config(tmp_path, {})).run()
    stage.restart()
    made = generator(stage, config(tmp_path, {}))

    def submit(task: BaseTask) -> str:
        # As the generator host does: it carries out what was asked for, and then hands the task in.
        made.on_command("select", {"osts": "0-2"})
        raise Killed

    monkeypatch.setattr(stage, "submit", submit)
    monkeypatch.setattr(made, "_stop", lambda: None)
    with pytest.raises(Killed):
        made.run()

    remembered = json.loads((tmp_path / "state" / "memory.json").read_text())
    assert [task["ost"] for task in remembered["open"]] == [0, 1, 2]


def asking(stage: Stage, made: Watched, at: float, name: str, **arguments: str) -> list[Any]:
    """Ask a command at a moment of the run; what is answered is put into the list."""
    answers: list[Any] = []

    def ask() -> None:
        if stage.now >= at and not answers:
            try:
                answers.append(json.loads(json.dumps(made.on_command(name, arguments))))
            except ValueError as refusal:
                answers.append(str(refusal))

    stage.on_moment = ask
    return answers


@pytest.mark.usefixtures("lfs")
def test_the_status_tells_what_hangs_what_is_down_and_what_is_faulty(stage: Stage, tmp_path: Path) -> None:
    stage.behave = lambda task: hanging(1)(task) and faulty(0)(task)
    stage.until = 70.0
    made = generator(stage, config(tmp_path, {}), Survey({0: "", 1: "", 2: "no answer"}))
    answers = asking(stage, made, 30.0, "status")

    made.run()

    (status,) = answers
    assert (status["round"]["expected"], status["round"]["failed"], status["round"]["down"]) == (3, 1, 1)
    assert status["next_round_s"] == pytest.approx(30, abs=1.5)
    assert [each["ost"] for each in status["open"]] == [1]
    assert status["not_looked_at"] == {"2": {"state": "DOWN", "reason": "no answer"}}
    assert status["faults"]["0"][0]["state"] == "WRITE_FAILED"
    assert {each["ost"] for each in status["incidents"]} == set()


@pytest.mark.usefixtures("lfs")
def test_the_status_tells_the_faults_of_which_no_task_has_told(stage: Stage, tmp_path: Path) -> None:
    def behave(task: BaseTask) -> Result | None:
        if isinstance(task, OstTask) and task.ost_idx == 0:
            return ended(str(task.tid), state="failed", outcome="timed_out", error="it took too long")
        return hanging(1)(task)

    stage.behave, stage.until = behave, 50.0
    sections = {
        "control": {"hung_after": "30"},
        "task": {"task_name": "creation", "per_pair": "on"},
    }
    made = generator(stage, config(tmp_path, sections), Survey({0: "", 1: "", 2: "no answer", 3: ""}))

    made.run()

    told = {ost: [fault["state"] for fault in faults] for ost, faults in made._status()["faults"].items()}
    assert told == {0: ["TIMEOUT"], 1: ["HUNG", "HUNG"], 2: ["DOWN"]}


@pytest.mark.usefixtures("lfs")
def test_the_status_tells_of_incidents_that_people_were_mailed_of(
    stage: Stage, tmp_path: Path, smtp: SmtpServer
) -> None:
    stage.behave = faulty(0)
    stage.until = 50.0
    made = generator(stage, alert(tmp_path, smtp))
    answers = asking(stage, made, 30.0, "status")

    made.run()

    assert [(each["ost"], each["phase"]) for each in answers[0]["incidents"]] == [(0, "write")]


@pytest.mark.usefixtures("lfs")
def test_other_osts_can_be_selected_from_the_next_round_on(stage: Stage, tmp_path: Path) -> None:
    stage.until = 70.0
    made = generator(stage, config(tmp_path, {}))
    answers = asking(stage, made, 10.0, "select", osts="1-2")

    made.run()

    assert answers == [{"osts": [1, 2]}]
    assert stage.looked_at() == [0, 1, 2, 1, 2]


@pytest.mark.usefixtures("lfs")
@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("select", {"osts": "9"}, "no such OST: 9"),
        ("select", {"osts": "x"}, "osts: found 'x'"),
        ("select", {}, "expected osts"),
        ("retire", {"osts": "0"}, "OST 0 is active"),
        ("retire", {"osts": "77"}, "no OST 77 is known"),
        ("status", {"all": "yes"}, "found the arguments all"),
        ("explode", {}, "no such command"),
    ],
)
def test_a_command_that_makes_no_sense_is_refused(
    stage: Stage, tmp_path: Path, name: str, arguments: dict[str, str], reason: str
) -> None:
    stage.until = 30.0
    made = generator(stage, config(tmp_path, {}))
    answers = asking(stage, made, 10.0, name, **arguments)

    made.run()

    assert reason in answers[0]


@pytest.mark.usefixtures("lfs")
def test_a_retired_ost_is_expected_no_more_also_after_a_restart(stage: Stage, tmp_path: Path) -> None:
    stage.until = 50.0
    survey = Survey({0: "", 1: "no answer"})
    made = generator(stage, config(tmp_path, {}), survey)
    answers = asking(stage, made, 10.0, "retire", osts="1")
    made.run()
    told = [row["state"] for row in stage.rows()]
    stage.restart()
    stage.on_moment = lambda: None
    stage.until = 70.0

    generator(stage, config(tmp_path, {}), survey).run()

    assert answers == [{"retired": [1]}]
    assert told == ["DOWN", "RETIRED"]
    assert stage.looked_at() == [0]
    assert stage.rows() == []


@pytest.mark.usefixtures("lfs")
def test_what_was_retired_last_before_the_end_is_recorded_too(stage: Stage, tmp_path: Path) -> None:
    made = generator(stage, config(tmp_path, {}), Survey({0: "", 1: "no answer"}))

    def retire() -> None:
        if stage.now > 10 and not stage.stopping:
            made.on_command("retire", {"osts": "1"})
            stage.until = stage.now

    stage.on_moment = retire

    made.run()

    assert [row["state"] for row in stage.rows()] == ["DOWN", "RETIRED"]


@pytest.mark.usefixtures("lfs")
def test_an_ost_that_is_selected_can_be_retired(stage: Stage, tmp_path: Path, smtp: SmtpServer) -> None:
    stage.until = 130.0
    ini = config(
        tmp_path, {"lustre": {"ost_select_list": "0-1"}, "task": {"task_name": "alert"}}, port=smtp.port
    )
    made = generator(stage, ini, Survey({0: "", 1: "no answer"}))
    asking(stage, made, 10.0, "retire", osts="1")

    made.run()

    assert smtp.subjects() == ["[LUSTRE Monitoring] OST DOWN: lustre-OST0001 (1)"]
    assert stage.looked_at() == [0, 0, 0]


@pytest.mark.usefixtures("lfs")
@pytest.mark.parametrize(("command", "osts"), [("select", "0"), ("retire", "1")])
def test_of_an_ost_that_nobody_looks_at_nothing_is_told_any_more(
    stage: Stage, tmp_path: Path, smtp: SmtpServer, command: str, osts: str
) -> None:
    stage.until = 190.0
    stage.behave = hanging(1)
    made = generator(stage, alert(tmp_path, smtp), Survey({0: "", 1: ""}))
    answers = asking(stage, made, 70.0, command, osts=osts)
    ask = stage.on_moment

    def pass_time() -> None:
        if stage.now > 30:
            made.survey = Survey({0: ""})
        ask()
        if stage.now > 150 and stage.behave is not fine:
            stage.behave = faulty(1)
            stage.settle(f"mon-{int(UNIX)}-1")
            stage.behave = fine

    stage.on_moment = pass_time

    made.run()

    assert isinstance(answers[0], dict)
    assert smtp.subjects() == ["[LUSTRE Monitoring] OST HUNG: lustre-OST0001 (1)"]
    assert made._status()["incidents"] == []


@pytest.mark.usefixtures("lfs")
@pytest.mark.parametrize(("configured", "expected"), [("", [1, 2]), ("0", [0])])
def test_what_was_selected_outlives_a_restart_unless_the_ini_file_has_changed(
    stage: Stage, tmp_path: Path, configured: str, expected: list[int]
) -> None:
    stage.until = 50.0
    made = generator(stage, config(tmp_path, {}))
    asking(stage, made, 10.0, "select", osts="1-2")
    made.run()
    stage.restart()
    stage.on_moment = lambda: None
    stage.until = 70.0

    generator(stage, config(tmp_path, {"lustre": {"ost_select_list": configured}})).run()

    assert stage.looked_at() == expected


@pytest.mark.usefixtures("lfs")
def test_incidents_of_osts_that_the_ini_file_no_longer_selects_are_forgotten(
    stage: Stage, tmp_path: Path, smtp: SmtpServer
) -> None:
    stage.behave = faulty(1)
    stage.until = 10.0
    generator(stage, alert(tmp_path, smtp)).run()
    sections = {"lustre": {"ost_select_list": "0,2"}, "task": {"task_name": "alert"}}

    made = generator(stage, config(tmp_path, sections, port=smtp.port))
    made._start()
    made._stop()

    assert made._status()["incidents"] == []


@pytest.mark.usefixtures("lfs")
@pytest.mark.parametrize(("command", "osts"), [("select", "0"), ("retire", "2")])
def test_what_was_answered_outlives_a_kill(stage: Stage, tmp_path: Path, command: str, osts: str) -> None:
    memory = tmp_path / "state" / "memory.json"
    stage.until = 30.0
    made = generator(stage, config(tmp_path, {}), Survey({0: "", 1: "", 2: "no answer"}))
    asking(stage, made, 10.0, command, osts=osts)
    ask = stage.on_moment
    remembered: list[Any] = []

    def ask_and_look() -> None:
        before = stage.now >= 10 and not remembered
        ask()
        if before:
            remembered.append(json.loads(memory.read_text()))

    stage.on_moment = ask_and_look

    made.run()

    (at_once,) = remembered
    assert at_once["selected"]["osts"] == [0] or [each["retired"] for each in at_once["known"]] == [0, 0, 1]


@pytest.mark.usefixtures("lfs")
def test_no_round_is_promised_that_will_never_begin(stage: Stage, tmp_path: Path) -> None:
    stage.behave = hanging(0)
    made = generator(stage, config(tmp_path, {"control": {"cycles": "1"}}))
    answers = asking(stage, made, 10.0, "run-now")

    made.run()

    assert answers == ["there are no more than 1 rounds, and all have begun"]


@pytest.mark.usefixtures("lfs")
def test_a_round_can_be_had_now_and_the_regular_ones_keep_their_time(stage: Stage, tmp_path: Path) -> None:
    stage.until = 70.0
    made = generator(stage, config(tmp_path, {}), Survey({0: ""}))
    asking(stage, made, 10.0, "run-now")

    made.run()

    begins = [
        moment
        for task, moment in zip(stage.submitted, stage.moments, strict=True)
        if isinstance(task, OstTask)
    ]
    assert begins == pytest.approx([0, 10, 60], abs=1.5)


def test_every_command_that_is_declared_is_known() -> None:
    assert set(LustreOstMonitoringTaskGenerator.commands) == {"status", "select", "retire", "run-now"}


# Settings.


@pytest.mark.usefixtures("lfs")
@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("control", "measure_interval", "0"), ("control", "measure_interval", "86401"), ("control", "cycles", "0"),
        ("control", "at", "24:00"), ("control", "at", "3:00"), ("control", "hung_after", "0"),
        ("control", "hung_after", "604801"), ("control", "start_jitter", "1e11"), ("lustre", "lfs_timeout", "1e11"),
        ("lustre", "ost_select_list", "5-1"), ("lustre", "ost_select_list", "-1"), ("lustre", "target", ""),
        ("lustre", "target", "other"), ("lustre", "lfs_bin", "/no/lfs"), ("task", "task_file", "/no/file"),
        ("task", "task_name", "none"), ("task", "task_name", "strange"), ("task", "per_pair", "on"),
        ("control.local_mode", "num_osts", "0"), ("lustre", "probe", "on"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_before_anything_starts(
    stage: Stage, tmp_path: Path, section: str, key: str, value: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        generator(stage, config(tmp_path, {section: {key: value}}))

    assert (caught.value.section, caught.value.key) == (section, key)


@pytest.mark.usefixtures("lfs")
def test_a_wrong_property_of_the_task_is_refused_before_anything_starts(stage: Stage, tmp_path: Path) -> None:
    ini = config(tmp_path, {})
    tasks = tmp_path / "tasks.xml"
    tasks.write_text(tasks.read_text().replace("<write_file_sync>off", "<write_file_sync>perhaps"))

    with pytest.raises(ConfigError, match="write_file_sync"):
        generator(stage, ini)


@pytest.mark.usefixtures("lfs")
def test_the_explanation_tells_the_settings_and_the_task_as_it_will_be_made(
    stage: Stage, tmp_path: Path
) -> None:
    told = generator(stage, config(tmp_path, {"control": {"measure_interval": "77"}})).explain_config()

    assert "measure_interval = 77 seconds  (file)" in told
    assert f"task io of {tmp_path / 'tasks.xml'}: cyclone.lustre.io_task.LustreIOTask" in told
    lines = told.splitlines()
    assert "  total_size_bytes = 4K" in lines
    assert "  phase_timeout = 120.0" in lines
    assert "  ost_idx = (filled in for each task)" in lines
    assert "  db_proxy_port = " in lines


@pytest.mark.usefixtures("lfs")
@pytest.mark.parametrize(
    ("task", "filled"),
    [
        ({"task_name": "alert"}, {"ost_idx", "mail_round", "mail_quiet"}),
        ({"task_name": "creation"}, {"ost_idx"}),
        ({"task_name": "creation", "per_pair": "on"}, {"ost_idx", "mdt_index_rangeset"}),
    ],
)
def test_the_explanation_tells_what_differs_from_task_to_task(
    stage: Stage, tmp_path: Path, task: dict[str, str], filled: set[str]
) -> None:
    told = generator(stage, config(tmp_path, {"task": task})).explain_config()

    properties = [line.strip().split(" = ") for line in told.splitlines() if line.endswith("for each task)")]
    assert {name for name, _ in properties} == filled


# With a simulated Lustre.


def test_a_round_over_a_simulated_lustre_tells_of_each_ost(stage: Stage, tmp_path: Path) -> None:
    sim = simulated_lustre(tmp_path, osts=4)
    sim.ost(1, state="down")
    recorder = FakeRecorder()

    def behave(task: BaseTask) -> Result | None:
        return ended(str(task.tid), attempt(task, str(task.tid), recorder))

    stage.behave = behave
    ini = config(
        tmp_path,
        {
            "control": {"cycles": "1"},
            "lustre": {
                "lfs_bin": str(sim.bin / "lfs"),
                "lctl_bin": str(sim.bin / "lctl"),
                "fs_path": str(sim.mount),
            },
        },
        mount=sim.mount,
    )
    tasks = tmp_path / "tasks.xml"
    tasks.write_text(tasks.read_text().replace(str(tmp_path / "lfs"), str(sim.bin / "lfs")))
    made = LustreOstMonitoringTaskGenerator(ini)
    made.validate_config()
    made._attach(stage)

    # Surveys take real time, so here the clocks are real ones.
    stage.results = lambda timeout_s: _really(stage, timeout_s)  # type: ignore[method-assign, assignment]
    made.run()

    performance = {fields["ost"]: fields for _, kind, fields in recorder.rows if kind == "ost_perf"}
    assert {ost: fields["state"] for ost, fields in performance.items()} == {
        0: "OK",
        1: "DOWN",
        2: "OK",
        3: "OK",
    }
    assert performance[0]["write_throughput"] > 0
    (total,) = [fields for _, kind, fields in recorder.rows if kind == "ost_round"]
    assert (total["ok"], total["down"]) == (3, 1)
    assert {task.ost_idx for task in stage.submitted if isinstance(task, LustreIOTask)} == {0, 2, 3}


def _really(stage: Stage, timeout_s: float | None) -> Iterator[Result]:
    if not stage._ends:
        time.sleep(min(timeout_s or 0.0, 0.01))
    while stage._ends:
        yield stage._ends.pop(0)


@pytest.mark.usefixtures("lfs")
def test_rows_that_could_not_be_recorded_are_told(
    stage: Stage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def behave(task: BaseTask) -> Result | None:
        if isinstance(task, OstStateTask):
            return ended(str(task.tid), state="failed", outcome="raised", error="no sink 'database'\nmore")
        return fine(task)

    stage.behave = behave

    generator(stage, config(tmp_path, {"control": {"cycles": "1"}})).run()

    assert "not recorded" in caplog.text
    assert "no sink 'database'" in caplog.text


@pytest.mark.usefixtures("lfs")
def test_an_end_that_nobody_asked_for_is_ignored(stage: Stage, tmp_path: Path) -> None:
    stage._ends.append(ended("of-another-life", state="failed", outcome="raised", error="x"))

    generator(stage, config(tmp_path, {"control": {"cycles": "1"}})).run()

    assert stage.rows() == []


@pytest.mark.usefixtures("lfs")
def test_a_mail_that_cannot_be_kept_is_told_and_the_round_goes_on(
    stage: Stage, tmp_path: Path, smtp: SmtpServer, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "spool").write_text("no directory")
    stage.behave = faulty(1)

    generator(stage, alert(tmp_path, smtp, cycles="1")).run()

    assert "a mail is held in memory" in caplog.text
    assert len(smtp.mails) == 1
    assert stage.looked_at() == [0, 1, 2]


def test_a_survey_is_made_as_the_settings_say(stage: Stage, tmp_path: Path, lfs: Path) -> None:
    sudo = tmp_path / "sudo"
    sudo.write_text('#!/bin/sh\necho "$*" >> "$0.calls"\n')
    sudo.chmod(0o755)
    lustre = {"use_sudo": "on", "lctl_bin": "my-lctl", "fs_path": str(tmp_path)}
    made = LustreOstMonitoringTaskGenerator(config(tmp_path, {"lustre": lustre}))
    made._attach(stage)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path), prepend=":")
        made._start()
        made._survey().found()

    programs = [line.split()[1:3] for line in (tmp_path / "sudo.calls").read_text().splitlines()]
    assert programs == [["my-lctl", "get_param"]] * 2 + [[str(lfs), "df"], [str(lfs), "check"]]


def test_a_master_that_stops_while_lfs_hangs_is_not_kept_waiting(stage: Stage, tmp_path: Path) -> None:
    sim = simulated_lustre(tmp_path)
    sim.fault(cmd="check", hang=True)
    stage.until = 1.0
    sections = {"lustre": {"lfs_bin": str(sim.bin / "lfs"), "lfs_timeout": "0.5"}}
    made = LustreOstMonitoringTaskGenerator(config(tmp_path, sections))
    made.validate_config()
    made._attach(stage)
    made._monotonic = lambda: stage.now

    made.run()

    assert stage.looked_at() == []
