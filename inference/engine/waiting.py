"""Requests that wait for one version, and which of them share a batch. No I/O."""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from inference.engine.errors import EngineError, EngineErrorCode
from inference.engine.tensors import Tensor

# Names, dtypes and shapes per row; requests share a batch only if theirs are equal.
Layout = tuple[tuple[str, str, tuple[int, ...]], ...]


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
        "deadline",
        "gone",
        "id",
        "layout",
        "max_batch_rows",
        "nbytes",
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
    ) -> None:
        self.caller = caller
        self.id = id
        self.tensors = tensors
        self.rows = len(tensors[0].data)
        self.nbytes = nbytes
        self.arrived_at = arrived_at
        self.deadline = deadline
        self.max_batch_rows = max_batch_rows
        # Set when the caller left; nobody is told then.
        self.gone = False
        self.layout = tuple(
            [(t.name, t.data.dtype.str, t.data.shape[1:]) for t in tensors]
        )


class QueueLimits(msgspec.Struct, frozen=True):
    max_rows: int
    max_bytes: int
    max_batch_rows: int
    max_batch_bytes: int


class VersionQueue:
    """First come, first served, bounded in rows and in bytes."""

    def __init__(self, limits: QueueLimits) -> None:
        self._limits = limits
        self._entries: deque[Entry] = deque()
        self.rows = 0
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def has_room(self, entry: Entry) -> bool:
        """Tell whether it fits; a request alone may exceed the rows, never bytes."""
        limits = self._limits
        if self.nbytes + entry.nbytes > limits.max_bytes:
            return False
        return self.rows + entry.rows <= limits.max_rows or not self._entries

    def append(self, entry: Entry) -> None:
        self._entries.append(entry)
        self.rows += entry.rows
        self.nbytes += entry.nbytes

    def drop_dead(self, now: float) -> list[Entry]:
        """Remove who left or is too late; return those to tell."""
        live: list[Entry] = []
        late: list[Entry] = []
        for entry in self._entries:
            if entry.gone:
                continue
            (late if entry.deadline <= now else live).append(entry)
        self._replace(live)
        return late

    def take_all(self) -> list[Entry]:
        """Empty the queue; return those whose callers still wait."""
        entries = [entry for entry in self._entries if not entry.gone]
        self._replace(())
        return entries

    def take(self, now: float) -> tuple[list[Entry], list[Entry]]:
        """Remove the next batch; return it and the entries that came too late.

        The batch is led by the oldest entry; of the rest, those of the same layout
        join in order while they fit. A request of more rows than a batch may have is
        a batch of its own, which the runner takes in pieces.
        """
        batch: list[Entry] = []
        late: list[Entry] = []
        others: list[Entry] = []
        entries = self._entries
        limits = self._limits
        most_rows, rows, nbytes = limits.max_batch_rows, 0, 0
        while entries:
            entry = entries.popleft()
            if entry.gone or entry.deadline <= now:
                self.rows -= entry.rows
                self.nbytes -= entry.nbytes
                if not entry.gone:
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
            batch.append(entry)
            most_rows = most
            rows += entry.rows
            nbytes += entry.nbytes
        if others:
            entries.extendleft(reversed(others))
        self.rows -= rows
        self.nbytes -= nbytes
        return batch, late

    def _replace(self, entries: Iterable[Entry]) -> None:
        self._entries = deque(entries)
        self.rows = sum(entry.rows for entry in self._entries)
        self.nbytes = sum(entry.nbytes for entry in self._entries)


def late(entry: Entry) -> EngineError:
    return EngineError(
        EngineErrorCode.DEADLINE_EXCEEDED,
        f"the deadline passed with {entry.rows} rows still waiting",
    )
