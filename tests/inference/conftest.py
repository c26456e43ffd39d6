"""Define the fixtures of all tests of `inference`."""

import pytest

from inference.codecs import decoding


@pytest.fixture(autouse=True)
def time_for_all_problems(monkeypatch):
    """Read every bad request to its end, also on a busy machine.

    Otherwise the counts in messages, and the words "At least", would depend on a
    budget of some milliseconds. Tests of the budget set it themselves.
    """
    monkeypatch.setattr(decoding, "MAX_SLOW_PASS_S", 60.0)
