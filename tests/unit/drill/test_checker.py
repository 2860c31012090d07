"""The checker notices each kind of violation: a sound run is doctored, one lie at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from cyclone.drill.checker import Evidence, Kind, Stored, check
from cyclone.drill.notes import AnyNote, Began, Ended, Given, Handed, Told, Woke

OLD, NEW = (1 << 38) + 1, (1 << 38) + 2

#: Three tasks of a generator: `a`, lost once with its worker and then done; `b`, which comes after it and records; `c`,
#: which is exclusive and kills its workers; and one of the clerk. The generator was started twice.
NOTES: list[AnyNote] = [
    Handed(1.0, "a", "first"),
    Handed(1.1, "b", "first", ["a"]),
    Given(1.2, "given-0"),
    Began(2.0, "a", OLD, "north", 11),
    Handed(3.0, "a", "second"),
    Handed(3.1, "b", "second", ["a"]),
    Handed(3.2, "c", "second"),
    Began(4.0, "a", NEW, "west", 12),
    Ended(4.5, "a", NEW, {}, True, "two"),
    Told(4.6, "a", "second", "succeeded", "two"),
    Began(5.0, "b", NEW + 1, "west", 12),
    Ended(5.5, "b", NEW + 1, {"database": 2, "pushgateway": 1}, True),
    Told(5.6, "b", "second", "succeeded"),
    Began(6.0, "c", NEW + 2, "west", 12),
    Told(6.1, "c", "second", "quarantined"),
    Began(7.0, "given-0", NEW + 3, "west", 13),
    Ended(7.5, "given-0", NEW + 3, {}, True, "zero"),
]
STORED = [
    Stored("a", "succeeded", NEW),
    Stored("b", "succeeded", NEW + 1),
    Stored("c", "quarantined", NEW + 2),
    Stored("given-0", "succeeded", NEW + 3),
]
SOUND = Evidence(
    NOTES, STORED, 4, {"b": 2}, {"b": 1}, expected=lambda tid: "quarantined" if tid == "c" else "succeeded"
)


def without(drop: Callable[[AnyNote], bool]) -> Evidence:
    return replace(SOUND, notes=[note for note in NOTES if not drop(note)])


def with_(*notes: AnyNote) -> Evidence:
    return replace(SOUND, notes=[*NOTES, *notes])


def storing(*changed: Stored, without: str = "") -> Evidence:
    stored = {each.tid: each for each in STORED} | {each.tid: each for each in changed}
    stored.pop(without, None)
    return replace(SOUND, stored=list(stored.values()))


def found(evidence: Evidence) -> Sequence[tuple[Kind, str]]:
    return [(violation.kind, violation.tid) for violation in check(evidence)]


def test_a_sound_run_has_no_violation() -> None:
    assert check(SOUND) == []


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        pytest.param(storing(Stored("a", "")), (Kind.LOST, "a"), id="a task without an end"),
        pytest.param(storing(without="a"), (Kind.LOST, "a"), id="a task that was told of and is not stored"),
        pytest.param(
            replace(storing(without="given-0"), notes=NOTES[:-2]), (Kind.LOST, "given-0"),
            id="a task that was accepted and is not stored",
        ),
        pytest.param(
            without(lambda note: isinstance(note, Told) and note.tid == "b"), (Kind.LOST, "b"),
            id="an end that was never told",
        ),
        pytest.param(
            with_(Told(9.0, "a", "second", "succeeded", "two")), (Kind.DOUBLED, "a"), id="an end that was told twice"
        ),
        pytest.param(
            with_(Told(9.0, "a", "first", "failed", "two")), (Kind.WRONG, "a"), id="an end that was told otherwise"
        ),
        pytest.param(
            with_(Told(9.0, "a", "first", "succeeded", "three")), (Kind.WRONG, "a"), id="another value than returned"
        ),
        pytest.param(
            with_(Began(9.0, "a", NEW, "north", 14)), (Kind.DOUBLED, "a"), id="an attempt that was made twice"
        ),
        pytest.param(
            with_(Began(9.0, "a", NEW + 9, "north", 14)), (Kind.DOUBLED, "a"), id="an attempt after the recorded one"
        ),
        pytest.param(
            with_(Began(9.0, "given-0", OLD, "north", 14)), (Kind.DOUBLED, "given-0"), id="a token of two tasks"
        ),
        pytest.param(
            storing(Stored("a", "succeeded", OLD)), (Kind.DOUBLED, "a"), id="a stale token that was recorded"
        ),
        pytest.param(
            with_(Began(9.0, "c", NEW - 1, "north", 14, alone=False)), (Kind.DOUBLED, "c"),
            id="two at a time of an exclusive task",
        ),
        pytest.param(
            without(lambda note: isinstance(note, Ended) and note.tid == "given-0"), (Kind.WRONG, "given-0"),
            id="a success that nobody has seen",
        ),
        pytest.param(
            storing(Stored("c", "succeeded", NEW + 2)), (Kind.WRONG, "c"), id="a poison that succeeded"
        ),
        pytest.param(storing(Stored("b", "failed", NEW + 1)), (Kind.WRONG, "b"), id="a good task that failed"),
        pytest.param(replace(SOUND, rows={"b": 1}), (Kind.LOST, "b"), id="a row too few"),
        pytest.param(replace(SOUND, rows={"b": 3}), (Kind.DOUBLED, "b"), id="a row too many"),
        pytest.param(replace(SOUND, rows={"b": 2, "c": 1}), (Kind.DOUBLED, "c"), id="a row of a task that failed"),
        pytest.param(replace(SOUND, rows={"b": 2, "x": 1}), (Kind.DOUBLED, "x"), id="a row of nobody"),
        pytest.param(
            replace(SOUND, misplaced={"b": 1}), (Kind.DOUBLED, "b"), id="one row twice, and another one not at all"
        ),
        pytest.param(replace(SOUND, shown={}), (Kind.LOST, "b"), id="a sample too few"),
        pytest.param(replace(SOUND, shown={"b": 2}), (Kind.DOUBLED, "b"), id="a sample too many"),
        pytest.param(replace(SOUND, shown={"b": 1, "c": 1}), (Kind.DOUBLED, "c"), id="a sample of a task that failed"),
        pytest.param(replace(SOUND, shown={"b": 1, "x": 1}), (Kind.DOUBLED, "x"), id="a sample of nobody"),
        pytest.param(
            replace(
                SOUND,
                notes=[
                    *(note for note in NOTES if getattr(note, "token", None) != NEW + 3),
                    Began(7.0, "a", NEW + 3, "west", 13),
                    Ended(7.5, "a", NEW + 3, {}, True, "two"),
                ],
            ),
            (Kind.WRONG, "given-0"), id="another task that was executed in its place",
        ),
        pytest.param(
            with_(Began(4.1, "b", NEW - 3, "north", 14)), (Kind.WRONG, "b"), id="begun before what it comes after"
        ),
        pytest.param(replace(SOUND, counted=5), (Kind.DOUBLED, ""), id="more ends than tasks"),
        pytest.param(replace(SOUND, left={7: "sleep 9"}), (Kind.WRONG, ""), id="a process that is left"),
        pytest.param(replace(SOUND, findings=["a gap"]), (Kind.WRONG, ""), id="a store that contradicts itself"),
        pytest.param(replace(SOUND, died=["the master ended"]), (Kind.WRONG, ""), id="a daemon that gave up"),
        pytest.param(replace(SOUND, has_ended=False), (Kind.WRONG, ""), id="a run without an end"),
    ],
)  # fmt: skip
def test_a_lie_is_noticed(evidence: Evidence, expected: tuple[Kind, str]) -> None:
    assert expected in found(evidence)


def test_what_never_reached_the_master_in_a_former_life_was_not_promised() -> None:
    assert check(with_(Handed(1.3, "never", "first"), *[])) == []


def test_a_last_life_that_has_handed_in_nothing_need_not_be_told_of_anything() -> None:
    notes = [note for note in NOTES if not (isinstance(note, Told) and note.tid == "b")]

    assert check(replace(SOUND, notes=[*notes, Woke(8.0, "third")])) == []


def test_a_run_without_an_end_is_not_blamed_for_what_is_missing() -> None:
    evidence = Evidence(NOTES[:8], [], 0, None, has_ended=False)

    assert found(evidence) == [(Kind.WRONG, "")]


def test_a_run_without_an_end_is_blamed_for_what_came_twice() -> None:
    evidence = Evidence([*NOTES, Began(9.0, "a", NEW, "north", 14)], [], 0, None, has_ended=False)

    assert found(evidence) == [(Kind.WRONG, ""), (Kind.DOUBLED, "a")]


def test_without_a_database_or_gateway_records_are_nobodys_concern() -> None:
    assert check(replace(SOUND, rows=None, shown=None)) == []


def test_samples_from_before_the_last_life_of_the_client_need_not_be_there() -> None:
    assert check(replace(SOUND, shown={}, client_began_at=5.6)) == []
    assert found(replace(SOUND, shown={"b": 2}, client_began_at=5.6)) == [(Kind.DOUBLED, "b")]


def test_a_user_s_tasks_may_end_as_they_like() -> None:
    evidence = storing(Stored("b", "failed", NEW + 1))

    kinds = [
        violation.text for violation in check(replace(evidence, expected=lambda _: "", rows=None, shown=None))
    ]

    assert kinds == ["was told as succeeded, and the store has failed"]
