"""Estimate the time of a batch and of a queue from earlier batches.

Outliers are capped: one slow batch, perhaps preempted, changes little; several do.
"""

import math

_KEEP = 0.8
_OUTLIER = 3.0


class CostModel:
    """Mean time of a batch, kept for each power of two of its rows."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}

    def observe(self, rows: int, seconds: float) -> None:
        bucket = rows.bit_length()
        before = self._seconds.get(bucket)
        if before is None:
            self._seconds[bucket] = seconds
            return
        seconds = min(seconds, _OUTLIER * before)
        self._seconds[bucket] = _KEEP * before + (1 - _KEEP) * seconds

    def estimate(self, rows: int) -> float | None:
        """Return the seconds for one batch; None while nothing is known.

        For a size not seen yet, scale the next smaller one up as if every row cost the
        same. This overestimates, because rows share the fixed cost of a batch.
        """
        bucket = rows.bit_length()
        known = self._seconds.get(bucket)
        if known is not None:
            return known
        smaller = [size for size in self._seconds if size < bucket]
        if smaller:
            nearest = max(smaller)
            return self._seconds[nearest] * float(2 ** (bucket - nearest))
        return min(self._seconds.values(), default=None)


class Pace:
    """Time per row under load, when more rows wait than fit into one batch."""

    def __init__(self) -> None:
        self._rows = 0.0
        self._seconds = 0.0
        # Least time per row of batches with nothing behind them, until more is known.
        self._alone_row_s = math.inf
        # 0: not known yet. Computed for every batch, as every request reads it.
        self.row_s = 0.0

    def observe(self, rows: int, seconds: float, *, saturated: bool) -> None:
        """Learn from a batch that formed under load, or was faster than the estimate.

        Other batches are smaller: their fixed cost falls on fewer rows, which would
        make a burst look longer than it is.
        """
        if not saturated and seconds >= self.row_s * rows:
            if not self.row_s:
                self._alone_row_s = min(self._alone_row_s, seconds / rows)
            return
        # After a stall a queue remains; its requests must not be refused for it.
        usual_row_s = self.row_s or self._alone_row_s
        seconds = min(seconds, _OUTLIER * usual_row_s * rows)
        self._rows = _KEEP * self._rows + rows
        self._seconds = _KEEP * self._seconds + seconds
        self.row_s = self._seconds / self._rows
