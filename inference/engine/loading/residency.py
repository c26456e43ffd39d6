"""Which versions leave when the device's memory is full. Pure.

Least recently used leaves first. What routes serve (`pinned`) never leaves; what was
only published comes back when it is called.
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
    """Return who must leave so that `needed` bytes fit; None if they never will."""
    excess = sum(one.nbytes for one in residents) + needed - budget
    leavers = []
    for one in sorted(residents, key=lambda one: one.used_at):
        if excess <= 0:
            break
        if not one.pinned and one.nbytes > 0:
            leavers.append(one.key)
            excess -= one.nbytes
    return leavers if excess <= 0 else None
