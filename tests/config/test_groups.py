import pytest
from django.contrib.auth.models import Group, Permission
from django.urls import reverse

from config.groups import GROUPS, ensure_groups
from tests.factories import CustomerFactory, UserFactory
from tests.factories_registry import RegisteredModelFactory

pytestmark = pytest.mark.django_db

# Lists of the admin that each group may open.
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


def _save(client, person, **changes):
    """Post the form of a user as a browser does, with some fields changed."""
    url = reverse("admin:auth_user_change", args=[person.pk])
    form = client.get(url).context["adminform"].form
    sent = {name: form[name].value() for name in form.fields if name != "password"}
    sent = {name: value for name, value in sent.items() if value not in (None, False)}
    return client.post(url, {**sent, **changes})


def test_operators_cannot_make_themselves_superusers(client):
    operator = _member("operators")
    client.force_login(operator)

    _save(
        client,
        operator,
        email="operator@example.com",
        is_superuser="on",
        user_permissions=[Permission.objects.first().pk],
    )

    operator.refresh_from_db()
    # The form was saved, without the fields that it may not change.
    assert operator.email == "operator@example.com"
    assert not operator.is_superuser
    assert not operator.user_permissions.exists()


def test_operators_put_nobody_into_groups_that_they_are_not_in(client):
    operator, newcomer = _member("operators"), UserFactory.create()
    client.force_login(operator)
    every_group = [group.pk for group in Group.objects.all()]

    for person in (operator, newcomer):
        refused = _save(client, person, is_staff="on", groups=every_group)

        assert "groups" in refused.context["adminform"].form.errors
        assert person.groups.count() == (person == operator)

    own = [Group.objects.get(name="operators").pk]
    assert _save(client, newcomer, is_staff="on", groups=own).status_code == 302
    assert [group.pk for group in newcomer.groups.all()] == own


def test_groups_that_an_operator_cannot_give_stay_with_a_person(client):
    readers = Group.objects.create(name="readers")
    person = UserFactory.create()
    person.groups.add(readers)
    client.force_login(_member("operators"))

    _save(client, person, first_name="Ada", groups=[])

    person.refresh_from_db()
    assert person.first_name == "Ada"
    assert list(person.groups.all()) == [readers]


def test_a_form_from_before_anothers_change_gives_no_group_back(client):
    person = _member("data scientists")
    client.force_login(UserFactory.create(is_staff=True, is_superuser=True))
    url = reverse("admin:auth_user_change", args=[person.pk])
    seen = client.get(url).context["adminform"].form["as_of"].value()
    groups = [group.pk for group in person.groups.all()]
    _save(client, person, is_staff="on", as_of=seen, groups=[])
    assert not person.groups.exists()

    late = _save(client, person, is_staff="on", as_of=seen, groups=groups)

    assert not person.groups.exists()
    assert "Somebody has changed this user since" in late.content.decode()
    again = client.get(url).context["adminform"].form["as_of"].value()
    assert _save(client, person, as_of=again, groups=groups).status_code == 302
    assert person.groups.exists()


def _account_manager():
    return _member("account managers")


def _deactivated_account_manager():
    person = _member("account managers")
    person.is_active = False
    person.save()
    return person


def _account_manager_to_be():
    person = _member("account managers")
    person.is_staff = False
    person.save()
    return person


def _with_a_permission():
    person = UserFactory.create()
    person.user_permissions.add(Permission.objects.get(codename="add_apikey"))
    return person


def _member_of_a_customer():
    person = UserFactory.create()
    CustomerFactory.create().members.add(person)
    return person


@pytest.mark.parametrize(
    "has_more_rights",
    [
        _account_manager,
        _deactivated_account_manager,
        _account_manager_to_be,
        _with_a_permission,
        _member_of_a_customer,
    ],
)
def test_operators_take_over_nobody_with_rights_that_they_lack(client, has_more_rights):
    person = has_more_rights()
    before = (person.username, person.email, person.password, person.is_staff)
    client.force_login(_member("operators"))
    password_url = reverse("admin:auth_user_password_change", args=[person.pk])

    password = client.post(
        password_url, {"usable_password": "true", "password1": "x", "password2": "x"}
    )
    delete = client.post(
        reverse("admin:auth_user_delete", args=[person.pk]), {"post": "yes"}
    )
    change = _save(
        client,
        person,
        username="taken",
        email="operator@example.com",
        is_staff="on",
        groups=[],
        first_name="Ada",
    )

    assert (password.status_code, delete.status_code) == (403, 403)
    # Fields that are no way to their rights may change.
    assert change.status_code == 302
    had = set(person.groups.all())
    person.refresh_from_db()
    assert (person.username, person.email, person.password, person.is_staff) == before
    assert (person.first_name, set(person.groups.all())) == ("Ada", had)


def test_operators_set_the_password_of_people_without_more_rights(client):
    client.force_login(_member("operators"))

    for person in (UserFactory.create(), _member("operators")):
        url = reverse("admin:auth_user_password_change", args=[person.pk])
        sent = {
            "usable_password": "true",
            "password1": "a-long-pass-word",
            "password2": "a-long-pass-word",
        }

        assert client.post(url, sent).status_code == 302
        person.refresh_from_db()
        assert person.check_password("a-long-pass-word")


def test_only_superusers_change_groups(client):
    person = _member("operators")
    person.user_permissions.set(
        Permission.objects.filter(content_type__model="group", codename__endswith="p")
    )
    group = Group.objects.get(name="operators")
    had = set(group.permissions.all())
    client.force_login(person)

    for url in (
        reverse("admin:auth_group_change", args=[group.pk]),
        reverse("admin:auth_group_add"),
    ):
        sent = {"name": "all", "permissions": [p.pk for p in Permission.objects.all()]}

        assert client.post(url, sent).status_code == 403
    assert set(group.permissions.all()) == had


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
