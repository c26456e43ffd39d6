"""Show gauges of reports and of gateways, which come one by one."""

from collections.abc import Iterable, Iterator

from prometheus_client.core import Metric

from inference.gateway.metrics import families
from inference.installation.ledger_report import Gauge
from inference.metrics.table import METRICS


def of_gauges(gauges: Iterable[Gauge]) -> Iterator[Metric]:
    """Yield gauges by name; those that the table does not know are left out."""
    by_name: dict[str, list[tuple[list[str], float]]] = {}
    for gauge in gauges:
        measure = METRICS.get(gauge.name)
        if measure is not None and measure.labels == tuple(gauge.labels):
            sample = (list(gauge.labels.values()), gauge.value)
            by_name.setdefault(gauge.name, []).append(sample)
    for name in sorted(by_name):
        yield families.numbers(name, by_name[name])
