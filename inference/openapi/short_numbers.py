"""Numbers of examples as people would write them. Pure."""

import struct
from typing import Any


def shortened(value: Any) -> Any:
    """Write every float32 within plain JSON by the fewest digits that mean the same.

    Most models log their example as float32, whose 13.68 reads 13.680000305175781 once
    it is a JSON number.
    """
    if isinstance(value, dict):
        return {name: shortened(item) for name, item in value.items()}
    if isinstance(value, list):
        return [shortened(item) for item in value]
    return _shortest(value) if isinstance(value, float) else value


def _shortest(value: float) -> float:
    if _float32(value) != value:
        return value
    # Nine digits name every float32.
    candidates = (float(f"{value:.{digits}g}") for digits in range(6, 10))
    return next(short for short in candidates if _float32(short) == value)


def _float32(value: float) -> float | None:
    """Round to float32; None where it has no such number."""
    try:
        (rounded,) = struct.unpack("f", struct.pack("f", value))
    except OverflowError:
        return None
    return float(rounded)
