"""What the headers and the query of a call mean. Pure.

Rare headers are read into facts once per distinct value; the caches are bounded.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from urllib.parse import parse_qsl

import msgspec

from inference.errors.api_error import ApiError, ErrorCode

Headers = Mapping[bytes, bytes]

# All that the plan looks at; a driver need not pass on others.
NAMES = frozenset(
    {
        b"accept",
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"inference-header-content-length",
        b"x-api-key",
        b"x-deadline-ms",
        b"x-forwarded-for",
        b"x-model-version",
        b"x-request-id",
        b"x-sticky-key",
    }
)
# Their fields are one list, in their order (RFC 9110, section 5.3).
_LISTS = frozenset(
    {b"accept", b"cache-control", b"content-encoding", b"x-forwarded-for"}
)
_CREDENTIALS = frozenset({b"authorization", b"x-api-key"})
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_JSON_TYPES = frozenset({"application/json", "application/*", "*/*"})
_VENDOR_TYPE = "application/vnd.modelyard.v1+json"
_PROBLEM_TYPE = "application/problem+json"
_SVG_TYPES = frozenset({"image/svg+xml", "image/*"})
_FLAGS = {"true": True, "1": True, "false": False, "0": False}
MAX_DEADLINE_MS = 3_600_000
# Browsers send some 150 bytes. Of a longer one the rest is not read: it is read before
# the key, and what it means is kept.
_MAX_ACCEPT_BYTES = 2048


class AcceptedTypes(msgspec.Struct, frozen=True):
    """What an Accept header allows and asks for."""

    json: bool = True
    # Errors as RFC 9457.
    problem_json: bool = False
    svg: bool = False
    # The parameter `model-version` of our own media type.
    version: str | None = None


ACCEPT_ANYTHING = AcceptedTypes()


def select(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Keep the headers that the plan looks at; names are in lower case already."""
    selected: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in NAMES:
            before = selected.get(name) if name in _LISTS else None
            selected[name] = value if before is None else before + b", " + value
    return selected


def asks_to_explain(query: bytes) -> bool | None:
    """Read the flag `explain` of a query; None: it is neither true nor false."""
    if b"explain" not in query:
        return False
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    given = {_FLAGS.get(value.lower()) for name, value in pairs if name == "explain"}
    return given.pop() if len(given) == 1 else None if given else False


def require_one_credential(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Refuse a credential that is sent twice; raises ApiError INVALID_HEADER.

    Of two, a proxy, the gateway and the site might each take another one.
    """
    given = [name for name, _ in headers if name in _CREDENTIALS]
    if len(given) != len(set(given)):
        message = "Authorization and X-API-Key may be sent only once each."
        raise ApiError(ErrorCode.INVALID_HEADER, message)


def token(headers: Headers) -> bytes | None:
    """Find the API key."""
    authorization = headers.get(b"authorization")
    if authorization is not None and (
        authorization[:7] == b"Bearer " or authorization[:7].lower() == b"bearer "
    ):
        return authorization[7:].strip()
    # Another scheme is meant for a proxy on the way.
    return headers.get(b"x-api-key")


def request_id(headers: Headers) -> str | None:
    """Give the caller's own request id if it is one; it is for correlation only."""
    given = headers.get(b"x-request-id")
    if given is None or _REQUEST_ID.fullmatch(given) is None:
        return None
    return given.decode()


def deadline_s(headers: Headers) -> float:
    """Read X-Deadline-Ms, which is there; raises ApiError INVALID_HEADER."""
    given = headers[b"x-deadline-ms"]
    if not given.isdigit() or len(given) > 9 or not 0 < int(given) <= MAX_DEADLINE_MS:
        message = f"X-Deadline-Ms must be an integer from 1 to {MAX_DEADLINE_MS}."
        raise ApiError(ErrorCode.INVALID_HEADER, message)
    return int(given) / 1000


def text(value: bytes) -> str:
    """Read a header as text; bytes that are no UTF-8 still tell values apart."""
    return value.decode(errors="surrogateescape")


def cache_use(headers: Headers) -> tuple[bool, bool]:
    """Tell whether the answer may be from a cache and whether one may keep it.

    RFC 9111, section 5.2.1: `no-cache` asks for a fresh one, `no-store` for none.
    """
    given = headers.get(b"cache-control")
    if given is None:
        return True, True
    given = given.lower()
    if b"no-store" in given:
        return False, False
    return b"no-cache" not in given and b"max-age=0" not in given, True


def accepted(headers: Headers) -> AcceptedTypes:
    given = headers.get(b"accept")
    if given is None or given == b"*/*" or given == b"application/json":
        return ACCEPT_ANYTHING
    return _read_accept(given[:_MAX_ACCEPT_BYTES])


def require_json_body(headers: Headers) -> None:
    """Refuse bodies that say they are not plain JSON; saying nothing is fine."""
    given = headers.get(b"content-type")
    if given is not None and given != b"application/json" and not _is_json(given):
        message = "Send the body as application/json."
        raise ApiError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, message)
    if b"content-encoding" in headers:
        require_plain_body(headers)


def other_content_type(headers: Headers) -> bytes | None:
    """Give the Content-Type of a body that is not JSON; None: it is JSON."""
    given = headers.get(b"content-type")
    if given is None or given == b"application/json" or _is_json(given):
        return None
    return given


def require_plain_body(headers: Headers) -> None:
    """Refuse compressed bodies: a small one may be large once it is read."""
    encoding = headers.get(b"content-encoding")
    if encoding is not None and encoding.lower() not in (b"", b"identity"):
        message = "Send the body without content encoding."
        raise ApiError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, message)


@lru_cache(maxsize=256)
def _is_json(content_type: bytes) -> bool:
    kind, _, parameters = content_type.decode("latin-1").lower().partition(";")
    kind = kind.strip()
    if kind != "application/json" and not (
        kind.startswith("application/") and kind.endswith("+json")
    ):
        return False
    charset = re.search(r"charset\s*=\s*\"?([^\s\";]*)", parameters)
    return charset is None or charset[1] in ("utf-8", "utf8", "us-ascii")


@lru_cache(maxsize=256)
def _read_accept(header: bytes) -> AcceptedTypes:
    json = problem_json = svg = False
    version = None
    for part in header.decode("latin-1").split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        kind = kind.lower()
        named = dict(piece.partition("=")[::2] for piece in parameters)
        if _is_refused(named.get("q", "1")):
            continue
        if kind == _VENDOR_TYPE:
            json = True
            version = named.get("model-version", "").strip('"') or version
        elif kind == _PROBLEM_TYPE:
            json = problem_json = True
        elif kind in _SVG_TYPES:
            svg = True
        elif kind in _JSON_TYPES:
            json = True
    return AcceptedTypes(json=json, problem_json=problem_json, svg=svg, version=version)


def _is_refused(quality: str) -> bool:
    try:
        return float(quality) <= 0
    except ValueError:
        return False
