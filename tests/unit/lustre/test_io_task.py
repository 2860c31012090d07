from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from lustre_builders import FakeRecorder, attempt
from simulated_lustre import SimulatedLustre, simulated_lustre

from cyclone.lustre import io_task
from cyclone.lustre.io_task import LustreIOTask
from cyclone.lustre.lfs import LfsError, LfsMissing
from cyclone.lustre.ost_task import OstResult, OstState
from cyclone.task_file import TaskFile

TOTAL = 300_000


@pytest.fixture
def sim(tmp_path: Path) -> SimulatedLustre:
    return simulated_lustre(tmp_path)


def task(sim: SimulatedLustre, kind: type[LustreIOTask] = LustreIOTask, **given: Any) -> LustreIOTask:
    properties = {
        "ost_idx": 3,
        "block_size_bytes": 65_536,
        "total_size_bytes": TOTAL,
        "write_file_sync": True,
        "target_dir": str(sim.mount),
        "lfs_bin": str(sim.bin / "lfs"),
        "lctl_bin": str(sim.bin / "lctl"),
        "lfs_target": "lustre",
        "db_proxy_target": "proxy",
        **given,
    }
    return kind(**properties)


def measured(made: LustreIOTask) -> tuple[OstResult, Mapping[str, Any]]:
    """The result of the task, and the row that it has recorded."""
    recorder = FakeRecorder()
    result = attempt(made, recorder=recorder)
    assert isinstance(result, OstResult)
    return result, recorder.only()


class OnePlaceDiffers(LustreIOTask):
    """Writes one byte that is not asked for."""

    def write_block(self, fd: int, block: bytes) -> int:
        return super().write_block(fd, block[:-1] + bytes([block[-1] ^ 1]))


class Full(LustreIOTask):
    """Has no room after the first block."""

    blocks = 0

    def write_block(self, fd: int, block: bytes) -> int:
        self.blocks += 1
        if self.blocks > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write_block(fd, block)


class Unreadable(LustreIOTask):
    def read_block(self, fd: int, block: memoryview) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


class Evicted(LustreIOTask):
    def write_block(self, fd: int, block: bytes) -> int:
        raise OSError(errno.ESHUTDOWN, os.strerror(errno.ESHUTDOWN))


class Shortened(LustreIOTask):
    def read_block(self, fd: int, block: memoryview) -> int:
        return 0


class Crumbs(LustreIOTask):
    """Writes and reads less than it is asked for."""

    def write_block(self, fd: int, block: bytes) -> int:
        return super().write_block(fd, block[: len(block) // 2 + 1])

    def read_block(self, fd: int, block: memoryview) -> int:
        return super().read_block(fd, block[: len(block) // 2 + 1])


class Stopped(LustreIOTask):
    """Is ended by the controller while it writes."""

    def write_block(self, fd: int, block: bytes) -> int:
        raise SystemExit(128 + signal.SIGTERM)


# What goes well.


def test_an_ost_is_measured_and_a_row_tells_of_it(sim: SimulatedLustre) -> None:
    before = datetime.now(UTC)

    result, row = measured(task(sim))

    assert (row["fs"], row["ost"], row["state"], row["size"], row["error"]) == (
        "lustre",
        3,
        "OK",
        TOTAL,
        None,
    )
    assert before <= row["write_timestamp"] <= row["read_timestamp"] <= datetime.now(UTC)
    assert 0 < row["write_duration"] < 10
    assert 0 < row["read_duration"] < 10
    assert row["write_throughput"] == round(TOTAL / row["write_duration"])
    assert row["read_throughput"] == round(TOTAL / row["read_duration"])
    assert row["host"]
    assert (result.ost, result.state, result.faults) == (3, OstState.OK, ())
    assert set(result.fine) == {"reach", "create", "write", "read"}


def test_each_phase_is_timed_by_itself(sim: SimulatedLustre) -> None:
    result, _ = measured(task(sim))

    assert all(0 < result.figures[phase] < 10 for phase in ("create", "write", "read", "unlink"))


def test_the_file_was_on_the_ost_and_is_gone(sim: SimulatedLustre) -> None:
    measured(task(sim))

    (made,) = [call["argv"] for call in sim.calls() if "setstripe" in call["argv"]]
    assert made[made.index("-o") + 1] == "3"
    assert list(sim.mount.glob("*.tmp")) == []


@pytest.mark.parametrize(
    ("block", "total"), [(4096, 4096), (1, 3), (1000, 999), (4096, 10_001), (10_000, 300)]
)
def test_blocks_of_any_size_are_written_and_read(sim: SimulatedLustre, block: int, total: int) -> None:
    _, row = measured(task(sim, block_size_bytes=block, total_size_bytes=total))

    assert (row["state"], row["size"]) == ("OK", total)


def test_a_system_that_takes_and_gives_in_crumbs_is_measured_too(sim: SimulatedLustre) -> None:
    _, row = measured(task(sim, Crumbs, direct_read=False))

    assert row["state"] == "OK"


def test_properties_may_be_text_as_cyclone_2_had_it(sim: SimulatedLustre) -> None:
    made = LustreIOTask(
        "3", "65536", "300000", "on", str(sim.mount), str(sim.bin / "lfs"), "lustre", "localhost", "5777"
    )

    _, row = measured(made)

    assert (row["ost"], row["size"], row["state"]) == (3, 300_000, "OK")


def test_a_task_file_of_cyclone_2_goes_on_working(sim: SimulatedLustre, tmp_path: Path) -> None:
    file = tmp_path / "tasks.xml"
    file.write_text(
        f"""<tasks><task name="LustreIOTask">
            <class module="task.lustre_io_task" name="LustreIOTask"/>
            <property>
                <ost_idx/>
                <block_size_bytes>65536</block_size_bytes>
                <total_size_bytes>1M</total_size_bytes>
                <write_file_sync>off</write_file_sync>
                <target_dir>{sim.mount}</target_dir>
                <lfs_bin>{sim.bin / "lfs"}</lfs_bin>
                <lfs_target>lustre</lfs_target>
                <db_proxy_target>localhost</db_proxy_target>
                <db_proxy_port>5777</db_proxy_port>
            </property></task></tasks>"""
    )

    _, row = measured(TaskFile.read(file).make("LustreIOTask", ost_idx=5))  # type: ignore[arg-type]

    assert (row["ost"], row["size"], row["state"]) == (5, 2**20, "OK")


# Where rows go.


@pytest.mark.parametrize(
    ("given", "sinks"),
    [
        ({"db_proxy_target": ""}, []),
        ({"db_proxy_target": "proxy"}, ["database"]),
        ({"db_proxy_target": "", "pushgateway": "on"}, ["pushgateway"]),
        ({"db_proxy_target": "proxy", "pushgateway": True}, ["database", "pushgateway"]),
    ],
)
def test_rows_go_to_the_sinks_that_were_asked_for(
    sim: SimulatedLustre, given: dict[str, Any], sinks: list[str]
) -> None:
    recorder = FakeRecorder()

    attempt(task(sim, **given), recorder=recorder)

    assert [(sink, kind) for sink, kind, _ in recorder.rows] == [(sink, "ost_perf") for sink in sinks]


# What goes wrong.


@pytest.mark.parametrize("state", ["down", "deactivated", "error"])
def test_an_ost_that_cannot_be_reached_is_down(sim: SimulatedLustre, state: str) -> None:
    sim.ost(3, state=state)

    result, row = measured(task(sim))

    assert row["state"] == "DOWN"
    assert "121" in row["error"] or "Remote I/O error" in row["error"]
    assert [fault.phase for fault in result.faults] == ["reach"]
    assert (row["write_throughput"], row["read_throughput"], row["write_timestamp"]) == (None, None, None)


def test_a_full_ost_is_a_failed_write(sim: SimulatedLustre) -> None:
    sim.fault(cmd="setstripe", errno="ENOSPC")

    result, row = measured(task(sim))

    assert row["state"] == "WRITE_FAILED"
    assert "28" in row["error"]
    assert [fault.phase for fault in result.faults] == ["create"]


def test_a_file_that_was_put_elsewhere_is_displaced(sim: SimulatedLustre) -> None:
    sim.fault(cmd="setstripe", displace=5)

    _, row = measured(task(sim))

    assert row["state"] == "DISPLACED"
    assert "is on 5 instead of 3" in row["error"]
    assert row["write_throughput"] is None


def test_without_a_list_lustre_may_choose_which_is_found_out(sim: SimulatedLustre) -> None:
    sim.ost(3, state="down")

    _, row = measured(task(sim, ost_list=False))

    assert (row["state"], row["error"]) == ("DISPLACED", "the file is on 4 instead of 3")


def test_a_failed_write_is_told_with_its_errno(sim: SimulatedLustre) -> None:
    result, row = measured(task(sim, Full))

    assert (row["state"], row["error"]) == ("WRITE_FAILED", "[Errno 28] No space left on device")
    assert (row["write_throughput"], row["read_throughput"]) == (None, None)
    assert row["write_timestamp"] is not None
    assert set(result.fine) == {"reach", "create"}


def test_an_ost_that_goes_away_while_it_is_written_to_is_down(sim: SimulatedLustre) -> None:
    result, row = measured(task(sim, Evicted))

    assert row["state"] == "DOWN"
    assert result.fine == ("create",)


def test_a_failed_read_keeps_what_was_measured_before(sim: SimulatedLustre) -> None:
    result, row = measured(task(sim, Unreadable))

    assert (row["state"], row["error"]) == ("READ_FAILED", "[Errno 5] Input/output error")
    assert row["write_throughput"] > 0
    assert row["read_throughput"] is None
    assert set(result.fine) == {"reach", "create", "write"}


def test_a_file_that_ends_too_early_is_a_failed_read(sim: SimulatedLustre) -> None:
    _, row = measured(task(sim, Shortened))

    assert (row["state"], row["error"]) == ("READ_FAILED", f"the file ended after 0 of {TOTAL} bytes")


def test_bytes_that_come_back_changed_are_noticed(sim: SimulatedLustre) -> None:
    result, row = measured(task(sim, OnePlaceDiffers))

    assert row["state"] == "CORRUPT"
    assert "from byte 0 on" in row["error"]
    assert result.faults[0].phase == "read"


def test_creating_has_a_time_limit(sim: SimulatedLustre) -> None:
    sim.fault(cmd="setstripe", hang=True)

    result, row = measured(task(sim, phase_timeout=0.5))

    assert row["state"] == "TIMEOUT"
    assert "setstripe" in row["error"]
    assert result.faults[0].phase == "create"


@pytest.mark.parametrize(("slow", "phase"), [("write_block", "write"), ("read_block", "read")])
def test_writing_and_reading_have_a_time_limit(
    sim: SimulatedLustre, slow: str, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(io_task, "perf_counter", lambda: now[0])
    usual = getattr(LustreIOTask, slow)

    def take_long(self: LustreIOTask, *arguments: Any) -> int:
        now[0] += 3.0
        return int(usual(self, *arguments))

    monkeypatch.setattr(LustreIOTask, slow, take_long)

    result, row = measured(task(sim, phase_timeout=10))

    assert (row["state"], row["error"]) == ("TIMEOUT", "it took longer than 10 s")
    assert result.faults[0].phase == phase
    assert row["read_throughput"] is None


def test_the_attempt_has_a_time_limit_above_those_of_its_phases(sim: SimulatedLustre) -> None:
    assert task(sim, phase_timeout=10).timeout == 100


def test_a_node_without_lfs_says_nothing_about_the_ost(sim: SimulatedLustre) -> None:
    recorder = FakeRecorder()

    with pytest.raises(LfsMissing):
        attempt(task(sim, lfs_bin="/no/lfs"), recorder=recorder)

    assert recorder.rows == []


@pytest.mark.parametrize("name", ["ENOENT", "ENOTDIR", "ENOTTY", "EOPNOTSUPP", "EACCES", "EPERM"])
def test_a_node_without_the_directory_says_nothing_about_the_ost(sim: SimulatedLustre, name: str) -> None:
    sim.fault(cmd="setstripe", errno=name)
    recorder = FakeRecorder()

    with pytest.raises(LfsError, match="setstripe"):
        attempt(task(sim), recorder=recorder)

    assert recorder.rows == []


@pytest.mark.parametrize(
    ("sync", "synced"), [("on", ["sync", "sync", "give up"]), ("off", ["sync", "give up"])]
)
def test_data_is_on_the_ost_before_its_pages_are_given_up_and_before_writing_ends_if_that_is_wanted(
    sim: SimulatedLustre, monkeypatch: pytest.MonkeyPatch, sync: str, synced: list[str]
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append("sync"))
    monkeypatch.setattr(os, "posix_fadvise", lambda *arguments: calls.append("give up"))

    measured(task(sim, write_file_sync=sync))

    assert calls == synced


def test_a_link_that_somebody_puts_in_place_of_the_file_is_not_followed(
    sim: SimulatedLustre, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags: list[int] = []
    really = os.open

    def watched(path: Any, how: int, *rest: Any, **named: Any) -> int:
        if str(path).endswith(".tmp"):
            flags.append(how)
        return really(path, how, *rest, **named)

    monkeypatch.setattr(os, "open", watched)

    measured(task(sim))

    assert len(flags) >= 2
    assert all(how & os.O_NOFOLLOW for how in flags)


@pytest.mark.parametrize("kind", [Full, Unreadable, OnePlaceDiffers, Evicted])
def test_the_file_is_removed_whatever_goes_wrong(sim: SimulatedLustre, kind: type[LustreIOTask]) -> None:
    measured(task(sim, kind))

    assert list(sim.mount.glob("*.tmp")) == []


def test_the_file_is_removed_when_the_attempt_is_stopped(sim: SimulatedLustre) -> None:
    with pytest.raises(SystemExit):
        attempt(task(sim, Stopped))

    assert list(sim.mount.glob("*.tmp")) == []


def test_two_attempts_at_the_same_time_do_not_disturb_each_other(sim: SimulatedLustre) -> None:
    found: list[OstResult] = []
    made = [task(sim, ost_idx=ost) for ost in (1, 1, 2)]
    threads = [
        threading.Thread(
            target=lambda each, tid: found.append(attempt(each, tid)), args=(each, f"mon-{number}")
        )
        for number, each in enumerate(made)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [result.state for result in found] == [OstState.OK] * 3


@pytest.mark.parametrize("tid", ["mon-7-3", "a/b", "../../x", "ü" * 100, "x" * 4000, " "])
def test_whatever_the_tid_is_the_name_of_the_file_is_one(
    sim: SimulatedLustre, tid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[str] = []
    unlink = os.unlink

    def note(path: str) -> None:
        removed.append(path)
        unlink(path)

    monkeypatch.setattr(io_task.os, "unlink", note)

    attempt(task(sim), tid)

    (path,) = removed
    assert os.path.dirname(path) == str(sim.mount)
    assert os.path.basename(path).startswith("3_")
    assert len(os.path.basename(path)) < 200


# How it is read back.


def test_a_file_is_read_past_the_cache_where_that_is_possible(sim: SimulatedLustre) -> None:
    _, row = measured(task(sim))

    assert row["read_mode"] in ("direct", "dropped", "advised")


def test_locks_are_dropped_where_direct_io_is_not_wanted(sim: SimulatedLustre) -> None:
    _, row = measured(task(sim, direct_read=False))

    assert row["read_mode"] == "dropped"
    (call,) = [call["argv"] for call in sim.calls() if call["program"] == "lctl"]
    assert "OST0003" in " ".join(call)


def test_pages_are_given_up_where_locks_may_not_be_dropped(sim: SimulatedLustre) -> None:
    sim.fault(program="lctl", errno="EPERM")

    _, row = measured(task(sim, direct_read=False))

    assert row["read_mode"] in ("advised", "cached")


def test_what_may_have_come_from_memory_is_marked(
    sim: SimulatedLustre, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim.fault(program="lctl", errno="EPERM")
    monkeypatch.setattr(os, "posix_fadvise", lambda *arguments: None)

    _, row = measured(task(sim, direct_read=False))

    assert row["read_mode"] == "cached"


def test_without_lctl_it_is_measured_all_the_same(sim: SimulatedLustre) -> None:
    _, row = measured(task(sim, direct_read=False, lctl_bin="/no/lctl"))

    assert row["state"] == "OK"


# What is known without looking.


def test_the_state_of_an_ost_can_be_told_without_measuring(sim: SimulatedLustre) -> None:
    moment = datetime.now(UTC)

    ((sink, kind, fields),) = task(sim).state_rows(OstState.DOWN, "no answer\n(107)", moment)

    recorder = FakeRecorder()
    recorder.record(sink, kind, fields)
    assert (sink, fields["state"], fields["error"]) == ("database", "DOWN", "no answer (107)")
    assert (fields["ost"], fields["size"]) == (3, TOTAL)
    assert "write_throughput" not in fields


# What is refused.


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ost_idx", ""), ("ost_idx", 65_536), ("block_size_bytes", 0), ("total_size_bytes", "0"),
        ("write_file_sync", "perhaps"), ("target_dir", ""), ("lfs_bin", " "), ("lfs_target", ""), ("lfs_target", "x" * 17),
        ("phase_timeout", 0), ("pushgateway", "2"),
    ],
)  # fmt: skip
def test_a_wrong_property_is_refused_by_its_name(sim: SimulatedLustre, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}: "):
        task(sim, **{name: value})


def test_moments_are_of_utc(sim: SimulatedLustre) -> None:
    _, row = measured(task(sim))

    assert row["write_timestamp"].utcoffset() == timedelta(0)


def test_a_file_that_cannot_be_removed_is_logged_and_changes_nothing(
    sim: SimulatedLustre, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(io_task.os, "unlink", refuse)

    _, row = measured(task(sim))

    assert row["state"] == "OK"
    assert "cannot be removed" in caplog.text


def test_a_file_that_cannot_be_opened_past_the_cache_is_a_failed_read_and_stays_open_nowhere(
    sim: SimulatedLustre, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "posix_fadvise", refuse)
    before = os.listdir("/proc/self/fd")

    _, row = measured(task(sim))

    assert row["state"] == "READ_FAILED"
    assert len(os.listdir("/proc/self/fd")) == len(before)
