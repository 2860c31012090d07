from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cyclone.errors import RecordError, RuleBroken
from cyclone.lustre.records import FileCreation, FileCreationRound
from cyclone.metrics.family import Labels
from cyclone.metrics.legacy import LegacyChecks
from cyclone.metrics.series import CurrentSeries

KINDS = {kind.kind: kind for kind in (FileCreation, FileCreationRound)}
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
CHECK = "cyclone_lustre_file_creation_check"


def shown(*texts: bytes) -> dict[str, dict[Labels, float]]:
    """What these messages make of the series of today, `{metric: {labels: number}}`."""
    checks = LegacyChecks(KINDS)
    series = CurrentSeries([*KINDS.values(), checks.kind], stale_after_s=180)
    for second, text in enumerate(texts):
        series.take(None, checks.read(text, NOON), second, second)
    return {family.declaration.name: dict(family.samples) for family in series.families()}


def test_a_check_that_went_well_is_a_record_of_today() -> None:
    record = LegacyChecks(KINDS).read(b"hebe|OK|0|12", NOON)

    assert record == FileCreation(target="hebe", mdt_index=0, ost_index=12, state="OK", checked_at=NOON)


def test_the_series_have_the_names_and_labels_of_old() -> None:
    series = shown(b"hebe|OK|0|12", b"hebe|FAILED|1|12")

    assert series[CHECK] == {("hebe", "0", "12"): 1, ("hebe", "1", "12"): 0}
    assert set(series[f"{CHECK}_timestamp_seconds"].values()) == {NOON.timestamp()}
    assert series["cyclone_lustre_file_creation_errors_total"] == {("hebe", "FAILED"): 1}


def test_an_error_without_a_pair_is_counted_and_shown_for_its_target() -> None:
    series = shown(b"hebe|ERROR", b"hebe|ERROR", b"lustre|ERROR")

    assert series == {
        "cyclone_lustre_file_creation_error": {("hebe",): 1, ("lustre",): 1},
        "cyclone_lustre_file_creation_errors_total": {("hebe", "ERROR"): 2, ("lustre", "ERROR"): 1},
    }


def test_a_newer_round_takes_the_error_back() -> None:
    checks = LegacyChecks(KINDS)
    series = CurrentSeries([*KINDS.values(), checks.kind], stale_after_s=180)
    series.take(None, checks.read(b"hebe|ERROR", NOON), 1, 1)

    series.take(b"1", FileCreationRound(target="hebe", started_at=NOON, pairs=3, errors=0), 2, 2)

    [error] = [each for each in series.families() if each.declaration.name.endswith("_error")]
    assert error.samples == {("hebe",): 0}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"hebe",
        b"hebe|OK",
        b"hebe|OK|0",
        b"hebe|OK|0|12|13",
        b"hebe|OK|0|12\n",
        b"hebe|OK|-1|12",
        b"hebe|OK|0|x",
        b"hebe|OK|0|999999",
        b"hebe|OK|0|70000",
        b"hebe|IGNORED|0|12",
        b"hebe|ERROR|0|12",
        b"|OK|0|12",
        b"|ERROR",
        b"a name too long for a file system|OK|0|12",
        b"x" * 5000 + b"|ERROR",
        b"\xff|OK|0|12",
        "hebe|OK|٣|12".encode(),
        b'hebe"} 1\n|OK|0|twelve',
    ],
)
def test_other_text_is_refused(text: bytes) -> None:
    with pytest.raises(RecordError, match=r"text of Cyclone 2\.x"):
        LegacyChecks(KINDS).read(text, NOON)


@pytest.mark.parametrize("kinds", [{}, {"file_creation": FileCreation}])
def test_without_the_kinds_of_today_it_is_a_bug_to_ask(kinds: dict[str, type[FileCreation]]) -> None:
    with pytest.raises(RuleBroken, match=r"Cyclone 2\.x"):
        LegacyChecks(kinds)
