"""Celery tasks of accounts; each calls the function that does the work."""

import datetime

from celery import shared_task
from django.conf import settings
from django.utils import timezone

from accounts.customers import members
from accounts.quotas import soft_limits
from accounts.usage import retention, roll_ups, suspicions


@shared_task
def look_at_soft_limits() -> None:
    """Warn customers whose quotas come near their limits."""
    soft_limits.look(now=timezone.now())
    soft_limits.notify(now=timezone.now())


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
    """Delete minutes of usage that are old enough; their hours and days stay."""
    keep = datetime.timedelta(days=settings.USAGE_MINUTES_DAYS)
    retention.forget_minutes(now=timezone.now(), keep=keep)


@shared_task
def send_forgotten(email: str) -> None:
    """Send a link to set a new password to the member with this address."""
    members.send_forgotten(email)
