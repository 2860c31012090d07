from __future__ import annotations

import random
from collections import Counter

import pytest

from cyclone.lustre.migration import shuffle
from cyclone.lustre.migration.shuffle import shuffled


def test_all_records_come_out_once() -> None:
    records = [b"%d" % number for number in range(10_000)]

    found = list(shuffled(records, b"\n", random.Random(1)))

    assert sorted(found) == sorted(records)
    assert found != records


def test_nothing_stays_nothing() -> None:
    assert list(shuffled([], b"\n", random.Random(1))) == []


def test_every_order_is_as_likely_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shuffle, "_FILES", 2)
    chance = random.Random(1)

    orders = Counter(tuple(shuffled([b"a", b"b", b"c"], b"\n", chance)) for _ in range(1200))

    assert len(orders) == 6
    assert all(150 < count < 250 for count in orders.values())
