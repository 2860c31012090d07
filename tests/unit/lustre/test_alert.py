from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest
from lustre_builders import FakeRecorder, attempt
from simulated_lustre import SimulatedLustre, simulated_lustre
from smtp_server import SmtpServer

from cyclone.lustre.alert_io_task import LustreAlertIOTask
from cyclone.lustre.alerts import body, subject
from cyclone.lustre.incidents import Incident, Incidents, Notice
from cyclone.lustre.mail import MailServer
from cyclone.lustre.ost_task import OstResult, OstState
from cyclone.task_file import TaskFile


@pytest.fixture
def sim(tmp_path: Path) -> SimulatedLustre:
    return simulated_lustre(tmp_path)


@pytest.fixture
def smtp() -> Iterator[SmtpServer]:
    with SmtpServer() as server:
        SlowUntilMailed.server = server
        yield server


class SlowUntilMailed(LustreAlertIOTask):
    """One phase does not go on before a mail has come."""

    server: ClassVar[SmtpServer]
    slow: ClassVar[str] = "write"

    def write_block(self, fd: int, block: bytes) -> int:
        if self.slow == "write":
            self.server.wait_for(1)
        return super().write_block(fd, block)

    def read_block(self, fd: int, block: memoryview) -> int:
        if self.slow == "read":
            self.server.wait_for(1)
        return super().read_block(fd, block)


class SlowToRead(SlowUntilMailed):
    slow = "read"


class SlowAndThenBroken(SlowUntilMailed):
    def write_block(self, fd: int, block: bytes) -> int:
        super().write_block(fd, block)
        raise OSError(errno.EIO, os.strerror(errno.EIO))


class SlowUntilAsked(SlowUntilMailed):
    """Does not go on before the mail server was connected to."""

    def write_block(self, fd: int, block: bytes) -> int:
        self.server.wait_for_connections(1)
        return LustreAlertIOTask.write_block(self, fd, block)


def task(
    sim: SimulatedLustre, smtp: SmtpServer, kind: type[LustreAlertIOTask] = SlowUntilMailed, **given: Any
) -> Any:
    properties = {
        "mail_server": smtp.address,
        "mail_sender": "cyclone@example.org",
        "mail_receiver": "one@example.org, two@example.org",
        "mail_threshold": "0.05",
        "mail_claims": str(sim.root / "claims"),
        # Creating may take long on a busy machine.
        "mail_quiet": "create,read",
        "ost_idx": 3,
        "block_size_bytes": "64K",
        "total_size_bytes": "64K",
        "write_file_sync": "on",
        "target_dir": str(sim.mount),
        "lfs_bin": str(sim.bin / "lfs"),
        "lctl_bin": str(sim.bin / "lctl"),
        "lfs_target": "lustre",
        "db_proxy_target": "proxy",
    }
    made = kind(**{**properties, **given})
    if isinstance(made.mail_server, MailServer) and smtp.hanging:
        object.__setattr__(made.mail_server, "timeout_s", 0.2)
    return made


def looked(made: LustreAlertIOTask, tid: str = "mon-7-3") -> OstResult:
    result = attempt(made, tid, FakeRecorder())
    assert isinstance(result, OstResult)
    return result


# While it lasts.


@pytest.mark.parametrize(
    ("kind", "word", "quiet"),
    [(SlowUntilMailed, "Write", "create,read"), (SlowToRead, "Read", "create,write")],
)
def test_a_mail_is_sent_while_a_phase_still_lasts(
    sim: SimulatedLustre, smtp: SmtpServer, kind: type[LustreAlertIOTask], word: str, quiet: str
) -> None:
    # The phase ends only because the mail has come.
    result = looked(task(sim, smtp, kind, mail_quiet=quiet))

    (mail,) = smtp.mails
    assert mail.message["Subject"] == (
        f"[LUSTRE Monitoring] OST {word} Performance Degradation Detected: lustre-OST0003 (3)"
    )
    assert mail.receivers == ("one@example.org", "two@example.org")
    assert f"Phase:     {word.lower()}" in mail.message.get_content()
    assert "Threshold: 0.05 s" in mail.message.get_content()
    assert result.state is OstState.OK


def test_a_slow_phase_is_a_fault_that_says_it_was_mailed(sim: SimulatedLustre, smtp: SmtpServer) -> None:
    result = looked(task(sim, smtp))

    (fault,) = [fault for fault in result.faults if fault.phase == "write"]
    assert (fault.state, fault.mailed) == (OstState.SLOW, True)
    assert "write" not in result.fine


def test_slowness_alone_is_no_state_of_the_row(sim: SimulatedLustre, smtp: SmtpServer) -> None:
    recorder = FakeRecorder()

    attempt(task(sim, smtp), recorder=recorder)

    assert (recorder.only()["state"], recorder.only()["error"]) == ("OK", None)
    assert recorder.only()["write_throughput"] > 0


def test_what_is_fast_enough_is_not_mailed(sim: SimulatedLustre, smtp: SmtpServer) -> None:
    result = looked(task(sim, smtp, LustreAlertIOTask, mail_threshold=600))

    assert smtp.mails == []
    assert result.faults == ()


def test_a_phase_that_was_slow_and_then_failed_tells_both(sim: SimulatedLustre, smtp: SmtpServer) -> None:
    result = looked(task(sim, smtp, SlowAndThenBroken))

    assert [(fault.state, fault.mailed) for fault in result.faults if fault.phase == "write"] == [
        (OstState.SLOW, True),
        (OstState.WRITE_FAILED, False),
    ]
    assert result.state is OstState.WRITE_FAILED


# What keeps it from mailing.


def test_a_phase_that_people_know_of_is_not_mailed(sim: SimulatedLustre, smtp: SmtpServer) -> None:
    made = task(sim, smtp, LustreAlertIOTask, mail_threshold=1e-9, mail_quiet="create,write,read")

    result = looked(made)

    assert smtp.mails == []
    assert [fault.mailed for fault in result.faults] == [False] * 3


def test_people_who_know_that_an_ost_does_not_answer_get_no_mail_that_it_is_slow(
    sim: SimulatedLustre, smtp: SmtpServer
) -> None:
    looked(task(sim, smtp, LustreAlertIOTask, mail_threshold=1e-9, mail_quiet="reach"))

    assert smtp.mails == []


def test_the_wait_for_a_mail_server_is_no_part_of_a_phase(
    sim: SimulatedLustre, smtp: SmtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]

    def mail(self: LustreAlertIOTask, phase: str, begun: object) -> bool:
        clock[0] += 20.0
        return True

    # The clock stands still but for the mail: whatever a figure shows was spent on that.
    monkeypatch.setattr("cyclone.lustre.io_task.perf_counter", lambda: clock[0])
    monkeypatch.setattr(LustreAlertIOTask, "mail", mail)
    monkeypatch.setattr("threading.Timer.start", lambda timer: None)
    monkeypatch.setattr("threading.Timer.join", lambda timer, timeout: timer.function())

    result = looked(task(sim, smtp, LustreAlertIOTask, mail_threshold=1e-9, mail_quiet=""))

    assert {phase: result.figures[phase] for phase in ("create", "write", "read")} == {
        "create": 0.0, "write": 0.0, "read": 0.0,
    }  # fmt: skip


def test_there_is_time_for_the_mail_of_each_phase(sim: SimulatedLustre, smtp: SmtpServer) -> None:
    made = task(sim, smtp, phase_timeout=100)

    assert made.timeout == 4 * 100 + 60 + 3 * 30


def test_a_server_that_refuses_keeps_no_task_from_its_work(sim: SimulatedLustre, smtp: SmtpServer) -> None:
    smtp.stop()

    result = looked(task(sim, smtp, LustreAlertIOTask, mail_threshold=1e-9))

    assert result.state is OstState.OK
    assert {fault.mailed for fault in result.faults} == {False}


def test_a_server_that_hangs_keeps_no_task_from_its_work(sim: SimulatedLustre) -> None:
    with SmtpServer(hanging=True) as smtp:
        SlowUntilAsked.server = smtp

        result = looked(task(sim, smtp, SlowUntilAsked))

    assert result.state is OstState.OK
    assert {fault.mailed for fault in result.faults if fault.phase == "write"} == {False}


def test_of_one_round_only_so_many_are_mailed(sim: SimulatedLustre, smtp: SmtpServer) -> None:
    results = [
        looked(
            task(
                sim, smtp, LustreAlertIOTask,
                ost_idx=ost, mail_threshold=1e-9, mail_digest=2, mail_round="7",
            ),
            f"mon-7-{ost}",
        )
        for ost in range(4)
    ]  # fmt: skip

    mailed = [[fault.mailed for fault in result.faults if fault.phase == "write"] for result in results]
    assert mailed == [[True], [True], [False], [False]]
    assert len(smtp.mails) == 2


def test_the_next_round_may_mail_again(sim: SimulatedLustre, smtp: SmtpServer) -> None:
    for number in ("7", "8"):
        given = {"mail_threshold": 1e-9, "mail_digest": 1, "mail_round": number}
        looked(task(sim, smtp, LustreAlertIOTask, **given), f"mon-{number}-3")

    assert len(smtp.mails) == 2


def test_a_second_attempt_on_the_same_node_does_not_mail_again(
    sim: SimulatedLustre, smtp: SmtpServer
) -> None:
    given = {"mail_threshold": 1e-9, "mail_round": "7"}
    looked(task(sim, smtp, LustreAlertIOTask, **given))

    result = looked(task(sim, smtp, LustreAlertIOTask, **given))

    assert len(smtp.mails) == 1
    assert [fault.mailed for fault in result.faults if fault.phase == "write"] == [True]


def test_a_second_attempt_mails_what_the_first_was_killed_over(
    sim: SimulatedLustre, smtp: SmtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"mail_threshold": 1e-9, "mail_digest": 1, "mail_quiet": "create,read", "mail_round": "7"}
    with monkeypatch.context() as patch:
        # So ends a thread of a process that is killed: nothing after it is done.
        patch.setattr(MailServer, "send", lambda server, mail: threading.Event().wait(3600))
        patch.setattr("cyclone.lustre.alert_io_task._PATIENCE_S", 0.05)
        looked(task(sim, smtp, LustreAlertIOTask, **given))

    result = looked(task(sim, smtp, LustreAlertIOTask, **given))

    assert len(smtp.mails) == 1
    assert [fault.mailed for fault in result.faults if fault.phase == "write"] == [True]


def test_a_mail_of_which_nobody_knows_whether_it_was_taken_is_told_again_as_the_same(
    sim: SimulatedLustre, smtp: SmtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cyclone.lustre.alert_io_task._PATIENCE_S", 0.3)
    smtp.thinks_s = 3600
    made = task(sim, smtp)

    result = looked(made)

    faults = [fault for fault in result.faults if fault.phase == "write"]
    assert [fault.mailed for fault in faults] == [False]
    (told,) = Incidents(repeat_s=0, digest_most=3).hear(3, faults, (), 1000.0)
    again = made.mailing.compose("", "", f"lustre/{told.key}", datetime.now(UTC))
    assert [mail.message["Message-ID"] for mail in smtp.mails] == [again.id]


def test_a_mail_that_takes_longer_than_the_task_waits_is_not_sent_after_that(
    sim: SimulatedLustre, smtp: SmtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cyclone.lustre.alert_io_task._PATIENCE_S", 0.3)
    smtp.greeting, smtp.pause_s = [bytes([letter]) for letter in b"220 here and now\r\n"], 0.1

    looked(task(sim, smtp, SlowUntilAsked))

    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(20.0)
    assert smtp.mails == []


def test_a_second_attempt_on_another_node_writes_the_same_mail(
    sim: SimulatedLustre, smtp: SmtpServer
) -> None:
    for node in ("a", "b"):
        claims = str(sim.root / node)
        given = {
            "mail_threshold": 1e-9,
            "mail_round": "7",
            "mail_quiet": "create,read",
            "mail_claims": claims,
        }
        looked(task(sim, smtp, LustreAlertIOTask, **given))

    assert len(smtp.mails) == 2
    assert len({mail.message["Message-ID"] for mail in smtp.mails}) == 1


def test_a_mail_that_could_not_be_sent_leaves_its_place_to_others(
    sim: SimulatedLustre, smtp: SmtpServer
) -> None:
    given = {"mail_threshold": 1e-9, "mail_digest": 1, "mail_round": "7"}
    smtp.stop()
    looked(task(sim, smtp, LustreAlertIOTask, **given), "mon-7-3")

    smtp.start()
    looked(task(sim, smtp, LustreAlertIOTask, ost_idx=4, **given), "mon-7-4")

    assert len(smtp.mails) == 1


def test_mails_that_cannot_be_counted_are_sent_all_the_same(sim: SimulatedLustre, smtp: SmtpServer) -> None:
    (sim.root / "file").write_text("")
    given = {"mail_threshold": 1e-9, "mail_round": "7"}

    looked(task(sim, smtp, LustreAlertIOTask, mail_claims=str(sim.root / "file"), **given))

    assert len(smtp.mails) == 1


# Its properties.


def test_a_task_file_of_cyclone_2_goes_on_working(
    sim: SimulatedLustre, smtp: SmtpServer, tmp_path: Path
) -> None:
    file = tmp_path / "tasks.xml"
    file.write_text(
        f"""<tasks><task name="Alert">
            <class module="task.lustre_alert_io_task" name="LustreAlertIOTask"/>
            <property>
                <mail_server>{smtp.address}</mail_server>
                <mail_sender>cyclone@example.org</mail_sender>
                <mail_receiver>one@example.org</mail_receiver>
                <mail_threshold>30</mail_threshold>
                <ost_idx/>
                <block_size_bytes>65536</block_size_bytes>
                <total_size_bytes>65536</total_size_bytes>
                <write_file_sync>on</write_file_sync>
                <target_dir>{sim.mount}</target_dir>
                <lfs_bin>{sim.bin / "lfs"}</lfs_bin>
                <lfs_target>lustre</lfs_target>
                <db_proxy_target/>
                <db_proxy_port/>
            </property></task></tasks>"""
    )

    made = TaskFile.read(file).make("Alert", ost_idx=3)

    assert isinstance(made, LustreAlertIOTask)
    assert made.mail_threshold_s == 30.0
    assert looked(made).state is OstState.OK


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mail_threshold", 0), ("mail_threshold", "soon"), ("mail_sender", "nobody"), ("mail_receiver", " , "),
        ("mail_receiver", "one@example.org two"), ("mail_server", ""), ("mail_digest", 0), ("mail_repeat", -1),
        ("mail_security", "ssl"), ("mail_threshold", 1e11), ("phase_timeout", 1e11),
    ],
)  # fmt: skip
def test_a_wrong_property_is_refused_by_its_name(
    sim: SimulatedLustre, smtp: SmtpServer, name: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=f"^{name}: "):
        task(sim, smtp, **{name: value})


# Words.


def incident(ost: int = 10, **given: Any) -> Incident:
    return Incident(
        **{"ost": ost, "phase": "write", "state": "WRITE_FAILED", "text": "no room", "since": 0.0, **given}
    )


def notice(*incidents: Incident, about: Any = "fault") -> Notice:
    return Notice(about, incidents, "key")


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (notice(incident()), "OST Write WRITE_FAILED: lustre-OST000a (10)"),
        (notice(incident(state="SLOW")), "OST Write Performance Degradation Detected: lustre-OST000a (10)"),
        (notice(incident(phase="reach", state="DOWN")), "OST DOWN: lustre-OST000a (10)"),
        (notice(incident(), about="recovery"), "OST Recovered (write): lustre-OST000a (10)"),
        (notice(incident(), incident(phase="read"), incident(11)), "Faults found at 2 OSTs of lustre"),
        (notice(incident(), incident(11), about="recovery"), "Faults over at 2 OSTs of lustre"),
    ],
)
def test_a_subject_names_what_it_is_about(told: Notice, words: str) -> None:
    assert subject("lustre", told) == f"[LUSTRE Monitoring] {words}"


def test_a_body_tells_since_when_and_why() -> None:
    told = body("lustre", notice(incident()))

    assert told.splitlines() == [
        "OST:    lustre-OST000a (10)",
        "Phase:  write",
        "State:  WRITE_FAILED",
        "Since:  1970-01-01 00:00:00 UTC",
        "Reason: no room",
    ]


def test_a_digest_has_a_line_for_each_incident() -> None:
    told = body("lustre", notice(*(incident(ost) for ost in range(5))))

    assert len(told.splitlines()) == 5
    assert told.splitlines()[4].startswith("lustre-OST0004 (4)  write  WRITE_FAILED")
