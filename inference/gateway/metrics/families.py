"""Make families of the table's metrics, and write them as Prometheus text."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest

from inference.metrics.table import METRICS

# This many series of a histogram are written before the event loop gets its turn.
_SERIES_AT_ONCE = 8
_LIMITS = {
    measure.buckets: [*(f"{limit:g}" for limit in measure.buckets), "+Inf"]
    for measure in METRICS.values()
}

Numbers = Iterable[tuple[Sequence[str], float]]
# Labels, how many values are in each bucket, and the sum of the values.
Distributions = Iterable[tuple[Sequence[str], Sequence[int], float]]


def numbers(name: str, samples: Numbers) -> Metric:
    """Return a counter or gauge with its samples: the values of all labels, and one."""
    measure = METRICS[name]
    kind = CounterMetricFamily if measure.kind == "counter" else GaugeMetricFamily
    family = kind(measure.full_name, measure.about, labels=measure.labels)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


def distributions(name: str, samples: Distributions) -> Iterator[Metric]:
    """Yield a histogram in pieces."""
    measure = METRICS[name]
    limits = _LIMITS[measure.buckets]
    # Another program's version may count in other buckets.
    found = [sample for sample in samples if len(sample[1]) == len(limits)]
    for first in range(0, len(found) or 1, _SERIES_AT_ONCE):
        family = HistogramMetricFamily(
            measure.full_name, measure.about, labels=measure.labels
        )
        for labels, counts, total in found[first : first + _SERIES_AT_ONCE]:
            buckets = list(zip(limits, map(float, accumulate(counts)), strict=True))
            family.add_metric(labels, buckets=buckets, sum_value=total)
        yield family


def write(families: Iterable[Metric]) -> Iterator[bytes]:
    """Write Prometheus text in pieces; families of the same name must be adjacent."""
    name = ""
    for family in families:
        text = generate_latest(_Collected(family))
        if family.name == name:
            # Its HELP and TYPE lines were written with the piece before.
            text = text.split(b"\n", 2)[2]
        name = family.name
        yield text


class _Collected:
    """One metric family in the form of a registry, as prometheus-client needs it."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        yield self._family
