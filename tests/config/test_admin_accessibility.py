"""Accessibility of every list, form and dialog of the admin."""

import datetime

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group
from django.urls import reverse
from django.utils import timezone

from accounts.models import Customer, Price
from accounts.quotas import soft_limits
from accounts.usage import recording, statements
from inference.controller.rollouts import conduct, stored_sums
from inference.models import Engine, Rollout, VersionEvent
from registry.models import RolloutPlan
from tests import accessibility
from tests.accounts.quotas.test_leases import event
from tests.accounts.usage.test_refused_calls import refused
from tests.browsing import CHROMIUM, Visit, launched
from tests.factories import CustomerFactory, UserFactory, issue_key
from tests.factories_registry import ModelVersionFactory, RouteFactory
from tests.factories_serving import (
    EngineFactory,
    HostFactory,
    LoadedVersionFactory,
    RolloutFactory,
    VersionConditionFactory,
    VersionEventFactory,
    lacking,
)
from tests.inference.rollouts.simulated import World, count

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH"),
]
DIALOGS = {
    "customer": ["issue_key", "issue_many", "invite", "export_invoice"],
    "apikey": ["rotate"],
}


VIEWS = {"light": (1280, "light"), "phone": (390, "light"), "dark": (1280, "dark")}
# Unfold asks for the scheme only where its own theme changes.
FOLLOW_SCHEME = """async () => {
  const page = Alpine.$data(document.documentElement);
  for (const theme of ["light", "auto"]) {
    page.switchTheme(theme);
    await Alpine.nextTick();
  }
}"""
IS_DARK = "document.documentElement.classList.contains('dark')"


@pytest.fixture
def visit(live_server):
    with launched() as browser:
        context = browser.new_context(viewport={"width": 1280, "height": 844})
        context.set_default_timeout(60_000)
        yield Visit(context.new_page(), live_server.url)


def one_of_each():
    """Make one row of each kind, in the states that are shown in colours."""
    customer = CustomerFactory.create(plan__daily_quota=10)
    key = issue_key(customer).key
    now = timezone.now()
    recording.record("b-1.spool", [event(customer, 9, at=now), refused(customer)], 1)
    soft_limits.look(now=now)
    price = Price.objects.create(
        plan=customer.plan, unit="rows", amount=1, valid_from="2026-01-01"
    )
    # A closed month, and a month that may be closed.
    last_month = now.replace(day=1) - datetime.timedelta(days=1)
    before = last_month.replace(day=1) - datetime.timedelta(days=1)
    Customer.objects.filter(pk=customer.pk).update(created_at=before)
    statement = statements.close(
        customer, month=before.date(), by=UserFactory.create(), now=now
    )
    route = RouteFactory.create(with_canary=True)
    host, engine, loaded = served_by_a_process(route)
    return [
        rollout_of(route),
        RolloutPlan.objects.create(name="careful", plan={"last_step": "second_person"}),
        host,
        engine,
        loaded,
        customer,
        key,
        customer.plan,
        price,
        statement,
        route,
        route.default_version,
        route.registered_model,
        Group.objects.first(),
    ]


def rollout_of(route):
    """Make a paused rollout with many numbers, after one of each other state."""
    of_route = {
        "version": route.canary_version,
        "default_version": route.default_version,
    }
    for state in Rollout.State:
        if state not in Rollout.ACTIVE:
            RolloutFactory.create(state=state, ended_at=timezone.now(), **of_route)
    sums = count(World(error_rate=0.02, calls=1000), seed=1)
    rollout = RolloutFactory.create(
        sums=stored_sums.as_json(sums),
        stage_began_at=timezone.now(),
        started_by=UserFactory.create(),
        **of_route,
    )
    reason = "It failed:\n" + "  a line of a trace\n" * 25
    conduct.pause(rollout, by=None, reason=reason, guard="errors")
    return rollout


def served_by_a_process(route):
    """Serve the default by a process of its own, in which something went wrong."""
    trace = "KeyError: 7\nTraceback (most recent call last):\n  File model.py"
    walls = {"files": "it reads its artifact", "network": "open: all sockets"}
    version = route.default_version
    host = HostFactory.create(
        walls=walls,
        error=trace,
        lacking=[lacking(route.canary_version, "It needs 3 GB.")],
    )
    engine = EngineFactory.create(
        kind=Engine.Kind.OWN,
        host=host.name,
        walls=walls,
        memory_samples=[[0, 2**20], [60, 2**21]],
    )
    loaded = LoadedVersionFactory.create(of=version, engine=engine, apart=trace)
    LoadedVersionFactory.create(of=version, state="failed", error=trace)
    VersionConditionFactory.create(of=version, reason=trace)
    for kind in VersionEvent.Kind:
        VersionEventFactory.create(
            of=version, kind=kind, text=trace, detail=trace, request_ids=["a", "b"]
        )
    return host, engine, loaded


def paths():
    yield reverse("admin:index")
    yield reverse("my-key")
    yield reverse("messages")
    things = {thing._meta.model_name: thing for thing in one_of_each()}
    for model in admin.site._registry:
        app, name = model._meta.app_label, model._meta.model_name
        yield reverse(f"admin:{app}_{name}_changelist")
        yield reverse(f"admin:{app}_{name}_add")
        if name in things:
            pk = things[name].pk
            yield reverse(f"admin:{app}_{name}_change", args=[pk])
            if (
                record := getattr(model, "history", None)
                and things[name].history.first()
            ):
                yield reverse(f"admin:{app}_{name}_history", args=[pk])
                name_of_record = f"admin:{app}_{name}_simple_history"
                yield reverse(name_of_record, args=[pk, record.pk])
            if name == "modelversion":
                yield reverse("admin:registry_modelversion_try", args=[pk])
            for dialog in DIALOGS.get(name, ()):
                yield reverse(f"admin:{app}_{name}_{dialog}", args=[pk])


def problems_of(visit):
    """Return the problems of the open page, by view."""
    # Set when the page is complete.
    visit.page.wait_for_selector("[role=main]")
    found = {}
    for view, (width, scheme) in VIEWS.items():
        visit.look(width, scheme)
        if scheme == "dark":
            visit.page.evaluate(FOLLOW_SCHEME)
        assert visit.page.evaluate(IS_DARK) is (scheme == "dark")
        found[view] = accessibility.problems(visit.page)
    visit.look(1280)
    return {view: problems for view, problems in found.items() if problems}


def test_every_page_can_be_read_by_everybody(visit):
    visit.open("/admin/login/")
    found, seen = {"login": problems_of(visit)}, 0
    visit.come_in(UserFactory.create(is_staff=True, is_superuser=True))

    for path in paths():
        if visit.page.goto(visit.base_url + path).status == 403:
            # What nobody adds.
            continue
        found[path] = problems_of(visit)
        seen += 1

    # Adding these is refused, which Chromium logs.
    complaints = [line for line in visit.complaints if "status of 403" not in line]
    assert complaints == []
    assert {path: problems for path, problems in found.items() if problems} == {}
    assert seen > 40


def test_a_rollout_is_started_and_moved_with_the_keyboard(visit):
    route = RouteFactory.create(default_version__registered_model__name="m" * 200)
    version = ModelVersionFactory.create(registered_model=route.registered_model)
    page = visit.page
    visit.come_in(UserFactory.create(is_staff=True, is_superuser=True))
    visit.open(f"/admin/registry/modelversion/{version.pk}/change/")

    page.focus("a:has-text('Start rollout')")
    page.keyboard.press("Enter")
    page.wait_for_selector("#dialog")
    found = {"start": problems_of(visit)}
    page.focus("#dialog button:has-text('Start rollout')")
    page.keyboard.press("Enter")
    page.wait_for_selector("#rollout")
    page.focus("a:has-text('Roll back')")
    page.keyboard.press("Enter")
    page.wait_for_selector("#dialog")
    found["roll back"] = problems_of(visit)
    page.focus("#dialog button:has-text('Roll back')")
    page.keyboard.press("Enter")
    page.wait_for_selector("#rollout :text-is('rolled back')")

    assert found == {"start": {}, "roll back": {}}
    assert visit.complaints == []
