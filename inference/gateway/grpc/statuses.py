"""How a call ends: status, message and metadata as trailers.

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
# What answers with a message begin with.
ANSWER_HEAD = _OK_STATUS + _CONTENT_TYPE
OK_TRAILERS = literal(b"grpc-status", b"0")
# Printable ASCII, but for the sign that escapes the rest.
_PLAIN = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
# What a field may hold; the rest becomes a question mark.
_IN_FIELDS = bytes(code if 0x20 <= code < 0x7F else ord("?") for code in range(256))


def of_http(status: int) -> Status:
    return _OF_HTTP.get(status, Status.UNKNOWN)


def trailers(status: Status, message: str = "", metadata: bytes = b"") -> bytes:
    """Write what ends a call whose head has been sent."""
    block = literal(b"grpc-status", b"%d" % status)
    if message:
        block += literal(b"grpc-message", quote(message, safe=_PLAIN).encode())
    return block + metadata


def refusal(status: Status, message: str = "", metadata: bytes = b"") -> bytes:
    """Write the whole answer to a call that gets no message."""
    return ANSWER_HEAD + trailers(status, message, metadata)


def http_refusal(status: int) -> bytes:
    """Write the answer to what is no call at all."""
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
