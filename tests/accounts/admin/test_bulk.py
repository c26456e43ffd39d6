import base64
import csv
import html
import io
import re
from urllib.parse import urlencode

import pytest
from django.contrib.auth.models import Group
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from accounts.customers import api_keys, csv_import
from accounts.models import ApiKey, Customer
from tests.factories import CustomerFactory, PlanFactory, UserFactory

pytestmark = pytest.mark.django_db
IMPORT = "/admin/accounts/customer/import/"
TOKEN = re.compile(r"my_live_\w{12}_\w{49}")


@pytest.fixture
def manager(client):
    user = UserFactory.create(is_staff=True)
    user.groups.add(Group.objects.get(name="account managers"))
    client.force_login(user)
    return client


def issue_many(client, customer, **data):
    path = reverse("admin:accounts_customer_issue_many", args=[customer.pk])
    given = {"scopes": ["predict"], "name_prefix": "key", "mode": "live"}
    return client.post(path, given | data, follow=True)


def upload(client, text):
    content = text if isinstance(text, bytes) else text.encode()
    file = SimpleUploadedFile("customers.csv", content, content_type="text/csv")
    return client.post(IMPORT, {"file": file})


# Keys


def downloaded(page):
    """Read the file that the page offers."""
    link = re.search(r'href="data:text/csv;charset=utf-8;base64,([^"]+)"', page)[1]
    return base64.b64decode(html.unescape(link)).decode()


def test_many_keys_are_shown_once_with_a_file_and_work(manager):
    customer = CustomerFactory.create()

    response = issue_many(manager, customer, names="name\nshop\n\n=app,ignored\n")

    text = response.content.decode()
    rows = list(csv.DictReader(io.StringIO(downloaded(text))))
    assert "no-store" in response["Cache-Control"]
    assert 'download="api-keys.csv"' in text
    assert [row["name"] for row in rows] == ["shop", "'=app"]
    assert TOKEN.findall(text) == [row["api_key"] for row in rows]
    keys = [api_keys.recognise(row["api_key"]) for row in rows]
    assert [key.name for key in keys] == ["shop", "=app"]
    assert all(key.scopes == ["predict"] for key in keys)
    page = manager.get(reverse("admin:accounts_customer_change", args=[customer.pk]))
    assert not TOKEN.search(page.content.decode())


def test_many_keys_may_be_for_tests(manager):
    customer = CustomerFactory.create()

    issue_many(manager, customer, count="2", mode="test")

    assert [key.mode for key in customer.api_keys.all()] == ["test", "test"]


def test_keys_can_be_numbered(manager):
    customer = CustomerFactory.create()

    issue_many(manager, customer, count="3", name_prefix="till")

    names = customer.api_keys.order_by("pk").values_list("name", flat=True)
    assert list(names) == ["till 1", "till 2", "till 3"]


@pytest.mark.parametrize("prefix", ["ACME, Inc", '"till', "name"])
def test_the_beginning_of_numbered_names_is_taken_as_it_is(manager, prefix):
    customer = CustomerFactory.create()

    issue_many(manager, customer, count="2", name_prefix=prefix)

    names = set(customer.api_keys.values_list("name", flat=True))
    assert names == {f"{prefix} 1", f"{prefix} 2"}


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"names": "a", "count": "1"},
        {"names": "a\na"},
        {"names": "name"},
        {"names": "x" * 101},
        {"names": '"open'},
        {"names": "a", "scopes": []},
        {"names": "a", "mode": "both"},
        {"names": "a", "scopes": ["all"]},
        {"count": "0"},
        {"count": "-1"},
        {"count": "1001"},
        {"names": "\n".join(map(str, range(1001)))},
    ],
)
def test_senseless_lists_of_keys_issue_none(manager, data):
    response = issue_many(manager, CustomerFactory.create(), **data)

    assert response.status_code == 200
    assert not TOKEN.search(response.content.decode())
    assert not ApiKey.objects.exists()


# Customers


def test_an_import_shows_first_and_adds_when_confirmed(manager):
    PlanFactory.create(name="Team")
    text = "\ufeffName,plan,contact_email\r\nAcme,Team,a@example.com\r\nBiz,Team,\r\n"

    shown = upload(manager, text)
    assert "This would be added" in shown.content.decode()
    assert not Customer.objects.exists()
    manager.post(IMPORT, {"confirmed": shown.context["text"]})

    acme = Customer.objects.get(name="Acme")
    assert (acme.plan.name, acme.contact_email) == ("Team", "a@example.com")
    assert acme.history.get().history_user is not None
    assert Customer.objects.count() == 2


def test_what_spreadsheets_add_around_the_customers_is_left_out(manager):
    PlanFactory.create(name="Team")
    text = "name,plan,,\rAcme,Team,,\r,,,\rBiz,Team,,,,\r,\r"

    shown = upload(manager, text)
    manager.post(IMPORT, {"confirmed": shown.context["text"]})

    names = Customer.objects.order_by("name").values_list("name", flat=True)
    assert list(names) == ["Acme", "Biz"]


GOOD = "name,plan\nAcme,Team\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("name,plan\n", "no customer"),
        ("plan\nTeam\n", "missing: name"),
        ("name,plan,price\nAcme,Team,3\n", "no such columns: price"),
        ("name;plan\nAcme;Team\n", "Separate columns with commas."),
        ("name\tplan\nAcme\tTeam\n", "Separate columns with commas."),
        ("name,,plan\nAcme,,Team\n", "A column has no name."),
        ("name,plan\n,,\n,\n", "no customer"),
        ("name,name,plan\nA,B,Team\n", "comes twice"),
        (GOOD + "Biz,Nothing\n", "Line 3: There is no plan “Nothing”"),
        (GOOD + "Biz,Old\n", "There is no plan “Old” on offer"),
        (GOOD + "Acme,Team\n", "Line 3: There is a customer “Acme” already"),
        (GOOD + "Taken,Team\n", "There is a customer “Taken” already"),
        (GOOD + ",Team\n", "name: "),
        (GOOD + "\u200b,Team\n", "Line 3: name: Write a name that people can see."),
        (GOOD + "Biz\n", "fewer values"),
        (GOOD + "Biz,Team,x\n", "more values"),
        (GOOD + '"Biz,Team\n', "not CSV"),
        (GOOD + "x" * 201 + ",Team\n", "name: "),
        (b"name,plan\nAcm\xe9,Team\n", "not UTF-8"),
        (b"name,plan\nAc\0me,Team\n", "not text"),
        (b"\x89PNG\r\n\x1a\n", "not UTF-8"),
    ],
)
def test_a_broken_file_says_where_and_changes_nothing(manager, text, words):
    team = PlanFactory.create(name="Team")
    PlanFactory.create(name="Old", retired=True)
    CustomerFactory.create(name="Taken", plan=team)

    shown = upload(manager, text)
    if isinstance(text, str):
        manager.post(IMPORT, {"confirmed": text})

    assert words in shown.content.decode()
    assert "This would be added" not in shown.content.decode()
    assert list(Customer.objects.values_list("name", flat=True)) == ["Taken"]


def test_a_name_taken_since_the_look_adds_nobody_and_says_which(manager):
    team = PlanFactory.create(name="Team")
    shown = upload(manager, GOOD + "Biz,Team\n")
    CustomerFactory.create(name="Biz", plan=team)

    response = manager.post(IMPORT, {"confirmed": shown.context["text"]})

    assert "Line 3: There is a customer “Biz” already" in response.content.decode()
    assert not Customer.objects.filter(name="Acme").exists()


def test_what_is_confirmed_must_be_text(manager):
    PlanFactory.create(name="Team")

    response = manager.post(IMPORT, {"confirmed": "name,plan\nAc\0me,Team\n"})

    assert "not text" in response.content.decode()
    assert not Customer.objects.exists()


def test_a_file_near_the_limit_is_confirmed_as_its_form_sends_it(manager):
    PlanFactory.create(name="Team")
    notes = "é" * 30_000
    lines = [f"Customer {number},Team,{notes}\n" for number in range(33)]
    text = "name,plan,notes\n" + "".join(lines)
    assert 0.98 < len(text.encode()) / csv_import.LARGEST_BYTES < 1

    page = upload(manager, text).content.decode()
    form = page[: page.index('name="confirmed"')].rpartition("<form ")[2]
    if 'enctype="multipart/form-data"' in form:
        response = manager.post(IMPORT, {"confirmed": text})
    else:
        response = manager.post(
            IMPORT,
            urlencode({"confirmed": text}),
            content_type="application/x-www-form-urlencoded",
        )

    assert response.status_code == 302
    assert Customer.objects.count() == 33


def test_every_problem_of_every_line_is_named_at_once(manager):
    PlanFactory.create(name="Team")
    text = (
        "name,plan,contact_email\n"
        "Acme,Team,a@example.com\n"
        ",Nothing,no address\n"
        "Biz,Team\n"
        "Acme,Nothing,\n"
        "Cor,Team,x,y\n"
        "Dee,Nothing,\n"
        "Dee,Team,\n"
        '"Eve,Team,\n'
    )

    shown = upload(manager, text)

    named = [(each.line, each.text) for each in shown.context["reading"].problems]
    assert named == [
        (3, "There is no plan “Nothing” on offer."),
        (3, "name: This field cannot be blank."),
        (3, "contact_email: Enter a valid email address."),
        (4, "There are fewer values than columns."),
        (5, "There is no plan “Nothing” on offer."),
        (5, "There is a customer “Acme” already."),
        (6, "There are more values than columns."),
        (7, "There is no plan “Nothing” on offer."),
        (8, "There is a customer “Dee” already."),
        (9, "This is not CSV: unexpected end of data."),
    ]
    page = shown.content.decode()
    assert "10 problems in this file" in page
    assert all(f"Line {line}: " in page for line, _ in named)
    assert not Customer.objects.exists()


@pytest.mark.parametrize("group", ["data scientists", "operators"])
def test_others_neither_import_nor_issue(client, group):
    customer = CustomerFactory.create()
    person = UserFactory.create(is_staff=True)
    person.groups.add(Group.objects.get(name=group))
    client.force_login(person)

    issued = issue_many(client, customer, count="2")
    imported = client.post(IMPORT, {"confirmed": f"name,plan\nB,{customer.plan.name}"})

    assert (issued.status_code, imported.status_code) == (403, 403)
    assert not ApiKey.objects.exists()
    assert Customer.objects.count() == 1
