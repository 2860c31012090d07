"""`cyclone drill` without any daemon: its arguments, what it hands on, what it shows, how it ends."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from cyclone.cli import drill
from cyclone.cli.commands import make_parser
from cyclone.drill.checker import Kind, Violation
from cyclone.drill.disk import CannotMount
from cyclone.drill.plan import BY_NAME, Stroke
from cyclone.drill.run import Orders
from cyclone.drill.sheet import Made, RunReport, Struck
from cyclone.errors import EXIT_OK, EXIT_TASK_FAILED, EXIT_USAGE


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Orders]:
    """What is ordered; each run makes one fault and finds what `found` holds."""
    orders: list[Orders] = []

    def run_once(order: Orders) -> RunReport:
        orders.append(order)
        struck = Struck(Stroke(1.0, "kill-master", "master", 1.0, 7), 8.0, 9.0, "down for 1.0 s")
        return RunReport(order.seed, [Made(struck)], 0, FOUND, has_ended=True, lasted_s=9.0)

    FOUND.clear()
    monkeypatch.setattr(drill, "run_once", run_once)
    monkeypatch.setattr(drill, "leave_mounts_of_others", lambda: None)
    return orders


FOUND: list[Violation] = []


def options(*words: str) -> argparse.Namespace:
    return make_parser(["drill"]).parse_args(["drill", *words])


def run(*words: str) -> int:
    return drill.run(options(*words))


@pytest.mark.parametrize(
    "words", [("--minutes", "0"), ("--minutes", "x"), ("--faults", "kill-time"), ("--faults", ","), ("--seed", "a")]
)  # fmt: skip
def test_what_cannot_be_is_a_wrong_usage(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        options(*words)

    assert ended.value.code == EXIT_USAGE
    assert "expected" in capsys.readouterr().err or words[0] == "--seed"


def test_ten_minutes_are_ten_runs_with_a_seed_each(runs: list[Orders]) -> None:
    assert run("--minutes", "10", "--seed", "5") == EXIT_OK

    assert [order.seed for order in runs] == list(range(5, 15))
    assert {order.length_s for order in runs} == {60.0}


def test_a_short_drill_is_one_run(runs: list[Orders]) -> None:
    run("--minutes", "0.25", "--seed", "5", "--faults", "kill-worker, stop-master")

    assert [(order.length_s, order.faults) for order in runs] == [(15.0, ["kill-worker", "stop-master"])]


def test_without_a_seed_one_is_drawn_and_told(runs: list[Orders], capsys: pytest.CaptureFixture[str]) -> None:
    run()
    run()

    told = capsys.readouterr().err.split()
    assert told == ["seed", str(runs[0].seed), "seed", str(runs[1].seed)]
    assert runs[0].seed != runs[1].seed


def test_a_violation_ends_with_1_and_is_shown(runs: list[Orders], capsys: pytest.CaptureFixture[str]) -> None:
    FOUND.extend(Violation(Kind.LOST, f"work-{number}", "has no end") for number in range(30))

    assert run("--seed", "5") == EXIT_TASK_FAILED

    shown = capsys.readouterr().out
    assert "seed 5: lost: work-0: has no end" in shown
    assert "seed 5: and 10 more violations, which --json lists" in shown
    assert "1 faults, 0 tasks, lost 30, doubled 0, 0 other violations; 1 of 1 runs ended" in shown


def test_for_programs_there_is_one_object(runs: list[Orders], capsys: pytest.CaptureFixture[str]) -> None:
    run("--seed", "5", "--json")

    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (told["seed"], told["passed"], told["faults_made"]) == (5, True, 1)
    assert told["faults"].keys() == BY_NAME.keys()
    assert told["runs"][0]["faults"][0]["what"] == "down for 1.0 s"


def test_what_this_host_does_not_allow_is_left_out_aloud(
    runs: list[Orders], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise CannotMount("no mounts of one's own here: Operation not permitted")

    monkeypatch.setattr(drill, "leave_mounts_of_others", refuse)

    run("--seed", "5")

    shown = capsys.readouterr().out
    assert (
        "left out: full-disk, full-disk-restart, read-only-disk: no mounts of one's own here: Operation not permitted"
        in shown
    )
    assert not runs[0].has_disks
    assert runs[0].has_gateway
    [never] = [line for line in shown.splitlines() if line.startswith("never happened")]
    assert "full-disk" not in never
    assert "stop-master" in never


def test_without_the_package_of_the_pushgateway_client_its_faults_are_left_out(
    runs: list[Orders], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_module: str) -> None:
        raise ModuleNotFoundError("No module named 'requests'", name="requests")

    monkeypatch.setattr(drill, "import_module", refuse)

    run("--seed", "5")

    [left_out] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("left out")]
    assert left_out.startswith(
        "left out: kill-pushgateway, stop-pushgateway, absent-pushgateway, broken-gateway: needs requests"
    )
    assert (runs[0].has_gateway, runs[0].has_disks) == (False, True)


def test_a_drill_that_is_interrupted_tells_of_its_runs_so_far(
    runs: list[Orders], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    once = drill.run_once

    def run_twice(order: Orders) -> RunReport:
        if len(runs) == 2:
            raise KeyboardInterrupt
        return once(order)

    monkeypatch.setattr(drill, "run_once", run_twice)

    with pytest.raises(KeyboardInterrupt):
        run("--minutes", "5", "--seed", "5", "--json")

    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert [each["seed"] for each in told["runs"]] == [5, 6]


def test_the_list_names_every_fault(runs: list[Orders], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--list") == EXIT_OK

    shown = capsys.readouterr().out
    assert [name for name in BY_NAME if name not in shown] == []
    assert runs == []


def test_a_task_generator_comes_from_the_ini_file_of_a_master(runs: list[Orders], tmp_path: Path) -> None:
    file = tmp_path / "master.conf"
    file.write_text(
        "[comm]\nport = 0\n[task_generator]\nmodule = mine\nclass = Job\nconfig_file = mine.conf\n"
    )

    run("--generator", str(file))

    assert runs[0].generator == {
        "task_generator": {
            "config_file": "mine.conf",
            "path": "",
            "module": "mine",
            "class": "Job",
            "spare": "on",
        }
    }
