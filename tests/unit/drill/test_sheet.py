"""What the sheet of a drill says: who was touched, what it cost, and what never happened."""

from __future__ import annotations

from cyclone.drill.checker import Kind, Violation
from cyclone.drill.notes import AnyNote, Began, Ended, Handed, Told
from cyclone.drill.plan import Stroke
from cyclone.drill.sheet import RunReport, Struck, judge, recovery_s, report

NOTES: list[AnyNote] = [
    Handed(1.0, "before", "life"),
    Began(9.0, "before", 1, "north", 5),
    Ended(11.0, "before", 1, {}, True),
    Told(11.5, "before", "life", "succeeded"),
    Handed(12.0, "after", "life"),
    Began(12.5, "after", 2, "south", 6),
    Ended(13.0, "after", 2, {}, True),
    Told(13.5, "after", "life", "succeeded"),
    Began(14.0, "late", 3, "north", 5),
    Ended(15.0, "late", 3, {}, True),
]


def struck(fault: str = "kill-master", victim: str = "master", *, happened: bool = True) -> Struck:
    return Struck(Stroke(1.0, fault, victim, 2.0, 7), began_at=8.0, over_at=10.0, happened=happened)


def run(*violations: Violation, strokes: tuple[Struck, ...] = (struck(),)) -> RunReport:
    made = [judge(each, NOTES, violations) for each in strokes]
    return RunReport(7, made, 2, violations, has_ended=True, lasted_s=20.0)


def test_a_cluster_has_recovered_when_the_end_of_a_task_that_began_after_it_was_told() -> None:
    assert recovery_s(struck(), NOTES) == 3.5


def test_a_node_has_recovered_when_a_task_that_began_there_has_ended() -> None:
    assert recovery_s(struck("kill-controller", "north"), NOTES) == 5.0
    assert recovery_s(struck("kill-controller", "south"), NOTES) == 3.0


def test_who_has_seen_no_task_since_has_no_recovery() -> None:
    assert recovery_s(struck("kill-controller", "west"), NOTES) is None


def test_tasks_are_those_that_were_under_way_until_it_had_recovered() -> None:
    told = report([run()], ["kill-master"], {}, 7)

    assert told["faults"]["kill-master"] == {
        "tried": 1, "without_effect": 0, "tasks": 2, "lost": 0, "doubled": 0, "recovery_s": {"p50": 3.5, "max": 3.5},
    }  # fmt: skip
    assert told["passed"]


def test_what_is_lost_is_charged_to_the_faults_that_it_has_seen_and_counted_once() -> None:
    strokes = (struck(), struck("kill-worker", "north"), struck("kill-controller", "west"))

    told = report([run(Violation(Kind.LOST, "after", "…"), strokes=strokes)], [], {}, 7)

    assert (told["lost"], told["doubled"], told["passed"]) == (1, 0, False)
    assert [line["lost"] for line in told["faults"].values()] == [1, 1, 0]


def test_a_violation_of_another_kind_fails_the_drill_as_well() -> None:
    told = report([run(Violation(Kind.WRONG, "", "a process is left"))], [], {}, 7)

    assert (told["lost"], told["doubled"], told["wrong"], told["passed"]) == (0, 0, 1, False)


def test_what_never_happened_is_said_and_what_cannot_happen_here_is_not() -> None:
    faults = ["kill-master", "stop-master", "full-disk", "lose-messages"]
    strokes = (struck(), struck("lose-messages", "north", happened=False))

    told = report([run(strokes=strokes)], faults, {"full-disk": "no mounts"}, 7)

    assert told["never"] == ["stop-master", "lose-messages"]
    assert told["left_out"] == {"full-disk": "no mounts"}
    assert told["faults"]["lose-messages"]["without_effect"] == 1
    assert told["faults_made"] == 1


def test_the_middle_and_the_worst_recovery_over_all_runs() -> None:
    strokes = tuple(
        Struck(Stroke(1.0, "kill-master", "master", 0, 7), 8.0, over_at) for over_at in (9.0, 10.0, 11.9)
    )

    told = report([run(strokes=strokes), run(strokes=strokes[:1])], [], {}, 7)

    assert told["faults"]["kill-master"]["recovery_s"] == {"p50": 2.5, "max": 3.5}


def test_a_drill_without_a_run_has_not_passed() -> None:
    assert not report([], ["kill-master"], {}, 7)["passed"]
