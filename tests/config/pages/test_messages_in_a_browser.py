"""The bell, its page and the new dialogs in Chromium: light, dark and on a phone."""

import pytest
from django.urls import reverse
from django.utils import timezone

from inference.following import followers, inbox, telling, trust
from inference.models import VersionEvent
from tests import accessibility
from tests.browsing import CHROMIUM, Visit
from tests.factories import UserFactory
from tests.factories_registry import ModelVersionFactory, RouteFactory
from tests.factories_serving import ServingRouteFactory, VersionEventFactory
from tests.inference.following.people import scientist

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH"),
]

LONG = "x" * 200
DARK = """async () => {
  const page = Alpine.$data(document.documentElement);
  for (const theme of ["light", "auto"]) {
    page.switchTheme(theme);
    await Alpine.nextTick();
  }
}"""


@pytest.fixture
def visit(browser, live_server):
    context = browser.new_context(viewport={"width": 1280, "height": 844})
    context.set_default_timeout(60_000)
    yield Visit(context.new_page(), live_server.url)
    context.close()


@pytest.fixture
def boss():
    return UserFactory.create(
        is_staff=True, is_superuser=True, email=f"{'b' * 60}@example.com"
    )


@pytest.fixture
def route(boss):
    """Make a route to a model with a long name, of which the boss was told much."""
    route = RouteFactory.create(
        with_canary=True, default_version__registered_model__name=LONG
    )
    ServingRouteFactory.create(of=route)
    model = route.registered_model
    followers.follow(model, boss)
    trust.ask(model, by=scientist(), now=timezone.now())
    VersionEventFactory.create(
        of=route.canary_version,
        kind=VersionEvent.Kind.LOAD_FAILED,
        at=timezone.now(),
        text="KeyError: " + "y" * 200,
    )
    ModelVersionFactory.create(registered_model=model, flavors=["python_function"])
    telling.look(now=timezone.now())
    return route


def assert_reads_well(visit):
    for width, scheme in ((1280, "light"), (390, "light"), (1280, "dark")):
        visit.look(width, scheme)
        if scheme == "dark":
            visit.page.evaluate(DARK)
        assert accessibility.problems(visit.page) == [], (width, scheme)
        assert visit.overflow_px <= 0, width
    visit.look(1280)
    assert visit.complaints == []


def test_the_bell_leads_to_messages_that_lead_to_what_happened(visit, boss, route):
    visit.come_in(boss)
    visit.open(reverse("admin:index"))
    visit.page.click('a[aria-label="Messages: 3 unread"]')
    visit.page.wait_for_selector("text=Mark all as read")
    assert_reads_well(visit)

    visit.page.click("text=could not be loaded. KeyError")
    visit.page.wait_for_url("**/registry/modelversion/**")

    assert inbox.unread(boss) == 2
    assert visit.page.get_by_label("Messages: 2 unread").count() == 1


def test_all_is_read_and_mailed_at_a_press_each(visit, boss, route):
    visit.come_in(boss)
    visit.open(reverse("messages"))

    visit.page.click("text=Mark all as read")
    visit.page.wait_for_selector("text=All are read")
    visit.page.click("text=Mail them, too")
    visit.page.wait_for_selector("text=Stop mailing them")

    assert inbox.unread(boss) == 0
    assert inbox.wants_mail(boss)


@pytest.mark.parametrize("page", ["registeredmodel", "modelversion", "route"])
def test_the_pages_of_a_model_read_well(visit, boss, route, page):
    rows = {
        "registeredmodel": route.registered_model,
        "modelversion": route.default_version,
        "route": route,
    }
    visit.come_in(boss)

    visit.open(reverse(f"admin:registry_{page}_change", args=[rows[page].pk]))
    assert_reads_well(visit)


def test_a_dialog_warns_before_a_version_without_trust_gets_calls(visit, route):
    visit.come_in(scientist("ada"))
    untrusted = route.registered_model.versions.order_by("version").last()
    visit.open(reverse("admin:registry_modelversion_change", args=[untrusted.pk]))

    visit.page.click("text=Make default")
    alert = visit.page.wait_for_selector("[role=alert]:has-text('untrusted')")

    assert f"{untrusted} cannot answer now" in alert.inner_text()
    for width in (1280, 390):
        visit.look(width)
        box = alert.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
