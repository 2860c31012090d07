from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import audited_store
import msgspec
import pytest

from cyclone.cli import audit as command
from cyclone.cli.main import main
from cyclone.errors import EXIT_CONFIG, EXIT_OK, EXIT_TASK_FAILED, EXIT_UNREACHABLE
from cyclone.model.audit import Audit, RecordSum


@pytest.fixture
def store(tmp_path: Path) -> Path:
    audited_store.make(tmp_path / "store.db")
    return tmp_path / "store.db"


@pytest.fixture
def ini(tmp_path: Path, store: Path) -> str:
    file = tmp_path / "master.conf"
    file.write_text(f"[task_generator]\nmodule = jobs\nclass = Job\n[store]\npath = {store}\n")
    return str(file)


def test_the_sums_of_a_sound_store_are_told(ini, store, capsys) -> None:
    code = main(["audit", "-f", ini])

    told = capsys.readouterr().out
    assert code == EXIT_OK
    assert told.startswith(f"Store {store}, epoch ")
    assert told.partition("\n")[2] == (
        "JOB    NUMBER  STATE   ACCEPTED  SUCCEEDED  FAILED  CANCELLED  OPEN\n"
        "day         1  failed         3          1       1          1     0\n"
        "night       2  open           5          1       0          1     3\n"
        "\n"
        "8 accepted = 5 ended + 3 open\n"
        "6 attempts have ended\n"
        "No violation\n"
    )


def test_each_violation_is_told_with_its_job_and_task(ini, store, capsys) -> None:
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute("DELETE FROM ended_badly WHERE task = 2")
        connection.execute("INSERT INTO ended SELECT 99, story FROM ended WHERE task = 4")

    code = main(["audit", "-f", ini])

    told = capsys.readouterr().out
    assert code == EXIT_TASK_FAILED
    assert told.partition("\n\n")[2] == (
        "8 accepted is not 6 ended + 3 open\n"
        "6 attempts have ended\n"
        "\n"
        "Violations: 3 (bad_end 1, end 1, balance 1)\n"
        "  bad_end: job day (1), task 2 (b), found nothing in the list of bad ends, expected failed\n"
        "  end: task 99, found the end succeeded of a task that is in no parcel, expected an accepted task\n"
        "  balance: found 8 accepted, 6 ended and 3 open, expected accepted = ended + open\n"
    )


def test_programs_get_one_object(store, capsys) -> None:
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute("DELETE FROM ended_badly WHERE task = 2")

    code = main(["audit", "--store", str(store), "--json"])

    told = json.loads(capsys.readouterr().out)
    assert code == EXIT_TASK_FAILED
    assert (told["accepted"], told["ended"], told["open"]) == (8, 5, 3)
    assert told["violations"] == {"bad_end": 1}
    assert told["findings"] == [
        {
            "rule": "bad_end", "found": "nothing in the list of bad ends", "expected": "failed",
            "job": "day", "job_number": 1, "number": 2, "tid": "b",
        }
    ]  # fmt: skip
    assert told["jobs"][1]["ended"] == {"succeeded": 1, "cancelled": 1}


def test_that_there_are_more_violations_than_are_listed_is_told(store, capsys) -> None:
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.executemany(
            "INSERT INTO ended_badly VALUES (?, 'failed')", [(n,) for n in range(100, 250)]
        )

    main(["audit", "--store", str(store)])

    told = capsys.readouterr().out.splitlines()
    assert "Violations: 150 (bad_end 150)" in told
    assert told[-1] == "  … and 50 more"


def test_where_there_is_no_store_it_says_so(tmp_path, capsys) -> None:
    code = main(["audit", "--store", str(tmp_path / "nowhere")])

    assert code == EXIT_CONFIG
    assert capsys.readouterr().err == (
        f"cyclone: {tmp_path / 'nowhere'}: there is no such file, expected a store of Cyclone\n"
    )


def test_of_records_that_were_not_asked_for_the_number_is_told(store, ini, capsys) -> None:
    with closing(sqlite3.connect(store)) as connection, connection:
        [(story,)] = connection.execute("SELECT story FROM ended WHERE task = 4")
        state, attempts, peer, end, reason, value, *_ = msgspec.msgpack.decode(story)
        end[7] = [("database", 2), ("gateway", 1), ("database", 1)]
        story = msgspec.msgpack.encode((state, attempts, peer, end, reason, value))
        connection.execute("UPDATE ended SET story = ? WHERE task = 4", (story,))

    code = main(["audit", "-f", ini])

    told = capsys.readouterr().out
    assert code == EXIT_OK
    assert (
        "Records of tasks that succeeded\n"
        "SINK      SENT  STORED  WAITING  REFUSED  UNDERWAY  MISSING  TWICE  UNTOLD\n"
        "database     3       -        -        -         -        -      -       -\n"
        "gateway      1       -        -        -         -        -      -       -\n"
        "database was not asked; --sinks INI asks\n"
        "gateway was not asked; --sinks INI asks\n"
    ) in told


@pytest.mark.parametrize(
    ("sums", "told", "code"),
    [
        ({"keeps": False}, "sink cannot be asked: it keeps no records", EXIT_OK),
        ({"asked": 5, "untold": 5, "trouble": "down"}, "sink cannot tell now: down", EXIT_UNREACHABLE),
        ({"asked": 5, "stored": 5}, "sink     5       5        0", EXIT_OK),
    ],
)
def test_what_a_sink_cannot_tell_is_said(store, tmp_path, monkeypatch, capsys, sums, told, code) -> None:
    def found(path, inquiry):
        return Audit(str(path), 1, records=[RecordSum("sink", 5, **sums)])

    monkeypatch.setattr(command, "audit_store", found)

    assert main(["audit", "--store", str(store)]) == code

    assert told in capsys.readouterr().out


def test_the_ini_file_of_a_controller_tells_of_no_store(tmp_path, capsys) -> None:
    file = tmp_path / "controller.conf"
    file.write_text("[processing]\nworker_count = 2\n")

    code = main(["audit", "-f", str(file)])

    assert code == EXIT_CONFIG
    assert capsys.readouterr().err == (
        f"cyclone: {file}: found the ini file of a controller, expected that of the master\n"
    )
