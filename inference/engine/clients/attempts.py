"""Decide whether a call may go to another engine: one policy for every driver."""

from inference.engine.wire.errors import ELSEWHERE, EngineError, EngineErrorCode

# What an engine says, or does not say, while it starts, stops or is away.
_AWAY = frozenset(
    {
        EngineErrorCode.NOT_LOADED,
        EngineErrorCode.LOADING,
        EngineErrorCode.CONNECTION_LOST,
        EngineErrorCode.DIED,
        EngineErrorCode.DRAINING,
    }
)


class Attempts:
    """Judge the failures of one call, in their order.

    A call whose engine died is repeated once, unless it is not `repeatable`: the call
    may be what ended the engine.
    """

    def __init__(self, *, repeatable: bool = True) -> None:
        self._repeatable = repeatable
        self.died = False
        # Every engine so far was away, so the call may wait for one of them.
        self.all_away = True
        self.failure = EngineError(EngineErrorCode.NOT_LOADED, "no engine has it")

    def failed(self, error: EngineError, *, begun: bool = False) -> None:
        """Note why an engine did not answer; raise EngineError if that is final.

        That is so once an answer has `begun`, and for errors that every engine would
        return.
        """
        if error.code is EngineErrorCode.DIED and not begun:
            self._note_death(error)
        elif begun or error.code not in ELSEWHERE:
            raise error
        self.all_away = self.all_away and error.code in _AWAY
        self.failure = error

    def _note_death(self, error: EngineError) -> None:
        why = ""
        if not self._repeatable:
            why = "its process ended, and calls to this version are not repeated"
        elif self.died:
            why = "its process ended twice while it worked on this call"
        if why:
            raise EngineError(EngineErrorCode.NOT_REPEATED, why) from error
        self.died = True
