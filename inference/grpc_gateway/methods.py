"""Which methods there are, as far as calls must know before their message."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from inference.grpc_gateway.calls import GrpcCall

Handle = Callable[["GrpcCall", bytes | memoryview], None]


class Method(msgspec.Struct, frozen=True):
    # Answers a message, at once or later.
    handle: Handle
    # Whoever calls it must have a key.
    needs_key: bool = True
    # Its call takes many messages.
    streams: bool = False
