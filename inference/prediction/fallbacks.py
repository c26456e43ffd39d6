"""What stands in for the version in charge when it cannot answer. Pure."""

from collections.abc import Callable

import structlog

from inference.errors.api_error import ApiError
from inference.prediction.stages import KnownCall, PreparedCall
from inference.snapshot.contents import Fallback
from inference.snapshot.targets import Target

logger = structlog.get_logger(__name__)

# One log line for all calls of this time in which the same stood in for the same
# reason.
_SAMPLE_S = 10.0


def of_route(call: PreparedCall, error: ApiError) -> tuple[Fallback, Target | None]:
    """Return the route's fallback, and its version if that can read this call's rows.

    Raises `error` if there is no fallback for it.
    """
    fallback = call.model.model.fallback
    if fallback is None or error.code not in fallback.on:
        raise error
    if call.known.call.named_version is not None:
        # Nothing answers instead of a version that was asked for by name.
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
    """Tell whether a row that is a list, or a picture, means the same to both."""
    ours, theirs = one.signature.columns, other.signature.columns
    return one.signature.image == other.signature.image and [
        column.name for column in ours
    ] == [column.name for column in theirs]


class FallbackLog:
    """Writes that something stood in: the first call at once, later ones together."""

    def __init__(self, timer: Callable[[], float]) -> None:
        self._timer = timer
        # When it was last written, and how many calls there were since.
        self._seen: dict[tuple[str, str, str], tuple[float, int]] = {}

    def note(self, known: KnownCall, error: ApiError) -> None:
        """Note one call that was answered by `known.fallback`."""
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
