"""Share a limit between owners, so that no single owner can use all of it.

An owner may take one more only while it holds less than is free. A single owner gets
half of the limit, two owners get a third each, and an owner that holds nothing finds
room however much one other owner wants.
"""

from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


def may_take(count: int, *, held: int, free: int) -> bool:
    """Return whether an owner that holds `held` may take `count` of `free` units.

    Afterwards it may hold at most as much as is left. An owner that holds nothing may
    take all that is free.
    """
    return held + 2 * count <= free + 1 if held else count <= free


class Shares:
    """Count how much of one limit each owner holds, in pieces or in bytes."""

    __slots__ = ("_held", "most", "refused", "used")

    def __init__(self, most: int) -> None:
        self.most = most
        self.used = 0
        # How often an owner found no room.
        self.refused = 0
        self._held: dict[Hashable, int] = {}

    def take(self, owner: Hashable, count: int = 1) -> bool:
        """Take `count` for an owner; False if there is no room or it has its share."""
        held = self._held.get(owner, 0)
        if held + count > self.most - self.used:
            self.refused += 1
            return False
        self._held[owner] = held + count
        self.used += count
        return True

    def give_back(self, owner: Hashable, count: int = 1) -> None:
        self.used -= count
        left = self._held[owner] - count
        if left:
            self._held[owner] = left
        else:
            del self._held[owner]

    def room(self, owner: Hashable) -> int:
        """Return how much an owner may take now."""
        return self.most - self.used - self._held.get(owner, 0)

    def held(self, owner: Hashable) -> int:
        return self._held.get(owner, 0)


class FairQueue(Generic[T]):
    """Queue a bounded number of items; their owners take turns."""

    def __init__(self, most: int, *, most_of_one: int | None = None) -> None:
        """Limit each owner to `most_of_one` items, even if its share is larger."""
        self.shares = Shares(most)
        self._most_of_one = most if most_of_one is None else most_of_one
        # Items by owner, in the order of the owners' turns.
        self._waiting: dict[Hashable, deque[T]] = {}

    def __len__(self) -> int:
        return self.shares.used

    def put(self, owner: Hashable, item: T) -> bool:
        """Queue an item; False if the queue is full or the owner has its share."""
        if self.shares.held(owner) >= self._most_of_one:
            self.shares.refused += 1
            return False
        if not self.shares.take(owner):
            return False
        self._waiting.setdefault(owner, deque()).append(item)
        return True

    def take(self, may: Callable[[Any], bool] = lambda _: True) -> T | None:
        """Remove and return the next item of an owner that `may` accepts, or None."""
        for owner, items in self._waiting.items():
            if not may(owner):
                continue
            item = items.popleft()
            del self._waiting[owner]
            if items:
                # Move this owner behind the others.
                self._waiting[owner] = items
            self.shares.give_back(owner)
            return item
        return None

    def remove(self, owner: Hashable, item: T) -> None:
        """Remove an item that nobody needs any more, if it is still queued."""
        items = self._waiting.get(owner)
        if items is None or item not in items:
            return
        items.remove(item)
        if not items:
            del self._waiting[owner]
        self.shares.give_back(owner)
