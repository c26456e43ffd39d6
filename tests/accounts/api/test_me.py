import datetime

import msgspec
import pytest
from django.utils import timezone

from accounts.customers.api_keys import OwnLimits
from accounts.usage import recording
from tests.accounts.quotas.test_leases import event
from tests.factories import CustomerFactory, issue_key

pytestmark = pytest.mark.django_db


def test_callers_see_their_key_plan_limits_and_quotas(call):
    customer = CustomerFactory(
        name="Acme",
        plan__name="Starter",
        plan__burst_requests=5,
        plan__sustained_requests=50,
        plan__monthly_quota=1000,
        plan__max_concurrency=7,
    )
    issued = issue_key(
        customer, name="laptop", scopes=["predict"], allowed_models=["digits"]
    )
    now = timezone.now()
    recording.record("boot-1.spool", [event(customer, 12, at=now)], 10)
    recording.record("other-1.spool", [event(CustomerFactory(), 99, at=now)], 10)

    answer = call("/api/v1/me", issued.token).json()

    resets_at = answer["quotas"][0].pop("resets_at")
    assert answer == {
        "customer": "Acme",
        "key": {
            "id": issued.key.key_id,
            "name": "laptop",
            "mode": "live",
            "scopes": ["predict"],
            "models": ["digits"],
            "expires_at": None,
            "limits": None,
        },
        "plan": "Starter",
        "limits": {
            "rates": [
                {"name": "burst", "quota": 5, "window_s": 1},
                {"name": "sustained", "quota": 50, "window_s": 60},
            ],
            "max_concurrency": 7,
            "max_predict_rows": 100,
            "max_batch_rows": 1000,
            "max_job_rows": 1_000_000,
            "max_body_bytes": None,
            "max_jobs_in_flight": None,
            "max_uploads": 1000,
            "max_upload_bytes": 10_000_000_000,
        },
        "quotas": [{"name": "month", "unit": "rows", "limit": 1000, "used": 12}],
    }
    parsed = datetime.datetime.fromisoformat(resets_at)
    assert parsed > now
    assert (parsed.day, parsed.hour, parsed.minute) == (1, 0, 0)
    assert resets_at.endswith("Z")


def test_a_key_with_limits_of_its_own_sees_them_and_what_it_has_used(call):
    customer = CustomerFactory(plan__monthly_quota=1000)
    issued = issue_key(customer, limits=OwnLimits(burst_requests=9, daily_quota=20))
    now = timezone.now()
    events = [
        event(customer, 12, at=now),
        msgspec.structs.replace(
            event(customer, 3, at=now), id="own", key_id=issued.key.key_id
        ),
    ]
    recording.record("boot-1.spool", events, 10)

    answer = call("/api/v1/me", issued.token).json()

    del answer["key"]["limits"]["quotas"][0]["resets_at"]
    assert answer["key"]["limits"] == {
        "rates": [{"name": "key-burst", "quota": 9, "window_s": 1}],
        "max_concurrency": None,
        "quotas": [{"name": "day", "unit": "rows", "limit": 20, "used": 3}],
    }
    assert answer["quotas"][0]["used"] == 15


def test_a_key_needs_no_scope_to_see_itself(call):
    issued = issue_key(scopes=["jobs"])

    assert call("/api/v1/me", issued.token).status_code == 200
