"""Ask the next engine if one cannot answer: one policy for every driver."""

from collections.abc import Iterable
from typing import Generic, TypeVar

from inference.engine.wire.errors import ELSEWHERE, EngineError, EngineErrorCode

C = TypeVar("C")


class Attempts(Generic[C]):
    """The engines that one call may try, in their order."""

    def __init__(self, clients: Iterable[C]) -> None:
        self._clients = iter(clients)
        self._failure = EngineError(
            EngineErrorCode.CONNECTION_LOST, "no engine is known"
        )

    def next(self) -> C:
        """Return the engine to try now; raise the last EngineError if none is left."""
        for client in self._clients:
            return client
        raise self._failure

    def failed(self, error: EngineError, *, begun: bool = False) -> None:
        """Note why an engine did not answer; raise `error` if no other may be tried.

        That is so once an answer has `begun`, and for errors that every engine would
        return. To ask twice for a prediction does no harm.
        """
        if begun or error.code not in ELSEWHERE:
            raise error
        self._failure = error
