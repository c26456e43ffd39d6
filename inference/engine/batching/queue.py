"""Queue the requests for one version, and choose which of them share a batch.

Customers share the queue's room and take turns, row by row. A request with more rows
than a batch may have leaves the queue in parts, a batch each.
"""

import operator
import weakref
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from inference.engine.batching.entry import Entry, Size
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.installation.shares import may_take


class QueueLimits(msgspec.Struct, frozen=True):
    max_rows: int
    max_bytes: int
    max_batch_rows: int
    max_batch_bytes: int


class QueueRefusal(NamedTuple):
    """The limit that refuses an entry."""

    bound: str
    # Only its customer's share is used up; others would find room.
    of_customer: bool = False


class QueueRoom:
    """The room for waiting entries in the whole engine, in rows and in bytes."""

    def __init__(self, max_rows: int, max_bytes: int) -> None:
        self.max_rows = max_rows
        self.max_bytes = max_bytes
        self.rows = 0
        self.nbytes = 0
        # Rows of large requests that limits do not count.
        self.spared_rows = 0
        self.queues: weakref.WeakSet[VersionQueue] = weakref.WeakSet()

    def leaves_half(self, entry: Entry) -> bool:
        """Return whether an entry leaves as much free as all customers hold."""
        parts = 4 if entry.job else 2
        return (self.rows + entry.rows) * parts <= self.max_rows and (
            self.nbytes + entry.nbytes
        ) * parts <= self.max_bytes

    def refusal(self, entry: Entry) -> QueueRefusal | None:
        """Return why an entry may not wait, or None; jobs may take half the room."""
        most_rows, most_bytes = self.max_rows, self.max_bytes
        if entry.job:
            most_rows, most_bytes = most_rows // 2, most_bytes // 2
        free_rows = most_rows - self.rows + self.spared_rows
        free_bytes = most_bytes - self.nbytes
        count = entry.rows - (entry.spared.rows if entry.spared else 0)
        if entry.nbytes > free_bytes or (count > free_rows and self.rows):
            return QueueRefusal("engine_room")
        held = [queue.held(entry.customer_id) for queue in self.queues]
        held_rows = sum([one.rows for one in held])
        held_bytes = sum([one.nbytes for one in held])
        if held_rows and not (
            may_take(count, held=held_rows, free=free_rows)
            and may_take(entry.nbytes, held=held_bytes, free=free_bytes)
        ):
            return QueueRefusal("engine_room", of_customer=True)
        return None


class _Line(msgspec.Struct, gc=False):
    """The waiting entries of one customer."""

    rows: int
    nbytes: int
    # Turn of its last entry.
    turn: int


_NOTHING = Size(0, 0)
_turn_of = operator.attrgetter("turn")


class VersionQueue:
    """A queue with limits on rows and bytes, in which customers take turns.

    The order is self-clocked fair queueing (Golestani 1994): an entry is served once
    every other waiting customer was served as many rows as this entry and its
    customer's earlier ones have. So each customer's entries are served in order, and a
    customer with few entries does not wait behind a flood of another.
    """

    def __init__(self, limits: QueueLimits, room: QueueRoom) -> None:
        self.limits = limits
        self._room = room
        room.queues.add(self)
        self._entries: deque[Entry] = deque()
        # Halves of batches that failed; they run first, and are not counted.
        self._halves: list[Sequence[Entry]] = []
        # Number of entries that left; they stay in the deque but are not counted.
        self._left = 0
        self.rows = 0
        self.nbytes = 0
        # Parts of large requests that limits do not count.
        self._spared_rows = self._spared_bytes = 0
        # By customer; None while turns are not needed, which is most of the time.
        self._lines: dict[int, _Line] | None = None
        # Customer of the first entry, and whether other customers wait too.
        self._customer_id = 0
        self._has_others = False
        # Turn of the last entry taken, and the latest turn that waits.
        self._turn = self._last_turn = 0
        self._in_order = True

    def __len__(self) -> int:
        return len(self._entries) - self._left + len(self._halves)

    def held(self, customer_id: int) -> Size:
        """Return the size of a customer's waiting entries."""
        if not self.rows:
            return _NOTHING
        line = self._line_up().get(customer_id)
        return _NOTHING if line is None else Size(line.rows, line.nbytes)

    def rows_before(self, entry: Entry) -> int:
        """Return how many rows would be served before an entry that comes now."""
        own = self.held(entry.customer_id).rows + entry.rows
        return sum([min(line.rows, own) for line in self._line_up().values()])

    def refusal(
        self, entry: Entry, *, most_rows: int, rows_bound: str = "queue_rows"
    ) -> QueueRefusal | None:
        """Return why an entry may not wait, or None if it may.

        A customer's first entry is accepted while any room is free. However large it
        is, it counts as at most half of the free room, so others still find room.
        """
        most_bytes = self.limits.max_bytes
        free_rows = most_rows - self.rows + self._spared_rows
        free_bytes = most_bytes - self.nbytes + self._spared_bytes
        held = self.held(entry.customer_id)
        if held.rows:
            if not may_take(entry.rows, held=held.rows, free=free_rows):
                return QueueRefusal(rows_bound, of_customer=entry.rows <= free_rows)
            if not may_take(entry.nbytes, held=held.nbytes, free=free_bytes):
                return QueueRefusal(
                    "queue_bytes", of_customer=entry.nbytes <= free_bytes
                )
            return None
        if free_rows <= 0:
            return QueueRefusal(rows_bound)
        if free_bytes <= 0 or entry.nbytes > most_bytes:
            return QueueRefusal("queue_bytes")
        spared = Size(
            max(entry.rows - (free_rows + 1) // 2, 0),
            max(entry.nbytes - (free_bytes + 1) // 2, 0),
        )
        entry.spared = spared if any(spared) else None
        return None

    def append(self, entry: Entry) -> None:
        if not self.rows:
            self._customer_id = entry.customer_id
            self._has_others = False
        elif entry.customer_id != self._customer_id:
            self._has_others = True
        entry.queue = self
        self._entries.append(entry)
        self._count(entry.left, entry.nbytes)
        if self._lines is not None:
            self._lengthen_line(self._lines, entry)
        if entry.spared is not None:
            self._spare(*entry.spared)

    def put_back_halved(self, entries: Sequence[Entry]) -> None:
        """Let each half of a batch that failed run as a batch, before all others."""
        middle = len(entries) // 2
        self._halves += [entries[middle:], entries[:middle]]

    def leave(self, entry: Entry) -> None:
        """Free the room and the tensors of an entry whose caller left."""
        self._remove(entry)
        entry.tensors = ()
        self._left += 1
        if self._left > 64 and self._left > len(self._entries) // 2:
            self._keep([one for one in self._entries if one.queue is self])

    def drop_late(self, now: float) -> list[Entry]:
        """Remove and return the entries whose deadline passed."""
        late = [one for one in self._waiting() if one.deadline <= now]
        if late:
            self._keep([one for one in self._waiting() if one.deadline > now])
            for entry in late:
                self._remove(entry)
        return late

    def take_all(self) -> list[Entry]:
        """Remove and return the entries whose callers still wait; halves stay."""
        entries = self._waiting()
        self._keep([])
        for entry in entries:
            self._remove(entry)
        return entries

    def take(
        self, now: float, max_rows: int = 0, *, joins: bool = True
    ) -> tuple[list[Entry], list[Entry]]:
        """Remove the next batch; return it and the entries whose deadline passed.

        The batch starts with the entry whose turn it is; entries of the same layout
        join in order while they fit. Of a request with more rows than a batch may have
        only a part is taken; the rest keeps its place, and the customer's turn goes on
        from there. `max_rows` is a further limit for this batch. Without `joins`, the
        batch is one whole request.
        """
        if self._halves:
            return self._take_half(now)
        batch: list[Entry] = []
        late: list[Entry] = []
        others: list[Entry] = []
        limits = self.limits
        most_rows, rows, nbytes = limits.max_batch_rows, 0, 0
        if not joins:
            most_rows = 0  # nothing joins the first
        elif 0 < max_rows < most_rows:
            most_rows = max_rows
        if self._has_others and self.rows > most_rows:
            self._line_up()
        if self._lines is not None:
            self._sort()
        entries = self._entries
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
            left = entry.left
            if batch and (
                rows + left > most or nbytes + entry.nbytes > limits.max_batch_bytes
            ):
                others.append(entry)
                break
            if left > most and joins:
                part = entry.take_part(most, now)
                self._spare_less(entry)
                entries.appendleft(entry)
                batch.append(part)
                rows = most
                break
            entry.queue = None
            batch.append(entry if entry.parts is None else entry.take_part(left, now))
            rows += left
            nbytes += entry.nbytes
            most_rows = most
        if others:
            entries.extendleft(reversed(others))
        self._count(-rows, -nbytes)
        if not entries:
            self._lines = None
        elif self._lines is None:
            if self._has_others:
                self._line_up()
        else:
            self._turn = max([self._turn, *[entry.turn for entry in batch]])
            for entry in batch:
                self._shorten_line(self._lines, entry)
        if self._spared_rows or self._spared_bytes:
            taken = [one.whole or one for one in batch]
            self._spare_no_more([one for one in taken if one.queue is None])
        return batch, late

    def _take_half(self, now: float) -> tuple[list[Entry], list[Entry]]:
        live = [one for one in self._halves.pop() if not _is_gone(one)]
        return (
            [one for one in live if one.deadline > now],
            [one for one in live if one.deadline <= now],
        )

    def _waiting(self) -> list[Entry]:
        return [one for one in self._entries if one.queue is self]

    def _keep(self, entries: list[Entry]) -> None:
        self._entries = deque(entries)
        self._left = 0

    def _line_up(self) -> dict[int, _Line]:
        """Return the customers' lines; make them if turns were not needed before."""
        if self._lines is None:
            self._lines = {}
            self._turn = self._last_turn = 0
            self._in_order = True
            for entry in self._waiting():
                self._lengthen_line(self._lines, entry)
        return self._lines

    def _sort(self) -> None:
        if self._in_order:
            return
        # Quick: only the last entries are out of order.
        entries = sorted(self._entries, key=_turn_of)
        self._entries = deque(entries)
        self._last_turn = entries[-1].turn if entries else self._turn
        self._in_order = True

    def _remove(self, entry: Entry) -> None:
        """Forget an entry that was not served; its customer's next ones move up."""
        entry.queue = None
        self._count(-entry.left, -entry.nbytes)
        if self._lines is not None:
            self._shorten_line(self._lines, entry).turn -= entry.left
        self._spare_no_more((entry,))

    def _lengthen_line(self, lines: dict[int, _Line], entry: Entry) -> None:
        line = lines.get(entry.customer_id)
        if line is None:
            line = lines[entry.customer_id] = _Line(0, 0, self._turn)
        line.rows += entry.left
        line.nbytes += entry.nbytes
        line.turn = entry.turn = max(line.turn, self._turn) + entry.left
        if line.turn < self._last_turn:
            self._in_order = False
        else:
            self._last_turn = line.turn

    def _shorten_line(self, lines: dict[int, _Line], entry: Entry) -> _Line:
        line = lines[entry.customer_id]
        line.rows -= entry.left
        line.nbytes -= entry.nbytes
        if not line.rows:
            del lines[entry.customer_id]
        return line

    def _spare_no_more(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if entry.spared is not None:
                self._spare(-entry.spared.rows, -entry.spared.nbytes)
                entry.spared = None

    def _spare_less(self, entry: Entry) -> None:
        """Count what is left of an entry that was cut in full, as far as it goes."""
        if entry.spared is not None and entry.spared.rows > entry.left:
            self._spare(entry.left - entry.spared.rows, 0)
            entry.spared = Size(entry.left, entry.spared.nbytes)

    def _spare(self, rows: int, nbytes: int) -> None:
        self._spared_rows += rows
        self._spared_bytes += nbytes
        self._room.spared_rows += rows

    def _count(self, rows: int, nbytes: int) -> None:
        self.rows += rows
        self.nbytes += nbytes
        self._room.rows += rows
        self._room.nbytes += nbytes


def late(entry: Entry) -> EngineError:
    return EngineError(
        EngineErrorCode.DEADLINE_EXCEEDED,
        f"the deadline passed with {entry.left} rows still waiting",
    )


def _is_gone(entry: Entry) -> bool:
    return (entry.whole or entry).gone
