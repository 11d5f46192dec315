"""How numbers become lines for Prometheus: counters, gauges and histograms out of plain values."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

L = TypeVar("L", bound=tuple[str, ...])


class Histogram:
    """Numbers by size, one bucket beyond the last bound."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def observe(self, value: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper bound, as Prometheus wants them."""
        bounds = [*map(floatToGoString, self._bounds), "+Inf"]
        return list(zip(bounds, map(float, accumulate(self._counts)), strict=True))

    @property
    def total(self) -> float:
        """The sum of all that was counted."""
        return self._total


def gauge(name: str, about: str, value: float) -> Metric:
    """One number that goes up and down."""
    return GaugeMetricFamily(name, about, value=value)


def gauges(name: str, about: str, labels: Sequence[str], values: Mapping[L, float]) -> Metric:
    """Numbers that go up and down, by labels."""
    family = GaugeMetricFamily(name, about, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def counter(name: str, about: str, labels: Sequence[str], counts: Iterable[tuple[Sequence[str], int]]) -> Metric:
    """Numbers that only grow, by labels."""
    family = CounterMetricFamily(name, about, labels=labels)
    for key, count in counts:
        family.add_metric(key, count)
    return family


def histograms(name: str, about: str, labels: Sequence[str], values: Mapping[L, Histogram]) -> Metric:
    """Histograms by labels."""
    family = HistogramMetricFamily(name, about, labels=labels)
    for key, histogram in values.items():
        family.add_metric(key, histogram.buckets(), histogram.total)
    return family
