"""What happens with each job, counted in plain numbers, and told in Prometheus's words when somebody asks.

Prometheus's own counters take a lock each time, and look for their labels; ours are for the event loop's thread alone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector


class Durations:
    """How many durations, in seconds, were between one bound and the next, the upper one included; and their sum."""

    def __init__(self, bounds: Sequence[float], parts: Iterable[Durations] = ()) -> None:
        """`parts`: others of the same bounds, of which these are all."""
        parts = list(parts)
        self.bounds = bounds
        self.numbers: list[int] = [sum(part.numbers[place] for part in parts) for place in range(len(bounds) + 1)]
        self.sum: float = sum((part.sum for part in parts), 0.0)

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.numbers[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds


class HistogramOfDurations(Collector):
    """A histogram whose series, by the values of its labels, are put together when somebody asks."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        series: Callable[[], Mapping[tuple[str, ...], Durations]],
        *,
        registry: CollectorRegistry,
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._labels = labels
        self._series = series
        registry.register(self)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """What a scrape asks for."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        for labels, durations in self._series().items():
            bounds = [str(float(bound)) for bound in durations.bounds] + ["+Inf"]
            family.add_metric(labels, list(zip(bounds, accumulate(durations.numbers), strict=True)), durations.sum)
        yield family


class PlainCounter(Collector):
    """A counter by the values of its labels."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str], *, registry: CollectorRegistry) -> None:
        self._name = name
        self._documentation = documentation
        self._labels = labels
        self._numbers: Counter[tuple[str, ...]] = Counter()
        registry.register(self)

    def count(self, labels: tuple[str, ...], number: int = 1) -> None:
        """Count some more."""
        self._numbers[labels] += number

    def collect(self) -> Iterator[CounterMetricFamily]:
        """What a scrape asks for."""
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labels)
        for labels, number in self._numbers.items():
            family.add_metric(labels, number)
        yield family
