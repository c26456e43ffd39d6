"""Send an engine's stream to one connection, piece by piece."""

import asyncio
from collections.abc import AsyncGenerator
from http import HTTPStatus
from typing import Any

from inference.dialects.native.event_stream import error_event
from inference.gateway.driver.engines import Engines
from inference.gateway.http1.exchange import Channel
from inference.prediction.effects import (
    Answer,
    NextChunk,
    NoChunk,
    OpenStream,
    SendHead,
    SendPiece,
    StreamAbandoned,
    StreamEffect,
)

Chunks = AsyncGenerator[Any]


class StreamSender:
    """Carry out the effects of one stream, and end it.

    The engine is asked for a chunk only when the client has read enough of those
    before. What a slow client does not read is never computed.
    """

    def __init__(self, engines: Engines, connection: Channel) -> None:
        self._engines = engines
        self._connection = connection
        self._chunks: Chunks | None = None
        # The next chunk; it stays awaited when one wait for it times out.
        self._next: asyncio.Future[Any] | None = None
        # The head has left, so errors go into the body.
        self.begun = False

    async def carry_out(self, effect: StreamEffect) -> Any:
        match effect:
            case OpenStream():
                self._chunks = self._engines.stream(effect)
                return self._chunks
            case NextChunk():
                return await self._wait(effect.wait_s)
            case SendHead():
                self.begun = True
                self._connection.begin(HTTPStatus.OK, effect.headers)
            case SendPiece():
                await self._send(effect)
        return None

    def finish(self, answer: Answer) -> None:
        """Write the last event, or an error event, and end the answer."""
        connection = self._connection
        if answer.status == HTTPStatus.OK:
            connection.write(answer.body)
            connection.finish()
        elif answer.body:
            connection.write(error_event(answer.body))
            connection.finish()
        else:
            connection.abort()

    def close(self) -> None:
        """Stop the engine's stream: nobody waits for more."""
        chunks, self._chunks = self._chunks, None
        if chunks is not None:
            asyncio.get_running_loop().create_task(_close(chunks, self._next))

    async def _wait(self, timeout_s: float) -> Any:
        assert self._chunks is not None, "a stream is opened before it is read"
        if self._next is None:
            self._next = asyncio.ensure_future(anext(self._chunks, NoChunk.ENDED))
        await asyncio.wait((self._next,), timeout=timeout_s)
        if not self._next.done():
            return NoChunk.NOTHING_YET
        following, self._next = self._next, None
        return following.result()

    async def _send(self, effect: SendPiece) -> None:
        self._connection.write(effect.data)
        try:
            await asyncio.wait_for(self._connection.drained(), effect.timeout_s)
        except TimeoutError:
            raise StreamAbandoned from None


async def _close(chunks: Chunks, following: "asyncio.Future[Any] | None") -> None:
    if following is not None:
        following.cancel()
        await asyncio.wait((following,))
        if not following.cancelled():
            # Fetch it, or asyncio logs it as never retrieved.
            following.exception()
    await chunks.aclose()
