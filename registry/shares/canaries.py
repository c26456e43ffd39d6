"""Read and write the canaries of a row, which has a place for each of four.

They are columns of one row, so that a database constraint can keep the sum of all
weights at 100 (docs/adr/0002-weights-in-one-row.md).
"""

from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, TypeVar

# Each has the columns `<place>_version` and `<place>_weight_percent`.
PLACES = ("canary", "canary_2", "canary_3", "canary_4")
VERSIONS = tuple(f"{place}_version" for place in PLACES)
WEIGHTS = tuple(f"{place}_weight_percent" for place in PLACES)

# What names a version there: its row, its key or its number.
V = TypeVar("V")


class Canary(NamedTuple, Generic[V]):
    """A version that gets a share of the calls beside the default."""

    version: V
    weight_percent: int


def of(row: Any, *, suffix: str = "") -> tuple[Canary[Any], ...]:
    """Return the canaries of a row; with the suffix `_id`, the keys of versions."""
    return tuple(
        Canary(version, getattr(row, weight))
        for name, weight in zip(VERSIONS, WEIGHTS, strict=True)
        if (version := getattr(row, f"{name}{suffix}")) is not None
    )


def columns(canaries: Sequence[Canary[Any]]) -> dict[str, Any]:
    """Return the values of all columns, also of empty places and the default's weight.

    Raises ValueError if there are more canaries than places.
    """
    if len(canaries) > len(PLACES):
        raise ValueError("there are more canaries than places")
    empty: Canary[Any] = Canary(None, 0)
    every = [*canaries, *[empty] * (len(PLACES) - len(canaries))]
    values: dict[str, Any] = {"default_weight_percent": 100 - total(canaries)}
    for name, weight, canary in zip(VERSIONS, WEIGHTS, every, strict=True):
        values |= {name: canary.version, weight: canary.weight_percent}
    return values


def total(canaries: Sequence[Canary[Any]]) -> int:
    """Return the percent of calls that canaries get together."""
    return sum(canary.weight_percent for canary in canaries)
