"""List tasks: those that live first, those of the newest jobs first among them, then those that have ended.

States: waiting, ready, placed, running, resting; succeeded, failed, cancelled, skipped, quarantined. What one
task waits for or died of, and every attempt at it, is told by `cyclone explain TID`.

With --json each line is an object of its own, so that a list can be read while it is written.
"""

from __future__ import annotations

import argparse
import sys

from cyclone.cli.connection import add_config_file, connect, read_settings
from cyclone.cli.page import Table, as_json
from cyclone.core.explain import duration_text, headline, outcome_text
from cyclone.errors import EXIT_OK, RuleBroken
from cyclone.messages import AskTasks, Tasks, TaskView
from cyclone.model.lifecycle import State


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_file(parser)
    parser.add_argument("--job", default="", help="only those of the jobs of this name")
    parser.add_argument(
        "--state",
        action="append",
        default=[],
        choices=[state.value for state in State],
        metavar="STATE",
        help="only those in this state; may be given several times",
    )
    parser.add_argument("--kind", default="", help="only those of this class, by its qualified name")
    parser.add_argument("--limit", type=_limit, default=1000, help="list no more than so many (1000)")
    parser.add_argument("--json", action="store_true", help="one object a line, for programs")


def _limit(text: str) -> int:
    limit = int(text)
    if limit < 1:
        raise argparse.ArgumentTypeError(f"found {text}, expected a whole number from 1")
    return limit


def run(options: argparse.Namespace) -> int:
    states = [State(state) for state in options.state]
    question = AskTasks(request=0, job=options.job, states=states, kind=options.kind, limit=options.limit)
    with connect(read_settings(options)) as client:
        reply = client.ask(question)
    if not isinstance(reply, Tasks):
        raise RuleBroken(f"the master answered with {type(reply).__name__}")
    if options.json:
        for view in reply.tasks:
            print(as_json(view))
    else:
        _table(reply.tasks).print()
    if reply.more:
        # Not among the tasks: a program that counts lines must not count this one.
        sys.stdout.flush()
        print(f"cyclone: the list was cut after {len(reply.tasks)}; there may be more", file=sys.stderr)
    return EXIT_OK


def _table(views: list[TaskView]) -> Table:
    table = Table(
        ("JOB", "TID", "STATE", "ATTEMPTS", "CONTROLLER", "TOOK", "KIND", "BECAUSE"),
        right=("ATTEMPTS", "TOOK"),
    )
    for view in views:
        took = duration_text(view.end.duration_s) if view.end is not None and view.end.started_at else "-"
        table.add(
            view.job,
            view.tid,
            view.state,
            view.attempts,
            view.controller or "-",
            took,
            view.kind or "-",
            _because(view),
        )
    return table


def _because(view: TaskView) -> str:
    """Why it did not succeed; nothing for those that did or may still."""
    if view.state is State.SUCCEEDED:
        return ""
    outcome = "" if view.end is None else outcome_text(view.end)
    error = "" if view.end is None else headline(view.end.error)
    return "; ".join(filter(None, (view.reason, outcome, error)))
