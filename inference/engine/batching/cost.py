"""What a batch of so many rows, and a queue, will take: learnt from those before.

One batch that was preempted says little; several slow ones do count.
"""

import math

_KEEP = 0.8
_OUTLIER = 3.0


class CostModel:
    """Running means per power of two of the rows."""

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
        """Seconds for one batch; None while nothing is known.

        Where that size was not seen yet, the next smaller one is scaled up as if
        every row cost the same: an overestimate, for batches share their fixed cost.
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
    """Seconds per row while there is more to do than fits into one batch."""

    def __init__(self) -> None:
        self._rows = 0.0
        self._seconds = 0.0
        # What batches with nobody behind them took, before more is known.
        self._alone_row_s = math.inf
        # 0: not known yet. Read for every request, computed for every batch.
        self.row_s = 0.0

    def observe(self, rows: int, seconds: float, *, saturated: bool) -> None:
        """Learn from a batch that formed while others ran, or did better than known.

        Smaller batches share their fixed cost among fewer rows, and would make a
        burst look longer than it is.
        """
        if not saturated and seconds >= self.row_s * rows:
            if not self.row_s:
                self._alone_row_s = min(self._alone_row_s, seconds / rows)
            return
        # A stall leaves a queue behind, which must not be refused because of it.
        usual_row_s = self.row_s or self._alone_row_s
        seconds = min(seconds, _OUTLIER * usual_row_s * rows)
        self._rows = _KEEP * self._rows + rows
        self._seconds = _KEEP * self._seconds + seconds
        self.row_s = self._seconds / self._rows
