"""The admin of deprecations sets ends, tells customers, and takes both back."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import Group
from django.urls import reverse
from django.utils import timezone

from accounts.models import Notice
from inference.controller import callable_models
from registry.models import Deprecation
from tests.factories import CustomerFactory, UserFactory
from tests.factories_registry import ModelVersionFactory, RouteFactory
from tests.inference.endings.test_telling import called

pytestmark = pytest.mark.django_db


@pytest.fixture
def scientist(client):
    person = UserFactory.create(is_staff=True)
    person.groups.add(Group.objects.get(name="data scientists"))
    client.force_login(person)
    return person


@pytest.fixture
def version(home):
    return RouteFactory.create().default_version


def fill(client, of, **changes):
    now = timezone.now()
    fields = {
        "registered_model": of.registered_model_id,
        "version": of.pk,
        "deprecated_at_0": f"{now:%Y-%m-%d}",
        "deprecated_at_1": "00:00:00",
        "ends_at_0": f"{now + timedelta(days=60):%Y-%m-%d}",
        "ends_at_1": "00:00:00",
        "use_instead": "Use version 99.",
        **changes,
    }
    return client.post(reverse("admin:registry_deprecation_add"), fields)


def test_an_end_is_published_and_told_to_callers_and_can_be_taken_back(
    client, scientist, version
):
    name = version.registered_model.name
    customer = CustomerFactory.create(name="Numbers Ltd")
    called(customer, model=name, version=str(version.version), calls=1234)

    assert fill(client, version).status_code == 302

    row = Deprecation.objects.get()
    described = callable_models.describe()[name]
    [shown] = described.versions
    assert shown.ending.ends_at == row.ends_at.timestamp()
    assert shown.ending.use_instead == "Use version 99."
    assert described.ending is None
    assert Notice.objects.get().customer == customer
    assert row.history.get().history_user == scientist
    page = reverse("admin:registry_deprecation_change", args=[row.pk])
    assert f"Numbers Ltd ({customer.pk}): 1,234 calls" in (
        client.get(page).content.decode()
    )
    client.post(
        reverse("admin:registry_deprecation_delete", args=[row.pk]), {"post": "yes"}
    )
    assert callable_models.describe()[name].versions[0].ending is None
    assert not Notice.objects.exists()


def test_the_end_of_a_model_is_of_all_its_versions(client, scientist, version):
    assert fill(client, version, version="").status_code == 302

    described = callable_models.describe()[version.registered_model.name]

    assert described.ending is not None
    assert described.ending_of(described.versions[0]) == described.ending


def test_mistakes_are_told_in_words(client, scientist, version):
    other = ModelVersionFactory.create()

    page = fill(client, version, version=other.pk).content.decode()
    assert f"{other} is of another model." in page
    page = fill(client, version, ends_at_0="2001-01-01").content.decode()
    assert "It cannot end before it is deprecated." in page
    assert not Deprecation.objects.exists()
