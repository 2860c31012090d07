from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from cyclone.cli import matrix
from cyclone.errors import ConfigError
from cyclone.lustre.records import FileCreation
from cyclone.metrics.exposition import render
from cyclone.metrics.series import CurrentSeries


def exposition(
    *bad: tuple[int, int], mdts: int = 2, osts: int = 4, target: str = "lustre", at: float = 1e9
) -> str:
    """What the Pushgateway client would show of so many pairs, of which these are bad."""
    series = CurrentSeries([FileCreation], stale_after_s=1e12)
    moment = datetime.fromtimestamp(at, UTC)
    for number, (mdt, ost) in enumerate((mdt, ost) for mdt in range(mdts) for ost in range(osts)):
        state = "ERROR" if (mdt, ost) in bad else "OK"
        record = FileCreation(target=target, mdt_index=mdt, ost_index=ost, state=state, checked_at=moment)
        series.take(number.to_bytes(16, "big"), record, at, at)
    return render(series.families()).decode()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command on a text and returns its exit code."""

    def run(text: str, *words: str) -> int:
        monkeypatch.setattr("sys.stdin", StringIO(text))
        return on("-", *words)

    return run


def on(source: str, *words: str) -> int:
    parser = matrix.argparse.ArgumentParser()
    matrix.add_arguments(parser)
    return matrix.run(parser.parse_args([source, *words]))


def test_only_bad_pairs_are_listed(told: Any, capsys: pytest.CaptureFixture[str]) -> None:
    code = told(exposition((1, 2), (0, 3), mdts=3))

    assert code == 1
    assert capsys.readouterr().out.splitlines() == [
        "lustre: 12 pairs, 2 not fine",
        "      OST2  OST3",
        "MDT0  .     X",
        "MDT1  X     .",
    ]


def test_when_all_is_fine_there_is_nothing_to_list(told: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(exposition()) == 0
    assert capsys.readouterr().out == "lustre: 8 pairs, 0 not fine\n"


def test_each_file_system_has_a_matrix(told: Any, capsys: pytest.CaptureFixture[str]) -> None:
    other = [line for line in exposition(target="other").splitlines(True) if not line.startswith("#")]
    told(exposition((0, 0)) + "".join(other))

    assert "lustre: 8 pairs, 1 not fine" in capsys.readouterr().out

    assert told(exposition((0, 0)), "--target", "lustre") == 1


def test_a_pair_that_was_not_checked_for_long_is_old(told: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(exposition(osts=1, mdts=1), "--older-than", "3600") == 1
    assert capsys.readouterr().out.splitlines()[-1] == "MDT0  old"


def test_a_pair_of_which_nothing_is_known_is_shown_as_such(
    told: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    text = exposition((0, 0), (1, 1))
    kept = [line for line in text.splitlines(True) if 'mdt_index="1",ost_index="0"' not in line]

    told("".join(kept))

    assert capsys.readouterr().out.splitlines()[-1] == "MDT1  -     X"


def test_programs_get_an_object_for_each_bad_pair(told: Any, capsys: pytest.CaptureFixture[str]) -> None:
    told(exposition((1, 2)), "--json")

    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {
        "target": "lustre", "mdt_index": 1, "ost_index": 2, "state": "bad", "checked_at": 1e9,
    }  # fmt: skip


def test_it_can_be_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "metrics").write_text(exposition((0, 0)))

    assert on(str(tmp_path / "metrics")) == 1


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = self.path == "/metrics"
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(exposition((0, 0)).encode() if found else b"")

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_it_can_be_read_from_a_gateway(address: str) -> None:
    assert on(f"{address}/metrics") == 1


def test_a_gateway_that_does_not_know_is_told(address: str) -> None:
    with pytest.raises(ConfigError, match="404"):
        on(f"{address}/other")


@pytest.mark.parametrize("source", ["/no/such/file", "http://127.0.0.1:9/metrics"])
def test_what_cannot_be_read_is_told(source: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        on(source)


@pytest.mark.parametrize("text", ["", "up 1\n"])
def test_a_text_without_pairs_is_told(told: Any, text: str) -> None:
    with pytest.raises(ConfigError, match="tells of no pair"):
        told(text)


def test_a_file_system_of_which_nothing_is_told_is_no_good_news(told: Any) -> None:
    with pytest.raises(ConfigError, match="no pair of MDT and OST of other"):
        told(exposition(), "--target", "other")


@pytest.mark.parametrize(
    "text",
    [
        "<html>",
        "cyclone_lustre_file_creation_check 1\n",
        'cyclone_lustre_file_creation_check{target="a"} x\n',
    ],
)
def test_a_text_of_another_kind_is_told(told: Any, text: str) -> None:
    with pytest.raises(ConfigError, match="is not the text format"):
        told(text)


def grouped(*groups: tuple[float, float | str]) -> str:
    """A pair in several groups of a Pushgateway: what came of its check, and when that was."""
    check, moment = "", ""
    for number, (value, at) in enumerate(groups):
        labels = f'{{instance="{number}",target="lustre",mdt_index="0",ost_index="0"}}'
        check += f"cyclone_lustre_file_creation_check{labels} {value}\n"
        moment += f"cyclone_lustre_file_creation_check_timestamp_seconds{labels} {at}\n"
    return check + moment


@pytest.mark.parametrize(
    ("groups", "code"),
    [
        ([(0, 200.0), (1, 100.0)], 1), ([(1, 100.0), (0, 200.0)], 1),
        ([(1, 200.0), (0, 100.0)], 0), ([(0, 100.0), (1, 200.0)], 0),
        ([(1, 100.0), (0, 100.0)], 1), ([(0, 100.0), (1, 100.0)], 1),
    ],
)  # fmt: skip
def test_of_a_pair_in_several_groups_the_newest_check_counts(
    told: Any, groups: list[tuple[float, float]], code: int
) -> None:
    assert told(grouped(*groups)) == code


def pushed(*groups: tuple[float, float | None, float]) -> str:
    """A pair in several groups of a Pushgateway: what came of its check, when that was if it was, and the last push."""
    lines = []
    for number, (value, at, push) in enumerate(groups):
        group = f'instance="{number}",job="cyclone"'
        labels = f'{{{group},target="lustre",mdt_index="0",ost_index="0"}}'
        lines += [(matrix._CHECK, labels, value), (matrix._PUSHED_AT, f"{{{group}}}", push)]
        if at is not None:
            lines.append((matrix._CHECKED_AT, labels, at))
    return "".join(f"{name}{labels} {value}\n" for name, labels, value in sorted(lines))


@pytest.mark.parametrize(
    ("groups", "code"),
    [
        ([(1, 100.0, 110.0), (0, None, 900.0)], 1), ([(0, None, 900.0), (1, 100.0, 110.0)], 1),
        ([(0, None, 110.0), (1, 890.0, 900.0)], 0), ([(1, 890.0, 900.0), (0, None, 110.0)], 0),
    ],
)  # fmt: skip
def test_a_pair_that_is_not_looked_at_is_as_new_as_the_push_of_its_group(
    told: Any, groups: list[tuple[float, float | None, float]], code: int
) -> None:
    assert told(pushed(*groups)) == code


@pytest.mark.parametrize("moment", ["NaN", "+Inf"])
def test_a_check_of_which_the_moment_makes_no_sense_is_old(told: Any, moment: str) -> None:
    assert told(grouped((1, moment)), "--older-than", "3600") == 1
    assert told(grouped((1, moment))) == 0


@pytest.mark.parametrize("value", [0.5, float("nan"), 2])
def test_only_a_pair_of_which_one_is_told_is_fine(told: Any, value: float) -> None:
    assert told(grouped((value, 1e9))) == 1


@pytest.mark.parametrize("age", ["nan", "-1", "inf", "x"])
def test_an_age_that_is_none_is_refused(told: Any, capsys: pytest.CaptureFixture[str], age: str) -> None:
    with pytest.raises(SystemExit):
        told(exposition(), f"--older-than={age}")

    assert "expected seconds from 0" in capsys.readouterr().err
