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

    def __init__(self, client: Client, interval_s: float) -> None:
        """client: from now on the watch's, which closes it."""
        self.cluster: Cluster | None = None
        self._client, self._interval_s = client, interval_s
        self._told_trouble = ""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="master watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Return when the thread has ended, which does not wait for an answer any more."""
        self._stopping.set()
        self._thread.join()

    def look(self) -> None:
        """Ask once; done by the thread."""
        # Answers that came too late are for nobody; each is a picture of the whole cluster.
        self._client.receive()
        try:
            answer = self._client.ask(
                AskCluster(request=0), timeout_s=ANSWER_S, given_up=self._stopping.is_set
            )
        except CycloneError as error:
            self._lost(str(error))
            if self._client.line.refused_reason is not None:
                self._client.line.reconnect()
            return
        self.cluster = answer if isinstance(answer, Cluster) else None
        if self._told_trouble:
            log.info("the master answers again")
        self._told_trouble = ""

    def _run(self) -> None:
        with contextlib.closing(self._client):
            while not self._stopping.is_set():
                try:
                    self.look()
                except Exception as error:
                    # A bug here must not leave the last picture standing for as long as the daemon lives.
                    log.exception("the master cannot be asked")
                    self._lost(repr(error))
                self._stopping.wait(self._interval_s)

    def _lost(self, trouble: str) -> None:
        self.cluster = None
        if trouble != self._told_trouble and not self._stopping.is_set():
            self._told_trouble = trouble
            log.warning("no answer from the master: %s", trouble)


def master_client(settings: PushgatewayClientSettings) -> Client:
    """Speaks to the master that the settings name. Raises ConfigError, KeyFileError."""
    host, port = host_and_port(settings.master, settings.ini_file, "master", "address")
    own = load_pair(settings.key_dir, "client") if settings.curve else None
    master = load_public(settings.key_dir, "master") if settings.curve else None
    life, address = secrets.token_hex(8), endpoint(host, port)
    return Client(address, own, master, instance="pushgateway-client", life=life, ipv6=is_ipv6(host))
