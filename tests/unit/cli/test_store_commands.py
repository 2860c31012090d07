"""`cyclone backup` and `cyclone compact`: what they print and how they end. The rest is in tests/unit/store."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import audited_store
import pytest

from cyclone.cli.main import main
from cyclone.errors import EXIT_ALREADY_RUNNING, EXIT_CONFIG, EXIT_OK
from cyclone.store.sqlite import SqliteStore


@pytest.fixture
def store(tmp_path: Path) -> Path:
    audited_store.make(tmp_path / "store.db")
    return tmp_path / "store.db"


@pytest.fixture
def ini(tmp_path: Path, store: Path) -> str:
    file = tmp_path / "master.conf"
    file.write_text(f"[store]\npath = {store}\n")
    return str(file)


def test_a_back_up_is_told_of_and_can_be_audited(ini: str, tmp_path: Path, capsys) -> None:
    code = main(["backup", "-f", ini, str(tmp_path / "copy")])
    told = capsys.readouterr().out
    audited = main(["audit", "--store", str(tmp_path / "copy")])

    assert (code, audited) == (EXIT_OK, EXIT_OK)
    assert told == f"{tmp_path / 'copy'}: 0.1 MiB, looked through\n"


def test_a_file_that_is_there_is_replaced_only_when_that_is_asked_for(
    ini: str, tmp_path: Path, capsys
) -> None:
    (tmp_path / "copy").write_text("precious")

    refused = main(["backup", "-f", ini, str(tmp_path / "copy")])
    told = capsys.readouterr().err
    replaced = main(["backup", "-f", ini, "--replace", str(tmp_path / "copy")])

    assert (refused, replaced) == (EXIT_CONFIG, EXIT_OK)
    assert told.count("\n") == 1
    assert "--replace" in told


def test_a_compaction_tells_both_sizes(ini: str, store: Path, capsys) -> None:
    code = main(["compact", "-f", ini])

    assert code == EXIT_OK
    assert capsys.readouterr().out == f"{store}: 0.1 MiB before, 0.1 MiB now\n"
    assert main(["audit", "-f", ini]) == EXIT_OK


def test_a_store_in_use_is_not_compacted_and_who_uses_it_is_told(ini: str, store: Path, capsys) -> None:
    with closing(SqliteStore(store)):
        code = main(["compact", "-f", ini])

    told = capsys.readouterr().err
    assert code == EXIT_ALREADY_RUNNING
    assert told.count("\n") == 1
    assert f"already running ({os.getpid()};" in told
