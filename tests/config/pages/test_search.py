import time

import msgspec
import pytest
from django.contrib.auth.models import Group
from django.urls import reverse
from django.utils import timezone

from accounts.metering.spool import SpoolWriter
from accounts.models import Refusal
from tests.accounts.metering.test_spool import event as make_event
from tests.factories import CustomerFactory, UserFactory, issue_key
from tests.factories_jobs import make_job
from tests.factories_registry import ModelVersionFactory, RouteFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def find(client):
    client.force_login(UserFactory.create(is_staff=True, is_superuser=True))

    def ask(term):
        response = client.get(reverse("admin:search"), {"s": term})
        assert response.status_code == 200
        if response.context is None:
            return []
        return [found.title for found in response.context["results"]]

    return ask


def test_customers_keys_and_models_are_found_by_part_of_their_names(find):
    customer = CustomerFactory.create(name="Numbers Ltd")
    key = issue_key(customer, name="numbers of the night").key
    ModelVersionFactory.create(registered_model__name="numbers-to-text")

    assert find("Numbers") == ["Numbers Ltd", str(key), "numbers-to-text"]


def test_a_key_is_found_by_its_id_and_by_its_whole_token(find):
    issued = issue_key()

    assert find(issued.key.key_id) == [str(issued.key)]
    assert find(issued.token) == [str(issued.key)]


def test_a_version_is_found_by_its_model_and_number(find):
    version = ModelVersionFactory.create(registered_model__name="churn model")

    assert find(f"churn model v{version.version}") == [str(version)]
    assert find(f"churn {version.version}") == [str(version)]


def test_a_refused_call_is_found_by_its_request_id(find):
    key = issue_key().key
    at = timezone.now()
    Refusal.objects.create(
        customer=key.customer,
        key_id=key.key_id,
        request_id="req-17",
        at=at,
        operation="predict",
        model="m",
        status=429,
        code="QUOTA_EXCEEDED",
    )

    assert find("req-17") == [f"429 QUOTA_EXCEEDED at {at:%Y-%m-%d %H:%M:%S} UTC"]
    assert find("req-1") == []


def test_a_call_is_told_with_its_version_and_the_weights_that_applied(client):
    client.force_login(UserFactory.create(is_staff=True, is_superuser=True))
    route = RouteFactory.create(with_canary=True)
    key = issue_key().key
    Refusal.objects.create(
        customer=key.customer,
        key_id=key.key_id,
        request_id="req-18",
        at=timezone.now(),
        operation="predict",
        model=route.registered_model.name,
        version="7",
        status=500,
        code="MODEL_ERROR",
    )

    response = client.get(reverse("admin:search"), {"s": "req-18"})

    [found] = response.context["results"]
    assert found.description == (
        f"Call of {key.customer}, {route.registered_model.name} v7; then"
        f" v{route.default_version.version} 90 %,"
        f" v{route.canary_version.version} 10 %"
    )


@pytest.mark.parametrize("sees_customers", [True, False])
def test_a_call_that_was_answered_is_found_by_the_id_that_we_gave(
    client, home, settings, sees_customers
):
    person = UserFactory.create(is_staff=True, is_superuser=sees_customers)
    person.groups.add(Group.objects.get(name="data scientists"))
    client.force_login(person)
    route = RouteFactory.create(with_canary=True)
    customer = CustomerFactory.create(name="Numbers Ltd")
    boot_id, model = "0123456789abcdef", route.registered_model.name
    writer = SpoolWriter(settings.HOME.spool, boot_id)
    answered = msgspec.structs.replace(
        make_event(1),
        at=time.time(),
        customer_id=customer.pk,
        model=model,
        version=str(route.canary_version.version),
        variant="canary",
        request_id=f"req_{boot_id}00000001",
    )
    writer.append([answered])

    response = client.get(reverse("admin:search"), {"s": answered.request_id})

    [found] = response.context["results"]
    assert found.title.startswith("200 at ")
    of = " of Numbers Ltd" if sees_customers else ""
    assert found.description.startswith(
        f"Call{of}, {model} v{answered.version} (canary); then v"
    )
    assert ("customer" in found.link) == sees_customers
    writer.close()


def test_a_job_is_found_by_its_id(find):
    job = make_job(status="completed")

    assert find(job.pk) == [job.pk]


def test_a_page_is_found_by_its_title(find):
    assert find("model vers") == ["Model versions"]


def test_finding_nothing_is_said(client):
    client.force_login(UserFactory.create(is_staff=True, is_superuser=True))

    response = client.get(reverse("admin:search"), {"s": "<no such>"})

    assert "Nothing found for “&lt;no such&gt;”." in response.content.decode()


def test_nobody_finds_what_they_may_not_see(client):
    person = UserFactory.create(is_staff=True)
    person.groups.add(Group.objects.get(name="data scientists"))
    client.force_login(person)
    CustomerFactory.create(name="Secret Ltd")
    ModelVersionFactory.create(registered_model__name="secret-model")

    response = client.get(reverse("admin:search"), {"s": "secret"})

    assert [found.title for found in response.context["results"]] == ["secret-model"]


def test_strangers_search_nothing(client):
    response = client.get(reverse("admin:search"), {"s": "a"})

    assert response.status_code == 302
