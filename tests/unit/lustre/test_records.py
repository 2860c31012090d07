from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from cyclone.errors import RecordError
from cyclone.lustre.records import FileCreation, FileCreationRound, MonitoringRound, OstPerformance
from cyclone.metrics.series import CurrentSeries
from cyclone.record import Record, decode, encode, fields, table

KINDS = [OstPerformance, FileCreation, FileCreationRound, MonitoringRound]
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def performance(**given: Any) -> OstPerformance:
    return OstPerformance(**{"fs": "lustre", "ost": 3, "state": "OK", "size": 1000, **given})


def creation(**given: Any) -> FileCreation:
    pair = {"target": "lustre", "mdt_index": 1, "ost_index": 3, "state": "OK", "checked_at": NOON}
    return FileCreation(**{**pair, **given})


def shown(*records: Record) -> dict[str, dict[tuple[str, ...], float]]:
    """`{metric: {values of its labels: number}}` when these were recorded one after the other."""
    series = CurrentSeries(KINDS, stale_after_s=1000)
    for number, record in enumerate(records):
        series.take(number.to_bytes(16, "big"), record, at=100.0 + number, now=200.0)
    return {family.declaration.name: dict(family.samples) for family in series.families()}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_declared_soundly(kind: type[Record]) -> None:
    assert fields(kind)


def test_the_table_of_performance_has_the_columns_that_sites_know() -> None:
    assert table(OstPerformance) == "ost_perf_history"
    assert [field.name for field in fields(OstPerformance)] == [
        "fs", "ost", "state", "size", "write_timestamp", "read_timestamp", "write_throughput", "read_throughput",
        "write_duration", "read_duration", "host", "error", "read_mode",
    ]  # fmt: skip


def test_metrics_have_the_names_that_dashboards_know() -> None:
    named = {metric.name: metric.labels for kind in KINDS for metric in kind.metrics}

    pair = ("target", "mdt_index", "ost_index")
    assert named["cyclone_lustre_file_creation_check"] == pair
    assert named["cyclone_lustre_file_creation_check_timestamp_seconds"] == pair
    assert named["cyclone_lustre_file_creation_check_duration_seconds"] == pair
    assert named["cyclone_lustre_file_creation_error"] == ("target",)
    assert named["cyclone_lustre_file_creation_errors_total"] == ("target", "reason")
    assert named["cyclone_ost_state"] == ("fs", "ost", "state")
    for direction in ("write", "read"):
        assert named[f"cyclone_ost_{direction}_seconds"] == ("fs", "ost")
        assert named[f"cyclone_ost_{direction}_bytes_per_second"] == ("fs", "ost")


def test_what_was_not_measured_has_no_series() -> None:
    known = shown(
        performance(write_duration=0.5, write_throughput=2000), performance(ost=4, state="WRITE_FAILED")
    )

    assert known["cyclone_ost_write_seconds"] == {("lustre", "3"): 0.5}
    assert known["cyclone_ost_write_bytes_per_second"] == {("lustre", "3"): 2000.0}
    assert "cyclone_ost_read_seconds" not in known


def test_an_ost_that_went_down_shows_its_old_figures_no_more() -> None:
    known = shown(performance(write_duration=0.5), performance(state="DOWN"))

    assert "cyclone_ost_write_seconds" not in known
    assert known["cyclone_ost_state"] == {("lustre", "3", "DOWN"): 1.0}


@pytest.mark.parametrize(
    ("state", "value"), [("OK", 1.0), ("FAILED", 0.0), ("ERROR", 0.0), ("DOWN", 0.0), ("TIMEOUT", 0.0)]
)
def test_a_pair_is_one_only_if_a_file_could_be_made(state: str, value: float) -> None:
    known = shown(creation(state=state))

    assert known["cyclone_lustre_file_creation_check"] == {("lustre", "1", "3"): value}


def test_the_time_of_a_check_is_told_so_that_old_and_fresh_differ() -> None:
    known = shown(creation(create_seconds=0.25, unlink_seconds=0.5))

    pair = ("lustre", "1", "3")
    assert known["cyclone_lustre_file_creation_check_timestamp_seconds"] == {pair: NOON.timestamp()}
    assert known["cyclone_lustre_file_creation_check_duration_seconds"] == {pair: 0.75}


@pytest.mark.parametrize("state", ["DOWN", "INACTIVE", "UNKNOWN", "HUNG"])
def test_a_pair_on_which_nothing_was_tried_has_no_time_of_a_check(state: str) -> None:
    known = shown(creation(), creation(state=state))

    assert "cyclone_lustre_file_creation_check_timestamp_seconds" not in known
    assert known["cyclone_lustre_file_creation_check"] == {("lustre", "1", "3"): 0.0}


def test_of_an_ost_that_is_expected_no_more_nothing_is_shown() -> None:
    known = shown(
        performance(write_duration=0.5), performance(state="DOWN"), performance(state="RETIRED"),
        creation(), creation(state="RETIRED"),
    )  # fmt: skip

    assert known == {}


def test_errors_are_counted_by_reason_and_success_takes_nothing_back() -> None:
    known = shown(
        creation(state="ERROR", reason="ENOSPC"),
        creation(state="ERROR", reason="ENOSPC", ost_index=4),
        creation(state="TIMEOUT", reason="TIMEOUT"),
        creation(),
    )

    assert known["cyclone_lustre_file_creation_errors_total"] == {
        ("lustre", "ENOSPC"): 2.0,
        ("lustre", "TIMEOUT"): 1.0,
    }


def test_an_ost_that_somebody_has_switched_off_counts_as_no_error() -> None:
    known = shown(creation(state="INACTIVE", reason="INACTIVE"), creation(state="DOWN", reason="DOWN"))

    assert known["cyclone_lustre_file_creation_errors_total"] == {("lustre", "DOWN"): 1.0}


def test_the_error_of_a_file_system_is_that_of_its_newest_round() -> None:
    bad = FileCreationRound(target="lustre", started_at=NOON, pairs=6, errors=2)
    good = FileCreationRound(target="lustre", started_at=NOON, pairs=6, errors=0)

    assert shown(bad)["cyclone_lustre_file_creation_error"] == {("lustre",): 1.0}
    assert shown(bad, good)["cyclone_lustre_file_creation_error"] == {("lustre",): 0.0}


def test_the_counts_of_a_round_are_shown() -> None:
    known = shown(
        MonitoringRound(
            fs="lustre", task="LustreIOTask", started_at=NOON, duration=3.5,
            expected=10, ok=4, failed=3, down=2, hung=1, skipped=0,
        )
    )  # fmt: skip

    labels = ("lustre", "LustreIOTask")
    assert known["cyclone_ost_round_expected"] == {labels: 10.0}
    assert known["cyclone_ost_round_hung"] == {labels: 1.0}
    assert known["cyclone_ost_round_duration_seconds"] == {labels: 3.5}


@pytest.mark.parametrize(
    "wrong", [{"ost": -1}, {"ost": 65536}, {"fs": ""}, {"fs": "x" * 17}, {"write_duration": -0.1}, {"error": "x" * 1025}]
)  # fmt: skip
def test_a_value_that_no_column_would_take_is_refused(wrong: dict[str, Any]) -> None:
    given = {"fs": "lustre", "ost": 3, "state": "OK", "size": 1000, **wrong}

    with pytest.raises(RecordError):
        encode(OstPerformance, given)


def test_a_record_arrives_as_it_was_sent() -> None:
    row = creation(actual_ost=4, state="FAILED", errno=5, error="text")

    values = {name: getattr(row, name) for name in row.__struct_fields__}
    assert decode(FileCreation, encode(FileCreation, values)) == row
