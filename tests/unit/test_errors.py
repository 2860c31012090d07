from __future__ import annotations

import inspect

import pytest

from cyclone import errors
from cyclone.errors import AlreadyRunning, ConfigError, CycloneError, WrongVersion

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, CycloneError)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_stands_in_the_tree_and_says_what_it_means(kind: type[CycloneError]) -> None:
    assert errors.__doc__ is not None
    assert kind.__name__ in errors.__doc__
    assert kind.__doc__
    assert kind.__doc__.strip().split("\n")[0].endswith((".", ":"))


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_the_tree_is_drawn_as_it_is(kind: type[CycloneError]) -> None:
    assert errors.__doc__ is not None
    depth = {line.strip("│├└─ ").split(" ")[0]: line for line in errors.__doc__.splitlines()}
    line = depth[kind.__name__]

    assert line.index(kind.__name__) == 4 * (len(kind.__mro__) - len(CycloneError.__mro__))


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_ends_a_command_with_a_code_that_is_no_success(kind: type[CycloneError]) -> None:
    assert kind.exit_code != errors.EXIT_OK


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ({}, "is wrong"),
        ({"file": "x.conf"}, "x.conf: is wrong"),
        ({"file": "x.conf", "section": "master"}, "x.conf: [master]: is wrong"),
        ({"file": "x.conf", "section": "master", "key": "port"}, "x.conf: [master] port: is wrong"),
        ({"section": "master", "key": "port"}, "[master] port: is wrong"),
    ],
)
def test_a_wrong_setting_says_where_it_stands(place: dict[str, str], text: str) -> None:
    error = ConfigError("is wrong", **place)

    assert str(error) == text
    assert (error.file, error.section, error.key) == tuple(
        place.get(key) for key in ("file", "section", "key")
    )


def test_who_runs_already_is_named() -> None:
    assert str(AlreadyRunning("x.pid", "12;2026-01-01 00:00:00")).startswith("x.pid: already running (12;")
    assert "not written yet" in str(AlreadyRunning("x.pid", ""))


def test_a_wrong_version_names_both() -> None:
    error = WrongVersion(3, 1)

    assert str(error) == "protocol version 3 was spoken, version 1 is understood"
    assert (error.theirs, error.ours) == (3, 1)
