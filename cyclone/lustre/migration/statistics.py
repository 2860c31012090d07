"""How much has been done, how fast, and how long the rest will take. Moments are monotonic seconds."""

from __future__ import annotations

from collections import Counter, deque
from typing import NamedTuple

from cyclone.lustre.migration.verdict import FileState, Report, has_moved

MINUTE_S = 60.0
TEN_MINUTES_S = 600.0

_SLOT_S = 5.0

#: Reasons are for counting; one that nobody has counted on must not fill the memory.
REASONS_MOST = 1000
_REASON_LONGEST = 60


class Speed(NamedTuple):
    """Per second. mb: megabytes, of a million bytes."""

    files: float
    mb: float


class _Slot:
    """What ended within a few seconds."""

    __slots__ = ("bytes", "files", "since")

    def __init__(self, since: float) -> None:
        self.since, self.files, self.bytes = since, 0, 0


class Pace:
    """Files and bytes, in all and lately."""

    def __init__(self, now: float) -> None:
        self.began = now
        self.files = self.bytes = 0
        self._slots: deque[_Slot] = deque()

    def add(self, size: int, now: float) -> None:
        self.files += 1
        self.bytes += size
        if not self._slots or now - self._slots[-1].since >= _SLOT_S:
            self._slots.append(_Slot(now))
            while now - self._slots[0].since > TEN_MINUTES_S + _SLOT_S:
                self._slots.popleft()
        self._slots[-1].files += 1
        self._slots[-1].bytes += size

    def overall(self, now: float) -> Speed:
        return _speed(self.files, self.bytes, now - self.began)

    def lately(self, span_s: float, now: float) -> Speed:
        """Over the last so many seconds, or as long as it has been going on; at most ten minutes."""
        recent = [slot for slot in self._slots if now - slot.since < span_s]
        files, size = sum(slot.files for slot in recent), sum(slot.bytes for slot in recent)
        return _speed(files, size, min(span_s, now - self.began))


def _speed(files: int, size: int, seconds: float) -> Speed:
    # A moment after the start any number is possible and none means anything.
    seconds = max(seconds, 1.0)
    return Speed(files / seconds, size / 1_000_000 / seconds)


class Statistics:
    """Counts results, in all and by source. bytes: `{state: of the files with it, whether they were moved or not}`."""

    def __init__(self, now: float) -> None:
        self.results: Counter[tuple[FileState, str]] = Counter()
        self.bytes: Counter[FileState] = Counter()
        self.retries = 0
        self._all = Pace(now)
        self._by_source: dict[int, Pace] = {}

    def on_final(self, source: int, report: Report, now: float) -> None:
        """An entry has its result."""
        key = report.state, _countable(report.reason)
        if key not in self.results and len(self.results) >= REASONS_MOST:
            key = report.state, "other"
        self.results[key] += 1
        self.bytes[report.state] += report.size
        moved = report.size if has_moved(report, source) else 0
        self._all.add(moved, now)
        pace = self._by_source.get(source)
        if pace is None:
            pace = self._by_source[source] = Pace(now)
        pace.add(moved, now)

    def on_retry(self) -> None:
        """A try has ended and there will be another."""
        self.retries += 1

    def count(self, state: FileState) -> int:
        return sum(count for (each, _), count in self.results.items() if each is state)

    @property
    def files(self) -> int:
        return self._all.files

    @property
    def moved_bytes(self) -> int:
        """Of the files that were moved, to wherever."""
        return self._all.bytes

    def speed(self, now: float) -> dict[str, Speed]:
        """`{"1min", "10min", "overall"}`"""
        return {
            "1min": self._all.lately(MINUTE_S, now),
            "10min": self._all.lately(TEN_MINUTES_S, now),
            "overall": self._all.overall(now),
        }

    def eta_s(self, left: int, now: float) -> float | None:
        """How long the rest of all will take; None if nobody can tell."""
        return _eta_s(self._all, left, now)

    def source_eta_s(self, source: int, left: int, now: float) -> float | None:
        """As `eta_s`, for one source."""
        pace = self._by_source.get(source)
        return None if pace is None else _eta_s(pace, left, now)


def _eta_s(pace: Pace, left: int, now: float) -> float | None:
    if left == 0:
        return 0.0
    files_per_s = pace.lately(TEN_MINUTES_S, now).files or pace.overall(now).files
    return left / files_per_s if files_per_s else None


def _countable(reason: str) -> str:
    """What of a reason is the same for many files: up to a colon, after which there may be a name."""
    return reason.partition(":")[0].strip()[:_REASON_LONGEST]
