"""Who may open and change which page of the admin, for each role.

The pages come from the admin itself, so a new model is covered at once.
"""

import re

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group
from django.urls import NoReverseMatch, reverse

from accounts.models import Price, Statement
from config.groups import GROUPS
from inference.uploads import files
from tests.factories import UserFactory, issue_key
from tests.factories_jobs import make_job
from tests.factories_registry import RegisteredModelFactory, RouteFactory

pytestmark = pytest.mark.django_db

# The apps whose lists each role may open, and those it may ever add to.
SEES = {
    "data scientists": {"registry", "inference"},
    "account managers": {"accounts"},
    "operators": {"registry", "inference", "accounts", "auth", "axes"},
    "nobody": set(),
}
ADDS = {
    "data scientists": {"registry"},
    "account managers": {"accounts"},
    "operators": {"inference", "auth"},
    "nobody": set(),
}
MODELS = sorted(
    (model._meta.app_label, model._meta.model_name) for model in admin.site._registry
)


@pytest.fixture(params=[*GROUPS, "nobody"])
def role(request, client):
    person = UserFactory.create(is_staff=True)
    if request.param in GROUPS:
        person.groups.add(Group.objects.get(name=request.param))
    client.force_login(person)
    return request.param


@pytest.mark.parametrize(("app", "model"), MODELS)
def test_a_list_opens_for_those_whose_work_it_is(client, role, app, model):
    response = client.get(reverse(f"admin:{app}_{model}_changelist"))

    expected = {200, 302} if app in SEES[role] else {403}
    assert response.status_code in expected


@pytest.mark.parametrize(("app", "model"), MODELS)
def test_nothing_is_added_by_those_whose_work_it_is_not(client, role, app, model):
    response = client.get(reverse(f"admin:{app}_{model}_add"))

    allowed = {200, 403} if app in ADDS[role] else {403}
    assert response.status_code in allowed


# Every page that the admins add to Django's own, for an object that does not exist:
# people who may not use the page must not learn even that.
PAGES = sorted(
    (app, pattern.name)
    for model, model_admin in admin.site._registry.items()
    for app in [model._meta.app_label]
    for pattern in model_admin.get_urls()
    if pattern.name
    and pattern.name.rpartition("_")[2]
    not in ("changelist", "add", "history", "delete", "change")
)


def test_actions_are_refused_to_those_whose_work_it_is_not(client, role):
    called = 0
    for app, page in sorted(set(PAGES)):
        if app in SEES[role]:
            continue
        for args in ([], ["1"], ["1", "1"]):
            try:
                path = reverse(f"admin:{page}", args=args)
            except NoReverseMatch:
                continue
            for response in (client.get(path), client.post(path, {})):
                called += 1
                assert response.status_code in (302, 403, 404, 405), page

    assert called or role == "operators"


def _one_of_each():
    """Make an object of every kind that account managers and data scientists run."""
    key = issue_key().key
    return {
        "customer": key.customer,
        "apikey": key,
        "plan": key.customer.plan,
        "price": Price.objects.create(
            plan=key.customer.plan, unit="rows", amount=1, valid_from="2026-01-01"
        ),
        "registeredmodel": RegisteredModelFactory.create(),
        "route": RouteFactory.create(),
    }


RUNS = {
    "data scientists": {"registeredmodel", "route"},
    "account managers": {"customer", "apikey", "plan", "price"},
    "operators": set(),
    "nobody": set(),
}


def test_objects_are_changed_by_those_whose_work_they_are_and_by_nobody_else(
    client, role
):
    for kind, thing in _one_of_each().items():
        app = thing._meta.app_label
        change = reverse(f"admin:{app}_{kind}_change", args=[thing.pk])
        if kind in RUNS[role]:
            assert client.get(change).status_code == 200
            # People who may fill in the form are told what an empty one lacks.
            assert client.post(change, {}).status_code == 200
        else:
            # A read-only page has no form to send.
            assert client.post(change, {}).status_code == 403


def _touched_by_somebody():
    """Make rows that name a user, or a customer that the role may not open."""
    somebody = UserFactory.create(is_staff=True)
    key = issue_key(created_by=somebody).key
    statement = Statement.objects.create(
        number=1,
        customer=key.customer,
        customer_name=key.customer.name,
        month="2026-10-01",
        lines=[],
        total="0",
        closed_at="2026-11-01T01:00Z",
        closed_by=somebody,
    )
    upload = files.announce(key.customer, content_type="text/csv")
    route = RouteFactory.create(updated_by=somebody)
    for changed in (key, route):
        changed.history.update(history_user=somebody)
    return [key, statement, upload, make_job(api_key=key), route]


@pytest.mark.usefixtures("home")
def test_no_page_has_a_link_that_is_refused_to_its_reader(client, role):
    opened, followed = 0, set()
    for thing in _touched_by_somebody():
        kind = f"admin:{thing._meta.app_label}_{thing._meta.model_name}"
        for page in ("change", "history"):
            response = client.get(reverse(f"{kind}_{page}", args=[thing.pk]))
            if response.status_code != 200:
                continue
            opened += 1
            text = response.content.decode()
            for link in set(re.findall(r'href="(/admin/[^"]+)"', text)) - followed:
                followed.add(link)
                status = client.get(link.replace("&amp;", "&")).status_code
                assert status != 403, f"{link} on {page} of {thing}"

    assert opened or role == "nobody"


ACTIONS = {
    "customer": ["issue_key", "issue_many", "invite", "export_usage", "export_invoice"],
    "apikey": ["rotate", "issued"],
}


def test_an_account_manager_s_actions_are_theirs_alone(client, role):
    things = _one_of_each()
    # Operators need to see usage.
    also = {"operators": {"export_usage", "export_invoice"}}.get(role, set())
    for kind, actions in ACTIONS.items():
        for action in actions:
            path = reverse(f"admin:accounts_{kind}_{action}", args=[things[kind].pk])

            allowed = role == "account managers" or action in also
            expected = {200, 302} if allowed else {403}
            assert client.get(path).status_code in expected, action


def test_every_action_that_only_shows_a_page_first_is_covered_above():
    dialogs = {"archive", "reopen", "revoke"}
    named = {
        page.removeprefix(f"accounts_{kind}_")
        for app, page in PAGES
        for kind in ACTIONS
        if app == "accounts" and page.startswith(f"accounts_{kind}_")
    }

    covered = {action for actions in ACTIONS.values() for action in actions}
    assert named - dialogs - {"import", "import_customers"} == covered
