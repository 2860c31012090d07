"""A migration of files between OSTs from end to end, on a simulated Lustre: `bin/lustre-demo`.

Makes a simulated file system whose first OSTs are full and whose last ones are new, lists of the files on the full
ones, and ini files for a master and a controller as a site would write them. Starts both, shows how far they are, and
has `simctl verify` look at every file in the end. Everything stays in one directory, to look at and to try again.

Exit codes: 0, or 1 if what it shows did not come about, 6 if daemons of an earlier demo still run in the directory,
128 and the number of the signal after ^C or a signal.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from cyclone.cli.own_daemons import LOOK_EVERY_S, Interrupted, OwnDaemons, block_signals, tie_to, wait
from cyclone.errors import EXIT_OK, EXIT_TASK_FAILED, CycloneError
from cyclone.process.pid_file import PidFile

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

SOURCES, TARGETS = range(8), range(8, 12)
START_S = 30.0
END_S = 60.0

#: The exit codes of daemons that ended because all was done; some of it may have failed.
IN_ORDER = {"master": (EXIT_OK, EXIT_TASK_FAILED), "controller": (EXIT_OK,)}


class DemoFailed(CycloneError):
    """What the demo shows did not come about."""

    exit_code = EXIT_TASK_FAILED


def main() -> int:
    options = _parser().parse_args()
    directory: Path = options.directory.resolve()
    block_signals()
    try:
        demo = Demo(directory, options.files, options.seed)
        demo.prepare()
        return demo.run()
    except CycloneError as error:
        print(f"lustre-demo: {error}", file=sys.stderr)
        return error.exit_code
    except Interrupted as interrupted:
        print(f"\nlustre-demo: stopped by {interrupted}", file=sys.stderr)
        return 128 + interrupted.signum


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bin/lustre-demo", description=(__doc__ or "").strip())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--files", type=int, default=2000, help="how many files there are (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="another one makes other files (default: %(default)s)"
    )
    parser.add_argument(
        "directory", type=Path, nargs="?", default=ROOT / "Runtime" / "lustre-demo", metavar="DIRECTORY",
        help="where everything is put; what an earlier demo left there is removed (default: %(default)s)",
    )  # fmt: skip
    return parser


class Demo:
    """Owns one directory and the daemons that run in it."""

    def __init__(self, directory: Path, files: int, seed: int) -> None:
        self.directory, self.files, self.seed = directory, files, seed
        self.bin = directory / "lustre" / "bin"
        self.mount = directory / "lustre" / "mnt" / "lustre"
        self.daemons = OwnDaemons()

    # Before.

    def prepare(self) -> None:
        mark = self.directory / ".lustre-demo"
        if self.directory.exists():
            if not mark.exists() and any(self.directory.iterdir()):
                raise DemoFailed(f"{self.directory} holds something that is not from a demo")
            # With the locks of both: no daemon of an earlier demo may lose the files that it works on.
            with PidFile(self.directory / "master.pid"), PidFile(self.directory / "controller.pid"):
                shutil.rmtree(self.directory)
        self.directory.mkdir(parents=True)
        mark.touch()
        lustre = self.directory / "lustre"
        print(
            f"A simulated Lustre of {len(SOURCES) + len(TARGETS)} OSTs in {lustre}, {self.files:,} files on {len(SOURCES)} of them"
        )
        self._call(
            sys.executable, HERE / "simlustre.py", "init", lustre, "--osts", len(SOURCES) + len(TARGETS), "--oss", 4,
            "--mdts", 2, "--fill", "20..30", "--time-scale", 1000, "--seed", self.seed,
        )  # fmt: skip
        self._simctl("fill", _range(SOURCES), "80%")
        self._simctl(
            "populate", "--files", self.files, "--osts", _range(SOURCES), "--lists", self.directory / "input",
            "--list-per-ost", "--seed", self.seed,
        )  # fmt: skip
        self._simctl("fault", "add", json.dumps({"cmd": "migrate", "probability": 0.02, "errno": "EBUSY"}))
        for name, text in self._configuration().items():
            (self.directory / name).write_text(text, encoding="utf-8")

    def _configuration(self) -> dict[str, str]:
        # The same number in both, so that the daemons can be started again by hand, also after a reboot.
        port = _free_port()
        return {
            "master.conf": f"""[control]
pid_file = master.pid

[comm]
target = 127.0.0.1
port = {port}
port_file = port

[log]
filename = master.log

[store]
path = store.db

[security]
key_dir = keys

[task_generator]
module = cyclone.lustre.migration.generator
class = LustreOstMigrationTaskGenerator
config_file = migration.conf
job = migration
""",
            "controller.conf": f"""[control]
pid_file = controller.pid
request_retry_wait_duration = 1

[comm]
target = 127.0.0.1
port = {port}

[log]
filename = controller.log

[processing]
worker_count = 8

[security]
key_dir = keys
""",
            "migration.conf": f"""[control]
local_mode = off

[control.threshold]
update_fill_level = 1
reload_files = 1
print_caches = 5

[task]
task_file = tasks.xml
task_name = Migrate

[migration]
input_dir = input
ost_fill_level_threshold_source = 10
ost_fill_level_threshold_target = 90
ost_targets = {_range(TARGETS)}
source_max_tasks = 2
target_max_tasks = 3
pair_max_tasks = 2
settle_time = 0
retry_delay = 1
retry_max = 5
verify = checksum
stop_when_done = on
report_file = report.json

[lustre]
fs_path = {self.mount}
lfs_bin = {self.bin / "lfs"}
""",
            "tasks.xml": f"""<tasks>
  <task name="Migrate">
    <class module="cyclone.lustre.migrate_task" name="LustreOstMigrateTask"/>
    <property>
      <filename/>
      <source_ost/>
      <target_ost/>
      <direct_io>off</direct_io>
      <block>off</block>
      <skip>on</skip>
      <lfs_bin>{self.bin / "lfs"}</lfs_bin>
    </property>
  </task>
</tasks>
""",
        }

    # The migration.

    def run(self) -> int:
        began = time.monotonic()
        try:
            self._start("master")
            self._await_port()
            self._start("controller")
            self._show_progress()
            self._await_ends()
        finally:
            self.daemons.stop()
        return self._check(time.monotonic() - began)

    def _start(self, name: str) -> None:
        self.daemons.start(name, self.directory / f"{name}.conf", self._log(name), self.directory)

    def _await_port(self) -> None:
        """Return when the master is there: its first start makes the keys that a controller needs."""
        deadline = time.monotonic() + START_S
        while not (self.directory / "port").exists():
            if self.daemons.exit_code("master") is not None:
                raise DemoFailed(self.daemons.how_ended("master"))
            if time.monotonic() > deadline:
                raise DemoFailed(f"the master does not listen after {START_S:g} s; see {self._log('master')}")
            wait(LOOK_EVERY_S)

    def _show_progress(self) -> None:
        """Show how far they are until one of them has ended."""
        told = ""
        terminal = sys.stdout.isatty()
        try:
            while len(self._living()) == len(IN_ORDER):
                status = self._status()
                line = "" if status is None else _progress_text(status)
                if line and line != told:
                    told = line
                    print(f"\r\033[K{line}" if terminal else line, end="" if terminal else "\n", flush=True)
                wait(0.2 if terminal else 1.0)
        finally:
            if terminal:
                print()

    def _await_ends(self) -> None:
        """Return when both have ended: the master sends the controller away when all is done, and ends as well."""
        deadline = time.monotonic() + END_S
        while living := self._living():
            if time.monotonic() > deadline:
                name = living[0]
                raise DemoFailed(
                    f"the {name} has not ended {END_S:g} s after the other daemon; see {self._log(name)}"
                )
            wait(LOOK_EVERY_S)

    def _living(self) -> list[str]:
        """The daemons that have not ended. Raises DemoFailed when one has, and not in order."""
        codes = {name: self.daemons.exit_code(name) for name in IN_ORDER}
        for name, code in codes.items():
            if code is not None and code not in IN_ORDER[name]:
                raise DemoFailed(self.daemons.how_ended(name))
        return [name for name, code in codes.items() if code is None]

    def _status(self) -> dict[str, Any] | None:
        asked = self._ask(
            Path(sys.executable).parent / "cyclone", "migration", "status", "--json", "-f", "master.conf"
        )
        # While it starts and when it ends there is nobody who answers.
        return json.loads(asked.stdout) if asked.returncode == 0 else None

    # After.

    def _check(self, seconds: float) -> int:
        try:
            report = json.loads((self.directory / "report.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DemoFailed(
                f"the master was stopped before all was done; see {self._log('master')}"
            ) from None
        print(f"\n{report['files']:,} files in {seconds:.1f} s, {report['moved_bytes'] / 1e6:,.1f} MB moved")
        for state, reasons in report["results"].items():
            for reason, count in reasons.items():
                print(f"  {count:>8,}  {state}{f' ({reason})' if reason else ''}")
        marks = json.loads(self._simctl("marks", "--json"))["lustre"]
        most = {
            scope: max(marks.get(scope, {"": 0}).values(), default=0)
            for scope in ("all", "source", "target", "oss")
        }
        print(
            f"most at the same time inside lfs migrate: {most['all']} in all, {most['source']} from one OST, "
            f"{most['target']} to one OST, {most['oss']} on one server"
        )
        print(
            "simctl verify: every file readable, its bytes as written, layouts and counters consistent ...",
            flush=True,
        )
        verified = self._ask(self.bin / "simctl", "verify")
        print(verified.stdout, end="")
        if verified.returncode != 0:
            raise DemoFailed(f"simctl verify has found something:\n{verified.stdout}{verified.stderr}")
        left = sorted(
            path.name for path in (self.directory / "input").iterdir() if path.suffix in (".busy", ".failed")
        )
        print(f"lists of what could not be moved: {', '.join(left) or 'none'}")
        print(f"everything is in {self.directory}: ini files, logs, report.json, and the simulated Lustre")
        return EXIT_OK if self.daemons.exit_code("master") == EXIT_OK else EXIT_TASK_FAILED

    # Programs.

    def _simctl(self, *arguments: object) -> str:
        return self._call(self.bin / "simctl", *arguments)

    def _call(self, *command: object) -> str:
        done = self._ask(*command)
        if done.returncode != 0:
            raise DemoFailed(
                f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done.stdout

    def _ask(self, *command: object) -> subprocess.CompletedProcess[str]:
        """Run a program in the directory. Raises Interrupted if somebody wants all this to end meanwhile."""
        us = os.getpid()
        with subprocess.Popen(
            list(map(str, command)), cwd=self.directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=lambda: tie_to(us),
        ) as process:  # fmt: skip
            try:
                while True:
                    try:
                        out, err = process.communicate(timeout=LOOK_EVERY_S)
                    except subprocess.TimeoutExpired:
                        wait(0)
                    else:
                        return subprocess.CompletedProcess(process.args, process.returncode, out, err)
            finally:
                process.kill()

    def _log(self, name: str) -> Path:
        return self.directory / f"{name}.log"


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _range(osts: range) -> str:
    return f"{osts[0]}-{osts[-1]}"


def _progress_text(status: dict[str, Any]) -> str:
    done = sum(count for reasons in status["results"].values() for count in reasons.values())
    speed = status["speed"]["overall"]
    eta = "" if status["eta_s"] is None else f", done in {status['eta_s']:.0f} s"
    return (
        f"{done:,} of {done + status['left']:,} files, {speed['files_per_s']:.0f} files/s, "
        f"{speed['mb_per_s']:.0f} MB/s, {len(status['in_flight'])} in flight{eta}"
    )


if __name__ == "__main__":
    sys.exit(main())
