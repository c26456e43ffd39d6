"""Tell how far apart two versions' predictions of the same row are."""

import math
from typing import Any

import msgspec

from inference.codecs.answers import ClassPrediction


class Difference(msgspec.Struct, frozen=True, gc=False):
    """What two answers to the same rows differ in."""

    changed_rows: int
    # The sum over rows of a number from 0 (equal) to 1.
    distance: float


def compare(ours: list[Any], theirs: list[Any], *, tolerance: float) -> Difference:
    """Compare predictions row by row, as callers read them.

    Labels are the same only if they are equal; the distance of equal labels is that of
    their scores, and of others 1. Numbers and vectors are the same if they differ by at
    most the part `tolerance` of the greater one, and that part, up to 1, is their
    distance. Both lists have as many rows.
    """
    changed, distance = 0, 0.0
    for one, other in zip(ours, theirs, strict=True):
        if type(one) is ClassPrediction and type(other) is ClassPrediction:
            is_changed = one.label != other.label
            apart = 1.0 if is_changed else _of_scores(one.score, other.score)
        else:
            apart = _apart(one, other)
            is_changed = apart > tolerance
        changed += is_changed
        distance += apart
    return Difference(changed, distance)


def _of_scores(one: float | None, other: float | None) -> float:
    if one is None or other is None:
        return float(one is not other)
    return min(1.0, abs(one - other))


def _apart(one: Any, other: Any) -> float:
    if _is_number(one) and _is_number(other):
        return _part(abs(one - other), abs(one), abs(other))
    if isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            return 1.0
        if all(map(_is_number, one)) and all(map(_is_number, other)):
            return _part(math.dist(one, other), math.hypot(*one), math.hypot(*other))
        return max(map(_apart, one, other), default=0.0)
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return 1.0
        return max((_apart(one[name], other[name]) for name in one), default=0.0)
    return float(one != other)


def _part(apart: float, one: float, other: float) -> float:
    greater = max(one, other)
    if not apart:
        return 0.0
    # Not a number if one of them is infinite.
    part = apart / greater
    return min(1.0, part) if math.isfinite(part) else 1.0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
