"""A migration of files between OSTs from end to end, on a simulated Lustre: `bin/lustre-demo`.

Makes a simulated file system whose first OSTs are full and whose last ones are new, lists of the files on the full
ones, and ini files for a master and a controller as a site would write them. Starts both, shows how far they are, and
has `simctl verify` look at every file in the end. Everything stays in one directory, to look at and to try again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

SOURCES, TARGETS = range(8), range(8, 12)
START_S = 30.0
END_S = 60.0


class DemoFailed(Exception):
    """What the demo shows did not come about."""


def main() -> int:
    options = _parser().parse_args()
    directory: Path = options.directory.resolve()
    try:
        demo = Demo(directory, options.files, options.seed)
        demo.prepare()
        return demo.run()
    except DemoFailed as error:
        print(f"lustre-demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


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
        self.daemons: list[subprocess.Popen[bytes]] = []

    # Before.

    def prepare(self) -> None:
        mark = self.directory / ".lustre-demo"
        if self.directory.exists():
            if not mark.exists() and any(self.directory.iterdir()):
                raise DemoFailed(f"{self.directory} holds something that is not from a demo")
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
            master = self._start("master")
            self._await_port(master)
            controller = self._start("controller")
            self._show_progress(master)
            if (code := controller.wait(END_S)) != 0:
                raise DemoFailed(f"the controller ended with {code}, see {self.directory}/controller.log")
        finally:
            self._stop()
        return self._check(master.returncode, time.monotonic() - began)

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        with open(self.directory / f"{name}.out", "ab") as out:
            daemon = subprocess.Popen(
                [Path(sys.executable).parent / f"cyclone-{name}", "-f", f"{name}.conf"],
                cwd=self.directory, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        self.daemons.append(daemon)
        return daemon

    def _await_port(self, master: subprocess.Popen[bytes]) -> None:
        """Return when the master is there: its first start makes the keys that a controller needs."""
        deadline = time.monotonic() + START_S
        while not (self.directory / "port").exists():
            if master.poll() is not None or time.monotonic() > deadline:
                raise DemoFailed(f"the master did not start:\n{self._log('master')}")
            time.sleep(0.05)

    def _show_progress(self, master: subprocess.Popen[bytes]) -> None:
        told = ""
        while master.poll() is None:
            status = self._status()
            line = "" if status is None else _progress_text(status)
            if line and line != told:
                told = line
                print(
                    f"\r\033[K{line}" if sys.stdout.isatty() else line,
                    end="" if sys.stdout.isatty() else "\n",
                    flush=True,
                )
            time.sleep(0.2 if sys.stdout.isatty() else 1.0)
        if sys.stdout.isatty():
            print()

    def _status(self) -> dict[str, Any] | None:
        asked = subprocess.run(
            [Path(sys.executable).parent / "cyclone", "migration", "status", "--json", "-f", "master.conf"],
            cwd=self.directory, capture_output=True, text=True, check=False,
        )  # fmt: skip
        # While it starts and when it ends there is nobody who answers.
        return json.loads(asked.stdout) if asked.returncode == 0 else None

    def _stop(self) -> None:
        for daemon in self.daemons:
            if daemon.poll() is None:
                daemon.terminate()
        for daemon in self.daemons:
            try:
                daemon.wait(END_S)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    # After.

    def _check(self, code: int, seconds: float) -> int:
        report = json.loads((self.directory / "report.json").read_text(encoding="utf-8"))
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
            f"most at the same time: {most['all']} in all, {most['source']} from one OST, {most['target']} to one OST, "
            f"{most['oss']} on one server"
        )
        print(
            "simctl verify: every file readable, its bytes as written, layouts and counters consistent ...",
            flush=True,
        )
        verified = subprocess.run(
            [self.bin / "simctl", "verify"], capture_output=True, text=True, check=False
        )
        print(verified.stdout, end="")
        if verified.returncode != 0:
            raise DemoFailed(f"simctl verify has found something:\n{verified.stdout}{verified.stderr}")
        left = sorted(
            path.name for path in (self.directory / "input").iterdir() if path.suffix in (".busy", ".failed")
        )
        print(f"lists of what could not be moved: {', '.join(left) or 'none'}")
        print(f"everything is in {self.directory}: ini files, logs, report.json, and the simulated Lustre")
        return 0 if code == 0 else 1

    # Programs.

    def _simctl(self, *arguments: object) -> str:
        return self._call(self.bin / "simctl", *arguments)

    def _call(self, *command: object) -> str:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise DemoFailed(
                f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done.stdout

    def _log(self, name: str) -> str:
        texts = [self.directory / f"{name}.{ending}" for ending in ("log", "out")]
        return "".join(text.read_text(errors="replace") for text in texts if text.exists())


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
