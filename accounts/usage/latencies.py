"""Compute latency percentiles of a span from counts in buckets."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from django.db.models import Count, Max, TextField
from django.db.models.functions import Cast

from accounts.usage.spans import Span


def bucket_of(microseconds: int) -> int:
    """Return the bucket of a latency; bucket n ends at 100 µs times 2**n."""
    return (max(0, microseconds - 1) // 100).bit_length()


def _ends_at(bucket: int) -> int:
    """Return the longest latency that a bucket holds, in microseconds."""
    return 100 << bucket


@dataclass(frozen=True, slots=True)
class Latencies:
    """The number of calls in each bucket, and the slowest call.

    For old calls, whose slowest was not kept, it is the end of its bucket.
    """

    buckets: Mapping[int, int]
    slowest_us: int

    def percentile_ms(self, percent: float) -> float | None:
        """Return a percentile in milliseconds, interpolated within its bucket.

        Latencies are taken as spread evenly over a bucket, and over the last one up to
        the slowest call. The result is at least half of the true value, and at most
        twice.
        """
        rank = sum(self.buckets.values()) * percent / 100
        seen = 0
        for bucket, count in sorted(self.buckets.items()):
            if seen + count >= rank:
                lower = _ends_at(bucket - 1) if bucket else 0
                upper = min(_ends_at(bucket), self.slowest_us)
                return (lower + (upper - lower) * (rank - seen) / count) / 1000
            seen += count
        return None


def latencies(span: "Span") -> Latencies:
    """Add up the latency buckets of the selected usage."""
    sums: Counter[int] = Counter()
    slowest_us = 0
    for part in span.parts:
        # Grouped by their text: many rows have equal buckets, which are read once.
        of_one_text = (
            part.order_by()
            .values(text=Cast("latency_buckets", TextField()))
            .annotate(
                rows=Count("pk"), known=Count("slowest_us"), slowest=Max("slowest_us")
            )
        )
        for found in of_one_text.iterator():
            buckets = {int(name): n for name, n in json.loads(found["text"]).items()}
            for bucket, count in buckets.items():
                sums[bucket] += count * found["rows"]
            is_known = found["known"] == found["rows"]
            longest = found["slowest"] if is_known else _ends_at(max(buckets))
            slowest_us = max(slowest_us, longest)
    return Latencies(sums, slowest_us)
