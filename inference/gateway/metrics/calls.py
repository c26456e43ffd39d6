"""Count calls by model, version, variant, operation and status.

A call costs one look-up and a few additions; Prometheus text is written only when asked
for. Histograms have a bucket for each power of two. One process can report the counts
of several (`Metrics.state`): each has its own label, so a counter falls for no scraper
when one of them restarts or does not answer.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Protocol

import msgspec
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest

from accounts.metering.event import UsageEvent
from inference.installation.ledger_report import Gauge, JobCounts
from inference.prediction.cache import CacheCounts

# The largest limits: 2**26 µs are 67 s, 2**14 rows are 16,384.
_TIME_BUCKETS = 27
_ROW_BUCKETS = 15

_Labels = tuple[str, str, str, str, int]
_LABEL_NAMES = ("gateway", "model", "version", "variant", "operation", "status")
# Upper limits of the buckets: 2**n µs, in seconds, and 2**n - 1 rows.
_TIME_LIMITS = [*(str(2**n / 1e6) for n in range(_TIME_BUCKETS)), "+Inf"]
_ROW_LIMITS = [*(str(2**n - 1) for n in range(_ROW_BUCKETS)), "+Inf"]
# This many series of a histogram are written before the event loop gets its turn.
_SERIES_AT_ONCE = 8


class Series(msgspec.Struct):
    """The counts of all calls with the same labels."""

    count: int = 0
    total_us: int = 0
    compute_us: int = 0
    rows: int = 0
    samples: int = 0
    # At index n: values below 2**n and not below 2**(n - 1).
    times: list[int] = msgspec.field(default_factory=lambda: [0] * (_TIME_BUCKETS + 1))
    sizes: list[int] = msgspec.field(default_factory=lambda: [0] * (_ROW_BUCKETS + 1))


class MetricsState(msgspec.Struct):
    """All counts of one process, in a form that is sent to another."""

    series: list[tuple[_Labels, Series]]
    unauthenticated: int
    unrecorded: int
    abandoned: int = 0
    cache: CacheCounts = msgspec.field(default_factory=CacheCounts)
    # Requests for units of a quota that failed, by the reason.
    lease_failures: dict[str, int] = {}
    # For each bound that customers share: how often there was no room, and the use now.
    refused: dict[str, int] = {}
    used: dict[str, int] = {}


class Bound(Protocol):
    """The counts of a bound, such as `Shares`."""

    @property
    def used(self) -> int: ...

    @property
    def refused(self) -> int: ...


class Metrics:
    """Count the calls of one process since its start."""

    def __init__(self) -> None:
        self._series: dict[_Labels, Series] = {}
        self.unauthenticated = 0
        self.unrecorded = 0
        # Clients that left before their answer.
        self.abandoned = 0
        # These are set to the counts of the prediction cache and of `LeaseClient`.
        self.cache = CacheCounts()
        self.lease_failures: Mapping[str, int] = {}
        # The bounds of all parts of the process, by name.
        self.bounds: dict[str, Bound] = {}

    def observe(self, event: UsageEvent) -> None:
        labels = (
            event.model,
            event.version,
            event.variant,
            event.operation,
            event.status,
        )
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = Series()
        series.count += 1
        series.total_us += event.total_us
        series.compute_us += event.compute_us
        series.rows += event.rows
        series.samples += event.shap_samples
        bucket = event.total_us.bit_length()
        series.times[bucket if bucket < _TIME_BUCKETS else _TIME_BUCKETS] += 1
        bucket = event.rows.bit_length()
        series.sizes[bucket if bucket < _ROW_BUCKETS else _ROW_BUCKETS] += 1

    def state(self) -> MetricsState:
        return MetricsState(
            list(self._series.items()),
            self.unauthenticated,
            self.unrecorded,
            self.abandoned,
            self.cache,
            dict(self.lease_failures),
            {name: shares.refused for name, shares in self.bounds.items()},
            {name: shares.used for name, shares in self.bounds.items()},
        )


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


def of_gateways(
    states: Mapping[str, MetricsState], jobs: Iterable[JobCounts] = ()
) -> Iterator[Metric]:
    """Yield the metrics of gateways, which are given by name, and of jobs."""
    series = [
        ((gateway, *map(str, labels)), found)
        for gateway, state in states.items()
        for labels, found in state.series
    ]
    of_jobs = [
        (
            ("", it.model, it.version, it.variant, "job", "200"),
            Series(count=it.requests, rows=it.rows, compute_us=it.compute_us),
        )
        for it in jobs
    ]
    for name, about, count in _COUNTS:
        family = CounterMetricFamily(f"modelyard_{name}", about, labels=_LABEL_NAMES)
        for key, found in (*series, *of_jobs):
            family.add_metric(key, count(found))
        yield family
    for name, about, total in _TOTALS:
        family = CounterMetricFamily(f"modelyard_{name}", about, labels=["gateway"])
        for gateway, state in states.items():
            family.add_metric([gateway], total(state))
        yield family
    about = "Requests for units of a quota that the site refused or did not answer."
    failures = CounterMetricFamily(
        "modelyard_lease_failures", about, labels=["gateway", "reason"]
    )
    for gateway, state in states.items():
        for reason, number in state.lease_failures.items():
            failures.add_metric([gateway, reason], number)
    yield failures
    for kind, name, about, counts in _BOUNDS:
        labels = ["gateway", "bound"]
        bounds = kind(f"modelyard_{name}", about, labels=labels)
        for gateway, state in states.items():
            for bound, number in counts(state).items():
                bounds.add_metric([gateway, bound], number)
        yield bounds
    for name, about, held in _CACHE_GAUGES:
        gauge = GaugeMetricFamily(f"modelyard_{name}", about, labels=["gateway"])
        for gateway, state in states.items():
            gauge.add_metric([gateway], held(state))
        yield gauge
    yield from _histograms(
        "request_duration_seconds",
        "Time to the answer.",
        _TIME_LIMITS,
        [(key, found.times, found.total_us / 1e6) for key, found in series],
    )
    yield from _histograms(
        "request_rows",
        "Rows per call.",
        _ROW_LIMITS,
        [(key, found.sizes, found.rows) for key, found in series],
    )


def of_gauges(gauges: Iterable[Gauge]) -> Iterator[Metric]:
    families: dict[str, Metric] = {}
    for gauge in gauges:
        name = f"modelyard_{gauge.name}"
        about = _GAUGES.get(gauge.name, "")
        family = families.setdefault(name, Metric(name, about, "gauge"))
        family.add_sample(name, gauge.labels, gauge.value)
    for name in sorted(families):
        yield families[name]


class _Collected:
    """One metric family in the form of a registry, as prometheus-client needs it."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        yield self._family


def _histograms(
    name: str,
    about: str,
    limits: list[str],
    series: list[tuple[tuple[str, ...], list[int], float]],
) -> Iterator[Metric]:
    for first in range(0, len(series) or 1, _SERIES_AT_ONCE):
        family = HistogramMetricFamily(f"modelyard_{name}", about, labels=_LABEL_NAMES)
        for labels, counts, total in series[first : first + _SERIES_AT_ONCE]:
            buckets = list(zip(limits, accumulate(counts), strict=True))
            family.add_metric(labels, buckets=buckets, sum_value=total)
        yield family


_COUNTS: tuple[tuple[str, str, Callable[[Series], float]], ...] = (
    ("requests", "Answered calls.", lambda found: found.count),
    ("rows", "Rows predicted.", lambda found: found.rows),
    ("compute_seconds", "Time on the device.", lambda found: found.compute_us / 1e6),
    (
        "shap_samples",
        "Forward passes spent on explanations.",
        lambda found: found.samples,
    ),
)
_TOTALS: tuple[tuple[str, str, Callable[[MetricsState], float]], ...] = (
    (
        "unauthenticated_requests",
        "Calls without a valid key.",
        lambda state: state.unauthenticated,
    ),
    (
        "unrecorded_requests",
        "Calls refused because the spool could not be written.",
        lambda state: state.unrecorded,
    ),
    (
        "abandoned_requests",
        "Calls whose client left before the answer.",
        lambda state: state.abandoned,
    ),
    ("cache_hits", "Predictions given from the cache.", lambda state: state.cache.hits),
    (
        "cache_misses",
        "Predictions that the cache did not hold.",
        lambda state: state.cache.misses,
    ),
    (
        "cache_evictions",
        "Predictions dropped from the cache to make room.",
        lambda state: state.cache.evictions,
    ),
)
_BOUNDS: tuple[
    tuple[
        type[CounterMetricFamily] | type[GaugeMetricFamily],
        str,
        str,
        Callable[[MetricsState], dict[str, int]],
    ],
    ...,
] = (
    (
        CounterMetricFamily,
        "bound_refusals",
        "Requests without room in a bound that customers share.",
        lambda state: state.refused,
    ),
    (
        GaugeMetricFamily,
        "bound_used",
        "What is used of a bound that customers share.",
        lambda state: state.used,
    ),
)
_CACHE_GAUGES: tuple[tuple[str, str, Callable[[MetricsState], float]], ...] = (
    ("cache_entries", "Predictions in the cache.", lambda state: state.cache.entries),
    ("cache_bytes", "Memory of the cache.", lambda state: state.cache.bytes),
)
_GAUGES = {
    "ready": "1 while every gateway can answer.",
    "snapshot_sequence": "Number of the snapshot that gateways answer from.",
    "snapshot_age_seconds": "Time since the snapshot was published.",
    "spool_failing": "1 while usage events cannot be written.",
    "leases_failing": "1 while the site lends no units of quotas.",
    "overdrawn_units": "Units spent beyond leases.",
    "keys_backing_off": "Keys closed for a while because they called on when refused.",
    "connections_cut_off": "Clients cut off because they read too slowly.",
    "engine_up": "1 for an engine that answers.",
    "gateway_up": "1 for a gateway that answers.",
    "grpc_certificate_ends_at_seconds": "When gRPC's certificate ends, Unix time.",
    "usage_roll_up_lag_seconds": "How long the oldest hour waits to be rolled up.",
    "ledger_report_age_seconds": "Time since the controller looked at the ledger.",
    "host_report_age_seconds": "Time since the host looked at its processes.",
    "process_running": "1 for an engine process that runs.",
    "process_memory_bytes": "Memory of an engine process beyond an empty one.",
    "process_deaths_today": "Deaths of processes while a version ran, in 24 hours.",
    "version_quarantined": "1 for a version that its host does not start any more.",
}
