"""What the three kinds of people who work in the admin may do."""

from typing import Any

from django.contrib.auth.models import Group, Permission
from django.db.models import Q

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
