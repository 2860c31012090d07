"""Prove from the store of a master alone that accepted = ended + open, and name whatever says otherwise.

For each job: as many tasks were accepted as have ended, by outcome, and are open. Each task has one number and at
most one end; its attempts are numbered without a gap, each with a token of its own and one outcome; a closed job has
no open task; and whatever the store says twice, it says the same way.

It reads the store of the ini file beside a master that works, which is not disturbed, or at rest, and writes nothing.
The exit code is 0 if all of it is true, 1 if something is not, 3 if there is no store.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cyclone.cli.connection import add_config_file, config_file
from cyclone.cli.page import Table, as_json, visible
from cyclone.core.audit import FINDINGS_MOST, audit
from cyclone.errors import EXIT_OK, EXIT_TASK_FAILED, StoreError
from cyclone.model.audit import Audit
from cyclone.model.lifecycle import State
from cyclone.settings import MasterSettings
from cyclone.store.audit import StoredFacts

#: A store at rest may be woken while it is read, and is read again then; not for ever.
_TRIES = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_file(parser)
    parser.add_argument(
        "--store",
        type=Path,
        metavar="FILE",
        help="this one, such as a copy, in the place of that of the ini file",
    )
    parser.add_argument("--json", action="store_true", help="one object, for programs")


def run(options: argparse.Namespace) -> int:
    path = options.store or MasterSettings.read(config_file(options)).store_path
    report = audit_store(path)
    if options.json:
        print(as_json(report))
    else:
        _tell(report)
    return EXIT_OK if report.is_sound else EXIT_TASK_FAILED


def audit_store(path: str | Path, findings_most: int = FINDINGS_MOST) -> Audit:
    """Audit a store, live or at rest; violations are in the report. findings_most: so many are told one by one.

    Raises ConfigError (there is none), StoreVersionError, StoreCorrupt (it is no store at all), StoreError.
    """
    for _ in range(_TRIES):
        with StoredFacts(path) as facts:
            report = audit(facts, str(facts.path), findings_most)
            if facts.is_as_found:
                return report
    raise StoreError(f"{path}: was started and ended again and again while it was read; expected it to rest")


def _tell(report: Audit) -> None:
    print(f"Store {visible(report.store)}, epoch {report.epoch}")
    states = [state for state in State if any(job.ended.get(state) for job in report.jobs)]
    titles = ("ACCEPTED", *(state.upper() for state in states), "OPEN")
    table = Table(("JOB", "NUMBER", "STATE", *titles), right=("NUMBER", *titles))
    for job in report.jobs:
        counts = (job.ended.get(state, 0) for state in states)
        table.add(job.name, job.number, job.state, job.accepted, *counts, job.open)
    if report.jobs:
        table.print()
    sign = "=" if report.accepted == report.ended + report.open else "is not"
    print(f"\n{report.accepted} accepted {sign} {report.ended} ended + {report.open} open")
    print(f"{report.attempts} attempts have ended")
    _tell_findings(report)


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
