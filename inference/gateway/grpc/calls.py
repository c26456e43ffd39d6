"""Receive the messages of a gRPC call, and send its answers.

A call is an HTTP/2 stream. Its method (`service.py`) answers each message, at once or
later, by `reply` or `refuse`.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Protocol

import msgspec
import structlog

from inference.dialects.call_headers import MAX_DEADLINE_MS, Head
from inference.gateway.grpc import statuses
from inference.gateway.grpc.call_head import GrpcHead
from inference.gateway.grpc.inflating import Inflators
from inference.gateway.grpc.messages import (
    PREFIX_BYTES,
    MessageReader,
    MessageTooLarge,
    inflate,
)
from inference.gateway.grpc.statuses import Status
from inference.gateway.http2.limits import (
    IDLE_S,
    MAX_KEYLESS_MESSAGE_BYTES,
    STREAM_WINDOW,
)
from inference.gateway.http2.stream import Carrier, Stream
from inference.installation.shares import Shares

logger = structlog.get_logger(__name__)

# A prediction ends itself at its deadline. Other calls are ended this much later.
_DEADLINE_GRACE_S = 1.0
_AWAY = "The server is going away. Call again."
_SOON = statuses.metadata([(b"retry-after", b"1")])

Message = bytes | memoryview


class Work(Protocol):
    """Work that a call waits for."""

    def abandon(self) -> None: ...


class Rules(Protocol):
    """What calls need of their server."""

    max_message_bytes: int
    message_timeout_s: float
    # Bytes of large answers that wait for their clients.
    unread: Shares
    inflators: Inflators

    def now(self) -> float: ...

    def why_not(self, call: "GrpcCall") -> bytes | None:
        """Return the header block that refuses a call; None if it may go on.

        A call that may go on is counted for its `owner` until it is over.
        """


class GrpcCall(Stream):
    """One gRPC call; its deadline counts from the arrival of its head."""

    __slots__ = (
        "_begun_at",
        "_inflated_bytes",
        "_reader",
        "_rules",
        "_unread_bytes",
        "_waiting_since",
        "head",
        "work",
    )

    def __init__(
        self, connection: Carrier, stream_id: int, head: GrpcHead, rules: Rules
    ) -> None:
        super().__init__(connection, stream_id)
        self.head = head
        self.work: Work | None = None
        self.body_left = head.content_length
        self._rules = rules
        self._reader: MessageReader | None = None
        # Counted bytes: of an answer that waits for the client, and of a decompressed
        # message that is not answered yet.
        self._unread_bytes = self._inflated_bytes = 0
        # When the call began, and when it began to wait for a message.
        self._begun_at = self._waiting_since = rules.now()

    # For methods

    @abstractmethod
    def reply(self, body: bytes, metadata: bytes = b"") -> None:
        """Answer a message."""

    def refuse(self, status: Status, message: str, metadata: bytes = b"") -> None:
        """End the call with an error."""
        self.leave()
        if self.begun:
            self.connection.end(self, statuses.trailers(status, message, metadata))
        else:
            self.connection.refuse(self, statuses.refusal(status, message, metadata))

    @property
    def facts(self) -> Head:
        return self.head.facts

    def now(self) -> float:
        return self._rules.now()

    def plan_head(self) -> Head:
        """Return the head for the plan, with what is left of the deadline."""
        timeout_s, facts = self.head.timeout_s, self.head.facts
        if timeout_s is None:
            return facts
        left_ms = int((timeout_s - (self._rules.now() - self._begun_at)) * 1000)
        if left_ms >= MAX_DEADLINE_MS:
            return facts
        return msgspec.structs.replace(facts, deadline_s=max(left_ms, 1) / 1000)

    # Stream

    def opened(self) -> None:
        refusal = self.head.refusal or self._rules.why_not(self)
        if refusal:
            self.connection.refuse(self, refusal)
            return
        self.known = not self.head.keyless
        if self.ended:
            self.received(b"")

    def granted(self) -> None:
        self._waiting_since = self._rules.now()

    def sent(self) -> None:
        """Do nothing: an answer that was sent whole ends the call."""

    def drain(self) -> None:
        """Do nothing: a call that has come is answered."""

    def cut_off(self) -> None:
        self.refuse(Status.UNAVAILABLE, _AWAY, _SOON)

    def client_left(self) -> None:
        self.leave()

    def leave(self) -> None:
        """Abandon the work for the call."""
        work, self.work = self.work, None
        if work is not None:
            work.abandon()

    # Messages

    @property
    def _max_bytes(self) -> int:
        """The size limit of a message from the client."""
        most = self._rules.max_message_bytes
        return min(most, MAX_KEYLESS_MESSAGE_BYTES) if self.head.keyless else most

    def _keep(self, data: bytes) -> MessageReader:
        """Add received bytes to those that wait."""
        reader = self._reader
        if reader is None:
            reader = self._reader = MessageReader(self._max_bytes)
        if not reader.bytes_kept:
            self._waiting_since = self._rules.now()
        if data:
            reader.feed(data)
        return reader

    def _has_message(self, reader: MessageReader) -> bool:
        """Return whether a message is complete; one that is invalid ends the call."""
        try:
            complete = reader.complete
        except MessageTooLarge:
            self._refuse_too_large()
            return False
        except ValueError as error:
            self.refuse(Status.INTERNAL, f"A message cannot be read: {error}.")
            return False
        if not complete and not self.ended:
            lacking = reader.bytes_missing - self.window
            if lacking > 0:
                self.connection.grants.ask(self, lacking)
        return complete

    def _hand_over(self, compressed: bool, body: Message) -> None:
        inflator = self.head.inflator
        if not compressed:
            self._handle(body)
        elif not inflator:
            text = "A message is compressed, but `grpc-encoding` says nothing of it."
            self.refuse(Status.INTERNAL, text)
        elif self.head.keyless:
            # The message is small, before and after; threads are for callers with keys.
            try:
                plain = inflate(body, inflator, max_bytes=self._max_bytes)
            except (MessageTooLarge, ValueError) as error:
                self.not_inflated(error)
            else:
                self._handle(plain)
        else:
            self.work = self._rules.inflators.begin(self, body, inflator)

    def inflated(self, body: bytes) -> None:
        self.work = None
        self._inflated_bytes = len(body)
        self._handle(body)

    def not_inflated(self, error: BaseException) -> None:
        self.work = None
        if isinstance(error, MessageTooLarge):
            self._refuse_too_large()
        elif isinstance(error, ValueError):
            self.refuse(Status.INTERNAL, f"A message cannot be read: {error}.")
        else:
            self._break(error)

    def _handle(self, body: Message) -> None:
        method = self.head.method
        assert method is not None
        try:
            method.handle(self, body)
        except Exception as error:
            # A fault of one call must not stop the others.
            self._break(error)

    def _break(self, error: BaseException) -> None:
        logger.error("call_failed", exc_info=error)
        self.refuse(Status.INTERNAL, "Something went wrong on our side.")

    def _refuse_too_large(self) -> None:
        text = f"A message exceeds {self._max_bytes} bytes."
        self.refuse(Status.RESOURCE_EXHAUSTED, text)

    def _fits(self, body: bytes) -> bool:
        """Return whether an answer is within the message limit; if not, refuse."""
        if len(body) <= self._rules.max_message_bytes:
            return True
        self._refuse_too_large()
        return False

    def count_unread(self, size: int) -> None:
        """Count a large answer until it is written; if there is no room, give up."""
        if self.closed or not self.outgoing:
            return
        if self._rules.unread.take(self.owner, size):
            self._unread_bytes = size
        else:
            self.connection.give_up(self)

    def count_read(self) -> None:
        size, self._unread_bytes = self._unread_bytes, 0
        if size:
            self._rules.unread.give_back(self.owner, size)

    def forget_inflated(self) -> None:
        """Stop counting the decompressed message: it is answered."""
        size, self._inflated_bytes = self._inflated_bytes, 0
        if size:
            self._rules.inflators.give_back(self.owner, size)

    def sweep(self, now: float) -> None:
        timeout_s, since = self.head.timeout_s, self._waiting_since
        if timeout_s is not None and (
            now - self._begun_at > timeout_s + _DEADLINE_GRACE_S
        ):
            self.refuse(Status.DEADLINE_EXCEEDED, "The deadline has passed.")
        elif self.asking:
            # The client waits for us.
            pass
        elif (patience_s := self._patience_s()) is not None and (
            now - since > patience_s
        ):
            text = f"No whole message came within {patience_s:.0f} seconds."
            self.refuse(Status.DEADLINE_EXCEEDED, text)

    @abstractmethod
    def _patience_s(self) -> float | None:
        """Return how long the next message may take; None if none is expected."""


class UnaryCall(GrpcCall):
    """One message in, one out."""

    __slots__ = ()

    def received(self, data: bytes) -> None:
        if self.ended and self._reader is None and _is_whole(data):
            # Most calls come as one small message in one frame.
            if len(data) - PREFIX_BYTES > self._max_bytes:
                self._refuse_too_large()
            else:
                self._handle(data[PREFIX_BYTES:])
            return
        reader = self._keep(data)
        complete = self._has_message(reader)
        if not self.ended or self.closed:
            return
        if not complete and reader.bytes_kept:
            self.refuse(Status.INTERNAL, "The message is not complete.")
        elif not complete:
            self.refuse(Status.UNIMPLEMENTED, "The call came without a message.")
        else:
            message = reader.take()
            self._reader = None
            if reader.bytes_kept:
                text = "The call came with several messages."
                self.refuse(Status.UNIMPLEMENTED, text)
            else:
                self._hand_over(*message)

    def reply(self, body: bytes, metadata: bytes = b"") -> None:
        self.work = None
        if self._fits(body):
            trailers = statuses.OK_TRAILERS + metadata
            self.connection.answer(self, _prefix(body), body, trailers)
            if len(body) > STREAM_WINDOW:
                self.count_unread(len(body))

    def _patience_s(self) -> float | None:
        return None if self.ended else self._rules.message_timeout_s


class StreamingCall(GrpcCall):
    """Messages both ways: each is answered before the next is read."""

    __slots__ = ("_advancing", "_busy", "_draining")

    def __init__(
        self, connection: Carrier, stream_id: int, head: GrpcHead, rules: Rules
    ) -> None:
        super().__init__(connection, stream_id, head, rules)
        # Busy: a message is worked on, or its answer waits. Advancing: `_advance` runs.
        self._busy = self._advancing = False
        self._draining = False

    def received(self, data: bytes) -> None:
        self._keep(data)
        self._advance()

    def reply(self, body: bytes, metadata: bytes = b"") -> None:
        self.work = None
        if self._fits(body):
            self.connection.send(self, _prefix(body), body)
            if len(body) > STREAM_WINDOW:
                self.count_unread(len(body))

    def sent(self) -> None:
        self._busy = False
        self.count_read()
        self.forget_inflated()
        self.connection.grants.give_back(self)
        self._advance()

    def drain(self) -> None:
        # End the call between two messages: the next one may never come.
        self._draining = True
        self._advance()

    def _advance(self) -> None:
        """Handle messages until one cannot be answered at once."""
        if self._advancing:
            return
        self._advancing = True
        while not self._busy and not self.closed and self._go_on():
            pass
        self._advancing = False

    def _go_on(self) -> bool:
        reader = self._keep(b"")
        done = self.ended and not reader.bytes_kept
        if done:
            self.connection.end(self, statuses.OK_TRAILERS)
        elif self._draining:
            self.cut_off()
        elif self._has_message(reader):
            self._busy = True
            message = reader.take()
            self._restore_window(reader.bytes_kept)
            self._hand_over(*message)
            return True
        elif self.ended and not self.closed:
            self.refuse(Status.INTERNAL, "The last message is not complete.")
        return False

    def _restore_window(self, kept: int) -> None:
        room = self.window + kept
        if not self.ended and room < STREAM_WINDOW // 2:
            self.connection.open_window(self, STREAM_WINDOW - room)

    def _patience_s(self) -> float | None:
        if self._busy:
            return None
        reader = self._reader
        begun = reader is not None and reader.bytes_kept > 0
        if begun or self.head.keyless:
            return self._rules.message_timeout_s
        # No message has begun, but the call uses a part of all calls.
        return IDLE_S


class WatchedCall(UnaryCall):
    """One message in, and an answer out for each change."""

    __slots__ = ("_look", "_sending")

    def __init__(
        self, connection: Carrier, stream_id: int, head: GrpcHead, rules: Rules
    ) -> None:
        super().__init__(connection, stream_id, head, rules)
        self._look: Callable[[float], bytes | None] | None = None
        # The client has not read the last answer.
        self._sending = False

    def watch(self, look: Callable[[float], bytes | None]) -> None:
        """Send what `look` returns now and at each sweep; None if nothing changed."""
        self._look = look
        self._tell(self._rules.now())

    def reply(self, body: bytes, metadata: bytes = b"") -> None:
        self._sending = True
        self.connection.send(self, _prefix(body), body)

    def sent(self) -> None:
        self._sending = False

    def drain(self) -> None:
        self._tell(self._rules.now())
        self.cut_off()

    def sweep(self, now: float) -> None:
        super().sweep(now)
        if not self.closed:
            self._tell(now)

    def _tell(self, now: float) -> None:
        if self._look is None or self._sending:
            return
        news = self._look(now)
        if news is not None:
            self.reply(news)


def _is_whole(data: bytes) -> bool:
    """Return whether a frame is exactly one message that is not compressed."""
    return (
        len(data) >= PREFIX_BYTES
        and data[0] == 0
        and int.from_bytes(data[1:PREFIX_BYTES]) == len(data) - PREFIX_BYTES
    )


def _prefix(body: bytes) -> bytes:
    return len(body).to_bytes(PREFIX_BYTES)
