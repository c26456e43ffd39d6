import datetime

import pytest
from django.contrib.auth.models import Group
from django.urls import reverse
from django.utils import timezone

from accounts.admin import billing
from accounts.models import ApiKey, Customer, Plan, Price, Statement
from accounts.quotas import soft_limits
from tests.accounts.usage.test_billing import TENTH, use
from tests.factories import ApiKeyFactory, CustomerFactory, PlanFactory, UserFactory
from tests.factories_registry import RegisteredModelFactory

pytestmark = pytest.mark.django_db


def url(name, *args):
    return reverse(f"admin:accounts_{name}", args=args)


@pytest.fixture
def manager(client):
    person = UserFactory(is_staff=True)
    person.groups.add(Group.objects.get(name="account managers"))
    client.force_login(person)
    return client


def test_a_price_is_kept_and_listed(manager):
    plan = PlanFactory()
    form = {"plan": plan.pk, "unit": "rows", "model": "", "valid_from": "2026-01-01"}

    manager.post(url("price_add"), form | {"amount": "0.002"})
    refused = manager.post(url("price_add"), form | {"amount": "-1"})

    assert Price.objects.get().history.count() == 1
    assert refused.status_code == 200
    assert "every model" in manager.get(url("price_changelist")).content.decode()


def lines_of(response):
    return b"".join(response.streaming_content).decode().splitlines()


@pytest.fixture
def last_month():
    # The newest month that may be closed: one that is over for an hour.
    this = timezone.now() - datetime.timedelta(hours=2)
    this = this.replace(day=1, hour=12)
    return (this - datetime.timedelta(days=1)).replace(day=1)


def test_lines_of_this_month_are_downloaded_as_they_are_so_far(manager):
    key = ApiKeyFactory()
    Price.objects.create(
        plan=key.customer.plan, unit="rows", amount="0.5", valid_from="2020-01-01"
    )
    now = timezone.now()
    use(key, rows=3, at=now)
    path = url("customer_export_invoice", key.customer.pk)

    response = manager.get(path, {"month": f"{now:%Y-%m}"})
    refused = manager.post(path, {"month": f"{now:%Y-%m}"}, follow=True)

    lines = lines_of(response)
    assert lines[0].startswith("day,customer,plan")
    assert lines[-1].endswith(",rows,3,0.5,1.5,")
    assert "so-far" in response["Content-Disposition"]
    assert "an hour after it is over" in refused.content.decode()
    assert not Statement.objects.exists()


def test_a_month_is_closed_downloaded_and_corrected(manager, last_month):
    key = ApiKeyFactory()
    key.customer.history.update(history_date=last_month)
    Customer.objects.update(created_at=last_month)
    Price.objects.create(
        plan=key.customer.plan, unit="rows", amount="0.5", valid_from="2020-01-01"
    )
    use(key, rows=3, at=last_month)
    path = url("customer_export_invoice", key.customer.pk)
    month = {"month": f"{last_month:%Y-%m}"}
    open_still = manager.get(path, month)

    manager.post(path, month)
    use(key, rows=2, at=last_month)
    page = manager.post(path, month | {"correct": "", "reason": "late"}, follow=True)

    assert open_still.status_code == 409
    closed, correction = Statement.objects.order_by("number")
    assert (closed.total, correction.total, correction.reason) == ("1.5", "1", "late")
    assert f"{last_month:%B %Y}: 2.5" in page.content.decode()
    for response in (
        manager.get(path, month),
        manager.get(url("statement_download", closed.pk)),
    ):
        assert lines_of(response)[-1].endswith(",rows,3,0.5,1.5,1")
    again = manager.get(url("statement_download", correction.pk))
    assert lines_of(again)[-1].endswith(",rows,2,0.5,1,2")
    for name in ("statement_changelist", "customer_change"):
        found = url(name) if "list" in name else url(name, key.customer.pk)
        assert manager.get(found).status_code == 200
    assert manager.get(url("statement_change", closed.pk)).status_code == 200
    assert manager.post(url("statement_delete", closed.pk)).status_code == 403


def test_a_month_before_the_customer_is_refused_in_words(manager):
    key = ApiKeyFactory()
    path = url("customer_export_invoice", key.customer.pk)

    refused = manager.post(path, {"month": "2001-03"}, follow=True)

    began = f"{key.customer} began in {timezone.now():%B %Y}."
    assert f"March 2001 has nothing to close: {began}" in refused.content.decode()
    assert not Statement.objects.exists()
    assert manager.get(path, {"month": "2001-03"}).status_code == 404


def test_who_only_watches_downloads_months_but_closes_none(client, last_month):
    key = ApiKeyFactory()
    key.customer.history.update(history_date=last_month)
    Customer.objects.update(created_at=last_month)
    person = UserFactory(is_staff=True)
    person.groups.add(Group.objects.get(name="operators"))
    client.force_login(person)
    path = url("customer_export_invoice", key.customer.pk)

    refused = client.post(path, {"month": f"{last_month:%Y-%m}"})

    assert refused.status_code == 403
    assert "an account manager closes it" in client.get(path).content.decode()


def test_a_price_names_a_model_that_is_there(manager):
    RegisteredModelFactory(name="digits")
    plan = PlanFactory()
    form = {"plan": plan.pk, "unit": "rows", "valid_from": "2026-01-01", "amount": "1"}

    refused = manager.post(url("price_add"), form | {"model": "digit"})
    manager.post(url("price_add"), form | {"model": "digits"})

    assert "model" in refused.context["adminform"].form.errors
    price = Price.objects.get()
    assert price.model == "digits"
    # A model may be gone by now.
    Price.objects.update(model="gone")
    manager.post(url("price_change", price.pk), form | {"model": "gone", "amount": "2"})
    price.refresh_from_db()
    assert (price.model, price.amount) == ("gone", 2)


def test_a_price_for_days_that_are_over_says_what_it_changes(manager):
    form = {"plan": PlanFactory().pk, "unit": "rows", "model": "", "amount": "1"}
    today = timezone.now().date()
    yesterday = today - datetime.timedelta(days=1)

    past = manager.post(
        url("price_add"), form | {"valid_from": yesterday.isoformat()}, follow=True
    )
    coming = manager.post(
        url("price_add"), form | {"valid_from": today.isoformat()}, follow=True
    )

    words = "This price is valid on past days"
    assert words in past.content.decode()
    assert words not in coming.content.decode()


@pytest.mark.parametrize("go", ["later", "deleted", "deleted with others"])
def test_a_price_that_held_for_days_that_are_over_says_so_when_it_goes(manager, go):
    plan = PlanFactory()
    facts = {"unit": "rows", "model": "", "amount": "1"}
    price = Price.objects.create(plan=plan, valid_from="2026-01-01", **facts)
    tomorrow = timezone.now().date() + datetime.timedelta(days=1)
    path, form = {
        "later": ("price_change", {"plan": plan.pk, "valid_from": tomorrow, **facts}),
        "deleted": ("price_delete", {"post": "yes"}),
        "deleted with others": (
            "price_changelist",
            {"action": "delete_selected", "_selected_action": price.pk, "post": "yes"},
        ),
    }[go]
    at = () if go == "deleted with others" else (price.pk,)

    page = manager.post(url(path, *at), form, follow=True)

    assert "This price is valid on past days" in page.content.decode()
    assert not Price.objects.filter(valid_from="2026-01-01").exists()


def test_the_customers_page_shows_what_each_version_costs_per_request(manager):
    key = ApiKeyFactory()
    plan = key.customer.plan
    Price.objects.create(plan=plan, unit="rows", amount="0.5", valid_from="2020-01-01")
    page = url("customer_change", key.customer.pk)
    before = manager.get(page).context["overview"]["costs"]
    for _ in range(3):
        use(key, rows=1, at=timezone.now())
    use(key, rows=20, version="2", at=timezone.now())

    response = manager.get(page)

    assert before is None
    assert response.context["overview"]["costs"] == {
        "total": "11.5",
        "versions": [
            {
                "model": "cancer",
                "version": "2",
                "requests": 1,
                "cost": "10",
                "per_request": "10",
            },
            {
                "model": "cancer",
                "version": "1",
                "requests": 3,
                "cost": "1.5",
                "per_request": "0.5",
            },
        ],
    }
    assert "This month’s cost" in response.content.decode()


def test_a_month_that_is_none_is_not_found(manager):
    customer = CustomerFactory()

    for month in ("2026-13", "x", "../etc", "9999-12", "0001-01"):
        response = manager.get(
            url("customer_export_invoice", customer.pk), {"month": month}
        )
        assert response.status_code == 404


def test_a_customer_is_archived(manager):
    key = ApiKeyFactory()

    manager.post(url("customer_archive", key.customer.pk), {"_form_submitted": "True"})

    assert Customer.objects.get().archived_at is not None
    assert ApiKey.objects.get().revoked_at is not None


def test_warnings_are_listed(manager):
    key = ApiKeyFactory(customer__plan__daily_quota=10)
    use(key, rows=9)
    soft_limits.look(now=TENTH)

    page = manager.get(url("limitevent_changelist")).content.decode()

    assert "80 % of day, rows" in page
    assert "9 of 10" in page


def test_limits_in_json_are_checked_and_may_be_emptied(manager):
    plan = PlanFactory()
    form = {
        "name": "P",
        "description": "",
        "burst_requests": 1,
        "sustained_requests": 1,
        "quota_unit": "rows",
        "max_predict_rows": 1,
        "max_batch_rows": 1,
        "max_job_rows": 1,
        "max_uploads": 1,
        "max_upload_bytes": 1,
        "max_keys": 1,
    }

    bad = manager.post(
        url("plan_change", plan.pk),
        form | {"further_quotas": '{"day": {"rows": -1}}'},
    )
    good = manager.post(url("plan_change", plan.pk), form | {"further_quotas": ""})

    assert "must be an integer from 0" in bad.content.decode()
    assert good.status_code == 302
    assert Plan.objects.get().further_quotas == {}


def test_a_key_gets_networks_and_limits_of_its_own(manager):
    customer = CustomerFactory()
    form = {
        "customer": customer.pk,
        "name": "k",
        "mode": "live",
        "scopes": ["predict"],
        "allowed_models": "",
        "expires_at_0": "",
        "expires_at_1": "",
        "burst_requests": 5,
    }

    bad = manager.post(url("apikey_add"), form | {"allowed_networks": "10.0.0.1/8"})
    manager.post(url("apikey_add"), form | {"allowed_networks": "10.0.0.0/8\n::1"})

    assert "no IPv4 or IPv6 network" in bad.content.decode()
    key = ApiKey.objects.get()
    assert key.allowed_networks == ["10.0.0.0/8", "::1/128"]
    assert key.burst_requests == 5
    page = manager.get(url("apikey_change", key.pk)).content.decode()
    assert "10.0.0.0/8" in page
    assert datetime.datetime.now(datetime.UTC) > key.created_at


def test_months_to_download_begin_with_the_customer(manager):
    customer = CustomerFactory()
    Customer.objects.update(
        created_at=datetime.datetime(2026, 9, 30, tzinfo=datetime.UTC)
    )
    customer.refresh_from_db()
    now = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)

    page = manager.get(url("customer_export_invoice", customer.pk))

    named = [f"{month:%Y-%m}" for month in billing.months(customer, now=now)]
    assert named == ["2026-11", "2026-10", "2026-09"]
    assert f"?month={timezone.now():%Y-%m}" in page.content.decode()
