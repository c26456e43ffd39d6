"""A number that MLflow gives to another version starts without what the first had."""

import datetime

import pytest
from django.utils import timezone

from accounts.models import FieldUse
from inference.models import FeedbackSum, Follow, ShadowTotals
from registry.models import ModelVersion
from registry.signals import version_replaced
from tests.factories import CustomerFactory, UserFactory
from tests.factories_registry import ModelVersionFactory

pytestmark = pytest.mark.django_db
TODAY = datetime.date(2026, 11, 3)


def test_what_was_noted_of_the_first_is_forgotten():
    version = ModelVersionFactory.create(version=2)
    name = version.registered_model.name
    customer = CustomerFactory.create()
    now = timezone.now()
    for number in (1, 2):
        FeedbackSum.objects.create(
            model=name, version=str(number), day=TODAY, measure="score", count=1
        )
        FieldUse.objects.create(
            customer=customer, model=name, version=str(number), day=TODAY, key_id="k"
        )
    for pair in ((1, 2), (1, 3)):
        ShadowTotals.objects.create(
            model=name,
            default_version=pair[0],
            shadow_version=pair[1],
            first_at=now,
            last_at=now,
        )
    follow = Follow.objects.create(
        user=UserFactory.create(),
        registered_model=version.registered_model,
        since=now,
        newest_version=2,
    )

    version_replaced.send(sender=ModelVersion, model=name, version=2)

    assert [row.version for row in FeedbackSum.objects.all()] == ["1"]
    assert [row.version for row in FieldUse.objects.all()] == ["1"]
    assert [row.shadow_version for row in ShadowTotals.objects.all()] == [3]
    follow.refresh_from_db()
    assert follow.newest_version == 1
