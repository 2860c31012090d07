"""What is shown, served to whoever scrapes it."""

from __future__ import annotations

import logging
import socket
import socketserver
import sys
import threading
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import MetricsHandler
from prometheus_client.exposition import choose_encoder

from cyclone.errors import AddressError
from cyclone.metrics.exposition import Exposition
from cyclone.wire.complaints import Complaints

log = logging.getLogger(__name__)

#: A client that is silent for so long within a request is cut off.
SILENCE_S = 10.0

#: So many clients are served at a time; the oldest is cut off for one more, so that nobody can keep others away.
CLIENTS_MOST = 16


class ScrapeEndpoint:
    """Owns a listening socket, the thread that accepts from it, and a thread for each client.

    They take what was shown last and ask the loop of the daemon for nothing.
    """

    def __init__(self, exposition: Exposition, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen, and serve `/metrics` from now on.

        host: unless another address is named, only this machine can ask; there is neither password nor encryption.
        port: 0 takes any that is free.
        Raises AddressError when it cannot be listened on.
        """
        handler = type("_Handler", (_Handler,), {"registry": exposition})
        try:
            self._server = _Server(host, port, handler)
        except (OSError, OverflowError, UnicodeError) as error:  # the last one of names such as a..b
            raise AddressError(f"{host}:{port} cannot be listened on: {error}") from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="scrape endpoint", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        port: int = self._server.server_address[1]
        return port

    def close(self) -> None:
        """Cut off whoever is being served, and return when every thread has ended."""
        # Otherwise the thread looks only twice a second whether it is to end.
        self._server.socket.shutdown(socket.SHUT_RDWR)
        self._server.shutdown()
        self._thread.join()
        self._server.cut_off_all()
        self._server.server_close()


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Not an `HTTPServer`, which asks the resolver for the name of its host before it listens."""

    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, host: str, port: int, handler: type[socketserver.BaseRequestHandler]) -> None:
        [(family, _, _, _, address), *_] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        self.address_family = family
        self._clients: dict[socket.socket, None] = {}  # oldest first
        self._complaints = Complaints()
        self._lock = threading.Lock()
        super().__init__((str(address[0]), port), handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._clients[request] = None
            crowd = list(self._clients)[:-CLIENTS_MOST]
        for client in crowd:
            _cut_off(client)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._clients.pop(request, None)
        super().shutdown_request(request)

    def cut_off_all(self) -> None:
        with self._lock:
            clients = list(self._clients)
        for client in clients:
            _cut_off(client)

    def complain(self, reason: str, client_address: Any, detail: str) -> None:
        """Whoever reaches the port may bring about as many of these as they like, so few get into the log."""
        with self._lock:
            self._complaints.add(reason, str(client_address[0]), detail)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Called by the library while the exception is being handled."""
        error = sys.exception()
        if isinstance(error, OSError):
            log.debug("scrape was cut short client=%s", client_address)
        else:
            self.complain("scrape failed", client_address, repr(error))
            log.debug("scrape failed client=%s", client_address, exc_info=True)


class _Handler(MetricsHandler):
    server: _Server
    timeout = SILENCE_S
    server_version, sys_version = "cyclone", ""

    def do_GET(self) -> None:
        try:
            path = urlsplit(self.path).path
            # What the library will do with it: there it would end the thread without an answer.
            choose_encoder(self.headers.get("Accept", ""))
        except (ValueError, TypeError) as error:
            self.server.complain("no request for metrics", self.client_address, repr(error))
            self.send_error(400, "expected /metrics, and a version in Accept made of numbers")
        else:
            if path == "/metrics":
                super().do_GET()
            else:
                self.send_error(404, "what is to be seen here is at /metrics")


def _cut_off(client: socket.socket) -> None:
    try:
        # Its thread reads the end of the request then, and closes it.
        client.shutdown(socket.SHUT_RDWR)
    except OSError:
        log.debug("a client was gone before it was cut off")
