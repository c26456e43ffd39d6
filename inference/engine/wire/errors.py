"""Errors that cross from the engine to its callers as a code and a message."""

import enum


class EngineErrorCode(enum.StrEnum):
    MODEL_ERROR = "MODEL_ERROR"
    NOT_LOADED = "NOT_LOADED"
    LOADING = "LOADING"
    LOAD_FAILED = "LOAD_FAILED"
    OVERLOADED = "OVERLOADED"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    BAD_REQUEST = "BAD_REQUEST"
    NOT_EXPLAINABLE = "NOT_EXPLAINABLE"
    CONNECTION_LOST = "CONNECTION_LOST"
    DRAINING = "DRAINING"
    # The engine ends and starts again. Not for another engine: this request may be why.
    DEVICE_FAILED = "DEVICE_FAILED"


# Another engine may answer what this one cannot; nothing was computed yet.
ELSEWHERE = frozenset(
    {
        EngineErrorCode.NOT_LOADED,
        EngineErrorCode.LOADING,
        EngineErrorCode.LOAD_FAILED,
        EngineErrorCode.OVERLOADED,
        EngineErrorCode.CONNECTION_LOST,
        EngineErrorCode.DRAINING,
    }
)
# The same engine may answer later, without anybody doing something about it.
RETRYABLE = ELSEWHERE - {EngineErrorCode.LOAD_FAILED} | {EngineErrorCode.DEVICE_FAILED}


class EngineError(Exception):
    """A request the engine did not answer with predictions.

    `message` is written for operators; drivers decide what callers may see. With
    `option` it is written for the caller, and tells what is wrong with that option.
    `of_customer` says of a full bound that only the customer's share of it is used up.
    """

    def __init__(
        self,
        code: EngineErrorCode,
        message: str,
        *,
        retry_after_ms: int | None = None,
        option: str = "",
        of_customer: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_ms = retry_after_ms
        self.option = option
        self.of_customer = of_customer

    @property
    def retryable(self) -> bool:
        return self.code in RETRYABLE


class VersionRefused(EngineError):
    """What describes a version does not let it be loaded: to try again is no use."""

    def __init__(self, message: str) -> None:
        super().__init__(EngineErrorCode.LOAD_FAILED, message)
