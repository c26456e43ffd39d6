"""Show what processes count and use, gateways among them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from prometheus_client.core import Metric

from inference.gateway.metrics import families
from inference.metrics.counts import Distribution, Number
from inference.metrics.own_reports import PYTHON, VERSION, OwnReport
from inference.metrics.own_use import OwnUse
from inference.metrics.table import METRICS

_Count = TypeVar("_Count", Number, Distribution)
# The processes that every machine runs beside gateways and engines.
ALWAYS = ("host", "internal", "controller", "worker", "beat")

_USED: dict[str, Callable[[OwnUse], float]] = {
    "process_cpu_seconds": lambda use: use.cpu_s,
    "process_resident_bytes": lambda use: use.resident_bytes,
    "process_open_files": lambda use: use.open_files,
    "process_open_files_limit": lambda use: use.open_files_limit,
    "process_started_at_seconds": lambda use: use.started_at,
}

_COUNTED = [
    measure.name
    for measure in METRICS.values()
    if measure.source == "processes"
    and measure.name not in (*_USED, "process_up", "build_info")
]


def site_names(workers: int) -> list[str]:
    return ["site", *(f"site-{number}" for number in range(2, workers + 1))]


def of_gateway(name: str, use: OwnUse, *, now: float) -> OwnReport:
    """Return the report of a gateway; its calls are counted elsewhere."""
    return OwnReport(name, now, VERSION, PYTHON, use)


def of_processes(
    reports: Iterable[OwnReport], *, expected: Iterable[str], now: float
) -> Iterator[Metric]:
    """Yield what processes report; `expected` are those that should be there.

    Of a process that is away, only counters stay: they say what it did until then.
    """
    up = dict.fromkeys(expected, 0.0)
    found = [it for it in reports if it.process in up or it.is_fresh(now)]
    here = [it for it in found if it.is_fresh(now)]
    up |= dict.fromkeys([it.process for it in here], 1.0)
    yield families.numbers("process_up", [([it], one) for it, one in up.items()])
    yield families.numbers(
        "build_info", [([it.process, it.version, it.python], 1.0) for it in here]
    )
    for name, used in _USED.items():
        yield families.numbers(name, [([it.process], used(it.use)) for it in here])
    for name in _COUNTED:
        source = here if METRICS[name].kind == "gauge" else found
        if METRICS[name].kind == "histogram":
            yield from families.distributions(
                name,
                [
                    ([it.process, *one.labels], one.buckets, one.total)
                    for it in source
                    for one in _of(name, it.distributions)
                ],
            )
        else:
            yield families.numbers(
                name,
                [
                    ([it.process, *one.labels], one.value)
                    for it in source
                    for one in _of(name, it.numbers)
                ],
            )


def _of(name: str, counts: Sequence[_Count]) -> Iterator[_Count]:
    """Yield the counts of a metric; another program version may label it otherwise."""
    labels = len(METRICS[name].labels) - 1
    return (it for it in counts if it.name == name and len(it.labels) == labels)
