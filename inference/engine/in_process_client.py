"""The client for tests: an engine on the same event loop, without a socket."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from inference.engine import calls
from inference.engine.errors import EngineError, EngineErrorCode
from inference.engine.messages import (
    EngineStatus,
    Explained,
    ExplainOptions,
    VersionKey,
    VersionToLoad,
)
from inference.engine.tensors import InvalidTensor, Prediction, Tensor, encode
from inference.engine.waiting import Answer, Entry

if TYPE_CHECKING:
    from inference.engine.engine import Engine


class _FutureCaller:
    def __init__(self, future: "asyncio.Future[Prediction]") -> None:
        self._future = future

    def answered(self, entry: Entry, answer: Answer, start: int, queue_us: int) -> None:
        if self._future.done():
            return
        stop = start + entry.rows
        tensors = tuple(
            Tensor(tensor.name, tensor.data[start:stop]) for tensor in answer.tensors
        )
        self._future.set_result(
            Prediction(tensors, queue_us, answer.compute_us, answer.rows)
        )

    def delivered(self) -> None:
        pass

    def failed(self, entry: Entry, error: EngineError) -> None:
        if not self._future.done():
            self._future.set_exception(error)


class InProcessEngineClient:
    def __init__(self, engine: "Engine") -> None:
        self._engine = engine

    async def predict(
        self,
        key: VersionKey,
        tensors: Sequence[Tensor],
        *,
        timeout_s: float,
        max_batch_rows: int = 0,
    ) -> Prediction:
        _check(tensors)
        future: asyncio.Future[Prediction] = asyncio.get_running_loop().create_future()
        now = self._engine.clock()
        entry = Entry(
            _FutureCaller(future),
            0,
            tensors,
            nbytes=sum(tensor.data.nbytes for tensor in tensors),
            arrived_at=now,
            deadline=now + timeout_s,
            max_batch_rows=max_batch_rows,
        )
        self._engine.submit(key, entry)
        try:
            return await asyncio.wait_for(future, timeout_s)
        except TimeoutError:
            self._engine.cancel(entry)
            raise calls.timed_out() from None
        except asyncio.CancelledError:
            self._engine.cancel(entry)
            raise

    async def explain(
        self,
        key: VersionKey,
        tensors: Sequence[Tensor],
        *,
        options: ExplainOptions,
        timeout_s: float,
    ) -> Explained:
        _check(tensors)
        started = self._engine.clock()
        task = self._engine.explain(key, tuple(tensors), options, timeout_s=timeout_s)
        try:
            result = await asyncio.wait_for(asyncio.wrap_future(task.future), timeout_s)
        except TimeoutError:
            raise calls.timed_out() from None
        compute_us = int((self._engine.clock() - started) * 1e6)
        return Explained(0, result.explanations, compute_us, result.samples, result.svg)

    async def load(self, version: VersionToLoad) -> None:
        self._engine.load(version)

    async def unload(self, key: VersionKey) -> None:
        self._engine.unload(key)

    async def status(self) -> EngineStatus:
        return self._engine.status()


def _check(tensors: Sequence[Tensor]) -> None:
    """Refuse what could not cross a socket."""
    if not tensors or tensors[0].data.ndim == 0 or not len(tensors[0].data):
        raise EngineError(EngineErrorCode.BAD_REQUEST, "a request needs rows")
    rows = len(tensors[0].data)
    try:
        for tensor in tensors:
            encode(tensor)
            if tensor.data.ndim == 0 or len(tensor.data) != rows:
                raise InvalidTensor("all tensors need the same rows")
    except InvalidTensor as error:
        raise EngineError(EngineErrorCode.BAD_REQUEST, str(error)) from error
