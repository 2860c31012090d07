from __future__ import annotations

import json

import pytest

from cyclone.cli.main import main
from cyclone.messages import AskTasks, Cluster, Tasks, TaskView
from cyclone.model.lifecycle import Outcome, State
from cyclone.model.task import End

READY = TaskView(2, "work", "b\x1b]0;", "Copy", State.READY, 0)
FAILED = TaskView(
    1, "work", "a", "Copy", State.FAILED, 3, "node1",
    End(9, 2.5, 1.0, Outcome.EXITED, 3, error="disk full\ntrace"), "given up after 3 attempts",
)  # fmt: skip


def test_tasks_are_rows(client, ini, capsys) -> None:
    client.replies = [Tasks(1, [READY, FAILED])]

    code = main(["tasks", "-f", ini])

    titles, ready, failed = capsys.readouterr().out.splitlines()
    assert code == 0
    assert titles.split() == ["JOB", "TID", "STATE", "ATTEMPTS", "CONTROLLER", "TOOK", "KIND", "BECAUSE"]
    assert ready.split() == ["work", "b\\x1b]0;", "ready", "0", "-", "-", "Copy"]
    assert failed.endswith("2.5 s  Copy  given up after 3 attempts; exited with 3; disk full")


def test_a_success_needs_no_reason(client, ini, capsys) -> None:
    client.replies = [
        Tasks(1, [TaskView(1, "work", "a", "Copy", State.SUCCEEDED, 1, "node1", End(9, 2.5, 1.0))])
    ]

    main(["tasks", "-f", ini])

    assert capsys.readouterr().out.endswith("node1       2.5 s  Copy\n")


def test_the_question_is_what_was_asked_for(client, ini) -> None:
    client.replies = [Tasks(1, [])]

    main(["tasks", "-f", ini, "--job", "work", "--state", "ready", "--state", "failed", "--kind", "Copy",
          "--limit", "5"])  # fmt: skip

    assert client.asked == [AskTasks(0, "work", [State.READY, State.FAILED], "Copy", 5)]


def test_programs_get_an_object_a_line(client, ini, capsys) -> None:
    client.replies = [Tasks(1, [READY, FAILED])]

    main(["tasks", "-f", ini, "--json"])

    ready, failed = map(json.loads, capsys.readouterr().out.splitlines())
    assert (ready["tid"], ready["state"], ready["end"]) == ("b\x1b]0;", "ready", None)
    assert (failed["end"]["outcome"], failed["end"]["code"]) == ("exited", 3)


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_cut_list_is_told_apart_from_the_list(client, ini, capsys, form: list[str]) -> None:
    client.replies = [Tasks(1, [READY], more=True)]

    main(["tasks", "-f", ini, *form])

    told = capsys.readouterr()
    assert "cut" not in told.out
    assert told.err == "cyclone: the list was cut after 1; there may be more\n"


@pytest.mark.parametrize("words", [["--state", "lost"], ["--limit", "0"], ["--limit", "many"]])
def test_what_cannot_be_asked_for_is_a_wrong_usage(client, ini, capsys, words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["tasks", "-f", ini, *words])

    assert ended.value.code == 2
    assert client.asked == []


def test_an_answer_to_another_question_is_a_bug(client, ini) -> None:
    client.replies = [Cluster(1, "", 1, 1, "", 0.0, "", "", [], [])]

    assert main(["tasks", "-f", ini]) == 70
