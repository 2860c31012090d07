"""Explain one task: why it waits, where it runs or how it ended, and every attempt that was made at it.

A tid names a task within a job. Without --job it is looked for in the newest job that knows it. The exit code
is 1 if no task of this tid is known.
"""

from __future__ import annotations

import argparse
import sys

from cyclone.cli.connection import add_config_file, connect, read_settings
from cyclone.cli.page import Table, as_json, local_time, visible
from cyclone.core.explain import duration_text, outcome_text, shape_text
from cyclone.errors import EXIT_OK, EXIT_TASK_FAILED, Refusal, RuleBroken
from cyclone.messages import AskTask, AttemptView, TaskStory
from cyclone.model.task import Policy, Retry, token_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_file(parser)
    parser.add_argument("tid", metavar="TID", help="of the task")
    parser.add_argument("--job", default="", help="name of the job that the task belongs to")
    parser.add_argument("--json", action="store_true", help="one object, for programs")


def run(options: argparse.Namespace) -> int:
    with connect(read_settings(options)) as client:
        try:
            reply = client.ask(AskTask(request=0, tid=options.tid, job=options.job))
        except Refusal as refusal:
            print(f"cyclone: {visible(str(refusal))}", file=sys.stderr)
            return EXIT_TASK_FAILED
    if not isinstance(reply, TaskStory):
        raise RuleBroken(f"the master answered with {type(reply).__name__}")
    if options.json:
        print(as_json(reply))
    else:
        _tell(reply)
    return EXIT_OK


def _tell(story: TaskStory) -> None:
    task = story.task
    lines = {
        "Task": task.tid,
        "Job": task.job,
        "Kind": task.kind,
        "State": str(task.state),
        "Why": story.why,
        "Needs": shape_text(story.policy.resources),
        "Rules": _rules(story.policy),
        "Retries": _retries(story.policy.retry),
        "After": ", ".join(story.after),
    }
    for name, text in lines.items():
        if text:
            print(f"{name:<9}{visible(text)}")
    if story.attempts:
        print("\nAttempts that have ended:")
        _attempts(story.attempts).print()
    for attempt in story.attempts:
        _tell_error(attempt)


def _rules(policy: Policy) -> str:
    rules = [f"priority {policy.priority}"]
    if policy.timeout_s is not None:
        rules.append(f"an attempt may take {duration_text(policy.timeout_s)}")
    if policy.expires_s is not None:
        rules.append(f"expires {duration_text(policy.expires_s)} after it was accepted")
    if policy.exclusive:
        rules.append("exclusive")
    return ", ".join(rules)


def _retries(retry: Retry) -> str:
    evictions = "any number" if retry.evictions is None else retry.evictions
    return (
        f"{retry.errors} after errors, {retry.timeouts} after time-outs, {retry.crashes} after crashes, "
        f"{retry.losses} after losses, {evictions} after evictions"
    )


def _attempts(attempts: list[AttemptView]) -> Table:
    table = Table(
        ("ATTEMPT", "CONTROLLER", "OUTCOME", "BILLED TO", "STARTED", "TOOK", "TOKEN"),
        right=("ATTEMPT", "TOOK"),
    )
    for view in attempts:
        end = view.end
        table.add(
            view.attempt,
            view.controller or "-",
            outcome_text(end),
            view.cause or "-",
            local_time(end.started_at),
            duration_text(end.duration_s) if end.started_at else "-",
            token_text(end.token),
        )
    return table


def _tell_error(view: AttemptView) -> None:
    if view.end.error:
        print(f"\nAttempt {view.attempt}:")
        for line in view.end.error.expandtabs().splitlines():
            print(f"    {visible(line)}")
