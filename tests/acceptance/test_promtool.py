"""What Prometheus itself says of our metrics, of the alert rules and of the dashboard."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from house.test_dashboards import ALERT_TESTS, ALERTS, exposed, targets

from cyclone.metrics.exposition import render
from cyclone.metrics.family import Family
from cyclone.metrics.own import OWN


def promtool(command: str, what: str, *files: Path, text: bytes = b"") -> None:
    """It ends well; of metrics it has nothing to say at all."""
    found = subprocess.run(["promtool", command, what, *files], input=text, capture_output=True, check=False)
    said = found.stdout + found.stderr
    assert found.returncode == 0, said
    assert not text or said == b""


def test_alerts_fire_when_they_should() -> None:
    promtool("test", "rules", ALERT_TESTS)


def test_the_alerts_can_be_loaded() -> None:
    promtool("check", "rules", ALERTS)


def test_the_expressions_of_the_dashboard_can_be_parsed(tmp_path: Path) -> None:
    expressions = [re.sub(r"\$__rate_interval", "5m", expression) for expression, _ in targets()]
    rules = [{"record": f"panel:{number}", "expr": each} for number, each in enumerate(expressions)]
    file = tmp_path / "dashboard.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))

    promtool("check", "rules", file)


@pytest.mark.parametrize("whose", ["own", "kinds"])
def test_metrics_are_named_as_prometheus_wants_it(whose: str) -> None:
    own = render([Family(each, {tuple("x" for _ in each.labels): 1}) for each in OWN])

    promtool("check", "metrics", text=own if whose == "own" else exposed())
