import errno
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cyclone.lustre import program
from cyclone.lustre.lfs import (
    FailureClass,
    Lfs,
    LfsError,
    LfsMissing,
    LfsTimedOut,
    Ost,
    Usage,
    classify,
    result_line,
)

STRANGE = "-rf \udcff\n|'\"*"


class Programs:
    """Stands for Lustre's programs: shell scripts that note how they were called."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lfs = self.write("lfs", "")
        self.lctl = self.write("lctl", "")

    def write(self, name: str, script: str) -> str:
        file = self.directory / name
        calls = self.directory / "calls"
        # Each call is one record: the words, each ended by a NUL, and a newline.
        note = f"""{{ printf '%s\\0' "${{0##*/}}" "$@"; printf '\\n\\0'; }} >>'{calls}'"""
        file.write_text(f"#!/bin/sh\n{note}\n{script}\n")
        file.chmod(0o700)
        return str(file)

    def answer(self, text: str, exit_code: int = 0, stderr: str = "", name: str = "lfs") -> None:
        (self.directory / "stdout").write_bytes(os.fsencode(text))
        (self.directory / "stderr").write_bytes(os.fsencode(stderr))
        self.write(name, f"cd '{self.directory}'; cat stdout; cat stderr >&2; exit {exit_code}")

    @property
    def calls(self) -> list[list[str]]:
        content = os.fsdecode((self.directory / "calls").read_bytes())
        return [call.split("\0")[:-1] for call in content.split("\n\0")[:-1]]


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(tmp_path)


@pytest.fixture
def lfs(programs: Programs) -> Lfs:
    return Lfs(programs.lfs, programs.lctl, timeout_s=20)


def failure(lfs: Lfs) -> LfsError:
    with pytest.raises(LfsError) as raised:
        lfs.version()
    return raised.value


def state(pid: int) -> str:
    """Of a process, as proc(5) has it: "Z" if it is dead and not buried, "" if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def until_dead(pids: list[int]) -> None:
    # Whoever buries what has lost its parent may take his time.
    deadline = time.monotonic() + 20
    while any(state(pid) not in ("", "Z") for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.01)


# How a program is run.


def test_a_path_arrives_as_the_bytes_that_it_is_made_of(programs, lfs):
    lfs.create(STRANGE, 3)

    assert programs.calls == [["lfs", "setstripe", "-c", "1", "-o", "3", "--", STRANGE]]


def test_a_program_has_no_input_an_english_tongue_and_a_group_of_its_own(programs, lfs):
    programs.write(
        "lfs",
        f"(cat; echo $LC_ALL; echo $PATH; cat /proc/$$/stat) > '{programs.directory}/seen'; echo lfs 2.15",
    )

    lfs.version()

    tongue, search_path, stat = (programs.directory / "seen").read_text().splitlines()
    assert tongue == "C"
    assert search_path == f"{os.environ['PATH']}:/usr/sbin:/sbin"
    pid, group = stat.split()[0], stat.split()[4]
    assert pid == group


def test_a_program_out_of_time_is_killed_with_its_whole_group(programs, lfs):
    programs.write("lfs", f"sleep 600 & echo $$ $! > '{programs.directory}/pids'; trap '' TERM; sleep 600")
    lfs.timeout_s = 0.5

    with pytest.raises(LfsTimedOut) as raised:
        lfs.version()

    pids = [int(pid) for pid in (programs.directory / "pids").read_text().split()]
    until_dead(pids)
    assert raised.value.exit_code == -signal.SIGKILL
    assert str(raised.value) == "lfs --version: killed after 0.5 s (exit code -9)"


def test_a_program_that_closes_its_output_and_stays_is_killed_as_well(programs, lfs):
    programs.write("lfs", "exec >&- 2>&-; exec sleep 600")
    lfs.timeout_s = 0.3

    with pytest.raises(LfsTimedOut):
        lfs.version()


def test_what_a_program_leaves_behind_with_its_output_is_killed(programs, lfs):
    programs.write("lfs", f"sleep 600 & echo $! > '{programs.directory}/pids'; echo lfs 2.15.5")
    lfs.timeout_s = 0.5

    with pytest.raises(LfsTimedOut):
        lfs.version()

    until_dead([int((programs.directory / "pids").read_text())])


@pytest.mark.parametrize("script", ["exit 3", "echo lfs 2.15.5", "exec sleep 600", "kill -9 $$"])
def test_no_program_stays_a_zombie(programs, lfs, script):
    programs.write("lfs", f"echo $$ > '{programs.directory}/pid'; {script}")
    lfs.timeout_s = 0.5

    try:
        lfs.version()
    except LfsError:
        pass

    assert state(int((programs.directory / "pid").read_text())) == ""


def test_a_stopped_attempt_leaves_no_program_behind(programs):
    programs.write(
        "lfs",
        f"sleep 600 & echo $$ $! > '{programs.directory}/pids'; echo ready > '{programs.directory}/fifo'; wait",
    )
    os.mkfifo(programs.directory / "fifo")
    code = (
        "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(9)); "
        f"from cyclone.lustre.lfs import Lfs; Lfs({programs.lfs!r}).migrate('/l/f', 1)"
    )
    attempt = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    (programs.directory / "fifo").read_text()

    attempt.terminate()

    assert attempt.wait(20) == 9
    until_dead([int(pid) for pid in (programs.directory / "pids").read_text().split()])


def test_an_attempt_that_is_stopped_while_the_program_starts_leaves_none_behind(programs, lfs, monkeypatch):
    programs.write("lfs", "exec sleep 600")
    started = []
    really_start = subprocess.Popen._execute_child

    def start(self, *arguments):
        really_start(self, *arguments)
        started.append(self.pid)
        # Nobody knows of the program yet.
        signal.raise_signal(signal.SIGTERM)

    def stop(*_):
        raise SystemExit(9)

    monkeypatch.setattr(subprocess.Popen, "_execute_child", start)
    former = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(SystemExit):
            lfs.version()
        assert signal.getsignal(signal.SIGTERM) is stop
    finally:
        signal.signal(signal.SIGTERM, former)

    assert state(started[0]) == ""


def test_an_attempt_that_is_stopped_while_a_program_cannot_be_started_is_stopped(programs, lfs, monkeypatch):
    def start(self, *arguments):
        signal.raise_signal(signal.SIGTERM)
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    def stop(*_):
        raise SystemExit(9)

    monkeypatch.setattr(subprocess.Popen, "_execute_child", start)
    former = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(SystemExit):
            lfs.version()
    finally:
        signal.signal(signal.SIGTERM, former)


def test_a_program_that_cannot_be_killed_is_left_and_told(programs, lfs, monkeypatch, caplog):
    programs.write("lfs", f"echo $$ > '{programs.directory}/pid'; exec sleep 600 </dev/null >/dev/null 2>&1")
    lfs.timeout_s = 0.5

    def refused(group, number):
        raise PermissionError

    with monkeypatch.context() as patched:
        patched.setattr(program.os, "killpg", refused)
        patched.setattr(program, "_BURIAL_S", 0.01)
        patched.setattr(program._Program, "__del__", lambda _: None)  # It complains of what is left behind.
        with pytest.raises(LfsTimedOut):
            lfs.version()

    pid = int((programs.directory / "pid").read_text())
    assert caplog.messages == [f"a killed program does not die, it is left behind pid={pid}"]
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_ten_megabytes_of_output_are_read(programs, lfs):
    row = "lustre-OST0003_UUID 100 40 60 40% /lustre[OST:3]"
    programs.write(
        "lfs", f"yes 'what is this' | head -c 10000000; echo; echo '{row}'; head -c 1000000 /dev/zero >&2"
    )

    assert lfs.usage("/lustre") == {3: Usage(3, 100, 40, 60, "")}


def test_output_without_end_is_an_error(programs, lfs, monkeypatch):
    programs.write("lfs", "exec yes")
    monkeypatch.setattr(program, "OUTPUT_BYTES_MAX", 10**6)

    found = failure(lfs)

    assert found.text == "killed: more than 1000000 bytes of output"
    assert not isinstance(found, LfsTimedOut)


@pytest.mark.parametrize("output", ["", "\\377\\376\\000", "lfs is fine\\n"])
def test_a_wrong_answer_is_an_error_that_quotes_it(programs, lfs, output):
    programs.write("lfs", f"printf '{output}'")

    found = failure(lfs)

    assert found.exit_code == 0
    assert "expected a version" in str(found)


def test_a_program_that_cannot_be_had_is_missing(tmp_path):
    (tmp_path / "no_right").write_text("#!/bin/sh\n")
    (tmp_path / "no_interpreter").write_text("#!/no/such/shell\n")
    (tmp_path / "no_program").write_bytes(b"\x7fELF nonsense")
    (tmp_path / "no_interpreter").chmod(0o700)
    (tmp_path / "no_program").chmod(0o700)

    for name in ("nothing", "no_right", "no_interpreter", "no_program", "no_right/below"):
        found = failure(Lfs(str(tmp_path / name)))
        assert isinstance(found, LfsMissing), name
        assert name in str(found)
    assert isinstance(failure(Lfs("no-such-program-anywhere")), LfsMissing)


def test_a_path_that_no_program_can_take_is_an_error_of_lfs(lfs):
    with pytest.raises(LfsError) as nul:
        lfs.layout("/l/a\0b")
    with pytest.raises(LfsError) as long:
        lfs.layout("/l/" + "x" * 2**18)

    assert nul.value.exit_code == errno.EINVAL
    assert long.value.exit_code == errno.E2BIG


def test_a_signal_is_told(programs, lfs):
    programs.write("lfs", "kill -SEGV $$")

    found = failure(lfs)

    assert (found.exit_code, found.text) == (-signal.SIGSEGV, "killed by SIGSEGV")


@pytest.mark.parametrize("ask", [lambda lfs: lfs.osts("lustre"), lambda lfs: lfs.usage("/lustre")])
def test_an_answer_for_many_osts_that_was_cut_off_is_none(programs, lfs, ask):
    rows = "lustre-OST0000-osc-ffff8ea7b7a28000 active.\\nlustre-OST0000_UUID 10 5 5 50% /lustre[OST:0]\\n"
    programs.write("lfs", f"printf '{rows.replace('%', '%%')}'; kill -9 $$")

    with pytest.raises(LfsError, match="killed by SIGKILL"):
        ask(lfs)


def test_a_signal_without_a_name_is_told_by_its_number(programs, lfs):
    programs.write("lfs", "kill -40 $$")

    assert failure(lfs).text == "killed by signal 40"


def test_an_error_carries_what_the_program_told(programs, lfs):
    text = "lfs migrate: some line (16)\nerror: lfs migrate: /l/a\nb: cannot get lease: Device or resource busy\n"
    programs.answer("", 16, text)

    with pytest.raises(LfsError) as raised:
        lfs.migrate("/l/a\nb", 3)

    shown = "/l/a\\nb: cannot get lease: Device or resource busy"
    assert (raised.value.command, raised.value.exit_code, raised.value.text) == ("migrate", 16, shown)
    assert str(raised.value) == f"lfs migrate: {shown} (exit code 16)"


def test_a_program_that_tells_nothing_is_told_by_its_errno(programs, lfs):
    programs.answer("", 28)

    assert failure(lfs).text == "No space left on device"


@pytest.mark.parametrize("kind", [LfsError, LfsTimedOut, LfsMissing])
def test_errors_can_be_pickled(kind):
    error = pickle.loads(pickle.dumps(kind("df", 5, "Input/output error")))

    assert type(error) is kind
    assert (error.command, error.exit_code, error.text) == ("df", 5, "Input/output error")


# What is asked, and what is answered.


def test_the_version(programs, lfs):
    programs.answer("lfs 2.15.5\n")

    assert lfs.version() == (2, 15, 5)
    assert programs.calls == [["lfs", "--version"]]


def test_an_ost_that_is_down_is_among_the_osts(programs, lfs):
    programs.answer(
        "lustre-OST0000-osc-ffff8ea7b7a28000 active.\n",
        stderr="lfs check: error: check 'lustre-OST0001-osc-ffff8ea7b7a28000': Connection timed out (110)\n",
    )

    found, doubt = lfs.osts("lustre")

    assert doubt == ""
    assert programs.calls == [["lfs", "check", "osts"]]
    assert found[0] == Ost(0, "lustre-OST0000", True, "")
    assert found[1] == Ost(1, "lustre-OST0001", False, "Connection timed out (110)")


def test_states_of_osts_count_whatever_the_exit_code(programs, lfs):
    programs.answer("lustre-OST0000-osc-ffff8ea7b7a28000 active.\n", 5)

    found, doubt = lfs.osts("lustre")

    assert list(found) == [0]
    assert doubt == "lfs check: Input/output error (exit code 5)"


def test_no_state_of_any_ost_is_an_error(programs, lfs):
    programs.answer("", 13, "error: check: Permission denied\n")

    with pytest.raises(LfsError, match="Permission denied") as raised:
        lfs.osts("lustre")

    assert raised.value.exit_code == 13


DF = """\
UUID                   1K-blocks        Used   Available Use% Mounted on
lustre-OST0000_UUID          100          40          60  40% /lustre[OST:0]
OST0001             : Input/output error
"""


def test_the_usage_counts_even_if_one_ost_cannot_tell(programs, lfs):
    programs.answer(DF, 5)

    found = lfs.usage("/lustre")

    assert found == {0: Usage(0, 100, 40, 60, "")}
    assert programs.calls == [["lfs", "df", "--lazy", "--", "/lustre"]]


def test_no_usage_at_all_is_an_error(programs, lfs):
    programs.answer("", 2, "error: invalid path '/lustr': No such file or directory\n")

    with pytest.raises(LfsError, match="invalid path") as raised:
        lfs.usage("/lustr")

    assert raised.value.exit_code == 2


def test_a_layout(programs, lfs):
    programs.answer(
        "lmm_stripe_count:  1\nlmm_stripe_size:   65536\nlmm_pattern:       raid0\nlmm_stripe_offset: 3\n"
        "lmm_objects:\n      - l_ost_idx: 3\n        l_fid:     0x100030000:0x22:0x0\n"
    )

    found = lfs.layout(STRANGE)

    assert programs.calls == [["lfs", "getstripe", "-y", "--", STRANGE]]
    assert (found.osts, found.stripe_size) == ((3,), 65536)


def test_a_state_of_hsm(programs, lfs):
    programs.answer("/l/f: (0x00000009) exists archived, archive_id:1\n")

    assert lfs.hsm_state("/l/f").flags == {"exists", "archived"}
    assert programs.calls == [["lfs", "hsm_state", "/l/f"]]


def test_a_relative_path_is_no_option_of_a_program_that_does_not_know_the_end_of_them(programs, lfs):
    programs.answer(": (0x00000000)\n")

    lfs.hsm_state("-x")

    assert programs.calls == [["lfs", "hsm_state", os.path.join(os.getcwd(), "-x")]]


def test_without_a_working_directory_only_relative_paths_are_refused(programs, lfs, monkeypatch, tmp_path):
    programs.answer("/l/f: (0x00000009) exists archived, archive_id:1\n")
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    assert lfs.hsm_state("/l/f").flags == {"exists", "archived"}
    with pytest.raises(LfsError, match="working directory"):
        lfs.hsm_state("x")


def test_a_fid(programs, lfs):
    programs.answer("[0x200000403:0x11f:0x0]\n")

    assert lfs.fid("/l/f") == "[0x200000403:0x11f:0x0]"
    assert programs.calls == [["lfs", "path2fid", "--", "/l/f"]]


def test_the_mdt_of_a_directory(programs, lfs):
    programs.answer("2\n")

    assert lfs.mdt_of_directory("/l/d") == 2
    assert programs.calls == [["lfs", "getdirstripe", "-m", "--", "/l/d"]]


def test_a_directory_is_made(programs, lfs):
    lfs.make_directory("/l/d", 2)

    assert programs.calls == [["lfs", "mkdir", "-i", "2", "--", "/l/d"]]


def test_servers_of_osts(programs, lfs):
    programs.answer("osc.lustre-OST000a-osc-ffff8ea7b7a28000.ost_conn_uuid=10.0.0.1@tcp\n", name="lctl")

    assert lfs.oss_of("lustre") == {10: "10.0.0.1"}
    assert programs.calls == [["lctl", "get_param", "osc.lustre-OST*-osc-*.ost_conn_uuid"]]


def test_members_of_a_pool(programs, lfs):
    programs.write(
        "lfs",
        'case "$1" in osts) echo "OBDS:"; echo "0: lustre-OST0000_UUID ACTIVE";; '
        'pool_list) echo "Pool: $2"; echo lustre-OST001f_UUID;; esac',
    )

    assert lfs.pool_members("/l/f", "hdd") == {31}
    assert programs.calls == [["lfs", "osts", "/l/f"], ["lfs", "pool_list", "lustre.hdd"]]


@pytest.mark.parametrize(("exit_code", "dropped"), [(0, True), (1, False), (13, False)])
def test_the_cache_of_an_ost_is_dropped_if_we_may(programs, lfs, exit_code, dropped):
    programs.answer("", exit_code, name="lctl")

    assert lfs.drop_lock_cache("lustre", 31) is dropped
    assert programs.calls == [["lctl", "set_param", "ldlm.namespaces.lustre-OST001f-osc-*.lru_size=clear"]]


def test_a_cache_that_cannot_be_dropped_is_an_error(programs, lfs):
    programs.answer("", 2, name="lctl")

    with pytest.raises(LfsError):
        lfs.drop_lock_cache("lustre", 31)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ["-c", "1", "-o", "3"]),
        ({"exact": False}, ["-c", "1", "-i", "3"]),
        ({"stripe_size": 65536, "pool": "hdd"}, ["-c", "1", "-o", "3", "-S", "65536", "-p", "hdd"]),
    ],
)
def test_how_a_file_is_made(programs, lfs, options, words):
    lfs.create("/l/f", 3, **options)

    assert programs.calls == [["lfs", "setstripe", *words, "--", "/l/f"]]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ["--non-block", "-c", "1", "-o", "3"]),
        ({"exact": False}, ["--non-block", "-c", "1", "-i", "3"]),
        ({"block": True, "direct_io": False}, ["--block", "--non-direct", "-c", "1", "-o", "3"]),
        ({"bandwidth_mb": 50}, ["--non-block", "-W", "50", "-c", "1", "-o", "3"]),
        (
            {"stripe_size": 65536, "pool": "hdd"},
            ["--non-block", "-c", "1", "-o", "3", "-S", "65536", "-p", "hdd"],
        ),
        ({"stripe_count": 2}, ["--non-block", "-c", "2", "-i", "3"]),
    ],
)
def test_how_a_file_is_moved(programs, lfs, options, words):
    lfs.migrate("/l/f", 3, **options)

    assert programs.calls == [["lfs", "migrate", *words, "--", "/l/f"]]


def test_a_file_that_keeps_its_layout_is_moved_without_any_option_of_one(programs, lfs):
    lfs.migrate_keeping_layout("/l/f", block=True, direct_io=False, bandwidth_mb=5, timeout_s=20)

    words = ["--block", "--non-direct", "-W", "5", "--", "/l/f"]
    assert programs.calls == [["lfs", "migrate", *words]]


def test_a_move_has_a_time_of_its_own(programs, lfs):
    programs.write("lfs", "sleep 600")

    with pytest.raises(LfsTimedOut, match=r"0\.2 s"):
        lfs.migrate("/l/f", 3, timeout_s=0.2)


@pytest.mark.parametrize("ost", [-1, 65536])
def test_no_index_out_of_bounds_is_asked_for(programs, lfs, ost):
    with pytest.raises(LfsError, match="expected 0 to 65535") as raised:
        lfs.migrate("/l/f", ost)

    assert raised.value.exit_code == errno.EINVAL
    assert not (programs.directory / "calls").exists()


def test_sudo_is_for_what_only_root_may_do(programs, lfs, monkeypatch):
    programs.write("sudo", 'shift; exec "$@"')
    programs.answer(DF)
    monkeypatch.setenv("PATH", f"{programs.directory}:{os.environ['PATH']}")
    lfs.sudo = True

    lfs.usage("/lustre")
    lfs.make_directory("/l/d", 1)
    lfs.drop_lock_cache("lustre", 1)
    lfs.migrate("/l/f", 3)
    lfs.create("/l/g", 3)

    asked = [call[1:] for call in programs.calls if call[0] == "sudo"]
    assert [call[:3] for call in asked] == [
        ["-n", programs.lfs, "df"], ["-n", programs.lfs, "mkdir"], ["-n", programs.lctl, "set_param"],
    ]  # fmt: skip


# What a failure means.


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([16, 11, 26], FailureClass.BUSY),
        ([2, 116], FailureClass.GONE),
        ([28, 121, 19, 105], FailureClass.TARGET),
        ([122], FailureClass.QUOTA),
        ([5, 107, 108, 110], FailureClass.OST),
        ([13, 1, 30, 126, 22, 34, 95, 25], FailureClass.PERMANENT),
        ([61], FailureClass.SKIP),
        ([4, 127], FailureClass.OUR_BUG),
        ([-9, -15, 0, 77, 255], FailureClass.UNKNOWN),
    ],
)
def test_what_an_exit_code_means(codes, expected):
    assert {classify(code) for code in codes} == {expected}


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("cannot create volatile file", FailureClass.TARGET),
        ("cannot open source file", FailureClass.PERMANENT),
    ],
)
def test_what_is_read_only_is_the_target_or_the_mount(step, expected):
    assert LfsError("migrate", errno.EROFS, f"/l/f: {step}: Read-only file system").failure is expected


# The line of the log.


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("SUCCESS", "SUCCESS|/l/f|0:01:01.500000|3|5"),
        ("DISPLACED", "DISPLACED|/l/f|0:01:01.500000|3|5"),
        ("FAILED", "FAILED|/l/f|0:01:01.500000|3|5|it broke"),
        ("BUSY", "FAILED|/l/f|0:01:01.500000|3|5|it broke"),
        ("IGNORED", "IGNORED|/l/f"),
        ("SKIPPED", "SKIPPED|/l/f"),
    ],
)
def test_the_line_of_a_migration(state, expected):
    assert result_line(state, "/l/f", 61.5, 3, 5, "it broke") == expected


def test_a_line_is_one_line_whatever_the_name_and_the_message():
    line = result_line("FAILED", "/l/a\nb\udcff", 0, 3, 5, "two\nlines")

    assert line == "FAILED|/l/a\\nb\\xff|0:00:00|3|5|two\\nlines"
    assert result_line("FAILED", "/l/f", 0, 3, 5, "").endswith("|3|5|no reason was told")
