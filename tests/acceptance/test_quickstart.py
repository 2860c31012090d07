"""`bin/quickstart` as a newcomer meets it: real daemons, real files, and every way in which it can be cut short."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cyclone.process.lineage import has_variable, processes, slay_and_wait

pytestmark = pytest.mark.timeout(180)

ROOT = Path(__file__).parents[2]
DEADLINE_S = 60.0

#: Every kind of name that has broken a list of files before.
NAMES = [
    b"plain", b"two words", b" blank in front", b"blank behind ", b"-dash", b"--check", b"*", b"a\nb", b"\n",
    b"a\rb", b"\r", b"a\\b", b"\\", b"a\\nb", b"tab\there", b'"quoted"', b"'quoted'", b"$(true)", b"`true`",
    b"caf\xc3\xa9", b"caf\xe9", b"\xff\xfe", b"\x01\x7f", b"%s%%", b"[0]", b"#", b";", b"=", b"a|b", b"x" * 255,
]  # fmt: skip


class Trial:
    """Runs quickstart in a directory of its own; knows everything that it has started."""

    def __init__(self, place: Path) -> None:
        self.runtime = place / "Runtime"
        self.state = self.runtime / "quickstart"
        self.manifest = self.runtime / "checksums.sha256"
        self.sign = f"CYCLONE_TRIAL={place}"
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str | bytes | Path, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        command = [*before, sys.executable, "-P", "-m", "cyclone.cli.quickstart"]
        name, _, value = self.sign.partition("=")
        process = subprocess.Popen(
            [*command, "--runtime", self.runtime, *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, name: value}, start_new_session=True,
        )  # fmt: skip
        self.started.append(process)
        return process

    def run(
        self, *arguments: str | bytes | Path, before: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, before=before)
        out, err = process.communicate(timeout=DEADLINE_S)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def record(self, tree: Path) -> Path:
        """What belongs to this directory alone."""
        return self.state / hashlib.sha256(os.fsencode(tree)).hexdigest()[:12]

    def alive(self) -> set[int]:
        """Everybody who was started here, daemons and workers too."""
        return {pid for pid in processes() if has_variable(pid, self.sign.encode())}

    def progress(self) -> dict[str, int]:
        try:
            found: dict[str, int] = json.loads((self.state / "progress.json").read_text())
        except FileNotFoundError:
            return {}
        return found


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    trial = Trial(tmp_path)
    yield trial
    left = trial.alive()
    slay_and_wait(trial.alive, 10)
    for process in trial.started:
        if process.stdout is not None and not process.stdout.closed:
            process.communicate(timeout=DEADLINE_S)
    assert not left, "a run has left processes behind"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with two files, one of them below."""
    tree = tmp_path / "tree"
    (tree / "below").mkdir(parents=True)
    (tree / "one").write_text("one\n")
    (tree / "below" / "two").write_text("two\n")
    return tree


#: Below the bound of ext4 for the names of a file.
WOOD = 50_000


@pytest.fixture
def wood(tmp_path: Path) -> Iterator[Path]:
    """So many names of one file that there is time to cut a run short."""
    wood = tmp_path / "wood"
    wood.mkdir()
    (wood / "first").write_text("old")
    for number in range(1, WOOD):
        os.link(wood / "first", wood / f"{number:05}")
    yield wood
    shutil.rmtree(wood)


def wait_until(claim: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not claim():
        assert time.monotonic() < deadline, f"{what}: not within {DEADLINE_S:g} s"
        time.sleep(0.01)


def check(manifest: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["sha256sum", "--check", "--quiet", "--strict", manifest], capture_output=True, check=False
    )


def test_the_manifest_agrees_with_sha256sum(trial: Trial, tree: Path) -> None:
    ended = trial.run(tree)

    assert ended.returncode == 0, ended.stderr
    assert check(trial.manifest).returncode == 0
    assert trial.manifest.read_bytes().count(b"\n") == 2


def test_the_manifest_is_what_sha256sum_writes_whatever_files_are_called(
    trial: Trial, tmp_path: Path
) -> None:
    odd = tmp_path / "odd"
    odd.mkdir()
    for name in NAMES:
        with open(os.path.join(os.fsencode(odd), name), "wb") as file:
            file.write(name)

    ended = trial.run(odd)

    files = [os.path.join(os.fsencode(odd), name) for name in NAMES]
    theirs = subprocess.run(["sha256sum", "--", *files], capture_output=True, check=True).stdout
    assert ended.returncode == 0, ended.stderr
    assert sorted(trial.manifest.read_bytes().split(b"\n")) == sorted(theirs.split(b"\n"))
    assert check(trial.manifest).returncode == 0


def test_a_directory_may_have_any_name_as_well(trial: Trial, tmp_path: Path) -> None:
    odd = os.path.join(os.fsencode(tmp_path), b" a\nb\xff ")
    os.mkdir(odd)
    with open(os.path.join(odd, b"file"), "wb") as file:
        file.write(b"in it")

    ended = trial.run(odd)

    assert ended.returncode == 0, ended.stderr
    assert check(trial.manifest).returncode == 0
    assert trial.manifest.read_bytes().startswith(hashlib.sha256(b"in it").hexdigest().encode())


def test_the_summary_tells_outcomes_time_and_where_things_are(trial: Trial, tree: Path) -> None:
    ended = trial.run(tree)

    assert "2: 2 succeeded" in ended.stdout
    assert "tasks/s" in ended.stdout
    for place in (trial.manifest, trial.state / "master.log", trial.runtime / "keys"):
        assert str(place) in ended.stdout
        assert place.exists()
    assert "2 of 2 files" in ended.stdout


def test_it_works_twice_and_reads_everything_again(trial: Trial, tree: Path) -> None:
    trial.run(tree)
    (tree / "one").write_text("changed\n")

    ended = trial.run(tree)

    assert ended.returncode == 0, ended.stderr
    assert check(trial.manifest).returncode == 0


def test_what_cannot_be_read_is_listed_and_the_exit_code_is_1(trial: Trial, tree: Path) -> None:
    (tree / "secret").write_text("nobody may read this")
    (tree / "secret").chmod(0)

    ended = trial.run(tree, before=_bound_by_permissions())

    assert ended.returncode == 1
    assert f"{tree}/secret: Permission denied" in ended.stderr
    assert "1 could not be read" in ended.stderr
    assert "2 succeeded" in ended.stdout
    assert check(trial.manifest).returncode == 0


def test_a_run_that_was_killed_with_all_its_processes_is_resumed(trial: Trial, wood: Path) -> None:
    trial.start(wood)
    wait_until(lambda: trial.progress().get("done", 0) > 0, "some files are done")
    slay_and_wait(trial.alive, 10)
    done = trial.progress()["done"]
    (wood / "first").write_text("new")

    ended = trial.run(wood)

    sums = [line.split()[0] for line in trial.manifest.read_text().splitlines()]
    old, new = (hashlib.sha256(text).hexdigest() for text in (b"old", b"new"))
    assert ended.returncode == 0, ended.stderr
    assert "An earlier run was cut short" in ended.stdout
    assert len(sums) == WOOD
    assert set(sums) <= {old, new}
    assert sums.count(old) >= done > 0, "what was done before is not done again"


def test_daemons_do_not_outlive_a_script_that_was_killed(trial: Trial, wood: Path) -> None:
    process = trial.start(wood)
    wait_until(lambda: trial.progress().get("found", 0) > 0, "it runs")

    process.kill()

    wait_until(lambda: not trial.alive(), "everything has ended")


def test_a_run_right_after_one_that_was_killed_waits_for_its_daemons(trial: Trial, wood: Path) -> None:
    process = trial.start(wood)
    wait_until(lambda: trial.progress().get("done", 0) > 0, "it runs")
    process.kill()

    ended = trial.run(wood)

    assert ended.returncode == 0, ended.stderr
    assert check(trial.manifest).returncode == 0


def test_a_daemon_that_was_left_behind_is_stopped_first(trial: Trial, tree: Path) -> None:
    trial.state.mkdir(parents=True)
    orphan = subprocess.Popen(
        [
            sys.executable, "-c",
            "import sys, time; from cyclone.process.pid_file import PidFile; "
            "PidFile(sys.argv[1]).acquire(); time.sleep(600)",
            trial.state / "master.pid",
        ],
    )  # fmt: skip
    wait_until(lambda: b";" in _content(trial.state / "master.pid"), "it holds the file")

    ended = trial.run(tree)

    assert ended.returncode == 0, ended.stderr
    assert orphan.wait(1) == -signal.SIGTERM
    assert f"Stopping PID {orphan.pid}" in ended.stdout


def test_a_pid_file_that_nobody_holds_is_of_no_account(trial: Trial, tree: Path) -> None:
    trial.state.mkdir(parents=True)
    for name in ("quickstart", "master", "controller"):
        (trial.state / f"{name}.pid").write_text(f"{os.getpid()};2026-01-01 00:00:00\n")

    ended = trial.run(tree)

    assert ended.returncode == 0, ended.stderr


def test_a_second_one_at_the_same_time_is_refused(trial: Trial, wood: Path) -> None:
    first = trial.start(wood)
    wait_until(lambda: trial.progress().get("found", 0) > 0, "it runs")

    second = trial.run(wood)

    assert second.returncode == 6
    assert "already running" in second.stderr
    first.terminate()
    assert first.wait(DEADLINE_S) == 128 + signal.SIGTERM


def test_ctrl_c_stops_everything(trial: Trial, wood: Path) -> None:
    process = trial.start(wood)
    # As soon as there is one: a moment later all may be done.
    wait_until(lambda: _content(trial.state / "controller.pid").endswith(b"\n"), "a controller")

    os.killpg(process.pid, signal.SIGINT)

    _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 128 + signal.SIGINT
    assert err.strip() == "quickstart: stopped by SIGINT; the next run goes on from here"
    assert not trial.alive()


def test_a_controller_that_dies_is_told_of(trial: Trial, wood: Path) -> None:
    process = trial.start(wood)
    # As soon as there is one: a moment later all may be done.
    wait_until(lambda: _content(trial.state / "controller.pid").endswith(b"\n"), "a controller")

    os.kill(int(_content(trial.state / "controller.pid").partition(b";")[0]), signal.SIGKILL)

    _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 70
    assert err.startswith("quickstart: the controller was killed by SIGKILL; run it again and it goes on; ")
    assert "INFO" not in err


@pytest.mark.parametrize("name", ["missing", "file", "file/below", "\n"])
def test_a_directory_that_cannot_be_used_costs_one_line(trial: Trial, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()

    ended = trial.run(tmp_path / name)

    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stderr.startswith(f"quickstart: {str(tmp_path / name)!r}: ")


def test_a_place_that_cannot_be_written_to_costs_one_line(trial: Trial, tree: Path) -> None:
    trial.runtime.touch()

    ended = trial.run(tree)

    assert ended.returncode == 3
    assert ended.stderr == f"quickstart: {trial.record(tree)}: Not a directory\n"


def test_a_directory_that_holds_the_daemons_own_files_is_refused(trial: Trial, tmp_path: Path) -> None:
    ended = trial.run(tmp_path)

    assert ended.returncode == 2
    assert "which changes while it is read" in ended.stderr


def test_an_empty_directory_has_an_empty_manifest(trial: Trial, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    ended = trial.run(tmp_path / "empty")

    assert ended.returncode == 0, ended.stderr
    assert trial.manifest.read_bytes() == b""
    assert "sha256sum" not in ended.stdout


def test_a_terminal_is_shown_a_bar(trial: Trial, tree: Path) -> None:
    terminal, theirs = os.openpty()

    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "cyclone.cli.quickstart", "--runtime", trial.runtime, tree],
        stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    shown = b"".join(_read_to_the_end(terminal))

    assert process.wait(DEADLINE_S) == 0
    assert b"2/2" in shown
    assert "━".encode() in shown
    assert b"of 2 files" not in shown


def test_the_script_finds_its_checkout_and_hands_on_what_it_was_told(tmp_path: Path) -> None:
    checkout = tmp_path / "a checkout"
    (checkout / ".venv" / "bin").mkdir(parents=True)
    shutil.copytree(ROOT / "bin", checkout / "bin")
    shutil.copy(ROOT / "pyproject.toml", checkout)
    python = checkout / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    python.chmod(0o755)
    project = (checkout / "pyproject.toml").read_bytes()
    checksum = subprocess.run(["cksum"], input=project, capture_output=True, check=True).stdout.decode()
    (checkout / ".venv" / ".prepared-cli").write_text(f"{checkout} {checksum}")

    ended = subprocess.run(
        [checkout / "bin" / "quickstart", "a  b", "c\nd"], cwd=tmp_path, capture_output=True, check=True
    )

    assert ended.stdout == b"-P|-m|cyclone.cli.quickstart|a  b|c\nd|"
    assert ended.stderr == b""


def test_a_copy_in_place_of_the_checkout_is_replaced_by_the_checkout(tmp_path: Path) -> None:
    checkout = tmp_path / "a checkout"
    (checkout / "cyclone").mkdir(parents=True)
    (checkout / "cyclone" / "__init__.py").touch()
    shutil.copytree(ROOT / "bin", checkout / "bin")
    shutil.copy(ROOT / "pyproject.toml", checkout)
    venv.create(checkout / ".venv", symlinks=True, with_pip=False)
    [packages] = (checkout / ".venv" / "lib").glob("python*/site-packages")
    said = tmp_path / "pip.txt"
    editable, copy = packages / "cyclone.pth", packages / "cyclone"
    (packages / "pip").mkdir()
    (packages / "pip" / "__main__.py").write_text(
        f"""
import pathlib, shutil, sys
if "install" in sys.argv:
    with open({str(said)!r}, "a") as said:
        print(*sys.argv[1:], sep="|", file=said)
    shutil.rmtree({str(copy)!r}, ignore_errors=True)
    pathlib.Path({str(editable)!r}).write_text({str(checkout)!r})
"""
    )
    prepare = [checkout / "bin" / "prepare", "cli"]
    subprocess.run(prepare, capture_output=True, check=True)
    subprocess.run(prepare, capture_output=True, check=True)
    before = said.read_text().splitlines()

    editable.unlink()
    shutil.copytree(checkout / "cyclone", copy)
    subprocess.run(prepare, capture_output=True, check=True)
    subprocess.run(prepare, capture_output=True, check=True)

    after = said.read_text().splitlines()
    assert len(before) == 1
    assert len(after) == 2
    assert after[1] == f"install|--quiet|--disable-pip-version-check|--editable|{checkout}[cli]"


def _read_to_the_end(terminal: int) -> Iterator[bytes]:
    with open(terminal, "rb", buffering=0) as stream:
        try:
            while some := stream.read(4096):
                yield some
        except OSError as error:
            # What reading a terminal ends with when nobody holds its other side any more.
            if error.errno != errno.EIO:
                raise


def _content(file: Path) -> bytes:
    return file.read_bytes() if file.exists() else b""


def _bound_by_permissions() -> tuple[str, ...]:
    """What makes root obey the permissions of its own files, and nothing for anybody else, who has to anyhow."""
    mighty = "-dac_override,-dac_read_search"
    return () if os.geteuid() else ("setpriv", "--bounding-set", mighty, "--inh-caps", mighty)
