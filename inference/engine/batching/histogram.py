"""Count values by size."""

from bisect import bisect_left
from collections.abc import Sequence

from inference.engine.wire.messages import Spread


class Histogram:
    """How many values lie below each limit and above the one before."""

    def __init__(self, limits: Sequence[float]) -> None:
        self._limits = limits
        self._buckets = [0] * (len(limits) + 1)
        self._total = 0.0

    def observe(self, value: float) -> None:
        self._buckets[bisect_left(self._limits, value)] += 1
        self._total += value

    def spread(self) -> Spread:
        return Spread(tuple(self._buckets), self._total)
