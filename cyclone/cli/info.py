"""Show the master, its controllers with their room and life, and its jobs with their tasks by state.

States of a controller: `up`; `awaited`, known from before the master was started and not heard of since;
`silent`, so its tasks are or will be given to others; `leaving`, so it takes nothing more; `excluded`, because
workers die there whatever they execute, so it gets nothing for a while.

BUSY counts its workers, among them the hung ones that are stuck in the kernel and will do nothing more.
FREE is what tasks may still take of what the controller has. PLACED are attempts that it holds and that are
not known to run: short ones are never announced before they end.

FORGOTTEN counts tasks that have ended so long ago that nothing else is known of them; the states count them as well.
"""

from __future__ import annotations

import argparse
import sys
import time

from cyclone.cli.connection import add_config_file, connect, read_settings
from cyclone.cli.page import Table, as_json, local_time, visible
from cyclone.core.explain import amount_text, duration_text
from cyclone.errors import EXIT_OK, MasterUnreachable, RuleBroken
from cyclone.messages import AskCluster, Cluster, ControllerView, JobView
from cyclone.model.lifecycle import State
from cyclone.settings import ClientSettings

_CLEAR = "\x1b[H\x1b[2J"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_file(parser)
    parser.add_argument("--json", action="store_true", help="one object, for programs")
    parser.add_argument(
        "--watch",
        nargs="?",
        type=_seconds,
        const=2.0,
        metavar="SECONDS",
        help="show it again and again, every 2 seconds if none are given, until ^C",
    )


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0.1 <= seconds <= 86400:
        raise argparse.ArgumentTypeError(f"found {text}, expected seconds from 0.1 to 86400")
    return seconds


def run(options: argparse.Namespace) -> int:
    settings = read_settings(options)
    if options.watch is None:
        _show(_ask(settings), json=options.json)
    else:
        _watch(settings, options.watch, json=options.json)
    return EXIT_OK


def _ask(settings: ClientSettings) -> Cluster:
    with connect(settings) as client:
        reply = client.ask(AskCluster(request=0))
    if not isinstance(reply, Cluster):
        raise RuleBroken(f"the master answered with {type(reply).__name__}")
    return reply


def _watch(settings: ClientSettings, every_s: float, *, json: bool) -> None:
    """Show it until somebody interrupts; a master that is being started again is waited for."""
    try:
        while True:
            try:
                # Connected anew each time, so that a master with another key or list is noticed as well.
                cluster = _ask(settings)
            except MasterUnreachable as error:
                print(f"cyclone: {visible(str(error))}", file=sys.stderr, flush=True)
            else:
                if sys.stdout.isatty() and not json:
                    print(_CLEAR, end="")
                _show(cluster, json=json)
                sys.stdout.flush()
            time.sleep(every_s)
    except KeyboardInterrupt:
        return


def _show(cluster: Cluster, *, json: bool) -> None:
    if json:
        print(as_json(cluster))
        return
    print(
        f"Master {visible(cluster.version)} at {visible(cluster.address)}: {visible(cluster.state)}, "
        f"up for {duration_text(cluster.up_s)}, PID {cluster.pid}, epoch {cluster.epoch}"
    )
    print(f"Store {visible(cluster.store)}")
    print(f"\nControllers: {len(cluster.controllers)}")
    if cluster.controllers:
        _controllers(cluster.controllers).print()
    if any(view.spools for view in cluster.controllers):
        print("\nRecords that wait for their sinks")
        _spools(cluster.controllers).print()
    print(f"\nJobs: {len(cluster.jobs)}")
    if cluster.jobs:
        _jobs(cluster.jobs).print()


def _controllers(views: list[ControllerView]) -> Table:
    table = Table(
        ("NAME", "STATE", "HEARD", "HOST", "PID", "BUSY", "RUNNING", "PLACED", "FREE"),
        right=("HEARD", "PID", "RUNNING", "PLACED"),
    )
    for view in views:
        hung = f", {view.workers_hung} hung" if view.workers_hung else ""
        table.add(
            view.name,
            view.state,
            f"{duration_text(view.silent_s)} ago",
            view.host or "-",
            view.pid or "-",
            f"{view.workers_busy} of {view.workers}{hung}",
            view.running,
            view.placed,
            _free_text(view),
        )
    return table


def _spools(views: list[ControllerView]) -> Table:
    table = Table(
        ("CONTROLLER", "SINK", "RECORDS", "BYTES", "OLDEST", "AT THE SINK", "REFUSED", "TROUBLE"),
        right=("RECORDS", "BYTES", "OLDEST", "AT THE SINK", "REFUSED"),
    )
    for view in views:
        for spool in view.spools:
            oldest = duration_text(spool.oldest_s) if spool.entries else "-"
            trouble = spool.trouble or spool.sink_trouble or "-"
            table.add(
                view.name, spool.sink, spool.entries, spool.size_bytes, oldest, spool.sink_entries,
                spool.sink_refused, trouble,
            )  # fmt: skip
    return table


def _free_text(view: ControllerView) -> str:
    free = dict(view.free)
    return ", ".join(
        f"{name} {amount_text(free.get(name, 0))} of {amount_text(units)}"
        for name, units in view.room
        if name != "workers"
    )


def _jobs(jobs: list[JobView]) -> Table:
    """Only the states that some task is in have a column."""
    states = [state for state in State if any(job.counts.get(state) for job in jobs)]
    titles = [state.upper() for state in states]
    some_forgotten = any(job.forgotten for job in jobs)
    if some_forgotten:
        titles.append("FORGOTTEN")
    table = Table(("JOB", "NUMBER", "STATE", "OPENED", "CLOSED", *titles), right=("NUMBER", *titles))
    for job in jobs:
        counts = [job.counts.get(state, 0) for state in states]
        if some_forgotten:
            counts.append(job.forgotten)
        table.add(
            job.name, job.number, job.state, local_time(job.opened_at), local_time(job.closed_at), *counts
        )
    return table
