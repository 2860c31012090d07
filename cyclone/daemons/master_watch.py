"""How the cluster does, asked of the master again and again."""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading

from cyclone.client import Client
from cyclone.errors import CycloneError
from cyclone.messages import AskCluster, Cluster
from cyclone.settings import endpoint, host_and_port, is_ipv6
from cyclone.sinks.settings import PushgatewayClientSettings
from cyclone.wire.keys import load_pair, load_public

log = logging.getLogger("pushgateway-client")

#: A master that does not answer within this time is down, as far as Prometheus is concerned.
ANSWER_S = 10.0


class MasterWatch:
    """Owns the thread that asks the master how the cluster does. cluster: its last answer, None if it gave none."""

    def __init__(self, settings: PushgatewayClientSettings) -> None:
        """Raises ConfigError, KeyFileError."""
        host, port = host_and_port(settings.master, settings.ini_file, "master", "address")
        own = load_pair(settings.key_dir, "client") if settings.curve else None
        master = load_public(settings.key_dir, "master") if settings.curve else None
        self.cluster: Cluster | None = None
        self._interval_s = settings.interval_s
        life, address = secrets.token_hex(8), endpoint(host, port)
        self._client = Client(
            address, own, master, instance="pushgateway-client", life=life, ipv6=is_ipv6(host)
        )
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="master watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(ANSWER_S + 1)

    def _run(self) -> None:
        with contextlib.closing(self._client):
            while not self._stopping.is_set():
                try:
                    answer = self._client.ask(AskCluster(request=0), timeout_s=ANSWER_S)
                except CycloneError as error:
                    if self.cluster is not None:
                        log.warning("no answer from the master: %s", error)
                    self.cluster = None
                else:
                    self.cluster = answer if isinstance(answer, Cluster) else None
                self._stopping.wait(self._interval_s)
