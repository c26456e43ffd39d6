"""The portal in a browser: a whole journey, by keyboard, and on a small phone."""

import json

import pytest
from axes.models import AccessAttempt
from django.utils import timezone

from accounts.customers import api_keys, changes, members
from accounts.models import ApiKey
from accounts.quotas import soft_limits
from accounts.usage import recording
from inference.api import driver
from inference.controller import publishing
from inference.installation.home import Home
from inference.models import ServingRoute
from tests import accessibility
from tests.accounts.quotas.test_leases import event
from tests.accounts.usage.test_refused_calls import refused
from tests.browsing import CHROMIUM, Visit
from tests.factories import CustomerFactory, UserFactory, issue_key
from tests.factories_registry import ModelVersionFactory, RouteFactory

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH"),
]
PASSWORD = "correct horse battery staple"
VIEWS = {
    "desktop": [(1280, "light")],
    "phone": [(360, "light"), (360, "dark")],
}


@pytest.fixture(params=VIEWS)
def visit(request, browser, live_server):
    """A page whose every state is checked in every view of the device."""
    yield from _visit(browser, live_server, VIEWS[request.param])


@pytest.fixture
def desktop(browser, live_server):
    yield from _visit(browser, live_server, VIEWS["desktop"])


@pytest.fixture
def everywhere(browser, live_server):
    yield from _visit(browser, live_server, [*VIEWS["desktop"], *VIEWS["phone"]])


def _visit(browser, live_server, views):
    context = browser.new_context(viewport={"width": views[0][0], "height": 740})
    context.set_default_timeout(60_000)
    yield Visit(context.new_page(), live_server.url, views)
    context.close()


@pytest.fixture
def customer():
    customer = CustomerFactory.create(
        name="Acme", plan__daily_quota=10, plan__monthly_quota=1000
    )
    customer.members.add(UserFactory.create(username="mia"))
    return customer


def spend(customer):
    now = timezone.now()
    calls = [event(customer, 9, at=now), refused(customer, request_id="req_why")]
    recording.record("b-1.spool", calls, 1)
    soft_limits.look(now=now)


def assert_in_order(visit):
    assert_fits_and_is_accessible(visit)
    assert visit.complaints == []


def assert_fits_and_is_accessible(visit):
    for width, scheme in visit.views:
        visit.look(width, scheme)
        assert accessibility.problems(visit.page) == [], (width, scheme)
        assert visit.overflow_px <= 0, (width, scheme)
    visit.look(*visit.views[0])


@pytest.mark.parametrize("day", ["first", "busy"])
def test_every_page_is_accessible_fits_and_loads_only_its_own_things(
    everywhere, customer, day
):
    other = CustomerFactory.create(name="A very long name of a customer " * 3)
    other.members.add(customer.members.get())
    key = issue_key(customer).key
    if day == "busy":
        spend(customer)
        issue_key(customer, name="x" * 100, allowed_models=["m" * 80])
        api_keys.revoke(issue_key(customer).key)
    else:
        ApiKey.objects.exclude(pk=key.pk).delete()
    everywhere.open("/portal/sign-in/")
    assert_in_order(everywhere)
    everywhere.come_in(customer.members.get())

    base = f"/portal/{customer.pk}/"
    for page in (
        "",
        "keys/",
        "refusals/",
        "refusals/?q=req_none",
        "try/",
        f"keys/{key.key_id}/rotate/",
        f"keys/{key.key_id}/revoke/",
        "../account/",
    ):
        everywhere.open(base + page)
        assert_in_order(everywhere)


def test_a_member_s_whole_journey(visit, customer):
    spend(customer)
    page = visit.page
    visit.sign_in("mia", PASSWORD)
    assert page.locator("text=90 % used").first.is_visible()
    assert page.locator("[role=status]:has-text('More than 80 %')").is_visible()
    assert page.locator("svg.chart rect").count() == 60

    page.click("text=QUOTA_EXCEEDED")
    page.wait_for_selector("text=What to do:")
    assert page.locator("article").count() == 1

    page.click("nav.tabs >> text=API keys")
    page.fill("#id_name", "web shop")
    page.click("text=Make the key")
    token = page.input_value("#token")
    first = api_keys.recognise(token)
    assert first is not None
    # The button says it for two seconds only, which a busy machine may miss.
    page.evaluate(
        """() => {
            const button = document.querySelector("[data-copy=token]");
            window.said = new Promise((resolve) => new MutationObserver(
                () => resolve(button.textContent),
            ).observe(button, { childList: true }));
        }"""
    )
    page.click("[data-copy=token]")
    assert page.evaluate("window.said") == "Copied"
    page.wait_for_selector("#try-code:has-text('my_live_')")
    page.select_option("#try-operation", "me")
    page.click("#try >> text=Send")
    page.wait_for_selector("#try-status:has-text('200 answered')")
    answer = json.loads(page.inner_text("#try-answer"))
    assert answer["customer"] == "Acme"
    assert token in page.inner_text("#try-code")
    assert_in_order(visit)

    page.click("text=back to the keys")
    assert token not in page.content()
    page.click("text=Rotate web shop")
    page.select_option("#id_overlap_hours", "0")
    page.click("main form button:text-is('Rotate')")
    second = api_keys.recognise(page.input_value("#token"))
    assert second is not None
    assert api_keys.recognise(token) is None

    page.click("text=back to the keys")
    page.click("text=Revoke web shop")
    page.click("text=Revoke for good")
    page.wait_for_selector("text=is revoked")
    assert not ApiKey.objects.valid(timezone.now()).exists()
    assert_in_order(visit)

    page.click("text=Sign out")
    page.wait_for_url("**/portal/sign-in/")


@pytest.fixture
def _published(settings, tmp_path):
    settings.HOME = Home(tmp_path)
    settings.HOME.prepare()
    version = ModelVersionFactory.create(registered_model__name="breast-cancer")
    RouteFactory.create(default_version=version)
    ServingRoute.objects.create(model="breast-cancer", default_version=version.version)
    yield
    driver.current().close()


@pytest.mark.usefixtures("_published")
def test_a_key_shows_the_models_it_may_call_with_a_body_to_send(desktop, customer):
    issued = issue_key(customer)
    publishing.mark_changed()
    publishing.publish(now=timezone.now())
    desktop.come_in(customer.members.get())

    desktop.open(f"/portal/{customer.pk}/try/")
    desktop.page.fill("#try-key", issued.token)
    desktop.page.press("#try-key", "Tab")
    desktop.page.wait_for_selector("#try-status:has-text('may call 1 model')")

    desktop.page.wait_for_selector("#try-code:has-text('instances')")
    assert desktop.page.input_value("#try-model") == "breast-cancer"
    assert "instances" in json.loads(desktop.page.input_value("#try-body"))
    command = desktop.page.inner_text("#try-code")
    assert "/api/v1/models/breast-cancer/predict" in command
    assert issued.token in command
    assert_in_order(desktop)


@pytest.mark.usefixtures("_published")
def test_a_test_key_is_tried_here_and_filled_into_the_docs(desktop, customer, capfd):
    page = desktop.page
    sent = []
    page.on("request", lambda request: sent.append(request.url))
    desktop.sign_in("mia", PASSWORD)
    page.click("nav.tabs >> text=Try it")

    page.click("text=Use a test key")
    page.wait_for_selector("#try-status:has-text('may call')")
    token = page.input_value("#try-key")
    key = api_keys.recognise(token)
    assert key is not None
    assert key.mode == "test"
    page.select_option("#try-operation", "me")
    page.click("#try >> text=Send")
    page.wait_for_selector("#try-status:has-text('200 answered')")
    for language, words in [
        ("python", "httpx.get("),
        ("javascript", "await fetch("),
    ]:
        page.select_option("#try-language", language)
        page.wait_for_selector(f"#try-code:has-text('{words}')")
        assert token in page.inner_text("#try-code")
    assert_in_order(desktop)
    page.click("#try-docs")
    page.wait_for_selector(".auth-wrapper .authorize.locked")

    asked = page.evaluate(
        "ui.getState().getIn(['auth', 'authorized', 'bearer', 'value'])"
    )
    assert asked == token
    secret = token.rpartition("_")[2]
    assert not [url for url in sent if secret in url]
    assert page.evaluate("localStorage.length") == 0
    printed = capfd.readouterr()
    assert secret not in printed.out + printed.err
    # Signing out leaves no key behind.
    desktop.open("/portal/")
    page.click("text=Sign out")
    page.wait_for_url("**/portal/sign-in/")
    desktop.settle()
    assert page.evaluate("sessionStorage.length") == 0
    assert desktop.complaints == []


def test_a_wrong_key_is_said_to_be_wrong(desktop, customer):
    desktop.come_in(customer.members.get())
    desktop.open(f"/portal/{customer.pk}/try/")

    desktop.page.fill("#try-key", "my_live_wrong")
    desktop.page.press("#try-key", "Tab")

    desktop.page.wait_for_selector("#try-status:has-text('not valid')")


def test_an_invited_person_s_first_day(visit, customer, settings):
    settings.EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
    link = members.invite(customer, email="ann@example.com").link
    page = visit.page
    visit.open(link.removeprefix(settings.MODELYARD_PUBLIC_URL))
    assert "link=" not in page.url
    assert_in_order(visit)
    page.fill("#id_new_password1", "short")
    page.fill("#id_new_password2", "short")
    page.click("main button")
    assert page.locator("text=Error:").first.is_visible()
    assert_fits_and_is_accessible(visit)
    # A page with errors is no success, and browsers note that.
    visit.complaints.clear()

    page.fill("#id_new_password1", "a rather long new password")
    page.fill("#id_new_password2", "a rather long new password")
    page.click("main button")

    page.wait_for_url(f"**/portal/{customer.pk}/")
    assert page.locator("text=Your password is set").is_visible()
    assert page.locator("text=Start here").is_visible()
    assert_in_order(visit)
    page.click(".bar >> text=Account")
    page.fill("#id_old_password", "a rather long new password")
    page.fill("#id_new_password1", "yet another long password")
    page.fill("#id_new_password2", "yet another long password")
    page.click("text=Change the password")
    page.wait_for_selector("text=Your password is changed")
    assert_in_order(visit)

    visit.page.context.clear_cookies()
    visit.page.goto(visit.base_url + link.removeprefix(settings.MODELYARD_PUBLIC_URL))
    page.wait_for_selector("text=This link has ended")
    assert_fits_and_is_accessible(visit)
    visit.complaints.clear()
    visit.open("/portal/forgotten/")
    assert_in_order(visit)


def test_a_locked_name_is_told_so_on_a_page_that_can_be_read(visit, customer):
    AccessAttempt.objects.create(
        username="mia", ip_address="127.0.0.1", failures_since_start=20
    )
    page = visit.page
    visit.open("/portal/sign-in/")
    page.fill("#id_username", "mia")
    page.fill("#id_password", PASSWORD)
    page.click("main button")

    page.wait_for_selector("h1:has-text('Too many failed sign-ins')")
    assert_fits_and_is_accessible(visit)
    page.click("text=Back to sign in")
    page.wait_for_selector("h1:has-text('Sign in')")


@pytest.mark.parametrize("state", ["closed", "inactive", "retired plan", "expired key"])
def test_pages_of_customers_that_cannot_go_on_say_so(desktop, customer, state):
    issue_key(customer)
    spend(customer)
    if state == "closed":
        changes.archive(customer)
        words = "This customer was closed on"
    elif state == "inactive":
        customer.active = False
        customer.save()
        words = "This customer is inactive"
    elif state == "retired plan":
        customer.plan.retired = True
        customer.plan.save()
        words = "no longer offered"
    else:
        ApiKey.objects.update(expires_at=timezone.now())
        words = "No key works any more"
    desktop.come_in(customer.members.get())

    for page in ("keys/", "", "try/", "refusals/"):
        desktop.open(f"/portal/{customer.pk}/{page}")
        assert_in_order(desktop)
        if page == "keys/" or state != "expired key":
            assert desktop.page.locator(f"text={words}").first.is_visible()


def test_a_key_is_made_with_the_keyboard_alone(desktop, customer):
    page = desktop.page
    desktop.open("/portal/sign-in/")
    assert page.evaluate("document.activeElement.id") == "id_username"
    page.keyboard.type("mia")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/portal/{customer.pk}/")

    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent").startswith("Skip")
    _tab_to(page, "API keys")
    page.keyboard.press("Enter")
    page.wait_for_url("**/keys/")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    _tab_to_field(page, "id_name")
    page.keyboard.type("typed")
    page.keyboard.press("Enter")

    page.wait_for_selector("#token")
    assert ApiKey.objects.get().name == "typed"
    page.reload()
    page.wait_for_selector("text=typed")
    assert ApiKey.objects.count() == 1
    assert desktop.complaints == []


def _tab_to(page, text):
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent").strip() == text:
            # People who use the tab key must see where they are.
            style = "getComputedStyle(document.activeElement).outlineStyle"
            assert page.evaluate(style) != "none"
            return
    pytest.fail(f"{text} cannot be reached")


def _tab_to_field(page, field):
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == field:
            return
    pytest.fail(f"{field} cannot be reached")
