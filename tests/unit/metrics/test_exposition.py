from __future__ import annotations

import threading

from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from cyclone.metrics.exposition import Exposition, render
from cyclone.metrics.family import Declaration, Family, Labels
from cyclone.metrics.own import OWN

SECONDS = Declaration("look_seconds", "How long it took.", ("fs", "ost"))
ERRORS = Declaration("look_errors_total", "Looks that failed.", ("fs",), "counter")


def read(body: bytes) -> dict[str, dict[Labels, float]]:
    """`{metric: {values of the labels, by the name of the label: number}}`, as another program reads it."""
    return {
        sample.name: {
            tuple(value for _, value in sorted(each.labels.items())): each.value for each in family.samples
        }
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def test_families_are_text_with_help_and_type() -> None:
    families = [Family(SECONDS, {("home", "1"): 1.5}), Family(ERRORS, {("home",): 2})]

    text = render(families).decode()

    assert text == (
        "# HELP look_seconds How long it took.\n"
        "# TYPE look_seconds gauge\n"
        'look_seconds{fs="home",ost="1"} 1.5\n'
        "# HELP look_errors_total Looks that failed.\n"
        "# TYPE look_errors_total counter\n"
        'look_errors_total{fs="home"} 2.0\n'
    )


def test_nothing_is_no_text() -> None:
    assert render([]) == b""


@given(st.text(st.characters(exclude_categories=["Cs"])))
@example('two\nlines, a "quote" and a \\')
def test_whatever_stands_in_a_label_is_read_again_as_it_was(value: str) -> None:
    body = render([Family(SECONDS, {(value, "1"): 1, ("after", "2"): 2})])

    assert read(body) == {"look_seconds": {(value, "1"): 1, ("after", "2"): 2}}


def test_a_help_of_several_lines_stays_on_one() -> None:
    body = render([Family(Declaration("look", 'One\nof "many" \\ lines.'), {(): 1})])

    assert body.splitlines()[0] == b'# HELP look One\\nof "many" \\\\ lines.'


def test_a_part_is_replaced_as_a_whole_and_the_others_stay() -> None:
    exposition = Exposition()
    exposition.show("records", [Family(SECONDS, {("home", "1"): 1})])
    exposition.show("cluster", [Family(ERRORS, {("home",): 1}), Family(Declaration("a", "A."), {(): 1})])

    exposition.show("cluster", [Family(ERRORS, {("work",): 2})])

    assert exposition.families() == [
        Family(ERRORS, {("work",): 2}),
        Family(SECONDS, {("home", "1"): 1}),
    ]


def test_a_scrape_may_ask_for_some_metrics_only() -> None:
    exposition = Exposition()
    exposition.show("all", [Family(SECONDS, {("home", "1"): 1}), Family(ERRORS, {("home",): 1})])

    some = exposition.restricted_registry(["look_errors_total"])

    assert [metric.name for metric in some.collect()] == ["look_errors"]


def test_who_renders_meanwhile_sees_one_state_or_the_next_and_nothing_in_between() -> None:
    exposition = Exposition()
    pairs = [Family(SECONDS, {("home", "1"): number, ("home", "2"): number}) for number in range(200)]
    exposition.show("records", [pairs[0]])
    seen: list[set[float]] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.append(set(read(render(exposition.families()))["look_seconds"].values()))

    thread = threading.Thread(target=look)
    thread.start()
    for pair in pairs:
        exposition.show("records", [pair])
        exposition.show("cluster", [Family(ERRORS, {("home",): 1})])
    done.set()
    thread.join()

    assert all(len(values) == 1 for values in seen)


# What Prometheus itself says of the names is in tests/acceptance/test_promtool.py.


def test_every_metric_of_cyclone_is_named_so_that_it_can_be_read_again() -> None:
    body = render([Family(each, {tuple("x" for _ in each.labels): 1}) for each in OWN])

    assert len(read(body)) == len(OWN)
