"""The newest number of each series, as records have told it.

A *series* is a metric with one set of labels. A gauge shows what the newest record said, a counter the sum over all
records. The rules:

* A record counts once, however often it is delivered: its key is remembered for a while.
* Newest is what was *recorded* last. Records come from many nodes, and some only after an outage.
* A gauge of which nothing was heard for `stale_after_s` is removed: a Pushgateway never forgets by itself. A counter
  stays: nothing to count is no silence, and a sum that begins anew would hide what is counted next.
* Gauges and counters have so much room each. A gauge for which there is none is refused, until others were removed. A
  counter takes the place of the one that has not grown for longest, of the metric that has the most of them.
* Of gauges that differ in the label `state` alone, only the newest stays: whatever it is about has one state at a time.

All times are Unix times: those of records by the clock of their node, `now` by the clock here. A record from the
future counts as one from now.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite

from cyclone.errors import PluginError, RecordError, RuleBroken
from cyclone.metrics.family import Declaration, Family, Labels, complaint, label_text
from cyclone.metrics.figures import SeriesFigures
from cyclone.metrics.own import OWN
from cyclone.record import Metric, Record

#: A label of this name says in which of several states something is.
STATE = "state"

#: Of gauges, and as many counters; some 200 bytes each. A metric whose labels take ever new values must not fill the memory.
SERIES_MOST = 200_000

#: A record comes again while its sender does not know that it has arrived, so within some seconds.
UIDS_MOST = 100_000


class _Series:
    """labels: in full. value: None where a record has removed it, until nobody can ask for an older one."""

    __slots__ = ("at", "labels", "value")

    def __init__(self, labels: Labels, value: float | None, at: float) -> None:
        self.labels, self.value, self.at = labels, value, at


class CurrentSeries:
    """Owns every series of these kinds of records."""

    def __init__(
        self,
        kinds: Iterable[type[Record]],
        *,
        stale_after_s: float,
        series_most: int = SERIES_MOST,
        uids_most: int = UIDS_MOST,
    ) -> None:
        """Raises PluginError when a metric cannot be shown, or is declared twice in different ways."""
        self._stale_after_s, self._series_most = stale_after_s, series_most
        self._metrics = {kind: [(metric, _declaration(metric)) for metric in kind.metrics] for kind in kinds}
        # Of a counter in the order in which they have grown.
        self._series: dict[Declaration, dict[Labels, _Series]] = {
            declaration: {} for declaration in _agreed(self._metrics)
        }
        self._counts = dict.fromkeys(("gauge", "counter"), 0)
        self._seen = _Seen(uids_most)
        self._repeated = self._stale = self._refused = 0

    def take(self, uid: bytes | None, record: Record, at: float, now: float) -> bool:
        """Let a record change its series; False if it has done so before.

        uid: None if it has none, and counts whenever it comes. at: when it was recorded.
        Raises RecordError when its kind cannot make a number or a label of it: no series is changed then.
        """
        metrics = self._metrics.get(type(record))
        if metrics is None:
            raise RuleBroken(f"a record of the kind {record.kind!r}, which was not declared here")
        if uid is not None and not self._seen.add(uid):
            self._repeated += 1
            return False
        samples = [(declaration, *_sample(metric, record)) for metric, declaration in metrics]
        moment = at if at <= now else now  # also when it is not a number
        for declaration, labels, value in samples:
            if declaration.kind == "counter":
                self._count_up(declaration, labels, value, moment)
            else:
                self._set(declaration, labels, value, moment, now)
        return True

    def expire(self, now: float) -> int:
        """Remove what nothing was heard of for too long. Returns how many series vanish by that."""
        vanished = 0
        oldest = now - self._stale_after_s
        for declaration, series in self._series.items():
            if declaration.kind == "counter":
                continue
            for key in [key for key, each in series.items() if each.at < oldest]:
                vanished += series.pop(key).value is not None
                self._counts["gauge"] -= 1
        self._stale += vanished
        return vanished

    def families(self) -> list[Family]:
        """What there is to show now, in copies; nothing of what has no series."""
        found = []
        for declaration, series in self._series.items():
            samples = {each.labels: each.value for each in series.values() if each.value is not None}
            if samples:
                found.append(Family(declaration, samples))
        return found

    @property
    def figures(self) -> SeriesFigures:
        return SeriesFigures(sum(self._counts.values()), self._repeated, self._stale, self._refused)

    def _count_up(self, declaration: Declaration, labels: Labels, value: float | None, at: float) -> None:
        # None: there was nothing to count. Removing the sum would take back what was counted before.
        if value is not None and (known := self._at_place(declaration, labels, labels, 0.0, at)) is not None:
            assert known.value is not None
            known.value += value
            series = self._series[declaration]
            series[labels] = series.pop(labels)

    def _set(
        self, declaration: Declaration, labels: Labels, value: float | None, at: float, now: float
    ) -> None:
        key = labels
        if STATE in declaration.labels:
            place = declaration.labels.index(STATE)
            key = labels[:place] + labels[place + 1 :]
        if key not in self._series[declaration] and at < now - self._stale_after_s:
            # From a backlog: it would vanish at once, and be counted as something that fell silent.
            return
        known = self._at_place(declaration, key, labels, value, at)
        # What lies ahead of now was taken before the clock here was set back, and would stay for as long.
        if known is not None and (at >= known.at or known.at > now):
            known.labels, known.value, known.at = labels, value, at

    def _at_place(
        self, declaration: Declaration, key: Labels, labels: Labels, value: float | None, at: float
    ) -> _Series | None:
        """The series of this key, or a new one; None if there is no room for more."""
        series = self._series[declaration]
        known = series.get(key)
        if known is None:
            if self._counts[declaration.kind] >= self._series_most:
                self._refused += 1
                if declaration.kind == "gauge":
                    return None
                self._forget_a_counter()
            known = series[key] = _Series(labels, value, at)
            self._counts[declaration.kind] += 1
        return known

    def _forget_a_counter(self) -> None:
        counters = [series for declaration, series in self._series.items() if declaration.kind == "counter"]
        largest = max(counters, key=len)
        del largest[next(iter(largest))]
        self._counts["counter"] -= 1


class _Seen:
    """The newest keys: so many at least, twice as many at most."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._newer: set[bytes] = set()
        self._older: set[bytes] = set()

    def add(self, uid: bytes) -> bool:
        """False if it is known."""
        if uid in self._newer or uid in self._older:
            return False
        if len(self._newer) >= self._most:
            self._older, self._newer = self._newer, set()
        self._newer.add(uid)
        return True


def _declaration(metric: Metric) -> Declaration:
    return Declaration(metric.name, metric.help, metric.labels, metric.kind)


def _agreed(metrics: dict[type[Record], list[tuple[Metric, Declaration]]]) -> list[Declaration]:
    """Every declaration once, by name. Raises PluginError."""
    found = {declaration.name: declaration for declaration in OWN}
    for kind, declared in metrics.items():
        for _, declaration in declared:
            if problem := complaint(declaration):
                raise PluginError(f"{kind.__module__}.{kind.__qualname__}: {problem}")
            if found.setdefault(declaration.name, declaration) != declaration or declaration in OWN:
                raise PluginError(
                    f"{kind.__module__}.{kind.__qualname__}: {declaration.name} is declared otherwise elsewhere"
                )
    return sorted(set(found.values()).difference(OWN))


def _sample(metric: Metric, record: Record) -> tuple[Labels, float | None]:
    """Raises RecordError."""
    problem = f"a record of the kind {record.kind!r}: {metric.name}"
    try:
        labels = tuple(label_text(getattr(record, label)) for label in metric.labels)
        value = metric.value(record)
        number = None if value is None else float(value)
    except Exception as error:
        # Whatever the code of a site may raise.
        raise RecordError(f"{problem} cannot be had: {error!r}") from error
    if metric.kind == "counter" and number is not None and not (isfinite(number) and number >= 0):
        raise RecordError(f"{problem}: found {number}, expected a counter to grow by a number from 0")
    return labels, number
