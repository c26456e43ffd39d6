"""An account manager's whole day in a browser, from a new customer to its invoice.

Everything is clicked as a person would. With MODELYARD_PICTURES=1 each step is also
drawn into docs/images, for docs/account-managers.md.
"""

import csv
import os
import random
import re
from pathlib import Path

import msgspec
import pytest
from django.contrib.auth.models import Group
from django.utils import timezone

from accounts.customers import api_keys
from accounts.models import ApiKey, Customer, Plan
from accounts.quotas import soft_limits
from accounts.usage import recording
from tests.accounts.quotas.test_leases import event
from tests.accounts.usage.test_refused_calls import refused
from tests.browsing import CHROMIUM, Visit
from tests.factories import UserFactory

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH"),
]
DOCS = Path(__file__).resolve().parents[2] / "docs"
DOCUMENT = (DOCS / "account-managers.md").read_text()
PASSWORD = "correct horse battery staple"
TOKEN = re.compile(r"my_(live|test)_\w{12}_\w{49}")
# So that pictures show what real keys look like, and none that works.
HIDE_TOKENS = """() => {
  const shorten = (text) => text.replace(/(my_(?:live|test)_\\w{12}_)\\w{49}/g, "$1…");
  for (const input of document.querySelectorAll("input"))
    input.value = shorten(input.value);
  for (const shown of document.querySelectorAll("pre, code"))
    shown.textContent = shorten(shown.textContent);
}"""


@pytest.fixture
def visit(browser, live_server):
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(60_000)
    yield Visit(context.new_page(), live_server.url)
    context.close()


@pytest.fixture
def alex():
    person = UserFactory.create(username="alex", is_staff=True)
    person.groups.add(Group.objects.get(name="account managers"))
    return person


def picture(visit, name):
    """Draw the page for the guide, which must show every picture there is."""
    assert f"images/{name}.png" in DOCUMENT
    if os.environ.get("MODELYARD_PICTURES"):
        visit.page.evaluate(HIDE_TOKENS)
        visit.page.mouse.move(0, 0)
        visit.page.screenshot(path=DOCS / "images" / f"{name}.png")


def go(visit, entry):
    """Click an entry of the sidebar."""
    visit.page.click(f"#nav-sidebar a:has-text('{entry}')")
    visit.settle()


def add(visit, entry):
    """Open the list of an entry, and click its button to add one."""
    go(visit, entry)
    visit.page.click("a[href$='/add/'], a[href*='/add/?']")
    visit.settle()


def press(visit, words):
    """Press the button that sends a form."""
    visit.page.click(f"button:has-text('{words}') >> visible=true")
    visit.settle()


def save(visit):
    before = visit.page.url
    visit.page.click("[name=_save]")
    visit.page.wait_for_url(lambda url: url != before)
    visit.settle()


def add_plan(visit, *, name, daily_quota, price):
    page = visit.page
    add(visit, "Plans")
    page.fill("[name=name]", name)
    page.fill("[name=daily_quota]", str(daily_quota))
    save(visit)
    add(visit, "Prices")
    page.select_option("[name=plan]", label=name, force=True)
    page.select_option("[name=unit]", "rows", force=True)
    page.fill("[name=amount]", price)
    page.fill("[name=valid_from]", f"{timezone.now().date():%Y-%m-01}")
    save(visit)


def open_customer(visit, name):
    go(visit, "Customers")
    visit.page.click(f"#result_list a:has-text('{name}')")
    visit.settle()


def account_of(visit, token):
    """Ask the API about a key, as its owner would."""
    answer = visit.page.request.get(
        f"{visit.base_url}/api/v1/me", headers={"Authorization": f"Bearer {token}"}
    )
    return answer.status, answer.json()


def use(customer, token, rows):
    """Use a key: calls as gateways report them, one of them refused."""
    key = api_keys.recognise(token)
    now, chance = timezone.now(), random.Random(7)
    sizes = []
    while sum(sizes) < rows:
        sizes.append(min(chance.randint(1, 20), rows - sum(sizes)))
    calls = [
        msgspec.structs.replace(
            event(customer, size, at=now),
            key_id=key.key_id,
            model=chance.choice(["breast-cancer", "breast-cancer", "digits"]),
        )
        for size in sizes
    ]
    late = msgspec.structs.replace(
        refused(customer), key_id=key.key_id, at=now.timestamp()
    )
    recording.record("b-1.spool", [*calls, late], 1)
    soft_limits.look(now=now)


def test_a_whole_day(visit, alex, mailoutbox):
    page = visit.page
    visit.log_in("alex", PASSWORD)

    # Two plans with their prices, and a customer on the smaller one.
    add_plan(visit, name="Starter", daily_quota=1000, price="0.005")
    add_plan(visit, name="Business", daily_quota=50_000, price="0.0025")
    go(visit, "Plans")
    page.click("#result_list a:has-text('Starter')")
    visit.settle()
    picture(visit, "day-plan")
    add(visit, "Customers")
    page.fill("[name=name]", "Acme")
    page.select_option("[name=plan]", label="Starter", force=True)
    page.fill("[name=contact_email]", "billing@acme.example")
    picture(visit, "day-customer")
    save(visit)
    customer = Customer.objects.get(name="Acme")
    assert page.url.endswith(f"/customer/{customer.pk}/change/")
    assert page.locator("text=No calls yet").is_visible()

    # Somebody there who may sign in to the portal.
    page.click("a:has-text('Invite person')")
    page.fill("[name=email]", "mia@acme.example")
    picture(visit, "day-invite")
    press(visit, "Invite")
    assert page.locator("text=a link to set a password was sent").is_visible()
    assert [mail.to for mail in mailoutbox] == [["mia@acme.example"]]
    assert customer.members.get().username == "mia@acme.example"

    # Its first key, which works.
    page.click("a:has-text('Issue key')")
    page.fill("[name=name]", "web shop")
    save_button = page.locator("[name=_save]")
    save_button.click()
    page.wait_for_selector("#token")
    first = page.input_value("#token")
    picture(visit, "day-key")
    status, account = account_of(visit, first)
    assert (status, account["plan"]) == (200, "Starter")

    # Loading the page again shows the key's page, and issues nothing.
    page.reload()
    visit.settle()
    assert first not in page.content()
    assert page.url.endswith(f"/apikey/{ApiKey.objects.get().pk}/change/")

    # It is used until its quota is nearly spent, which the page says.
    use(customer, first, 870)
    open_customer(visit, "Acme")
    assert page.locator("text=870 of 1,000 rows").first.is_visible()
    assert page.locator("[role=status]:has-text('More than 80 %')").is_visible()
    assert page.locator("text=QUOTA_EXCEEDED").first.is_visible()
    picture(visit, "day-usage")

    # So it is given the larger plan, and its key knows of it.
    page.select_option("[name=plan]", label="Business", force=True)
    save(visit)
    assert Customer.objects.get().plan == Plan.objects.get(name="Business")
    assert account_of(visit, first)[1]["plan"] == "Business"
    open_customer(visit, "Acme")
    assert not page.locator("text=More than 80 %").count()
    page.click("a:has-text('History')")
    visit.settle()
    assert page.locator("#content >> text=alex").first.is_visible()
    picture(visit, "day-history")

    # The key is rotated; only the new one is left.
    open_customer(visit, "Acme")
    page.click("a:has-text('web shop')")
    page.click("a:has-text('Rotate')")
    page.fill("[name=overlap_hours]", "0")
    picture(visit, "day-rotate")
    press(visit, "Rotate")
    second = page.input_value("#token")
    assert account_of(visit, first)[0] == 401
    assert account_of(visit, second)[0] == 200

    # The month's invoice: what was used today, at the price of each minute's plan.
    page.click("text=back to Acme")
    visit.settle()
    page.click("text=Export >> visible=true")
    page.click("text=Invoice lines >> visible=true")
    visit.settle()
    picture(visit, "day-invoice")
    with page.expect_download() as download:
        page.click(f"a:has-text('{timezone.now():%B %Y}')")
    with open(download.value.path(), newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["unit"] == "rows"]
    prices = {"Starter": 0.005, "Business": 0.0025}
    assert sum(float(line["units"]) for line in lines) == 870
    for line in lines:
        cost = float(line["units"]) * prices[line["plan"]]
        assert float(line["cost"]) == pytest.approx(cost)
    assert visit.complaints == []


def test_many_customers_and_many_keys(visit, alex):
    page = visit.page
    Plan.objects.create(name="Starter", daily_quota=1000)
    visit.log_in("alex", PASSWORD)

    # A file with mistakes changes nothing, and names them all.
    go(visit, "Customers")
    page.click("a:has-text('Import from CSV') >> visible=true")
    choose(page, "name,plan,contact_email\nNorth,Starter,n@x\n,Gold,\nSouth,Starter\n")
    press(visit, "Look at it first")
    assert page.locator("text=/^Line \\d+:/").count() == 4
    assert not Customer.objects.exists()
    picture(visit, "import-mistakes")

    # The corrected one is shown, and added when it is confirmed.
    choose(
        page,
        "name,plan,contact_email\n"
        "North,Starter,north@example.com\n"
        "South,Starter,south@example.com\n"
        "West,Starter,\n",
    )
    press(visit, "Look at it first")
    assert not Customer.objects.exists()
    picture(visit, "import")
    press(visit, "Add 3 customers")
    assert page.locator("text=Added 3 customers").is_visible()
    assert Customer.objects.count() == 3

    # A key for each till of one of them.
    open_customer(visit, "North")
    page.click("a:has-text('Issue many')")
    page.fill("[name=names]", "till 1\ntill 2\ntill 3\n")
    press(visit, "Issue the keys")
    tokens = [
        TOKEN.search(text)[0] for text in page.locator("td code").all_inner_texts()
    ]
    with page.expect_download() as download:
        page.click("text=Download as CSV")
    picture(visit, "bulk-keys")
    with open(download.value.path(), newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["api_key"] for row in rows] == tokens
    assert [row["name"] for row in rows] == ["till 1", "till 2", "till 3"]
    assert [account_of(visit, token)[0] for token in tokens] == [200, 200, 200]
    page.reload()
    visit.settle()
    assert page.url.endswith("/change/")
    assert not TOKEN.search(page.content())
    assert ApiKey.objects.count() == 3
    assert visit.complaints == []


def choose(page, text):
    file = {"name": "customers.csv", "mimeType": "text/csv", "buffer": text.encode()}
    page.set_input_files("[name=file]", file)


def test_what_account_managers_may_not_do_is_not_offered(visit, alex):
    visit.log_in("alex", PASSWORD)

    assert visit.page.locator("a[href*='/accounts/customer/']").count()
    assert not visit.page.locator("a[href*='/registry/']").count()
