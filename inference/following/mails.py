"""Mail messages to the people who want that: a worker does, never a request."""

from datetime import datetime, timedelta

import structlog
from django.conf import settings
from django.contrib.auth.models import User
from django.core.mail import send_mail

from accounts.customers import mails
from inference.models import Message

# A mail that failed is tried again after this, until its messages are so old that only
# the bell has them. A weekend's outage is no reason to be silent about it.
_RETRY = timedelta(minutes=10)
_GIVEN_UP = timedelta(days=7)
# Messages in one mail, and those of them that it quotes: the newest.
_AT_ONCE = 500
_QUOTED = 50
_LONGEST_SUBJECT = 100

logger = structlog.get_logger(__name__)


def send(*, now: datetime) -> int:
    """Mail what is due, in one mail for each person; return how many mails were sent.

    A message is claimed before its mail leaves, by moving its next try: a worker that
    dies meanwhile costs ten minutes, and no other worker mails the same message.
    """
    due = Message.objects.filter(mail_at__lte=now)
    due.filter(at__lt=now - _GIVEN_UP).update(mail_at=None)
    people = User.objects.filter(pk__in=due.order_by().values("user_id"))
    sent = 0
    for person in people:
        try:
            sent += _send(person, now=now)
        except OSError as error:
            logger.warning("messages_not_mailed", reason=error)
            if not mails.is_refused(error):
                # The server is away, and each try may take long.
                break
    return sent


def _send(person: User, *, now: datetime) -> int:
    """Mail what is due to one person; raises OSError if it cannot leave."""
    due = Message.objects.filter(user=person, mail_at__lte=now)
    if not person.is_active or not person.email:
        due.update(mail_at=None)
        return 0
    claimed = [
        message
        for message in due.order_by("at", "pk")[:_AT_ONCE]
        if Message.objects.filter(pk=message.pk, mail_at=message.mail_at).update(
            mail_at=now + _RETRY
        )
    ]
    if not claimed:
        return 0
    try:
        sent = send_mail(
            subject=_subject(claimed),
            message=_body(claimed),
            from_email=None,
            recipient_list=[person.email],
        )
    except ValueError as error:
        # No server takes such an address.
        logger.warning("messages_not_mailed", reason=error, messages=len(claimed))
        due.update(mail_at=None)
        return 0
    Message.objects.filter(pk__in=[it.pk for it in claimed]).update(mail_at=None)
    return sent


def _subject(messages: list[Message]) -> str:
    if len(messages) > 1:
        return f"{len(messages)} messages about your models"
    # The head of a mail is one line.
    line = " ".join(messages[0].text.split())
    if len(line) <= _LONGEST_SUBJECT:
        return line
    return line[: _LONGEST_SUBJECT - 1] + "…"


def _body(messages: list[Message]) -> str:
    quoted = messages[-_QUOTED:]
    lines = [f"{it.at:%Y-%m-%d %H:%M} UTC: {it.text}" for it in quoted]
    if len(messages) > len(quoted):
        lines.insert(0, f"The newest {len(quoted)} of {len(messages)} messages:")
    url = f"{settings.MODELYARD_PUBLIC_URL}/admin/messages/"
    return "\n\n".join(lines) + f"\n\nMore, and how to get no such mail: {url}\n"
