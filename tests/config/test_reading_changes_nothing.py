"""No GET of the admin or the portal changes anything.

Browsers, prefetching, mail scanners and other sites' pages send GETs without a person.
"""

import pytest
from celery.app.task import Task
from django.contrib import admin
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from accounts.models import ApiKey
from accounts.portal.urls import urlpatterns as portal
from tests.factories import UserFactory, issue_key
from tests.factories_jobs import make_job
from tests.factories_registry import RouteFactory

pytestmark = pytest.mark.django_db

# Actions of forms and dialogs that ask first.
SAID_YES = {
    "_form_submitted": "on",
    "confirmed": "name,plan\nx,y",
    "email": "someone@example.com",
    "correct": "yes",
    "overlap_hours": "1",
    "weight_percent": "50",
    "action": "cancel_jobs",
}
# Using a session extends it.
ALLOWED = ("django_session",)


@pytest.fixture
def rows(client):
    """Make a row of each kind that has pages; return them by model."""
    person = UserFactory.create(is_staff=True, is_superuser=True)
    client.force_login(person)
    key = issue_key().key
    key.customer.members.add(person)
    route = RouteFactory.create(with_canary=True)
    made = (person, key, key.customer, key.customer.plan, make_job(api_key=key), route)
    made += (route.canary_version, route.registered_model)
    return {type(row): row for row in made}


@pytest.fixture
def changed(client, monkeypatch):
    """Return what GETs write to the database or send to workers, by address."""
    made = []
    monkeypatch.setattr(Task, "apply_async", lambda self, *_, **__: made.append(self))

    def changed_by(url):
        made.clear()
        with CaptureQueriesContext(connection) as queries:
            assert client.get(url, SAID_YES).status_code < 500
        made.extend(
            query["sql"]
            for query in queries
            if query["sql"].startswith(("INSERT", "UPDATE", "DELETE"))
            and not any(table in query["sql"] for table in ALLOWED)
        )
        return list(made)

    return lambda urls: {url: found for url in urls if (found := changed_by(url))}


def of_admin(rows):
    """Return the admin's addresses, with one row of each kind."""
    for model, model_admin in admin.site._registry.items():
        own = [rows[model].pk] if model in rows else []
        for pattern in model_admin.get_urls():
            asked = pattern.pattern.regex.groups
            if pattern.name is not None and asked <= len(own):
                yield reverse(f"admin:{pattern.name}", args=own[:asked])


def test_the_admin_changes_nothing_by_get(rows, changed):
    urls = list(of_admin(rows))

    assert changed(urls) == {}
    assert reverse("admin:registry_route_sync_now") in urls
    assert len(urls) > 100


def test_the_portal_changes_nothing_by_get(rows, changed):
    key = rows[ApiKey]
    facts = {"customer_id": key.customer_id, "key_id": key.key_id}
    urls = [
        reverse(
            f"portal:{pattern.name}",
            kwargs={name: facts[name] for name in pattern.pattern.converters},
        )
        for pattern in portal
    ]

    assert changed(urls) == {}
