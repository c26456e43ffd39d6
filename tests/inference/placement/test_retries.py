"""A version that fails waits longer each time, and nobody else waits with it."""

from datetime import UTC, datetime

from inference.engine.wire.messages import VersionKey
from inference.placement.retries import Retries

KEY = VersionKey("m", 1)


def waits(retries, start, times, **changed):
    """Try as soon as it is due; return how long each wait took."""
    found, now_s = [], start
    form = {"form": "f", "asked_at": None, **changed}
    for _ in range(times):
        since = now_s
        while not retries.is_due(KEY, *form.values(), refused=False, now_s=now_s):
            now_s += 1.0
        found.append(now_s - since)
        retries.tried(KEY, *form.values(), now_s=now_s)
    return found


def test_waits_double_up_to_an_hour():
    retries = Retries()
    retries.tried(KEY, "f", None, now_s=0.0)

    assert waits(retries, 0.0, 8) == [60, 120, 240, 480, 960, 1920, 3600, 3600]


def test_a_changed_form_and_people_who_ask_end_the_wait():
    retries = Retries()
    retries.tried(KEY, "f", None, now_s=0.0)
    waits(retries, 0.0, 4)

    assert waits(retries, 9e3, 2, form="other") == [0, 60]
    assert waits(retries, 9e4, 2, form="other", asked_at=datetime.now(UTC)) == [0, 60]


def test_engines_that_try_at_the_same_time_count_once():
    retries = Retries()
    for _ in range(3):
        retries.tried(KEY, "f", None, now_s=0.0)

    assert waits(retries, 0.0, 1) == [60]


def test_what_was_refused_is_tried_only_if_it_changed_or_people_ask():
    retries = Retries()
    retries.tried(KEY, "f", None, now_s=0.0)

    def is_due(form, asked_at=None):
        return retries.is_due(KEY, form, asked_at, refused=True, now_s=1e6)

    assert not is_due("f")
    assert is_due("g")
    assert is_due("f", datetime.now(UTC))


def test_success_forgets_failures():
    retries = Retries()
    retries.tried(KEY, "f", None, now_s=0.0)
    waits(retries, 0.0, 3)

    retries.succeeded(KEY)
    retries.tried(KEY, "f", None, now_s=0.0)

    assert waits(retries, 0.0, 1) == [60]
