"""What the plan of a stream asks its driver for. Pure."""

import enum
from typing import Any, Protocol

import msgspec

from inference.engine.wire.messages import VersionKey
from inference.engine.wire.tensors import Tensor

Headers = list[tuple[bytes, bytes]]


class Stream(Protocol):
    """Whatever the driver reads the chunks from; the plan only hands it back."""


class Sign(enum.Enum):
    """What is no chunk; a chunk may be any JSON value, null too."""

    ENDED = "ended"
    NOTHING_YET = "nothing yet"


class StreamAbandoned(Exception):
    """Thrown into the plan when the client left; it still gives the event."""


class OpenStream(msgspec.Struct, frozen=True):
    """Begin to stream on one of the engines. Answered by a Stream.

    The driver closes it when the plan ends, however that happens.
    """

    engines: tuple[str, ...]
    key: VersionKey
    tensors: tuple[Tensor, ...]
    timeout_s: float
    params: dict[str, Any] | None = None
    customer_id: int = 0


class NextChunk(msgspec.Struct, frozen=True):
    """Wait for a chunk, a JSON value, for `wait_s`. Answered by it or by a Sign."""

    stream: Stream
    wait_s: float


class SendHead(msgspec.Struct, frozen=True):
    """Send status 200 and these headers: what follows comes piece by piece."""

    headers: Headers


class SendPiece(msgspec.Struct, frozen=True):
    """Send a piece of the body, and wait until the client has taken enough of it.

    A client that takes nothing for `timeout_s` is given up.
    """

    data: bytes
    timeout_s: float


StreamEffect = OpenStream | NextChunk | SendHead | SendPiece
STREAM_EFFECTS = frozenset({OpenStream, NextChunk, SendHead, SendPiece})
