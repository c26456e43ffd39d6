"""Read the facts of a call from its headers and query.

Bounded caches remember the meaning of rare values.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from urllib.parse import parse_qsl

import msgspec

from inference.errors.api_error import ApiError, ErrorCode

# All headers that the plan reads; drivers may leave out others.
_NAMES = frozenset(
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
# Headers whose repeated fields form one list, in order (RFC 9110, section 5.3).
_LISTS = frozenset(
    {b"accept", b"cache-control", b"content-encoding", b"x-forwarded-for"}
)
_CREDENTIALS = frozenset({b"authorization", b"x-api-key"})
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_JSON_TYPES = frozenset({"application/json", "application/*", "*/*"})
_VENDOR_TYPE = "application/vnd.modelyard.v1+json"
_PROBLEM_TYPE = "application/problem+json"
_EVENT_TYPES = (b"text/event-stream", b"text/*", b"*/*")
_SVG_TYPES = frozenset({"image/svg+xml", "image/*"})
_FLAGS = {"true": True, "1": True, "false": False, "0": False}
MAX_DEADLINE_MS = 3_600_000
# Browsers send some 150 bytes. The rest of a longer header is ignored: it is read
# before the key is known, and its meaning is cached.
_MAX_ACCEPT_BYTES = 2048
# Likewise of a content type.
_MAX_TYPE_BYTES = 256
_MAX_LENGTH_DIGITS = 18


class AcceptedTypes(msgspec.Struct, frozen=True):
    """What an Accept header allows and asks for."""

    json: bool = True
    # Errors as RFC 9457.
    problem_json: bool = False
    svg: bool = False
    # The parameter `model-version` of our own media type.
    version: str | None = None


ACCEPT_ANYTHING = AcceptedTypes()


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of a call's headers, read once where its head arrives."""

    token: bytes | None = None
    # The caller's own id, if it is well-formed; it is for correlation only.
    request_id: str | None = None
    # From X-Deadline-Ms; 0 if that cannot be read.
    deadline_s: float | None = None
    # The version that X-Model-Version asks for, or else Accept.
    version: str | None = None
    sticky_key: str | None = None
    accepted: AcceptedTypes = ACCEPT_ANYTHING
    accepts_events: bool = True
    # As it was sent; the other is set only if the body is not JSON.
    content_type: bytes | None = None
    other_content_type: bytes | None = None
    content_length: int | None = None
    # The body is compressed, so it may become large once it is read.
    is_encoded: bool = False
    # Open Inference Protocol: the bytes of JSON before binary tensors.
    json_length: bytes | None = None
    # RFC 9111, section 5.2.1: `no-cache` asks for a fresh answer, `no-store` for an
    # answer that is not stored.
    may_be_cached: bool = True
    may_be_stored: bool = True
    forwarded_for: bytes | None = None


def read(headers: Iterable[tuple[bytes, bytes]]) -> Head:
    """Read the facts of headers, whose names are in lower case already."""
    given = _select(headers)
    if not given:
        return Head()
    get = given.get
    accept, cache, length = (
        get(b"accept"),
        get(b"cache-control"),
        get(b"content-length"),
    )
    accepted = ACCEPT_ANYTHING if accept is None else _accepted(accept)
    sticky_key, version = get(b"x-sticky-key"), get(b"x-model-version")
    stores = cache is None or b"no-store" not in cache.lower()
    return Head(
        token=_token(given),
        request_id=_request_id(get(b"x-request-id")),
        deadline_s=_deadline_s(get(b"x-deadline-ms")),
        version=accepted.version if version is None else _text(version),
        sticky_key=None if sticky_key is None else _text(sticky_key),
        accepted=accepted,
        accepts_events=accept is None
        or accepted.json
        or any(kind in accept for kind in _EVENT_TYPES),
        content_type=get(b"content-type"),
        other_content_type=_other_content_type(get(b"content-type")),
        content_length=_length(length),
        is_encoded=get(b"content-encoding", b"").lower() not in (b"", b"identity"),
        json_length=get(b"inference-header-content-length"),
        may_be_cached=stores and (cache is None or not _asks_for_fresh(cache.lower())),
        may_be_stored=stores,
        forwarded_for=get(b"x-forwarded-for"),
    )


def _select(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    selected: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _NAMES:
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

    If there were two, a proxy, the gateway and the site might not use the same one.
    """
    given = [name for name, _ in headers if name in _CREDENTIALS]
    if len(given) != len(set(given)):
        message = "Authorization and X-API-Key may be sent only once each."
        raise ApiError(ErrorCode.INVALID_HEADER, message)


def require_json_body(head: Head) -> None:
    """Refuse a body that is declared as anything but plain JSON; raises ApiError."""
    if head.other_content_type is not None:
        message = "Send the body as application/json."
        raise ApiError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, message)
    require_plain_body(head)


def require_plain_body(head: Head) -> None:
    """Refuse compressed bodies; raises ApiError UNSUPPORTED_MEDIA_TYPE."""
    if head.is_encoded:
        message = "Send the body without content encoding."
        raise ApiError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, message)


def require_deadline(deadline_s: float) -> float:
    """Return the deadline if it is valid; raises ApiError INVALID_HEADER."""
    if not deadline_s:
        message = f"X-Deadline-Ms must be an integer from 1 to {MAX_DEADLINE_MS}."
        raise ApiError(ErrorCode.INVALID_HEADER, message)
    return deadline_s


def _token(given: Mapping[bytes, bytes]) -> bytes | None:
    """Find the API key."""
    authorization = given.get(b"authorization")
    if authorization is not None and (
        authorization[:7] == b"Bearer " or authorization[:7].lower() == b"bearer "
    ):
        return authorization[7:].strip()
    # Any other scheme is for a proxy on the way.
    return given.get(b"x-api-key")


def _request_id(given: bytes | None) -> str | None:
    if given is None or _REQUEST_ID.fullmatch(given) is None:
        return None
    return given.decode()


def _length(given: bytes | None) -> int | None:
    # Python refuses to read a number of thousands of digits.
    if given is None or not given.isdigit() or len(given) > _MAX_LENGTH_DIGITS:
        return None
    return int(given)


def _deadline_s(given: bytes | None) -> float | None:
    if given is None:
        return None
    if not given.isdigit() or len(given) > 9 or int(given) > MAX_DEADLINE_MS:
        return 0.0
    return int(given) / 1000


def _text(value: bytes) -> str:
    """Decode a value; different bytes make different text, also if not UTF-8."""
    return value.decode(errors="surrogateescape")


def _asks_for_fresh(cache_control: bytes) -> bool:
    return b"no-cache" in cache_control or b"max-age=0" in cache_control


def _accepted(given: bytes) -> AcceptedTypes:
    if given == b"*/*" or given == b"application/json":
        return ACCEPT_ANYTHING
    return _read_accept(given[:_MAX_ACCEPT_BYTES])


def _other_content_type(given: bytes | None) -> bytes | None:
    """Return the type of a body that is not JSON."""
    if given is None or given == b"application/json":
        return None
    if _is_json(given[:_MAX_TYPE_BYTES]):
        return None
    return given


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
