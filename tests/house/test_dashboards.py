"""The dashboard and the alert rules ask for nothing that Cyclone does not tell."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from cyclone.lustre.creation_check_task import PairState
from cyclone.lustre.migration.verdict import FileState
from cyclone.lustre.ost_task import OstState
from cyclone.metrics.exposition import render
from cyclone.metrics.family import Declaration, Family
from cyclone.metrics.own import OWN
from cyclone.metrics.series import CurrentSeries
from cyclone.model.lifecycle import State
from cyclone.sinks.kinds import load_kinds

CONFIGURATION = Path(__file__).parents[2] / "Configuration"
DASHBOARD = json.loads((CONFIGURATION / "grafana" / "cyclone.json").read_text())
ALERTS = CONFIGURATION / "prometheus" / "cyclone-alerts.yml"
ALERT_TESTS = Path(__file__).with_name("alert_rules.yml")
RULES = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]

#: Prometheus and the Pushgateway give these to every series.
GIVEN = {"job", "instance"}

#: `{metric: its labels}`: what Cyclone tells, and what a Pushgateway and a node exporter add.
KNOWN: dict[str, set[str]] = {
    **{declaration.name: set(declaration.labels) for declaration in OWN},
    **{metric.name: set(metric.labels) for kind in load_kinds().values() for metric in kind.metrics},
    "push_time_seconds": set(),
    "node_textfile_mtime_seconds": {"file"},
}

#: What may stand in the label `state`.
STATES: dict[str, set[str]] = {
    "cyclone_tasks": {*State},
    "cyclone_tasks_ended_total": {*State},
    "cyclone_job_state": {"open", "succeeded", "failed"},
    "cyclone_controllers": {"up", "awaited", "silent", "leaving", "excluded"},
    "cyclone_controller_state": {"up", "awaited", "silent", "leaving", "excluded"},
    "cyclone_ost_state": {*OstState},
    "cyclone_lustre_file_creation_check": {*PairState},
    "cyclone_migration_files_total": {*FileState},
    "cyclone_migration_bytes_total": {*FileState},
}


# What an expression asks for.


class Selector(NamedTuple):
    """`metric{label="value", …}`. matchers: `(label, operator, value)`."""

    metric: str
    matchers: tuple[tuple[str, str, str], ...]


_TOKEN = re.compile(
    r"""\s+ | \[[^]]*\] | (?P<labels>\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\}) | "(?:[^"\\]|\\.)*"
    | (?P<number>[0-9][0-9.]*[a-z]*) | (?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*) | (?P<sign>.)""",
    re.VERBOSE,
)
_MATCHER = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"')
_GROUPING = {"by", "without", "on", "ignoring", "group_left", "group_right"}
_WORDS = {"and", "or", "unless", "bool", "offset"}


def asked(expression: str) -> tuple[list[Selector], set[str]]:
    """The selectors of an expression of PromQL, and the labels that it groups or matches by."""
    tokens = [match for match in _TOKEN.finditer(expression) if match[0].strip()]
    selectors: list[Selector] = []
    grouped: set[str] = set()
    place = 0
    while place < len(tokens):
        name = tokens[place]["name"]
        after = tokens[place + 1] if place + 1 < len(tokens) else None
        place += 1
        if name in _GROUPING:
            assert after is not None
            assert after[0] == "("
            place += 1
            while tokens[place][0] != ")":
                grouped |= {tokens[place]["name"]} - {None}
                place += 1
            place += 1
        elif name and name not in _WORDS and not (after and (after[0] == "(" or after["name"] in _GROUPING)):
            labels = after["labels"] if after else None
            selectors.append(Selector(name, tuple(_MATCHER.findall(labels or ""))))
            place += labels is not None
    return selectors, grouped


def complaints(expression: str) -> list[str]:
    """What the expression asks for that is not there."""
    selectors, grouped = asked(expression)
    found = [] if selectors else [f"no metric in {expression!r}"]
    for metric, matchers in selectors:
        if metric not in KNOWN:
            found.append(f"no metric {metric}")
            continue
        for label, _, value in matchers:
            if label not in KNOWN[metric] | GIVEN:
                found.append(f"{metric} has no label {label}")
            elif label == "state" and not set(value.split("|")) <= STATES[metric]:
                found.append(f"{metric} has no state {value}")
    there = GIVEN.union(*(KNOWN.get(selector.metric, set()) for selector in selectors))
    return found + [f"no metric here has the label {label}" for label in sorted(grouped - there)]


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("cyclone_task", "no metric cyclone_task"),
        ("rate(cyclone_bygone_total[5m]) / 2", "no metric cyclone_bygone_total"),
        ('sum(cyclone_tasks{job_name="x",stat="y"})', "cyclone_tasks has no label stat"),
        ('cyclone_tasks{state=~"ready|gone"} > 0', "cyclone_tasks has no state ready|gone"),
        ("sum by (controller) (cyclone_tasks)", "no metric here has the label controller"),
        ("cyclone_tasks * on (job_name, host) cyclone_tasks", "no metric here has the label host"),
        ("max without (job_name) (cyclone_tasks) or absent_one", "no metric absent_one"),
        ("time() - 5", "no metric in 'time() - 5'"),
    ],
)
def test_what_is_not_there_is_noticed(expression: str, problem: str) -> None:
    assert complaints(expression) == [problem]


def test_what_is_there_is_read_right() -> None:
    expression = """sum by (job_name, state) (increase(cyclone_tasks_ended_total{state!="failed", job_name=~"a{}\\"b"}[15m]))
        / ignoring (state) group_left () sum(cyclone_tasks offset 5m) > 1.5e3"""

    selectors, grouped = asked(expression)

    assert selectors == [
        Selector("cyclone_tasks_ended_total", (("state", "!=", "failed"), ("job_name", "=~", 'a{}\\"b'))),
        Selector("cyclone_tasks", ()),
    ]
    assert grouped == {"job_name", "state"}


# The dashboard.


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def targets() -> list[tuple[str, str]]:
    """The expression and the legend of everything that is drawn."""
    drawn = [target for panel in panels() for target in panel["targets"]]
    return [(target["expr"], target["legendFormat"]) for target in drawn]


def variables() -> dict[str, str]:
    return {each["name"]: each["query"] for each in DASHBOARD["templating"]["list"]}


@pytest.mark.parametrize(("expression", "legend"), targets(), ids=lambda part: part or "-")
def test_the_dashboard_draws_what_there_is(expression: str, legend: str) -> None:
    selectors, _ = asked(expression)

    there = GIVEN.union(*(KNOWN.get(selector.metric, set()) for selector in selectors))
    assert complaints(expression) == []
    assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= there


def test_every_variable_is_declared_and_used() -> None:
    used = {name for expression, _ in targets() for name in re.findall(r"\$(\w+)", expression)}
    used |= set(re.findall(r"\$\{(\w+)\}", json.dumps(DASHBOARD)))

    assert used - {"__rate_interval"} == set(variables())


def test_the_values_of_variables_come_from_metrics_that_have_them() -> None:
    queries = [query["query"] for query in variables().values() if isinstance(query, dict)]

    asked_for = [re.fullmatch(r"label_values\((\w+), (\w+)\)", query) for query in queries]

    assert len(queries) == 4
    assert [query for query, found in zip(queries, asked_for, strict=True) if not found] == []
    assert [found[0] for found in asked_for if found and found[2] not in KNOWN[found[1]]] == []


def test_every_part_of_the_dashboard_is_named_and_explained() -> None:
    assert [panel["title"] for panel in panels() if not panel["description"].endswith(".")] == []
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == [
        "Cluster", "Queue", "Outcomes", "Controllers", "Sinks", "OST performance", "File creation", "Migration",
    ]  # fmt: skip


def test_no_two_panels_are_in_the_same_place() -> None:
    cells = Counter(
        (x, y)
        for place in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    )
    numbers = Counter(panel["id"] for panel in DASHBOARD["panels"])

    assert max(cells.values()) == 1
    assert max(x for x, _ in cells) == 23
    assert max(numbers.values()) == 1


# The alerts.

rules = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])


@rules
def test_an_alert_asks_for_what_there_is(rule: dict[str, Any]) -> None:
    assert complaints(rule["expr"]) == []


@rules
def test_an_alert_says_how_bad_it_is_and_what_it_is_about(rule: dict[str, Any]) -> None:
    selectors, grouped = asked(rule["expr"])

    told = " ".join(rule["annotations"].values())
    kept = GIVEN | grouped if grouped else GIVEN.union(*(KNOWN[each.metric] for each in selectors))
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"]["summary"].endswith(".")
    assert set(re.findall(r"\$labels\.(\w+)", told)) <= kept


def test_no_alert_is_called_like_another() -> None:
    names = Counter(rule["alert"] for rule in RULES)

    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize(
    "subject",
    [
        "cyclone_lustre_file_creation_check_timestamp_seconds", "push_time_seconds", "cyclone_ost_state",
        "cyclone_tasks_ended_total", "cyclone_controller_state", "cyclone_spool_bytes",
    ],
)  # fmt: skip
def test_what_a_site_must_hear_of_has_an_alert(subject: str) -> None:
    assert [rule["alert"] for rule in RULES if subject in rule["expr"]]


def test_every_state_of_an_ost_that_is_a_fault_has_an_alert() -> None:
    told = {
        state
        for rule in RULES
        for metric, matchers in asked(rule["expr"])[0]
        for label, _, states in matchers
        if (metric, label) == ("cyclone_ost_state", "state")
        for state in states.split("|")
    }

    # A slow one is recorded as OK; how slow it is, a site has to judge. One that is retired has no series.
    assert told == {*OstState} - {OstState.OK, OstState.SLOW, OstState.RETIRED}


def test_when_an_alert_fires_and_when_it_does_not_is_tested() -> None:
    looks = {
        (found, bool(look["exp_samples"]))
        for test in yaml.safe_load(ALERT_TESTS.read_text())["tests"]
        for look in test["promql_expr_test"]
        for found in re.findall(r'alertname="(\w+)",alertstate="firing"', look["expr"])
    }

    assert looks == {(rule["alert"], fires) for rule in RULES for fires in (False, True)}


# What is told.


def test_the_metrics_of_all_kinds_go_together() -> None:
    series = CurrentSeries(load_kinds().values(), stale_after_s=1)

    assert series.families() == []


def test_the_metrics_of_all_kinds_are_named_so_that_they_can_be_read_again() -> None:
    assert {each.name for each in text_string_to_metric_families(exposed().decode())}


def exposed() -> bytes:
    """All metrics of all kinds, one sample of each."""
    metrics = {metric.name: metric for kind in load_kinds().values() for metric in kind.metrics}
    declared = [Declaration(each.name, each.help, each.labels, each.kind) for each in metrics.values()]
    return render([Family(each, {tuple("x" for _ in each.labels): 1}) for each in declared])
