"""The form for a customer's overrides of its plan."""

import pytest
from django.contrib.auth.models import Group
from django.urls import reverse
from django.utils import timezone

from accounts.admin.limit_forms import LIMITS, LimitsField
from accounts.admission.limits import Quota, Rate
from accounts.admission.overrides import FURTHER_QUOTAS, OVERRIDABLE, PERIODS, UNITS
from accounts.customers import plans
from accounts.models import Customer
from inference.controller import publishing
from tests.factories import CustomerFactory, PlanFactory, UserFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def manager(client):
    person = UserFactory(is_staff=True)
    person.groups.add(Group.objects.get(name="account managers"))
    client.force_login(person)
    return client


def page_of(customer):
    return reverse("admin:accounts_customer_change", args=(customer.pk,))


def save(client, customer, **limits):
    empty = dict.fromkeys(("_".join(path) for path in LIMITS), "")
    given = {f"limit_overrides_{name}": text for name, text in (empty | limits).items()}
    fields = {"name": customer.name, "plan": customer.plan_id, "active": "on"}
    inlines = {
        f"{prefix}-{name}_FORMS": 0
        for prefix in ("api_keys", "Customer_members")
        for name in ("TOTAL", "INITIAL")
    }
    return client.post(page_of(customer), fields | inlines | given)


def test_every_limit_has_an_input():
    named = {path[0] for path in LIMITS}
    quotas = {path[1:] for path in LIMITS if path[0] == FURTHER_QUOTAS}

    assert named == {*OVERRIDABLE, FURTHER_QUOTAS}
    assert quotas == {(period, unit) for period in PERIODS for unit in UNITS}


def test_what_is_written_is_in_force_for_gateways_at_once(manager):
    plan = PlanFactory(daily_quota=100, further_quotas={"day": {"compute_ms": 5}})
    customer = CustomerFactory(plan=plan)
    pending = publishing.pending_sequence() or 0

    response = save(
        manager,
        customer,
        burst_requests="1,000",
        daily_quota="none",
        further_quotas_day_compute_ms="none",
        further_quotas_month_requests="7",
    )

    assert response.status_code == 302
    customer.refresh_from_db()
    assert customer.limit_overrides == {
        "burst_requests": 1000,
        "daily_quota": None,
        "further_quotas": {"day": {"compute_ms": None}, "month": {"requests": 7}},
    }
    assert publishing.pending_sequence() > pending
    published = publishing.assemble(sequence=1, now=timezone.now())
    [access] = published.customers
    assert access.limits == plans.limits_of(customer)
    assert access.limits.rates[0] == Rate("burst", 1000, 1)
    assert access.limits.quotas == (
        Quota("month", "requests", 7, label="month-requests"),
    )


def test_what_is_emptied_is_again_as_the_plan_says(manager):
    customer = CustomerFactory(
        limit_overrides={"burst_requests": 5, "further_quotas": {"day": {"rows": 1}}}
    )

    save(manager, customer)

    customer.refresh_from_db()
    assert customer.limit_overrides == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("burst_requests", "0"),
        ("burst_requests", "none"),
        ("burst_requests", "many"),
        ("daily_quota", "-1"),
        ("max_body_bytes", str(2**31)),
        ("further_quotas_day_requests", str(2**63)),
        ("further_quotas_day_requests", "1.5"),
        ("daily_quota", "1,5"),
        ("daily_quota", "1000,000"),
        ("daily_quota", "9" * 5000),
    ],
)
def test_what_no_gateway_could_keep_is_refused_by_its_name(manager, name, value):
    customer = CustomerFactory(limit_overrides={"max_keys": 3})

    response = save(manager, customer, **{name: value})

    assert response.status_code == 200
    assert "must be an integer from" in response.content.decode()
    assert value in response.content.decode()
    customer.refresh_from_db()
    assert customer.limit_overrides == {"max_keys": 3}


def test_the_page_shows_each_limit_beside_what_the_plan_says(manager):
    plan = PlanFactory(
        burst_requests=77, max_concurrency=None, daily_quota=1000, quota_unit="rows"
    )
    customer = CustomerFactory(plan=plan, limit_overrides={"burst_requests": 88})

    page = manager.get(page_of(customer)).content.decode()

    assert 'name="limit_overrides_burst_requests" value="88"' in page
    assert "plan: 77" in page
    assert "plan: none" in page
    assert "plan: 1,000 rows" in page
    # Quotas in rows are the plan's own, which have inputs already.
    assert 'name="limit_overrides_further_quotas_day_compute_ms"' in page
    assert page.count('for="id_limit_overrides_') == len(LIMITS) - 2


def test_a_new_customer_starts_as_its_plan_says(manager):
    url = reverse("admin:accounts_customer_add")
    assert manager.get(url).status_code == 200

    manager.post(url, {"name": "New", "plan": PlanFactory().pk, "active": "on"})

    assert Customer.objects.get().limit_overrides == {}


def test_what_is_shown_is_what_was_written():
    own = {
        "max_keys": 0,
        "monthly_quota": None,
        "further_quotas": {"month": {"shap_samples": 9, "rows": None}},
    }
    field = LimitsField()

    assert field.clean(field.widget.decompress(own)) == own
