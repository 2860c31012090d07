from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from cyclone.store.blocks import LiveBlocks, ranges

BLOCK = 2**14


def test_without_a_list_any_number_may_be_live() -> None:
    assert ranges(None) == [(0, 2**63 - 1)]


def test_blocks_that_have_emptied_are_left_out_and_neighbours_joined() -> None:
    blocks = LiveBlocks()
    blocks.accepted(range(1, 5 * BLOCK))

    blocks.ended([number for number in range(1, 5 * BLOCK) if not BLOCK <= number < 3 * BLOCK])

    assert blocks.stale
    assert ranges(blocks.listed(5 * BLOCK - 1)) == [(BLOCK, 3 * BLOCK - 1), (5 * BLOCK, 2**63 - 1)]


def test_a_list_is_stale_once_a_block_has_emptied_and_until_it_was_written() -> None:
    blocks = LiveBlocks()
    blocks.accepted([1, 2])
    blocks.accepted([BLOCK])

    blocks.ended([1])
    assert not blocks.stale

    blocks.ended([2])
    assert blocks.stale

    blocks.written()
    assert not blocks.stale


def test_the_newest_block_fills_up_again_and_makes_a_list_stale_when_it_is_not_the_newest_any_more() -> None:
    blocks = LiveBlocks()
    for number in (1, 2, 3):
        blocks.accepted([number])
        blocks.ended([number])
    assert not blocks.stale
    assert ranges(blocks.listed(3)) == [(4, 2**63 - 1)]

    blocks.accepted([BLOCK])

    assert blocks.stale
    assert ranges(blocks.listed(BLOCK)) == [(BLOCK, BLOCK), (BLOCK + 1, 2**63 - 1)]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4 * BLOCK)), max_size=20))
def test_an_old_list_never_leaves_out_a_live_task(steps: list[tuple[int, int]]) -> None:
    blocks, live, last, listed = LiveBlocks(), set[int](), 0, None
    for kind, size in steps:
        if kind == 0:
            new = range(last + 1, last + 1 + size, max(1, size // 7))
            blocks.accepted(new)
            live |= set(new)
            last = new[-1]
        elif kind == 1:
            gone = sorted(live)[: size % (len(live) + 1)]
            blocks.ended(gone)
            live -= set(gone)
        elif kind == 2:
            listed = blocks.listed(last)

        found = ranges(listed)

        assert all(any(first <= number <= end for first, end in found) for number in live)
        assert all(one[1] < next_one[0] for one, next_one in pairwise(found))
