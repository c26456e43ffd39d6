"""Queries that a partial index was made for use it, with their parameters bound.

A database proves from the text of a query that it asks for a part only. SQLite sees no
values there, so a condition like `status IN ('pending')` in an index helps no query.
"""

from datetime import UTC, datetime

import pytest
from django.apps import apps
from django.db import connection

from accounts.quotas import soft_limits
from inference.jobs import life_cycle as jobs
from inference.jobs import sweep
from inference.models import (
    Feedback,
    Message,
    PredictionJob,
    RolloutEvent,
    VersionEvent,
)
from tests.factories import CustomerFactory

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 30, tzinfo=UTC)
OURS = ("accounts", "explain", "inference", "registry")
QUERIES = {
    "inference_job_unfinished": [
        lambda: PredictionJob.objects.unfinished().order_by("customer"),
        lambda: jobs.claimable(NOW).order_by("lease_expires_at", "id"),
        lambda: CustomerFactory().jobs.unfinished().order_by(),
    ],
    "inference_job_retention": [lambda: sweep.removable(now=NOW)],
    "accounts_limit_event_waiting": [soft_limits.waiting],
    "inference_feedback_uncounted": [
        lambda: Feedback.objects.uncounted().order_by("pk")
    ],
    "inference_version_event_untold": [VersionEvent.objects.untold],
    "inference_rollout_event_untold": [RolloutEvent.objects.untold],
    "inference_message_to_mail": [
        lambda: Message.objects.filter(mail_at__lte=NOW).order_by()
    ],
}


def partial_indexes():
    return {
        entry.name
        for app in OURS
        for model in apps.get_app_config(app).get_models()
        for entry in model._meta.indexes
        if entry.condition is not None
    }


def test_each_partial_index_has_queries_here():
    assert partial_indexes() == set(QUERIES)


@pytest.mark.parametrize(
    ("index", "query"),
    [(index, query) for index, queries in QUERIES.items() for query in queries],
)
def test_the_query_uses_its_index(index, query):
    if connection.vendor == "postgresql":
        # It would read so small a table as a whole.
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_seqscan = off")

    assert index in query().explain()
