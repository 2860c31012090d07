"""`cyclone-pushgateway-client`: shows what tasks record to Prometheus, through a Pushgateway or by itself."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

from cyclone.daemons.entry import run_daemon
from cyclone.daemons.sink import Sink
from cyclone.errors import ConfigError
from cyclone.plugins import not_installed
from cyclone.process.service_manager import ServiceManager
from cyclone.sinks.settings import PushgatewayClientSettings


def serve(settings: PushgatewayClientSettings, manager: ServiceManager) -> int:
    gateway = _gateway()
    sink = Sink(settings, settings.port)
    try:
        keeper = gateway.Gateway(settings)
        keeper.start()
    except BaseException:
        sink.close()
        raise
    return sink.serve(keeper, manager)


def check(settings: PushgatewayClientSettings) -> None:
    """For `--check`: see `gateway.check`."""
    _gateway().check(settings)


def _gateway() -> ModuleType:
    """Only when it is needed, so that whoever lacks a package is told so in a sentence. Raises ConfigError."""
    try:
        return import_module("cyclone.daemons.gateway")
    except ModuleNotFoundError as error:
        raise ConfigError(not_installed(error)) from None


def main() -> int:
    """Entry point of `cyclone-pushgateway-client`."""
    what = "Show what tasks record to Prometheus: push it to a Pushgateway, or be scraped."
    return run_daemon("pushgateway-client", what, PushgatewayClientSettings, serve, check)


if __name__ == "__main__":
    sys.exit(main())
