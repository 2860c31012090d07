"""What systemd is told of a daemon that it has started: sd_notify(3), sd_watchdog_enabled(3)."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import MutableMapping
from typing import Self

log = logging.getLogger(__name__)

_SOCKET, _WATCHDOG_USEC, _WATCHDOG_PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"


class ServiceManager:
    """Owns the way to whoever has started this daemon, if they want to be told anything.

    alive_every_s: how often they want to hear that it is alive; None: never.
    """

    def __init__(self, address: str = "", alive_every_s: float | None = None) -> None:
        """address: of a Unix datagram socket, `@` first if it is an abstract one; "" tells nobody."""
        self.alive_every_s = alive_every_s if address else None
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) if address else None
        )
        self._trouble = ""

    @classmethod
    def take(cls, environment: MutableMapping[str, str]) -> Self:
        """As the environment says, which says it no more then: no task may speak for the daemon."""
        address = environment.pop(_SOCKET, "")
        period_us, pid = environment.pop(_WATCHDOG_USEC, ""), environment.pop(_WATCHDOG_PID, "")
        is_meant = pid in ("", str(os.getpid()))
        # Half of the time after which it is given up, as sd_watchdog_enabled(3) recommends.
        alive_every_s = (
            int(period_us) / 2e6 if is_meant and period_us.isdecimal() and int(period_us) else None
        )
        return cls(address, alive_every_s)

    def ready(self, status: str) -> None:
        """It serves from now on. status: a line for people."""
        self._tell(f"READY=1\nSTATUS={status}")

    def stopping(self, status: str) -> None:
        self._tell(f"STOPPING=1\nSTATUS={status}")

    def alive(self) -> None:
        self._tell("WATCHDOG=1")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def _tell(self, text: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto(text.encode(), self._address)
        except OSError as error:
            # Once, not every few seconds; whoever does not hear of us will do something about it.
            if error.strerror != self._trouble:
                log.warning(
                    "the service manager cannot be told %s: %s", text.partition("\n")[0], error.strerror
                )
            self._trouble = error.strerror or ""
        else:
            self._trouble = ""
