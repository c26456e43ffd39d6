"""Estimate the time of a batch and of a queue from earlier batches.

Outliers are capped: one slow batch, perhaps preempted, changes little; several do.
"""

import math
from typing import NamedTuple

import msgspec

_KEEP = 0.8
_OUTLIER = 3.0
# The first batches of a size also warm it up: the fastest counts.
_WARM_UP = 3
# A size that seems too slow is tried again after so many smaller batches.
_TRY_AGAIN = 256


class _Size(msgspec.Struct, gc=False):
    """What was measured of batches of one power of two of rows."""

    rows: float
    seconds: float
    # First batches that are still to come.
    warm_up: int = _WARM_UP - 1
    # How often a smaller batch was chosen instead.
    passed_over: int = 0


class _Point(NamedTuple):
    rows: float
    seconds: float


class CostModel:
    """Mean time of a batch, kept for each power of two of its rows."""

    def __init__(self) -> None:
        self._sizes: dict[int, _Size] = {}

    def observe(self, rows: int, seconds: float) -> None:
        size = self._sizes.get(rows.bit_length())
        if size is None:
            self._sizes[rows.bit_length()] = _Size(rows, seconds)
            return
        before = size.seconds
        if size.warm_up:
            size.warm_up -= 1
            if seconds * size.rows < before * rows:
                size.rows, size.seconds = rows, seconds
            return
        if seconds > _OUTLIER * before:
            seconds = _OUTLIER * before
        size.rows += (1 - _KEEP) * (rows - size.rows)
        size.seconds = before + (1 - _KEEP) * (seconds - before)

    def estimate(self, rows: int) -> float | None:
        """Return the seconds for one batch; None while nothing is known.

        For a size not seen yet, scale the next smaller one up as if every row cost the
        same. This overestimates, because rows share the fixed cost of a batch.
        """
        bucket = rows.bit_length()
        known = self._sizes.get(bucket)
        if known is not None:
            return known.seconds
        smaller = [size for size in self._sizes if size < bucket]
        if smaller:
            nearest = max(smaller)
            return self._sizes[nearest].seconds * float(2 ** (bucket - nearest))
        return min([size.seconds for size in self._sizes.values()], default=None)

    @property
    def single_row_s(self) -> float:
        """Seconds for a batch of one row; 0: not measured yet."""
        size = self._sizes.get(1)
        return 0.0 if size is None else size.seconds

    def has_measured(self, rows: int) -> bool:
        """Return whether a batch of about so many rows, or of more, was measured."""
        return max(self._sizes, default=0) >= rows.bit_length()

    def most_rows(self, seconds: float) -> int:
        """Return the rows of the largest batch that takes no longer; at least one.

        Between two measured sizes the time grows evenly; beyond the largest one as it
        grew up to there, or with the rows. If only one size was measured, a row more is
        tried: otherwise a model with a fixed cost would stay at single rows.
        """
        points = self._points()
        fitting = [at for at, point in enumerate(points) if point.seconds <= seconds]
        if not points:
            return 1
        if not fitting:
            return max(_whole(points[0].rows * seconds / points[0].seconds), 1)
        last = fitting[-1]
        rows, took = points[last]
        left = seconds - took
        if last + 1 < len(points):
            above = points[last + 1]
            self._sizes[int(above.rows).bit_length()].passed_over += 1
            return _whole(rows + (above.rows - rows) * left / (above.seconds - took))
        most = rows * seconds / took if took else math.inf
        if not last:
            return _whole(max(most, rows + 1))
        before = points[last - 1]
        grew = took - before.seconds
        evenly = rows + (rows - before.rows) * left / grew if grew > 0 else math.inf
        return _whole(max(most, min(evenly, 2 * rows)))

    def _points(self) -> list[_Point]:
        """Return the measured sizes in order.

        One that is not sure takes as long as its rows in batches of the size before, at
        most. So a first slow batch does not keep its size from being tried again.
        """
        points: list[_Point] = []
        for bucket in sorted(self._sizes):
            size = self._sizes[bucket]
            seconds = size.seconds
            if size.passed_over >= _TRY_AGAIN:
                size.passed_over = 0
                size.warm_up = max(size.warm_up, 1)
            if points and size.warm_up:
                before = points[-1]
                seconds = min(seconds, before.seconds * size.rows / before.rows)
            points.append(_Point(size.rows, seconds))
        return points


def _whole(rows: float) -> int:
    # Without what a sum of fractions lacks.
    return int(min(rows + 1e-6, 2.0**31))


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
