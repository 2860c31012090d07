"""Prove from the store of a master alone that accepted = ended + open + forgotten, and name whatever says otherwise.

For each job: as many tasks were accepted as have ended, by outcome, and are open. Each task has one number and at
most one end; its attempts are numbered without a gap, each with a token of its own and one outcome; a closed job has
no open task; and whatever the store says twice, it says the same way.

With --sinks, also the sinks are asked for every record of every task that succeeded. Those that no sink has and no
controller keeps are missing; without a master that can be asked, those that no sink has.

It reads the store of the master's ini file beside a master that works, which is not disturbed, or at rest, and writes
nothing. The exit code is 0 if all of it is true, 1 if something is not, 3 if there is no store, 4 if nothing is wrong
but a sink could not be asked.
"""

from __future__ import annotations

import argparse
import contextlib
import secrets
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from cyclone.cli.connection import add_config_file, config_file, connect
from cyclone.cli.page import Table, as_json, visible
from cyclone.cli.sink_inquiry import SinkInquiry, Spools
from cyclone.client import Client
from cyclone.core.audit import FINDINGS_MOST, Findings, audit
from cyclone.errors import (
    EXIT_OK,
    EXIT_TASK_FAILED,
    EXIT_UNREACHABLE,
    ConfigError,
    MasterUnreachable,
    RuleBroken,
    StoreError,
)
from cyclone.ini import Ini
from cyclone.messages import AskCluster, Cluster
from cyclone.model.audit import Audit, RecordSum
from cyclone.model.lifecycle import State
from cyclone.settings import (
    ClientSettings,
    ControllerSettings,
    MasterSettings,
    SinkAddress,
    endpoint,
    is_ipv6,
)
from cyclone.store.audit import StoredFacts
from cyclone.wire import keys

#: A store at rest may be woken while it is read, and is read again then; not for ever.
_TRIES = 3

#: Whether there is a master at all.
_MASTER_S = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_file(parser, of_master=True)
    parser.add_argument(
        "--store",
        type=Path,
        metavar="FILE",
        help="this one, such as a copy, in the place of that of the ini file",
    )
    parser.add_argument(
        "--sinks", type=Path, metavar="INI", action="append", default=[],
        help="of a controller: ask the sinks of its section [sinks] for every record; may be given more than once, "
        "where controllers have sinks of their own",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one object, for programs")


def run(options: argparse.Namespace) -> int:
    settings = None
    if options.store is None or "config_file" in options:
        settings = _master_settings(config_file(options))
    path = options.store if settings is None else options.store or settings.store_path
    with contextlib.ExitStack() as stack:
        inquiry = None
        if options.sinks:
            inquiry = stack.enter_context(contextlib.closing(_inquiry(options.sinks, settings, stack)))
        report = audit_store(path, inquiry=inquiry)
    if options.json:
        print(as_json(report))
    else:
        _tell(report)
    if not report.is_sound:
        return EXIT_TASK_FAILED
    return EXIT_OK if report.is_proven else EXIT_UNREACHABLE


def _master_settings(file: Path) -> MasterSettings:
    ini = Ini.read(file)
    if "processing" in ini:
        raise ConfigError("found the ini file of a controller, expected that of the master", file=file)
    return MasterSettings.of(ini)


def audit_store(
    path: str | Path, findings_most: int = FINDINGS_MOST, inquiry: SinkInquiry | None = None
) -> Audit:
    """Audit a store, live or at rest; violations are in the report. findings_most: so many are told one by one.

    inquiry: asks sinks for the records; without it they are only counted.
    Raises ConfigError (there is none), StoreVersionError, StoreCorrupt (it is no store at all), StoreError.
    """
    for _ in range(_TRIES):
        findings = Findings(findings_most)
        recorded = None
        if inquiry is not None:
            inquiry.begin(findings)
            recorded = inquiry.recorded
        with StoredFacts(path) as facts:
            report = audit(facts, str(facts.path), findings, recorded)
            is_as_found = facts.is_as_found
        if is_as_found:
            if inquiry is not None:
                inquiry.settle(report)
            return report
    raise StoreError(f"{path}: was started and ended again and again while it was read; expected it to rest")


# Whom to ask for records.


def _inquiry(files: list[Path], settings: MasterSettings | None, stack: contextlib.ExitStack) -> SinkInquiry:
    """settings: of the master that may tell what waits at controllers, None if none may."""
    sinks: dict[str, list[SinkAddress]] = {}
    for file in files:
        for address in ControllerSettings.read(file).sinks:
            if address not in sinks.setdefault(address.name, []):
                sinks[address.name].append(address)
    key_dir = ClientSettings.read(files[0]) if settings is None else settings
    spools: Spools = _nobody_tells
    patience_s = 0.0
    if settings is not None:
        spools = _Master(settings, stack).spools
        # Two reports of each controller, which come three to a lease.
        patience_s = max(settings.controller_timeout_s, 1.0) * 2 / 3 + 1.0
    return SinkInquiry(sinks, partial(_connect, key_dir.key_dir, key_dir.curve), spools, patience_s)


def _connect(key_dir: Path, curve: bool, sink: SinkAddress) -> Client:
    """Raises KeyFileError."""
    own = keys.load_pair(key_dir, keys.Role.CLIENT) if curve else None
    other = keys.load_public(key_dir, keys.Role.SINK) if curve else None
    address = endpoint(sink.host, sink.port)
    life = secrets.token_hex(8)
    return Client(address, own, other, life=life, ipv6=is_ipv6(sink.host), server=f"sink {sink.name!r}")


def _nobody_tells() -> None:
    """There is no master to be asked."""


class _Master:
    """Tells what waits at controllers, if it can be reached at all."""

    def __init__(self, settings: MasterSettings, stack: contextlib.ExitStack) -> None:
        self._settings = settings
        self._stack = stack
        self._client: Client | None = None
        self._is_away = False

    def spools(self) -> Mapping[str, int] | None:
        """`{sink: records}`; None if nobody tells."""
        if self._is_away:
            return None
        try:
            if self._client is None:
                assert self._settings.ini_file is not None
                client_settings = ClientSettings.read(self._settings.ini_file)
                self._client = self._stack.enter_context(connect(client_settings))
            reply = self._client.ask(AskCluster(request=0), timeout_s=_MASTER_S)
        except (MasterUnreachable, ConfigError):
            # Also a master that listens at any port, and has told of none.
            self._is_away = True
            return None
        if not isinstance(reply, Cluster):
            raise RuleBroken(f"the master answered with {type(reply).__name__}")
        waiting: Counter[str] = Counter()
        for controller in reply.controllers:
            for spool in controller.spools:
                waiting[spool.sink] += spool.entries
        return waiting


# Telling.


def _tell(report: Audit) -> None:
    print(f"Store {visible(report.store)}, epoch {report.epoch}")
    states = [state for state in State if any(job.ended.get(state) for job in report.jobs)]
    forgetful = ("FORGOTTEN",) if report.forgotten else ()
    titles = ("ACCEPTED", *(state.upper() for state in states), "OPEN", *forgetful)
    table = Table(("JOB", "NUMBER", "STATE", *titles), right=("NUMBER", *titles))
    for job in report.jobs:
        counts = (job.ended.get(state, 0) for state in states)
        forgotten = (job.forgotten,) if report.forgotten else ()
        table.add(job.name, job.number, job.state, job.accepted, *counts, job.open, *forgotten)
    if report.jobs:
        table.print()
    if report.records:
        print("\nRecords of tasks that succeeded")
        _records(report.records).print()
        _tell_untold(report.records)
    is_balanced = report.accepted == report.ended + report.open + report.forgotten
    forgotten_text = f" + {report.forgotten} forgotten" if report.forgotten else ""
    print(
        f"\n{report.accepted} accepted {'=' if is_balanced else 'is not'} "
        f"{report.ended} ended + {report.open} open{forgotten_text}"
    )
    print(f"{report.attempts} attempts have ended")
    _tell_findings(report)


def _records(sums: list[RecordSum]) -> Table:
    titles = ("SENT", "STORED", "WAITING", "REFUSED", "UNDERWAY", "MISSING", "TWICE", "UNTOLD")
    table = Table(("SINK", *titles), right=titles)
    for each in sums:
        counts: list[object] = [
            each.stored, each.waiting, each.refused, each.underway, each.missing, each.twice, each.untold,
        ]  # fmt: skip
        is_asked = each.asked or each.untold
        table.add(each.sink, each.sent, *(counts if is_asked else ["-"] * len(counts)))
    return table


def _tell_untold(sums: list[RecordSum]) -> None:
    for each in sums:
        if not each.keeps:
            print(f"{each.sink} cannot be asked: it keeps no records, only the newest number of each series")
        elif each.untold:
            print(f"{each.sink} cannot tell now: {visible(each.trouble)}")
        elif not each.asked:
            print(f"{each.sink} was not asked; --sinks INI asks")


def _tell_findings(report: Audit) -> None:
    if report.is_sound:
        print("No violation")
        return
    count = sum(report.violations.values())
    rules = ", ".join(f"{rule} {count}" for rule, count in report.violations.items())
    print(f"\nViolations: {count} ({rules})")
    for finding in report.findings:
        print(f"  {visible(str(finding))}")
    if count > len(report.findings):
        print(f"  … and {count - len(report.findings)} more")
    if not report.is_whole:
        print("The store could not be read to its end: the sums are those of what was read")
