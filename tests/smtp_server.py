"""A small SMTP server on a free port of the loopback device, which keeps what it is given, or misbehaves as told."""

from __future__ import annotations

import base64
import contextlib
import socket
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from types import TracebackType
from typing import Self, cast


@dataclass(frozen=True)
class Taken:
    """A mail that was taken. user: who had logged in, "" for nobody. protected: by TLS."""

    sender: str
    receivers: tuple[str, ...]
    message: EmailMessage
    user: str
    protected: bool


class Certificate:
    """A self-made certificate for 127.0.0.1, in files below a directory."""

    def __init__(self, directory: Path) -> None:
        self.certificate, self.key = directory / "server.crt", directory / "server.key"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
             "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", self.key, "-out", self.certificate],
            check=True, capture_output=True,
        )  # fmt: skip

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


class SmtpServer:
    """Serves from entering to leaving the `with` block; may be stopped and started again on the same port.

    certificate: offer STARTTLS with it, or speak TLS from the first byte if `tls`.
    users: `{user: password}` of those who may log in; None demands no login.
    hanging: take connections and never say a word. refused: receivers that are not known here.
    busy: receivers that have to wait.
    refuses_content: every mail is refused when all of it is here. silent_goodbye: never answer QUIT.
    thinks_s: how long it looks at a mail before it says that it has taken it.
    cuts: text of mails at which it hangs up. greeting: what it says first, piece by piece, `pause_s` apart.
    """

    def __init__(
        self,
        *,
        certificate: Certificate | None = None,
        tls: bool = False,
        users: dict[str, str] | None = None,
        hanging: bool = False,
        refused: frozenset[str] = frozenset(),
        busy: frozenset[str] = frozenset(),
        refuses_content: bool = False,
        silent_goodbye: bool = False,
        thinks_s: float = 0.0,
        cuts: str = "",
        greeting: Iterable[bytes] = (b"220 here\r\n",),
        pause_s: float = 0.0,
    ) -> None:
        self.certificate, self.tls, self.users = certificate, tls, users
        self.hanging, self.refused, self.refuses_content = hanging, refused, refuses_content
        self.silent_goodbye, self.busy = silent_goodbye, busy
        self.thinks_s, self.cuts, self.greeting, self.pause_s = thinks_s, cuts, greeting, pause_s
        self.mails: list[Taken] = []
        self.connections = 0
        self._changed = threading.Condition()
        self._server: _Server | None = None
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        self._server = _Server(("127.0.0.1", self.port), _Conversation)
        self._server.smtp = self
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), name="smtp").start()

    def stop(self) -> None:
        """No connection is open, and no thread alive, when it returns."""
        if self._server is not None:
            self._server.shutdown()
            self._server.hang_up()
            self._server.server_close()
            self._server = None

    def subjects(self) -> list[str]:
        return [str(mail.message["Subject"]) for mail in self.mails]

    def wait_for(self, mails: int, timeout_s: float = 20.0) -> None:
        """Return when so many mails were taken."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.mails) >= mails, timeout_s):
                raise AssertionError(
                    f"{len(self.mails)} mails came, {mails} were expected: {self.subjects()}"
                )

    def wait_for_connections(self, count: int, timeout_s: float = 20.0) -> None:
        """Return when so many connections were made."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.connections >= count, timeout_s)

    def on_connection(self) -> None:
        with self._changed:
            self.connections += 1
            self._changed.notify_all()

    def take(self, mail: Taken) -> None:
        with self._changed:
            self.mails.append(mail)
            self._changed.notify_all()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = False
    block_on_close = True
    smtp: SmtpServer

    def __init__(self, *arguments: object) -> None:
        self._open: set[socket.socket] = set()
        self._stopping = threading.Event()
        super().__init__(*arguments)  # type: ignore[arg-type]

    def process_request(self, request: socket.socket, client: object) -> None:  # type: ignore[override]
        self.watch(request)
        super().process_request(request, client)  # type: ignore[arg-type]

    def watch(self, connection: socket.socket) -> None:
        """One more to be ended when the server stops."""
        self._open.add(connection)

    def hang_up(self) -> None:
        self._stopping.set()
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def wait_for_end(self, at_most_s: float | None = None) -> None:
        self._stopping.wait(at_most_s)


class _Conversation(socketserver.BaseRequestHandler):
    """One connection. Just enough of RFC 5321, 3207 and 4954."""

    server: _Server

    def handle(self) -> None:
        smtp = self.server.smtp
        smtp.on_connection()
        if smtp.hanging:
            return self.server.wait_for_end()
        with contextlib.ExitStack() as self._open_ends, contextlib.suppress(OSError, ssl.SSLError):
            self._talk(smtp)
        return None

    def _talk(self, smtp: SmtpServer) -> None:
        self._link: socket.socket = self.request
        self._protected = smtp.tls
        if smtp.tls:
            self._protect(smtp)
        self._lines = self._open_ends.enter_context(self._link.makefile("rb"))
        self._user = ""
        for piece in smtp.greeting:
            self._link.sendall(piece)
            self.server.wait_for_end(smtp.pause_s)
        sender, receivers = "", []
        while line := self._lines.readline():
            words = line.decode("ascii").strip()
            verb, _, rest = words.partition(" ")
            match verb.upper():
                case "EHLO" | "HELO":
                    self._greet(smtp)
                case "STARTTLS":
                    self._say("220 go on")
                    self._protect(smtp)
                    self._protected = True
                    self._lines = self._open_ends.enter_context(self._link.makefile("rb"))
                case "AUTH":
                    self._log_in(smtp, rest)
                case "MAIL" if smtp.users is not None and not self._user:
                    self._say("530 who are you")
                case "MAIL":
                    sender, receivers = _address(rest), []
                    self._say("250 fine")
                case "RCPT" if _address(rest) in smtp.refused:
                    self._say("550 no such user here")
                case "RCPT" if _address(rest) in smtp.busy:
                    self._say("450 mailbox is busy")
                case "RCPT":
                    receivers.append(_address(rest))
                    self._say("250 fine")
                case "DATA":
                    if not self._take(smtp, sender, tuple(receivers)):
                        return
                case "QUIT" if smtp.silent_goodbye:
                    self.server.wait_for_end()
                case "QUIT":
                    self._say("221 bye")
                    return
                case _:
                    self._say("250 fine")

    def _greet(self, smtp: SmtpServer) -> None:
        offers = ["here"]
        if smtp.certificate is not None and not self._protected:
            offers.append("STARTTLS")
        if smtp.users is not None:
            offers.append("AUTH PLAIN")
        for offer in offers[:-1]:
            self._say(f"250-{offer}")
        self._say(f"250 {offers[-1]}")

    def _protect(self, smtp: SmtpServer) -> None:
        assert smtp.certificate is not None
        protected = smtp.certificate.context().wrap_socket(self._link, server_side=True)
        self._link = self._open_ends.enter_context(protected)
        self.server.watch(protected)

    def _log_in(self, smtp: SmtpServer, rest: str) -> None:
        _, _, encoded = rest.partition(" ")
        _, user, password = base64.b64decode(encoded).decode().split("\0")
        if (smtp.users or {}).get(user) == password:
            self._user = user
            self._say("235 welcome")
        else:
            self._say("535 wrong")

    def _take(self, smtp: SmtpServer, sender: str, receivers: tuple[str, ...]) -> bool:
        """False to hang up."""
        self._say("354 go on")
        content = b""
        while (line := self._lines.readline()) not in (b".\r\n", b""):
            content += line.removeprefix(b".") if line.startswith(b"..") else line
        if smtp.refuses_content:
            self._say("554 this looks like spam")
            return True
        if smtp.cuts and smtp.cuts.encode() in content:
            return False
        lines = content.replace(b"\r\n", b"\n")
        message = cast(EmailMessage, message_from_bytes(lines, policy=policy.default))
        smtp.take(Taken(sender, receivers, message, self._user, self._protected))
        self.server.wait_for_end(smtp.thinks_s)
        self._say("250 taken")
        return True

    def _say(self, line: str) -> None:
        self._link.sendall(line.encode() + b"\r\n")


def _address(rest: str) -> str:
    return rest.partition("<")[2].partition(">")[0]
