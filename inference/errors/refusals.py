"""Make the errors that refuse a call, with the messages that callers read."""

from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Protocol

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
# Seconds until a retry may succeed, if the engine does not name them.
_RETRY_AFTER_S = {
    EngineErrorCode.LOADING: 5.0,
    EngineErrorCode.NOT_LOADED: 5.0,
    EngineErrorCode.CONNECTION_LOST: 2.0,
    EngineErrorCode.DIED: 2.0,
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


class _Ending(Protocol):
    """The announced end of a model or version, in seconds since the epoch."""

    @property
    def ends_at(self) -> float: ...

    @property
    def use_instead(self) -> str: ...


def require_not_ended(ending: _Ending, now: float) -> None:
    """Raise ApiError GONE once the announced end has come."""
    if now < ending.ends_at:
        return
    ended_at = datetime.fromtimestamp(ending.ends_at, UTC)
    raise ApiError(
        ErrorCode.GONE,
        f"It ended at {ended_at:%Y-%m-%d %H:%M} UTC. {ending.use_instead}".strip(),
        facts={
            "ended_at": ended_at.isoformat(),
            "use_instead": ending.use_instead,
        },
    )


def invalid(message: str) -> ApiError:
    return ApiError(ErrorCode.INVALID_INPUT, message)


def unauthenticated(problem: KeyProblem | None) -> ApiError:
    """Refuse a call without a valid key; None means that the key is unknown.

    That a key is mistyped is not a secret: its checksum shows it. That a key has ended
    is told only to a caller who sent the whole key.
    """
    return ApiError(
        ErrorCode.UNAUTHENTICATED,
        _KEY_PROBLEMS[problem],
        facts={} if problem is None else {"reason": problem},
    )


def starting() -> ApiError:
    return ApiError(
        ErrorCode.OVERLOADED,
        "This gateway has just started and does not know the API keys yet. Try again.",
        retry_after_s=_NOT_SERVED_RETRY_S,
    )


def key_in_query() -> ApiError:
    return ApiError(
        ErrorCode.UNAUTHENTICATED,
        "API keys do not belong in URLs, where logs and histories keep them. Send"
        " `Authorization: Bearer …` or `X-API-Key`, and rotate this key.",
    )


def unclear_flag(name: str) -> ApiError:
    """Refuse a flag in the query that is neither true nor false."""
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
    """Return the headers that describe the limit that refused a call, or all limits."""
    headers = admission.headers(now)
    if limit is None or not limit.resets_at:
        return headers
    policies = [header for header in headers if header[0] == POLICY_HEADER]
    return limit_headers(limit, now) + policies


def size_limit(error: ApiError, limits: Limits) -> ReachedLimit | None:
    """Find who set the size limit that this error names; None if it names none."""
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
    """Refuse a version that failed to load, is not trusted or cannot be read.

    Only operators see the reason, in the admin.
    """
    return ApiError(
        ErrorCode.MODEL_UNAVAILABLE,
        "The model cannot be loaded, and waiting does not help. Ask the operators of "
        "this site: they see the reason.",
    )


def quarantined() -> ApiError:
    """Refuse a version whose processes died. Only operators see more, in the admin."""
    return ApiError(
        ErrorCode.MODEL_UNAVAILABLE,
        "The model is quarantined: its process died twice within a short time. Waiting "
        "does not help: its owners or the operators of this site must act.",
    )


def not_served_because(why: str) -> ApiError:
    """Refuse a model of which nothing is served; `why` as in `CallableModel.stuck`."""
    if why == "quarantined":
        return quarantined()
    return broken() if why else not_served()


def too_late() -> ApiError:
    return ApiError(
        ErrorCode.INFERENCE_TIMEOUT,
        "The prediction did not finish before its deadline. Send fewer instances, "
        "allow more time, or submit a job.",
    )


def not_leased() -> ApiError:
    """Refuse a call because the site or its database cannot lend units of the quota."""
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
        "This gateway is receiving too many large bodies. Try again, and send fewer "
        "large requests at once.",
        retry_after_s=5.0,
    )


def not_recorded() -> ApiError:
    """Refuse a call whose usage event could not be written: no answer is unmetered."""
    return ApiError(
        ErrorCode.OVERLOADED,
        "The call could not be recorded, so it is not answered. Try again.",
        retry_after_s=5.0,
    )


def of_engine(error: EngineError) -> ApiError:
    """Translate an engine's error.

    Callers see its words about their request, but not what a model says about itself.
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
    if code is EngineErrorCode.QUARANTINED:
        return quarantined()
    if code is EngineErrorCode.NOT_REPEATED:
        message = f"The model failed on this input: {_sentence(error)}"
        return ApiError(ErrorCode.MODEL_ERROR, message)
    if code is EngineErrorCode.BAD_REQUEST:
        message = f"The model does not take this input: {_sentence(error)}"
        return ApiError(ErrorCode.INVALID_INPUT, message)
    retry_after_s = _RETRY_AFTER_S.get(code, _NOT_SERVED_RETRY_S)
    if error.retry_after_ms is not None:
        retry_after_s = error.retry_after_ms / 1000
    if code is EngineErrorCode.OVERLOADED:
        message = "The queue of this model is full. Try again."
        if error.of_customer:
            message = (
                "Your share of this model's queue is full; the rest is for other "
                "customers. Wait for answers, or send less at once."
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
