"""Counts of calls by model, version, variant, operation and status. Pure.

One look-up and a few additions per call; Prometheus text is made only when asked for.
Histograms have a bucket per power of two.
"""

from collections.abc import Iterable, Mapping

from accounts.usage_event import UsageEvent

# 2**26 µs are 67 s, 2**14 rows 16,384.
_TIME_BUCKETS = 27
_ROW_BUCKETS = 15

_Labels = tuple[str, str, str, str, int]
_LABEL_NAMES = ("model", "version", "variant", "operation", "status")


class _Series:
    __slots__ = ("compute_us", "count", "rows", "samples", "sizes", "times", "total_us")

    def __init__(self) -> None:
        self.count = self.total_us = self.compute_us = self.rows = self.samples = 0
        # At index n: values below 2**n and not below 2**(n - 1).
        self.times = [0] * (_TIME_BUCKETS + 1)
        self.sizes = [0] * (_ROW_BUCKETS + 1)


class Metrics:
    """The calls of one process since its start."""

    def __init__(self) -> None:
        self._series: dict[_Labels, _Series] = {}
        self.unauthenticated = 0
        self.unrecorded = 0

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
            series = self._series[labels] = _Series()
        series.count += 1
        series.total_us += event.total_us
        series.compute_us += event.compute_us
        series.rows += event.rows
        series.samples += event.shap_samples
        bucket = event.total_us.bit_length()
        series.times[bucket if bucket < _TIME_BUCKETS else _TIME_BUCKETS] += 1
        bucket = event.rows.bit_length()
        series.sizes[bucket if bucket < _ROW_BUCKETS else _ROW_BUCKETS] += 1

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
        for name, value in (gauges or {}).items():
            lines.append(f"# TYPE modelyard_{name.partition('{')[0]} gauge")
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
