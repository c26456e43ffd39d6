"""Read and check the header fields of a call.

The HTTP/2 connection remembers the result, so an equal header block is read once.
"""

import re

import msgspec

from inference.dialects import call_headers
from inference.dialects.call_headers import Head
from inference.errors.api_error import ApiError
from inference.gateway.grpc import statuses
from inference.gateway.grpc.messages import INFLATORS
from inference.gateway.grpc.methods import Method
from inference.gateway.grpc.statuses import Status
from inference.gateway.http2.frames import Code, StreamFault
from inference.gateway.http2.header_blocks import Fields, list_bytes, literal
from inference.gateway.http2.limits import MAX_HEADER_LIST_BYTES

# Fields of a connection, which a request must not have (RFC 9113, section 8.2.2).
_OF_CONNECTIONS = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"transfer-encoding",
        b"upgrade",
    }
)
_REQUIRED = frozenset({b":method", b":scheme", b":path"})
_PSEUDO = _REQUIRED | {b":authority"}
_UPPER_CASE = re.compile(rb"[A-Z]")
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNIT_S = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_GRPC = re.compile(rb"application/grpc([+;].*)?", re.DOTALL)
_ACCEPTED = literal(b"grpc-accept-encoding", b",".join((b"identity", *INFLATORS)))
_MAX_LENGTH_DIGITS = 18
# These describe gRPC's messages, not the prediction in them.
_NOT_FOR_PLAN = frozenset({b"content-type", b"content-length"})
_NO_FACTS = Head()


class GrpcHead(msgspec.Struct, frozen=True):
    """The head of a call: its method, or the answer that refuses it."""

    method: Method | None
    facts: Head
    timeout_s: float | None = None
    # The zlib window for compressed messages; 0 if the call has none.
    inflator: int = 0
    # The header block that refuses the call; empty if it may go on.
    refusal: bytes = b""
    # Bytes of all DATA together, if the client sent it.
    content_length: int | None = None

    @property
    def keyless(self) -> bool:
        """Return whether the method may be called without a key."""
        return self.method is not None and not self.method.needs_key


def read_head(fields: Fields, methods: dict[bytes, Method]) -> GrpcHead:
    """Read a call's head; raises StreamFault if malformed (RFC 9113, section 8.1.1)."""
    named = _checked(fields)
    if list_bytes(fields) > MAX_HEADER_LIST_BYTES:
        message = f"The metadata exceeds {MAX_HEADER_LIST_BYTES} bytes."
        return _refused(Status.RESOURCE_EXHAUSTED, message)
    if named[b":method"] != b"POST":
        return GrpcHead(None, _NO_FACTS, refusal=statuses.http_refusal(405))
    if _GRPC.fullmatch(named.get(b"content-type", b"")) is None:
        return GrpcHead(None, _NO_FACTS, refusal=statuses.http_refusal(415))
    if b"te" not in named:
        return _refused(Status.INTERNAL, "A call needs the header `te: trailers`.")
    method = methods.get(named[b":path"])
    if method is None:
        return _refused(Status.UNIMPLEMENTED, "There is no such method.")
    encoding = named.get(b"grpc-encoding", b"identity")
    inflator = INFLATORS.get(encoding, 0)
    if not inflator and encoding != b"identity":
        message = "Messages can be sent plain, or compressed by gzip or deflate."
        return _refused(Status.UNIMPLEMENTED, message, _ACCEPTED)
    timeout_s = None
    if b"grpc-timeout" in named:
        timeout = _TIMEOUT.fullmatch(named[b"grpc-timeout"])
        if timeout is None:
            return _refused(Status.INTERNAL, "The `grpc-timeout` cannot be read.")
        timeout_s = int(timeout[1]) * _UNIT_S[timeout[2]]
    try:
        call_headers.require_one_credential(fields)
    except ApiError as error:
        return _refused(Status.INVALID_ARGUMENT, error.message)
    facts = call_headers.read(
        # Blanks around a value are not part of it, as in HTTP/1.1.
        (name, value.strip(b" \t"))
        for name, value in fields
        if name not in _NOT_FOR_PLAN
    )
    return GrpcHead(method, facts, timeout_s, inflator, b"", _content_length(named))


def _checked(fields: Fields) -> dict[bytes, bytes]:
    """Return the fields by name, the last one if a name repeats; raises StreamFault."""
    named: dict[bytes, bytes] = {}
    for name, value in fields:
        if name.startswith(b":"):
            # Pseudo-headers come first, each once (RFC 9113, section 8.3).
            if name not in _PSEUDO or name in named or not _PSEUDO.issuperset(named):
                raise _malformed(name)
        elif (
            not name
            or name in _OF_CONNECTIONS
            or (name == b"te" and value != b"trailers")
            or _UPPER_CASE.search(name)
            or (name == b"content-length" and named.get(name, value) != value)
        ):
            raise _malformed(name)
        if b"\n" in value or b"\r" in value or b"\0" in value:
            raise _malformed(name)
        named[name] = value
    if not _REQUIRED.issubset(named):
        raise StreamFault(Code.PROTOCOL_ERROR, "a request lacks a pseudo-header")
    return named


def _content_length(named: dict[bytes, bytes]) -> int | None:
    """Return the announced length of the body (RFC 9113, section 8.1.1), if any."""
    text = named.get(b"content-length")
    if text is None:
        return None
    if not text.isdigit() or len(text) > _MAX_LENGTH_DIGITS:
        raise _malformed(b"content-length")
    return int(text)


def _malformed(name: bytes) -> StreamFault:
    return StreamFault(Code.PROTOCOL_ERROR, f"a request must not have {name!r} there")


def _refused(status: Status, message: str, metadata: bytes = b"") -> GrpcHead:
    return GrpcHead(
        None, _NO_FACTS, refusal=statuses.refusal(status, message, metadata)
    )
