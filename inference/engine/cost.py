"""What a batch of so many rows is likely to take, learnt from those before it."""

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
        # One batch that was preempted says little; several slow ones do count.
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
