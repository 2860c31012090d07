from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyclone.lustre.incidents import Incidents, Notice
from cyclone.lustre.ost_task import Fault, OstState

HOUR = 3600.0


def incidents(**options: Any) -> Incidents:
    return Incidents(**{"repeat_s": HOUR, "digest_most": 3, **options})


def fault(phase: str = "write", state: OstState = OstState.WRITE_FAILED, mailed: bool = False) -> Fault:
    return Fault(phase, state, "[Errno 5] Input/output error", mailed)


def end_round(mind: Incidents, now: float) -> list[Notice]:
    """The digests of a round, after which the next one begins."""
    notices = mind.digest(now)
    mind.begin_round()
    return notices


def about(notices: list[Notice]) -> list[tuple[str, list[int]]]:
    return [(notice.about, [incident.ost for incident in notice.incidents]) for notice in notices]


def test_people_are_told_when_an_incident_begins() -> None:
    mind = incidents()

    (notice,) = mind.hear(3, [fault()], (), 100.0)

    (incident,) = notice.incidents
    assert (notice.about, incident.ost, incident.phase, incident.state) == (
        "fault",
        3,
        "write",
        "WRITE_FAILED",
    )
    assert incident.since == 100.0


def test_people_are_told_once_of_an_incident() -> None:
    mind = incidents()
    mind.hear(3, [fault()], (), 100.0)

    assert mind.hear(3, [fault()], (), 160.0) == []
    assert mind.open()[0].since == 100.0


def test_people_are_told_again_after_a_while() -> None:
    mind = incidents(repeat_s=HOUR)
    mind.hear(3, [fault()], (), 100.0)

    assert about(mind.hear(3, [fault()], (), 100.0 + HOUR)) == [("fault", [3])]
    assert mind.hear(3, [fault()], (), 160.0 + HOUR) == []


def test_people_are_never_told_again_if_they_do_not_want_it() -> None:
    mind = incidents(repeat_s=0.0)
    mind.hear(3, [fault()], (), 100.0)

    assert mind.hear(3, [fault()], (), 100.0 + 1000 * HOUR) == []


def test_each_phase_of_an_ost_has_incidents_of_its_own() -> None:
    mind = incidents()

    notices = mind.hear(3, [fault("write"), fault("read", OstState.CORRUPT)], (), 100.0)

    assert [notice.incidents[0].phase for notice in notices] == ["write", "read"]


def test_what_a_task_has_mailed_is_not_mailed_again() -> None:
    mind = incidents()

    assert mind.hear(3, [fault(state=OstState.SLOW, mailed=True)], (), 100.0) == []
    assert mind.quiet(3, 160.0) == ("write",)


def test_a_phase_that_was_slow_and_then_failed_is_one_incident_and_people_are_told_that_it_failed() -> None:
    mind = incidents()

    notices = mind.hear(3, [fault(state=OstState.SLOW, mailed=True), fault()], (), 100.0)

    assert [notice.incidents[0].state for notice in notices] == ["WRITE_FAILED"]
    assert [incident.state for incident in mind.open()] == ["WRITE_FAILED"]


def test_of_a_phase_that_failed_after_nobody_was_told_that_it_was_slow_there_is_one_mail() -> None:
    mind = incidents()

    notices = mind.hear(3, [fault(state=OstState.SLOW), fault()], (), 100.0)

    assert [notice.incidents[0].state for notice in notices] == ["WRITE_FAILED"]


@pytest.mark.parametrize(
    ("first", "second", "is_worse"),
    [
        (OstState.SLOW, OstState.CORRUPT, True), (OstState.SLOW, OstState.TIMEOUT, True),
        (OstState.TIMEOUT, OstState.DOWN, True), (OstState.CORRUPT, OstState.SLOW, False),
        (OstState.DOWN, OstState.TIMEOUT, False), (OstState.WRITE_FAILED, OstState.CORRUPT, False),
    ],
)  # fmt: skip
def test_people_are_told_when_it_gets_worse(first: OstState, second: OstState, is_worse: bool) -> None:
    mind = incidents()
    mind.hear(3, [fault(state=first)], (), 100.0)

    notices = mind.hear(3, [fault(state=second)], (), 160.0)

    assert [notice.incidents[0].state for notice in notices] == ([second] if is_worse else [])
    assert mind.open()[0].since == 100.0


def test_what_goes_to_and_fro_is_told_once() -> None:
    mind = incidents()
    looks = [OstState.SLOW, OstState.WRITE_FAILED] * 5

    told = [
        notice for now, state in enumerate(looks) for notice in mind.hear(3, [fault(state=state)], (), now)
    ]

    assert [notice.incidents[0].state for notice in told] == ["SLOW", "WRITE_FAILED"]


def test_a_mail_of_a_task_that_it_is_slow_does_not_make_a_time_out_news_again() -> None:
    mind = incidents(repeat_s=HOUR)
    faults = [fault(state=OstState.SLOW, mailed=True), fault(state=OstState.TIMEOUT)]
    first = mind.hear(3, faults, (), 100.0)
    end_round(mind, 110.0)

    later = mind.hear(3, faults, (), 100.0 + HOUR)

    assert [notice.incidents[0].state for notice in first] == ["TIMEOUT"]
    assert later == []


def test_people_are_told_when_it_is_over() -> None:
    mind = incidents()
    mind.hear(3, [fault()], (), 100.0)

    assert about(mind.hear(3, [], ("create", "write"), 200.0)) == [("recovery", [3])]
    assert mind.open() == []


def test_a_phase_of_which_nothing_was_heard_is_not_over() -> None:
    mind = incidents()
    mind.hear(3, [fault("read", OstState.READ_FAILED)], (), 100.0)

    assert mind.hear(3, [fault("write")], ("create",), 200.0)[0].about == "fault"
    assert [incident.phase for incident in mind.open()] == ["read", "write"]


def test_after_it_was_over_people_are_told_of_the_next_one() -> None:
    mind = incidents()
    first = mind.hear(3, [fault()], (), 100.0)
    mind.hear(3, [], ("write",), 200.0)

    second = mind.hear(3, [fault()], (), 300.0)

    assert about(second) == [("fault", [3])]
    assert first[0].key != second[0].key


def test_many_in_one_round_are_told_of_in_a_digest() -> None:
    mind = incidents(digest_most=3)

    single = [notice for ost in range(700) for notice in mind.hear(ost, [fault()], (), 100.0)]
    at_end = end_round(mind, 110.0)

    assert about(single) == [("fault", [0]), ("fault", [1]), ("fault", [2])]
    assert about(at_end) == [("fault", list(range(700)))]
    assert at_end[0].is_digest


def test_what_stood_in_a_digest_was_told() -> None:
    mind = incidents(digest_most=1)
    for ost in range(5):
        mind.hear(ost, [fault()], (), 100.0)
    end_round(mind, 110.0)

    assert [mind.hear(ost, [fault()], (), 160.0) for ost in range(5)] == [[]] * 5
    assert end_round(mind, 170.0) == []


def test_what_a_digest_names_was_told_then() -> None:
    mind = incidents(repeat_s=HOUR, digest_most=1)
    for ost in range(2):
        mind.hear(ost, [fault()], (), 100.0)
    mind.digest(200.0)
    mind.begin_round()

    assert mind.hear(0, [fault()], (), 150.0 + HOUR) == []
    assert about(mind.hear(0, [fault()], (), 200.0 + HOUR)) == [("fault", [0])]


def test_a_digest_does_not_name_again_what_stood_in_the_one_before() -> None:
    mind = incidents(digest_most=1)
    for ost in range(3):
        mind.hear(ost, [fault()], (), 100.0)
    end_round(mind, 110.0)

    for ost in range(5):
        mind.hear(ost, [fault()], (), 160.0)

    assert about(end_round(mind, 170.0)) == [("fault", [3, 4])]


def test_mails_of_tasks_count_among_those_of_a_round() -> None:
    mind = incidents(digest_most=2)
    for ost in range(2):
        mind.hear(ost, [fault(state=OstState.SLOW, mailed=True)], (), 100.0)

    assert mind.hear(2, [fault()], (), 100.0) == []
    assert about(end_round(mind, 110.0)) == [("fault", [0, 1, 2])]


def test_a_new_round_may_tell_at_once_again() -> None:
    mind = incidents(digest_most=1)
    mind.hear(0, [fault()], (), 100.0)
    end_round(mind, 110.0)

    assert about(mind.hear(1, [fault()], (), 160.0)) == [("fault", [1])]


def test_what_comes_after_a_digest_waits_for_the_next_one_and_is_alone_in_it() -> None:
    mind = incidents(digest_most=1)
    for ost in range(3):
        mind.hear(ost, [fault()], (), 100.0)
    mind.digest(110.0)

    assert mind.hear(3, [fault()], (), 120.0) == []
    assert about(mind.digest(130.0)) == [("fault", [3])]


def test_what_still_waits_when_a_round_begins_is_told_in_it() -> None:
    mind = incidents(digest_most=1)
    for ost in range(2):
        mind.hear(ost, [fault()], (), 100.0)

    mind.begin_round()

    assert about(mind.digest(110.0)) == [("fault", [1])]


def test_many_that_are_over_are_told_of_in_a_digest() -> None:
    mind = incidents(digest_most=2)
    for ost in range(6):
        mind.hear(ost, [fault()], (), 100.0)
    end_round(mind, 110.0)

    single = [notice for ost in range(6) for notice in mind.hear(ost, [], ("write",), 200.0)]

    assert about(single) == [("recovery", [0]), ("recovery", [1])]
    assert about(end_round(mind, 210.0)) == [("recovery", [2, 3, 4, 5])]


def test_what_comes_back_before_people_were_told_that_it_was_over_goes_on() -> None:
    mind = incidents(digest_most=1)
    for ost in range(2):
        mind.hear(ost, [fault()], (), 100.0)
    end_round(mind, 110.0)
    for ost in range(2):
        mind.hear(ost, [], ("write",), 160.0)

    told = mind.hear(1, [fault()], (), 170.0)

    assert told == end_round(mind, 180.0) == []
    assert [(each.ost, each.since) for each in mind.open()] == [(1, 100.0)]


def test_what_was_over_before_anybody_was_told_is_not_told() -> None:
    mind = incidents(digest_most=1)
    mind.hear(0, [fault()], (), 100.0)
    mind.hear(1, [fault()], (), 100.0)

    assert mind.hear(1, [], ("write",), 105.0) == []
    assert end_round(mind, 110.0) == []


def test_a_restart_tells_nothing_twice() -> None:
    before = incidents()
    before.hear(3, [fault()], (), 100.0)

    after = incidents(remembered=before.unsettled())

    assert after.hear(3, [fault()], (), 160.0) == []
    assert about(after.hear(3, [], ("write",), 200.0)) == [("recovery", [3])]


def test_what_waits_for_a_digest_at_a_restart_is_told_after_it() -> None:
    before = incidents(digest_most=1)
    for ost in range(2):
        before.hear(ost, [fault()], (), 100.0)

    after = incidents(remembered=before.unsettled())

    assert [about(after.hear(ost, [fault()], (), 160.0)) for ost in range(2)] == [[], [("fault", [1])]]


def test_an_end_that_waits_for_a_digest_outlives_a_restart() -> None:
    before = incidents(digest_most=1)
    for ost in range(2):
        before.hear(ost, [fault()], (), 100.0)
        end_round(before, 110.0)
    for ost in range(2):
        before.hear(ost, [], ("write",), 160.0)

    after = incidents(remembered=before.unsettled())

    assert about(after.hear(1, [], ("write",), 220.0)) == [("recovery", [1])]


def test_a_place_in_a_round_is_not_given_back_when_it_is_over() -> None:
    mind = incidents(digest_most=1)
    mind.hear(0, [fault()], (), 100.0)
    mind.hear(0, [], ("write",), 101.0)

    assert mind.hear(0, [fault()], (), 102.0) == []
    assert about(end_round(mind, 110.0)) == [("fault", [0])]


def test_what_is_over_stands_in_no_digest_of_faults() -> None:
    mind = incidents(digest_most=1)
    mind.hear(0, [fault()], (), 100.0)
    mind.hear(1, [fault()], (), 100.0)

    mind.hear(0, [], ("write",), 105.0)

    assert about(end_round(mind, 110.0)) == [("fault", [1])]


def test_a_task_is_told_which_phases_people_know_of() -> None:
    mind = incidents(repeat_s=HOUR)
    mind.hear(3, [fault("read", OstState.SLOW)], (), 100.0)

    assert mind.quiet(3, 160.0) == ("read",)
    assert mind.quiet(4, 160.0) == ()
    assert mind.quiet(3, 100.0 + HOUR) == ()


def test_nobody_hears_of_an_ost_that_was_retired() -> None:
    mind = incidents(digest_most=1)
    for ost in range(3):
        mind.hear(ost, [fault()], (), 100.0)
    end_round(mind, 110.0)
    for ost in range(2):
        mind.hear(ost, [], ("write",), 160.0)
    mind.hear(3, [fault()], (), 160.0)
    mind.hear(4, [fault()], (), 160.0)

    for ost in range(5):
        mind.forget(ost)

    assert mind.open() == []
    assert end_round(mind, 110.0) == []


_looks = st.tuples(
    st.integers(0, 5),
    st.sampled_from(["fine", "bad", "mailed"]),
    st.sampled_from(["write", "read"]),
    st.booleans(),
)


@given(st.lists(_looks, max_size=80), st.integers(1, 4))
def test_of_every_incident_people_are_told_exactly_once_and_never_by_too_many_mails(
    looks: list[tuple[int, str, str, bool]], digest_most: int
) -> None:
    mind = incidents(repeat_s=0.0, digest_most=digest_most)
    told: Counter[tuple[int, str, float]] = Counter()
    mails = {"fault": 0, "recovery": 0}
    now = 0.0

    def count(notices: list[Notice]) -> None:
        for notice in notices:
            mails[notice.about] += 1
            if notice.about == "fault":
                fresh = [each for each in notice.incidents if not each.told_at]
                told.update((each.ost, each.phase, each.since) for each in fresh)

    for ost, what, phase, round_ends in looks:
        now += 1.0
        if what == "fine":
            count(mind.hear(ost, [], (phase,), now))
        else:
            known = phase in mind.quiet(ost, now)
            mailed = what == "mailed" and not known
            count(mind.hear(ost, [fault(phase, OstState.SLOW, mailed)], (), now))
        assert mails["fault"] <= digest_most
        assert mails["recovery"] <= digest_most
        if round_ends:
            before = dict(mails)
            count(end_round(mind, now))
            assert mails["fault"] <= before["fault"] + 1
            assert all(incident.told_at for incident in mind.open())
            mails = {"fault": 0, "recovery": 0}

    assert set(told.values()) <= {1}
