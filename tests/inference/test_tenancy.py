"""Test that no operation shows a caller anything of another customer.

The operations come from the OpenAPI document and the portal's URL table. So a new one
is covered at once, or fails here until `leaks` knows the names in its path. Other tests
remove each filter by owner in turn, and `leaks` must notice it.
"""

import datetime
from types import SimpleNamespace

import msgspec
import pytest
from django.apps import apps
from django.db.models import Q, QuerySet
from django.utils import timezone
from drf_spectacular.generators import SchemaGenerator

from accounts.models import (
    ApiKey,
    Customer,
    LimitEvent,
    Notice,
    Refusal,
    Usage,
    UsageDay,
    UsageHour,
)
from accounts.portal import urls as portal_urls
from accounts.usage import recording, roll_ups
from inference.api import driver
from inference.codecs.files import uploaded
from inference.controller import publishing
from inference.models import PredictionJob, Upload
from inference.snapshot import snapshot_file
from inference.uploads import files
from tests.accounts.quotas.test_leases import event
from tests.accounts.usage.test_refused_calls import refused
from tests.factories import CustomerFactory, UserFactory, issue_key
from tests.factories_jobs import make_job, sum_model

pytestmark = pytest.mark.django_db
METHODS = ("get", "post", "put", "patch", "delete")
# Every object of the other customer has this text, or this number if it has no text.
MARK = "foreign-thing"
MARKED_LIMIT = 77_777_777
# Queries to try in addition: usage is added up by hour and by day.
QUERIES = {
    "/api/v1/usage": [
        "?group_by=model&bucket=hour&from={from_}",
        "?group_by=model&bucket=day&from={from_}",
    ]
}
# Every way to find rows by their owner: the model, and the name of the filter.
OWNERS = [
    (PredictionJob, "customer_id"),
    (Upload, "customer_id"),
    (Usage, "customer_id__in"),
    (UsageHour, "customer_id__in"),
    (UsageDay, "customer_id__in"),
    (Refusal, "customer_id"),
    (LimitEvent, "customer"),
    (Notice, "customer"),
    (ApiKey, "customer"),
    (Customer, "members"),
]
# Operations that read the file that `input_uri` names; other protocols read none.
READS_FILES = ("/jobs", "/predict", "/predict/batch", "/explain")
# Models with rows of customers that only staff may see.
OF_STAFF_ALONE = {
    "FieldUse",
    "Feedback",
    "FeedbackUse",
    "KeyNetworks",
    "QuotaCounter",
    "ShadowExample",
    "Statement",
    "Suspicion",
    "UnrolledHour",
}


def operations():
    """List (method, path) of every operation in the document."""
    document = SchemaGenerator().get_schema(request=None, public=True)
    return [
        (method, path)
        for path, item in sorted(document["paths"].items())
        for method in METHODS
        if method in item
    ]


def portal_pages():
    return [
        f"/portal/{pattern.pattern}".replace("<int:customer_id>", "{customer_id}")
        .replace("<str:key_id>", "{key_id}")
        .replace("\\", "")
        for pattern in portal_urls.urlpatterns
        if "customer_id" in str(pattern.pattern)
    ]


def make_world(name):
    """Make a customer that has one of everything."""
    customer = CustomerFactory.create(
        name=name,
        plan__burst_requests=10**6,
        plan__sustained_requests=10**6,
        plan__daily_quota=1000,
    )
    member = UserFactory.create()
    customer.members.add(member)
    issued = issue_key(customer, name=name)
    job = make_job(api_key=issued.key, model=name, status="completed")
    upload = files.announce(customer, content_type="text/csv")
    Upload.objects.filter(pk=upload.pk).update(stored_at=timezone.now(), file="x")
    now = timezone.now()
    call = msgspec.structs.replace(event(customer, 1, at=now), model=name)
    refusal = msgspec.structs.replace(refused(customer, request_id=name), at=call.at)
    yesterday = (now - datetime.timedelta(days=1)).timestamp()
    old = msgspec.structs.replace(call, at=yesterday)
    recording.record(f"{name}-1.spool", [call, refusal, old], 1)
    roll_ups.roll_up(now=now)
    Notice.objects.create(
        customer=customer,
        about="the end of a model",
        subject=name,
        text=name,
        until=now + datetime.timedelta(days=1),
    )
    LimitEvent.objects.create(
        customer=customer,
        name="day",
        unit="rows",
        window_start=now.date(),
        threshold_percent=80,
        used=MARKED_LIMIT,
        limit=MARKED_LIMIT if name == MARK else 1000,
        at=now,
    )
    return SimpleNamespace(
        customer=customer, member=member, issued=issued, job=job, upload=upload
    )


@pytest.fixture
def worlds(home):
    made = make_world("mine"), make_world(MARK)
    # This publishes the keys; an unknown key would be refused before anything is read.
    published = publishing.assemble(sequence=1, now=timezone.now())
    snapshot_file.write(
        home.snapshot, msgspec.structs.replace(published, models=(sum_model(),))
    )
    yield made
    driver.current().close()


def leaks(client, mine, theirs):
    """Return every call of one customer that shows something of the other."""
    found = []
    two_days_ago = timezone.now() - datetime.timedelta(days=2)
    names = {
        "from_": f"{two_days_ago:%Y-%m-%dT%H:%M:%SZ}",
        "job_id": theirs.job.pk,
        "upload_id": theirs.upload.pk,
        "model": "sum",
        "version": "3",
    }
    headers = {"Authorization": f"Bearer {mine.issued.token}"}
    calls = [
        (method, path, query)
        for method, path in operations()
        for query in ["", *QUERIES.get(path, [])]
    ]
    for method, path, query in calls:
        response = getattr(client, method)(
            (path + query).format(**names),
            {"model": "sum", "input_uri": uploaded.write(theirs.upload.pk)}
            if method != "get"
            else None,
            content_type="application/json",
            headers=headers,
        )
        owned = "_id}" in path or (method == "post" and path.endswith(READS_FILES))
        unknown = response.status_code == 401
        if (owned and response.status_code != 404) or unknown or _tells(response):
            found.append(f"{method} {path}{query}: {response.status_code}")
    client.force_login(mine.member)
    key_id = theirs.issued.key.key_id
    for page in portal_pages():
        for owner in (mine, theirs):
            path = page.format(customer_id=owner.customer.pk, key_id=key_id)
            response = client.get(path, {"q": MARK} if owner is mine else {})
            foreign = owner is theirs or "{key_id}" in page
            if (foreign and response.status_code != 404) or (
                not foreign and _tells(response, but=f'value="{MARK}"')
            ):
                found.append(f"{page}: {response.status_code}")
    return found


def _tells(response, *, but="\0"):
    body = response.getvalue().decode(errors="replace")
    if f"{MARKED_LIMIT:,}" in body:
        return True
    # A search page repeats the search text.
    return MARK in body.replace(but, "").replace(f"<code>{MARK}</code>. Either", "")


def test_own_objects_are_found_by_the_same_calls(client, worlds):
    mine, _ = worlds
    headers = {"Authorization": f"Bearer {mine.issued.token}"}

    job = client.get(f"/api/v1/jobs/{mine.job.pk}", headers=headers)
    used = client.get("/api/v1/usage?group_by=model", headers=headers)

    assert job.status_code == 200
    assert "mine" in used.content.decode()
    assert files.find(mine.upload.pk, customer_id=mine.customer.pk) == mine.upload


def test_every_kind_of_row_that_has_an_owner_is_named_above():
    owned = {
        model.__name__
        for model in apps.get_models()
        for field in model._meta.get_fields()
        # Histories are copies, which only the admin shows.
        if field.many_to_one
        and field.related_model is Customer
        and not model.__name__.startswith("Historical")
    }

    assert owned == {model.__name__ for model, _ in OWNERS[:-1]} | OF_STAFF_ALONE


def test_nobody_meets_anything_of_another_customer(client, worlds):
    mine, theirs = worlds

    assert len(operations()) > 20
    assert len(portal_pages()) >= 7
    assert leaks(client, mine, theirs) == []


@pytest.mark.parametrize(
    ("model", "owner"), OWNERS, ids=[model.__name__ for model, _ in OWNERS]
)
def test_the_matrix_notices_a_missing_filter_by_owner(
    client, worlds, monkeypatch, model, owner
):
    mine, theirs = worlds
    filtered = QuerySet.filter

    def without_owner(rows, *args, **kwargs):
        if rows.model is model:
            args = [_without(condition, owner) for condition in args]
            kwargs.pop(owner, None)
        return filtered(rows, *args, **kwargs)

    monkeypatch.setattr(QuerySet, "filter", without_owner)

    assert leaks(client, mine, theirs) != []


def _without(condition, owner):
    """Remove a filter by owner from a condition, at any depth."""
    if not isinstance(condition, Q):
        return condition
    kept = [
        _without(child, owner)
        for child in condition.children
        if not (isinstance(child, tuple) and child[0] == owner)
    ]
    return Q(*kept, _connector=condition.connector, _negated=condition.negated)
