from __future__ import annotations

import json

from cyclone.cli.main import main
from cyclone.errors import Refusal
from cyclone.messages import AskTask, AttemptView, Tasks, TaskStory, TaskView
from cyclone.model.lifecycle import Outcome, State
from cyclone.model.resources import shape
from cyclone.model.task import End, Policy, Retry, first_token

TOKEN = first_token(2) + 7


def story(**changed: object) -> TaskStory:
    policy = Policy("Copy", 5, shape({"cpus": 2, "memory": "1GiB"}), 60.0, Retry(errors=2), 3600.0, True)
    end = End(TOKEN, 2.5, 1_000_000_000.0, Outcome.RAISED, error="ValueError: no\n\tFile x\n  raise\x1b[31m")
    facts: dict[str, object] = {
        "request": 1,
        "task": TaskView(1, "work", "a", "Copy", State.RESTING, 1, "", end),
        "policy": policy,
        "after": ["first", "second"],
        "why": "It rests for another 3.0 s before its next attempt.",
        "attempts": [AttemptView(1, "node1", "error", end)],
    }
    return TaskStory(**{**facts, **changed})


def test_a_task_is_told_with_its_reason_its_rules_and_every_attempt(client, ini, capsys) -> None:
    client.replies = [story()]

    code = main(["explain", "a", "-f", ini, "--job", "work"])

    told = capsys.readouterr().out
    assert code == 0
    assert client.asked == [AskTask(0, "a", "work")]
    assert told.startswith(
        "Task     a\nJob      work\nKind     Copy\nState    resting\n"
        "Why      It rests for another 3.0 s before its next attempt.\n"
        "Needs    cpus 2, memory 1 GiB\n"
        "Rules    priority 5, an attempt may take 1 min 0 s, expires 1 h 0 min after it was accepted, exclusive\n"
        "Retries  2 after errors, 0 after time-outs, 2 after crashes, 5 after losses, any number after evictions\n"
        "After    first, second\n"
    )
    [row] = [line for line in told.splitlines() if line.startswith("      1")]
    assert row.split()[:4] == ["1", "node1", "raised", "error"]
    assert row.endswith("2.5 s  2.7")


def test_the_text_of_an_error_keeps_its_lines_and_commands_no_terminal(client, ini, capsys) -> None:
    client.replies = [story()]

    main(["explain", "a", "-f", ini])

    told = capsys.readouterr().out
    assert told.endswith("\nAttempt 1:\n    ValueError: no\n            File x\n      raise\\x1b[31m\n")


def test_a_task_without_attempts_is_told_without_them(client, ini, capsys) -> None:
    client.replies = [story(attempts=[], after=[], policy=Policy(retry=Retry(evictions=3)))]

    main(["explain", "a", "-f", ini])

    told = capsys.readouterr().out
    assert "ttempts that" not in told
    assert "After" not in told
    assert "Rules    priority 0\n" in told
    assert "3 after evictions" in told


def test_programs_get_one_object(client, ini, capsys) -> None:
    client.replies = [story()]

    main(["explain", "a", "-f", ini, "--json"])

    told = json.loads(capsys.readouterr().out)
    assert told["task"]["state"] == "resting"
    assert told["attempts"][0]["end"]["token"] == "2.7"
    assert told["policy"]["resources"] == {"cpus": 2, "memory": 2**30}


def test_an_unknown_tid_is_one_line_and_exit_code_1(client, ini, capsys) -> None:
    client.replies = [Refusal("no task 'a' is known")]

    code = main(["explain", "a", "-f", ini])

    told = capsys.readouterr()
    assert code == 1
    assert told.out == ""
    assert told.err == "cyclone: no task 'a' is known\n"


def test_an_answer_to_another_question_is_a_bug(client, ini) -> None:
    client.replies = [Tasks(1, [])]

    assert main(["explain", "a", "-f", ini]) == 70
