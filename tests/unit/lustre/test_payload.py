from __future__ import annotations

import zlib

import pytest

from cyclone.lustre import payload
from cyclone.lustre.payload import Payload


def test_the_same_seed_gives_the_same_bytes() -> None:
    one, other = Payload("a", 10_000, 1000), Payload("a", 10_000, 1000)

    assert one.piece(3000, 1000) == other.piece(3000, 1000)
    assert one.piece(0, 1000) != Payload("b", 10_000, 1000).piece(0, 1000)


def test_the_bytes_cannot_be_compressed() -> None:
    content = Payload("a", 100_000, 100_000).piece(0, 100_000)

    assert len(zlib.compress(content, 9)) > 99_000


@pytest.mark.parametrize(("total", "longest"), [(10, 3), (1000, 4096), (7, 7), (5000, 1), (1, 8192)])
def test_pieces_of_any_length_make_the_same_whole(
    total: int, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payload, "_PERIOD_BYTES", 101)
    whole = Payload("a", total, total).piece(0, total)

    content = Payload("a", total, longest)
    pieces = [content.piece(start, min(longest, total - start)) for start in range(0, total, longest)]

    assert b"".join(pieces) == whole
    assert len(whole) == total


def test_what_is_longer_than_a_period_does_not_repeat_at_any_power_of_two(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(payload, "_PERIOD_BYTES", 4099)
    content = Payload("a", 100_000, 4096)

    blocks = {content.piece(start, 1024) for start in range(0, 98_304, 1024)}

    assert len(blocks) == 96
