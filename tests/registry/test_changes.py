"""Every change of a row of the registry is recorded and announced."""

from importlib import import_module
from types import SimpleNamespace

import pytest
from django.apps import apps
from django.contrib.auth.models import Permission
from django.core.exceptions import PermissionDenied
from django.db import connection

from registry import changes
from registry.models import RegisteredModel
from tests.factories import UserFactory
from tests.factories_registry import RegisteredModelFactory, RouteFactory

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("trusted", [True, False])
def test_only_who_may_trust_models_sets_or_withdraws_trust(trusted):
    model = RegisteredModelFactory(trusted=not trusted)
    people = UserFactory.create_batch(2)
    may = Permission.objects.get(codename="trust_registeredmodel")
    people[1].user_permissions.add(may)
    model.trusted = trusted

    for by in (None, people[0]):
        with pytest.raises(PermissionDenied):
            changes.save(model, by=by, reason="tried")
    assert RegisteredModel.objects.get().trusted is not trusted
    changes.save(model, by=people[1], reason="may")

    assert RegisteredModel.objects.get().trusted is trusted


def test_only_who_may_trust_models_lets_them_open_connections():
    model = RegisteredModelFactory(trusted=True)
    model.network = True

    with pytest.raises(PermissionDenied):
        changes.save(model, by=UserFactory(), reason="tried")

    assert not RegisteredModel.objects.get().network


def test_anybody_changes_the_rest_of_a_trusted_model():
    model = RegisteredModelFactory(trusted=True)
    model.public = True

    changes.save(model, by=None, reason="shown")

    assert RegisteredModel.objects.get().public


def test_a_reason_is_kept_whole_and_cut_only_for_an_earlier_version():
    route, reason = RouteFactory(), "Agreed with everybody. " * 50
    changes.save(route, by=None, reason=reason)
    changes.save(route, by=None, reason="short")
    assert route.history.all()[1].history_change_reason == reason

    migration = import_module("registry.migrations.0010_cut_reasons_on_the_way_back")
    migration.cut(apps, SimpleNamespace(connection=connection))

    kept = [record.history_change_reason for record in route.history.all()[:2]]
    assert kept == ["short", reason[:100]]
