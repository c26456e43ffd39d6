"""Feedback is counted once, by version and for the rollout of its call."""

import datetime

import pytest
from django.utils import timezone

from inference.controller.rollouts import conduct, feedback, stored_sums
from inference.controller.rollouts.step import step
from inference.feedback import reading
from inference.models import Feedback, FeedbackSum, Rollout
from registry.models import Route
from registry.rules.rollout_plans import Plan, Stage
from tests.factories import CustomerFactory, UserFactory
from tests.factories_registry import ModelVersionFactory, RouteFactory

pytestmark = pytest.mark.django_db

PLAN = Plan(stages=(Stage(5, 1, 10), Stage(50, 1, 500)), most_minutes=60)
MINUTE = datetime.timedelta(minutes=1)


@pytest.fixture
def customer():
    return CustomerFactory.create()


@pytest.fixture
def route():
    return RouteFactory.create()


@pytest.fixture
def rollout(route):
    version = ModelVersionFactory.create(registered_model=route.registered_model)
    return conduct.start(version, by=UserFactory.create(), plan=PLAN)


def say(customer, model, version, said, **changes):
    count = Feedback.objects.count()
    fields = {
        "call_id": f"boot-{count}",
        "index": 0,
        "called_at": timezone.now() + count * MINUTE,
        "key_id": "k",
        "model": model,
        "version": str(version),
        "said": said,
        "given_at": timezone.now(),
    }
    return Feedback.objects.create(customer=customer, **(fields | changes))


def say_of(rollout, customer, score, *, on_canary=True, **changes):
    version = rollout.version if on_canary else rollout.default_version
    facts = {
        "model": rollout.registered_model.name,
        "version": version.version,
        "said": {"score": score},
        "to_canary": on_canary,
        "chances": {rollout.version.version: 0.25},
    }
    return say(customer, **(facts | changes))


def count():
    feedback.count(now=timezone.now())


def sums_of(model):
    return {
        (row.version, row.measure): (row.count, row.total)
        for row in FeedbackSum.objects.filter(model=model)
    }


def told(rollout):
    rollout.refresh_from_db()
    found = stored_sums.read(rollout).feedback
    return found.default.count, found.canary.count


def test_what_is_said_is_added_up_once(customer):
    say(customer, "m", 3, {"score": 0.5, "value": 10.0})
    say(customer, "m", 3, {"score": 1.0})
    say(customer, "m", 4, {"right": 1.0})

    count()
    count()

    assert sums_of("m") == {
        ("3", "score"): (2, 1.5),
        ("3", "value"): (1, 10.0),
        ("4", "right"): (1, 1.0),
    }


def test_a_correction_replaces_what_was_counted(customer):
    row = say(customer, "m", 3, {"score": 1.0, "value": 5.0})
    count()
    Feedback.objects.filter(pk=row.pk).update(said={"score": 0.25}, counted_at=None)

    count()

    assert sums_of("m") == {("3", "score"): (1, 0.25), ("3", "value"): (0, 0.0)}


def test_the_day_is_that_of_the_call(customer):
    yesterday = timezone.now() - datetime.timedelta(days=1)
    say(customer, "m", 3, {"score": 1.0}, called_at=yesterday)

    count()

    assert FeedbackSum.objects.get().day == yesterday.date()


def test_scores_of_both_versions_are_evidence(customer, rollout):
    say_of(rollout, customer, 1.0)
    say_of(rollout, customer, 0.0, on_canary=False)

    count()
    count()

    assert told(rollout) == (1, 1)
    assert Feedback.objects.filter(is_unit=True).count() == 2


def test_a_score_of_the_default_is_evidence_about_each_canary(customer, rollout):
    model = rollout.registered_model
    second = ModelVersionFactory(registered_model=model, version=99)
    other = conduct.start(second, by=None)
    chances = {rollout.version.version: 0.25, second.version: 0.1}
    say_of(rollout, customer, 0.0, on_canary=False, chances=chances)
    say_of(rollout, customer, 1.0)
    say_of(other, customer, 1.0)

    count()

    assert told(rollout) == told(other) == (1, 1)


def test_one_score_of_a_key_and_minute_is_evidence(customer, rollout):
    at = (timezone.now() + MINUTE).replace(second=0)
    for index in range(3):
        say_of(rollout, customer, 1.0, index=index, called_at=at)
    say_of(rollout, customer, 1.0, called_at=at, key_id="another")
    count()
    # It was sent later, of the same minute.
    say_of(rollout, customer, 1.0, called_at=at.replace(second=59))
    say_of(rollout, customer, 1.0, called_at=at + MINUTE)

    count()

    assert told(rollout) == (0, 3)
    # All of them are shown.
    assert FeedbackSum.objects.get().count == 6


def test_a_correction_is_no_further_evidence(customer, rollout):
    row = say_of(rollout, customer, 1.0)
    count()
    Feedback.objects.filter(pk=row.pk).update(said={"score": 0.0}, counted_at=None)

    count()

    assert told(rollout) == (0, 1)
    assert stored_sums.read(rollout).feedback.canary.total == 1.0


@pytest.mark.parametrize(
    "changes",
    [
        # The default answered what the canary refused.
        {"version": "77"},
        {"chances": {77: 0.25}},
        # Nothing was dealt.
        {"chances": {}},
        {"said": {"value": 3.0}},
        {"called_at": datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)},
    ],
    ids=str,
)
def test_what_says_nothing_of_the_canary_is_no_evidence(customer, rollout, changes):
    say_of(rollout, customer, 1.0, **changes)

    count()

    assert told(rollout) == (0, 0)
    assert FeedbackSum.objects.exists()


def test_a_paused_rollout_counts_nothing(customer, rollout):
    conduct.pause(rollout, by=None, reason="lunch")
    say_of(rollout, customer, 1.0)

    count()

    assert told(rollout) == (0, 0)


def test_a_rollout_that_cannot_count_is_paused_and_others_go_on(customer, rollout):
    rollout.sums = {"default": "broken"}
    rollout.save()
    say_of(rollout, customer, 1.0)

    count()

    rollout.refresh_from_db()
    assert rollout.state == Rollout.State.PAUSED
    assert "feedback could not be counted" in rollout.reason
    assert FeedbackSum.objects.get().count == 1


def test_low_scores_roll_a_canary_back_and_the_page_says_why(customer, rollout):
    sums = stored_sums.read(rollout)
    sums.keys = ["k0", "k1", "k2"]
    rollout.sums = stored_sums.as_json(sums)
    rollout.save()
    for number in range(120):
        key_id = f"k{number % 3}"
        say_of(rollout, customer, 1.0, on_canary=False, key_id=key_id)
        say_of(rollout, customer, 0.0, key_id=key_id)
    count()

    step(now=timezone.now())

    rollout.refresh_from_db()
    assert rollout.state == Rollout.State.ROLLED_BACK
    assert "score the canary's answers lower: 0.00 in the mean of 120" in rollout.reason
    assert rollout.events.first().guard == "feedback"
    assert Route.objects.get().canary_version is None


def test_versions_are_shown_side_by_side_by_day(customer):
    today = timezone.now()
    yesterday = today - datetime.timedelta(days=1)
    long_ago = today - datetime.timedelta(days=31)
    say(customer, "m", 3, {"score": 0.5, "right": 1.0}, called_at=today)
    say(customer, "m", 3, {"score": 1.0, "right": 0.0}, called_at=yesterday)
    say(customer, "m", 4, {"score": 0.25}, called_at=yesterday)
    say(customer, "m", 4, {"error": 2.0}, called_at=long_ago)
    say(customer, "other", 3, {"score": 0.0}, called_at=today)
    count()

    said = reading.of_versions("m", [("v3", 3), ("Default v4", 4)], today=today.date())

    score, right = said.measures
    assert (score.title, right.title) == ("Mean score", "Accuracy")
    assert score.whole.numbers == ["0.75 of 2", "0.25 of 1"]
    assert [line.numbers for line in score.days] == [
        ["0.5 of 1", "–"],
        ["1 of 1", "0.25 of 1"],
    ]
    assert right.whole.numbers == ["50.0% of 2", "–"]
