"""Decide which of the waiting loads may start beside those that run."""

from collections.abc import Sequence
from typing import Protocol, TypeVar


class WaitingLoad(Protocol):
    # The memory that it will take, about.
    nbytes: int

    @property
    def may_start(self) -> bool:
        """Whether the versions that leave for it are gone."""


Load = TypeVar("Load", bound=WaitingLoad)


def starting(
    waiting: Sequence[Load],
    *,
    running: Sequence[int],
    resident: int,
    budget: int,
    most: int,
) -> list[Load]:
    """Return the loads to start, in order; `running` are the bytes of those that run.

    A load that does not fit beside others waits until it is alone, and lets smaller
    ones pass: loads are few, so its turn comes.
    """
    chosen: list[Load] = []
    taken = resident + sum(running)
    for load in waiting:
        if len(running) + len(chosen) >= most:
            break
        alone = not running and not chosen
        if load.may_start and (alone or taken + load.nbytes <= budget):
            chosen.append(load)
            taken += load.nbytes
    return chosen
