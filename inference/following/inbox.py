"""The messages of one person: which are unread, and whether they are mailed, too."""

from datetime import datetime

from django.contrib.auth.models import User
from django.db.models import QuerySet

from inference.models import Follow, MailWish, Message


def messages_of(user: User) -> QuerySet[Message]:
    """Return the person's messages, the newest first."""
    return Message.objects.filter(user=user)


def unread(user: User) -> int:
    return messages_of(user).filter(read_at=None).count()


def mark_read(messages: QuerySet[Message], *, now: datetime) -> None:
    messages.filter(read_at=None).update(read_at=now)


def followed_by(user: User) -> QuerySet[Follow]:
    """Return what the person follows, by the model's name."""
    follows = Follow.objects.filter(user=user, wanted=True)
    return follows.select_related("registered_model").order_by("registered_model__name")


def wants_mail(user: User) -> bool:
    return MailWish.objects.filter(user=user).exists()


def set_mail(user: User, *, wanted: bool) -> None:
    """Mail the person's messages from now on, or no more."""
    if wanted:
        MailWish.objects.get_or_create(user=user)
        return
    MailWish.objects.filter(user=user).delete()
    messages_of(user).filter(mail_at__isnull=False).update(mail_at=None)
