"""Answer one prediction over HTTP: read its body and send its answer."""

from http import HTTPStatus
from typing import Any, NamedTuple

import structlog

from accounts.admission.key_format import holds_key
from inference.dialects import call_headers
from inference.dialects.call_headers import Head
from inference.dialects.dialect import Call
from inference.errors import refusals
from inference.errors.api_error import ApiError, ErrorCode
from inference.gateway.driver.driver import GatewayDriver
from inference.gateway.driver.plan_run import PlanRun
from inference.gateway.http1.exchange import Channel, Exchange, Request
from inference.gateway.routes import PredictionPath
from inference.gateway.stream_sender import StreamSender
from inference.prediction.effects import (
    STREAM_EFFECTS,
    Answer,
    Effect,
    NeedBody,
    StreamAbandoned,
)

logger = structlog.get_logger(__name__)

# A body up to this size needs no reserved memory.
_FREE_BYTES = 64 * 1024
# A larger one may wait this long for memory.
_ROOM_TIMEOUT_S = 10.0


class PredictionHead(NamedTuple):
    """The facts of a request's head that the plan needs."""

    path: PredictionPath
    facts: Head
    explain: bool | None
    key_in_query: bool
    # The client waits for `100 Continue` before it sends its body.
    expects: bool

    @classmethod
    def of(
        cls, request: Request, path: PredictionPath, query: bytes
    ) -> "PredictionHead":
        explain = query != b"" and call_headers.asks_to_explain(query)
        expects = any(
            name == b"expect" and value.lower() == b"100-continue"
            for name, value in request.headers
        )
        return cls(
            path,
            call_headers.read(request.headers),
            explain,
            query != b"" and holds_key(query),
            expects,
        )


class PredictionExchange(PlanRun, Exchange):
    """An HTTP exchange that runs the plan until its answer is written."""

    __slots__ = (
        "_asks_bytes",
        "_body_deadline",
        "_chunks",
        "_complete",
        "_connection",
        "_customer_id",
        "_head",
        "_held_bytes",
        "_max_bytes",
        "_sender",
        "_size",
    )

    def __init__(
        self, driver: GatewayDriver, head: PredictionHead, connection: Channel
    ) -> None:
        super().__init__(driver)
        self._head = head
        self._connection = connection
        self._chunks: list[bytes | bytearray] = []
        self._size = 0
        self._complete = False
        # Set while the plan waits for the body.
        self._max_bytes: int | None = None
        self._body_deadline = 0.0
        # Memory that is reserved for a large body, and that it waits for.
        self._held_bytes = self._asks_bytes = 0
        # Set if the answer is sent in pieces.
        self._sender: StreamSender | None = None

    # Called by the connection

    def start(self) -> None:
        path, facts, explain, key_in_query, _ = self._head
        call = Call(
            path.operation,
            facts,
            path.dialect,
            path.model,
            path.version,
            explain,
            self._connection.client,
            key_in_query,
        )
        self._begin(call)

    def body_received(self, data: bytes | bytearray) -> None:
        self._chunks.append(data)
        self._size += len(data)
        limit = self._max_bytes
        if limit is None:
            return
        if self._size > limit:
            self._give_body()
        elif self._size > max(self._held_bytes, _FREE_BYTES) and not self._asks_bytes:
            # Its length is unknown, so reserve what it may have.
            self._ask(limit)

    def body_complete(self) -> None:
        self._complete = True
        if self._max_bytes is not None and not self._asks_bytes:
            self._give_body()

    def client_left(self) -> None:
        if self._over:
            return
        if not self.begun:
            self._end()
            return
        self._driver.metrics.abandoned += 1
        if self._sender is not None and self._sender.begun:
            self._stop_waiting()
            self.fail(StreamAbandoned())
        else:
            self._leave()

    def sweep(self, now: float) -> None:
        if self._max_bytes is None or now <= self._body_deadline:
            return
        self._max_bytes = None
        if self._asks_bytes:
            self._stop_asking(refused=True)
            self.fail(refusals.no_room())
            return
        message = "The request's body did not arrive in time."
        self.fail(ApiError(ErrorCode.REQUEST_TIMEOUT, message))

    # Called by the plan's run

    async def _carry_out(self, effect: Effect) -> Any:
        if type(effect) in STREAM_EFFECTS:
            return await self._sending().carry_out(effect)  # type: ignore[arg-type]
        return await super()._carry_out(effect)

    def _sending(self) -> StreamSender:
        if self._sender is None:
            self._sender = StreamSender(self._driver.engines, self._connection)
        return self._sender

    # The body

    def _body(self, effect: NeedBody) -> bytes | bytearray | None:
        """Return the body, or None if it has to be waited for."""
        announced = self._head.facts.content_length
        if announced is not None and announced > effect.max_bytes:
            raise refusals.body_too_large(effect.max_bytes)
        self._max_bytes = limit = effect.max_bytes
        size = self._size
        if (self._complete and size <= _FREE_BYTES) or size > limit:
            return self._taken()
        self._customer_id = effect.customer_id
        if announced is not None:
            size = announced
        elif not self._complete:
            size = limit if size > _FREE_BYTES else 0
        if size > _FREE_BYTES and not self._ask(size):
            return None
        if self._complete:
            return self._taken()
        self._wait_for_body()
        return None

    def _wait_for_body(self) -> None:
        self._body_deadline = self._driver.timer() + self._driver.body_timeout_s
        if self._head.expects and not self._chunks:
            self._connection.invite()

    def _ask(self, size: int) -> bool:
        """Reserve memory for a large body; stop reading it while there is none."""
        if self._driver.room.take(self._customer_id, size, self):
            self._held_bytes = size
            return True
        self._asks_bytes = size
        self._body_deadline = self._driver.timer() + _ROOM_TIMEOUT_S
        self._connection.hold_body()
        return False

    def room_made(self) -> None:
        self._held_bytes = self._asks_bytes
        self._asks_bytes = 0
        self._connection.release_body()
        if self._complete:
            self._give_body()
        else:
            self._wait_for_body()

    def _stop_asking(self, *, refused: bool) -> None:
        self._asks_bytes = 0
        self._driver.room.stop_waiting(self._customer_id, self, refused=refused)
        self._connection.release_body()

    def _give_room_back(self, size: int) -> None:
        self._held_bytes -= size
        self._driver.room.give_back(self._customer_id, size)

    def _taken(self) -> bytes | bytearray:
        limit, self._max_bytes = self._max_bytes, None
        chunks, self._chunks = self._chunks, []
        if limit is not None and self._size > limit:
            raise refusals.body_too_large(limit)
        if self._held_bytes > self._size:
            self._give_room_back(self._held_bytes - self._size)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _give_body(self) -> None:
        if self._asks_bytes:
            self._stop_asking(refused=False)
        try:
            body = self._taken()
        except ApiError as error:
            self.fail(error)
        else:
            self.resume(body)

    # The answer

    def _record(self, answer: Answer) -> None:
        if self._sender is not None:
            self._sender.close()
        super()._record(answer)

    def _give(self, answer: Answer) -> None:
        if self._held_bytes:
            self._give_room_back(self._held_bytes)
        connection = self._connection
        try:
            if self._sender is not None and self._sender.begun:
                self._sender.finish(answer)
            elif answer.status == HTTPStatus.REQUEST_TIMEOUT:
                connection.answer_and_close(answer.status, answer.headers, answer.body)
            else:
                connection.answer(answer.status, answer.headers, answer.body)
                if answer.event is not None and len(answer.body) > _FREE_BYTES:
                    connection.count_unread(
                        self._driver.unread, answer.event.customer_id
                    )
        except Exception:
            # The edge of the process: other answers of this turn must go on.
            logger.exception("answer_failed")
            connection.abort()

    def _request_id(self) -> str:
        return self._driver.request_id(self._head.facts)

    def _received_bytes(self) -> int:
        return self._size

    def _end(self) -> None:
        self._max_bytes = None
        self._chunks = []
        if self._asks_bytes:
            self._stop_asking(refused=False)
        if self._held_bytes:
            self._give_room_back(self._held_bytes)
        if self._sender is not None:
            self._sender.close()
        super()._end()
