"""Fixtures of the tests of inference."""

import pytest

from inference.codecs import decoding


@pytest.fixture(autouse=True)
def time_for_all_problems(monkeypatch):
    """Let a bad request be read to its end, however busy the machine is.

    What a message counts, and whether it says "At least", must not depend on a budget
    of some milliseconds. Its own tests set it.
    """
    monkeypatch.setattr(decoding, "MAX_SLOW_PASS_S", 60.0)
