from __future__ import annotations

from pathlib import Path

import pytest

from cyclone.metrics.exposition import Exposition, render
from cyclone.metrics.family import Declaration, Family
from cyclone.metrics.textfile import Textfile


def family(value: float) -> Family:
    return Family(Declaration("up_and_well", "Whether it is."), {(): value})


def test_the_file_holds_what_was_shown_last_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    exposition, file = Exposition(), tmp_path / "cyclone.prom"
    textfile = Textfile(exposition, file)

    for value in (1, 2):
        exposition.show("all", [family(value)])
        textfile.write()

    assert file.read_bytes() == render([family(2)])
    assert [*tmp_path.iterdir()] == [file]
    assert textfile.trouble == ""


def test_a_file_can_be_taken_away_also_when_it_was_never_written(tmp_path: Path) -> None:
    textfile = Textfile(Exposition(), tmp_path / "cyclone.prom")
    textfile.write()

    textfile.remove()
    textfile.remove()

    assert [*tmp_path.iterdir()] == []
    assert textfile.trouble == ""


def test_a_file_that_cannot_be_taken_away_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "cyclone.prom").mkdir()
    textfile = Textfile(Exposition(), tmp_path / "cyclone.prom")

    textfile.remove()

    assert "cyclone.prom cannot be removed: " in textfile.trouble


def test_a_file_that_cannot_be_written_is_told_of_until_it_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    textfile = Textfile(Exposition(), tmp_path / "later" / "cyclone.prom")

    troubles = []
    for _ in range(2):
        textfile.write()
        troubles.append(textfile.trouble)
    (tmp_path / "later").mkdir()
    textfile.write()

    assert (
        troubles
        == [f"{tmp_path / 'later' / 'cyclone.prom'} cannot be written: No such file or directory"] * 2
    )
    assert textfile.trouble == ""
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
