from __future__ import annotations

from pathlib import Path

import pytest

from cyclone.errors import ConfigError
from cyclone.ini import Ini
from cyclone.lustre.migration.hours import Hours
from cyclone.lustre.migration.ost import Role
from cyclone.lustre.migration.plan import Bounds
from cyclone.lustre.migration.settings import (
    MigrationSettings,
    changed,
    read_oss_map,
)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "input").mkdir()
    (tmp_path / "oss.map").touch()
    monkeypatch.chdir(tmp_path)


def an_ini(**different: str | None) -> Ini:
    """`migration__max_tasks="3"` is a key of [migration]; None leaves one out."""
    sections: dict[str, dict[str, str]] = {
        "task": {"task_file": "tasks.xml", "task_name": "Migrate"},
        "migration": {
            "input_dir": "input",
            "ost_fill_level_threshold_source": "30",
            "ost_fill_level_threshold_target": "70",
            "ost_targets": "10-19",
        },
        "lustre": {"fs_path": "/lustre"},
    }
    for name, value in different.items():
        section, _, key = name.rpartition("__")
        keys = sections.setdefault(section.replace("__", "."), {})
        if value is None:
            del keys[key]
        else:
            keys[key] = value
    return Ini(sections, "migration.conf")


def settings(**different: str | None) -> MigrationSettings:
    return MigrationSettings.of(an_ini(**different))


def test_by_default_there_is_one_task_for_each_ost_and_it_never_ends() -> None:
    plan = settings().plan({})

    assert plan.targets == frozenset(range(10, 20))
    assert (plan.source_max_tasks, plan.target_max_tasks, plan.pair_max_tasks) == (1, 1, 1)
    assert (plan.oss_max_tasks, plan.ost_max_tasks, plan.max_tasks) == (0, 0, 0)
    assert (plan.retry_max, plan.retry_delay_s, plan.queue_most) == (3, 300, 1000)
    assert (plan.source_threshold, plan.target_threshold) == (30, 70)
    assert not settings().stop_when_done
    assert settings().settle_s == 60


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("control__local_mode", "perhaps"),
        ("control__local_mode__num_osts", "0"), ("control__local_mode__num_osts", "65537"),
        ("control__threshold__update_fill_level", "0"), ("control__threshold__update_fill_level", "3601"),
        ("control__threshold__reload_files", "0"), ("control__threshold__print_caches", "3601"),
        ("migration__ost_fill_level_threshold_source", "-1"), ("migration__ost_fill_level_threshold_source", "101"),
        ("migration__ost_fill_level_threshold_target", "0"), ("migration__ost_fill_level_threshold_target", "nan"),
        ("migration__ost_targets", ""), ("migration__ost_targets", "-1"), ("migration__ost_targets", "65536"),
        ("migration__ost_targets", "1,,2"), ("migration__ost_sources", "x"), ("migration__ost_exclude", "5-1"),
        ("migration__input_dir", "missing"), ("migration__source_max_tasks", "0"), ("migration__max_tasks", "-1"),
        ("migration__order", "lifo"), ("migration__cache_entries_per_ost", "0"), ("migration__min_size", "big"),
        ("migration__retry_max", "91"), ("migration__retry_delay", "-1"), ("migration__rate_mb_per_s", "-1"),
        ("migration__rate_files_per_s", "inf"), ("migration__time_window", "20-6"), ("migration__verify", "twice"),
        ("migration__target_reserve_gb", "-1"), ("migration__oss_map", "missing.map"), ("migration__oss_map", "auto"),
        ("migration__settle_time", "-1"), ("migration__unknown", "1"), ("migration__oss_max_tasks", "2"),
        ("lustre__fs_path", "lustre"), ("lustre__lfs_timeout", "0"), ("lustre__lfs_bin", ""),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_with_its_section_and_key(key: str, value: str) -> None:
    section, _, name = key.rpartition("__")

    with pytest.raises(ConfigError) as caught:
        settings(**{key: value})

    assert (caught.value.section, caught.value.key) == (section.replace("__", "."), name)


@pytest.mark.parametrize(
    "key",
    [
        "task__task_file",
        "task__task_name",
        "migration__input_dir",
        "migration__ost_targets",
        "lustre__fs_path",
    ],
)
def test_what_must_be_given_must_be_given(key: str) -> None:
    with pytest.raises(ConfigError, match="missing"):
        settings(**{key: None})


def test_thresholds_have_two_names() -> None:
    found = settings(
        migration__ost_fill_level_threshold_source=None, migration__ost_fill_threshold_source="12.5",
        migration__ost_fill_level_threshold_target=None, migration__ost_fill_threshold_target="80",
    )  # fmt: skip

    assert (found.source_threshold, found.target_threshold) == (12.5, 80)


def test_both_names_at_once_are_refused() -> None:
    with pytest.raises(ConfigError, match="as well"):
        settings(migration__ost_fill_threshold_source="10")


@pytest.mark.parametrize(
    ("different", "key"),
    [
        ({"migration__min_size": "2k", "migration__max_size": "1k"}, "min_size"),
        ({"migration__look_at_files": "off", "migration__order": "small_first"}, "look_at_files"),
        ({"migration__look_at_files": "off", "migration__max_size": "1k"}, "look_at_files"),
    ],
)
def test_values_that_do_not_go_together_are_refused(different: dict[str, str], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(**different)

    assert caught.value.key == key


def test_values_are_read_as_they_are_meant() -> None:
    found = settings(
        migration__min_size="4k", migration__max_size="1.5GiB", migration__time_window="20:00-06:00",
        migration__ost_exclude="1,3", migration__target_reserve_gb="2", migration__settle_time="0",
    )  # fmt: skip

    assert (found.min_size, found.max_size) == (4096, 1610612736)
    assert found.hours == Hours(20 * 60, 6 * 60)
    assert found.plan({}).excluded == {1, 3}
    assert found.plan({}).target_reserve_bytes == 2_000_000_000
    assert found.settle_s == 0
    assert [found.is_outsized(size) for size in (4095, 4096, 1610612736, 1610612737)] == [
        True,
        False,
        False,
        True,
    ]


def test_single_osts_have_bounds_of_their_own() -> None:
    sections = dict(an_ini().sections()) | {
        "migration.limits": {"0-2": "source:4 target:2", "7": "target:0", "8,9": "ost:1"}
    }
    plan = MigrationSettings.of(Ini(sections)).plan({})

    assert plan.bounds[1] == Bounds(source=4, target=2)
    assert [plan.limit(ost, Role.SOURCE) for ost in (0, 3, 7)] == [4, 1, 1]
    assert [plan.limit(ost, Role.TARGET) for ost in (0, 3, 7)] == [2, 1, 0]
    assert [plan.limit_of_both(ost) for ost in (0, 8)] == [None, 1]


@pytest.mark.parametrize(
    "limits",
    [
        {"x": "source:1"}, {"1": "source"}, {"1": "source:-1"}, {"1": "pair:1"}, {"1": "source:1 source:2"},
        {"1-3": "source:1", "3": "target:1"}, {"1": "source:999999"}, {"1": ""},
    ],
)  # fmt: skip
def test_wrong_bounds_are_refused(limits: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        MigrationSettings.of(Ini(dict(an_ini().sections()) | {"migration.limits": limits}))

    assert caught.value.section == "migration.limits"
    assert caught.value.key in limits


@pytest.mark.parametrize(
    ("different", "listed", "doubts"),
    [
        ({}, [1, 2], 0),
        ({}, [1, 10], 1),
        ({"migration__ost_sources": "1-2"}, [1, 10], 0),
        ({"migration__ost_sources": "10-12"}, [], 1),
        ({"migration__ost_fill_level_threshold_source": "70"}, [10], 0),
        ({"migration__ost_exclude": "10"}, [10], 0),
        ({"migration__ost_exclude": "10-19"}, [1], 1),
        ({"migration__ost_targets": "5"}, [5], 1),
    ],
)
def test_what_is_probably_not_meant_is_told(
    different: dict[str, str], listed: list[int], doubts: int
) -> None:
    assert len(settings(**different).doubts(listed)) == doubts


# Changes.


def test_a_key_can_be_changed_by_either_of_its_names() -> None:
    ini = changed(an_ini(), {"ost_fill_threshold_source": "40", "max_tasks": "7"})
    again = changed(ini, {"ost_fill_level_threshold_source": "50"})

    assert MigrationSettings.of(ini).source_threshold == 40
    assert MigrationSettings.of(ini).max_tasks == 7
    assert MigrationSettings.of(again).source_threshold == 50
    assert MigrationSettings.of(an_ini()).source_threshold == 30


def test_what_must_not_change_is_noticed_however_it_was_written() -> None:
    before = settings()
    after = settings(lustre__fs_path="/other", migration__dry_run="on", migration__max_tasks="3")

    assert before.fixed_but_changed(after) == ["[lustre] fs_path", "[migration] dry_run"]
    assert before.fixed_but_changed(settings(task__packages="/other")) == ["[task] packages"]
    assert before.fixed_but_changed(settings(migration__dry_run="off")) == []
    assert before.fixed_but_changed(settings(migration__dry_run="no", lustre__fs_path="/lustre/")) == []


# Servers.


def test_a_map_of_servers_is_read(tmp_path: Path) -> None:
    (tmp_path / "oss.map").write_text("# ours\noss1 0-2,9\n\noss2\t3 # new\n")

    found = read_oss_map(an_ini(), tmp_path / "oss.map")

    assert found == {0: "oss1", 1: "oss1", 2: "oss1", 9: "oss1", 3: "oss2"}


@pytest.mark.parametrize("line", ["oss1", "oss1 x", "oss1 1-3\noss2 3", "oss1 0-3\noss2 0", "\udcff"])
def test_a_map_that_makes_no_sense_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "oss.map").write_bytes(line.encode("utf-8", "surrogateescape"))

    with pytest.raises(ConfigError, match=r"oss\.map"):
        read_oss_map(an_ini(), tmp_path / "oss.map")
