"""Encode how a gRPC call ends: status, message and metadata as trailers.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, "Responses".
"""

from enum import IntEnum
from functools import lru_cache
from urllib.parse import quote

from inference.gateway.http2.header_blocks import (
    Fields,
    literal,
    literal_name,
    literal_text,
)


class Status(IntEnum):
    OK = 0
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


_OF_HTTP = {
    400: Status.INVALID_ARGUMENT,
    401: Status.UNAUTHENTICATED,
    403: Status.PERMISSION_DENIED,
    404: Status.NOT_FOUND,
    408: Status.DEADLINE_EXCEEDED,
    409: Status.ABORTED,
    410: Status.FAILED_PRECONDITION,
    413: Status.INVALID_ARGUMENT,
    415: Status.INVALID_ARGUMENT,
    422: Status.INVALID_ARGUMENT,
    429: Status.RESOURCE_EXHAUSTED,
    500: Status.INTERNAL,
    503: Status.UNAVAILABLE,
    504: Status.DEADLINE_EXCEEDED,
}
# RFC 7541, appendix A: `:status: 200` is entry 8 of the static table.
_OK_STATUS = b"\x88"
_CONTENT_TYPE = literal(b"content-type", b"application/grpc")
# The header block that begins every answer with a message.
ANSWER_HEAD = _OK_STATUS + _CONTENT_TYPE
OK_TRAILERS = literal(b"grpc-status", b"0")
# Printable ASCII except %, which escapes all else.
_PLAIN = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
# A field holds printable ASCII; other bytes become question marks.
_IN_FIELDS = bytes(code if 0x20 <= code < 0x7F else ord("?") for code in range(256))


def of_http(status: int) -> Status:
    return _OF_HTTP.get(status, Status.UNKNOWN)


def trailers(status: Status, message: str = "", metadata: bytes = b"") -> bytes:
    """Encode the end of a call whose head has been sent."""
    block = literal(b"grpc-status", b"%d" % status)
    if message:
        block += literal(b"grpc-message", quote(message, safe=_PLAIN).encode())
    return block + metadata


def refusal(status: Status, message: str = "", metadata: bytes = b"") -> bytes:
    """Encode the whole answer to a call that gets no message."""
    return ANSWER_HEAD + trailers(status, message, metadata)


def http_refusal(status: int) -> bytes:
    """Encode the answer to a request that is not a gRPC call."""
    return literal(b":status", b"%d" % status)


def metadata(fields: Fields) -> bytes:
    return b"".join(
        [
            _name(name) + literal_text(value.translate(_IN_FIELDS))
            for name, value in fields
        ]
    )


@lru_cache(maxsize=64)
def _name(name: bytes) -> bytes:
    return literal_name(name.lower())
