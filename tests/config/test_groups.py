import pytest
from django.contrib.auth.models import Group, Permission
from django.urls import reverse

from config.groups import GROUPS, ensure_groups
from tests.factories import CustomerFactory, UserFactory
from tests.factories_registry import RegisteredModelFactory

pytestmark = pytest.mark.django_db

# Lists of the admin that each kind of people may open.
LISTS = {
    "registry_registeredmodel": {"data scientists", "operators"},
    "registry_modelversion": {"data scientists", "operators"},
    "registry_route": {"data scientists", "operators"},
    "accounts_customer": {"account managers", "operators"},
    "accounts_plan": {"account managers", "operators"},
    "accounts_apikey": {"account managers", "operators"},
    "inference_engine": {"data scientists", "operators"},
    "inference_predictionjob": {"data scientists", "operators"},
    "auth_user": {"operators"},
    "auth_group": {"operators"},
}


def _member(group):
    person = UserFactory.create(is_staff=True)
    person.groups.add(Group.objects.get(name=group))
    return person


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("page", LISTS)
def test_people_open_the_lists_of_their_work_and_no_others(client, group, page):
    client.force_login(_member(group))

    response = client.get(reverse(f"admin:{page}_changelist"))

    assert response.status_code == (200 if group in LISTS[page] else 403)


@pytest.mark.parametrize("group", GROUPS)
def test_everybody_opens_the_dashboard_and_sees_only_their_own_links(client, group):
    client.force_login(_member(group))

    page = client.get(reverse("admin:index")).content.decode()

    for name, groups in LISTS.items():
        link = f'href="{reverse(f"admin:{name}_changelist")}"'
        assert (link in page) == (group in groups), name


def test_account_managers_cannot_touch_models(client):
    client.force_login(_member("account managers"))
    model = RegisteredModelFactory.create()

    response = client.post(
        reverse("admin:registry_registeredmodel_change", args=[model.pk]),
        {"description": "mine"},
    )

    assert response.status_code == 403


def test_data_scientists_cannot_touch_customers(client):
    client.force_login(_member("data scientists"))
    customer = CustomerFactory.create()

    url = reverse("admin:accounts_customer_delete", args=[customer.pk])

    assert client.post(url, {"post": "yes"}).status_code == 403


def test_operators_see_customers_but_do_not_change_them(client):
    client.force_login(_member("operators"))

    assert client.get(reverse("admin:accounts_customer_add")).status_code == 403


def test_operators_cannot_touch_a_superuser(client):
    client.force_login(_member("operators"))
    boss = UserFactory.create(is_superuser=True)

    change = client.post(reverse("admin:auth_user_change", args=[boss.pk]), {})
    password = client.get(reverse("admin:auth_user_password_change", args=[boss.pk]))
    delete = client.post(
        reverse("admin:auth_user_delete", args=[boss.pk]), {"post": "yes"}
    )

    assert (change.status_code, password.status_code, delete.status_code) == (
        403,
        403,
        403,
    )


def test_operators_cannot_make_themselves_superusers(client):
    operator = _member("operators")
    client.force_login(operator)

    client.post(
        reverse("admin:auth_user_change", args=[operator.pk]),
        {
            "username": operator.username,
            "email": "operator@example.com",
            "is_active": "on",
            "is_staff": "on",
            "is_superuser": "on",
            "groups": [Group.objects.get(name="operators").pk],
            "user_permissions": [Permission.objects.first().pk],
        },
    )

    operator.refresh_from_db()
    # The form was saved, but for what it may not change.
    assert operator.email == "operator@example.com"
    assert not operator.is_superuser
    assert not operator.user_permissions.exists()


def test_a_bulk_delete_by_an_operator_spares_superusers(client):
    client.force_login(_member("operators"))
    boss = UserFactory.create(is_superuser=True)

    client.post(
        reverse("admin:auth_user_changelist"),
        {"action": "delete_selected", "_selected_action": [boss.pk], "post": "yes"},
    )

    boss.refresh_from_db()


def test_migrating_again_restores_the_groups_and_changes_nothing_else():
    group = Group.objects.get(name="account managers")
    expected = set(group.permissions.all())
    assert expected
    group.permissions.clear()

    ensure_groups()
    ensure_groups()

    assert set(group.permissions.all()) == expected
    assert Group.objects.filter(name__in=GROUPS).count() == 3
