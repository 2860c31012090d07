from __future__ import annotations

import json
import sys
import time

import pytest

from cyclone.cli.main import main
from cyclone.errors import MasterUnreachable
from cyclone.messages import AskCluster, Cluster, ControllerView, JobView, Tasks
from cyclone.model.resources import UNIT, shape

NODE = ControllerView(
    name="node1", life="l1", host="host1", pid=42, state="up", silent_s=1.5,
    room=shape({"cpus": 8, "memory": "64GiB", "workers": 8}),
    free=(("cpus", 2 * UNIT), ("memory", 2**35 * UNIT), ("workers", 2 * UNIT)),
    placed=3, running=6, workers=8, workers_busy=6, workers_hung=0,
)  # fmt: skip
JOBS = [
    JobView(2, "migrate\x1b[2J", "open", 1_000_000_000.0, 0.0, {"ready": 10, "succeeded": 5}),
    JobView(1, "old", "failed", 900_000_000.0, 900_000_100.0, {"failed": 1}),
]


def cluster(controllers: list[ControllerView] | None = None, jobs: list[JobView] | None = None) -> Cluster:
    return Cluster(
        1, "3.0.0", 7, 4, "running", 7500.0, "/var/store.db", "tcp://*:5555",
        [NODE] if controllers is None else controllers, JOBS if jobs is None else jobs,
    )  # fmt: skip


def test_it_tells_of_the_master_its_controllers_and_its_jobs(client, ini, capsys) -> None:
    client.replies = [cluster()]

    code = main(["info", "-f", ini])

    told = capsys.readouterr().out.splitlines()
    assert code == 0
    assert told[0] == "Master 3.0.0 at tcp://*:5555: running, up for 2 h 5 min, PID 7, epoch 4"
    assert told[1] == "Store /var/store.db"
    [row] = [line for line in told if line.startswith("node1")]
    assert "1.5 s ago" in row
    assert row.endswith("cpus 2 of 8, memory 32 GiB of 64 GiB")
    assert client.asked == [AskCluster(0)]
    assert client.settings is not None
    assert client.settings.port == 6001
    assert client.closed


def test_jobs_have_a_column_for_each_state_that_occurs(client, ini, capsys) -> None:
    client.replies = [cluster()]

    main(["info", "-f", ini])

    told = capsys.readouterr().out.splitlines()
    [titles] = [line for line in told if line.startswith("JOB ")]
    assert titles.split() == ["JOB", "NUMBER", "STATE", "OPENED", "CLOSED", "READY", "SUCCEEDED", "FAILED"]
    [row] = [line for line in told if line.startswith("migrate")]
    assert row.split()[-3:] == ["10", "5", "0"]
    assert "\x1b" not in row


def test_what_was_forgotten_has_a_column_where_there_is_any(client, ini, capsys) -> None:
    rounds = JobView(3, "rounds", "open", 1e9, 0.0, {"succeeded": 5000}, forgotten=4000)
    client.replies = [cluster(jobs=[rounds, *JOBS]), cluster()]

    main(["info", "-f", ini])
    told = capsys.readouterr().out
    main(["info", "-f", ini])

    assert [line.split()[-2:] for line in told.splitlines()[-4:-2]] == [
        ["FAILED", "FORGOTTEN"],
        ["0", "4000"],
    ]
    assert "FORGOTTEN" not in capsys.readouterr().out


def test_an_empty_cluster_has_no_tables(client, ini, capsys) -> None:
    client.replies = [cluster([], [])]

    main(["info", "-f", ini])

    assert "Controllers: 0" in (told := capsys.readouterr().out)
    assert "NAME" not in told


def test_programs_get_one_object(client, ini, capsys) -> None:
    client.replies = [cluster()]

    code = main(["info", "-f", ini, "--json"])

    told = json.loads(capsys.readouterr().out)
    assert code == 0
    assert told["controllers"][0]["room"] == {"cpus": 8, "memory": 2**36, "workers": 8}
    assert told["jobs"][0]["counts"] == {"ready": 10, "succeeded": 5}
    assert "request" not in told


def test_an_answer_to_another_question_is_a_bug(client, ini, capsys) -> None:
    client.replies = [Tasks(1, [])]

    assert main(["info", "-f", ini]) == 70
    assert "answered with Tasks" in capsys.readouterr().err


def test_watching_goes_on_until_it_is_interrupted_also_without_a_master(
    client, ini, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    client.replies = [cluster(), MasterUnreachable("no master answers"), cluster()]

    code = main(["info", "-f", ini, "--watch", "0.5"])

    told = capsys.readouterr()
    assert code == 0
    assert slept == [0.5, 0.5, 0.5]
    assert told.out.count("\x1b[H\x1b[2J") == 2
    assert told.err == "cyclone: no master answers\n"


def test_watching_for_programs_is_an_object_a_line(client, ini, capsys, monkeypatch) -> None:
    rounds = iter([None, KeyboardInterrupt])

    def sleep(seconds: float) -> None:
        assert seconds == 2.0
        if (end := next(rounds)) is not None:
            raise end

    monkeypatch.setattr(time, "sleep", sleep)
    client.replies = [cluster(), cluster()]

    main(["info", "-f", ini, "--json", "--watch"])

    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [4, 4]
