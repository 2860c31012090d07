from __future__ import annotations

import pytest

from cyclone.lustre.lfs import FailureClass
from cyclone.lustre.migration.verdict import FileState, Report, Verdict, judge, settled

FAILED, BUSY = FileState.FAILED, FileState.BUSY


@pytest.mark.parametrize(
    ("report", "verdict"),
    [
        (Report(FileState.SUCCESS), Verdict.FINAL),
        (Report(FileState.DISPLACED, "elsewhere"), Verdict.FINAL),
        (Report(FileState.IGNORED, "gone"), Verdict.FINAL),
        (Report(FileState.SKIPPED, "striped"), Verdict.FINAL),
        (Report(BUSY, "EBUSY", "busy"), Verdict.LATER),
        (Report(FAILED, "EBUSY", "busy"), Verdict.LATER),
        (Report(FAILED, "timeout", "unknown"), Verdict.LATER),
        (Report(FAILED, "ENOSPC", "target"), Verdict.OTHER_TARGET),
        (Report(FAILED, "EIO", "ost"), Verdict.OST_TROUBLE),
        (Report(FAILED, "EACCES", "permanent"), Verdict.FINAL),
        (Report(FAILED, "usage", "our_bug"), Verdict.STOP),
        (Report(FAILED, "verify", "permanent"), Verdict.STOP),
        (Report(FAILED, "verify: content"), Verdict.STOP),
        (Report(FAILED, "unverified", "permanent"), Verdict.FINAL),
        (Report(FAILED, "of a new kind", "never heard of"), Verdict.FINAL),
    ],
)
def test_what_follows_from_a_try(report: Report, verdict: Verdict) -> None:
    assert judge(report) is verdict


@pytest.mark.parametrize(("was_seen", "verdict"), [(False, Verdict.FINAL), (True, Verdict.LATER)])
def test_a_file_that_was_seen_is_not_taken_for_gone_at_once(was_seen: bool, verdict: Verdict) -> None:
    assert judge(Report(FileState.IGNORED, "gone"), was_seen=was_seen) is verdict
    assert judge(Report(FileState.IGNORED, "on-target"), was_seen=was_seen) is Verdict.FINAL


@pytest.mark.parametrize(("failure", "state"), [("gone", FileState.IGNORED), ("skip", FileState.SKIPPED)])
def test_a_file_that_has_vanished_or_has_no_data_has_not_failed(failure: str, state: FileState) -> None:
    report = settled(Report(FAILED, "", failure))

    assert (report.state, report.reason) == (state, failure)
    assert judge(report) is Verdict.FINAL


def test_every_class_of_failure_has_a_verdict_of_its_own_right() -> None:
    verdicts = {each: judge(settled(Report(FAILED, "x", each.value))) for each in FailureClass}

    assert verdicts == {
        FailureClass.BUSY: Verdict.LATER,
        FailureClass.GONE: Verdict.FINAL,
        FailureClass.TARGET: Verdict.OTHER_TARGET,
        FailureClass.QUOTA: Verdict.LATER,
        FailureClass.OST: Verdict.OST_TROUBLE,
        FailureClass.PERMANENT: Verdict.FINAL,
        FailureClass.SKIP: Verdict.FINAL,
        FailureClass.OUR_BUG: Verdict.STOP,
        FailureClass.UNKNOWN: Verdict.LATER,
    }
