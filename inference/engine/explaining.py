"""A loaded version as an explainer sees it, and the check of what callers send."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.engine.batcher import Batcher
from inference.engine.errors import EngineError, EngineErrorCode
from inference.engine.lane import Lane
from inference.engine.messages import Params, VersionToLoad
from inference.engine.outputs import join_outputs
from inference.engine.runner import Loaded
from inference.engine.signature import (
    DATETIME,
    OBJECT_DTYPES,
    Column,
    Layout,
    Signature,
)
from inference.engine.tensors import Tensor, dtype_name, numpy_dtype
from inference.engine.waiting import Answer, Entry

if TYPE_CHECKING:
    import torch

# Rows per entry: an explanation takes its turns between the callers' batches.
_PIECE_ROWS = 256


def check_layout(signature: Signature, tensors: Sequence[Tensor]) -> None:
    """Raise EngineError BAD_REQUEST unless the tensors fit the signature."""
    if signature.layout is Layout.TABLE:
        _check_table(signature, tensors)
    elif signature.layout is Layout.TENSORS:
        _check_tensors(signature, tensors)
    elif len(tensors) != 1 or not _fits(
        tensors[0], dtype=signature.dtype, shape=signature.shape
    ):
        raise _bad_request(
            f"one tensor of {signature.dtype} and shape {list(signature.shape)} per "
            "row is expected"
        )


def _check_tensors(signature: Signature, tensors: Sequence[Tensor]) -> None:
    by_name = {tensor.name: tensor for tensor in tensors}
    if len(by_name) != len(tensors) or len(tensors) != len(signature.inputs):
        raise _bad_request(f"{len(signature.inputs)} tensors are expected")
    for wanted in signature.inputs:
        tensor = by_name.get(wanted.name)
        if tensor is None or not _fits(tensor, dtype=wanted.dtype, shape=wanted.shape):
            raise _bad_request(
                f"input {wanted.name!r} of {wanted.dtype} and shape "
                f"{list(wanted.shape)} per row is expected"
            )


def _fits(tensor: Tensor, *, dtype: str, shape: tuple[int, ...]) -> bool:
    """Compare with what a signature says, where -1 is any size but 0."""
    data = tensor.data
    if data.dtype != numpy_dtype(dtype) or data.ndim != len(shape) + 1:
        return False
    return all(
        got == size or (size == -1 and got > 0)
        for got, size in zip(data.shape[1:], shape, strict=True)
    )


def _check_table(signature: Signature, tensors: Sequence[Tensor]) -> None:
    columns = {column.name: column for column in signature.columns}
    seen = set()
    for tensor in tensors:
        column = columns.get(tensor.name)
        if column is None or tensor.name in seen:
            raise _bad_request(f"column {tensor.name[:80]!r} is unknown or twice there")
        seen.add(tensor.name)
        if tensor.data.ndim != 1 or not _carries(tensor, column):
            raise _bad_request(
                f"column {tensor.name!r} is one value of {column.dtype} per row, not "
                f"{dtype_name(tensor.data)} of shape {list(tensor.data.shape[1:])}"
            )
    missing = [
        name for name, column in columns.items() if column.required and name not in seen
    ]
    if missing:
        raise _bad_request(f"column {missing[0]!r} is missing")


def check_params(signature: Signature, params: Params | None) -> None:
    """Raise EngineError BAD_REQUEST for parameters that the signature has not.

    Whoever sends them has checked their values.
    """
    if params is None:
        return
    known = {param.name for param in signature.params}
    if unknown := params.keys() - known:
        raise _bad_request(f"parameter {min(unknown)[:80]!r} is unknown")


def _carries(tensor: Tensor, column: Column) -> bool:
    """Tell whether an array may hold a column; numbers of other dtypes are cast."""
    dtype = tensor.data.dtype
    if column.carrier in OBJECT_DTYPES:
        return dtype.kind == "O"
    return dtype.kind != "O" and (dtype.kind == "M") == (column.dtype == DATETIME)


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
        self._job = False
        self._customer_id = 0
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
    ) -> "LaneModel":
        """Give the same model, cache included, to one task with its deadline."""
        model = object.__new__(LaneModel)
        model.__dict__.update(self.__dict__)
        model._deadline = deadline
        model._clock = clock
        model._job = job
        model._customer_id = customer_id
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
    """Hands an answer from the event loop to the explain thread."""

    def __init__(self) -> None:
        self.future: Future[tuple[Tensor, ...]] = Future()
        self.queue_us = 0

    def answered(self, entry: Entry, answer: Answer, start: int, queue_us: int) -> None:
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
