"""Find processes whose memory grows steadily, as one that leaks does."""

import itertools
import statistics
from collections.abc import Sequence

_LEAST_S = 30 * 60.0
_LEAST_BYTES = 50 * 1024 * 1024
_PARTS = 6
# Each part must have this share of what it would have if growth was even.
_LEAST_SHARE = 0.25


def steady_growth(samples: Sequence[tuple[float, int]]) -> float | None:
    """Return the bytes per hour of steady growth; None: it does not grow steadily.

    The time is cut into parts, and the median of each must lie well above that of the
    part before. So one jump, a cache that fills, and memory that is given back do not
    count, whatever a line through all samples would say.
    """
    if len(samples) < 2 * _PARTS:
        return None
    begin, end = samples[0][0], samples[-1][0]
    if end - begin < _LEAST_S:
        return None
    parts: list[list[int]] = [[] for _ in range(_PARTS)]
    for at, nbytes in samples:
        index = int((at - begin) / (end - begin) * _PARTS)
        parts[min(index, _PARTS - 1)].append(nbytes)
    if not all(parts):
        return None
    medians = [statistics.median(part) for part in parts]
    steps = [after - before for before, after in itertools.pairwise(medians)]
    # The medians lie half a part from the ends.
    total = (medians[-1] - medians[0]) * _PARTS / (_PARTS - 1)
    if total < _LEAST_BYTES or min(steps) < _LEAST_SHARE * total / _PARTS:
        return None
    return 3600.0 * statistics.linear_regression(*zip(*samples, strict=True)).slope
