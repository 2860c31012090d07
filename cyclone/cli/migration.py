"""Look after a migration between OSTs while it runs.

status tells how far it is; limits NAME=VALUE ... changes limits, thresholds and targets until the next reload, and
tells them all without arguments. What each of the others does is told by `cyclone command help`; these are its
commands under shorter names.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from cyclone.cli.command import argument, ask
from cyclone.cli.connection import add_config_file
from cyclone.cli.page import Table, visible
from cyclone.core.explain import duration_text
from cyclone.errors import EXIT_OK, Refusal

#: `{action: (help, what it is told)}`
_ACTIONS = {
    "status": ("how far it is", None),
    "pause": ("start no more tasks", None),
    "resume": ("start tasks again", None),
    "drain": ("start no more tasks, and say in the log when those in flight have ended", None),
    "reload": ("read the ini file again and look for more lists", None),
    "limits": ("change limits, thresholds and targets, or tell them", "NAME=VALUE"),
    "retry-busy": ("make new lists of all files that were busy", None),
    "retry-failed": ("make new lists of all files that have failed", None),
    "exclude": ("use these OSTs neither as source nor as target", "OSTS"),
    "include": ("use excluded OSTs again", "OSTS"),
    "stop": ("end when the tasks in flight have ended; the lists wait for the next start", None),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, (line, told) in _ACTIONS.items():
        action = actions.add_parser(name, help=line, allow_abbrev=False)
        add_config_file(action)
        action.add_argument(
            "--job", default="", help="name of the job; not needed where only one has a generator"
        )
        action.add_argument("--json", action="store_true", help="the whole answer in one line, for programs")
        if told == "OSTS":
            action.add_argument("osts", metavar=told, help="such as 0-9,12")
        elif told is not None:
            action.add_argument("arguments", metavar=told, nargs="*", type=argument, help="what to change")


def run(options: argparse.Namespace) -> int:
    arguments = dict(getattr(options, "arguments", ()))
    if "osts" in options:
        arguments["osts"] = options.osts
    answer = ask(options, options.action, arguments)
    if options.json:
        print(json.dumps(answer))
    elif options.action == "status":
        # What else has a `status` tells other things.
        if not isinstance(answer, dict) or "left_alone" not in answer:
            raise Refusal(
                "the generator of this job is none of a migration; ask it by `cyclone command status`"
            )
        _show(answer)
    elif isinstance(answer, str):
        print(visible(answer))
    else:
        print(json.dumps(answer, indent=2, ensure_ascii=False))
    return EXIT_OK


def _show(status: dict[str, Any]) -> None:
    reason = f" ({visible(status['reason'])})" if status["reason"] else ""
    eta = "unknown" if status["eta_s"] is None else duration_text(status["eta_s"])
    print(f"{status['state']}{reason}: {status['left']} left, done in {eta}")
    running = status["in_flight"]
    oldest = f", the oldest for {duration_text(max(run['age_s'] for run in running))}" if running else ""
    print(f"  in flight {len(running)}{oldest}; waiting for another try {status['resting']}")
    for span, speed in status["speed"].items():
        print(f"  {span:<8} {speed['files_per_s']:>10.1f} files/s {speed['mb_per_s']:>10.1f} MB/s")
    if status["results"]:
        print()
        results = Table(("RESULT", "REASON", "FILES"), right=("FILES",))
        for state, reasons in status["results"].items():
            for why, count in reasons.items():
                results.add(state, why or "-", count)
        results.print()
    if status["sources"]:
        print()
        sources = Table(("SOURCE", "LEFT", "DONE IN"), right=("SOURCE", "LEFT", "DONE IN"))
        for ost, source in status["sources"].items():
            eta_s = source["eta_s"]
            sources.add(ost, source["left"], "-" if eta_s is None else duration_text(eta_s))
        sources.print()
    if status["untaken"]:
        print()
        untaken = Table(("LIST", "NOT DONE BECAUSE"))
        for name, why in status["untaken"].items():
            untaken.add(name, why)
        untaken.print()
    if status["locked"]:
        print()
        locked = Table(("OST", "ROLE", "LOCKED BECAUSE"), right=("OST",))
        for each in status["locked"]:
            locked.add(each["ost"], each["role"], each["reason"])
        locked.print()
