"""Call an engine on the same event loop without a socket, for tests."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec

from inference.engine.batching.entry import BatchAnswer, Entry
from inference.engine.clients import inbox, requests
from inference.engine.clients.inbox import Inbox
from inference.engine.engine import EngineCore
from inference.engine.wire.calls import ExplanationCall, PredictionCall, StreamCall
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.messages import (
    EngineStatus,
    Explained,
    VersionKey,
    VersionToLoad,
)
from inference.engine.wire.tensors import InvalidTensor, Prediction, Tensor, encode


class _FutureCaller:
    def __init__(self, future: "asyncio.Future[Prediction]") -> None:
        self._future = future

    def answered(
        self, entry: Entry, answer: BatchAnswer, start: int, queue_us: int
    ) -> None:
        if self._future.done():
            return
        stop = start + entry.rows
        tensors = tuple(
            Tensor(tensor.name, tensor.data[start:stop]) for tensor in answer.tensors
        )
        try:
            _check(tensors)
        except EngineError as error:
            self.failed(entry, EngineError(EngineErrorCode.MODEL_ERROR, str(error)))
            return
        self._future.set_result(
            Prediction(tensors, queue_us, answer.compute_us, answer.rows)
        )

    def delivered(self) -> None:
        pass

    def failed(self, entry: Entry, error: EngineError) -> None:
        if not self._future.done():
            self._future.set_exception(error)


class _InboxListener:
    def __init__(self, box: Inbox) -> None:
        self._box = box

    def chunk(self, stream_id: int, chunk: msgspec.Raw) -> None:
        self._box.put(chunk)

    def ended(self, stream_id: int, chunks: int) -> None:
        self._box.end()

    def stream_failed(self, stream_id: int, error: EngineError) -> None:
        self._box.fail(error)


class InProcessEngineClient:
    def __init__(self, engine: EngineCore) -> None:
        self._engine = engine

    async def predict(self, call: PredictionCall) -> Prediction:
        _check(call.tensors)
        future: asyncio.Future[Prediction] = asyncio.get_running_loop().create_future()
        now = self._engine.clock()
        entry = Entry(
            _FutureCaller(future),
            0,
            call.tensors,
            nbytes=sum(tensor.data.nbytes for tensor in call.tensors),
            arrived_at=now,
            deadline=now + call.timeout_s,
            max_batch_rows=call.max_batch_rows,
            job=call.priority == "job",
            params=call.params,
            customer_id=call.customer_id,
            request_id=call.request_id,
        )
        self._engine.submit(call.key, entry)
        try:
            return await asyncio.wait_for(future, call.timeout_s)
        except TimeoutError:
            self._engine.cancel(entry)
            raise requests.timed_out() from None
        except asyncio.CancelledError:
            self._engine.cancel(entry)
            raise

    async def stream(self, call: StreamCall) -> AsyncGenerator[Any, None]:
        _check(call.tensors)
        box = Inbox(lambda count: running.grant(count))
        running = self._engine.stream(
            call.key,
            call.tensors,
            _InboxListener(box),
            params=call.params,
            credits=inbox.WINDOW,
            timeout_s=call.timeout_s,
            customer_id=call.customer_id,
            request_id=call.request_id,
        )
        try:
            async for chunk in box.chunks():
                yield chunk
        finally:
            running.cancel()

    async def explain(self, call: ExplanationCall) -> Explained:
        _check(call.tensors)
        task = self._engine.explain(
            call.key,
            tuple(call.tensors),
            call.options,
            timeout_s=call.timeout_s,
            priority=call.priority,
            customer_id=call.customer_id,
            request_id=call.request_id,
        )
        try:
            result = await asyncio.wait_for(
                asyncio.wrap_future(task.future), call.timeout_s
            )
        except TimeoutError:
            raise requests.timed_out() from None
        return task.explained(0, result)

    async def load(self, version: VersionToLoad) -> None:
        self._engine.load(version)

    async def unload(self, key: VersionKey) -> None:
        self._engine.unload(key)

    async def status(self) -> EngineStatus:
        return self._engine.status()


def _check(tensors: Sequence[Tensor]) -> None:
    """Raise EngineError BAD_REQUEST for tensors that could not cross a socket."""
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
