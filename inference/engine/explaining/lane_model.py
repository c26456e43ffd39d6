"""Let an explainer call a loaded version through its lane."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.engine.batching.batcher import Batcher
from inference.engine.batching.entry import BatchAnswer, Entry
from inference.engine.batching.lane import Lane
from inference.engine.runners.runner import Loaded
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.joined_outputs import join_outputs
from inference.engine.wire.messages import VersionToLoad
from inference.engine.wire.tensors import Tensor

if TYPE_CHECKING:
    import torch

# Rows per entry: short entries let other callers' batches run in between.
_PIECE_ROWS = 256


class LaneModel:
    """An ExplainableModel that predicts through a lane; `until` sets its deadline."""

    def __init__(
        self,
        lane: Lane,
        loaded: Loaded,
        wanted: VersionToLoad,
        batcher: Batcher,
        *,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._lane = lane
        self._batcher = batcher
        self._loop = loop
        self._deadline = 0.0
        self._clock: Callable[[], float] = lambda: 0.0
        self._job = False
        self._customer_id = 0
        self._request_id = ""
        self.signature = loaded.signature
        self.path = Path(wanted.path)
        self.torch_function: Callable[[torch.Tensor], torch.Tensor] | None = (
            loaded.runner.torch_function
        )
        self.cache: dict[str, Any] = {}
        self.waited_s = 0.0

    def until(
        self,
        deadline: float,
        clock: Callable[[], float],
        *,
        job: bool = False,
        customer_id: int = 0,
        request_id: str = "",
    ) -> "LaneModel":
        """Return a copy for one task with its deadline; it shares the cache."""
        model = object.__new__(LaneModel)
        model.__dict__.update(self.__dict__)
        model._deadline = deadline
        model._clock = clock
        model._job = job
        model._customer_id = customer_id
        model._request_id = request_id
        return model

    def predict(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        rows = len(tensors[0].data)
        pieces = [
            self._predict_piece(
                [
                    Tensor(tensor.name, tensor.data[start : start + _PIECE_ROWS])
                    for tensor in tensors
                ]
            )
            for start in range(0, rows, _PIECE_ROWS)
        ]
        return join_outputs(pieces)

    def _predict_piece(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        now = self._clock()
        waiter = _Waiter()
        entry = Entry(
            waiter,
            0,
            tensors,
            nbytes=sum(tensor.data.nbytes for tensor in tensors),
            arrived_at=now,
            deadline=self._deadline,
            job=self._job,
            customer_id=self._customer_id,
            request_id=self._request_id,
        )
        self._loop.call_soon_threadsafe(self._submit, entry, waiter)
        try:
            outputs = waiter.future.result(max(self._deadline - now, 0.0))
        except TimeoutError:
            self._loop.call_soon_threadsafe(self._batcher.cancel, entry)
            raise EngineError(
                EngineErrorCode.DEADLINE_EXCEEDED, "the explanation took too long"
            ) from None
        self.waited_s += waiter.queue_us / 1e6
        return outputs

    def _submit(self, entry: Entry, waiter: "_Waiter") -> None:
        if self._lane.closed:
            waiter.failed(entry, EngineError(EngineErrorCode.NOT_LOADED, "unloaded"))
            return
        try:
            self._batcher.submit(self._lane, entry)
        except EngineError as error:
            waiter.failed(entry, error)


class _Waiter:
    """The Caller that hands an answer from the event loop to the explain thread."""

    def __init__(self) -> None:
        self.future: Future[tuple[Tensor, ...]] = Future()
        self.queue_us = 0

    def answered(
        self, entry: Entry, answer: BatchAnswer, start: int, queue_us: int
    ) -> None:
        self.queue_us = queue_us
        stop = start + entry.rows
        self.future.set_result(
            tuple(
                Tensor(tensor.name, tensor.data[start:stop])
                for tensor in answer.tensors
            )
        )

    def delivered(self) -> None:
        pass

    def failed(self, entry: Entry, error: EngineError) -> None:
        self.future.set_exception(error)
