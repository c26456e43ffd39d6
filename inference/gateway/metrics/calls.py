"""Count calls by model, version, variant, operation and status.

A call costs a few look-ups and additions; Prometheus text is written only when asked
for. One process can report the counts of several (`Metrics.state`): each has its own
label, so a counter falls for no scraper when one of them restarts or does not answer.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

import msgspec
from prometheus_client.core import Metric

from accounts.metering.event import UsageEvent
from inference.gateway.metrics import families
from inference.installation.ledger_report import JobCounts
from inference.metrics.table import METRICS
from inference.prediction.cache import CacheCounts

_Labels = tuple[str, str, str, str, int]
# Model, version, operation and error code.
_ErrorLabels = tuple[str, str, str, str]
# Upper limits of the buckets, times in µs.
_TIMES = [round(it * 1e6) for it in METRICS["request_duration_seconds"].buckets]
_SIZES = [round(it) for it in METRICS["request_rows"].buckets]


class ShadowCounts(msgspec.Struct):
    """Copies of calls to shadows, by model and version."""

    # By outcome, too.
    calls: dict[tuple[str, str, str], int] = {}
    rows: dict[tuple[str, str], int] = {}
    distance: dict[tuple[str, str], float] = {}
    seconds: dict[tuple[str, str], float] = {}


class Series(msgspec.Struct):
    """The counts of all calls with the same labels."""

    count: int = 0
    total_us: int = 0
    compute_us: int = 0
    rows: int = 0
    samples: int = 0
    # How many calls lie in each bucket, the last one without an upper limit.
    times: list[int] = msgspec.field(default_factory=lambda: [0] * (len(_TIMES) + 1))
    sizes: list[int] = msgspec.field(default_factory=lambda: [0] * (len(_SIZES) + 1))


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
    cut_off: int = 0
    errors: list[tuple[_ErrorLabels, int]] = []
    shadows: ShadowCounts = msgspec.field(default_factory=ShadowCounts)


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
        self._errors: dict[_ErrorLabels, int] = {}
        self.unauthenticated = 0
        self.unrecorded = 0
        # Clients that left before their answer.
        self.abandoned = 0
        # These are set to the counts of the prediction cache and of `LeaseClient`.
        self.cache = CacheCounts()
        self.lease_failures: Mapping[str, int] = {}
        self.shadows = ShadowCounts()
        # The bounds of all parts of the process, by name.
        self.bounds: dict[str, Bound] = {}
        # Returns how many clients were cut off because they read too slowly.
        self.cut_off: Callable[[], int] = int

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
        series.times[bisect_left(_TIMES, event.total_us)] += 1
        series.sizes[bisect_left(_SIZES, event.rows)] += 1
        if event.code:
            error = (event.model, event.version, event.operation, event.code)
            self._errors[error] = self._errors.get(error, 0) + 1

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
            self.cut_off(),
            list(self._errors.items()),
            self.shadows,
        )


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
    for name, count in _COUNTS.items():
        samples = [(key, count(found)) for key, found in (*series, *of_jobs)]
        yield families.numbers(name, samples)
    for name, total in _TOTALS.items():
        samples = [((gateway,), total(state)) for gateway, state in states.items()]
        yield families.numbers(name, samples)
    for name, several in _LABELLED.items():
        yield families.numbers(
            name,
            [
                ((gateway, *labels), number)
                for gateway, state in states.items()
                for labels, number in several(state)
            ],
        )
    yield from families.distributions(
        "request_duration_seconds",
        [(key, found.times, found.total_us / 1e6) for key, found in series],
    )
    yield from families.distributions(
        "request_rows", [(key, found.sizes, found.rows) for key, found in series]
    )


_COUNTS: dict[str, Callable[[Series], float]] = {
    "requests": lambda found: found.count,
    "rows": lambda found: found.rows,
    "compute_seconds": lambda found: found.compute_us / 1e6,
    "shap_samples": lambda found: found.samples,
}
_TOTALS: dict[str, Callable[[MetricsState], float]] = {
    "unauthenticated_requests": lambda state: state.unauthenticated,
    "unrecorded_requests": lambda state: state.unrecorded,
    "abandoned_requests": lambda state: state.abandoned,
    "connections_cut_off": lambda state: state.cut_off,
    "cache_hits": lambda state: state.cache.hits,
    "cache_misses": lambda state: state.cache.misses,
    "cache_evictions": lambda state: state.cache.evictions,
    "cache_entries": lambda state: state.cache.entries,
    "cache_bytes": lambda state: state.cache.bytes,
}
# Metrics with more labels than the gateway.
_LABELLED: dict[
    str, Callable[[MetricsState], Iterable[tuple[tuple[str, ...], float]]]
] = {
    "errors": lambda state: state.errors,
    "shadow_calls": lambda state: state.shadows.calls.items(),
    "shadow_rows": lambda state: state.shadows.rows.items(),
    "shadow_distance": lambda state: state.shadows.distance.items(),
    "shadow_compute_seconds": lambda state: state.shadows.seconds.items(),
    "lease_failures": lambda state: _by_one(state.lease_failures),
    "bound_refusals": lambda state: _by_one(state.refused),
    "bound_used": lambda state: _by_one(state.used),
}


def _by_one(counts: Mapping[str, int]) -> Iterator[tuple[tuple[str, ...], float]]:
    return (((label,), number) for label, number in counts.items())
