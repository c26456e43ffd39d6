"""Tell customers something: in the portal until it is over, and by mail once."""

import datetime
from collections.abc import Collection

from django.db import transaction
from django.db.models import QuerySet

from accounts.customers import mails
from accounts.models import Customer, Notice


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

    A notice is claimed before its mail leaves: no mail is better than one every minute.
    """
    sent = 0
    waiting = Notice.objects.filter(
        notified_at=None, until__gt=now, customer__archived_at=None
    ).select_related("customer")
    for notice in waiting:
        claimed = Notice.objects.filter(pk=notice.pk, notified_at=None).update(
            notified_at=now
        )
        if claimed and notice.customer.contact_email:
            # It is shown in the portal as well.
            sent += mails.send(
                notice.customer.contact_email,
                subject=notice.subject,
                message=f"{notice.text}\n",
                customer_id=notice.customer_id,
            )
    return sent
