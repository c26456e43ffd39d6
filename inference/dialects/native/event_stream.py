"""Answer a predict body with server-sent events, one per chunk.

Format: `text/event-stream`, section 9.2 of the HTML standard.
"""

from typing import Any

import msgspec
from msgspec import Raw

from accounts.admission.limits import Limits
from inference.codecs.decoding import DecodedRequest
from inference.dialects import call_headers
from inference.dialects.dialect import Call, Headers
from inference.dialects.native.native import NativeDialect
from inference.errors.api_error import ApiError, ErrorCode
from inference.snapshot.targets import Target

HEADERS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    # Proxies such as nginx must not buffer the events.
    (b"x-accel-buffering", b"no"),
]
# A comment line shows proxies and clients that the connection is alive.
KEEP_ALIVE = b": keep-alive\n\n"


class Usage(msgspec.Struct, frozen=True):
    rows: int
    chunks: int
    total_ms: float


class _Chunk(msgspec.Struct, frozen=True):
    chunk: Any


class _End(msgspec.Struct, frozen=True):
    model: Raw
    usage: Usage
    request_id: str


_encoder = msgspec.json.Encoder()


class EventStreamDialect(NativeDialect):
    """One instance in, events out; errors before the first event are as in predict."""

    def prepare(self, call: Call) -> int | None:
        if not call.head.accepts_events:
            message = "Answers are text/event-stream."
            raise ApiError(ErrorCode.NOT_ACCEPTABLE, message)
        call_headers.require_json_body(call.head)
        return None

    def decode(
        self, call: Call, target: Target, body: bytes, limits: Limits
    ) -> DecodedRequest:
        decoded = super().decode(call, target, body, limits)
        if decoded.rows != 1:
            message = "A stream takes one instance. Send one call for each."
            raise ApiError(ErrorCode.INVALID_INPUT, message)
        return decoded


EVENT_STREAM = EventStreamDialect()


def chunk_event(index: int, value: Any) -> bytes:
    """Write one chunk as one event; its JSON has no line breaks."""
    return b"id: %d\ndata: %b\n\n" % (index, _encoder.encode(_Chunk(value)))


def end_event(model: Raw, usage: Usage, request_id: str) -> bytes:
    data = _encoder.encode(_End(model, usage, request_id))
    return b"event: end\ndata: %b\n\n" % data


def error_event(body: bytes) -> bytes:
    """Write the body of an error as the last event."""
    return b"event: error\ndata: %b\n\n" % body
