"""Choose which versions leave when the device's memory is full.

The least recently used leaves first. Versions that routes use (`pinned`) never leave;
others load again when they are called.
"""

from collections.abc import Sequence
from typing import NamedTuple

from inference.engine.wire.messages import VersionKey


class Resident(NamedTuple):
    key: VersionKey
    nbytes: int
    pinned: bool
    used_at: float


def leaving(
    residents: Sequence[Resident], *, budget: int, needed: int
) -> list[VersionKey] | None:
    """Return which versions must leave to fit `needed` bytes; None if nothing helps."""
    excess = sum(one.nbytes for one in residents) + needed - budget
    leavers = []
    for one in sorted(residents, key=lambda one: one.used_at):
        if excess <= 0:
            break
        if not one.pinned and one.nbytes > 0:
            leavers.append(one.key)
            excess -= one.nbytes
    return leavers if excess <= 0 else None
