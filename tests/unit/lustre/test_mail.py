from __future__ import annotations

import errno
import itertools
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from email import message_from_string, policy
from email.message import EmailMessage
from pathlib import Path
from typing import cast

import msgspec
import pytest
from smtp_server import Certificate, SmtpServer

from cyclone.lustre.mail import Mail, MailError, Mailing, MailServer, Outbox, Postman

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
MAILING = Mailing("cyclone@example.org", ("one@example.org", "two@example.org"))


def mail(key: str = "key", subject: str = "An OST is slow", body: str = "OST0003\n") -> Mail:
    return MAILING.compose(subject, body, key, NOON)


def read(text: str) -> EmailMessage:
    return cast(EmailMessage, message_from_string(text, policy=policy.default))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def smtp() -> Iterator[SmtpServer]:
    with SmtpServer() as server:
        yield server


def credentials(directory: Path, password: str = "secret", mode: int = 0o600) -> str:
    file = directory / "credentials"
    file.write_text(f"# of the mail server\nuser = cyclone\npassword = {password}\n")
    file.chmod(mode)
    return str(file)


# A mail.


def test_a_mail_says_when_it_was_written_and_which_one_it_is() -> None:
    made = mail()

    message = read(made.text)
    assert message["Date"] == "Fri, 20 Nov 2026 12:00:00 +0000"
    assert message["Message-ID"] == made.id
    assert made.id.endswith("@example.org>")
    assert message["Auto-Submitted"] == "auto-generated"


def test_mails_of_one_key_are_one_mail_to_those_who_receive_them() -> None:
    assert mail("a", subject="one").id == mail("a", subject="other").id
    assert mail("a").id != mail("b").id


def test_text_that_no_mail_can_hold_is_shown_escaped() -> None:
    assert "a\\udcffb" in read(mail(body="a\udcffb").text).get_content()


def test_a_mail_can_be_sent_to_a_server_that_knows_ascii_alone() -> None:
    assert mail(subject="€", body="€").text.isascii()


@pytest.mark.parametrize(
    ("sender", "receivers"),
    [
        ("nobody", ("one@example.org",)),
        ("cyclone@example.org", ()),
        ("cyclone@example.org", ("one@example.org", "two")),
        ("cyclone@example.org\nBcc: x@example.org", ("one@example.org",)),
        ("cyclone@example.org", ("<one@example.org>",)),
        ("cyclone@example.org", ("a,b@example.org",)),
    ],
)
def test_an_address_that_is_none_is_refused(sender: str, receivers: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="expected an address"):
        Mailing(sender, receivers)


# A server.


def test_a_mail_arrives_at_all_receivers(smtp: SmtpServer) -> None:
    MailServer.at(smtp.address).send(mail())

    (taken,) = smtp.mails
    assert (taken.sender, taken.receivers) == ("cyclone@example.org", ("one@example.org", "two@example.org"))
    assert taken.message["Subject"] == "An OST is slow"
    assert taken.message.get_content() == "OST0003\n"
    assert not taken.protected


def test_a_mail_travels_encrypted_with_starttls(certificate: Certificate) -> None:
    with SmtpServer(certificate=certificate) as smtp:
        MailServer.at(smtp.address, "starttls", ca_file=str(certificate.certificate)).send(mail())

        assert [taken.protected for taken in smtp.mails] == [True]


def test_a_mail_travels_encrypted_with_tls(certificate: Certificate) -> None:
    with SmtpServer(certificate=certificate, tls=True) as smtp:
        MailServer.at(smtp.address, "tls", ca_file=str(certificate.certificate)).send(mail())

        assert [taken.protected for taken in smtp.mails] == [True]


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_server_that_cannot_prove_who_it_is_gets_no_mail(certificate: Certificate, security: str) -> None:
    with SmtpServer(certificate=certificate, tls=security == "tls") as smtp:
        with pytest.raises(MailError, match="certificate"):
            MailServer.at(smtp.address, security).send(mail())

        assert smtp.mails == []


def test_a_server_without_starttls_gets_no_mail_in_clear(smtp: SmtpServer) -> None:
    with pytest.raises(MailError, match="STARTTLS"):
        MailServer.at(smtp.address, "starttls").send(mail())

    assert smtp.mails == []


def test_one_can_log_in(certificate: Certificate, tmp_path: Path) -> None:
    with SmtpServer(certificate=certificate, users={"cyclone": "secret"}) as smtp:
        server = MailServer.at(smtp.address, "starttls", credentials(tmp_path), str(certificate.certificate))
        server.send(mail())

        assert [taken.user for taken in smtp.mails] == ["cyclone"]


def test_a_wrong_password_is_told(certificate: Certificate, tmp_path: Path) -> None:
    with SmtpServer(certificate=certificate, users={"cyclone": "secret"}) as smtp:
        file = credentials(tmp_path, password="other")
        server = MailServer.at(smtp.address, "starttls", file, str(certificate.certificate))

        with pytest.raises(MailError, match="535 wrong"):
            server.send(mail())


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_password_that_others_may_read_is_not_used(smtp: SmtpServer, tmp_path: Path, mode: int) -> None:
    server = MailServer.at(smtp.address, "starttls", credentials(tmp_path, mode=mode))

    with pytest.raises(MailError, match="0600"):
        server.send(mail())


@pytest.mark.parametrize("content", ["", "user = a\n", "user = a\npassword = b\nhost = c\n"])
def test_a_file_of_credentials_that_makes_no_sense_is_told(
    smtp: SmtpServer, tmp_path: Path, content: str
) -> None:
    file = Path(credentials(tmp_path))
    file.write_text(content)

    with pytest.raises(MailError, match="expected two lines"):
        MailServer.at(smtp.address, "starttls", str(file)).send(mail())


def test_a_password_never_travels_in_clear() -> None:
    with pytest.raises(ValueError, match="in clear"):
        MailServer.at("localhost", "none", "/etc/credentials")


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("mail", "mail", 25),
        ("mail:2525", "mail", 2525),
        ("[::1]:25", "::1", 25),
        (" 127.0.0.1 ", "127.0.0.1", 25),
    ],
)
def test_the_port_may_be_named(address: str, host: str, port: int) -> None:
    server = MailServer.at(address)

    assert (server.host, server.port) == (host, port)


def test_tls_has_a_port_of_its_own() -> None:
    assert MailServer.at("mail", "tls").port == 465


@pytest.mark.parametrize("address", ["", "a b", "mail:", "mail:0", "mail:99999", "mail:25:26"])
def test_an_address_that_is_no_server_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="expected HOST"):
        MailServer.at(address)


def test_a_security_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of: none, starttls, tls"):
        MailServer.at("mail", "ssl")


def test_nobody_there_is_told(smtp: SmtpServer) -> None:
    smtp.stop()

    with pytest.raises(MailError, match="refused"):
        MailServer.at(smtp.address).send(mail())


def test_a_server_that_never_says_a_word_is_given_up() -> None:
    with SmtpServer(hanging=True) as smtp:
        server = MailServer("127.0.0.1", smtp.port, timeout_s=0.2)

        with pytest.raises(MailError, match="does not answer"):
            server.send(mail())


def test_a_mail_that_was_taken_counts_as_sent_though_the_server_never_says_goodbye() -> None:
    with SmtpServer(silent_goodbye=True) as smtp:
        MailServer("127.0.0.1", smtp.port, timeout_s=0.2).send(mail())

        assert len(smtp.mails) == 1


def test_one_refused_receiver_keeps_no_other_from_his_mail() -> None:
    with SmtpServer(refused=frozenset({"one@example.org"})) as smtp:
        MailServer.at(smtp.address).send(mail())

        assert [taken.receivers for taken in smtp.mails] == [("two@example.org",)]


def test_a_mail_that_is_refused_for_its_own_sake_is_told_apart() -> None:
    with (
        SmtpServer(refuses_content=True) as smtp,
        pytest.raises(MailError, match="554 this looks like spam") as caught,
    ):
        MailServer.at(smtp.address).send(mail())

    assert caught.value.reached


def test_a_server_may_look_at_a_mail_for_longer_than_at_a_command() -> None:
    with SmtpServer(thinks_s=0.6) as smtp:
        MailServer("127.0.0.1", smtp.port, timeout_s=0.2).send(mail())

        assert len(smtp.mails) == 1


def test_a_server_that_never_says_whether_it_has_taken_a_mail_is_given_up() -> None:
    with SmtpServer(thinks_s=3600) as smtp, pytest.raises(MailError, match="does not answer") as caught:
        MailServer("127.0.0.1", smtp.port, answer_s=0.2).send(mail())

    assert caught.value.reached


def test_lines_of_dots_arrive_as_they_were_written(smtp: SmtpServer) -> None:
    MailServer.at(smtp.address).send(mail(body=".\n..\n.x\n\nend."))

    assert smtp.mails[0].message.get_content() == ".\n..\n.x\n\nend.\n"


def test_a_server_that_talks_without_end_is_given_up() -> None:
    chatter = itertools.chain(itertools.repeat(b"220-" + b"x" * 994 + b"\r\n", 1000), [b"220 here\r\n"])
    with SmtpServer(greeting=chatter) as smtp, pytest.raises(MailError, match="more than 65536 bytes"):
        MailServer.at(smtp.address).send(mail())


def test_a_server_that_keeps_one_waiting_for_each_letter_is_given_up() -> None:
    letters = [bytes([letter]) for letter in b"220 " + b"x" * 20 + b"\r\n"]
    with (
        SmtpServer(greeting=letters, pause_s=0.1) as smtp,
        pytest.raises(MailError, match="does not answer") as caught,
    ):
        MailServer("127.0.0.1", smtp.port, talk_s=0.3).send(mail())

    assert not caught.value.reached


# The outbox.


def outbox(directory: Path, smtp: SmtpServer) -> Outbox:
    return Outbox(directory / "spool", MailServer("127.0.0.1", smtp.port, timeout_s=0.5))


def test_what_was_posted_is_delivered_and_then_gone(smtp: SmtpServer, tmp_path: Path) -> None:
    box = outbox(tmp_path, smtp)
    box.post(mail())

    assert box.deliver() == 0
    assert len(smtp.mails) == 1
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_mail_goes_through_the_spool_unchanged(smtp: SmtpServer, tmp_path: Path) -> None:
    posted = mail(
        subject="[LUSTRE Monitoring] OST Write Performance Degradation Detected: lustre-OST000a (10) €",
        body="It took 3 €.\n",
    )
    box = outbox(tmp_path, smtp)
    box.post(posted)

    box.deliver()

    (taken,) = smtp.mails
    assert {name: str(value) for name, value in taken.message.items()} == {
        name: str(value) for name, value in read(posted.text).items()
    }
    assert taken.message["Subject"] == posted.subject
    assert taken.message.get_content() == "It took 3 €.\n"


def test_mails_wait_for_a_server_and_outlive_a_process(smtp: SmtpServer, tmp_path: Path) -> None:
    smtp.stop()
    before = outbox(tmp_path, smtp)
    before.post(mail("a"))
    before.post(mail("b"))
    assert before.deliver() == 2

    smtp.start()

    assert outbox(tmp_path, smtp).deliver() == 0
    assert len(smtp.mails) == 2


def test_the_oldest_mail_goes_first(smtp: SmtpServer, tmp_path: Path) -> None:
    box = outbox(tmp_path, smtp)
    for number in range(5):
        box.post(mail(str(number), subject=str(number)))
        for file in (tmp_path / "spool").glob("*.mail"):
            status = file.stat()
            os.utime(file, (status.st_atime, status.st_mtime - 1))

    box.deliver()

    assert smtp.subjects() == ["0", "1", "2", "3", "4"]


def test_a_mail_that_waits_is_not_kept_twice(smtp: SmtpServer, tmp_path: Path) -> None:
    box = outbox(tmp_path, smtp)

    box.post(mail("a"))
    box.post(mail("a"))
    box.deliver()

    assert len(smtp.mails) == 1


def test_nobody_else_can_read_what_waits(smtp: SmtpServer, tmp_path: Path) -> None:
    outbox(tmp_path, smtp).post(mail())

    (file,) = (tmp_path / "spool").iterdir()
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_a_spool_that_others_may_write_into_is_refused(smtp: SmtpServer, tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool").chmod(0o777)

    with pytest.raises(PermissionError):
        outbox(tmp_path, smtp).post(mail())


def test_a_server_that_hangs_is_asked_once_for_all_mails(tmp_path: Path) -> None:
    with SmtpServer(hanging=True) as smtp:
        box = outbox(tmp_path, smtp)
        for number in range(5):
            box.post(mail(str(number)))

        assert box.deliver() == 5
        assert smtp.connections == 1


def test_a_mail_at_which_the_server_hangs_up_keeps_no_other_waiting(tmp_path: Path) -> None:
    with SmtpServer(cuts="poison") as smtp:
        box = outbox(tmp_path, smtp)
        box.post(mail("a", subject="poison"))
        (file,) = (tmp_path / "spool").iterdir()
        os.utime(file, (0, file.stat().st_mtime - 60))
        box.post(mail("b"))

        assert box.deliver() == 1
        assert smtp.subjects() == ["An OST is slow"]


def test_what_is_new_goes_before_what_has_failed(tmp_path: Path) -> None:
    with SmtpServer(cuts="poison") as smtp:
        box = outbox(tmp_path, smtp)
        box.post(mail("a", subject="poison"))
        box.deliver()
        (file,) = (tmp_path / "spool").iterdir()
        os.utime(file, (0, file.stat().st_mtime - 60))
        box.post(mail("b"))
        smtp.cuts = ""

        assert box.deliver() == 0
        assert smtp.subjects() == ["An OST is slow", "poison"]


def test_what_comes_while_others_are_sent_is_sent_with_them(
    smtp: SmtpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box, late = outbox(tmp_path, smtp), [mail("b")]
    send = MailServer.send

    def send_and_post(server: MailServer, message: Mail) -> tuple[str, ...]:
        while late:
            box.post(late.pop())
        return send(server, message)

    monkeypatch.setattr(MailServer, "send", send_and_post)
    box.post(mail("a"))

    assert box.deliver() == 0
    assert len(smtp.mails) == 2


def test_a_mail_that_is_refused_keeps_no_other_waiting(tmp_path: Path) -> None:
    with SmtpServer(refused=frozenset({"gone@example.org"})) as smtp:
        box = outbox(tmp_path, smtp)
        box.post(Mailing("cyclone@example.org", ("gone@example.org",)).compose("refused", "", "a", NOON))
        (file,) = (tmp_path / "spool").iterdir()
        os.utime(file, (0, file.stat().st_mtime - 60))
        box.post(mail("b"))

        assert box.deliver() == 1
        assert smtp.subjects() == ["An OST is slow"]


def test_a_receiver_who_is_refused_for_now_is_tried_again_alone(tmp_path: Path) -> None:
    with SmtpServer(busy=frozenset({"two@example.org"}), refused=frozenset({"three@example.org"})) as smtp:
        box = outbox(tmp_path, smtp)
        receivers = ("one@example.org", "two@example.org", "three@example.org")
        box.post(Mailing("cyclone@example.org", receivers).compose("x", "", "a", NOON))
        (file,) = (tmp_path / "spool").glob("*.mail")
        before = file.stat().st_mtime - 3600
        os.utime(file, (before, before))
        assert box.deliver() == 1
        assert file.stat().st_mtime == pytest.approx(before)

        smtp.busy = frozenset()

        assert box.deliver() == 0
        assert [taken.receivers for taken in smtp.mails] == [("one@example.org",), ("two@example.org",)]


def test_a_mail_that_nobody_takes_for_days_is_thrown_away_aloud(
    smtp: SmtpServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    smtp.stop()
    box = outbox(tmp_path, smtp)
    box.post(mail())
    (file,) = (tmp_path / "spool").iterdir()
    os.utime(file, (0, file.stat().st_mtime - 6 * 86_400))

    assert box.deliver() == 0
    assert "thrown away" in caplog.text


def test_a_receiver_who_is_refused_for_days_is_given_up_aloud(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with SmtpServer(busy=frozenset({"two@example.org"})) as smtp:
        box = outbox(tmp_path, smtp)
        receivers = ("one@example.org", "two@example.org")
        box.post(Mailing("cyclone@example.org", receivers).compose("x", "", "a", NOON))
        (file,) = (tmp_path / "spool").iterdir()
        os.utime(file, (0, file.stat().st_mtime - 6 * 86_400))

        assert box.deliver() == 0

    assert "thrown away, it was not taken subject='x' receivers=two@example.org" in caplog.text


def test_who_has_taken_a_mail_does_not_get_it_again_while_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(box: Outbox, mail: Mail, file: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with SmtpServer(busy=frozenset({"two@example.org"})) as smtp:
        box = outbox(tmp_path, smtp)
        receivers = ("one@example.org", "two@example.org")
        box.post(Mailing("cyclone@example.org", receivers).compose("x", "", "a", NOON))
        monkeypatch.setattr(Outbox, "_keep", full)
        waiting = [box.deliver(), box.deliver()]
        smtp.busy = frozenset()

        waiting.append(box.deliver())

        assert waiting == [1, 1, 0]
        assert [taken.receivers for taken in smtp.mails] == [("one@example.org",), ("two@example.org",)]


def test_a_mail_that_was_taken_is_not_sent_again_while_it_cannot_be_removed(
    smtp: SmtpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(file: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    box = outbox(tmp_path, smtp)
    box.post(mail())
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refused)
        assert box.deliver() == 1

    assert box.deliver() == 0
    assert len(smtp.mails) == 1


def test_a_file_that_cannot_be_read_keeps_no_mail_waiting(
    smtp: SmtpServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    box = outbox(tmp_path, smtp)
    box.post(mail())
    (tmp_path / "spool" / "a.mail").mkdir()
    os.utime(tmp_path / "spool" / "a.mail", (0, 0))

    assert box.deliver() == 1
    assert len(smtp.mails) == 1
    assert "a mail cannot be read, or changed file=a.mail" in caplog.text


def damages() -> Iterator[bytes]:
    whole = msgspec.json.encode(mail())
    yield b""
    yield whole[:-20]
    yield bytes(len(whole))
    yield whole.replace(b"cyclone@example.org", b"\xff")
    yield whole.replace(b"cyclone@example.org", b"a [b")
    yield whole.replace(b'"one@example.org","two@example.org"', b"")
    yield b"From: cyclone@example.org\r\nTo: one@example.org\r\n\r\nOST0003"


@pytest.mark.parametrize("content", [*damages()])
def test_a_damaged_mail_is_set_aside_and_keeps_no_other_waiting(
    smtp: SmtpServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    box = outbox(tmp_path, smtp)
    box.post(mail())
    (tmp_path / "spool" / "a.mail").write_bytes(content)
    os.utime(tmp_path / "spool" / "a.mail", (0, 0))

    assert box.deliver() == 0
    assert len(smtp.mails) == 1
    assert (tmp_path / "spool" / "a.damaged").read_bytes() == content
    assert "a mail is damaged, it is set aside" in caplog.text


def test_what_a_killed_process_has_not_finished_is_removed(smtp: SmtpServer, tmp_path: Path) -> None:
    box, spool = outbox(tmp_path, smtp), tmp_path / "spool"
    spool.mkdir(0o700)
    killer = (
        "import sys, os, pathlib; from datetime import datetime, UTC; import cyclone.lustre.mail as mail;"
        "os.fsync = lambda fd: os.kill(os.getpid(), 9);"
        "server = mail.MailServer('127.0.0.1', 25); sender = mail.Mailing('a@x.org', ('b@x.org',));"
        "mail.Outbox(pathlib.Path(sys.argv[1]), server).post(sender.compose('', '', '', datetime.now(UTC)))"
    )
    assert subprocess.run([sys.executable, "-c", killer, spool], check=False).returncode == -9
    (left,) = spool.iterdir()
    box.deliver()
    assert left.exists(), "somebody may still be at it"
    os.utime(left, (0, 0))

    box.deliver()

    assert list(spool.iterdir()) == []


def test_a_mail_that_some_have_got_is_not_sent_to_them_when_it_is_posted_again(tmp_path: Path) -> None:
    with SmtpServer(busy=frozenset({"two@example.org"})) as smtp:
        box = outbox(tmp_path, smtp)
        box.post(mail())
        box.deliver()
        smtp.busy = frozenset()

        box.post(mail())
        box.deliver()

        assert [taken.receivers for taken in smtp.mails] == [("one@example.org",), ("two@example.org",)]


def test_two_processes_never_send_the_same_mail(smtp: SmtpServer, tmp_path: Path) -> None:
    for number in range(40):
        outbox(tmp_path, smtp).post(mail(str(number)))

    deliver = (
        "import sys, pathlib; from cyclone.lustre.mail import MailServer, Outbox;"
        "Outbox(pathlib.Path(sys.argv[1]), MailServer('127.0.0.1', int(sys.argv[2]))).deliver()"
    )
    command = [sys.executable, "-c", deliver, str(tmp_path / "spool"), str(smtp.port)]
    both = [subprocess.Popen(command) for _ in range(2)]

    assert [process.wait() for process in both] == [0, 0]
    assert len(smtp.mails) == len({taken.message["Message-ID"] for taken in smtp.mails}) == 40


# The postman.


def test_the_postman_delivers_without_keeping_anybody_waiting(smtp: SmtpServer, tmp_path: Path) -> None:
    postman = Postman(outbox(tmp_path, smtp))

    postman.post(mail())

    smtp.wait_for(1)
    postman.stop(10)
    assert "postman" not in {thread.name for thread in threading.enumerate()}


def test_the_postman_delivers_what_a_former_life_has_left(smtp: SmtpServer, tmp_path: Path) -> None:
    outbox(tmp_path, smtp).post(mail())

    postman = Postman(outbox(tmp_path, smtp))

    smtp.wait_for(1)
    postman.stop(10)


def test_the_postman_tries_again(smtp: SmtpServer, tmp_path: Path) -> None:
    smtp.stop()
    postman = Postman(outbox(tmp_path, smtp), retry_s=0.01)
    postman.post(mail())

    smtp.start()

    smtp.wait_for(1)
    postman.stop(10)


def test_what_the_postman_cannot_deliver_at_the_end_stays_on_disk(smtp: SmtpServer, tmp_path: Path) -> None:
    smtp.stop()
    postman = Postman(outbox(tmp_path, smtp))

    postman.post(mail())
    postman.stop(10)

    assert len(list((tmp_path / "spool").glob("*.mail"))) == 1


def test_the_postman_goes_on_when_the_spool_cannot_be_read(
    smtp: SmtpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    deliver, refused = Outbox.deliver, threading.Event()

    def refuse_once(box: Outbox) -> int:
        if not refused.is_set():
            refused.set()
            raise PermissionError(13, "Permission denied")
        return deliver(box)

    monkeypatch.setattr(Outbox, "deliver", refuse_once)
    postman = Postman(outbox(tmp_path, smtp), retry_s=0.01)
    postman.post(mail())

    smtp.wait_for(1)
    postman.stop(10)
    assert "cannot be read" in caplog.text


def test_the_postman_holds_what_cannot_be_kept(
    smtp: SmtpServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "spool").write_text("no directory")
    smtp.busy = frozenset({"one@example.org"})
    postman = Postman(outbox(tmp_path, smtp), retry_s=0.05)

    postman.post(
        Mailing("cyclone@example.org", ("one@example.org", "two@example.org")).compose("x", "", "a", NOON)
    )
    smtp.wait_for(1)
    smtp.busy = frozenset()
    smtp.wait_for(2)

    postman.stop(10.0)
    assert [taken.receivers for taken in smtp.mails] == [("two@example.org",), ("one@example.org",)]
    assert "a mail is held in memory" in caplog.text


def test_what_the_postman_holds_and_cannot_deliver_at_the_end_is_told(
    smtp: SmtpServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "spool").write_text("no directory")
    smtp.stop()
    postman = Postman(outbox(tmp_path, smtp))

    postman.post(mail(subject="OST 3 is down"))
    postman.stop(10.0)

    assert "a mail is lost, it was held in memory subject='OST 3 is down'" in caplog.text


def test_the_postman_may_still_be_at_it_when_what_is_lost_is_told(
    smtp: SmtpServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "spool").write_text("no directory")
    smtp.stop()
    postman = Postman(outbox(tmp_path, smtp))
    postman.post(mail("a"))

    def post_one_more(record: logging.LogRecord) -> bool:
        if "is lost" in record.getMessage() and len(told) < 3:
            told.append(record)
            postman.post(mail("b"))
        return True

    told: list[logging.LogRecord] = []
    caplog.handler.addFilter(post_one_more)
    try:
        postman.stop(10.0)
    finally:
        caplog.handler.removeFilter(post_one_more)

    assert len(told) == 1


def test_a_held_mail_that_is_refused_keeps_no_other_waiting(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("no directory")
    with SmtpServer(refused=frozenset({"gone@example.org"})) as smtp:
        postman = Postman(outbox(tmp_path, smtp), retry_s=0.05)

        postman.post(Mailing("cyclone@example.org", ("gone@example.org",)).compose("refused", "", "a", NOON))
        postman.post(mail())
        smtp.wait_for(1)

        postman.stop(10.0)
        assert len(smtp.mails) == 1
