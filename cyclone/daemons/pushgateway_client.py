"""`cyclone-pushgateway-client`: shows what tasks record to Prometheus, through a Pushgateway or by itself."""

from __future__ import annotations

import sys

from cyclone.daemons.entry import run_daemon
from cyclone.daemons.scraping import not_installed
from cyclone.daemons.sink import Sink
from cyclone.errors import ConfigError
from cyclone.sinks.settings import PushgatewayClientSettings


def serve(settings: PushgatewayClientSettings) -> int:
    try:
        # Only here, so that whoever lacks a package is told so in a sentence.
        from cyclone.daemons.gateway import Gateway
    except ModuleNotFoundError as error:
        raise ConfigError(not_installed(error)) from None
    sink = Sink(settings, settings.port)
    try:
        gateway = Gateway(settings)
        gateway.start()
    except BaseException:
        sink.close()
        raise
    return sink.serve(gateway)


def main() -> int:
    """Entry point of `cyclone-pushgateway-client`."""
    what = "Show what tasks record to Prometheus: push it to a Pushgateway, or be scraped."
    return run_daemon("pushgateway-client", what, PushgatewayClientSettings, serve)


if __name__ == "__main__":
    sys.exit(main())
