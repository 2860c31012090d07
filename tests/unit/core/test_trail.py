from __future__ import annotations

from cyclone.core.audit import Findings, Sent
from cyclone.core.trail import BATCH, Trail
from cyclone.messages import RecordsKnown, RecordView
from cyclone.model.audit import JobSum, RecordSum
from cyclone.record import uid

STORED, WAITING, REFUSED, UNKNOWN = (
    RecordView(1), RecordView(0, True), RecordView(0, False, True), RecordView(),
)  # fmt: skip
JOB = JobSum(3, "night", "open")


def trail_of(count: int) -> tuple[Trail, Findings]:
    findings = Findings()
    trail = Trail(RecordSum("database", sent=count), findings)
    trail.add(Sent(JOB, 77, 5, "t", [("database", count)]), range(count))
    return trail, findings


def known(*views: RecordView, trouble: str = "") -> RecordsKnown:
    return RecordsKnown(1, list(views), trouble)


def sums(trail: Trail) -> tuple[int, ...]:
    each = trail.sums
    return each.stored, each.waiting, each.refused, each.underway, each.missing, each.twice, each.untold


def test_each_record_counts_where_it_is() -> None:
    trail, findings = trail_of(5)

    trail.answered([known(STORED, WAITING, REFUSED, STORED, RecordView(1, True))])
    trail.settle(0, "at a controller")

    assert [record.key for record in trail.due] == []
    assert sums(trail) == (3, 1, 1, 0, 0, 0, 0)
    assert findings.violations == {}


def test_what_nobody_has_is_missing_and_named() -> None:
    trail, findings = trail_of(2)

    trail.answered([known(STORED, UNKNOWN)])
    trail.settle(0, "at a controller")

    assert sums(trail) == (1, 0, 0, 0, 1, 0, 0)
    assert [str(each) for each in findings.first] == [
        f"record: job night (3), task 5 (t), found record 1 ({uid(77, 't', 1).hex()}) for database neither there nor "
        "at a controller, expected one row, in its spool or among its dead letters"
    ]


def test_what_is_in_two_rows_is_named() -> None:
    trail, findings = trail_of(1)

    trail.answered([known(RecordView(2))])

    assert (trail.sums.twice, trail.sums.stored) == (1, 1)
    assert "in 2 rows, expected one row" in str(findings.first[0])


def test_what_was_unknown_and_has_come_is_there() -> None:
    trail, findings = trail_of(3)
    trail.answered([known(STORED, UNKNOWN, UNKNOWN)])

    trail.answered_again(trail.unknown, [known(STORED, WAITING)])
    trail.settle(0, "at a controller")

    assert sums(trail) == (2, 1, 0, 0, 0, 0, 0)
    assert (trail.sums.asked, findings.violations) == (3, {})


def test_of_what_is_unknown_as_much_as_waits_at_controllers_is_underway_the_newest() -> None:
    trail, findings = trail_of(3)
    trail.answered([known(UNKNOWN, UNKNOWN, UNKNOWN)])

    trail.settle(2, "at a controller")

    assert (trail.sums.underway, trail.sums.missing) == (2, 1)
    assert [each.found[:8] for each in findings.first] == ["record 0"]


def test_more_may_wait_at_controllers_than_is_looked_for() -> None:
    trail, findings = trail_of(1)
    trail.answered([known(UNKNOWN)])

    trail.settle(500, "at a controller")

    assert (trail.sums.underway, trail.sums.missing, findings.violations) == (1, 0, {})


def test_one_of_several_sinks_of_a_name_is_enough() -> None:
    trail, findings = trail_of(3)

    trail.answered([known(STORED, UNKNOWN, STORED), known(UNKNOWN, WAITING, STORED)])
    trail.settle(0, "at a controller")

    assert sums(trail) == (2, 1, 0, 0, 0, 1, 0)
    assert findings.violations == {"record": 1}


def test_what_nobody_can_tell_now_is_no_violation() -> None:
    trail, findings = trail_of(3)

    trail.answered([known(WAITING, REFUSED, UNKNOWN, trouble="the database is away")])
    trail.settle(0, "at a controller")

    assert sums(trail) == (0, 1, 1, 0, 0, 0, 1)
    assert (trail.sums.trouble, findings.violations) == ("the database is away", {})


def test_a_sink_that_keeps_no_records_is_not_asked_for_them() -> None:
    trail, findings = trail_of(3)

    trail.answered([RecordsKnown(1, [], keeps=False)])
    trail.settle(0, "at a controller")

    assert (trail.sums.keeps, trail.sums.asked, findings.violations) == (False, 0, {})


def test_a_batch_is_asked_for_at_a_time() -> None:
    trail, _ = trail_of(BATCH + 1)
    assert trail.is_full

    trail.answered([known(*[STORED] * BATCH)])

    assert (len(trail.due), trail.is_full, trail.sums.stored) == (1, False, BATCH)
    assert trail.due[0].key == uid(77, "t", BATCH)


def test_unknown_ones_beyond_what_is_kept_are_missing_as_well(monkeypatch) -> None:
    monkeypatch.setattr("cyclone.core.trail.AGAIN_MOST", 2)
    trail, findings = trail_of(5)

    trail.answered([known(*[UNKNOWN] * 5)])
    trail.settle(1, "at a controller")

    assert (trail.sums.underway, trail.sums.missing, findings.violations) == (1, 4, {"record": 4})
