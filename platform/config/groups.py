"""The groups of the admin's users, and rules about who may change whose account."""

from typing import Any

from django.contrib.auth.models import Group, Permission, User
from django.db.models import Q, QuerySet

# Each `migrate` sets the permissions of these groups again, so that they cover new
# models and this table stays true. For other permissions, create another group.
_VIEW = Q(codename__startswith="view_")


def _of(*app_labels: str) -> Q:
    return Q(content_type__app_label__in=app_labels)


GROUPS: dict[str, Q] = {
    # Only administrators may trust a model's code, or break callers on purpose.
    "data scientists": (
        _of("registry") & ~Q(codename__in=("trust_registeredmodel", "override_schema"))
    )
    | (_of("inference") & _VIEW),
    "account managers": _of("accounts"),
    "operators": (
        _of("inference")
        | (_of("registry", "accounts", "auth", "axes") & _VIEW)
        | Q(codename="change_registrysync")
        # Users, but not groups: changing a group would be a way to any permission.
        | Q(content_type__app_label="auth", content_type__model="user")
    ),
}


def ensure_groups(**kwargs: Any) -> None:
    """Create the groups and set exactly their permissions."""
    database = kwargs.get("using", "default")
    for name, condition in GROUPS.items():
        group, _ = Group.objects.using(database).get_or_create(name=name)
        group.permissions.set(Permission.objects.using(database).filter(condition))


# Members of a customer create its keys in the portal. A user with this permission can
# become a member by an invitation.
_MEMBERSHIP = "accounts.change_customer"


def may_take_over(actor: User, person: User) -> bool:
    """Return whether the actor has every right of the person.

    Changing a password, e-mail address or user name is a way to get these rights.
    """
    if actor.is_superuser:
        return True
    return not person.is_superuser and rights_of(person) <= rights_of(actor)


def rights_of(person: User) -> set[str]:
    """Return the person's permissions, also if the account is inactive or not staff."""
    held = Q(user=person) | Q(group__user=person)
    rights = {
        f"{app_label}.{codename}"
        for app_label, codename in Permission.objects.filter(held).values_list(
            "content_type__app_label", "codename"
        )
    }
    # `accounts` adds this relation to Django's users.
    if person.customers.exists():
        rights.add(_MEMBERSHIP)
    return rights


def may_give(actor: User) -> QuerySet[Group]:
    """Return the groups to which the actor may add people or remove them from."""
    return Group.objects.all() if actor.is_superuser else actor.groups.all()
