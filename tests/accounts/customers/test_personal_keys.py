import datetime

import pytest
from django.contrib.auth.models import Group, User
from django.core.exceptions import ValidationError
from django.utils import timezone

from accounts.customers import api_keys, personal_keys
from accounts.models import ApiKey, Customer, Plan
from tests.factories import CustomerFactory, PlanFactory, UserFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def scientist():
    person = UserFactory.create(username="ada", is_staff=True)
    person.groups.add(Group.objects.get(name="data scientists"))
    return person


def again(person):
    """Read a person anew, without the rights that Django remembers."""
    return User.objects.get(pk=person.pk)


def works(issued):
    return api_keys.recognise(issued.token) is not None


def test_a_key_predicts_explains_and_is_charged_nothing(scientist):
    issued = personal_keys.issue(scientist)

    key = api_keys.recognise(issued.token)
    assert key.mode == "test"
    assert key.scopes == ["predict", "explain", "models:read"]
    assert key.created_by == scientist
    assert key.customer.for_staff
    assert key.customer.plan.max_predict_rows == 1000
    # One person's loop leaves room for the others.
    assert (key.burst_requests, key.sustained_requests) == (20, 300)
    assert key.customer.plan.burst_requests == 2000
    left = key.expires_at - timezone.now()
    assert datetime.timedelta(days=89) < left <= datetime.timedelta(days=90)


def test_keys_of_all_people_have_one_customer(scientist):
    other = UserFactory.create(is_superuser=True, is_staff=True)

    personal_keys.issue(scientist)
    personal_keys.issue(other)

    assert Customer.objects.get(for_staff=True).api_keys.count() == 2


def test_a_customer_and_a_plan_of_that_name_are_left_alone(scientist):
    paying = CustomerFactory.create(name="STAFF", plan=PlanFactory.create(name="Staff"))

    issued = personal_keys.issue(scientist)

    assert issued.key.customer != paying
    assert issued.key.customer.plan != paying.plan
    assert not paying.api_keys.exists()
    assert Plan.objects.count() == 2


def test_a_person_has_one_key_at_a_time(scientist):
    first = personal_keys.issue(scientist)

    with pytest.raises(ValidationError, match="a key already"):
        personal_keys.issue(scientist)
    api_keys.revoke(first.key)
    second = personal_keys.issue(scientist)

    assert not works(first)
    assert personal_keys.current(scientist) == second.key


def test_after_a_rotation_both_work_for_a_day(scientist):
    first = personal_keys.issue(scientist)

    second = personal_keys.rotate(scientist)

    first.key.refresh_from_db()
    assert works(first)
    assert works(second)
    assert personal_keys.current(scientist) == second.key
    assert first.key.expires_at <= timezone.now() + datetime.timedelta(days=1)


def test_without_a_key_nothing_is_rotated(scientist):
    with pytest.raises(ValidationError, match="no key"):
        personal_keys.rotate(scientist)


def test_keys_of_pages_last_an_hour_and_the_oldest_of_six_ends(scientist):
    own = personal_keys.issue(scientist)

    pages = [personal_keys.issue_for_page(scientist) for _ in range(6)]

    assert [works(page) for page in pages] == [False, *[True] * 5]
    assert works(own)
    assert personal_keys.current(scientist) == own.key
    left = pages[-1].key.expires_at - timezone.now()
    assert datetime.timedelta(minutes=59) < left <= datetime.timedelta(hours=1)


@pytest.mark.parametrize(
    "rights", [{"is_staff": True}, {"is_superuser": True}, {"is_active": False}]
)
def test_who_may_not_see_models_gets_no_key(rights):
    person = UserFactory.create(**rights)

    for make in (personal_keys.issue, personal_keys.issue_for_page):
        with pytest.raises(ValidationError, match="may not see"):
            make(person)
    assert not ApiKey.objects.exists()


@pytest.mark.parametrize("change", [{"is_active": False}, {"is_staff": False}])
def test_keys_end_with_the_account_at_once(scientist, change):
    issued = personal_keys.issue(scientist)
    page = personal_keys.issue_for_page(scientist)

    for name, value in change.items():
        setattr(scientist, name, value)
    scientist.save()

    assert not works(issued)
    assert not works(page)
    assert issued.key.history.first().revoked_at is not None


def test_keys_end_when_the_account_is_deleted(scientist):
    issued = personal_keys.issue(scientist)

    scientist.delete()

    assert not works(issued)


def test_saving_an_account_and_signing_in_end_nothing(scientist, client):
    issued = personal_keys.issue(scientist)

    client.force_login(again(scientist))
    again(scientist).save()

    assert works(issued)


def test_keys_end_once_the_right_to_see_models_is_gone(scientist):
    other = UserFactory.create(is_superuser=True, is_staff=True)
    issued, kept = personal_keys.issue(scientist), personal_keys.issue(other)
    assert personal_keys.end_forbidden() == 0

    scientist.groups.clear()

    assert personal_keys.end_forbidden() == 1
    assert not works(issued)
    assert works(kept)


def test_keys_end_when_an_account_is_ended_in_bulk(scientist):
    issued = personal_keys.issue(scientist)

    User.objects.filter(pk=scientist.pk).update(is_active=False)

    assert personal_keys.end_forbidden() == 1
    assert not works(issued)


def test_there_are_no_keys_while_the_customer_is_inactive(scientist):
    personal_keys.issue(scientist)
    customer = Customer.objects.get(for_staff=True)
    customer.active = False
    customer.save()

    with pytest.raises(ValidationError, match="inactive"):
        personal_keys.issue_for_page(scientist)


def test_whoever_ends_keys_asks_once_for_each_person(
    scientist, django_assert_max_num_queries
):
    for _ in range(5):
        personal_keys.issue_for_page(scientist)

    with django_assert_max_num_queries(4):
        assert personal_keys.end_forbidden() == 0
