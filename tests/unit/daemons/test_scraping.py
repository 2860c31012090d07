"""What a daemon without the packages of an extra says, and what it shows with them."""

from __future__ import annotations

import sys
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

import pytest

from cyclone.daemons import pushgateway_client
from cyclone.daemons.scraping import SHOW_S, Scraping
from cyclone.errors import ConfigError
from cyclone.ini import Ini
from cyclone.metrics.family import Declaration, Family
from cyclone.process.service_manager import ServiceManager
from cyclone.sinks.settings import PushgatewayClientSettings


class Wanted(NamedTuple):
    metrics_port: int | None = 0
    metrics_target: str = "127.0.0.1"


#: What cannot be imported without the package.
NEEDING = {
    "prometheus_client": (
        "cyclone.metrics.exposition",
        "cyclone.metrics.endpoint",
        "cyclone.daemons.gateway",
    ),
    "requests": ("cyclone.metrics.push", "cyclone.daemons.gateway"),
}


def lack(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """As if it were not installed, and nothing of what needs it were imported yet."""
    for name in NEEDING[package]:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, package, None)


def up(value: float) -> list[Family]:
    return [Family(Declaration("up_and_well", "Whether it is."), {(): value})]


def body(scraping: Scraping) -> str:
    assert scraping._endpoint is not None
    connection = HTTPConnection("127.0.0.1", scraping._endpoint.port, timeout=20)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def test_what_is_shown_is_made_anew_once_it_is_old() -> None:
    scraping = Scraping(Wanted())

    scraping.show(100.0, lambda: up(1))
    scraping.show(100.0 + SHOW_S / 2, lambda: up(2))
    young = body(scraping)
    scraping.show(100.0 + SHOW_S, lambda: up(3))
    old = body(scraping)
    scraping.close()

    assert "up_and_well 1.0" in young
    assert "up_and_well 3.0" in old


def test_who_wants_no_metrics_needs_no_package_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    lack(monkeypatch, "prometheus_client")

    scraping = Scraping(Wanted(metrics_port=None))

    scraping.show(100.0, lambda: pytest.fail("nobody can ask for it"))
    scraping.close()


def test_who_wants_metrics_is_told_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    lack(monkeypatch, "prometheus_client")

    with pytest.raises(
        ConfigError, match=r"\[metrics\] port: needs prometheus_client.*cyclone\[prometheus\]"
    ):
        Scraping(Wanted())


@pytest.mark.parametrize("package", NEEDING)
def test_the_pushgateway_client_says_what_it_needs(
    package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lack(monkeypatch, package)
    settings = PushgatewayClientSettings.of(
        Ini(
            {"push": {"url": "http://gateway"}, "comm": {"port": "0"}, "security": {"key_dir": str(tmp_path)}}
        )
    )

    with pytest.raises(ConfigError, match=f"needs {package}.*cyclone.prometheus."):
        pushgateway_client.serve(settings, ServiceManager())
