"""Make faults on purpose, with a cluster of real daemons of its own on this host, and see that no task is lost.

Daemons, reapers, workers, the task generator and sinks are killed and stopped; messages are lost, doubled, delayed and
overtaken, connections cut, held, halved, garbled and open one way only; disks are full or read-only; wall clocks jump;
strangers come.
What goes wrong, whom it befalls and when is drawn from the seed, which is printed: the same seed draws the same plan.
The tasks themselves write down what was executed, so that the store is not its own witness.

Nothing of a running cluster is touched, nor the clock or the disks of this host. The exit code is 1 if a task was lost,
or executed or recorded twice where it must not be, or if a run did not come to its end.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from cyclone.cli.bench import Progress
from cyclone.cli.page import Table, tell, visible
from cyclone.drill.disk import CannotMount, leave_mounts_of_others
from cyclone.drill.plan import BY_NAME, FAULTS, NEED_DISKS, NEED_GATEWAY
from cyclone.drill.run import Orders
from cyclone.drill.run import run as run_once
from cyclone.drill.sheet import RunReport, report
from cyclone.drill.site import generator_of
from cyclone.errors import EXIT_OK, EXIT_TASK_FAILED
from cyclone.plugins import not_installed

#: A run in which faults are made for longer is cut into several, so that many come to their end.
RUN_S = 60.0
SEED_MOST = 2**31
#: Of one run, on the sheet.
VIOLATIONS_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=_minutes, default=1.0, metavar="N", help=_HELP["minutes"])
    parser.add_argument("--seed", type=int, metavar="S", help=_HELP["seed"])
    parser.add_argument(
        "--faults", type=_faults, default=list(BY_NAME), metavar="NAME,…", help=_HELP["faults"]
    )
    parser.add_argument("--generator", type=Path, metavar="INI", help=_HELP["generator"])
    parser.add_argument("--kinds", type=_names, default=[], metavar="MODULE,…", help=_HELP["kinds"])
    parser.add_argument("--json", action="store_true", help="one object, for programs")
    parser.add_argument("--keep", action="store_true", help=_HELP["keep"])
    parser.add_argument("--list", action="store_true", help="say which faults there are, and end")


_HELP = {
    "minutes": "for how long to make faults (default: %(default)g); each minute is a run of its own, with a cluster of "
    "its own and the next seed",
    "seed": "draw the plan from this number; without it, one is drawn and printed",
    "faults": "only these kinds; see --list",
    "generator": "ini file of a master whose [task_generator] is to be the work of the drill, in the place of its own",
    "kinds": "modules with the kinds of records of its tasks, as in [records] modules of the database proxy",
    "keep": "keep the directories with ini files, logs, store and notes; those of runs with violations are always kept",
}


def _minutes(text: str) -> float:
    problem = f"found {text!r}, expected a number from 0.1 to 10000"
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(problem) from None
    if not 0.1 <= value <= 10_000:
        raise argparse.ArgumentTypeError(problem)
    return value


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _faults(text: str) -> list[str]:
    names = _names(text)
    for name in names:
        if name not in BY_NAME:
            raise argparse.ArgumentTypeError(f"found {name!r}, expected one of: {', '.join(BY_NAME)}")
    if not names:
        raise argparse.ArgumentTypeError("found no name of a fault, expected one at least")
    return names


def run(options: argparse.Namespace) -> int:
    if options.list:
        return _list()
    seed = random.randrange(SEED_MOST) if options.seed is None else options.seed
    tell(f"seed {seed}")
    without = {NEED_DISKS: _no_disks(), NEED_GATEWAY: _no_gateway()}
    left_out = {
        name: why for names, why in without.items() if why for name in options.faults if name in names
    }
    progress = Progress()
    runs: list[RunReport] = []
    try:
        for orders in _orders(options, seed, without, progress.show):
            runs.append(run_once(orders))
    finally:
        progress.clear()
        # A drill that is interrupted, or cannot go on, tells of its runs so far.
        told = report(runs, options.faults, left_out, seed)
        if runs and options.json:
            print(json.dumps(told))
        elif runs:
            _show(told)
    return EXIT_OK if told["passed"] else EXIT_TASK_FAILED


def _no_disks() -> str:
    """Why there can be no disks of the drill's own; "" if there can."""
    try:
        leave_mounts_of_others()
    except CannotMount as problem:
        return str(problem)
    return ""


def _no_gateway() -> str:
    """Why there can be no Pushgateway client; "" if there can."""
    try:
        import_module("cyclone.daemons.gateway")
    except ModuleNotFoundError as problem:
        return not_installed(problem)
    return ""


def _orders(
    options: argparse.Namespace, seed: int, without: Mapping[frozenset[str], str], show: Callable[[str], None]
) -> Iterator[Orders]:
    length_s = options.minutes * 60
    count = max(1, round(length_s / RUN_S))
    generator = generator_of(options.generator)
    for number in range(count):
        yield Orders(
            seed=seed + number, length_s=length_s / count, faults=options.faults, generator=generator, kinds=options.kinds,
            has_disks=not without[NEED_DISKS], has_gateway=not without[NEED_GATEWAY], keep=options.keep, tell=tell, show=show,
        )  # fmt: skip


def _list() -> int:
    table = Table(["FAULT", "BEFALLS", "WHAT"])
    for fault in FAULTS:
        table.add(fault.name, ", ".join(fault.victims), fault.what)
    table.print()
    return EXIT_OK


def _show(told: dict[str, Any]) -> None:
    titles = ["FAULT", "TIMES", "TASKS", "LOST", "DOUBLED", "RECOVERY p50 s", "max s"]
    table = Table(titles, right=titles[1:])
    for name, line in told["faults"].items():
        recovery = line["recovery_s"] or {"p50": "-", "max": "-"}
        table.add(
            name,
            line["tried"],
            line["tasks"],
            line["lost"],
            line["doubled"],
            recovery["p50"],
            recovery["max"],
        )
    table.print()
    for each in told["runs"]:
        for violation in each["violations"][:VIOLATIONS_SHOWN]:
            print(f"seed {each['seed']}: {visible(violation)}")
        if (more := len(each["violations"]) - VIOLATIONS_SHOWN) > 0:
            print(f"seed {each['seed']}: and {more} more violations, which --json lists")
    for reason in sorted(set(told["left_out"].values())):
        names = ", ".join(name for name, why in told["left_out"].items() if why == reason)
        print(f"left out: {names}: {reason}")
    if told["never"]:
        print(f"never happened in this drill: {', '.join(told['never'])}")
    ended = sum(each["ended"] for each in told["runs"])
    print(
        f"seed {told['seed']}: {told['faults_made']} faults, {told['tasks']} tasks, lost {told['lost']}, "
        f"doubled {told['doubled']}, {told['wrong']} other violations; {ended} of {len(told['runs'])} runs ended"
    )
