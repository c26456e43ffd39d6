"""Hold one accepted request, and the parts into which a large one is cut."""

from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple, Protocol

import msgspec

from inference.engine.wire.errors import EngineError
from inference.engine.wire.joined_outputs import join_outputs
from inference.engine.wire.messages import Params
from inference.engine.wire.tensors import Tensor

# Names, dtypes and shapes per row, and any parameters in MessagePack. Requests share a
# batch only if their layouts are equal.
Layout = tuple[tuple[str, str, tuple[int, ...] | bytes], ...]


class BatchAnswer(msgspec.Struct, frozen=True, gc=False):
    """The outputs of one forward pass, for all requests that shared it."""

    tensors: tuple[Tensor, ...]
    compute_us: int
    rows: int


class Caller(Protocol):
    """The receiver of one answer, `answered` or `failed`, on the event loop."""

    def answered(
        self, entry: "Entry", answer: BatchAnswer, start: int, queue_us: int
    ) -> None:
        """Take rows `start` to `start + entry.rows` of the batch's answer."""

    def delivered(self) -> None:
        """Note that all answers of a batch are there: a good moment to send them."""

    def failed(self, entry: "Entry", error: EngineError) -> None: ...


class Waiting(Protocol):
    """The queue in which an entry waits."""

    def leave(self, entry: "Entry") -> None: ...


class Size(NamedTuple):
    rows: int
    nbytes: int


class Entry:
    """One accepted request."""

    __slots__ = (
        "arrived_at",
        "caller",
        "customer_id",
        "cut",
        "deadline",
        "gone",
        "id",
        "job",
        "layout",
        "left",
        "max_batch_rows",
        "nbytes",
        "params",
        "parts",
        "queue",
        "request_id",
        "rows",
        "spared",
        "tensors",
        "turn",
    )

    # The entry that this one is a part of.
    whole: "ClassVar[Entry | None]" = None

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
        customer_id: int = 0,
        request_id: str = "",
    ) -> None:
        self.caller = caller
        self.id = id
        self.tensors = tensors
        self.rows = self.left = len(tensors[0].data)
        self.nbytes = nbytes
        self.arrived_at = arrived_at
        self.deadline = deadline
        self.max_batch_rows = max_batch_rows
        # Part of a job: interactive requests come first.
        self.job = job
        # Answered, failed, or left by its caller: do not call the caller any more.
        self.gone = False
        # Cuts this entry's part out of an answer; None if its rows were not padded.
        self.cut: Callable[[BatchAnswer, int, int], BatchAnswer] | None = None
        # The queue that counts it; None before, and once it is in a batch.
        self.queue: Waiting | None = None
        self.customer_id = customer_id
        # The request's id, as its caller knows it.
        self.request_id = request_id
        # Its place in the order of customers' turns, set by the queue.
        self.turn = 0
        # The part of a very large entry that limits do not count.
        self.spared: Size | None = None
        # The answers to its parts; None unless it was cut.
        self.parts: EntryParts | None = None
        self.params = params or None
        self.layout: Layout = tuple(
            [(t.name, t.data.dtype.str, t.data.shape[1:]) for t in tensors]
        )
        if params:
            encoded = msgspec.msgpack.encode(params, order="deterministic")
            self.layout += (("", "params", encoded),)

    def take_part(self, rows: int, now: float) -> "EntryPart":
        """Cut off the next rows, to be answered in a batch of their own."""
        if self.parts is None:
            self.parts = EntryParts(now)
        part = EntryPart(self, rows)
        self.left -= rows
        return part


class EntryPart(Entry):
    """Some rows of a large request; its bytes count until the last rows are taken."""

    __slots__ = ("start", "whole")

    whole: Entry  # type: ignore[misc]  # a field here, a constant of the class there

    def __init__(self, whole: Entry, rows: int) -> None:
        start = whole.rows - whole.left
        super().__init__(
            whole.caller,
            whole.id,
            [
                Tensor(tensor.name, tensor.data[start : start + rows])
                for tensor in whole.tensors
            ],
            nbytes=0 if rows < whole.left else whole.nbytes,
            arrived_at=whole.arrived_at,
            deadline=whole.deadline,
            max_batch_rows=whole.max_batch_rows,
            job=whole.job,
            params=whole.params,
            customer_id=whole.customer_id,
            request_id=whole.request_id,
        )
        self.whole = whole
        self.start = start
        self.turn = whole.turn - (whole.left - rows)


class EntryParts:
    """The answers to the parts of one entry, in whatever order they come."""

    def __init__(self, taken_at: float) -> None:
        # When the first part was taken.
        self.taken_at = taken_at
        self._answers: dict[int, BatchAnswer] = {}
        self._rows = 0

    def add(self, part: EntryPart, answer: BatchAnswer, start: int) -> None:
        tensors = tuple(
            [
                Tensor(tensor.name, tensor.data[start : start + part.rows])
                for tensor in answer.tensors
            ]
        )
        self._answers[part.start] = BatchAnswer(tensors, answer.compute_us, answer.rows)
        self._rows += part.rows

    def answer(self, entry: Entry) -> BatchAnswer | None:
        """Return the whole answer; None while parts of it are missing."""
        if self._rows < entry.rows:
            return None
        answers = [self._answers[start] for start in sorted(self._answers)]
        return BatchAnswer(
            join_outputs([one.tensors for one in answers]),
            sum([one.compute_us for one in answers]),
            sum([one.rows for one in answers]),
        )
