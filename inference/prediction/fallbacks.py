"""Choose what answers when the version in charge cannot, and log it."""

from collections.abc import Callable

import structlog

from inference.errors.api_error import ApiError
from inference.prediction.stages import KnownCall, PreparedCall
from inference.snapshot.contents import Fallback
from inference.snapshot.targets import Target

logger = structlog.get_logger(__name__)

# Calls with the same model, fallback and reason share one log line in this time.
_SAMPLE_S = 10.0


def of_route(call: PreparedCall, error: ApiError) -> tuple[Fallback, Target | None]:
    """Return the route's fallback, and its version if it can read this call's rows.

    Raises `error` if no fallback applies to it.
    """
    fallback = call.model.model.fallback
    if fallback is None or error.code not in fallback.on:
        raise error
    if call.known.call.named_version is not None:
        # The caller named this version, so no other answer will do.
        raise error
    target = call.model.fallback(error.code)
    if (
        target is None
        or target.key == call.target.key
        or not _same_columns(target, call.target)
    ):
        return fallback, None
    return fallback, target


def _same_columns(one: Target, other: Target) -> bool:
    """Return whether a row that is a list or an image means the same to both."""
    ours, theirs = one.signature.columns, other.signature.columns
    return one.signature.image == other.signature.image and [
        column.name for column in ours
    ] == [column.name for column in theirs]


class FallbackLog:
    """Log fallback answers: the first call at once, later calls in one line."""

    def __init__(self, timer: Callable[[], float]) -> None:
        self._timer = timer
        # By model, fallback and reason: time of the last line, and calls since then.
        self._seen: dict[tuple[str, str, str], tuple[float, int]] = {}

    def note(self, known: KnownCall, error: ApiError) -> None:
        """Count a call that `known.fallback` answered, and log it if a line is due."""
        model = "" if known.model is None else known.model.model.name
        kind = (model, known.fallback, str(error.code))
        now = self._timer()
        written, calls = self._seen.get(kind, (-_SAMPLE_S, 0))
        calls += 1
        if now - written < _SAMPLE_S:
            self._seen[kind] = written, calls
            return
        self._seen[kind] = now, 0
        logger.warning(
            "fallback_answered",
            model=model,
            fallback=known.fallback,
            reason=error.code,
            calls=calls,
        )
