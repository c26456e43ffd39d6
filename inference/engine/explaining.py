"""A loaded version as an explainer sees it, and the check of what callers send."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inference.engine import runner
from inference.engine.batcher import Batcher, Lane
from inference.engine.errors import EngineError, EngineErrorCode
from inference.engine.messages import VersionToLoad
from inference.engine.runner import Loaded
from inference.engine.signature import Layout, Signature
from inference.engine.tensors import TEXT, Tensor, dtype_name
from inference.engine.waiting import Answer, Entry

if TYPE_CHECKING:
    import torch

# Rows per entry: an explanation takes its turns between the callers' batches.
_PIECE_ROWS = 256


def check_layout(signature: Signature, tensors: Sequence[Tensor]) -> None:
    """Raise EngineError BAD_REQUEST unless the tensors fit the signature."""
    if signature.layout is Layout.TABLE:
        _check_table(signature, tensors)
        return
    data = tensors[0].data
    if (
        len(tensors) != 1
        or data.dtype != np.dtype(signature.dtype)
        or data.shape[1:] != signature.shape
    ):
        raise _bad_request(
            f"one tensor of {signature.dtype} and shape {list(signature.shape)} per "
            "row is expected"
        )


def _check_table(signature: Signature, tensors: Sequence[Tensor]) -> None:
    columns = {column.name: column for column in signature.columns}
    seen = set()
    for tensor in tensors:
        column = columns.get(tensor.name)
        if column is None or tensor.name in seen:
            raise _bad_request(f"column {tensor.name[:80]!r} is unknown or twice there")
        seen.add(tensor.name)
        is_text = tensor.data.dtype == object
        if tensor.data.ndim != 1 or is_text != (column.dtype == TEXT):
            raise _bad_request(
                f"column {tensor.name!r} is one value of {column.dtype} per row, not "
                f"{dtype_name(tensor.data)} of shape {list(tensor.data.shape[1:])}"
            )
    missing = [
        name for name, column in columns.items() if column.required and name not in seen
    ]
    if missing:
        raise _bad_request(f"column {missing[0]!r} is missing")


def _bad_request(message: str) -> EngineError:
    return EngineError(EngineErrorCode.BAD_REQUEST, message)


class LaneModel:
    """An ExplainableModel over a lane; `until` gives it a deadline."""

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
        self.signature = loaded.signature
        self.path = Path(wanted.path)
        self.torch_function: Callable[[torch.Tensor], torch.Tensor] | None = (
            loaded.runner.torch_function
        )
        self.cache: dict[str, Any] = {}

    def until(self, deadline: float, clock: Callable[[], float]) -> "LaneModel":
        """Give the same model, cache included, to one task with its deadline."""
        model = object.__new__(LaneModel)
        model.__dict__.update(self.__dict__)
        model._deadline = deadline
        model._clock = clock
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
        return runner.concatenate(pieces)

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
        )
        self._loop.call_soon_threadsafe(self._submit, entry, waiter)
        try:
            return waiter.future.result(max(self._deadline - now, 0.0))
        except TimeoutError:
            self._loop.call_soon_threadsafe(self._batcher.cancel, entry)
            raise EngineError(
                EngineErrorCode.DEADLINE_EXCEEDED, "the explanation took too long"
            ) from None

    def _submit(self, entry: Entry, waiter: "_Waiter") -> None:
        if self._lane.closed:
            waiter.failed(entry, EngineError(EngineErrorCode.NOT_LOADED, "unloaded"))
            return
        try:
            self._batcher.submit(self._lane, entry)
        except EngineError as error:
            waiter.failed(entry, error)


class _Waiter:
    """Hands an answer from the event loop to the explain thread."""

    def __init__(self) -> None:
        self.future: Future[tuple[Tensor, ...]] = Future()

    def answered(self, entry: Entry, answer: Answer, start: int, queue_us: int) -> None:
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
