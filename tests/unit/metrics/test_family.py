from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cyclone.metrics.family import Declaration, complaint, label_text


@pytest.mark.parametrize(
    "declaration",
    [
        Declaration("cyclone_ost_write_seconds", "Time to write.", ("fs", "ost")),
        Declaration("cyclone_tasks", "Tasks."),
        Declaration("cyclone_errors_total", "Errors.", ("reason",), "counter"),
    ],
)
def test_nothing_is_said_against_a_sound_declaration(declaration: Declaration) -> None:
    assert complaint(declaration) == ""


@pytest.mark.parametrize(
    ("declaration", "problem"),
    [
        (Declaration("Tasks", "Tasks."), "name of a metric"),
        (Declaration("tasks\n", "Tasks."), "name of a metric"),
        (Declaration("tasks{a", "Tasks."), "name of a metric"),
        (Declaration("tasks", " "), "help"),
        (Declaration("tasks_count", "Tasks."), "histogram"),
        (Declaration("tasks_total", "Tasks."), "gauge"),
        (Declaration("tasks", "Tasks.", (), "counter"), "_total"),
        (Declaration("tasks", "Tasks.", ("fs", "fs")), "twice"),
        (Declaration("tasks", "Tasks.", ("fs-name",)), "'fs-name'"),
        (Declaration("tasks", "Tasks.", ("__name",)), "'__name'"),
        (Declaration("tasks", "Tasks.", ("job",)), "'job'"),
        (Declaration("tasks", "Tasks.", ("instance",)), "'instance'"),
    ],
)
def test_a_declaration_that_prometheus_would_misread_is_complained_of(
    declaration: Declaration, problem: str
) -> None:
    assert problem in complaint(declaration)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("home", "home"),
        (12, "12"),
        (True, "true"),
        (False, "false"),
        (None, ""),
        (datetime(2026, 11, 20, 12, tzinfo=UTC), "2026-11-20T12:00:00+00:00"),
    ],
)
def test_every_value_of_a_field_can_be_a_label(value: str | int | bool | datetime | None, text: str) -> None:
    assert label_text(value) == text
