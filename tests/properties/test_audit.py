"""Whatever happens to a cluster, its store is sound at every moment: the audit has nothing to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from simulation.cluster import run

from cyclone.cli.audit import audit_store
from cyclone.model.changes import Change, Remembered
from cyclone.store.memory import MemoryStore
from cyclone.store.sqlite import SqliteStore

SEEDS = range(12)

#: So often within a history.
_LOOKS = 8


class History:
    """All that a simulated master has remembered, in its lives, and no power cut has taken back.

    `None` stands for the beginning of a life.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[tuple[Sequence[Change], Mapping[Any, bytes], Mapping[int, bytes]] | None] = []
        self._synced = 0
        remember, wake = MemoryStore.remember, MemoryStore.wake
        sync, crashed = MemoryStore.sync, MemoryStore.crashed

        def remembered(store: MemoryStore, changes: Any, payloads: Any, values: Any) -> None:
            remember(store, changes, payloads, values)
            self.steps.append((list(changes), payloads, values))

        def woken(store: MemoryStore) -> Remembered:
            found = wake(store)
            self.steps.append(None)
            self._synced = len(self.steps)
            return found

        def synced(store: MemoryStore) -> None:
            sync(store)
            self._synced = len(self.steps)

        def cut(store: MemoryStore, *, power_cut: bool = False) -> MemoryStore:
            if power_cut:
                del self.steps[self._synced :]
            return crashed(store, power_cut=power_cut)

        monkeypatch.setattr(MemoryStore, "remember", remembered)
        monkeypatch.setattr(MemoryStore, "wake", woken)
        monkeypatch.setattr(MemoryStore, "sync", synced)
        monkeypatch.setattr(MemoryStore, "crashed", cut)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_history_of_a_cluster_is_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    history = History(monkeypatch)
    run(seed)
    path = tmp_path / "store"
    looks = {len(history.steps) * look // _LOOKS for look in range(1, _LOOKS)}

    # Epochs are counted from 1 here, as those of the simulation are.
    store = SqliteStore(path, "normal", clock=lambda: 0.0)
    fresh = True
    with closing(store):
        for place, step in enumerate(history.steps):
            if step is None:
                if not fresh:
                    store.close()
                    store = SqliteStore(path, "normal", clock=lambda: 0.0)
                list(store.wake().live)
                fresh = False
            else:
                store.remember(*step)
            if place in looks:
                assert [str(each) for each in audit_store(path).findings] == []
    store.close()
    audit = audit_store(path)

    assert [str(each) for each in audit.findings] == []
    assert audit.open == 0
    assert audit.accepted == audit.ended > 0
    assert audit.attempts >= sum(job.ended.get("succeeded", 0) for job in audit.jobs)
