"""What makes a run worth nothing although nobody has broken a promise."""

from __future__ import annotations

from pathlib import Path

import pytest

from cyclone.drill.checker import Kind
from cyclone.drill.notes import AnyNote, Given, Told
from cyclone.drill.run import _notes, in_vain
from cyclone.drill.witness import Witness
from cyclone.errors import CycloneError

WORTHY: list[AnyNote] = [Given(1.0, "given-0"), Told(2.0, "work-0", "life", "succeeded")]


def reasons(notes: list[AnyNote], *, was_calm: bool = True) -> list[str]:
    found = in_vain(notes, was_calm=was_calm)
    assert {violation.kind for violation in found} <= {Kind.WRONG}
    return [violation.text for violation in found]


def test_a_run_in_which_work_was_done_to_the_end_is_worth_something() -> None:
    assert reasons(WORTHY) == []


def test_a_run_without_work_proves_nothing() -> None:
    assert reasons(WORTHY[:1]) == ["no task succeeded"]
    assert reasons([WORTHY[0], Told(2.0, "work-0", "life", "failed")]) == ["no task succeeded"]


def test_a_run_in_which_the_clerk_was_never_heard_proves_nothing() -> None:
    assert reasons(WORTHY[1:]) == ["nothing of the clerk was accepted"]


def test_a_master_that_ends_before_its_time_is_noticed() -> None:
    assert reasons(WORTHY, was_calm=False) == ["the master ended while tasks were still to come"]


def test_notes_that_were_cut_short_are_no_evidence(tmp_path: Path) -> None:
    witness = Witness(tmp_path)
    witness.note(WORTHY[0])
    (tmp_path / "witness").write_bytes((tmp_path / "witness").read_bytes()[:-4])

    with pytest.raises(CycloneError, match="could not write down everything"):
        _notes(witness)
