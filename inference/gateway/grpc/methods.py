"""Describe a gRPC method: what a call must know before its first message."""

import enum
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from inference.dialects.call_headers import Head
from inference.gateway.grpc.statuses import Status
from inference.gateway.http2.stream import Carrier


class MethodCall(Protocol):
    """What a method may do with its call."""

    # The work for the call, which is abandoned when the client leaves.
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
    """How many messages a call has in each direction."""

    UNARY = "one message, one answer"
    STREAMED = "many messages, one answer each"
    WATCHED = "one message, an answer whenever there is something new"


class Method(msgspec.Struct, frozen=True):
    # Answers a message, at once or later.
    handle: Handle
    # Without a valid key, the call is refused before its message is read.
    needs_key: bool = True
    shape: Shape = Shape.UNARY
