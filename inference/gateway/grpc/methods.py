"""Which methods there are, as far as calls must know before their message."""

import enum
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from inference.dialects.call_headers import Head
from inference.gateway.grpc.statuses import Status
from inference.gateway.http2.stream import Carrier


class MethodCall(Protocol):
    """A call as its method sees it."""

    # What works on it now, and is told where nobody waits any more.
    work: Any

    @property
    def facts(self) -> Head: ...

    @property
    def connection(self) -> Carrier: ...

    def plan_head(self) -> Head: ...

    def now(self) -> float: ...

    def reply(self, body: bytes, metadata: bytes = b"") -> None: ...

    def refuse(self, status: Status, message: str, metadata: bytes = b"") -> None: ...


Handle = Callable[[MethodCall, bytes | memoryview], None]


class Shape(enum.Enum):
    """How many messages a call has, in and out."""

    UNARY = "one message, one answer"
    STREAMED = "many messages, one answer each"
    WATCHED = "one message, an answer whenever there is something new"


class Method(msgspec.Struct, frozen=True):
    # Answers a message, at once or later.
    handle: Handle
    # Whoever calls it must have a key.
    needs_key: bool = True
    shape: Shape = Shape.UNARY
