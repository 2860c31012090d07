"""Try Cyclone on this host: checksums of every file below a directory, in a manifest that sha256sum reads.

Starts a master and a controller with copies of the sample ini files, shows how far they are, says what came of it,
and stops them. A run that was cut short is resumed by the next one for the same directory.

Exit codes: 0, or 1 if a file or directory could not be read, 2 for a directory that cannot be used, 6 if
another quickstart runs here, 128 and the number of the signal after ^C or a signal; others as everywhere.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import inspect
import json
import os
import shlex
import signal
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cyclone.cli.own_daemons import LOOK_EVERY_S, STOPPING, Interrupted, OwnDaemons, block_signals, wait
from cyclone.cli.page import visible, write_safely
from cyclone.clock import monotonic
from cyclone.errors import (
    EXIT_CONFIG,
    EXIT_OK,
    EXIT_TASK_FAILED,
    EXIT_USAGE,
    AlreadyRunning,
    ConfigError,
    CycloneError,
)
from cyclone.messages import JobView
from cyclone.process.lineage import send
from cyclone.process.pid_file import PidFile
from cyclone.store.sqlite import SqliteStore

#: Where the checkout is: the sample ini files are not part of the package.
_HOME = Path(__file__).resolve().parents[2]

_LINE_EVERY_S = 2.0
_START_S = 60.0
_LISTED_MOST = 50


class Unusable(CycloneError):
    """The directory that was named cannot be used."""

    exit_code = EXIT_USAGE


def main(argv: Sequence[str] | None = None) -> int:
    """Run it all and return the exit code."""
    write_safely()
    options = _parser().parse_args(argv)
    block_signals()
    try:
        plan = Plan.of(options.directory, options.runtime)
        return _run(plan)
    except Interrupted as interrupted:
        print(f"\nquickstart: stopped by {interrupted}; the next run goes on from here", file=sys.stderr)
        return 128 + interrupted.signum
    except BrokenPipeError:
        # Nobody reads this any more; what is still buffered has to go somewhere when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except CycloneError as error:
        print(f"quickstart: {visible(' '.join(str(error).split()))}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"quickstart: {visible(f'{place}{error.strerror}')}", file=sys.stderr)
        return EXIT_CONFIG


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="quickstart",
        description=inspect.cleandoc(__doc__ or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "directory", metavar="DIRECTORY", nargs="?", default=sysconfig.get_path("stdlib"),
        help="where to look for files; the standard library of Python if none is named",
    )  # fmt: skip
    parser.add_argument(
        "--runtime", metavar="DIRECTORY", default=str(_HOME / "Runtime"),
        help="for everything that is written (default: %(default)s)",
    )  # fmt: skip
    return parser


# What is where.


@dataclass(frozen=True)
class Plan:
    """What is read, and where everything is that is written. All paths are absolute.

    directory: as the ini file names it; title: as it was named.
    state: of quickstart alone, so that it never meets daemons that somebody has started with the samples;
    record: what belongs to this directory, so that a run that was cut short is resumed and no other.
    """

    directory: Path
    title: Path
    runtime: Path
    state: Path
    record: Path

    @classmethod
    def of(cls, directory: str, runtime_directory: str) -> Plan:
        """Check what was named and make the directories. Raises Unusable, ConfigError, OSError."""
        title = Path(os.path.abspath(directory))
        try:
            with os.scandir(directory):
                pass
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise Unusable(f"{directory!r}: {reason}; expected a directory that can be read") from None
        runtime = Path(os.path.abspath(runtime_directory))
        if not _fits_ini(runtime):
            raise ConfigError(f"found the path {str(runtime)!r}, expected one that an ini file can hold")
        state = runtime / "quickstart"
        if state.resolve().is_relative_to(title.resolve()):
            problem = f"{directory!r}: holds {state}, which changes while it is read"
            raise Unusable(f"{problem}; expected another directory, or --runtime DIRECTORY outside of it")
        name = hashlib.sha256(os.fsencode(title.resolve())).hexdigest()[:12]
        record = state / name
        record.mkdir(parents=True, exist_ok=True)
        return cls(cls._named(title, record), title, runtime, state, record)

    @staticmethod
    def _named(title: Path, record: Path) -> Path:
        """A name for the directory that an ini file can hold: its own, or that of a link to it."""
        if _fits_ini(title):
            return title
        link = record / "directory"
        link.unlink(missing_ok=True)
        link.symlink_to(title)
        return link

    @property
    def manifest(self) -> Path:
        return self.runtime / "checksums.sha256"

    @property
    def failures(self) -> Path:
        return self.state / "failures.txt"

    @property
    def summary(self) -> Path:
        return self.state / "summary.json"

    @property
    def progress(self) -> Path:
        return self.state / "progress.json"

    @property
    def store(self) -> Path:
        return self.record / "store.db"

    @property
    def port_file(self) -> Path:
        return self.state / "master.port"

    @property
    def keys(self) -> Path:
        return self.runtime / "keys"

    def ini(self, name: str) -> Path:
        return self.state / f"{name}.conf"

    def log(self, name: str) -> Path:
        return self.state / f"{name}.log"

    def pid_file(self, name: str) -> Path:
        return self.state / f"{name}.pid"


def _fits_ini(path: Path) -> bool:
    text = str(path)
    return text.isprintable() and text == text.strip()


# From the beginning to the end.


def _run(plan: Plan) -> int:
    with PidFile(plan.pid_file("quickstart")):
        for name in ("master", "controller"):
            _stop_former(plan.pid_file(name))
        for leftover in (plan.manifest, plan.failures, plan.summary, plan.progress, plan.port_file):
            leftover.unlink(missing_ok=True)
        print(f"Checksums of all files below {visible(str(plan.title))}")
        job, recorded = _newest_job(plan), 0
        if job is not None and job.state == "open":
            recorded = sum(job.counts.values())
            print(f"An earlier run was cut short; {recorded} files are on record and not read again.")
        daemons = Daemons(plan)
        try:
            daemons.start()
            daemons.watch(make_display())
        finally:
            daemons.stop()
        return _tell(plan, recorded)


def _newest_job(plan: Plan) -> JobView | None:
    """As the store knows it while no master has it open."""
    if not plan.store.exists():
        return None
    store = SqliteStore(plan.store)
    try:
        jobs = store.jobs(1)
    finally:
        store.close()
    return jobs[0] if jobs else None


def _tell(plan: Plan, recorded: int) -> int:
    """Say what came of it. recorded: tasks that had ended before. Returns the exit code."""
    try:
        summary = json.loads(plan.summary.read_text())
    except FileNotFoundError:
        raise CycloneError(f"no manifest was written; see {plan.log('master')}") from None
    job = _newest_job(plan)
    counts = job.counts if job is not None else {}
    ended, seconds = sum(counts.values()), summary["seconds"]
    pace = f", {(ended - recorded) / seconds:,.0f} tasks/s" if ended > recorded and seconds else ""
    outcomes = ", ".join(f"{count} {state}" for state, count in sorted(counts.items(), reverse=True))
    # sha256sum takes a file without a line for one that is not its own.
    check = (
        f"sha256sum --check --quiet {shlex.quote(str(plan.manifest))}"
        if plan.manifest.stat().st_size
        else "nothing to check, no file was read"
    )
    for name, text in {
        "Tasks": f"{ended}: {outcomes}" if ended else "none, there is no file",
        "Time": f"{seconds:.2f} s{pace}",
        "Manifest": f"{plan.manifest}",
        "Check it": check,
        "Logs": f"{plan.log('master')}, {plan.log('controller').name}",
        "Ini files": f"{plan.ini('master')}, {plan.ini('controller').name}, {plan.ini('checksum').name}",
        "Store": f"{plan.store}",
        "Keys": f"{plan.keys}",
    }.items():
        print(f"{name:<10}{visible(text)}")
    return _tell_failures(plan.failures)


def _tell_failures(file: Path) -> int:
    """List what could not be read. Returns the exit code."""
    # Each line is an escaped name, a tab and the reason; a line feed ends it and nothing else does.
    failures = file.read_bytes().split(b"\n")[:-1]
    if not failures:
        return EXIT_OK
    sys.stdout.flush()
    print(f"quickstart: {len(failures)} could not be read:", file=sys.stderr)
    for line in failures[:_LISTED_MOST]:
        name, _, reason = line.decode("utf-8", "backslashreplace").rpartition("\t")
        print(f"  {visible(name)}: {visible(reason)}", file=sys.stderr)
    if len(failures) > _LISTED_MOST:
        print(f"  and {len(failures) - _LISTED_MOST} more in {file}", file=sys.stderr)
    return EXIT_TASK_FAILED


# The daemons.


class Daemons:
    """Owns the master and the controller that this program has started: whatever happens, they end with it."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._own = OwnDaemons()

    def start(self) -> None:
        """Return when the master listens and the controller was started. Raises CycloneError, Interrupted."""
        plan = self._plan
        _write_ini(plan, "checksum", {
            ("files", "directory"): plan.directory,
            ("manifest", "file"): plan.manifest,
            ("manifest", "failures"): plan.failures,
            ("manifest", "summary"): plan.summary,
            ("manifest", "progress"): plan.progress,
        })  # fmt: skip
        _write_ini(plan, "master", {
            ("control", "pid_file"): plan.pid_file("master"),
            # Any free one: that of the sample may be taken, by a master that was started with the sample.
            ("comm", "port"): 0,
            ("comm", "port_file"): plan.port_file,
            ("log", "filename"): plan.log("master"),
            ("task_generator", "config_file"): plan.ini("checksum"),
            ("store", "path"): plan.store,
            ("security", "key_dir"): plan.keys,
        })  # fmt: skip
        self._start("master")
        port = self._port()
        _write_ini(plan, "controller", {
            ("control", "pid_file"): plan.pid_file("controller"),
            ("control", "state_dir"): plan.record / "undelivered",
            ("comm", "port"): port,
            ("log", "filename"): plan.log("controller"),
            ("processing", "worker_count"): "cores",
            ("security", "key_dir"): plan.keys,
        })  # fmt: skip
        self._start("controller")
        pids = ", ".join(f"{name} PID {pid}" for name, pid in self._own.pids().items())
        print(f"Started {pids}, port {port}", flush=True)

    def watch(self, display: Display) -> None:
        """Show how far they are until the master has ended. Raises Interrupted, or CycloneError if one broke."""
        with display:
            while self._own.exit_code("master") is None:
                progress = self._progress()
                display.show(progress)
                if self._own.exit_code("controller") is not None and progress.get("state") != "finished":
                    raise CycloneError(self._how_ended("controller"))
                wait(LOOK_EVERY_S)
            display.show(self._progress())
        if self._own.exit_code("master") not in (EXIT_OK, EXIT_TASK_FAILED):
            raise CycloneError(self._how_ended("master"))

    def stop(self) -> None:
        """Return when nothing of it runs any more."""
        self._own.stop()

    def _start(self, name: str) -> None:
        # Modules that are compiled meanwhile would be files that change while they are read.
        environment = {"PYTHONDONTWRITEBYTECODE": "1"}
        self._own.start(name, self._plan.ini(name), self._plan.log(name), _HOME, environment)

    def _port(self) -> int:
        """Where the master listens, as soon as it does."""
        deadline = monotonic() + _START_S
        while monotonic() < deadline:
            try:
                return int(self._plan.port_file.read_text())
            except FileNotFoundError:
                if self._own.exit_code("master") is not None:
                    raise CycloneError(self._how_ended("master")) from None
            wait(LOOK_EVERY_S)
        raise CycloneError(f"the master does not listen after {_START_S:g} s; see {self._plan.log('master')}")

    def _progress(self) -> Mapping[str, Any]:
        try:
            progress: Mapping[str, Any] = json.loads(self._plan.progress.read_text())
        except FileNotFoundError:
            return {}
        return progress

    def _how_ended(self, name: str) -> str:
        return self._own.how_ended(name, after_kill="; run it again and it goes on")


def _write_ini(plan: Plan, name: str, values: Mapping[tuple[str, str], object]) -> None:
    """A copy of the sample with other values. Raises ConfigError when the sample does not have such a key."""
    sample = _HOME / "Configuration" / f"{name}.conf"
    left = dict(values)
    lines: list[str] = []
    section = ""
    try:
        text = sample.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError("no such file; expected a checkout with its samples", file=sample) from None
    for line in text.splitlines():
        key = line.partition("=")[0].strip()
        if line.startswith("["):
            section = line.strip().strip("[]")
        elif not line.startswith("#") and (section, key) in left:
            line = f"{key} = {left.pop((section, key))}"
        lines.append(line)
    for section, key in left:
        raise ConfigError("no such key in the sample", file=sample, section=section, key=key)
    plan.ini(name).write_text("\n".join([*lines, ""]), encoding="utf-8")


def _stop_former(file: Path) -> None:
    """End the daemon of an earlier quickstart that somebody has killed. Raises AlreadyRunning if it cannot be."""
    for signum, within_s in STOPPING:
        deadline = monotonic() + within_s
        if (owner := _owner(file)) is None:
            return
        print(f"Stopping PID {owner}, which an earlier run has left behind.", flush=True)
        send(owner, signum)
        while monotonic() < deadline:
            wait(LOOK_EVERY_S)
            if _owner(file) is None:
                return
    raise AlreadyRunning(file, f"PID {_owner(file)}, which cannot be stopped")


def _owner(file: Path) -> int | None:
    """The PID of the daemon that holds the lock on this file; None if nobody does, whatever stands in it."""
    try:
        with open(file, "rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return int(file.read_bytes().partition(b";")[0])
    return None


# How far it is.


class Display(AbstractContextManager[None]):
    """Shows how far the run is. Leaves the terminal in order when it ends."""

    def show(self, progress: Mapping[str, Any]) -> None:
        """progress: what the generator has written last; empty before that."""
        raise NotImplementedError


class Lines(Display):
    """A line now and then, for logs and pipes."""

    def __init__(self) -> None:
        self._said_at = 0.0
        self._said = ""

    def __exit__(self, *error: object) -> None:
        return None

    def show(self, progress: Mapping[str, Any]) -> None:
        now = monotonic()
        if not progress or (now - self._said_at < _LINE_EVERY_S and progress["state"] == "running"):
            return
        known = progress["total"] is not None
        text = f"{_through(progress)} of {progress['found']} files{'' if known else ' found so far'}"
        if text != self._said:
            self._said_at, self._said = now, text
            print(text, flush=True)


class Bar(Display):
    """A bar that grows, for terminals."""

    def __init__(self) -> None:
        from rich import console, progress

        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            console=console.Console(file=sys.stdout),
            # Without a thread of its own: it is drawn whenever there is something new.
            auto_refresh=False,
        )
        self._files = self._bar.add_task("Files", total=None)

    def __enter__(self) -> None:
        self._bar.start()

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def show(self, progress: Mapping[str, Any]) -> None:
        if progress:
            self._bar.update(self._files, total=progress["total"], completed=_through(progress))
        self._bar.refresh()


def make_display() -> Display:
    """A bar on a terminal where rich is there, else lines."""
    if sys.stdout.isatty():
        try:
            return Bar()
        except ImportError:
            return Lines()
    return Lines()


def _through(progress: Mapping[str, Any]) -> int:
    return int(progress["done"]) + int(progress["failed"])


if __name__ == "__main__":
    sys.exit(main())
