from __future__ import annotations

import pytest

from cyclone.core import pace as module
from cyclone.core.pace import MEMORY, Pace


@pytest.fixture
def pace() -> Pace:
    return Pace()


def test_what_is_unknown_travels_singly(pace: Pace) -> None:
    assert pace.bundle_size("kind", 0.05, 100) == 1
    assert pace.mean_s("kind") is None


def test_the_mean_of_what_was_measured_is_known(pace: Pace) -> None:
    pace.learn("kind", [1.0, 3.0])

    assert pace.mean_s("kind") == pytest.approx(2.0)


def test_kinds_are_measured_apart(pace: Pace) -> None:
    pace.learn("slow", [10.0])

    assert pace.mean_s("fast") is None


def test_measuring_nothing_teaches_nothing(pace: Pace) -> None:
    pace.learn("kind", [])

    assert pace.mean_s("kind") is None


def test_steady_tasks_fill_the_stretch(pace: Pace) -> None:
    pace.learn("kind", [0.001] * 100)

    assert pace.bundle_size("kind", 0.0501, 1000) == 50


def test_a_bundle_has_a_bound(pace: Pace) -> None:
    pace.learn("kind", [1e-9] * 100)

    assert pace.bundle_size("kind", 0.05, 7) == 7


def test_tasks_without_a_measurable_duration_are_bundled_within_the_bound(pace: Pace) -> None:
    pace.learn("kind", [0.0] * 100)

    assert pace.bundle_size("kind", 0.05, 2000) == 2000


def test_long_tasks_travel_singly(pace: Pace) -> None:
    pace.learn("kind", [5.0] * 100)

    assert pace.bundle_size("kind", 0.05, 1000) == 1


def test_a_long_tail_makes_bundles_smaller(pace: Pace) -> None:
    pace.learn("steady", [0.001] * 100)
    pace.learn("tailed", [0.0001] * 99 + [0.0901])

    assert pace.mean_s("tailed") == pytest.approx(0.001, rel=0.01)
    assert pace.bundle_size("tailed", 0.05, 1000) < pace.bundle_size("steady", 0.05, 1000) / 5


def test_the_newest_weigh_the_most(pace: Pace) -> None:
    pace.learn("kind", [1.0] * 10 * MEMORY)

    pace.learn("kind", [0.0] * MEMORY)

    mean = pace.mean_s("kind")
    assert mean is not None
    assert mean < 0.5


def test_one_outlier_among_many_weighs_little(pace: Pace) -> None:
    pace.learn("kind", [1.0] * MEMORY)

    pace.learn("kind", [2.0])

    assert pace.mean_s("kind") == pytest.approx(1.0, abs=0.01)


def test_of_very_many_kinds_those_are_known_that_were_measured_last(
    pace: Pace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KINDS_MOST", 2)

    for kind in ("a", "b", "a", "c"):
        pace.learn(kind, [1.0])

    assert [kind for kind in "abc" if pace.mean_s(kind) is not None] == ["a", "c"]
