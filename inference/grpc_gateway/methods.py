"""Which methods there are, as far as calls must know before their message."""

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from inference.grpc_gateway.calls import GrpcCall

Handle = Callable[["GrpcCall", bytes | memoryview], None]


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
