"""Test every operation of the OpenAPI document with keys of one scope each."""

import msgspec
import pytest
from django.utils import timezone

from accounts.admission.limits import SCOPES
from inference.api import driver
from inference.controller import publishing
from inference.snapshot import snapshot_file
from tests.factories import CustomerFactory, issue_key
from tests.factories_jobs import new_job_id, sum_model
from tests.inference.test_tenancy import operations

pytestmark = pytest.mark.django_db
# Paths that need no key; `/content`, which takes an announced file, has a signature.
WITHOUT = ("/healthz", "/readyz", "/content")
# Only gateways answer these: tests/inference/gateway/open_inference/test_app.py.
BY_GATEWAYS = "/v2/"


def scopes_for(path):
    """Return the scopes of which an operation needs one."""
    for part, scopes in (
        ("/api/v1/jobs", {"jobs"}),
        ("/api/v1/uploads", {"predict", "jobs"}),
        ("/api/v1/usage", {"usage"}),
        ("/api/v1/feedback", {"feedback"}),
        ("/api/v1/me", set(SCOPES)),
    ):
        if path == part or path.startswith(f"{part}/"):
            return scopes
    if path in ("/api/v1/models", "/api/v1/models/{model}"):
        return {"models:read"}
    return {"explain"} if path.endswith("/explain") else {"predict"}


@pytest.fixture
def keys(home):
    """Issue one key per scope to a customer who cannot reach any limit."""
    customer = CustomerFactory.create(
        plan__burst_requests=10**6, plan__sustained_requests=10**6
    )
    issued = {scope: issue_key(customer, scopes=[scope]) for scope in SCOPES}
    published = publishing.assemble(sequence=1, now=timezone.now())
    snapshot_file.write(
        home.snapshot, msgspec.structs.replace(published, models=(sum_model(),))
    )
    yield issued
    driver.current().close()


@pytest.mark.parametrize("scope", SCOPES)
def test_a_scope_opens_its_own_operations_and_no_others(client, keys, scope):
    wrong, opened = [], 0
    for method, path in operations():
        if path.endswith(WITHOUT) or path.startswith(BY_GATEWAYS):
            continue
        response = getattr(client, method)(
            path.format(model="sum", version="3", job_id=new_job_id()),
            {} if method != "get" else None,
            content_type="application/json",
            headers={"Authorization": f"Bearer {keys[scope].token}"},
        )
        refused = response.status_code == 403
        opened += not refused
        if refused == (scope in scopes_for(path)) or response.status_code == 401:
            wrong.append(f"{method} {path}: {response.status_code}")

    assert wrong == []
    assert opened
