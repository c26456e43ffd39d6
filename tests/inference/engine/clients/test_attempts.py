"""Test when a call may go to another engine."""

import pytest

from inference.engine.clients.attempts import Attempts
from inference.engine.wire.errors import EngineError, EngineErrorCode

C = EngineErrorCode
AWAY = {C.NOT_LOADED, C.LOADING, C.CONNECTION_LOST, C.DRAINING, C.DIED}
ELSEWHERE = AWAY | {C.OVERLOADED, C.LOAD_FAILED}


def error(code):
    return EngineError(code, "")


@pytest.mark.parametrize("code", list(EngineErrorCode))
def test_an_engine_that_cannot_answer_is_told_apart_from_what_none_can(code):
    attempts = Attempts()

    if code not in ELSEWHERE:
        with pytest.raises(EngineError) as caught:
            attempts.failed(error(code))
        assert caught.value.code is code
        return
    attempts.failed(error(code))

    assert attempts.failure.code is code
    assert attempts.all_away == (code in AWAY)


@pytest.mark.parametrize("code", list(EngineErrorCode))
def test_an_answer_that_has_begun_is_never_repeated(code):
    with pytest.raises(EngineError) as caught:
        Attempts().failed(error(code), begun=True)

    assert caught.value.code is code


def test_a_call_is_repeated_after_one_death_and_not_after_two():
    attempts = Attempts()

    attempts.failed(error(C.DIED))
    attempts.failed(error(C.CONNECTION_LOST))
    with pytest.raises(EngineError, match="ended twice") as caught:
        attempts.failed(error(C.DIED))

    assert caught.value.code is C.NOT_REPEATED


def test_a_call_that_is_not_repeatable_may_only_go_where_it_was_not_sent():
    attempts = Attempts(repeatable=False)

    attempts.failed(error(C.CONNECTION_LOST))
    with pytest.raises(EngineError, match="not repeated") as caught:
        attempts.failed(error(C.DIED))

    assert caught.value.code is C.NOT_REPEATED


def test_one_engine_that_is_full_is_not_away():
    attempts = Attempts()

    attempts.failed(error(C.DIED))
    attempts.failed(error(C.OVERLOADED))

    assert not attempts.all_away
