"""Tell what a canary refuses and the default may take: then the default answers."""

from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.errors.api_error import ErrorCode
from inference.prediction.stages import KnownCall

# The fault of a canary that refuses what the default takes.
INPUT_REFUSED = "INPUT_REFUSED"
# The signature does not take a body.
BY_DECODER = frozenset({ErrorCode.INVALID_INPUT, ErrorCode.UNPROCESSABLE})
# The loaded version does not take rows, options or a kind of call.
BY_ENGINE = frozenset({EngineErrorCode.BAD_REQUEST, EngineErrorCode.NOT_EXPLAINABLE})


def by_engine(known: KnownCall, error: EngineError) -> bool:
    """Return whether a canary that the route chose refuses what it was sent."""
    return known.is_on_canary and error.code in BY_ENGINE
