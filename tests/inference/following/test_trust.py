"""Administrators are asked once to trust a model."""

import pytest
from django.utils import timezone

from inference.following import trust
from inference.models import TrustRequest
from registry import changes
from registry.routes import RouteError
from tests.factories import UserFactory
from tests.factories_registry import RegisteredModelFactory
from tests.inference.following.people import scientist, told

pytestmark = pytest.mark.django_db


@pytest.fixture
def boss():
    return UserFactory(username="boss", is_staff=True, is_superuser=True)


@pytest.fixture
def model():
    return RegisteredModelFactory(name="iris")


def ask(model, person):
    return trust.ask(model, by=person, now=timezone.now())


def test_administrators_are_told_once(boss, model):
    grace, ada = scientist(), scientist("ada")

    first, again, other = ask(model, grace), ask(model, grace), ask(model, ada)

    assert told(boss) == ["grace asks you to trust iris, so that its code may run."]
    assert told(grace) == told(ada) == []
    assert first == again == other
    assert str(other).startswith("grace asked for trust at 2")


def test_trust_ends_the_request_and_another_one_is_possible(boss, model):
    grace = scientist()
    ask(model, grace)
    model.trusted = True
    changes.save(model, by=boss, reason="trusted")

    assert not TrustRequest.objects.exists()
    with pytest.raises(RouteError, match="trusted already"):
        ask(model, grace)

    model.trusted = False
    changes.save(model, by=boss, reason="withdrawn")
    ask(model, grace)
    assert len(told(boss)) == 2


def test_another_change_of_the_model_keeps_the_request(boss, model):
    ask(model, scientist())
    model.public = True
    changes.save(model, by=boss, reason="public")

    assert trust.request_of(model) is not None


def test_people_who_left_are_not_asked(model):
    UserFactory(is_staff=True, is_superuser=True, is_active=False)

    assert list(trust.administrators()) == []
