from __future__ import annotations

import pytest

from cyclone.base_task import BaseTask
from cyclone.lustre.migrate_task import LustreOstMigrateTask, MigrationResult
from cyclone.lustre.migration.entry import EntryId
from cyclone.lustre.migration.tasks import entry_of, report_of, tid
from cyclone.lustre.migration.verdict import FileState, Report
from cyclone.task_generator import Result
from cyclone.tasks.empty import EmptyTask

ID = EntryId("0123456789ab", 149_999_999)


def a_result(state: str, outcome: str, error: str = "", value: object = None) -> Result:
    return Result("t", state, outcome, 0, value, error, 1, 0.1)


def test_a_tid_names_list_entry_and_try_and_leads_back_to_them() -> None:
    name = tid(ID, 2)

    assert name == "mig-0123456789ab-149999999-2"
    assert entry_of(name) == (ID, 2)


@pytest.mark.parametrize(
    "name", ["", "mig-1-2", "3:5", "mig-0123456789ab-1-2x", "mig-0123456789ab--1-0", "mig-../../etc-1-0"]
)
def test_other_tids_lead_nowhere(name: str) -> None:
    assert entry_of(name) is None


def test_a_result_tells_what_became_of_the_file() -> None:
    value = MigrationResult(
        state=FileState.DISPLACED, reason="elsewhere", failure="", source=3, target=5, actual=7, bytes=100
    )

    report = report_of(a_result("succeeded", "succeeded", value=value), LustreOstMigrateTask)

    assert report == Report(FileState.DISPLACED, "elsewhere", "", 7, 100)


def test_a_task_of_ours_that_raises_is_broken() -> None:
    report = report_of(a_result("failed", "raised", "ModuleNotFoundError: x"), LustreOstMigrateTask)

    assert report == Report(FileState.FAILED, "raised: ModuleNotFoundError: x", "our_bug")


def test_a_task_of_another_kind_that_succeeds_has_moved_its_file() -> None:
    assert report_of(a_result("succeeded", "succeeded"), EmptyTask) == Report(FileState.SUCCESS)


@pytest.mark.parametrize(
    ("kind", "error"), [(LustreOstMigrateTask, ""), (EmptyTask, "the result cannot be unpickled here")]
)
def test_a_task_whose_result_is_missing_has_moved_nothing_that_anybody_knows_of(
    kind: type[BaseTask], error: str
) -> None:
    report = report_of(a_result("succeeded", "succeeded", error), kind)

    assert (report.state, report.failure) == (FileState.FAILED, "unknown")
    assert report.reason.startswith("no-result: ")


@pytest.mark.parametrize(
    ("state", "outcome", "failure"),
    [
        ("failed", "raised", "permanent"), ("cancelled", "cancelled", "permanent"), ("failed", "timed_out", "unknown"),
        ("quarantined", "signalled", "unknown"), ("quarantined", "lost", "unknown"), ("failed", "exited", "unknown"),
    ],
)  # fmt: skip
def test_a_task_that_did_not_succeed_says_why(state: str, outcome: str, failure: str) -> None:
    error = "Traceback (most recent call last):\n  ...\nKeyError: 'x'\n"

    report = report_of(a_result(state, outcome, error), EmptyTask)

    assert report == Report(FileState.FAILED, f"{outcome}: KeyError: 'x'", failure)
