import datetime

import msgspec
import pytest

from accounts.models import Price
from accounts.usage import recording, roll_ups
from tests.accounts.quotas.test_leases import NOON, event
from tests.factories import CustomerFactory, issue_key

pytestmark = pytest.mark.django_db
RANGE = "from=2026-11-20&to=2026-11-23"


@pytest.fixture
def issued():
    issued = issue_key(scopes=["usage"])
    other = CustomerFactory()
    hour = datetime.timedelta(hours=1)
    customer = issued.key.customer
    recording.record(
        "boot-1.spool",
        [
            event(customer, 2),
            event(customer, 3, at=NOON + hour),
            event(customer, 4, at=NOON + 24 * hour, charged=False),
            event(other, 100),
        ],
        10,
    )
    return issued


def test_usage_is_given_per_day(call, issued):
    response = call(f"/api/v1/usage?{RANGE}", issued.token)

    assert response.json() == {
        "data": [
            {
                "start": "2026-11-21T00:00:00Z",
                "requests": 2,
                "rows": 5,
                "charged_requests": 2,
                "charged_rows": 5,
                "compute_ms": 0.2,
                "shap_samples": 0,
                "errors": 0,
                "cost": "0",
                "cost_per_request": "0",
            },
            {
                "start": "2026-11-22T00:00:00Z",
                "requests": 1,
                "rows": 4,
                "charged_requests": 0,
                "charged_rows": 0,
                "compute_ms": 0.1,
                "shap_samples": 0,
                "errors": 0,
                "cost": "0",
                "cost_per_request": None,
            },
        ]
    }


def test_usage_is_given_per_hour(call, issued):
    data = call(f"/api/v1/usage?{RANGE}&bucket=hour", issued.token).json()["data"]

    assert [(row["start"][11:13], row["rows"]) for row in data] == [
        ("12", 2),
        ("13", 3),
        ("12", 4),
    ]


def test_usage_is_grouped_by_model(call, issued):
    data = call(f"/api/v1/usage?{RANGE}&group_by=model", issued.token).json()["data"]

    assert [row["model"] for row in data] == ["digits", "digits"]


def test_usage_is_grouped_by_key(call, issued):
    data = call(f"/api/v1/usage?{RANGE}&group_by=key", issued.token).json()["data"]

    assert {row["key"] for row in data} == {f"key{issued.key.customer_id}"}


def test_usage_is_given_per_minute(call, issued):
    path = "/api/v1/usage?from=2026-11-21T12:00Z&to=2026-11-21T14:00Z&bucket=minute"

    data = call(path, issued.token).json()["data"]

    assert [(row["start"], row["rows"]) for row in data] == [
        ("2026-11-21T12:00:00Z", 2),
        ("2026-11-21T13:00:00Z", 3),
    ]


def test_usage_is_grouped_by_version_with_what_each_costs(call, issued):
    customer = issued.key.customer
    for model, amount in (("digits", "0.5"), ("iris", "0.000000001")):
        Price.objects.create(
            plan=customer.plan,
            unit="rows",
            model=model,
            amount=amount,
            valid_from=datetime.date(2026, 1, 1),
        )
    recording.record(
        "boot-2.spool",
        [
            msgspec.structs.replace(event(customer, 7), model="iris"),
            msgspec.structs.replace(event(customer, 8), version="2"),
        ],
        10,
    )

    path = f"/api/v1/usage?{RANGE}&group_by=version"
    data = call(path, issued.token).json()["data"]
    whole = call(f"/api/v1/usage?{RANGE}", issued.token).json()["data"]

    assert [
        (row["model"], row["version"], row["cost"], row["cost_per_request"])
        for row in data
    ] == [
        ("digits", "1", "2.5", "1.25"),
        ("digits", "2", "4", "4"),
        ("iris", "1", "0.000000007", "0.000000007"),
        ("digits", "1", "0", None),
    ]
    # Each model at its own price, together too.
    assert whole[0]["cost"] == "6.500000007"
    assert whole[0]["cost_per_request"] == "1.625000002"


@pytest.mark.parametrize("bucket", ["minute", "hour", "day"])
@pytest.mark.parametrize("group", ["", "&group_by=model", "&group_by=key"])
def test_answers_are_the_same_before_and_after_rolling_up(call, issued, bucket, group):
    span = "from=2026-11-21T12:00Z&to=2026-11-22T12:00Z"
    path = f"/api/v1/usage?{span}&bucket={bucket}{group}"
    before = call(path, issued.token).json()

    roll_ups.roll_up(now=NOON + datetime.timedelta(days=3))

    assert before["data"]
    assert call(path, issued.token).json() == before


def test_a_year_by_day_takes_as_few_queries_as_a_day(
    call, issued, django_assert_max_num_queries
):
    roll_ups.roll_up(now=NOON + datetime.timedelta(days=3))

    with django_assert_max_num_queries(14):
        call("/api/v1/usage?from=2025-11-23&to=2026-11-23T12:30Z", issued.token)


def test_the_end_of_the_range_is_not_in_it(call, issued):
    path = "/api/v1/usage?from=2026-11-21T12:00:00Z&to=2026-11-21T13:00:00Z"

    data = call(path, issued.token).json()["data"]

    assert [row["rows"] for row in data] == [2]


def test_a_customer_without_usage_gets_an_empty_list(call):
    issued = issue_key(scopes=["usage"])

    assert call("/api/v1/usage", issued.token).json() == {"data": []}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("bucket=week", "bucket"),
        ("group_by=secret", "group_by"),
        ("from=yesterday", "from"),
        ("to=2026-13-01", "to"),
        ("from=2026-11-21&to=2026-11-21", "from"),
        ("from=2026-11-22&to=2026-11-21", "from"),
        ("from=2024-01-01&to=2026-01-01", "from"),
        ("from=2026-10-01&to=2026-11-21&bucket=hour", "from"),
        ("from=2026-11-19&to=2026-11-21&bucket=minute", "from"),
        ("to=0001-01-01", "to"),
        ("from=0001-01-01&to=0001-01-02", "to"),
        ("to=9999-12-31", "to"),
        ("from=9999-12-31&to=9999-12-31T12:00:00Z&bucket=minute", "to"),
        ("from=9999-12-31", "from"),
        ("customer=2", "customer"),
        ("to=", "to"),
        ("bucket=", "bucket"),
        ("bucket=day&bucket=hour", "bucket"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused_by_field(call, issued, query, field):
    response = call(f"/api/v1/usage?{query}", issued.token)

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "INVALID_INPUT"
    assert [detail["field"] for detail in response.json()["error"]["details"]] == [
        field
    ]


@pytest.mark.parametrize("offset", ["%2B01:00", "+01:00", "%2B0100", "+01"])
def test_a_blank_before_an_offset_is_the_plus_that_it_was(call, issued, offset):
    """In a query `+` is a blank, unless it is written as %2B."""
    query = f"from=2026-11-20T00:00:00{offset}&to=2026-11-23T00:00:00.5{offset}"

    found = call(f"/api/v1/usage?{query}&bucket=hour", issued.token)

    assert found.status_code == 200, found.content
    right = RANGE.replace("from=2026-11-20", "from=2026-11-19T23:00:00Z")
    same = call(
        f"/api/v1/usage?{right.replace('to=2026-11-23', 'to=2026-11-22T23:00:00.5Z')}"
        "&bucket=hour",
        issued.token,
    )
    assert found.json() == same.json()
    assert found.json()["data"]
