"""Families as the text that Prometheus reads, made by its own library without its global registry."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from cyclone.metrics.family import Family


class Exposition(Collector):
    """What is shown: one copy for the Pushgateway, for every scrape, and for both at once.

    Owned by the loop of a daemon, which alone may `show`. Whoever renders, in whatever thread, takes what was shown
    last as a whole and waits for nobody. It is a registry of its own: nothing else in the process can slip in.
    """

    def __init__(self) -> None:
        self._parts: dict[str, tuple[Family, ...]] = {}

    def show(self, part: str, families: Iterable[Family]) -> None:
        """Replace what was shown under this name ("records", "cluster", …).

        families: given away, not to be changed any more. No two parts hold a family of the same name.
        """
        # A new dict: readers go on with the one that they have begun with.
        self._parts = {**self._parts, part: tuple(families)}

    def families(self) -> list[Family]:
        """All that is shown now, by name."""
        shown = [family for families in self._parts.values() for family in families]
        return sorted(shown, key=lambda family: family.declaration.name)

    def collect(self) -> Iterator[Metric]:
        """What the library asks of a registry."""
        return _Chosen(self.families()).collect()

    def restricted_registry(self, names: Collection[str]) -> Collector:
        """What the library asks of a registry when a scrape wants some metrics only (`/metrics?name[]=…`)."""
        return _Chosen([family for family in self.families() if family.declaration.name in names])


class _Chosen(Collector):
    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for declaration, samples in self._families:
            kind = CounterMetricFamily if declaration.kind == "counter" else GaugeMetricFamily
            metric = kind(declaration.name, declaration.help, labels=declaration.labels)
            for labels, value in samples.items():
                metric.add_metric(labels, value)
            yield metric


def render(families: Iterable[Family]) -> bytes:
    """The text format of Prometheus. It has no sample timestamps: a Pushgateway refuses those."""
    return generate_latest(_Chosen(families))
