from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from cyclone.errors import RecordError, RuleBroken
from cyclone.lustre.records import FileCreation, FileCreationRound
from cyclone.metrics.family import Labels
from cyclone.metrics.legacy import ERROR, LegacyChecks
from cyclone.metrics.series import CurrentSeries
from cyclone.record import Record

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


class Client:
    """Takes texts and ends intervals as the daemon does, a second apart."""

    def __init__(self) -> None:
        self.checks = LegacyChecks(KINDS)
        self.series = CurrentSeries([*KINDS.values(), self.checks.kind], stale_after_s=10)
        self.now = 0.0

    def hear(self, *texts: bytes) -> None:
        for text in texts:
            self.take(self.checks.read(text, NOON))

    def end_interval(self) -> None:
        for record in self.checks.end_interval():
            self.take(record)

    def take(self, record: Record) -> None:
        self.now += 1
        self.series.take(None, record, self.now, self.now)

    def shown(self, name: str) -> dict[Labels, float]:
        found = {family.declaration.name: dict(family.samples) for family in self.series.families()}
        return found.get(name, {})


def test_an_error_is_shown_until_an_interval_has_passed_without_one() -> None:
    client = Client()
    client.hear(b"hebe|ERROR")

    shown = []
    for _ in range(2):
        client.end_interval()
        shown.append(client.shown(ERROR))

    assert shown == [{("hebe",): 1}, {("hebe",): 0}]


def test_errors_in_each_interval_are_never_taken_back() -> None:
    client = Client()
    shown = []
    for _ in range(3):
        client.hear(b"hebe|ERROR", b"hebe|OK|0|1")
        client.end_interval()
        shown.append(client.shown(ERROR))

    assert shown == [{("hebe",): 1}] * 3


def test_a_target_without_errors_is_told_of_as_long_as_its_texts_come_and_never_falls_silent() -> None:
    client = Client()
    client.hear(b"hebe|ERROR")
    client.end_interval()

    for _ in range(20):
        client.hear(b"hebe|OK|0|1", b"hebe|FAILED|1|1")
        client.end_interval()
        client.series.expire(client.now)

    assert client.shown(ERROR) == {("hebe",): 0}
    assert client.series.figures.stale == 0


def test_no_errors_are_no_news_of_a_target_that_nothing_is_heard_of() -> None:
    client = Client()
    client.hear(b"hebe|ERROR", b"lustre|OK|0|1")
    for _ in range(2):
        client.end_interval()

    assert client.checks.end_interval() == []


def test_an_interval_without_errors_counts_none() -> None:
    client = Client()
    client.hear(b"hebe|OK|0|1", b"lustre|ERROR")

    for _ in range(3):
        client.end_interval()

    assert client.shown("cyclone_lustre_file_creation_errors_total") == {("lustre", "ERROR"): 1}


def test_texts_may_come_of_so_many_targets_in_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cyclone.metrics.legacy.TARGETS_MOST", 2)
    client = Client()
    client.hear(b"hebe|ERROR", b"lustre|OK|0|1")

    with pytest.raises(RecordError, match="found 'junk', expected 2 targets"):
        client.hear(b"junk|ERROR")

    client.hear(b"hebe|ERROR", b"lustre|OK|0|1")
    assert client.shown("cyclone_lustre_file_creation_errors_total") == {("hebe", "ERROR"): 2}
    client.end_interval()
    client.hear(b"junk|ERROR")
    assert client.shown(ERROR) == {("hebe",): 1, ("lustre",): 0, ("junk",): 1}


def test_text_that_is_refused_is_not_heard_of() -> None:
    client = Client()
    with pytest.raises(RecordError):
        client.hear(b"a name too long for a file system|OK|0|12")

    assert client.checks.end_interval() == []


def test_the_longest_name_of_a_target_can_be_read() -> None:
    name = b"x" * 64

    record = LegacyChecks(KINDS).read(name + b"|ERROR", NOON)

    assert msgspec.structs.asdict(record)["target"] == name.decode()


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
