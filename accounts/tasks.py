"""Celery tasks of accounts; each calls the function that does the work."""

import datetime

from celery import shared_task
from django.conf import settings
from django.utils import timezone

from accounts.customers import members, notices, personal_keys
from accounts.quotas import soft_limits
from accounts.usage import field_uses, retention, roll_ups, suspicions


@shared_task
def look_at_soft_limits() -> None:
    """Warn customers whose quotas come near their limits."""
    soft_limits.look(now=timezone.now())
    soft_limits.notify(now=timezone.now())


@shared_task
def send_notices() -> None:
    """Mail new notices to customers."""
    notices.notify(now=timezone.now())


@shared_task
def look_for_suspicions() -> None:
    """Store suspicious patterns of the last hour."""
    suspicions.look(now=timezone.now())


@shared_task
def roll_up_usage() -> None:
    """Add up the hours and days of usage that have ended."""
    roll_ups.roll_up(now=timezone.now())


@shared_task
def forget_usage_minutes() -> None:
    """Delete minutes of usage that are old enough, and old uses of fields."""
    keep = datetime.timedelta(days=settings.USAGE_MINUTES_DAYS)
    retention.forget_minutes(now=timezone.now(), keep=keep)
    field_uses.forget(now=timezone.now())


@shared_task
def end_personal_keys() -> None:
    """Revoke the keys of staff who may not see models any more."""
    personal_keys.end_forbidden()


@shared_task
def send_forgotten(email: str) -> None:
    """Send a link to set a new password to the member with this address."""
    members.send_forgotten(email)
