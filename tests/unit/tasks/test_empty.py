from __future__ import annotations

from cyclone.tasks.empty import EmptyTask


def test_it_does_nothing_and_succeeds() -> None:
    EmptyTask().execute()
