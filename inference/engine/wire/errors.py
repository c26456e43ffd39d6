"""Define the errors that an engine sends to its callers, as a code and a message."""

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
    # The engine is not there; nothing was sent.
    CONNECTION_LOST = "CONNECTION_LOST"
    # The connection ended after the call was sent, which may be the cause.
    DIED = "DIED"
    DRAINING = "DRAINING"
    # The engine restarts. Do not try another engine: this request may be the cause.
    DEVICE_FAILED = "DEVICE_FAILED"
    # The engine died, and the call may not be sent again; the message says why.
    NOT_REPEATED = "NOT_REPEATED"
    # Processes with the version died, so none has it until a person acts.
    QUARANTINED = "QUARANTINED"


# Nothing was computed yet, and another engine may answer the request.
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
# The same engine may answer later, without a person's help.
RETRYABLE = ELSEWHERE - {EngineErrorCode.LOAD_FAILED} | {
    EngineErrorCode.DIED,
    EngineErrorCode.DEVICE_FAILED,
}


class EngineError(Exception):
    """A request that the engine did not answer with predictions.

    `message` is for operators; drivers decide what callers may see. With `option` it
    is for the caller, and says what is wrong with that option. `of_customer`: only
    this customer's share of a limit is used up, not the limit itself.
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
    """A version that cannot load as it is described; trying again does not help."""

    def __init__(self, message: str) -> None:
        super().__init__(EngineErrorCode.LOAD_FAILED, message)
