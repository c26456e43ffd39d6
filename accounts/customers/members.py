"""Invite people who sign in for a customer, and let them set a password.

A link to set a password is signed. It works once, within `PASSWORD_RESET_TIMEOUT`
seconds. Without a mail server it is shown once to the person who made it; it is never
printed to a log.
"""

import re
from dataclasses import dataclass, field

from axes.utils import reset as forget_failed_sign_ins
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.auth.tokens import default_token_generator
from django.contrib.auth.validators import UnicodeUsernameValidator
from django.core.cache import cache
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.urls import reverse
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_decode, urlsafe_base64_encode

from accounts.customers import mails
from accounts.models import Customer

_PRINTING_BACKENDS = {
    f"django.core.mail.backends.{name}.EmailBackend" for name in ("console", "dummy")
}
# Least time between two links for a forgotten password, so that nobody can fill
# another person's mailbox.
_SECONDS_BETWEEN_MAILS = 120


@dataclass(frozen=True, slots=True)
class Invitation:
    """A member, and the link by which they set a password, unless they have one.

    `link` is empty if it was mailed; if not, it is shown once.
    """

    person: User
    is_new: bool
    link: str = field(default="", repr=False)
    mailed: bool = False


def mail_is_set_up() -> bool:
    """Return whether mails are sent to people, not printed to the log."""
    return settings.EMAIL_BACKEND not in _PRINTING_BACKENDS


def invite(customer: Customer, *, email: str) -> Invitation:
    """Make the owner of an address a member, with a link if they need a password.

    A member who is invited again gets a new link; if they have no password yet, earlier
    links end. Raise ValidationError if the address belongs to several people.
    """
    if customer.archived_at is not None:
        raise ValidationError(f"{customer} is archived. Reopen it first.")
    try:
        person, is_new = _add(customer, email=email.strip().lower())
    except IntegrityError:
        raise ValidationError("Somebody else is inviting this person.") from None
    needs_link = not person.has_usable_password() or not is_new
    if not may_have_link(person) or not needs_link:
        return Invitation(person, is_new, mailed=_tell(person, customer))
    link = link_for(person)
    if _send_link(person, link, about=f"Your access to {customer.name}"):
        return Invitation(person, is_new, mailed=True)
    return Invitation(person, is_new, link=link)


@transaction.atomic
def _add(customer: Customer, *, email: str) -> tuple[User, bool]:
    """Make the owner of an address a member; return them, and whether that is new."""
    known = User.objects.filter(Q(username=email) | Q(email__iexact=email))
    people = list(known.select_for_update()[:2])
    if len(people) > 1:
        raise ValidationError("Several people have this address. Ask an administrator.")
    if people:
        [person] = people
        if not person.is_active:
            raise ValidationError("This person is deactivated. Ask an operator.")
    else:
        person = User(username=_username(email), email=email)
        person.full_clean(exclude=["password"])
    if person.pk is None or not person.has_usable_password():
        # A new unusable password ends the links that were made with the old one.
        person.set_unusable_password()
        person.save()
    is_new = not customer.members.filter(pk=person.pk).exists()
    customer.members.add(person)
    return person, is_new


def _username(email: str) -> str:
    """Return the address as the user name, without characters it may not have."""
    try:
        UnicodeUsernameValidator()(email)
    except ValidationError:
        return re.sub(r"[^\w.@+-]", "-", email)
    return email


def may_have_link(person: User) -> bool:
    """Return whether a link may let this person set a password.

    People with rights in the admin get no link, as it would be a way to these rights.
    """
    return (
        person.is_active
        and not person.is_staff
        and not person.is_superuser
        and not person.groups.exists()
        and not person.user_permissions.exists()
    )


def link_for(person: User) -> str:
    """Return the address at which a person sets a password.

    The secret is in its query, which our logs never keep.
    """
    number = urlsafe_base64_encode(force_bytes(person.pk))
    token = default_token_generator.make_token(person)
    path = reverse("portal:set-password")
    return f"{settings.MODELYARD_PUBLIC_URL}{path}?link={number}.{token}"


def of_link(link: str) -> User | None:
    """Return the person of a link; None if it is used, too old or not one of ours."""
    number, _, token = link.partition(".")
    try:
        person = User.objects.get(pk=int(urlsafe_base64_decode(number)))
    except (ValueError, OverflowError, User.DoesNotExist):
        return None
    if not may_have_link(person) or not default_token_generator.check_token(
        person, token
    ):
        return None
    return person


def welcome(person: User) -> None:
    """Forget failed sign-ins of a person who has just set a password."""
    forget_failed_sign_ins(username=person.get_username())


def send_forgotten(email: str) -> None:
    """Send a link to the member with this address, if there is one."""
    people = User.objects.filter(email__iexact=email, customers__isnull=False)
    for person in people.distinct():
        key = f"portal-forgotten-{person.pk}"
        if may_have_link(person) and cache.add(key, 1, _SECONDS_BETWEEN_MAILS):
            _send_link(person, link_for(person), about="A new password")


def _send_link(person: User, link: str, *, about: str) -> bool:
    hours = settings.PASSWORD_RESET_TIMEOUT // 3600
    return _send(
        person,
        subject=about,
        message=(
            f"Set a password at\n\n{link}\n\nThe link works once, within {hours} hours."
            f" After that you sign in as {person.get_username()} at"
            f" {settings.MODELYARD_PUBLIC_URL}/portal/.\n\nIf you did not expect this"
            " mail, nothing happens unless you open the link.\n"
        ),
    )


def _tell(person: User, customer: Customer) -> bool:
    return _send(
        person,
        subject=f"Your access to {customer.name}",
        message=(
            f"You may now sign in for {customer.name} at"
            f" {settings.MODELYARD_PUBLIC_URL}/portal/ as {person.get_username()},"
            " with the password that you have.\n"
        ),
    )


def _send(person: User, *, subject: str, message: str) -> bool:
    if not mail_is_set_up() or not person.email:
        return False
    return bool(mails.send(person.email, subject=subject, message=message))
