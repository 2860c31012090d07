import errno
import json
import logging
import os
import pickle
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from cyclone.base_task import Attempt
from cyclone.errors import TaskFileError
from cyclone.lustre import migrate_task as module
from cyclone.lustre.lfs import FailureClass, Layout, Lfs
from cyclone.lustre.migrate_task import (
    LustreOstMigrateTask,
    MigrationResult,
    differences,
    displacement,
    refusal,
)
from cyclone.lustre.migration.verdict import FileState, Report, Verdict, judge
from cyclone.lustre.migration_record import Migration
from cyclone.record import decode, encode, fields
from cyclone.task_file import TaskFile

SIMULATOR = Path(__file__).parents[3] / "simlustre" / "simlustre.py"

SUCCESS, DISPLACED, FAILED = FileState.SUCCESS, FileState.DISPLACED, FileState.FAILED
IGNORED, SKIPPED, BUSY = FileState.IGNORED, FileState.SKIPPED, FileState.BUSY


class Lake:
    """A small simulated Lustre of OSTs 0 to 5, of which 0 to 2 are in the pool `hdd`."""

    def __init__(self, root: Path, version: str) -> None:
        self.root, self.mount = root, root / "mnt" / "lustre"
        self.lfs_bin = str(root / "bin" / "lfs")
        self.lfs = Lfs(self.lfs_bin, timeout_s=20)
        self._run(
            sys.executable, SIMULATOR, "init", root, "--osts", "6", "--mdts", "2", "--pool", "hdd=0-2",
            "--time-scale", "0", "--lustre-version", version,
        )  # fmt: skip

    def control(self, *words: object) -> None:
        self._run(self.root / "bin" / "simctl", *words)

    def fault(self, **rule: object) -> None:
        self.control("fault", "add", json.dumps(rule))

    def file(self, name: str = "file", ost: int = 1, content: bytes = b"x" * 10_000, **options) -> Path:
        path = self.mount / name
        self.lfs.create(str(path), ost, **options)
        path.write_bytes(content)
        return path

    def populated(self, kind: str, ost: int = 1) -> Path:
        self.control(
            "populate", "--files", 1, "--kinds", kind, "--osts", f"{ost}-{ost + 1}", "--directory", kind
        )
        return next(path for path in (self.mount / kind).rglob("*") if path.is_file())

    def after_moving(self, script: str) -> str:
        """Another `lfs`, which goes on with a line of shell after each move; $f is the file."""
        wrapper = self.root / "wrapper"
        wrapper.write_text(
            f'#!/bin/sh\n{self.lfs_bin} "$@" || exit\n'
            f'if [ "$1" = migrate ]; then for f; do :; done; {script}\nfi\n'
        )
        wrapper.chmod(0o700)
        return str(wrapper)

    def calls(self, command: str) -> list[list[str]]:
        lines = (self.root / "calls.jsonl").read_text().splitlines()
        return [call for line in lines if (call := json.loads(line)["argv"])[0] == command]

    def osts(self, path: Path) -> tuple[int, ...]:
        return self.lfs.layout(str(path)).osts

    @staticmethod
    def _run(*words: object) -> None:
        subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL)


class Recorder:
    def __init__(self) -> None:
        self.records: list[tuple[str, type, dict[str, object]]] = []

    def record(self, sink, kind, fields) -> None:
        self.records.append((sink, kind, dict(fields)))


@pytest.fixture
def lake(tmp_path):
    return Lake(tmp_path / "sim", "2.15.5")


@pytest.fixture
def new_lake(tmp_path):
    return Lake(tmp_path / "sim", "2.16.1")


def task(lake: Lake, path: Path | str, **options) -> LustreOstMigrateTask:
    made = LustreOstMigrateTask(
        path, **{"source_ost": 1, "target_ost": 2, "lfs_bin": lake.lfs_bin, "lfs_timeout": 20, **options}
    )
    made._attempt = Attempt("some job", "t1", 99, 3)
    return made


def migrate(lake: Lake, path: Path | str, **options) -> MigrationResult:
    return task(lake, path, **options).execute()


# A file that moves.


def test_a_file_that_lost_the_fraction_of_its_time_is_the_same_file(lake):
    lake.control("set", "whole_seconds", "true")
    path = lake.file()
    os.utime(path, ns=(0, 1_700_000_000_123_456_789))

    result = migrate(lake, path, verify="stat")

    assert (result.state, result.reason) == (SUCCESS, "")
    assert path.stat().st_mtime_ns == 1_700_000_000_000_000_000


@pytest.mark.parametrize("verify", ["none", "layout", "stat", "checksum"])
def test_a_file_moves_and_stays_what_it_was(lake, verify):
    path = lake.file()
    os.link(path, lake.mount / "other name")
    before = path.stat()

    result = migrate(lake, path, verify=verify)

    assert lake.osts(path) == lake.osts(lake.mount / "other name") == (2,)
    after = path.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns, after.st_mode) == (
        before.st_ino, before.st_size, before.st_mtime_ns, before.st_mode,
    )  # fmt: skip
    assert result == MigrationResult(
        state=SUCCESS, source=1, target=2, actual=None if verify == "none" else 2, bytes=10_000, nlink=2,
        fid=lake.lfs.fid(str(path)), seconds=result.seconds, attempt=3,
    )  # fmt: skip
    assert 0 < result.seconds < 20


def test_a_move_asks_for_the_target_and_the_layout_that_the_file_has(lake):
    path = lake.file(stripe_size=4 << 20, pool="hdd")

    result = migrate(lake, path)

    options = ["--non-block", "--non-direct", "-c", "1", "-o", "2", "-S", str(4 << 20), "-p", "hdd"]
    assert lake.calls("migrate") == [["migrate", *options, "--", str(path)]]
    layout = lake.lfs.layout(str(path))
    assert (layout.stripe_size, layout.pool) == (4 << 20, "hdd")
    assert result.message == ""


def test_a_pool_is_left_if_the_target_is_not_in_it_and_that_is_told(lake):
    path = lake.file(pool="hdd")

    result = migrate(lake, path, target_ost=4)

    assert result.state is SUCCESS
    assert "left the pool 'hdd'" in result.message
    assert lake.osts(path) == (4,)


def test_a_pool_that_is_no_more_is_left(lake):
    path = lake.file(pool="hdd")
    lake.fault(cmd="pool_list", errno="ENOENT")

    result = migrate(lake, path)

    assert result.state is SUCCESS
    assert "left the pool 'hdd'" in result.message


def test_a_pool_that_cannot_be_asked_for_stops_the_move(lake):
    path = lake.file(pool="hdd")
    lake.fault(cmd="pool_list", errno="EIO")

    result = migrate(lake, path)

    assert (result.state, result.reason) == (FAILED, "EIO")
    assert lake.osts(path) == (1,)


def test_what_is_not_to_be_preserved_is_not_asked_for(lake):
    path = lake.file(stripe_size=4 << 20, pool="hdd")

    result = migrate(lake, path, preserve="")

    assert not {"-S", "-p"} & set(lake.calls("migrate")[0])
    assert (result.state, result.message) == (SUCCESS, "")


def test_the_manner_of_the_copy_can_be_chosen(lake):
    migrate(lake, lake.file(), block="yes", direct_io="True")

    assert lake.calls("migrate")[0][1:3] == ["--block", "-c"]


@pytest.mark.parametrize(
    "name", ["-rf", "a b", "two\nlines", "caf\udce9", "pipe|pipe", "back\\slash", "lmm_pool: x"]
)
def test_any_name_moves(lake, name, caplog):
    path = lake.file(name)
    caplog.set_level(logging.INFO)

    result = migrate(lake, path)

    assert result.state is SUCCESS
    line = caplog.messages[-1]
    assert line.startswith("SUCCESS|")
    assert "\n" not in line
    line.encode("utf-8")


def test_an_attempt_that_is_repeated_finds_the_file_moved(lake):
    path = lake.file()
    migrate(lake, path)

    result = migrate(lake, path)

    assert (result.state, result.reason, result.actual) == (IGNORED, "on-target", 2)
    assert len(lake.calls("migrate")) == 1


def test_a_checksum_leaves_the_time_of_the_last_access_alone(lake):
    path = lake.file()
    os.utime(path, ns=(10**18, 2 * 10**18))

    migrate(lake, path, verify="checksum")

    assert path.stat().st_atime_ns == 10**18


def test_a_checksum_of_a_file_that_belongs_to_others_can_be_had_as_well(lake, monkeypatch):
    really_open = os.open

    def for_owners_only(path, flags, *more):
        if flags & os.O_NOATIME:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        return really_open(path, flags, *more)

    monkeypatch.setattr(module.os, "open", for_owners_only)

    assert migrate(lake, lake.file(), verify="checksum").state is SUCCESS


# A file that does not have to.


def test_a_file_that_is_not_there_is_gone(lake):
    result = migrate(lake, lake.mount / "nothing")

    assert (result.state, result.reason, result.bytes) == (IGNORED, "gone", 0)


def test_a_file_is_gone_with_all_directories_above_it(lake):
    result = migrate(lake, lake.mount / "no" / "such" / "directory" / "file")

    assert (result.state, result.reason) == (IGNORED, "gone")


def test_where_lustre_is_not_mounted_no_file_is_gone(lake, tmp_path):
    result = migrate(lake, tmp_path / "no" / "mount" / "file")

    assert (result.state, result.reason, result.failure) == (FAILED, "not-mounted", FailureClass.UNKNOWN)


def test_a_file_is_not_gone_as_long_as_lustre_does_not_answer(lake):
    lake.fault(cmd="path2fid", errno="EIO")

    result = migrate(lake, lake.mount / "nothing")

    assert (result.state, result.reason, result.failure) == (FAILED, "EIO", FailureClass.UNKNOWN)


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("file"), os.mkfifo])
def test_what_is_no_plain_file_is_ignored(lake, make):
    lake.file()
    make(lake.mount / "thing")

    result = migrate(lake, lake.mount / "thing")

    assert (result.state, result.reason) == (IGNORED, "not-regular")
    assert lake.osts(lake.mount / "file") == (1,)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("dom", "on-mdt"), ("released", "released"), ("empty", "no-layout"), ("composite", "composite"),
     ("striped", "striped")],
)  # fmt: skip
def test_what_has_no_single_object_to_move_is_skipped(lake, kind, reason):
    result = migrate(lake, lake.populated(kind))

    assert (result.state, result.reason, result.failure) == (SKIPPED, reason, "")
    assert not any("migrate" in call for call in lake.calls("migrate"))


def test_a_file_that_hsm_has_a_copy_of_can_be_left_alone(lake):
    path = lake.populated("archived")

    left = migrate(lake, path, hsm="skip_archived")
    moved = migrate(lake, path)

    assert (left.state, left.reason) == (SKIPPED, "archived")
    assert moved.state is SUCCESS
    assert migrate(lake, lake.file(), hsm="skip_archived").state is SUCCESS


def test_a_dry_run_moves_nothing_and_tells_the_bytes(lake):
    path = lake.file()

    result = migrate(lake, path, dry_run=True)

    assert (result.state, result.reason, result.bytes, result.actual) == (SKIPPED, "dry-run", 10_000, 1)
    assert lake.osts(path) == (1,)
    assert migrate(lake, path, dry_run=True, source_ost=4).reason == "not-on-source"


# Files of several objects.


def test_a_striped_file_moves_with_its_stripes_if_it_may(lake):
    path = lake.populated("striped")  # on 1 and 2

    result = migrate(lake, path, skip="no", target_ost=3)

    layout = lake.lfs.layout(str(path))
    assert result.state is SUCCESS
    assert (layout.osts, layout.stripe_count) == ((3, 4), 2)


def test_a_stripe_that_lustre_puts_on_the_source_again_is_told(lake):
    path = lake.populated("striped")

    result = migrate(lake, path, skip=False, target_ost=0)

    assert lake.osts(path) == (0, 1)
    assert (result.state, result.reason, result.actual) == (DISPLACED, "still-on-source", 0)


def test_a_composite_file_can_be_made_plain(lake):
    path = lake.populated("composite")

    result = migrate(lake, path, composite="plain")

    layout = lake.lfs.layout(str(path))
    assert result.state is SUCCESS
    assert (layout.osts, layout.composite) == ((2,), False)


def test_a_composite_file_keeps_its_layout_where_lustre_can_do_that(new_lake):
    path = new_lake.populated("composite")
    new_lake.control("ost", 1, "--state", "nocreate")

    result = migrate(new_lake, path, composite="keep", verify="checksum")

    layout = new_lake.lfs.layout(str(path))
    assert (result.state, result.reason, result.message) == (SUCCESS, "", "")
    assert layout.composite
    assert result.actual == layout.osts[0] != 1


def test_an_older_lustre_would_leave_a_composite_file_where_it_is(lake):
    result = migrate(lake, lake.populated("composite"), composite="keep")

    assert (result.state, result.reason) == (SKIPPED, "needs-2.16")
    assert "2.15.5" in result.message


def test_a_bandwidth_is_kept_to_or_nothing_is_moved(tmp_path):
    old, new = Lake(tmp_path / "old", "2.15.5"), Lake(tmp_path / "new", "2.16.1")

    refused = migrate(old, old.file(), bandwidth_mb="50")
    moved = migrate(new, new.file(), bandwidth_mb="50")

    assert (refused.state, refused.reason, refused.failure) == (FAILED, "needs-2.16", FailureClass.OUR_BUG)
    assert moved.state is SUCCESS
    assert "-W" in new.calls("migrate")[0]


# Failures.


def test_a_file_that_somebody_writes_to_is_busy_until_he_is_done(lake):
    path = lake.file()

    with path.open("ab"):
        busy = migrate(lake, path)
    done = migrate(lake, path)

    assert (busy.state, busy.reason, busy.failure) == (BUSY, "EBUSY", FailureClass.BUSY)
    assert "cannot get lease" in busy.message
    assert done.state is SUCCESS


@pytest.mark.parametrize(
    ("name", "state", "failure"),
    [
        ("EBUSY", BUSY, FailureClass.BUSY), ("EAGAIN", BUSY, FailureClass.BUSY), ("ETXTBSY", BUSY, FailureClass.BUSY),
        ("ENOSPC", FAILED, FailureClass.TARGET), ("EDQUOT", FAILED, FailureClass.QUOTA),
        ("EREMOTEIO", FAILED, FailureClass.TARGET), ("ENODEV", FAILED, FailureClass.TARGET),
        ("EIO", FAILED, FailureClass.OST), ("ENOTCONN", FAILED, FailureClass.OST),
        ("ESHUTDOWN", FAILED, FailureClass.OST), ("ETIMEDOUT", FAILED, FailureClass.OST),
        ("EACCES", FAILED, FailureClass.PERMANENT), ("EROFS", FAILED, FailureClass.PERMANENT),
        ("EINVAL", FAILED, FailureClass.PERMANENT), ("ERANGE", FAILED, FailureClass.PERMANENT),
        ("ENOENT", FAILED, FailureClass.UNKNOWN), ("ESTALE", FAILED, FailureClass.UNKNOWN),
    ],
)  # fmt: skip
def test_a_failure_is_told_with_what_it_means(lake, name, state, failure):
    path = lake.file()
    lake.fault(cmd="migrate", errno=name)

    result = migrate(lake, path)

    assert (result.state, result.reason, result.failure) == (state, name, failure)
    assert (result.bytes, result.nlink, result.fid) == (10_000, 1, lake.lfs.fid(str(path)))
    assert lake.osts(path) == (1,)


def test_a_move_of_what_has_no_data_is_skipped(lake):
    lake.fault(cmd="migrate", errno="ENODATA")

    result = migrate(lake, lake.file())

    assert (result.state, result.reason) == (SKIPPED, "no-layout")


def test_a_call_that_lustre_does_not_understand_is_our_fault(lake):
    lake.fault(cmd="migrate", exit=4, stderr="usage: lfs migrate")

    result = migrate(lake, lake.file())

    assert (result.state, result.reason, result.failure) == (FAILED, "usage", FailureClass.OUR_BUG)


@pytest.mark.parametrize("state", ["readonly", "nocreate", "enoino", "down", "deactivated"])
def test_a_target_that_takes_nothing_is_not_replaced_by_another(lake, state):
    path = lake.file()
    lake.control("ost", 2, "--state", state)

    result = migrate(lake, path)

    assert (result.state, result.failure) == (FAILED, FailureClass.TARGET)
    assert lake.osts(path) == (1,)


def test_a_target_may_be_replaced_by_another_on_demand_and_that_is_told(lake):
    path = lake.file()
    lake.control("ost", 2, "--state", "readonly")

    result = migrate(lake, path, use_ost_list="no")

    assert (result.state, result.reason, result.actual) == (DISPLACED, "elsewhere", 3)
    assert lake.osts(path) == (3,)


def test_a_file_that_vanishes_while_it_moves_is_gone(lake):
    path = lake.file()

    result = migrate(lake, path, lfs_bin=lake.after_moving('rm "$f"; exit 2'))

    assert (result.state, result.reason, result.failure) == (IGNORED, "gone", "")


def test_a_file_that_vanishes_after_it_moved_is_gone(lake):
    path = lake.file()

    result = migrate(lake, path, lfs_bin=lake.after_moving('rm "$f"'), verify="checksum")

    assert (result.state, result.reason) == (IGNORED, "gone")


def test_a_file_that_vanishes_before_it_is_read_back_is_gone(lake, monkeypatch):
    path = lake.file()
    really_read = module._checksum
    reads = iter([really_read])

    def checksum(name: str) -> bytes:
        for read in reads:
            return read(name)
        path.unlink()
        return really_read(name)

    monkeypatch.setattr(module, "_checksum", checksum)

    result = migrate(lake, path, verify="checksum")

    assert (result.state, result.reason) == (IGNORED, "gone")


def test_a_file_without_the_key_cannot_be_moved(lake):
    result = migrate(lake, lake.populated("encrypted"))

    assert (result.state, result.reason, result.failure) == (FAILED, "ENOKEY", FailureClass.PERMANENT)


def test_a_move_that_takes_too_long_is_stopped_and_the_file_stays(lake):
    path = lake.file()
    lake.fault(cmd="migrate", hang=True)

    result = migrate(lake, path, timeout="0.5")

    assert (result.state, result.reason, result.failure) == (FAILED, "timeout", FailureClass.UNKNOWN)
    assert result.message == "killed after 0.5 s"
    assert lake.osts(path) == (1,)


def test_a_move_that_is_killed_midway_leaves_the_file_where_it_was(lake):
    path = lake.file()
    lake.fault(cmd="migrate", kill=True)

    result = migrate(lake, path, verify="checksum")

    assert (result.state, result.reason, result.failure) == (FAILED, "killed", FailureClass.UNKNOWN)
    assert lake.osts(path) == (1,)


def test_a_lost_move_of_which_nobody_can_tell_where_it_went_has_failed(lake):
    lake.fault(cmd="migrate", kill=True)
    lake.fault(cmd="getstripe", errno="EIO", attempts=[2, None])

    result = migrate(lake, lake.file())

    assert (result.state, result.reason, result.failure) == (FAILED, "killed", FailureClass.UNKNOWN)


@pytest.mark.parametrize("end", ["sleep 600", "kill -9 $$", "exit 99"])
def test_a_move_that_came_about_before_its_program_was_lost_is_a_success(lake, end):
    path = lake.file()

    result = migrate(lake, path, lfs_bin=lake.after_moving(end), timeout=1, verify="checksum")

    assert (result.state, result.actual) == (SUCCESS, 2)
    assert result.message.startswith("arrived, although: lfs migrate: ")


@pytest.mark.parametrize(
    "fault", [{"garbage_stdout": True}, {"truncate_stdout": True}, {"truncate_stdout": 0}]
)
def test_a_layout_that_cannot_be_read_moves_nothing(lake, fault):
    path = lake.file()
    lake.fault(cmd="getstripe", count=1, **fault)

    result = migrate(lake, path)

    assert (result.state, result.reason, result.failure) == (FAILED, "wrong-answer", FailureClass.UNKNOWN)
    assert lake.osts(path) == (1,)


def test_a_failure_to_look_means_what_it_means_everywhere(lake):
    path = lake.file()
    lake.fault(cmd="getstripe", errno="EIO")

    result = migrate(lake, path)

    assert (result.state, result.reason, result.failure) == (FAILED, "EIO", FailureClass.OST)


def test_a_file_outside_lustre_cannot_be_moved(lake, tmp_path):
    (tmp_path / "file").touch()

    result = migrate(lake, tmp_path / "file")

    assert (result.state, result.reason, result.failure) == (FAILED, "ENOTTY", FailureClass.PERMANENT)


def test_without_the_program_nothing_can_be_moved(lake):
    result = migrate(lake, lake.file(), lfs_bin=str(lake.root / "no-lfs"))

    assert (result.state, result.reason, result.failure) == (FAILED, "no-program", FailureClass.OUR_BUG)


def test_a_directory_that_may_not_be_entered_is_a_permanent_failure(lake, monkeypatch):
    path = lake.file()

    def refused(_: str) -> os.stat_result:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(module.os, "lstat", refused)

    result = migrate(lake, path)

    assert (result.state, result.reason, result.failure) == (FAILED, "EACCES", FailureClass.PERMANENT)


# Is it what it was?


@pytest.mark.parametrize(
    ("verify", "state"), [("none", SUCCESS), ("layout", SUCCESS), ("stat", SUCCESS), ("checksum", FAILED)]
)
def test_only_a_checksum_notices_a_changed_byte(lake, verify, state):
    path = lake.file()
    lake.fault(cmd="migrate", corrupt=True)

    result = migrate(lake, path, verify=verify)

    assert result.state is state
    if state is FAILED:
        assert (result.reason, result.failure) == ("verify", FailureClass.PERMANENT)
        assert result.message == "not as before: content"
        assert result.actual == 2


@pytest.mark.parametrize(
    ("script", "verify", "message"),
    [
        ('chmod 640 "$f"', "stat", "mode"),
        ('chmod 640 "$f"', "checksum", "mode"),
        ('echo more >> "$f"; touch -d @1500000000 "$f"', "stat", "size"),
        ('touch -d @1000000000 "$f"', "stat", "mtime"),
        ('cp -p "$f" "$f.new"; mv "$f.new" "$f"', "stat", "inode"),
    ],
)
def test_a_file_that_is_not_as_before_has_failed(lake, script, verify, message):
    path = lake.file()
    path.chmod(0o600)
    os.utime(path, ns=(15 * 10**17, 15 * 10**17))

    # What takes the place of the file has a layout only once it was looked at.
    result = migrate(lake, path, verify=verify, lfs_bin=lake.after_moving(script))

    assert (result.state, result.reason) == (FAILED, "verify")
    assert result.message == f"not as before: {message}"


def test_nobody_is_blamed_for_a_file_that_somebody_wrote_to(lake):
    path = lake.file()
    os.utime(path, ns=(10**18, 10**18))

    result = migrate(lake, path, verify="checksum", lfs_bin=lake.after_moving('echo more >> "$f"'))

    assert (result.state, result.reason, result.actual) == (SUCCESS, "changed", 2)


def test_a_file_that_cannot_be_read_back_is_not_tried_again(lake, monkeypatch):
    path = lake.file()
    checksums = iter([b"sum"])

    def checksum(_: str) -> bytes:
        for found in checksums:
            return found
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(module, "_checksum", checksum)

    result = migrate(lake, path, verify="checksum")

    assert (result.state, result.reason, result.failure) == (FAILED, "unverified", FailureClass.PERMANENT)
    assert (result.message, result.actual) == ("Input/output error", 2)


def test_a_file_that_did_not_move_at_all_is_displaced(lake):
    path = lake.file()
    lake.fault(cmd="getstripe", stale_getstripe=True, attempts=[2, 2])

    result = migrate(lake, path)

    assert (result.state, result.reason, result.actual) == (DISPLACED, "still-on-source", 1)


# What is told.


@pytest.mark.parametrize(
    ("options", "fault", "line", "level"),
    [
        ({}, None, "SUCCESS|{path}|{elapsed}|1|2", logging.INFO),
        (
            {},
            "EBUSY",
            "FAILED|{path}|{elapsed}|1|2|EBUSY: {path}: cannot get lease: Device or resource busy",
            logging.INFO,
        ),
        (
            {},
            "EIO",
            "FAILED|{path}|{elapsed}|1|2|EIO: {path}: data copy failed: Input/output error",
            logging.WARNING,
        ),
        ({"source_ost": 4}, None, "IGNORED|{path}", logging.INFO),
        ({"dry_run": True}, None, "SKIPPED|{path}", logging.INFO),
    ],
)
def test_each_file_is_told_in_a_line_of_the_log(lake, caplog, options, fault, line, level):
    path = lake.file()
    if fault:
        lake.fault(cmd="migrate", errno=fault)
    caplog.set_level(logging.INFO)

    migrate(lake, path, **options)

    record = caplog.records[-1]
    parts = record.message.split("|")
    assert record.message == line.format(path=path, elapsed=parts[2] if len(parts) > 2 else "")
    assert record.levelno == level


def test_a_record_is_sent_to_each_sink_that_is_wanted(lake):
    path = lake.file("caf\udce9")
    made = task(lake, path, record="on", pushgateway="yes")
    recorder = Recorder()
    made._recorder = recorder

    result = made.execute()

    assert [sink for sink, _, _ in recorder.records] == ["database", "pushgateway"]
    _, kind, values = recorder.records[0]
    row = decode(kind, encode(kind, values))
    assert kind is Migration
    assert row.path == f"{lake.mount}/caf\\xe9"
    assert (row.source, row.target, row.actual, row.state, row.reason) == (1, 2, 2, "SUCCESS", "")
    assert (row.bytes, row.seconds, row.fid) == (10_000, result.seconds, result.fid)
    assert isinstance(row.moment, datetime)


def test_a_record_of_a_failure_fits_whatever_the_name(lake):
    path = "/l/" + "\udcff" * 4000
    made = task(lake, path, record=True)
    recorder = Recorder()
    made._recorder = recorder

    made.execute()

    _, kind, values = recorder.records[0]
    assert decode(kind, encode(kind, values)).state in ("IGNORED", "FAILED")


def test_no_record_is_sent_that_is_not_wanted(lake):
    made = task(lake, lake.file())
    made._recorder = Recorder()

    made.execute()

    assert made._recorder.records == []


def test_the_kind_of_record_is_well_declared():
    names = {field.name for field in fields(Migration)}

    assert {"path", "source", "target", "actual", "state", "reason", "bytes", "seconds", "moment"} <= names
    assert {metric.name for metric in Migration.metrics} == {
        "cyclone_migration_files_total", "cyclone_migration_bytes_total",
    }  # fmt: skip


def test_a_result_arrives_as_it_was_sent():
    result = MigrationResult(
        state=BUSY,
        reason="EBUSY",
        failure=FailureClass.BUSY,
        source=1,
        target=2,
        bytes=5,
        fid="[0x1:0x2:0x0]",
    )

    arrived = pickle.loads(pickle.dumps(result))

    assert arrived == result
    assert (arrived.state, arrived.failure) == ("BUSY", "busy")


@pytest.mark.parametrize(
    ("fault", "verdict"),
    [
        ("EBUSY", Verdict.LATER),
        ("ENOSPC", Verdict.OTHER_TARGET),
        ("EIO", Verdict.OST_TROUBLE),
        ("EINVAL", Verdict.FINAL),
    ],
)
def test_the_generator_understands_the_result(lake, fault, verdict):
    lake.fault(cmd="migrate", errno=fault)

    result = migrate(lake, lake.file())

    report = Report(result.state, result.reason, result.failure, result.actual, result.bytes)
    assert judge(report) is verdict


# How it is made.


def test_it_is_never_run_twice_at_once_and_bounded_in_time():
    made = LustreOstMigrateTask("/l/f", 1, 2)

    assert made.exclusive
    assert made.timeout == 86400 + 600 + 600
    assert LustreOstMigrateTask("/l/f", 1, 2, timeout=100, lfs_timeout=5).timeout == 100 + 50 + 600
    assert (
        LustreOstMigrateTask("/l/f", 1, 2, timeout=100, verify="checksum", lfs_timeout=5).timeout
        == 300 + 50 + 600
    )


def test_the_constructor_of_version_2_takes_text():
    made = LustreOstMigrateTask("/l/f", "1", " 002 ", "True", "on", "0")

    assert (made.source_ost, made.target_ost) == (1, 2)
    assert (made.direct_io, made.block, made.skip) == (True, True, False)
    assert not made.dry_run


@pytest.mark.parametrize("text", ["yes", "on", "true", "True", "1", " ON "])
def test_words_that_mean_yes(text):
    assert LustreOstMigrateTask("/l/f", 1, 2, text).direct_io


@pytest.mark.parametrize("text", ["no", "off", "false", "False", "0"])
def test_words_that_mean_no(text):
    assert not LustreOstMigrateTask("/l/f", 1, 2, text).direct_io


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"filename": ""}, "filename: found ''"),
        ({"filename": "/l/a\0b"}, "filename: found"),
        ({"source_ost": -1}, "source_ost: found -1, expected a whole number from 0 to 65535"),
        ({"source_ost": None}, "source_ost: found None"),
        ({"target_ost": "65536"}, "target_ost: found '65536'"),
        ({"target_ost": "0x5"}, "target_ost: found '0x5'"),
        ({"block": "perhaps"}, "block: found 'perhaps', expected one of: "),
        ({"composite": "squash"}, "composite: found 'squash', expected one of: skip, keep, plain"),
        ({"verify": "md5"}, "verify: found 'md5'"),
        ({"hsm": "restore"}, "hsm: found 'restore'"),
        ({"preserve": "stripe_size,name"}, "preserve: found 'name'"),
        ({"bandwidth_mb": "0"}, "bandwidth_mb: found '0'"),
        ({"timeout": 0}, "timeout: found 0"),
        ({"timeout": "nan"}, "timeout: found 'nan'"),
        ({"timeout": "soon"}, "timeout: found 'soon'"),
        ({"lfs_timeout": "inf"}, "lfs_timeout: found 'inf'"),
    ],
)
def test_a_wrong_value_is_told(wrong, problem):
    with pytest.raises(ValueError, match=problem.split(" expected")[0].replace("[", r"\[")) as raised:
        LustreOstMigrateTask(**{"filename": "/l/f", "source_ost": 1, "target_ost": 2, **wrong})

    assert problem in str(raised.value)


FILE_OF_VERSION_2 = """
<tasks>
    <task name="migrate">
        <class module="cyclone.lustre.migrate_task" name="LustreOstMigrateTask"/>
        <property>
            <filename/> <source_ost/> <target_ost/>
            <direct_io>False</direct_io> <block>True</block> <skip>on</skip>
            {more}
        </property>
    </task>
</tasks>
"""


def test_a_task_file_of_version_2_makes_one(tmp_path):
    (tmp_path / "tasks.xml").write_text(FILE_OF_VERSION_2.format(more=""))

    made = TaskFile.read(tmp_path / "tasks.xml").make(
        "migrate", filename="/l/f", source_ost="3", target_ost=5
    )

    assert isinstance(made, LustreOstMigrateTask)
    assert (made.filename, made.source_ost, made.target_ost) == ("/l/f", 3, 5)
    assert (made.direct_io, made.block, made.skip, made.use_ost_list) == (False, True, True, True)


def test_a_task_file_may_set_everything_new(tmp_path):
    more = (
        "<use_ost_list>no</use_ost_list><preserve>pool</preserve><composite>keep</composite>"
        "<bandwidth_mb>50</bandwidth_mb><verify>checksum</verify><timeout>3600</timeout><hsm>skip_archived</hsm>"
        "<dry_run>1</dry_run><record>yes</record><pushgateway/><lfs_bin>/opt/lfs</lfs_bin><lfs_timeout>5.5</lfs_timeout>"
    )
    (tmp_path / "tasks.xml").write_text(FILE_OF_VERSION_2.format(more=more))

    made = TaskFile.read(tmp_path / "tasks.xml").make("migrate", filename="/l/f", source_ost=3, target_ost=5)

    expected = LustreOstMigrateTask(
        "/l/f", 3, 5, block=True, use_ost_list=False, preserve="pool", composite="keep", bandwidth_mb=50,
        verify="checksum", timeout=3600, hsm="skip_archived", dry_run=True, record=True, lfs_bin="/opt/lfs",
        lfs_timeout=5.5,
    )  # fmt: skip
    assert vars(made) == vars(expected)


def test_a_wrong_value_in_a_task_file_is_told_with_its_line(tmp_path):
    (tmp_path / "tasks.xml").write_text(FILE_OF_VERSION_2.format(more="<dry_run>perhaps</dry_run>"))

    with pytest.raises(TaskFileError, match="line 8: task 'migrate': property 'dry_run'"):
        TaskFile.read(tmp_path / "tasks.xml")


def test_a_pickled_task_is_small():
    made = LustreOstMigrateTask("/lustre/a/directory/with/a/file", 1, 2)

    assert vars(pickle.loads(pickle.dumps(made))) == vars(made)
    assert len(pickle.dumps(made)) < 700


# What can be said without asking anybody.


def layout(*osts: int, count: int = 1, **more: object) -> Layout:
    known = {"composite": False, "on_mdt": False, "released": False, "foreign": False, "exists": True}
    return Layout(osts, count, 1 << 20, "", **{**known, **more})


@pytest.mark.parametrize(
    ("found", "skip", "composite", "expected"),
    [
        (layout(1), True, "skip", None),
        (layout(2), True, "skip", (IGNORED, "on-target")),
        (layout(4), True, "skip", (IGNORED, "not-on-source")),
        (layout(1, exists=False), True, "skip", (SKIPPED, "no-layout")),
        (layout(), True, "skip", (SKIPPED, "no-layout")),
        (layout(foreign=True), True, "skip", (SKIPPED, "foreign")),
        (layout(released=True), True, "skip", (SKIPPED, "released")),
        (layout(on_mdt=True, composite=True), True, "keep", (SKIPPED, "on-mdt")),
        (layout(1, 3, composite=True), True, "skip", (SKIPPED, "composite")),
        (layout(1, 3, composite=True), True, "plain", None),
        (layout(1, 3, composite=True), True, "keep", None),
        (layout(1, 3, composite=True, count=2), True, "keep", None),
        (layout(1, 3, composite=True, count=2), True, "plain", (SKIPPED, "striped")),
        (layout(4, 3, composite=True), True, "keep", (IGNORED, "not-on-source")),
        (layout(1, 3, count=2), True, "skip", (SKIPPED, "striped")),
        (layout(1, 3, count=2), False, "skip", None),
        (layout(3, 1, count=2), False, "skip", None),
        (layout(2, 1, count=2), False, "skip", None),
        (layout(2, 3, count=2), False, "skip", (IGNORED, "not-on-source")),
    ],
)
def test_why_a_file_is_not_moved_from_1_to_2(found, skip, composite, expected):
    refused = refusal(found, 1, 2, skip=skip, composite=composite)

    assert (refused and refused[:2]) == expected


def test_nothing_moves_from_an_ost_to_itself():
    assert refusal(layout(1, 3, count=2), 1, 1, skip=False, composite="skip").reason == "on-target"


@pytest.mark.parametrize(
    ("found", "target", "expected"),
    [
        (layout(2), 2, ""),
        (layout(3), 2, "elsewhere"),
        (layout(1), 2, "still-on-source"),
        (layout(2, 3), 2, "elsewhere"),
        (layout(2, 3, count=2), 2, ""),
        (layout(2, 1, count=2), 2, "still-on-source"),
        (layout(3, 2, count=2), 2, "elsewhere"),
        (layout(), 2, "elsewhere"),
        (layout(3, 4, composite=True), None, ""),
        (layout(3, 1, composite=True), None, "still-on-source"),
    ],
)
def test_where_a_file_that_came_from_1_should_not_be(found, target, expected):
    assert displacement(found, 1, target) == expected


def test_a_time_that_lost_its_fraction_is_the_same_time(tmp_path):
    path = tmp_path / "file"
    path.touch()
    os.utime(path, ns=(0, 1_700_000_000_123_456_789))
    before = path.stat()

    os.utime(path, ns=(0, 1_700_000_000_000_000_000))
    assert differences(before, path.stat()) == set()

    os.utime(path, ns=(0, 1_700_000_000_123_456_788))
    assert differences(before, path.stat()) == {"mtime"}
