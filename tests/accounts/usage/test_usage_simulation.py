"""Minutes, hours and days agree, whatever came late, twice, or in part."""

import dataclasses
import datetime
import os

import pytest

from accounts.models import SpoolSegment
from accounts.usage import roll_ups
from tests.accounts.usage.usage_world import UsageWorld

pytestmark = pytest.mark.django_db

SEEDS = int(os.environ.get("MODELYARD_USAGE_SIMULATIONS", "6"))
_STEPS = 80


def simulate(seed):
    world = UsageWorld(seed)
    world.run(_STEPS)
    world.settle()
    return world


@pytest.mark.parametrize("seed", range(SEEDS))
def test_minutes_hours_days_and_bills_say_what_was_counted(seed):
    world = simulate(seed)

    assert len(world.counted) > 50


def _forgotten_marks(patch):
    """Leave an hour unmarked when something is added to it late."""
    patch.setattr(roll_ups, "mark", lambda hours: set(hours))


def _unread_marks(patch):
    """Read hours and days, though newer usage waits in their minutes."""
    read = roll_ups.rolled_up

    def without_marks(*args, **kwargs):
        return dataclasses.replace(read(*args, **kwargs), unrolled=frozenset())

    patch.setattr(roll_ups, "rolled_up", without_marks)


def _lost_late_usage(patch):
    """Drop what comes after its minutes are gone."""
    patch.setattr(roll_ups, "add_late", lambda minutes: list(minutes))


def _blind_writers(patch):
    """Write minutes where none are kept; rolling up makes their hours of them alone."""
    ever = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    patch.setattr(roll_ups, "lock_if_old", lambda *_, **__: ever)


def _offset_forgotten(patch):
    """Count what was counted before."""
    patch.setattr(SpoolSegment, "save", lambda *_, **__: None)


@pytest.mark.parametrize(
    "breaks",
    [
        _forgotten_marks,
        _unread_marks,
        _lost_late_usage,
        _blind_writers,
        _offset_forgotten,
    ],
)
def test_the_simulation_notices(breaks, monkeypatch):
    breaks(monkeypatch)

    with pytest.raises(AssertionError):
        _simulate_many()


def _simulate_many():
    for seed in range(30):
        simulate(seed)
