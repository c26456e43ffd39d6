"""What the connections of one listener share."""

from typing import TYPE_CHECKING, Any, Protocol

from inference.grpc_gateway.http2.grants import LargeMessages
from inference.grpc_gateway.http2.header_blocks import Fields
from inference.grpc_gateway.http2.stream import Stream
from inference.grpc_gateway.http2.turns import Turns

if TYPE_CHECKING:
    from inference.grpc_gateway.http2.connection import Connection


class Place(Protocol):
    # The header block that answers with a message begin with.
    answer_head: bytes
    turns: Turns
    large_messages: LargeMessages

    def join(self, connection: "Connection") -> bool:
        """Count one more connection; False: there are too many."""

    def leave(self, connection: "Connection") -> None: ...

    def now(self) -> float: ...

    def interpret(self, fields: Fields) -> Any:
        """Read the head of a request; raises StreamFault if it is none."""

    def open(self, connection: "Connection", stream_id: int, head: Any) -> Stream: ...

    def close(self, stream: Stream) -> None:
        """Learn that a stream is over."""
