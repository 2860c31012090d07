"""What a migration is told: all of it may change while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from cyclone.lustre.migration.ost import Role


class Bounds(NamedTuple):
    """How many tasks one OST may have in flight as source, as target and in both roles, if that differs from the plan."""

    source: int | None = None
    target: int | None = None
    ost: int | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Thresholds in percent. Wherever the number of tasks is bounded, 0 is without bound, but not in `bounds`.

    source_threshold: files leave an OST while its fill level is above; target_threshold: they come while it is below.
    sources: which OSTs may be sources; none named: all. excluded: take part in neither role.
    bounds: `{OST: what is different about it}`. oss_of: `{OST: its server}`; who is missing has no bound.
    retry_max: tries after the first that a file may have for reasons of its own; retry_delay_s: between them.
    max_failures: so many files that have failed end the migration. queue_most: entries of an OST in memory.
    is_dry: nothing is moved, so fill levels stay what they are.
    """

    source_threshold: float
    target_threshold: float
    targets: frozenset[int]
    sources: frozenset[int] = frozenset()
    excluded: frozenset[int] = frozenset()
    source_max_tasks: int = 1
    target_max_tasks: int = 1
    pair_max_tasks: int = 1
    oss_max_tasks: int = 0
    ost_max_tasks: int = 0
    max_tasks: int = 0
    bounds: Mapping[int, Bounds] = field(default_factory=dict)
    oss_of: Mapping[int, str] = field(default_factory=dict)
    retry_max: int = 3
    retry_delay_s: float = 300.0
    max_failures: int = 0
    rate_files_per_s: float = 0.0
    rate_mb_per_s: float = 0.0
    target_reserve_bytes: int = 0
    queue_most: int = 1000
    is_dry: bool = False

    def limit(self, ost: int, role: Role) -> int:
        """How many tasks this OST may have in flight in this role."""
        bounds = self.bounds.get(ost, _NO_BOUNDS)
        if role is Role.SOURCE:
            return self.source_max_tasks if bounds.source is None else bounds.source
        return self.target_max_tasks if bounds.target is None else bounds.target

    def limit_of_both(self, ost: int) -> int | None:
        """How many tasks this OST may have in flight in both roles together; None is without bound."""
        bounds = self.bounds.get(ost, _NO_BOUNDS)
        return self.ost_max_tasks or None if bounds.ost is None else bounds.ost


_NO_BOUNDS = Bounds()
