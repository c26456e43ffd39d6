"""What people who work in the admin may do, and whose account they may change."""

from typing import Any

from django.contrib.auth.models import Group, Permission, User
from django.db.models import Q, QuerySet

# The groups belong to the program: their permissions are set anew by every `migrate`,
# so that a new model is covered and the table below stays true. Whoever needs other
# permissions makes another group.
_VIEW = Q(codename__startswith="view_")


def _of(*app_labels: str) -> Q:
    return Q(content_type__app_label__in=app_labels)


GROUPS: dict[str, Q] = {
    # To vouch for a model's code is an administrator's to give.
    "data scientists": (_of("registry") & ~Q(codename="trust_registeredmodel"))
    | (_of("inference") & _VIEW),
    "account managers": _of("accounts"),
    "operators": (
        _of("inference")
        | (_of("registry", "accounts", "auth", "axes") & _VIEW)
        | Q(codename="change_registrysync")
        # Groups stay as they are: changing one would be a way to any permission.
        | Q(content_type__app_label="auth", content_type__model="user")
    ),
}


def ensure_groups(**kwargs: Any) -> None:
    """Create the groups, and set exactly their permissions."""
    database = kwargs.get("using", "default")
    for name, condition in GROUPS.items():
        group, _ = Group.objects.using(database).get_or_create(name=name)
        group.permissions.set(Permission.objects.using(database).filter(condition))


# Members of a customer make its keys in the portal. With this permission one may
# become a member by an invitation.
_MEMBERSHIP = "accounts.change_customer"


def may_take_over(actor: User, person: User) -> bool:
    """Return whether the actor has every right of the person.

    A new password, e-mail address or name to sign in with is a way to these rights.
    """
    if actor.is_superuser:
        return True
    return not person.is_superuser and rights_of(person) <= rights_of(actor)


def rights_of(person: User) -> set[str]:
    """Name what a person may do, or may once the account is active and of staff."""
    held = Q(user=person) | Q(group__user=person)
    rights = {
        f"{app_label}.{codename}"
        for app_label, codename in Permission.objects.filter(held).values_list(
            "content_type__app_label", "codename"
        )
    }
    # A relation that accounts adds to Django's users.
    if person.customers.exists():
        rights.add(_MEMBERSHIP)
    return rights


def may_give(actor: User) -> QuerySet[Group]:
    """Select the groups that somebody may put people into, or take them out of."""
    return Group.objects.all() if actor.is_superuser else actor.groups.all()
