"""Show on which pairs of MDT and OST no file can be made, as the file creation check has told Prometheus.

SOURCE is where the metrics of the check are: the address of a Pushgateway or of the scrape endpoint of
cyclone-pushgateway-client, such as http://pushgateway:9091/metrics, or a file with the same text, - for standard input.

Rows are MDTs, columns are OSTs; only those are shown that have a bad pair. A cell is X for a pair that is bad, old for
one that was not checked for too long (--older-than), . for one that is fine, - for one of which nothing is known. The
exit code is 1 if any pair is bad or old.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cyclone.cli.page import Table, visible
from cyclone.errors import EXIT_OK, EXIT_TASK_FAILED, ConfigError

_CHECK = "cyclone_lustre_file_creation_check"
_CHECKED_AT = "cyclone_lustre_file_creation_check_timestamp_seconds"
#: Of each group of a Pushgateway: when it was pushed last.
_PUSHED_AT = "push_time_seconds"
_TIMEOUT_S = 15.0

#: The labels of a series and their values.
_Series = frozenset[tuple[str, str]]

#: File system, MDT, OST.
_Place = tuple[str, int, int]

_CELLS = {"bad": "X", "old": "old", "fine": "."}


@dataclass
class Pair:
    """What is known of a pair. checked_at: Unix time, 0 if that is not known. state: bad, old or fine."""

    target: str
    mdt_index: int
    ost_index: int
    state: str
    checked_at: float = 0.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="an http address, a file, or -")
    parser.add_argument("--target", default="", help="only this file system")
    parser.add_argument(
        "--older-than",
        type=_age,
        default=0.0,
        metavar="S",
        help="seconds after which a check is old; 0 is never",
    )
    parser.add_argument(
        "--json", action="store_true", help="one object a line for each bad or old pair, for programs"
    )


def run(options: argparse.Namespace) -> int:
    exposition = read(options.source)
    found = pairs(exposition, options.source, time.time() - options.older_than if options.older_than else 0.0)
    wanted = [pair for pair in found if options.target in ("", pair.target)]
    if not wanted:
        which = f" of {options.target}" if options.target else ""
        raise ConfigError(
            f"tells of no pair of MDT and OST{which}; expected the metric {_CHECK}", file=options.source
        )
    bad = [pair for pair in wanted if pair.state != "fine"]
    if options.json:
        for pair in bad:
            print(json.dumps(vars(pair)))
    else:
        for target in sorted({pair.target for pair in wanted}):
            _show([pair for pair in wanted if pair.target == target])
    return EXIT_TASK_FAILED if bad else EXIT_OK


def read(source: str) -> str:
    """The text that is to be had there. Raises ConfigError."""
    try:
        if source == "-":
            return sys.stdin.read()
        if source.startswith(("http://", "https://")):
            return _fetched(source)
        return Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", file=source) from None


def pairs(exposition: str, source: str, old_before: float) -> list[Pair]:
    """Every pair that the text tells of, by file system, MDT and OST.

    Of a pair that is in several groups of a Pushgateway the newest check counts, of two as new the one that is bad. What
    is not looked at has no time of a check: it is as new as the push of its group.
    old_before: Unix time; what was checked earlier is old, or when that is not known.
    Raises ConfigError when it is not the text format of Prometheus.
    """
    try:
        from prometheus_client.parser import text_string_to_metric_families
    except ImportError:
        raise ConfigError(
            "needs prometheus-client; expected an installation of cyclone[prometheus]"
        ) from None
    values: dict[str, dict[_Series, float]] = {_CHECK: {}, _CHECKED_AT: {}, _PUSHED_AT: {}}
    newest: dict[_Place, tuple[tuple[float, bool], Pair]] = {}
    try:
        for family in text_string_to_metric_families(exposition):
            for sample in family.samples:
                if sample.name in values:
                    values[sample.name][frozenset(sample.labels.items())] = sample.value
        for series, value in values[_CHECK].items():
            labels = dict(series)
            place = labels["target"], int(labels["mdt_index"]), int(labels["ost_index"])
            checked_at = values[_CHECKED_AT].get(series, 0.0)
            if not math.isfinite(checked_at):
                checked_at = 0.0
            state = "bad" if value != 1 else "old" if checked_at < old_before else "fine"
            rank = checked_at or _pushed_at(series, values[_PUSHED_AT]), state == "bad"
            if place not in newest or rank > newest[place][0]:
                newest[place] = rank, Pair(*place, state, checked_at)
    except (ValueError, KeyError) as error:
        raise ConfigError(f"is not the text format of Prometheus: {error}", file=source) from None
    return [newest[place][1] for place in sorted(newest)]


def _pushed_at(series: _Series, pushed_at: Mapping[_Series, float]) -> float:
    """When the group of this series was pushed, as Unix time; 0 if that is not known."""
    groups = [labels for labels in pushed_at if labels <= series]
    return pushed_at[max(groups, key=len)] if groups else 0.0


def _age(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"found {text}, expected seconds from 0")
    return seconds


def _fetched(address: str) -> str:
    try:
        import requests
    except ImportError:
        raise ConfigError("needs requests; expected an installation of cyclone[prometheus]") from None
    try:
        answer = requests.get(address, timeout=_TIMEOUT_S)
        answer.raise_for_status()
    except requests.RequestException as error:
        raise ConfigError(f"cannot be read: {error}", file=address) from None
    return answer.content.decode("utf-8")


def _show(found: Iterable[Pair]) -> None:
    """The matrix of one file system."""
    by_place = {(pair.mdt_index, pair.ost_index): pair for pair in found}
    bad = [place for place, pair in by_place.items() if pair.state != "fine"]
    target = next(iter(by_place.values())).target
    print(f"{visible(target)}: {len(by_place)} pairs, {len(bad)} not fine")
    if not bad:
        return
    osts = sorted({ost for _, ost in bad})
    table = Table(("", *(f"OST{ost}" for ost in osts)))
    for mdt in sorted({mdt for mdt, _ in bad}):
        states = (by_place[mdt, ost].state if (mdt, ost) in by_place else "" for ost in osts)
        table.add(f"MDT{mdt}", *(_CELLS.get(state, "-") for state in states))
    table.print()
