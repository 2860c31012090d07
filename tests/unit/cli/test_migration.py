from __future__ import annotations

import argparse
from typing import Any

import pytest

from cyclone.cli import migration
from cyclone.errors import EXIT_OK, Refusal

STATUS: dict[str, Any] = {
    "state": "running", "reason": "", "left": 3, "eta_s": 60.0, "results": {"SUCCESS": {"": 2}}, "left_alone": [],
    "in_flight": [{"age_s": 3.0}, {"age_s": 600.0}], "resting": 7,
    "speed": {"1min": {"files_per_s": 1.0, "mb_per_s": 2.0}},
    "sources": {"3": {"left": 3, "eta_s": None}}, "untaken": {"b.input.gz": "it is damaged"},
    "locked": [{"ost": 4, "role": "source", "reason": "excluded"}],
}  # fmt: skip


def ask(monkeypatch: pytest.MonkeyPatch, answer: object) -> int:
    """What becomes of `cyclone migration status` when the generator answers so."""
    monkeypatch.setattr(migration, "ask", lambda *_: answer)
    parser = argparse.ArgumentParser()
    migration.add_arguments(parser)
    return migration.run(parser.parse_args(["status"]))


def test_the_status_is_told_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = ask(monkeypatch, STATUS)

    told = capsys.readouterr().out
    assert code == EXIT_OK
    assert told.startswith("running: 3 left")
    assert "in flight 2, the oldest for 10 min 0 s; waiting for another try 7" in told
    assert "b.input.gz  it is damaged" in told


@pytest.mark.parametrize("answer", [{"round": 1, "state": "waiting"}, None, 3, "fine"])
def test_the_status_of_another_generator_is_none_of_a_migration(
    monkeypatch: pytest.MonkeyPatch, answer: object
) -> None:
    with pytest.raises(Refusal, match="none of a migration"):
        ask(monkeypatch, answer)
