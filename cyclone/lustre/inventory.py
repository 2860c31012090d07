"""Which OSTs a file system has, and which of them are to be looked at.

An OST that was seen once is expected until somebody retires it: the one that has vanished from every list is the one
that a monitor is for. Nothing here knows a clock; times are Unix times in seconds, so that they outlive a process.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import NamedTuple

from cyclone.lustre.ost_task import OstState
from cyclone.lustre.parsing import DEACTIVATED


@dataclass(frozen=True)
class Survey:
    """What could be learned of all OSTs at one time.

    reasons: `{OST: why it is not active, "" if it is}`, as `lfs check` told. is_whole: whether it told of all there are.
    in_usage: those that `lfs df` told of. servers: `{OST: address of its server}`.
    unanswered: `{program: why it did not answer}`. left_behind: `{program: number of its process}`, of those that
    do not die. deactivated: those that were switched off, as `lctl` told.
    """

    reasons: Mapping[int, str] = field(default_factory=dict)
    in_usage: frozenset[int] = frozenset()
    servers: Mapping[int, str] = field(default_factory=dict)
    unanswered: Mapping[str, str] = field(default_factory=dict)
    left_behind: Mapping[str, int] = field(default_factory=dict)
    deactivated: frozenset[int] = frozenset()
    is_whole: bool = True


@dataclass(frozen=True)
class KnownOst:
    """seen_at: when a survey last told of it. server: its address, "" if nobody could tell."""

    index: int
    seen_at: float
    server: str = ""
    retired: bool = False


class Target(NamedTuple):
    """An OST that a round has to look at; or not, if its state is known. reason: of that state."""

    ost: int
    server: str = ""
    state: OstState | None = None
    reason: str = ""


class Inventory:
    """Owns what is remembered of each OST."""

    def __init__(self, remembered: Iterable[KnownOst] = ()) -> None:
        self._known = {each.index: each for each in remembered}
        self._survey = Survey(is_whole=False)

    def known(self) -> list[KnownOst]:
        """All of them, growing."""
        return [self._known[index] for index in sorted(self._known)]

    def hear(self, survey: Survey, now: float) -> list[int]:
        """Remember what a survey told. An OST that was retired and is active is expected again: returns those."""
        self._survey = survey
        back = []
        for index in {*survey.reasons, *survey.in_usage, *survey.deactivated}:
            known = self._known.get(index, KnownOst(index, now))
            is_back = self._is_active(index) or index in survey.in_usage
            self._known[index] = replace(known, seen_at=now, retired=known.retired and not is_back)
            if known.retired and is_back:
                back.append(index)
        for index, server in survey.servers.items():
            if index in self._known:
                self._known[index] = replace(self._known[index], server=server)
        return sorted(back)

    def retire(self, indexes: Iterable[int]) -> None:
        """Expect these no more, all or none. Raises ValueError when one is not known, or is active."""
        wanted = list(indexes)
        for index in wanted:
            if index not in self._known:
                raise ValueError(f"no OST {index} is known")
            if self._is_active(index):
                raise ValueError(f"OST {index} is active; select the others instead")
        for index in wanted:
            self._known[index] = replace(self._known[index], retired=True)

    def available(self) -> list[int]:
        """Those that are expected when nothing is selected."""
        return [each.index for each in self.known() if not each.retired]

    def targets(self, selection: Sequence[int]) -> list[Target]:
        """What the next round has to look at. selection: empty is all that are expected."""
        wanted = selection or self.available()
        return [self._target(index) for index in wanted if self.is_expected(index, selection)]

    def is_expected(self, index: int, selection: Sequence[int]) -> bool:
        """Does anybody want to know of it? One that is selected and not known is expected, too."""
        known = self._known.get(index)
        return (not selection or index in selection) and (known is None or not known.retired)

    def not_active(self) -> list[int]:
        """Those that were seen once and of which the newest survey does not say that they are active."""
        return [index for index in sorted(self._known) if self._target(index).state is not None]

    def server_of(self, index: int) -> str:
        """The address of its server, "" if nobody could tell."""
        known = self._known.get(index)
        return known.server if known is not None else ""

    def _target(self, index: int) -> Target:
        known = self._known.get(index)
        if known is None:
            if not self._survey.is_whole:
                return Target(index)  # nobody could tell, so it is tried
            return Target(index, "", OstState.UNKNOWN, "it is selected, but the file system has no such OST")
        reason = self._reason(index)
        may_be_there = index in self._survey.in_usage or not self._survey.is_whole
        if reason == "" or (reason is None and may_be_there):
            return Target(index, known.server)
        if reason is None:
            seen = datetime.fromtimestamp(known.seen_at, UTC)
            return Target(
                index,
                known.server,
                OstState.DOWN,
                f"it is in no list; last seen {seen:%Y-%m-%d %H:%M:%S} UTC",
            )
        state = OstState.INACTIVE if reason == DEACTIVATED else OstState.DOWN
        return Target(index, known.server, state, reason)

    def _is_active(self, index: int) -> bool:
        return self._reason(index) == ""

    def _reason(self, index: int) -> str | None:
        """Why it is not active, "" if it is; None if the newest survey does not say."""
        if index in self._survey.deactivated:
            return DEACTIVATED
        return self._survey.reasons.get(index)


def select(available: Collection[int], selection: Sequence[int]) -> list[int]:
    """The selected ones, growing; all if none is selected.

    Raises ValueError: nothing is available, more are selected than available, or one is selected that is not.
    """
    if not available:
        raise ValueError("no OST is known")
    if len(selection) > len(available):
        raise ValueError(f"{len(selection)} OSTs are selected, {len(available)} are known")
    unknown = sorted(set(selection).difference(available))
    if unknown:
        raise ValueError(f"no such OST: {', '.join(map(str, unknown))}")
    return sorted(selection or available)
