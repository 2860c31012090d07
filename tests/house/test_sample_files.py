"""The sample files and what the code says of its settings are the same thing."""

from __future__ import annotations

from pathlib import Path

import pytest

from cyclone.generators.benchmark import BenchmarkSettings
from cyclone.generators.checksum import ChecksumSettings
from cyclone.generators.task_list import TaskListSettings
from cyclone.ini import Ini
from cyclone.lustre.migration.settings import MigrationSettings
from cyclone.lustre.monitoring_settings import MonitoringSettings
from cyclone.plugins import load_class
from cyclone.settings import ANY_KEY, ClientSettings, ControllerSettings, MasterSettings, Settings
from cyclone.sinks.settings import DatabaseProxySettings, PushgatewayClientSettings
from cyclone.task_file import TaskFile
from cyclone.task_generator import TaskGenerator

ROOT = Path(__file__).parents[2]

SAMPLES: dict[str, type[Settings]] = {
    "master.conf": MasterSettings,
    "controller.conf": ControllerSettings,
    "database-proxy.conf": DatabaseProxySettings,
    "pushgateway-client.conf": PushgatewayClientSettings,
    "LustreOstMigrationTaskGenerator.conf": MigrationSettings,
    "LustreOstMonitoringTaskGenerator.conf": MonitoringSettings,
    "benchmark.conf": BenchmarkSettings,
    "checksum.conf": ChecksumSettings,
    "task-list.conf": TaskListSettings,
}

samples = pytest.mark.parametrize(("name", "kind"), SAMPLES.items())


@pytest.fixture(autouse=True)
def _in_a_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def keys_and_comments(name: str) -> dict[tuple[str, str], list[str]]:
    """`{(section, key): the comment lines right above it}`; free sections under `ANY_KEY`."""
    found: dict[tuple[str, str], list[str]] = {}
    section, comment = "", []
    for line in (ROOT / "Configuration" / name).read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line.startswith("#"):
            comment.append(line)
            if line.startswith("# Example: "):
                found[section, ANY_KEY] = comment[:-1]
            continue
        elif "=" in line:
            found[section, line.partition("=")[0].strip()] = comment
        comment = []
    return found


@samples
def test_a_sample_file_is_accepted(name: str, kind: type[Settings]) -> None:
    kind.read(ROOT / "Configuration" / name)


@samples
def test_a_sample_file_holds_every_key_and_no_other(name: str, kind: type[Settings]) -> None:
    known = {(setting.section, setting.key) for setting in kind.schema()}

    assert set(keys_and_comments(name)) == known


@samples
def test_a_sample_file_explains_each_key_with_unit_and_default(name: str, kind: type[Settings]) -> None:
    comments = keys_and_comments(name)

    assert comments == {(one.section, one.key): one.comment() for one in kind.schema()}


@samples
def test_every_default_is_a_value_that_is_accepted(name: str, kind: type[Settings]) -> None:
    sample = Ini.read(ROOT / "Configuration" / name)
    required: dict[str, dict[str, str]] = {}
    for one in kind.schema():
        if one.default is None:
            required.setdefault(one.section, {})[one.key] = sample[one.section][one.key]

    kind.of(Ini(required))


def test_the_sample_master_names_a_generator_that_accepts_its_own_sample() -> None:
    settings = MasterSettings.read("Configuration/master.conf")

    kind = load_class(settings.generator_module, settings.generator_class, TaskGenerator)

    assert kind.__name__ == "ChecksumTaskGenerator"


def test_the_samples_of_master_and_controller_fit_together() -> None:
    master = ClientSettings.read("Configuration/master.conf")
    controller = ClientSettings.read("Configuration/controller.conf")

    assert master == controller


def test_the_sample_task_file_is_accepted() -> None:
    assert set(TaskFile.read("Configuration/tasks.xml").presets) == {
        "empty", "sleep", "checksum", "disk-usage",
    }  # fmt: skip
