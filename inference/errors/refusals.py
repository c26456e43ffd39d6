"""Refusals of the prediction plan, in the words that callers read. Pure."""

from collections.abc import Set as AbstractSet

from accounts.admission.admission import POLICY_HEADER, Admission
from accounts.admission.key_admission import KeyAdmission
from accounts.admission.limits import KeyProblem, Limits, ReachedLimit
from accounts.admission.refusal import LimitRefusal, limit_headers
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.errors.api_error import ApiError, ErrorCode, Problem
from inference.errors.problems import problem, with_facts

_LIMIT_CODES = {
    "rate": ErrorCode.RATE_LIMIT_EXCEEDED,
    "quota": ErrorCode.QUOTA_EXCEEDED,
    "concurrency": ErrorCode.CONCURRENCY_EXCEEDED,
}
# Seconds after which a retry may succeed when the engine does not say.
_RETRY_AFTER_S = {
    EngineErrorCode.LOADING: 5.0,
    EngineErrorCode.NOT_LOADED: 5.0,
    EngineErrorCode.CONNECTION_LOST: 2.0,
    EngineErrorCode.DRAINING: 2.0,
    EngineErrorCode.OVERLOADED: 1.0,
}
_NOT_SERVED_RETRY_S = 5.0

NO_MODEL = "There is no such model or version, or this API key may not call it."


_HOW = "Send a valid API key as `Authorization: Bearer …` or `X-API-Key`."
_KEY_PROBLEMS: dict[KeyProblem | None, str] = {
    None: f"This API key is not known. {_HOW}",
    "missing": f"There is no API key. {_HOW}",
    "malformed": "This API key is mistyped or cut off: its checksum does not match."
    " Copy it again as a whole.",
    "expired": "This API key has expired. Use its successor, or make another.",
    "revoked": "This API key was revoked. Use its successor, or make another.",
    "inactive": "The customer of this API key is inactive. Ask your account manager.",
}


def invalid(message: str) -> ApiError:
    return ApiError(ErrorCode.INVALID_INPUT, message)


def unauthenticated(problem: KeyProblem | None) -> ApiError:
    """Say why there is no caller; None: the key is unknown, and no more is said.

    Whether a key is mistyped is in its checksum, so it is no secret. That a key has
    ended may be told to the holder of the whole key only.
    """
    return ApiError(
        ErrorCode.UNAUTHENTICATED,
        _KEY_PROBLEMS[problem],
        facts={} if problem is None else {"reason": problem},
    )


def starting() -> ApiError:
    return ApiError(
        ErrorCode.OVERLOADED,
        "This gateway has only started and knows no keys yet. Try again.",
        retry_after_s=_NOT_SERVED_RETRY_S,
    )


def key_in_query() -> ApiError:
    return ApiError(
        ErrorCode.UNAUTHENTICATED,
        "API keys do not belong into URLs, where logs and histories keep them. Send"
        " `Authorization: Bearer …` or `X-API-Key`, and rotate this key.",
    )


def unclear_flag(name: str) -> ApiError:
    """Refuse a flag of the query that is neither true nor false."""
    return ApiError(
        ErrorCode.INVALID_INPUT,
        f"`{name}` in the query must be true or false.",
        details=(Problem(field=name, issue="must be true or false"),),
    )


def outside_networks(address: str) -> ApiError:
    return ApiError(
        ErrorCode.FORBIDDEN,
        "This API key may not be used from your address.",
        facts={"ip": address},
    )


def require_scope(scope: str, scopes: AbstractSet[str]) -> None:
    if scope not in scopes:
        raise lacks_scope(scope)


def lacks_scope(scope: str) -> ApiError:
    message = f"This API key lacks the scope `{scope}`."
    return ApiError(ErrorCode.FORBIDDEN, message, facts={"scope": scope})


def of_limits(refusal: LimitRefusal) -> ApiError:
    return ApiError(
        _LIMIT_CODES[refusal.kind],
        refusal.message,
        retry_after_s=refusal.retry_after_s,
        limit=refusal.limit,
    )


def rate_headers(
    admission: Admission | KeyAdmission, limit: ReachedLimit | None, now: float
) -> list[tuple[bytes, bytes]]:
    """Describe the limit that refused a call, where it opens again at a time."""
    headers = admission.headers(now)
    if limit is None or not limit.resets_at:
        return headers
    policies = [header for header in headers if header[0] == POLICY_HEADER]
    return limit_headers(limit, now) + policies


def size_limit(error: ApiError, limits: Limits) -> ReachedLimit | None:
    """Say whose limit on sizes an error is for, which only named it; None: no limit."""
    name, maximum = error.facts.get("limit"), error.facts.get("maximum")
    if name is None or maximum is None:
        return None
    of_plan = getattr(limits, name, None) == maximum
    return ReachedLimit(
        name=name,
        scope="customer",
        source=limits.source_of(name) if of_plan else "site",
        unit="bytes" if name.endswith("_bytes") else "rows",
        maximum=maximum,
        needed=error.facts.get("needed", 0),
    )


def not_served() -> ApiError:
    return ApiError(
        ErrorCode.MODEL_UNAVAILABLE,
        "The model is not ready to answer yet.",
        retry_after_s=_NOT_SERVED_RETRY_S,
    )


def broken() -> ApiError:
    """A version failed to load, is not trusted or cannot be read: nothing to wait for.

    The reason is for operators, whom the admin tells it.
    """
    return ApiError(
        ErrorCode.MODEL_UNAVAILABLE,
        "The model cannot be loaded, and waiting does not help. Ask the operators of "
        "this site, who see the reason.",
    )


def too_late() -> ApiError:
    return ApiError(
        ErrorCode.INFERENCE_TIMEOUT,
        "The prediction did not finish before its deadline. Send fewer instances, "
        "allow more time, or submit a job.",
    )


def not_leased() -> ApiError:
    """Units of the quota could not be asked for: the site or its database is away."""
    return ApiError(
        ErrorCode.OVERLOADED,
        "Your quota cannot be checked right now. Try again.",
        retry_after_s=2.0,
    )


def body_too_large(max_bytes: int) -> ApiError:
    return ApiError(
        ErrorCode.TOO_LARGE,
        f"The body is larger than the {max_bytes} bytes that this path takes.",
        facts={"limit": "max_body_bytes", "maximum": max_bytes},
    )


def no_room() -> ApiError:
    return ApiError(
        ErrorCode.OVERLOADED,
        "Too much of large bodies is on its way to this gateway. Try again, with fewer "
        "at once.",
        retry_after_s=5.0,
    )


def not_recorded() -> ApiError:
    """The usage event could not be written, and what is not metered is not answered."""
    return ApiError(
        ErrorCode.OVERLOADED,
        "The call could not be recorded, so it is not answered. Try again.",
        retry_after_s=5.0,
    )


def of_engine(error: EngineError) -> ApiError:
    """Translate; what a model said about itself is not for callers.

    What the engine says about a request is: it is why the caller is refused.
    """
    code = error.code
    if code is EngineErrorCode.DEADLINE_EXCEEDED:
        return too_late()
    if code is EngineErrorCode.MODEL_ERROR:
        message = "The model failed on this input. Its owner sees why in the logs."
        return ApiError(ErrorCode.MODEL_ERROR, message)
    if code is EngineErrorCode.NOT_EXPLAINABLE:
        message = f"This model version cannot be explained: {_sentence(error)}"
        return ApiError(ErrorCode.INVALID_INPUT, message)
    if error.option:
        return with_facts([problem(f"options.{error.option}", error.message)])
    if code is EngineErrorCode.LOAD_FAILED:
        return broken()
    if code is EngineErrorCode.BAD_REQUEST:
        message = f"The model does not take this input: {_sentence(error)}"
        return ApiError(ErrorCode.INVALID_INPUT, message)
    retry_after_s = _RETRY_AFTER_S.get(code, _NOT_SERVED_RETRY_S)
    if error.retry_after_ms is not None:
        retry_after_s = error.retry_after_ms / 1000
    if code is EngineErrorCode.OVERLOADED:
        message = "The model has more to do than it can queue. Try again."
        if error.of_customer:
            message = (
                "You have as much waiting for this model as one customer may; the rest "
                "is for others. Wait for answers, or send less at once."
            )
        return ApiError(ErrorCode.OVERLOADED, message, retry_after_s=retry_after_s)
    return ApiError(
        ErrorCode.MODEL_UNAVAILABLE,
        "The model cannot answer right now: it is loading or restarting.",
        retry_after_s=retry_after_s,
    )


def not_streamed(error: EngineError) -> ApiError:
    message = f"This cannot be streamed: {_sentence(error)} Call predict."
    return ApiError(ErrorCode.INVALID_INPUT, message)


def _sentence(error: EngineError) -> str:
    return error.message.rstrip(".") + "."
