from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

from cyclone.base_task import Attempt
from cyclone.errors import CommandFailed, TaskError
from cyclone.tasks import command as module
from cyclone.tasks.command import CommandTask


def execute(task: CommandTask, tid: str = "t1") -> None:
    task._attempt = Attempt("some job", tid, 99, 2)
    task.execute()


def failure(task: CommandTask) -> CommandFailed:
    with pytest.raises(CommandFailed) as caught:
        execute(task)
    return caught.value


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# How it is run.


def test_a_list_is_a_program_with_its_arguments(tmp_path: Path) -> None:
    execute(CommandTask(["printf", "%s|", "a b", "$HOME", "*"], stdout=tmp_path / "out"))

    assert (tmp_path / "out").read_text() == "a b|$HOME|*|"


def test_text_is_a_line_for_the_shell(tmp_path: Path) -> None:
    execute(CommandTask("echo a; echo b | tr b c", stdout=tmp_path / "out"))

    assert (tmp_path / "out").read_text() == "a\nc\n"


@pytest.mark.parametrize("line", ["echo a b", "echo  a  b ", "A=1 sh -c 'echo a b'", "exec echo a b"])
def test_plain_lines_mean_what_they_mean_to_the_shell(line: str, tmp_path: Path) -> None:
    execute(CommandTask(line, stdout=tmp_path / "out"))

    assert (tmp_path / "out").read_text() == "a b\n"


def test_a_plain_line_does_not_need_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    popen = subprocess.Popen

    def record(arguments: list[str], **options: object) -> subprocess.Popen[bytes]:
        started.append(arguments)
        return popen(arguments, **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(module, "_Program", record)

    execute(CommandTask("/bin/true"))
    execute(CommandTask("/bin/true; true"))

    assert started == [["/bin/true"], ["/bin/sh", "-c", "/bin/true; true"]]


def test_a_script_without_interpreter_is_left_to_the_shell(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("echo from the script\n")
    script.chmod(0o700)

    execute(CommandTask(str(script), stdout=tmp_path / "out"))

    assert (tmp_path / "out").read_text() == "from the script\n"


def test_there_is_no_input() -> None:
    execute(CommandTask(["sh", "-c", "! read line"]))


def test_it_runs_where_it_was_told(tmp_path: Path) -> None:
    execute(CommandTask("pwd", cwd=tmp_path, stdout="out"))

    assert (tmp_path / "out").read_text() == f"{tmp_path}\n"


def test_a_missing_directory_to_run_in_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no such directory"):
        execute(CommandTask("pwd", cwd=tmp_path / "none"))


def test_it_knows_its_attempt_and_its_environment(tmp_path: Path) -> None:
    line = 'echo "$CYCLONE_JOB/$CYCLONE_TID/$CYCLONE_TOKEN/$CYCLONE_ATTEMPT/$MINE/${PATH:+path}"'

    execute(CommandTask(line, env={"MINE": "m"}, stdout=tmp_path / "out"))

    assert (tmp_path / "out").read_text() == "some job/t1/99/2/m/path\n"


def test_it_travels_as_it_is() -> None:
    task = pickle.loads(pickle.dumps(CommandTask(("a", "b"), "/c", {"D": "e"}, "f", "g")))

    assert (task.command, task.cwd, task.env) == (["a", "b"], "/c", {"D": "e"})
    assert (task.stdout, task.stderr) == ("f", "g")


@pytest.mark.parametrize("nothing", ["", []])
def test_an_empty_command_is_refused(nothing: str | list[str]) -> None:
    with pytest.raises(ValueError, match="cannot be empty"):
        CommandTask(nothing)


# How it ends.


def test_an_exit_code_is_a_failure_with_the_end_of_stderr() -> None:
    error = failure(CommandTask("echo something went wrong >&2; exit 3"))

    assert error.returncode == 3
    assert str(error) == "the program ended with exit code 3: something went wrong"


def test_the_error_is_bounded() -> None:
    error = failure(CommandTask("yes | head -c 1000000 >&2; echo the end >&2; false"))

    assert len(str(error)) < 2200
    assert str(error).endswith("the end")


def test_a_plain_builtin_of_the_shell_is_understood() -> None:
    assert failure(CommandTask("exit 4")).returncode == 4


def test_a_signal_is_a_failure_with_its_name() -> None:
    error = failure(CommandTask("kill -KILL $$"))

    assert error.returncode == -signal.SIGKILL
    assert "killed by SIGKILL" in str(error)


def test_a_signal_without_a_name_is_told_by_its_number() -> None:
    assert "killed by signal 40" in str(failure(CommandTask("kill -40 $$")))


@pytest.mark.parametrize(("name", "code"), [("no-such-program", 127), ("/etc/passwd", 126)])
def test_what_cannot_be_started_ends_as_in_a_shell(name: str, code: int) -> None:
    assert failure(CommandTask([name])).returncode == code


def test_an_unknown_program_in_a_line_ends_as_in_a_shell() -> None:
    assert failure(CommandTask("no-such-program")).returncode == 127


def test_it_does_not_wait_for_what_the_program_left_behind(tmp_path: Path) -> None:
    started = time.monotonic()

    execute(CommandTask(f"sleep 60 & echo $! > {tmp_path}/pid"))

    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert time.monotonic() - started < 30


# Where its output goes.


def test_each_attempt_starts_its_files_anew(tmp_path: Path) -> None:
    task = CommandTask("echo once", stdout=tmp_path / "made" / "{tid}.out")

    execute(task)
    execute(task)

    assert (tmp_path / "made" / "t1.out").read_text() == "once\n"


def test_both_outputs_may_share_a_file(tmp_path: Path) -> None:
    execute(CommandTask("echo a; echo b >&2; echo c", stdout=tmp_path / "all", stderr=tmp_path / "all"))

    assert (tmp_path / "all").read_text() == "a\nb\nc\n"


def test_a_redirected_stderr_is_not_in_the_error(tmp_path: Path) -> None:
    error = failure(CommandTask("echo a >&2; false", stderr=tmp_path / "err"))

    assert (tmp_path / "err").read_text() == "a\n"
    assert str(error) == "the program ended with exit code 1"


@pytest.mark.parametrize("tid", ["../../etc/passwd", ".hidden", "a/b", "x" * 300, "new\nline"])
def test_a_tid_cannot_lead_the_output_elsewhere(tid: str, tmp_path: Path) -> None:
    place = tmp_path / "place"

    execute(CommandTask("echo a", stdout=place / "{tid}"), tid)

    (only,) = place.iterdir()
    assert len(only.name) == 32


def test_an_output_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(TaskError, match="cannot write to"):
        execute(CommandTask("true", stdout=tmp_path / "file" / "out"))


# How it is stopped.


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def interrupt_when(file: Path, task: CommandTask) -> int:
    """Run the task with SIGTERM raising SystemExit, as in a worker, and end it when the file is there."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        raise SystemExit(0)

    before = signal.signal(signal.SIGTERM, on_signal)
    watcher = subprocess.Popen(
        [sys.executable, "-c",
         "import os,sys,time\n"
         "while not (os.path.exists(sys.argv[1]) and os.path.getsize(sys.argv[1])): time.sleep(0.01)\n"
         "os.kill(int(sys.argv[2]), 15)", str(file), str(os.getpid())]
    )  # fmt: skip
    try:
        with pytest.raises(SystemExit):
            execute(task)
    finally:
        signal.signal(signal.SIGTERM, before)
        watcher.kill()
        watcher.wait()
    return int(file.read_text())


def test_an_interrupted_attempt_ends_the_whole_process_group(tmp_path: Path) -> None:
    file = tmp_path / "pid"

    pid = interrupt_when(file, CommandTask(f"sleep 60 & echo $! > {file}; sleep 60"))

    until(lambda: gone(pid))


def test_a_program_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_GRACE_S", 0.1)
    file = tmp_path / "pid"

    pid = interrupt_when(file, CommandTask(f"trap '' TERM; echo $$ > {file}; while :; do sleep 1; done"))

    until(lambda: gone(pid))


def test_a_program_may_clean_up_when_it_is_stopped(tmp_path: Path) -> None:
    file, cleaned = tmp_path / "pid", tmp_path / "cleaned"

    interrupt_when(
        file, CommandTask(f"trap 'echo > {cleaned}; exit' TERM; echo $$ > {file}; sleep 60 & wait")
    )

    assert cleaned.exists()
