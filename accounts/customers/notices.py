"""Tell customers something: in the portal until it is over, and by mail once."""

import datetime
from collections.abc import Collection

import structlog
from django.db import transaction
from django.db.models import QuerySet

from accounts.customers import mails
from accounts.models import Customer, Notice

logger = structlog.get_logger(__name__)


@transaction.atomic
def put_up(
    customer_ids: Collection[int],
    *,
    about: str,
    subject: str,
    text: str,
    until: datetime.datetime,
) -> None:
    """Tell these customers; those who were told already get mail only if it differs."""
    told = Notice.objects.filter(about=about)
    told.exclude(subject=subject, text=text, until=until).update(
        subject=subject, text=text, until=until, notified_at=None
    )
    known = set(told.values_list("customer_id", flat=True))
    Notice.objects.bulk_create(
        Notice(customer_id=pk, about=about, subject=subject, text=text, until=until)
        for pk in Customer.objects.filter(pk__in=customer_ids).values_list(
            "pk", flat=True
        )
        if pk not in known
    )


def take_down(about: str) -> None:
    Notice.objects.filter(about=about).delete()


def current(customer: Customer, *, now: datetime.datetime) -> QuerySet[Notice]:
    return Notice.objects.filter(customer=customer, until__gt=now)


def notify(*, now: datetime.datetime) -> int:
    """Mail new notices to the contacts of customers; return how many mails were sent.

    A notice is claimed before its mail leaves, so that no other worker mails it too.
    The next run tries again what the server may take later.
    """
    sent = 0
    waiting = Notice.objects.filter(
        notified_at=None, until__gt=now, customer__archived_at=None
    ).select_related("customer")
    for notice in waiting:
        claimed = Notice.objects.filter(pk=notice.pk, notified_at=None).update(
            notified_at=now
        )
        if not claimed or not notice.customer.contact_email:
            continue
        try:
            # It is shown in the portal as well.
            sent += mails.send_or_raise(
                notice.customer.contact_email,
                subject=notice.subject,
                message=f"{notice.text}\n",
            )
        except (OSError, ValueError) as error:
            logger.warning(
                "mail_not_sent", reason=error, customer_id=notice.customer_id
            )
            if isinstance(error, ValueError):
                continue
            if mails.may_be_taken_later(error):
                Notice.objects.filter(pk=notice.pk, notified_at=now).update(
                    notified_at=None
                )
            if not mails.is_refused(error):
                # The server is away, and each try may take long.
                break
    return sent
