"""Requests that wait for one version, and which of them share a batch. No I/O."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from inference.engine.errors import EngineError, EngineErrorCode
from inference.engine.messages import Params
from inference.engine.tensors import Tensor

# Names, dtypes and shapes per row, and the parameters in MessagePack if there are any;
# requests share a batch only if theirs are equal.
Layout = tuple[tuple[str, str, tuple[int, ...] | bytes], ...]


class Answer(msgspec.Struct, frozen=True, gc=False):
    """One forward pass's outputs, for all the requests that shared it."""

    tensors: tuple[Tensor, ...]
    compute_us: int
    rows: int


class Caller(Protocol):
    """Whoever waits for an entry; called on the event loop, exactly once."""

    def answered(
        self, entry: "Entry", answer: Answer, start: int, queue_us: int
    ) -> None:
        """Take rows `start` to `start + entry.rows` of the answer."""

    def delivered(self) -> None:
        """All answers of one batch are there: a good moment to send them."""

    def failed(self, entry: "Entry", error: EngineError) -> None: ...


class Entry:
    """One accepted request."""

    __slots__ = (
        "arrived_at",
        "caller",
        "cut",
        "deadline",
        "gone",
        "id",
        "job",
        "layout",
        "max_batch_rows",
        "nbytes",
        "params",
        "queue",
        "rows",
        "tensors",
    )

    def __init__(
        self,
        caller: Caller,
        id: int,  # noqa: A002 - the protocol's name for it
        tensors: Sequence[Tensor],
        *,
        nbytes: int,
        arrived_at: float,
        deadline: float,
        max_batch_rows: int = 0,
        job: bool = False,
        params: Params | None = None,
    ) -> None:
        self.caller = caller
        self.id = id
        self.tensors = tensors
        self.rows = len(tensors[0].data)
        self.nbytes = nbytes
        self.arrived_at = arrived_at
        self.deadline = deadline
        self.max_batch_rows = max_batch_rows
        # Nobody is in a hurry: interactive requests come first.
        self.job = job
        # Set when the caller left; nobody is told then.
        self.gone = False
        # Takes its part of an answer where its rows were filled up; None elsewhere.
        self.cut: Callable[[Answer, int, int], Answer] | None = None
        # Where it waits and is counted; None before, and once it is in a batch.
        self.queue: VersionQueue | None = None
        self.params = params or None
        self.layout: Layout = tuple(
            [(t.name, t.data.dtype.str, t.data.shape[1:]) for t in tensors]
        )
        if params:
            encoded = msgspec.msgpack.encode(params, order="deterministic")
            self.layout += (("", "params", encoded),)


class QueueLimits(msgspec.Struct, frozen=True):
    max_rows: int
    max_bytes: int
    max_batch_rows: int
    max_batch_bytes: int


class Room:
    """What waits in the whole engine, bounded in rows and in bytes."""

    def __init__(self, max_rows: int, max_bytes: int) -> None:
        self.max_rows = max_rows
        self.max_bytes = max_bytes
        self.rows = 0
        self.nbytes = 0

    def has(self, entry: Entry) -> bool:
        """Tell whether it fits; jobs may take half, so that they shut nobody out."""
        rows, nbytes = self.rows + entry.rows, self.nbytes + entry.nbytes
        if entry.job:
            rows, nbytes = rows * 2, nbytes * 2
        return nbytes <= self.max_bytes and (rows <= self.max_rows or not self.rows)


class VersionQueue:
    """First come, first served, bounded in rows and in bytes."""

    def __init__(self, limits: QueueLimits, room: Room) -> None:
        self.limits = limits
        self._room = room
        self._entries: deque[Entry] = deque()
        # Entries that left; they are still in the deque but no longer counted.
        self._left = 0
        self.rows = 0
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._entries) - self._left

    def has_room(self, entry: Entry) -> bool:
        """Tell whether it fits; a request alone may exceed the rows, never bytes."""
        limits = self.limits
        if self.nbytes + entry.nbytes > limits.max_bytes:
            return False
        return self.rows + entry.rows <= limits.max_rows or not self.rows

    def append(self, entry: Entry) -> None:
        entry.queue = self
        self._entries.append(entry)
        self._count(entry.rows, entry.nbytes)

    def leave(self, entry: Entry) -> None:
        """Give back the room of an entry that nobody waits for, and its tensors."""
        entry.queue = None
        entry.tensors = ()
        self._left += 1
        self._count(-entry.rows, -entry.nbytes)
        if self._left > 64 and self._left > len(self._entries) // 2:
            self._keep([one for one in self._entries if one.queue is self])

    def drop_late(self, now: float) -> list[Entry]:
        """Remove and return those whose deadline passed."""
        late = [one for one in self._waiting() if one.deadline <= now]
        if late:
            self._keep([one for one in self._waiting() if one.deadline > now])
            for entry in late:
                self._remove(entry)
        return late

    def take_all(self) -> list[Entry]:
        """Empty the queue; return those whose callers still wait."""
        entries = self._waiting()
        self._keep([])
        for entry in entries:
            self._remove(entry)
        return entries

    def take(self, now: float, max_rows: int = 0) -> tuple[list[Entry], list[Entry]]:
        """Remove the next batch; return it and the entries that came too late.

        The batch is led by the oldest entry; of the rest, those of the same layout
        join in order while they fit. A request of more rows than a batch may have is
        a batch of its own, which the runner takes in pieces. `max_rows` bounds this
        batch further.
        """
        batch: list[Entry] = []
        late: list[Entry] = []
        others: list[Entry] = []
        entries = self._entries
        limits = self.limits
        most_rows, rows, nbytes = limits.max_batch_rows, 0, 0
        if 0 < max_rows < most_rows:
            most_rows = max_rows
        while entries:
            entry = entries.popleft()
            if entry.queue is None:
                self._left -= 1
                continue
            if entry.deadline <= now:
                self._remove(entry)
                late.append(entry)
                continue
            if batch and entry.layout != batch[0].layout:
                others.append(entry)
                continue
            most = most_rows
            if 0 < entry.max_batch_rows < most:
                most = entry.max_batch_rows
            if batch and (
                rows + entry.rows > most
                or nbytes + entry.nbytes > limits.max_batch_bytes
            ):
                others.append(entry)
                break
            entry.queue = None
            batch.append(entry)
            most_rows = most
            rows += entry.rows
            nbytes += entry.nbytes
        if others:
            entries.extendleft(reversed(others))
        self._count(-rows, -nbytes)
        return batch, late

    def _waiting(self) -> list[Entry]:
        return [one for one in self._entries if one.queue is self]

    def _keep(self, entries: list[Entry]) -> None:
        self._entries = deque(entries)
        self._left = 0

    def _remove(self, entry: Entry) -> None:
        entry.queue = None
        self._count(-entry.rows, -entry.nbytes)

    def _count(self, rows: int, nbytes: int) -> None:
        self.rows += rows
        self.nbytes += nbytes
        self._room.rows += rows
        self._room.nbytes += nbytes


def late(entry: Entry) -> EngineError:
    return EngineError(
        EngineErrorCode.DEADLINE_EXCEEDED,
        f"the deadline passed with {entry.rows} rows still waiting",
    )
