import contextlib
import signal

import pytest
from django.core.management import CommandError, call_command

from config.demo.first_run import Step

MODULE = "config.management.commands.quickstart"


@pytest.fixture(autouse=True)
def signals_as_before():
    before = {
        number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def set_up(monkeypatch):
    """Return a function that runs the command with the test's own steps only."""

    def run(*steps):
        monkeypatch.setattr(f"{MODULE}.before_start.check", lambda: None)
        monkeypatch.setattr(f"{MODULE}.before_start.check_database", lambda: None)
        monkeypatch.setattr(f"{MODULE}.first_run.steps", lambda: steps)
        monkeypatch.setattr(
            f"{MODULE}.specs.supervisor", lambda: pytest.fail("it went on to serve")
        )
        call_command("quickstart")

    return run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_that_a_step_swallows_still_stops_the_set_up(set_up, number):
    # Python drops exceptions in finalizers and callbacks, KeyboardInterrupt too.
    def swallow(_say):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(number)
        return "done"

    later = Step("Later", "part", lambda: True, lambda _say: pytest.fail("it went on"))

    with pytest.raises(CommandError, match="the next `make run` goes on"):
        set_up(Step("First", "part", lambda: True, swallow), later)


def test_stop_during_the_last_step_starts_nothing(set_up):
    def swallow(_say):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        return "done"

    with pytest.raises(CommandError, match="the next `make run` goes on"):
        set_up(Step("Only", "part", lambda: True, swallow))


def test_stop_is_felt_at_once(set_up):
    def wait(_say):
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("it went on")

    with pytest.raises(CommandError, match="the next `make run` goes on"):
        set_up(Step("Only", "part", lambda: True, wait))
