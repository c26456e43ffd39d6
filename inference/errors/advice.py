"""Explain each error code to callers: when it is returned, and what they can do.

Error bodies link to the page that shows these texts; the OpenAPI document quotes them.
"""

from dataclasses import dataclass

from inference.errors.api_error import STATUS, ErrorCode


@dataclass(frozen=True, slots=True)
class Advice:
    """When an error code is returned, and what the caller can do about it."""

    when: str
    action: str


ADVICE: dict[ErrorCode, Advice] = {
    ErrorCode.INVALID_JSON: Advice(
        "The body is not JSON. A literal NaN or Infinity is not JSON either.",
        "Send one valid JSON document in UTF-8; leave out a value that is missing.",
    ),
    ErrorCode.INVALID_INPUT: Advice(
        "A field has the wrong type or shape, a column is missing or unknown, or there "
        "is no instance at all.",
        "Read `details`: it names each instance and field. The schema of every model "
        "is in these docs.",
    ),
    ErrorCode.INVALID_HEADER: Advice(
        "A header such as X-Deadline-Ms or X-Request-Id cannot be read.",
        "Correct the header that the message names, or leave it out.",
    ),
    ErrorCode.UNAUTHENTICATED: Advice(
        "No API key was sent (`reason` is `missing`), it is mistyped or cut off "
        "(`malformed`), or it is not known. For a known key `reason` says whether it "
        "has expired (`expired`), was revoked (`revoked`), or its customer is inactive "
        "(`inactive`).",
        "Send `Authorization: Bearer <key>` or `X-API-Key: <key>`; copy the whole key. "
        "If the key has expired or was revoked, make another one in the portal.",
    ),
    ErrorCode.FORBIDDEN: Advice(
        "The key is valid, but it lacks the scope that this call needs, or it may not "
        "be used from this address (`ip`).",
        "GET /api/v1/me shows the scopes of the key; ask for another one, or for a "
        "key that your network may use.",
    ),
    ErrorCode.NOT_FOUND: Advice(
        "There is no such path, model, version or object, or this key may not see it.",
        "GET /api/v1/models lists what this key may call.",
    ),
    ErrorCode.METHOD_NOT_ALLOWED: Advice(
        "The path exists, but not for this HTTP method.",
        "Use one of the methods in the Allow header.",
    ),
    ErrorCode.NOT_ACCEPTABLE: Advice(
        "The Accept header asks for a form that this operation does not have.",
        "Accept application/json.",
    ),
    ErrorCode.HEADERS_TOO_LARGE: Advice(
        "The request's URL and headers are longer than 64 KiB together.",
        "Send less in them: leave out cookies of other sites, or shorten the query.",
    ),
    ErrorCode.REQUEST_TIMEOUT: Advice(
        "The body did not arrive in time.",
        "Send the request again over a faster connection, or send a smaller body.",
    ),
    ErrorCode.CONFLICT: Advice(
        "The object is in a state that does not allow this, such as cancelling a job "
        "that has finished.",
        "Read the object again, and see whether the call still makes sense.",
    ),
    ErrorCode.GONE: Advice(
        "The object existed, but its retention period has ended; or the announced end "
        "of the model or version has come.",
        "Create the object again if you still need it; call what the message names "
        "instead of the model or version.",
    ),
    ErrorCode.TOO_LARGE: Advice(
        "The body has too many bytes, or the request too many rows.",
        "Split the request, use predict/batch, or submit a job. GET /api/v1/me shows "
        "your limits.",
    ),
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: Advice(
        "The Content-Type or Content-Encoding of the body is not supported here.",
        "Send application/json, or a type that the operation lists.",
    ),
    ErrorCode.UNPROCESSABLE: Advice(
        "Everything has the right form and type, but a value breaks a rule: its range, "
        "its list of choices or its length; or it is not finite, such as 1e999.",
        "Correct the values that `details` names.",
    ),
    ErrorCode.RATE_LIMIT_EXCEEDED: Advice(
        "You sent more requests per second or minute than `limit` allows. `backoff`: "
        "this key kept calling while it was refused, and is blocked for a while.",
        "Wait as long as Retry-After says. Spread requests over time, or send several "
        "rows together to predict/batch.",
    ),
    ErrorCode.QUOTA_EXCEEDED: Advice(
        "Your allowance for the day or month is spent; `limit`, `source` and `unit` "
        "say which.",
        "Wait until it resets (Retry-After, and `quotas` in GET /api/v1/me), or ask "
        "for a larger plan.",
    ),
    ErrorCode.CONCURRENCY_EXCEEDED: Advice(
        "Too many of your requests are in flight at once.",
        "Send the next one when another has been answered.",
    ),
    ErrorCode.MODEL_ERROR: Advice(
        "The model itself failed on this input.",
        "Retrying will not help. Report the request_id to the model's owner.",
    ),
    ErrorCode.INTERNAL_ERROR: Advice(
        "An unexpected error occurred on our side.",
        "Report the request_id to the operator.",
    ),
    ErrorCode.OVERLOADED: Advice(
        "The queue of the model is full: our limit, not yours.",
        "Retry after the time in Retry-After, and back off if it happens again.",
    ),
    ErrorCode.MODEL_UNAVAILABLE: Advice(
        "The model is still loading, or no engine can run it.",
        "Retry after the time in Retry-After. Without it waiting does not help: ask "
        "the operator.",
    ),
    ErrorCode.INFERENCE_TIMEOUT: Advice(
        "The model did not answer before the deadline.",
        "Send fewer rows, allow more time with `options.timeout_ms`, or submit a job.",
    ),
}


def codes_of(status: int) -> tuple[ErrorCode, ...]:
    """Return the codes with an HTTP status, in the order of `ErrorCode`."""
    return tuple(code for code in ErrorCode if STATUS[code] == status)
