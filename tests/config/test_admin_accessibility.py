"""Every list, form and dialog of the admin, by the rules that the portal keeps."""

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group
from django.urls import reverse
from django.utils import timezone

from accounts import soft_limits, usage
from accounts.models import Price
from tests import accessibility
from tests.accounts.test_leases import event
from tests.accounts.test_refusals import refused
from tests.browsing import CHROMIUM, Visit, launched
from tests.factories import CustomerFactory, UserFactory, issue_key
from tests.factories_registry import RouteFactory

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH"),
]
PASSWORD = "correct horse battery staple"
DIALOGS = {
    "customer": ["issue_key", "issue_many", "invite", "export_invoice"],
    "apikey": ["rotate"],
}


@pytest.fixture(
    params=[(1280, "light"), (1280, "dark"), (390, "light")],
    ids=["light", "dark", "phone"],
)
def visit(request, live_server):
    width, scheme = request.param
    with launched() as browser:
        context = browser.new_context(
            viewport={"width": width, "height": 844}, color_scheme=scheme
        )
        context.set_default_timeout(60_000)
        yield Visit(context.new_page(), live_server.url)


def one_of_each():
    """Make what people work with, in the states that are drawn in colours."""
    customer = CustomerFactory.create(plan__daily_quota=10)
    key = issue_key(customer).key
    now = timezone.now()
    usage.record("b-1.spool", [event(customer, 9, at=now), refused(customer)], 1)
    soft_limits.look(now=now)
    price = Price.objects.create(
        plan=customer.plan, unit="rows", amount=1, valid_from="2026-01-01"
    )
    route = RouteFactory.create(with_canary=True)
    return [
        customer,
        key,
        customer.plan,
        price,
        route,
        route.default_version,
        route.registered_model,
        Group.objects.first(),
    ]


def paths():
    yield reverse("admin:index")
    things = {thing._meta.model_name: thing for thing in one_of_each()}
    for model in admin.site._registry:
        app, name = model._meta.app_label, model._meta.model_name
        yield reverse(f"admin:{app}_{name}_changelist")
        yield reverse(f"admin:{app}_{name}_add")
        if name in things:
            pk = things[name].pk
            yield reverse(f"admin:{app}_{name}_change", args=[pk])
            for dialog in DIALOGS.get(name, ()):
                yield reverse(f"admin:{app}_{name}_{dialog}", args=[pk])


def problems_of(visit):
    # Set when the page is complete.
    visit.page.wait_for_selector("[role=main]")
    return accessibility.problems(visit.page)


def test_every_page_can_be_read_by_everybody(visit):
    visit.open("/admin/login/")
    found, seen = {"login": problems_of(visit)}, 0
    boss = UserFactory.create(is_staff=True, is_superuser=True)
    visit.log_in(boss.username, PASSWORD)

    for path in paths():
        if visit.page.goto(visit.base_url + path).status == 403:
            # What nobody adds.
            continue
        found[path] = problems_of(visit)
        seen += 1

    assert {path: problems for path, problems in found.items() if problems} == {}
    assert seen > 40
