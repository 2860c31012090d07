"""What a daemon shows to Prometheus when it is asked directly."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from cyclone.errors import ConfigError
from cyclone.plugins import not_installed

if TYPE_CHECKING:
    from cyclone.metrics.family import Family

log = logging.getLogger("metrics")

#: What is shown is at most so old.
SHOW_S = 1.0


class _Settings(Protocol):
    @property
    def metrics_port(self) -> int | None: ...

    @property
    def metrics_target(self) -> str: ...


class Scraping:
    """Owns the endpoint, if one is wanted, and how old what it shows is. The loop of a daemon never waits for it."""

    def __init__(self, settings: _Settings) -> None:
        """Listens from now on. Raises AddressError, and ConfigError where what it needs is not installed."""
        self._shown_at = float("-inf")
        self._endpoint = None
        if settings.metrics_port is None:
            return
        try:
            # Only here, so that nobody needs the library who does not want metrics.
            from cyclone.metrics.endpoint import ScrapeEndpoint
            from cyclone.metrics.exposition import Exposition
        except ModuleNotFoundError as error:
            raise ConfigError(not_installed(error), section="metrics", key="port") from None
        self._exposition = Exposition()
        self._endpoint = ScrapeEndpoint(self._exposition, settings.metrics_target, settings.metrics_port)
        log.info("metrics port=%d", self._endpoint.port)

    def show(self, now: float, families: Callable[[], Iterable[Family]]) -> None:
        """Show these in a while, if it is time to. now: monotonic. families: called only then."""
        if self._endpoint is not None and now - self._shown_at >= SHOW_S:
            self._shown_at = now
            self._exposition.show("own", families())

    def close(self) -> None:
        if self._endpoint is not None:
            self._endpoint.close()
