"""Counts of calls by model, version, variant, operation and status. Pure.

One look-up and a few additions per call; Prometheus text is made only when asked for.
Histograms have a bucket per power of two. `state` and `add` let one process answer for
several.
"""

from collections.abc import Iterable, Mapping

import msgspec

from accounts.usage_event import UsageEvent
from inference.cache import CacheCounts

# 2**26 µs are 67 s, 2**14 rows 16,384.
_TIME_BUCKETS = 27
_ROW_BUCKETS = 15

_Labels = tuple[str, str, str, str, int]
_LABEL_NAMES = ("model", "version", "variant", "operation", "status")


class Series(msgspec.Struct):
    """The calls that share their labels."""

    count: int = 0
    total_us: int = 0
    compute_us: int = 0
    rows: int = 0
    samples: int = 0
    # At index n: values below 2**n and not below 2**(n - 1).
    times: list[int] = msgspec.field(default_factory=lambda: [0] * (_TIME_BUCKETS + 1))
    sizes: list[int] = msgspec.field(default_factory=lambda: [0] * (_ROW_BUCKETS + 1))

    def add(self, other: "Series") -> None:
        self.count += other.count
        self.total_us += other.total_us
        self.compute_us += other.compute_us
        self.rows += other.rows
        self.samples += other.samples
        self.times = [a + b for a, b in zip(self.times, other.times, strict=True)]
        self.sizes = [a + b for a, b in zip(self.sizes, other.sizes, strict=True)]


class MetricsState(msgspec.Struct):
    """All counts of one process, to be sent to another."""

    series: list[tuple[_Labels, Series]]
    unauthenticated: int
    unrecorded: int
    abandoned: int = 0
    cache: CacheCounts = msgspec.field(default_factory=CacheCounts)


class Metrics:
    """The calls of one process since its start."""

    def __init__(self) -> None:
        self._series: dict[_Labels, Series] = {}
        self.unauthenticated = 0
        self.unrecorded = 0
        # Clients that left before their answer.
        self.abandoned = 0
        # The cache itself counts.
        self.cache = CacheCounts()

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
        )

    def add(self, other: MetricsState) -> None:
        """Count the calls of another process too."""
        for labels, found in other.series:
            self._series.setdefault(labels, Series()).add(found)
        self.unauthenticated += other.unauthenticated
        self.unrecorded += other.unrecorded
        self.abandoned += other.abandoned
        self.cache = self.cache.plus(other.cache)

    def render(self, gauges: Mapping[str, float] | None = None) -> str:
        """Write everything, and gauges of the process, as Prometheus text."""
        series = [(_text(labels), found) for labels, found in self._series.items()]
        lines = [
            *_counter("requests", "Answered calls.", [(k, s.count) for k, s in series]),
            *_counter("rows", "Rows predicted.", [(k, s.rows) for k, s in series]),
            *_counter(
                "compute_seconds",
                "Time on the device.",
                [(k, s.compute_us / 1e6) for k, s in series],
            ),
            *_counter(
                "shap_samples",
                "Forward passes spent on explanations.",
                [(k, s.samples) for k, s in series],
            ),
            *_counter(
                "unauthenticated_requests",
                "Calls without a valid key.",
                [("", self.unauthenticated)],
            ),
            *_counter(
                "unrecorded_requests",
                "Calls refused because the spool could not be written.",
                [("", self.unrecorded)],
            ),
            *_counter(
                "abandoned_requests",
                "Calls whose client left before the answer.",
                [("", self.abandoned)],
            ),
            *_cache_lines(self.cache),
            *_histogram_head("request_duration_seconds", "Time to the answer."),
        ]
        for labels, found in series:
            limits = [2**index / 1e6 for index in range(_TIME_BUCKETS)]
            name, total = "request_duration_seconds", found.total_us / 1e6
            lines += _histogram(name, labels, limits, found.times, total)
        lines += _histogram_head("request_rows", "Rows per call.")
        for labels, found in series:
            # Below 2**n rows means at most 2**n - 1.
            limits = [2**index - 1 for index in range(_ROW_BUCKETS)]
            lines += _histogram("request_rows", labels, limits, found.sizes, found.rows)
        typed = ""
        named = [(name.partition("{")[0], name) for name in gauges or {}]
        for family, name in sorted(named):
            value = (gauges or {})[name]
            if family != typed:
                # Once for a family, and its samples after it.
                lines.append(f"# TYPE modelyard_{family} gauge")
                typed = family
            lines.append(f"modelyard_{name} {value:g}")
        return "\n".join(lines) + "\n"


def label_text(value: object) -> str:
    """Escape a label's value."""
    text = str(value).replace("\\", r"\\").replace('"', r"\"")
    return text.replace("\n", r"\n")


def _text(labels: _Labels) -> str:
    pairs = zip(_LABEL_NAMES, labels, strict=True)
    return ",".join(f'{name}="{label_text(value)}"' for name, value in pairs)


def _counter(
    name: str, about: str, values: Iterable[tuple[str, float]]
) -> Iterable[str]:
    yield f"# HELP modelyard_{name}_total {about}"
    yield f"# TYPE modelyard_{name}_total counter"
    for labels, value in values:
        braces = f"{{{labels}}}" if labels else ""
        yield f"modelyard_{name}_total{braces} {value:.10g}"


def _cache_lines(cache: CacheCounts) -> Iterable[str]:
    yield from _counter(
        "cache_hits", "Predictions given from the cache.", [("", cache.hits)]
    )
    yield from _counter(
        "cache_misses", "Predictions that it did not hold.", [("", cache.misses)]
    )
    yield from _counter(
        "cache_evictions",
        "Predictions that left it early, for want of room.",
        [("", cache.evictions)],
    )
    for name, value in (("entries", cache.entries), ("bytes", cache.bytes)):
        yield f"# TYPE modelyard_cache_{name} gauge"
        yield f"modelyard_cache_{name} {value}"


def _histogram_head(name: str, about: str) -> Iterable[str]:
    yield f"# HELP modelyard_{name} {about}"
    yield f"# TYPE modelyard_{name} histogram"


def _histogram(
    name: str, labels: str, limits: list[float], counts: list[int], total: float
) -> Iterable[str]:
    seen = 0
    for limit, count in zip(limits, counts, strict=False):
        seen += count
        yield f'modelyard_{name}_bucket{{{labels},le="{limit:g}"}} {seen}'
    seen = sum(counts)
    yield f'modelyard_{name}_bucket{{{labels},le="+Inf"}} {seen}'
    yield f"modelyard_{name}_sum{{{labels}}} {total:.10g}"
    yield f"modelyard_{name}_count{{{labels}}} {seen}"
