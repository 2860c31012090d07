"""Mails to people: composed once, sent to a server, and kept on disk until a server has taken them."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import re
import smtplib
import socket
import ssl
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from email import policy
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from cyclone.clock import monotonic
from cyclone.errors import TaskError
from cyclone.process.replace import replace_content

_log = logging.getLogger(__name__)

#: How the connection to a server is protected, and the port that is usual for it.
SECURITY = {"none": 25, "starttls": 25, "tls": 465}

#: A mail that no server has taken for so long would no longer help anybody.
_KEEP_S = 5 * 86_400.0

#: What is being written takes a moment, not an hour.
_UNFINISHED_S = 3600.0

#: Of all that a server may say in one conversation; a few hundred are usual.
_SAID_BYTES_MAX = 2**16

#: RFC 5321, section 4.2.1: codes of what may go well later.
_FOR_NOW = range(400, 500)

#: Whatever a server says of itself, this can be sent to it.
_SEVEN_BITS = policy.default.clone(cte_type="7bit")

_ADDRESS = re.compile(r"^[!#-'*+./0-9=?A-Z^_`a-z{|}~-]{1,64}@[A-Za-z0-9.-]{1,255}\Z", re.ASCII)
_HOST_AND_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+)(:(?P<port>\d{1,5}))?\Z")


class MailError(TaskError):
    """A mail was not taken.

    reached: the server could be talked to. It is about this very mail, and others may fare better.
    """

    def __init__(self, text: str, *, reached: bool = False) -> None:
        self.reached = reached
        super().__init__(text)


_Address = Annotated[str, Meta(pattern=_ADDRESS.pattern)]


class Mail(Struct, frozen=True, forbid_unknown_fields=True):
    """A mail, and what a server is told of it. It waits on disk as it is here, so that nobody has to take it apart.

    id: its Message-ID; two mails of one id are one to those who receive them. text: headers and body, ASCII.
    """

    sender: _Address
    receivers: Annotated[tuple[_Address, ...], Meta(min_length=1)]
    subject: str
    id: str
    text: str


@dataclass(frozen=True)
class MailServer:
    """Where mails are handed in.

    security: "none", "starttls" or "tls". ca_file: certificates to trust instead of those of the system.
    credentials_file: lines `user = …` and `password = …`, readable by their owner alone; "" for no login.
    timeout_s: of each step of the conversation. talk_s: from its beginning until the whole mail is there.
    answer_s: from then until the server says whether it has taken the mail. Whoever waits less has it sent again and
    again by a server that looks at each mail for long; RFC 5321, section 4.5.3.2.6, says so, and asks for 10 minutes.
    """

    host: str
    port: int
    security: str = "none"
    credentials_file: str = ""
    ca_file: str = ""
    timeout_s: float = 10.0
    talk_s: float = 300.0
    answer_s: float = 600.0

    @classmethod
    def at(
        cls, address: str, security: str = "none", credentials_file: str = "", ca_file: str = ""
    ) -> MailServer:
        """address: HOST, HOST:PORT or [IPV6]:PORT. Raises ValueError."""
        if security not in SECURITY:
            raise ValueError(f"mail_security: found {security!r}, expected one of: {', '.join(SECURITY)}")
        found = _HOST_AND_PORT.match(address.strip())
        port = int(found["port"] or SECURITY[security]) if found else 0
        if found is None or not 0 < port < 65536:
            raise ValueError(f"mail_server: found {address!r}, expected HOST or HOST:PORT")
        if credentials_file and security == "none":
            raise ValueError(
                "mail_credentials: a password would travel in clear; expected mail_security starttls or tls"
            )
        return cls(found["host"].strip("[]"), port, security, credentials_file, ca_file)

    def send(self, mail: Mail) -> tuple[str, ...]:
        """Hand in a mail.

        Returns the receivers that the server refused for now, while it took the mail for others. Raises MailError.
        """
        try:
            connection = self._connect()
        except (OSError, ValueError) as error:
            raise MailError(f"mail server {self.host}:{self.port}: {_reason(error)}") from None
        try:
            refused = connection.sendmail(mail.sender, mail.receivers, mail.text)
        except (OSError, ValueError) as error:
            text = f"mail server {self.host}:{self.port} did not take a mail: {_reason(error)}"
            raise MailError(text, reached=True) from None
        finally:
            # The mail is taken or not by now, and a server that does not say good-bye changes nothing of that.
            with contextlib.suppress(OSError):
                connection.quit()
            connection.close()
        for receiver, said in refused.items():
            _log.warning("mail server refused a receiver receiver=%s reason=%s", receiver, _answer(*said))
        return tuple(receiver for receiver, (code, _) in refused.items() if code in _FOR_NOW)

    def _connect(self) -> _Conversation:
        """Begin a conversation, as far as it has nothing to do with any mail. Raises OSError, ValueError."""
        login = _credentials(self.credentials_file) if self.credentials_file else None
        connection = (
            _TlsConversation(self, context=self._tls()) if self.security == "tls" else _Conversation(self)
        )
        try:
            if self.security == "starttls":
                connection.starttls(context=self._tls())
            connection.ehlo_or_helo_if_needed()
            if login is not None:
                connection.login(*login)
        except BaseException:
            connection.close()
            raise
        return connection

    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca_file or None)


class _Conversation(smtplib.SMTP):
    """What `smtplib` does, for a bounded time and with a bounded memory, whatever the server says."""

    def __init__(self, server: MailServer, **given: Any) -> None:
        self._server = server
        self._give(server.timeout_s, server.talk_s)
        # The name that smtplib would look up may take longer to find than any time-out.
        super().__init__(server.host, server.port, socket.gethostname(), timeout=server.timeout_s, **given)

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None:
            self.file = _Replies(self.receive)
        return super().getreply()

    def data(self, message: Any) -> tuple[int, bytes]:
        """As that of `smtplib`, but the answer to the mail may take longer than other answers."""
        answer = self.docmd("DATA")
        if answer[0] != 354:
            raise smtplib.SMTPDataError(*answer)
        # RFC 5321, section 4.5.2: a line of one dot ends the mail.
        dotted = re.sub(rb"(?m)^\.", b"..", message)
        self.send(dotted.removesuffix(b"\r\n") + b"\r\n.\r\n")
        self._give(self._server.answer_s, self._server.answer_s)
        answer = self.getreply()
        self._give(self._server.timeout_s, self._server.timeout_s)
        return answer

    def receive(self, most: int) -> bytes:
        """At most so many bytes of what the server says; none if it has hung up. Raises OSError."""
        assert self.sock is not None
        left_s = self._until - monotonic()
        if left_s <= 0:
            raise TimeoutError
        self.sock.settimeout(min(self._step_s, left_s))
        return self.sock.recv(most)

    def _give(self, step_s: float, all_s: float) -> None:
        """Give the server so long for each step from now on, and for all of them."""
        self._step_s, self._until = step_s, monotonic() + all_s


class _TlsConversation(_Conversation, smtplib.SMTP_SSL):
    pass


class _Replies:
    """What a server says, line by line: the part of a file that `smtplib` uses."""

    def __init__(self, receive: Callable[[int], bytes]) -> None:
        self._receive = receive
        self._said = b""
        self._left = _SAID_BYTES_MAX

    def readline(self, most: int) -> bytes:
        """The next line, or its first so many bytes. Raises OSError."""
        while b"\n" not in self._said and len(self._said) < most:
            if self._left <= 0:
                raise ConnectionAbortedError(f"it says more than {_SAID_BYTES_MAX} bytes")
            if not (more := self._receive(most)):
                break
            self._left -= len(more)
            self._said += more
        end = min(self._said.find(b"\n") + 1 or most, most)
        line, self._said = self._said[:end], self._said[end:]
        return line

    def close(self) -> None:
        """Nothing is held: whoever made the connection closes it."""


@dataclass(frozen=True)
class Mailing:
    """From whom to whom. Raises ValueError when an address is none."""

    sender: str
    receivers: tuple[str, ...]

    def __post_init__(self) -> None:
        for name, addresses in (("mail_sender", (self.sender,)), ("mail_receiver", self.receivers)):
            for address in addresses or ("",):
                if not _ADDRESS.match(address):
                    raise ValueError(
                        f"{name}: found {address!r}, expected an address such as admin@example.org"
                    )

    def compose(self, subject: str, body: str, key: str, at: datetime) -> Mail:
        """A mail. key: two mails of one key are one to those who receive them. at: with a time zone."""
        message = EmailMessage(_SEVEN_BITS)
        message["From"] = self.sender
        message["To"] = ", ".join(self.receivers)
        message["Subject"] = subject
        message["Date"] = format_datetime(at)
        domain = self.sender.rpartition("@")[2]
        message["Message-ID"] = name = f"<{_hash(key)}@{domain}>"
        # RFC 3834, section 5: so that no holiday notice answers.
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(body.encode("utf-8", "backslashreplace").decode("utf-8"))
        return Mail(self.sender, self.receivers, subject, name, message.as_string())


class Outbox:
    """Mails that wait on disk for a server, a file each. Several processes may use one directory at a time.

    A mail that was posted survives the death of this process. It is sent once, but for a death right after the
    server took it; those who receive it twice see the same Message-ID.
    """

    def __init__(self, directory: Path, server: MailServer) -> None:
        self._directory, self._server = directory, server
        # `{file: receivers left}`, where that could not be written: who has taken a mail does not get it at each try.
        self._left: dict[Path, tuple[str, ...]] = {}
        # What waits though the server could be talked to.
        self._tried: set[Path] = set()

    def post(self, mail: Mail) -> None:
        """Keep a mail on disk; one that waits already is not kept twice. Raises OSError when it cannot be kept."""
        make_private_directory(self._directory)
        file = self._directory / f"{_hash(mail.id)}.mail"
        if not file.exists():
            self._keep(mail, file)

    def send(self, mail: Mail) -> tuple[str, ...]:
        """Send a mail that is not kept. See `MailServer.send`."""
        return self._server.send(mail)

    def _keep(self, mail: Mail, file: Path) -> None:
        replace_content(file, msgspec.json.format(msgspec.json.encode(mail), indent=1) + b"\n")

    def deliver(self) -> int:
        """Try to send what waits, oldest first, but what was tried before after all others. Returns how many wait then.

        Stops at a server that cannot be talked to. What was not taken for five days is thrown away, which is logged.
        """
        self._remove_unfinished()
        tried: set[Path] = set()
        while (file := self._next(tried)) is not None:
            try:
                self._deliver(file)
            except MailError as error:
                _log.warning("a mail waits file=%s reason=%s", file.name, error)
                if not error.reached:
                    break
            except OSError as error:
                _log.warning("a mail cannot be read, or changed file=%s reason=%s", file.name, error)
            tried.add(file)
            self._tried.add(file)
        return len(self._waiting())

    def _next(self, tried: Collection[Path]) -> Path | None:
        """What to try now. Looked for after each mail: an answer may take long, and something new may have come."""
        waiting = self._waiting()
        self._tried &= waiting.keys()
        left = waiting.keys() - tried
        return min(left, key=lambda file: (file in self._tried, waiting[file], file), default=None)

    def _waiting(self) -> dict[Path, float]:
        """`{file: when it was posted}`."""
        return {file: status.st_mtime for file, status in self._files("*.mail")}

    def _remove_unfinished(self) -> None:
        """Of somebody who was killed while he wrote it, and who posts it again if it still matters."""
        before = time.time() - _UNFINISHED_S
        for file, status in self._files("*.mail.new"):
            if status.st_mtime < before:
                file.unlink(missing_ok=True)

    def _files(self, pattern: str) -> Iterator[tuple[Path, os.stat_result]]:
        for file in self._directory.glob(pattern):
            with contextlib.suppress(FileNotFoundError):
                yield file, file.stat()

    def _deliver(self, file: Path) -> None:
        """Unless somebody else is at it. Raises MailError when it was not taken, OSError."""
        with contextlib.ExitStack() as held:
            try:
                stream = held.enter_context(open(file, "rb"))
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (FileNotFoundError, BlockingIOError):
                return
            status = os.fstat(stream.fileno())
            if status.st_nlink == 0:
                return
            try:
                mail = msgspec.json.decode(stream.read(), type=Mail)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                damaged = file.with_suffix(".damaged")
                file.replace(damaged)
                _log.error("a mail is damaged, it is set aside file=%s reason=%s", damaged, error)
                return
            left = self._left[file] = self._receivers_left(file, mail, status.st_mtime)
            if left:
                self._keep(replace(mail, receivers=left), file)
                # It is as old as it was.
                os.utime(file, ns=(status.st_mtime_ns, status.st_mtime_ns))
            else:
                file.unlink(missing_ok=True)
            del self._left[file]

    def _receivers_left(self, file: Path, mail: Mail, posted_at: float) -> tuple[str, ...]:
        """Send it, and return who is still to get it. Raises MailError when it was not taken."""
        if (left := self._left.get(file)) is not None:
            if not left:
                return ()
            mail = replace(mail, receivers=left)
        is_old = time.time() - posted_at >= _KEEP_S
        try:
            left = self._server.send(mail)
        except MailError:
            if not is_old:
                raise
            left = mail.receivers
        if left and is_old:
            _log.error(
                "a mail is thrown away, it was not taken subject=%r receivers=%s",
                mail.subject,
                ", ".join(left),
            )
            return ()
        return left


class Postman:
    """A thread that empties an outbox, so that nobody waits for a server.

    A mail that cannot be kept on disk is held in memory, and sent from there.
    retry_s: how long to wait after a server did not take everything. waiting: mails that were left the last time.
    """

    def __init__(self, outbox: Outbox, retry_s: float = 60.0) -> None:
        self.waiting = 0
        self._outbox, self._retry_s = outbox, retry_s
        self._held: deque[Mail] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="postman", daemon=True)
        self._thread.start()
        # What a former life has left.
        self._wake.set()

    def post(self, mail: Mail) -> None:
        """Keep a mail, and have it sent soon."""
        try:
            self._outbox.post(mail)
        except OSError as error:
            _log.error(
                "a mail is held in memory, it cannot be kept subject=%r reason=%s", mail.subject, error
            )
            self._held.append(mail)
        self._wake.set()

    def stop(self, timeout_s: float) -> None:
        """Try once more what waits, and end. Mails that still wait are sent by the next life."""
        self._stopping = True
        self._wake.set()
        self._thread.join(timeout_s)
        # A copy: the thread may still be at it, and so may those who post.
        for mail in self._held.copy():
            _log.error("a mail is lost, it was held in memory subject=%r", mail.subject)

    def _run(self) -> None:
        pause_s: float | None = None
        while True:
            self._wake.wait(pause_s)
            self._wake.clear()
            last = self._stopping
            try:
                self.waiting = self._send_held() + self._outbox.deliver()
            except OSError as error:
                _log.warning("the outbox cannot be read reason=%s", error)
                self.waiting = max(1, self.waiting)
            pause_s = self._retry_s if self.waiting else None
            if last:
                return

    def _send_held(self) -> int:
        """Try to send what could not be kept. Returns how many mails are left."""
        for _ in range(len(self._held)):
            mail = self._held[0]
            left = mail.receivers
            try:
                left = self._outbox.send(mail)
            except MailError as error:
                _log.warning("a mail waits in memory subject=%r reason=%s", mail.subject, error)
                if not error.reached:
                    break
            if left:
                self._held.append(replace(mail, receivers=left))
            self._held.popleft()
        return len(self._held)


def make_private_directory(directory: Path) -> None:
    """Make it, for its owner alone. Raises PermissionError when it is there and others may write into it."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PermissionError(f"{directory} must be a directory of its own that nobody else may write into")


def _credentials(file: str) -> tuple[str, str]:
    """User and password. Raises OSError, ValueError."""
    with open(file, encoding="utf-8") as stream:
        if os.fstat(stream.fileno()).st_mode & 0o077:
            raise ValueError(f"{file} may be read by others; expected mode 0600")
        lines = [line.partition("=") for line in stream if line.strip() and not line.startswith("#")]
    found = {key.strip(): value.strip() for key, _, value in lines}
    if set(found) != {"user", "password"}:
        raise ValueError(f"{file}: expected two lines, `user = …` and `password = …`")
    return found["user"], found["password"]


def _reason(error: Exception) -> str:
    """What a server or the system said, on one line."""
    if isinstance(error, smtplib.SMTPResponseException):
        return _answer(error.smtp_code, error.smtp_error)
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return "; ".join(f"{receiver}: {_answer(*said)}" for receiver, said in error.recipients.items())
    # smtplib tells of a time-out as of a connection that was closed.
    if isinstance(error, TimeoutError) or isinstance(error.__context__, TimeoutError):
        return "it does not answer"
    return " ".join(str(error).split()) or type(error).__name__


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:32]


def _answer(code: int, said: bytes | str) -> str:
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    return f"{code} {' '.join(text.split())}"
