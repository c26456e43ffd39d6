"""Convert dates and times to numpy's form: in UTC, without a zone."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from inference.engine.wire.tensors import Array

# Whole years that 64 bits of nanoseconds can hold.
EARLIEST = datetime(1678, 1, 1)
LATEST = datetime(2262, 1, 1)


def in_utc(value: datetime) -> datetime:
    """Return the time in UTC, without a zone; a time without a zone is in UTC."""
    if value.tzinfo is None:
        return value
    try:
        return value.astimezone(UTC).replace(tzinfo=None)
    except OverflowError:
        # The first or last day of datetime, so out of our range in any zone.
        return value.replace(tzinfo=None)


def is_in_range(value: datetime) -> bool:
    return EARLIEST <= in_utc(value) < LATEST


def to_array(values: Sequence[datetime | None]) -> Array:
    """Return `[rows]` of datetime64[ns], NaT for None."""
    times: Any = [None if value is None else in_utc(value) for value in values]
    return np.array(times, "datetime64[us]").astype("datetime64[ns]")
