"""What the keeper of the Pushgateway client shows of what it has heard."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from cyclone.daemons import gateway
from cyclone.daemons.gateway import Gateway, check
from cyclone.errors import ConfigError
from cyclone.ini import Ini
from cyclone.lustre.records import FileCreation
from cyclone.messages import Entry
from cyclone.record import encode
from cyclone.sinks.inquiry import Traced
from cyclone.sinks.settings import PushgatewayClientSettings

CHECK = {
    "target": "hebe", "mdt_index": 0, "ost_index": 12, "state": "OK", "checked_at": datetime(2026, 11, 20, tzinfo=UTC),
}  # fmt: skip
SHOWN = 'cyclone_lustre_file_creation_check{mdt_index="0",ost_index="12",target="hebe"} 1.0'


def settings_of(directory: Path, **push: object) -> PushgatewayClientSettings:
    given = {"url": "", "interval": 60, "textfile": directory / "cyclone.prom", **push}
    sections = {
        "control": {"pid_file": str(directory / "client.pid")},
        "push": {key: str(value) for key, value in given.items()},
    }
    return PushgatewayClientSettings.of(Ini(sections))


def entry(number: int, kind: str = "file_creation") -> Entry:
    at = datetime.now(UTC).timestamp()
    return Entry(number.to_bytes(16), "pushgateway", kind, "job", "tid", at, encode(FileCreation, CHECK))


def written(directory: Path) -> str:
    file = directory / "cyclone.prom"
    return file.read_text() if file.exists() else ""


def test_what_it_has_heard_is_written_when_an_interval_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(gateway, "monotonic", lambda: now)
    keeper = Gateway(settings_of(tmp_path))
    keeper.keep([entry(1)])

    now += 59
    keeper.tick()
    before = written(tmp_path)
    now += 1
    keeper.tick()

    assert before == ""
    assert SHOWN in written(tmp_path)


@pytest.mark.parametrize("occasion", [Gateway.flush, Gateway.finish])
def test_neither_whoever_asks_for_it_nor_the_end_waits_for_the_interval(tmp_path: Path, occasion) -> None:
    keeper = Gateway(settings_of(tmp_path))
    keeper.keep([entry(1)])

    occasion(keeper)

    assert SHOWN in written(tmp_path)


def test_the_file_is_taken_away_at_the_end_where_that_is_wanted(tmp_path: Path) -> None:
    keeper = Gateway(settings_of(tmp_path, delete_on_exit="on"))
    keeper.keep([entry(1)])
    keeper.flush()
    before = written(tmp_path)

    keeper.finish()

    assert SHOWN in before
    assert written(tmp_path) == ""


def test_what_is_no_record_is_counted_and_the_rest_is_shown(tmp_path: Path) -> None:
    keeper = Gateway(settings_of(tmp_path))

    keeper.keep([entry(1, "unheard_of"), entry(2)])
    keeper.keep_texts([b"nonsense", b"hebe|FAILED|1|12"])
    keeper.flush()

    text = written(tmp_path)
    assert "cyclone_pushgateway_records_received_total 4.0" in text
    assert "cyclone_pushgateway_records_invalid_total 2.0" in text
    assert SHOWN in text
    assert SHOWN.replace('"0"', '"1"').replace("1.0", "0.0") in text


def test_a_file_that_cannot_be_written_is_its_trouble(tmp_path: Path) -> None:
    keeper = Gateway(settings_of(tmp_path, textfile=tmp_path / "nowhere" / "cyclone.prom"))
    before = keeper.standing()

    keeper.flush()

    assert before == (0, "", 0)
    assert "cannot be written" in keeper.standing().trouble


def test_a_url_that_is_none_is_refused_by_its_key(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, url="gateway:9091")

    for refusing in (Gateway, check):
        with pytest.raises(ConfigError, match=r"\[push\] url: .*expected http://HOST:PORT"):
            refusing(settings)


@pytest.mark.parametrize(
    ("push", "problem"),
    [
        ({"textfile": ""}, r"\[push\] url: is empty, expected an URL, or a \[metrics\] port"),
        ({"textfile": "/var/cyclone.txt"}, r"\[push\] textfile: .*ends with \.prom"),
    ],
)
def test_settings_that_show_nothing_to_anybody_are_refused(
    tmp_path: Path, push: dict[str, str], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        settings_of(tmp_path, **push)


def test_it_says_that_it_cannot_be_asked_for_records(tmp_path: Path) -> None:
    keeper = Gateway(settings_of(tmp_path))
    answers: list[Traced] = []

    keeper.trace([bytes(16)], answers.append)
    keeper.finish()

    assert answers == [Traced([], keeps=False)]
