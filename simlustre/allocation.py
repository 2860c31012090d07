"""Which OSTs take the objects of a component: the rules by which a metadata server honours a request.

Pure: the OSTs come as they are at this moment, ordered by index. With a start index the search goes on at the
next usable OST and says nothing about it; with a list of OSTs it is these or an error.
"""

from __future__ import annotations

import errno

from simlustre.errors import Refusal
from simlustre.state import NOCREATE, READONLY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from simlustre.layout import Wish
    from simlustre.state import Ost


def choose(
    wish: Wish, osts: Sequence[Ost], pools: Mapping[str, set[int]], turn: int, allocator: str = "roundrobin"
) -> tuple[list[int], str | None]:
    """(OSTs, pool) for one component. turn: how many components were placed before (for taking turns).

    Raises Refusal with the errno that Lustre answers.
    """
    pool = wish.pool
    if pool is not None and pool not in pools:
        raise Refusal(errno.EINVAL)
    asked = wish.osts if wish.osts is not None else [wish.index] if wish.index >= 0 else []
    known = {ost.index: ost for ost in osts}
    if wish.osts is None and asked and wish.index not in known:
        raise Refusal(errno.EINVAL)
    if pool is not None and not pools[pool].issuperset(asked):
        if wish.asked_pool:
            raise Refusal(errno.EINVAL)
        pool = None
    if wish.osts is not None:
        return _exactly(wish.osts, known), pool
    members = [ost for ost in osts if pool is None or ost.index in pools[pool]]
    usable = [ost for ost in members if ost.usable]
    if not usable:
        raise Refusal(errno.ENOSPC)
    count = len(usable) if wish.count < 0 else min(max(wish.count, 1), len(usable))
    if wish.index >= 0:
        usable.sort(key=lambda ost: (ost.index < wish.index, ost.index))
    elif allocator == "space":
        usable.sort(key=lambda ost: (-ost.available_kib, ost.index))
    else:
        start = turn % len(usable)
        usable = usable[start:] + usable[:start]
    return [ost.index for ost in usable[:count]], pool


def _exactly(indices: Sequence[int], known: Mapping[int, Ost]) -> list[int]:
    if len(set(indices)) < len(indices):
        raise Refusal(errno.EINVAL)
    for index in indices:
        if index not in known:
            raise Refusal(errno.ENODEV)
        ost = known[index]
        if not ost.reachable:
            raise Refusal(errno.EREMOTEIO, text=f"inactive OST among your specified {len(indices)} OST(s)")
        if ost.state == READONLY:
            raise Refusal(errno.EROFS)
        if ost.state == NOCREATE:
            raise Refusal(errno.ENOBUFS)
        if not ost.usable:
            raise Refusal(errno.ENOSPC)
    return list(indices)
